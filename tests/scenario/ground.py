"""A ground: one fleet whose graph is somebody else's, with its home; for tests of governed LangGraph graphs over whole runs.

A test gives the graph's source and what the models answer. Tools, store, provider and processes are real.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from midwatch import wiring
from midwatch.engine import control
from midwatch.records.event import Event
from midwatch.records.run import RunResult, Transition

__all__ = ["AGENT_GRAPH", "HELLO", "ONE_NODE", "PLAIN_GRAPH", "Ground", "calls", "one_node", "rules"]

FLEET = """
midwatch: 1
fleet: ground
presets: {default: local}
routes:
  local: {provider: scripted, model: tiny, scenario: scenario.yaml, max_output: 500, retries: 1}
  smart: {provider: openai, model: gpt-5-mini}
tools: ["python:ops.py"]
agents:
  worker: {role: specialist, route: smart, prompt_text: "Work.", tools: ["ops.*"]}
  other: {role: specialist, route: smart, prompt_text: "Look.", tools: [ops.look]}
  boss: {role: ceo, route: smart, prompt_text: "Plan."}
graph: {import: "mygraph:build"}
grants: [{who: "agent:*", may: [ops.look, ops.deploy, ops.log, ops.slow]}]
gates: [{when: {effect: [destructive]}, ask: operator, timeout: 15m}]
budgets: {run: {cost: "$0.50", tokens: 200k, tool_calls: 40}}
sandbox: {backend: process, because: "a trial"}
EXTRA
"""

TOOLS = '''
import os, signal, time
from typing import Annotated
from pydantic import Field
from midwatch import Arg, tool
from midwatch.tools.binding import ToolContext

Name = Annotated[str, Field(max_length=200), Arg(role="selector", interprets=False)]

def note(context, line):
    with (context.workdir / "calls").open("a") as file:
        file.write(line + "\\n")

@tool(effect="read", runs="broker", open_world=False)
def look(context: ToolContext, what: Name) -> dict[str, str]:
    """Look at the thing that is named."""
    note(context, f"look {what}")
    return {"found": what}

@tool(effect="destructive", runs="broker", open_world=False, reversible=False)
def deploy(context: ToolContext, target: Name) -> dict[str, str]:
    """Put the new version on the target."""
    note(context, f"deploy {target}")
    if (context.workdir / "die").exists():
        os.kill(os.getpid(), signal.SIGKILL)
    return {"deployed": target}

@tool(effect="write", runs="broker", open_world=False, reversible=False)
def log(context: ToolContext, line: Name) -> dict[str, str]:
    """Append a line to the log book."""
    note(context, f"log {line}")
    return {"logged": line}

@tool(effect="write", runs="broker", open_world=False, reversible=False)
def slow(context: ToolContext, line: Name) -> dict[str, str]:
    """Take until the file `go` is there."""
    note(context, f"slow {line}")
    for _ in range(500):
        if (context.workdir / "go").exists():
            break
        time.sleep(0.02)
    return {"slow": line}

@tool(effect="write", runs="broker", open_world=False, reversible=False)
def secret(context: ToolContext, line: Name) -> dict[str, str]:
    """Do what nobody granted."""
    note(context, f"secret {line}")
    return {"line": line}
'''

PLAIN_GRAPH = """
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.prebuilt import ToolNode, tools_condition

def build(kit):
    model, tools = kit.model("worker"), kit.tools("worker")
    bound = model.bind_tools(tools)

    async def think(state):
        return {"messages": [await bound.ainvoke(state["messages"])]}

    graph = StateGraph(MessagesState)
    graph.add_node("think", think)
    graph.add_node("act", ToolNode(tools, handle_tool_errors=True))
    graph.add_edge(START, "think")
    graph.add_conditional_edges("think", tools_condition, {"tools": "act", END: END})
    graph.add_edge("act", "think")
    return graph
"""

AGENT_GRAPH = """
from langchain.agents import create_agent
from langgraph.graph import START, MessagesState, StateGraph

def build(kit):
    agent = create_agent(kit.model("worker"), kit.tools("worker"), system_prompt=kit.prompt("worker"))
    graph = StateGraph(MessagesState)
    graph.add_node("agent", agent)
    graph.add_edge(START, "agent")
    return graph
"""

ONE_NODE = """
import asyncio, threading
from langgraph.graph import START, MessagesState, StateGraph

def one(node):
    graph = StateGraph(MessagesState)
    graph.add_node("n", node)
    graph.add_edge(START, "n")
    return graph
"""

RUNNER = """
import json, sys
from pathlib import Path
from midwatch import wiring
with wiring.open(sys.argv[1], home=sys.argv[2], workdir=Path(sys.argv[3]), environ={}) as kernel:
    result = kernel.run(json.loads(sys.argv[4])) if len(sys.argv) < 6 else kernel.resume(sys.argv[5])
    print(json.dumps([result.run, result.status]))
"""

HELLO: dict[str, Any] = {"messages": [{"role": "user", "content": "go"}]}


def calls(*asked: tuple[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Make what a model answers that calls tools."""
    return {"tool_calls": [{"name": f"ops_{name}", "arguments": dict(arguments)} for name, arguments in asked]}


def rules(*answers: Mapping[str, Any], agent: str = "worker") -> list[dict[str, Any]]:
    """Make the rules of an agent that gives these answers, turn by turn, and then says that it is done."""
    made = [{"agent": agent, "turn": turn, **answer} for turn, answer in enumerate(answers)]
    return [*made, {"agent": agent, "say": "done"}]


def one_node(body: str) -> str:
    """Make a graph of one node from its source; `kit`, `model` and `tools` are at hand."""
    lines = "\n".join(f"    {line}" for line in body.strip("\n").splitlines())
    return (
        f"{ONE_NODE}\ndef build(kit):\n    model, tools = kit.model('worker'), {{t.name: t for t in kit.tools('worker')}}\n"
        f"{lines}\n    return one(n)\n"
    )


class Ground:
    """One fleet folder, home and working directory."""

    def __init__(
        self,
        root: Path,
        graph: str = PLAIN_GRAPH,
        answers: Sequence[Mapping[str, Any]] = (),
        *,
        extra: str = "",
        fleet: str = FLEET,
    ) -> None:
        self.fleet, self.home, self.work = root / "fleet", root / "home", root / "work"
        self.fleet.mkdir(parents=True)
        self.work.mkdir()
        (self.fleet / "fleet.yaml").write_text(fleet.replace("EXTRA", extra))
        (self.fleet / "ops.py").write_text(TOOLS)
        (self.fleet / "mygraph.py").write_text(graph)
        prices = {"tiny": {"input": "$1.00", "output": "$2.00"}}
        scenario = {"scenario": 1, "models": ["tiny"], "prices": prices, "rules": list(answers) or rules()}
        (self.fleet / "scenario.yaml").write_text(json.dumps(scenario))

    def opened(self) -> Any:
        """Open the kernel."""
        return wiring.open(self.fleet, home=self.home, workdir=self.work, environ={"USER": "ann"})

    def run(self, resume: str | None = None, request: Any = None) -> RunResult:
        """Run, or resume."""
        with self.opened() as kernel:
            result: RunResult = (
                kernel.run(HELLO if request is None else request) if resume is None else kernel.resume(resume)
            )
        return result

    def process(self, *resume: str, request: Any = None, **environ: str) -> subprocess.CompletedProcess[str]:
        """Run, or resume, in a process of its own."""
        given = json.dumps(HELLO if request is None else request)
        argv = [sys.executable, "-c", RUNNER, str(self.fleet), str(self.home), str(self.work), given, *resume]
        return subprocess.run(argv, env=os.environ | environ, capture_output=True, text=True, timeout=90, check=False)

    def freed(self) -> str:
        """Let the dead worker's lease be over; time is the store's to judge, so its end is set, not awaited. Gives the run."""
        with wiring.open_store(self.home) as store:
            row = store.read(lambda tx: tx.runs.list())[0]
            store.write(lambda tx: tx.fences.release(row.id, epoch=row.segment))
        return row.id

    def say(self, gate: str, *, approve: bool = True) -> None:
        """Answer a gate."""
        with wiring.open_store(self.home) as store:
            control.answer(store, gate, approve=approve, by="ann", reason="", at_us=wiring.clock())

    def asked(self, gate: str) -> Any:
        """Give the arguments that a gate asks about."""
        with wiring.open_store(self.home) as store:
            row = store.read(lambda tx: tx.gates.get(gate))
            assert row is not None
            return json.loads(store.read(lambda tx: tx.blobs.get(row.arguments)) or b"null")

    def calls(self, word: str = "") -> list[str]:
        """Give the lines that tools left, sorted, those that begin with `word`."""
        place = self.work / "calls"
        return (
            sorted(line for line in place.read_text().splitlines() if line.startswith(word)) if place.exists() else []
        )

    def events(self, run: str, *kinds: str) -> list[Event]:
        """Give the run's events of these kinds, or all."""
        with wiring.open_store(self.home) as store:
            return list(store.read(lambda tx: tx.ledger.read(run=run, kinds=kinds, limit=5000)))

    def transitions(self, run: str) -> list[Transition]:
        """Give the run's transitions."""
        with wiring.open_store(self.home) as store:
            return list(store.read(lambda tx: tx.transitions.list(run)))

    def bill(self) -> int:
        """Give how often the provider was asked."""
        place = self.home / "scripted-bill-ground.jsonl"
        return len(place.read_text().splitlines()) if place.exists() else 0
