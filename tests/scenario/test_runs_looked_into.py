"""Runs looked into: where two part, and what the state was at any checkpoint."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from midwatch.surfaces.cli import main
from tests.scenario.replays import Team, asked, team_rules


@pytest.fixture(scope="module")
def looked(tmp_path_factory: pytest.TempPathFactory) -> tuple[Team, list[str]]:
    """Give a home with three runs: two alike, and one in which a model asked for something else."""
    looks = [{"agent": "worker", "turn": turn, **asked(("look", {"what": f"disk {turn}"}))} for turn in range(2)]
    team = Team(tmp_path_factory.mktemp("looked"), [*looks, *team_rules("worker", "other")])
    runs = [team.record()[0].run, team.record()[0].run]
    place = team.fleet / "scenario.yaml"
    place.write_text(place.read_text().replace("disk 1", "desk 1"))
    return team, [*runs, team.record()[0].run]


def _cli(team: Team, *arguments: str) -> tuple[int, dict[str, object]]:
    done = CliRunner().invoke(main, ["--home", str(team.home), *arguments, "--json"])
    return done.exit_code, json.loads(done.stdout)


@pytest.mark.req("LOOK-1")
def test_where_two_runs_part(looked: tuple[Team, list[str]]) -> None:
    """Two runs that said the same are the same, whatever their ids; else the first part that differs is the one that was changed."""
    team, runs = looked
    assert (0, {"ok": True, "same": True, "parts": 0, "differs": []}) == _cli(team, "runs", "diff", runs[0], runs[1])
    code, told = _cli(team, "runs", "diff", runs[0], runs[2])
    first = told["differs"][0]  # type: ignore[index]
    assert (1, "worker#1 worker.think[1]", "answer") == (code, first["where"], first["what"])
    assert "disk 1" in first["left"]["text"]
    assert "desk 1" in first["right"]["text"]
    text = CliRunner().invoke(main, ["--home", str(team.home), "runs", "diff", runs[0], runs[2]])
    assert "parts differ" in text.stdout


@pytest.mark.req("LOOK-2")
def test_the_state_at_a_step(looked: tuple[Team, list[str]], tmp_path: Path) -> None:
    """Each checkpoint has a number; the state at one is what each place held then, and later state is not in it."""
    team, runs = looked
    _, told = _cli(team, "runs", "state", runs[0], "--steps")
    steps: list[dict[str, object]] = told["steps"]  # type: ignore[assignment]
    assert list(range(len(steps))) == [item["number"] for item in steps]
    _, told = _cli(team, "runs", "state", runs[0])
    newest = {item["place"]: item["values"] for item in told["state"]}  # type: ignore[attr-defined]
    assert newest[""]["result"]["answer"] == "# Report"
    _, told = _cli(team, "runs", "state", runs[0], "--at", "1")
    early = {item["place"]: item["values"] for item in told["state"]}  # type: ignore[attr-defined]
    assert {"request": {"q": "go"}} == early[""]
    assert _cli(team, "runs", "state", runs[0], "--at", "9999")[0] == 6
    text = CliRunner().invoke(main, ["--home", str(team.home), "runs", "state", runs[0]])
    assert "(team) at step" in text.stdout
