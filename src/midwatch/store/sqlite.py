"""SQLite: a home in one file, used by any number of threads and processes.

In:   work to do in a transaction. Out: its results, committed.
May import: the store's nouns, errors. Must not know: who asks.

Group commit: a thread that wants to write queues its work; the one that gets the writer's lock does everybody's work in one
transaction, each piece in a savepoint of its own, and commits once. A thread alone pays for neither. The batch is flushed to disk
(`synchronous=FULL`) if any piece asked for it.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final, TypeVar

from midwatch.errors import StoreCorrupt, StoreError, StoreTooNew, StoreUnreadable
from midwatch.store.accounts import SqlBudgets
from midwatch.store.causes import SqlCauses
from midwatch.store.checkpoints import SqlCheckpoints
from midwatch.store.connection import Connection, translate
from midwatch.store.gates import SqlGates
from midwatch.store.journal import SqlEffects, SqlFences
from midwatch.store.ledger import SqlBlobs, SqlLedger
from midwatch.store.people import SqlNotices, SqlPrincipals
from midwatch.store.port import Tx
from midwatch.store.runs import SqlRuns, SqlTransitions, SqlWatch

__all__ = ["SqlTx", "SqliteStore"]

T = TypeVar("T")
_MARK: Final = 0x4D696477
"""`application_id` of our databases: other files are not touched."""
REVISION: Final = 3
"""Rises with every change of `store.tables`; kept in the database. A higher one than ours is refused."""
_READERS: Final = 8


class SqlTx:
    """`store.port.Tx` over one connection; the ledger is made anew for each transaction, the rest is stateless."""

    __slots__ = (
        "blobs", "budgets", "causes", "checkpoints", "effects", "fences", "gates", "ledger", "notices",
        "principals", "runs", "sql", "transitions", "watch",
    )  # fmt: skip

    def __init__(self, connection: Connection) -> None:
        self.sql = connection
        self.blobs = SqlBlobs(connection)
        self.causes = SqlCauses(connection, self.blobs)
        self.ledger = SqlLedger(connection, self.blobs, self.causes)
        self.runs = SqlRuns(connection)
        self.transitions = SqlTransitions(connection)
        self.effects = SqlEffects(connection)
        self.gates = SqlGates(connection)
        self.principals = SqlPrincipals(connection)
        self.notices = SqlNotices(connection)
        self.budgets = SqlBudgets(connection)
        self.fences = SqlFences(connection)
        self.watch = SqlWatch(connection)
        self.checkpoints = SqlCheckpoints(connection)

    def renew(self) -> None:
        """Forget what was known of the chain; the next transaction reads the head again."""
        self.causes = SqlCauses(self.sql, self.blobs)
        self.ledger = SqlLedger(self.sql, self.blobs, self.causes)


class _Work:
    """One queued piece of work and its outcome."""

    __slots__ = ("done", "durable", "error", "result", "work")

    def __init__(self, work: Callable[[Tx], Any], durable: bool) -> None:  # noqa: FBT001 - private, positional
        self.work, self.durable = work, durable
        self.done = False
        self.result: Any = None
        self.error: BaseException | None = None


class SqliteStore:
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
        self._name, self._timeout = str(path), busy_timeout_ms
        self._lock = threading.Lock()
        self._queue: list[_Work] = []
        self._queue_lock = threading.Lock()
        self._readers: list[SqlTx] = []
        self._readers_lock = threading.Lock()
        self._listeners: list[Callable[[Sequence[int]], None]] = []
        self._news: deque[Sequence[int]] = deque()
        self._tell_lock = threading.Lock()
        self._leader = self._teller = 0
        self._closed = False
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

    def write(self, work: Callable[[Tx], T], *, durable: bool = False) -> T:
        """Run `work` in one transaction and commit it, perhaps together with others' work."""
        if self._leader == threading.get_ident():
            raise RuntimeError("work inside a transaction must not write through the store; use its `tx`")
        mine = _Work(work, durable)
        with self._queue_lock:
            self._queue.append(mine)
        with self._lock:
            if not mine.done:
                with self._queue_lock:
                    batch, self._queue = self._queue, []
                self._leader = threading.get_ident()
                try:
                    self._commit(batch)
                finally:
                    self._leader = 0
        self._spread()
        if mine.error is not None:
            raise mine.error
        result: T = mine.result
        return result

    def read(self, work: Callable[[Tx], T]) -> T:
        """Run `work` on one consistent snapshot."""
        reader = self._reader()
        sound = False
        try:
            reader.sql.begin()
            reader.renew()
            try:
                return work(reader)
            finally:
                reader.sql.rollback()
                sound = True
        finally:
            self._give_back(reader, sound=sound)

    def on_commit(self, listener: Callable[[Sequence[int]], None]) -> Callable[[], None]:
        """Call `listener` with the numbers of each committed batch; returns what ends it."""
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener) if listener in self._listeners else None

    def close(self) -> None:
        """Release everything."""
        with self._lock:
            self._closed = True
            self._writer.sql.close()
            with self._readers_lock:
                for reader in self._readers:
                    reader.sql.close()
                self._readers.clear()

    def _commit(self, batch: list[_Work]) -> None:
        """Do and commit a batch; every piece ends with a result or an error."""
        tx, sql = self._writer, self._writer.sql
        seqs: list[int] = []
        try:
            self._open_check()
            full = any(item.durable for item in batch)
            if full != self._full:
                sql.execute(f"PRAGMA synchronous={self._flush[full]}")
                self._full = full
            if full:
                self._same_file()
            sql.begin("IMMEDIATE")
            tx.renew()
            if len(batch) == 1:
                self._alone(batch[0])
            else:
                for item in batch:
                    self._beside(item)
            seqs = list(tx.ledger.added)
            if len(batch) > 1 or batch[0].error is None:
                sql.commit()
        except BaseException as error:  # noqa: BLE001 - handed to every caller of the batch
            self._undo()
            for item in batch:
                item.error = item.error or error
            seqs = []
        for item in batch:
            item.done = True
        if seqs:
            self._news.append(seqs)

    def _spread(self) -> None:
        """Tell of what was committed, in order and outside the write lock, so that a listener may write itself."""
        if not self._news or self._teller == threading.get_ident():
            return
        with self._tell_lock:
            self._teller = threading.get_ident()
            try:
                while self._news:
                    seqs = self._news.popleft()
                    for listener in tuple(self._listeners):
                        self._tell(listener, seqs)
            finally:
                self._teller = 0

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

    def _alone(self, item: _Work) -> None:
        try:
            item.result = item.work(self._writer)
            self._writer.causes.flush()
        except BaseException as error:  # noqa: BLE001 - handed to its caller
            item.error = error
            self._undo()
            self._writer.renew()

    def _beside(self, item: _Work) -> None:
        tx, sql = self._writer, self._writer.sql
        before, added = tx.ledger, len(tx.ledger.added)
        sql.execute("SAVEPOINT piece")
        try:
            item.result = item.work(tx)
            tx.causes.flush()
        except BaseException as error:  # noqa: BLE001 - handed to its caller
            item.error = error
            sql.execute("ROLLBACK TO piece")
            kept = before.added[:added]
            tx.renew()
            tx.ledger.added.extend(kept)
        sql.execute("RELEASE piece")

    def _undo(self) -> None:
        if self._closed:
            return
        with contextlib.suppress(StoreError):
            self._writer.sql.rollback()

    @staticmethod
    def _tell(listener: Callable[[Sequence[int]], None], seqs: Sequence[int]) -> None:
        try:
            listener(seqs)
        except Exception as error:  # noqa: BLE001 - what was committed stays; the listener's fault is reported, not passed on
            threading.excepthook(
                threading.ExceptHookArgs((type(error), error, error.__traceback__, threading.current_thread()))
            )

    def _reader(self) -> SqlTx:
        self._open_check()
        with self._readers_lock:
            if self._readers:
                return self._readers.pop()
        return SqlTx(self._connect(reader=True))

    def _give_back(self, reader: SqlTx, *, sound: bool) -> None:
        with self._readers_lock:
            if sound and not self._closed and len(self._readers) < _READERS:
                self._readers.append(reader)
                return
        reader.sql.close()

    def _open_check(self) -> None:
        if self._closed:
            raise StoreUnreadable(f"the store `{self._name}` is closed")

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
