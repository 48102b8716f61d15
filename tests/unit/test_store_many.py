"""Many gates: what a home's polls cost does not grow with the number of gates that wait or have ever been answered."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from midwatch.records.gate import GateRow, Notice
from midwatch.records.run import RunRow
from midwatch.store.port import Tx
from midwatch.store.sqlite import SqliteStore

GATE = GateRow("0", "0", "a", "x.y", "digest", "n", "p", "operator", "why", "card", "open", 1, 10_000)
NOTICE = Notice("0", "0", "n", "ops", "opened", 1, 1)
A_RUN = 4
FEW, MANY = 40, 4_000
QUESTIONS: dict[str, Callable[[Tx], Any]] = {
    "is anything overdue": lambda tx: tx.gates.overdue(100),
    "which runs go on": lambda tx: tx.gates.ready(50),
    "what waits in one run": lambda tx: tx.gates.list(run=f"{1:032x}", statuses=("open",)),
    "the first of the inbox": lambda tx: tx.gates.list(statuses=("open",), limit=10),
    "what is to be told": lambda tx: tx.notices.due(100),
    "what was said": lambda tx: tx.gates.said(f"{1:016x}", "n"),
    "which gate is this": lambda tx: tx.gates.find(f"{1:016x}"),
}


def filled(path: Path, gates: int) -> SqliteStore:
    """Make a home with that many open gates whose notices were sent, and as many answered ones that nobody was told of."""
    store = SqliteStore(path)

    def fill(tx: Tx) -> None:
        for place in range(0, 2 * gates, A_RUN):
            run = f"{place // A_RUN:032x}"
            tx.runs.create(RunRow(run, "f", None, "d", "b", "g", "p", None, "waiting", 1, "in", ended_us=60))
        for place in range(2 * gates):
            row = replace(GATE, id=f"{place:016x}", run=f"{place // A_RUN:032x}", opened_us=place)
            notice = replace(NOTICE, id=f"{row.id}:n:ops:opened", gate=row.id)
            tx.gates.open(row)
            tx.notices.add(notice)
            if place < gates:
                tx.notices.sent(notice.id, at_us=2)
            else:
                tx.gates.answer(row.id, approve=True, by="ann", reason="", at_us=40)

    store.write(fill)
    return store


def cost(store: SqliteStore, question: Callable[[Tx], Any]) -> int:
    """Count steps of SQLite's machine, in tens: the same on every computer."""
    steps = 0

    def count() -> int:
        nonlocal steps
        steps += 1
        return 0

    def work(tx: Any) -> None:
        question(tx)
        tx.sql._raw.set_progress_handler(count, 10)
        question(tx)
        tx.sql._raw.set_progress_handler(None, 10)

    store.read(work)
    return steps


@pytest.fixture(scope="module")
def homes(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Give a home with few gates and one with many."""
    folder = tmp_path_factory.mktemp("many")
    few, many = filled(folder / "few.db", FEW), filled(folder / "many.db", MANY)
    yield few, many
    few.close()
    many.close()


@pytest.mark.req("STORE-10")
@pytest.mark.parametrize("question", sorted(QUESTIONS))
def test_a_question_costs_the_same_whatever_waits(homes: tuple[SqliteStore, SqliteStore], question: str) -> None:
    """A hundred times the gates, at most twice the work."""
    few, many = (cost(store, QUESTIONS[question]) for store in homes)
    assert many <= 2 * few + 5


@pytest.mark.req("STORE-10")
def test_telling_many_channels_at_once_costs_in_proportion(tmp_path: Path) -> None:
    """Everything due at once: ten times the gates take at most twenty times the work, not a hundred times."""
    costs = []
    for gates in (200, 2_000):
        store = filled(tmp_path / f"{gates}.db", gates)
        store.write(lambda tx: tx.sql.execute("UPDATE notice SET sent_us = NULL"))  # type: ignore[attr-defined]
        costs.append(cost(store, lambda tx: tx.notices.due(100)))
        store.close()
    assert costs[1] <= 20 * costs[0]


@pytest.mark.req("STORE-9")
def test_what_was_not_sent_is_silent_once_its_gate_is_closed(tmp_path: Path) -> None:
    """Answered, denied, expired or amended: no later pass looks at its notice again, and a sent one keeps its time."""
    store = SqliteStore(tmp_path / "m.db")
    closings: list[Callable[[Tx, GateRow], Any]] = [
        lambda tx, row: tx.gates.answer(row.id, approve=True, by="ann", reason="", at_us=5),
        lambda tx, row: tx.gates.answer(row.id, approve=False, by="ann", reason="", at_us=5),
        lambda tx, row: tx.gates.expire(20_000),
        lambda tx, row: tx.gates.amend(replace(row, nonce="m")),
    ]
    for place, close in enumerate(closings):
        row = replace(GATE, id=f"{place:016x}")
        waits, sent = (replace(NOTICE, id=f"{row.id}:{why}", gate=row.id) for why in ("waits", "sent"))

        def work(
            tx: Tx,
            row: GateRow = row,
            waits: Notice = waits,
            sent: Notice = sent,
            close: Callable[[Tx, GateRow], Any] = close,
        ) -> None:
            tx.gates.open(row)
            tx.notices.add(waits)
            tx.notices.add(sent)
            tx.notices.sent(sent.id, at_us=2)
            close(tx, row)

        store.write(work)
        listed = store.read(lambda tx, row=row: tx.notices.list(row.id))  # type: ignore[misc]
        assert {"waits": True, "sent": False} == {item.id[17:]: item.next_us > 2**60 for item in listed}
    store.close()
