"""`midwatch doctor` on isolation: what is expected must be there, and what got out fails it."""

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from midwatch.sandbox import escape, probe
from midwatch.sandbox.escape import Check
from midwatch.sandbox.probe import NEEDS, Item, Report
from midwatch.surfaces.cli import main

pytestmark = pytest.mark.req("PROBE-3")


def call(tmp_path: Path, *words: str) -> Result:
    """Run the command in a home of its own."""
    return CliRunner().invoke(main, ["--home", str(tmp_path), "doctor", *words], catch_exceptions=False)


def machine(monkeypatch: pytest.MonkeyPatch, *broken: str) -> None:
    """Make this a machine on which all works but what is named."""
    names = sorted({name for needs in NEEDS.values() for name in needs})
    items = tuple(Item(name, name not in broken, "as told", "mend it" if name in broken else "") for name in names)
    monkeypatch.setattr(probe, "probe", lambda: Report(root=True, items=items))


def attacked(monkeypatch: pytest.MonkeyPatch, *checks: Check) -> None:
    """Say what the self-test found."""

    async def found(*_: Any, **__: Any) -> list[Check]:
        return list(checks)

    monkeypatch.setattr(escape, "run_escape", found)


def test_an_expected_level_that_cannot_be_enforced_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without `--expect` it is a warning, with it exit code 1 and the reason; another level is not taken in its place."""
    machine(monkeypatch, "overlay", "docker")
    assert 0 == call(tmp_path).exit_code
    assert "warn  overlay          as told; mend it" in call(tmp_path).stdout
    for wanted in ("bubblewrap", "docker"):
        done = call(tmp_path, "--expect", wanted, "--json")
        body = json.loads(done.stdout)
        assert (1, False, "process") == (done.exit_code, body["ok"], body["level"])
        (said,) = [item for item in body["checks"] if item["check"] == "expect"]
        assert "fail" == said["status"]
        assert "overlay: as told; mend it" in said["message"]


def test_an_expected_level_that_holds_passes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Exit code 0, and only for the level that was named."""
    machine(monkeypatch, "bubblewrap")
    assert 0 == call(tmp_path, "--expect", "docker").exit_code
    assert 1 == call(tmp_path, "--expect", "bubblewrap").exit_code


def test_this_machine_enforces_bubblewrap(tmp_path: Path) -> None:
    """Where the suite runs, the default level holds: green never means that nothing was enforced."""
    done = call(tmp_path, "--expect", "bubblewrap", "--json")
    assert 0 == done.exit_code, done.stdout


def test_what_gets_out_fails_and_what_only_tells_does_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each attack has its line; an open one fails the command, an open one that only tells is a warning."""
    machine(monkeypatch)
    told = Check("mount_sources", held=False, detail="`/x`", kind="information")
    attacked(monkeypatch, Check("io_uring", held=True, detail="refused"), told)
    done = call(tmp_path, "--escape")
    assert 0 == done.exit_code, done.stdout
    assert "1 of 2 attacks held; open: mount_sources" in done.stdout
    assert "OPEN  information mount_sources" in done.stdout
    attacked(monkeypatch, told, Check("io_uring", held=False, detail="a ring"))
    failed = call(tmp_path, "--escape", "--expect", "bubblewrap", "--json")
    body = json.loads(failed.stdout)
    assert (1, False) == (failed.exit_code, body["ok"])
    assert ["mount_sources", "io_uring"] == [item["name"] for item in body["attacks"]]


def test_without_isolation_there_is_nothing_to_attack(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The self-test is not run on `process`: that would be a list of what everybody knows."""
    machine(monkeypatch, "bubblewrap", "docker")
    done = call(tmp_path, "--escape")
    assert 1 == done.exit_code
    assert "nothing to break out of" in done.output
