"""Tags: tool calls that a model wrote as elements, the way its template taught it.

In:   a text and the place of an opening tag. Out: a name with its parameters as text, and where it ends; or why it is none.
      Later: the values that such a call can mean.
May import: recovery.strict. Must not know: schemas; the gate behind it decides which of the readings is meant.
Why readings: `<parameter=minutes>30</parameter>` says nothing about types. The text as it stands and the JSON value in it are both
offered, in each of the envelopes that schemas of calls use; one must fit and no other, or nobody can say what was meant.

    <function=NAME><parameter=KEY>VALUE</parameter>…</function>
    <invoke name="NAME"><parameter name="KEY">VALUE</parameter>…</invoke>
    <tool_call><name>NAME</name><arguments>{…}</arguments></tool_call>
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from midwatch.recovery.strict import NotStrict, loads_strict

__all__ = ["OPENING", "Tagged", "readings", "tagged_at"]

_NAME: Final = r"[\w.:/-]{1,100}"
OPENING: Final = rf"<function={_NAME}>|<invoke\s{{1,5}}name=\"{_NAME}\"\s{{0,5}}>|<tool_call>\s{{0,20}}<name>"
"""Where a call begins; for the scan, which reads from left to right and so never looks into strings."""

_MOST: Final = 24
"""Parameters of one call; with more, or with more than `_TRIES` readings, nothing is tried."""
_TRIES: Final = 256
_HEAD: Final = re.compile(
    rf"<function=(?P<function>{_NAME})>|<invoke\s+name=\"(?P<invoke>{_NAME})\"\s*>|<tool_call>\s*"
)
_PARAMETER: Final = re.compile(rf"\s*<parameter(?:=(?P<plain>{_NAME})|\s+name=\"(?P<named>{_NAME})\")\s*>")
_BODY: Final = re.compile(
    rf"<name>\s*(?P<name>{_NAME})\s*</name>\s*<(?P<tag>arguments|args|parameters)>(?P<body>.*?)</(?P=tag)>\s*</tool_call>",
    re.DOTALL,
)
_CLOSING: Final = {"function": "</function>", "invoke": "</invoke>"}
_WORDS: Final = {"True": True, "False": False, "None": None}


@dataclass(frozen=True, slots=True)
class Tagged:
    """One call.

    Attributes:
        name: of the tool, as written. parameters: key and text of each, in order.
        arguments: the whole of them as JSON text, for the form that has one.
    """

    name: str
    parameters: tuple[tuple[str, str], ...] = ()
    arguments: str | None = None


def tagged_at(text: str, start: int) -> tuple[Tagged | str, int]:
    """Read the call that begins at `start`; give it and the place behind it.

    Returns:
        Instead of a call the code of a refusal: `truncated` where the text ends in it, `duplicate_keys`, `too_complex`, or
        `ambiguous` where something stands between its parts.
    """
    head = _HEAD.match(text, start)
    if head is None:
        return "ambiguous", start + 1
    if head.lastgroup is None:
        return _whole(text, head.end())
    found: dict[str, str] = {}
    position, closing = head.end(), _CLOSING[head.lastgroup]
    while parameter := _PARAMETER.match(text, position):
        key = parameter["plain"] or parameter["named"]
        end = text.find("</parameter>", parameter.end())
        if end < 0:
            return "truncated", len(text)
        if key in found:
            return "duplicate_keys", end
        found[key] = _trimmed(text[parameter.end() : end])
        position = end + len("</parameter>")
        if len(found) > _MOST:
            return "too_complex", position
    rest = text[position : position + 200].lstrip()
    if rest.startswith(closing):
        return Tagged(head[head.lastgroup], tuple(found.items())), text.index(closing, position) + len(closing)
    if not rest or closing.startswith(rest):
        return "truncated", len(text)
    return "ambiguous", position


def _whole(text: str, start: int) -> tuple[Tagged | str, int]:
    body = _BODY.match(text, start)
    if body is not None:
        return Tagged(body["name"], arguments=body["body"]), body.end()
    end = text.find("</tool_call>", start)
    return ("truncated", len(text)) if end < 0 else ("ambiguous", end)


def _trimmed(text: str) -> str:
    """Take away the one line break that templates put around a value; everything else is the value's own."""
    return text.removeprefix("\r").removeprefix("\n").removesuffix("\n").removesuffix("\r")


def readings(call: Tagged) -> Iterator[Any]:
    """Give what a call can mean: each typing of its values, in each envelope. None at all where there are too many.

    Raises:
        NotStrict: its arguments are one JSON text, and that is none.
    """
    if call.arguments is not None:
        bodies: list[dict[str, Any]] = [loads_strict(call.arguments)]
    else:
        choices = [[(key, value) for value in _values(text)] for key, text in call.parameters]
        count = 1
        for choice in choices:
            count *= len(choice)
        bodies = [dict(pairs) for pairs in itertools.product(*choices)] if count <= _TRIES else []
    for body in bodies:
        yield {"tool": call.name, "args": body}
        yield {"tool": call.name, "arguments": body}
        yield {"name": call.name, "arguments": body}


def _values(text: str) -> list[Any]:
    """Give the text, and the value that it spells where it spells another one."""
    plain = text.strip()
    if plain in _WORDS:
        return [text, _WORDS[plain]]
    try:
        value = loads_strict(plain)
    except NotStrict:
        return [text]
    return [text, value]
