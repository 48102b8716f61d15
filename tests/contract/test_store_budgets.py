"""What the store keeps of budgets beside claims, on every adapter: corrections, orders, beginnings, charges."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from midwatch.errors import Divergence
from midwatch.records.spend import Account, Line, Order
from midwatch.store.port import Store, Tx
from tests.contract.test_store_conformance import ADAPTERS

RUN = "ab" * 16


@pytest.fixture(params=sorted(ADAPTERS))
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    """Give each adapter in turn."""
    made = ADAPTERS[request.param](tmp_path)
    yield made
    made.close()


@pytest.mark.req("BUDGET-11", "STORE-3")
def test_a_settled_claim_is_put_right_on_every_line(store: Store) -> None:
    """What was charged is kept by unit, the truth takes its place, and what is only held at once is never spent."""
    lines = [Line(scope, unit, 9) for scope in ("a", "b") for unit in ("cost", "tokens", "concurrency")]

    def work(tx: Tx) -> None:
        tx.budgets.reserve("r", run=RUN, lines=lines, at_us=1)
        tx.budgets.confirm("r")
        tx.budgets.settle("r", {"cost": 4}, at_us=2)

    store.write(work)
    assert {"r": {"cost": 4, "tokens": 9, "concurrency": 0}} == store.read(lambda tx: tx.budgets.charged(RUN))
    assert {"cost": 2, "tokens": -9} == store.write(lambda tx: tx.budgets.amend("r", {"cost": 6, "tokens": 0}))
    wanted = [
        Account(scope, unit, None, spent, 0)  # type: ignore[arg-type]
        for scope in ("a", "b")
        for unit, spent in (("concurrency", 0), ("cost", 6), ("tokens", 0))
    ]
    assert wanted == list(store.read(lambda tx: tx.budgets.accounts(["a", "b"])))


@pytest.mark.req("STORE-3")
def test_a_reservation_is_made_once(store: Store) -> None:
    """The same name again changes nothing, also when its claim would fit."""
    store.write(lambda tx: tx.budgets.reserve("r", run=RUN, lines=[Line("a", "cost", 1)], at_us=1))
    with pytest.raises(Divergence):
        store.write(lambda tx: tx.budgets.reserve("r", run=RUN, lines=[Line("a", "cost", 1)], at_us=1))
    assert [Account("a", "cost", None, 0, 1)] == list(store.read(lambda tx: tx.budgets.accounts(["a"])))


@pytest.mark.req("BUDGET-9")
def test_orders_and_beginnings_are_kept(store: Store) -> None:
    """The newest order of a scope and unit holds; a scope begins once."""
    for order in (Order("a", "cost", 5, 7, 0), Order("a", "cost", None, None, 3), Order("b", "steps", 1, 2, 0)):
        store.write(lambda tx, order=order: tx.budgets.order(order))  # type: ignore[misc]
    assert {("a", "cost"): Order("a", "cost", None, None, 3)} == store.read(lambda tx: tx.budgets.orders(["a"]))
    assert {} == store.read(lambda tx: tx.budgets.begun(["a"], None))
    assert {"a": 5} == store.write(lambda tx: tx.budgets.begun(["a"], 5))
    assert {"a": 5, "b": 9} == store.write(lambda tx: tx.budgets.begun(["a", "b"], 9))
    assert {} == store.read(lambda tx: tx.budgets.orders([]))
