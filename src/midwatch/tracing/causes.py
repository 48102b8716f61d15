"""Causes: why an event came to be, and everything that it led to.

In:   a store, an event's number. Out: `Why`, `Blast`; both bounded, and each says whether it holds all.
May import: saying, store (port), records, errors. Must not know: the engine, how an answer is shown.

Every edge is one that the ledger's index holds (`records.edge` says what each kind means), so each printed chain can be checked
step by step. Edges that only may have carried something are followed last: a chain without one comes before any with one.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import orjson

from midwatch.errors import NotFound
from midwatch.records.edge import UNSURE, Edge
from midwatch.records.event import Event
from midwatch.store.history import FileVersion, Reached
from midwatch.store.port import Store, Tx
from midwatch.tracing.saying import id_of, in_words

__all__ = ["Blast", "Chain", "Step", "Why", "blast", "locate", "of_run", "why"]

CAUSES: Final = 3_000
"""Events that `why` looks at."""
REACHED: Final = 30_000
"""Events that `blast` counts."""
CALLS: Final = 2_000
"""Calls of a blast whose agents and requests are read, nearest first."""
CHAINS: Final = 5
PAGE: Final = 20
FIRST, LAST = 8, 32
"""Steps of a long chain that are told: from its beginning, and up to the event."""


@dataclass(frozen=True, slots=True)
class Step:
    """One event of a chain, in words.

    Attributes:
        id: what the command line takes for it. edge: how the step before led to this one; None for the first.
    """

    seq: int
    id: str
    at_us: int
    run: str | None
    agent: str | None
    node: str | None
    kind: str
    what: str
    edge: Edge | None = None


@dataclass(frozen=True, slots=True)
class Chain:
    """The shortest way from a beginning to the event.

    Attributes:
        steps: in order; of a long chain the first `FIRST` and the last `LAST`. left_out: how many there are between those.
        sure: False where an edge only may have carried something.
    """

    steps: tuple[Step, ...]
    left_out: int = 0
    sure: bool = True


@dataclass(frozen=True, slots=True)
class Why:
    """What led to an event.

    Attributes:
        chains: from a beginning (a request, mostly) to the event; shortest first, those with an unsure edge last; at most `CHAINS`.
        beginnings: how many there are. causes: how many events led to it, at any distance.
        complete: False where there are more causes than were looked at.
        people: what was said at gates on the way, newest first, at most `CHAINS`.
        quarantined: by which event it was marked, or None.
    """

    event: Step
    chains: tuple[Chain, ...]
    beginnings: int
    causes: int
    complete: bool
    people: tuple[Step, ...] = ()
    quarantined: int | None = None


@dataclass(frozen=True, slots=True)
class Blast:
    """What an event led to.

    Attributes:
        total: how many events, itself not counted. kinds: the same by kind. complete: False where there are more than were counted.
        page: the nearest ones. runs: in which they are, by first event.
        files: versions that were committed: whoever reads them is reached, too. requests: `outcome method host`, counted.
        gates: ids that people were asked about. agents: `run agent` that acted on it.
        calls_read: False where agents and requests are those of the nearest calls only.
    """

    event: Step
    total: int
    kinds: Mapping[str, int]
    complete: bool
    page: tuple[Step, ...]
    runs: tuple[str, ...]
    files: tuple[FileVersion, ...]
    requests: Mapping[str, int]
    gates: tuple[str, ...]
    agents: tuple[tuple[str, str], ...]
    calls_read: bool = True
    quarantined: int | None = None


def why(store: Store, seq: int, *, most: int = CAUSES) -> Why:
    """Say what led to an event.

    Args:
        most: events that are looked at.

    Raises:
        NotFound: no such event.
    """

    def work(tx: Tx) -> Why:
        event = _event(tx, seq)
        back = _Back(tx, most)
        back.walk(seq)
        first = [at for at in back.beginnings if at != seq]
        first.sort(key=lambda at: back.length[at])
        return Why(
            _step(event),
            tuple(_chain(tx, seq, back.chain(at)) for at in first[:CHAINS]),
            len(first),
            len(back.towards),
            back.complete,
            tuple(_people(tx, back)),
            tx.causes.quarantined((seq,)).get(seq),
        )

    return store.read(work)


@dataclass(slots=True)
class _Back:
    """A walk towards the causes.

    Attributes:
        towards: by event, the edge by which it leads to where the walk began.
        length: by event, how far that is: unsure edges, then steps.
    """

    tx: Tx
    most: int
    towards: dict[int, Edge] = field(default_factory=dict)
    length: dict[int, tuple[int, int]] = field(default_factory=dict)
    beginnings: list[int] = field(default_factory=list)
    complete: bool = True

    def walk(self, seq: int) -> None:
        """Go breadth first; unsure edges when nothing else is left."""
        queue, later = deque([seq]), deque[Edge]()
        self.length[seq] = (0, 0)
        looked = 0
        while queue or later:
            if not queue:
                edge = later.popleft()
                if edge.cause not in self.towards:
                    queue.append(self._came(edge))
                continue
            at = queue.popleft()
            looked += 1
            if looked > self.most:
                self.complete = False
                return
            edges = self.tx.causes.before(at)
            if not edges:
                self.beginnings.append(at)
            for edge in edges:
                if edge.cause in self.towards:
                    continue
                if edge.kind in UNSURE:
                    later.append(edge)
                    continue
                queue.append(self._came(edge))

    def _came(self, edge: Edge) -> int:
        unsure, steps = self.length[edge.effect]
        self.towards[edge.cause], self.length[edge.cause] = edge, (unsure + (edge.kind in UNSURE), steps + 1)
        return edge.cause

    def chain(self, first: int) -> list[Edge]:
        """Give the edges from a beginning to where the walk began."""
        found: list[Edge] = []
        at = first
        while at in self.towards:
            found.append(self.towards[at])
            at = found[-1].effect
        return found


def _people(tx: Tx, back: _Back) -> Iterator[Step]:
    words = sorted((edge.cause for edge in back.towards.values() if edge.kind == "gate"), reverse=True)
    said = [event for event in _bodies(tx, words[: 2 * CHAINS]) if event.kind == "gate.answered"]
    yield from (_step(event) for event in said[:CHAINS])


def blast(store: Store, seq: int, *, most: int = REACHED, page: int = PAGE) -> Blast:
    """Say what an event led to.

    Args:
        most: events that are counted. page: how many of them are told.

    Raises:
        NotFound: no such event.
    """

    def work(tx: Tx) -> Blast:
        event = _event(tx, seq)
        found = [item for item in tx.causes.reach(seq, limit=most + 2) if item.seq != seq]
        complete, reached = len(found) <= most, found[:most]
        wrote = [seq, *(item.seq for item in reached if item.kind in ("finished", "effect.undone"))]
        calls = _Calls()
        for body in _bodies(tx, wrote[:CALLS]):
            calls.add(tx, body)
        return Blast(
            event=_step(event),
            total=len(reached),
            kinds=dict(Counter(item.kind for item in reached).most_common()),
            complete=complete,
            page=tuple(_step(body) for body in _bodies(tx, [item.seq for item in reached[:page]])),
            runs=tuple(dict.fromkeys(item.run for item in (_as_reached(event), *reached) if item.run is not None)),
            files=tuple(tx.causes.committed(wrote)),
            requests=dict(calls.requests),
            gates=tuple(_gates(tx, reached)),
            agents=tuple(calls.agents),
            calls_read=len(wrote) <= CALLS,
            quarantined=tx.causes.quarantined((seq,)).get(seq),
        )

    return store.read(work)


@dataclass(slots=True)
class _Calls:
    """What calls say of who made them and of what they asked of the network."""

    agents: dict[tuple[str, str], None] = field(default_factory=dict)
    requests: Counter[str] = field(default_factory=Counter)

    def add(self, tx: Tx, event: Event) -> None:
        """Take one call in."""
        if event.run is not None and event.agent is not None:
            self.agents.setdefault((event.run, event.agent))
        told = event.data.get("observed")
        if not told or not told.get("requests"):
            return
        body = orjson.loads(tx.blobs.get(told["blob"]) or b"{}")
        for item in body.get("requests", ()):
            self.requests[f"{item.get('outcome', 'refused')} {item['method']} {item['host']}"] += 1


def _gates(tx: Tx, reached: Sequence[Reached]) -> Iterator[str]:
    opened = [item.seq for item in reached if item.kind == "gate.opened"]
    found = dict.fromkeys(str(event.data.get("gate")) for event in _bodies(tx, opened[:CALLS]))
    yield from found


def locate(store: Store, name: str) -> int | None:
    """Find an event by `123`, by `e:EFFECT` (the call's end, or its beginning where it has none), or by `RUN+N`, the run's N-th event.

    Returns:
        None where `name` is none of these; it may be a run with a short id.

    Raises:
        NotFound, Ambiguous: no such event, or several.
    """

    def work(tx: Tx) -> int | None:
        if name.isascii() and name.isdigit():
            return _event(tx, int(name)).seq
        if name.startswith("e:"):
            row = tx.effects.find(name[2:])
            return row.finished_seq or row.intent_seq
        run, _, place = name.partition("+")
        if not (place.isascii() and place.isdigit()):
            return None
        full = tx.runs.find(run).id if run != "last" else _newest(tx)
        found = tx.ledger.read(run=full, limit=max(1, int(place)))
        if not 0 < int(place) <= len(found):
            raise NotFound(f"run `{full[:7]}` has {len(found):,} events, and no event {place}")
        return found[-1].seq

    return store.read(work)


def of_run(store: Store, run: str, *, first: bool) -> int:
    """Give a run's request, or its newest event. NotFound: it has no events."""

    def work(tx: Tx) -> int:
        at, page = 0, tx.ledger.read(run=run, limit=1 if first else 1000)
        while page:
            at = page[-1].seq
            page = () if first else tx.ledger.read(run=run, after=at, limit=1000)
        if not at:
            raise NotFound(f"run `{run[:7]}` has no events")
        return at

    return store.read(work)


def _newest(tx: Tx) -> str:
    rows = tx.runs.list(limit=1)
    if not rows:
        raise NotFound("there is no run in this home yet")
    return rows[0].id


def _event(tx: Tx, seq: int) -> Event:
    event = tx.ledger.get(seq) if 0 < seq < 1 << 62 else None
    if event is None:
        raise NotFound(f"no event {seq} in this home; `midwatch trace RUN --json` lists a run's events")
    return event


def _bodies(tx: Tx, seqs: Sequence[int]) -> Iterator[Event]:
    for seq in seqs:
        event = tx.ledger.get(seq)
        if event is not None:
            yield event


def _chain(tx: Tx, seq: int, edges: Sequence[Edge]) -> Chain:
    """Read the steps; the first has no edge, every other one has that by which it was reached."""
    by: dict[int, Edge] = {edge.effect: edge for edge in edges}
    seqs = [*(edge.cause for edge in edges), seq]
    left_out = max(0, len(seqs) - FIRST - LAST)
    told = seqs if not left_out else [*seqs[:FIRST], *seqs[-LAST:]]
    steps = tuple(_step(event, by.get(event.seq)) for event in _bodies(tx, told))
    return Chain(steps, left_out, all(edge.kind not in UNSURE for edge in edges))


def _step(event: Event, edge: Edge | None = None) -> Step:
    return Step(
        event.seq, id_of(event), event.at_us, event.run, event.agent, event.node, event.kind, in_words(event), edge
    )


def _as_reached(event: Event) -> Reached:
    return Reached(event.seq, event.kind, event.run)
