"""How lists of state are stored: linear, exact at every checkpoint, however they are changed."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import pytest
from langchain_core.messages import AIMessage, AnyMessage, HumanMessage, RemoveMessage, ToolMessage
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import empty_checkpoint
from langgraph.graph import END, START, StateGraph, add_messages
from typing_extensions import TypedDict

from midwatch.errors import StoreCorrupt
from midwatch.graph.saver import PutSizes, Saver
from midwatch.store.checkpoints import LINKS
from midwatch.store.port import Tx
from midwatch.store.sqlite import SqliteStore

THREAD = "t"


class Talk(TypedDict):
    messages: Annotated[list[AnyMessage], add_messages]


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqliteStore]:
    """A store in a file."""
    made = SqliteStore(tmp_path / "midwatch.db")
    yield made
    made.close()


@pytest.fixture
def rows(tmp_path: Path, store: SqliteStore) -> Iterator[sqlite3.Connection]:
    """A second connection, to look at the tables themselves."""
    connection = sqlite3.connect(tmp_path / "midwatch.db", isolation_level=None)
    yield connection
    connection.close()


class Line:
    """One thread whose channel `items` is put again and again; remembers each checkpoint's config."""

    def __init__(self, saver: Saver) -> None:
        self.saver = saver
        self.version: int | None = None
        self.configs: list[RunnableConfig] = [{"configurable": {"thread_id": THREAD, "checkpoint_ns": ""}}]

    def put(self, value: Any) -> RunnableConfig:
        checkpoint = empty_checkpoint()
        version = self.version = self.saver.get_next_version(self.version, None)
        checkpoint["channel_values"] = {"items": value}
        checkpoint["channel_versions"] = {"items": version}
        self.configs.append(self.saver.put(self.configs[-1], checkpoint, {"step": 1}, {"items": version}))
        return self.configs[-1]


def _read(saver: Saver, config: RunnableConfig) -> Any:
    found = saver.get_tuple(config)
    assert found is not None
    return found.checkpoint["channel_values"]["items"]


def _count(rows: sqlite3.Connection, statement: str) -> int:
    return int(rows.execute(statement).fetchone()[0])


def _talk(length: int) -> list[Any]:
    return [HumanMessage(f"message {at} " + "x" * 100, id=str(at)) for at in range(length)]


@pytest.mark.req("SAVER-2", "SAVER-4")
def test_a_growing_list_stores_each_item_once(store: SqliteStore, rows: sqlite3.Connection) -> None:
    """200 versions of a growing list keep 200 items, and no version but every 64th repeats what its parent has."""
    line, items = Line(Saver(store)), _talk(200)
    configs = [line.put(items[: at + 1]) for at in range(200)]

    assert 200 == _count(rows, "SELECT count(*) FROM checkpoint_item")
    assert 200 // LINKS + 1 == _count(rows, "SELECT count(*) FROM checkpoint_channel WHERE parent IS NULL")
    assert LINKS - 1 == _count(rows, "SELECT max(depth) FROM checkpoint_channel")
    for at in (0, 62, 63, 64, 65, 127, 128, 199):
        assert items[: at + 1] == _read(Saver(store), configs[at])


@pytest.mark.req("SAVER-2")
def test_a_graph_that_talks_is_linear_on_disk(store: SqliteStore, rows: sqlite3.Connection) -> None:
    """In a real graph, twice the steps take about twice the bytes, not four times."""
    sizes: list[int] = []

    def keep(tx: Tx, config: RunnableConfig, checkpoint: Any, metadata: Any, size: PutSizes) -> None:
        sizes.append(sum(size.channels.values()))

    graph = StateGraph(Talk)
    graph.add_node("speak", lambda state: {"messages": [AIMessage(f"{len(state['messages'])} " + "y" * 300)]})
    graph.add_edge(START, "speak")
    graph.add_conditional_edges("speak", lambda state: "speak" if len(state["messages"]) < 120 else END)
    saver = Saver(store, on_put=keep)
    config: RunnableConfig = {"configurable": {"thread_id": THREAD}, "recursion_limit": 200}
    graph.compile(checkpointer=saver).invoke({"messages": []}, config, durability="sync")

    assert max(sizes) < 1000
    assert 120 == _count(rows, "SELECT max(length) FROM checkpoint_channel WHERE channel = 'messages'")


@pytest.mark.req("SAVER-3")
def test_a_message_changed_in_place_is_stored_as_changed(store: SqliteStore) -> None:
    """A node that changes `messages[3].content` of the very object that was stored does not change history, but the state."""
    line, items = Line(Saver(store)), _talk(6)
    before = line.put(items)
    items[3].content = "changed in place"
    after = line.put(items)

    assert "message 3 " + "x" * 100 == _read(Saver(store), before)[3].content
    assert "changed in place" == _read(Saver(store), after)[3].content
    assert items == _read(Saver(store), after)


def _kwargs(message: Any) -> None:
    message.additional_kwargs["late"] = 1


def _true(message: Any) -> None:
    message.additional_kwargs["n"] = True


def _call(message: Any) -> None:
    message.tool_calls[0]["args"]["path"] = "/etc"


def _block(message: Any) -> None:
    message.content[0]["text"] = "other"


def _artifact(message: Any) -> None:
    message.artifact["deep"].append(2)


@pytest.mark.req("SAVER-3")
@pytest.mark.parametrize(
    ("message", "change"),
    [
        (HumanMessage("a", id="1"), _kwargs),
        (HumanMessage("a", id="1", additional_kwargs={"n": 1}), _true),
        (AIMessage("a", id="1", tool_calls=[{"name": "read", "args": {"path": "/"}, "id": "c"}]), _call),
        (HumanMessage([{"type": "text", "text": "a"}], id="1"), _block),
        (ToolMessage("a", tool_call_id="c", id="1", artifact={"deep": [1]}), _artifact),
        (ToolMessage("a", tool_call_id="c", id="1", artifact={"deep": [1], "pair": (1, 2)}), _artifact),
    ],
    ids=["kwargs", "1-to-True", "tool-call", "content-block", "artifact", "artifact-with-tuple"],
)
def test_a_change_inside_a_message_is_seen(store: SqliteStore, message: Any, change: Any) -> None:
    """Whatever mutable part of a message a node changes in place, the next checkpoint has it."""
    line, items = Line(Saver(store)), [message.model_copy(deep=True), HumanMessage("last", id="2")]
    line.put(items)
    change(items[0])
    after = line.put(items)

    found = _read(Saver(store), after)
    assert items == found
    assert repr(items) == repr(found)


@pytest.mark.req("SAVER-3")
@pytest.mark.parametrize(
    "versions",
    [
        [[1, 2, 3], [1, 2, 3, 4], [1, 2], [], [9], [9, 9]],
        [[1], [True], [1.0], ["1"], [None]],
        [[0.0], [-0.0]],
        [[{"a": 1}], [{"a": 1}, {"b": [2]}], [{"a": 2}, {"b": [2]}]],
        [[[1, [2]], "x"], [[1, [3]], "x"], ["x"]],
        [[(1, 2)], [[1, 2]], [{1, 2}]],
        [[b"raw", b""], [b"raw", None, b"x" * 300], [bytearray(b"raw")]],
        [["x" * 600], ["x" * 600, "y" * 600], ["y" * 600, "x" * 600]],
        [[], [[]], [[], []]],
        ["no list", ["a list"], {"no": "list"}, ["a list", "again"]],
    ],
    ids=["shrink", "types", "zero", "dicts", "nested", "tuples", "bytes", "order", "empty", "kinds"],
)
def test_every_version_reads_back_exactly(store: SqliteStore, versions: list[Any]) -> None:
    """Plain items, shrinking, emptied, replaced, reordered: each checkpoint has its own value, type for type."""
    line = Line(Saver(store))
    configs = [line.put(value) for value in versions]

    assert [repr(value) for value in versions] == [repr(_read(Saver(store), config)) for config in configs]


@pytest.mark.req("SAVER-3")
def test_an_item_changed_in_place_is_seen(store: SqliteStore) -> None:
    """A plain mutable item that a node changes in place is stored as changed."""
    line, items = Line(Saver(store)), [{"n": [1]}, {"n": [2]}]
    before = line.put(items)
    items[0]["n"].append(7)
    after = line.put(items)

    assert [{"n": [1]}, {"n": [2]}] == _read(Saver(store), before)
    assert [{"n": [1, 7]}, {"n": [2]}] == _read(Saver(store), after)


@pytest.mark.req("SAVER-2", "SAVER-3")
def test_a_new_process_stores_no_item_again(store: SqliteStore, rows: sqlite3.Connection) -> None:
    """A saver that remembers nothing, and one that has just read the state, recognise what is stored already."""
    line, items = Line(Saver(store)), _talk(30)
    line.put(items)
    for at, prepare in enumerate((False, True)):
        line.saver = Saver(store)
        state = _read(line.saver, line.configs[-1]) if prepare else _read(Saver(store), line.configs[-1])
        line.put([*state, HumanMessage("new" * 20, id=f"new-{at}")])

    assert 32 == _count(rows, "SELECT count(*) FROM checkpoint_item")
    assert [*items, "new-0", "new-1"][30:] == [message.id for message in _read(Saver(store), line.configs[-1])[30:]]
    assert 1 == _count(rows, "SELECT count(*) FROM checkpoint_channel WHERE parent IS NOT NULL")


@pytest.mark.req("SAVER-3")
def test_a_fork_keeps_both_branches(store: SqliteStore) -> None:
    """Two checkpoints made of one parent each have their own list, also when made by one saver in turn."""
    line, items = Line(Saver(store)), _talk(3)
    root, version = line.put(items), line.version
    left = line.put([*items, "left"])
    line.version, line.configs = version, [root]
    right = line.put([*items, "right"])

    assert [*items, "left"] == _read(Saver(store), left)
    assert [*items, "right"] == _read(Saver(store), right)


@pytest.mark.req("SAVER-3")
def test_a_version_stored_again_does_not_change_those_that_build_on_it(store: SqliteStore) -> None:
    """Even a saver that uses a version twice gets the new value there, and the old one in every list made on it."""
    line = Line(Saver(store))
    line.put(["a" * 50, "b" * 50])
    version = line.version or 0
    child = line.put(["a" * 50, "b" * 50, "c" * 50])
    checkpoint = empty_checkpoint()
    checkpoint["channel_values"], checkpoint["channel_versions"] = {"items": ["other" * 20]}, {"items": version}
    again = line.saver.put(child, checkpoint, {}, {"items": version})

    assert ["other" * 20] == _read(Saver(store), again)
    assert ["a" * 50, "b" * 50, "c" * 50] == _read(Saver(store), child)


@pytest.mark.req("SAVER-3")
def test_removed_messages_are_gone(store: SqliteStore) -> None:
    """`RemoveMessage` in a graph takes a message out of later checkpoints and leaves the earlier ones as they were."""
    graph = StateGraph(Talk)
    graph.add_node("forget", lambda state: {"messages": [RemoveMessage(id="1"), HumanMessage("d", id="4")]})
    graph.add_edge(START, "forget")
    saver = Saver(store)
    compiled = graph.compile(checkpointer=saver)
    config: RunnableConfig = {"configurable": {"thread_id": THREAD}}
    compiled.invoke({"messages": [HumanMessage(c, id=c) for c in "012"]}, config, durability="sync")

    history = [[message.id for message in step.values["messages"]] for step in compiled.get_state_history(config)]
    assert ["0", "2", "4"] == [message.id for message in compiled.get_state(config).values["messages"]]
    assert [["0", "2", "4"], ["0", "1", "2"], []] == history


@pytest.mark.req("SAVER-15")
@pytest.mark.parametrize(
    "damage",
    [
        "DELETE FROM checkpoint_item WHERE id = 2",
        "UPDATE checkpoint_item SET body = x'00', codec = 0 WHERE id = 2",
        "UPDATE checkpoint_item SET codec = 1 WHERE id = 2",
        "DELETE FROM checkpoint_channel WHERE parent IS NULL",
        "DELETE FROM checkpoint_channel",
        "UPDATE checkpoint_channel SET refs = x'c1'",
        "UPDATE checkpoint_channel SET parent = version, keep = length",
    ],
)
def test_damage_is_an_error(store: SqliteStore, rows: sqlite3.Connection, damage: str) -> None:
    """A missing, changed or circular row raises `StoreCorrupt`; it never makes a shorter list."""
    line, items = Line(Saver(store)), _talk(3)
    line.put(items[:2])
    config = line.put(items)
    rows.execute(damage)

    with pytest.raises(StoreCorrupt):
        _read(Saver(store), config)
