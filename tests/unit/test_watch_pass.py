"""A pass over a real ledger: once for each event, whatever happens to the governor; and what it does is recorded with its reason."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from midwatch.config.specs_bounds import GovernorSpec
from midwatch.config.specs_watch import WatchSpec
from midwatch.errors import StoreBusy, StoreError
from midwatch.governor import policies_pass
from midwatch.governor.policies_pass import Sample, remember, study
from midwatch.governor.watch import HEARTBEAT, beat_name, living, watch_once
from midwatch.records.decision import Halt
from midwatch.records.event import Event, EventDraft
from midwatch.records.run import RunRow
from midwatch.store.baselines import SqlBaselines
from midwatch.store.ledger import SqlLedger
from midwatch.store.port import Beat, Store
from midwatch.store.runs import SqlRuns
from midwatch.store.sqlite import SqliteStore

RUN = "ab" * 16
OTHER = "cd" * 16
NOW = 20_000 * 86_400_000_000
HARD = 200
SUBJECT = "plain/hand"


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """Give a store with one run that goes on."""
    made = SqliteStore(tmp_path / "midwatch.db")
    made.write(lambda tx: tx.blobs.put(b"{}"))
    made.write(lambda tx: tx.runs.create(row(RUN)))
    made.write(lambda tx: tx.fences.take(RUN, owner="w", at_us=NOW, ttl_us=10**12))
    yield made
    made.close()


def row(run: str, status: Any = "running") -> RunRow:
    """Make a run's row."""
    digest = hashlib.sha256(b"{}").hexdigest()
    return RunRow(run, "plain", None, digest, digest, digest, digest, None, status, NOW, digest)


def loop(store: Store, count: int = HARD, *, run: str = RUN, at: int = NOW) -> None:
    """Let an agent call the same thing so often."""

    def work(tx: Any) -> None:
        blob = tx.blobs.put(b'{"path":"/x"}')
        for index in range(count):
            data = {"tool": "files.read", "arguments_blob": blob, "runs": "sandbox", "effect": f"{index}"}
            tx.ledger.append(EventDraft("intent", run, at + index, data, agent="hand"))

    store.write(work)


def acted(store: Store) -> list[Event]:
    """Give what governors did."""
    return list(store.read(lambda tx: tx.ledger.read(kinds=("governor.acted",), limit=1000)))


@pytest.mark.req("WATCH-9")
def test_a_pause_is_a_halt_and_an_event_that_says_why(store: Store) -> None:
    """Run, agent, policy, reason, numbers; caused by the event that completed it; the chain is sound."""
    loop(store)
    studied = study(store, now=NOW + HARD)
    (event,) = acted(store)
    halt = store.read(lambda tx: tx.runs.halt(RUN))
    assert halt is not None
    assert ("pause", "governor") == (halt.kind, halt.by)
    assert event.data["reason"] in halt.reason
    assert (RUN, "hand", "pause", "loop", SUBJECT) == (
        event.run, event.agent, event.data["action"], event.data["policy"], event.data["subject"],
    )  # fmt: skip
    assert (HARD, HARD) == (event.data["numbers"]["value"], event.data["numbers"]["limit"])
    assert (event.data["event"],) == event.causes
    assert (HARD, 0, 1) == (studied.read, studied.behind, len(studied.acted))
    assert store.read(lambda tx: tx.ledger.verify()).ok


@pytest.mark.req("WATCH-8")
def test_each_event_is_taken_in_once_over_restarts(store: Store) -> None:
    """Passes of any size come to the same end; the next one finds nothing new."""
    loop(store, 150)
    while study(store, now=NOW + 150, most=40).behind:
        assert [] == acted(store)
    loop(store, 60, at=NOW + 1000)
    assert 1 == len(study(store, now=NOW + 2000, most=1000).acted)
    assert (0, ()) == (study(store, now=NOW + 3000).read, study(store, now=NOW + 3000).acted)
    assert 1 == len(acted(store))


@pytest.mark.req("WATCH-8")
def test_two_governors_that_judged_the_same_events_act_once(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second one finds the cursor moved between its judging and its recording."""
    loop(store)
    judged: Callable[..., Any] = policies_pass._judged
    entered: list[int] = []

    def between(*args: Any) -> Any:
        work = judged(*args)
        if not entered:
            entered.append(1)
            assert 1 == len(study(store, now=NOW + HARD).acted)
        return work

    monkeypatch.setattr(policies_pass, "_judged", between)
    assert () == study(store, now=NOW + HARD).acted
    assert 1 == len(acted(store))


@pytest.mark.req("WATCH-8")
@pytest.mark.parametrize("at", ["set_halt", "append", "advance", "save"])
def test_a_governor_that_dies_between_deciding_and_recording_did_nothing(
    store: Store, monkeypatch: pytest.MonkeyPatch, at: str
) -> None:
    """Wherever the transaction breaks off, neither halt nor event nor cursor is there; the next pass does all of it."""
    loop(store)
    owner = {"set_halt": SqlRuns, "append": SqlLedger, "advance": SqlBaselines, "save": SqlBaselines}[at]

    def die(*_: Any, **__: Any) -> None:
        raise StoreBusy("killed here")

    with monkeypatch.context() as broken:
        broken.setattr(owner, at, die)
        with pytest.raises(StoreError):
            study(store, now=NOW + HARD)
    assert (None, 0, []) == (
        store.read(lambda tx: tx.runs.halt(RUN)), store.read(lambda tx: tx.baselines.cursor()), acted(store),
    )  # fmt: skip
    assert 1 == len(study(store, now=NOW + HARD).acted)


@pytest.mark.req("WATCH-9")
def test_kill_throttle_and_off_are_what_the_file_declared(store: Store) -> None:
    """What a run's fleet said holds for governors that never saw the file."""
    spec = GovernorSpec(policies={"loop": WatchSpec("throttle", cool_down_us=1000, rate=60)})
    store.write(lambda tx: remember(tx, "plain", spec))
    loop(store)
    assert ["throttle"] == [item["action"] for item in study(store, now=NOW + HARD).acted]
    assert [(SUBJECT, 1_000_000)] == [
        (t.subject, t.gap_us) for t in store.read(lambda tx: tx.baselines.throttles(NOW + HARD))
    ]
    assert None is store.read(lambda tx: tx.runs.halt(RUN))
    store.write(lambda tx: remember(tx, "plain", GovernorSpec(policies={"loop": WatchSpec("kill")})))
    store.write(lambda tx: tx.runs.create(row(OTHER)))
    loop(store, run=OTHER, at=NOW + 5000)
    assert ["kill"] == [item["action"] for item in study(store, now=NOW + 6000).acted]
    halt = store.read(lambda tx: tx.runs.halt(OTHER))
    assert halt is not None
    assert "kill" == halt.kind


@pytest.mark.req("WATCH-9")
def test_a_run_that_is_over_is_told_of_and_what_is_long_past_only_taught(store: Store) -> None:
    """Nothing is halted that does not go on; a home that was never watched tells nothing of its old runs."""
    store.write(lambda tx: tx.runs.update(RUN, status="done"))
    loop(store)
    assert [("warn", "pause")] == [(item["action"], item["asked"]) for item in study(store, now=NOW + HARD).acted]
    assert None is store.read(lambda tx: tx.runs.halt(RUN))
    store.write(lambda tx: tx.runs.create(row(OTHER, "done")))
    loop(store, run=OTHER)
    assert () == study(store, now=NOW + 7_200_000_000).acted


@pytest.mark.req("WATCH-9")
def test_what_a_person_did_before_stays(store: Store) -> None:
    """A halt that is there is not replaced, and the governor says that it only warns."""
    store.write(lambda tx: tx.runs.set_halt(RUN, Halt("cancel", "enough", "ann", NOW)))
    loop(store)
    assert ["warn"] == [item["action"] for item in study(store, now=NOW + HARD).acted]
    halt = store.read(lambda tx: tx.runs.halt(RUN))
    assert halt is not None
    assert "ann" == halt.by


@pytest.mark.req("WATCH-8")
def test_a_baseline_that_cannot_be_read_begins_anew_and_is_told(store: Store) -> None:
    """Garbage in the table stops no pass, and is no reason to say nothing."""
    store.write(lambda tx: tx.baselines.save(SUBJECT, "now", b"[1, 2", at_us=NOW))
    loop(store, 3)
    assert [("begin anew", SUBJECT)] == [(item["action"], item["subject"]) for item in study(store, now=NOW + 3).acted]
    assert () == study(store, now=NOW + 4).acted


@pytest.mark.req("WATCH-9")
def test_a_living_sandbox_is_judged_before_its_call_ends(store: Store) -> None:
    """Refused forks that the machine counts now; what is not counted is left out."""
    loop(store, 1)
    study(store, now=NOW + 1)
    sample = Sample(RUN, "hand", processes=90, refused=400)
    assert () == study(store, now=NOW + 2, samples=[Sample(RUN, "hand", None, None)]).acted
    assert [("pause", "processes")] == [
        (i["action"], i["policy"]) for i in study(store, now=NOW + 3, samples=[sample]).acted
    ]
    assert () == study(store, now=NOW + 4, samples=[sample]).acted


@pytest.mark.req("WATCH-10")
def test_a_governor_that_cannot_judge_gives_no_sign_of_life(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """The beat comes after the judging, so what it stands for was done."""

    def fail(*_: Any, **__: Any) -> None:
        raise StoreBusy("no")

    monkeypatch.setattr("midwatch.governor.watch.study", fail)
    with pytest.raises(StoreError):
        watch_once(store, pid=1, now=NOW)
    assert [] == list(store.read(lambda tx: tx.watch.beats(HEARTBEAT)))


@pytest.mark.req("WATCH-10")
def test_any_living_governor_covers_the_store_and_a_clock_that_went_back_covers_nobody() -> None:
    """Each beats under its own name; a beat from a future is none, but for what clocks of machines differ by."""
    names = [beat_name("a", 1), beat_name("b", 1), HEARTBEAT]
    beats = [
        Beat(name, 1, at) for name, at in zip(names, (NOW - 40_000_000, NOW - 2_000_000, NOW - 99_000_000), strict=True)
    ]
    assert ["governor/b/1"] == [beat.name for beat in living(beats, now=NOW, stale_after_us=30_000_000)]
    assert () == living(beats, now=NOW + 40_000_000, stale_after_us=30_000_000)
    assert () == living([Beat(HEARTBEAT, 1, NOW)], now=NOW - 3_600_000_000, stale_after_us=30_000_000)
    assert 1 == len(living([Beat(HEARTBEAT, 1, NOW + 2_000_000)], now=NOW, stale_after_us=30_000_000))


@pytest.mark.req("WATCH-9")
def test_dead_runs_are_marked_once_and_reported(store: Store) -> None:
    """A run without a live worker is marked interrupted, with an event."""
    store.write(lambda tx: tx.fences.release(RUN, epoch=1))
    passed = watch_once(store, pid=1, now=NOW)
    assert (0, ["mark interrupted"]) == (passed.live, [item["action"] for item in passed.acted])
    assert () == watch_once(store, pid=1, now=NOW + 1).acted
    assert orjson.dumps(dict(acted(store)[0].data))


@pytest.mark.req("WATCH-9")
@pytest.mark.parametrize("action", ["pause", "kill"])
def test_an_agent_that_burns_more_each_day_stands_still_in_every_run_where_that_was_declared(
    store: Store, action: Any
) -> None:
    """There is no run to blame: a flag on the agent, which a person lifts; the event says why."""
    store.write(lambda tx: remember(tx, "plain", GovernorSpec(policies={"burn": WatchSpec(action)})))
    day = 86_400_000_000

    def work(tx: Any) -> None:
        for number in range(13):
            cost = 1_000_000 if number < 8 else 8_000_000
            data = {"route": "smart", "ok": True, "usage": {"input": 1000, "output": 0}, "cost": cost}
            tx.ledger.append(EventDraft("finished", RUN, NOW + number * day, data, agent="hand"))

    store.write(work)
    acted_now = study(store, now=NOW + 12 * day).acted
    assert [(action, "burn", "cost")] == [(item["action"], item["policy"], item["metric"]) for item in acted_now]
    (flag,) = store.read(lambda tx: tx.flags.list())
    assert ("agent:hand", "plain", action, "governor") == (flag.scope, flag.fleet, flag.kind, flag.by)
    assert acted_now[0]["reason"] in flag.reason
    assert None is store.read(lambda tx: tx.runs.halt(RUN))
