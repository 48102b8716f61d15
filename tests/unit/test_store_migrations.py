"""An older home becomes one of this version when it is opened: whole or not at all, with nothing lost that waited in it."""

from __future__ import annotations

import gzip
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from midwatch import wiring
from midwatch.engine import control
from midwatch.errors import StoreError, StoreTooNew
from midwatch.records.run import RunResult
from midwatch.store.migrate import backup_path
from midwatch.store.sqlite import REVISION, SqliteStore

FIXTURE = Path(__file__).parents[1] / "fixtures" / "home_r1"
HEAD = "795c767be539de120327eca15ae8a13e13521258f1778a0678e979ea8f06fdb5"
CUT = "70834d79dd63af5a0f9340b403448dda"
APPROVED = "676bfa5ba3a083232e67482065adebfd"
WAITING = "e8138a599355ac1833cdd66f1a7731f6"
GATE = "23ac8beb8a02e059"

KILLED = """
import os, signal, sys
import alembic.operations.ops as ops
from midwatch.store.sqlite import SqliteStore
left = int(sys.argv[2])
def counted(cls, name):
    real = getattr(cls, name)
    def call(*args, **more):
        global left
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return real(*args, **more)
    setattr(cls, name, call)
import sqlalchemy as sa
counted(sa.engine.Connection, "execute")
counted(sa.engine.Connection, "exec_driver_sql")
SqliteStore(sys.argv[1]).close()
"""


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """The stored home of revision 1, as a database."""
    place = tmp_path / "home"
    place.mkdir()
    raw = sqlite3.connect(place / "midwatch.db")
    raw.executescript(gzip.decompress((FIXTURE / "home.sql.gz").read_bytes()).decode())
    raw.execute("PRAGMA journal_mode=WAL")
    raw.close()
    return place


def revision(place: Path) -> int:
    """Read the revision of a database."""
    raw = sqlite3.connect(place)
    found: int = raw.execute("PRAGMA user_version").fetchone()[0]
    raw.close()
    return found


def shape(place: Path) -> dict[str, Any]:
    """Give columns and indexes of every table, whatever the wording of their SQL."""
    raw = sqlite3.connect(place)
    tables = [row[0] for row in raw.execute("SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name")]
    found = {
        table: (
            raw.execute(f"PRAGMA table_info({table})").fetchall(),
            sorted(
                (
                    row[1] if row[3] == "c" else row[3],
                    row[2],
                    tuple(item[2] for item in raw.execute(f"PRAGMA index_info({row[1]})")),
                )
                for row in raw.execute(f"PRAGMA index_list({table})")
            ),
        )
        for table in tables
    }
    raw.close()
    return found


def go_on(tmp_path: Path, home: Path, run: str) -> RunResult:
    """Resume a run of the stored home with the fleet that is stored beside it."""
    work = tmp_path / "work"
    work.mkdir(exist_ok=True)
    with wiring.open(FIXTURE, home=home, workdir=work, environ={}) as kernel:
        return kernel.resume(run)


@pytest.mark.req("STORE-8")
def test_a_migrated_home_has_the_tables_of_a_fresh_one(home: Path, tmp_path: Path) -> None:
    """Columns, order, defaults, keys and indexes are the same; a copy of what it was stays beside it."""
    SqliteStore(home / "midwatch.db").close()
    SqliteStore(tmp_path / "fresh.db").close()
    assert shape(tmp_path / "fresh.db") == shape(home / "midwatch.db")
    kept = backup_path(str(home / "midwatch.db"), 1)
    assert (REVISION, 1, 0o600) == (revision(home / "midwatch.db"), revision(kept), kept.stat().st_mode & 0o777)


@pytest.mark.req("STORE-8")
def test_the_old_chain_verifies_against_its_old_head(home: Path) -> None:
    """Not a byte of what was recorded changed."""
    with wiring.open_store(home) as store:
        report = store.read(lambda tx: tx.ledger.verify(expected_head=HEAD))
        assert (True, 92) == (report.ok, report.events)


@pytest.mark.req("STORE-8")
def test_a_gate_that_waits_is_answered_after_the_update(home: Path, tmp_path: Path) -> None:
    """The question of the older version takes its yes, and the run goes on under it."""
    with wiring.open_store(home) as store:
        control.answer(store, GATE, approve=True, by="ann", reason="", at_us=wiring.clock())
    assert "done" == go_on(tmp_path, home, WAITING).status
    assert "alpha\n" == (tmp_path / "work" / "wipes").read_text()


@pytest.mark.req("STORE-8")
def test_a_yes_given_before_the_update_still_counts(home: Path, tmp_path: Path) -> None:
    """Approved under the older version, carried out once under this one."""
    for _ in range(2):
        assert "done" == go_on(tmp_path, home, APPROVED).status
    assert "alpha\n" == (tmp_path / "work" / "wipes").read_text()


@pytest.mark.req("STORE-8")
def test_an_effect_in_doubt_stays_in_doubt(home: Path, tmp_path: Path) -> None:
    """What was cut under the older version is not repeated by this one."""
    result = go_on(tmp_path, home, CUT)
    assert ("waiting", 1, False) == (result.status, len(result.in_doubt), (tmp_path / "work" / "wipes").exists())


@pytest.mark.req("STORE-8")
@pytest.mark.parametrize("at", [1, 2, 3, 4, 7, 12, 15, 18, 21, 24])
def test_a_kill_leaves_the_old_home_or_the_new_one(home: Path, at: int) -> None:
    """Whichever statement it dies in: afterwards the home opens, is whole, and verifies."""
    place = home / "midwatch.db"
    made = subprocess.run(
        [sys.executable, "-c", KILLED, str(place), str(at)], capture_output=True, timeout=60, check=False
    )
    assert made.returncode in (0, -signal.SIGKILL), made.stderr
    assert revision(place) in (1, REVISION)
    with wiring.open_store(home) as store:
        assert store.read(lambda tx: tx.ledger.verify(expected_head=HEAD)).ok
    assert REVISION == revision(place)


@pytest.mark.req("STORE-8")
def test_several_processes_that_open_it_at_once_migrate_it_once(home: Path) -> None:
    """All of them end well, and the home is as if one had come."""
    code = "import sys; from midwatch.store.sqlite import SqliteStore; SqliteStore(sys.argv[1]).close()"
    argv = [sys.executable, "-c", code, str(home / "midwatch.db")]
    running = [subprocess.Popen(argv, stderr=subprocess.PIPE) for _ in range(4)]
    ended = [(item.wait(timeout=60), (item.stderr.read() if item.stderr else b"")) for item in running]
    for item in running:
        if item.stderr:
            item.stderr.close()
    assert [0] * 4 == [code for code, _ in ended], ended
    with wiring.open_store(home) as store:
        assert store.read(lambda tx: tx.ledger.verify(expected_head=HEAD)).ok


@pytest.mark.req("STORE-8")
def test_a_home_that_cannot_be_copied_is_left_as_it_was(home: Path) -> None:
    """No copy, no migration: the error says what to do, and the older version can still use the home."""
    place = home / "midwatch.db"
    backup_path(str(place), 1).symlink_to("/proc/nowhere/else")
    blocked = place.with_name(f"{backup_path(str(place), 1).stem}.{os.getpid()}.tmp")
    blocked.mkdir()
    with pytest.raises(StoreError, match="copied"):
        SqliteStore(place)
    assert 1 == revision(place)


@pytest.mark.req("STORE-8")
def test_a_newer_home_is_refused_and_not_touched(home: Path) -> None:
    """A revision that this version does not know is a clear error."""
    place = home / "midwatch.db"
    raw = sqlite3.connect(place)
    raw.execute(f"PRAGMA user_version={REVISION + 1}")
    raw.close()
    with pytest.raises(StoreTooNew):
        SqliteStore(place)
    shutil.rmtree(home)
