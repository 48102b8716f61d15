"""A team whose two specialists work side by side, one of them sent out twice, with its home; for tests of replays.

Tools, store, provider and processes are real; a test gives what the models answer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from midwatch import wiring
from midwatch.records.event import Event
from midwatch.records.run import RunResult
from midwatch.tracing.recording import Recording, read_run
from tests.scenario.ground import Ground

__all__ = ["EMPTY", "Team", "altered", "asked", "long_rules", "team_rules"]

FLEET = """
midwatch: 1
fleet: ground
presets: {default: local}
routes:
  local: {provider: scripted, model: tiny, scenario: scenario.yaml, max_output: 500, retries: 1}
tools: ["python:ops.py"]
agents:
  boss: {role: ceo, route: local, prompt_text: "Plan."}
  worker: {role: specialist, route: local, prompt_text: "Work.", tools: ["ops.*"], limits: {steps: 80}}
  other: {role: specialist, route: local, prompt_text: "Look.", tools: ["ops.*"], limits: {steps: 80}}
  writer: {role: synthesis, route: local, prompt_text: "Write."}
graph: {team: {ceo: boss, specialists: [worker, other], synthesis: writer}}
grants: [{who: "agent:*", may: [ops.look, ops.deploy, ops.log]}]
gates: [{when: {effect: [destructive]}, ask: operator, timeout: 15m}]
budgets: {run: {cost: "$50", tokens: 50000k, tool_calls: 2000}}
breakers: {enabled: false}
sandbox: {backend: process, because: "a trial"}
EXTRA
"""
EMPTY: Mapping[str, Any] = {"changed": [], "needed": [], "risks": []}


def asked(*wanted: tuple[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Make what a model answers that calls tools."""
    return {"tool_calls": [{"name": f"ops_{name}", "arguments": dict(arguments)} for name, arguments in wanted]}


def team_rules(*agents: str, report: str = "# Report") -> list[dict[str, Any]]:
    """Make the rules of a CEO that sends these agents out, and of a writer."""
    tasks = [
        {"agent": name, "task": f"task {place}", "criteria": [{"text": "seen", "shown_by": ["ops.look"]}]}
        for place, name in enumerate(agents)
    ]
    done = {"answer": {**EMPTY, "needed": [{"text": "nothing more", "evidence": []}]}}
    return [
        {"agent": "boss", "answer": {"goal": "go", "dispatches": tasks}},
        {"agent": "writer", "answer": {"answer": report, **EMPTY}},
        {"agent": "worker", **done},
        {"agent": "other", **done},
    ]


def long_rules(turns: int) -> list[dict[str, Any]]:
    """Make the rules of three dispatches whose agents look at two things in each of so many turns."""
    made = []
    for name in ("worker", "other"):
        for turn in range(turns):
            looks = (("look", {"what": f"{name} {turn} left"}), ("look", {"what": f"{name} {turn} right"}))
            made.append({"agent": name, "turn": turn, **asked(*looks)})
    return [*made, *team_rules("worker", "other", "worker")]


def altered(recording: Recording, *, blob: tuple[str, bytes] | None = None, event: Event | None = None) -> Recording:
    """Give the recording with one body or one event put in the place of what was recorded under the same name."""
    if blob is not None:
        return replace(recording, blobs={**recording.blobs, blob[0]: blob[1]})
    if event is None:
        return recording
    return replace(recording, events=tuple(event if event.seq == each.seq else each for each in recording.events))


class Team(Ground):
    """See the module's head."""

    def __init__(self, root: Path, answers: Sequence[Mapping[str, Any]], *, extra: str = "") -> None:
        super().__init__(root, answers=answers, fleet=FLEET, extra=extra)

    def recorded(self, run: str) -> Recording:
        """Read a run out of the home."""
        with wiring.open_store(self.home) as store:
            return read_run(store, run)

    def record(self, resume: str | None = None) -> tuple[RunResult, Recording]:
        """Run, or resume, and read what was recorded."""
        result = self.run(resume, request={"q": "go"})
        return result, self.recorded(result.run)
