"""What the store says when its file is damaged, foreign, locked, full or too new; and when its process dies."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from midwatch.errors import StoreBusy, StoreCorrupt, StoreFull, StoreTooNew, StoreUnreadable
from midwatch.records.event import EventDraft
from midwatch.store.sqlite import SqliteStore

WRITER = """
import sys
from midwatch.records.event import EventDraft
from midwatch.store.sqlite import SqliteStore
store = SqliteStore(sys.argv[1])
while True:
    seq = store.write(lambda tx: tx.ledger.append(EventDraft("signal", None, 1, {"n": 1})), durable=True)
    print(seq, flush=True)
"""


def draft() -> EventDraft:
    """Make an event."""
    return EventDraft("signal", None, 1, {"text": "x" * 100})


def seeded(path: Path) -> None:
    """Make a store with five events and a blob."""
    store = SqliteStore(path)
    for _ in range(5):
        store.write(lambda tx: tx.ledger.append(EventDraft("signal", None, 1, {"a_blob": tx.blobs.put(b"body")})))
    store.close()


def edit(path: Path, *statements: str) -> None:
    """Change the file behind the store's back."""
    with sqlite3.connect(path) as raw:
        for statement in statements:
            raw.execute(statement)


TAMPERINGS = {
    "changed": "UPDATE event SET body = replace(body, '1', '2') WHERE seq = 2",
    "dropped": "DELETE FROM event WHERE seq = 3",
    "column": "UPDATE event SET kind = 'intent' WHERE seq = 2",
    "body of a blob": "UPDATE blob SET body = x'00'",
    "blob": "DELETE FROM blob",
}


@pytest.mark.req("STORE-2")
@pytest.mark.parametrize("how", sorted(TAMPERINGS))
def test_verify_finds_tampering(tmp_path: Path, how: str) -> None:
    """Whatever is changed behind the store's back below the head is found."""
    path = tmp_path / "m.db"
    seeded(path)
    edit(path, TAMPERINGS[how])
    store = SqliteStore(path)
    assert not store.read(lambda tx: tx.ledger.verify()).ok
    store.close()


@pytest.mark.req("STORE-2")
def test_a_lost_tail_is_found_only_against_an_anchor(tmp_path: Path) -> None:
    """Without the anchor a shorter chain is still a chain; with it the loss shows."""
    path = tmp_path / "m.db"
    seeded(path)
    store = SqliteStore(path)
    head = store.read(lambda tx: tx.ledger.head())[1]
    store.close()
    edit(path, "DELETE FROM event WHERE seq = 5")
    store = SqliteStore(path)
    assert (True, False) == (
        store.read(lambda tx: tx.ledger.verify()).ok,
        store.read(lambda tx: tx.ledger.verify(expected_head=head)).ok,
    )
    store.close()


def text(path: Path) -> None:
    """Make a file that is no database."""
    path.write_bytes(b"this is no database " * 100)


def foreign(path: Path) -> None:
    """Make a database of something else."""
    edit(path, "CREATE TABLE other (x)")


def newer(path: Path) -> None:
    """Make a store of a later version."""
    seeded(path)
    edit(path, "PRAGMA user_version = 999")


def folder(path: Path) -> None:
    """Make a folder where the file should be."""
    path.mkdir()


@pytest.mark.req("STORE-6")
@pytest.mark.parametrize(
    ("make", "error"), [(text, StoreCorrupt), (foreign, StoreCorrupt), (newer, StoreTooNew), (folder, StoreUnreadable)]
)
def test_an_unusable_file_is_a_clear_error_and_stays_as_it_is(
    tmp_path: Path, make: Callable[[Path], None], error: type[Exception]
) -> None:
    """The message names the file, and the file is not touched."""
    path = tmp_path / "m.db"
    make(path)
    before = path.read_bytes() if path.is_file() else b""
    with pytest.raises(error, match=r"m\.db"):
        SqliteStore(path)
    assert before == (path.read_bytes() if path.is_file() else b"")


@pytest.mark.req("STORE-6")
def test_a_home_below_a_file_cannot_be_made(tmp_path: Path) -> None:
    """The error says what to do instead of a traceback."""
    (tmp_path / "file").write_text("x")
    with pytest.raises(StoreUnreadable, match="--home"):
        SqliteStore(tmp_path / "file" / "m.db")


@pytest.mark.req("STORE-6")
def test_a_lock_that_another_connection_keeps_is_a_bounded_wait(tmp_path: Path) -> None:
    """The writer gives up with its work undone, and works again once the lock is gone."""
    path = tmp_path / "m.db"
    store = SqliteStore(path, busy_timeout_ms=20)
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreBusy):
        store.write(lambda tx: tx.ledger.append(draft()))
    other.execute("ROLLBACK")
    assert 1 == store.write(lambda tx: tx.ledger.append(draft()))
    other.close()
    store.close()


@pytest.mark.req("STORE-6")
def test_a_full_disk_stops_the_write_and_keeps_what_was_there(tmp_path: Path) -> None:
    """When the file may not grow the write fails whole; the chain still verifies."""
    store = SqliteStore(tmp_path / "m.db")
    store.write(lambda tx: tx.ledger.append(draft()))
    pages = store._writer.sql.execute("PRAGMA page_count").fetchone()[0]
    store._writer.sql.execute(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(StoreFull, match="disk space"):
        store.write(lambda tx: [tx.ledger.append(draft()) for _ in range(500)])
    report = store.read(lambda tx: tx.ledger.verify())
    assert (True, 1) == (report.ok, report.events)
    store.close()


@pytest.mark.req("STORE-1")
def test_no_acknowledged_event_is_lost_when_the_writer_is_killed(tmp_path: Path) -> None:
    """Kill the writer ten times while it writes: everything it had acknowledged is there and the chain verifies."""
    path = tmp_path / "m.db"
    acknowledged = 0
    for kill in range(10):
        child = subprocess.Popen([sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE, text=True)
        assert child.stdout is not None
        for _ in range(3 + kill):
            acknowledged = int(child.stdout.readline())
        os.kill(child.pid, signal.SIGKILL)
        acknowledged = max([acknowledged, *(int(line) for line in child.stdout.read().split("\n")[:-1])])
        child.stdout.close()
        child.wait(10)
    store = SqliteStore(path)
    report = store.read(lambda tx: tx.ledger.verify())
    store.close()
    assert report.ok
    assert report.events >= acknowledged


@pytest.mark.req("STORE-3")
def test_two_processes_write_one_home_without_losing_a_place(tmp_path: Path) -> None:
    """Both get their own numbers, and the chain has no hole."""
    path = tmp_path / "m.db"
    SqliteStore(path).close()
    script = WRITER.replace("while True", "for _ in range(30)")
    children = [
        subprocess.Popen([sys.executable, "-c", script, str(path)], stdout=subprocess.PIPE, text=True) for _ in range(2)
    ]
    numbers = [int(line) for child in children for line in child.communicate(timeout=60)[0].split()]
    store = SqliteStore(path)
    assert store.read(lambda tx: tx.ledger.verify()).ok
    store.close()
    assert list(range(1, 61)) == sorted(numbers)
