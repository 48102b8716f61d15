"""Connection: the few calls the nouns make on a DBAPI connection, with its errors turned into ours.

In:   SQL with `?` marks. Out: cursors; `StoreBusy`, `StoreCorrupt`, `StoreFull`, `StoreUnreadable` or `StoreError`.
May import: errors. Must not know: which nouns exist.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from typing import Any, Final

from midwatch.errors import StoreBusy, StoreCorrupt, StoreError, StoreFull, StoreUnreadable

__all__ = ["Connection", "translate"]

_KINDS: Final[dict[int, tuple[type[StoreError], str]]] = {
    sqlite3.SQLITE_BUSY: (StoreBusy, "stayed locked by another process; stop that process, or try again"),
    sqlite3.SQLITE_LOCKED: (StoreBusy, "stayed locked by another process; stop that process, or try again"),
    sqlite3.SQLITE_CORRUPT: (StoreCorrupt, "is damaged; restore it from a backup"),
    sqlite3.SQLITE_NOTADB: (StoreCorrupt, "is not a database; move it away, or choose another `--home`"),
    sqlite3.SQLITE_FULL: (StoreFull, "has no room to grow; free disk space, then `midwatch resume`"),
    sqlite3.SQLITE_CANTOPEN: (StoreUnreadable, "cannot be opened; check that the directory exists and is yours"),
    sqlite3.SQLITE_READONLY: (StoreUnreadable, "cannot be written; check its permissions"),
    sqlite3.SQLITE_PERM: (StoreUnreadable, "cannot be used; check its permissions"),
}


def translate(error: sqlite3.Error, name: str) -> StoreError:
    """Turn a driver's error into ours; `name` is the file."""
    code = getattr(error, "sqlite_errorcode", None)
    kind, remedy = _KINDS.get((code or 0) & 0xFF, (StoreError, f"failed: {error}"))
    return kind(f"the store `{name}` {remedy}")


class Connection:
    """One DBAPI connection; not for use by two threads at once."""

    __slots__ = ("_raw", "name")

    def __init__(self, raw: sqlite3.Connection, name: str) -> None:
        self._raw, self.name = raw, name

    def execute(self, sql: str, values: Sequence[Any] = ()) -> sqlite3.Cursor:
        """Run one statement."""
        try:
            return self._raw.execute(sql, values)
        except sqlite3.IntegrityError:
            raise
        except sqlite3.Error as error:
            raise translate(error, self.name) from error

    def executemany(self, sql: str, rows: Iterable[Sequence[Any]]) -> sqlite3.Cursor:
        """Run one statement for many rows."""
        try:
            return self._raw.executemany(sql, rows)
        except sqlite3.Error as error:
            raise translate(error, self.name) from error

    @property
    def in_transaction(self) -> bool:
        """Whether a transaction is open."""
        return self._raw.in_transaction

    def close(self) -> None:
        """Close; closing twice is fine."""
        self._raw.close()
