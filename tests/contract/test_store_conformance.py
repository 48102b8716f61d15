"""The conformance suite of the store's port: every adapter passes all of it. Add an adapter by adding a line to `ADAPTERS`."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from midwatch.errors import (
    Ambiguous,
    BoundReached,
    Divergence,
    FenceLost,
    GateNotUsable,
    NotFound,
    RunHeld,
    StoreUnreadable,
)
from midwatch.records.decision import Halt
from midwatch.records.effect import EffectRow
from midwatch.records.event import GENESIS, EventDraft
from midwatch.records.gate import GateRow
from midwatch.records.run import RunRow
from midwatch.records.spend import Account, Line
from midwatch.store.memory import MemoryStore
from midwatch.store.port import Store, Tx
from midwatch.store.postgres import PostgresStore
from midwatch.store.sqlite import SqliteStore
from tests.postgres_server import shared

RUN = "ab" * 16
EFFECT = "e" * 16
GATE = "9" * 16
ADAPTERS: dict[str, Callable[[Path], Store]] = {
    "sqlite": lambda folder: SqliteStore(folder / "midwatch.db"),
    "memory": lambda _: MemoryStore(),
    "postgres": lambda _: PostgresStore(shared().schema()),
}


@pytest.fixture(params=sorted(ADAPTERS))
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    """Give each adapter in turn."""
    made = ADAPTERS[request.param](tmp_path)
    yield made
    made.close()


def event(kind: Any = "signal", **data: Any) -> EventDraft:
    """Make a draft."""
    return EventDraft(kind, RUN, 1, data)


def effect_row(attempt: int = 1, epoch: int = 1, digest: str = "ad") -> EffectRow:
    """Make an intent."""
    return EffectRow(
        id=EFFECT,
        run=RUN,
        task="t",
        call_id="c",
        kind="tool",
        tool="x.y",
        tool_digest="td",
        effect="write",
        agent="a",
        args_digest=digest,
        arguments="args",
        epoch=epoch,
        attempt=attempt,
        status="started",
        started_us=1,
        intent_seq=1,
    )


def gate_row() -> GateRow:
    """Make an open gate that expires at 100."""
    return GateRow(GATE, RUN, "a", "x.y", "digest", "n", "p", "operator", "why", "card", "open", 1, 100)


def begin(store: Store, row: EffectRow) -> None:
    """Write an intent."""
    store.write(lambda tx: tx.effects.begin(row))


def test_events_get_consecutive_numbers_and_read_back_whole(store: Store) -> None:
    """What was appended is what is read, in order, with its place in the chain."""
    first = store.write(lambda tx: tx.ledger.append(event(note="a")))
    second = store.write(lambda tx: tx.ledger.append(replace(event(note="b"), causes=(first,))))
    events = store.read(lambda tx: tx.ledger.read(run=RUN))
    assert [1, 2] == [first, second]
    assert [({"note": "a"}, ()), ({"note": "b"}, (1,))] == [(dict(item.data), item.causes) for item in events]
    assert [GENESIS, events[0].hash] == [item.prev for item in events]
    assert (2, events[1].hash) == store.read(lambda tx: tx.ledger.head())


@pytest.mark.parametrize(
    "bad", [event("nonsense"), replace(event(), causes=(7,)), event(cost=0.5), event(deep=[{"x": 1.5}])]
)
def test_a_malformed_event_leaves_nothing(store: Store, bad: EventDraft) -> None:
    """Unknown kinds, causes that do not exist yet and floats never enter the chain."""
    with pytest.raises((ValueError, TypeError)):
        store.write(lambda tx: tx.ledger.append(bad))
    assert (0, GENESIS) == store.read(lambda tx: tx.ledger.head())


@pytest.mark.req("STORE-2")
def test_verify_accepts_an_honest_chain_and_its_own_anchor(store: Store) -> None:
    """A head that was seen earlier is found on the chain; another one is not."""
    store.write(lambda tx: tx.ledger.append(event(card_blob=tx.blobs.put(b"x" * 2000))))
    anchor = store.read(lambda tx: tx.ledger.head())[1]
    store.write(lambda tx: tx.ledger.append(event()))
    assert store.read(lambda tx: tx.ledger.verify(expected_head=anchor)).ok
    assert not store.read(lambda tx: tx.ledger.verify(expected_head="f" * 64)).ok


@pytest.mark.req("STORE-7")
def test_failing_work_undoes_itself_alone(store: Store) -> None:
    """In a group commit the others' work is committed and the chain has no hole."""
    held, free = threading.Event(), threading.Event()
    errors: list[BaseException] = []

    def hold(tx: Tx) -> int:
        held.set()
        assert free.wait(10)
        return tx.ledger.append(event())

    def broken(tx: Tx) -> int:
        tx.ledger.append(event())
        raise LookupError

    def attempt(work: Callable[[Tx], int]) -> None:
        try:
            store.write(work)
        except LookupError as error:
            errors.append(error)

    leader = threading.Thread(target=attempt, args=(hold,))
    leader.start()
    assert held.wait(10)
    works: list[Callable[[Tx], int]] = [
        lambda tx: tx.ledger.append(event()),
        broken,
        lambda tx: tx.ledger.append(event()),
    ]
    others = [threading.Thread(target=attempt, args=(work,)) for work in works]
    for thread in others:
        thread.start()
    free.set()
    for thread in (leader, *others):
        thread.join(10)
    attempt(broken)
    report = store.read(lambda tx: tx.ledger.verify())
    assert (True, 3, 2) == (report.ok, report.events, len(errors))


def test_a_read_makes_no_write(store: Store) -> None:
    """A write inside a read is an error."""
    with pytest.raises(StoreUnreadable):
        store.read(lambda tx: tx.ledger.append(event()))
    assert (0, GENESIS) == store.read(lambda tx: tx.ledger.head())


def test_listeners_hear_each_commit_until_they_leave(store: Store) -> None:
    """`on_commit` gives the numbers of committed events only."""
    heard: list[int] = []
    leave = store.on_commit(heard.extend)
    store.write(lambda tx: tx.ledger.append(event()))
    leave()
    store.write(lambda tx: tx.ledger.append(event()))
    assert [1] == heard


def test_runs_are_found_by_prefix_and_changed_by_name(store: Store) -> None:
    """A unique prefix is enough; a short, unknown or shared one is an error."""
    other = "ab" * 15 + "cd"
    for place, run in enumerate((RUN, other)):
        row = RunRow(run, "f", None, "d", "b", "g", "p", None, "created", place, "in")
        store.write(lambda tx, row=row: tx.runs.create(row))  # type: ignore[misc]
    store.write(lambda tx: tx.runs.update(RUN, status="done"))
    store.write(lambda tx: tx.runs.add_spend(RUN, {"cost": 5, "steps": 1}))
    found = store.read(lambda tx: tx.runs.find(RUN))
    assert ("done", 5, 1) == (found.status, found.cost, found.steps)
    assert [other, RUN] == [row.id for row in store.read(lambda tx: tx.runs.list())]
    for prefix, error in (("abab", Ambiguous), ("ffff", NotFound), ("ab", NotFound), ("%", NotFound)):
        with pytest.raises(error):
            store.read(lambda tx, prefix=prefix: tx.runs.find(prefix))  # type: ignore[misc]
    with pytest.raises(TypeError):
        store.write(lambda tx: tx.runs.update(RUN, colour="red"))


def test_the_first_halt_stays_until_it_is_cleared(store: Store) -> None:
    """A second mark does not replace the first."""
    first, second = Halt("cancel", "enough", "ann", 1), Halt("kill", "more", "bob", 2)
    assert store.write(lambda tx: tx.runs.set_halt(RUN, first))
    assert not store.write(lambda tx: tx.runs.set_halt(RUN, second))
    assert first == store.read(lambda tx: tx.runs.halt(RUN))
    store.write(lambda tx: tx.runs.clear_halt(RUN))
    assert store.read(lambda tx: tx.runs.halt(RUN)) is None


def test_an_effect_begins_once_an_attempt(store: Store) -> None:
    """The same attempt, other arguments and a finished effect are refused."""
    begin(store, effect_row())
    for row in (effect_row(), effect_row(attempt=2, digest="other")):
        with pytest.raises(Divergence):
            begin(store, row)
    begin(store, effect_row(attempt=2))
    store.write(lambda tx: tx.effects.finish(EFFECT, epoch=1, result="r", at_us=3, seq=2))
    with pytest.raises(Divergence):
        begin(store, effect_row(attempt=3))


@pytest.mark.req("STORE-5")
def test_only_the_epoch_that_began_an_effect_finishes_it(store: Store) -> None:
    """A worker that was replaced cannot write a result over its successor's."""
    begin(store, effect_row(epoch=2))
    with pytest.raises(FenceLost):
        store.write(lambda tx: tx.effects.finish(EFFECT, epoch=1, result="r", at_us=3, seq=2))


@pytest.mark.req("STORE-4")
def test_an_approval_is_used_once_in_time_for_its_action(store: Store) -> None:
    """Unanswered, foreign, late and second uses are refused; so is a contrary second answer."""
    store.write(lambda tx: tx.gates.open(gate_row()))

    def use(digest: str, at: int) -> None:
        store.write(lambda tx: tx.gates.consume(GATE, digest=digest, at_us=at))

    def answer(*, approve: bool, at: int) -> None:
        store.write(lambda tx: tx.gates.answer(GATE, approve=approve, by="ann", reason="", at_us=at))

    with pytest.raises(GateNotUsable, match="open"):
        use("digest", 5)
    with pytest.raises(GateNotUsable, match="expired"):
        answer(approve=True, at=101)
    answer(approve=True, at=5)
    with pytest.raises(GateNotUsable, match="first answer"):
        answer(approve=False, at=6)
    with pytest.raises(GateNotUsable, match="another action"):
        use("forged", 6)
    with pytest.raises(GateNotUsable, match="expired"):
        use("digest", 101)
    use("digest", 6)
    with pytest.raises(GateNotUsable, match="used"):
        use("digest", 7)


@pytest.mark.req("STORE-3")
def test_a_claim_that_does_not_fit_holds_nothing(store: Store) -> None:
    """The scope without room is named, and no line of the claim is kept."""
    store.write(lambda tx: tx.budgets.set_cap("out", "cost", 10))
    store.write(lambda tx: tx.budgets.set_cap("in", "cost", 5))
    lines = [Line("out", "cost", 8), Line("in", "cost", 8)]
    with pytest.raises(BoundReached) as caught:
        store.write(lambda tx: tx.budgets.reserve("r", run=RUN, lines=lines, at_us=1))
    assert ("in", 5, 0, 8) == (caught.value.scope, caught.value.cap, caught.value.used, caught.value.asked)
    standing = store.read(lambda tx: tx.budgets.accounts(["in", "out"]))
    assert [Account("in", "cost", 5, 0, 0), Account("out", "cost", 10, 0, 0)] == list(standing)


@pytest.mark.req("STORE-3")
def test_a_hold_is_settled_once_with_what_was_spent(store: Store) -> None:
    """Less than held gives the rest back; unknown spend costs all of it; settling again changes nothing."""
    store.write(lambda tx: tx.budgets.set_cap("s", "cost", 100))

    def work(tx: Tx) -> None:
        for name in ("a", "b", "c"):
            tx.budgets.reserve(name, run=RUN, lines=[Line("s", "cost", 20)], at_us=1)
        for name in ("a", "b"):
            tx.budgets.confirm(name)
        tx.budgets.settle("a", {"cost": 3}, at_us=2)
        tx.budgets.settle("b", None, at_us=2)
        tx.budgets.settle("a", None, at_us=3)
        tx.budgets.release("c")

    store.write(work)
    assert [Account("s", "cost", 100, 23, 0)] == list(store.read(lambda tx: tx.budgets.accounts(prefix="s")))
    with pytest.raises(Divergence):
        store.write(lambda tx: tx.budgets.confirm("c"))


@pytest.mark.req("STORE-3")
def test_parallel_claims_never_pass_the_cap(store: Store) -> None:
    """Eight threads that want twice the cap get exactly the cap."""
    store.write(lambda tx: tx.budgets.set_cap("s", "tool_calls", 40))
    refused: list[str] = []

    def claim(worker: int) -> None:
        for place in range(10):
            name, lines = f"{worker}:{place}", [Line("s", "tool_calls", 1)]
            try:
                store.write(lambda tx: tx.budgets.reserve(name, run=RUN, lines=lines, at_us=1))  # noqa: B023 - done in this turn
            except BoundReached as error:
                refused.append(error.scope)

    threads = [threading.Thread(target=claim, args=(worker,)) for worker in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    standing = store.read(lambda tx: tx.budgets.accounts(["s"]))
    assert (40, [Account("s", "tool_calls", 40, 0, 40)]) == (len(refused), list(standing))


@pytest.mark.req("STORE-5")
def test_a_run_is_held_by_one_owner_and_the_old_epoch_is_lost(store: Store) -> None:
    """A live lease keeps others out; after it, the next epoch shuts the former worker out."""
    first = store.write(lambda tx: tx.fences.take(RUN, owner="a", at_us=0, ttl_us=10))
    with pytest.raises(RunHeld):
        store.write(lambda tx: tx.fences.take(RUN, owner="b", at_us=5, ttl_us=10))
    assert [RUN] == list(store.read(lambda tx: tx.fences.expired(10)))
    second = store.write(lambda tx: tx.fences.take(RUN, owner="b", at_us=10, ttl_us=10))
    assert (1, 2) == (first, second)
    with pytest.raises(FenceLost):
        store.write(lambda tx: tx.fences.check(RUN, 1))
    with pytest.raises(FenceLost):
        store.write(lambda tx: tx.fences.renew(RUN, epoch=1, at_us=11, ttl_us=10))
    store.write(lambda tx: tx.fences.release(RUN, epoch=1))
    assert store.read(lambda tx: tx.fences.live(RUN, 15))


def test_a_closed_store_says_so(store: Store) -> None:
    """Use after close is an error, not a silent loss."""
    store.close()
    with pytest.raises(StoreUnreadable):
        store.write(lambda tx: tx.ledger.append(event()))
