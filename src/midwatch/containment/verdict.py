"""Verdict: may every cause of this action bring it about?

In:   an `Action` (who, which tool, the arguments, their labels and origins) and the `Authority` it is judged by.
Out:  a `Ruling`: `Allowed`, `Ask` or `Denied`, with the chain of what lacks reach and what a mandate would be charged.
May import: `roles`, `reach`, `mandates`, `explain`, records, tools' contract. Must not know: the ledger, budgets, gates, the graph.

    do         the agent's grants do not allow it                        -> denied
    confined   in a disposable overlay, no way out, no credential        -> allowed, whatever its label
    control    every cause of the context that chose it, or a mandate    -> else it lacks
    arguments  every cause of each value whose role needs it (table 19), of what it refers to, or the mandate's slot for it
    readers    whoever sees it happen may read the context, every value and every referent
    lacks      somebody who has the reach exists -> ask; nobody -> denied

Why nothing is raised: a fault in here is a denial, not an exception that somebody may catch. Why the chain names places and causes and no
value: it reaches the agent.
Source: CONTAINMENT.md, clauses 18-22 and table 19.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from midwatch.containment import mandates
from midwatch.containment.explain import Lack, hint, reason
from midwatch.containment.mandates import Balance, Cover, Use
from midwatch.containment.reach import CONTROL, Reach
from midwatch.containment.roles import Place, TooMany, needs_reach, observers, places
from midwatch.containment.slots import FromField, Mentioned, OneOf, Origin
from midwatch.records.decision import Allowed, Ask, Denied, Verdict
from midwatch.records.label import UNKNOWN, UNKNOWN_CAUSE, Cause, Label, join
from midwatch.tools.contract import ToolContract

__all__ = ["Action", "Authority", "Ruling", "decide"]

BY: Final = "containment"
_FOREVER_US: Final = 900_000_000


@dataclass(frozen=True, slots=True)
class Action:
    """One call as stages 1 and 2 leave it.

    Attributes:
        context: label of everything that the agent saw when it chose this call; None: unknown.
        labels: per `Place.key`, the label of a value whose origin is known better than that; it never holds fewer than it should.
        origins: per `Place.key`, where exactly this value stood whole.
        referents: per `Place.key` of an argument with `deref`, the label of the current version of what it refers to; missing: unknown.
        confined: it acts inside a disposable overlay without egress and without a credential.
        endorsed: a person whose reach covers it endorsed exactly this change of authority (clause 25).
    """

    agent: str
    contract: ToolContract
    arguments: Mapping[str, Any]
    context: Label | None
    labels: Mapping[str, Label] = field(default_factory=dict)
    origins: Mapping[str, tuple[Origin, ...]] = field(default_factory=dict)
    referents: Mapping[str, Label] = field(default_factory=dict)
    confined: bool = False
    endorsed: bool = False


@dataclass(frozen=True, slots=True)
class Authority:
    """By what an action is judged.

    Attributes:
        do: what the agent's grants say about exactly this call.
        reach: of causes. balance, mandates: those that apply to this agent in this run, in order.
        principals: causes that could be asked: persons who exist and may answer.
        who: role of whoever is asked, `expires_us` how long they have.
    """

    do: Allowed | Denied
    reach: Reach
    balance: Balance = field(default_factory=Balance)
    mandates: tuple[str, ...] = ()
    principals: tuple[Cause, ...] = ()
    at_us: int = 0
    who: str = "operator"
    expires_us: int = _FOREVER_US


@dataclass(frozen=True, slots=True)
class Ruling:
    """What was decided, and why.

    Attributes:
        label: of the action itself: what it makes carries it.
        chain: what lacks reach, most telling first; empty when allowed.
        cover: what the mandate is charged in the transaction of the effect, or None.
    """

    verdict: Verdict
    label: Label
    chain: tuple[Lack, ...] = ()
    cover: Cover | None = None


def decide(action: Action, authority: Authority) -> Ruling:
    """Judge one action; never raises: what cannot be judged is denied."""
    try:
        return _decide(action, authority)
    except TooMany:
        return Ruling(Denied("the call holds more values than can be judged", BY, "ask for less at once"), UNKNOWN)
    except Exception as fault:  # noqa: BLE001  # a guard that fails must not let pass: the kind of the fault is told, never its text
        return Ruling(Denied(f"the call could not be judged ({type(fault).__name__})", BY), UNKNOWN)


def _decide(action: Action, authority: Authority) -> Ruling:
    if not isinstance(authority.do, Allowed):
        denied = authority.do if isinstance(authority.do, Denied) else Denied("nothing allows this", BY)
        return Ruling(denied, action.context or UNKNOWN)
    contract, found = action.contract, places(action.contract, action.arguments)
    context = UNKNOWN if action.context is None else action.context
    labelled = [(place, action.labels.get(place.key, context)) for place in found]
    referents = [(place, action.referents.get(place.key, UNKNOWN)) for place in found if place.deref is not None]
    # A read gives back what it refers to, and each field of that has a label of its own (`provenance.field_label`).
    told = [
        each for place, each in referents if contract.effect not in {"pure", "read"} or place.key in action.referents
    ]
    label = join(context, *(each for _, each in labelled), *told)
    if contract.effect == "pure":
        return Ruling(Allowed("pure"), label)
    if action.confined and not any(place.role == "credential" for place in found):
        return Ruling(Allowed("confined"), label)
    always = _referent_lacks(action, authority.reach, referents)
    if contract.effect == "grants_authority" and not action.endorsed:
        always.append(Lack("endorsement", "endorsement", None))
    own = _own_lacks(action, authority.reach, context, labelled)
    plain = [*own, *always, *_reader_lacks(action, authority, found, label, None)]
    if not plain:
        return Ruling(Allowed(BY), label)
    cover = _cover(action, authority, found)
    if cover is not None:
        issuer = _issuer_lacks(action, authority.reach, cover)
        covered = [*issuer, *always, *_reader_lacks(action, authority, found, label, cover)]
        if not covered:
            return Ruling(Allowed(f"mandate {cover.mandate}/{cover.line}"), label, (), cover)
    return _refuse(action, authority, tuple(plain), label)


def _own_lacks(action: Action, reach: Reach, context: Label, labelled: list[tuple[Place, Label]]) -> list[Lack]:
    """What lacks reach by itself: control, then every value whose role needs it."""
    effect, tool = action.contract.effect, action.contract.name
    asked: list[tuple[str, str, Label, tuple[str, Any, str | None] | None]] = []
    if effect != "read" or action.contract.open_world:
        # Control of a read is the agent's own `do`; one that goes out into the world is egress, and somebody chose to send it.
        asked.append((CONTROL, CONTROL, context, None))
    asked += [
        (place.name, place.role, each, (place.name, place.value, place.kind))
        for place, each in labelled
        if needs_reach(effect, place.role)
    ]
    return [
        Lack(where, role, cause)
        for where, role, each, place in asked
        for cause in sorted(each.causes)
        if not _may(action, reach, cause, tool, role, place)
    ]


def _may(
    action: Action, reach: Reach, cause: Cause, tool: str, role: str, place: tuple[str, Any, str | None] | None
) -> bool:
    return reach.may(cause, tool, role, arguments=action.arguments, place=place) is not None


def _needing(action: Action, found: tuple[Place, ...]) -> list[Place]:
    return [place for place in found if needs_reach(action.contract.effect, place.role)]


def _cover(action: Action, authority: Authority, found: tuple[Place, ...]) -> Cover | None:
    """Find a mandate for the whole call: control is its issuer's then, and every value that needs reach stands in a slot of one line."""
    values = tuple(
        (place.name, place.value, place.kind, action.origins.get(place.key, ())) for place in _needing(action, found)
    )
    use = Use(action.contract.name, values)
    made = mandates.cover(authority.balance, authority.mandates, use, at_us=authority.at_us)
    return made if isinstance(made, Cover) else None


def _issuer_lacks(action: Action, reach: Reach, cover: Cover) -> list[Lack]:
    """Whoever issued the mandate must have the reach for what it allows."""
    return [
        Lack(CONTROL, CONTROL, cause)
        for cause in sorted(cover.issuer.causes)
        if not _may(action, reach, cause, action.contract.name, CONTROL, None)
    ]


def _referent_lacks(action: Action, reach: Reach, referents: list[tuple[Place, Label]]) -> list[Lack]:
    return [
        Lack(f"what {place.name} refers to", place.deref, cause)
        for place, each in referents
        if place.deref is not None and needs_reach(action.contract.effect, place.deref)
        for cause in sorted(each.causes)
        if not _may(action, reach, cause, action.contract.name, place.deref, None)
    ]


def _reader_lacks(
    action: Action, authority: Authority, found: tuple[Place, ...], label: Label, cover: Cover | None
) -> list[Lack]:
    """Whoever sees the action happen must be a reader of all that went into it, or a target that the mandate itself names."""
    if label.readers is None:
        return []
    seen = observers(action.contract, found)
    if seen is None:
        return [Lack("readers", "readers", None)]
    named = frozenset() if cover is None else _named(authority.balance, cover, found)
    return [] if seen <= label.readers | named else [Lack("readers", "readers", None)]


def _named(balance: Balance, cover: Cover, found: tuple[Place, ...]) -> frozenset[str]:
    """Targets that the mandate's issuer bound: by value, by name or by a source that it named."""
    mandate = balance.mandates.get(cover.mandate)
    line = None if mandate is None else mandate.line(cover.line)
    if line is None:
        return frozenset()
    bound = {
        name
        for name, slots in line.slots.items()
        if slots and all(isinstance(slot, OneOf | Mentioned | FromField) for slot in slots)
    }
    return frozenset(
        place.value
        for place in found
        if place.role == "target" and place.name in bound and isinstance(place.value, str)
    )


def _refuse(action: Action, authority: Authority, lacks: tuple[Lack, ...], label: Label) -> Ruling:
    """Ask where somebody has the reach that lacks, else deny."""
    chain = tuple(sorted(dict.fromkeys(lacks), key=lambda lack: (lack.cause == UNKNOWN_CAUSE, lack.where != CONTROL)))
    why = reason(action.contract.name, chain)
    if any(
        authority.reach.has(cause) or _entitled(action, authority.reach, cause, chain) for cause in authority.principals
    ):
        return Ruling(Ask(why, BY, authority.who, authority.expires_us), label, chain)
    return Ruling(Denied(why, BY, hint(chain)), label, chain)


def _entitled(action: Action, reach: Reach, cause: Cause, chain: tuple[Lack, ...]) -> bool:
    """Say whether this cause could bring about everything that lacks."""
    return all(_may(action, reach, cause, action.contract.name, lack.role, None) for lack in chain)
