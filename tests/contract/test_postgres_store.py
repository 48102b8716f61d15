"""The store on a Postgres server where a server differs from a file: other processes, lost connections, restarts, crashes, migrations."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest

from midwatch import wiring
from midwatch.errors import (
    MidwatchError,
    NotFound,
    StoreBusy,
    StoreCorrupt,
    StoreError,
    StoreTooNew,
    StoreUnreadable,
    UsageProblem,
)
from midwatch.records.event import EventDraft
from midwatch.records.spend import Account
from midwatch.store.port import Tx
from midwatch.store.postgres import PostgresStore
from midwatch.store.postgres_wire import PostgresConnection
from tests.postgres_server import Server

RUN = "ab" * 16
WORKER = """
import sys
from midwatch.errors import BoundReached
from midwatch.records.event import EventDraft
from midwatch.records.spend import Line
from midwatch.store.postgres import PostgresStore

name, store = sys.argv[2], PostgresStore(sys.argv[1], create=False)
got = 0
for place in range(40):
    def claim(tx):
        tx.budgets.reserve(f"{name}:{place}", run="r", lines=[Line("s", "tool_calls", 1)], at_us=1)
        tx.ledger.append(EventDraft("signal", "r", 1, {"by": name}))
    try:
        store.write(claim, durable=place % 4 == 0)
        got += 1
    except BoundReached:
        pass
print(got)
"""
KILLED = """
import os, signal, sys
from midwatch.records.event import EventDraft
from midwatch.store.postgres import PostgresStore

def work(tx):
    tx.ledger.append(EventDraft("signal", "r", 1, {}))
    tx.fences.take("r", owner="killed", at_us=1, ttl_us=10**15)
    os.kill(os.getpid(), signal.SIGKILL)

PostgresStore(sys.argv[1]).write(work)
"""


@pytest.fixture
def address(postgres: Server) -> str:
    """Give a schema of the test's own."""
    return postgres.schema()


@pytest.fixture
def store(address: str) -> Iterator[PostgresStore]:
    """Give a store in it."""
    made = PostgresStore(address)
    yield made
    made.close()


def append(tx: Tx) -> int:
    """Append one event."""
    return tx.ledger.append(EventDraft("signal", RUN, 1, {}))


def connection(store: PostgresStore) -> PostgresConnection:
    """Give the connection that writes."""
    return cast("PostgresConnection", store._writer.sql)


def python(code: str, *words: str) -> subprocess.Popen[str]:
    """Start a program beside this one."""
    return subprocess.Popen(
        [sys.executable, "-c", code, *words], stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True
    )


@pytest.mark.req("POSTGRES-1")
def test_processes_that_want_more_than_the_cap_get_exactly_the_cap(store: PostgresStore, address: str) -> None:
    """Three processes claim 120 of 60, and write their events into one chain."""
    store.write(lambda tx: tx.budgets.set_cap("s", "tool_calls", 60))
    workers = [python(WORKER, address, name) for name in ("kernel", "governor", "inbox")]
    got = [int(worker.communicate(timeout=60)[0]) for worker in workers]
    report = store.read(lambda tx: tx.ledger.verify())
    assert (60, True, 60) == (sum(got), report.ok, report.events)
    assert [Account("s", "tool_calls", 60, 0, 60)] == list(store.read(lambda tx: tx.budgets.accounts(["s"])))


@pytest.mark.req("POSTGRES-1")
def test_what_one_process_commits_the_next_transaction_of_another_sees(store: PostgresStore, address: str) -> None:
    """Two stores that take a run in turn count its epochs together; the former owner is shut out."""
    other = PostgresStore(address)
    epochs = [
        at.write(lambda tx, n=n: tx.fences.take(RUN, owner="x", at_us=n, ttl_us=5))  # type: ignore[misc]
        for n, at in enumerate((store, other, store))
    ]
    assert [1, 2, 3] == epochs
    with pytest.raises(MidwatchError, match="another process"):
        other.write(lambda tx: tx.fences.check(RUN, 2))
    other.close()


@pytest.mark.req("POSTGRES-2")
def test_a_client_killed_in_a_transaction_leaves_nothing(store: PostgresStore, address: str) -> None:
    """Its event and its lease are gone, and the write lock is free at once."""
    killed = python(KILLED, address)
    killed.communicate(timeout=30)
    assert -signal.SIGKILL == killed.returncode
    began = time.monotonic()
    assert 1 == store.write(append)
    assert time.monotonic() - began < 5
    assert not store.read(lambda tx: tx.fences.live("r", 2))


@pytest.mark.req("POSTGRES-2", "POSTGRES-5")
def test_the_lock_of_a_stopped_client_is_a_bounded_wait(store: PostgresStore, address: str) -> None:
    """While another session holds the lock, a writer is told that the store is busy, and a reader is not held up."""
    hasty = PostgresStore(address, busy_timeout_ms=200)
    held, free = threading.Event(), threading.Event()

    def hold(tx: Tx) -> None:
        held.set()
        assert free.wait(20)

    holder = threading.Thread(target=store.write, args=(hold,))
    holder.start()
    try:
        assert held.wait(10)
        with pytest.raises(StoreBusy):
            hasty.write(append)
        assert 0 == hasty.read(lambda tx: tx.ledger.head())[0]
    finally:
        free.set()
        holder.join(10)
    assert 1 == hasty.write(append)
    hasty.close()


@pytest.mark.req("POSTGRES-3")
@pytest.mark.parametrize("swallowed", [False, True])
def test_a_connection_lost_in_a_transaction_undoes_it(store: PostgresStore, postgres: Server, swallowed: bool) -> None:
    """The caller gets an error, also when the work hides it; nothing is kept, and the next one is served."""

    def cut(tx: Tx) -> None:
        append(tx)
        postgres.say(f"SELECT pg_terminate_backend({connection(store).raw.info.backend_pid}, 5000)")
        try:
            append(tx)
        except StoreError:
            if not swallowed:
                raise

    with pytest.raises(StoreError):
        store.write(cut)
    assert 0 == store.read(lambda tx: tx.ledger.head())[0]
    assert 1 == store.write(append, durable=True)


@pytest.mark.req("POSTGRES-3")
def test_a_statement_that_fails_cannot_be_committed_around(store: PostgresStore) -> None:
    """Work that hides a failed statement is refused whole, as on every adapter; beside others, it alone is."""

    def hides(tx: Tx) -> None:
        append(tx)
        with pytest.raises(StoreError):
            cast("Any", tx).sql.execute("SELECT no_such_column FROM event")
        with pytest.raises(StoreError):
            append(tx)

    with pytest.raises(StoreError):
        store.write(hides)
    assert 1 == store.write(append)


@pytest.mark.req("POSTGRES-4")
def test_an_orderly_restart_is_survived_and_a_crash_is_not_ignored(own_postgres: Server) -> None:
    """After a restart everything goes on; after a crash who was connected is refused, and who opens anew finds what was durable."""
    address = own_postgres.schema()
    store = PostgresStore(address)
    store.write(append, durable=True)
    assert 1 == store.read(lambda tx: tx.ledger.head())[0]
    own_postgres.restart()
    assert 1 == store.read(lambda tx: tx.ledger.head())[0]
    assert 2 == store.write(append, durable=True)
    own_postgres.restart(crash=True)
    for _ in range(2):
        with pytest.raises(StoreUnreadable, match="crashed or was replaced"):
            store.write(append)
        with pytest.raises(StoreUnreadable, match="crashed or was replaced"):
            store.read(lambda tx: tx.ledger.head())
    later = PostgresStore(address, create=False)
    report = later.read(lambda tx: tx.ledger.verify())
    assert (True, 2, 3) == (report.ok, report.events, later.write(append))
    for left in (store, later):
        left.close()


@pytest.mark.req("POSTGRES-4", "POSTGRES-6")
def test_without_its_server_nothing_begins(
    own_postgres: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A store whose server is gone fails at once, for reading, writing and opening; a fleet does not start."""
    address = own_postgres.schema()
    store = PostgresStore(address)
    own_postgres.stop()
    began = time.monotonic()
    with pytest.raises(StoreError, match="no effect begins"):
        store.write(append, durable=True)
    with pytest.raises(StoreError, match="no effect begins"):
        store.read(lambda tx: tx.ledger.head())
    with (
        pytest.raises(StoreError, match="no effect begins"),
        wiring.open_store(tmp_path / "home", create=True, environ={"MIDWATCH_STORE": address}),
    ):
        pass
    assert time.monotonic() - began < 5
    assert not (tmp_path / "home").exists()
    store.close()


@pytest.mark.req("POSTGRES-5")
@pytest.mark.parametrize(("durable", "word"), [(True, "on"), (False, "off")])
def test_only_a_durable_batch_waits_for_the_disk(store: PostgresStore, durable: bool, word: str) -> None:
    """The server's own word for it, read inside the transaction."""
    sql = "SELECT current_setting('synchronous_commit')"
    assert word == store.write(lambda tx: cast("Any", tx).sql.execute(sql).fetchone()[0], durable=durable)


@pytest.mark.req("POSTGRES-5")
def test_a_statement_that_takes_too_long_is_ended(store: PostgresStore) -> None:
    """The server's bound on a statement makes the store busy, not stuck."""

    def slow(tx: Tx) -> None:
        sql = cast("Any", tx).sql
        sql.execute("SET LOCAL statement_timeout = '100ms'")
        sql.execute("SELECT pg_sleep(20)")

    with pytest.raises(StoreBusy):
        store.write(slow)
    assert 1 == store.write(append)


@pytest.mark.req("POSTGRES-5")
def test_a_server_that_says_nothing_is_given_up(store: PostgresStore) -> None:
    """A frozen server is an error after the bound, though no time-out of its own works any more; between transactions it is left."""
    for inside in (True, False):
        connection(store).raw.patience_s = 0.3
        frozen = connection(store).raw.info.backend_pid

        def freeze(tx: Tx, frozen: int = frozen) -> int:
            os.kill(frozen, signal.SIGSTOP)
            return append(tx)

        try:
            if inside:
                with pytest.raises(StoreError):
                    store.write(freeze)
            else:
                os.kill(frozen, signal.SIGSTOP)
                assert 1 == store.write(append)
        finally:
            os.kill(frozen, signal.SIGCONT)
        if inside:
            store.write(lambda _: None)


@pytest.mark.req("POSTGRES-5")
def test_every_session_has_its_bounds(store: PostgresStore) -> None:
    """Bounds on statements, locks and idle transactions are set, and no other schema answers to our names."""
    names = (
        "statement_timeout",
        "lock_timeout",
        "idle_in_transaction_session_timeout",
        "client_connection_check_interval",
    )
    values = [
        connection(store).execute("SELECT current_setting(?)", (name,)).fetchone()[0]
        for name in (*names, "search_path")
    ]
    assert ["1min", "30s", "30s", "1s"] == values[:4]
    assert values[4].endswith(", pg_temp")


SHAPE = (
    "SELECT table_name, column_name, data_type, is_nullable, replace(column_default, '{0}.', ''), collation_name "
    "FROM information_schema.columns WHERE table_schema = '{0}' ORDER BY 1, 2"
)
INDEXES = "SELECT replace(indexdef, '{0}.', '') FROM pg_indexes WHERE schemaname = '{0}' ORDER BY 1"


def schema(address: str) -> str:
    """Give the schema that an address ends in."""
    return address.rpartition("%3D")[2]


@pytest.mark.req("POSTGRES-7")
def test_migrations_end_where_an_empty_store_begins(postgres: Server) -> None:
    """A store of the first revision has the same columns and indexes after opening as a new one; its events are kept."""
    address, fresh = postgres.schema(), postgres.schema()
    PostgresStore(fresh).close()
    old = PostgresStore(address)
    old.write(append)
    old.write(lambda tx: tx.ledger.append(EventDraft("signal", RUN, 1, {}, causes=(1,))))
    old.close()
    _take_back(postgres, address)
    store = PostgresStore(address, create=False)
    assert store.read(lambda tx: tx.ledger.verify()).ok
    for sql in (SHAPE, INDEXES):
        wanted = postgres.say(sql.format(schema(fresh)))
        assert wanted == postgres.say(sql.format(schema(address)))
    store.close()


@pytest.mark.req("POSTGRES-7")
def test_a_migration_that_fails_changes_nothing(postgres: Server) -> None:
    """A table in the way of the last step takes all steps back, and the message says so."""
    address = postgres.schema()
    PostgresStore(address).close()
    _take_back(postgres, address)
    postgres.say("CREATE TABLE quarantine (in_the_way BIGINT)", address)
    before = postgres.say(SHAPE.format(schema(address)))
    with pytest.raises(StoreError, match="is as it was"):
        PostgresStore(address)
    assert before == postgres.say(SHAPE.format(schema(address)))


def _take_back(postgres: Server, address: str) -> None:
    """Make of a new store one as the first revision left it."""
    newer = (
        "baseline",
        "throttle",
        "budget_order",
        "budget_begun",
        "breaker",
        "breaker_trail",
        "flag",
        "lease",
        "authority",
    )
    gone = ("gate_answer", "principal", "notice", "link", "cause", "file_version", "quarantine", *newer)
    columns = (
        "kind",
        "action",
        "arguments",
        "asked_by",
        "precondition",
        "terms",
        "edited_by",
        "answer",
        "escalated_us",
    )
    postgres.say(
        f"DROP TABLE {', '.join(gone)}; DROP INDEX gate_expiry, gate_answered; ALTER TABLE run DROP asked_by; "  # noqa: S608
        f"ALTER TABLE event DROP follows; ALTER TABLE gate {', '.join(f'DROP {name}' for name in columns)}; "
        "UPDATE midwatch_store SET revision = 1",
        address,
    )


@pytest.mark.req("POSTGRES-7")
def test_what_is_not_ours_or_newer_is_refused(postgres: Server) -> None:
    """A schema with other tables, another mark and a newer revision are left alone; so is an empty one that nobody asked to fill."""
    address = postgres.schema()
    with pytest.raises(NotFound):
        PostgresStore(address, create=False)
    postgres.say("CREATE TABLE theirs (x BIGINT)", address)
    with pytest.raises(StoreCorrupt, match="schema of its own"):
        PostgresStore(address)
    postgres.say("DROP TABLE theirs", address)
    PostgresStore(address).close()
    postgres.say("UPDATE midwatch_store SET revision = 99", address)
    with pytest.raises(StoreTooNew):
        PostgresStore(address)
    postgres.say("UPDATE midwatch_store SET revision = 1, mark = 7", address)
    with pytest.raises(StoreCorrupt):
        PostgresStore(address)


@pytest.mark.req("POSTGRES-8")
def test_a_home_keeps_to_its_server(postgres: Server, tmp_path: Path) -> None:
    """Without the variable, with another server's address, or beside a file of its own, a home does not open."""
    here, there = ({"MIDWATCH_STORE": postgres.schema()} for _ in range(2))
    home = tmp_path / "home"
    with wiring.open_store(home, create=True, environ=here) as store:
        store.write(append)
    with pytest.raises(StoreUnreadable, match="MIDWATCH_STORE"), wiring.open_store(home, create=True, environ={}):
        pass
    with pytest.raises(StoreUnreadable, match="another store"), wiring.open_store(home, create=True, environ=there):
        pass
    with wiring.open_store(home, environ=here) as store:
        assert 1 == store.read(lambda tx: tx.ledger.head())[0]
    other = tmp_path / "other"
    with wiring.open_store(other, create=True, environ={}):
        pass
    with pytest.raises(StoreUnreadable, match="records of its own"), wiring.open_store(other, environ=here):
        pass


@pytest.mark.req("POSTGRES-8")
@pytest.mark.parametrize(
    "url",
    [
        "postgresql://ann:hush-hush@127.0.0.1:1/db",
        "postgresql://ann:hush-hush@127.0.0.1:port/db",
        "postgresql://ann:hush-hush@[::1/db",
        "postgresql://ann:hush-hush@/db?nonsense=1",
        "mysql://ann:hush-hush@host/db",
    ],
)
def test_a_password_is_in_no_message(url: str) -> None:
    """Not when the server is away, not when the address cannot be read; not in the chain of causes either."""
    with pytest.raises((StoreError, UsageProblem)) as caught:
        PostgresStore(url)
    error: BaseException | None = caught.value
    while error is not None:
        assert "hush-hush" not in str(error) + repr(error)
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)


@pytest.mark.req("POSTGRES-8")
def test_a_run_on_a_server_is_recorded_and_leaves_no_secret(postgres: Server, tmp_path: Path) -> None:
    """The example fleet runs by the command line, its governor too; the ledger holds, and the password is in no file or command line."""
    address = postgres.schema().replace("midwatch@", "midwatch:hush-hush@")
    (tmp_path / "work").mkdir()
    env = {**os.environ, "MIDWATCH_STORE": address, "MIDWATCH_HOME": str(tmp_path / "home")}

    def say(*words: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "midwatch", *words],
            cwd=tmp_path / "work",
            env=env,
            capture_output=True,
            text=True,
            timeout=100,
            check=False,
            stdin=subprocess.DEVNULL,
        )
        assert 0 == done.returncode, done.stderr
        assert "hush-hush" not in done.stdout + done.stderr
        return done.stdout

    say("run", str(Path(__file__).parents[2] / "examples" / "nightwatch"))
    assert "hush-hush" not in "".join(
        path.read_text(errors="replace") for path in Path("/proc").glob("[0-9]*/cmdline") if os.access(path, os.R_OK)
    )
    verified = json.loads(say("verify", "--json"))
    assert (True, True) == (verified["ok"], verified["events"] > 10)
    checks = {item["check"]: item for item in json.loads(say("doctor", "--json"))["checks"]}
    assert "ok" == checks["store"]["status"]
    assert "Postgres" in checks["store"]["message"]
    files = [path for path in (tmp_path / "home").rglob("*") if path.is_file()]
    assert not [path for path in files if b"hush-hush" in path.read_bytes()]
    assert not (tmp_path / "home" / "midwatch.db").exists()
