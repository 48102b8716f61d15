"""SQLite: a home in one file, used by any number of threads and processes.

In:   work to do in a transaction. Out: its results, committed.
May import: store.grouping, store.connection, errors. Must not know: who asks.

Group commit is `store.grouping`'s; here a batch is flushed to disk by `synchronous=FULL`.
"""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path
from typing import Final

from midwatch.errors import StoreCorrupt, StoreTooNew, StoreUnreadable
from midwatch.store.connection import Connection, translate
from midwatch.store.grouping import REVISION, GroupStore, SqlTx

__all__ = ["REVISION", "SqliteStore"]

_MARK: Final = 0x4D696477
"""`application_id` of our databases: other files are not touched."""


class SqliteStore(GroupStore):
    """`store.port.Store` in one SQLite file.

    Args:
        path: the database; its directory is made with mode 0700, the file with 0600.
        busy_timeout_ms: how long to wait for another process's write lock.

    Raises:
        StoreUnreadable, StoreCorrupt, StoreTooNew, StoreBusy: it cannot be used; nothing was changed.
    """

    _flush: tuple[str, str] = ("NORMAL", "FULL")
    """`synchronous` of an ordinary batch and of a durable one."""

    def __init__(self, path: Path | str, *, busy_timeout_ms: int = 30_000) -> None:
        super().__init__(str(path))
        self._timeout = busy_timeout_ms
        self._full = False
        self._prepare()
        status = Path(self._name).stat()
        self._file = (status.st_dev, status.st_ino)
        self._writer = SqlTx(self._connect())
        try:
            self._migrate()
        except BaseException:
            self._writer.sql.close()
            raise

    def _begin(self, *, durable: bool) -> None:
        """Begin, with the flush that this batch needs."""
        sql = self._writer.sql
        if durable != self._full:
            sql.execute(f"PRAGMA synchronous={self._flush[durable]}")
            self._full = durable
        if durable:
            self._same_file()
        sql.begin("IMMEDIATE")

    def _same_file(self) -> None:
        """Refuse to acknowledge as durable what goes into a file that was moved or deleted meanwhile."""
        try:
            found = Path(self._name).stat()
        except OSError:
            found = None
        if found is None or (found.st_dev, found.st_ino) != self._file:
            raise StoreUnreadable(
                f"the store `{self._name}` was moved or deleted while in use; put it back, or start again"
            )

    def _prepare(self) -> None:
        path = Path(self._name)
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            if not path.exists():
                os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
        except OSError as error:
            why = error.strerror or "unknown error"
            raise StoreUnreadable(
                f"the store `{self._name}` cannot be made: {why.lower()}; choose another `--home`"
            ) from error

    def _connect(self, *, reader: bool = False) -> Connection:
        try:
            raw = sqlite3.connect(
                self._name,
                timeout=self._timeout / 1000,
                isolation_level=None,
                check_same_thread=False,
                cached_statements=256,
            )
            raw.execute(f"PRAGMA busy_timeout={self._timeout}")
            if reader:
                raw.execute("PRAGMA query_only=1")
        except sqlite3.Error as error:
            raise translate(error, self._name) from error
        return Connection(raw, self._name)

    def _tune(self) -> None:
        """Set what is written to the file itself: only once it is known to be ours."""
        self._writer.sql.execute("PRAGMA journal_mode=WAL")
        self._writer.sql.execute(f"PRAGMA synchronous={self._flush[False]}")

    def _migrate(self) -> None:
        """Make the tables of an empty home; refuse what is not ours or is newer than us."""
        sql = self._writer.sql
        sql.begin()  # one snapshot: another process may be making the tables
        mark = sql.execute("PRAGMA application_id").fetchone()[0]
        known = sql.execute("PRAGMA user_version").fetchone()[0]
        tables = sql.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
        sql.rollback()
        if mark == _MARK and known == REVISION:
            self._tune()
            return
        if mark == _MARK and 0 < known < REVISION:
            from midwatch.store.migrate import migrate  # noqa: PLC0415 - Alembic loads only where a home is older

            migrate(self._name, known=known, target=REVISION, timeout_ms=self._timeout)
            self._migrate()  # looks again: whoever came first may be a newer version
            return
        if mark == _MARK and known > REVISION:
            raise StoreTooNew(
                f"the store `{self._name}` was written by a newer version; update Midwatch, or choose another `--home`"
            )
        if mark != _MARK and tables:
            raise StoreCorrupt(f"the store `{self._name}` is a database of something else; choose another `--home`")
        from midwatch.store.tables import ddl  # noqa: PLC0415 - SQLAlchemy loads only where tables are made

        self._tune()
        sql.begin("IMMEDIATE")
        try:
            if sql.execute("PRAGMA user_version").fetchone()[0] == 0:
                for statement in ddl():
                    sql.execute(statement)
                sql.execute(f"PRAGMA application_id={_MARK}")
                sql.execute(f"PRAGMA user_version={REVISION}")
            sql.commit()
        except BaseException:
            self._undo()
            raise
