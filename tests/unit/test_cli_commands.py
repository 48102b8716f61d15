"""Commands over a recorded home: cancel, approve, resolve, trace, which, runs, verify, doctor."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from midwatch import wiring
from midwatch.engine import control
from midwatch.errors import GateNotUsable, NotFound, RunHeld, UsageProblem
from midwatch.records.run import RunRow, RunStatus
from midwatch.store.port import Store
from midwatch.surfaces.cli import main
from midwatch.surfaces.cli.inbox import onward
from tests.recorded_run import DOUBT, GATE, NOW, RUN, record

LATER = NOW + 60_000_000


@pytest.fixture(name="home")
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("midwatch.wiring.clock", lambda: LATER)
    home = tmp_path / "home"
    home.mkdir(mode=0o700)
    with wiring.open_store(home, create=True) as store:
        record(store)
    return home


@pytest.fixture(name="store")
def _store(home: Path) -> Iterator[Store]:
    with wiring.open_store(home) as store:
        yield store


@pytest.fixture(name="held")
def _held(tmp_path: Path) -> Iterator[Store]:
    with wiring.open_store(tmp_path / "held", create=True) as store:
        record(store, status="running", live_until_us=LATER + 1)
        yield store


def _call(home: Path, *arguments: str) -> Result:
    return CliRunner().invoke(main, ["--home", str(home), *arguments])


def _json(home: Path, *arguments: str) -> dict[str, Any]:
    body: dict[str, Any] = json.loads(_call(home, *arguments, "--json").stdout)
    return body


def _row(store: Store) -> RunRow:
    row = store.read(lambda tx: tx.runs.get(RUN))
    assert row is not None
    return row


def _kinds(store: Store) -> list[str]:
    return [event.kind for event in store.read(lambda tx: tx.ledger.read(run=RUN))]


@pytest.mark.req("CLI-4")
def test_cancel_ends_a_run_that_nobody_holds(home: Path, store: Store) -> None:
    """The mark, the event and the row change together; a second cancel has nothing to do."""
    body = _json(home, "cancel", RUN[:7], "--reason", "enough", "--by", "ann")
    assert ("cancelled", False) == (body["status"], body["held"])
    mark = store.read(lambda tx: tx.runs.halt(RUN))
    assert mark is not None
    assert ("cancel", "ann", "enough") == (mark.kind, mark.by, mark.reason)
    assert "cancelled" == _row(store).status
    assert "run.halted" == _kinds(store)[-1]
    assert 2 == _call(home, "cancel", RUN).exit_code


@pytest.mark.req("CLI-4")
def test_cancel_leaves_the_row_of_a_held_run_to_its_worker(held: Store) -> None:
    """Only the worker knows how far it came; it reads the mark and stops."""
    first = control.cancel(held, RUN, by="ann", reason="enough", at_us=LATER)
    again = control.cancel(held, RUN, by="bob", reason="too", at_us=LATER)
    assert (True, False, True) == (first.held, first.already, again.already)
    assert "running" == _row(held).status
    assert 1 == _kinds(held).count("run.halted")


@pytest.mark.req("CLI-5")
@pytest.mark.parametrize(("flags", "status"), [([], "approved"), (["--deny"], "denied")])
def test_a_gate_takes_the_first_answer_only(home: Path, store: Store, flags: list[str], status: str) -> None:
    """A short id is enough; the event is caused by the opening; a second answer is refused."""
    body = _json(home, "approve", GATE[:6], *flags, "--by", "ann")
    assert (status, "ann", RUN) == (body["status"], body["by"], body["run"])
    event = store.read(lambda tx: tx.ledger.read(run=RUN, kinds=("gate.answered",)))[-1]
    opened = store.read(lambda tx: tx.ledger.read(run=RUN, kinds=("gate.opened",)))[-1]
    said = store.read(lambda tx: tx.ledger.read(run=RUN, kinds=("gate.said",)))[-1]
    assert ((opened.seq, said.seq), not flags) == (event.causes, event.data["approved"])
    second = _call(home, "approve", GATE, "--by", "bob")
    assert (4, "") == (second.exit_code, second.stdout)
    row = store.read(lambda tx: tx.gates.get(GATE))
    assert row is not None
    assert (status, "ann") == (row.status, row.answered_by)


@pytest.mark.req("CLI-5")
@pytest.mark.parametrize(("status", "command"), [("waiting", "resume"), ("done", "effects commit")])
def test_an_answer_tells_the_command_that_makes_use_of_it(tmp_path: Path, status: RunStatus, command: str) -> None:
    """A run that has ended waits for nothing but its commit."""
    home = tmp_path / "ended"
    with wiring.open_store(home, create=True) as store:
        record(store, status=status)
        assert command == onward(store, RUN)


@pytest.mark.req("CLI-5")
def test_a_late_yes_is_a_no_and_stays_one(store: Store) -> None:
    """After the expiry nothing is approved, and the row says so even though the answer was refused."""
    late = NOW + 900_000_001
    with pytest.raises(GateNotUsable):
        control.answer(store, GATE, approve=True, by="ann", reason="", at_us=late)
    row = store.read(lambda tx: tx.gates.get(GATE))
    assert row is not None
    assert ("expired", None) == (row.status, row.answered_by)
    assert ("gate.expired", 0) == (_kinds(store)[-1], _kinds(store).count("gate.answered"))
    with pytest.raises(GateNotUsable):
        control.answer(store, GATE, approve=True, by="ann", reason="", at_us=LATER)


@pytest.mark.req("CLI-5")
def test_the_gate_of_a_cancelled_run_takes_no_answer(home: Path) -> None:
    """A yes must not seem to do something when nothing can follow."""
    assert 0 == _call(home, "cancel", RUN).exit_code
    assert 4 == _call(home, "approve", GATE).exit_code


@pytest.mark.req("CLI-5", "CLI-10")
def test_the_card_shows_the_action_and_the_commands(home: Path) -> None:
    """Every argument in full, both commands, and no control character of the model's making."""
    shown = _call(home, "runs", "show", RUN[:7]).stdout
    assert f"midwatch approve {GATE}" in shown
    assert f"midwatch approve {GATE} --deny" in shown
    assert "nginx" in shown
    assert "\x1b" not in shown


@pytest.mark.req("CLI-6")
@pytest.mark.parametrize(("flag", "status"), [("--done", "done"), ("--not-done", "not_done"), ("--retry", "retry")])
def test_a_person_settles_an_effect_in_doubt_once(home: Path, store: Store, flag: str, status: str) -> None:
    """The word is recorded, the hold is charged, and the next word is refused."""
    body = _json(home, "resolve", DOUBT[:6], flag, "--by", "ann")
    assert (status, "ann") == (body["status"], body["by"])
    assert [] == list(store.read(lambda tx: tx.budgets.open_reservations(RUN)))
    assert 2 == _row(store).tool_calls
    row = store.read(lambda tx: tx.effects.get(DOUBT))
    assert row is not None
    result = store.read(lambda tx: tx.blobs.get(row.result or ""))
    if status == "done":
        envelope = json.loads(result or b"")
        expected = (True, [f"e:{DOUBT}"], {"tool": "mail.send", "resolved_by": "ann"})
        assert expected == (envelope["ok"], envelope["refs"], envelope["meta"])
    else:
        assert None is result
    assert "effect.resolved" == _kinds(store)[-1]
    assert 4 == _call(home, "resolve", DOUBT, "--done").exit_code


@pytest.mark.req("CLI-6")
def test_an_effect_under_a_live_worker_is_not_in_doubt(held: Store) -> None:
    """A word on what still runs could make it happen twice, so it is refused and nothing is written."""
    before = _kinds(held)
    with pytest.raises(RunHeld, match="still running"):
        control.resolve(held, DOUBT, word="retry", by="ann", at_us=LATER)
    assert before == _kinds(held)
    row = held.read(lambda tx: tx.effects.get(DOUBT))
    assert row is not None
    assert "started" == row.status


@pytest.mark.req("CLI-6")
def test_resolve_wants_exactly_one_word(home: Path) -> None:
    """None or two words decide nothing."""
    assert 2 == _call(home, "resolve", DOUBT).exit_code
    assert 2 == _call(home, "resolve", DOUBT, "--done", "--retry").exit_code


@pytest.mark.req("CLI-3")
def test_unknown_ids_are_not_found(store: Store) -> None:
    """Each of the three words tells that there is no such thing."""
    with pytest.raises(NotFound):
        control.cancel(store, "0" * 32, by="ann", reason="", at_us=LATER)
    with pytest.raises(NotFound):
        control.answer(store, "0" * 16, approve=True, by="ann", reason="", at_us=LATER)
    with pytest.raises(NotFound):
        control.resolve(store, "0" * 16, word="done", by="ann", at_us=LATER)
    control.cancel(store, RUN, by="ann", reason="", at_us=LATER)
    with pytest.raises(UsageProblem):
        control.cancel(store, RUN, by="ann", reason="", at_us=LATER)


@pytest.mark.req("CLI-2", "CLI-3")
def test_trace_shows_the_tree_and_as_json_every_event(home: Path, store: Store) -> None:
    """Nodes, refusals and costs are read by a person; a program gets the ledger's own events."""
    shown = _call(home, "trace", "last").stdout
    for part in ("storage.act", "deny by containment", "nobody granted `files.write`", "$0.0003", "gate.opened", DOUBT):
        assert part in shown
    body = _json(home, "trace", RUN[:7])
    assert len(_kinds(store)) == len(body["events"])
    assert _kinds(store) == [event["kind"] for event in body["events"]]


@pytest.mark.req("CLI-2", "TRACING-2")
def test_which_tells_node_prompt_and_call(home: Path) -> None:
    """A person sees the first lines of the prompt, a program all of it."""
    shown = _call(home, "which", RUN[:7], "two packages changed").stdout
    for part in ("editor.think", "gpt-5-mini", "user: Write the report.", "22" * 8):
        assert part in shown
    body = _json(home, "which", RUN[:7], "two packages changed")
    assert ("editor.think", 2) == (body["place"]["node"], len(body["request"]["messages"]))
    assert 6 == _call(home, "which", RUN[:7], "never said").exit_code


@pytest.mark.req("CLI-2")
def test_runs_are_listed_and_filtered(home: Path) -> None:
    """The newest first; a filter that fits none gives an empty list, not an error."""
    assert [RUN] == [row["id"] for row in _json(home, "runs", "ls")["runs"]]
    assert [] == _json(home, "runs", "ls", "--status", "done")["runs"]
    assert RUN[:7] in _call(home, "runs", "ls").stdout
    body = _json(home, "runs", "show", "last")
    assert (RUN, [GATE], [DOUBT]) == (
        body["run"]["id"],
        [gate["gate"] for gate in body["gates"]],
        [effect["effect"] for effect in body["in_doubt"]],
    )


@pytest.mark.req("CLI-8")
def test_verify_holds_the_chain_to_a_noted_head(home: Path, store: Store) -> None:
    """A head that is in the chain passes; one that is not fails with 1."""
    head = store.read(lambda tx: tx.ledger.head())[1]
    good = _json(home, "verify", "--head", head)
    assert (True, head, len(_kinds(store))) == (good["ok"], good["head"], good["events"])
    bad = _call(home, "verify", "--head", "0" * 63 + "1", "--json")
    assert (1, False) == (bad.exit_code, json.loads(bad.stdout)["ok"])
    assert 1 == _call(home, "verify", "--head", "0" * 63 + "1").exit_code


@pytest.mark.req("CLI-9")
def test_doctor_says_what_the_sandbox_does_not_hold(home: Path) -> None:
    """The honest sentence is there, and a good home passes."""
    done = _call(home, "doctor", "--json")
    checks = {item["check"]: item for item in json.loads(done.stdout)["checks"]}
    assert 0 == done.exit_code, done.stdout
    assert "not isolation" in checks["sandbox"]["message"]
    layers = {item["name"] for item in json.loads(done.stdout)["isolation"]["items"]}
    assert {"python", "sqlite", "home", "disk", "wal", "store", "extras", "sandbox"} == set(checks) - layers
    assert layers < set(checks)


@pytest.mark.req("CLI-9")
def test_doctor_fails_on_what_would_stop_a_run(tmp_path: Path) -> None:
    """A home that is a file, and a database that is none, are found before a run finds them."""
    file = tmp_path / "file"
    file.write_text("x", encoding="utf-8")
    assert 1 == _call(file, "doctor").exit_code
    broken = tmp_path / "broken"
    broken.mkdir(mode=0o700)
    (broken / "midwatch.db").write_bytes(b"this is no database at all, just some text" * 50)
    done = _call(broken, "doctor", "--json")
    assert (1, False) == (done.exit_code, json.loads(done.stdout)["ok"])
