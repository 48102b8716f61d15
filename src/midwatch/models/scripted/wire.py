"""Wire: a reply in the shapes of the OpenAI chat API, whole or as the events of a stream.

In:   a `Reply`, the ids and time of its envelope, the usage to report.
Out:  JSON objects; for streams a list of `Event`s, each knowing how much was generated up to it.
May import: sibling `faults`. Must not know: sockets, rules, the bill.
Source: OpenAI API reference, "The chat completion object" and "The chat completion chunk object".
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from midwatch.models.scripted.faults import Reply

__all__ = ["Event", "Head", "completion", "events"]

_MOST_PIECES: Final = 256


@dataclass(frozen=True, slots=True)
class Head:
    """What every object of one answer repeats. `created` in seconds since 1970."""

    id: str
    created: int
    model: str

    def body(self, kind: str, **rest: Any) -> dict[str, Any]:
        """The object of that `kind` with `rest` in it."""
        return {
            "id": self.id,
            "object": kind,
            "created": self.created,
            "model": self.model,
            "system_fingerprint": "scripted",
            **rest,
        }


@dataclass(frozen=True, slots=True)
class Event:
    """One event of a stream.

    Attributes:
        generated: UTF-8 bytes of the reply that are out with it.
        last: it ends the answer, or follows its end.
    """

    body: Mapping[str, Any]
    generated: int
    last: bool


def completion(head: Head, reply: Reply, usage: Mapping[str, Any] | None) -> dict[str, Any]:
    """The answer as one object; without a `usage` key when `usage` is None."""
    message: dict[str, Any] = {"role": "assistant", "content": reply.text or None, "refusal": None}
    if reply.calls:
        message["tool_calls"] = [
            {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
            for call in reply.calls
        ]
    elif not reply.text:
        message["content"] = ""
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": reply.finish}
    body = head.body("chat.completion", choices=[choice])
    if usage is not None:
        body["usage"] = dict(usage)
    return body


def events(head: Head, reply: Reply, usage: Mapping[str, Any] | None, chars: int) -> list[Event]:
    """The answer as a stream.

    Args:
        usage: sent in an event of its own at the end; None when it was not asked for, or is withheld.
        chars: characters in one piece of text; more when a text would make over 256 pieces.
    """
    with_usage = {} if usage is None else {"usage": None}
    kind = "chat.completion.chunk"

    def event(delta: Mapping[str, Any], generated: int, finish: str | None = None, *, last: bool = False) -> Event:
        choice = {"index": 0, "delta": dict(delta), "logprobs": None, "finish_reason": finish}
        return Event(head.body(kind, choices=[choice], **with_usage), generated, last)

    sent = 0
    stream = [event({"role": "assistant", "content": None if reply.calls and not reply.text else ""}, 0)]
    for piece in _pieces(reply.text, chars):
        sent += len(piece.encode())
        stream.append(event({"content": piece}, sent))
    for index, call in enumerate(reply.calls):
        sent += len(call.name.encode())
        opening = {"name": call.name, "arguments": ""}
        delta = {"index": index, "id": call.id, "type": "function", "function": opening}
        stream.append(event({"tool_calls": [delta]}, sent))
        for piece in _pieces(call.arguments, chars):
            sent += len(piece.encode())
            stream.append(event({"tool_calls": [{"index": index, "function": {"arguments": piece}}]}, sent))
    if reply.finish is not None:
        stream.append(event({}, sent, reply.finish, last=True))
    if usage is not None:
        stream.append(Event(head.body(kind, choices=[], usage=dict(usage)), sent, last=True))
    return stream


def _pieces(source: str, chars: int) -> Iterator[str]:
    size = max(chars, -(-len(source) // _MOST_PIECES))
    return (source[start : start + size] for start in range(0, len(source), size))
