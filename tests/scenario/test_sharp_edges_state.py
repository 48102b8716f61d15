"""Sharp edges of LangGraph, in pairs: crashes, secrets, what stored bytes can make, deletion, several processes, whose saver."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Annotated, Any

import ormsgpack
import pytest
from langgraph.channels.delta import DeltaChannel
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer
from langgraph.checkpoint.sqlite import SqliteSaver
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.prebuilt import ToolNode
from pydantic import SecretStr
from typing_extensions import TypedDict

from midwatch import wiring
from midwatch.errors import InvalidFleet
from midwatch.graph.saver import Saver
from midwatch.graph.serde import StateRefused, StrictSerializer
from tests.scenario.ground import PLAIN_GRAPH, Ground, calls, rules

THREAD: Any = {"configurable": {"thread_id": "1"}}
KEY = "sk-proj-abcdefghijklmnopqrstuvwxyz0123456789"

SIX = """
import os, signal, sys
from pathlib import Path
from typing_extensions import TypedDict
from langgraph.graph import START, StateGraph

class Line(TypedDict, total=False):
    count: int

def graph(folder):
    folder = Path(folder)
    def node(number):
        def run(state):
            with (folder / "log").open("a") as file:
                file.write(f"{number}\\n")
            if number == 4 and (folder / "die").exists():
                os.kill(os.getpid(), signal.SIGKILL)
            return {"count": number}
        return run
    made = StateGraph(Line)
    before = START
    for number in range(1, 7):
        made.add_node(f"n{number}", node(number))
        made.add_edge(before, f"n{number}")
        before = f"n{number}"
    return made
"""

BARE = (
    SIX
    + '''
import threading
from langgraph.checkpoint.sqlite import SqliteSaver

class Slow(SqliteSaver):
    """A store that is slower than the nodes: nothing after the input is written in time."""
    def put(self, config, checkpoint, metadata, versions):
        if metadata["step"] >= 1:
            threading.Event().wait()
        return super().put(config, checkpoint, metadata, versions)
    def put_writes(self, config, writes, task, path=""):
        threading.Event().wait()

database, folder, durability, entry = sys.argv[1:]
kind = Slow if durability == "async" and entry == "begin" else SqliteSaver
with kind.from_conn_string(database) as saver:
    made = graph(folder).compile(checkpointer=saver)
    made.invoke({"count": 0} if entry == "begin" else None, {"configurable": {"thread_id": "1"}}, durability=durability)
'''
)


def bare(folder: Path, durability: str, entry: str) -> subprocess.CompletedProcess[str]:
    """Run the six nodes on LangGraph alone, in a process of their own."""
    argv = [sys.executable, "-c", BARE, str(folder / "bare.db"), str(folder), durability, entry]
    return subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.req("GOVERN-5")
def test_bare_langgraph_loses_a_killed_run_or_repeats_it_from_the_start(tmp_path: Path) -> None:
    """Edge 4, bare: `exit` keeps nothing to resume; `async`, the default, repeats every node that a slow store had not kept."""
    for durability in ("exit", "async"):
        folder = tmp_path / durability
        folder.mkdir()
        (folder / "die").touch()
        assert -signal.SIGKILL == bare(folder, durability, "begin").returncode
        (folder / "die").unlink()
        resumed = bare(folder, durability, "resume")
        log = (folder / "log").read_text().split()
        if durability == "exit":
            assert (True, ["1", "2", "3", "4"]) == ("EmptyInputError" in resumed.stderr, log)
        else:
            assert (0, ["1", "2", "3", "4", "1", "2", "3", "4", "5", "6"]) == (resumed.returncode, log)


@pytest.mark.req("GOVERN-5")
def test_a_killed_node_alone_is_repeated(tmp_path: Path) -> None:
    """Edge 4, governed: SIGKILL in the fourth of six nodes; the run goes on with that one."""
    ground = Ground(tmp_path, SIX + f"\ndef build(kit):\n    return graph({str(tmp_path)!r})\n")
    (tmp_path / "die").touch()
    killed = ground.process(request={"count": 0})
    assert -signal.SIGKILL == killed.returncode, killed.stderr
    (tmp_path / "die").unlink()
    result = ground.run(ground.freed())
    assert ("done", {"count": 6}) == (result.status, result.output)
    assert ["1", "2", "3", "4", "4", "5", "6"] == (tmp_path / "log").read_text().split()
    assert ["finished"] * 6 == [line.status for line in ground.transitions(result.run)]


@pytest.mark.req("GOVERN-5")
def test_a_kill_inside_an_effect_leaves_it_in_doubt_and_bills_nothing_twice(tmp_path: Path) -> None:
    """Edge 4, governed: the deploy that was cut is not repeated by itself, its sibling is answered from the journal."""
    asked = calls(("log", {"line": "begin"}), ("deploy", {"target": "staging"}))
    ground = Ground(tmp_path, PLAIN_GRAPH, rules(asked))
    waiting = ground.run()
    ground.say(waiting.gates[0])
    (ground.work / "die").touch()
    assert -signal.SIGKILL == ground.process(waiting.run).returncode
    (ground.work / "die").unlink()
    doubt = ground.run(ground.freed())
    assert ("waiting", 1, ["deploy staging", "log begin"], 1) == (
        doubt.status,
        len(doubt.in_doubt),
        ground.calls(),
        ground.bill(),
    )


@pytest.mark.req("GOVERN-6")
def test_bare_langgraph_stores_secrets_in_clear(tmp_path: Path) -> None:
    """Edge 5, bare: a key in the configuration stands in every checkpoint's metadata, a `SecretStr` in the state's bytes."""

    class Held(TypedDict):
        secret: SecretStr

    graph: Any = StateGraph(Held)
    graph.add_node("n", lambda _: {})
    graph.add_edge(START, "n")
    with SqliteSaver.from_conn_string(str(tmp_path / "bare.db")) as saver:
        conf: Any = {"configurable": {"thread_id": "1", "api_key": KEY}}
        graph.compile(checkpointer=saver).invoke({"secret": SecretStr("hunter2-hunter2")}, conf)
    raw = b"".join(path.read_bytes() for path in tmp_path.iterdir())
    assert (True, True) == (KEY.encode() in raw, b"hunter2-hunter2" in raw)


CONFIGURED = f"""
from langgraph.graph import START, MessagesState, StateGraph

def build(kit):
    inner = StateGraph(MessagesState)
    inner.add_node("n", lambda state: {{"messages": [("ai", "the key is {KEY}")]}})
    inner.add_edge(START, "n")
    made = inner.compile()

    async def outer(state):
        return await made.ainvoke(state, {{"configurable": {{"api_key": "{KEY}"}}}})

    graph = StateGraph(MessagesState)
    graph.add_node("outer", outer)
    graph.add_edge(START, "outer")
    return graph
"""


@pytest.mark.req("GOVERN-6")
def test_no_key_of_configuration_or_state_reaches_the_disk(tmp_path: Path) -> None:
    """Edge 5, governed: a key in a subgraph's configuration is dropped, one in its messages is stored as a marker."""
    ground = Ground(tmp_path, CONFIGURED)
    assert "done" == ground.run().status
    raw = b"".join(path.read_bytes() for path in ground.home.iterdir() if path.is_file())
    assert KEY.encode() not in raw


SECRET = """
from langgraph.graph import START, StateGraph
from pydantic import SecretStr
from typing_extensions import TypedDict

class Held(TypedDict, total=False):
    name: str
    secret: SecretStr

def build(kit):
    graph = StateGraph(Held)
    graph.add_node("n", lambda state: {"secret": SecretStr("-".join(["hunter2"] * 2))})
    graph.add_edge(START, "n")
    return graph
"""


@pytest.mark.req("GOVERN-6")
def test_a_secret_type_in_state_stops_the_run(tmp_path: Path) -> None:
    """Edge 5, governed: nothing of it is written, and the message says where it belongs."""
    ground = Ground(tmp_path, SECRET)
    result = ground.run(request={"name": "x"})
    raw = b"".join(path.read_bytes() for path in ground.home.iterdir() if path.is_file())
    assert ("failed", "StateRefused", False) == (result.status, result.error_code, b"hunter2-hunter2" in raw)
    assert "secret" in (result.error_message or "")


@pytest.mark.req("GOVERN-7")
@pytest.mark.filterwarnings("ignore")
def test_bare_langgraph_calls_what_stored_bytes_name(tmp_path: Path) -> None:
    """Edge 6, bare: bytes in the database that name `os.mkdir` make a directory when state is read; governed, they are refused."""
    place = tmp_path / "made by reading state"
    inner = ormsgpack.packb(["os", "mkdir", [str(place)]])
    body = ormsgpack.packb(ormsgpack.Ext(1, inner))
    with pytest.raises(StateRefused, match=r"os\.mkdir"):
        StrictSerializer().loads_typed(("msgpack", body))
    assert not place.exists()
    JsonPlusSerializer().loads_typed(("msgpack", body))
    assert place.is_dir()


def _grow(items: list[str], writes: Any) -> list[str]:
    return [*items, *(one for write in writes for one in write)]


class Grown(TypedDict):
    items: Annotated[list[str], DeltaChannel(_grow)]


def grown(saver: Any) -> Any:
    """Run three steps whose list is stored as changes."""
    graph: Any = StateGraph(Grown)
    graph.add_node("a", lambda _: {"items": ["a"]})
    graph.add_node("b", lambda _: {"items": ["b"]})
    graph.add_edge(START, "a")
    graph.add_edge("a", "b")
    made = graph.compile(checkpointer=saver)
    made.invoke({"items": ["start"]}, THREAD)
    return made


@pytest.mark.req("GOVERN-9")
@pytest.mark.filterwarnings("ignore")
def test_bare_langgraph_cannot_prune_and_loses_what_is_pruned_by_hand(tmp_path: Path) -> None:
    """Edge 8, bare: its savers have no `prune`, `copy_thread`, `delete_for_runs`; keeping the newest row alone loses the list."""
    memory: Any = InMemorySaver()
    for verb, given in (("prune", (["1"],)), ("copy_thread", ("1", "2")), ("delete_for_runs", (["1"],))):
        with pytest.raises(NotImplementedError):
            getattr(memory, verb)(*given)
    with SqliteSaver.from_conn_string(str(tmp_path / "bare.db")) as saver:
        made = grown(saver)
        assert ["start", "a", "b"] == made.get_state(THREAD).values["items"]
        with sqlite3.connect(tmp_path / "bare.db") as database:
            database.execute(
                "DELETE FROM checkpoints WHERE checkpoint_id < (SELECT max(checkpoint_id) FROM checkpoints)"
            )
        assert ["start", "a", "b"] != made.get_state(THREAD).values.get("items")


@pytest.mark.req("GOVERN-9")
@pytest.mark.filterwarnings("ignore")
def test_state_is_pruned_copied_and_deleted_without_loss(tmp_path: Path) -> None:
    """Edge 8, governed: after `prune` and in a copy the list is whole; of a deleted run nothing is left."""
    with wiring.open_store(tmp_path, create=True) as store:
        saver = Saver(store)
        made = grown(saver)
        saver.copy_thread("1", "2")
        saver.prune(["1"])
        copied: Any = {"configurable": {"thread_id": "2"}}
        assert [["start", "a", "b"]] * 2 == [made.get_state(conf).values["items"] for conf in (THREAD, copied)]
        saver.delete_thread("1")
        assert [] == list(saver.list(THREAD))
        assert ["start", "a", "b"] == made.get_state(copied).values["items"]


@pytest.mark.req("GOVERN-10")
def test_several_processes_run_on_one_home(tmp_path: Path) -> None:
    """Edge 9: three processes at once on one file; every run ends, every effect happens once, the chain holds."""
    ground = Ground(tmp_path, PLAIN_GRAPH, rules(calls(("look", {"what": "disk"}), ("log", {"line": "seen"}))))
    with ThreadPoolExecutor(3) as pool:
        done = [future.result() for future in [pool.submit(ground.process) for _ in range(3)]]
    assert [0, 0, 0] == [one.returncode for one in done], [one.stderr for one in done]
    with wiring.open_store(ground.home) as store:
        assert ["done"] * 3 == [row.status for row in store.read(lambda tx: tx.runs.list())]
        assert store.read(lambda tx: tx.ledger.verify()).ok
    assert ["log seen"] * 3 + ["look disk"] * 3 == ground.calls()


class Duck:
    """A wrapper around a saver that is no saver itself."""

    def __init__(self, saver: Any) -> None:
        self.saver = saver

    def __getattr__(self, name: str) -> Any:
        return getattr(self.saver, name)


@pytest.mark.req("GOVERN-11")
def test_bare_langgraph_refuses_a_saver_that_only_looks_like_one() -> None:
    """Edge 10, bare: a saver cannot be wrapped from outside, so governance has to be the saver; ours is one."""
    graph: Any = StateGraph(MessagesState)
    graph.add_node("n", ToolNode([]))
    graph.add_edge(START, "n")
    with pytest.raises(TypeError, match="checkpointer"):
        graph.compile(checkpointer=Duck(InMemorySaver()))


OWN = """
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, MessagesState, StateGraph

def inner(kit):
    tools = {tool.name: tool for tool in kit.tools("worker")}

    async def act(state):
        await tools["ops.log"].ainvoke({"line": "from inside"})
        return {}

    graph = StateGraph(MessagesState)
    graph.add_node("act", act)
    graph.add_edge(START, "act")
    return graph
"""


SUB = """
    graph = StateGraph(MessagesState)
    graph.add_node("sub", inner(kit).compile(checkpointer=SAVER))
    graph.add_edge(START, "sub")
    return graph
"""

HIDDEN = """
    async def outer(state):
        return await inner(kit).compile(checkpointer=SAVER).ainvoke(state, CONF)
    graph = StateGraph(MessagesState)
    graph.add_node("outer", outer)
    graph.add_edge(START, "outer")
    return graph
"""


@pytest.mark.req("GOVERN-11")
@pytest.mark.parametrize(
    ("build", "code"),
    [
        ("    return inner(kit).compile()", "compiled-graph"),
        (SUB.replace("SAVER", "InMemorySaver()"), "foreign-saver"),
        (SUB.replace("SAVER", "False"), "foreign-saver"),
        (SUB.replace("checkpointer=SAVER", "interrupt_before=['act']"), "breakpoint"),
        ("    return None", "no-graph"),
    ],
    ids=["compiled", "subgraph with a saver", "subgraph that keeps nothing", "subgraph with a breakpoint", "nothing"],
)
def test_a_graph_with_a_saver_of_its_own_is_refused(tmp_path: Path, build: str, code: str) -> None:
    """Edge 10, governed: said before anything runs, with the line of the fleet file."""
    ground = Ground(tmp_path, f"{OWN}\ndef build(kit):\n{build}\n")
    with pytest.raises(InvalidFleet) as refused:
        ground.run()
    assert ([code], True) == ([problem.code for problem in refused.value.problems], "fleet.yaml:" in str(refused.value))


@pytest.mark.req("GOVERN-11")
@pytest.mark.parametrize(
    ("saver", "conf"),
    [
        ("InMemorySaver()", "{'configurable': {'thread_id': 'mine'}}"),
        ("False", "None"),
        ("None", "{'configurable': {'thread_id': 'mine'}}"),
    ],
    ids=["its own", "none", "another thread"],
)
def test_a_call_under_another_saver_or_thread_stops_the_run(tmp_path: Path, saver: str, conf: str) -> None:
    """Edge 10, governed: a subgraph that a node's own code makes cannot be seen before; its first call stops the run."""
    build = HIDDEN.replace("SAVER", saver).replace("CONF", conf)
    ground = Ground(tmp_path, f"{OWN}\ndef build(kit):\n{build}\n")
    result = ground.run()
    assert ("failed", []) == (result.status, ground.calls())
    if saver != "False":  # LangGraph itself fails there, since it cannot keep what it was told to keep at once
        assert ("UsageProblem", True) == (result.error_code, "thread of its own" in (result.error_message or ""))


@pytest.mark.req("GOVERN-11")
def test_a_hidden_breakpoint_is_no_end_of_the_run(tmp_path: Path) -> None:
    """Where LangGraph stops without an interrupt, the state is not taken for the run's result."""
    build = HIDDEN.replace("checkpointer=SAVER", "interrupt_before=['act']").replace("CONF", "None")
    result = Ground(tmp_path, f"{OWN}\ndef build(kit):\n{build}\n").run()
    assert ("failed", "breakpoint", None) == (result.status, result.error_code, result.output)


@pytest.mark.req("GOVERN-11")
@pytest.mark.parametrize("saver", ["None", "InMemorySaver()"])
def test_a_subgraph_that_inherits_the_saver_is_governed_wherever_it_is_called(tmp_path: Path, saver: str) -> None:
    """A node's own code may call a subgraph that keeps its state with the run; LangGraph lends it the run's saver."""
    build = HIDDEN.replace("SAVER", saver).replace("CONF", "None")
    ground = Ground(tmp_path, f"{OWN}\ndef build(kit):\n{build}\n")
    assert ("done", ["log from inside"]) == (ground.run().status, ground.calls())


def test_the_environment_of_these_tests_is_langgraphs_default() -> None:
    """Bare LangGraph is tested as it comes: strict reading is off unless somebody sets it."""
    assert "LANGGRAPH_STRICT_MSGPACK" not in os.environ
