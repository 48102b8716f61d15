"""The nightwatch fleet on this machine, end to end: real tools, real files, a scripted provider as the model."""

import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import midwatch
from midwatch.records.run import RunResult

ROOT = Path(__file__).resolve().parents[2]
FLEET = ROOT / "examples" / "nightwatch"


@dataclass(frozen=True, slots=True)
class Night:
    """One run, and what it left behind."""

    result: RunResult
    report: str
    billed: int
    problems: tuple[str, ...]
    offences: tuple[str, ...]
    home: Path

    @property
    def answer(self) -> str:
        text: str = self.result.output["answer"]
        return text


def _git(folder: Path, *words: str) -> None:
    environ = os.environ | {"GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CONFIG_NOSYSTEM": "1"}
    identity = ("-c", "user.name=Ada", "-c", "user.email=ada@example.org", "-c", "init.defaultBranch=main")
    subprocess.run(["git", *identity, "-C", str(folder), *words], env=environ, check=True, capture_output=True)


def _night(tmp_path: Path, request: Any) -> Night:
    home, work = tmp_path / "home", tmp_path / "work"
    work.mkdir(exist_ok=True)
    with midwatch.open(FLEET, home=home, workdir=work, environ={}) as kernel:
        result = kernel.run(request)
        verified = kernel.store.read(lambda tx: tx.ledger.verify(expected_head=result.head))
        offences = kernel.store.read(lambda tx: tx.ledger.read(run=result.run, kinds=("handoff.refused", "signal")))
    bill = (home / "scripted-bill-nightwatch.jsonl").read_text(encoding="utf-8").splitlines()
    report = work / "reports" / "nightwatch.md"
    return Night(
        result,
        report.read_text(encoding="utf-8") if report.exists() else "",
        sum(json.loads(line)["cost_microusd"] for line in bill),
        tuple(verified.problems),
        tuple(event.kind for event in offences),
        home,
    )


def _section(report: str, title: str) -> str:
    found = re.search(rf"^## {title}\n\n(.*?)(?=^## |\Z)", report, re.MULTILINE | re.DOTALL)
    assert found is not None
    return found.group(1)


@pytest.mark.req("EXAMPLE-2", "EXAMPLE-4")
def test_a_night_is_reported_billed_and_verifiable(tmp_path: Path) -> None:
    """The report holds real facts, the run costs what was billed, and its ledger verifies."""
    folder = tmp_path / "work" / "shop"
    folder.mkdir(parents=True)
    _git(folder, "init")
    (folder / "Dockerfile").write_text("FROM scratch\n", encoding="utf-8")
    _git(folder, "add", "Dockerfile")
    _git(folder, "commit", "-m", "Build the shop's image")

    night = _night(tmp_path, {"repo": "shop"})

    assert ("done", 7, ()) == (night.result.status, night.result.tool_calls, night.offences)
    assert night.answer == night.report
    changed = _section(night.report, "What changed")
    assert "1 commit on main in the last 24 hours" in changed
    assert "Build the shop's image (Ada)" in changed
    assert "- Dockerfile: +1 -0 (`e:" in changed
    assert re.search(r"\d+ processes run; most memory: ", changed)
    assert re.search(r"of [\d.]+ [KMGT]iB memory are available", changed)
    assert "look over what builds and runs: Dockerfile changed" in _section(night.report, "Needs a person")
    assert night.billed == night.result.cost > 0
    assert () == night.problems


@pytest.mark.req("EXAMPLE-3", "EXAMPLE-4")
@pytest.mark.parametrize(
    ("request_", "told"),
    [
        ({"repo": "."}, r"not known: .*no git repository"),
        ({}, r"not known: .*no git repository"),
        ("just look around", r"not known: .*no git repository"),
        ({"repo": "../.."}, r"git_log gave no facts: .*outside the working directory"),
        ({"repo": "gone"}, r"not known: .*does not exist"),
        ({"repo": 'x" }, {"a": "${ 1 }\n# ' + "y" * 2000}, r"git_log gave no facts: "),
    ],
    ids=["no repository", "nothing named", "a text", "outside", "missing", "hostile name"],
)
def test_what_could_not_be_read_is_told(tmp_path: Path, request_: Any, told: str) -> None:
    """A night without a readable repository still ends in a report, which says what is missing and why."""
    night = _night(tmp_path, request_)
    assert ("done", ()) == (night.result.status, night.offences)
    unsure = _section(night.report, "Not certain")
    assert re.search(rf"^- {told}", unsure, re.MULTILINE)
    assert "- repo did not show: the commits were read" in unsure
    assert "commit" not in _section(night.report, "What changed")
    assert night.billed == night.result.cost > 0
    assert () == night.problems


@pytest.mark.req("EXAMPLE-5")
def test_the_program_of_the_readme_runs(tmp_path: Path) -> None:
    """A reader copies the Python block of the README into a file, and it prints the report."""
    block = re.search(
        r"^```python\n(.*?)^```", (ROOT / "README.md").read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL
    )
    assert block is not None
    work = tmp_path / "work"
    shutil.copytree(FLEET, work / "examples" / "nightwatch", ignore=shutil.ignore_patterns("reports"))
    (work / "tools.py").write_text(block.group(1), encoding="utf-8")
    environ = os.environ | {"MIDWATCH_HOME": str(tmp_path / "home")}
    done = subprocess.run(
        [sys.executable, "tools.py"], cwd=work, env=environ, capture_output=True, text=True, check=False, timeout=60
    )
    assert (0, "") == (done.returncode, done.stderr)
    assert re.match(r"done [1-9]\d* micro-dollars\n# The night on this machine\n", done.stdout)
