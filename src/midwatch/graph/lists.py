"""Lists of state: which of a list's first items are the ones that were stored last time.

In:   a list as it is now, and what was remembered of it when it was stored.
Out:  how many first items are unchanged, the encoded rest, and what to remember next time.
May import: graph.serde. Must not know: the store, LangGraph's saver.
Why not identity alone: a node may change a message in place, and the same object then holds other content. So each
item leaves a mark: a plain immutable value is its own; a message's is its attributes by identity plus the packed
bytes of all that can be changed inside; anything else is encoded again and compared by the hash of its bytes. The
mark of a message costs about 1 µs where its encoding costs several, and no mark ever says "unchanged" of an item that
would be encoded to other bytes.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import ormsgpack
from langchain_core.messages import BaseMessage

from midwatch.graph.serde import PACK

__all__ = ["Known", "Memory", "Stored", "compare", "known"]

_Item = tuple[str, bytes]
_Encode = Callable[[Any], _Item]

_PLAIN: Final = frozenset({str, int, bool, bytes, type(None)})
_FIXED: Final = frozenset({str, type(None)})
_EXACT: Final = PACK | ormsgpack.OPT_PASSTHROUGH_SUBCLASS
_ITSELF: Final = None
_LINES: Final = 64


@dataclass(frozen=True, slots=True)
class Known:
    """A list as it was stored.

    Attributes:
        version: of the channel.
        items: the objects themselves, in order.
        marks: one an item: None (the object is its own mark), a tuple (a message), or an int (hash of the encoding).
    """

    version: str
    items: tuple[Any, ...]
    marks: tuple[Any, ...]


@dataclass(slots=True)
class Stored:
    """What is known to be stored in one line: per channel the version stored last, and the list stored last."""

    versions: dict[str, str] = field(default_factory=dict)
    lists: dict[str, Known] = field(default_factory=dict)


class Memory:
    """What one saver remembers of the lines (thread, namespace) it used last.

    Being out of date costs time, never content: a list says itself which version it is, and the store refuses to build
    on, or to name, a version that is gone.
    """

    __slots__ = ("_lines", "_lock")

    def __init__(self) -> None:
        self._lines: OrderedDict[tuple[str, str], Stored] = OrderedDict()
        self._lock = threading.Lock()

    def line(self, line: tuple[str, str]) -> Stored:
        """Give what is known of a line, to be changed in place; the line longest unused falls out."""
        with self._lock:
            stored = self._lines.pop(line, None) or Stored()
            self._lines[line] = stored
            while len(self._lines) > _LINES:
                self._lines.popitem(last=False)
        return stored

    def read(self, line: tuple[str, str], channels: Sequence[tuple[str, str]], lists: Mapping[str, Known]) -> None:
        """Keep what was just read as the base of the next write, unless the line was used already."""
        stored = self.line(line)
        if not stored.versions:
            stored.versions, stored.lists = dict(channels), dict(lists)

    def forget(self, thread: str | None = None) -> None:
        """Forget a thread, or everything."""
        with self._lock:
            for line in [line for line in self._lines if thread is None or line[0] == thread]:
                del self._lines[line]


def known(version: str, items: Sequence[Any], encoded: Sequence[_Item]) -> Known:
    """Remember a list that was just read or written, with its items' encodings."""
    return Known(version, tuple(items), tuple(_mark(item, body) for item, body in zip(items, encoded, strict=True)))


def compare(base: Known | None, version: str, value: Sequence[Any], encode: _Encode) -> tuple[int, list[_Item], Known]:
    """Give (unchanged first items, encoded items after these, what to remember).

    Raises:
        StateRefused: from `encode`; nothing is remembered then.
    """
    keep = 0 if base is None else _unchanged(base, value, encode)
    encoded = [encode(item) for item in value[keep:]]
    rest = known(version, value[keep:], encoded)
    before = () if base is None else base.marks[:keep]
    return keep, encoded, Known(version, tuple(value), (*before, *rest.marks))


def _unchanged(base: Known, value: Sequence[Any], encode: _Encode) -> int:
    count = 0
    for now, old, mark in zip(value, base.items, base.marks, strict=False):
        if mark is _ITSELF:
            if type(now) is not type(old) or now != old:
                break
        elif type(mark) is tuple:
            if not _same_message(now, mark):
                break
        elif hash(encode(now)) != mark:
            break
        count += 1
    return count


def _mark(item: Any, body: _Item) -> Any:
    if type(item) in _PLAIN:
        return _ITSELF
    if isinstance(item, BaseMessage):
        packed = _changeable(item)
        if packed is not None:
            return type(item), dict(item.__dict__), packed
    return hash(body)


def _same_message(now: object, mark: tuple[type, dict[str, Any], bytes]) -> bool:
    cls, attributes, packed = mark
    # The packed bytes come first: once they agree, the attributes hold nothing but plain data, whose `==` is safe.
    return (
        isinstance(now, BaseMessage) and type(now) is cls and _changeable(now) == packed and now.__dict__ == attributes
    )


def _changeable(message: BaseMessage) -> bytes | None:
    """Pack what of a message is not a string: exact for plain data, None when it holds anything else."""
    rest: list[Any] = [value for value in message.__dict__.values() if type(value) not in _FIXED]
    rest.append(message.__pydantic_extra__)
    try:
        return ormsgpack.packb(rest, option=_EXACT)
    except TypeError:
        return None
