"""Deleting and copying: random courses against a naive model, and channels that keep only changes."""

from __future__ import annotations

import copy
import operator
import sqlite3
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from langchain_core.messages import HumanMessage
from langchain_core.runnables import RunnableConfig
from langgraph.channels import DeltaChannel
from langgraph.checkpoint.base import empty_checkpoint
from langgraph.graph import END, START, StateGraph
from typing_extensions import TypedDict

from midwatch.errors import StoreCorrupt, UsageProblem
from midwatch.graph.saver import Saver
from midwatch.store import checkpoints
from midwatch.store.memory import MemoryStore
from midwatch.store.sqlite import SqliteStore

ORPHAN_MANIFESTS = """
    SELECT count(*) FROM checkpoint_channel c WHERE NOT EXISTS (
        SELECT 1 FROM checkpoint p WHERE p.thread = c.thread AND p.ns = c.ns AND instr(p.channels, c.version) > 0)
"""


class Course:
    """One saver and the naive model beside it: every checkpoint's list in full, by thread and id."""

    def __init__(self, folder: str) -> None:
        self.path = Path(folder) / "midwatch.db"
        self.store = SqliteStore(self.path)
        self.saver = Saver(self.store)
        self.model: dict[str, dict[str, list[Any]]] = {"t0": {}}
        self.parents: dict[str, tuple[str | None, int | None, list[Any]]] = {"t0": (None, None, [])}
        self.runs: dict[tuple[str, str], str] = {}
        self.made = 0

    def put(self, thread: str, value: list[Any], run: str = "r0") -> None:
        parent, version, _ = self.parents[thread]
        version = self.saver.get_next_version(version, None)
        checkpoint = empty_checkpoint()
        checkpoint["channel_values"], checkpoint["channel_versions"] = {"items": value}, {"items": version}
        config: RunnableConfig = {"configurable": {"thread_id": thread, "checkpoint_ns": "", "checkpoint_id": parent}}
        self.saver.put(config, checkpoint, {"step": 1, "run_id": run}, {"items": version})
        id_ = checkpoint["id"]
        self.model[thread][id_] = copy.deepcopy(value)
        self.parents[thread] = (id_, version, value)
        self.runs[thread, id_] = run

    def check(self) -> None:
        for saver in (self.saver, Saver(self.store)):
            for thread, expected in self.model.items():
                found = {
                    tuple_.checkpoint["id"]: tuple_.checkpoint["channel_values"]["items"]
                    for tuple_ in saver.list({"configurable": {"thread_id": thread}})
                }
                assert expected == found

    def nothing_left_over(self) -> None:
        """After a deletion: every manifest is named by a checkpoint, every item by a manifest or a write."""
        rows = sqlite3.connect(self.path)
        assert (0,) == rows.execute(ORPHAN_MANIFESTS).fetchone()
        used = {
            (thread, ref)
            for thread, refs in rows.execute("SELECT thread, refs FROM checkpoint_channel")
            for ref in checkpoints._unpack(refs)
            if type(ref) is int
        }
        assert used == set(rows.execute("SELECT thread, id FROM checkpoint_item"))
        rows.close()


def _append(course: Course, thread: str, at: int, size: int) -> None:
    course.made += 1
    value = [*course.parents[thread][2], *(f"{course.made}-{n}" * (1 + 10 * (n % 2)) for n in range(size))]
    course.put(thread, value, f"r{at % 3}")


def _grow(course: Course, thread: str, at: int, size: int) -> None:
    for _ in range(10 * size):
        _append(course, thread, at, 1)


def _message(course: Course, thread: str, at: int, size: int) -> None:
    course.put(thread, [*course.parents[thread][2], HumanMessage("m" * 40 * size, id=f"{at}")], f"r{at % 3}")


def _trim(course: Course, thread: str, at: int, size: int) -> None:
    course.put(thread, course.parents[thread][2][size:], f"r{at % 3}")


def _cut(course: Course, thread: str, at: int, size: int) -> None:
    value = course.parents[thread][2]
    course.put(thread, value[: max(0, len(value) - size)], f"r{at % 3}")


def _edit(course: Course, thread: str, at: int, size: int) -> None:
    value = list(course.parents[thread][2])
    if value:
        message = value[at % len(value)]
        if isinstance(message, HumanMessage):
            message.content = "edited" * size
        else:
            value[at % len(value)] = "e" * 9 * size
    course.put(thread, value, f"r{at % 3}")


def _fork(course: Course, thread: str, at: int, size: int) -> None:
    ids = list(course.model[thread])
    if ids:
        id_ = ids[at % len(ids)]
        found = course.saver.get_tuple(
            {"configurable": {"thread_id": thread, "checkpoint_ns": "", "checkpoint_id": id_}}
        )
        assert found is not None
        version = found.checkpoint["channel_versions"]["items"]
        assert isinstance(version, int)
        course.parents[thread] = (id_, version, found.checkpoint["channel_values"]["items"])
    _append(course, thread, at, size)


def _restart(course: Course, thread: str, at: int, size: int) -> None:
    course.saver = Saver(course.store)


def _delete(course: Course, thread: str, at: int, size: int) -> None:
    gone = list(course.model[thread])[at % 5 :: size + 1]
    course.store.write(lambda tx: tx.checkpoints.delete(thread, "", gone))
    for id_ in gone:
        del course.model[thread][id_]
    course.nothing_left_over()


def _runs(course: Course, thread: str, at: int, size: int) -> None:
    gone = f"r{at % 3}"
    course.saver.delete_for_runs([gone])
    for name, kept in course.model.items():
        course.model[name] = {id_: value for id_, value in kept.items() if course.runs[name, id_] != gone}
    course.nothing_left_over()


def _prune(course: Course, thread: str, at: int, size: int) -> None:
    course.saver.prune([thread])
    kept = course.model[thread]
    course.model[thread] = {id_: kept[id_] for id_ in sorted(kept)[-1:]}
    course.nothing_left_over()


def _other_prunes(course: Course, thread: str, at: int, size: int) -> None:
    mine, course.saver = course.saver, Saver(course.store)
    _prune(course, thread, at, size)
    course.saver = mine


def _copy(course: Course, thread: str, at: int, size: int) -> None:
    target = f"t{len(course.model)}"
    course.saver.copy_thread(thread, target)
    course.model[target] = copy.deepcopy(course.model[thread])
    course.parents[target] = course.parents[thread]
    course.runs.update({(target, id_): course.runs[thread, id_] for id_ in course.model[target]})


def _drop(course: Course, thread: str, at: int, size: int) -> None:
    if len(course.model) > 1:
        course.saver.delete_thread(thread)
        course.model[thread] = {}
        course.nothing_left_over()


DEEDS: Sequence[Callable[[Course, str, int, int], None]] = (
    _append,
    _append,
    _grow,
    _message,
    _trim,
    _cut,
    _edit,
    _fork,
    _restart,
    _delete,
    _runs,
    _prune,
    _other_prunes,
    _copy,
    _drop,
)


@pytest.mark.req("SAVER-3", "SAVER-5")
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    deeds=st.lists(st.tuples(st.sampled_from(DEEDS), st.integers(0, 50), st.integers(1, 4)), min_size=1, max_size=16)
)
def test_any_course_reads_like_the_naive_model(deeds: Sequence[tuple[Callable[..., None], int, int]]) -> None:
    """Growing, trimming, editing in place, forking, restarting, deleting, pruning, copying: every survivor reads back."""
    with TemporaryDirectory() as folder:
        course = Course(folder)
        for deed, at, size in deeds:
            threads = list(course.model)
            deed(course, threads[at % len(threads)], at, size)
            course.check()
        course.store.close()


@pytest.mark.req("SAVER-5")
@pytest.mark.parametrize("keep", [0, 1, 62, 63, 64, 65, 127, 128, 150])
def test_a_survivor_deep_in_a_chain_of_links_is_rewritten(keep: int) -> None:
    """Deleting all but one checkpoint of 151, before or after a full manifest, leaves that one whole."""
    with TemporaryDirectory() as folder:
        course = Course(folder)
        for _ in range(151):
            _append(course, "t0", 0, 1)
        ids = list(course.model["t0"])
        course.store.write(lambda tx: tx.checkpoints.delete("t0", "", [id_ for id_ in ids if id_ != ids[keep]]))
        course.model["t0"] = {ids[keep]: course.model["t0"][ids[keep]]}

        course.check()
        course.nothing_left_over()
        assert keep + 1 == len(course.model["t0"][ids[keep]])
        course.store.close()


@pytest.mark.req("SAVER-5")
def test_pruned_by_another_process_the_next_checkpoint_is_stored_whole() -> None:
    """A saver whose remembered base was deleted behind its back stores the list in full, and unchanged channels too."""
    store = MemoryStore()
    mine = Saver(store)
    config: RunnableConfig = {"configurable": {"thread_id": "t", "checkpoint_ns": ""}}
    checkpoint = empty_checkpoint()
    checkpoint["channel_values"] = {"items": ["a" * 90], "big": {"k": "v" * 500}}
    checkpoint["channel_versions"] = {"items": 1, "big": 1}
    config = mine.put(config, checkpoint, {}, {"items": 1, "big": 1})
    Saver(store).delete_thread("t")
    later = empty_checkpoint()
    later["channel_values"] = {"items": ["a" * 90, "b" * 90], "big": {"k": "v" * 500}}
    later["channel_versions"] = {"items": 2, "big": 1}
    config = mine.put(config, later, {}, {"items": 2})

    found = Saver(store).get_tuple(config)
    assert found is not None
    assert later["channel_values"] == found.checkpoint["channel_values"]
    store.close()


@pytest.mark.req("SAVER-5", "SAVER-15")
def test_an_unchanged_channel_that_was_deleted_meanwhile_is_stored_again() -> None:
    """A checkpoint never names a channel version that is not there: what another process deleted is sent again."""
    store = MemoryStore()
    mine = Saver(store)
    config: RunnableConfig = {"configurable": {"thread_id": "t", "checkpoint_ns": ""}}
    big = {"k": "v" * 500}
    for step in range(2):
        checkpoint = empty_checkpoint()
        checkpoint["channel_values"], checkpoint["channel_versions"] = (
            {"big": big, "n": step},
            {"big": 1, "n": step + 1},
        )
        config = mine.put(config, checkpoint, {}, {"big": 1, "n": 1} if step == 0 else {"n": 2})
        if step == 0:
            Saver(store).delete_thread("t")

    found = Saver(store).get_tuple(config)
    assert found is not None
    assert {"big": big, "n": 1} == found.checkpoint["channel_values"]
    store.close()


@pytest.mark.req("SAVER-5")
def test_a_copy_goes_only_to_a_new_thread_and_stands_alone() -> None:
    """A thread that has checkpoints is not copied over; a copy outlives its source."""
    with TemporaryDirectory() as folder:
        course = Course(folder)
        for _ in range(5):
            _append(course, "t0", 0, 3)
        course.saver.put_writes(
            {"configurable": {"thread_id": "t0", "checkpoint_ns": "", "checkpoint_id": course.parents["t0"][0]}},
            [("items", ["w" * 900])],
            "task",
        )
        _copy(course, "t0", 0, 1)
        with pytest.raises(UsageProblem, match="already has checkpoints"):
            course.saver.copy_thread("t0", "t1")
        course.saver.delete_thread("t0")
        course.model["t0"] = {}

        course.check()
        found = course.saver.get_tuple({"configurable": {"thread_id": "t1"}})
        assert found is not None
        assert [("task", "items", ["w" * 900])] == found.pending_writes
        course.store.close()


class Delta(TypedDict):
    log: Annotated[
        list[str], DeltaChannel(lambda state, writes: [*state, *(x for w in writes for x in w)], snapshot_frequency=5)
    ]
    n: Annotated[int, operator.add]


def _delta_graph(saver: Saver, stop: int) -> Any:
    graph = StateGraph(Delta)
    graph.add_node("step", lambda state: {"log": [f"line {state['n']}"], "n": 1})
    graph.add_edge(START, "step")
    graph.add_conditional_edges("step", lambda state: "step" if state["n"] % stop else END)
    return graph.compile(checkpointer=saver)


def _config(thread: str = "t", **more: Any) -> RunnableConfig:
    return {"configurable": {"thread_id": thread}, "recursion_limit": 100, **more}  # type: ignore[typeddict-item]


@pytest.mark.req("SAVER-6")
@pytest.mark.parametrize("steps", [3, 4, 5, 6, 12, 13])
def test_pruning_keeps_what_a_delta_channel_builds_on(steps: int) -> None:
    """After `keep_latest` the channel still reads as before, and can go on; only its last stretch of ancestors is kept."""
    store = MemoryStore()
    graph = _delta_graph(Saver(store), steps)
    graph.invoke({"log": [], "n": 0}, _config(), durability="sync")
    Saver(store).prune(["t"])
    again = _delta_graph(Saver(store), steps)

    assert [f"line {n}" for n in range(steps)] == again.get_state(_config()).values["log"]
    assert len(list(Saver(store).list(_config()))) <= 7
    again.invoke({"log": ["more"], "n": 0}, _config(), durability="sync")
    assert "more" in _delta_graph(Saver(store), steps).get_state(_config()).values["log"]
    store.close()


@pytest.mark.req("SAVER-6")
def test_deleting_a_run_that_a_later_one_builds_on_is_refused() -> None:
    """`delete_for_runs` deletes nothing when a surviving delta channel would lose its writes; with the later run it does."""
    store = MemoryStore()
    for run, message in (("first", "a"), ("second", "b")):
        epoch = store.write(lambda tx, run=run: tx.fences.take(run, owner="o", at_us=1, ttl_us=1))  # type: ignore[misc]
        graph = _delta_graph(Saver(store, run=run, epoch=epoch), 2)
        graph.invoke({"log": [message], "n": 0}, _config(), durability="sync")
    before = list(Saver(store).list(_config()))
    with pytest.raises(UsageProblem, match="builds on these runs"):
        Saver(store).delete_for_runs(["first"])

    assert len(before) == len(list(Saver(store).list(_config())))
    Saver(store).delete_for_runs(["first", "second"])
    assert [] == list(Saver(store).list(_config()))
    store.close()


@pytest.mark.req("SAVER-6", "SAVER-15")
def test_a_gap_under_a_delta_channel_is_an_error() -> None:
    """When rows that the channel needs are missing all the same, reading it fails instead of giving an empty list."""
    store = MemoryStore()
    graph = _delta_graph(Saver(store), 3)
    graph.invoke({"log": [], "n": 0}, _config(), durability="sync")
    rows = [tuple_.checkpoint["id"] for tuple_ in Saver(store).list(_config())]
    store.write(lambda tx: tx.checkpoints.delete("t", "", rows[1:]))

    with pytest.raises(StoreCorrupt, match="`log` builds on"):
        graph.get_state(_config())
    store.close()
