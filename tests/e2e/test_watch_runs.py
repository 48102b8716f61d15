"""Runs under the watch: slowed calls wait, modes are kept in the pipeline, a clock that goes back stops effects."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from midwatch import wiring
from midwatch.config.fleet import Fleet
from midwatch.governor.watch import HEARTBEAT, beat_name, watch_once
from midwatch.sandbox.profile import SandboxProfile
from midwatch.store.baselines import Throttle
from midwatch.store.port import Store
from tests.e2e.trial import DONE, Trial, call


def _look(turn: int) -> dict[str, Any]:
    return call("look", {"what": f"n{turn}"}, turn=turn)


@pytest.mark.req("WATCH-9")
def test_a_slowed_agent_waits_for_its_turn_before_anything_is_reserved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first call goes, the second waits for the gap; other agents and other fleets do not."""
    trial = Trial(tmp_path, monkeypatch, [_look(0), _look(1), DONE])
    with wiring.open_store(trial.home, create=True) as store:
        gap = 3_600_000_000
        store.write(lambda tx: tx.baselines.slow(Throttle("trial/worker", gap, wiring.clock() + gap, 0, "loud")))
        store.write(lambda tx: tx.baselines.slow(Throttle("else/worker", gap, wiring.clock() + gap, 2**60, "loud")))
    paused: list[int] = []
    real = trial._pause

    async def pause(microseconds: int) -> None:
        if microseconds == 500_000 and len(trial.lines("looks")) == 1:
            paused.append(microseconds)
            if len(paused) == 3:  # the rate is taken back
                with trial.store() as store:
                    store.write(lambda tx: tx.baselines.slow(Throttle("trial/worker", 1, 1, 0, "")))
            return
        await real(microseconds)

    monkeypatch.setattr(wiring, "pause", pause)
    result = trial.run()
    assert ("done", ["n0", "n1"], [500_000] * 3) == (result.status, trial.lines("looks"), paused)
    assert trial.kept(result.run)


def _beats(at: Callable[[], int]) -> Callable[..., None]:
    def govern(store: Store, *_: object) -> None:
        store.write(lambda tx: tx.watch.beat(beat_name("other", 7), pid=os.getpid(), at_us=at()))

    return govern


@pytest.mark.req("WATCH-10")
@pytest.mark.parametrize("mode", ["daemon", "cron"])
@pytest.mark.parametrize(("ahead", "status"), [(0, "done"), (-3_600_000_000, "paused"), (3_600_000_000, "paused")])
def test_no_effect_begins_on_a_sign_of_life_that_is_old_or_of_the_future(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: str, ahead: int, status: str
) -> None:
    """A governor on another machine covers the run while it beats; an old beat, and one that the clock fell behind, do not."""
    trial = Trial(tmp_path, monkeypatch, [_look(0), DONE])
    place = trial.fleet / "fleet.yaml"
    place.write_text(place.read_text() + f"governor: {{mode: {mode}, period: 1s, stale_after: 5m}}\n")
    monkeypatch.setattr(wiring, "_govern", _beats(lambda: wiring.clock() + ahead))
    result = trial.run()
    assert (status, 0 if status == "paused" else 1) == (result.status, len(trial.lines("looks")))
    assert ([] == trial.bill()) == (status == "paused")


@pytest.mark.req("WATCH-10")
def test_a_run_of_a_service_fleet_is_refused_before_it_begins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody beats: nothing is started, nothing is spent, and the message names what to start."""
    real: Any = wiring._govern
    trial = Trial(tmp_path, monkeypatch, [_look(0), DONE])
    place = trial.fleet / "fleet.yaml"
    place.write_text(place.read_text() + "governor: {mode: daemon}\n")
    monkeypatch.setattr(wiring, "_govern", real)
    with pytest.raises(Exception, match="midwatch governor run"):
        trial.run()
    assert ([], [], False) == (trial.bill(), trial.lines("looks"), (trial.home / "governor.log").exists())
    with trial.store() as store:
        watch_once(store, pid=os.getpid(), now=wiring.clock(), name=beat_name("m", 1))
    assert "done" == trial.run().status


@pytest.mark.req("WATCH-9")
def test_what_a_run_did_is_learned_of_its_agents(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Calls, tokens and money of a real run's ledger arrive in the baselines of its agents."""
    trial = Trial(tmp_path, monkeypatch, [_look(0), _look(1), DONE])
    result = trial.run()
    with trial.store() as store:
        passed = watch_once(store, pid=1, now=wiring.clock())
        subjects = store.read(lambda tx: tx.baselines.subjects())
        now = json.loads(store.read(lambda tx: tx.baselines.load("trial/worker"))["now"])
    assert ({"trial/boss", "trial/worker", "trial/writer"}, 2) == (set(subjects), now[1])
    assert passed.read > 5
    assert result.cost >= now[5][1]["cost"] > 0


@pytest.mark.req("WATCH-10")
@pytest.mark.anyio
async def test_a_process_in_a_sandbox_cannot_forge_a_sign_of_life(tmp_path: Path) -> None:
    """The home, and so the store that holds the beats, is not there for it, by any path that it is told."""
    home, work = tmp_path / "home", tmp_path / "work"
    work.mkdir()
    with wiring.open_store(home, create=True, environ={}) as store:
        store.write(lambda tx: tx.watch.beat(HEARTBEAT, pid=1, at_us=1))
    forge = (
        "import sqlite3, sys\n"
        "try:\n"
        "    raw = sqlite3.connect(sys.argv[1])\n"
        "    raw.execute('UPDATE beat SET at_us = 9')\n"
        "    raw.commit()\n"
        "except Exception as error:\n"
        "    print(type(error).__name__)\n"
    )
    profile = SandboxProfile(workspace=work)
    async with wiring.open_sandbox(profile) as box:
        ran = await box.run(
            ["python3", "-c", forge, str(home / wiring.DATABASE)],
            limits=profile.limits, workdir=work, timeout_us=30_000_000, max_bytes=10_000,
        )  # fmt: skip
    assert b"Error" in ran.stdout
    with wiring.open_store(home, environ={}) as store:
        beat = store.read(lambda tx: tx.watch.last(HEARTBEAT))
    assert beat is not None
    assert 1 == beat.at_us


@pytest.mark.req("WATCH-11")
def test_the_example_of_the_page_is_a_fleet(tmp_path: Path) -> None:
    """What the how-to shows loads, and means what it says."""
    page = Path(__file__).parents[2] / "docs" / "how-to" / "run-the-governor.md"
    block = page.read_text().split("```yaml\n")[2].split("```")[0]
    (tmp_path / "scenario.yaml").write_text("rules: []\n")
    text = (
        "midwatch: 1\nfleet: f\nroutes: {local: {provider: scripted, scenario: scenario.yaml}}\n"
        "agents: {hand: {role: specialist, route: local, prompt_text: work}}\n"
        'graph: {import: "none:none"}\n'
    )
    fleet = Fleet.from_text(text + block, base=tmp_path)
    actions = {name: item.action for name, item in fleet.governor.policies.items()}
    assert {"volume": "kill", "destinations": "pause", "burn": "throttle"} == actions
