"""Breakers over whole runs: what opens them, what they stop, who closes them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from midwatch.surfaces.cli import main
from tests.e2e.trial import DONE, Trial, call

FAILS = '''

@tool(effect="read", runs="broker", open_world=False)
def fails(context: ToolContext, what: Text) -> dict[str, str]:
    """Fail, unless a file says otherwise."""
    note_down(context, "tried", what)
    if (context.workdir / "well").exists():
        return {"found": what}
    raise ToolFailure("upstream", "the other side is down")

@tool(effect="read", runs="broker", open_world=False)
def fails_too(context: ToolContext, what: Text) -> dict[str, str]:
    """Fail as well."""
    return fails(context, what)
'''


@pytest.fixture
def trial(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Trial:
    """Give a fleet with tools that fail."""
    monkeypatch.delenv("MIDWATCH_TOKEN", raising=False)
    made = Trial(tmp_path, monkeypatch, [DONE])
    (made.fleet / "things.py").write_text((made.fleet / "things.py").read_text() + FAILS)
    text = (made.fleet / "fleet.yaml").read_text()
    (made.fleet / "fleet.yaml").write_text(text.replace("limits: {steps: 5}", "limits: {steps: 30}"))
    return made


def cli(trial: Trial, *words: str, code: int = 0) -> Any:
    """Run a command with `--json`; gives what it printed."""
    env = {"MIDWATCH_HOME": str(trial.home), "MIDWATCH_TOKEN": ""}
    done: Result = CliRunner().invoke(main, [*words, "--json"], env=env)
    assert code == done.exit_code, done.output
    return json.loads(done.stdout)


def asks(trial: Trial, *tools: str) -> None:
    """Let the worker call these tools, one a turn, then end."""
    rules = [call(name, {"what": f"{turn}"}, turn=turn) for turn, name in enumerate(tools)]
    trial.rules([*rules, DONE])


def keys(trial: Trial, text: str) -> None:
    """Add `breakers:` to the fleet file."""
    place = trial.fleet / "fleet.yaml"
    place.write_text(f"{place.read_text()}breakers: {{{text}}}\n")


@pytest.mark.req("BREAKER-2", "BREAKER-3")
def test_a_tool_that_fails_three_times_is_not_called_again_and_a_person_can_let_it(trial: Trial) -> None:
    """The fourth call is refused as data with a hint; the run goes on; a reset with its reason is on record."""
    asks(trial, *["fails"] * 4)
    done = trial.run()
    assert ("done", ["0", "1", "2"]) == (done.status, trial.lines("tried"))
    assert ["upstream"] * 3 + ["unavailable"] == trial.calls(done.run)
    assert "try again in" in trial.told(done.run)[-1]["error"]["hint"]
    (row,) = cli(trial, "breakers", "ls")["breakers"]
    assert ("tool:trial/things.fails", "open", 1) == (row["subject"], row["state"], row["trips"])
    assert "3 calls in a row failed, the limit is 3" in row["reason"]
    event = trial.events(done.run, "breaker.changed")[-1].data
    assert ("closed", "open", 3) == (event["from"], event["to"], event["errors"])
    cli(trial, "breakers", "reset", "tool:trial/nothing", "--reason", "x", code=6)
    assert "closed" == cli(trial, "breakers", "reset", row["subject"], "--reason", "it is well")["state"]
    assert [] == cli(trial, "breakers", "ls")["breakers"]
    assert trial.kept(done.run)


@pytest.mark.req("BREAKER-3")
def test_refusals_pause_the_run_and_it_goes_on_after_the_reset(trial: Trial) -> None:
    """After two refused calls the run pauses, resumable; after a reset the same run ends."""
    keys(trial, "refusals: 2")
    asks(trial, *["fails"] * 6)
    first = trial.run()
    assert ("paused", "halted", ["0", "1", "2"]) == (first.status, first.error_code, trial.lines("tried"))
    (trial.work / "well").touch()
    cli(trial, "breakers", "reset", "tool:trial/things.fails", "--reason", "it is well")
    again = trial.run(first.run)
    assert ("done", first.run) == (again.status, again.run)
    assert trial.kept(first.run)


@pytest.mark.req("BREAKER-4")
def test_alternating_names_of_tools_hide_no_row_of_errors(trial: Trial) -> None:
    """Two tools fail in turn and neither reaches its limit; their agent reaches its own, and its run pauses."""
    keys(
        trial,
        "consecutive_errors: 2, tools: {things.fails: {consecutive_errors: 9}, things.fails_too: {consecutive_errors: 9}}",
    )
    asks(trial, *["fails", "fails_too"] * 4)
    done = trial.run()
    assert ("paused", 4) == (done.status, len(trial.lines("tried")))
    (row,) = cli(trial, "breakers", "ls")["breakers"]
    assert row["subject"] == f"agent:trial/worker/{done.run}"
    assert "4 calls in a row failed, of whichever tool" in row["reason"]


@pytest.mark.req("BREAKER-4")
def test_an_agent_that_goes_round_in_circles_is_paused(trial: Trial) -> None:
    """The same call with the same result five times: the run pauses before the sixth; other results are progress."""
    trial.rules([*(call("look", {"what": "same"}, turn=turn) for turn in range(8)), DONE])
    done = trial.run()
    assert ("paused", 5) == (done.status, len(trial.lines("looks")))
    assert "same 1 call with the same results came 5 times" in str(done.error_message)
    trial.rules([*(call("look", {"what": f"page {turn}"}, turn=turn) for turn in range(8)), DONE])
    assert "done" == trial.run().status


@pytest.mark.req("STOP-1", "STOP-2")
def test_a_paused_tool_stops_every_run_that_calls_it_until_it_is_resumed(trial: Trial) -> None:
    """New runs too; resuming the run alone does not help; lifting another scope neither."""
    asks(trial, "look", "note")
    cli(trial, "runs", "ls", code=6)
    trial.run()
    cli(trial, "pause", "--tool", "things.note", "--reason", "it writes nonsense", "--by", "ann")
    cli(trial, "pause", "--agent", "nobody", "--reason", "why not", "--by", "ann")
    before = trial.lines("notes")
    held = trial.run()
    assert ("paused", before) == (held.status, trial.lines("notes"))
    assert "it writes nonsense" in str(held.error_message)
    still = cli(trial, "resume", "--agent", "nobody", "--reason", "done")["still"]
    assert ["tool:things.note"] == [flag["scope"] for flag in still]
    assert "paused" == trial.run(held.run).status
    cli(trial, "resume", "--tool", "things.note", "--reason", "mended")
    assert "done" == trial.run(held.run).status
    assert [*before, "1"] == trial.lines("notes")


@pytest.mark.req("STOP-1", "STOP-2")
def test_a_kill_goes_further_than_a_pause_and_no_run_begins_while_all_is_stopped(trial: Trial) -> None:
    """A run of a killed agent is over for good; `--all` lets no run begin, also not after the pause beneath it is lifted."""
    cli(trial, "runs", "ls", code=6)
    trial.run()
    for kind in ("pause", "kill"):
        cli(trial, kind, "--agent", "worker", "--fleet", "trial", "--reason", "enough", "--by", "ann")
    done = trial.run()
    assert ("cancelled", "halted") == (done.status, done.error_code)
    cli(trial, "resume", "--agent", "worker", code=6)
    cli(trial, "resume", "--agent", "worker", "--fleet", "trial")
    cli(trial, "kill", "--all", "--reason", "everything", "--by", "ann")
    with pytest.raises(Exception, match="midwatch resume --all"):
        trial.run()
    cli(trial, "resume", "--all")
    assert "done" == trial.run().status


@pytest.mark.req("STOP-2")
@pytest.mark.parametrize("words", [(), ("--all", "--agent", "a"), ("--fleet", "f"), ("--agent", "")])
def test_a_stop_says_exactly_what_is_meant(trial: Trial, words: tuple[str, ...]) -> None:
    """Nothing, two scopes, a fleet alone or an empty name are refused, and nothing is written."""
    trial.run()
    env = {"MIDWATCH_HOME": str(trial.home)}
    assert 2 == CliRunner().invoke(main, ["pause", *words, "--reason", "x"], env=env).exit_code
    assert 2 == CliRunner().invoke(main, ["pause", "--all"], env=env).exit_code
    assert "done" == trial.run().status
