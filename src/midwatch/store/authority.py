"""Authority: versions of our own configuration, who let each of them count, and the number that rises with every such word.

In:   rows, answers. Out: rows; which commits and which unseen effects could have written a file; `NotFound`, `Ambiguous`, `GateNotUsable`.
May import: store.connection, store.journal (row helpers), records, errors. Must not know: fleet files, who may endorse what.

A version is answered once: two who answer at the same time are put in order by the writer's lock, and the second one is refused. The epoch
rises in the same transaction as what raised it, so whoever reads both in one transaction never sees one without the other.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any, Final, NamedTuple, Protocol

import orjson

from midwatch.errors import GateNotUsable
from midwatch.records.authority import AuthorityRow, AuthorityState
from midwatch.store.connection import Connection
from midwatch.store.journal import columns, find_one, marks, plain

__all__ = ["Authorities", "SqlAuthority", "Written"]

_ROW: Final = columns(AuthorityRow)
_EPOCH: Final = "authority.epoch"
_LONGEST_US: Final = 900_000_000
"""How long an effect whose end nobody saw is taken to have gone on."""


class Written(NamedTuple):
    """A version of a file that a run committed."""

    run: str
    seq: int
    committed: int


class Authorities(Protocol):
    """Versions of authority resources."""

    def epoch(self) -> int:
        """Give the number that every endorsement, rejection and change of authority raises; 0 in a new home."""

    def raise_epoch(self) -> int:
        """Raise it, in the transaction of what changed; gives the new one."""

    def add(self, row: AuthorityRow) -> None:
        """Insert a version; its number must be new for its resource."""

    def get(self, version: str) -> AuthorityRow | None:
        """Read by full id."""

    def find(self, prefix: str) -> AuthorityRow:
        """Read by unique prefix of at least 4 digits; raises `NotFound` or `Ambiguous`."""

    def list(
        self, *, place: str | None = None, states: Sequence[AuthorityState] = (), limit: int = 1000
    ) -> Sequence[AuthorityRow]:
        """Oldest first."""

    def newest(self, place: str) -> Sequence[AuthorityRow]:
        """Give, per resource of a place, the newest endorsed version and what came after it; by kind, name, number."""

    def numbered(self, place: str, kind: str, name: str) -> int:
        """Give the number that the next version of a resource takes."""

    def answer(self, version: str, *, state: AuthorityState, by: str | None, at_us: int, seq: int) -> None:
        """Endorse, reject or supersede a pending version; raises `GateNotUsable` when it is not pending any more.

        What its file was seen to hold stays as it is: a word about a version says nothing about what was written since.
        """

    def seen(self, versions: Collection[str], seq: int) -> None:
        """Note that files were seen to hold these versions when the ledger ended in event `seq`."""

    def workspaces(self) -> Sequence[str]:
        """Give every folder that a run has left versions of files for."""

    def written(self, workspace: str, paths: Collection[str], *, after: int) -> Written | None:
        """Give the newest version at one of these paths that was committed after event `after`.

        A version whose commit has begun after that and is not recorded as ended counts, too: nobody knows what of it is on the disk.
        """

    def acting(self, at_us: int, *, slack_us: int, limit: int) -> Sequence[tuple[str, int]]:
        """Give run and intent of effects that could change something and were under way at that time, newest first."""


class SqlAuthority:
    """`Authorities` in one database."""

    __slots__ = ("_sql",)

    def __init__(self, connection: Connection) -> None:
        self._sql = connection

    def epoch(self) -> int:
        """Read the number."""
        row = self._sql.execute("SELECT value FROM setting WHERE key = ?", (_EPOCH,)).fetchone()
        return 0 if row is None else int(bytes(row[0]))

    def raise_epoch(self) -> int:
        """Add one to it."""
        now = self.epoch() + 1
        value = str(now).encode()
        self._sql.execute("INSERT OR IGNORE INTO setting (key, value) VALUES (?, ?)", (_EPOCH, value))
        self._sql.execute("UPDATE setting SET value = ? WHERE key = ?", (value, _EPOCH))
        return now

    def add(self, row: AuthorityRow) -> None:
        """Insert the row."""
        self._sql.execute(f"INSERT INTO authority ({_ROW}) VALUES ({marks(AuthorityRow)})", plain(row))  # noqa: S608

    def get(self, version: str) -> AuthorityRow | None:
        """Read by full id."""
        row = self._sql.execute(f"SELECT {_ROW} FROM authority WHERE id = ?", (version,)).fetchone()  # noqa: S608
        return None if row is None else AuthorityRow(*row)

    def find(self, prefix: str) -> AuthorityRow:
        """Read by unique prefix."""
        return AuthorityRow(*find_one(self._sql, "authority", _ROW, prefix, "version of authority"))

    def list(
        self, *, place: str | None = None, states: Sequence[AuthorityState] = (), limit: int = 1000
    ) -> Sequence[AuthorityRow]:
        """Oldest first."""
        where, values = ["1 = 1"], list[Any]()
        if place is not None:
            where.append("place = ?")
            values.append(place)
        if states:
            where.append(f"state IN ({', '.join('?' * len(states))})")
            values += states
        sql = (
            f"SELECT {_ROW} FROM authority WHERE {' AND '.join(where)} ORDER BY at_us, seq, kind, name, number LIMIT ?"  # noqa: S608
        )
        return [AuthorityRow(*row) for row in self._sql.execute(sql, (*values, limit)).fetchall()]

    def newest(self, place: str) -> Sequence[AuthorityRow]:
        """From the newest endorsed one of each resource on."""
        sql = (
            f"SELECT {_ROW} FROM authority WHERE place = ? AND number >= coalesce((SELECT max(a.number) FROM authority a "  # noqa: S608
            "WHERE a.place = authority.place AND a.kind = authority.kind AND a.name = authority.name AND a.state = 'endorsed'), 0) "
            "ORDER BY kind, name, number"
        )
        return [AuthorityRow(*row) for row in self._sql.execute(sql, (place,)).fetchall()]

    def numbered(self, place: str, kind: str, name: str) -> int:
        """One more than there are."""
        sql = "SELECT coalesce(max(number), 0) + 1 FROM authority WHERE place = ? AND kind = ? AND name = ?"
        row = self._sql.execute(sql, (place, kind, name)).fetchone()
        return 1 if row is None else int(row[0])

    def answer(self, version: str, *, state: AuthorityState, by: str | None, at_us: int, seq: int) -> None:
        """Answer it once."""
        sql = (
            "UPDATE authority SET state = ?, answered_by = ?, answered_us = ?, answered_seq = ? "
            "WHERE id = ? AND state = 'pending'"
        )
        if self._sql.execute(sql, (state, by, at_us, seq, version)).rowcount != 1:
            raise GateNotUsable(f"version `{version}` is not pending any more; `midwatch grants pending` lists what is")

    def seen(self, versions: Collection[str], seq: int) -> None:
        """Move their marks."""
        self._sql.execute(
            "UPDATE authority SET seen_seq = ? WHERE seen_seq < ? AND id IN (SELECT value FROM json_each(?))",
            (seq, seq, orjson.dumps(list(versions)).decode()),
        )

    def workspaces(self) -> Sequence[str]:
        """Step from one to the next in their index, however many versions each has."""
        found: list[str] = []
        last = ""
        while True:
            row = self._sql.execute("SELECT min(workspace) FROM file_version WHERE workspace > ?", (last,)).fetchone()
            if row is None or row[0] is None:
                return found
            last = str(row[0])
            found.append(last)

    def written(self, workspace: str, paths: Collection[str], *, after: int) -> Written | None:
        """By the index of places."""
        named = orjson.dumps(sorted(paths)).decode()
        row = self._sql.execute(
            "SELECT f.run, f.seq, f.committed FROM json_each(?) j CROSS JOIN file_version f ON f.workspace = ? AND f.path = j.value "
            "WHERE f.committed > ? ORDER BY f.committed DESC, f.seq DESC LIMIT 1",
            (named, workspace, after),
        ).fetchone()
        if row is not None:
            return Written(*row)
        staged = self._sql.execute(
            "SELECT f.run, f.seq FROM json_each(?) j CROSS JOIN file_version f ON f.workspace = ? AND f.path = j.value "
            "WHERE f.committed IS NULL ORDER BY f.seq DESC",
            (named, workspace),
        ).fetchall()
        for run, seq in staged:
            begun = self._sql.execute(
                "SELECT max(seq) FROM event WHERE run = ? AND seq > ? AND kind = 'effects.releasing'",
                (run, max(seq, after)),
            ).fetchone()
            if begun is not None and begun[0] is not None:
                return Written(run, seq, begun[0])
        return None

    def acting(self, at_us: int, *, slack_us: int, limit: int) -> Sequence[tuple[str, int]]:
        """Of all runs: it is asked only about a file that has changed."""
        rows = self._sql.execute(
            "SELECT run, intent_seq FROM effect WHERE kind = 'tool' AND effect NOT IN ('pure', 'read') AND started_us <= ? "
            "AND (finished_us >= ? OR (finished_us IS NULL AND started_us >= ?)) ORDER BY intent_seq DESC LIMIT ?",
            (at_us + slack_us, at_us - slack_us, at_us - _LONGEST_US, limit),
        )
        return [(row[0], int(row[1])) for row in rows.fetchall()]
