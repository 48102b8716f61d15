"""The saver: LangGraph's checkpoints in Midwatch's store, one transaction a call.

In:   what LangGraph's loop hands to a `BaseCheckpointSaver`; the store's port; optionally the run and epoch that may
      write.
Out:  checkpoint tuples; `FenceLost` when another process has taken the run over; `StateRefused` for what may not be
      stored.
May import: store.port, graph.ancestry, graph.inline, graph.lists, graph.serde, errors. Must not know: engine,
concrete stores, agents.

Linear: a checkpoint holds versions and small plain values; every other value is a channel version of its own, and a
list that grew is stored as "the version before, and these items". Which first items are unchanged is known from the
list as it was last stored (`graph.lists`); without that memory every item is sent and the store recognises it by
content.
Order: a `put` waits for the `put_writes` of its thread that began before it, so that a checkpoint is never durable
before writes that led to it. On an event loop LangGraph starts them in order, and each runs to its end at once. In
its thread pool a write that no thread has picked up yet can still come after; the checkpoint then holds its result
already.
Secrets: of `configurable` nothing but the thread and checkpoint ids is stored (LangGraph's own savers copy every
scalar).
"""

from __future__ import annotations

import copy
import random
import threading
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final, cast

import orjson
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import (
    WRITES_IDX_MAP,
    ChannelVersions,
    Checkpoint,
    CheckpointMetadata,
    CheckpointTuple,
    DeltaChannelHistory,
)
from langgraph.checkpoint.base import PendingWrite as GraphWrite
from langgraph.checkpoint.serde.types import _DeltaSnapshot

from midwatch.errors import NotFound, StoreCorrupt, UsageProblem
from midwatch.graph.ancestry import COUNTERS, History, history, needed
from midwatch.graph.inline import InlineSaver
from midwatch.graph.lists import Known, Memory, Stored, compare, known
from midwatch.graph.serde import StateRefused, StrictSerializer
from midwatch.store.port import ChannelWrite, CheckpointRow, PendingWrite, Store, Tx

__all__ = ["OnPut", "PutSizes", "Saver"]

_STRIPES: Final = 64
_SHORT: Final = 64
_SMALL: Final = frozenset({type(None), bool, float})
_OWN: Final = frozenset({"source", "step", "parents", "run_id", COUNTERS})
_RANDOM_BITS: Final = 32

_Line = tuple[str, str]
_Channels = Sequence[tuple[str, str, str, Sequence[tuple[str, bytes]]]]  # name, version, kind, items
_Raw = tuple[CheckpointRow, _Channels, Sequence[PendingWrite]]


@dataclass(frozen=True, slots=True)
class PutSizes:
    """How much one `put` stores, before compression and before what is stored already is recognised.

    Attributes:
        checkpoint: bytes of the checkpoint without channel values.
        channels: bytes of new items per channel that is new in it.
    """

    checkpoint: int
    channels: Mapping[str, int]


OnPut = Callable[[Tx, RunnableConfig, Checkpoint, CheckpointMetadata, PutSizes], None]
"""Runs in the transaction of each `put`, perhaps on another thread; must touch only its `Tx`, and must not block."""


@dataclass(slots=True)
class _Plan:
    """What one `put` will write, and what to remember once it is committed."""

    row: CheckpointRow
    channels: list[ChannelWrite] = field(default_factory=list)
    stored: dict[str, str] = field(default_factory=dict)
    lists: dict[str, Known] = field(default_factory=dict)


class Saver(InlineSaver):
    """Checkpoints in a Midwatch store.

    Args:
        store: where to; may be shared by any number of savers, threads and processes.
        run, epoch: when given, every write checks in its own transaction that this epoch is the run's newest.
        types: the user's classes that state may hold (`graph.serde.types_of` collects them from a state schema).
        on_put: more to write in the transaction of each checkpoint.
        scrub: applied to every value before it is encoded, and to nothing when None. The engine replaces credentials
            where they come in, so that model, state and ledger see the same bytes; this is for foreign graphs.
        stamp: kept in the metadata of every checkpoint under `midwatch`: the digests of what it was made under.

    Errors: `FenceLost` (stop the segment), `StateRefused` (the graph's author), `StoreError` (the run stops).
    """

    serde: StrictSerializer

    def __init__(
        self,
        store: Store,
        *,
        run: str | None = None,
        epoch: int | None = None,
        types: Iterable[type] = (),
        on_put: OnPut | None = None,
        scrub: Callable[[object], object] | None = None,
        stamp: Mapping[str, str] | None = None,
    ) -> None:
        if (run is None) != (epoch is None):
            raise UsageProblem("a saver is fenced by both `run` and `epoch`, or by neither")
        super().__init__(serde=StrictSerializer(types))
        self._store, self._run, self._epoch = store, run, epoch
        self._on_put, self._scrub, self._stamp = on_put, scrub, stamp
        self._memory = Memory()
        # Striped by line, so that their number stays bounded; two lines that share one only wait for each other.
        self._order = tuple(threading.Lock() for _ in range(_STRIPES))

    # ------------------------------------------------------------------------------------------------ writing

    def put(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> RunnableConfig:
        """Store a checkpoint and the channel versions that are new in it, in one transaction."""
        conf = config["configurable"]
        line = thread, ns = str(conf["thread_id"]), conf.get("checkpoint_ns", "")
        with self._order[hash(line) % _STRIPES]:
            memory = self._memory.line(line)
            plan = self._plan(line, conf, checkpoint, metadata, new_versions, memory)
            try:
                self._commit(plan, config, checkpoint, metadata)
            except NotFound:
                # Another process pruned a version that this checkpoint was to name or to build on.
                plan = self._plan(line, conf, checkpoint, metadata, new_versions, Stored())
                self._commit(plan, config, checkpoint, metadata)
            memory.versions, memory.lists = plan.stored, plan.lists
        return {"configurable": {"thread_id": thread, "checkpoint_ns": ns, "checkpoint_id": checkpoint["id"]}}

    def _commit(
        self, plan: _Plan, config: RunnableConfig, checkpoint: Checkpoint, metadata: CheckpointMetadata
    ) -> None:
        on_put = self._on_put
        sizes = None
        if on_put is not None:
            channels = {write.channel: sum(len(body) for _, body in write.items) for write in plan.channels}
            sizes = PutSizes(len(plan.row.body), channels)

        def work(tx: Tx) -> None:
            self._check(tx)
            tx.checkpoints.put(plan.row, plan.channels)
            if on_put is not None and sizes is not None:
                on_put(tx, config, checkpoint, metadata, sizes)

        self._store.write(work)

    def _check(self, tx: Tx) -> None:
        if self._run is not None and self._epoch is not None:
            tx.fences.check(self._run, self._epoch)

    def _plan(
        self,
        line: _Line,
        conf: Mapping[str, Any],
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
        memory: Stored,
    ) -> _Plan:
        """Decide for each value whether it stands in the checkpoint, is stored already, or is a new channel version."""
        versions = checkpoint["channel_versions"]
        small: dict[str, Any] = {}
        plan = _Plan(cast("CheckpointRow", None))
        for name, value in checkpoint["channel_values"].items():
            if name not in versions:
                continue
            if self._scrub is None and _is_small(value):
                small[name] = value
                continue
            version = str(versions[name])
            plan.stored[name] = version
            if name in new_versions or memory.versions.get(name) != version:
                plan.channels.append(self._channel(name, version, value, memory, plan))
            elif name in memory.lists:
                plan.lists[name] = memory.lists[name]
        body = {name: value for name, value in checkpoint.items() if name not in {"channel_values", "id"}}
        body["small"] = small
        packed = self._encode("checkpoint", body, scrub=False)
        plan.row = self._row(line, conf, checkpoint["id"], packed, metadata, tuple(plan.stored.items()))
        return plan

    def _row(
        self,
        line: _Line,
        conf: Mapping[str, Any],
        id_: str,
        packed: tuple[str, bytes],
        metadata: CheckpointMetadata,
        channels: tuple[tuple[str, str], ...],
    ) -> CheckpointRow:
        kept: dict[str, Any] = {name: value for name, value in metadata.items() if name in _OWN or name not in conf}
        if self._run is not None:
            kept.setdefault("run_id", self._run)
        if self._stamp is not None:
            kept["midwatch"] = dict(self._stamp)
        try:
            encoded = orjson.dumps(kept, option=orjson.OPT_NON_STR_KEYS)
        except TypeError as error:
            raise StateRefused(f"the metadata of a checkpoint must be plain JSON ({str(error).lower()})") from error
        run = kept.get("run_id")
        parent = conf.get("checkpoint_id")
        return CheckpointRow(*line, id_, parent, *packed, encoded, None if run is None else str(run), channels)

    def _channel(self, name: str, version: str, value: Any, memory: Stored, plan: _Plan) -> ChannelWrite:
        kind = "list" if type(value) is list else "whole"
        if type(value) is _DeltaSnapshot and type(value.value) is list:
            kind, value = "snapshot", value.value
        if kind == "whole":
            return ChannelWrite(name, version, kind, (self._encode(name, value),))
        base = memory.lists.get(name)
        if base is not None and base.version == version:
            base = None  # stored again under the same version: it cannot be its own base
        keep, items, now = compare(base, version, value, lambda item: self._encode(name, item))
        plan.lists[name] = now
        parent = base.version if base is not None and keep else None
        return ChannelWrite(name, version, kind, tuple(items), parent, keep if parent is not None else 0)

    def _encode(self, channel: str, value: Any, *, scrub: bool = True) -> tuple[str, bytes]:
        if scrub and self._scrub is not None:
            value = self._scrub(value)
        try:
            return self.serde.dumps_typed(value)
        except StateRefused as error:
            raise StateRefused(f"channel `{channel}`: {error}") from error

    def _decode(self, channel: str, item: tuple[str, bytes]) -> Any:
        try:
            return self.serde.loads_typed(item)
        except StateRefused as error:
            raise StateRefused(f"channel `{channel}`: {error}") from error

    def put_writes(
        self, config: RunnableConfig, writes: Sequence[tuple[str, Any]], task_id: str, task_path: str = ""
    ) -> None:
        """Store a task's writes, in one transaction."""
        conf = config["configurable"]
        line = thread, ns = str(conf["thread_id"]), conf.get("checkpoint_ns", "")
        checkpoint = conf["checkpoint_id"]
        with self._order[hash(line) % _STRIPES]:
            replace = all(channel in WRITES_IDX_MAP for channel, _ in writes)
            rows = [
                PendingWrite(task_id, WRITES_IDX_MAP.get(name, index), name, *self._encode(name, value), task_path)
                for index, (name, value) in enumerate(writes)
            ]

            def work(tx: Tx) -> None:
                self._check(tx)
                tx.checkpoints.put_writes(thread, ns, checkpoint, rows, replace=replace)

            self._store.write(work)

    # ------------------------------------------------------------------------------------------------ reading

    def get_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        """Read the checkpoint that `config` names, or the newest of its thread and namespace."""
        conf = config["configurable"]
        thread, ns, id_ = str(conf["thread_id"]), conf.get("checkpoint_ns", ""), conf.get("checkpoint_id")
        raw = self._store.read(partial(_fetch, thread=thread, ns=ns, id_=id_ or None))
        return None if raw is None else self._tuple(raw, remember=True)

    def _tuple(self, raw: _Raw, *, remember: bool = False) -> CheckpointTuple:
        row, channels, writes = raw
        values, lists = self._values(channels)
        if remember:
            self._memory.read((row.thread, row.ns), row.channels, lists)
        body = self._body(row)
        checkpoint = {"id": row.id, **{name: value for name, value in body.items() if name != "small"}}
        checkpoint["channel_values"] = {**body["small"], **values}
        return CheckpointTuple(
            config=_config(row.thread, row.ns, row.id),
            checkpoint=cast("Checkpoint", checkpoint),
            metadata=cast("CheckpointMetadata", orjson.loads(row.metadata)),
            parent_config=_config(row.thread, row.ns, row.parent) if row.parent else None,
            pending_writes=[self._write(write) for write in writes],
        )

    def _write(self, write: PendingWrite) -> GraphWrite:
        return write.task, write.channel, self._decode(write.channel, (write.type, write.body))

    def _body(self, row: CheckpointRow) -> Mapping[str, Any]:
        return cast("Mapping[str, Any]", self._decode("checkpoint", (row.type, row.body)))

    def _values(self, channels: _Channels) -> tuple[dict[str, Any], dict[str, Known]]:
        """Decode the values, and say what is known of the lists among them, so that the next write builds on them."""
        values: dict[str, Any] = {}
        lists: dict[str, Known] = {}
        for name, version, kind, items in channels:
            if kind == "whole":
                values[name] = self._decode(name, items[0])
                continue
            made = [self._decode(name, item) for item in items]
            values[name] = made if kind == "list" else _DeltaSnapshot(made)
            lists[name] = known(version, made, items)
        return values, lists

    def list(
        self,
        config: RunnableConfig | None,
        *,
        filter: dict[str, Any] | None = None,  # noqa: A002 - LangGraph's name
        before: RunnableConfig | None = None,
        limit: int | None = None,
    ) -> Iterator[CheckpointTuple]:
        """Read checkpoints, newest first. Each is a snapshot of its own; one deleted meanwhile is left out."""
        conf = config["configurable"] if config else {}
        thread, ns, only = conf.get("thread_id"), conf.get("checkpoint_ns"), conf.get("checkpoint_id")
        bound = before["configurable"].get("checkpoint_id") if before else None
        thread = None if thread is None else str(thread)
        at_once = limit if not filter and not only else None
        rows = self._store.read(lambda tx: tx.checkpoints.list(thread, ns, before=bound, limit=at_once))
        left = len(rows) if limit is None else limit
        for row in rows:
            if left <= 0:
                return
            if (only and row.id != only) or (filter and not _fits(row, filter)):
                continue
            raw = self._store.read(partial(_fetch, thread=row.thread, ns=row.ns, id_=row.id))
            if raw is not None:
                left -= 1
                yield self._tuple(raw)

    def get_delta_channel_history(
        self, *, config: RunnableConfig, channels: Sequence[str]
    ) -> Mapping[str, DeltaChannelHistory]:
        """Read each channel's writes since its last full value; a gap is `StoreCorrupt`, never "empty"."""
        conf = config["configurable"]
        thread, ns, id_ = str(conf["thread_id"]), conf.get("checkpoint_ns", ""), conf.get("checkpoint_id")

        def work(tx: Tx) -> dict[str, History]:
            target = tx.checkpoints.get(thread, ns, id_ or None)
            return {} if target is None else history(tx, target, channels, self._body)

        if not channels:
            return {}
        found = self._store.read(work)
        return {name: self._history(name, found.get(name, History())) for name in channels}

    def _history(self, name: str, one: History) -> DeltaChannelHistory:
        result: DeltaChannelHistory = {"writes": [self._write(write) for write in one.writes]}
        if one.plain:
            result["seed"] = one.plain[0]
        elif one.stored is not None:
            result["seed"] = self._values([(name, "", *one.stored)])[0][name]
        return result

    def get_next_version(self, current: int | None, channel: None) -> int:
        """Count in the high bits; the low ones are random, so that two forks do not share a version."""
        count = 0 if current is None else current >> _RANDOM_BITS
        return ((count + 1) << _RANDOM_BITS) | random.getrandbits(_RANDOM_BITS)

    # ------------------------------------------------------------------------------------------------ deleting

    def delete_thread(self, thread_id: str) -> None:
        """Remove everything of a thread."""

        def work(tx: Tx) -> None:
            self._check(tx)
            tx.checkpoints.delete_thread(str(thread_id))

        self._store.write(work)
        self._memory.forget(str(thread_id))

    def delete_for_runs(self, run_ids: Sequence[str]) -> None:
        """Remove the checkpoints and writes of these runs, on every thread.

        Raises:
            UsageProblem: a later run's delta channel builds on one of them; nothing is deleted.
        """

        def work(tx: Tx) -> None:
            self._check(tx)
            doomed: dict[_Line, set[str]] = {}
            for run in run_ids:
                for row in tx.checkpoints.list(None, None, run=str(run)):
                    doomed.setdefault((row.thread, row.ns), set()).add(row.id)
            for line, ids in doomed.items():
                rows = {row.id: row for row in tx.checkpoints.list(*line)}
                for row in rows.values():
                    if row.id not in ids and ids.intersection(needed(rows, row, self._body)):
                        raise UsageProblem(
                            f"checkpoint `{row.id}` of thread `{row.thread}` builds on these runs by a delta channel; "
                            "delete its run too, or the thread"
                        )
                tx.checkpoints.delete(*line, ids)

        if run_ids:
            self._store.write(work)
            self._memory.forget()

    def prune(self, thread_ids: Sequence[str], *, strategy: str = "keep_latest") -> None:
        """Shorten threads: `keep_latest` keeps the newest checkpoint of each namespace, `delete` keeps nothing.

        Ancestors that the newest one cannot be read without (delta channels, up to their last full value) are kept too.
        """
        if strategy not in {"keep_latest", "delete"}:
            raise UsageProblem(f"`{strategy}` is no way to prune; use `keep_latest` or `delete`")
        for thread in map(str, thread_ids):
            if strategy == "delete":
                self.delete_thread(thread)
            else:
                self._store.write(partial(self._keep_latest, thread=thread))
                self._memory.forget(thread)

    def _keep_latest(self, tx: Tx, thread: str) -> None:
        self._check(tx)
        lines: dict[str, dict[str, CheckpointRow]] = {}
        for row in tx.checkpoints.list(thread, None):
            lines.setdefault(row.ns, {})[row.id] = row
        for ns, rows in lines.items():
            newest = next(iter(rows.values()))
            keep = {newest.id, *needed(rows, newest, self._body)}
            tx.checkpoints.delete(thread, ns, [id_ for id_ in rows if id_ not in keep])

    def copy_thread(self, source_thread_id: str, target_thread_id: str) -> None:
        """Copy all checkpoints and writes of a thread to a new one; `UsageProblem` when the new one has checkpoints."""

        def work(tx: Tx) -> None:
            self._check(tx)
            tx.checkpoints.copy_thread(str(source_thread_id), str(target_thread_id))

        self._store.write(work)

    def with_allowlist(self, extra_allowlist: Collection[tuple[str, ...]]) -> Saver:
        """Give a saver on the same store whose serialiser also knows these classes."""
        serde = self.serde.with_msgpack_allowlist(extra_allowlist)
        if serde is self.serde:
            return self
        clone = copy.copy(self)
        clone.serde = serde
        return clone


def _is_small(value: object) -> bool:
    cls = type(value)
    if isinstance(value, str):
        return cls is str and len(value) <= _SHORT
    if cls is int and isinstance(value, int):
        return -(1 << 63) <= value < 1 << 63
    return cls in _SMALL


def _config(thread: str, ns: str, id_: str) -> RunnableConfig:
    return {"configurable": {"thread_id": thread, "checkpoint_ns": ns, "checkpoint_id": id_}}


def _fits(row: CheckpointRow, wanted: Mapping[str, Any]) -> bool:
    metadata: dict[str, Any] = orjson.loads(row.metadata)
    return all(name in metadata and metadata[name] == value for name, value in wanted.items())


def _fetch(tx: Tx, thread: str, ns: str, id_: str | None) -> _Raw | None:
    """Read one checkpoint, its channels and its writes, undecoded, from one snapshot."""
    row = tx.checkpoints.get(thread, ns, id_)
    if row is None:
        return None
    channels = []
    for name, version in row.channels:
        found = tx.checkpoints.channel(thread, ns, name, version)
        if found is None:
            raise StoreCorrupt(
                f"channel `{name}` of checkpoint `{row.id}` is missing; restore a backup of the database"
            )
        channels.append((name, version, *found))
    return row, channels, tx.checkpoints.writes(thread, ns, row.id)
