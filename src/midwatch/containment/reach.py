"""Reach: which cause may bring about what; the fleet's rights, and the defaults where it says nothing.

In:   rights of the fleet file, who asked, a cause, a tool, a role, the value. Out: the right that says yes, or None.
May import: records. Must not know: labels' joins, mandates, what the tool does.
Defaults: `operator` and the person who asked may bring about whatever the agent's grants allow. Nothing else has any reach: a result, a
source, an agent, a cause that nobody knows.
Why a condition must be `True` itself: an evaluator that fails returns something, and something is truthy.
Source: CONTAINMENT.md, clauses 18, 21, 32.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any

from midwatch.containment.slots import Slot, accepts
from midwatch.records.label import OPERATOR, UNKNOWN_CAUSE, Cause

__all__ = ["CONTROL", "REFERENT", "Reach", "Right"]

CONTROL = "control"
"""As a role: choosing that the action happens at all, and when."""

REFERENT = "referent"
"""As the suffix of a place: what an argument refers to."""

_OPERATOR = next(iter(OPERATOR.causes))


@dataclass(frozen=True, slots=True)
class Right:
    """Causes that match `who` may bring about tools that match `may`, in the roles named.

    Attributes:
        who: globs over causes as text, such as `source:crm`, `service:mail.*`; a bare `*` never matches a cause that is unknown.
        may: globs over tool names. roles: argument roles and `control`; empty: none, so the right gives nothing.
        where: per argument, slots one of which its value must satisfy; an argument without an entry is not bound.
        condition: over the call's arguments; only `True` counts, an error is a no.
        by: how the right is named in explanations, such as `policies[2]`.
    """

    who: tuple[str, ...]
    may: tuple[str, ...]
    roles: frozenset[str]
    where: Mapping[str, tuple[Slot, ...]] = field(default_factory=dict)
    condition: Callable[[Mapping[str, Any]], object] | None = None
    by: str = "policies"


class Reach:
    """The rights of one fleet for runs that one person asked for; compiled once, asked for every value."""

    def __init__(self, rights: Sequence[Right] = (), *, requester: str | None = None) -> None:
        """Compile.

        Args:
            requester: name of the person who asked for the run; None: nobody is known, so only the operator has reach.
        """
        self._rights = tuple(rights)
        self._full = {_OPERATOR} if requester is None else {_OPERATOR, Cause("person", requester)}
        self._known: dict[tuple[Cause, str, str], tuple[Right, ...] | None] = {}

    def has(self, cause: Cause) -> bool:
        """Say whether this cause may bring about all that an agent's grants allow."""
        return cause in self._full

    def may(
        self,
        cause: Cause,
        tool: str,
        role: str,
        *,
        arguments: Mapping[str, Any],
        place: tuple[str, Any, str | None] | None = None,
    ) -> str | None:
        """Give the name of the right by which `cause` may bring this about, or None.

        Args:
            place: name, value and kind of the argument that is asked about; None for control and referents, which hold no value, so a
                right that binds any argument does not reach them unless the whole call satisfies it.
        """
        if cause in self._full:
            return str(cause)
        if cause == UNKNOWN_CAUSE:
            return None
        for right in self._of(cause, tool, role):
            if _fits(right, arguments, place) and (right.condition is None or _holds(right.condition, arguments)):
                return right.by
        return None

    def _of(self, cause: Cause, tool: str, role: str) -> tuple[Right, ...]:
        key = (cause, tool, role)
        found = self._known.get(key)
        if found is None:
            text = str(cause)
            found = tuple(
                right
                for right in self._rights
                if role in right.roles
                and any(fnmatchcase(text, who) for who in right.who)
                and any(fnmatchcase(tool, may) for may in right.may)
            )
            if len(self._known) < 65_536:
                self._known[key] = found
        return found


def _holds(condition: Callable[[Mapping[str, Any]], object], arguments: Mapping[str, Any]) -> bool:
    try:
        return condition(arguments) is True
    except Exception:  # noqa: BLE001  # whatever an evaluator raises, it did not say yes
        return False


def _fits(right: Right, arguments: Mapping[str, Any], place: tuple[str, Any, str | None] | None) -> bool:
    for name, slots in right.where.items():
        values = [place[1]] if place is not None and place[0] == name else _values(arguments, name)
        kind = place[2] if place is not None and place[0] == name else None
        if not values or not all(_taken(slots, value, kind) for value in values):
            return False
    return True


def _taken(slots: tuple[Slot, ...], value: Any, kind: str | None) -> bool:
    return any(accepts(slot, value, each) for slot in slots for each in {kind, _own_kind(slot)})


def _own_kind(slot: Slot) -> str | None:
    values = getattr(slot, "values", None)
    return next(iter(values)).kind if values else None


def _values(arguments: Mapping[str, Any], name: str) -> list[Any]:
    value: Any = arguments
    for part in name.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    if isinstance(value, list | tuple):
        return list(value)
    return [] if value is None else [value]
