"""Strict decoding: text becomes one JSON value, or it is clear why not.

In:   text.
Out:  a value that any JSON writer can write again unchanged, or `NotStrict` with a code from a closed list.
May import: the standard library. Must not know: schemas, repair.
Why not a library: every JSON reader here lets the last of two equal keys win. `{"action": "restart", ..., "action":
"delete"}` shows one thing to a reviewer and another to the program, so equal keys are refused (RFC 8259, section 4,
calls the behaviour unpredictable). NaN and infinities are no JSON; a lone surrogate cannot be stored as UTF-8.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from typing import Any, Final

__all__ = ["MAX_DEPTH", "NotStrict", "decode_at", "depth_of", "loads_strict"]

MAX_DEPTH: Final = 64
"""How deep arrays and objects may nest. What people and tools write stays below 20."""

MAX_DIGITS: Final = 1_024
"""How many digits a whole number may have. Python's own conversion is quadratic and ends at 4,300."""

_SURROGATE: Final = re.compile("[\ud800-\udfff]")
_ESCAPED_SURROGATE: Final = re.compile(r"\\u[dD][89a-fA-F]")


class NotStrict(ValueError):
    """The text is no strict JSON value. The caller refuses it or tries to recover; it never reaches a user.

    Attributes:
        code: `syntax, duplicate_keys, not_finite, too_deep, too_big, surrogate`.
        at: offset in characters where decoding stopped, or -1 when it cannot be known.
    """

    def __init__(self, code: str, at: int = -1) -> None:
        self.code, self.at = code, at
        super().__init__(f"not strict JSON: {code.replace('_', ' ')}")


def _pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise NotStrict("duplicate_keys")
    return found


def _no_constant(_name: str) -> Any:
    raise NotStrict("not_finite")


def _int(digits: str) -> int:
    if len(digits) > MAX_DIGITS:
        raise NotStrict("too_big")
    return int(digits)


def _float(digits: str) -> float:
    number = float(digits)
    if not math.isfinite(number):
        raise NotStrict("not_finite")
    return number


_DECODER: Final = json.JSONDecoder(
    object_pairs_hook=_pairs, parse_constant=_no_constant, parse_int=_int, parse_float=_float
)


def loads_strict(text: str) -> Any:
    """Decode the whole text as one JSON value.

    Args:
        text: JSON, with whitespace around it at most. Whole numbers stay exact, whatever their size.

    Raises:
        NotStrict: equal keys in one object, NaN or an infinity (also by overflow), deeper than `MAX_DEPTH`, a number
            of more than `MAX_DIGITS` digits, a lone surrogate, or no JSON at all. Never anything else.

    Source: RFC 8259, sections 4, 6 and 8.
    """
    start = len(text) - len(text.lstrip(" \t\r\n"))
    value, end = decode_at(text, start)
    if text[end:].strip(" \t\r\n"):
        raise NotStrict("syntax", end)
    return value


def decode_at(text: str, start: int) -> tuple[Any, int]:
    """Decode one JSON value that begins at `start`; give it and the offset behind it.

    Raises:
        NotStrict: as `loads_strict`; `at` is how far a syntax error was away.
    """
    try:
        value, end = _DECODER.raw_decode(text, start)
    except json.JSONDecodeError as problem:
        # An unterminated string is reported at its beginning, although the rest of the text was read.
        raise NotStrict("syntax", len(text) if problem.msg.startswith("Unterminated") else problem.pos) from None
    except RecursionError:
        raise NotStrict("too_deep") from None
    if depth_of(value) > MAX_DEPTH:
        raise NotStrict("too_deep")
    source = text[start:end]
    if (_SURROGATE.search(source) or _ESCAPED_SURROGATE.search(source)) and _has_surrogate(value):
        raise NotStrict("surrogate")
    return value, end


def depth_of(value: Any) -> int:
    """Say how deep arrays and objects nest: 0 for a scalar. Counts no further than one above `MAX_DEPTH`."""
    depth, level = 0, [value]
    while depth <= MAX_DEPTH:
        level = [item for item in level if isinstance(item, dict | list)]
        if not level:
            return depth
        depth += 1
        level = [child for item in level for child in (item.values() if isinstance(item, dict) else item)]
    return depth


def _strings(value: Any) -> Iterator[str]:
    todo = [value]
    while todo:
        item = todo.pop()
        if isinstance(item, str):
            yield item
        elif isinstance(item, dict):
            yield from item
            todo.extend(item.values())
        elif isinstance(item, list):
            todo.extend(item)


def _has_surrogate(value: Any) -> bool:
    return any(_SURROGATE.search(item) for item in _strings(value))
