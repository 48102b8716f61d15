"""Mandates: what an issuer allowed in advance, slot by slot, and what is left of it.

In:   mandates issued before any fact arrived; a use of a tool with the origins of its values; the time.
Out:  the line that covers the use whole, and a new balance after it; or a refusal in words.
May import: `canon`, `slots`, records. Must not know: tools' schemas, who acts, the store: the balance is a value, and whoever keeps it
does so in the transaction of the effect.
Why lines: values of one line belong together. A recipient from one and an amount from another do not combine.
Why children hold nothing of their own: a retry, a fork or a replan spends the parent's rest, along the tree to the root, so no way of
splitting work makes more of it (`test_clause_14.py`).
Source: CONTAINMENT.md, clauses 11-16.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal
from types import MappingProxyType
from typing import Any, Final

from midwatch.containment.canon import amount
from midwatch.containment.slots import Origin, Slot, UpTo, accepts, narrower
from midwatch.records.label import Label

__all__ = ["Balance", "Cover", "Line", "Mandate", "Refused", "Use", "Used", "cover", "cut", "issue", "left", "spend"]

DEPTH: Final = 16
"""Of a tree of mandates; a longer chain is a mistake or an attack."""


@dataclass(frozen=True, slots=True)
class Line:
    """One tool, with all its slots bound together.

    Attributes:
        id: unique within its mandate. tool: its exact name, never a glob.
        slots: per argument, what it takes: one of them is enough. An argument without slots takes nothing that needs reach.
        most: calls; None: as many as the parent's, or no cap in a root. totals: per argument of role quantity, the sum of all calls.
        parent: id of the line of the parent mandate that it was cut from; None in a root.
        needs: arguments that the call must have, for the line to cover it.
    """

    id: str
    tool: str
    slots: Mapping[str, tuple[Slot, ...]] = field(default_factory=dict)
    most: int | None = None
    totals: Mapping[str, Decimal] = field(default_factory=dict)
    parent: str | None = None
    needs: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Mandate:
    """What one issuer allows.

    Attributes:
        issuer: its label: the causes whose reach is used. by: who, in words, such as `deterministic reader of the request`.
        expires_us: microseconds UTC; from then on it allows nothing. parent: id of the mandate that it spends from, or None.
    """

    id: str
    issuer: Label
    lines: tuple[Line, ...]
    by: str = "operator"
    expires_us: int | None = None
    parent: str | None = None

    def line(self, name: str) -> Line | None:
        """Give the line of this id."""
        return next((line for line in self.lines if line.id == name), None)


@dataclass(frozen=True, slots=True)
class Used:
    """What was spent of one line: whole calls, and the exact sum per argument."""

    calls: int = 0
    amounts: Mapping[str, Decimal] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Balance:
    """All mandates of a run with what was spent of each line; a value: spending makes another one."""

    mandates: Mapping[str, Mandate] = field(default_factory=dict)
    used: Mapping[tuple[str, str], Used] = field(default_factory=dict)

    def of(self, mandate: str, line: str) -> Used:
        """Give what was spent of a line, by itself and by whatever was cut from it."""
        return self.used.get((mandate, line), Used())


@dataclass(frozen=True, slots=True)
class Use:
    """One call as a mandate sees it: `(argument, value, kind, origins)` for each value that needs reach."""

    tool: str
    values: tuple[tuple[str, Any, str | None, tuple[Origin, ...]], ...] = ()


@dataclass(frozen=True, slots=True)
class Cover:
    """The line that covers a use, and what the use would spend of it."""

    mandate: str
    line: str
    issuer: Label
    amounts: Mapping[str, Decimal] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Give the JSON object that the intent keeps, amounts as texts: folding `spend` over a run's intents gives its balance again."""
        amounts = {name: format(value, "f") for name, value in sorted(self.amounts.items())}
        return {"mandate": self.mandate, "line": self.line, "issuer": self.issuer.to_json(), "amounts": amounts}

    @staticmethod
    def from_json(body: Any) -> Cover:
        """Read `to_json` back.

        Raises:
            ValueError: it is none. Whoever folds a ledger stops there: a balance with a gap allows too much.
        """
        try:
            amounts = {str(name): Decimal(value) for name, value in body["amounts"].items()}
            made = Cover(body["mandate"], body["line"], Label.from_json(body["issuer"]), MappingProxyType(amounts))
        except (KeyError, TypeError, AttributeError, ArithmeticError) as broken:
            raise ValueError("what was spent of a mandate cannot be read") from broken
        if any(amount(value) is None for value in amounts.values()):
            raise ValueError("what was spent of a mandate is no amount")
        return made


@dataclass(frozen=True, slots=True)
class Refused:
    """Why a mandate does not apply; quotes no value."""

    reason: str


def issue(balance: Balance, mandate: Mandate) -> Balance | Refused:
    """Put a mandate beside the others; a child only within its parent: tool, slots, expiry, and no cap above the parent's rest."""
    wrong = _malformed(balance, mandate)
    if wrong is None and mandate.parent is not None:
        wrong = _not_within(balance, mandate, mandate.parent)
    if wrong is not None:
        return Refused(wrong)
    return replace(balance, mandates=MappingProxyType({**balance.mandates, mandate.id: mandate}))


def cut(balance: Balance, parent: str, name: str, tools: Collection[str]) -> Mandate | None:
    """Cut a mandate for these tools out of another one: the same slots, no more than its rest; None where nothing of it is left.

    Its issuer is the parent's, whoever picks the moment (clause 12). It caps no calls of its own: it shares the parent's with all others.
    """
    above = balance.mandates.get(parent)
    if above is None:
        return None
    lines = tuple(
        replace(line, parent=line.id, most=None, totals=left(balance, parent, line.id)[1])
        for line in above.lines
        if line.tool in tools
    )
    return Mandate(name, above.issuer, lines, above.by, above.expires_us, parent) if lines else None


def cover(balance: Balance, names: Sequence[str], use: Use, *, at_us: int) -> Cover | Refused:
    """Find the first line that covers the use whole: every value in a slot of that one line, with enough left up to the root."""
    nearest = Refused("no mandate names this tool")
    for name in names:
        mandate = balance.mandates.get(name)
        for line in () if mandate is None else mandate.lines:
            if mandate is None or line.tool != use.tool:
                continue
            made = _covers(balance, mandate, line, use, at_us)
            if isinstance(made, Cover):
                return made
            nearest = made
    return nearest


def spend(balance: Balance, cover: Cover, *, at_us: int) -> Balance | Refused:
    """Give the balance after one use, charged to the line and to every line above it; nothing is charged when one has too little."""
    chain = list(_lines_up(balance, cover.mandate, cover.line))
    if not chain:
        return Refused("the mandate is not known any more")
    used = dict(balance.used)
    for mandate, line in chain:
        wrong = _spent(balance, mandate, line, cover.amounts, at_us)
        if wrong is not None:
            return Refused(wrong)
        before = balance.of(mandate.id, line.id)
        sums = {name: before.amounts.get(name, Decimal(0)) + value for name, value in cover.amounts.items()}
        used[mandate.id, line.id] = Used(before.calls + 1, MappingProxyType({**before.amounts, **sums}))
    return replace(balance, used=MappingProxyType(used))


def left(balance: Balance, mandate: str, line: str) -> tuple[int | None, Mapping[str, Decimal]]:
    """Give what is left of a line: calls (None: no cap) and sums, the smallest along its way to the root."""
    calls: int | None = None
    sums: dict[str, Decimal] = {}
    for owner, each in _lines_up(balance, mandate, line):
        used = balance.of(owner.id, each.id)
        if each.most is not None:
            rest = max(0, each.most - used.calls)
            calls = rest if calls is None else min(calls, rest)
        for name, most in each.totals.items():
            rest_of = max(Decimal(0), most - used.amounts.get(name, Decimal(0)))
            sums[name] = min(sums.get(name, rest_of), rest_of)
    return calls, sums


def _malformed(balance: Balance, mandate: Mandate) -> str | None:
    if mandate.id in balance.mandates:
        return f"the mandate `{mandate.id}` was issued already"
    if len({line.id for line in mandate.lines}) != len(mandate.lines):
        return "two lines have one name"
    if not all(_sane(line) for line in mandate.lines):
        return "a cap is no whole number, or no amount"
    if mandate.parent is None and any(line.parent is not None for line in mandate.lines):
        return "a root has no parent's lines"
    return None


def _not_within(balance: Balance, mandate: Mandate, parent: str) -> str | None:
    above = balance.mandates.get(parent)
    if above is None:
        return "the parent is not known"
    if sum(1 for _ in _up(balance, above.id)) >= DEPTH:
        return f"mandates are cut at most {DEPTH} deep"
    if above.expires_us is not None and (mandate.expires_us is None or mandate.expires_us > above.expires_us):
        return "it would last longer than its parent"
    if not above.issuer.causes <= mandate.issuer.causes:
        return "it would forget who issued its parent"
    wrong = (_outside(balance, above, line) for line in mandate.lines)
    return next((each for each in wrong if each is not None), None)


def _sane(line: Line) -> bool:
    whole = line.most is None or (type(line.most) is int and line.most >= 0)
    bounds = [slot.most for slots in line.slots.values() for slot in slots if isinstance(slot, UpTo)]
    return whole and all(amount(value) is not None for value in (*line.totals.values(), *bounds))


def _outside(balance: Balance, above: Mandate, line: Line) -> str | None:
    parent = above.line(line.parent or "")
    if parent is None or parent.tool != line.tool:
        return "a line is not cut from a line of the parent for the same tool"
    if not parent.needs <= line.needs:
        return "it would leave out what the parent's line is for"
    for name, slots in line.slots.items():
        if not all(any(narrower(slot, wide) for wide in parent.slots.get(name, ())) for slot in slots):
            return f"the slot `{name}` takes more than the parent's"
    calls, sums = left(balance, above.id, parent.id)
    if line.most is not None and calls is not None and line.most > calls:
        return "it would allow more calls than the parent has left"
    if any(name in sums and value > sums[name] for name, value in line.totals.items()):
        return "it would allow a larger sum than the parent has left"
    return None


def _covers(balance: Balance, mandate: Mandate, line: Line, use: Use, at_us: int) -> Cover | Refused:
    sums: dict[str, Decimal] = {}
    if not line.needs <= {name for name, *_ in use.values}:
        return Refused("the call leaves out what the mandate is for")
    for name, value, kind, origins in use.values:
        slots = line.slots.get(name, ())
        if not any(accepts(slot, value, kind, origins) for slot in slots):
            return Refused(
                f"`{name}` is not what the mandate binds to it" if slots else f"the mandate binds no `{name}`"
            )
        number = amount(value)
        if number is not None and (name in line.totals or any(isinstance(slot, UpTo) for slot in slots)):
            sums[name] = sums.get(name, Decimal(0)) + number
    made = Cover(mandate.id, line.id, mandate.issuer, MappingProxyType(sums))
    for owner, each in _lines_up(balance, mandate.id, line.id):
        wrong = _spent(balance, owner, each, sums, at_us)
        if wrong is not None:
            return Refused(wrong)
    return made


def _spent(balance: Balance, mandate: Mandate, line: Line, sums: Mapping[str, Decimal], at_us: int) -> str | None:
    if mandate.expires_us is not None and at_us >= mandate.expires_us:
        return "the mandate has expired"
    used = balance.of(mandate.id, line.id)
    if line.most is not None and used.calls + 1 > line.most:
        return "the mandate's calls are used up"
    for name, most in line.totals.items():
        if name not in sums:
            return f"the mandate bounds the sum of `{name}`, and this call has no such amount"
        if used.amounts.get(name, Decimal(0)) + sums[name] > most:
            return f"the mandate's sum of `{name}` is used up"
    return None


def _up(balance: Balance, name: str | None) -> Iterator[Mandate]:
    while name is not None and name in balance.mandates:
        mandate = balance.mandates[name]
        yield mandate
        name = mandate.parent


def _lines_up(balance: Balance, mandate: str, line: str | None) -> Iterator[tuple[Mandate, Line]]:
    for owner in _up(balance, mandate):
        found = None if line is None else owner.line(line)
        if found is None:
            return
        yield owner, found
        line = found.parent
