"""The saver's price: a trivial node's cost beside LangGraph's own savers, and what a long conversation takes on disk.

Rows, interleaved in one process, all on disk, `durability="sync"`: no saver; a saver that does nothing (the floor of
having one); LangGraph's memory and SQLite savers (the latter with its default FULL and with NORMAL durability); ours;
ours with a ledger event and a transition row in the transaction of each checkpoint. A node's cost is the slope
between a short and a long chain, so that compiling and starting a graph do not count. The second table is the same on
an event loop, where the kernel runs its graphs: no thread is involved there, and LangGraph's SQLite saver is the one
over aiosqlite.
"""

from __future__ import annotations

import asyncio
import random
import sqlite3
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, TypedDict

import aiosqlite
from langchain_core.messages import AnyMessage, HumanMessage
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import (
    BaseCheckpointSaver,
    ChannelVersions,
    Checkpoint,
    CheckpointMetadata,
    CheckpointTuple,
)
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.checkpoint.sqlite import SqliteSaver
from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver
from langgraph.graph import END, START, StateGraph, add_messages

from midwatch.graph.inline import InlineSaver
from midwatch.graph.saver import PutSizes, Saver
from midwatch.records.event import EventDraft
from midwatch.records.run import Transition
from midwatch.store.port import Store, Tx
from midwatch.store.sqlite import SqliteStore

__all__ = ["main", "rows"]

SHORT, LONG = 2, 62
REPETITIONS = 9
STEPS, CHARACTERS = 1000, 500
MEGABYTE = 1_000_000
FULL, NORMAL, AIO = "SqliteSaver, its default", "SqliteSaver, NORMAL", "AsyncSqliteSaver"

AnySaver = BaseCheckpointSaver[Any] | None
Savers = Mapping[str, AnySaver]


class Count(TypedDict):
    """State of the chain."""

    n: int


class Talk(TypedDict):
    """State of the conversation."""

    messages: Annotated[list[AnyMessage], add_messages]


class NoSaver(InlineSaver):
    """Does nothing: what LangGraph itself spends as soon as there is a saver."""

    def get_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        """Find nothing."""
        return None

    def list(
        self,
        config: RunnableConfig | None,
        *,
        filter: dict[str, Any] | None = None,  # noqa: A002 - LangGraph's name
        before: RunnableConfig | None = None,
        limit: int | None = None,
    ) -> Iterator[CheckpointTuple]:
        """List nothing."""
        return iter(())

    def put(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> RunnableConfig:
        """Store nothing."""
        conf = config["configurable"]
        return {"configurable": {**conf, "checkpoint_id": checkpoint["id"]}}

    def put_writes(
        self, config: RunnableConfig, writes: Sequence[tuple[str, Any]], task_id: str, task_path: str = ""
    ) -> None:
        """Store nothing."""


def record(
    tx: Tx, config: RunnableConfig, checkpoint: Checkpoint, metadata: CheckpointMetadata, sizes: PutSizes
) -> None:
    """Write one ledger event and one transition row, as a governed run does for each node."""
    run, step = str(config["configurable"]["thread_id"]), metadata["step"]
    at_us = time.time_ns() // 1000
    size = sizes.checkpoint + sum(sizes.channels.values())
    data = {"checkpoint": checkpoint["id"], "bytes": size}
    seq = tx.ledger.append(EventDraft("node.finished", run, at_us, data, node="node", step=step))
    task = f"node:{checkpoint['id']}"
    tx.transitions.start(Transition(run, seq, "", "node", task, step, "finished", at_us, at_us, size))


def _sqlite(path: Path, level: str) -> SqliteSaver:
    connection = sqlite3.connect(path, check_same_thread=False)
    saver = SqliteSaver(connection)
    saver.setup()
    connection.execute(f"PRAGMA synchronous={level}")
    return saver


def _savers(folder: Path, stores: list[Store], theirs: Savers) -> Savers:
    def store(name: str) -> Store:
        stores.append(SqliteStore(folder / name))
        return stores[-1]

    return {
        "bare (no saver)": None,
        "no-op saver": NoSaver(),
        "InMemorySaver": InMemorySaver(),
        **theirs,
        "Midwatch": Saver(store("plain.db")),
        "Midwatch, ledger and index": Saver(store("recorded.db"), on_put=record),
    }


def _step(state: Count) -> Count:
    return {"n": state["n"] + 1}


async def _astep(state: Count) -> Count:
    return {"n": state["n"] + 1}


def _chain(length: int, saver: AnySaver, runner: asyncio.Runner | None) -> Callable[[str], tuple[float, float]]:
    """Compile a chain; the function runs it on a thread of its own and gives (CPU, wall) in microseconds."""
    graph = StateGraph(Count)
    for at in range(length):
        graph.add_node(f"n{at}", _astep if runner else _step)
        graph.add_edge(f"n{at - 1}" if at else START, f"n{at}")
    graph.add_edge(f"n{length - 1}", END)
    compiled = graph.compile(checkpointer=saver)
    durability: dict[str, Any] = {"durability": "sync"} if saver is not None else {}

    def run(thread: str) -> tuple[float, float]:
        config: RunnableConfig = {"configurable": {"thread_id": thread}, "recursion_limit": 10 * length}
        cpu, wall = time.process_time_ns(), time.perf_counter_ns()
        if runner is None:
            result = compiled.invoke({"n": 0}, config, **durability)
        else:
            result = runner.run(compiled.ainvoke({"n": 0}, config, **durability))
        spent = (time.process_time_ns() - cpu) / 1000, (time.perf_counter_ns() - wall) / 1000
        assert result["n"] == length, "the chain must run"
        return spent

    return run


def _slopes(savers: Savers, repetitions: int, runner: asyncio.Runner | None) -> dict[str, tuple[float, float]]:
    """Give per saver the median (CPU, wall) of a node."""
    slopes: dict[str, list[tuple[float, float]]] = {name: [] for name in savers}
    chains = {name: (_chain(SHORT, saver, runner), _chain(LONG, saver, runner)) for name, saver in savers.items()}
    for repetition in range(repetitions + 1):
        for name, (short, long) in chains.items():
            few, many = short(f"short-{repetition}"), long(f"long-{repetition}")
            if repetition:  # the first one warms up
                slopes[name].append(((many[0] - few[0]) / (LONG - SHORT), (many[1] - few[1]) / (LONG - SHORT)))
    return {
        name: (statistics.median(cpu for cpu, _ in found), statistics.median(wall for _, wall in found))
        for name, found in slopes.items()
    }


def rows(repetitions: int = REPETITIONS, *, on_loop: bool = False) -> list[dict[str, Any]]:
    """Measure a node with each saver: `cpu_us` and `wall_us` (medians of slopes) and what they are of others'.

    Args:
        repetitions: of the whole list of savers, interleaved; one more comes first and is dropped.
        on_loop: run the graphs on an event loop instead of in LangGraph's thread pool.
    """
    stores: list[Store] = []
    with tempfile.TemporaryDirectory() as name, asyncio.Runner() as runner:
        folder = Path(name)
        connection = None
        if on_loop:
            connection = runner.run(_connect(folder / "aio.db"))
            theirs: Savers = {AIO: runner.run(_aio(connection))}
        else:
            theirs = {FULL: _sqlite(folder / "full.db", "FULL"), NORMAL: _sqlite(folder / "normal.db", "NORMAL")}
        cost = _slopes(_savers(folder, stores, theirs), repetitions, runner if on_loop else None)
        if connection is not None:
            runner.run(connection.close())
        for store in stores:
            store.close()
    noop, sqlite = cost["no-op saver"], cost[AIO if on_loop else FULL]
    return [
        {
            "saver": name,
            "cpu_us": round(cpu),
            "wall_us": round(wall),
            "cpu/noop": round(cpu / noop[0], 2),
            "cpu/sqlite": round(cpu / sqlite[0], 2),
            "wall/sqlite": round(wall / sqlite[1], 2),
        }
        for name, (cpu, wall) in cost.items()
    ]


async def _connect(path: Path) -> aiosqlite.Connection:
    return await aiosqlite.connect(path)


async def _aio(connection: aiosqlite.Connection) -> AsyncSqliteSaver:
    return AsyncSqliteSaver(connection)


def _talk(saver: BaseCheckpointSaver[Any], steps: int) -> None:
    """Run a graph of one node that adds one message a step, on the thread `talk`."""
    choose = random.Random(7)
    words = ["".join(choose.choices("abcdefghijklmnopqrstuvwxyz", k=choose.randint(2, 9))) for _ in range(2000)]

    def speak(state: Talk) -> dict[str, Any]:  # noqa: ARG001 - LangGraph passes it by name
        text = " ".join(choose.choices(words, k=CHARACTERS // 4))[:CHARACTERS]
        return {"messages": [HumanMessage(text)]}

    graph = StateGraph(Talk)
    graph.add_node("speak", speak)
    graph.add_edge(START, "speak")
    graph.add_conditional_edges("speak", lambda state: "speak" if len(state["messages"]) < steps else END)
    config: RunnableConfig = {"configurable": {"thread_id": "talk"}, "recursion_limit": 2 * steps}
    result = graph.compile(checkpointer=saver).invoke({"messages": []}, config, durability="sync")
    assert len(result["messages"]) == steps, "the conversation must run"


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.iterdir())


def growth(steps: int = STEPS) -> list[dict[str, Any]]:
    """Measure a conversation: megabytes on disk after closing, seconds, time to list its transitions and to resume."""
    found = []
    with tempfile.TemporaryDirectory() as folder:
        bare, ours = Path(folder) / "bare", Path(folder) / "ours"
        bare.mkdir()
        theirs = _sqlite(bare / "bare.db", "FULL")
        began = time.perf_counter()
        _talk(theirs, steps)
        took = time.perf_counter() - began
        theirs.conn.close()
        found.append({"saver": "SqliteSaver", "megabytes": round(_size(bare) / MEGABYTE, 1), "seconds": round(took, 1)})
        store = SqliteStore(ours / "midwatch.db")
        began = time.perf_counter()
        _talk(Saver(store, on_put=record), steps)
        took = time.perf_counter() - began
        began = time.perf_counter()
        listed = store.read(lambda tx: tx.transitions.list("talk"))
        listing = (time.perf_counter() - began) * 1000
        assert len(listed) >= steps, "every transition must be listed"
        began = time.perf_counter()
        tuple_ = Saver(store).get_tuple({"configurable": {"thread_id": "talk"}})
        resuming = (time.perf_counter() - began) * 1000
        assert tuple_ is not None, "the last checkpoint must be there"
        assert len(tuple_.checkpoint["channel_values"]["messages"]) == steps, "the whole conversation must be there"
        store.close()
        found.append(
            {
                "saver": "Midwatch, ledger and index",
                "megabytes": round(_size(ours) / MEGABYTE, 1),
                "seconds": round(took, 1),
                "listing_ms": round(listing, 1),
                "resuming_ms": round(resuming, 1),
            }
        )
    return found


def _table(title: str, found: Sequence[Mapping[str, Any]]) -> None:
    names = list(dict.fromkeys(name for row in found for name in row))
    print(f"\n{title}")
    print("  " + f"{names[0]:<28}" + "".join(f"{name:>16}" for name in names[1:]))
    for row in found:
        print("  " + f"{row[names[0]]:<28}" + "".join(f"{row.get(name, ''):>16}" for name in names[1:]))


def main() -> None:
    """Print both tables and hold them to their bars."""
    cost, loop, size = rows(), rows(on_loop=True), growth()
    _table(f"one trivial node, {REPETITIONS} interleaved repetitions", cost)
    _table("the same on an event loop", loop)
    _table(f"{STEPS} steps of {CHARACTERS}-character messages", size)
    by_name = {row["saver"]: row for row in cost}
    ours, bare = by_name["Midwatch, ledger and index"], by_name[FULL]
    assert ours["cpu_us"] < bare["cpu_us"], "a recorded node must cost less CPU than bare SqliteSaver"
    assert ours["wall_us"] < bare["wall_us"], "a recorded node must cost less wall time than bare SqliteSaver"
    assert size[1]["megabytes"] <= 12, "1,000 steps must take at most 12 MB"
    assert size[1]["listing_ms"] <= 50, "listing 1,000 transitions must take at most 50 ms"


if __name__ == "__main__":
    main()
