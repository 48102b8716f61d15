"""A new fleet: `midwatch init` writes what checks, runs, replays and passes its own test at once, and overwrites nothing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from midwatch.surfaces.cli import main


def _midwatch(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environ = {key: value for key, value in os.environ.items() if not key.startswith(("OPENAI_", "MIDWATCH_"))}
    command = [sys.executable, "-m", *arguments]
    return subprocess.run(command, cwd=folder, env=environ, capture_output=True, text=True, timeout=120, check=False)


@pytest.mark.req("INIT-1")
@pytest.mark.parametrize("options", [(), ("--no-sandbox",)])
def test_it_works_at_once(tmp_path: Path, options: tuple[str, ...]) -> None:
    """What was made is right without a warning, runs to a report of its tool, replays, and passes its own test."""
    made = _midwatch(tmp_path, "midwatch", "init", "night-mail", *options, "--json")
    assert (0, []) == (made.returncode, json.loads(made.stdout)["problems"])
    folder, home = tmp_path / "night-mail", str(tmp_path / "home")
    checked = json.loads(_midwatch(folder, "midwatch", "--home", home, "check", ".", "--json").stdout)
    assert ([], [], "night-mail") == (checked["errors"], checked["warnings"], checked["fleet"])
    ran = _midwatch(folder, "midwatch", "--home", home, "run", ".", "-i", "text=one two three")
    assert (0, True) == (ran.returncode, "the text has 3 words" in ran.stdout), ran.stderr
    again = _midwatch(folder, "midwatch", "--home", home, "replay", "last", "--json")
    assert json.loads(again.stdout)["identical"]
    tested = _midwatch(folder, "pytest", "-q", "-p", "no:cacheprovider")
    assert "1 passed" in tested.stdout, tested.stdout


@pytest.mark.req("INIT-2")
def test_what_is_refused(tmp_path: Path) -> None:
    """A folder that holds anything, a file, a name that is none: refused, and nothing is written."""
    full = tmp_path / "full"
    full.mkdir()
    (full / ".hidden").write_text("mine")
    (tmp_path / "file").write_text("mine")
    for name in ("full", "file", "Upper", "1st", "a b", "x" * 41, 'a"', "file/below"):
        done = CliRunner().invoke(main, ["init", str(tmp_path / name)])
        assert done.exit_code == 2, name
    assert sorted(["full", "file"]) == sorted(item.name for item in tmp_path.iterdir())
    assert [".hidden"] == [item.name for item in full.iterdir()]
    (tmp_path / "fresh").mkdir()
    assert CliRunner().invoke(main, ["init", str(tmp_path / "fresh")]).exit_code == 0
    assert CliRunner().invoke(main, ["init", str(tmp_path / "fresh")]).exit_code == 2
