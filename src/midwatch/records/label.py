"""Label: who may have influenced a value, and who may read it; frozen, interned, attached by the kernel alone.

In:   causes as the kernel and its adapters know them. Out: `Cause`, `Label`, `join`, and the JSON that the ledger keeps.
May import: the standard library. Must not know: what a cause may bring about, where a value is kept.
Why classes of causes and no events: a label's size is bounded by the fleet, not by history; the history is the ledger's edges.
Why `from_json` never fails: a label that cannot be read is an unknown one, which nothing trusts and nobody may read.
Source: CONTAINMENT.md, clauses 1-5; Biba's low-water mark for causes, its dual for readers.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final, Literal, get_args

__all__ = ["EVERYONE", "OPERATOR", "UNKNOWN", "UNKNOWN_CAUSE", "Cause", "CauseKind", "Label", "join", "label"]

CauseKind = Literal["operator", "person", "source", "service", "caller", "third_party", "agent", "unknown"]
"""`operator`: the fleet file and what was endorsed. `person`: who asked or answered. `source`: declared in `sources:`. `service`, `caller`,
`third_party`: the author of a field of a tool's result. `agent`: wrote it by itself. `unknown`: nobody can say."""

CAUSE_KINDS: Final[tuple[CauseKind, ...]] = get_args(CauseKind)
EVERYONE: Final = None
"""As readers: whoever it reaches may read it. The empty set is the opposite: nobody may."""

_NAMELESS: Final = frozenset({"operator", "unknown"})
_NAME: Final = re.compile(r"[^\s:][^\x00-\x1f\x7f]{0,199}")
_INTERNED_MOST: Final = 1 << 16


@dataclass(frozen=True, slots=True, order=True)
class Cause:
    """One class of influence, such as `third_party:mail.read`; written and compared as that text.

    Attributes:
        name: of the person, source, tool or agent; empty for `operator` and `unknown`.

    Raises:
        ValueError: no such kind, or a name that is missing, superfluous or unprintable; whoever wrote the adapter corrects it.
    """

    kind: CauseKind
    name: str = ""

    def __post_init__(self) -> None:
        if self.kind not in CAUSE_KINDS:
            raise ValueError(f"`{self.kind}` is no kind of cause; use one of {', '.join(CAUSE_KINDS)}")
        if (self.kind in _NAMELESS) != (not self.name) or (self.name and _NAME.fullmatch(self.name) is None):
            raise ValueError(
                f"a cause of kind `{self.kind}` has {'no' if self.kind in _NAMELESS else 'one printable'} name"
            )

    def __str__(self) -> str:
        return f"{self.kind}:{self.name}" if self.name else self.kind

    @staticmethod
    def parse(text: str) -> Cause:
        """Read `str(cause)` back; ValueError when it is none."""
        kind, _, name = text.partition(":")
        return Cause(kind, name)  # type: ignore[arg-type]  # checked where it is made


UNKNOWN_CAUSE: Final = Cause("unknown")


@dataclass(frozen=True, slots=True, eq=False)
class Label:
    """Causes, and readers or `EVERYONE`. Made by `label` and `join`; equal labels are one object as long as the table has room.

    Attributes:
        causes: never empty: what nobody is known to have caused has the cause `unknown`.
        readers: names of principals, routes, targets; None: everyone; empty: nobody.
    """

    causes: frozenset[Cause]
    readers: frozenset[str] | None

    def __eq__(self, other: object) -> bool:
        return self is other or (
            isinstance(other, Label) and self.causes == other.causes and self.readers == other.readers
        )

    def __hash__(self) -> int:
        return hash((self.causes, self.readers))

    @property
    def known(self) -> bool:
        """Say whether every cause is known."""
        return UNKNOWN_CAUSE not in self.causes

    def to_json(self) -> dict[str, Any]:
        """Give the JSON object that the ledger keeps, sorted."""
        readers = "everyone" if self.readers is None else sorted(self.readers)
        return {"causes": sorted(str(cause) for cause in self.causes), "readers": readers}

    @staticmethod
    def from_json(body: Any) -> Label:
        """Read `to_json` back from the kernel's own records, never from a payload; whatever is no label is `UNKNOWN`."""
        if not isinstance(body, Mapping) or set(body) != {"causes", "readers"}:
            return UNKNOWN
        causes, readers = body["causes"], body["readers"]
        if not _texts(causes) or not (readers == "everyone" or _texts(readers)):
            return UNKNOWN
        try:
            return label((Cause.parse(text) for text in causes), EVERYONE if readers == "everyone" else readers)
        except ValueError:
            return UNKNOWN


_INTERNED: Final[dict[tuple[frozenset[Cause], frozenset[str] | None], Label]] = {}


def label(causes: Iterable[Cause], readers: Iterable[str] | None = EVERYONE) -> Label:
    """Give the one label of these causes and readers; without causes it is `UNKNOWN`, whoever the readers are."""
    key = (frozenset(causes), None if readers is None else frozenset(readers))
    if not key[0]:
        return UNKNOWN
    found = _INTERNED.get(key)
    if found is None:
        found = Label(*key)
        if len(_INTERNED) < _INTERNED_MOST:
            found = _INTERNED.setdefault(key, found)
    return found


UNKNOWN: Final = Label(frozenset({UNKNOWN_CAUSE}), frozenset())
"""No label: untrusted, readers none."""

OPERATOR: Final = label((Cause("operator"),))
"""Of the fleet file and what was endorsed; everyone may read it."""


def join(*labels: Label | None) -> Label:
    """Give the label of what was made from all of these: every cause of each, only the readers of all.

    None stands for a value without a label: the result is unknown then. Without arguments it is `UNKNOWN`, too: what is made from
    nothing that is known must not look clean.
    """
    if not labels:
        return UNKNOWN
    first, *others = (UNKNOWN if item is None else item for item in labels)
    for other in others:
        first = first if other is first else _pair(first, other)
    return first


@lru_cache(maxsize=_INTERNED_MOST)
def _pair(left: Label, right: Label) -> Label:
    if left.readers is None or right.readers is None:
        readers = right.readers if left.readers is None else left.readers
    else:
        readers = left.readers & right.readers
    return label(left.causes | right.causes, readers)


def _texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)
