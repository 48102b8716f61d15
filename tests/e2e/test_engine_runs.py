"""Whole runs through the real client SDK, a real loopback provider with its own bill, a real store and real processes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from midwatch import wiring
from midwatch.engine import control
from midwatch.errors import RunHalted, RunHeld
from midwatch.records.run import RunResult

FLEET = """
midwatch: 1
fleet: trial
presets: {default: local}
routes:
  local: {provider: scripted, model: tiny, scenario: scenario.yaml, max_output: 500, retries: 1}
  smart: {provider: openai, model: gpt-5-mini}
tools: ["python:mytools.py"]
agents:
  boss: {role: ceo, route: smart, prompt_text: "Plan.", limits: {steps: 3}}
  worker: {role: specialist, route: smart, prompt_text: "Work.", tools: [mytools.*], limits: {steps: 5}}
  writer: {role: synthesis, route: smart, prompt_text: "Write.", limits: {steps: 3}}
graph: {team: {ceo: boss, specialists: [worker], synthesis: writer}}
grants: [{who: "agent:worker", may: [mytools.look, mytools.wipe, mytools.stamp]}]
gates: [{when: {effect: [destructive]}, ask: operator, timeout: 15m}]
budgets: {run: {cost: "$0.50", tokens: 200k, tool_calls: 10}}
sandbox: {backend: process, because: "a trial"}
"""

TOOLS = '''
import os, signal
from pathlib import Path
from typing import Annotated
from midwatch import Arg, tool
from midwatch.tools.binding import ToolContext

@tool(effect="read", runs="broker", open_world=False)
def look(context: ToolContext, what: Annotated[str, Arg(role="selector")]) -> dict[str, str]:
    """Look at the thing that is named."""
    with (context.workdir / "looks").open("a") as file:
        file.write("x")
    return {"found": what + " key sk-abcdefghijklmnopqrstuvwxyz012345"}

@tool(effect="destructive", runs="broker", open_world=False)
def wipe(context: ToolContext, name: Annotated[str, Arg(role="target")]) -> dict[str, str]:
    """Wipe the volume that is named."""
    with (context.workdir / "wipes").open("a") as file:
        file.write(name + "\\n")
    if os.environ.get("DIE_IN_WIPE"):
        os.kill(os.getpid(), signal.SIGKILL)
    return {"wiped": name}

@tool(effect="destructive", runs="broker", open_world=False)
def stamp(context: ToolContext, name: Annotated[str, Arg(role="target")]) -> dict[str, str]:
    """Stamp the letter that is named; no word of it asks anybody."""
    return wipe(context, name)

@tool(effect="write", runs="broker", open_world=False)
def forbidden(context: ToolContext, name: Annotated[str, Arg(role="target")]) -> dict[str, str]:
    """Write what nobody granted."""
    (context.workdir / "forbidden").write_text(name)
    return {"wrote": name}
'''

SCENARIO = """
scenario: 1
models: [tiny]
prices: {tiny: {input: "$1.00", output: "$2.00"}}
rules:
  - agent: boss
    answer: {goal: "try it", dispatches: [{agent: worker, task: "work", criteria: [{text: "it was done", shown_by: [mytools.TOOL]}]}]}
  - {agent: worker, turn: 0, tool_calls: [{name: mytools_TOOL, arguments: {ARG: alpha}}]}
  - agent: worker
    let: {refs: "${ get(results[0].content, 'refs', []) }", ok: "${ results[0].content.ok }"}
    answer:
      changed: [{if: "ok", then: {text: "it was done", evidence: "${ refs }"}}]
      needed: []
      risks: [{if: "!ok", then: {text: "it was not done: ${ results[0].content.error.code }", evidence: []}}]
  - agent: writer
    answer: {answer: "# Report", changed: [], needed: [], risks: []}
"""

RUNNER = """
import json, sys
from pathlib import Path
from midwatch import wiring
with wiring.open(sys.argv[1], home=sys.argv[2], workdir=Path(sys.argv[3]), environ={}) as kernel:
    result = kernel.run({"n": 1}) if len(sys.argv) < 5 else kernel.resume(sys.argv[4])
    print(json.dumps([result.run, result.status]))
"""


class Bench:
    """One fleet folder, home and working directory."""

    def __init__(self, root: Path, *, tool: str = "look", argument: str = "what", fleet: str = FLEET) -> None:
        self.fleet, self.home, self.work = root / "fleet", root / "home", root / "work"
        self.fleet.mkdir()
        self.work.mkdir()
        (self.fleet / "fleet.yaml").write_text(fleet)
        (self.fleet / "mytools.py").write_text(TOOLS)
        (self.fleet / "scenario.yaml").write_text(SCENARIO.replace("TOOL", tool).replace("ARG", argument))

    def run(self, resume: str | None = None) -> RunResult:
        with wiring.open(self.fleet, home=self.home, workdir=self.work, environ={}) as kernel:
            return kernel.run({"n": 1}) if resume is None else kernel.resume(resume)

    def process(self, *extra: str, **environ: str) -> subprocess.CompletedProcess[str]:
        argv = [sys.executable, "-c", RUNNER, str(self.fleet), str(self.home), str(self.work), *extra]
        return subprocess.run(argv, env=os.environ | environ, capture_output=True, text=True, timeout=60, check=False)

    def bill(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (self.home / "scripted-bill-trial.jsonl").read_text().splitlines()]

    def count(self, name: str) -> int:
        place = self.work / name
        return len(place.read_text().split()) if place.exists() else 0


def answered(bench: Bench, run: str) -> list[Any]:
    """Give the error codes of the run's tool calls, in order; None for a success."""
    with wiring.open_store(bench.home) as store:
        events = store.read(lambda tx: tx.ledger.read(run=run, limit=5000))
    return [event.data.get("code") for event in events if event.kind == "finished" and "tool" in event.data]


@pytest.mark.req("ENGINE-1")
@pytest.mark.req("ENGINE-8")
def test_a_run_goes_from_input_to_answer_and_costs_what_the_provider_billed(tmp_path: Path) -> None:
    """The output is synthesis' answer, the money is the provider's, the chain verifies, no credential was kept."""
    bench = Bench(tmp_path)
    result = bench.run()
    assert ("done", "# Report") == (result.status, result.output["answer"])
    assert sum(line["cost_microusd"] for line in bench.bill()) == result.cost
    assert sum(line["prompt_tokens"] + line["completion_tokens"] for line in bench.bill()) == result.tokens
    with wiring.open_store(bench.home) as store:
        assert store.read(lambda tx: tx.ledger.verify(expected_head=result.head)).ok
    raw = b"".join(path.read_bytes() for path in bench.home.iterdir() if path.is_file())
    assert b"sk-abcdefghijklmnop" not in raw


@pytest.mark.req("ENGINE-2")
@pytest.mark.parametrize(("approve", "wipes", "code"), [(True, 1, None), (False, 0, "denied")])
def test_a_gated_action_follows_the_persons_word(tmp_path: Path, approve: bool, wipes: int, code: str | None) -> None:
    """Before the answer nothing happens; a yes makes it happen once; a no is told to the agent."""
    bench = Bench(tmp_path, tool="wipe", argument="name")
    waiting = bench.run()
    assert ("waiting", 3, 1, 0) == (waiting.status, waiting.exit_code, len(waiting.gates), bench.count("wipes"))
    still = bench.run(waiting.run)
    assert ("waiting", waiting.gates, 0) == (still.status, still.gates, bench.count("wipes"))
    with wiring.open_store(bench.home) as store:
        control.answer(store, waiting.gates[0], approve=approve, by="ann", reason="checked", at_us=wiring.clock())
    result = bench.run(waiting.run)
    assert ("done", wipes, [code]) == (result.status, bench.count("wipes"), answered(bench, result.run))
    assert ("done", wipes) == (bench.run(waiting.run).status, bench.count("wipes"))


@pytest.mark.req("ENGINE-3")
@pytest.mark.req("ENGINE-7")
@pytest.mark.parametrize(("word", "wipes"), [("retry", 2), ("done", 1), ("not_done", 1)])
def test_an_effect_cut_by_a_kill_is_in_doubt_until_a_person_speaks(tmp_path: Path, word: Any, wipes: int) -> None:
    """The worker dies inside the effect: resume repeats neither it nor any model call; the person's word decides."""
    bench = Bench(
        tmp_path, tool="stamp", argument="name", fleet=FLEET.replace("effect: [destructive]", "tool: [nothing]")
    )
    killed = bench.process(DIE_IN_WIPE="1")
    assert -signal.SIGKILL == killed.returncode
    with wiring.open_store(bench.home) as store:
        run = store.read(lambda tx: tx.runs.list())[0].id
        # The lease of the dead worker must have run out; time is the store's to judge, so its end is set, not awaited.
        store.write(lambda tx: tx.fences.release(run, epoch=1))
    asked = len(bench.bill())
    doubt = bench.run(run)
    assert ("waiting", 1, 1, asked) == (doubt.status, len(doubt.in_doubt), bench.count("wipes"), len(bench.bill()))
    with wiring.open_store(bench.home) as store:
        control.resolve(store, doubt.in_doubt[0], word=word, by="ann", at_us=wiring.clock())
    result = bench.run(run)
    assert ("done", wipes) == (result.status, bench.count("wipes"))
    with wiring.open_store(bench.home) as store:
        assert store.read(lambda tx: tx.ledger.verify()).ok


@pytest.mark.req("ENGINE-4")
def test_what_no_grant_allows_is_refused_as_data(tmp_path: Path) -> None:
    """The agent has the tool, yet no grant for it: it is told so, and nothing is written."""
    bench = Bench(tmp_path, tool="forbidden", argument="name")
    result = bench.run()
    assert ("done", ["denied"], False) == (
        result.status,
        answered(bench, result.run),
        (bench.work / "forbidden").exists(),
    )


@pytest.mark.req("ENGINE-5")
@pytest.mark.parametrize("cap", ["$0.0001", "$0.001", "$0.002"])
def test_the_provider_never_charges_more_than_the_cap(tmp_path: Path, cap: str) -> None:
    """With too little money the run stops, resumable, before the bill passes the cap."""
    bench = Bench(tmp_path, fleet=FLEET.replace("$0.50", cap))
    result = bench.run()
    bill = bench.home / "scripted-bill-trial.jsonl"
    charged = sum(line["cost_microusd"] for line in bench.bill()) if bill.exists() else 0
    assert ("paused", 5, "bound_reached") == (result.status, result.exit_code, result.error_code)
    assert charged <= int(float(cap[1:]) * 1_000_000)


@pytest.mark.req("ENGINE-5")
def test_a_reached_tool_bound_stops_the_run_before_the_tool(tmp_path: Path) -> None:
    """A cap of no tool calls lets none through."""
    bench = Bench(tmp_path, fleet=FLEET.replace("tool_calls: 10", "tool_calls: 0"))
    result = bench.run()
    assert ("paused", 0) == (result.status, bench.count("looks"))


@pytest.mark.req("ENGINE-6")
def test_a_ceo_that_asks_for_a_tool_is_refused(tmp_path: Path) -> None:
    """A forged tool call of the CEO is recorded, answered with a denial, and not carried out."""
    bench = Bench(tmp_path)
    scenario = bench.fleet / "scenario.yaml"
    forged = "rules:\n  - {agent: boss, turn: 0, answer: {goal: x, dispatches: []}, fault: {kind: wrong_tool, name: mytools_look}}\n"
    scenario.write_text(scenario.read_text().replace("rules:\n", forged, 1))
    result = bench.run()
    codes = answered(bench, result.run)
    assert ("done", "denied", 1) == (result.status, codes[0], bench.count("looks"))


@pytest.mark.req("ENGINE-9")
def test_a_run_that_a_live_process_holds_is_not_taken(tmp_path: Path) -> None:
    """While another owner's lease lives, resume is refused and changes nothing."""
    bench = Bench(tmp_path, tool="wipe", argument="name")
    waiting = bench.run()
    with wiring.open_store(bench.home) as store:
        now = wiring.clock()
        store.write(lambda tx: tx.fences.take(waiting.run, owner="other", at_us=now, ttl_us=60_000_000))
    with pytest.raises(RunHeld):
        bench.run(waiting.run)


@pytest.mark.req("ENGINE-9")
def test_a_cancelled_waiting_run_is_marked(tmp_path: Path) -> None:
    """Cancelling a run that nobody holds settles its status at once."""
    bench = Bench(tmp_path, tool="wipe", argument="name")
    waiting = bench.run()
    with wiring.open_store(bench.home) as store:
        control.cancel(store, waiting.run, by="ann", reason="enough", at_us=wiring.clock())
        row = store.read(lambda tx: tx.runs.get(waiting.run))
    assert row is not None
    assert ("cancelled", 0) == (row.status, bench.count("wipes"))
    with pytest.raises(RunHalted):
        bench.run(waiting.run)


@pytest.mark.req("ENGINE-3")
def test_a_retry_of_a_gated_effect_needs_a_new_yes(tmp_path: Path) -> None:
    """The yes was used by the attempt that was cut: a person's `retry` asks again, and then it happens once more."""
    bench = Bench(tmp_path, tool="wipe", argument="name")
    waiting = bench.run()
    with wiring.open_store(bench.home) as store:
        control.answer(store, waiting.gates[0], approve=True, by="ann", reason="", at_us=wiring.clock())
    assert -signal.SIGKILL == bench.process(waiting.run, DIE_IN_WIPE="1").returncode
    with wiring.open_store(bench.home) as store:
        store.write(lambda tx: tx.fences.release(waiting.run, epoch=2))
    doubt = bench.run(waiting.run)
    assert ("waiting", 1, 1) == (doubt.status, len(doubt.in_doubt), bench.count("wipes"))
    with wiring.open_store(bench.home) as store:
        control.resolve(store, doubt.in_doubt[0], word="retry", by="ann", at_us=wiring.clock())
    asked = bench.run(waiting.run)
    assert ("waiting", 1, 1) == (asked.status, len(asked.gates), bench.count("wipes"))
    with wiring.open_store(bench.home) as store:
        control.answer(store, asked.gates[0], approve=True, by="ann", reason="", at_us=wiring.clock())
    assert ("done", 2) == (bench.run(waiting.run).status, bench.count("wipes"))
