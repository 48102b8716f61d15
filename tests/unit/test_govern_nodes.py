"""Calls from inside nodes: threads, order, ids, repetition, and callers that give up; over whole runs."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest

from midwatch import wiring
from midwatch.engine import control
from tests.scenario.ground import Ground, calls, one_node, rules

SYNC = """
def n(state):
    bound = model.bind_tools(list(tools.values()))
    said = bound.invoke(state["messages"])
    from langgraph.prebuilt import ToolNode
    told = ToolNode(list(tools.values())).invoke({"messages": [said]})["messages"]
    return {"messages": [said, *told, bound.invoke([*state["messages"], said, *told])]}
"""


@pytest.mark.req("GOVERN-3")
def test_a_synchronous_node_is_governed_from_its_thread(tmp_path: Path) -> None:
    """Three calls of a thread pool, two of them gated, answered as they come: each runs once, the model is asked twice."""
    asked = calls(("deploy", {"target": "a"}), ("deploy", {"target": "b"}), ("log", {"line": "c"}))
    ground = Ground(tmp_path, one_node(SYNC), rules(asked))
    last = ground.run()
    for _ in range(
        3
    ):  # LangGraph's pool may drop calls that have not begun when the first one waits; they come next time
        for gate in last.gates:
            ground.say(gate)
        last = ground.run(last.run)
    assert ("done", ["deploy a", "deploy b", "log c"], 2) == (last.status, ground.calls(), ground.bill())


BLOCKING = """
async def n(state):
    return {"messages": [model.invoke(state["messages"])]}
"""

DETACHED = """
async def n(state):
    def work():
        try:
            tools["ops.log"].invoke({"line": "from nowhere"})
        except BaseException:
            pass
    thread = threading.Thread(target=work)
    thread.start()
    await asyncio.to_thread(thread.join)
    return {}
"""


@pytest.mark.req("GOVERN-4")
@pytest.mark.parametrize(
    ("body", "word"), [(BLOCKING, "ainvoke"), (DETACHED, "outside of a node")], ids=["blocking", "detached"]
)
def test_a_call_from_where_it_cannot_be_placed_stops_the_run(tmp_path: Path, body: str, word: str) -> None:
    """Not a dead-lock and not an unrecorded call: a failure that says what to do."""
    ground = Ground(tmp_path, one_node(body))
    result = ground.run()
    assert ("failed", "UsageProblem", []) == (result.status, result.error_code, ground.calls())
    assert word in (result.error_message or "")


PARALLEL = """
async def n(state):
    said = await asyncio.gather(*(model.ainvoke([("user", text)]) for text in ("same", "same", "other")))
    told = await tools["ops.deploy"].ainvoke({"target": "staging"})
    return {"messages": [*said, ("ai", told)]}
"""


@pytest.mark.req("GOVERN-5")
def test_parallel_model_calls_are_each_billed_once(tmp_path: Path) -> None:
    """Two equal questions and another one, side by side: three bills, and none more when the node runs again."""
    ground = Ground(tmp_path, one_node(PARALLEL))
    waiting = ground.run()
    assert ("waiting", 3) == (waiting.status, ground.bill())
    ground.say(waiting.gates[0])
    assert ("done", 3, 3) == ((last := ground.run(waiting.run)).status, ground.bill(), last.steps)


REPEATED = """
async def n(state):
    for line in ("one", LINE):
        await tools["ops.log"].ainvoke({"type": "tool_call", "id": ID, "name": "ops.log", "args": {"line": line}})
    return {}
"""


@pytest.mark.req("GOVERN-3")
@pytest.mark.parametrize(
    ("id_", "line", "status", "done"),
    [
        ("same", "two", ("failed", "Divergence"), ["log one"]),
        ("same", "one", ("done", None), ["log one"]),
        ("", "two", ("failed", "UsageProblem"), []),
    ],
    ids=["another call", "the same call", "an empty id"],
)
def test_a_call_id_stands_for_one_call(tmp_path: Path, id_: str, line: str, status: Any, done: list[str]) -> None:
    """The same id with other arguments stops the run; the very same call again is answered, not repeated."""
    ground = Ground(tmp_path, one_node(REPEATED.replace("LINE", repr(line)).replace("ID", repr(id_))))
    result = ground.run()
    assert (status, done) == ((result.status, result.error_code), ground.calls())


GIVEN_UP = """
async def n(state):
    task = asyncio.create_task(tools["ops.slow"].ainvoke({"line": "begun"}))
    while not (WORK / "calls").exists():
        await asyncio.sleep(0.01)
    task.cancel()
    await asyncio.wait([task])
    (WORK / "go").touch()
    return {}
"""


@pytest.mark.req("GOVERN-3")
def test_a_call_that_its_caller_gave_up_is_never_in_doubt(tmp_path: Path) -> None:
    """The node cancels a call that has begun; the call ends before the run does, and the journal has its result."""
    work = f"import pathlib\nWORK = pathlib.Path({str(tmp_path / 'work')!r})\n"
    ground = Ground(tmp_path, work + one_node(GIVEN_UP))
    result = ground.run()
    with wiring.open_store(ground.home) as store:
        rows = store.read(lambda tx: tx.effects.list(result.run))
    assert ("done", ["done"]) == (result.status, [row.status for row in rows])


CHANGING = """
COUNT = []
async def n(state):
    COUNT.append(1)
    await tools["ops.log"].ainvoke({"line": f"time {len(COUNT)}"})
    await tools["ops.deploy"].ainvoke({"target": "staging"})
    return {}
"""


@pytest.mark.req("GOVERN-3")
def test_a_node_that_says_something_else_each_time_does_not_act_twice(tmp_path: Path) -> None:
    """Its words hang on a counter: run again after a wait it would log anew, so the run stops before that."""
    ground = Ground(
        tmp_path,
        one_node(CHANGING).replace("    COUNT = []\n", "").replace("import asyncio", "COUNT = []\nimport asyncio"),
    )
    waiting = ground.run()
    ground.say(waiting.gates[0])
    result = ground.run(waiting.run)
    assert ("failed", "Divergence", ["log time 1"]) == (result.status, result.error_code, ground.calls())
    assert "the clock or chance" in (result.error_message or "")


SHUFFLED = """
async def n(state):
    async def late(line):
        await asyncio.sleep(0.05 if line in SLOW else 0)
        await tools["ops.log"].ainvoke({"line": line})
    await asyncio.gather(late("a"), late("b"))
    SLOW.clear()
    SLOW.append("a")
    await tools["ops.deploy"].ainvoke({"target": "x"})
    await asyncio.gather(late("c"), late("a"))
    return {}
"""


@pytest.mark.req("GOVERN-3")
def test_calls_side_by_side_may_come_back_in_another_order(tmp_path: Path) -> None:
    """A new call that overtakes the old ones waits for them; each happens as often as the node says."""
    source = one_node(SHUFFLED).replace("import asyncio", 'SLOW = ["b"]\nimport asyncio', 1)
    ground = Ground(tmp_path, source)
    waiting = ground.run()
    ground.say(waiting.gates[0])
    assert "done" == ground.run(waiting.run).status
    assert ["deploy x", "log a", "log a", "log b", "log c"] == ground.calls()


STUCK = """
async def n(state):
    open(MARK, "w").close()
    await asyncio.Event().wait()
"""


@pytest.mark.req("GOVERN-4")
def test_a_cancel_reaches_a_node_that_never_ends(tmp_path: Path) -> None:
    """The mark is read beside the graph, whose task is then cancelled."""
    mark = tmp_path / "mark"
    ground = Ground(tmp_path / "ground", one_node(STUCK).replace("MARK", repr(str(mark))))

    def cancel() -> None:
        for _ in range(600):
            if mark.exists():
                break
            threading.Event().wait(0.05)
        with wiring.open_store(ground.home) as store:
            run = store.read(lambda tx: tx.runs.list())[0].id
            control.cancel(store, run, by="ann", reason="enough", at_us=wiring.clock())

    speaker = threading.Thread(target=cancel)
    speaker.start()
    result = ground.run()
    speaker.join(30)
    assert ("cancelled", "halted") == (result.status, result.error_code)
