"""Purity: a step that knows what its inputs do not say is found, and named."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from midwatch.surfaces.cli import main
from tests.scenario.replays import Team, long_rules

LEAK = """
import midwatch.agents.step as step
real = step.brief
step.brief = lambda view: {**real(view), "lucky": hash("lucky")}
"""


@pytest.mark.req("PURITY-1")
def test_a_pure_and_a_leaking_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The team's steps are the same in two processes apart; one that asks the hash seed is named, with its event."""
    team = Team(tmp_path / "team", long_rules(1))
    result, recording = team.record()
    command = ["--home", str(team.home), "purity", str(team.fleet), "--json"]
    done = CliRunner().invoke(main, command)
    told = json.loads(done.stdout)
    assert (0, True, result.run) == (done.exit_code, told["pure"], told["run"])
    assert told["compared"] > 10
    (tmp_path / "leak").mkdir()
    (tmp_path / "leak" / "sitecustomize.py").write_text(LEAK)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "leak"))
    done = CliRunner().invoke(main, command)
    told = json.loads(done.stdout)
    first = next(event.seq for event in recording.events if event.kind == "intent" and event.node == "boss.think")
    assert (1, False) == (done.exit_code, told["pure"])
    assert {"event": first, "step": "boss.think request"} == told["apart"][0]
    assert first == told["difference"]["event"]


@pytest.mark.req("PURITY-1")
def test_without_a_record(tmp_path: Path) -> None:
    """A fleet of which no run ended has no recorded inputs, and that is said."""
    team = Team(tmp_path, [{"agent": "boss", "say": "no"}])
    assert team.run(request={"q": "go"}).status == "failed"
    assert CliRunner().invoke(main, ["--home", str(team.home), "purity", str(team.fleet)]).exit_code == 6
