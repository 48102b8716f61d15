"""Policies: what a fleet file says about causes, in the words of the verdict.

In:   a fleet, the tools that it loaded. Out: rights, sources, and the mandates that the operator issued by its grants.
May import: `conditions`, `condition_types`, `reach`, `provenance`, `mandates`, `roles`, `slots`; config, tools, records. Must not know:
runs, who asked, what was seen.
Why one right for each tool: the same argument may be an address in one tool and a path in another, and a condition that cannot be
evaluated for a tool must not be a right there. Why a grant with a condition is no mandate: a mandate holds no conditions, and what this
grant forbids another one may allow.
Source: CONTAINMENT.md, clauses 4, 11, 15, 18, 22.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from fnmatch import fnmatchcase
from typing import Any, Final

from midwatch.config.fleet import Fleet
from midwatch.config.specs import PolicySpec, SourceSpec
from midwatch.containment.condition_types import examine
from midwatch.containment.conditions import Condition, ConditionFault, compile_condition
from midwatch.containment.mandates import Line, Mandate
from midwatch.containment.provenance import Source
from midwatch.containment.reach import Right
from midwatch.containment.roles import kinds, needs_reach, places_of
from midwatch.containment.slots import OneOf, Pattern, Slot, one_of
from midwatch.records.label import OPERATOR
from midwatch.tools.contract import ToolContract
from midwatch.tools.registry import Registry

__all__ = ["closed", "mandates", "must_bind", "rights", "slot", "sources"]

_PARSED: Final = frozenset({"url", "path", "email", "host"})
_UNBOUND: Final = frozenset({"*", "**"})
_WILD: Final = "*?["


def rights(fleet: Fleet, registry: Registry | None = None) -> tuple[Right, ...]:
    """Give the rights of the fleet's policies, in the file's order; conditions are compiled here, once.

    Args:
        registry: the fleet's tools. Without them values are taken for what they look like, and conditions are compiled unseen.
    """
    made: list[Right] = []
    for index, policy in enumerate(fleet.policies):
        by = f"policies[{index}]"
        if registry is None:
            made += _right(policy, policy.may, {}, by)
            continue
        for name in _named(policy.may, registry):
            contract = registry.get(name).contract
            if policy.condition is None or examine(policy.condition, contract.input_schema).fault is None:
                made += _right(policy, (name,), kinds(contract.input_schema), by)
    return tuple(made)


def sources(
    fleet: Fleet,
    registry: Registry | None = None,
    *,
    requester: str | None = None,
    closed: frozenset[str] | None = frozenset(),
) -> tuple[Source, ...]:
    """Give the fleet's sources, the narrowest pattern first.

    Args:
        registry: the fleet's tools; only with them a source that names no readers can be as open as each of its tools is.
        requester: name of the person who asked; what `requester` in `readers` stands for.
        closed: readers of a source that names none and whose tools do not reach the open world.
    """
    made: list[Source] = []
    for spec in sorted(fleet.sources.values(), key=_width):
        glob, full = spec.pattern.removeprefix("tool:"), spec.trust == "full"
        if spec.readers or registry is None:
            readers = _readers(spec, requester) if spec.readers else closed
            made.append(Source(spec.name, spec.pattern, full, readers))
            continue
        for name in registry.match(glob):
            open_ = registry.get(name).contract.open_world
            made.append(Source(spec.name, f"tool:{name}", full, None if open_ else closed))
    return tuple(made)


def closed(
    fleet: Fleet, registry: Registry | None = None, *, requester: str | None = None, root: Mandate | None = None
) -> frozenset[str]:
    """Give who may read what a source says that names no readers and is not open to the world.

    Who asked, the fleet's model routes (as `route:ALIAS`), and the targets that the request itself names. A pattern or a named source is no
    name, so what it takes is no reader.
    """
    readers = {f"route:{alias}" for alias in fleet.used_routes} | ({requester} if requester else set())
    if root is None or registry is None:
        return frozenset(readers)
    for line in (each for each in root.lines if each.tool in registry.names()):
        contract = registry.get(line.tool).contract
        bound = (slot for name, slots in line.slots.items() if contract.arg(name).role == "target" for slot in slots)
        readers |= {value.value for slot in bound if isinstance(slot, OneOf) for value in slot.values}
    return frozenset(readers)


def mandates(fleet: Fleet, registry: Registry, agent: str) -> tuple[Mandate, ...]:
    """Give what the operator allowed this agent in advance: each grant that binds all that matters of a tool, as one mandate.

    Returns:
        Mandates named `grants[2]`, with a line for each tool, named as the tool; without counts and without an end.
    """
    made = []
    for index, grant in enumerate(fleet.grants):
        mine = any(fnmatchcase(f"agent:{agent}", who) for who in grant.who)
        if not mine or not grant.where or grant.condition is not None:
            continue
        contracts = (registry.get(name).contract for name in _named(grant.may, registry))
        lines = tuple(line for line in (_line(contract, grant.where) for contract in contracts) if line is not None)
        if lines:
            made.append(Mandate(f"grants[{index}]", OPERATOR, lines, by=f"grants[{index}]"))
    return tuple(made)


def must_bind(contract: ToolContract) -> frozenset[str]:
    """Give the arguments that a grant must bind, and no others, to be a mandate for this tool: those that need reach (table 19)."""
    return frozenset(place.name for place in places_of(contract) if needs_reach(contract.effect, place.role))


def slot(text: str, kind: str | None) -> Slot:
    """Read a value or a pattern of the fleet file, for an argument of this kind."""
    family = (kind or "").partition(":")[0]
    if not any(sign in text for sign in _WILD):
        return one_of(text, kind=kind)
    if family in _PARSED:
        return Pattern(family, text)
    if kind is None and "://" in text:
        return Pattern("url", text)
    if kind is None and "@" in text.strip("@"):
        return Pattern("email", text)
    return Pattern("path", text)


def _right(policy: PolicySpec, may: tuple[str, ...], typed: Mapping[str, str], by: str) -> Iterator[Right]:
    condition: Condition | None = None
    if policy.condition is not None:
        try:
            condition = compile_condition(policy.condition)
        except ConditionFault:
            return  # `check` refuses such a fleet; whoever skipped it gets no right, instead of one without its condition
    where = {name: tuple(slot(text, typed.get(name)) for text in texts) for name, texts in policy.where.items()}
    yield Right(policy.who, may, frozenset(policy.roles), where, condition, by)


def _line(contract: ToolContract, where: Mapping[str, tuple[str, ...]]) -> Line | None:
    """Give the line of one tool, or None when the grant leaves something open that needs somebody's reach.

    A grant that bounds anything else is none either: a mandate looks at what needs reach only, and would forget that bound.
    """
    typed, texts = kinds(contract.input_schema), {place.name for place in places_of(contract) if place.text}
    bound = {name for name, globs in where.items() if name in texts and globs and not _UNBOUND & set(globs)}
    if not bound or not must_bind(contract) == bound == set(where):
        return None
    slots: dict[str, tuple[Any, ...]] = {
        name: tuple(slot(text, typed.get(name)) for text in where[name]) for name in bound
    }
    return Line(contract.name, contract.name, slots, needs=frozenset(bound))


def _readers(spec: SourceSpec, requester: str | None) -> frozenset[str] | None:
    if "everyone" in spec.readers:
        return None
    named = (requester if name == "requester" else name for name in spec.readers)
    return frozenset(name for name in named if name is not None)


def _width(spec: SourceSpec) -> tuple[bool, int, str]:
    """Order patterns: whole names, then the longest; what the file's order is does not matter, since the digest leaves it out."""
    return any(sign in spec.pattern for sign in _WILD), -len(spec.pattern), spec.pattern


def _named(globs: Iterable[str], registry: Registry) -> tuple[str, ...]:
    return tuple(name for name in registry.names() if any(fnmatchcase(name, glob) for glob in globs))
