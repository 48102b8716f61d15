"""Every adapter keeps leases, and tells who is in the way."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from midwatch.store.leases import LeaseRow
from midwatch.store.port import Store
from tests.contract.test_store_conformance import ADAPTERS

FIRST = LeaseRow("ops:a", "e1", "run1", "worker", "ops.put", 1, 10, 20)
OTHER = LeaseRow("ops:a", "e2", "run2", "worker", "ops.put", 1, 12, 30)


@pytest.fixture(params=sorted(ADAPTERS))
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    """Give each adapter in turn."""
    made = ADAPTERS[request.param](tmp_path)
    yield made
    made.close()


def take(store: Store, row: LeaseRow) -> LeaseRow | None:
    """Take one."""
    return store.write(lambda tx: tx.leases.take(row))


@pytest.mark.req("LEASE-1")
def test_who_comes_later_is_told_who_holds_it(store: Store) -> None:
    """Another run and another agent of the same run are in the way of each other; an agent's own calls are not."""
    mine = replace(FIRST, effect="e3")
    agent = replace(FIRST, effect="e4", agent="other")
    assert [None, FIRST, None] == [take(store, row) for row in (FIRST, OTHER, mine)]
    assert "worker" == getattr(take(store, agent), "agent", None)
    assert [FIRST, mine] == list(store.read(lambda tx: tx.leases.list()))


@pytest.mark.req("LEASE-3")
def test_what_ran_out_is_taken_and_its_holder_can_tell(store: Store) -> None:
    """One that ran out and that nobody took is still its holder's; one that was taken is not, whatever becomes of it."""
    take(store, FIRST)
    assert ["ops:a"] == list(store.read(lambda tx: tx.leases.mine("e1")))
    assert take(store, replace(OTHER, taken_us=20)) is None
    assert ([], ["ops:a"]) == store.read(lambda tx: (list(tx.leases.mine("e1")), list(tx.leases.mine("e2"))))
    assert [True, False] == [store.write(lambda tx: tx.leases.release("ops:a", "e2")) for _ in range(2)]
    assert [] == list(store.read(lambda tx: tx.leases.mine("e1")))
