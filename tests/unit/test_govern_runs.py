"""Imported graphs over whole runs: input, output, models, threads, authority, changes; on a real provider and store."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from midwatch import wiring
from midwatch.errors import Divergence, InvalidFleet, UsageProblem
from tests.scenario.ground import AGENT_GRAPH, FLEET, HELLO, ONE_NODE, PLAIN_GRAPH, Ground, calls, one_node, rules


@pytest.mark.req("GOVERN-1")
@pytest.mark.parametrize(
    ("graph", "names"),
    [(PLAIN_GRAPH, ["think", "act", "think"]), (AGENT_GRAPH, ["agent", "agent.model", "agent.tools", "agent.model"])],
    ids=["ToolNode", "create_agent"],
)
def test_an_imported_graph_runs_from_input_to_output(tmp_path: Path, graph: str, names: list[str]) -> None:
    """The output is the graph's state as JSON; every node is a transition, also of a subgraph; the chain verifies."""
    ground = Ground(tmp_path, graph, rules(calls(("look", {"what": "disk"}))))
    result = ground.run()
    assert ("done", "done") == (result.status, result.output["messages"][-1]["content"])
    assert ["human", "ai", "tool", "ai"] == [message["type"] for message in result.output["messages"]]
    assert (2, 1) == (result.steps, result.tool_calls)
    shown = ground.transitions(result.run)
    assert names == [line.node for line in shown]
    assert {"finished"} == {line.status for line in shown}
    with wiring.open_store(ground.home) as store:
        assert store.read(lambda tx: tx.ledger.verify(expected_head=result.head)).ok


@pytest.mark.req("GOVERN-1")
def test_causes_lead_from_a_tools_result_to_the_answer_that_asked(tmp_path: Path) -> None:
    """What ran in a segment before, too: after a wait, the call's first cause is still the model's answer."""
    ground = Ground(tmp_path, PLAIN_GRAPH, rules(calls(("deploy", {"target": "staging"}))))
    waiting = ground.run()
    ground.say(waiting.gates[0])
    ground.run(waiting.run)
    events = {event.seq: event for event in ground.events(waiting.run)}
    proposed = [event for event in events.values() if event.kind == "proposed"]
    assert 2 == len(proposed)
    assert ["finished", "finished"] == [events[event.causes[0]].kind for event in proposed]
    began = [event for event in events.values() if event.kind == "node.started" and event.node == "act"]
    assert [["node.finished"], ["node.finished"]] == [[events[seq].kind for seq in event.causes] for event in began]


@pytest.mark.req("GOVERN-1")
@pytest.mark.parametrize(
    "given",
    [None, "go", {}, {"messages": [], "mesages": []}],
    ids=["nothing", "text", "empty", "a misspelt key"],
)
def test_input_that_does_not_fit_starts_nothing(tmp_path: Path, given: Any) -> None:
    """The message names the keys that the graph takes."""
    ground = Ground(tmp_path)
    with ground.opened() as kernel, pytest.raises(UsageProblem, match="`messages`"):
        kernel.run(given)
    with wiring.open_store(ground.home) as store:
        assert [] == list(store.read(lambda tx: tx.runs.list()))


TYPED = """
from langgraph.graph import START, StateGraph
from typing_extensions import TypedDict

class Line(TypedDict):
    count: int

class Out(TypedDict):
    double: int

class All(Line, Out):
    pass

def build(kit):
    graph = StateGraph(All, input_schema=Line, output_schema=Out)
    graph.add_node("n", lambda state: {"double": state["count"] * 2})
    graph.add_edge(START, "n")
    return graph
"""


@pytest.mark.req("GOVERN-1")
def test_input_and_output_keep_to_the_graphs_own_schemas(tmp_path: Path) -> None:
    """A value of another type is refused; only the output's keys come out."""
    ground = Ground(tmp_path, TYPED)
    with ground.opened() as kernel:
        with pytest.raises(UsageProblem, match="`count`"):
            kernel.run({"count": "many"})
        with pytest.raises(UsageProblem, match="`double`"):
            kernel.run({"double": 1})
        assert {"double": 42} == kernel.run({"count": 21}).output


CROSSED = """
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.prebuilt import ToolNode, tools_condition

def build(kit):
    model = kit.model("other").bind_tools(kit.tools("other"))

    async def think(state):
        return {"messages": [await model.ainvoke(state["messages"])]}

    graph = StateGraph(MessagesState)
    graph.add_node("think", think)
    graph.add_node("act", ToolNode(kit.tools("worker")))
    graph.add_edge(START, "think")
    graph.add_conditional_edges("think", tools_condition, {"tools": "act", END: END})
    graph.add_edge("act", "think")
    return graph
"""


@pytest.mark.req("GOVERN-13")
def test_one_agents_model_does_not_act_with_anothers_authority(tmp_path: Path) -> None:
    """The tool node holds another agent's tools: the call is denied as data, also after it is asked for in a later segment."""
    ground = Ground(tmp_path, CROSSED, rules(calls(("look", {"what": "disk"})), agent="other"))
    result = ground.run()
    told = [json.loads(m["content"]) for m in result.output["messages"] if m["type"] == "tool"]
    assert ("done", [], ["denied"]) == (result.status, ground.calls(), [body["error"]["code"] for body in told])


@pytest.mark.req("GOVERN-13")
def test_a_ceo_gets_no_tools_and_a_model_no_others(tmp_path: Path) -> None:
    """`kit.tools` of a CEO is empty, and tools of one agent cannot be offered to another's model."""
    ground = Ground(
        tmp_path,
        one_node("assert kit.tools('boss') == []\nkit.model('other').bind_tools(list(tools.values()))\nn = None"),
    )
    with pytest.raises(InvalidFleet, match=r"its own by `kit\.tools`"):
        ground.run()


MALFORMED = [
    {"agent": "worker", "turn": 0, **calls(("look", {"what": "disk"})), "fault": "malformed_arguments"},
    *rules(),
]


@pytest.mark.req("GOVERN-4")
@pytest.mark.parametrize("graph", [PLAIN_GRAPH, AGENT_GRAPH], ids=["ToolNode", "create_agent"])
def test_malformed_arguments_are_judged_by_the_kernel(tmp_path: Path, graph: str) -> None:
    """What is no JSON comes back as an envelope; the tool is not called and the run goes on."""
    ground = Ground(tmp_path, graph, MALFORMED)
    result = ground.run()
    told = [json.loads(m["content"]) for m in result.output["messages"] if m["type"] == "tool"]
    assert ("done", [], ["invalid_arguments"]) == (
        result.status,
        ground.calls(),
        [body["error"]["code"] for body in told],
    )


SHAPED = """
from pydantic import BaseModel, ConfigDict
class Weather(BaseModel):
    model_config = ConfigDict(extra="forbid")
    city: str
async def n(state):
    found = await model.with_structured_output(Weather).ainvoke(state["messages"])
    return {"messages": [("ai", found.city)]}
"""

SHAPED_AGENT = AGENT_GRAPH.replace("system_prompt=", "response_format=kit.keep(Weather), system_prompt=").replace(
    "def build",
    "from pydantic import BaseModel, ConfigDict\nclass Weather(BaseModel):\n"
    '    model_config = ConfigDict(extra="forbid")\n    city: str\n\ndef build',
)


@pytest.mark.req("GOVERN-1")
@pytest.mark.parametrize("graph", [one_node(SHAPED), SHAPED_AGENT], ids=["with_structured_output", "create_agent"])
def test_an_answer_can_be_asked_for_in_a_shape(tmp_path: Path, graph: str) -> None:
    """The schema goes to the provider as its response format, and the answer comes back as an object."""
    ground = Ground(tmp_path, graph, [{"agent": "worker", "when": "schema == 'weather'", "answer": {"city": "Oslo"}}])
    result = ground.run()
    assert ("done", True) == (result.status, "Oslo" in result.output["messages"][-1]["content"])


@pytest.mark.req("GOVERN-1")
def test_a_wish_that_is_not_kept_is_refused(tmp_path: Path) -> None:
    """Settings of a call are the fleet file's; a forced tool is none that a route can promise."""
    ground = Ground(tmp_path, one_node("async def n(state):\n    await model.ainvoke('hi', temperature=1)"))
    result = ground.run()
    assert ("failed", 0) == (result.status, ground.bill())
    assert "temperature" in (result.error_message or "")


@pytest.mark.req("GOVERN-1")
def test_an_agents_own_bound_pauses_the_run(tmp_path: Path) -> None:
    """`budgets` of one agent hold for its model calls in an imported graph."""
    fleet = FLEET.replace("budgets: {run:", "budgets: {worker: {steps: 1}, run:")
    ground = Ground(tmp_path, PLAIN_GRAPH, rules(calls(("look", {"what": "disk"}))), fleet=fleet)
    result = ground.run()
    assert ("paused", "bound_reached", 1) == (result.status, result.error_code, ground.bill())


@pytest.mark.req("GOVERN-14")
def test_a_graph_that_changed_is_not_resumed(tmp_path: Path) -> None:
    """Another text of the module is another graph, until a person lets the run go on under it."""
    ground = Ground(tmp_path, PLAIN_GRAPH, rules(calls(("deploy", {"target": "staging"}))))
    waiting = ground.run()
    (ground.fleet / "mygraph.py").write_text(PLAIN_GRAPH + "\n# another day\n")
    with pytest.raises(Divergence, match="--under-new"):
        ground.run(waiting.run)
    with ground.opened() as kernel:
        assert "waiting" == kernel.resume(waiting.run, accept=True, reason="a comment").status


@pytest.mark.req("GOVERN-1")
@pytest.mark.parametrize(
    ("graph", "word"),
    [
        ("import nothing_of_that_name", "nothing_of_that_name"),
        ("x = 1", "no `build`"),
        ("def build(kit):\n    raise ValueError('half done')", "mygraph.py:2"),
        ("def build(kit):\n    kit.model('nobody')", "no agent `nobody`"),
        (one_node("model.invoke('hi')\nn = None"), "outside of a node"),
        (f"{ONE_NODE}\ndef build(kit):\n    return StateGraph(MessagesState)", "does not compile"),
    ],
    ids=["import", "attribute", "raises", "agent", "calls", "compile"],
)
def test_a_graph_that_cannot_be_built_is_one_of_the_fleets_problems(tmp_path: Path, graph: str, word: str) -> None:
    """Said with the line of the fleet file, before anything runs."""
    ground = Ground(tmp_path, graph)
    with pytest.raises(InvalidFleet, match=word) as refused:
        ground.run(request=HELLO)
    assert "fleet.yaml:" in str(refused.value)


@pytest.mark.req("GOVERN-1")
def test_a_graph_file_does_not_hide_a_module_of_python(tmp_path: Path) -> None:
    """A file named like a module that is loaded already is refused, not put in its place."""
    ground = Ground(tmp_path, fleet=FLEET.replace("mygraph:build", "json:build"))
    (ground.fleet / "json.py").write_text("build = None")
    with pytest.raises(InvalidFleet, match="name of another module"):
        ground.run()
    assert hasattr(json, "dumps")


STREAMED = """
async def n(state):
    pieces = [piece async for piece in model.astream(state["messages"])]
    return {"messages": [("ai", f"{len(pieces)} {pieces[0].content}")]}
"""


@pytest.mark.req("GOVERN-1")
def test_a_stream_is_one_piece(tmp_path: Path) -> None:
    """An answer counts only when it is complete, so nothing of it is shown before."""
    ground = Ground(tmp_path, one_node(STREAMED))
    pieces, _, text = ground.run().output["messages"][-1]["content"].partition(" ")
    assert (True, "done") == (int(pieces) <= 2, text)


TRACED = """
import sys
from langchain_core.tracers.langchain import wait_for_all_tracers
from langgraph.graph import START, MessagesState, StateGraph
graph = StateGraph(MessagesState)
graph.add_node("n", lambda state: {})
graph.add_edge(START, "n")
graph.compile().invoke({"messages": [("user", "private")]})
wait_for_all_tracers()
"""


@pytest.mark.req("GOVERN-6")
def test_no_variable_of_the_environment_sends_state_to_a_tracing_service(tmp_path: Path) -> None:
    """Bare LangGraph connects to the service that the environment names and posts the state; a governed graph does not."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        reached: list[bytes] = []

        def serve() -> None:
            while True:
                try:
                    client, _ = server.accept()
                except OSError:
                    return
                with client:
                    reached.append(client.recv(100))
                    client.sendall(b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")

        listening = threading.Thread(target=serve, daemon=True)
        listening.start()
        service = {
            "LANGSMITH_TRACING": "true",
            "LANGSMITH_API_KEY": "lsv2_none",
            "LANGSMITH_ENDPOINT": f"http://127.0.0.1:{server.getsockname()[1]}",
        }
        ground = Ground(tmp_path, PLAIN_GRAPH, rules(calls(("look", {"what": "disk"}))))
        done = ground.process(**service)
        assert (0, []) == (done.returncode, reached), done.stderr
        bare = [sys.executable, "-c", TRACED]
        subprocess.run(bare, env=os.environ | service, capture_output=True, timeout=60, check=True)
        assert [] != reached
        server.shutdown(socket.SHUT_RDWR)
    listening.join(5)


MODELS = """
import operator
from dataclasses import dataclass
from enum import Enum
from typing import Annotated
from langgraph.graph import START, StateGraph
from langgraph.types import Send
from pydantic import BaseModel

class Kind(Enum):
    DISK = "disk"

@dataclass
class Finding:
    kind: Kind
    text: str

class Night(BaseModel):
    targets: list[str]
    findings: Annotated[list[Finding], operator.add] = []

class One(BaseModel):
    target: str

def build(kit):
    tools = {tool.name: tool for tool in kit.tools("worker")}

    async def work(one: One):
        told = await tools["ops.deploy" if one.target == "b" else "ops.log"].ainvoke(
            {"target": one.target} if one.target == "b" else {"line": one.target}
        )
        return {"findings": [Finding(Kind.DISK, one.target)]}

    graph = StateGraph(Night)
    graph.add_node("plan", lambda state: {})
    graph.add_node("work", work, input_schema=One)
    graph.add_edge(START, "plan")
    graph.add_conditional_edges("plan", lambda state: [Send("work", One(target=one)) for one in state.targets], ["work"])
    return graph
"""


@pytest.mark.req("GOVERN-7")
def test_state_of_the_users_own_classes_survives_a_wait(tmp_path: Path) -> None:
    """Models, dataclasses and enums of the schemas; branches side by side, one of them gated; another process reads it back."""
    ground = Ground(tmp_path, MODELS)
    waiting = ground.run(request={"targets": ["a", "b", "c"]})
    assert ("waiting", 1, ["log a", "log c"]) == (waiting.status, len(waiting.gates), ground.calls())
    ground.say(waiting.gates[0])
    done = ground.process(waiting.run)
    assert 0 == done.returncode, done.stderr
    result = ground.run(waiting.run)
    assert ["deploy b", "log a", "log c"] == ground.calls()
    assert sorted(result.output["findings"], key=str) == [{"kind": "disk", "text": one} for one in ("a", "b", "c")]
