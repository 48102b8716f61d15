"""Connection: the few calls the nouns make on a DBAPI connection, with its errors turned into ours.

In:   SQL with `?` marks. Out: cursors; `StoreBusy`, `StoreCorrupt`, `StoreFull`, `StoreUnreadable` or `StoreError`.
May import: errors. Must not know: which nouns exist.

Why a lost transaction is remembered: SQLite takes back the whole transaction by itself after some failures (a full disk, a
read error). A caller that swallows such an error would go on outside any transaction, where each statement commits alone;
so every further statement is refused until the transaction has been ended.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final, Protocol

from midwatch.errors import StoreBusy, StoreCorrupt, StoreError, StoreFull, StoreUnreadable

__all__ = ["Connection", "translate"]

_KINDS: Final[dict[int, tuple[type[StoreError], str]]] = {
    sqlite3.SQLITE_BUSY: (StoreBusy, "stayed locked by another process; stop that process, or try again"),
    sqlite3.SQLITE_LOCKED: (StoreBusy, "stayed locked by another process; stop that process, or try again"),
    sqlite3.SQLITE_CORRUPT: (StoreCorrupt, "is damaged; restore it from a backup"),
    sqlite3.SQLITE_NOTADB: (StoreCorrupt, "is not a database; move it away, or choose another `--home`"),
    sqlite3.SQLITE_FULL: (StoreFull, "has no room to grow; free disk space, then `midwatch resume`"),
    sqlite3.SQLITE_CANTOPEN: (StoreUnreadable, "cannot be opened; check that the directory exists and is yours"),
    sqlite3.SQLITE_READONLY: (StoreUnreadable, "cannot be written here; use `write`, or check its permissions"),
    sqlite3.SQLITE_PERM: (StoreUnreadable, "cannot be used; check its permissions"),
}


def translate(error: sqlite3.Error, name: str) -> StoreError:
    """Turn a driver's error into ours; `name` is the file."""
    code = getattr(error, "sqlite_errorcode", None)
    kind, remedy = _KINDS.get((code or 0) & 0xFF, (StoreError, f"failed: {error}"))
    return kind(f"the store `{name}` {remedy}")


class Rows(Protocol):
    """What a statement gave: the part of a DBAPI cursor that the nouns use."""

    @property
    def rowcount(self) -> int:
        """How many rows were changed."""

    def fetchone(self) -> Any:
        """Give the next row, or None."""

    def fetchall(self) -> list[Any]:
        """Give what is left."""

    def __iter__(self) -> Iterator[Any]:
        """Give row after row."""


class Connection:
    """One DBAPI connection, to SQLite; not for use by two threads at once. `store.postgres_wire` has the other one."""

    __slots__ = ("_inside", "_lost", "_raw", "name")

    def __init__(self, raw: Any, name: str) -> None:
        self._raw, self.name = raw, name
        self._inside = False
        self._lost: StoreError | None = None

    def execute(self, sql: str, values: Sequence[Any] = ()) -> Rows:
        """Run one statement."""
        if self._lost is not None:
            raise type(self._lost)(str(self._lost)) from self._lost
        try:
            found: Rows = self._raw.execute(sql, values)
            return found
        except sqlite3.Error as error:
            raise self._failed(error) from error

    def executemany(self, sql: str, rows: Iterable[Sequence[Any]]) -> Rows:
        """Run one statement for many rows."""
        if self._lost is not None:
            raise type(self._lost)(str(self._lost)) from self._lost
        try:
            found: Rows = self._raw.executemany(sql, rows)
            return found
        except sqlite3.Error as error:
            raise self._failed(error) from error

    def stream(self, sql: str) -> Iterator[Any]:
        """Read row after row, where all of them at once might not fit into memory."""
        return iter(self.execute(sql))

    def number_on(self, table: str, column: str) -> None:
        """Let numbers that the database gives go on after those in the table; SQLite does so by itself."""

    def begin(self, how: str = "DEFERRED") -> None:
        """Start a transaction; `IMMEDIATE` takes the write lock, waiting for at most the bound."""
        self.execute(f"BEGIN {how}")
        self._inside = True

    def commit(self) -> None:
        """End the transaction and keep its changes; raises when it was lost on the way."""
        self.execute("COMMIT")
        self._inside = False

    def rollback(self) -> None:
        """End the transaction, or what is left of it, without a trace."""
        self._inside, self._lost = False, None
        if self._raw.in_transaction:
            self.execute("ROLLBACK")

    def mark(self) -> None:
        """Set the point that `back` returns to."""
        self.execute("SAVEPOINT piece")

    def back(self) -> None:
        """Undo what was done since `mark`, and nothing else."""
        self.execute("ROLLBACK TO piece")

    def unmark(self) -> None:
        """Forget the point; what was done since stays in the transaction."""
        self.execute("RELEASE piece")

    def _failed(self, error: sqlite3.Error) -> StoreError:
        ours = translate(error, self.name)
        if self._inside and not self._raw.in_transaction:
            self._lost = ours
        return ours

    @property
    def in_transaction(self) -> bool:
        """Whether a transaction is open."""
        return bool(self._raw.in_transaction)

    def close(self) -> None:
        """Close; closing twice is fine."""
        self._raw.close()
