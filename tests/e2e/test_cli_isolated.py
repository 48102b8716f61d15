"""A run in a real sandbox, from the command line: seen, looked into, committed; nothing of it in the workspace before that."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from midwatch.surfaces.cli import main

EXAMPLE = Path(__file__).parents[2] / "examples" / "own-graph"
ASKED = json.dumps({"messages": [{"role": "user", "content": "how full are the disks?"}]})


@pytest.fixture(name="place")
def _place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("USER", "ann")
    shutil.copytree(EXAMPLE, tmp_path / "fleet", ignore=shutil.ignore_patterns("__pycache__"))
    file = tmp_path / "fleet" / "fleet.yaml"
    kept = [
        line for line in file.read_text(encoding="utf-8").splitlines() if not line.startswith(("sandbox:", "gates:"))
    ]
    file.write_text("\n".join([*kept, "sandbox: bubblewrap", ""]), encoding="utf-8")
    (tmp_path / "work" / "notes").mkdir(parents=True)
    (tmp_path / "work" / "notes" / "mine.md").write_text("mine\n", encoding="utf-8")
    return tmp_path


def _call(place: Path, *arguments: str) -> Result:
    return CliRunner().invoke(main, ["--home", str(place / "home"), *arguments], catch_exceptions=False)


def _run(place: Path) -> None:
    work = str(place / "work")
    done = _call(place, "run", str(place / "fleet"), "--input", ASKED, "--workdir", work, "--quiet", "--no-prompt")
    assert 0 == done.exit_code, done.stderr


def _steps(place: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(_call(place, "effects", "last", "--json").stdout)["steps"]
    return found


def _states(place: Path) -> set[str]:
    return {change["state"] for step in _steps(place) for change in step["changes"] if "state" in change}


def _files(place: Path) -> list[str]:
    return sorted(path.name for path in (place / "work" / "notes").iterdir())


@pytest.mark.req("SEEN-1", "SEEN-3", "SEEN-4")
def test_what_a_run_wrote_reaches_the_workspace_when_somebody_says_so(place: Path) -> None:
    """Staged, shown with its lines, looked at from inside, written; then there is nothing left to write."""
    _run(place)
    assert (["mine.md"], {"staged"}) == (_files(place), _states(place))
    assert "    +# Disks" in _call(place, "effects", "last", "--diff").stdout
    inside = _call(place, "sandbox", "shell", "last", "--", "sh", "-c", "cat notes/disks.md; rm notes/mine.md")
    assert (0, "# Disks") == (inside.exit_code, inside.stdout.splitlines()[0])
    assert "dropped: deleted notes/mine.md" in inside.stderr
    plan = _call(place, "effects", "commit", "last", "--dry-run")
    assert (0, ["mine.md"]) == (plan.exit_code, _files(place))
    assert 0 == _call(place, "effects", "commit", "last", "--yes").exit_code
    assert (["disks.md", "mine.md"], {"committed"}) == (_files(place), _states(place))
    again = _call(place, "effects", "commit", "last", "--yes")
    assert (0, True) == (again.exit_code, "nothing staged" in again.stderr)
    assert 0 == _call(place, "verify").exit_code


@pytest.mark.req("SEEN-4")
def test_what_a_run_wrote_can_be_dropped(place: Path) -> None:
    """The workspace is as it was, the record stays."""
    _run(place)
    assert 0 == _call(place, "effects", "discard", "last", "--yes", "--reason", "not needed").exit_code
    assert (["mine.md"], {"discarded"}) == (_files(place), _states(place))


@pytest.mark.req("SEEN-4")
def test_what_somebody_wrote_meanwhile_is_not_overwritten(place: Path) -> None:
    """1, the path is named, and their text stands."""
    _run(place)
    theirs = place / "work" / "notes" / "disks.md"
    theirs.write_text("by hand\n", encoding="utf-8")
    done = _call(place, "effects", "commit", "last", "--yes")
    assert (1, "by hand\n") == (done.exit_code, theirs.read_text(encoding="utf-8"))
    assert "notes/disks.md  CONFLICT" in done.stdout
