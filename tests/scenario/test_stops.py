"""Stops of what is under way: a stream of a model, a run in another process's hands, marks that outlive a worker."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from midwatch import wiring
from midwatch.engine import runner, stops
from midwatch.engine.context import Segment
from midwatch.engine.program import program_of
from midwatch.records.decision import Halt
from midwatch.records.event import Event
from midwatch.records.run import RunResult
from tests.e2e.trial import DONE, Trial, call

SLOW = {"agent": "worker", "turn": 0, "answer": DONE["answer"], "fault": {"kind": "slow", "delay_ms": 5000}}


@pytest.fixture
def trial(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Trial:
    """Give a fleet whose worker's model answers very slowly."""
    monkeypatch.delenv("MIDWATCH_TOKEN", raising=False)
    return Trial(tmp_path, monkeypatch, [SLOW, DONE])


def stopped_in_flight(trial: Trial, kind: Any, scope: str | None) -> tuple[RunResult, stops.Stop]:
    """Run, and stop it when the worker's model has been asked."""
    done: list[stops.Stop] = []

    def listen(event: Event) -> None:
        if event.kind == "intent" and event.agent == "worker" and not done:
            more: Any = {"kind": kind, "by": "ann", "reason": "enough", "at_us": wiring.clock()}
            if scope is None:
                done.append(stops.stop_run(kernel.store, str(event.run), **more))
            else:
                done.append(stops.stop(kernel.store, scope, **more))

    with wiring.open(trial.fleet, home=trial.home, workdir=trial.work, environ={}, on_event=listen) as kernel:
        result = kernel.run({"n": 1})
    return result, done[0]


@pytest.mark.req("STOP-3")
@pytest.mark.parametrize("scope", [None, "agent:worker", "vertical:default", "all"])
@pytest.mark.parametrize(("kind", "status"), [("pause", "paused"), ("kill", "cancelled")])
def test_a_stop_cuts_a_model_in_the_middle_of_its_answer(
    trial: Trial, kind: str, status: str, scope: str | None
) -> None:
    """Within a second; the question is listed as in flight, charged in full, and nothing else begins."""
    if scope == "vertical:default":
        place = trial.fleet / "fleet.yaml"
        place.write_text(place.read_text() + "verticals: {default: [boss, worker, writer]}\n")
    result, stop = stopped_in_flight(trial, kind, scope)
    assert status == result.status
    flying = [item for item in stop.in_flight if item.agent == "worker"]
    assert 1 == len(flying)
    asked = trial.events(result.run, "intent")[-1]
    ended = trial.events(result.run, "run.paused", "run.halted")[-1]
    assert flying[0].effect == asked.data["effect"]
    assert ended.at_us - asked.at_us < 1_000_000
    assert trial.kept(result.run)


@pytest.mark.req("STOP-3")
def test_a_paused_run_goes_on_where_it_was_cut(trial: Trial) -> None:
    """Resumed, it asks again and ends."""
    result, _ = stopped_in_flight(trial, "pause", None)
    trial.rules([DONE])
    done = trial.run(result.run)
    assert ("done", result.run) == (done.status, done.run)


@pytest.mark.req("STOP-1")
def test_a_mark_of_kill_outlives_the_worker_that_never_read_it(trial: Trial) -> None:
    """The worker died before it saw the mark: resumed, the run does nothing and is over."""
    trial.rules([call("note", {"what": "a"}), DONE])
    place = trial.fleet / "fleet.yaml"
    place.write_text(place.read_text().replace("tool_calls: 40", "tool_calls: 0"))
    first = trial.run()
    assert "paused" == first.status
    with trial.store() as store:
        store.write(lambda tx: tx.runs.set_halt(first.run, Halt("kill", "enough", "ann", 1)))
        asked = len(store.read(lambda tx: tx.effects.list(first.run)))
    assert "cancelled" == trial.run(first.run).status
    with trial.store() as store:
        assert asked == len(store.read(lambda tx: tx.effects.list(first.run)))


@pytest.mark.req("STOP-1")
@pytest.mark.parametrize("again", [True, False])
def test_attack_a_pause_that_comes_while_somebody_goes_on_holds(
    trial: Trial, monkeypatch: pytest.MonkeyPatch, *, again: bool
) -> None:
    """Whoever goes on lifts what they have seen, not what was said since, whether the run had been paused before or not."""
    result, _ = stopped_in_flight(trial, "pause", None)
    trial.rules([DONE])
    if not again:
        with trial.store() as store:
            store.write(lambda tx: tx.runs.clear_halt(result.run))
    with wiring.open(trial.fleet, home=trial.home, workdir=trial.work, environ={}) as kernel:

        def late(seg: Segment) -> bytes:
            stops.stop_run(seg.store, seg.run, kind="pause", by="ben", reason="wait", at_us=wiring.clock())
            return program_of(seg)

        monkeypatch.setattr(runner, "program_of", late)
        assert "paused" == kernel.resume(result.run).status
        monkeypatch.undo()
        monkeypatch.delenv("MIDWATCH_TOKEN", raising=False)
        mark = kernel.store.read(lambda tx: tx.runs.halt(result.run))
        assert ("ben", "wait") == (mark and mark.by, mark and mark.reason)
        assert "done" == kernel.resume(result.run).status


@pytest.mark.req("STOP-1")
def test_attack_who_answers_goes_on_without_lifting_a_pause(trial: Trial) -> None:
    """Going on without `lift`, as whoever carries answers on does, leaves a paused run paused; nothing is asked of any model."""
    result, _ = stopped_in_flight(trial, "pause", None)
    trial.rules([DONE])
    with wiring.open(trial.fleet, home=trial.home, workdir=trial.work, environ={}) as kernel:
        assert "paused" == kernel.resume(result.run, lift=False).status
        assert kernel.store.read(lambda tx: tx.runs.halt(result.run)) is not None
        assert "done" == kernel.resume(result.run).status
