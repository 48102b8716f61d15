"""Every adapter keeps breakers, trails of runs and sticky flags."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from midwatch.store.breakers import BreakerRow, states
from midwatch.store.flags import Flag
from midwatch.store.port import Store
from tests.contract.test_store_conformance import ADAPTERS


@pytest.fixture(params=sorted(ADAPTERS))
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    """Give each adapter in turn."""
    made = ADAPTERS[request.param](tmp_path)
    yield made
    made.close()


@pytest.mark.req("BREAKER-1")
def test_a_breaker_is_closed_until_it_is_written_and_shown_while_it_is_not(store: Store) -> None:
    """No row is a closed breaker; a row is replaced whole; only those that are not closed are shown."""
    assert BreakerRow("tool:f/a") == store.read(lambda tx: tx.breakers.get("tool:f/a"))
    row = BreakerRow("tool:f/a", "open", 3, 1, 2, 2**40, 2**41, "t:x:1", "run", "3 errors")
    store.write(lambda tx: tx.breakers.put(row))
    store.write(lambda tx: tx.breakers.put(BreakerRow("tool:f/b", errors=1)))
    assert [row] == list(store.read(states))
    store.write(lambda tx: tx.breakers.put(replace(row, state="closed")))
    assert [] == list(store.read(states))
    assert ["tool:f/a", "tool:f/b"] == [item.subject for item in store.read(lambda tx: tx.breakers.all())]


@pytest.mark.req("BREAKER-1")
def test_trails_are_kept_by_run_and_part(store: Store) -> None:
    """A trail is replaced by its name, and goes with its part or its run."""
    for run, part in (("r", "a"), ("r", "b"), ("s", "a")):
        store.write(lambda tx, run=run, part=part: tx.breakers.keep_trail(run, part, b"old"))  # type: ignore[misc]
    store.write(lambda tx: tx.breakers.keep_trail("r", "a", b"\x00new"))
    assert (b"\x00new", None) == store.read(lambda tx: (tx.breakers.trail("r", "a"), tx.breakers.trail("r", "c")))
    store.write(lambda tx: tx.breakers.drop_trails("r", "a"))
    assert (None, b"old") == store.read(lambda tx: (tx.breakers.trail("r", "a"), tx.breakers.trail("r", "b")))
    store.write(lambda tx: tx.breakers.drop_trails("r"))
    assert (None, b"old") == store.read(lambda tx: (tx.breakers.trail("r", "b"), tx.breakers.trail("s", "a")))


@pytest.mark.req("STOP-1")
def test_a_kill_takes_the_place_of_a_pause_and_never_the_other_way_round(store: Store) -> None:
    """Flags of one scope in one fleet are one; the further one stays, and is taken away by its exact name alone."""
    pause, kill = Flag("agent:a", "f", "pause", "why", "ann", 1), Flag("agent:a", "f", "kill", "now", "bob", 2)
    raised = [store.write(lambda tx, flag=flag: tx.flags.raise_(flag)) for flag in (pause, pause, kill, pause)]  # type: ignore[misc]
    assert [True, False, True, False] == raised
    assert [kill] == list(store.read(lambda tx: tx.flags.list()))
    assert [None, kill, None] == [
        store.write(lambda tx, fleet=fleet: tx.flags.lower("agent:a", fleet))  # type: ignore[misc]
        for fleet in ("", "f", "f")
    ]
    assert [] == list(store.read(lambda tx: tx.flags.list()))
