"""Bad providers and bad answers through whole runs: what is charged, what the agent is told, how the run ends."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.e2e.trial import DONE, Trial, call

LOOK = call("look", {"what": "milk"})
SHORT = "max_output: 500, retries: 1, timeout: 1s"


def with_fault(rule: dict[str, Any], **fault: Any) -> dict[str, Any]:
    """Give the rule with a fault."""
    return {**rule, "fault": fault}


def failures(trial: Trial, run: str) -> list[tuple[str, bool, int]]:
    """Give `(code, charged in full, cost)` of the model calls that failed."""
    events = [event.data for event in trial.events(run, "finished") if "charged_in_full" in event.data]
    return [(data["code"], data["charged_in_full"], data["cost"]) for data in events]


@pytest.mark.req("BAD-4")
@pytest.mark.parametrize(
    ("fault", "code", "charged", "waits", "ends"),
    [
        ({"kind": "status", "status": 429, "retry_after": 7}, "rate_limited", False, [7_000_000], "done"),
        ({"kind": "status", "status": 500}, "upstream", True, [500_000], "done"),
        ({"kind": "timeout", "seconds": 20}, "timeout", True, [500_000], "done"),
        ({"kind": "cut_stream"}, "cut", True, [500_000], "done"),
        ({"kind": "no_finish"}, "no_finish", True, [500_000], "done"),
        ({"kind": "no_usage"}, "no_usage", True, [], "failed"),
    ],
    ids=lambda value: value["kind"] if isinstance(value, dict) else None,
)
def test_a_fault_of_the_provider_is_charged_for_what_it_may_have_cost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: Any, code: str, charged: bool, waits: Any, ends: str
) -> None:
    """What surely cost nothing is free; all else costs its whole reservation; a retry is a new one; the bill stays below the cost."""
    trial = Trial(tmp_path, monkeypatch, [with_fault(LOOK, times=1, **fault), DONE], route=SHORT)
    result = trial.run()
    effect = next(
        event.data["effect"] for event in trial.events(result.run, "finished") if "charged_in_full" in event.data
    )
    held = trial.held_for(effect, 1) if charged else 0
    assert ([(code, charged, held)], waits) == (failures(trial, result.run), trial.waits)
    told = [event.data["cost"] for event in trial.events(result.run, "finished") if "cost" in event.data]
    lost = sum(line["cost_microusd"] for line in trial.bill() if line["outcome"] != "finished")
    assert (result.cost, result.cost) == (sum(told), trial.charged() - lost + held)
    assert lost <= held, "what was charged for the lost answer is below its reservation"
    handoff = trial.handoff(result.run)
    assert ("done", "failed" if ends == "failed" else "unmet", True) == (
        result.status,
        handoff["status"],
        trial.kept(result.run),
    )


@pytest.mark.req("BAD-4")
@pytest.mark.parametrize(
    ("agent", "status", "exit_code"), [("boss", "failed", 1), ("writer", "failed", 1), ("worker", "done", 0)]
)
def test_a_provider_that_stays_down_ends_the_part_that_needed_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, agent: str, status: str, exit_code: int
) -> None:
    """A specialist fails alone and the report says so; without plan or report the run fails, in words that name agent and provider."""
    down = {"agent": agent, "answer": {}, "fault": {"kind": "status", "status": 503}}
    trial = Trial(tmp_path, monkeypatch, [down, LOOK, DONE])
    result = trial.run()
    assert (status, exit_code, 2, True) == (
        result.status,
        result.exit_code,
        len(failures(trial, result.run)),
        trial.kept(result.run),
    )
    if agent != "worker":
        assert f"`{agent}` could not finish: the provider of route `smart` failed (503)" in (result.error_message or "")
    else:
        assert "503" in str(trial.handoff(result.run)["risks"])


@pytest.mark.req("BAD-4")
def test_a_run_that_failed_on_its_provider_goes_on_when_it_is_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The report's call failed twice and the run with it; `resume` asks again, and what was answered before is not asked again."""
    down = {"agent": "writer", "answer": {}, "fault": {"kind": "status", "status": 503, "times": 2}}
    trial = Trial(tmp_path, monkeypatch, [LOOK, DONE])
    scenario = trial.fleet / "scenario.yaml"
    healthy = scenario.read_text()
    trial.rules([down, LOOK, DONE])
    failed = trial.run()
    scenario.write_text(healthy)
    before = len(trial.bill())
    result = trial.run(failed.run)
    assert ("failed", "done", 1) == (failed.status, result.status, len(trial.bill()) - before)
    assert ["milk"] == trial.lines("looks")


@pytest.mark.req("BAD-5")
@pytest.mark.parametrize(
    "kind", ["bad_json", "wrong_schema", "duplicate_keys", "empty", "prose", "wrong_tool", "wrapped"]
)
@pytest.mark.parametrize("agent", ["boss", "worker", "writer"])
def test_a_malformed_answer_is_told_or_recovered_and_the_next_one_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, agent: str, kind: str
) -> None:
    """Whatever is wrong with an answer is on record, costs what it costs, and does not end the run."""
    spoilt = {"boss": PLAN, "worker": DONE, "writer": REPORT}[agent]
    size = {"bytes": 3000} if kind == "prose" else {}
    trial = Trial(tmp_path, monkeypatch, [LOOK, with_fault(spoilt, kind=kind, times=1, **size), DONE])
    result = trial.run()
    assert ("done", "# Report", True) == (result.status, result.output["answer"], trial.kept(result.run))
    refused, signals = trial.events(result.run, "handoff.refused"), trial.signals(result.run)
    assert (*EXPECTED[kind], trial.charged()) == (len(refused), len(signals), result.cost)
    if kind == "wrong_tool":
        assert ("denied" if agent == "boss" else "unknown_tool") in trial.calls(result.run)


PLAN: dict[str, Any] = {
    "agent": "boss",
    "answer": {
        "goal": "g",
        "dispatches": [
            {"agent": "worker", "task": "work", "criteria": [{"text": "it was done", "shown_by": ["things.look"]}]}
        ],
    },
}
REPORT: dict[str, Any] = {
    "agent": "writer",
    "answer": {"answer": "# Report", "changed": [], "needed": [], "risks": []},
}
EXPECTED = {
    # kind: (how often told to the agent, how often signalled as recovered)
    "bad_json": (1, 0),
    "wrapped": (0, 1),
    "wrong_schema": (1, 0),
    "duplicate_keys": (1, 0),
    "empty": (1, 0),
    "prose": (1, 0),
    "wrong_tool": (0, 0),
}


@pytest.mark.req("BAD-5")
def test_an_agent_that_never_answers_well_gives_up_within_its_steps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Five steps of prose are five paid steps; then its handoff says that it failed, and the report is written."""
    trial = Trial(tmp_path, monkeypatch, [with_fault(DONE, kind="prose", bytes=5000)], route="max_output: 2000")
    result = trial.run()
    refused = trial.events(result.run, "handoff.refused")
    assert ("done", "failed", 5) == (result.status, trial.handoff(result.run)["status"], len(refused))
    assert result.cost == trial.charged()


@pytest.mark.req("BAD-5")
def test_a_megabyte_of_prose_is_not_paid_for_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A model that is allowed to write it is told off; its next request holds the beginning alone, so that the budget lasts."""
    prose = with_fault({**DONE, "turn": 0}, kind="prose", bytes=1_000_000)
    trial = Trial(tmp_path, monkeypatch, [prose, {**LOOK, "turn": 1}, DONE], route="max_output: 300000")
    result = trial.run()
    asked = [line["prompt_tokens"] for line in trial.bill()]
    assert ("done", ["milk"], True) == (result.status, trial.lines("looks"), max(asked) < 3000)


@pytest.mark.req("BAD-5")
def test_a_model_that_ignores_its_cap_is_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With 500 tokens allowed, a megabyte is cut on the way, charged in full, and fails that specialist alone."""
    trial = Trial(tmp_path, monkeypatch, [with_fault(DONE, kind="prose", bytes=1_000_000)])
    result = trial.run()
    assert ("done", "failed", [("cut", True)]) == (
        result.status,
        trial.handoff(result.run)["status"],
        [(code, charged) for code, charged, _ in failures(trial, result.run)],
    )
    assert trial.charged() <= result.cost


@pytest.mark.req("BAD-6")
@pytest.mark.parametrize(
    ("kind", "code", "signals"),
    [
        ("malformed_arguments", "invalid_arguments", 0),
        ("wrapped", None, 1),
        ("duplicate_keys", "invalid_arguments", 0),
        ("wrong_schema", "invalid_arguments", 0),
        ("wrong_tool", "unknown_tool", 0),
    ],
)
def test_malformed_arguments_of_a_read_are_recovered_or_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, code: str | None, signals: int
) -> None:
    """What has one reading is read, with a signal that names tool and rule; what has two, or none that fits, is refused as data."""
    trial = Trial(tmp_path, monkeypatch, [with_fault(LOOK, kind=kind), DONE])
    result = trial.run()
    found = [name for name, _ in trial.signals(result.run)]
    assert ("done", [code], ["things.look"] * signals) == (result.status, trial.calls(result.run), found)
    assert ([] if code else ["milk"]) == trial.lines("looks")


def steps(tool: str, **more: Any) -> list[dict[str, Any]]:
    """Give the rules of a model that speaks the constrained protocol: the worker calls `tool` twice, then all come to their end."""
    worker = [
        {"agent": "worker", "turn": 0, "answer": {"tool": f"things.{tool}", "args": {"what": "milk"}}, **more},
        {"agent": "worker", "turn": 1, "answer": {"tool": f"things.{tool}", "args": {"what": "bread"}}},
    ]
    ends = [{**rule, "answer": {"final": rule["answer"]}} for rule in (PLAN, DONE, REPORT)]
    return [*worker, *ends]


CONSTRAINED = "max_output: 500, retries: 1, protocol: constrained"


@pytest.mark.req("BAD-7")
def test_the_constrained_protocol_carries_a_whole_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A model without tool calls plans, calls tools and reports through one JSON object a step; the bill is the run's cost."""
    trial = Trial(tmp_path, monkeypatch, steps("note"), route=CONSTRAINED)
    result = trial.run()
    assert ("done", "# Report", ["milk", "bread"]) == (result.status, result.output["answer"], trial.lines("notes"))
    assert (trial.charged(), []) == (result.cost, trial.signals(result.run))


@pytest.mark.req("BAD-7", "BAD-2")
@pytest.mark.parametrize(
    ("tool", "file", "lines"), [("look", "looks", ["milk", "bread"]), ("note", "notes", ["bread"])]
)
def test_a_constrained_step_in_prose_reads_but_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tool: str, file: str, lines: list[str]
) -> None:
    """The call was recovered from talk: a read is carried out, a write is told to come again plainly; either way with its signal."""
    trial = Trial(tmp_path, monkeypatch, steps(tool, fault={"kind": "wrapped"}), route=CONSTRAINED)
    result = trial.run()
    assert ("done", lines, 1) == (result.status, trial.lines(file), len(trial.signals(result.run)))
    assert ([None, None] if tool == "look" else ["invalid_arguments", None]) == trial.calls(result.run)


@pytest.mark.req("BAD-7")
@pytest.mark.parametrize("kind", ["bad_json", "wrong_schema", "duplicate_keys", "empty", "prose"])
def test_a_constrained_step_that_cannot_be_read_is_asked_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """What is no step calls nothing; the agent is told, and the run comes to its end."""
    rules = steps("note", fault={"kind": kind, "bytes": 3000} if kind == "prose" else {"kind": kind})
    trial = Trial(tmp_path, monkeypatch, rules, route="max_output: 2000, protocol: constrained")
    result = trial.run()
    assert ("done", ["bread"], True) == (result.status, trial.lines("notes"), bool(trial.signals(result.run)))
