"""Breakers and cycles by themselves, and probes of several processes over one store."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from midwatch.config.specs_breakers import BreakerSpec, BreakersSpec
from midwatch.engine.breaking import Breaking, Broken
from midwatch.engine.context import Halted
from midwatch.errors import StoreUnreadable
from midwatch.governor import breakers, cycles
from midwatch.records.call import Actor
from midwatch.records.spend import Line
from midwatch.store.breakers import BreakerRow
from midwatch.store.port import Store
from tests.contract.test_store_conformance import ADAPTERS

S = 1_000_000
SPEC = BreakerSpec(cooldown_us=10 * S)
ROW = BreakerRow("tool:f/t")


def fail(row: BreakerRow, *, now: int, call: str = "c", spec: BreakerSpec = SPEC) -> BreakerRow:
    """End a call that failed."""
    return breakers.ended(row, spec, call=call, ok=False, took_us=0, why="upstream", now=now)


@pytest.mark.req("BREAKER-2")
def test_a_storm_of_parallel_errors_opens_it_once_and_a_late_success_does_not_close_it() -> None:
    """Sixteen calls had begun before it opened: their ends change nothing any more."""
    row = ROW
    for now in range(16):
        row = fail(row, now=now)
    assert ("open", 3, 1, 2 + 10 * S) == (row.state, row.errors, row.trips, row.until_us)
    assert row == breakers.ended(row, SPEC, call="late", ok=True, took_us=0, why="", now=20)


@pytest.mark.req("BREAKER-2")
def test_it_flaps_ever_slower() -> None:
    """Each probe that fails doubles the cool-down, up to a bound; so does opening again soon after it was closed."""
    row, now, spans = breakers.opened(ROW, SPEC, "x", 0), 0, []
    for _ in range(9):
        spans.append((row.until_us - now) // S)
        now = row.until_us
        row = fail(breakers.admit(row, probe="p", run="r", held=False, now=now).row, now=now, call="p")
    assert [10, 20, 40, 80, 160, 320, 640, 640, 640] == spans
    row = breakers.admit(row, probe="p", run="r", held=False, now=row.until_us).row
    closed = breakers.ended(row, SPEC, call="p", ok=True, took_us=0, why="", now=row.until_us)
    assert ("closed", 0) == (closed.state, closed.errors)
    assert 640 == (breakers.opened(closed, SPEC, "x", closed.changed_us + 1).until_us - closed.changed_us) // S
    calm = closed.changed_us + 101 * S
    assert 10 == (breakers.opened(closed, SPEC, "x", calm).until_us - calm) // S


@pytest.mark.req("BREAKER-2")
def test_a_clock_that_goes_back_opens_nothing_early() -> None:
    """Before the end of the cool-down no call begins, however far back the clock is."""
    row = breakers.opened(ROW, SPEC, "x", 100 * S)
    assert [False, False, True] == [
        breakers.admit(row, probe="p", run="r", held=False, now=now).allowed for now in (0, 110 * S - 1, 110 * S)
    ]


@pytest.mark.req("BREAKER-2")
def test_slow_calls_open_it_and_a_quick_one_begins_anew() -> None:
    """Only calls in a row count; a slow probe is none that went well."""
    spec = replace(SPEC, slow_call_us=2 * S)
    row = ROW
    for took in (3, 3, 1, 3, 3):
        row = breakers.ended(row, spec, call="c", ok=True, took_us=took * S, why="", now=0)
    assert "closed" == row.state
    row = breakers.ended(row, spec, call="c", ok=True, took_us=3 * S, why="", now=0)
    assert ("open", 3) == (row.state, row.slow)
    row = breakers.admit(row, probe="p", run="r", held=False, now=row.until_us).row
    assert "open" == breakers.ended(row, spec, call="p", ok=True, took_us=3 * S, why="", now=row.until_us).state


def walk(*calls: tuple[str, str], spec: BreakerSpec = SPEC) -> str | None:
    """Give what the calls with their results show."""
    trail, shown = cycles.Trail(), None
    for call, result in calls:
        likeness = {"call": cycles.likeness(call), "result": cycles.likeness(result)}
        trail, shown = cycles.called(cycles.read(trail.to_bytes()), spec, **likeness, ok=True, why="")
    return shown


@pytest.mark.req("BREAKER-4")
@pytest.mark.parametrize("period", [1, 2, 3, 4])
def test_rounds_of_up_to_four_calls_are_seen_through_times_and_ids(period: int) -> None:
    """A loop whose results differ by a time and an id alone is the same; four rounds are not yet five."""
    calls = [
        (f"look {at % period}", f"ok at 2026-01-02T03:04:{at:02d}Z id 4f0c{at:02d}aa91b2c3d4")
        for at in range(5 * period)
    ]
    assert walk(*calls) is not None
    assert walk(*calls[:-1]) is None


@pytest.mark.req("BREAKER-4")
def test_work_that_goes_on_is_no_circle() -> None:
    """Pages, growing results, and the same writing with another number are progress; known results without end are not."""
    assert walk(*((f"page {at}", "{}") for at in range(60))) is None
    assert walk(*(("poll", f"{at} of 60 done") for at in range(60))) is None
    known = [(f"look {at % 7}", "same") for at in range(27)]
    assert "20 calls in a row brought nothing" in str(walk(*known))
    assert walk(*known[:-1]) is None


def rally(*turns: tuple[int, str]) -> tuple[str, str] | None:
    """Give who plays ping-pong."""
    trail, pair = cycles.Trail(), None
    for step, agent in turns:
        trail, pair = cycles.handed(trail, SPEC, agent=agent, step=step)
    return pair


@pytest.mark.req("BREAKER-4")
def test_two_agents_that_only_hand_over_to_each_other_are_found() -> None:
    """Eight times there and back; agents side by side in a step, or a third one between, play nothing."""
    assert ("a", "b") == rally(*((at, "ab"[at % 2]) for at in range(16)))
    assert rally(*((at, "ab"[at % 2]) for at in range(15))) is None
    assert rally(*((at // 2, "ab"[at % 2]) for at in range(60))) is None
    assert rally(*((at, "abc"[at % 3]) for at in range(60))) is None


@pytest.fixture(params=sorted(ADAPTERS))
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    """Give each adapter in turn."""
    made = ADAPTERS[request.param](tmp_path)
    yield made
    made.close()


def worker(store: Store, run: str, now: list[int]) -> Breaking:
    """Make the breakers of one process's segment."""

    def stop(error: Any) -> Halted:
        return Halted(error)

    fleet = SimpleNamespace(name="f", breakers=BreakersSpec(usual=SPEC), agents={})
    seg: Any = SimpleNamespace(
        store=store, fleet=fleet, run=run, clock=lambda: now[0], stop=stop, foreign=None, write=store.write
    )
    return Breaking(seg)


def begin(store: Store, made: Breaking, run: str) -> bool:
    """Hold, ask, and say whether the call may begin."""
    store.write(lambda tx: tx.budgets.reserve(f"t:{run}", run=run, lines=[Line("fleet:f", "tool_calls", 1)], at_us=0))
    actor = Actor(run, "f", "a", "specialist", "", "n", "t", 0, 1)
    try:
        made.admit(actor, "tool", "t", f"t:{run}")
    except Broken:
        store.write(lambda tx: tx.budgets.release(f"t:{run}"))
        return False
    return True


@pytest.mark.req("BREAKER-2")
def test_of_several_probes_at_once_one_begins_and_a_dead_one_holds_nobody_up(store: Store) -> None:
    """Eight workers ask at the same moment: one begins. Killed, its lease runs out, and the next one begins."""
    now = [100 * S]
    store.write(lambda tx: tx.breakers.put(breakers.opened(ROW, SPEC, "x", 0)))
    runs = [f"{at:032x}" for at in range(8)]
    for run in runs:
        store.write(lambda tx, run=run: tx.fences.take(run, owner=run, at_us=now[0], ttl_us=15 * S))  # type: ignore[misc]
    gate, begun = threading.Barrier(8), []

    def ask(run: str) -> None:
        gate.wait(10)
        if begin(store, worker(store, run, now), run):
            begun.append(run)

    threads = [threading.Thread(target=ask, args=(run,)) for run in runs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert 1 == len(begun)
    other = next(run for run in runs if run not in begun)
    now[0] += 14 * S
    assert not begin(store, worker(store, other, now), other)
    now[0] += 2 * S
    assert begin(store, worker(store, other, now), other)


@pytest.mark.req("BREAKER-2")
def test_a_probe_that_gave_its_hold_back_leaves_the_place_to_the_next(store: Store) -> None:
    """It waits for a person, say: the breaker is not held up for as long as that takes."""
    now = [100 * S]
    store.write(lambda tx: tx.breakers.put(breakers.opened(ROW, SPEC, "x", 0)))
    for run in ("1" * 32, "2" * 32):
        store.write(lambda tx, run=run: tx.fences.take(run, owner=run, at_us=now[0], ttl_us=15 * S))  # type: ignore[misc]
    assert begin(store, worker(store, "1" * 32, now), "1" * 32)
    assert not begin(store, worker(store, "2" * 32, now), "2" * 32)
    store.write(lambda tx: tx.budgets.release("t:" + "1" * 32))
    assert begin(store, worker(store, "2" * 32, now), "2" * 32)


@pytest.mark.req("BREAKER-1")
def test_without_the_store_nothing_begins(tmp_path: Path) -> None:
    """A store that is gone is no closed breaker."""
    store = ADAPTERS["sqlite"](tmp_path)
    made = worker(store, "1" * 32, [0])
    store.close()
    with pytest.raises((Halted, StoreUnreadable)):
        made.admit(Actor("1" * 32, "f", "a", "specialist", "", "n", "t", 0, 1), "tool", "t", "t:1")
