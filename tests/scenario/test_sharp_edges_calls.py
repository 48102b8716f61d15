"""Sharp edges of LangGraph, in pairs: several calls in one node, answers of people, and what runs again on resume."""

from __future__ import annotations

import asyncio
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from langchain_core.messages import AIMessage
from langchain_core.tools import tool
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.checkpoint.sqlite import SqliteSaver
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.prebuilt import ToolNode
from langgraph.types import Command, interrupt

from tests.scenario.ground import AGENT_GRAPH, PLAIN_GRAPH, Ground, calls, rules
from tests.scenario.office import Office

THREAD: Any = {"configurable": {"thread_id": "1"}}
TWO = calls(("deploy", {"target": "staging"}), ("deploy", {"target": "PRODUCTION"}))
THREE = calls(("look", {"what": "disk"}), ("deploy", {"target": "staging"}), ("deploy", {"target": "PRODUCTION"}))

# Each pass, the calls that stand in the same answer reach the guard in another order.
TURNED_GRAPH = """
import asyncio
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.prebuilt import ToolNode, tools_condition

PASSES = iter(("staging", "PRODUCTION", "staging", "PRODUCTION"))

def build(kit):
    model, tools = kit.model("worker"), kit.tools("worker")
    bound = model.bind_tools(tools)
    state = {}

    async def think(messages):
        return {"messages": [await bound.ainvoke(messages["messages"])]}

    async def begin(messages):
        return {}

    async def in_turn(request, handler):
        if "first" not in state:
            state["first"], state["passed"] = next(PASSES), asyncio.Event()
        if request.tool_call["args"]["target"] != state["first"]:
            await state["passed"].wait()
        try:
            return await handler(request)
        finally:
            state["passed"].set()

    graph = StateGraph(MessagesState)
    graph.add_node("think", think)
    graph.add_node("act", ToolNode(tools, awrap_tool_call=in_turn))
    graph.add_edge(START, "think")
    graph.add_conditional_edges("think", tools_condition, {"tools": "act", END: END})
    graph.add_edge("act", "think")
    return graph
"""


def bare_tools(ran: list[str], order: list[str] | None = None) -> tuple[ToolNode, list[Any]]:
    """Make LangGraph's own node with tools that ask by `interrupt`, as its documents show."""
    passed: list[asyncio.Event] = []

    @tool
    async def look(what: str) -> str:
        """Look at a thing."""
        ran.append(f"look {what}")
        return what

    @tool
    async def deploy(target: str) -> str:
        """Deploy to a target."""
        if order is not None and target != order[0]:
            await passed[-1].wait()
        yes = interrupt({"target": target})
        ran.append(f"deploy {target}")
        if order is not None:
            passed[-1].set()
        return f"{target} {yes}"

    return ToolNode([look, deploy]), passed


def bare_graph(node: ToolNode, asked: list[tuple[str, str]]) -> Any:
    """Make a graph of one answer that calls tools, and the node that carries them out."""
    said = AIMessage(
        "",
        tool_calls=[
            {"name": name, "args": {key: value}, "id": f"{name}-{value}"} for name, key, value in _split(asked)
        ],
    )
    graph: Any = StateGraph(MessagesState)
    graph.add_node("think", lambda _: {"messages": [said]})
    graph.add_node("act", node)
    graph.add_edge(START, "think")
    graph.add_edge("think", "act")
    graph.add_edge("act", END)
    return graph.compile(checkpointer=InMemorySaver())


def _split(asked: list[tuple[str, str]]) -> list[tuple[str, str, str]]:
    return [(name, "what" if name == "look" else "target", value) for name, value in asked]


@pytest.mark.req("GOVERN-2")
def test_bare_langgraph_runs_another_action_than_the_one_approved() -> None:
    """Edge 1, bare: the person is shown `staging`, says yes, and `PRODUCTION` is deployed, since answers go by arrival."""
    ran: list[str] = []
    order = ["staging"]

    async def story() -> Any:
        node, passed = bare_tools(ran, order)
        graph = bare_graph(node, [("deploy", "staging"), ("deploy", "PRODUCTION")])
        passed.append(asyncio.Event())
        shown = (await graph.ainvoke({"messages": []}, THREAD))["__interrupt__"][0].value
        order[0] = "PRODUCTION"
        passed.append(asyncio.Event())
        await graph.ainvoke(Command(resume=True), THREAD)
        return shown

    assert {"target": "staging"} == asyncio.run(story())
    assert ["deploy PRODUCTION"] == ran


@pytest.mark.req("GOVERN-2")
@pytest.mark.parametrize("graph", [TURNED_GRAPH, PLAIN_GRAPH, AGENT_GRAPH], ids=["in turn", "ToolNode", "create_agent"])
def test_a_yes_lets_the_approved_action_run_and_no_other(tmp_path: Path, graph: str) -> None:
    """Edge 1, governed: whatever reaches the guard first, the yes belongs to the arguments that were shown."""
    ground = Ground(tmp_path, graph, rules(TWO))
    waiting = ground.run()
    gates = {ground.asked(gate)["target"]: gate for gate in waiting.gates}
    assert ("waiting", {"staging", "PRODUCTION"}) == (waiting.status, set(gates))
    ground.say(gates["staging"])
    still = ground.run(waiting.run)
    assert ("waiting", (gates["PRODUCTION"],), ["deploy staging"]) == (still.status, still.gates, ground.calls())
    ground.say(gates["PRODUCTION"], approve=False)
    assert ("done", ["deploy staging"]) == (ground.run(waiting.run).status, ground.calls())


@pytest.mark.req("GOVERN-2")
def test_a_yes_in_the_team_graph_is_for_one_action(tmp_path: Path) -> None:
    """Edge 1, the team: of two calls in one answer, the one that was approved runs."""
    office = Office(
        tmp_path,
        [[("ops.place", {"service": "shop", "version": "v2"}), ("ops.place", {"service": "cart", "version": "v2"})]],
    )
    waiting = office.run()
    wanted = next(gate for gate in waiting.gates if office.gate(gate)[1]["arguments"]["service"] == "shop")
    office.say(wanted)
    still = office.run(waiting.run)
    assert ("waiting", ["place shop v2"]) == (still.status, office.calls("place"))


@pytest.mark.req("GOVERN-3")
def test_bare_langgraph_repeats_effects_with_every_answer() -> None:
    """Edge 2, bare: one read and two gated deploys; after both answers the read ran three times, deploys ran three times."""
    ran: list[str] = []

    async def story() -> None:
        node, _ = bare_tools(ran)
        graph = bare_graph(node, [("look", "disk"), ("deploy", "staging"), ("deploy", "PRODUCTION")])
        await graph.ainvoke({"messages": []}, THREAD)
        await graph.ainvoke(Command(resume=True), THREAD)
        await graph.ainvoke(Command(resume=True), THREAD)

    asyncio.run(story())
    assert {"look": 3, "deploy": 3} == Counter(line.split()[0] for line in ran)


@pytest.mark.req("GOVERN-3")
def test_bare_langgraph_pays_again_after_an_interrupt(tmp_path: Path) -> None:
    """Edge 2, bare: what a node did before it asked is done again when it is answered."""
    paid: list[int] = []

    def pay(_: MessagesState) -> dict[str, Any]:
        paid.append(1)
        interrupt("sure?")
        return {}

    graph: Any = StateGraph(MessagesState)
    graph.add_node("pay", pay)
    graph.add_edge(START, "pay")
    with SqliteSaver.from_conn_string(str(tmp_path / "bare.db")) as saver:
        made = graph.compile(checkpointer=saver)
        made.invoke({"messages": []}, THREAD)
        made.invoke(Command(resume=True), THREAD)
    assert 2 == len(paid)


@pytest.mark.req("GOVERN-3")
@pytest.mark.parametrize("graph", [PLAIN_GRAPH, AGENT_GRAPH], ids=["ToolNode", "create_agent"])
def test_each_effect_happens_once_however_often_the_run_is_resumed(tmp_path: Path, graph: str) -> None:
    """Edge 2, governed: answers come one by one; the read runs once, each deploy once, the model is asked twice in all."""
    ground = Ground(tmp_path, graph, rules(THREE))
    waiting = ground.run()
    assert (2, ["look disk"]) == (len(waiting.gates), ground.calls())
    for gate in waiting.gates:
        ground.run(waiting.run)
        ground.say(gate)
        last = ground.run(waiting.run)
    assert ("done", ["deploy PRODUCTION", "deploy staging", "look disk"]) == (last.status, ground.calls())
    assert 2 == ground.bill()


PAYING_GRAPH = """
from langgraph.graph import START, MessagesState, StateGraph

def build(kit):
    tools = {tool.name: tool for tool in kit.tools("worker")}

    async def pay(state):
        await tools["ops.log"].ainvoke({"line": "paid"})
        await tools["ops.log"].ainvoke({"line": "paid"})
        told = await tools["ops.deploy"].ainvoke({"target": "staging"})
        return {"messages": [("user", told)]}

    graph = StateGraph(MessagesState)
    graph.add_node("pay", pay)
    graph.add_edge(START, "pay")
    return graph
"""


@pytest.mark.req("GOVERN-3")
def test_what_a_node_did_before_it_waited_is_not_done_again(tmp_path: Path) -> None:
    """Edge 2, governed: two equal payments of a node's own code are two, before and after the wait."""
    ground = Ground(tmp_path, PAYING_GRAPH)
    waiting = ground.run()
    assert ("waiting", ["log paid", "log paid"]) == (waiting.status, ground.calls())
    ground.say(waiting.gates[0])
    assert ("done", ["deploy staging", "log paid", "log paid"]) == (ground.run(waiting.run).status, ground.calls())


@pytest.mark.req("GOVERN-3")
def test_the_team_graph_repeats_nothing_either(tmp_path: Path) -> None:
    """Edge 2, the team: a note beside two gated rollouts is written once, each rollout happens once."""
    office = Office(
        tmp_path,
        [
            [
                ("ops.note", {"text": "begin"}),
                ("ops.place", {"service": "shop", "version": "v2"}),
                ("ops.place", {"service": "cart", "version": "v2"}),
            ]
        ],
    )
    waiting = office.run()
    for gate in waiting.gates:
        office.say(gate)
        last = office.run(waiting.run)
    assert ("done", 2, 1) == (last.status, len(office.calls("place")), len(office.calls("note")))
