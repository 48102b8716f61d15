"""Sharp edges of LangGraph, in pairs: denials, halts and drains, and who can swallow them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.messages import AIMessage
from langchain_core.tools import tool
from langgraph.checkpoint.sqlite import SqliteSaver
from langgraph.errors import GraphDrained
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.prebuilt import ToolNode
from langgraph.runtime import RunControl, get_runtime
from langgraph.types import RetryPolicy

from tests.scenario.ground import AGENT_GRAPH, FLEET, PLAIN_GRAPH, Ground, calls, rules
from tests.scenario.office import Office

THREAD: Any = {"configurable": {"thread_id": "1"}}
CALL = AIMessage("", tool_calls=[{"name": "look", "args": {"what": "disk"}, "id": "1"}])
LIMITED = FLEET.replace("tool_calls: 40", "tool_calls: 1")


class Stopped(Exception):
    """What a guard raises that knows nothing of LangGraph."""


def raising(raised: list[int]) -> Any:
    """Make a tool whose guard always says no, by an exception."""

    @tool
    def look(what: str) -> str:
        """Look at a thing."""
        raised.append(1)
        raise Stopped("over budget")

    return look


@pytest.mark.req("GOVERN-4")
def test_bare_langgraph_turns_a_halt_into_words_for_the_model() -> None:
    """Edge 3, bare: `ToolNode` answers the model that there was an error, and the run goes on."""
    graph: Any = StateGraph(MessagesState)
    graph.add_node("act", ToolNode([raising([])], handle_tool_errors=True))
    graph.add_node("after", lambda _: {"messages": [("ai", "went on")]})
    graph.add_edge(START, "act")
    graph.add_edge("act", "after")
    messages = graph.compile().invoke({"messages": [CALL]})["messages"]
    assert ("error", "went on") == (messages[-2].status, messages[-1].content)


@pytest.mark.req("GOVERN-4")
def test_bare_langgraph_retries_a_halt_and_then_hands_it_to_an_error_handler() -> None:
    """Edge 3, bare: a retry policy asks the guard three times, an error handler goes on without it."""
    raised: list[int] = []
    look = raising(raised)

    def act(_: MessagesState) -> dict[str, Any]:
        return {"messages": [("ai", look.invoke({"what": "disk"}))]}

    policy = RetryPolicy(initial_interval=0.001, max_attempts=3, retry_on=Exception, jitter=False)
    graph: Any = StateGraph(MessagesState)
    graph.add_node("act", act, retry_policy=policy, error_handler=lambda _: {"messages": [("ai", "went on")]})
    graph.add_edge(START, "act")
    messages = graph.compile().invoke({"messages": []})["messages"]
    assert (3, "went on") == (len(raised), messages[-1].content)


RETRIED = """
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.types import RetryPolicy

def build(kit):
    tools = {tool.name: tool for tool in kit.tools("worker")}

    async def act(state):
        for line in ("one", "two", "three"):
            await tools["ops.log"].ainvoke({"line": line})
        return {}

    async def after(state):
        return {"messages": [("ai", await tools["ops.look"].ainvoke({"what": "after"}))]}

    graph = StateGraph(MessagesState)
    policy = RetryPolicy(initial_interval=0.001, max_attempts=3, retry_on=Exception, jitter=False)
    graph.add_node("act", act, retry_policy=policy, error_handler=lambda state: {})
    graph.add_node("after", after)
    graph.add_edge(START, "act")
    graph.add_edge("act", "after")
    return graph
"""

SWALLOWED = RETRIED.replace(
    '            await tools["ops.log"].ainvoke({"line": line})\n',
    '            try:\n                await tools["ops.log"].ainvoke({"line": line})\n'
    "            except Exception:\n                continue\n",
)

SYNCHRONOUS = (
    SWALLOWED.replace("    async def act(state):", "    def act(state):")
    .replace('await tools["ops.log"].ainvoke', 'tools["ops.log"].invoke')
    .replace("except Exception:", "except BaseException:")
)

THREE = calls(("log", {"line": "one"}), ("log", {"line": "two"}), ("log", {"line": "three"}))


@pytest.mark.req("GOVERN-4")
@pytest.mark.parametrize(
    ("graph", "answers"),
    [
        (PLAIN_GRAPH, rules(THREE)),
        (AGENT_GRAPH, rules(THREE)),
        (RETRIED, rules()),
        (SWALLOWED, rules()),
        (SYNCHRONOUS, rules()),
    ],
    ids=["handle_tool_errors", "create_agent", "retried and handled", "swallowed", "swallowed in a thread"],
)
def test_a_reached_bound_stops_the_run_whoever_swallows_it(tmp_path: Path, graph: str, answers: Any) -> None:
    """Edge 3, governed: one tool call is allowed; no second one happens, no later node runs, the run is resumable."""
    assert RETRIED not in (SWALLOWED, SYNCHRONOUS)
    ground = Ground(tmp_path, graph, answers, fleet=LIMITED)
    result = ground.run()
    assert ("paused", 5, "bound_reached", 1) == (
        result.status,
        result.exit_code,
        result.error_code,
        len(ground.calls()),
    )
    shown = ground.transitions(result.run)
    assert [] == [line for line in shown if line.node == "after"]
    assert {"started"} >= {
        line.status for line in shown if line.node == "act"
    }  # so it runs again, and is answered from the journal
    again = ground.run(result.run)
    assert ("paused", 1) == (again.status, len(ground.calls()))


@pytest.mark.req("GOVERN-4")
def test_a_reached_bound_stops_the_team(tmp_path: Path) -> None:
    """Edge 3, the team: the same bound, in the kernel's own graph."""
    office = Office(tmp_path, [[("ops.note", {"text": "one"}), ("ops.note", {"text": "two"})]])
    fleet = office.fleet / "fleet.yaml"
    fleet.write_text(fleet.read_text().replace("tool_calls: 40", "tool_calls: 1"))
    result = office.run()
    assert ("paused", "bound_reached", 1) == (result.status, result.error_code, len(office.calls("note")))


@pytest.mark.req("GOVERN-4")
@pytest.mark.parametrize("graph", [PLAIN_GRAPH, AGENT_GRAPH], ids=["ToolNode", "create_agent"])
def test_a_denial_is_an_answer_to_the_model(tmp_path: Path, graph: str) -> None:
    """Edge 3, governed: what no grant allows comes back as an envelope in a tool message with the status `error`."""
    ground = Ground(tmp_path, graph, rules(calls(("secret", {"line": "x"}), ("look", {"what": "disk"}))))
    result = ground.run()
    told = {
        m["name"]: (m["status"], json.loads(m["content"])) for m in result.output["messages"] if m["type"] == "tool"
    }
    assert ("done", ["look disk"]) == (result.status, ground.calls())
    assert ("error", "denied") == (told["ops.secret"][0], told["ops.secret"][1]["error"]["code"])
    assert ("success", True) == (told["ops.look"][0], told["ops.look"][1]["ok"])


SWALLOWED_WAIT = """
from langgraph.graph import START, MessagesState, StateGraph

def build(kit):
    tools = {tool.name: tool for tool in kit.tools("worker")}

    async def act(state):
        try:
            told = await tools["ops.deploy"].ainvoke({"target": "staging"})
        except Exception:
            told = "went on without"
        return {"messages": [("ai", told)]}

    graph = StateGraph(MessagesState)
    graph.add_node("act", act)
    graph.add_edge(START, "act")
    return graph
"""


@pytest.mark.req("GOVERN-4")
def test_a_wait_that_a_node_swallowed_still_waits(tmp_path: Path) -> None:
    """A node that catches everything does not get past a gate: it waits, and after the yes the action happens once."""
    ground = Ground(tmp_path, SWALLOWED_WAIT)
    waiting = ground.run()
    assert ("waiting", 1, []) == (waiting.status, len(waiting.gates), ground.calls())
    assert ("waiting", waiting.gates) == ((still := ground.run(waiting.run)).status, still.gates)
    ground.say(waiting.gates[0])
    assert ("done", ["deploy staging"]) == (ground.run(waiting.run).status, ground.calls())


INTERRUPTING = """
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.types import interrupt

def build(kit):
    tools = {tool.name: tool for tool in kit.tools("worker")}

    async def act(state):
        if interrupt("may I?"):
            await tools["ops.log"].ainvoke({"line": "allowed myself"})
        return {}

    graph = StateGraph(MessagesState)
    graph.add_node("act", act)
    graph.add_edge(START, "act")
    return graph
"""


@pytest.mark.req("GOVERN-4")
def test_a_nodes_own_interrupt_is_never_answered_by_a_wake_up(tmp_path: Path) -> None:
    """Nobody could answer it, so the run fails with the way out; a resume does not pass for a yes."""
    ground = Ground(tmp_path, INTERRUPTING)
    result = ground.run()
    again = ground.run(result.run)
    assert [("failed", "UsageProblem")] * 2 == [(one.status, one.error_code) for one in (result, again)]
    assert [] == ground.calls()
    assert "gates.request_human" in (again.error_message or "")


@pytest.mark.req("GOVERN-8")
def test_bare_langgraph_ignores_a_bound_that_a_callback_raises() -> None:
    """Edge 7, bare: a handler that raises is only logged, so the tool runs; a drain that it asks for comes a superstep later."""
    ran: list[str] = []

    @tool
    def look(what: str) -> str:
        """Look at a thing."""
        ran.append(what)
        return what

    class Bound(BaseCallbackHandler):
        def on_tool_start(self, *args: Any, **kwargs: Any) -> None:
            raise Stopped("over budget")

    graph: Any = StateGraph(MessagesState)
    graph.add_node("act", ToolNode([look]))
    graph.add_edge(START, "act")
    graph.compile().invoke({"messages": [CALL]}, {"callbacks": [Bound()]})
    assert ["disk"] == ran


@pytest.mark.req("GOVERN-8")
def test_bare_langgraph_drains_only_between_supersteps(tmp_path: Path) -> None:
    """Edge 7, bare: after the request the node itself still acts; the next one waits for a resume."""
    ran: list[str] = []

    def first(_: MessagesState) -> dict[str, Any]:
        control = get_runtime().control
        assert control is not None
        control.request_drain("budget")
        ran.append("first acted after the request")
        return {}

    def second(_: MessagesState) -> dict[str, Any]:
        ran.append("second")
        return {}

    graph: Any = StateGraph(MessagesState)
    graph.add_node("first", first)
    graph.add_node("second", second)
    graph.add_edge(START, "first")
    graph.add_edge("first", "second")
    graph.add_edge("second", END)
    with SqliteSaver.from_conn_string(str(tmp_path / "bare.db")) as saver:
        made = graph.compile(checkpointer=saver)
        with pytest.raises(GraphDrained):
            made.invoke({"messages": []}, THREAD, control=RunControl())
        assert ["first acted after the request"] == ran
        made.invoke(None, THREAD)
    assert ["first acted after the request", "second"] == ran


DRAINING = """
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.runtime import get_runtime

ASKED = []

def build(kit):
    tools = {tool.name: tool for tool in kit.tools("worker")}

    async def first(state):
        if not ASKED:
            ASKED.append(get_runtime().control.request_drain("maintenance"))
        await tools["ops.log"].ainvoke({"line": "first"})
        return {}

    async def second(state):
        await tools["ops.log"].ainvoke({"line": "second"})
        return {}

    graph = StateGraph(MessagesState)
    graph.add_node("first", first)
    graph.add_node("second", second)
    graph.add_edge(START, "first")
    graph.add_edge("first", "second")
    return graph
"""


@pytest.mark.req("GOVERN-8")
def test_a_drain_is_a_pause_that_goes_on_where_it_stopped(tmp_path: Path) -> None:
    """Edge 7, governed: the run says why it is paused; resumed, only the second node runs."""
    ground = Ground(tmp_path, DRAINING)
    result = ground.run()
    assert ("paused", "drained", ["log first"]) == (result.status, result.error_code, ground.calls())
    assert "maintenance" in (result.error_message or "")
    assert ("done", ["log first", "log second"]) == (ground.run(result.run).status, ground.calls())
