"""Policies, one pass: reads what is new in the ledger and on the machine, judges it, and acts, exactly once.

In:   the store, the time, counters of living sandboxes. Out: events, halts and rates in the store; what was found.
May import: config, records, governor; store (port). Must not know: what runs, who started the pass.

    read: cursor, new events, states → judge (nothing is locked)
    → one transaction: is the cursor where it was? then states, events, halts, cursor

Why one transaction, compared with the cursor: a governor that is killed between deciding and recording has done nothing, and the next
pass decides the same; of two governors that judged the same events the second one finds the cursor moved and starts over.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import orjson

from midwatch.config.specs_bounds import GovernorSpec
from midwatch.config.specs_watch import WatchPolicy, WatchSpec, default_policies
from midwatch.governor.baseline_state import State
from midwatch.governor.patterns import KINDS, Fact, fact_of
from midwatch.governor.policies import Verdict, judge
from midwatch.records.decision import Halt, HaltKind
from midwatch.records.event import EventDraft
from midwatch.store.baselines import Throttle
from midwatch.store.flags import Flag, FlagKind
from midwatch.store.port import Store, Tx

__all__ = ["BY", "SPEC_PREFIX", "Sample", "Studied", "remember", "study"]

BY: Final = "governor"
EVENTS: Final = 2000
"""The most that one pass takes in."""
_TRIES: Final = 3
_OLD_US: Final = 3_600_000_000
"""What happened longer ago, in runs that are over, is learned from and not told any more."""
_OF_AGENT: Final = frozenset({"burn"})
"""Findings on an agent as such, with no run to blame: the agent stands still in every run of its fleet, until a person lets it go on."""
_MINUTE_US: Final = 60_000_000
SPEC_PREFIX: Final = "governor.spec/"
"""Of the settings that hold what fleets say of their policies."""


@dataclass(frozen=True, slots=True)
class Sample:
    """What the machine counts of a living sandbox now; None where nothing counts."""

    run: str
    agent: str
    processes: int | None
    refused: int | None = None


@dataclass(frozen=True, slots=True)
class Studied:
    """What a pass did.

    Attributes:
        read: events taken in. behind: how many are left for the next pass. acted: what was written, oldest first.
    """

    read: int = 0
    behind: int = 0
    acted: tuple[Mapping[str, Any], ...] = ()


@dataclass(slots=True)
class _Work:
    """What was read and judged, before anything of it is written."""

    cursor: int
    target: int
    head: int
    read: int = 0
    states: dict[str, State] = field(default_factory=dict)
    before: dict[str, Mapping[str, bytes]] = field(default_factory=dict)
    verdicts: list[tuple[str, WatchSpec, Verdict]] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Rules:
    warm_up_us: int
    policies: Mapping[WatchPolicy, WatchSpec]


def remember(tx: Tx, fleet: str, spec: GovernorSpec) -> None:
    """Keep what a fleet file says of its policies, for governors that never see the file; the newest run's holds."""
    body = {
        "mode": spec.mode,
        "period": spec.period_us,
        "stale_after": spec.stale_after_us,
        "warm_up": spec.warm_up_us,
        "policies": {
            name: [item.action, item.sensitivity, item.cool_down_us, item.rate] for name, item in spec.policies.items()
        },
    }
    told = orjson.dumps(body, option=orjson.OPT_SORT_KEYS)
    if tx.watch.setting(SPEC_PREFIX + fleet) != told:
        tx.watch.put(SPEC_PREFIX + fleet, told)


def study(store: Store, *, now: int, samples: Sequence[Sample] = (), most: int = EVENTS) -> Studied:
    """Do one pass over what is new.

    Raises:
        StoreError: nothing was done.
    """
    for _ in range(_TRIES):
        work = store.read(lambda tx: _judged(tx, now, samples, most))
        if not (work.read or work.verdicts or work.target != work.cursor):
            return Studied()
        done = store.write(lambda tx: _recorded(tx, work, now))  # noqa: B023 - called at once
        if done is not None:
            return Studied(work.read, work.head - work.target, tuple(done))
    return Studied(behind=1)


# ------------------------------------------------------------------------------------------------------------- judging


def _judged(tx: Tx, now: int, samples: Sequence[Sample], most: int) -> _Work:
    cursor, head = tx.baselines.cursor(), tx.ledger.head()[0]
    events = tx.ledger.read(after=cursor, limit=most, kinds=KINDS) if head > cursor else ()
    target = events[-1].seq if len(events) == most else head
    work = _Work(cursor, target, head, len(events))
    fleets: dict[str, str | None] = {}
    rules: dict[str, _Rules] = {}
    facts = [fact for event in events if (fact := fact_of(event, tx.blobs.get)) is not None]
    facts += [
        Fact(head, now, item.run, item.agent, "sample", "", processes=item.processes, refused=item.refused)
        for item in samples
        if item.agent and (item.processes is not None or item.refused is not None)
    ]
    for fact in facts:
        if fact.run not in fleets:
            row = tx.runs.get(fact.run)
            fleets[fact.run] = None if row is None else row.fleet
        fleet = fleets[fact.run]
        if fleet is None:
            continue
        if fleet not in rules:
            rules[fleet] = _rules(tx, fleet)
        _take(tx, work, f"{fleet}/{fact.agent}", fact, rules[fleet])
    return work


def _take(tx: Tx, work: _Work, subject: str, fact: Fact, rules: _Rules) -> None:
    if subject not in work.states:
        parts = tx.baselines.load(subject)
        try:
            work.states[subject] = State.of(parts)
        except (ValueError, TypeError, KeyError, IndexError, AttributeError):
            work.states[subject], parts = State(), {}
            work.lost.append(subject)
        work.before[subject] = parts
    found = judge(work.states[subject], fact, rules.policies, warm_up_us=rules.warm_up_us)
    work.verdicts += [(subject, rules.policies[item.policy], item) for item in found]


def _rules(tx: Tx, fleet: str) -> _Rules:
    """Give what the fleet's file said, and the defaults where it said nothing."""
    spec, told = GovernorSpec(), tx.watch.setting(SPEC_PREFIX + fleet)
    if told is None:
        return _Rules(spec.warm_up_us, default_policies())
    body = orjson.loads(told)
    return _Rules(
        body["warm_up"], {**default_policies(), **{name: WatchSpec(*item) for name, item in body["policies"].items()}}
    )


# ----------------------------------------------------------------------------------------------------------- recording


def _recorded(tx: Tx, work: _Work, now: int) -> list[Mapping[str, Any]] | None:
    """Write all of a pass down and act; None when somebody else has taken the same events in meanwhile."""
    if tx.baselines.cursor() != work.cursor:
        return None
    done: list[Mapping[str, Any]] = []
    for subject in work.lost:
        data = {"action": "begin anew", "subject": subject, "reason": "its baseline could not be read"}
        tx.ledger.append(EventDraft("governor.acted", None, now, data))
        done.append(data)
    for subject, spec, verdict in work.verdicts:
        done += _act(tx, subject, spec, verdict, now)
    for subject, state in work.states.items():
        for part, body in state.parts().items():
            if work.before[subject].get(part) != body:
                tx.baselines.save(subject, part, body, at_us=now)
    if work.target != work.cursor:
        tx.baselines.advance(work.target)
    return done


def _act(tx: Tx, subject: str, spec: WatchSpec, verdict: Verdict, now: int) -> list[Mapping[str, Any]]:
    """Do what a verdict asks for, to every run that still goes on; a run that is over can only be told of."""
    rows = {run: tx.runs.get(run) for run in verdict.runs}
    going = [run for run, row in rows.items() if row is not None and row.status == "running"]
    if not going and now - verdict.at_us > _OLD_US:
        return []
    stops = verdict.action in ("pause", "kill")
    whole = stops and verdict.policy in _OF_AGENT
    targets = (going or verdict.runs[:1]) if stops and not whole else verdict.runs[:1]
    done: list[Mapping[str, Any]] = []
    for run in targets:
        action: str = verdict.action
        if whole:
            action = _flag(tx, subject, verdict, now)
        elif stops:
            action = _halt(tx, run, verdict, now) if run in going else "warn"
        data: dict[str, Any] = {
            "action": action,
            "asked": verdict.action,
            "policy": verdict.policy,
            "metric": verdict.metric,
            "subject": subject,
            "reason": verdict.reason,
            "numbers": dict(verdict.numbers),
            "event": verdict.seq,
            "by": BY,
        }
        if verdict.action == "throttle":
            gap = _MINUTE_US // max(1, spec.rate)
            tx.baselines.slow(Throttle(subject, gap, now + spec.cool_down_us, now, verdict.reason))
            data["gap_us"] = gap
        tx.ledger.append(EventDraft("governor.acted", run, now, data, agent=verdict.agent, causes=(verdict.seq,)))
        done.append({**data, "run": run, "agent": verdict.agent})
    return done


def _flag(tx: Tx, subject: str, verdict: Verdict, now: int) -> str:
    """Stop the agent in every run of its fleet; gives what was done: nothing where as much stood before."""
    kind: FlagKind = "kill" if verdict.action == "kill" else "pause"
    fleet = subject.partition("/")[0]
    flag = Flag(f"agent:{verdict.agent}", fleet, kind, f"{verdict.policy}: {verdict.reason}", BY, now)
    return kind if tx.flags.raise_(flag) else "warn"


def _halt(tx: Tx, run: str, verdict: Verdict, now: int) -> str:
    """Leave the sticky mark; gives what was done: nothing where somebody stopped the run before."""
    kind: HaltKind = "kill" if verdict.action == "kill" else "pause"
    before = tx.runs.halt(run)
    if before is not None and kind == "kill" and before.kind == "pause":
        tx.runs.clear_halt(run)  # a pause gives way to what goes further
    reason = f"{verdict.policy}: {verdict.reason}"
    return kind if tx.runs.set_halt(run, Halt(kind, reason, BY, now)) else "warn"
