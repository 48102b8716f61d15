"""The engine's own node: what a `think` and an `act` cost with every guard, journal, budget and ledger, and no model or network.

The same team graph runs twice a row: with bodies that do nothing under the no-op saver (LangGraph's own price), with them under our
saver, and with the engine's bodies: a model that answers at once, a tool that only returns. A node's cost is the slope between a
short and a long conversation of one worker, so that start, plan and report do not count; an `act` node carries one call past all
ten stages, a `think` node one model call with reservation, intent and settlement, each with a flush of the disk.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from langchain_core.runnables import RunnableConfig

from bench.saver import NoSaver, _table
from midwatch import wiring
from midwatch.config.fleet import Fleet
from midwatch.config.specs import TeamSpec
from midwatch.containment.credentials import Scrubber
from midwatch.engine.context import RouteRuntime
from midwatch.engine.kernel import Kernel, Parts
from midwatch.graph.saver import Saver
from midwatch.graph.team import AgentState, build
from midwatch.isolating import isolation
from midwatch.models.routes import route_price
from midwatch.records.chat import ChatAnswer, ChatRequest, ToolRequest, Usage
from midwatch.store.sqlite import SqliteStore
from midwatch.tools.registry import Registry

__all__ = ["main", "rows"]

SHORT, LONG = 2, 22
REPETITIONS = 5
FLEET = """
midwatch: 1
fleet: bench
routes: {smart: {provider: openai, model: gpt-5-mini, max_output: 500}}
tools: ["python:things.py"]
agents:
  boss: {role: ceo, route: smart, prompt_text: "Plan."}
  worker: {role: specialist, route: smart, prompt_text: "Work.", tools: [things.*], limits: {steps: 60}}
  writer: {role: synthesis, route: smart, prompt_text: "Write."}
graph: {team: {ceo: boss, specialists: [worker], synthesis: writer}}
grants: [{who: "agent:worker", may: [things.look]}]
budgets: {run: {cost: "$90.00", tokens: 90000k}}
"""
TOOLS = '''
from typing import Annotated
from midwatch import Arg, tool

@tool(effect="read", runs="broker", open_world=False)
def look(what: Annotated[str, Arg(role="selector")]) -> str:
    """Look at the thing that is named."""
    return what
'''
PLAN = {
    "goal": "g",
    "dispatches": [{"agent": "worker", "task": "t", "criteria": [{"text": "c", "shown_by": ["things.look"]}]}],
}
HANDOFF: dict[str, Any] = {"changed": [], "needed": [], "risks": []}


class Instant:
    """A `ChatModel` that answers at once: `turns` tool calls of the worker, then its handoff."""

    def __init__(self, turns: int) -> None:
        self.turns = turns

    async def chat(self, request: ChatRequest, **_: Any) -> ChatAnswer:
        """Answer."""
        said = sum(message.role == "assistant" for message in request.messages)
        usage = Usage(100, 20)
        if request.agent == "worker" and said < self.turns:
            call = ToolRequest(f"c{said}", "things.look", '{"what": "it"}')
            return ChatAnswer("", (call,), usage, "tool_calls", "none")
        body = {"boss": PLAN, "worker": HANDOFF, "writer": {"answer": "a", **HANDOFF}}[request.agent]
        return ChatAnswer(json.dumps(body), (), usage, "stop", "none")

    def close(self) -> None:
        """Nothing is held."""


class Bodies:
    """Nodes that do nothing but take their turns."""

    def __init__(self, turns: int) -> None:
        self.turns = turns

    async def think(self, agent: str, state: AgentState) -> dict[str, Any]:
        """Go on to `act`, or end."""
        turn = state.get("turn", 0)
        if agent == "worker" and turn < self.turns:
            return {"turn": turn + 1, "pending": [{"id": f"c{turn}", "name": "things.look", "arguments": "{}"}]}
        ends: dict[str, dict[str, Any]] = {"boss": {"plan": PLAN}, "worker": {"handoffs": [HANDOFF]}}
        return {"done": True, "pending": [], **ends.get(agent, {"result": HANDOFF})}

    async def act(self, agent: str, state: AgentState) -> dict[str, Any]:
        """Do nothing."""
        return {"pending": [], "transcript": [{"role": "tool", "content": "it"}]}


async def _pause(microseconds: int) -> None:
    await asyncio.sleep(microseconds / 1_000_000)


def _bare(fleet: Fleet, store: SqliteStore | None) -> Callable[[int, str], None]:
    spec = fleet.graph
    assert isinstance(spec, TeamSpec)

    def run(turns: int, name: str) -> None:
        saver = NoSaver() if store is None else Saver(store)
        config: RunnableConfig = {"configurable": {"thread_id": f"{name}-{turns}"}, "recursion_limit": 1000}
        graph = build(spec, Bodies(turns), saver)
        result = asyncio.run(graph.ainvoke({"request": 1}, config, durability="sync"))
        assert result["result"] == HANDOFF, "the graph must run"

    return run


def _engine(fleet: Fleet, store: SqliteStore, folder: Path, stack: contextlib.ExitStack) -> Callable[[int, str], None]:
    spec = fleet.routes["smart"]
    route = RouteRuntime(Instant(0), route_price(spec, at_us=wiring.clock()), 500, 0, 60_000_000, "native")
    registry, scrub = Registry.load(list(fleet.tools), fleet.base), Scrubber(b"k" * 32)
    grounds = isolation(
        fleet,
        registry,
        home=Path(stack.enter_context(tempfile.TemporaryDirectory())),
        env={},
        clock=wiring.clock,
        make=wiring.backend_of,
        known=scrub.holds,
    )
    parts = Parts(
        store=store,
        fleet=fleet,
        registry=registry,
        routes={},
        scrub=scrub,
        isolation=stack.enter_context(grounds),
        clock=wiring.clock,
        pause=_pause,
        workdir=folder,
    )

    def run(turns: int, name: str) -> None:  # noqa: ARG001 - as `_bare`
        result = Kernel(replace(parts, routes={"smart": replace(route, model=Instant(turns))})).run(1)
        assert (result.status, result.tool_calls) == ("done", turns), "the run must end"

    return run


def rows(repetitions: int = REPETITIONS) -> list[dict[str, Any]]:
    """Measure a node of each kind of body: `cpu_us` and `wall_us`, medians of slopes."""
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as stack:
        folder = Path(name)
        (folder / "fleet.yaml").write_text(FLEET)
        (folder / "things.py").write_text(TOOLS)
        fleet = Fleet.load(folder, environ={})
        plain, own = SqliteStore(folder / "plain.db"), SqliteStore(folder / "own.db")
        kinds = {
            "empty bodies, no-op saver": _bare(fleet, None),
            "empty bodies, our saver": _bare(fleet, plain),
            "the engine's think and act": _engine(fleet, own, folder, stack),
        }
        slopes: dict[str, list[tuple[float, float]]] = {kind: [] for kind in kinds}
        for repetition in range(repetitions + 1):
            for kind, run in kinds.items():
                few, many = _timed(run, SHORT, repetition), _timed(run, LONG, repetition)
                if repetition:  # the first one warms up
                    nodes = 2 * (LONG - SHORT)
                    slopes[kind].append(((many[0] - few[0]) / nodes, (many[1] - few[1]) / nodes))
        plain.close()
        own.close()
    medians = {
        kind: (statistics.median(cpu for cpu, _ in found), statistics.median(wall for _, wall in found))
        for kind, found in slopes.items()
    }
    floor = medians["empty bodies, no-op saver"][0]
    return [
        {
            "a node of the team graph": kind,
            "cpu_us": round(cpu),
            "wall_us": round(wall),
            "cpu/noop": round(cpu / floor, 2),
        }
        for kind, (cpu, wall) in medians.items()
    ]


def _timed(run: Callable[[int, str], None], turns: int, repetition: int) -> tuple[float, float]:
    cpu, wall = time.process_time_ns(), time.perf_counter_ns()
    run(turns, f"r{repetition}")
    return (time.process_time_ns() - cpu) / 1000, (time.perf_counter_ns() - wall) / 1000


def main() -> None:
    """Print the table."""
    _table(f"a node of a team's worker, {REPETITIONS} interleaved repetitions", rows())


if __name__ == "__main__":
    main()
