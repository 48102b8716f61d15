"""A home's file on its way to a server: everything arrives, or nothing does."""

from __future__ import annotations

import gzip
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from midwatch import wiring
from midwatch.errors import MidwatchError, NotFound, RunHeld, StoreCorrupt, UsageProblem
from midwatch.records.event import EventDraft
from midwatch.store.port import ChannelWrite, CheckpointRow, Store
from midwatch.store.postgres import PostgresStore
from midwatch.store.sqlite import SqliteStore
from tests.postgres_server import Server

FIXTURE = Path(__file__).parents[1] / "fixtures" / "home_r1"
ROW = CheckpointRow("thread", "", "1", None, "msgpack", b"body", b"{}", None, (("c", "1"),))


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """Give a home with finished, stopped and waiting runs."""
    place = tmp_path / "home"
    place.mkdir()
    with closing(sqlite3.connect(place / "midwatch.db")) as raw:
        raw.executescript(gzip.decompress((FIXTURE / "home.sql.gz").read_bytes()).decode())
    return place


def keep(store: Store, item: bytes) -> None:
    """Keep a large item of graph state, which the database gives a number."""
    write = ChannelWrite("c", "1", "list", (("msgpack", item),))
    store.write(lambda tx: tx.checkpoints.put(ROW, [write]))


@pytest.mark.req("POSTGRES-9")
def test_everything_arrives_and_the_store_goes_on(home: Path, postgres: Server) -> None:
    """Runs, gates and the head are the same; a resumed home adds to the chain, and to numbered rows."""
    address = postgres.schema()
    with wiring.open_store(home, environ={}) as old:
        keep(old, b"x" * 600)
        runs, gates = old.read(lambda tx: (tx.runs.list(), tx.gates.list()))
        head = old.read(lambda tx: tx.ledger.head())
    report = wiring.copy_store(home, address)
    assert (True, *head) == (report.ok, report.events, report.head)
    store = PostgresStore(address, create=False)
    assert (runs, gates) == store.read(lambda tx: (tx.runs.list(), tx.gates.list()))
    keep(store, b"y" * 600)
    found = store.read(lambda tx: tx.checkpoints.channel("thread", "", "c", "1"))
    assert ("list", [("msgpack", b"y" * 600)]) == found
    assert head[0] + 1 == store.write(lambda tx: tx.ledger.append(EventDraft("signal", "r", 1, {})))
    assert store.read(lambda tx: tx.ledger.verify(expected_head=head[1])).ok
    store.close()


def _held(home: Path) -> None:
    with wiring.open_store(home, environ={}) as store:
        store.write(lambda tx: tx.fences.take("ab" * 16, owner="x", at_us=wiring.clock(), ttl_us=10**10))


def _damaged(home: Path) -> None:
    SqliteStore(home / "midwatch.db").close()
    raw = sqlite3.connect(home / "midwatch.db")
    raw.execute("UPDATE event SET body = body || ' ' WHERE seq = 2")
    raw.commit()
    raw.close()


def _untyped(home: Path) -> None:
    SqliteStore(home / "midwatch.db").close()
    raw = sqlite3.connect(home / "midwatch.db")
    raw.execute("UPDATE run SET error_message = 'a' || char(0)")
    raw.commit()
    raw.close()


@pytest.mark.req("POSTGRES-9")
@pytest.mark.parametrize(
    ("harm", "error"),
    [(_held, RunHeld), (_damaged, StoreCorrupt), (_untyped, MidwatchError)],
    ids=["a run goes on", "damaged", "a value that the server cannot hold"],
)
def test_what_cannot_be_copied_whole_is_not_copied(
    home: Path, postgres: Server, harm: Callable[[Path], None], error: type[MidwatchError]
) -> None:
    """The target stays empty, so that the copy can be tried again."""
    address = postgres.schema()
    harm(home)
    with pytest.raises(error):
        wiring.copy_store(home, address)
    store = PostgresStore(address)
    assert (0, []) == store.read(lambda tx: (tx.ledger.head()[0], list(tx.runs.list())))
    store.close()


@pytest.mark.req("POSTGRES-8", "POSTGRES-9")
def test_a_copy_goes_only_where_nothing_is(home: Path, tmp_path: Path, postgres: Server) -> None:
    """A second copy, an address with a password and a home without a file are refused."""
    address = postgres.schema()
    wiring.copy_store(home, address)
    with pytest.raises(UsageProblem, match="holds records already"):
        wiring.copy_store(home, address)
    with pytest.raises(UsageProblem, match="password") as caught:
        wiring.copy_store(home, "postgresql://ann:hush-hush@127.0.0.1/db")
    assert "hush-hush" not in str(caught.value)
    with pytest.raises(NotFound):
        wiring.copy_store(tmp_path / "nothing", address)
