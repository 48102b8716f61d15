"""The index of causes says what the events say: no edge more, none less, whatever happened."""

from __future__ import annotations

import gzip
import random
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from midwatch.records.event import EventDraft
from midwatch.store.causes import rebuild
from midwatch.store.connection import Connection
from midwatch.store.ledger import SqlBlobs
from midwatch.store.memory import MemoryStore
from midwatch.store.port import Store, Tx
from midwatch.store.sqlite import SqliteStore
from midwatch.tracing import causes
from tests.causal_truth import all_events, indexed, proved, truth
from tests.recorded_run import record

HOME = Path(__file__).parents[1] / "fixtures" / "home_r2"
HEAD = "14fa0bab40f0a566c3a04370ac6e27f13e30cf969d7bb214e66abf402fb075a2"
RUNS = [f"{number:032x}" for number in range(1, 4)]
PATHS = ("a", "b/c", "d")


@contextmanager
def memory() -> Iterator[Store]:
    """Give an empty store."""
    store = MemoryStore()
    yield store
    store.close()


class Writer:
    """Writes a ledger by chance: runs side by side that plan, call, read, write, wait, commit and discard."""

    def __init__(self, tx: Tx, chance: random.Random) -> None:
        self.tx, self.chance = tx, chance
        self.past: dict[str, list[int]] = {}
        self.open: dict[str, list[int]] = {}
        self.asked: dict[str, list[str]] = {}

    def add(self, kind: Any, run: str, data: dict[str, Any], causes: tuple[int, ...] = (), **more: Any) -> int:
        seq = self.tx.ledger.append(EventDraft(kind, run, 1, data, causes=causes, **more))
        self.past.setdefault(run, []).append(seq)
        return seq

    def step(self) -> None:
        run = self.chance.choice(RUNS)
        if run not in self.past:
            self.add("run.created", run, {"fleet": "f", "workdir": self.chance.choice(["/w", "/w", "/v"])})
            return
        getattr(
            self,
            self.chance.choice(["think", "plan", "began", "ended", "ended", "ended", "gate", "leave", "leave", "end"]),
        )(run)

    def some(self, run: str) -> tuple[int, ...]:
        """Choose causes: none, the last event, or some of the run's."""
        past = self.past[run]
        return self.chance.choice([(), (past[-1],), tuple(self.chance.choices(past, k=2))])

    def blob(self, value: Any) -> str:
        return self.tx.blobs.put(orjson.dumps(value))

    def agent(self) -> str:
        return self.chance.choice(["ann", "ben", "cid"])

    def think(self, run: str) -> None:
        kind = self.chance.choice(["proposed", "intent", "node.finished", "handoff"])
        self.add(kind, run, {"effect": "x", "status": "complete"}, self.some(run), agent=self.agent())

    def plan(self, run: str) -> None:
        sent = [{"agent": self.agent()} for _ in range(self.chance.randint(0, 2))]
        self.add("plan", run, {"plan_blob": self.blob({"dispatches": sent}), "dispatches": len(sent)}, self.some(run))

    def began(self, run: str) -> None:
        seq = self.add("intent", run, {"effect": "y", "tool": "t"}, self.some(run), agent=self.agent())
        self.open.setdefault(run, []).append(seq)

    def ended(self, run: str) -> None:
        if not self.open.get(run):
            self.began(run)
        began = self.open[run].pop(self.chance.randrange(len(self.open[run])))
        changes = [self.change(path) for path in PATHS if self.chance.random() < 0.6]
        body = {"changes": changes, "requests": []}
        seen = {"layer": "l", "blob": self.blob(body), "file": None, "changes": len(changes), "requests": 0}
        data: dict[str, Any] = {"effect": "y", "tool": "t", "ok": True}
        self.add("finished", run, data | {"observed": seen}, (began,), agent=self.agent())

    def change(self, path: str) -> dict[str, Any]:
        op = self.chance.choice(["created", "modified", "deleted", "permission", "read", "read", "executed"])
        found = {"op": op, "path": path, "kind": self.chance.choice(["file", "file", "link", "folder"])}
        if op in ("created", "modified"):
            found["sha256"] = f"{self.chance.randint(1, 3):064x}"
        if op in ("modified", "permission", "deleted"):
            found["before"] = f"{self.chance.randint(1, 3):064x}"
        return found

    def gate(self, run: str) -> None:
        asked, causes = self.asked.setdefault(run, []), self.some(run)
        if not asked or self.chance.random() < 0.4:
            gate = f"{self.chance.randint(0, 2)}"
            asked.append(gate)
            self.add("gate.opened", run, {"gate": gate}, causes, task=self.chance.choice(["act", "release"]))
            return
        gate = self.chance.choice(asked)
        if self.chance.random() < 0.5:
            self.add("gate.answered", run, {"gate": gate, "approved": True, "by": "p"}, causes)
            return
        self.add("gate.used", run, {"gate": gate}, causes)
        effect = self.chance.choice([gate, "other"])
        self.add("intent", run, {"effect": effect, "tool": "t"}, causes, agent=self.agent())

    def leave(self, run: str) -> None:
        paths = self.chance.choice([None, [self.chance.choice(PATHS)], list(PATHS)])
        if self.chance.random() < 0.25:
            self.add("effects.discarded", run, {"by": "p", "paths": paths, "changes": 1}, self.some(run))
            return
        place = self.chance.choice(["/w", "/v"])
        chosen = self.blob(paths or list(PATHS))
        self.add("effects.releasing", run, {"gate": None, "workspace": place, "paths_blob": chosen}, self.some(run))
        self.add("effects.committed", run, {"paths": paths, "changed": 1})

    def end(self, run: str) -> None:
        self.add("run.finished", run, {}, self.some(run) if self.chance.random() < 0.3 else ())


def write(store: Store, chance: random.Random, steps: int) -> None:
    """Write a ledger in transactions of a few steps each."""
    writer: Writer | None = None

    def work(tx: Tx) -> None:
        nonlocal writer
        writer = writer or Writer(tx, chance)
        writer.tx = tx
        for _ in range(chance.randint(1, 6)):
            writer.step()

    for _ in range(steps):
        store.write(work)


def check(store: Store) -> None:
    """Hold the index to the truth, and each note to one that is true."""
    found, true = indexed(store), truth(store)
    assert proved(true) == proved(found)
    notes = {edge for edges in true.values() for edge in edges}
    assert [] == [edge for edges in found.values() for edge in edges if edge not in notes]


def forward(store: Store, seq: int) -> set[int]:
    """Follow the true edges from an event, slowly."""
    events = {event.seq: event for event in all_events(store)}
    reached = {seq}
    if events[seq].kind == "run.created":
        reached |= {item.seq for item in events.values() if item.run == events[seq].run}
    for effect, edges in truth(store).items():
        if any(edge.cause in reached for edge in edges if edge.kind != "request"):
            reached.add(effect)
    return reached


@pytest.mark.req("CAUSES-1", "CAUSES-2", "CAUSES-4")
@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_the_index_holds_the_proved_edges_and_no_other(seed: int) -> None:
    """Runs side by side, files through commits, gates, plans: each edge follows from the events, and none is missing."""
    with memory() as store:
        write(store, random.Random(seed), 40)
        check(store)


@pytest.mark.req("CAUSES-4", "CAUSES-5")
@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_every_told_step_is_proved_and_every_follower_is_counted(seed: int) -> None:
    """Each chain of `why` goes edge by edge through the truth; `blast` is the true closure; both bounds are honest."""
    with memory() as store:
        chance = random.Random(seed)
        write(store, chance, 30)
        true = {(edge.cause, edge.effect, edge.kind, edge.note) for edges in truth(store).values() for edge in edges}
        head = store.read(lambda tx: tx.ledger.head())[0]
        for seq in chance.sample(range(1, head + 1), 8):
            found = causes.why(store, seq)
            for chain in found.chains:
                told = [step.edge for step in chain.steps[1:]]
                assert [step.seq for step in chain.steps[:-1]] == [edge.cause for edge in told if edge is not None]
                assert all(edge and (edge.cause, edge.effect, edge.kind, edge.note) in true for edge in told)
                assert (None, seq) == (chain.steps[0].edge, chain.steps[-1].seq)
            reached = forward(store, seq) - {seq}
            told_all = causes.blast(store, seq, page=1000)
            assert (len(reached), reached) == (told_all.total, {step.seq for step in told_all.page})
            some = causes.blast(store, seq, most=3)
            assert (min(3, len(reached)), len(reached) <= 3) == (some.total, some.complete)


@pytest.mark.req("CAUSES-1", "CAUSES-4")
def test_the_edges_of_a_recorded_run_are_proved() -> None:
    """As the engine writes it: model calls, tool calls, a refusal, a gate, a doubt."""
    with memory() as store:
        record(store)
        check(store)


@pytest.fixture(name="old")
def _old(tmp_path: Path) -> Path:
    raw = sqlite3.connect(tmp_path / "midwatch.db")
    raw.executescript(gzip.decompress((HOME / "home.sql.gz").read_bytes()).decode())
    raw.close()
    return tmp_path / "midwatch.db"


@pytest.mark.req("CAUSES-3", "CAUSES-4")
def test_an_older_home_is_indexed_as_if_this_version_had_written_it(old: Path) -> None:
    """Real runs in sandboxes: the edges are proved, the chain is as it was, and a run leads back through a committed file."""
    store = SqliteStore(old)
    check(store)
    report = store.read(lambda tx: tx.ledger.verify(expected_head=HEAD))
    assert (True, 146) == (report.ok, report.events)
    kinds = {edge.kind for edges in indexed(store).values() for edge in edges}
    assert {"cause", "request", "dispatch", "handoff", "gate", "changed", "may-read", "released", "ended"} == kinds
    chains = causes.why(store, 65).chains
    assert [(1, "changed"), (31, None)] == [
        (chain.steps[0].seq, next((step.edge.kind for step in chain.steps if step.edge and step.edge.note), None))
        for chain in chains
    ]
    store.close()


@pytest.mark.req("CAUSES-3")
@settings(max_examples=5, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_the_index_made_anew_is_the_one_that_was_kept(seed: int) -> None:
    """What a migration makes of the events is what was written beside them."""
    store = MemoryStore()
    write(store, random.Random(seed), 30)
    raw: Connection = store._writer.sql

    def tables() -> list[Any]:
        names = ("SELECT * FROM cause ORDER BY 1, 2, 3", "SELECT * FROM file_version ORDER BY run, path, seq")
        return [raw.execute(sql).fetchall() for sql in (*names, "SELECT seq, follows FROM event ORDER BY seq")]

    kept = tables()
    raw.begin("IMMEDIATE")
    raw.execute("UPDATE event SET follows = 0")
    rebuild(raw, SqlBlobs(raw))
    raw.commit()
    assert kept == tables()
    store.close()


@pytest.mark.req("CAUSES-1")
@pytest.mark.parametrize(
    "harm",
    [
        "DELETE FROM cause WHERE kind = 'cause'",
        "UPDATE event SET follows = 0 WHERE follows = 1",
        "UPDATE event SET follows = 1",
    ],
)
def test_an_index_that_differs_from_the_events_is_found(harm: str) -> None:
    """An edge that was taken away or added shows in `verify`."""
    store = MemoryStore()
    run = RUNS[0]

    def work(tx: Tx) -> None:
        first = tx.ledger.append(EventDraft("run.created", run, 1, {}))
        tx.ledger.append(EventDraft("signal", run, 1, {}, causes=(first,)))
        tx.ledger.append(EventDraft("signal", run, 1, {}, causes=(first,)))

    store.write(work)
    assert store.read(lambda tx: tx.ledger.verify()).ok
    store._writer.sql.execute(harm)
    problems = store.read(lambda tx: tx.ledger.verify()).problems
    assert problems
    assert all("causes that differ" in problem for problem in problems)
    store.close()


@pytest.mark.req("CAUSES-1")
def test_a_piece_that_is_undone_leaves_no_edges() -> None:
    """What was appended and taken back in a transaction is not in the index either."""
    with memory() as store:
        first = store.write(lambda tx: tx.ledger.append(EventDraft("run.created", RUNS[0], 1, {})))

        def work(tx: Tx) -> None:
            tx.ledger.append(EventDraft("signal", RUNS[0], 1, {}, causes=(first,)))
            raise KeyError

        with pytest.raises(KeyError):
            store.write(work)
        store.write(lambda tx: tx.ledger.append(EventDraft("signal", RUNS[0], 1, {})))
        check(store)
