"""Every adapter keeps what the governor learns, its place in the ledger, its signs of life, and the rates that it sets."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from midwatch.governor.watch import Passed, watch_once
from midwatch.store.baselines import Throttle
from midwatch.store.port import Beat, Store
from tests.contract.test_store_conformance import ADAPTERS
from tests.unit.test_watch_pass import NOW, RUN, acted, loop, row


@pytest.fixture(params=sorted(ADAPTERS))
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    """Give each adapter in turn."""
    made = ADAPTERS[request.param](tmp_path)
    yield made
    made.close()


@pytest.mark.req("WATCH-1")
def test_parts_and_the_cursor_are_kept_and_forgotten(store: Store) -> None:
    """A part is replaced by its name; the cursor is no subject; what is forgotten begins anew."""
    assert (0, {}) == store.read(lambda tx: (tx.baselines.cursor(), tx.baselines.load("f/a")))
    store.write(lambda tx: tx.baselines.save("f/a", "volume", b"\x00old", at_us=1))
    store.write(lambda tx: tx.baselines.save("f/a", "volume", b"\x00new", at_us=2))
    store.write(lambda tx: tx.baselines.save("f/b", "now", b"", at_us=3))
    store.write(lambda tx: tx.baselines.advance(2**40))
    assert 2**40 == store.read(lambda tx: tx.baselines.cursor())
    assert {"volume": b"\x00new"} == store.read(lambda tx: tx.baselines.load("f/a"))
    assert {"f/a": 2, "f/b": 3} == store.read(lambda tx: tx.baselines.subjects())
    assert (1, 0, 0) == store.write(
        lambda tx: (tx.baselines.forget("f/a"), tx.baselines.forget("f/a"), tx.baselines.forget(""))
    )
    assert 2**40 == store.read(lambda tx: tx.baselines.cursor())


@pytest.mark.req("WATCH-1")
def test_a_rate_lets_one_begin_per_gap_and_ends_by_itself(store: Store) -> None:
    """Turns of one subject are a gap apart, another's are free, and a clock that goes backwards stops nobody for long."""
    store.write(lambda tx: tx.baselines.slow(Throttle("f/a", 100, 1000, 0, "loud")))
    turns = [store.write(lambda tx, at=at: tx.baselines.take_turn("f/a", at)) for at in (10, 10, 60, 110, 50, 60)]  # type: ignore[misc]
    assert [0, 100, 50, 0, 0, 90] == turns
    assert 0 == store.write(lambda tx: tx.baselines.take_turn("f/b", 10))
    assert ["f/a"] == [item.subject for item in store.read(lambda tx: tx.baselines.throttles(999))]
    assert () == store.read(lambda tx: tx.baselines.throttles(1000))
    assert 0 == store.write(lambda tx: tx.baselines.take_turn("f/a", 1001))


@pytest.mark.req("WATCH-1")
def test_every_governor_beats_under_its_own_name(store: Store) -> None:
    """Beats of one prefix are read together, newest first; old ones go, others stay."""
    for name, at in (("governor/a/1", 5), ("governor/b/2", 9), ("governors", 7), ("other", 7)):
        store.write(lambda tx, name=name, at=at: tx.watch.beat(name, pid=1, at_us=at))  # type: ignore[misc]
    assert [Beat("governor/b/2", 1, 9), Beat("governor/a/1", 1, 5)] == list(
        store.read(lambda tx: tx.watch.beats("governor"))
    )
    store.write(lambda tx: tx.watch.silence("governor", before_us=9))
    store.write(lambda tx: tx.watch.silence("governor/b", before_us=99))
    store.write(lambda tx: tx.watch.beat("governor/b/2", pid=1, at_us=9))
    store.write(lambda tx: tx.watch.silence("governor/b/", before_us=99))
    assert ["governor/b/2"] == [beat.name for beat in store.read(lambda tx: tx.watch.beats("governor"))]
    assert all(store.read(lambda tx: (tx.watch.last("other"), tx.watch.last("governors"))))


@pytest.mark.req("WATCH-8")
def test_many_governors_at_once_act_once_whatever_the_store(store: Store) -> None:
    """Four of them, pass after pass beside each other: every event is taken in once, the run is halted once, the chain is sound."""
    store.write(lambda tx: tx.blobs.put(b"{}"))
    store.write(lambda tx: tx.runs.create(row(RUN)))
    store.write(lambda tx: tx.fences.take(RUN, owner="w", at_us=NOW, ttl_us=10**12))
    loop(store, 230)
    passed: list[Passed] = []
    start = threading.Barrier(4, timeout=60)

    def govern(number: int) -> None:
        start.wait()
        for step in range(8):
            name = f"governor/m{number}/1"
            passed.append(watch_once(store, pid=1, now=NOW + step, name=name, most=50))

    threads = [threading.Thread(target=govern, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert (32, 230) == (len(passed), sum(item.read for item in passed))
    assert [("pause", "loop")] == [(event.data["action"], event.data["policy"]) for event in acted(store)]
    assert 4 == len(store.read(lambda tx: tx.watch.beats("governor")))
    assert store.read(lambda tx: tx.ledger.verify()).ok
