"""Effects that nobody saw the end of, arguments that were guessed, answers that were cut: over whole runs."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from midwatch import wiring
from midwatch.engine import control
from midwatch.records.run import RunResult
from midwatch.tools.perform import may_still_act
from tests.e2e.trial import DONE, Trial, call

PROSE = 'I will do it now: {"what": "milk"} as you asked.'


@pytest.mark.req("BAD-1")
@pytest.mark.parametrize(
    ("tool", "word"),
    [("slow", "done"), ("slow", "not_done"), ("says_timeout", "done"), ("dies", "not_done"), ("hangs", "done")],
)
def test_an_effect_that_nobody_saw_the_end_of_waits_for_a_person(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tool: str, word: Any
) -> None:
    """A time-out or a crash of a write is never told as done or failed: it stays in doubt, is not repeated, and a word settles it."""
    trial = Trial(tmp_path, monkeypatch, [call(tool, {"what": "milk"}), DONE])
    waiting = trial.run()
    assert ("waiting", 3, 1, []) == (
        waiting.status,
        waiting.exit_code,
        len(waiting.in_doubt),
        [row.status for row in trial.effects(waiting.run) if row.status != "started"],
    )
    (trial.work / "go").touch()
    assert [False] == [event.data["code"] is None for event in trial.events(waiting.run, "effect.in_doubt")]
    again = trial.run(waiting.run)
    assert ("waiting", waiting.in_doubt, ["milk"]) == (again.status, again.in_doubt, trial.lines("notes"))
    trial.resolve(waiting.in_doubt[0], word)
    done = trial.run(waiting.run)
    assert ("done", 1, True) == (done.status, len(trial.lines("notes")), trial.kept(done.run))
    assert ([] if word == "done" else ["in_doubt"]) == trial.calls(done.run)


@pytest.mark.req("BAD-1")
def test_a_read_that_timed_out_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A read does no harm twice: the agent learns of the time-out and decides."""
    trial = Trial(tmp_path, monkeypatch, [call("slow_look", {"what": "milk"}), DONE])
    result = trial.run()
    (trial.work / "go").touch()
    assert ("done", ["timeout"]) == (result.status, trial.calls(result.run))


@pytest.mark.req("BAD-1")
def test_a_write_that_knows_its_key_is_repeated_under_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Told of a time-out, an agent would call again under another key, and the world would change twice: so the kernel repeats it."""
    trial = Trial(tmp_path, monkeypatch, [call("slow_keyed", {"what": "milk"}), DONE])
    waiting = trial.run()
    assert ("waiting", waiting.in_doubt * 2) == (waiting.status, tuple(trial.lines("keys")))
    (trial.work / "go").touch()
    done = trial.run(waiting.run)
    keys = tuple(trial.lines("keys"))
    assert ("done", waiting.in_doubt, [None]) == (done.status, tuple(set(keys)), trial.calls(done.run))
    assert (len(keys), True) == (done.tool_calls, trial.kept(done.run))


def until(true: Callable[[], bool]) -> None:
    """Wait a bounded time for something that another thread does."""
    give_up = time.monotonic() + 30
    while not true() and time.monotonic() < give_up:
        time.sleep(0.005)
    assert true()


@pytest.mark.req("BAD-1")
def test_nobody_reconciles_a_call_that_may_still_act(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The reconciler would say `not done` of a call whose thread still runs; it is not asked before the thread has ended."""
    trial = Trial(tmp_path, monkeypatch, [call("slow_told", {"what": "milk"}), DONE])
    first = trial.run()
    again = trial.run(first.run)
    assert ("waiting", "waiting", [], ["milk"]) == (
        first.status,
        again.status,
        trial.lines("asked"),
        trial.lines("notes"),
    )
    (trial.work / "go").touch()
    until(lambda: not may_still_act(first.in_doubt[0]))
    done = trial.run(first.run)
    assert ("done", ["milk"], ["milk"]) == (done.status, trial.lines("asked"), trial.lines("notes"))
    assert ["reconciler:things.outcome"] == [event.data["by"] for event in trial.events(done.run, "effect.resolved")]


@pytest.mark.req("BAD-1")
def test_a_run_that_is_cancelled_in_the_middle_of_a_write_leaves_it_in_doubt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run is over, nothing stays held, and the journal says that the outcome of the write is not known."""
    trial, ended = Trial(tmp_path, monkeypatch, [call("stuck", {"what": "milk"}), DONE]), list[RunResult]()
    worker = threading.Thread(target=lambda: ended.append(trial.run()))
    worker.start()
    until(lambda: bool(trial.lines("notes")))
    with trial.store() as store:
        run = store.read(lambda tx: tx.runs.list())[0].id
        control.cancel(store, run, by="ann", reason="enough", at_us=wiring.clock())
    worker.join(30)
    (trial.work / "go").touch()
    assert ["cancelled"] == [result.status for result in ended]
    assert (["started"], True) == ([row.status for row in trial.effects(run)], trial.kept(run))


@pytest.mark.req("BAD-2")
@pytest.mark.parametrize(("tool", "file", "ok"), [("look", "looks", True), ("note", "notes", False)])
def test_guessed_arguments_reach_no_tool_that_changes_something(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tool: str, file: str, ok: bool
) -> None:
    """Arguments out of prose serve a read, with a signal; a write is refused with the same signal, and done once written plainly."""
    rules = [call(tool, PROSE), call(tool, {"what": "bread"}, turn=1), DONE]
    trial = Trial(tmp_path, monkeypatch, rules)
    result = trial.run()
    assert ("done", ["milk", "bread"] if ok else ["bread"]) == (result.status, trial.lines(file))
    assert [(f"things.{tool}", "scan")] == trial.signals(result.run)
    assert [None if ok else "invalid_arguments", None] == trial.calls(result.run)
    if not ok:
        assert "plain JSON" in trial.told(result.run)[0]["error"]["hint"]


@pytest.mark.req("BAD-2")
@pytest.mark.parametrize("finish", ["length", "content_filter"])
@pytest.mark.parametrize("tool", ["look", "note"])
def test_calls_of_an_answer_that_was_cut_are_not_carried_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tool: str, finish: str
) -> None:
    """However whole a call looks: the answer was cut, so each call is answered with why, and the next answer counts."""
    rules = [call(tool, {"what": "milk"}, finish_reason=finish), call(tool, {"what": "bread"}, turn=1), DONE]
    trial = Trial(tmp_path, monkeypatch, rules)
    result = trial.run()
    assert ("done", [None]) == (result.status, trial.calls(result.run))
    assert ["bread"] == trial.lines("looks") + trial.lines("notes")
    assert [("tiny", f"cut:{finish}")] == trial.signals(result.run)


@pytest.mark.req("BAD-2")
def test_one_answer_may_not_ask_for_any_number_of_calls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 20 calls in one answer 16 are carried out; the others are refused as data and cost no tool call."""
    many = {
        "agent": "worker",
        "turn": 0,
        "tool_calls": [{"name": "things_look", "arguments": {"what": f"{n}"}} for n in range(20)],
    }
    trial = Trial(tmp_path, monkeypatch, [many, DONE])
    result = trial.run()
    assert ("done", 16, 16) == (result.status, len(trial.lines("looks")), result.tool_calls)
    assert {None: 16, "bound_reached": 4} == {
        code: trial.calls(result.run).count(code) for code in (None, "bound_reached")
    }


@pytest.mark.req("BAD-3")
def test_the_fleets_limits_bind_what_runs_in_the_sandbox(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker that the engine starts has the numbers that the fleet file says."""
    limits = "limits: {open_files: 37, file_size: 3MiB}"
    trial = Trial(tmp_path, monkeypatch, [call("limits", {"what": "x"}), DONE], limits=limits)
    result = trial.run()
    assert [{"files": 37, "size": 3 << 20}] == [told.get("data") for told in trial.told(result.run)]
