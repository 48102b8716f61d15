"""Edges of the store: each is a way in which a promise could be lost without an error."""

from __future__ import annotations

import contextlib
import math
import sqlite3
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from midwatch.errors import BoundReached, GateNotUsable, MidwatchError, NotFound, StoreError
from midwatch.records.effect import EffectRow
from midwatch.records.event import EventDraft
from midwatch.records.gate import GateRow
from midwatch.records.run import RunRow
from midwatch.records.spend import Account, Line
from midwatch.store.memory import MemoryStore
from midwatch.store.port import Tx
from midwatch.store.sqlite import SqliteStore

RUN = "ab" * 16


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Give a database's place."""
    return tmp_path / "m.db"


def draft(**data: object) -> EventDraft:
    """Make a draft."""
    return EventDraft("signal", RUN, 1, data)


@pytest.mark.req("STORE-3")
def test_two_lines_on_one_account_are_one_claim(path: Path) -> None:
    """A claim may not pass the cap by being split in two lines, and is charged once."""
    store = SqliteStore(path)
    store.write(lambda tx: tx.budgets.set_cap("s", "cost", 100))
    twice = [Line("s", "cost", 60), Line("s", "cost", 60)]
    with pytest.raises(BoundReached):
        store.write(lambda tx: tx.budgets.reserve("r", run=RUN, lines=twice, at_us=1))
    half = [Line("s", "cost", 30), Line("s", "cost", 30)]
    store.write(lambda tx: tx.budgets.reserve("q", run=RUN, lines=half, at_us=1))
    store.write(lambda tx: tx.budgets.settle("q", {"cost": 10}, at_us=2))
    assert [Account("s", "cost", 100, 10, 0)] == list(store.read(lambda tx: tx.budgets.accounts(["s"])))
    store.close()


@pytest.mark.req("STORE-3")
def test_what_was_used_but_not_held_is_charged(path: Path) -> None:
    """A free route that turns out to cost is spend all the same."""
    store = SqliteStore(path)
    store.write(lambda tx: tx.budgets.reserve("r", run=RUN, lines=[Line("s", "tokens", 5)], at_us=1))
    charged = store.write(lambda tx: tx.budgets.settle("r", {"tokens": 5, "cost": 7}, at_us=2))
    assert {"tokens": 5, "cost": 7} == dict(charged)
    assert 7 == sum(item.spent for item in store.read(lambda tx: tx.budgets.accounts(["s"])) if item.unit == "cost")
    store.close()


@pytest.mark.req("STORE-3")
@pytest.mark.parametrize("amount", [-5, 0.5])
def test_spend_is_a_whole_number_that_does_not_shrink(path: Path, amount: int) -> None:
    """A negative settlement would give back what other runs spent; a fraction would end exact sums."""
    store = SqliteStore(path)
    store.write(lambda tx: tx.budgets.reserve("r", run=RUN, lines=[Line("s", "cost", 9)], at_us=1))
    with pytest.raises((ValueError, TypeError)):
        store.write(lambda tx: tx.budgets.settle("r", {"cost": amount}, at_us=2))
    assert [Account("s", "cost", None, 0, 9)] == list(store.read(lambda tx: tx.budgets.accounts(["s"])))
    store.close()


@pytest.mark.req("STORE-3")
def test_a_sum_never_becomes_a_float(path: Path) -> None:
    """SQL adds past 63 bits in floats; an account stays whole."""
    store = SqliteStore(path)
    for name in ("a", "b"):
        store.write(lambda tx, name=name: tx.budgets.reserve(name, run=RUN, lines=[Line("s", "cost", 1)], at_us=1))  # type: ignore[misc]
        store.write(lambda tx, name=name: tx.budgets.settle(name, {"cost": 2**62}, at_us=2))  # type: ignore[misc]
    assert int is type(store.read(lambda tx: tx.budgets.accounts(["s"]))[0].spent)
    store.close()


@pytest.mark.parametrize("number", [1e22, math.nan, math.inf])
def test_no_float_enters_the_chain(path: Path, number: float) -> None:
    """Also not one that JSON writes without a dot, or as null."""
    store = SqliteStore(path)
    with pytest.raises(TypeError, match="floats"):
        store.write(lambda tx: tx.ledger.append(draft(n=number)))
    store.close()


@pytest.mark.req("STORE-6")
def test_a_swallowed_failure_is_not_reported_as_a_commit(path: Path) -> None:
    """SQLite takes the whole transaction back when the disk is full; work that goes on must not count as written."""
    store = SqliteStore(path)
    store.write(lambda tx: tx.ledger.append(draft()))
    pages = store._writer.sql.execute("PRAGMA page_count").fetchone()[0]
    store._writer.sql.execute(f"PRAGMA max_page_count = {pages + 1}")

    def work(tx: Tx) -> None:
        tx.watch.setting("small", b"x")
        with contextlib.suppress(StoreError):
            tx.watch.setting("large", b"x" * 1_000_000)
        tx.watch.setting("after", b"x")

    with pytest.raises(StoreError):
        store.write(work)
    kept = store.read(lambda tx: [tx.watch.setting(key) for key in ("small", "large", "after")])
    assert [None, None, None] == kept
    store._writer.sql.execute("PRAGMA max_page_count = 1000000")
    assert 2 == store.write(lambda tx: tx.ledger.append(draft()))
    store.close()


def test_a_listener_may_write(path: Path) -> None:
    """What is told of a commit may answer with one; nobody waits for ever."""
    store = SqliteStore(path)
    heard: list[int] = []

    def listen(seqs: object) -> None:
        assert isinstance(seqs, list | tuple)
        heard.extend(seqs)
        if len(heard) == 1:
            store.write(lambda tx: tx.ledger.append(draft()))

    store.on_commit(listen)
    thread = threading.Thread(target=lambda: store.write(lambda tx: tx.ledger.append(draft())), daemon=True)
    thread.start()
    thread.join(5)
    assert not thread.is_alive()
    assert [1, 2] == heard
    store.close()


def test_the_store_inside_its_own_work_is_a_clear_mistake(path: Path) -> None:
    """Work that calls the store would wait for itself for ever."""
    store = SqliteStore(path)
    errors: list[BaseException] = []

    def attempt() -> None:
        try:
            store.write(lambda tx: store.write(lambda inner: inner.ledger.head()))
        except RuntimeError as error:
            errors.append(error)

    thread = threading.Thread(target=attempt, daemon=True)
    thread.start()
    thread.join(5)
    assert 1 == len(errors)
    assert 1 == store.write(lambda tx: tx.ledger.append(draft()))
    store.close()


def test_a_read_that_fails_does_not_spoil_the_next(path: Path) -> None:
    """The reader of a failed read is as good as new."""
    store = SqliteStore(path)
    for _ in range(3):
        with pytest.raises(LookupError):
            store.read(lambda tx: (tx.ledger.head(), {"some": 1}["none"]))
    with pytest.raises(StoreError, match="write"):
        store.read(lambda tx: tx.ledger.append(draft()))
    assert 0 == store.read(lambda tx: tx.ledger.head())[0]
    store.close()


def test_opening_a_home_that_is_up_to_date_loads_no_sql_toolkit(path: Path) -> None:
    """The command line opens the store for every command; building tables is for new homes."""
    SqliteStore(path).close()
    script = (
        "import sys; from midwatch.store.sqlite import SqliteStore; SqliteStore(sys.argv[1]).close(); "
        "print([name for name in ('sqlalchemy', 'alembic') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script, str(path)], capture_output=True, text=True, check=True)
    assert "[]" == done.stdout.strip()


def test_processes_that_open_a_new_home_at_once_all_can(path: Path) -> None:
    """Whoever comes first makes the tables; the others find them."""
    script = (
        "import sys; from midwatch.store.sqlite import SqliteStore; from midwatch.records.event import EventDraft; "
        "sys.stdin.read(); s = SqliteStore(sys.argv[1]); "
        "s.write(lambda tx: tx.ledger.append(EventDraft('signal', None, 1, {}))); s.close()"
    )
    children = [
        subprocess.Popen(
            [sys.executable, "-c", script, str(path)], stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        for _ in range(6)
    ]
    for child in children:
        assert child.stdin is not None
        child.stdin.close()
        child.stdin = None
    said = [child.communicate(timeout=60)[1] for child in children]
    assert [""] * 6 == said
    store = SqliteStore(path)
    assert 6 == store.read(lambda tx: tx.ledger.verify()).events
    store.close()


def gate(**changes: object) -> GateRow:
    """Make a gate that expires at 100."""
    row = GateRow("9" * 16, RUN, "a", "x.y", "digest", "n", "p", "operator", "why", "card", "open", 1, 100)
    return replace(row, **changes)  # type: ignore[arg-type]


@pytest.mark.req("STORE-4")
def test_an_approval_that_was_not_used_in_time_can_be_asked_again(path: Path) -> None:
    """Otherwise its action could neither run nor wait."""
    store = SqliteStore(path)
    store.write(lambda tx: tx.gates.open(gate()))
    store.write(lambda tx: tx.gates.answer("9" * 16, approve=True, by="ann", reason="", at_us=5))
    again = gate(nonce="m", opened_us=200, expires_us=300)
    assert "open" == store.write(lambda tx: tx.gates.reopen(again)).status
    store.close()


@pytest.mark.req("STORE-4")
def test_a_late_answer_leaves_the_gate_expired(path: Path) -> None:
    """Who answers too late is told, and the gate no longer waits."""
    store = SqliteStore(path)
    store.write(lambda tx: tx.gates.open(gate()))

    def late(tx: Tx) -> None:
        with pytest.raises(GateNotUsable, match="expired"):
            tx.gates.answer("9" * 16, approve=True, by="ann", reason="", at_us=101)

    store.write(late)
    found = store.read(lambda tx: tx.gates.get("9" * 16))
    assert found is not None
    assert ("expired", 101) == (found.status, found.answered_us)
    store.close()


@pytest.mark.req("STORE-4")
def test_no_gate_begins_with_an_answer(path: Path) -> None:
    """A row that is approved from the start would be a yes that nobody gave; an old nonce an old yes."""
    store = SqliteStore(path)
    with pytest.raises(ValueError, match="open"):
        store.write(lambda tx: tx.gates.open(gate(status="approved")))
    store.write(lambda tx: tx.gates.open(gate()))
    store.write(lambda tx: tx.gates.answer("9" * 16, approve=False, by="ann", reason="", at_us=5))
    with pytest.raises(ValueError, match="nonce"):
        store.write(lambda tx: tx.gates.reopen(gate(opened_us=6)))
    store.close()


def effect(**changes: object) -> EffectRow:
    """Make an intent."""
    row = EffectRow("e" * 16, RUN, "t", "c", "tool", "x.y", "td", "write", "a", "ad", "args", 1, 1, "started", 1, 1)
    return replace(row, **changes)  # type: ignore[arg-type]


def test_an_intent_has_no_outcome(path: Path) -> None:
    """A row that begins as done would answer for an action that never ran."""
    store = SqliteStore(path)
    with pytest.raises(ValueError, match="intent"):
        store.write(lambda tx: tx.effects.begin(effect(status="done", result="r")))
    store.close()


@pytest.mark.parametrize("status", ["not_done", "retry"])
def test_an_effect_that_a_person_resolved_may_begin_again(path: Path, status: str) -> None:
    """As the port says: in these two states no higher attempt is asked for."""
    store = SqliteStore(path)
    store.write(lambda tx: tx.effects.begin(effect()))
    store.write(lambda tx: tx.effects.resolve("e" * 16, status=status, result=None, by="ann", at_us=2, seq=2))
    store.write(lambda tx: tx.effects.begin(effect(epoch=2)))
    found = store.read(lambda tx: tx.effects.get("e" * 16))
    assert effect(epoch=2) == found
    store.close()


@pytest.mark.req("STORE-5")
def test_a_released_lease_is_not_brought_back(path: Path) -> None:
    """Who gave the run away may not go on renewing what is no longer live."""
    store = SqliteStore(path)
    epoch = store.write(lambda tx: tx.fences.take(RUN, owner="a", at_us=0, ttl_us=10))
    store.write(lambda tx: tx.fences.release(RUN, epoch=epoch))
    with pytest.raises(MidwatchError):
        store.write(lambda tx: tx.fences.renew(RUN, epoch=epoch, at_us=1, ttl_us=10))
    store.close()


def run_row(**changes: object) -> RunRow:
    """Make a run's row."""
    return replace(RunRow(RUN, "f", None, "d", "b", "g", "p", None, "created", 1, "in"), **changes)  # type: ignore[arg-type]


def test_a_run_is_created_once_and_spends_only_when_it_is_there(path: Path) -> None:
    """A second row of the same id, and spend of a run that is not there, are errors of ours."""
    store = SqliteStore(path)
    store.write(lambda tx: tx.runs.create(run_row()))
    with pytest.raises(MidwatchError):
        store.write(lambda tx: tx.runs.create(run_row(fleet="other")))
    with pytest.raises(NotFound):
        store.write(lambda tx: tx.runs.add_spend("cd" * 16, {"cost": 5}))
    store.write(lambda tx: tx.runs.update(RUN))
    assert run_row() == store.read(lambda tx: tx.runs.get(RUN))
    store.close()


@pytest.mark.req("STORE-2")
@pytest.mark.parametrize("noun", ["run", "effect", "gate"])
def test_verify_follows_the_blobs_that_rows_name(path: Path, noun: str) -> None:
    """A body that only a row names is missed too when it is gone."""
    store = SqliteStore(path)

    def work(tx: Tx) -> None:
        body = tx.blobs.put(b"body")
        tx.runs.create(run_row(fleet_blob=body, input=body))
        tx.effects.begin(effect(arguments=body))
        tx.gates.open(gate(card=body))

    store.write(work)
    assert store.read(lambda tx: tx.ledger.verify()).ok
    store.close()
    with sqlite3.connect(path) as raw:
        raw.execute("DELETE FROM blob")
    raw.close()
    store = SqliteStore(path)
    problems = store.read(lambda tx: tx.ledger.verify()).problems
    store.close()
    assert any(problem.startswith(noun) for problem in problems)


@pytest.mark.req("STORE-2")
@pytest.mark.parametrize("body", ["x'5b5d'", "x'00'", "'text'", "NULL"])
def test_verify_reports_what_cannot_be_read(path: Path, body: str) -> None:
    """Whatever stands in the column, the walk goes on to the end."""
    store = SqliteStore(path)
    for _ in range(3):
        store.write(lambda tx: tx.ledger.append(draft()))
    store.close()
    with sqlite3.connect(path) as raw:
        raw.execute("CREATE TABLE copy AS SELECT * FROM event")
        raw.execute("DROP TABLE event")
        raw.execute("ALTER TABLE copy RENAME TO event")
        raw.execute(f"UPDATE event SET body = {body} WHERE seq = 2")  # noqa: S608 - our own words
    raw.close()
    store = SqliteStore(path)
    report = store.read(lambda tx: tx.ledger.verify())
    store.close()
    assert (False, 3) == (report.ok, report.events)


@pytest.mark.req("STORE-1")
def test_a_file_that_was_taken_away_is_not_acknowledged(path: Path) -> None:
    """A durable write into a file that has no name any more would be lost with the process."""
    store = SqliteStore(path)
    store.write(lambda tx: tx.ledger.append(draft()), durable=True)
    path.rename(path.with_name("elsewhere.db"))
    with pytest.raises(StoreError, match="moved"):
        store.write(lambda tx: tx.ledger.append(draft()), durable=True)
    store.close()


@pytest.mark.req("STORE-1")
@pytest.mark.parametrize(("made", "levels"), [("home", [1, 2, 1]), ("memory", [0, 0, 0])])
def test_only_a_durable_batch_is_flushed(path: Path, made: str, levels: list[int]) -> None:
    """FULL for the batch that asked for it and NORMAL otherwise; a store in memory, which nobody finds again, flushes nothing."""
    store = SqliteStore(path) if made == "home" else MemoryStore()
    found = []
    for durable in (False, True, False):
        store.write(lambda tx: tx.ledger.append(EventDraft("signal", RUN, 1, {})), durable=durable)
        found.append(store._writer.sql.execute("PRAGMA synchronous").fetchone()[0])
    store.close()
    assert levels == found
