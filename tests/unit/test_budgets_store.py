"""Accounts under attack: the tree, the last unit, kills, corrections, amounts that are none."""

from __future__ import annotations

import math
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from midwatch.engine import books
from midwatch.errors import BoundReached, UsageProblem
from midwatch.governor.budgets import amount
from midwatch.records.run import RunRow
from midwatch.records.spend import Account, Line, Order
from midwatch.store.memory import MemoryStore
from midwatch.store.port import Tx
from midwatch.store.sqlite import SqliteStore

RUN = "ab" * 16
PATHS = (("fleet", "run:a", "agent:a/x"), ("fleet", "run:a", "agent:a/y"), ("fleet", "run:b", "agent:b/x"))
CAPS = {"fleet": 100, "run:a": 60, "run:b": 70, "agent:a/x": 40, "agent:a/y": 1000, "agent:b/x": 70}

CLAIM = """
import sys
from pathlib import Path
from midwatch.errors import BoundReached
from midwatch.records.spend import Line
from midwatch.store.sqlite import SqliteStore
store, got = SqliteStore(Path(sys.argv[1])), 0
for number in range(int(sys.argv[3])):
    try:
        store.write(lambda tx: tx.budgets.reserve(f"{sys.argv[2]}:{number}", run="r", lines=[Line("s", "cost", 1)], at_us=1))
        got += 1
    except BoundReached:
        pass
print(got)
"""
DIE = """
import os, signal, sys
from pathlib import Path
from midwatch.records.spend import Line
from midwatch.store.sqlite import SqliteStore
store = SqliteStore(Path(sys.argv[1]))
def work(tx):
    tx.budgets.reserve("begun", run=sys.argv[2], lines=[Line("s", "cost", 7), Line("s", "concurrency", 1)], at_us=1)
    tx.budgets.confirm("begun")
    tx.budgets.reserve("not begun", run=sys.argv[2], lines=[Line("s", "cost", 5)], at_us=1)
store.write(work, durable=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


def _standing(store: Any, *names: str) -> dict[tuple[str, str], Account]:
    rows = store.read(lambda tx: tx.budgets.accounts(list(names)))
    return {(row.scope, row.unit): row for row in rows}


@pytest.mark.req("BUDGET-1")
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.lists(
        st.tuples(
            st.integers(0, 2),
            st.integers(0, 50),
            st.sampled_from(["settle", "all", "release", "keep", "amend"]),
            st.integers(0, 60),
        ),
        max_size=25,
    )
)
def test_a_subtree_never_uses_more_than_its_parent_has(steps: list[tuple[int, int, str, int]]) -> None:
    """Whatever is claimed, settled, given back or put right: no cap is passed by a claim, and each parent has the sum of its children."""
    store = MemoryStore()
    try:
        for scope, cap in CAPS.items():
            store.write(lambda tx, scope=scope, cap=cap: tx.budgets.set_cap(scope, "cost", cap))  # type: ignore[misc]
        for number, (which, asked, end, used) in enumerate(steps):
            lines, name = [Line(scope, "cost", asked) for scope in PATHS[which]], str(number)
            try:
                store.write(lambda tx, name=name, lines=lines: tx.budgets.reserve(name, run=RUN, lines=lines, at_us=1))  # type: ignore[misc]
            except BoundReached:
                continue
            _end(store, name, end, min(used, asked))
            rows = _standing(store, *CAPS)
            for parent, children in (
                ("fleet", ("run:a", "run:b")),
                ("run:a", ("agent:a/x", "agent:a/y")),
                ("run:b", ("agent:b/x",)),
            ):
                whole, parts = rows[parent, "cost"], [rows[child, "cost"] for child in children]
                assert (whole.spent, whole.held) == (sum(one.spent for one in parts), sum(one.held for one in parts))
            assert all(
                0 <= row.spent and 0 <= row.held and row.spent + row.held <= (row.cap or 0) for row in rows.values()
            )
    finally:
        store.close()


def _end(store: MemoryStore, name: str, end: str, used: int) -> None:
    def work(tx: Tx) -> None:
        if end == "release":
            tx.budgets.release(name)
        elif end != "keep":
            tx.budgets.confirm(name)
            tx.budgets.settle(name, None if end == "all" else {"cost": used}, at_us=2)
            if end == "amend":
                tx.budgets.amend(name, {"cost": used // 2})

    store.write(work)


@pytest.mark.req("BUDGET-2")
def test_several_processes_share_the_last_units(tmp_path: Path) -> None:
    """Four processes that want twice the cap together get exactly the cap, and no lock error."""
    place = tmp_path / "midwatch.db"
    store = SqliteStore(place)
    store.write(lambda tx: tx.budgets.set_cap("s", "cost", 40), durable=True)
    made = [
        subprocess.Popen([sys.executable, "-c", CLAIM, str(place), str(number), "20"], stdout=subprocess.PIPE)
        for number in range(4)
    ]
    got = [int(child.communicate(timeout=60)[0]) for child in made]
    assert 40 == sum(got)
    assert Account("s", "cost", 40, 0, 40) == _standing(store, "s")["s", "cost"]
    store.close()


@pytest.mark.req("BUDGET-2")
def test_the_last_unit_goes_to_one_thread() -> None:
    """Forty threads, one unit: one of them."""
    store, won = MemoryStore(), []
    store.write(lambda tx: tx.budgets.set_cap("s", "tool_calls", 1))

    def claim(number: int) -> None:
        try:
            store.write(
                lambda tx: tx.budgets.reserve(str(number), run=RUN, lines=[Line("s", "tool_calls", 1)], at_us=1)
            )
            won.append(number)
        except BoundReached:
            pass

    threads = [threading.Thread(target=claim, args=(number,)) for number in range(40)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert 1 == len(won)
    store.close()


@pytest.mark.req("BUDGET-3")
def test_a_worker_killed_between_reserve_and_settle_pays_for_what_it_began(tmp_path: Path) -> None:
    """After kill -9 the begun claim costs all of it, the other one nothing, and a place among those at once is free again."""
    place = tmp_path / "midwatch.db"
    store = SqliteStore(place)
    store.write(lambda tx: tx.budgets.set_cap("s", "cost", 20), durable=True)
    row = RunRow(
        id=RUN, fleet="f", fleet_path=None, fleet_digest="", fleet_blob="", graph_digest="", policy_digest="", preset=None,
        status="running", created_us=1, input="",
    )  # fmt: skip
    store.write(lambda tx: tx.runs.create(row))
    done = subprocess.run([sys.executable, "-c", DIE, str(place), RUN], timeout=60, check=False)
    assert -signal.SIGKILL == done.returncode
    store.write(lambda tx: books.close(tx, RUN, at_us=9))
    rows = _standing(store, "s")
    assert Account("s", "cost", 20, 7, 0) == rows["s", "cost"]
    assert Account("s", "concurrency", None, 0, 0) == rows["s", "concurrency"]
    assert 7 == (store.read(lambda tx: tx.runs.get(RUN)) or row).cost
    store.close()


@pytest.mark.req("BUDGET-7")
@pytest.mark.parametrize("wrong", [-1, 1.5, math.nan, math.inf, True, None, "1"])
def test_the_store_takes_whole_amounts_only(wrong: Any) -> None:
    """Neither a claim, nor a settlement, nor a cap, nor a correction, nor an order holds anything else."""
    store = MemoryStore()
    store.write(lambda tx: tx.budgets.reserve("r", run=RUN, lines=[Line("s", "cost", 5)], at_us=1))
    tries = (
        lambda tx: tx.budgets.reserve("q", run=RUN, lines=[Line("s", "cost", wrong)], at_us=1),
        lambda tx: tx.budgets.settle("r", {"cost": wrong}, at_us=1),
        lambda tx: tx.budgets.set_cap("s", "cost", wrong),
        lambda tx: tx.budgets.order(Order("s", "cost", cap=wrong, added=-1 if wrong is None else 0)),
    )
    for number, work in enumerate(tries):
        if wrong is None and number == 2:
            continue  # no cap at all is a cap's absence
        with pytest.raises((TypeError, ValueError)):
            store.write(work)
    assert Account("s", "cost", None, 0, 5) == _standing(store, "s")["s", "cost"]
    store.close()


@pytest.mark.req("BUDGET-7")
def test_a_huge_claim_is_no_claim() -> None:
    """More than a column holds is refused as a bound, also without a cap and in shadow; nothing wraps around."""
    store = MemoryStore()
    for shadow in (False, True):
        lines = [Line("s", "cost", 2**63, shadow)]
        with pytest.raises(BoundReached):
            store.write(lambda tx, lines=lines: tx.budgets.reserve("r", run=RUN, lines=lines, at_us=1))  # type: ignore[misc]
    assert {} == _standing(store, "s")
    store.close()


@pytest.mark.req("BUDGET-7")
@pytest.mark.parametrize(
    ("unit", "wrong"),
    [
        ("cost", "-$1"),
        ("cost", "NaN"),
        ("cost", 1.0),
        ("cost", "1e9"),
        ("tokens", -1),
        ("tokens", 2**60),
        ("wall", "10"),
        ("steps", "٣"),
    ],
)
def test_amounts_of_people_and_programs_are_read_strictly(unit: Any, wrong: Any) -> None:
    """What is no amount is a mistake, not a number."""
    with pytest.raises(UsageProblem):
        amount(unit, wrong)


@pytest.mark.req("BUDGET-11")
def test_a_correction_moves_every_scope_alike_and_never_below_zero() -> None:
    """The truth takes the place of the charge, twice is once, and what is not settled cannot be put right."""
    store = MemoryStore()

    def work(tx: Tx) -> None:
        tx.budgets.reserve("r", run=RUN, lines=[Line(name, "cost", 10) for name in ("a", "b")], at_us=1)

    store.write(work)
    with pytest.raises(UsageProblem):
        store.write(lambda tx: tx.budgets.amend("r", {"cost": 1}))
    store.write(lambda tx: tx.budgets.settle("r", {"cost": 8}, at_us=1))
    assert {"cost": -5} == store.write(lambda tx: tx.budgets.amend("r", {"cost": 3}))
    assert {"cost": 0} == store.write(lambda tx: tx.budgets.amend("r", {"cost": 3}))
    assert {"cost": -3} == store.write(lambda tx: tx.budgets.amend("r", {"cost": 0}))
    assert [0, 0] == [row.spent for row in _standing(store, "a", "b").values()]
    store.close()


@pytest.mark.req("BUDGET-6")
def test_a_shadow_counts_and_says_what_it_would_have_stopped() -> None:
    """A scope in shadow goes past its cap and tells; one around it that is not still stops."""
    store = MemoryStore()
    for scope, cap in (("out", 12), ("in", 5)):
        store.write(lambda tx, scope=scope, cap=cap: tx.budgets.set_cap(scope, "cost", cap))  # type: ignore[misc]
    lines = [Line("out", "cost", 7), Line("in", "cost", 7, shadow=True)]
    would = store.write(lambda tx: tx.budgets.reserve("r", run=RUN, lines=lines, at_us=1))
    assert [("in", 5, 0, 7)] == [(one.scope, one.cap, one.used, one.asked) for one in would]
    with pytest.raises(BoundReached):
        store.write(lambda tx: tx.budgets.reserve("q", run=RUN, lines=lines, at_us=1))
    assert {7} == {row.held for row in _standing(store, "out", "in").values()}
    store.close()


@pytest.mark.req("BUDGET-13")
def test_a_bound_says_whether_room_will_come_back() -> None:
    """What is only held may be given back; what is spent may not."""
    store = MemoryStore()
    store.write(lambda tx: tx.budgets.set_cap("s", "cost", 10))
    store.write(lambda tx: tx.budgets.reserve("r", run=RUN, lines=[Line("s", "cost", 8)], at_us=1))
    found = []
    for asked in (5, 11):
        with pytest.raises(BoundReached) as caught:
            store.write(
                lambda tx, asked=asked: tx.budgets.reserve("q", run=RUN, lines=[Line("s", "cost", asked)], at_us=1)  # type: ignore[misc]
            )
        found.append(caught.value.passing)
    store.write(lambda tx: tx.budgets.settle("r", None, at_us=1))
    with pytest.raises(BoundReached) as caught:
        store.write(lambda tx: tx.budgets.reserve("q", run=RUN, lines=[Line("s", "cost", 5)], at_us=1))
    assert [True, False, False] == [*found, caught.value.passing]
    store.close()
