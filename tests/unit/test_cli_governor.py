"""`midwatch governor`: the watch as a service, from cron, its state, its reasons; and runs that are refused without it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from midwatch import wiring
from midwatch.config.fleet import Fleet
from midwatch.config.specs_bounds import GovernorSpec
from midwatch.config.specs_watch import WatchSpec
from midwatch.errors import InvalidFleet, RunHalted
from midwatch.governing_child import govern
from midwatch.governor.policies_pass import remember
from midwatch.governor.watch import HEARTBEAT, beat_name
from midwatch.records.event import EventDraft
from midwatch.records.run import RunRow
from midwatch.store.baselines import Throttle
from midwatch.store.port import Store
from midwatch.surfaces.cli import main

RUN = "ab" * 16
FLEET = """\
midwatch: 1
fleet: plain
routes: {local: {provider: scripted, scenario: scenario.yaml}}
agents: {hand: {role: specialist, route: local, prompt_text: work}}
graph: {import: "none:none"}
"""


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """Give a home that begins empty."""
    place = tmp_path / "home"
    with wiring.open_store(place, create=True, environ={}):
        pass
    return place


def invoke(home: Path, *words: str) -> Result:
    """Run a command of `midwatch governor`."""
    return CliRunner().invoke(main, ["governor", *words, "--home", str(home)])


def loop(store: Store, count: int = 200) -> None:
    """Let an agent of a run that goes on call the same thing so often."""
    now = wiring.clock()

    def work(tx: Any) -> None:
        blob = tx.blobs.put(b"{}")
        tx.runs.create(RunRow(RUN, "plain", None, blob, blob, blob, blob, None, "running", now, blob))
        tx.fences.take(RUN, owner="w", at_us=now, ttl_us=10**12)
        for _ in range(count):
            tx.ledger.append(EventDraft("intent", RUN, now, {"tool": "t", "arguments_blob": blob}, agent="hand"))

    store.write(work)


@pytest.mark.req("WATCH-11")
def test_once_tells_by_its_exit_code(home: Path) -> None:
    """0: nothing; 5: it acted; 1: the store cannot be used; 6: there is no home."""
    assert 6 == invoke(home.parent / "nowhere", "once").exit_code
    assert 0 == invoke(home, "once").exit_code
    with wiring.open_store(home, environ={}) as store:
        loop(store)
    acted = invoke(home, "once", "--json")
    assert 5 == acted.exit_code
    told = json.loads(acted.stdout)
    assert [("pause", "loop", RUN)] == [(item["action"], item["policy"], item["run"]) for item in told["acted"]]
    assert (1, 0) == (told["live"], told["behind"])
    assert 0 == invoke(home, "once").exit_code
    for name in ("midwatch.db-wal", "midwatch.db-shm"):
        (home / name).unlink(missing_ok=True)
    (home / "midwatch.db").write_bytes(b"no database at all, but long enough to be one" * 100)
    assert 1 == invoke(home, "once").exit_code


@pytest.mark.req("WATCH-11")
def test_status_says_who_lives_and_what_is_asked_for(home: Path) -> None:
    """Each governor with its age, each fleet with its mode, whether it is covered; rates that hold."""
    now = wiring.clock()
    with wiring.open_store(home, environ={}) as store:
        loop(store, 3)
        spec = GovernorSpec("daemon", 20_000_000, policies={"volume": WatchSpec("kill")})
        store.write(lambda tx: remember(tx, "plain", spec))
        store.write(lambda tx: tx.watch.beat(beat_name("old", 7), pid=7, at_us=now - 90_000_000))
        store.write(lambda tx: tx.baselines.slow(Throttle("plain/hand", 10, now + 10**9, 0, "loud")))
    before = json.loads(invoke(home, "status", "--json").stdout)
    assert (False, [True]) == (before["alive"], [item["stale"] for item in before["governors"]])
    assert [("plain", "daemon", False, {"volume": "kill"})] == [
        (item["fleet"], item["mode"], item["covered"], item["policies"]) for item in before["fleets"]
    ]
    assert (3, ["plain/hand"]) == (before["behind"], [item["subject"] for item in before["throttles"]])
    assert 0 == invoke(home, "once").exit_code
    after = json.loads(invoke(home, "status", "--json").stdout)
    assert (True, True, 0) == (after["alive"], after["fleets"][0]["covered"], after["behind"])
    shown = invoke(home, "status").stdout
    assert all(word in shown for word in ("stale", "lives", "daemon", "loud"))


@pytest.mark.req("WATCH-11")
def test_log_gives_every_action_with_its_reason(home: Path) -> None:
    """As text and as JSON: policy, numbers, run, agent, the event that completed it."""
    with wiring.open_store(home, environ={}) as store:
        loop(store)
    invoke(home, "once")
    (line,) = json.loads(invoke(home, "log", "--json").stdout)["log"]
    assert ("pause", "loop", RUN, "hand", 200) == (
        line["action"], line["policy"], line["run"], line["agent"], line["numbers"]["value"],
    )  # fmt: skip
    assert line["reason"] in invoke(home, "log").stdout


@pytest.mark.req("WATCH-11")
def test_forget_lets_an_agent_be_learned_anew(home: Path) -> None:
    """Its baseline goes, in one transaction with the event that says who wanted it."""
    with wiring.open_store(home, environ={}) as store:
        loop(store, 3)
    invoke(home, "once")
    assert 0 == invoke(home, "forget", "plain/hand", "--reason", "new job").exit_code
    assert 6 == invoke(home, "forget", "plain/hand").exit_code
    with wiring.open_store(home, environ={}) as store:
        assert {} == store.read(lambda tx: tx.baselines.subjects())
    (line,) = json.loads(invoke(home, "log", "--json").stdout)["log"]
    assert ("forget", "new job") == (line["action"], line["reason"])


@pytest.mark.req("WATCH-11")
def test_the_service_watches_and_takes_its_sign_of_life_back(home: Path) -> None:
    """It acts within its period, follows with a JSON line, and when it is told to stop nothing says that somebody watches."""
    words = [sys.executable, "-m", "midwatch", "governor", "run", "--period", "0.1", "--json", "--home", str(home)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, env={**os.environ, "MIDWATCH_STORE": ""}) as service:
        try:
            with wiring.open_store(home, environ={}) as store:
                until = time.monotonic() + 60
                while not store.read(lambda tx: tx.watch.beats(HEARTBEAT)):
                    assert time.monotonic() < until
                    assert service.poll() is None
                loop(store)
                assert service.stdout is not None
                assert "loop" == json.loads(service.stdout.readline())["policy"]
                service.send_signal(signal.SIGTERM)
                assert 0 == service.wait(60)
                assert [] == list(store.read(lambda tx: tx.watch.beats(HEARTBEAT)))
        finally:
            service.kill()


@pytest.mark.req("WATCH-10")
@pytest.mark.parametrize("mode", ["daemon", "cron"])
def test_a_run_is_refused_where_nobody_beats_and_starts_no_child(home: Path, mode: Any) -> None:
    """Neither without a beat, nor with one that is too old, nor with one from the future; with a living one it may begin."""
    spec = GovernorSpec(mode, 20_000_000)
    now = 10**15

    def ask() -> None:
        with wiring.open_store(home, environ={}) as store:
            govern(store, home, "plain", spec, clock=lambda: now, environ={})

    for beat in (None, now - 20_000_001, now + 60_000_000):
        if beat is not None:
            with wiring.open_store(home, environ={}) as store:
                store.write(lambda tx, at=beat: tx.watch.beat(beat_name("h", 1), pid=1, at_us=at))  # type: ignore[misc]
        with pytest.raises(RunHalted, match=mode):
            ask()
    with wiring.open_store(home, environ={}) as store:
        store.write(lambda tx: tx.watch.beat(beat_name("far", 9), pid=1, at_us=now - 19_000_000))
    ask()
    assert not (home / "governor.log").exists()


@pytest.mark.req("WATCH-10")
@pytest.mark.parametrize(
    ("block", "code"),
    [
        ("{mode: cron, period: 2m, stale_after: 1m}", "stale-too-soon"),
        ("{mode: daemon, period: 30s, stale_after: 30s}", "stale-too-soon"),
        ("{mode: daemon, stale_after: 1s}", "stale-too-soon"),
        ("{policies: {volume: stop}}", "unknown-word"),
        ("{policies: {volumes: warn}}", "unknown-key"),
        ("{policies: {loop: {action: throttle, rate: 0}}}", "out-of-range"),
    ],
)
def test_a_governor_that_could_not_keep_its_word_is_refused_at_load(tmp_path: Path, block: str, code: str) -> None:
    """The limit lies above the period; policies and actions are those that there are."""
    (tmp_path / "scenario.yaml").write_text("rules: []\n")
    with pytest.raises(InvalidFleet) as refused:
        Fleet.from_text(f"{FLEET}governor: {block}\n", base=tmp_path)
    assert code in [problem.code for problem in refused.value.problems]


@pytest.mark.req("WATCH-10")
def test_what_the_file_leaves_out_fits_its_mode(tmp_path: Path) -> None:
    """A pass a second and a limit of 30 s; from cron one a minute and three of them; a policy as a word or a block."""
    (tmp_path / "scenario.yaml").write_text("rules: []\n")

    def spec(block: str) -> GovernorSpec:
        return Fleet.from_text(f"{FLEET}governor: {block}\n", base=tmp_path).governor

    assert (1_000_000, 30_000_000) == (spec("{mode: daemon}").period_us, spec("{mode: daemon}").stale_after_us)
    assert (60_000_000, 180_000_000) == (spec("{mode: cron}").period_us, spec("{mode: cron}").stale_after_us)
    said = spec("{policies: {volume: kill, burn: {action: pause, cool_down: 2h}, loop: pause}}").policies
    assert {"volume": WatchSpec("kill"), "burn": WatchSpec("pause", cool_down_us=7_200_000_000)} == dict(said)
    plain, same = (
        Fleet.from_text(f"{FLEET}{more}", base=tmp_path) for more in ("", "governor: {policies: {loop: pause}}\n")
    )
    assert plain.digest == same.digest
