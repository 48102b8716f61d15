"""Tokens: how many a request can be, before it is sent and without a tokenizer.

In:   a `ChatRequest`. Out: a whole number that the provider's own count cannot exceed; a live meter for the answer; whether a
reported count can be true.
May import: siblings `wire`, `constrained`; records. Must not know: prices, budgets, clients.
Why bytes: a byte-level or byte-fallback tokenizer never makes more tokens than the text has UTF-8 bytes, whatever the
language. Counting characters and dividing by four is 15 times too low at worst, and a vocabulary is another model's.
What is added to the bytes: the template around each message and tool, the longest rendering of schemas that templates
use, and the expansion of Unicode normalisation (NFC, NFKC) that some tokenizers apply first.
"""

from __future__ import annotations

import functools
import json
import unicodedata
from collections.abc import Callable
from typing import Any, Final

from midwatch.models.constrained import constrained_payload
from midwatch.models.wire import Names, native_payload
from midwatch.records.chat import ChatAnswer, ChatRequest

__all__ = ["believable", "input_bound", "live_meter"]

_BASE: Final = 128
"""What a template puts around a conversation."""
_PER_MESSAGE: Final = 32
_TOOLS: Final = 1024
"""What a template says about tools in general; the longest published one is about 530 tokens."""
_PER_TOOL: Final = 64
_BYTES_PER_TOKEN: Final = 32
"""No text that is worth reading has more bytes a token; single tokens do (runs of spaces), whole answers do not."""
_SLACK: Final = 4096
_SIGNS_PER_TOKEN: Final = 8
"""No language has so many signs a token over a whole text, blanks left out: English has under five, source code under four."""


def input_bound(request: ChatRequest, *, protocol: str) -> int:
    """Bound the input tokens of a request from above.

    Args:
        protocol: `native` or `constrained`: what is sent differs.

    Returns:
        Whole tokens, > 0: the UTF-8 bytes of everything that is sent, and the overheads above.
    """
    payload = constrained_payload(request) if protocol == "constrained" else native_payload(request, Names.of(request))
    bound = _BASE + _widest(_dump(payload.messages))
    for message in payload.messages:
        # A template may parse the arguments and write them anew; they are counted a second time for it.
        calls: list[dict[str, Any]] = message.get("tool_calls", [])
        bound += _PER_MESSAGE + sum(_PER_TOOL + _widest(_dump(call["function"])) for call in calls)
    if payload.tools is not None:
        bound += _TOOLS + _PER_TOOL * len(payload.tools) + _schema_bytes(payload.tools)
    if payload.response_format is not None:
        bound += _PER_TOOL + _schema_bytes(payload.response_format)
    return bound


def live_meter(max_output: int) -> Callable[[int], bool]:
    """Give a `stop` for `ChatModel.chat` that cuts a server which ignores its output cap.

    It never cuts an honest answer: it waits for `32 * max_output + 4096` bytes, more than so many tokens can sensibly
    be.
    """
    ceiling = _BYTES_PER_TOKEN * max_output + _SLACK
    return lambda seen: seen > ceiling


def believable(request: ChatRequest, answer: ChatAnswer) -> bool:
    """Say whether the usage that came with an answer can be true: whether it is not far too low for what was sent and what came.

    It finds a report of less than about a third of the truth. What a provider's template leaves out (schemas) is not counted here.
    """
    sent = sum(
        _signs(message.content) + sum(_signs(call.arguments) for call in message.tool_calls)
        for message in request.messages
    )
    sent += sum(_signs(tool.description) for tool in request.tools)
    came = _signs(answer.content) + sum(_signs(call.name) + _signs(call.arguments) for call in answer.tool_calls)
    return answer.usage.input >= sent // _SIGNS_PER_TOKEN and answer.usage.output >= came // _SIGNS_PER_TOKEN


def _signs(text: str) -> int:
    return len(text) - sum(map(text.count, " \n\t\r"))


def _dump(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def _schema_bytes(value: Any) -> int:
    # Templates print schemas indented or with every sign outside ASCII escaped; both together are the longest. An agent asks with
    # the same schemas at each turn, and printing them indented is slow.
    return _indented_bytes(json.dumps(value))


@functools.lru_cache(maxsize=64)
def _indented_bytes(text: str) -> int:
    return len(json.dumps(json.loads(text), indent=4))


def _widest(text: str) -> int:
    if text.isascii():
        return len(text)
    forms = (text, unicodedata.normalize("NFC", text), unicodedata.normalize("NFKC", text))
    return max(len(form.encode("utf-8", "surrogatepass")) for form in forms)
