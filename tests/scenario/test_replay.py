"""Replay: a recorded run again, in other processes and orders; what was changed is found where it was changed."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner

from midwatch import wiring
from midwatch.engine import control
from midwatch.engine.replaying import again, replay
from midwatch.errors import UsageProblem
from midwatch.records.event import Event
from midwatch.surfaces.cli import main
from midwatch.tracing.export import pack, unpack
from midwatch.tracing.recording import Recording, read_run
from tests.scenario.ground import Ground
from tests.scenario.replays import Team, altered, asked, long_rules, team_rules

LONG = 35
"""Turns of each of three agents: more than 200 steps."""


@pytest.fixture(scope="module")
def long(tmp_path_factory: pytest.TempPathFactory) -> tuple[Team, Recording]:
    """Give a run of more than 200 steps."""
    team = Team(tmp_path_factory.mktemp("long"), long_rules(LONG))
    result, recording = team.record()
    assert result.status == "done", result.error_message
    return team, recording


@pytest.fixture(scope="module")
def short(tmp_path_factory: pytest.TempPathFactory) -> tuple[Team, Recording]:
    """Give a run of some twenty steps."""
    team = Team(tmp_path_factory.mktemp("short"), long_rules(3))
    result, recording = team.record()
    assert result.status == "done", result.error_message
    return team, recording


def _cli(team: Ground, *arguments: str) -> tuple[int, dict[str, object]]:
    done = CliRunner().invoke(main, ["--home", str(team.home), *arguments, "--json"])
    return done.exit_code, json.loads(done.stdout)


def _ends(recording: Recording, *, models: bool) -> list[Event]:
    return [
        event
        for event in recording.events
        if event.kind == "finished" and ("usage" in event.data) is models and "result_blob" in event.data
    ]


@pytest.mark.req("REPLAY-1")
def test_two_hundred_steps_elsewhere(long: tuple[Team, Recording], tmp_path: Path) -> None:
    """A run of more than 200 steps with fan-out gives the same bytes in another process, with another hash seed, time zone and order."""
    team, recording = long
    here = replay(recording)
    assert here.identical
    assert here.steps >= 200
    code, _ = _cli(team, "runs", "export", recording.run, "-o", str(tmp_path / "run.midwatch"))
    assert code == 0
    for seed in ("1", "77"):
        environ = os.environ | {"PYTHONHASHSEED": seed, "TZ": "Asia/Tokyo", "MIDWATCH_HOME": str(tmp_path / "nowhere")}
        command = [sys.executable, "-m", "midwatch", "replay", str(tmp_path / "run.midwatch"), "--seed", seed, "--json"]
        done = subprocess.run(
            command, env=environ, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False
        )
        told = json.loads(done.stdout)
        assert (0, True, here.stream) == (done.returncode, told["identical"], told["stream"])
    assert not (tmp_path / "nowhere").exists()


@pytest.mark.req("REPLAY-2")
@pytest.mark.parametrize("kind", ["model answer", "tool result", "clock"])
@pytest.mark.parametrize("place", [0.0, 0.5, 0.99])
def test_one_changed_byte(long: tuple[Team, Recording], kind: str, place: float) -> None:
    """One changed byte of a model's answer, a tool's result or the clock is found at exactly the event that holds it."""
    _, recording = long
    ends = _ends(recording, models=kind == "model answer")
    chosen = ends[int(place * len(ends))]
    if kind == "clock":
        changed = altered(recording, event=replace(chosen, at_us=chosen.at_us ^ 1))
    else:
        digest = chosen.data["result_blob"]
        body = bytearray(recording.blobs[digest])
        body[len(body) // 2] ^= 1
        changed = altered(recording, blob=(digest, bytes(body)))
    found = replay(changed)
    assert not found.identical
    assert found.difference is not None
    shared = [event.seq for event in ends if event.data["result_blob"] == chosen.data["result_blob"]]
    assert found.difference.event == (chosen.seq if kind == "clock" else shared[0])


@pytest.mark.req("REPLAY-2")
@pytest.mark.parametrize("kind", ["model answer", "tool result"])
def test_a_forged_record(short: tuple[Team, Recording], kind: str) -> None:
    """A record whose hashes were made to fit a changed answer or result parts from the replay at the node that got it."""
    _, recording = short
    chosen = _ends(recording, models=kind == "model answer")[4]
    body = recording.blobs[chosen.data["result_blob"]]
    other = body.replace(b"left", b"lift").replace(b"right", b"rihgt").replace(b"nothing more", b"nothing else")
    assert other != body
    digest = hashlib.sha256(other).hexdigest()
    event = replace(chosen, data={**chosen.data, "result_blob": digest})
    found = again(altered(altered(recording, blob=(digest, other)), event=event))
    assert found.difference is not None
    tasks = [each.task for each in recording.events if each.seq == found.difference.event]
    agent = next(each for each in recording.events if each.task == chosen.task).agent
    assert f"{agent}.{'think' if kind == 'model answer' else 'act'}" in (found.difference.node, chosen.node)
    assert tasks[0] is not None
    assert tasks[0].split("|")[0] == (chosen.task or "").split("|")[0]
    assert found.difference.recorded != found.difference.replayed


@pytest.mark.req("REPLAY-3")
def test_nothing_is_performed(short: tuple[Team, Recording]) -> None:
    """A replay calls no tool and no model, writes nothing to the home, and needs neither fleet file nor tools."""
    team, recording = short
    calls, bill = team.calls(), team.bill()
    with wiring.open_store(team.home) as store:
        head = store.read(lambda tx: tx.ledger.head())
    (team.fleet / "ops.py").rename(team.fleet / "gone.py")
    code, told = _cli(team, "replay", recording.run)
    (team.fleet / "gone.py").rename(team.fleet / "ops.py")
    assert (0, True) == (code, told["identical"])
    with wiring.open_store(team.home) as store:
        assert head == store.read(lambda tx: tx.ledger.head())
    assert (calls, bill) == (team.calls(), team.bill())


@pytest.mark.req("REPLAY-3")
def test_the_cli_says_where(short: tuple[Team, Recording], tmp_path: Path) -> None:
    """A damaged file ends with exit code 1 and the number of the event; a file that is there is never overwritten."""
    team, recording = short
    chosen = _ends(recording, models=True)[2]
    place = tmp_path / "run.midwatch"
    place.write_bytes(pack(altered(recording, event=replace(chosen, at_us=chosen.at_us + 1))))
    code, told = _cli(team, "replay", str(place))
    assert (1, chosen.seq) == (code, told["difference"]["event"])  # type: ignore[index]
    code, told = _cli(team, "runs", "export", recording.run, "-o", str(place))
    assert (2, False) == (code, told["ok"])
    code, _ = _cli(team, "runs", "export", "last", "-o", str(tmp_path / "new"))
    assert (0, 0o600) == (code, (tmp_path / "new").stat().st_mode & 0o777)
    assert unpack((tmp_path / "new").read_bytes()) == recording


@pytest.mark.req("REPLAY-4")
def test_gates_and_denials(tmp_path: Path) -> None:
    """A run that waits, was refused things and was answered replays to where it stands, before the answer and after it."""
    wanted = asked(("deploy", {"target": "east"}), ("secret", {"line": "x"}), ("look", {"what": "a"}))
    team = Team(tmp_path, [{"agent": "worker", "turn": 0, **wanted}, *team_rules("worker", "other")])
    result, waiting = team.record()
    assert result.status == "waiting"
    found = replay(waiting)
    assert found.identical, found.difference
    assert any("waiting" in note for note in found.notes)
    team.say(result.gates[0])
    result, done = team.record(result.run)
    assert result.status == "done"
    found = replay(done, seed=3)
    assert found.identical, found.difference
    assert found.steps >= 6


@pytest.mark.req("REPLAY-4")
def test_a_killed_run(tmp_path: Path) -> None:
    """A run whose process was killed in the middle of an effect, and that a person let go on, replays to the same bytes."""
    team = Team(
        tmp_path,
        [{"agent": "worker", "turn": 0, **asked(("deploy", {"target": "east"}))}, *team_rules("worker", "other")],
    )
    first, _ = team.record()
    team.say(first.gates[0])
    (team.work / "die").touch()
    assert team.process(first.run).returncode != 0
    run = team.freed()
    (team.work / "die").unlink()
    result, recording = team.record(run)
    assert result.status == "waiting"
    assert replay(recording).identical
    with wiring.open_store(team.home) as store:
        control.resolve(store, result.in_doubt[0], word="done", by="ann", at_us=wiring.clock())
    result, recording = team.record(run)
    assert result.status == "done"
    found = replay(recording)
    assert found.identical, found.difference


@pytest.mark.req("REPLAY-4")
def test_a_paused_run(tmp_path: Path) -> None:
    """A run at its bound replays up to there, and one whose answers break their contract to the same failure."""
    team = Team(tmp_path / "a", long_rules(3), extra="")
    text = (team.fleet / "fleet.yaml").read_text()
    (team.fleet / "fleet.yaml").write_text(text.replace("tool_calls: 2000", "tool_calls: 3"))
    result, recording = team.record()
    assert result.status == "paused"
    found = replay(recording)
    assert found.identical, found.difference
    bad = Team(tmp_path / "b", [{"agent": "boss", "say": "I would rather not."}])
    result, recording = bad.record()
    assert result.status == "failed"
    found = replay(recording)
    assert found.identical, found.difference


@pytest.mark.req("REPLAY-5")
def test_what_cannot_be_replayed(tmp_path: Path, short: tuple[Team, Recording]) -> None:
    """A graph that is somebody else's code, and a record of a version that kept no program, are refused with the reason."""
    ground = Ground(tmp_path)
    result = ground.run()
    with wiring.open_store(ground.home) as store:
        recording = read_run(store, result.run)
    with pytest.raises(UsageProblem, match="code of its own"):
        replay(recording)
    assert _cli(ground, "replay", result.run)[0] == 2
    _, kept = short
    older = [
        replace(event, data={key: value for key, value in event.data.items() if key != "program_blob"})
        for event in kept.events
    ]
    with pytest.raises(UsageProblem, match="before runs kept"):
        again(replace(kept, events=tuple(older)))
