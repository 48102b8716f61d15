"""Budgets over whole runs: top-ups, shadows, ladders, scopes in Python, bills that arrive later."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

import midwatch
from midwatch import wiring
from midwatch.surfaces.cli import main
from tests.e2e.trial import DONE, Trial, call

BUDGETS = 'budgets: {fleet: {cost: "$2.00", per: month}, run: {cost: "$1.00", tokens: 900k, tool_calls: 40}}'
TWO = [call("note", {"what": "a"}), call("note", {"what": "b"}, turn=1), DONE]


@pytest.fixture
def trial(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Trial:
    """Give a fleet whose worker notes `a`, then `b`."""
    monkeypatch.delenv("MIDWATCH_TOKEN", raising=False)
    return Trial(tmp_path, monkeypatch, TWO)


def bounded(trial: Trial, budgets: str) -> None:
    """Write other budgets into the fleet file."""
    place = trial.fleet / "fleet.yaml"
    text = place.read_text()
    assert BUDGETS in text
    place.write_text(text.replace(BUDGETS, f"budgets: {budgets}"))


def cli(trial: Trial, *words: str, code: int = 0, token: str | None = None) -> Any:
    """Run a command with `--json`; gives what it printed."""
    env = {"MIDWATCH_HOME": str(trial.home), "MIDWATCH_TOKEN": token or ""}
    done: Result = CliRunner().invoke(main, [*words, "--json"], env=env)
    assert code == done.exit_code, done.output
    return json.loads(done.stdout)


@pytest.mark.req("BUDGET-4", "BUDGET-8", "BUDGET-14")
def test_a_run_at_its_bound_goes_on_after_a_top_up_and_repeats_nothing(trial: Trial) -> None:
    """One call is allowed: the run pauses with exit code 5 before the second, and ends after a top-up; `a` was noted once."""
    bounded(trial, '{run: {cost: "$1.00", tool_calls: 1}}')
    first = trial.run()
    assert ("paused", 5, "bound_reached", ["a"]) == (
        first.status,
        first.exit_code,
        first.error_code,
        trial.lines("notes"),
    )
    again = trial.run(first.run)
    assert ("paused", ["a"]) == (again.status, trial.lines("notes"))
    told = cli(trial, "budget", "topup", f"run:{first.run[:8]}", "tool_calls", "2", "--reason", "the rest matters")
    assert (f"run:{first.run}", 1, 3) == (told["scope"], told["before"], told["after"])
    done = trial.run(first.run)
    assert ("done", first.run, ["a", "b"]) == (done.status, done.run, trial.lines("notes"))
    assert trial.kept(first.run)
    shown = cli(trial, "budget", "show", "--run", first.run[:8])["accounts"]
    row = next(row for row in shown if row["scope"] == f"run:{first.run}" and row["unit"] == "tool_calls")
    assert (3, 2, 0, 1) == (row["cap"], row["spent"], row["held"], row["left"])
    event = cli(trial, "budget", "history", f"run:{first.run[:8]}")["events"][-1]
    assert ("budget.set", "topup", "the rest matters") == (
        event["kind"],
        event["data"]["what"],
        event["data"]["reason"],
    )
    assert event["data"]["by"]


@pytest.mark.req("BUDGET-8")
def test_who_may_not_change_a_cap(trial: Trial) -> None:
    """In a home with people neither a viewer, nor somebody without a token, nor a made-up token changes anything."""
    bounded(trial, '{run: {cost: "$1.00", tool_calls: 1}}')
    run = trial.run().run
    admin = cli(trial, "principals", "add", "ann", "--role", "admin", "--role", "operator")["token"]
    viewer = cli(trial, "principals", "add", "vic", "--role", "viewer", token=admin)["token"]
    for token in (viewer, None, "mwt_invented"):
        for words in (("topup", "5"), ("set", "50")):
            cli(trial, "budget", words[0], f"run:{run}", "tool_calls", words[1], code=4, token=token)
    assert 1 == cli(trial, "budget", "show", f"run:{run}")["accounts"][-1]["cap"]
    assert [] == cli(trial, "budget", "history")["events"]
    told = cli(trial, "budget", "set", f"run:{run}", "tool_calls", "50", token=admin)
    assert (1, 50) == (told["before"], told["after"])


AGENT = '''

@tool(effect="write", runs="broker", open_world=False)
def richer(context: ToolContext, what: Text) -> dict[str, str]:
    """Try to top up the run's own budget, as a program with a shell would."""
    import os, subprocess, sys
    env = {key: value for key, value in os.environ.items() if key != "MIDWATCH_TOKEN"}
    words = ["budget", "topup", what, "tool_calls", "99", "--home", str(context.workdir.parent / "home")]
    done = subprocess.run([sys.executable, "-m", "midwatch", *words], env=env, capture_output=True, text=True, timeout=60)
    note_down(context, "tried", str(done.returncode))
    return {"noted": str(done.returncode)}
'''


@pytest.mark.req("BUDGET-8")
def test_an_agent_that_tops_up_its_own_budget_is_refused(trial: Trial, monkeypatch: pytest.MonkeyPatch) -> None:
    """Even with a shell on the machine and the home's path: without a person's token the cap stays as it was."""
    (trial.fleet / "things.py").write_text((trial.fleet / "things.py").read_text() + AGENT)
    trial.rules([call("richer", {"what": "fleet:trial"}), DONE])
    bounded(trial, '{fleet: {cost: "$2.00", tool_calls: 30, per: month}, run: {cost: "$1.00"}}')
    trial.home.mkdir()
    with wiring.open_store(trial.home, create=True):
        pass
    token = cli(trial, "principals", "add", "ann", "--role", "admin", "--role", "operator")["token"]
    with wiring.open(trial.fleet, home=trial.home, workdir=trial.work, environ={}, token=token) as kernel:
        result = kernel.run({"n": 1})
    assert ("done", ["4"]) == (result.status, trial.lines("tried"))
    rows = cli(trial, "budget", "show", "trial")["accounts"]
    assert [30] == [row["cap"] for row in rows if row["unit"] == "tool_calls"]


@pytest.mark.req("BUDGET-6")
def test_a_run_in_shadow_ends_and_says_what_would_have_stopped_it(trial: Trial) -> None:
    """A bound of no calls in shadow stops nothing; each call past it is on record with the numbers."""
    bounded(trial, '{fleet: {cost: "$2.00"}, run: {tool_calls: 0, shadow: true}}')
    result = trial.run()
    assert ("done", ["a", "b"]) == (result.status, trial.lines("notes"))
    told = [
        (event.data["unit"], event.data["cap"], event.data["used"])
        for event in trial.events(result.run, "budget.would_stop")
    ]
    assert [("tool_calls", 0, 0), ("tool_calls", 0, 1)] == told


@pytest.mark.req("BUDGET-10")
def test_a_ladder_changes_the_route_before_the_cap_stops(trial: Trial) -> None:
    """From the rung on models are asked by the cheaper route; the ledger has the numbers, and the run ends."""
    place = trial.fleet / "fleet.yaml"
    place.write_text(
        place.read_text().replace(
            "  smart:", "  cheap: {provider: scripted, model: tiny, scenario: scenario.yaml}\n  smart:"
        )
    )
    bounded(trial, '{run: {cost: "$1.00", tool_calls: 4, degrade: [{at: 25%, route: cheap, context: 50%}]}}')
    result = trial.run()
    routes = [
        (event.agent, event.data["route"]) for event in trial.events(result.run, "intent") if "route" in event.data
    ]
    assert "done" == result.status
    assert [("worker", "smart"), ("worker", "cheap")] == [one for one in routes if one[0] == "worker"][:2]
    told = trial.events(result.run, "budget.degraded")
    assert [(f"run:{result.run}", "tool_calls", 1, 4, "25%", "cheap")] == [
        tuple(event.data[key] for key in ("scope", "unit", "used", "cap", "at", "route")) for event in told
    ]


@pytest.mark.req("BUDGET-13", "BUDGET-1")
def test_calls_beyond_those_at_once_wait_instead_of_stopping(trial: Trial) -> None:
    """Four calls of one answer, one at a time: all are made, nothing stays held."""
    asked = [{"name": "things_note", "arguments": {"what": str(number)}} for number in range(4)]
    trial.rules([{"agent": "worker", "turn": 0, "tool_calls": asked}, DONE])
    bounded(trial, '{run: {cost: "$1.00", concurrency: 1}}')
    result = trial.run()
    assert ("done", ["0", "1", "2", "3"]) == (result.status, sorted(trial.lines("notes")))
    assert trial.kept(result.run)


@pytest.mark.req("BUDGET-12", "BUDGET-1")
def test_a_scope_in_python_bounds_the_runs_in_it(trial: Trial) -> None:
    """A run inside the block is charged to it and paused by it; after it ended the same run goes on."""
    with midwatch.budget("night", home=trial.home, tool_calls=1) as scope:
        first = trial.run()
        assert ("paused", ["a"]) == (first.status, trial.lines("notes"))
        assert scope.account in (first.error_message or "")
        assert (1, 0) == (scope.usage["tool_calls"], scope.remaining["tool_calls"])
        with pytest.raises(midwatch.BoundReached) as caught:
            scope.spend(tool_calls=1)
        assert scope.account == caught.value.scope
    done = trial.run(first.run)
    assert ("done", ["a", "b"]) == (done.status, trial.lines("notes"))


@pytest.mark.req("BUDGET-12")
def test_a_scope_of_another_home_is_refused(trial: Trial, tmp_path: Path) -> None:
    """What could not be charged to the scope around it does not begin."""
    with (
        midwatch.budget("elsewhere", home=tmp_path / "other", tool_calls=1),
        pytest.raises(midwatch.MidwatchError, match="another home"),
    ):
        trial.run()
    assert [] == trial.lines("notes")


@pytest.mark.req("BUDGET-11", "BUDGET-14")
def test_a_bill_that_arrives_later_is_put_right_on_every_scope(trial: Trial, tmp_path: Path) -> None:
    """The provider says less: run, agent and fleet go down alike, with an event; a call that is none is refused whole."""
    result = trial.run()
    before = {
        row["scope"]: row["spent"]
        for row in cli(trial, "budget", "show", "--run", "last")["accounts"]
        if row["unit"] == "cost"
    }
    effect = trial.effects(result.run, "model")[0]
    finished = next(each for each in trial.events(result.run, "finished") if each.data.get("effect") == effect.id)
    cost = finished.data["cost"]
    assert finished.data["price"]
    bill = tmp_path / "bill.json"
    bill.write_text(json.dumps({"calls": [{"effect": effect.id, "cost": cost - 1}]}))
    told = cli(trial, "budget", "reconcile", "last", str(bill))
    assert [{"cost": -1}] == [one["differences"] for one in told["calls"]]
    after = {
        row["scope"]: row["spent"]
        for row in cli(trial, "budget", "show", "--run", "last")["accounts"]
        if row["unit"] == "cost"
    }
    changed = {scope for scope in before if after[scope] != before[scope]}
    assert {f"run:{result.run}", f"agent:{result.run}/{effect.agent}"} == changed
    bill.write_text(
        json.dumps({"calls": [{"effect": effect.id, "cost": 0}, {"effect": effect.id, "attempt": 7, "cost": 0}]})
    )
    cli(trial, "budget", "reconcile", "last", str(bill), code=6)
    rows = cli(trial, "budget", "show", f"run:{result.run}")["accounts"]
    assert after[f"run:{result.run}"] == next(row["spent"] for row in rows if row["unit"] == "cost")


@pytest.mark.req("BUDGET-14")
def test_top_shows_one_frame(trial: Trial) -> None:
    """What waits or was stopped, and what runs share, in one JSON object."""
    bounded(trial, '{fleet: {cost: "$2.00", per: month}, run: {cost: "$1.00", tool_calls: 1}}')
    run = trial.run().run
    told = cli(trial, "top", "--once")
    assert [(run, "paused", "tool_calls 1 of 1")] == [
        (row["run"], row["status"], row["fullest"]) for row in told["runs"]
    ]
    assert ["cost"] == [row["unit"] for row in told["budgets"]]
    assert told["head"] > 0


@pytest.mark.req("BUDGET-1")
@pytest.mark.parametrize(
    ("budgets", "unit"),
    [
        ('{operations: {cost: "$1.00", tool_calls: 1, per: day}, run: {cost: "$1.00"}}', "vertical:trial/operations@"),
        ('{worker: {tool_calls: 1, per: day}, run: {cost: "$1.00"}}', "agent:trial/worker@"),
        ('{"node:worker.act": {tool_calls: 1}, run: {cost: "$1.00"}}', "node:"),
    ],
)
def test_verticals_agents_by_window_and_nodes_are_bounded(trial: Trial, budgets: str, unit: str) -> None:
    """A bound of one call holds on each; over runs, too, where it has a window."""
    place = trial.fleet / "fleet.yaml"
    place.write_text(place.read_text().replace("grants:", "verticals: {operations: [worker]}\ngrants:"))
    bounded(trial, budgets)
    first = trial.run()
    assert ["a"] == trial.lines("notes")
    second = trial.run()
    assert (["a", "a"] if unit == "node:" else ["a"]) == trial.lines("notes")
    assert ("paused" if unit.startswith("vertical") else "done") == first.status == second.status


SPENDS = """
import sys
import midwatch
got = 0
with midwatch.budget("crowd", home=sys.argv[1], shared=True, tool_calls=25) as scope:
    for _ in range(15):
        try:
            scope.spend(tool_calls=1)
            got += 1
        except midwatch.BoundReached:
            pass
print(got)
"""


@pytest.mark.req("BUDGET-12", "BUDGET-2")
def test_a_shared_scope_is_one_in_all_processes(tmp_path: Path) -> None:
    """Three processes that want 45 of 25 get 25 together."""
    words = [sys.executable, "-c", SPENDS, str(tmp_path / "home")]
    made = [subprocess.Popen(words, stdout=subprocess.PIPE) for _ in range(3)]
    assert 25 == sum(int(child.communicate(timeout=90)[0]) for child in made)
