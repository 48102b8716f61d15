"""Mandating: the mandates of one run, and what is left of them: folded from the ledger, spent in the transaction of the effect.

In:   `mandate.issued` events, the intents of calls that a mandate covered; a plan; a cover that is about to be used.
Out:  the balance that verdicts read; sub-mandates of a plan; `Stale` where what was judged does not hold any more.
May import: containment, config, records, tools; store (port). Must not know: verdicts, gates, how a call is performed.

    request --(issuing)--> root --(each plan)--> one mandate for each agent that the plan sends, out of the root's rest
    verdict: cover --(stage 6, one transaction)--> intent with `spent` --> balance, here and in any other process

Why a fold and no row of its own: what was spent is what the intents say, so a count cannot differ from the effects that it counts.
Why an effect is counted once: the same call at the same place of the run is one use, however often it is begun. What did not happen gives
nothing back: only the tool's own server could say for certain that it did not.
Source: CONTAINMENT.md, clauses 11-14, 16, 23.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any, Final

import orjson

from midwatch.config.specs import TeamSpec
from midwatch.containment import mandates, policies
from midwatch.containment.kept import from_json, to_json
from midwatch.containment.mandates import Balance, Cover, Mandate, Refused
from midwatch.engine import quarantine
from midwatch.engine.passage import draft

if TYPE_CHECKING:
    from midwatch.engine.context import Segment
    from midwatch.records.call import Actor
    from midwatch.records.event import Event
    from midwatch.records.handoff import Plan
    from midwatch.store.port import Tx

__all__ = ["ROOT", "Kept", "Mandating", "Stale", "asked_for", "authority_epoch", "fold", "issued", "requested"]

ROOT: Final = "request"
"""Name of the mandate that a run's request issued."""

PAYLOAD: Final = "payload"
_MESSAGES: Final = "messages"
_KINDS: Final = ("mandate.issued", "intent")
_PAGE: Final = 1000


class Stale(Exception):  # it never leaves the pipeline: what was judged is judged again
    """What was judged at stage 2 does not hold any more at stage 6."""


@dataclass(frozen=True, slots=True)
class Kept:
    """What the ledger says of a run's mandates, up to event `at`; a value, replaced whole.

    Attributes:
        to: per mandate, the agent that may use it; None: any. uses: per effect, mandate and line what was spent, and when, in order.
        hash: of event `at`, so that a page of the ledger that was never committed is noticed.
    """

    balance: Balance = field(default_factory=Balance)
    to: Mapping[str, str | None] = field(default_factory=dict)
    uses: Mapping[tuple[str, str, str], tuple[Cover, int]] = field(default_factory=dict)
    events: tuple[Event, ...] = ()
    at: int = 0
    hash: str = ""


def authority_epoch(tx: Tx, run: str) -> str:
    """Give a digest of the authority that verdicts about this run rest on: it changes whenever that may have changed.

    Whoever adds a kind of authority that can change under a running run adds its head here.
    """
    row = tx.runs.get(run)
    own = () if row is None else (row.fleet_digest, row.policy_digest)
    parts = [tx.watch.setting(quarantine.HEAD) or b"", str(tx.authority.epoch()), *own]
    return hashlib.sha256(b"\x1f".join(part.encode() if isinstance(part, str) else part for part in parts)).hexdigest()


def asked_for(request: Any) -> tuple[Any, Any]:
    """Split a run's input into what was asked for and the payload of what triggered it, None where there is none.

    Where there is a payload, only `request`, or else `messages`, asks for anything: whatever else stands there came with the payload.
    """
    if not isinstance(request, Mapping) or PAYLOAD not in request:
        return request, None
    said = next((name for name in (ROOT, _MESSAGES) if name in request), None)
    rest = {name: value for name, value in request.items() if name != said}
    asked = "" if said is None else request[said] if said == ROOT else {said: request[said]}
    return asked, rest if len(rest) > 1 else rest[PAYLOAD]


def requested(request: Any) -> tuple[str, Any]:
    """Split a run's input into what a person asked for, as text, and the payload of what triggered it, which is data.

    An input of the form `{"request": …, "payload": …}` has a payload. Of a conversation only the user's own messages ask for anything.
    """
    request, payload = asked_for(request)
    if isinstance(request, Mapping) and isinstance(request.get(_MESSAGES), list):
        said = (item for item in request[_MESSAGES] if isinstance(item, Mapping) and _of_user(item))
        request = [item.get("content") for item in said]
    return "\n".join(_texts(request)), payload


def _of_user(message: Mapping[str, Any]) -> bool:
    return str(message.get("role", message.get("type", ""))) in {"user", "human"}


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, Mapping):
        for item in value.values():
            yield from _texts(item)
    elif isinstance(value, list):
        for item in value:
            yield from _texts(item)
    elif isinstance(value, str):
        yield value
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield str(value)


def issued(tx: Tx, mandate: Mandate, *, to: str | None) -> dict[str, Any]:
    """Give the data of the event that issues a mandate; what it binds lies in a blob."""
    return {
        "mandate": mandate.id,
        "issuer": mandate.issuer.to_json(),
        "by": mandate.by,
        "parent": mandate.parent,
        "to": to,
        "expires_us": mandate.expires_us,
        "tools": sorted({line.tool for line in mandate.lines}),
        "mandate_blob": tx.blobs.put(orjson.dumps(to_json(mandate))),
    }


def fold(tx: Tx, run: str, kept: Kept) -> Kept:
    """Go on from `kept` to the ledger's end.

    Raises:
        ValueError: what the ledger says cannot be: nobody knows what is left.
    """
    after = kept.at
    while page := tx.ledger.read(run=run, after=after, limit=_PAGE, kinds=_KINDS):
        for event in page:
            kept = _after(tx, kept, event)
        after = page[-1].seq
    return kept


def _after(tx: Tx, kept: Kept, event: Event) -> Kept:
    kept = replace(kept, at=event.seq, hash=event.hash)
    if event.kind == "mandate.issued":
        body = tx.blobs.get(event.data["mandate_blob"])
        mandate = from_json(None if body is None else orjson.loads(body))
        balance = mandates.issue(kept.balance, mandate)
        if isinstance(balance, Refused):
            raise ValueError(f"a mandate of the ledger is none: {balance.reason}")
        to = {**kept.to, mandate.id: event.data["to"]}
        return replace(kept, balance=balance, to=to, events=(*kept.events, event))
    if event.data.get("spent") is None:
        return kept
    cover, effect = Cover.from_json(event.data["spent"]), str(event.data["effect"])
    key = (effect, cover.mandate, cover.line)
    if not _counted(cover) or key in kept.uses:
        return kept
    uses = {**kept.uses, key: (cover, event.at_us)}
    spent = mandates.spend(kept.balance, cover, at_us=event.at_us)
    if isinstance(spent, Refused):
        raise ValueError(f"more was spent of a mandate than it had: {spent.reason}")
    return replace(kept, uses=uses, balance=spent)


def _counted(cover: Cover) -> bool:
    """Say whether this spends of what a request issued; a grant of the fleet file has neither counts nor sums."""
    return cover.mandate.split("/")[0] == ROOT


class Mandating:
    """The mandates of one segment. What is read between two transactions may be old; `spend` looks again."""

    def __init__(self, segment: Segment) -> None:
        self._seg = segment
        fleet, registry = segment.fleet, segment.registry
        self._granted = {agent: policies.mandates(fleet, registry, agent) for agent in fleet.agents}
        balance = Balance()
        for mandate in (each for made in self._granted.values() for each in made):
            if mandate.id not in balance.mandates:
                grown = mandates.issue(balance, mandate)
                balance = grown if isinstance(grown, Balance) else balance
        self._base = Kept(balance)
        self._kept: Kept | None = None

    def at_hand(self, agent: str, effect: str) -> tuple[Balance, tuple[str, ...]]:
        """Give what is left for an effect, and the mandates that its agent may use: the operator's, then those of plans, newest first.

        What the effect has spent already, when it was begun before, is still its own.
        """
        kept = self._known()
        granted = tuple(each.id for each in self._granted.get(agent, ()) if each.id in self._base.balance.mandates)
        mine = tuple(name for name, to in kept.to.items() if to is None or to == agent)
        begun = any(key[0] == effect for key in kept.uses)
        return self._without(kept, effect) if begun else kept.balance, (*granted, *reversed(mine))

    def root(self) -> Mandate | None:
        """Give what the request allowed, if it allowed anything."""
        return self._known().balance.mandates.get(ROOT)

    def spend(self, tx: Tx, effect: str, cover: Cover, at_us: int) -> tuple[dict[str, Any], tuple[int, ...]]:
        """Give what the intent says of what it spends, and the event that issued it.

        Raises:
            Stale: there is not enough left, or nobody knows what is.
        """
        if not _counted(cover):
            return cover.to_json(), ()
        kept = self._fresh(tx)
        if (effect, cover.mandate, cover.line) not in kept.uses:
            spent = mandates.spend(kept.balance, cover, at_us=at_us)
            if isinstance(spent, Refused):
                raise Stale(spent.reason)
        return cover.to_json(), tuple(each.seq for each in kept.events if each.data["mandate"] == cover.mandate)

    def plan(self, tx: Tx, actor: Actor, plan: Plan, seq: int, at_us: int) -> None:
        """Issue what a plan hands on: to each agent that it sends, and to the synthesis, what it may do of the root, out of its rest."""
        kept, team = self._fresh(tx), self._seg.fleet.graph
        if ROOT not in kept.balance.mandates or not isinstance(team, TeamSpec):
            return
        root = tuple(each.seq for each in kept.events if each.data["mandate"] == ROOT)
        sent = dict.fromkeys([*(each.agent for each in plan.dispatches), *([team.synthesis] if team.synthesis else [])])
        for agent in sent:
            made = mandates.cut(kept.balance, ROOT, f"{ROOT}/{seq}/{agent}", self._does(agent))
            if made is not None and isinstance(mandates.issue(kept.balance, made), Balance):
                event = draft("mandate.issued", actor, at_us, issued(tx, made, to=agent), causes=(*root, seq))
                tx.ledger.append(event)

    def _does(self, agent: str) -> frozenset[str]:
        """Give the tools that an agent may call at all: its own list, and some grant."""
        fleet, spec = self._seg.fleet, self._seg.fleet.agents.get(agent)
        globs = () if spec is None else spec.tools
        granted = [
            may
            for grant in fleet.grants
            if any(fnmatchcase(f"agent:{agent}", who) for who in grant.who)
            for may in grant.may
        ]
        return frozenset(
            name
            for name in self._seg.registry.names()
            if any(fnmatchcase(name, glob) for glob in globs) and any(fnmatchcase(name, may) for may in granted)
        )

    def _known(self) -> Kept:
        return self._seg.store.read(self._fresh)

    def _fresh(self, tx: Tx) -> Kept:
        """Go on from what is known, in this very transaction; anew where what is known was never committed."""
        kept = self._kept or self._base
        last = tx.ledger.get(kept.at) if kept.at else None
        if kept.at and (last is None or last.hash != kept.hash):
            kept = self._base
        try:
            self._kept = fresh = fold(tx, self._seg.run, kept)
        except ValueError as broken:
            raise Stale(str(broken)) from broken
        return fresh

    def _without(self, kept: Kept, effect: str) -> Balance:
        """Give the balance without what one effect has spent."""
        balance = replace(kept.balance, used={})
        for (name, _, _), (cover, at_us) in kept.uses.items():
            if name != effect and cover.mandate in balance.mandates:
                spent = mandates.spend(balance, cover, at_us=at_us)
                if isinstance(spent, Refused):
                    raise ValueError(spent.reason)
                balance = spent
        return balance
