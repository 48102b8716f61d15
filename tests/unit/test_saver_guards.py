"""What the saver does not let through: secrets, foreign types, old epochs, half transactions, early checkpoints."""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import sqlite3
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Annotated, Any

import ormsgpack
import pytest
from langchain_core.messages import AnyMessage, HumanMessage
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import empty_checkpoint
from langgraph.graph import END, START, StateGraph, add_messages
from pydantic import BaseModel, SecretStr
from typing_extensions import TypedDict

from midwatch.errors import FenceLost, UsageProblem
from midwatch.graph.saver import PutSizes, Saver
from midwatch.graph.serde import StateRefused
from midwatch.records.event import EventDraft
from midwatch.store.port import CheckpointRow, Store, Tx
from midwatch.store.sqlite import SqliteStore

SECRET = "sk-very-secret-0123456789"
TABLES = ("checkpoint", "checkpoint_channel", "checkpoint_item", "checkpoint_write", "event")


class Talk(TypedDict):
    messages: Annotated[list[AnyMessage], add_messages]
    kept: Any


class Account(BaseModel):
    name: str
    token: SecretStr


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the database is."""
    return tmp_path / "midwatch.db"


@pytest.fixture
def store(path: Path) -> Iterator[SqliteStore]:
    """A store in a file."""
    made = SqliteStore(path)
    yield made
    made.close()


def _take(store: Store, run: str) -> int:
    return store.write(lambda tx: tx.fences.take(run, owner="me", at_us=1, ttl_us=1))


def _counts(path: Path) -> list[int]:
    rows = sqlite3.connect(path)
    found = [int(rows.execute(f"SELECT count(*) FROM {table}").fetchone()[0]) for table in TABLES]  # noqa: S608
    rows.close()
    return found


def _graph(saver: Saver, value: Any = None) -> Any:
    graph = StateGraph(Talk)
    graph.add_node("answer", lambda state: {"messages": [HumanMessage("out")], "kept": value})
    graph.add_edge(START, "answer")
    graph.add_edge("answer", END)
    return graph.compile(checkpointer=saver)


def _config(thread: str = "t", **more: Any) -> RunnableConfig:
    return {"configurable": {"thread_id": thread, **more}}


@pytest.mark.req("SAVER-9")
def test_nothing_of_configurable_is_stored_but_ids(store: SqliteStore, path: Path) -> None:
    """A key, a base URL and a flag in `configurable` or in `metadata` of the config reach no byte of the database."""
    config = _config(api_key=SECRET, base_url="https://private.example", flag=True)
    config["metadata"] = {"note": "from-the-config"}
    graph = _graph(Saver(store))
    graph.invoke({"messages": ["in"]}, config, durability="sync")
    graph.update_state(config, {"kept": 1})
    metadata = [tuple_.metadata for tuple_ in Saver(store).list(_config())]
    store.close()

    content = b"".join(file.read_bytes() for file in path.parent.iterdir())
    for word in (SECRET, "private.example", "from-the-config", "api_key"):
        assert word.encode() not in content
    assert {"source", "step", "parents"} == {name for one in metadata for name in one}


@pytest.mark.req("SAVER-9")
def test_a_key_of_configurable_that_reaches_the_metadata_is_dropped(store: SqliteStore) -> None:
    """Metadata into which somebody copied `configurable` is stored without it; LangGraph's own keys stay."""
    config: RunnableConfig = {
        "configurable": {"thread_id": "t", "checkpoint_ns": "", "api_key": SECRET, "source": "not ours"}
    }
    metadata: Any = {"source": "loop", "step": 1, "api_key": SECRET, "score": 42}
    stored = Saver(store).put(config, empty_checkpoint(), metadata, {})
    found = Saver(store).get_tuple(stored)

    assert found is not None
    assert {"source": "loop", "step": 1, "score": 42} == found.metadata


@pytest.mark.req("SAVER-9")
@pytest.mark.parametrize(
    "value",
    [SecretStr(SECRET), {"deep": [SecretStr(SECRET)]}, Account(name="a", token=SecretStr(SECRET))],
    ids=["bare", "deep", "in a model"],
)
def test_a_secret_in_state_is_refused_by_the_name_of_its_channel(store: SqliteStore, path: Path, value: Any) -> None:
    """A `SecretStr` anywhere in a channel stops the graph with the channel's name; no byte of it is stored or shown."""
    with pytest.raises(StateRefused, match=r"channel `kept`: .*secret") as caught:
        _graph(Saver(store, types=[Account]), value).invoke({"messages": []}, _config(), durability="sync")
    store.close()

    assert SECRET not in str(caught.value)
    assert SECRET.encode() not in b"".join(file.read_bytes() for file in path.parent.iterdir())


@pytest.mark.req("SAVER-8")
def test_a_foreign_type_in_state_is_refused_by_the_name_of_its_channel(store: SqliteStore) -> None:
    """A class that the saver was not given stops the graph where it was written, with the remedy."""
    with pytest.raises(StateRefused, match=r"channel `kept`: .*Thing.*`types`"):
        _graph(Saver(store), type("Thing", (), {})()).invoke({"messages": []}, _config(), durability="sync")


@pytest.mark.req("SAVER-8")
def test_metadata_that_is_no_json_is_refused(store: SqliteStore, path: Path) -> None:
    """Metadata is plain JSON or the checkpoint is not stored."""
    config: RunnableConfig = {"configurable": {"thread_id": "t", "checkpoint_ns": ""}}
    with pytest.raises(StateRefused, match="metadata"):
        Saver(store).put(config, empty_checkpoint(), {"run_id": SecretStr(SECRET)}, {})  # type: ignore[typeddict-item]
    assert [0] * len(TABLES) == _counts(path)


@pytest.mark.req("SAVER-7")
def test_a_planted_row_is_refused_when_the_thread_is_read(store: SqliteStore) -> None:
    """A row that names `os.system` makes reading the checkpoint an error; the function is not called."""
    graph = _graph(Saver(store), {"plain": "x" * 300})
    graph.invoke({"messages": []}, _config(), durability="sync")
    row = store.read(lambda tx: tx.checkpoints.get("t", "", None))
    assert row is not None
    evil = ormsgpack.packb({"small": ormsgpack.Ext(0, ormsgpack.packb(["os", "system", "touch PLANTED"]))})
    bad = CheckpointRow(row.thread, row.ns, row.id, row.parent, row.type, evil, row.metadata, row.run, row.channels)
    store.write(lambda tx: tx.checkpoints.put(bad, []))

    with pytest.raises(StateRefused, match=r"`os.system`"):
        graph.get_state(_config())
    assert not Path("PLANTED").exists()


@pytest.mark.req("SAVER-10")
@pytest.mark.parametrize("deed", ["put", "put_writes", "prune", "delete_thread", "delete_for_runs", "copy_thread"])
def test_an_old_epoch_writes_nothing(store: SqliteStore, path: Path, deed: str) -> None:
    """After another process took the run over, every verb of the old saver raises `FenceLost` and leaves no row."""
    old = Saver(store, run="run", epoch=_take(store, "run"))
    config = old.put(
        {"configurable": {"thread_id": "t", "checkpoint_ns": ""}}, empty_checkpoint(), {"run_id": "run"}, {}
    )
    _take(store, "run")
    before = _counts(path)
    checkpoint = empty_checkpoint()
    checkpoint["channel_values"], checkpoint["channel_versions"] = {"items": ["x" * 900]}, {"items": 1}
    deeds: dict[str, Callable[[], Any]] = {
        "put": lambda: old.put(config, checkpoint, {}, {"items": 1}),
        "put_writes": lambda: old.put_writes(config, [("items", "x" * 900)], "task"),
        "prune": lambda: old.prune(["t"]),
        "delete_thread": lambda: old.delete_thread("t"),
        "delete_for_runs": lambda: old.delete_for_runs(["run"]),
        "copy_thread": lambda: old.copy_thread("t", "u"),
    }
    with pytest.raises(FenceLost):
        deeds[deed]()

    assert before == _counts(path)


@pytest.mark.req("SAVER-10")
def test_a_refused_write_is_not_remembered_as_stored(store: SqliteStore) -> None:
    """After a failed commit the saver does not build its next list on what was never stored."""
    fail = [False]

    def on_put(tx: Tx, config: RunnableConfig, checkpoint: Any, metadata: Any, sizes: PutSizes) -> None:
        if fail[0]:
            raise FenceLost("just now")

    saver = Saver(store, on_put=on_put)
    config: RunnableConfig = {"configurable": {"thread_id": "t", "checkpoint_ns": ""}}
    for at, broken in enumerate((False, True, False)):
        fail[0] = broken
        checkpoint = empty_checkpoint()
        checkpoint["channel_values"] = {"items": [f"{n}" * 90 for n in range(at + 1)]}
        checkpoint["channel_versions"] = {"items": at + 1}
        if broken:
            with pytest.raises(FenceLost):
                saver.put(config, checkpoint, {}, {"items": at + 1})
        else:
            config = saver.put(config, checkpoint, {}, {"items": at + 1})

    found = Saver(store).get_tuple(config)
    assert found is not None
    assert ["0" * 90, "1" * 90, "2" * 90] == found.checkpoint["channel_values"]["items"]


@pytest.mark.req("SAVER-10")
def test_a_saver_is_fenced_by_both_or_neither(store: SqliteStore) -> None:
    """A run without an epoch would look fenced and not be."""
    with pytest.raises(UsageProblem, match="both"):
        Saver(store, run="run")


@pytest.mark.req("SAVER-13")
def test_on_put_commits_with_the_checkpoint_or_neither_does(store: SqliteStore, path: Path) -> None:
    """The engine's event stands beside its checkpoint; when it fails, the checkpoint is not there either."""
    seen: list[PutSizes] = []

    def event(tx: Tx, config: RunnableConfig, checkpoint: Any, metadata: Any, sizes: PutSizes) -> None:
        seen.append(sizes)
        tx.ledger.append(EventDraft("node.finished", "run", 1, {"checkpoint": checkpoint["id"]}))
        if len(seen) == 2:
            raise ValueError("the engine's fault")

    saver = Saver(store, on_put=event)
    config: RunnableConfig = {"configurable": {"thread_id": "t", "checkpoint_ns": ""}}
    checkpoint = empty_checkpoint()
    checkpoint["channel_values"], checkpoint["channel_versions"] = {"big": "x" * 900}, {"big": 1}
    config = saver.put(config, checkpoint, {}, {"big": 1})
    before = _counts(path)
    with pytest.raises(ValueError, match="fault"):
        saver.put(
            config, {**empty_checkpoint(), "channel_values": {"b": ["y" * 99]}, "channel_versions": {"b": 1}}, {}, {}
        )

    assert before == _counts(path)
    assert [1, 1, 1, 0, 1] == [min(1, count) for count in before]
    assert {"big": 903} == seen[0].channels


@pytest.mark.req("SAVER-12")
def test_a_checkpoint_waits_for_the_writes_that_began_before_it(store: SqliteStore) -> None:
    """While a `put_writes` of the thread is on its way, a `put` of the same thread does not overtake it."""
    entered, go = threading.Event(), threading.Event()
    order: list[str] = []

    class Slow:
        def write(self, work: Any, *, durable: bool = False) -> Any:
            name = threading.current_thread().name
            if name == "writes":
                entered.set()
                assert go.wait(10)
            result = store.write(work, durable=durable)
            order.append(name)
            return result

    saver = Saver(Slow())  # type: ignore[arg-type]
    config: RunnableConfig = {"configurable": {"thread_id": "t", "checkpoint_ns": "", "checkpoint_id": "1"}}
    writes = threading.Thread(target=saver.put_writes, args=(config, [("n", 1)], "task"), name="writes")
    put = threading.Thread(target=saver.put, args=(config, empty_checkpoint(), {}, {}), name="put")
    writes.start()
    assert entered.wait(10)
    put.start()
    put.join(0.2)
    assert put.is_alive()
    go.set()
    writes.join(10)
    put.join(10)

    assert ["writes", "put"] == order


@pytest.mark.req("SAVER-12")
def test_on_a_loop_writes_come_before_their_checkpoint(store: SqliteStore) -> None:
    """In a graph on an event loop, each checkpoint is stored after every write of the step before it."""
    order: list[tuple[str, str]] = []

    class Watched(Saver):
        def put(self, config: RunnableConfig, *rest: Any) -> RunnableConfig:
            done = super().put(config, *rest)
            order.append(("put", str(config["configurable"].get("checkpoint_id"))))
            return done

        def put_writes(self, config: RunnableConfig, *rest: Any) -> None:
            super().put_writes(config, *rest)
            order.append(("writes", config["configurable"]["checkpoint_id"]))

    graph = StateGraph(Talk)
    for name in "abc":
        graph.add_node(name, lambda state: {"messages": [HumanMessage("x")]})
        graph.add_edge(START, name)
        graph.add_edge(name, END)
    compiled: Any = graph.compile(checkpointer=Watched(store))
    asyncio.run(compiled.ainvoke({"messages": []}, _config(), durability="sync"))

    step = next(parent for deed, parent in reversed(order) if deed == "put")
    assert [("writes", step)] * 3 + [("put", step)] == [entry for entry in order if entry[1] == step]


@pytest.mark.req("SAVER-11")
def test_twelve_threads_share_one_saver(store: SqliteStore) -> None:
    """Twelve graphs at once on one saver: each thread of conversation has its own state, step by step."""
    graph = StateGraph(Talk)
    graph.add_node("speak", lambda state: {"messages": [HumanMessage(f"{state['kept']}-{len(state['messages'])}")]})
    graph.add_edge(START, "speak")
    graph.add_conditional_edges("speak", lambda state: "speak" if len(state["messages"]) < 12 else END)
    compiled = graph.compile(checkpointer=Saver(store))
    with ThreadPoolExecutor(12) as pool:
        list(
            pool.map(
                lambda n: compiled.invoke({"messages": [], "kept": n}, {**_config(f"t{n}"), "recursion_limit": 50}),
                range(12),
            )
        )

    for n in range(12):
        found = compiled.get_state(_config(f"t{n}")).values["messages"]
        assert [f"{n}-{at}" for at in range(12)] == [message.content for message in found]


def _speak(path: str, name: str, start: Any) -> None:
    store = SqliteStore(path)
    saver = Saver(store)
    start.wait(30)
    config: RunnableConfig = {"configurable": {"thread_id": name, "checkpoint_ns": ""}}
    version = None
    for at in range(80):
        version = saver.get_next_version(version, None)
        checkpoint = empty_checkpoint()
        checkpoint["channel_values"] = {"items": [f"{name}-{n}" * 20 for n in range(at + 1)]}
        checkpoint["channel_versions"] = {"items": version}
        saver.put_writes(config | _at(config), [("items", at)], f"task-{at}")
        config = saver.put(config, checkpoint, {"step": at}, {"items": version})
    store.close()


def _at(config: RunnableConfig) -> RunnableConfig:
    return {"configurable": {"checkpoint_id": "none", **config["configurable"]}}


@pytest.mark.req("SAVER-11")
def test_two_processes_share_one_file(store: SqliteStore, path: Path) -> None:
    """Two processes that write to one file at once both end, and every checkpoint of each reads back."""
    context = multiprocessing.get_context("spawn")
    start = context.Event()
    children = [context.Process(target=_speak, args=(str(path), name, start)) for name in ("a", "b")]
    for child in children:
        child.start()
    start.set()
    for child in children:
        child.join(60)
    assert [0, 0] == [child.exitcode for child in children]

    for name in ("a", "b"):
        lengths = [len(tuple_.checkpoint["channel_values"]["items"]) for tuple_ in Saver(store).list(_config(name))]
        assert list(range(80, 0, -1)) == lengths


@pytest.mark.req("SAVER-9")
def test_the_scrubber_sees_every_value_and_nothing_by_default(store: SqliteStore) -> None:
    """A `scrub` hook changes what is stored of each value, small ones too; without one, values are stored as they are."""

    def scrub(value: object) -> object:
        return json.loads(json.dumps(value, default=str).replace(SECRET, "[redacted]"))

    for saver, expected in ((Saver(store, scrub=scrub), "[redacted]"), (Saver(store), SECRET)):
        checkpoint = empty_checkpoint()
        checkpoint["channel_values"] = {"small": SECRET, "large": {"key": SECRET, "pad": "x" * 300}, "list": [SECRET]}
        checkpoint["channel_versions"] = {"small": 1, "large": 1, "list": 1}
        config: RunnableConfig = {"configurable": {"thread_id": expected, "checkpoint_ns": ""}}
        config = saver.put(config, checkpoint, {}, checkpoint["channel_versions"])
        found = Saver(store).get_tuple(config)
        assert found is not None
        values = found.checkpoint["channel_values"]
        assert [expected, expected, [expected]] == [values["small"], values["large"]["key"], values["list"]]
