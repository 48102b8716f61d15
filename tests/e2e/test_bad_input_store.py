"""Bad disks and databases under whole runs: full, locked, corrupt, shared by two; files that are no text. Nothing is lost."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from midwatch import wiring
from midwatch.surfaces.cli import main
from tests.crash.harness import ROOT, Case, Harness
from tests.e2e.trial import DONE, Trial, call

LARGEST = 8 << 20


@pytest.fixture(scope="module")
def harness(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Harness]:
    """A worker that pays by key, posts without one, and drops behind a gate."""
    with Harness(tmp_path_factory.mktemp("disks") / "h") as made:
        yield made


@contextlib.contextmanager
def small_disk(place: Path) -> Iterator[bool]:
    """Mount a disk of its own at `place`; False where this user may not, and a file's size must be bounded instead."""
    place.mkdir()
    argv = ["mount", "-t", "tmpfs", "-o", f"size={LARGEST}", "tmpfs", str(place)]
    mounted = os.geteuid() == 0 and subprocess.run(argv, capture_output=True, check=False).returncode == 0
    try:
        yield mounted
    finally:
        if mounted:
            subprocess.run(["umount", "-l", str(place)], check=True)


def fill(place: Path, *, leave: int) -> None:
    """Take all space of the disk but so many bytes."""
    free = os.statvfs(place)
    with (place / "ballast").open("wb") as file:
        file.write(b"\0" * max(0, free.f_bavail * free.f_frsize - leave))


@pytest.mark.req("BAD-8")
@pytest.mark.parametrize("leave", [0, 40, 160, 240, 320, 400, 480, 560, 640, 720], ids=lambda kib: f"{kib}KiB")
def test_a_disk_that_fills_up_in_a_run_loses_nothing(harness: Harness, tmp_path: Path, leave: int) -> None:
    """Wherever the space ends the run stops with a clear error, and with space again it goes on as if it had been killed there."""
    with small_disk(tmp_path / "disk") as mounted:
        case = harness.case(f"full-{leave}", home=tmp_path / "disk" / "home")
        if mounted:
            fill(tmp_path / "disk", leave=leave << 10)
            stopped = case.segment()
            (tmp_path / "disk" / "ballast").unlink()
        else:
            stopped = case.segment(file_size=leave << 10)
        if stopped.result is None:
            assert (0, True) == (stopped.code, told_of_the_disk(stopped.error or ""))
        case.until_done()
        assert [] == case.audit()
        assert ["a", "b", "c"] == sorted(line["body"] for line in case.calls() if line["first"])


def told_of_the_disk(error: str) -> bool:
    """Whether an error says what is wrong with the disk, and does not blame something else."""
    name, _, words = error.partition(": ")
    return name in ("StoreFull", "StoreUnreadable", "StoreError") and (
        "disk" in words or "space" in words or "home" in words
    )


@pytest.mark.req("BAD-8")
def test_some_of_the_disks_above_were_full_in_the_middle_of_a_run(harness: Harness, tmp_path: Path) -> None:
    """A guard for the test above: a run needs more than the smallest of them and less than 8 MiB, and is stopped after it began."""
    sizes = []
    for leave in (160, 240, 320, 400, 480, 560):
        with small_disk(tmp_path / f"disk{leave}") as mounted:
            case = harness.case(f"middle-{leave}", home=tmp_path / f"disk{leave}" / "home")
            if mounted:
                fill(tmp_path / f"disk{leave}", leave=leave << 10)
            outcome = case.segment(file_size=None if mounted else leave << 10)
            (tmp_path / f"disk{leave}" / "ballast").unlink(missing_ok=True)
            sizes.append((outcome.result is None, case.known() is not None))
    assert (True, True) in sizes


@pytest.mark.req("BAD-8")
def test_the_command_line_says_that_the_disk_is_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Exit code 1 and one sentence with what to do, no traceback."""
    trial = Trial(tmp_path, monkeypatch, [DONE])
    with small_disk(trial.home) as mounted:
        if mounted:
            fill(trial.home, leave=0)
        else:
            trial.home.rmdir()
            trial.home.write_text("a file where the home should be")
        shown = CliRunner().invoke(main, ["--home", str(trial.home), "run", str(trial.fleet), "--quiet"])
    assert (1, "") == (shown.exit_code, shown.stdout)
    assert told_of_the_disk(f"StoreFull: {shown.stderr}"), shown.stderr


def waiting(harness: Harness, name: str) -> Case:
    """Bring a case to its gate."""
    case = harness.case(name)
    assert "waiting" == case.segment().status
    return case


@pytest.mark.req("BAD-9")
def test_a_locked_database_is_a_bounded_wait_and_a_clear_error(harness: Harness) -> None:
    """While somebody else keeps the write lock nothing begins; afterwards the run goes on."""
    case = waiting(harness, "locked")
    other = sqlite3.connect(case.home / wiring.DATABASE, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    before = len(case.calls())
    stopped = case.segment(busy_ms=30)
    assert ("StoreBusy", before) == ((stopped.error or "").partition(":")[0], len(case.calls()))
    assert case.home.name in (stopped.error or "") or wiring.DATABASE in (stopped.error or "")
    other.execute("ROLLBACK")
    other.close()
    case.until_done()
    assert [] == case.audit()


def _header(path: Path) -> None:
    with path.open("r+b") as file:
        file.write(b"\xff" * 100)


def _middle(path: Path) -> None:
    with path.open("r+b") as file:
        for page in range(2, path.stat().st_size // 4096):
            file.seek(page * 4096)
            file.write(b"\xa5" * 2048)


def _short(path: Path) -> None:
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size // 3 + 17)


@pytest.mark.req("BAD-9")
@pytest.mark.parametrize("damage", [_header, _middle, _short])
def test_a_corrupt_database_is_told_and_not_made_worse(harness: Harness, damage: Callable[[Path], None]) -> None:
    """No call goes out on a home that cannot be trusted; the error names it, and each command that reads it ends in 1, in words."""
    case = waiting(harness, f"corrupt{damage.__name__}")
    path = case.home / wiring.DATABASE
    with contextlib.closing(sqlite3.connect(path)) as raw:
        raw.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    damage(path)
    before = len(case.calls())
    stopped = case.segment()
    assert ("StoreCorrupt", before) == ((stopped.error or "").partition(":")[0], len(case.calls()))
    for command in (["runs", "ls"], ["verify"], ["resume", str(case.run)]):
        shown = CliRunner().invoke(main, ["--home", str(case.home), *command])
        assert (1, True, False) == (shown.exit_code, "midwatch.db" in shown.stderr, "Traceback" in shown.stderr), (
            command
        )


@pytest.mark.req("BAD-9")
def test_two_processes_run_in_one_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both runs come to their end, each with its own cost, in one chain that verifies; the bill is what both cost."""
    trial = Trial(tmp_path, monkeypatch, [call("note", {"what": "milk"}), DONE])
    argv = [sys.executable, "-m", "midwatch", "--home", str(trial.home), "run", str(trial.fleet), "--quiet"]
    argv += ["--workdir", str(trial.work)]
    both = [
        subprocess.Popen(argv, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(2)
    ]
    told = [process.communicate(timeout=60) for process in both]
    assert [0, 0] == [process.returncode for process in both], told
    assert ["# Report\n"] * 2 == [out for out, _ in told]
    with trial.store() as store:
        rows = store.read(lambda tx: tx.runs.list())
        assert store.read(lambda tx: tx.ledger.verify()).ok
    assert ["milk", "milk"] == trial.lines("notes")
    assert (["done", "done"], trial.charged()) == ([row.status for row in rows], sum(row.cost for row in rows))


@pytest.mark.req("BAD-10")
def test_a_file_that_is_no_text_is_an_answer_and_not_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An agent that reads Latin-1 is told so in words; names and contents that are no text neither end the run nor reach the ledger raw."""
    read = {"agent": "worker", "turn": 0, "tool_calls": [{"name": "files_read", "arguments": {"path": "latin.txt"}}]}
    listed = {"agent": "worker", "turn": 1, "tool_calls": [{"name": "files_list", "arguments": {"path": "."}}]}
    trial = Trial(tmp_path, monkeypatch, [read, listed, DONE])
    (trial.work / "latin.txt").write_bytes("caf\xe9".encode("latin-1"))
    (trial.work / os.fsdecode(b"name-\xff.txt")).write_text("x")
    result = trial.run()
    told = trial.told(result.run)
    assert ("done", ["conflict", None]) == (result.status, trial.calls(result.run))
    assert "not UTF-8" in told[0]["error"]["message"]
    assert "latin.txt" in str(told[1]["data"])


@pytest.mark.req("BAD-10")
@pytest.mark.parametrize("name", ["fleet.yaml", "scenario.yaml", "things.py"])
def test_a_fleet_whose_files_are_no_text_is_refused_before_it_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """The file is named, nothing is run, exit code 2."""
    trial = Trial(tmp_path, monkeypatch, [DONE])
    place = trial.fleet / name
    place.write_bytes(place.read_bytes() + "\nX = 'caf\xe9'\n".encode("latin-1"))
    shown = CliRunner().invoke(main, ["--home", str(trial.home), "run", str(trial.fleet)])
    assert (2, True, False) == (shown.exit_code, name in shown.stderr, (trial.work / "notes").exists()), shown.stderr
