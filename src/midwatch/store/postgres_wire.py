"""Postgres, the wire: one connection to a server: how statements are said to it, and what its errors mean here.

In:   an address; SQL of the nouns, with `?` marks. Out: rows; `StoreBusy`, `StoreCorrupt`, `StoreFull`, `StoreUnreadable`, `StoreError`.
May import: psycopg, store.connection, errors. Must not know: which nouns exist, when a transaction is made.

The nouns' SQL is written once, in the words that SQLite and Postgres share; `spoken` says the few others (and the tests run all
of them on both). After an error Postgres refuses everything until the transaction, or the part behind a mark, is undone; so does
a `Connection` (`_lost`), and a `COMMIT` that the server answers with `ROLLBACK` is an error.

Why every wait is bounded here, too: the server's own time-outs do not help against a server that is frozen, or a network that
swallows packets. A connection that says nothing for longer than any statement may take is closed.

No message holds the address's password or a stored value: the server's detail lines are left out.
"""

from __future__ import annotations

import itertools
import re
import struct
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final, TypeVar

import psycopg
from psycopg import conninfo
from psycopg.pq import TransactionStatus
from psycopg.types.numeric import Int8BinaryDumper
from psycopg.types.string import BytesBinaryDumper, StrBinaryDumper

from midwatch.errors import StoreBusy, StoreCorrupt, StoreError, StoreFull, StoreUnreadable, UsageProblem
from midwatch.store.connection import Connection, Rows

__all__ = ["Address", "PostgresConnection", "dial", "spoken", "translate"]

_RV = TypeVar("_RV")
STATEMENT_S: Final = 60
"""The longest that one statement may take."""
IDLE_S: Final = 30
"""The longest that a transaction may wait for its client: what a stopped client holds, others get back."""
CONNECT_S: Final = 10
_GRACE_S: Final = 10
_BATCH: Final = 500

_BUSY: Final = "is in use or overloaded for longer than the bounded wait; try again, or look at `pg_stat_activity`"
_GONE: Final = (
    "is not reachable, so no effect begins; what was not committed is undone. Start the server, then `midwatch resume`"
)
_RIGHTS: Final = "refuses this user; check the address, the password file and the rights of the role"
_KINDS: Final[Mapping[str, tuple[type[StoreError], str]]] = {
    "55P03": (StoreBusy, _BUSY),  # lock_not_available
    "57014": (StoreBusy, _BUSY),  # query_canceled: the statement's time-out
    "40001": (StoreBusy, _BUSY),  # serialization_failure: a foreign session's
    "40P01": (StoreBusy, _BUSY),  # deadlock_detected: as above
    "53300": (StoreBusy, "has no connection left; raise `max_connections`, or run fewer processes"),
    "53100": (StoreFull, "has no room to grow; free disk space on the server, then `midwatch resume`"),
    "53200": (StoreFull, "is out of memory; then `midwatch resume`"),
    "25006": (StoreUnreadable, "cannot be written here: a read of it, or a standby server; name the primary"),
    "42501": (StoreUnreadable, _RIGHTS),
    "3D000": (StoreUnreadable, "does not exist; make the database with `createdb`"),
    "25P03": (StoreError, _GONE),  # idle_in_transaction_session_timeout
    "XX001": (StoreCorrupt, "is damaged; restore it from a backup"),
    "XX002": (StoreCorrupt, "is damaged; restore it from a backup"),
}
_CLASSES: Final[Mapping[str, tuple[type[StoreError], str]]] = {
    "08": (StoreError, _GONE),
    "57": (StoreError, _GONE),  # shut down, crashed, starting up
    "28": (StoreUnreadable, _RIGHTS),
    "22": (StoreError, "cannot hold a value as it is: text with a NUL character, or a number past 64 bits"),
}


@dataclass(frozen=True, slots=True, repr=False)
class Address:
    """Where a store is.

    Attributes:
        parts: what libpq needs. Never shown: a password may be among them.
        shown: user, host and database, for messages.
    """

    parts: Mapping[str, str]
    shown: str

    @classmethod
    def of(cls, url: str) -> Address:
        """Read `postgresql://…`; what it leaves out, libpq's own variables and password file give.

        Raises:
            UsageProblem: it is none. The text is not repeated: it may hold a password.
        """
        if not url.startswith(("postgresql://", "postgres://")):
            raise UsageProblem("the address of a store begins with `postgresql://`; a folder is named by `--home`")
        try:
            parts = {name: str(value) for name, value in conninfo.conninfo_to_dict(url).items() if value is not None}
        except psycopg.Error:
            raise UsageProblem(
                "the store's address cannot be read; write `postgresql://user@host/database`, with `%` codes for special signs"
            ) from None
        user, host = parts.get("user", ""), parts.get("host", parts.get("hostaddr", ""))
        at = f"{user}@" if user else ""
        return cls(parts, f"postgresql://{at}{host if not host.startswith('/') else ''}/{parts.get('dbname', '')}")


def translate(error: psycopg.Error, name: str) -> StoreError:
    """Turn the driver's error into ours; `name` is the store."""
    code = error.sqlstate or ""
    known = _KINDS.get(code) or _CLASSES.get(code[:2])
    if known is None and not code and isinstance(error, psycopg.OperationalError):
        known = (StoreError, _GONE)
    if known is None and isinstance(error, psycopg.DataError):
        known = _CLASSES["22"]
    if known is None:
        said = error.diag.message_primary or type(error).__name__
        known = (StoreError, f"failed: {said} ({code or 'no code'})")
    kind, remedy = known
    return kind(f"the store `{name}` {remedy}")


_STEPS: Final = re.compile(
    r"UNION SELECT c\.to_seq FROM reach JOIN cause c ON c\.from_seq = reach\.seq "
    r"UNION SELECT e\.seq FROM reach JOIN event e ON e\.seq = reach\.seq \+ 1 AND e\.follows = 1 "
)
_LATERAL: Final = (
    "UNION SELECT step.seq FROM reach CROSS JOIN LATERAL (SELECT c.to_seq FROM cause c WHERE c.from_seq = reach.seq "
    "UNION ALL SELECT e.seq FROM event e WHERE e.seq = reach.seq + 1 AND e.follows = 1) AS step (seq) "
)
_SHOWN: Final = re.compile(
    r"LIMIT \?\) SELECT reach\.seq, event\.kind, event\.run FROM reach CROSS JOIN event ON event\.seq = reach\.seq"
)
_NEAREST: Final = (
    ") SELECT near.seq, event.kind, event.run FROM "
    "(SELECT seq, row_number() OVER () AS place FROM reach LIMIT ?) AS near JOIN event ON event.seq = near.seq ORDER BY near.place"
)


@lru_cache(maxsize=1024)
def spoken(sql: str) -> str:
    """Say a statement of the nouns in Postgres' words."""
    said = sql
    if said.startswith("INSERT OR IGNORE "):
        said = f"INSERT {said.removeprefix('INSERT OR IGNORE ')} ON CONFLICT DO NOTHING"
    said = _SHOWN.sub(_NEAREST, _STEPS.sub(_LATERAL, said))  # one recursive part, and its bound outside
    said = said.replace("json_each(?)", "json_array_elements_text(CAST(? AS json))")
    said = re.sub(r"CROSS JOIN (\w+ \w) ON ", r"JOIN \1 ON ", said)  # the order of joins is the planner's
    said = said.replace(".rowid", ".ctid").replace("+status", "status")
    return said.replace("%", "%%").replace("?", "%s")


class _Bounded(psycopg.Connection[tuple[Any, ...]]):
    """A connection that waits for no answer longer than any statement may take."""

    patience_s: float = STATEMENT_S + _GRACE_S

    def wait(self, gen: Generator[Any, Any, _RV], interval: float = 0.1, timeout: float | None = None) -> _RV:
        """Wait for an answer, to the bound."""
        return super().wait(gen, interval, self.patience_s if timeout is None else timeout)


class _Flag(Int8BinaryDumper):
    """Truth values are 0 and 1 in columns of numbers."""


def dial(address: Address, *, reader: bool = False, busy_timeout_ms: int = 30_000) -> PostgresConnection:
    """Connect, and set what every session of ours has.

    Raises:
        StoreError: the server does not take us, or is none that a store can be on.
    """
    given = {"application_name": "midwatch", "connect_timeout": str(CONNECT_S), "keepalives_idle": "15"}
    given |= {"keepalives_interval": "5", "keepalives_count": "3", "tcp_user_timeout": "30000", **address.parts}
    try:
        raw = _Bounded.connect(**given, client_encoding="UTF8", autocommit=True)  # type: ignore[arg-type]
    except psycopg.Error as error:
        raise _refused(error, address) from None  # without the driver's words: they may repeat the address
    raw.prepared_max = 400
    raw.prepare_threshold = 2
    for kind, dumper in ((bool, _Flag), (int, Int8BinaryDumper), (str, StrBinaryDumper), (bytes, BytesBinaryDumper)):
        raw.adapters.register_dumper(kind, dumper)
    made = PostgresConnection(raw, address.shown)
    try:
        made.tune(reader=reader, busy_timeout_ms=busy_timeout_ms)
    except BaseException:
        made.close()
        raise
    return made


def _refused(error: psycopg.Error, address: Address) -> StoreError:
    text = str(error)
    if "authentication failed" in text or "no pg_hba.conf entry" in text or "no password supplied" in text:
        return StoreUnreadable(f"the store `{address.shown}` {_RIGHTS}")
    if "does not exist" in text and "database" in text:
        return StoreUnreadable(f"the store `{address.shown}` {_KINDS['3D000'][1]}")
    if "too many" in text:
        return StoreBusy(f"the store `{address.shown}` {_KINDS['53300'][1]}")
    return StoreError(f"the store `{address.shown}` {_GONE}")


class PostgresConnection(Connection):
    """`store.connection.Connection` to a Postgres server; not for use by two threads at once."""

    __slots__ = ("_numbers", "schema")

    def __init__(self, raw: Any, name: str) -> None:
        super().__init__(raw, name)
        self._numbers = itertools.count()
        self.schema = 0

    def tune(self, *, reader: bool, busy_timeout_ms: int) -> None:
        """Set the bounds of this session; refuse a server that cannot hold a store."""
        schema, number, version, encoding, standby = self.execute(
            "SELECT current_schema(), CAST(CAST(current_schema() AS regnamespace) AS oid), "
            "CAST(current_setting('server_version_num') AS bigint), current_setting('server_encoding'), pg_is_in_recovery()"
        ).fetchone()
        if schema is None:
            raise StoreUnreadable(
                f"the store `{self.name}` has no schema to be in; name one in the role's `search_path`"
            )
        if version < 140_000 or encoding != "UTF8":
            raise StoreUnreadable(f"the store `{self.name}` needs Postgres 14 or newer and a database in UTF8")
        if standby and not reader:
            raise StoreUnreadable(f"the store `{self.name}` {_KINDS['25006'][1]}")
        self.schema = number
        quoted = '"' + str(schema).replace('"', '""') + '"'
        for key, value in {
            "search_path": f"{quoted}, pg_temp",  # nothing of another schema answers to our tables' names
            "lock_timeout": f"{busy_timeout_ms}ms",
            "statement_timeout": f"{max(STATEMENT_S * 1000, busy_timeout_ms + 1000)}ms",
            "idle_in_transaction_session_timeout": f"{IDLE_S}s",
            "client_connection_check_interval": "1s",
            "standard_conforming_strings": "on",
            "jit": "off",
        }.items():
            self.execute("SELECT set_config(?, ?, false)", (key, value))

    def execute(self, sql: str, values: Sequence[Any] = ()) -> Rows:
        """Run one statement."""
        return self._run(lambda cursor: cursor.execute(spoken(sql), values))

    def executemany(self, sql: str, rows: Iterable[Sequence[Any]]) -> Rows:
        """Run one statement for many rows."""
        return self._run(lambda cursor: cursor.executemany(spoken(sql), rows))

    def stream(self, sql: str) -> Iterator[Any]:
        """Read row after row; the server keeps the rest."""
        try:
            with self._raw.cursor(name=f"midwatch{next(self._numbers)}", binary=True) as cursor:
                cursor.itersize = _BATCH
                yield from cursor.execute(spoken(sql))
        except psycopg.Error as error:
            raise self._failed(error) from error

    def script(self, sql: str) -> None:
        """Run statements of our own, in one message."""
        self._say(sql)

    def number_on(self, table: str, column: str) -> None:
        """Let the sequence of a column go on after the numbers in the table."""
        sql = (
            f"SELECT setval(pg_get_serial_sequence(?, ?), (SELECT coalesce(max({column}), 0) + 1 FROM {table}), false)"  # noqa: S608
        )
        self.execute(sql, (table, column))

    def begin(self, how: str = "DEFERRED") -> None:
        """Start a transaction that reads one snapshot."""
        self._say("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
        self._inside = True

    def begin_write(self, lock: tuple[int, int], *, durable: bool) -> None:
        """Start a transaction and take the write lock, in one message. Each statement after it sees all that was committed before."""
        self._inside = True
        self._say(
            "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE; "
            f"SET LOCAL synchronous_commit TO {'on' if durable else 'off'}; SELECT pg_advisory_xact_lock({lock[0]}, {lock[1]})"
        )

    def commit(self) -> None:
        """End the transaction and keep its changes; raises when it was lost on the way."""
        if self._lost is not None:
            raise type(self._lost)(str(self._lost)) from self._lost
        if self._say("COMMIT") != "COMMIT":
            raise StoreError(
                f"the store `{self.name}` undid a transaction that had failed on the way; nothing of it is kept"
            )
        self._inside = False

    def rollback(self) -> None:
        """End the transaction, or what is left of it, without a trace; a connection in the middle of something is closed."""
        self._inside, self._lost = False, None
        state = self._raw.info.transaction_status
        if state in (TransactionStatus.INTRANS, TransactionStatus.INERROR):
            self._say("ROLLBACK")
        elif state != TransactionStatus.IDLE:
            self.close()

    def back(self) -> None:
        """Undo what was done since `mark`; a connection that is gone stays lost."""
        if not self.broken:
            self._lost = None
        self.execute("ROLLBACK TO piece")

    @property
    def raw(self) -> Any:
        """The driver's connection, for Alembic."""
        return self._raw

    @property
    def broken(self) -> bool:
        """Whether the connection is of no more use."""
        return bool(self._raw.closed)

    @property
    def in_transaction(self) -> bool:
        """Whether a transaction is open."""
        return bool(self._raw.info.transaction_status != TransactionStatus.IDLE)

    def _say(self, sql: str) -> str:
        """Send words of our own, perhaps several statements, as they are; gives the last one's tag."""
        try:
            cursor = self._raw.cursor()
            cursor.execute(sql, prepare=False)
            while cursor.nextset():
                pass
            return str(cursor.statusmessage)
        except psycopg.Error as error:
            raise self._failed(error) from error

    def _run(self, work: Any) -> Rows:
        if self._lost is not None:
            raise type(self._lost)(str(self._lost)) from self._lost
        try:
            cursor: Rows = self._raw.cursor(binary=True)
            work(cursor)
            return cursor
        except psycopg.Error as error:
            raise self._failed(error) from error
        except struct.error as error:
            raise OverflowError("a number does not fit into 64 bits") from error

    def _failed(self, error: Any) -> StoreError:
        ours = translate(error, self.name)
        if isinstance(error, psycopg.OperationalError) and error.sqlstate is None:
            self.close()  # whoever does not answer now is not asked again on this connection
        if self._inside:
            self._lost = ours
        return ours
