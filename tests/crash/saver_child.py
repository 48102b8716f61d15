"""A process that, for each case, forks one that runs a graph and kills itself between the saver's writes.

In:   a line of JSON on stdin per case: `[DATABASE, LOG, POINT, NUMBER, MODE]`; POINT `none` runs or resumes to the end.
Out:  one line in LOG per node that ran (synced at once); a line of JSON on stdout per case: exit code, and the final state.
MODE is `threads` (LangGraph's pool) or `loop`. Each case is a pair of these: one that dies, one that resumes.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import Sequence
from typing import Annotated, Any

from langchain_core.messages import AIMessage, AnyMessage, HumanMessage
from langchain_core.runnables import RunnableConfig
from langgraph.graph import END, START, StateGraph, add_messages
from typing_extensions import TypedDict

from midwatch.graph.saver import PutSizes, Saver
from midwatch.store.port import Tx
from midwatch.store.sqlite import SqliteStore

NODES = ("first", "left", "right", "join", "last")


class Talk(TypedDict):
    messages: Annotated[list[AnyMessage], add_messages]


class Mortal(Saver):
    """Dies by SIGKILL at the given pass of the given point."""

    point, left = "none", 0

    def reach(self, point: str) -> None:
        if point == self.point:
            self.left -= 1
            if self.left == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    def put(self, *args: Any) -> RunnableConfig:
        done = super().put(*args)
        self.reach("after put")
        return done

    def put_writes(
        self, config: RunnableConfig, writes: Sequence[tuple[str, Any]], task_id: str, task_path: str = ""
    ) -> None:
        self.reach("before put_writes")
        super().put_writes(config, writes, task_id, task_path)
        self.reach("after put_writes")

    def inside(self, tx: Tx, config: RunnableConfig, checkpoint: Any, metadata: Any, sizes: PutSizes) -> None:
        self.reach("inside put")


def _node(name: str, log: str) -> Any:
    def run(state: Talk) -> dict[str, Any]:
        handle = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        os.write(handle, f"{name}\n".encode())
        os.fsync(handle)
        os.close(handle)
        return {"messages": [AIMessage(f"{name} after {len(state['messages'])}", id=name)]}

    return run


def build(saver: Saver, log: str) -> Any:
    """Compile first → (left, right) → join → last."""
    graph = StateGraph(Talk)
    for name in NODES:
        graph.add_node(name, _node(name, log))
    graph.add_edge(START, "first")
    for branch in ("left", "right"):
        graph.add_edge("first", branch)
        graph.add_edge(branch, "join")
    graph.add_edge("join", "last")
    graph.add_edge("last", END)
    return graph.compile(checkpointer=saver)


def main(database: str, log: str, point: str, number: int, mode: str) -> None:
    """Run or resume the graph."""
    store = SqliteStore(database)
    epoch = store.write(lambda tx: tx.fences.take("run", owner=str(os.getpid()), at_us=0, ttl_us=0))
    saver = Mortal(store, run="run", epoch=epoch)
    saver.point, saver.left, saver._on_put = point, number, saver.inside
    graph = build(saver, log)
    config: RunnableConfig = {"configurable": {"thread_id": "run"}}
    begun = saver.get_tuple(config) is not None
    given = None if begun else {"messages": [HumanMessage("go", id="go")]}
    if mode == "loop":
        state = asyncio.run(graph.ainvoke(given, config, durability="sync"))
    else:
        state = graph.invoke(given, config, durability="sync")
    sys.stdout.write(json.dumps([[message.type, message.id, message.content] for message in state["messages"]]))
    store.close()


def serve() -> None:
    """Read one case a line, run each in a fork of this process, and answer with its wait status and output.

    Loading LangGraph takes a second, so it is done once; the fork has no thread and no connection of the process before.
    """
    for line in sys.stdin:
        database, log, point, number, mode = json.loads(line)
        output, into = os.pipe()
        child = os.fork()
        if child == 0:
            os.dup2(into, 1)
            main(database, log, point, number, mode)
            sys.stdout.flush()
            os._exit(0)
        os.close(into)
        with os.fdopen(output) as pipe:
            written = pipe.read()
        _, status = os.waitpid(child, 0)
        sys.stdout.write(json.dumps([os.waitstatus_to_exitcode(status), written]) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    serve()
