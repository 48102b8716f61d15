"""State of paused runs across versions: stored older homes go on, older forms are read in today's, newer ones are refused whole."""

from __future__ import annotations

import gzip
import json
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from langgraph.checkpoint.base import empty_checkpoint

from midwatch import wiring
from midwatch.engine import control
from midwatch.errors import StoreTooNew
from midwatch.graph import states
from midwatch.graph.saver import Saver
from midwatch.graph.states import STATE, TeamSaver, current, version
from midwatch.store.memory import MemoryStore

FIXTURES = Path(__file__).parents[1] / "fixtures"
WAITING = {"home_r1": "e8138a599355ac1833cdd66f1a7731f6", "home_r3": "cb5c09c8f6f65f4a73c46f163a89d17e"}
OLD = {"agent": "worker", "status": "complete", "changed": [], "needed": [], "risks": []}
NEW = {**OLD, "unmet": [], "answer": None}


def stored(tmp_path: Path, name: str) -> Path:
    """Give a copy of a stored home, as a database."""
    place = tmp_path / "home"
    place.mkdir(mode=0o700)
    raw = sqlite3.connect(place / "midwatch.db")
    raw.executescript(gzip.decompress((FIXTURES / name / "home.sql.gz").read_bytes()).decode())
    raw.execute("PRAGMA journal_mode=WAL")
    raw.close()
    return place


def go_on(tmp_path: Path, name: str) -> str:
    """Resume the run that waits in a stored home; gives how it stopped."""
    work = tmp_path / "work"
    work.mkdir(exist_ok=True)
    with wiring.open(FIXTURES / name, home=tmp_path / "home", workdir=work, environ={}) as kernel:
        return str(kernel.resume(WAITING[name]).status)


def say_yes(home: Path, run: str) -> None:
    """Answer every gate that the run waits for."""
    with wiring.open_store(home) as store:
        for gate in store.read(lambda tx: tx.gates.list(run=run, statuses=("open",), limit=10)):
            control.answer(store, gate.id, approve=True, by="ann", reason="", at_us=wiring.clock())


def versions(home: Path, run: str) -> list[int]:
    """Give the versions of the run's checkpoints, oldest first."""
    with wiring.open_store(home) as store:
        rows = store.read(lambda tx: tx.checkpoints.list(run, None))
    return [version(json.loads(row.metadata)) for row in reversed(rows)]


@pytest.mark.req("STATE-1")
@pytest.mark.parametrize(("name", "stops"), [("home_r1", ["done"]), ("home_r3", ["waiting", "done"])])
def test_a_run_that_waits_in_an_older_home_goes_on(tmp_path: Path, name: str, stops: list[str]) -> None:
    """The state that another version wrote leads to the end; what comes after it is in today's form, what came before lies as it was.

    A yes for a tool that is another one by now (`files.delete`, of the third home) is asked for once more, and then carried out.
    """
    home, run = stored(tmp_path, name), WAITING[name]
    before = versions(home, run)
    for stop in stops:
        say_yes(home, run)
        assert stop == go_on(tmp_path, name)
    after = versions(home, run)
    assert ({1}, before, {STATE}) == (set(before), after[: len(before)], set(after[len(before) :]))
    assert len(after) > len(before)


@pytest.mark.req("STATE-2")
def test_what_an_older_version_kept_is_read_in_todays_form() -> None:
    """A value in a checkpoint, and one that a task had written when it was cut."""
    store = MemoryStore()
    old, new = Saver(store), TeamSaver(store)
    config: Any = {"configurable": {"thread_id": "r" * 32, "checkpoint_ns": ""}}
    checkpoint = empty_checkpoint()
    checkpoint["channel_values"] = {"handoffs": [OLD], "request": "go"}
    checkpoint["channel_versions"] = {"handoffs": 1, "request": 1}
    at = old.put(config, checkpoint, {"source": "loop", "step": 0, "parents": {}}, {"handoffs": 1, "request": 1})
    old.put_writes(at, [("handoffs", [OLD])], "t1")
    new.put_writes(at, [("handoffs", [NEW])], "t2")
    read = new.get_tuple(at)
    assert read is not None
    assert {"handoffs": [NEW], "request": "go"} == read.checkpoint["channel_values"]
    assert [("t1", "handoffs", [NEW]), ("t2", "handoffs", [NEW])] == read.pending_writes
    grown = {**read.checkpoint, "id": checkpoint["id"][:-1] + "f", "channel_versions": {"handoffs": 2, "request": 1}}
    grown["channel_values"] = {"handoffs": [NEW, NEW], "request": "go"}
    after = new.get_tuple(new.put(at, grown, {"source": "loop", "step": 1, "parents": {}}, {"handoffs": 2}))  # type: ignore[arg-type]
    assert after is not None
    assert ([NEW, NEW], STATE) == (after.checkpoint["channel_values"]["handoffs"], version(dict(after.metadata)))
    store.close()


@pytest.mark.req("STATE-2")
@pytest.mark.parametrize("channel", ["handoffs", "result", "request", "unknown"])
@pytest.mark.parametrize("value", [[OLD], OLD, "text", None, [None, 1], {}])
def test_a_step_may_come_twice_and_breaks_nothing_that_it_does_not_know(channel: str, value: Any) -> None:
    """Whatever a channel holds: the second time changes nothing more."""
    once = current(channel, value, 1)
    assert once == current(channel, once, 1)
    assert once == current(channel, once, STATE)


@pytest.mark.req("STATE-2")
def test_every_older_version_has_its_step() -> None:
    """No version is left without a way to today's."""
    assert list(range(1, STATE)) == sorted(states.STEPS)


def _newer(body: Any) -> None:
    body["midwatch_state"] = STATE + 1


def _broken(body: Any) -> None:
    body["midwatch_state"] = "2"


@pytest.mark.req("STATE-3")
@pytest.mark.parametrize("change", [_newer, _broken])
def test_a_newer_state_is_refused_and_nothing_is_lost(tmp_path: Path, change: Callable[[Any], None]) -> None:
    """The run waits on as it did, with its yes and its checkpoints; put back under the version that knows it, it goes on."""
    home, run = stored(tmp_path, "home_r1"), WAITING["home_r1"]
    say_yes(home, run)
    kept = tmp_path / "kept"
    shutil.copytree(home, kept)
    raw = sqlite3.connect(home / "midwatch.db")
    for place, metadata in raw.execute("SELECT id, metadata FROM checkpoint WHERE thread = ?", (run,)).fetchall():
        body = json.loads(metadata)
        change(body)
        raw.execute("UPDATE checkpoint SET metadata = ? WHERE id = ?", (json.dumps(body).encode(), place))
    raw.commit()
    before = raw.execute("SELECT * FROM checkpoint ORDER BY thread, ns, id").fetchall()
    raw.close()
    with pytest.raises(StoreTooNew, match="go on with the version that wrote it"):
        go_on(tmp_path, "home_r1")
    raw = sqlite3.connect(home / "midwatch.db")
    assert before == raw.execute("SELECT * FROM checkpoint ORDER BY thread, ns, id").fetchall()
    assert [("waiting", 1)] == raw.execute("SELECT status, segment FROM run WHERE id = ?", (run,)).fetchall()
    raw.close()
    shutil.rmtree(home)
    shutil.copytree(kept, home)
    assert "done" == go_on(tmp_path, "home_r1")


@pytest.mark.req("STATE-3")
def test_a_saver_that_meets_a_newer_state_reads_none_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where a newer version wrote after this one looked."""
    store = MemoryStore()
    config: Any = {"configurable": {"thread_id": "r" * 32, "checkpoint_ns": ""}}
    monkeypatch.setattr(states, "STATE", STATE + 1)
    TeamSaver(store).put(config, empty_checkpoint(), {"source": "loop", "step": 0, "parents": {}}, {})
    monkeypatch.undo()
    with pytest.raises(StoreTooNew):
        TeamSaver(store).get_tuple(config)
    store.close()
