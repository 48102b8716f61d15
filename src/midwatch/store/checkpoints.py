"""Checkpoints: state of graphs in tables, linear in a growing list.

In:   checkpoints without values, encoded channel versions and pending writes (`store.port`: `CheckpointRow`,
      `ChannelWrite`, `PendingWrite`); a `Connection` inside its transaction.
Out:  the same rows back; `NotFound` when a list builds on a version that is gone; `StoreCorrupt` for damaged rows.
May import: store.port, store.connection, errors. Must not know: LangGraph, serialisers, who is running.

How a channel is kept. A version is a *manifest*: references to items in order. A list's manifest names its parent
version, how many of the parent's first items it keeps, and the items after these; every 64th is written in full, so
that a read follows at most 63 links. An item longer than `INLINE` bytes is a row of its own, stored once a thread by
content, compressed when that pays; a shorter one stands in the manifest itself. References are integers (row ids),
bytes (an inline msgpack value) or `[type, bytes]`, packed as msgpack. Why once a *thread* and not once a store: a
thread can then be deleted, copied or archived whole without looking at any other.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Final

import ormsgpack
import zstandard

from midwatch.errors import NotFound, StoreCorrupt, UsageProblem
from midwatch.store.connection import Connection
from midwatch.store.port import ChannelWrite, CheckpointRow, PendingWrite

if TYPE_CHECKING:
    from sqlalchemy import MetaData

__all__ = ["INLINE", "LINKS", "SqlCheckpoints", "checkpoint_tables"]

INLINE: Final = 24
"""Bytes up to which a list's item stands in the manifest: no longer than the row and index entry it saves."""
LINKS: Final = 64
"""A manifest is full at least this often."""
_WHOLE: Final = 256
_BODY: Final = 512
_COMPRESS: Final = 512
_CHUNK: Final = 500

_Item = tuple[str, bytes]
_Ref = Any  # int | bytes | [str, bytes]


def checkpoint_tables(metadata: MetaData) -> None:
    """Define this module's tables in `metadata`."""
    import sqlalchemy as sa  # noqa: PLC0415 - heavy, and only needed where tables are made or judged

    text, blob, whole = sa.Text, sa.LargeBinary, sa.Integer
    sa.Table(
        "checkpoint",
        metadata,
        sa.Column("thread", text, primary_key=True),
        sa.Column("ns", text, primary_key=True),
        sa.Column("id", text, primary_key=True),
        sa.Column("parent", text),
        sa.Column("run", text),
        sa.Column("type", text, nullable=False),
        sa.Column("codec", whole, nullable=False),
        sa.Column("body", blob, nullable=False),
        sa.Column("metadata", blob, nullable=False),
        sa.Column("channels", blob, nullable=False),
        sqlite_with_rowid=False,
    )
    sa.Table(
        "checkpoint_channel",
        metadata,
        sa.Column("thread", text, primary_key=True),
        sa.Column("ns", text, primary_key=True),
        sa.Column("channel", text, primary_key=True),
        sa.Column("version", text, primary_key=True),
        sa.Column("kind", text, nullable=False),
        sa.Column("depth", whole, nullable=False),
        sa.Column("parent", text),
        sa.Column("keep", whole, nullable=False),
        sa.Column("length", whole, nullable=False),
        sa.Column("refs", blob, nullable=False),
        sqlite_with_rowid=False,
    )
    _item_tables(metadata)


def _item_tables(metadata: MetaData) -> None:
    import sqlalchemy as sa  # noqa: PLC0415 - as above

    text, blob, whole = sa.Text, sa.LargeBinary, sa.Integer
    sa.Table(
        "checkpoint_item",
        metadata,
        sa.Column("id", sa.BigInteger().with_variant(whole(), "sqlite"), primary_key=True),
        sa.Column("thread", text, nullable=False),
        sa.Column("digest", blob, nullable=False),
        sa.Column("type", text, nullable=False),
        sa.Column("codec", whole, nullable=False),
        sa.Column("body", blob, nullable=False),
        sa.Index("checkpoint_item_key", "thread", "digest", unique=True),
    )
    sa.Table(
        "checkpoint_write",
        metadata,
        sa.Column("thread", text, primary_key=True),
        sa.Column("ns", text, primary_key=True),
        sa.Column("checkpoint", text, primary_key=True),
        sa.Column("task", text, primary_key=True),
        sa.Column("idx", whole, primary_key=True),
        sa.Column("channel", text, nullable=False),
        sa.Column("path", text, nullable=False),
        sa.Column("type", text, nullable=False),
        sa.Column("body", blob),
        sa.Column("item", whole),
        sqlite_with_rowid=False,
    )


_COLUMNS: Final = "thread, ns, id, parent, run, type, codec, body, metadata, channels"
_PUT: Final = (
    f"INSERT INTO checkpoint ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?) "  # noqa: S608
    "ON CONFLICT (thread, ns, id) DO UPDATE SET parent = excluded.parent, run = excluded.run, "
    "type = excluded.type, codec = excluded.codec, body = excluded.body, "
    "metadata = excluded.metadata, channels = excluded.channels"
)
_GET: Final = f"SELECT {_COLUMNS} FROM checkpoint WHERE thread = ? AND ns = ? AND id = ?"  # noqa: S608
_LATEST: Final = f"SELECT {_COLUMNS} FROM checkpoint WHERE thread = ? AND ns = ? ORDER BY id DESC LIMIT 1"  # noqa: S608
_LIST: Final = f"SELECT {_COLUMNS} FROM checkpoint WHERE "  # noqa: S608
_PUT_CHANNEL: Final = (
    "INSERT INTO checkpoint_channel (thread, ns, channel, version, kind, depth, parent, keep, length, refs) "
    "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING"
)
_SET_CHANNEL: Final = (
    "UPDATE checkpoint_channel SET kind = ?, depth = ?, parent = ?, keep = ?, length = ?, refs = ? "
    "WHERE thread = ? AND ns = ? AND channel = ? AND version = ?"
)
_CHANNEL: Final = (
    "SELECT kind, depth, parent, keep, length, refs FROM checkpoint_channel "
    "WHERE thread = ? AND ns = ? AND channel = ? AND version = ?"
)
_EXISTS: Final = "SELECT 1 FROM checkpoint_channel WHERE thread = ? AND ns = ? AND channel = ? AND version = ?"
_CHILDREN: Final = (
    "SELECT version FROM checkpoint_channel WHERE thread = ? AND ns = ? AND channel = ? AND parent = ? ORDER BY version"
)
_FIND_ITEM: Final = "SELECT id FROM checkpoint_item WHERE thread = ? AND digest = ?"
_PUT_ITEM: Final = "INSERT INTO checkpoint_item (thread, digest, type, codec, body) VALUES (?, ?, ?, ?, ?) RETURNING id"
_WRITE: Final = (
    "INSERT INTO checkpoint_write (thread, ns, checkpoint, task, idx, channel, path, type, body, item) "
    "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT "
)
_KEPT: Final = _WRITE + "DO NOTHING"
_REPLACED: Final = _WRITE + (
    "(thread, ns, checkpoint, task, idx) DO UPDATE SET channel = excluded.channel, path = excluded.path, "
    "type = excluded.type, body = excluded.body, item = excluded.item"
)
_WRITES: Final = (
    "SELECT task, idx, channel, type, body, item, path FROM checkpoint_write "
    "WHERE thread = ? AND ns = ? AND checkpoint = ? ORDER BY path, task, idx"
)

_local = threading.local()


def _shrink(body: bytes) -> tuple[int, bytes]:
    """Give (codec, bytes): 1 and zstandard when that saves an eighth, else 0 and the bytes themselves."""
    if len(body) <= _COMPRESS:
        return 0, body
    packer = getattr(_local, "packer", None)
    if packer is None:  # a compressor may not be shared by threads
        packer = _local.packer = zstandard.ZstdCompressor(level=1, write_checksum=False)
    small: bytes = packer.compress(body)
    return (1, small) if len(small) < len(body) * 7 // 8 else (0, body)


def _grow(codec: int, body: bytes) -> bytes:
    if codec == 0:
        return body
    unpacker = getattr(_local, "unpacker", None)
    if unpacker is None:
        unpacker = _local.unpacker = zstandard.ZstdDecompressor()
    try:
        grown: bytes = unpacker.decompress(body)
    except zstandard.ZstdError as error:
        raise StoreCorrupt("a stored body cannot be decompressed; restore the database from a backup") from error
    return grown


def _digest(kind: str, body: bytes) -> bytes:
    # 160 bits: an agent chooses the content, and must not be able to make two items that count as one.
    return hashlib.sha256(b"%b\0%b" % (kind.encode(), body)).digest()[:20]


def _row(raw: Sequence[Any]) -> CheckpointRow:
    thread, ns, id_, parent, run, type_, codec, body, metadata, channels = raw
    named = tuple((name, version) for name, version in _unpack(channels))
    return CheckpointRow(thread, ns, id_, parent, type_, _grow(codec, body), metadata, run, named)


def _pack(value: Any) -> bytes:
    return ormsgpack.packb(value)


def _unpack(body: bytes) -> Any:
    try:
        return ormsgpack.unpackb(body)
    except ValueError as error:
        raise StoreCorrupt("a checkpoint's references are damaged; restore the database from a backup") from error


def _chunks(values: Sequence[Any]) -> Iterator[Sequence[Any]]:
    for start in range(0, len(values), _CHUNK):
        yield values[start : start + _CHUNK]


def _marks(values: Sequence[Any]) -> str:
    return ", ".join("?" * len(values))


class SqlCheckpoints:
    """`store.port.Checkpoints` over a DBAPI connection. Every method runs inside the caller's transaction."""

    __slots__ = ("_sql",)

    def __init__(self, connection: Connection) -> None:
        self._sql = connection

    def put(self, row: CheckpointRow, channels: Sequence[ChannelWrite]) -> None:
        """Insert or replace a checkpoint with the channel versions that are new in it.

        Raises:
            NotFound: a version that it names, or that a list builds on, was deleted; the saver sends all whole.
        """
        for write in channels:
            self._put_channel(row.thread, row.ns, write)
        if len(row.channels) > len(channels):
            new = {write.channel for write in channels}
            for name, version in row.channels:
                key = (row.thread, row.ns, name, version)
                if name not in new and self._sql.execute(_EXISTS, key).fetchone() is None:
                    raise NotFound(f"version `{version}` of channel `{name}` is gone; store the channel whole")
        codec, body = _shrink(row.body)
        named = _pack(row.channels)
        values = (row.thread, row.ns, row.id, row.parent, row.run, row.type, codec, body, row.metadata, named)
        self._sql.execute(_PUT, values)

    def _put_channel(self, thread: str, ns: str, write: ChannelWrite) -> None:
        limit = INLINE if write.kind != "whole" else _WHOLE
        refs = [self._ref(thread, kind, body, limit) for kind, body in write.items]
        depth, parent, keep = 0, None, 0
        if write.parent is not None and write.keep > 0:
            found = self._sql.execute(_CHANNEL, (thread, ns, write.channel, write.parent)).fetchone()
            if found is None or found[4] < write.keep:
                raise NotFound(f"version `{write.parent}` of channel `{write.channel}` is gone; store the list whole")
            if found[1] + 1 < LINKS:
                depth, parent, keep = found[1] + 1, write.parent, write.keep
            else:
                refs = self._refs(thread, ns, write.channel, write.parent)[: write.keep] + refs
        manifest = (write.kind, depth, parent, keep, keep + len(refs), _pack(refs))
        key = (thread, ns, write.channel, write.version)
        if self._sql.execute(_PUT_CHANNEL, (*key, *manifest)).rowcount != 1:
            self._replace_channel(key, manifest)

    def _replace_channel(self, key: tuple[str, str, str, str], manifest: tuple[Any, ...]) -> None:
        """Give a version that exists already another content; the versions that build on it keep theirs."""
        old = self._sql.execute(_CHANNEL, key).fetchone()
        if tuple(old) == manifest:
            return
        thread, ns, channel, _ = key
        if manifest[2] is not None:  # the new content might build, by links, on the very version it replaces
            refs = self._refs(thread, ns, channel, manifest[2])[: manifest[3]] + _unpack(manifest[5])
            manifest = (manifest[0], 0, None, 0, len(refs), _pack(refs))
        for (child,) in self._sql.execute(_CHILDREN, key).fetchall():
            self._fill(thread, ns, channel, child)
        self._sql.execute(_SET_CHANNEL, (*manifest, *key))

    def _fill(self, thread: str, ns: str, channel: str, version: str) -> None:
        """Rewrite one manifest in full. The depths of those that build on it stay as upper bounds."""
        kind = self._manifest(thread, ns, channel, version)[0]
        refs = self._refs(thread, ns, channel, version)
        self._sql.execute(_SET_CHANNEL, (kind, 0, None, 0, len(refs), _pack(refs), thread, ns, channel, version))

    def _manifest(self, thread: str, ns: str, channel: str, version: str) -> Sequence[Any]:
        found: Sequence[Any] | None = self._sql.execute(_CHANNEL, (thread, ns, channel, version)).fetchone()
        if found is None:
            raise StoreCorrupt(f"version `{version}` of channel `{channel}` is missing; restore a backup")
        return found

    def _refs(self, thread: str, ns: str, channel: str, version: str) -> list[_Ref]:
        """Follow the links of a manifest and give all its references in order."""
        parts: list[list[_Ref]] = []
        keep: int | None = None
        at: str | None = version
        while at is not None:
            if len(parts) > LINKS:
                raise StoreCorrupt(f"the versions of channel `{channel}` form a ring; restore a backup")
            _, _, parent, kept, length, packed = self._manifest(thread, ns, channel, at)
            own = _unpack(packed)
            wanted = length if keep is None else keep
            parts.append(own[: max(0, wanted - kept)])
            keep = min(wanted, kept)
            at = parent if keep else None
        return [ref for part in reversed(parts) for ref in part]

    def _ref(self, thread: str, kind: str, body: bytes, limit: int) -> _Ref:
        if len(body) <= limit:
            return body if kind == "msgpack" else [kind, body]
        return self._item(thread, kind, body)

    def _item(self, thread: str, kind: str, body: bytes) -> int:
        digest = _digest(kind, body)
        found = self._sql.execute(_FIND_ITEM, (thread, digest)).fetchone()
        if found is not None:
            known: int = found[0]
            return known
        codec, small = _shrink(body)
        return self._keep(thread, digest, kind, codec, small)

    def _keep(self, *item: Any) -> int:
        ((made,),) = self._sql.execute(_PUT_ITEM, item).fetchall()
        number: int = made
        return number

    def put_writes(
        self, thread: str, ns: str, checkpoint: str, writes: Sequence[PendingWrite], *, replace: bool
    ) -> None:
        """Store pending writes; existing ones of the same task and index stay unless `replace`."""
        rows = []
        for write in writes:
            large = len(write.body) > _BODY
            item = self._item(thread, write.type, write.body) if large else None
            body = None if large else write.body
            key = (thread, ns, checkpoint, write.task, write.index)
            rows.append((*key, write.channel, write.task_path, write.type, body, item))
        self._sql.executemany(_REPLACED if replace else _KEPT, rows)

    def get(self, thread: str, ns: str, checkpoint: str | None) -> CheckpointRow | None:
        """Read one by id, or the newest."""
        if checkpoint is None:
            raw = self._sql.execute(_LATEST, (thread, ns)).fetchone()
        else:
            raw = self._sql.execute(_GET, (thread, ns, checkpoint)).fetchone()
        return None if raw is None else _row(raw)

    def list(
        self,
        thread: str | None,
        ns: str | None,
        *,
        before: str | None = None,
        limit: int | None = None,
        run: str | None = None,
    ) -> Sequence[CheckpointRow]:
        """Newest first."""
        given = (("thread = ?", thread), ("ns = ?", ns), ("id < ?", before), ("run = ?", run))
        clauses = [clause for clause, value in given if value is not None] or ["1 = 1"]
        values: list[Any] = [value for _, value in given if value is not None]
        statement = _LIST + " AND ".join(clauses) + " ORDER BY id DESC"
        if limit is not None:
            statement += " LIMIT ?"
            values.append(max(0, limit))
        return [_row(raw) for raw in self._sql.execute(statement, tuple(values)).fetchall()]

    def channel(self, thread: str, ns: str, channel: str, version: str) -> tuple[str, Sequence[_Item]] | None:
        """Read a channel version: its kind and its items in order."""
        found = self._sql.execute(_CHANNEL, (thread, ns, channel, version)).fetchone()
        if found is None:
            return None
        kind, _, parent, _, _, packed = found
        refs = _unpack(packed) if parent is None else self._refs(thread, ns, channel, version)
        return kind, self._items(refs)

    def _items(self, refs: Sequence[_Ref]) -> Sequence[_Item]:
        bodies = self._bodies([ref for ref in refs if type(ref) is int])
        return [bodies[r] if type(r) is int else ("msgpack", r) if type(r) is bytes else (r[0], r[1]) for r in refs]

    def _bodies(self, ids: Sequence[int]) -> dict[int, _Item]:
        """Read items by row id; `StoreCorrupt` when one is missing or no longer fits its digest."""
        found: dict[int, _Item] = {}
        for chunk in _chunks(list(dict.fromkeys(ids))):
            statement = f"SELECT id, digest, type, codec, body FROM checkpoint_item WHERE id IN ({_marks(chunk)})"  # noqa: S608
            for id_, digest, kind, codec, small in self._sql.execute(statement, tuple(chunk)).fetchall():
                body = _grow(codec, small)
                if _digest(kind, body) != digest:
                    raise StoreCorrupt("an item of graph state no longer fits its digest; restore a backup")
                found[id_] = (kind, body)
        if len(found) != len(set(ids)):
            raise StoreCorrupt("an item of graph state is missing; restore a backup of the database")
        return found

    def writes(self, thread: str, ns: str, checkpoint: str) -> Sequence[PendingWrite]:
        """Read pending writes in order of task path, task, index."""
        raw = self._sql.execute(_WRITES, (thread, ns, checkpoint)).fetchall()
        bodies = self._bodies([row[5] for row in raw if row[5] is not None])
        return [
            PendingWrite(task, idx, channel, kind, body if item is None else bodies[item][1], path)
            for task, idx, channel, kind, body, item, path in raw
        ]

    def delete_thread(self, thread: str) -> None:
        """Remove everything of a thread."""
        for table in ("checkpoint", "checkpoint_channel", "checkpoint_item", "checkpoint_write"):
            self._sql.execute(f"DELETE FROM {table} WHERE thread = ?", (thread,))  # noqa: S608

    def delete(self, thread: str, ns: str, ids: Iterable[str]) -> None:
        """Remove single checkpoints; manifests that survivors build on are rewritten first."""
        gone = list(ids)
        for chunk in _chunks(gone):
            marks = _marks(chunk)
            for table, column in (("checkpoint", "id"), ("checkpoint_write", "checkpoint")):
                statement = f"DELETE FROM {table} WHERE thread = ? AND ns = ? AND {column} IN ({marks})"  # noqa: S608
                self._sql.execute(statement, (thread, ns, *chunk))
        if gone:
            self._drop_manifests(thread, ns)
            self._sweep(thread)

    def _drop_manifests(self, thread: str, ns: str) -> None:
        """Remove every manifest that no checkpoint names; a survivor that builds on one is written in full before."""
        rows = self._sql.execute("SELECT channels FROM checkpoint WHERE thread = ? AND ns = ?", (thread, ns)).fetchall()
        alive = {(name, version) for (packed,) in rows for name, version in _unpack(packed)}
        statement = "SELECT channel, version, parent FROM checkpoint_channel WHERE thread = ? AND ns = ?"
        manifests = self._sql.execute(statement, (thread, ns)).fetchall()
        for channel, version, parent in manifests:
            if parent is not None and (channel, version) in alive and (channel, parent) not in alive:
                self._fill(thread, ns, channel, version)
        dead = [(thread, ns, name, version) for name, version, _ in manifests if (name, version) not in alive]
        self._sql.executemany(
            "DELETE FROM checkpoint_channel WHERE thread = ? AND ns = ? AND channel = ? AND version = ?", dead
        )

    def _sweep(self, thread: str) -> None:
        """Remove the thread's items that neither a manifest nor a write names."""
        packed = self._sql.execute("SELECT refs FROM checkpoint_channel WHERE thread = ?", (thread,)).fetchall()
        used = {ref for (refs,) in packed for ref in _unpack(refs) if type(ref) is int}
        statement = "SELECT item FROM checkpoint_write WHERE thread = ? AND item IS NOT NULL"
        used.update(item for (item,) in self._sql.execute(statement, (thread,)).fetchall())
        known = self._sql.execute("SELECT id FROM checkpoint_item WHERE thread = ?", (thread,)).fetchall()
        dead = [(id_,) for (id_,) in known if id_ not in used]
        self._sql.executemany("DELETE FROM checkpoint_item WHERE id = ?", dead)

    def copy_thread(self, source: str, target: str) -> None:
        """Copy all checkpoints and writes of a thread to a new one.

        Raises:
            UsageProblem: the target has checkpoints already; the caller chooses another name.
        """
        if self._sql.execute("SELECT 1 FROM checkpoint WHERE thread = ? LIMIT 1", (target,)).fetchone() is not None:
            raise UsageProblem(f"thread `{target}` already has checkpoints; copy to a new one, or delete it first")
        moved: dict[int, int] = {}
        statement = "SELECT id, digest, type, codec, body FROM checkpoint_item WHERE thread = ?"
        for id_, *item in self._sql.execute(statement, (source,)).fetchall():
            # The target may hold items already: writes can come before the checkpoint they belong to.
            known = self._sql.execute(_FIND_ITEM, (target, item[0])).fetchone()
            moved[id_] = known[0] if known is not None else self._keep(target, *item)
        columns = "ns, channel, version, kind, depth, parent, keep, length, refs"
        statement = f"SELECT {columns} FROM checkpoint_channel WHERE thread = ?"  # noqa: S608
        manifests = [
            (target, *rest, _pack([moved[ref] if type(ref) is int else ref for ref in _unpack(refs)]))
            for *rest, refs in self._sql.execute(statement, (source,)).fetchall()
        ]
        self._sql.executemany(_PUT_CHANNEL, manifests)
        columns = "ns, checkpoint, task, idx, channel, path, type, body, item"
        statement = f"SELECT {columns} FROM checkpoint_write WHERE thread = ?"  # noqa: S608
        writes = [
            (target, *rest, None if item is None else moved[item])
            for *rest, item in self._sql.execute(statement, (source,)).fetchall()
        ]
        self._sql.executemany(_KEPT, writes)
        columns = _COLUMNS.removeprefix("thread, ")
        self._sql.execute(
            f"INSERT INTO checkpoint (thread, {columns}) SELECT ?, {columns} FROM checkpoint WHERE thread = ?",  # noqa: S608
            (target, source),
        )
