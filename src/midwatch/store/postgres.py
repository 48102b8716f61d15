"""Postgres: a home's records in a database that processes on several machines share.

In:   work to do in a transaction. Out: its results, committed.
May import: store.grouping, store.postgres_wire, errors; Alembic where a store is older. Must not know: who asks.

One writer at a time, as in SQLite: every writing transaction begins with the store's advisory lock, which ends with it however it
ends. So the hash chain has one order, a claim on a budget sees every claim before it, and there is no serialisation failure to retry;
group commit makes the turn worth its price. Readers work on snapshots of their own and wait for nobody.

A durable batch is committed with `synchronous_commit = on`. Others are `off`: the server flushes them within a second, and one that
crashes may lose the last of them, whole. The processes that wrote them outlive that crash; what they know would then be ahead of
the store. So each connection is checked against a *witness*, a word in an unlogged table: Postgres empties it after a crash, at a
failover and with a restored backup, and keeps it over an orderly restart. After an orderly restart this store goes on; when the witness
is gone it refuses for good, and the process has to be started again, from what is there.

A connection that is lost before a transaction began is made anew, once. Lost later, the work is an error to its caller: it was undone
or, when the answer to `COMMIT` was what got lost, perhaps committed; whole in either case, as after a crash of the process.
"""

from __future__ import annotations

import contextlib
import secrets
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final, cast

from midwatch.errors import NotFound, StoreBusy, StoreCorrupt, StoreError, StoreTooNew, StoreUnreadable
from midwatch.store.grouping import REVISION, GroupStore, SqlTx
from midwatch.store.postgres_wire import Address, PostgresConnection, dial

__all__ = ["PostgresStore", "ServerReport"]

_MARK: Final = 0x4D696477
_MOST_READERS: Final = 16
_OWN: Final = (
    "CREATE TABLE midwatch_store (one BIGINT PRIMARY KEY CHECK (one = 1), mark BIGINT, revision BIGINT, id TEXT)",
    "CREATE UNLOGGED TABLE midwatch_witness (one BIGINT PRIMARY KEY CHECK (one = 1), word TEXT NOT NULL)",
)
_WITNESS: Final = "SELECT word || ':' || CAST(CAST('midwatch_witness' AS regclass) AS oid) FROM midwatch_witness"
_WATCHED: Final = (
    "fsync", "full_page_writes", "synchronous_commit", "synchronous_standby_names", "max_connections", "server_version"
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class ServerReport:
    """What `doctor` says of a server: its settings that matter, by name, and what is wrong with them."""

    shown: str
    settings: dict[str, str]
    troubles: tuple[str, ...]


class PostgresStore(GroupStore):
    """`store.port.Store` in one schema of a Postgres database: the first of the role's `search_path`.

    Args:
        url: `postgresql://user@host/database`; the password from libpq's password file or `PGPASSWORD`.
        create: make the tables where there are none.
        busy_timeout_ms: how long to wait for another process's write lock.

    Raises:
        NotFound: there is no store and `create` is false.
        StoreUnreadable, StoreCorrupt, StoreTooNew, StoreBusy: it cannot be used; nothing was changed.
    """

    def __init__(self, url: str, *, create: bool = True, busy_timeout_ms: int = 30_000) -> None:
        self._address = Address.of(url)
        super().__init__(self._address.shown)
        self._timeout = busy_timeout_ms
        self._witness: str | None = None
        self._ahead: StoreError | None = None
        self._places = threading.BoundedSemaphore(_MOST_READERS)
        first = self._dial()
        try:
            self._open(first, create=create)
            self._witness = self._agree(first)
            self._id = str(first.execute("SELECT id FROM midwatch_store").fetchone()[0])
        except BaseException:
            first.close()
            raise
        self._writer = SqlTx(first)

    @property
    def id(self) -> str:
        """What tells this store from every other; made with its tables."""
        return self._id

    @property
    def shown(self) -> str:
        """The address without its secrets."""
        return self._name

    # ---------------------------------------------------------------------------------------------------- connections

    def _connect(self, *, reader: bool = False) -> PostgresConnection:
        """Connect again, to the same store in the same life."""
        if self._ahead is not None:
            raise type(self._ahead)(str(self._ahead))
        made = self._dial(reader=reader)
        try:
            found = made.execute(_WITNESS).fetchone()
            if found is None or found[0] != self._witness:
                self._ahead = StoreUnreadable(
                    f"the server of the store `{self._name}` crashed or was replaced while in use and may have lost what was last "
                    "written; start again: runs resume from what is there"
                )
                raise self._ahead
        except BaseException:
            made.close()
            raise
        return made

    def _dial(self, *, reader: bool = False) -> PostgresConnection:
        return dial(self._address, reader=reader, busy_timeout_ms=self._timeout)

    def _begin(self, *, durable: bool) -> None:
        """Begin and take the write lock; on a new connection when the old one is gone."""
        sql = cast("PostgresConnection", self._writer.sql)
        if not sql.broken:
            try:
                sql.begin_write(_lock(sql), durable=durable)
                return
            except StoreError:
                if not self._lost(sql):
                    raise
        fresh = self._connect()
        self._writer = SqlTx(fresh)
        fresh.begin_write(_lock(fresh), durable=durable)

    @staticmethod
    def _lost(sql: PostgresConnection) -> bool:
        return sql.broken

    def _begun_reader(self) -> SqlTx:
        """Give a connection inside a transaction that only reads; at most so many at once."""
        if not self._places.acquire(timeout=self._timeout / 1000):
            raise StoreBusy(f"the store `{self._name}` has {_MOST_READERS} readers already; ask for less at once")
        try:
            return self._sound_reader()
        except BaseException:
            self._places.release()
            raise

    def _sound_reader(self) -> SqlTx:
        while True:
            fresh = not self._readers
            reader = self._reader()
            try:
                reader.sql.begin()
            except StoreError:
                reader.sql.close()
                if fresh:
                    raise
            except BaseException:
                reader.sql.close()
                raise
            else:
                return reader

    def _give_back(self, reader: SqlTx, *, sound: bool) -> None:
        self._places.release()
        super()._give_back(reader, sound=sound and not cast("PostgresConnection", reader.sql).broken)

    # --------------------------------------------------------------------------------------------------- first contact

    def _open(self, sql: PostgresConnection, *, create: bool) -> None:
        """Make the tables of an empty store; refuse what is not ours or is newer than us."""
        with _locked(sql):
            known = _known(sql)
            if known is None:
                self._make(sql, create=create)
                return
            mark, revision = known
            if mark != _MARK:
                raise StoreCorrupt(f"the store `{self._name}` is a database of something else; name another schema")
            if revision > REVISION:
                raise StoreTooNew(f"the store `{self._name}` was written by a newer version; update Midwatch")
        if revision < REVISION:
            from midwatch.store.postgres_migrate import migrate  # noqa: PLC0415 - Alembic loads only where a store is older

            migrate(self._dial, _lock(sql), known=revision, target=REVISION)
            self._open(sql, create=False)  # looks again: whoever came first may be a newer version

    def _make(self, sql: PostgresConnection, *, create: bool) -> None:
        tables = "SELECT count(*) FROM pg_class WHERE relnamespace = CAST(CAST(? AS bigint) AS oid) AND relkind IN ('r', 'p')"
        if sql.execute(tables, (sql.schema,)).fetchone()[0]:
            raise StoreCorrupt(
                f"the store `{self._name}` is a schema with tables of something else; give Midwatch a schema of its own"
            )
        if not create:
            raise NotFound(f"no Midwatch store in `{self._name}`; `midwatch run FLEET` makes one")
        from midwatch.store.tables import ddl  # noqa: PLC0415 - SQLAlchemy loads only where tables are made

        sql.script("; ".join([*ddl("postgresql"), *_OWN]))
        values = (_MARK, REVISION, secrets.token_hex(16))
        sql.execute("INSERT INTO midwatch_store (one, mark, revision, id) VALUES (1, ?, ?, ?)", values)

    @staticmethod
    def _agree(sql: PostgresConnection) -> str:
        """Read the witness, or lay one where a crash took it."""
        with _locked(sql):
            insert = "INSERT INTO midwatch_witness (one, word) VALUES (1, ?) ON CONFLICT DO NOTHING"
            sql.execute(insert, (secrets.token_hex(16),))
            return str(sql.execute(_WITNESS).fetchone()[0])

    # ----------------------------------------------------------------------------------------------------- for doctor

    def report(self) -> ServerReport:
        """Say what the server is and what of its settings breaks a promise."""

        def look(tx: Any) -> dict[str, str]:
            marks = ", ".join("?" * len(_WATCHED))
            rows = tx.sql.execute(f"SELECT name, setting FROM pg_settings WHERE name IN ({marks})", _WATCHED)  # noqa: S608 - `?` only
            return dict(rows.fetchall())

        found = self.read(look)
        troubles = [
            f"`{name}` is off: a power cut may take what was reported as durable; set it on"
            for name in ("fsync", "full_page_writes")
            if found.get(name) == "off"
        ]
        return ServerReport(self._name, found, tuple(troubles))


def _known(sql: PostgresConnection) -> tuple[int, int] | None:
    if sql.execute("SELECT to_regclass('midwatch_store')").fetchone()[0] is None:
        return None
    found: tuple[int, int] = sql.execute("SELECT mark, revision FROM midwatch_store").fetchone()
    return found


def _lock(sql: PostgresConnection) -> tuple[int, int]:
    """Name the write lock of a schema: two numbers of 32 bits with a sign."""
    number = sql.schema
    return _MARK, number - 2**32 if number >= 2**31 else number


@contextlib.contextmanager
def _locked(sql: PostgresConnection) -> Iterator[None]:
    sql.begin_write(_lock(sql), durable=True)
    try:
        yield
        sql.commit()
    except BaseException:
        with contextlib.suppress(StoreError):
            sql.rollback()
        raise
