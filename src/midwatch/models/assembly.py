"""Assembly: from the events of a stream to one complete answer, or to the reason why it is none.

In:   each event as the JSON object that the provider sent. Out: pieces of text as they come; at the end a `ChatAnswer`.
May import: sibling `wire`; errors, records. Must not know: clients, routes, budgets.
Why nothing is repaired here: arguments stay the text that the model wrote, so that the tool layer decides, with a
signal, what malformed ones are worth. Without finish reason or usage there is no answer: it may be cut, and cannot be
settled.
Source: OpenAI API reference, "The chat completion chunk object".
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from midwatch.errors import ModelFailure
from midwatch.models.wire import Names
from midwatch.records.chat import ChatAnswer, ChatRequest, FinishReason, ToolRequest, Usage

__all__ = ["Assembly", "call_id"]

_FINISH: Final[Mapping[str, FinishReason]] = {
    "stop": "stop",
    "end_turn": "stop",
    "stop_sequence": "stop",
    "eos": "stop",
    "eos_token": "stop",
    "tool_calls": "tool_calls",
    "tool_use": "tool_calls",
    "function_call": "tool_calls",
    "length": "length",
    "max_tokens": "length",
    "model_length": "length",
    "content_filter": "content_filter",
    "safety": "content_filter",
    "refusal": "content_filter",
}
"""The API's own words, and those of servers that are compatible with it in all else."""


@dataclass(slots=True)
class _Call:
    id: str = ""
    name: str = ""
    arguments: str = ""


class Assembly:
    """One answer in the making. `size` is the UTF-8 bytes of all that the model has visibly generated so far."""

    def __init__(self, route: str) -> None:
        self.size = 0
        self._route = route
        self._text: list[str] = []
        self._refusal: list[str] = []
        self._calls: dict[int, _Call] = {}
        self._finish: str | None = None
        self._usage: Usage | None = None
        self._model = self._id = ""

    def feed(self, event: Any) -> str:
        """Take one event in; returns the piece of text in it, which may be empty.

        Raises:
            ModelFailure: `malformed`, the event has not the API's shape.
        """
        if not isinstance(event, Mapping):
            raise self._malformed("an event that is no object")
        self._model = self._model or _text(event.get("model"))
        self._id = self._id or _text(event.get("id"))
        self._count(event.get("usage"))
        choices = event.get("choices")
        choice = choices[0] if isinstance(choices, list) and choices else None
        if not isinstance(choice, Mapping):
            return ""
        self._finish = _text(choice.get("finish_reason")) or self._finish
        delta = choice.get("delta")
        if not isinstance(delta, Mapping):
            return ""
        piece, refusal = _text(delta.get("content")), _text(delta.get("refusal"))
        hidden = _text(delta.get("reasoning_content")) or _text(delta.get("reasoning"))
        self._text.append(piece)
        self._refusal.append(refusal)
        self.size += _bytes(piece) + _bytes(refusal) + _bytes(hidden)
        for position, fragment in enumerate(delta.get("tool_calls") or ()):
            self._add(fragment, position)
        return piece

    def _add(self, fragment: Any, position: int) -> None:
        function = fragment.get("function") if isinstance(fragment, Mapping) else None
        if not isinstance(fragment, Mapping) or not isinstance(function, Mapping):
            raise self._malformed("a tool call that is no object")
        index = fragment.get("index")
        name, arguments = _text(function.get("name")), function.get("arguments")
        if isinstance(arguments, Mapping):  # some servers send the object itself
            arguments = json.dumps(arguments, ensure_ascii=False)
        call = self._calls.setdefault(self._slot(index, _text(fragment.get("id")), name, position), _Call())
        call.id = call.id or _text(fragment.get("id"))
        call.name = call.name or name
        call.arguments += _text(arguments)
        self.size += _bytes(name) + _bytes(_text(arguments))

    def _slot(self, index: Any, call: str, name: str, position: int) -> int:
        """Say which call a fragment belongs to. Servers leave the index out, or send several calls under one."""
        last = max(self._calls, default=-1)
        if not isinstance(index, int) or isinstance(index, bool):
            return last + 1 if name or last < 0 else last if position == 0 else position
        held = self._calls.get(index)
        if held is not None and name and call and held.id and call != held.id:
            return last + 1
        return index

    def _count(self, usage: Any) -> None:
        if not isinstance(usage, Mapping):
            return
        into, out = _whole(usage.get("prompt_tokens")), _whole(usage.get("completion_tokens"))
        if into is None or out is None or into + out == 0:
            return
        details = usage.get("prompt_tokens_details")
        cached = (_whole(details.get("cached_tokens")) or 0) if isinstance(details, Mapping) else 0
        # Some providers leave reasoning out of the completion; the total has it.
        out = max(out, (_whole(usage.get("total_tokens")) or 0) - into)
        before = self._usage or Usage(0, 0)
        into = max(into, before.input)
        self._usage = Usage(into, max(out, before.output), min(into, max(cached, before.cached)))

    def answer(self, request: ChatRequest, names: Names) -> ChatAnswer:
        """Give the complete answer.

        Raises:
            ModelFailure: `no_finish`, `no_usage` or `malformed`; always dispatched.
        """
        usage, finish = self._usage, _FINISH.get(self._finish or "")
        if finish is None:
            why = f"with the unknown reason `{self._finish[:40]}`" if self._finish else "without a finish reason"
            message = f"the answer on route `{self._route}` ended {why}; it may be cut"
            raise ModelFailure("no_finish", message, retryable=True, dispatched=True)
        if usage is None:
            message = (
                f"the answer on route `{self._route}` came without usage, so it cannot be settled; "
                "use a server that reports usage in streams"
            )
            raise ModelFailure("no_usage", message, retryable=False, dispatched=True)
        calls, signals = self._requests(request, names)
        if finish == "tool_calls" and not calls:
            raise self._malformed("the finish reason `tool_calls` and no tool call")
        text, refusal = _mended("".join(self._text)), _mended("".join(self._refusal))
        if refusal:
            finish, signals = "content_filter", (*signals, "refusal")
        elif finish == "stop" and calls:
            finish = "tool_calls"
        return ChatAnswer(text or refusal, calls, usage, finish, _mended(self._model), _mended(self._id), signals)

    def _requests(self, request: ChatRequest, names: Names) -> tuple[tuple[ToolRequest, ...], tuple[str, ...]]:
        made: list[ToolRequest] = []
        used = {call.id for message in request.messages for call in message.tool_calls}
        signals: list[str] = []
        for position, index in enumerate(sorted(self._calls)):
            call = self._calls[index]
            given = _mended(call.id)
            identity = given if given and given not in used else call_id(request, position)
            used.add(identity)
            arguments = _mended(call.arguments)
            if not arguments.strip():  # how many servers write a call without arguments
                arguments = "{}"
                signals.append("empty_arguments")
            made.append(ToolRequest(identity, names.from_wire(_mended(call.name)), arguments))
        return tuple(made), tuple(dict.fromkeys(signals))

    def _malformed(self, what: str) -> ModelFailure:
        message = f"the provider of route `{self._route}` sent {what}"
        return ModelFailure("malformed", message, retryable=True, dispatched=True)


def call_id(request: ChatRequest, position: int) -> str:
    """Make the id of a call that has none of its own: the same for the same conversation and place."""
    body = json.dumps([request.to_json(), position], sort_keys=True)
    return "call_" + hashlib.sha256(body.encode()).hexdigest()[:24]


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _mended(text: str) -> str:
    """Join halves of a character that came in two pieces; a half without its other becomes U+FFFD, since UTF-8 cannot keep it."""
    return text if text.isascii() else text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _bytes(text: str) -> int:
    return len(text.encode("utf-8", "surrogatepass"))


def _whole(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None
