"""Sizing: a result that is too large for a reader becomes a part of itself that says what is missing.

In:   a JSON value and a number of bytes.
Out:  `Fitted`: at most so many bytes of JSON, and where to read on.
May import: `shape`. Must not know: tools, blobs, envelopes.
Why lists are paged before texts are cut: half a list of whole things is useful, a list of half things is not.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from midwatch.tools.shape import pick

__all__ = ["Fitted", "encode", "fit", "size"]

_TEXT_BOUNDS: Final = (4096, 1024, 256, 64)
_LIST_BOUNDS: Final = (64, 16, 4, 1, 0)
_MAX_DEPTH: Final = 12


@dataclass(frozen=True, slots=True)
class Fitted:
    """What is shown.

    Attributes:
        path: dotted path of the list or text that goes on, None when nothing can be paged.
        shown: items or characters of it that are shown; total: of all that there are, from the page's start.
        cut: some text or inner list was shortened, so that only the whole body has it.
    """

    data: Any
    path: str | None = None
    shown: int = 0
    total: int = 0
    cut: bool = False


def encode(value: Any) -> bytes:
    """Write canonical UTF-8 JSON: sorted keys, no spaces.

    Raises:
        ValueError: NaN, an infinity, half of a character, a value that contains itself.
        TypeError: something that JSON does not have.
        RecursionError: nested too deep.
    """
    return json.dumps(value, allow_nan=False, ensure_ascii=False, sort_keys=True, separators=(",", ":")).encode()


def size(value: Any) -> int:
    """Count the bytes of a value that JSON can carry."""
    return len(encode(value))


def fit(value: Any, limit: int) -> Fitted:
    """Shorten `value` to at most `limit` bytes of JSON, > 100. What fits comes back unchanged."""
    if size(value) <= limit:
        return Fitted(value)
    path = _largest(value)
    if path is not None:
        paged = _page(value, path, limit)
        if paged is not None:
            return paged
    for bound in _TEXT_BOUNDS:
        cut = _shorten(value, bound, None, 0)
        if size(cut) <= limit:
            return Fitted(cut, cut=True)
        paged = None if path is None or not isinstance(pick(cut, path), list) else _page(cut, path, limit)
        if paged is not None:
            return Fitted(paged.data, paged.path, paged.shown, paged.total, cut=True)
    for bound in _LIST_BOUNDS:
        cut = _shorten(value, _TEXT_BOUNDS[-1], bound, 0)
        if size(cut) <= limit:
            return Fitted(cut, cut=True)
    return Fitted(_empty(value), cut=True)


def _empty(value: Any) -> Any:
    if isinstance(value, dict):
        return {}
    if isinstance(value, list):
        return []
    return "" if isinstance(value, str) else None


def _reachable(value: Any, path: str = "", depth: int = 0) -> Iterator[tuple[str, Any]]:
    if isinstance(value, list | str):
        yield path, value
    elif isinstance(value, dict) and depth < _MAX_DEPTH:
        for key, item in value.items():
            if key and "." not in key and ":" not in key:
                yield from _reachable(item, f"{path}.{key}" if path else key, depth + 1)


def _largest(value: Any) -> str | None:
    """Find the largest list or text that a path of keys leads to."""
    sizes = {path: size(part) for path, part in _reachable(value)}
    return max(sizes, key=sizes.__getitem__, default=None)


def _page(value: Any, path: str, limit: int) -> Fitted | None:
    """Keep as many items, or characters, from the start of one list or text as fit; None when not even one does."""
    whole = pick(value, path)
    room = limit - size(_replaced(value, path, whole[:0]))
    count = _prefix(whole, room)
    if count < 1:
        return None
    return Fitted(_replaced(value, path, whole[:count]), path, count, len(whole))


def _prefix(whole: list[Any] | str, room: int) -> int:
    """Count the items (with their commas), or characters (as JSON writes them), that take at most `room` bytes."""
    used = 0
    for count, item in enumerate(whole):
        used += size(item) - 2 if isinstance(whole, str) else size(item) + (count > 0)
        if used > room:
            return count
    return len(whole)


def _replaced(value: Any, path: str, part: Any) -> Any:
    head, _, rest = path.partition(".")
    if not head:
        return part
    return {**value, head: _replaced(value[head], rest, part)}


def _shorten(value: Any, texts: int, lists: int | None, depth: int) -> Any:
    """Cut every text to `texts` characters and every list to `lists` items; a note says what is missing."""
    if isinstance(value, str) and len(value) > texts + 40:
        return f"{value[:texts]}… [{texts:,} of {len(value):,} characters]"
    if isinstance(value, list):
        kept = value if lists is None else value[:lists]
        return [_shorten(item, texts, lists, depth + 1) for item in kept]
    if isinstance(value, dict):
        return {key: _shorten(item, texts, lists, depth + 1) for key, item in value.items()}
    return value
