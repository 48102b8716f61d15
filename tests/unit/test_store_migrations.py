"""An older home becomes one of this version when it is opened: whole or not at all, with nothing lost that waited in it."""

from __future__ import annotations

import gzip
import json
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest

from midwatch import wiring
from midwatch.config.fleet import Fleet
from midwatch.engine import control
from midwatch.errors import StoreBusy, StoreError, StoreTooNew
from midwatch.records.run import RunResult
from midwatch.store.migrate import backup_path, migrate
from midwatch.store.sqlite import REVISION, SqliteStore

FIXTURE = Path(__file__).parents[1] / "fixtures" / "home_r1"
HEAD = "795c767be539de120327eca15ae8a13e13521258f1778a0678e979ea8f06fdb5"
CUT = "70834d79dd63af5a0f9340b403448dda"
APPROVED = "676bfa5ba3a083232e67482065adebfd"
WAITING = "e8138a599355ac1833cdd66f1a7731f6"
GATE = "23ac8beb8a02e059"

KILLED = """
import json, os, shutil, signal, sqlite3, sys
from pathlib import Path
import midwatch.store.migrate
from midwatch.store.sqlite import SqliteStore

home, head, step = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
real, left, counting = sqlite3.connect, 0, False

def event(*_):
    global left
    if counting:
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)

def connect(*args, **more):
    raw = real(*args, **more)
    raw.set_trace_callback(event)
    raw.set_progress_handler(event, 40)
    return raw

sqlite3.connect = connect
sys.addaudithook(lambda name, _: event() if name in ("open", "os.remove", "os.rename") else None)

def after(place):
    raw = real(place)
    found = raw.execute("PRAGMA user_version").fetchone()[0]
    raw.close()
    store = SqliteStore(place)
    sound = store.read(lambda tx: tx.ledger.verify(expected_head=head)).ok
    store.close()
    return found, sound, sorted(os.listdir(place.parent))

seen, at, code = [], 1, None
while code != 0:
    copy = home.parent / str(at)
    shutil.copytree(home, copy)
    child = os.fork()
    if child == 0:
        left, counting = at, True
        SqliteStore(copy / "midwatch.db").close()
        os._exit(0)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    seen.append((code, *after(copy / "midwatch.db")))
    shutil.rmtree(copy)
    at += step
print(json.dumps(seen))
"""


READER = """
import os, sys
import midwatch.store.migrate
from midwatch.errors import StoreError
from midwatch.store.sqlite import SqliteStore
if os.geteuid() == 0:
    os.setuid(65534)
try:
    SqliteStore(sys.argv[1], busy_timeout_ms=100)
except StoreError as error:
    print(type(error).__name__, error)
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
@pytest.mark.parametrize("stored", ["home_r1", "home_r2", "home_r3"])
def test_an_old_fleet_means_what_it_meant(stored: str) -> None:
    """Fields that came to the format since then change no digest of a file that says nothing of them."""
    place = FIXTURE.parent / stored
    raw = sqlite3.connect(":memory:")
    raw.executescript(gzip.decompress((place / "home.sql.gz").read_bytes()).decode())
    made = set(raw.execute("SELECT fleet_digest, policy_digest FROM run"))
    raw.close()
    fleet = Fleet.load(place, environ={})
    assert made == {(fleet.digest, fleet.policy_digest)}


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
def test_a_kill_leaves_the_old_home_or_the_new_one(home: Path) -> None:
    """Wherever it dies (files, statements, inside statements): the home is whole, opens, verifies and leaves no scraps."""
    made = subprocess.run(
        [sys.executable, "-c", KILLED, str(home), HEAD, "7"], capture_output=True, timeout=100, check=False
    )
    assert 0 == made.returncode, made.stderr.decode()
    seen = json.loads(made.stdout)
    codes, revisions = [item[0] for item in seen], [item[1] for item in seen]
    assert [-signal.SIGKILL] * (len(seen) - 1) + [0] == codes
    assert (sorted(revisions), {1, REVISION}) == (revisions, set(revisions))
    assert {(True, ("midwatch.db", "midwatch.db.r1.bak"))} == {(item[2], tuple(item[3])) for item in seen}
    assert len(seen) > 20


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
    assert (REVISION, 1) == (revision(home / "midwatch.db"), revision(backup_path(str(home / "midwatch.db"), 1)))
    with wiring.open_store(home) as store:
        assert store.read(lambda tx: tx.ledger.verify(expected_head=HEAD)).ok


@pytest.mark.req("STORE-8")
def test_who_comes_late_changes_nothing(home: Path) -> None:
    """A process that saw the old home but got the lock after another one neither migrates nor copies the new home."""
    place = str(home / "midwatch.db")
    SqliteStore(place).close()
    backup_path(place, 1).unlink()
    migrate(place, known=1, target=REVISION, timeout_ms=1000)
    assert (REVISION, False) == (revision(home / "midwatch.db"), backup_path(place, 1).exists())


@pytest.mark.req("STORE-8")
def test_who_comes_after_a_newer_version_is_refused(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While it waited, a newer version took the home further than this one knows."""
    place = home / "midwatch.db"

    def newer(*_: Any, **__: Any) -> None:
        raw = sqlite3.connect(place)
        raw.execute(f"PRAGMA user_version={REVISION + 1}")
        raw.close()

    monkeypatch.setattr("midwatch.store.migrate.migrate", newer)
    with pytest.raises(StoreTooNew):
        SqliteStore(place)


@pytest.mark.req("STORE-8")
def test_the_copy_is_of_what_was_migrated(home: Path) -> None:
    """A copy of an earlier migration gives way: the home that was put back has gone on since."""
    place = home / "midwatch.db"
    kept = backup_path(str(place), 1)
    kept.write_bytes(b"old")
    SqliteStore(place).close()
    assert 1 == revision(kept)
    shutil.copy(kept, place)
    raw = sqlite3.connect(place)
    raw.execute("INSERT INTO setting (key, value) VALUES ('later', x'01')")
    raw.commit()
    raw.close()
    SqliteStore(place).close()
    raw = sqlite3.connect(kept)
    assert [(b"\x01",)] == raw.execute("SELECT value FROM setting WHERE key = 'later'").fetchall()
    raw.close()


@pytest.mark.req("STORE-8")
def test_a_home_that_another_process_writes_is_a_bounded_wait(home: Path) -> None:
    """Whoever cannot get the lock in time is told so; the home stays old, and no copy is left."""
    place = home / "midwatch.db"
    other = sqlite3.connect(place, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreBusy, match="another process"):
        SqliteStore(place, busy_timeout_ms=20)
    other.execute("ROLLBACK")
    other.close()
    assert (1, ["midwatch.db"]) == (revision(place), sorted(item.name for item in home.iterdir()))


@pytest.mark.req("STORE-8")
def test_a_migration_that_fails_midway_is_undone(home: Path) -> None:
    """A table that should not be there stops the last step: the first steps are undone, and the error says what to do."""
    place = home / "midwatch.db"
    raw = sqlite3.connect(place)
    raw.execute("CREATE TABLE link (foreign_one)")
    raw.close()
    before = shape(place)
    with pytest.raises(StoreError, match=r"as it was: table link already exists; restore"):
        SqliteStore(place)
    assert (1, before) == (revision(place), shape(place))


@pytest.mark.req("STORE-8")
def test_a_home_that_cannot_be_copied_is_left_as_it_was(home: Path) -> None:
    """No copy, no migration: the error says what to do, and the older version can still use the home."""
    place = home / "midwatch.db"
    Path(f"{backup_path(str(place), 1)}.tmp").mkdir()
    with pytest.raises(StoreError, match="copied"):
        SqliteStore(place)
    assert 1 == revision(place)


@pytest.mark.req("STORE-8")
@pytest.mark.parametrize(("folder", "file"), [(0o555, 0o444), (0o777, 0o444), (0o555, 0o666)])
def test_whoever_may_only_read_an_older_home_is_told(home: Path, folder: int, file: int) -> None:
    """Without the right to write there is no migration: a sentence that names permissions, and the home stays old."""
    with tempfile.TemporaryDirectory() as open_to_all:
        Path(open_to_all).chmod(0o755)
        theirs = Path(open_to_all) / "home"
        shutil.copytree(home, theirs)
        place = theirs / "midwatch.db"
        place.chmod(file)
        theirs.chmod(folder)
        argv = [sys.executable, "-c", READER, str(place)]
        made = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
        theirs.chmod(0o755)
        place.chmod(0o644)
        assert (0, "") == (made.returncode, made.stderr)
        assert re.match(r"StoreUnreadable .*(is yours|permissions)", made.stdout)
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
