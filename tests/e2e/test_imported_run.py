"""Whole runs with a tool of an MCP server: called through every stage while it is as pinned, by nobody when it differs."""

import shutil
from pathlib import Path
from typing import Any

import pytest

from midwatch import wiring
from midwatch.config.fleet import Fleet
from midwatch.tools.registry import Registry
from tests.contract.tools_caller import SERVERS

FLEET = """
midwatch: 1
fleet: imported
routes: {local: {provider: scripted, model: tiny, scenario: scenario.yaml, max_output: 500}}
mcp:
  bad: {command: [python, server.py], tools: [good], effects: {good: read}, args: {good: {text: selector}}PIN}
agents:
  boss: {role: ceo, route: local, prompt_text: "Plan.", limits: {steps: 3}}
  worker: {role: specialist, route: local, prompt_text: "Work.", tools: [bad.*], limits: {steps: 5}}
  writer: {role: synthesis, route: local, prompt_text: "Write.", limits: {steps: 3}}
graph: {team: {ceo: boss, specialists: [worker], synthesis: writer}}
grants: [{who: "agent:worker", may: [bad.good]}]
budgets: {run: {cost: "$0.50", tokens: 200k, tool_calls: 10}}
sandbox: {backend: process, because: "a trial"}
"""
SCENARIO = """
scenario: 1
models: [tiny]
prices: {tiny: {input: "$1.00", output: "$2.00"}}
rules:
  - agent: boss
    answer: {goal: "try it", dispatches: [{agent: worker, task: "work", criteria: [{text: "it was done", shown_by: [bad.good]}]}]}
  - {agent: worker, turn: 0, tool_calls: [{name: bad_good, arguments: {text: alpha}}]}
  - agent: worker
    let: {refs: "${ get(results[0].content, 'refs', []) }", ok: "${ results[0].content.ok }"}
    answer:
      changed: [{if: "ok", then: {text: "it was done", evidence: "${ refs }"}}]
      needed: []
      risks: [{if: "!ok", then: {text: "it was not done: ${ results[0].content.error.code }", evidence: []}}]
  - agent: writer
    answer: {answer: "# Report", changed: [], needed: [], risks: []}
"""


def _events(folder: Path, pin: str) -> list[Any]:
    """Run the fleet and give the code of every tool call that was performed; None for a success."""
    (folder / "fleet.yaml").write_text(FLEET.replace("PIN", pin), encoding="utf-8")
    (folder / "scenario.yaml").write_text(SCENARIO, encoding="utf-8")
    (folder / "work").mkdir(exist_ok=True)
    with wiring.open(folder, home=folder / "home", workdir=folder / "work", environ={}) as kernel:
        run = kernel.run({"n": 1}).run
    with wiring.open_store(folder / "home") as store:
        events = store.read(lambda tx: tx.ledger.read(run=run, limit=5000))
    return [event.data.get("code") for event in events if event.kind == "finished" and "tool" in event.data]


@pytest.mark.req("IMPORT-6")
def test_a_pinned_tool_is_called_and_one_that_differs_is_not(tmp_path: Path) -> None:
    """The model asks for it in both runs; only the pin differs."""
    shutil.copy(SERVERS / "mcp_hostile.py", tmp_path / "server.py")
    (tmp_path / "scenario.yaml").write_text(SCENARIO, encoding="utf-8")
    (tmp_path / "fleet.yaml").write_text(FLEET.replace("PIN", ""), encoding="utf-8")
    digest = Registry.of_fleet(Fleet.load(tmp_path, environ={}), {}).sources[0].digest
    assert [None] == _events(tmp_path, f", digest: {digest}")
    assert [] == _events(tmp_path, f", digest: {digest[:-1]}{'0' if digest[-1] != '0' else '1'}")
