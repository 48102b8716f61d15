"""Group commit: many threads' work in one transaction, whatever the database.

In:   work to do in a transaction; from the adapter, a connection that writes and connections that read.
Out:  its results, committed.
May import: the store's nouns, errors. Must not know: which database it is.

A thread that wants to write queues its work; the one that gets the writer's lock does everybody's work in one transaction, each
piece behind a mark of its own, and commits once. A thread alone pays for neither. The batch is flushed to disk if any piece asked
for it.
"""

from __future__ import annotations

import contextlib
import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Final, TypeVar

from midwatch.errors import StoreError, StoreUnreadable
from midwatch.store.accounts import SqlBudgets
from midwatch.store.authority import SqlAuthority
from midwatch.store.baselines import SqlBaselines
from midwatch.store.breakers import SqlBreakers
from midwatch.store.causes import SqlCauses
from midwatch.store.checkpoints import SqlCheckpoints
from midwatch.store.connection import Connection
from midwatch.store.flags import SqlFlags
from midwatch.store.gates import SqlGates
from midwatch.store.journal import SqlEffects, SqlFences
from midwatch.store.leases import SqlLeases
from midwatch.store.ledger import SqlBlobs, SqlLedger
from midwatch.store.people import SqlNotices, SqlPrincipals
from midwatch.store.port import Tx
from midwatch.store.runs import SqlRuns, SqlTransitions, SqlWatch

__all__ = ["REVISION", "GroupStore", "SqlTx"]

T = TypeVar("T")
REVISION: Final = 4
"""Rises with every change of `store.tables`; kept in the database. A higher one than ours is refused."""
_READERS: Final = 8


class SqlTx:
    """`store.port.Tx` over one connection; the ledger is made anew for each transaction, the rest is stateless."""

    __slots__ = (
        "authority", "baselines", "blobs", "breakers", "budgets", "causes", "checkpoints", "effects", "fences", "flags", "gates", "leases",
        "ledger", "notices", "principals", "runs", "sql", "transitions", "watch",
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
        self.authority = SqlAuthority(connection)
        self.watch = SqlWatch(connection)
        self.baselines = SqlBaselines(connection)
        self.breakers = SqlBreakers(connection)
        self.flags = SqlFlags(connection)
        self.leases = SqlLeases(connection)
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


class GroupStore:
    """`store.port.Store` over connections that an adapter makes; `_writer` is the adapter's to set.

    Args:
        name: what messages call the store.
    """

    _writer: SqlTx

    def __init__(self, name: str) -> None:
        self._name = name
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

    # ------------------------------------------------------------------------------------------------ from the adapter

    def _connect(self, *, reader: bool = False) -> Connection:
        """Make a connection; one for readers refuses to write."""
        raise NotImplementedError

    def _begin(self, *, durable: bool) -> None:
        """Begin the writer's transaction and take the write lock, waiting for at most the bound."""
        raise NotImplementedError

    def _committed(self, tx: SqlTx) -> None:
        """Take note of what was just committed."""

    # -------------------------------------------------------------------------------------------------------- the port

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
        reader = self._begun_reader()
        sound = False
        try:
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
        seqs: list[int] = []
        try:
            self._open_check()
            self._begin(durable=any(item.durable for item in batch))
            tx = self._writer
            tx.renew()
            if len(batch) == 1:
                self._alone(batch[0])
            else:
                for item in batch:
                    self._beside(item)
            seqs = list(tx.ledger.added)
            if len(batch) > 1 or batch[0].error is None:
                tx.sql.commit()
                self._committed(tx)
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
        sql.mark()
        try:
            item.result = item.work(tx)
            tx.causes.flush()
        except BaseException as error:  # noqa: BLE001 - handed to its caller
            item.error = error
            sql.back()
            kept = before.added[:added]
            tx.renew()
            tx.ledger.added.extend(kept)
        sql.unmark()

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

    def _begun_reader(self) -> SqlTx:
        """Give a connection inside a transaction that only reads."""
        reader = self._reader()
        try:
            reader.sql.begin()
        except BaseException:
            reader.sql.close()
            raise
        return reader

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
