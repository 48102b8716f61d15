"""Ledger: the append-only chain of events, and the bodies that events name.

In:   drafts. Out: sequence numbers; events back; a report on the whole chain.
May import: store.causes, store.connection, records, errors. Must not know: what an event means.

`hash = SHA-256(previous hash + stored bytes)`. The stored bytes hold every column that a query uses, so a change of either breaks
the chain. The head is read once a transaction and kept until it ends.
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import orjson

from midwatch.errors import StoreCorrupt
from midwatch.records.event import EVENT_KINDS, GENESIS, Event, EventDraft
from midwatch.store.causes import SqlCauses
from midwatch.store.connection import Connection
from midwatch.store.port import VerifyReport

__all__ = ["SqlBlobs", "SqlLedger"]

_KINDS: Final = frozenset(EVENT_KINDS)
_COMPRESS: Final = 512
_PROBLEMS: Final = 100
_ROWS: Final = (
    "SELECT 'run', id, fleet_blob FROM run UNION SELECT 'run', id, input FROM run "
    "UNION SELECT 'run', id, output FROM run WHERE output IS NOT NULL "
    "UNION SELECT 'effect', id, arguments FROM effect "
    "UNION SELECT 'effect', id, result FROM effect WHERE result IS NOT NULL "
    "UNION SELECT 'gate', id, card FROM gate UNION SELECT 'gate', id, arguments FROM gate WHERE arguments <> '' "
    "UNION SELECT 'gate', id, answer FROM gate WHERE answer IS NOT NULL"
)
"""Every column that is the digest of a blob."""


class SqlBlobs:
    """`store.port.Blobs`."""

    __slots__ = ("_sql",)

    def __init__(self, connection: Connection) -> None:
        self._sql = connection

    def put(self, body: bytes) -> str:
        """Store `body` once; returns its digest."""
        digest = hashlib.sha256(body).hexdigest()
        if self._sql.execute("SELECT 1 FROM blob WHERE digest = ?", (digest,)).fetchone() is None:
            small = zlib.compress(body, 1) if len(body) > _COMPRESS else body
            codec, kept = (1, small) if len(small) < len(body) else (0, body)
            self._sql.execute("INSERT INTO blob (digest, codec, body) VALUES (?, ?, ?)", (digest, codec, kept))
        return digest

    def get(self, digest: str) -> bytes | None:
        """Read a body and check it against its digest."""
        row = self._sql.execute("SELECT codec, body FROM blob WHERE digest = ?", (digest,)).fetchone()
        if row is None:
            return None
        try:
            body: bytes = zlib.decompress(row[1]) if row[0] else row[1]
        except zlib.error as error:
            raise StoreCorrupt(f"blob `{digest[:12]}` cannot be read; restore the database from a backup") from error
        if hashlib.sha256(body).hexdigest() != digest:
            raise StoreCorrupt(f"blob `{digest[:12]}` was changed; restore the database from a backup")
        return body


class SqlLedger:
    """`store.port.Ledger`; one instance a transaction."""

    __slots__ = ("_blobs", "_causes", "_hash", "_seq", "_sql", "added")

    def __init__(self, connection: Connection, blobs: SqlBlobs, causes: SqlCauses) -> None:
        self._sql, self._blobs, self._causes = connection, blobs, causes
        self._seq: int | None = None
        self._hash = bytes.fromhex(GENESIS)
        self.added: list[int] = []

    def append(self, draft: EventDraft) -> int:
        """Give the event the next place.

        Raises:
            ValueError: an unknown kind, or a cause that is not an earlier event. TypeError: floats or other non-JSON values.
        """
        if draft.kind not in _KINDS:
            raise ValueError(f"`{draft.kind}` is no event kind; add it to `records.event`")
        last = self._load()
        if any(not 0 < cause <= last for cause in draft.causes):
            raise ValueError("a cause must be the number of an earlier event")
        _refuse_floats(draft.data)
        seq = last + 1
        body = orjson.dumps(
            {
                "seq": seq,
                "kind": draft.kind,
                "run": draft.run,
                "at_us": draft.at_us,
                "node": draft.node,
                "agent": draft.agent,
                "step": draft.step,
                "task": draft.task,
                "causes": draft.causes,
                "data": draft.data,
            },
            option=orjson.OPT_SORT_KEYS,
        )
        digest = hashlib.sha256(self._hash + body).digest()
        self._sql.execute(
            "INSERT INTO event (seq, kind, run, at_us, body, hash, follows) VALUES (?, ?, ?, ?, ?, ?, ?)",
            (seq, draft.kind, draft.run, draft.at_us, body, digest, last in draft.causes),
        )
        self._seq, self._hash = seq, digest
        self.added.append(seq)
        self._causes.add(seq, draft)
        return seq

    def get(self, seq: int) -> Event | None:
        """Read one event."""
        found = self.read(after=seq - 1, limit=1)
        return found[0] if found and found[0].seq == seq else None

    def read(
        self, *, run: str | None = None, after: int = 0, limit: int = 1000, kinds: Sequence[str] = ()
    ) -> Sequence[Event]:
        """Read events in order."""
        where, values = ["seq > ?"], [after]  # type: tuple[list[str], list[Any]]
        if run is not None:
            where.append("run = ?")
            values.append(run)
        if kinds:
            where.append(f"kind IN ({', '.join('?' * len(kinds))})")
            values += kinds
        before = "(SELECT p.hash FROM event p WHERE p.seq = event.seq - 1)"
        sql = f"SELECT seq, body, hash, {before} FROM event WHERE {' AND '.join(where)} ORDER BY seq LIMIT ?"  # noqa: S608 - our own words
        return [_event(*row) for row in self._sql.execute(sql, (*values, limit)).fetchall()]

    def head(self) -> tuple[int, str]:
        """Give number and hash of the last event."""
        return self._load(), self._hash.hex()

    def verify(self, *, expected_head: str | None = None) -> VerifyReport:
        """Walk the chain and every body that it names."""
        problems: list[str] = []
        before, expected, met, count = bytes.fromhex(GENESIS), 0, expected_head in (None, GENESIS), 0
        for seq, kind, run, at_us, body, digest, follows in self._sql.stream(
            "SELECT seq, kind, run, at_us, body, hash, follows FROM event ORDER BY seq"
        ):
            count += 1
            expected += 1
            if seq != expected:
                problems.append(f"event {expected} is missing")
                expected = seq
            if not isinstance(body, bytes) or hashlib.sha256(before + body).digest() != digest:
                problems.append(f"event {seq} does not fit its hash")
            problems += self._columns(seq, kind, run, at_us, body, follows=bool(follows))
            before = digest if isinstance(digest, bytes) else b""
            met = met or before.hex() == expected_head
            if len(problems) >= _PROBLEMS:
                break
        if len(problems) < _PROBLEMS:
            problems += self._rows()
        if not met:
            problems.append(
                f"the expected head `{(expected_head or '')[:12]}` does not occur: the tail was lost or the chain rewritten"
            )
        return VerifyReport(not problems, count, before.hex(), tuple(problems[:_PROBLEMS]))

    def _columns(
        self, seq: int, kind: str, run: str | None, at_us: int, body: bytes, *, follows: bool
    ) -> Iterator[str]:
        try:
            read = orjson.loads(body)
        except (orjson.JSONDecodeError, TypeError):
            read = None
        if not isinstance(read, dict):
            yield f"event {seq} is no JSON object"
            return
        if (read.get("seq"), read.get("kind"), read.get("run"), read.get("at_us")) != (seq, kind, run, at_us):
            yield f"event {seq} has columns that differ from its body"
        causes = [cause for cause in read.get("causes") or () if isinstance(cause, int)]
        if self._causes.lacks(seq, causes, follows=follows):
            yield f"event {seq} has causes that differ from their index; `why` and `blast` cannot be relied on"
        for digest in _named(read.get("data")):
            yield from self._blob(f"event {seq}", digest)

    def _rows(self) -> Iterator[str]:
        for noun, name, digest in self._sql.stream(_ROWS):
            yield from self._blob(f"{noun} `{name}`", digest)

    def _blob(self, who: str, digest: str) -> Iterator[str]:
        try:
            if self._blobs.get(digest) is None:
                yield f"{who} names blob `{digest[:12]}`, which is missing"
        except StoreCorrupt:
            yield f"{who} names blob `{digest[:12]}`, which was changed"

    def _load(self) -> int:
        if self._seq is None:
            row = self._sql.execute("SELECT seq, hash FROM event ORDER BY seq DESC LIMIT 1").fetchone()
            self._seq = 0 if row is None else row[0]
            if row is not None:
                self._hash = row[1]
        return self._seq


def _event(seq: int, body: bytes, digest: bytes, before: bytes | None) -> Event:
    read = orjson.loads(body)
    return Event(
        seq=seq,
        kind=read["kind"],
        run=read["run"],
        at_us=read["at_us"],
        data=read["data"],
        node=read["node"],
        agent=read["agent"],
        step=read["step"],
        task=read["task"],
        causes=tuple(read["causes"]),
        prev=GENESIS if before is None else before.hex(),
        hash=digest.hex(),
    )


def _named(data: Any) -> Iterator[str]:
    """Digests under keys that end in `_blob`, at any depth."""
    if isinstance(data, dict):
        for key, value in data.items():
            if key.endswith("_blob") and isinstance(value, str):
                yield value
            else:
                yield from _named(value)
    elif isinstance(data, list):
        for item in data:
            yield from _named(item)


def _refuse_floats(value: Any) -> None:
    # Of the values, not of the bytes: JSON writes 1e22 without a dot, and NaN as null.
    if isinstance(value, float):
        raise TypeError("an event holds no floats; use whole numbers of a smaller unit")
    if isinstance(value, Mapping):
        for item in value.values():
            _refuse_floats(item)
    elif isinstance(value, list | tuple):
        for item in value:
            _refuse_floats(item)
