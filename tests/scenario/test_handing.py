"""Handoffs over whole runs: what cites a wrong event, claims too much or goes round is refused; what was used is told."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from click.testing import CliRunner

from midwatch import wiring
from midwatch.agents.answers import Rejected
from midwatch.agents.step import View
from midwatch.engine.context import Segment
from midwatch.engine.handing import HOPS, TRIES, Handing
from midwatch.engine.handoffs_shown import Handovers, of_run
from midwatch.records.call import Actor
from midwatch.records.handoff import Dispatch, Handoff, Item, ItemError
from midwatch.records.label import UNKNOWN
from midwatch.store.memory import MemoryStore
from midwatch.surfaces.cli import main
from tests.scenario.bank import PAY, Bank, Call

MAIL: Call = ("ops_mail", {})
BOOK: Call = ("ops_book", {})
NOTHING: Mapping[str, Any] = {"changed": [], "needed": [], "risks": []}


def cites(call: int, field: str = "changed", text: str = "it is so") -> dict[str, Any]:
    """Make a handoff whose one item cites the result of a call, by its place in the conversation."""
    return {**NOTHING, field: [{"text": text, "evidence": f"${{ get(results[{call}].content, 'refs', []) }}"}]}


def fixed(ref: str, field: str = "changed") -> dict[str, Any]:
    """Make a handoff whose one item cites this."""
    return {**NOTHING, field: [{"text": "it is so", "evidence": [ref]}]}


def team(root: Path, calls: list[list[Call]], *answers: Mapping[str, Any], last: Mapping[str, Any] = NOTHING) -> Bank:
    """Make a bank whose worker makes these calls and then gives these answers, the last one for good."""
    bank = Bank(root, calls, mode="record")
    place = bank.fleet / "scenario.yaml"
    scenario = json.loads(place.read_text())
    kept = [
        rule for rule in scenario["rules"] if rule["agent"] != "writer" and ("turn" in rule or rule["agent"] == "boss")
    ]
    turns = [{"agent": "worker", "turn": len(calls) + at, "answer": answer} for at, answer in enumerate(answers)]
    writer = {"agent": "writer", "let": {"brief": "${ json(messages.filter(m, m.role == 'user')[0].content) }"}}
    scenario["rules"] = [
        *kept,
        *turns,
        {"agent": "worker", "answer": answers[-1]},
        {**writer, "answer": {"answer": "# Report", **last}},
    ]
    place.write_text(json.dumps(scenario))
    return bank


def told(bank: Bank, run: str) -> Handovers:
    """Read the run's handoffs."""
    with wiring.open_store(bank.home) as store:
        return of_run(store, run)


@pytest.mark.req("HANDOFF-1")
@pytest.mark.parametrize(("call", "shown"), [(PAY, "done"), (BOOK, "seen")])
def test_the_kernel_says_what_the_evidence_of_a_change_shows(tmp_path: Path, call: Call, shown: str) -> None:
    """What an effect did is told from what somebody only saw; neither word is the agent's."""
    bank = team(tmp_path / "b", [[call]], cites(0))
    done = bank.go()
    found = told(bank, done.run).given[0]
    assert ("done", shown, 1) == (done.status, found.items[0].shown, len(found.items[0].events))


@pytest.mark.req("HANDOFF-1", "HANDOFF-2")
def test_an_event_of_another_run_shows_nothing(tmp_path: Path) -> None:
    """The agent hears that it may not cite it, the operator hears why; then the agent may do better."""
    bank = team(tmp_path / "a", [[PAY]], cites(0))
    foreign = told(bank, bank.go().run).given[0].items[0].evidence[0]
    other = team(tmp_path / "b", [[PAY]], fixed(foreign), cites(0))
    other.home, other.work = bank.home, bank.work
    done = other.go()
    found = told(other, done.run)
    hint = "cite only references from `refs` of answers that you were given"
    wrong = {"field": "changed", "index": 0, "code": "unknown", "hint": hint, "ref": foreign}
    assert ("done", [{**wrong, "why": "an effect of another run"}]) == (done.status, list(found.refused[0].items))
    assert ["complete", "complete"] == [each.status for each in found.given]


@pytest.mark.req("HANDOFF-1")
def test_an_event_that_is_not_there_yet_shows_nothing_and_tries_end(tmp_path: Path) -> None:
    """Five refusals, each counted; then the agent cannot finish, its handoff says so, and the run goes on to its report."""
    bank = team(tmp_path / "b", [[PAY]], fixed("e:0123456789abcdef"))
    done = bank.go()
    found = told(bank, done.run)
    assert (done.status, [1, 2, 3, 4, 5]) == ("done", [each.tries for each in found.refused])
    assert {"no such effect"} == {item["why"] for each in found.refused for item in each.items}
    assert ("failed", "`worker` could not finish: its answer was refused 5 times, the last one for `evidence`") == (
        found.given[0].status,
        found.given[0].items[0].text,
    )


@pytest.mark.req("HANDOFF-1")
def test_a_failed_call_shows_no_change_and_may_be_told_as_a_risk(tmp_path: Path) -> None:
    """The same reference is refused in `changed` and taken in `risks`; it meets no criterion."""
    bank = team(tmp_path / "b", [[("ops_fail", {})]], cites(0), cites(0, "risks"))
    found = told(bank, bank.go().run)
    assert (["failed"], "unmet") == ([item["code"] for item in found.refused[0].items], found.given[0].status)
    assert ["risks"] == [item.field for item in found.given[0].items]


@pytest.mark.req("HANDOFF-1")
def test_a_denied_call_shows_nothing(tmp_path: Path) -> None:
    """It has no reference, so nothing can be claimed by it; the handoff without the claim says what is not shown."""
    bank = team(tmp_path / "b", [[PAY]], cites(0), NOTHING)
    bank.change('may: ["*"]', "may: [ops.book]")
    found = told(bank, bank.go().run)
    assert (["no_evidence"], []) == ([item["code"] for item in found.refused[0].items], bank.calls("pay"))
    assert ("unmet", ("done",), ()) == (found.given[0].status, found.given[0].unmet, found.given[0].items)


@pytest.mark.req("HANDOFF-1")
def test_a_result_that_the_agent_wrote_itself_meets_no_criterion(tmp_path: Path) -> None:
    """It writes that all is well into a file, reads that and cites it: the criterion wants another tool's word."""
    wrote: Call = ("files_write", {"path": "result.txt", "content": "ops.pay: ok"})
    bank = team(tmp_path / "b", [[wrote], [("files_read", {"path": "result.txt"})]], cites(1, text="it was paid"))
    found = told(bank, bank.go().run).given[0]
    assert ("unmet", ("done",), "seen") == (found.status, found.unmet, found.items[0].shown)


@pytest.mark.req("HANDOFF-1")
@pytest.mark.parametrize(("code", "status"), [(0, "complete"), (1, "unmet")])
def test_a_program_that_failed_meets_no_criterion(tmp_path: Path, code: int, status: str) -> None:
    """The call ended well either way; what it says of the program decides. Nothing was left in the sandbox, so it was only seen."""
    run: Call = ("shell_run", {"command": ["/bin/sh", "-c", f"exit {code}"]})
    bank = team(tmp_path / "b", [[run]], cites(0, text="the tests pass"))
    bank.change("backend: process, because: a trial", "backend: bubblewrap")
    bank.change("builtin.files]", "builtin.files, builtin.shell]")
    place = bank.fleet / "scenario.yaml"
    place.write_text(place.read_text().replace('"shown_by": ["ops.pay"]', '"shown_by": ["shell.run"]'))
    waits = bank.go()
    done = bank.answer(waits.run) if waits.status == "waiting" else waits
    found = told(bank, done.run).given[0]
    assert ("done", status, "seen") == (done.status, found.status, found.items[0].shown)


@pytest.mark.req("HANDOFF-3")
def test_citing_what_is_cleaner_cleans_nothing(tmp_path: Path) -> None:
    """The agent read a mail and cites the book alone: the mail stands behind its sentence all the same."""
    bank = team(tmp_path / "b", [[MAIL], [BOOK]], cites(1))
    label = told(bank, bank.go().run).given[0].items[0].label
    assert label is not None
    assert "third_party:ops.mail" in label["causes"]
    clean = team(tmp_path / "c", [[BOOK]], cites(0))
    plain = told(clean, clean.go().run).given[0].items[0].label
    assert plain is not None
    assert "third_party:ops.mail" not in plain["causes"]


@pytest.mark.req("HANDOFF-3", "HANDOFF-5")
def test_what_the_receiver_used_is_told(tmp_path: Path) -> None:
    """One item is cited by its own name, one repeated, one ignored; the command says so, for people and machines."""
    mine = {
        "changed": [{"text": "paid the rent", "evidence": "${ results[0].content.refs }"}],
        "needed": [{"text": "look again", "evidence": []}],
        "risks": [{"text": "it may bounce", "evidence": []}],
    }
    last = {
        "changed": [{"text": "all is paid", "evidence": "${ [brief.handoffs[0].refs.changed[0]] }"}],
        "needed": [{"text": "look again", "evidence": []}],
        "risks": [],
    }
    bank = team(
        tmp_path / "b",
        [[MAIL, PAY]],
        mine | {"changed": [{"text": "paid the rent", "evidence": "${ results[1].content.refs }"}]},
        last=last,
    )
    done = bank.go()
    argv = ["--home", str(bank.home), "runs", "handoffs", done.run]
    body = json.loads(CliRunner().invoke(main, [*argv, "--json"], catch_exceptions=False).output)
    worker, writer = body["given"]
    assert ["cited", "repeated", "ignored"] == [item["use"] for item in worker["items"]]
    assert (2, 1, ["not received"] * 2) == (
        body["consumed"],
        body["ignored"],
        [item["use"] for item in writer["items"]],
    )
    assert (worker["items"][0]["events"], "done") == (writer["items"][0]["events"], writer["items"][0]["shown"])
    assert "third_party:ops.mail" in writer["items"][0]["label"]["causes"]
    said = CliRunner().invoke(main, argv, catch_exceptions=False).output
    assert "items that were received: 2 used, 1 ignored" in said


@pytest.mark.req("HANDOFF-2")
def test_a_plan_that_is_refused_five_times_ends_the_run(tmp_path: Path) -> None:
    """The run says so; nobody is sent out."""
    bank = team(tmp_path / "b", [[PAY]], cites(0))
    place = bank.fleet / "scenario.yaml"
    scenario = json.loads(place.read_text())
    scenario["rules"][0] = {"agent": "boss", "answer": {"goal": "go", "dispatches": []}}
    place.write_text(json.dumps(scenario))
    done = bank.go()
    refused = told(bank, done.run).refused
    assert ("failed", TRIES, []) == (done.status, len(refused), bank.calls())


def _place(task: str, agent: str = "worker") -> Actor:
    return Actor(
        run="r" * 32, fleet="f", agent=agent, role="specialist", vertical=None, node="n", task=task, step=0, epoch=1
    )


@pytest.fixture
def handing() -> Iterator[Handing]:
    """The handing of a segment that has a store, and nothing behind what its agents say."""
    store = MemoryStore()
    trails = SimpleNamespace(context=lambda *_: UNKNOWN, chosen=lambda *_: 1)
    segment = SimpleNamespace(store=store, run="r" * 32, clock=lambda: 1, write=store.write, trails=trails)
    yield Handing(cast("Segment", segment))
    store.close()


HELD = Handoff("worker", "complete", (), (Item("go on"),), ())
SEEN = cast("View", SimpleNamespace(dispatch=Dispatch("worker", "work", ()), handoffs=()))


@pytest.mark.req("HANDOFF-4")
def test_the_same_handoff_of_another_turn_of_the_wheel_is_refused(handing: Handing) -> None:
    """Two agents that hand each other the same for ever are stopped at the second time; the same place repeats itself freely."""
    handing.given(_place("worker:1|think:1"), SEEN, HELD, None)
    assert handing.again(_place("worker:1|think:2"), SEEN, HELD) is None
    again = handing.again(_place("worker:2|think:1"), SEEN, HELD)
    assert "repeated" == (again.code if again else None)


@pytest.mark.req("HANDOFF-4")
def test_hops_are_counted_and_end(handing: Handing) -> None:
    """However new each handoff looks, a run has so many and no more."""
    for hop in range(HOPS):
        handing.given(_place(f"worker:{hop}|think:1"), SEEN, replace(HELD, needed=(Item(str(hop)),)), None)
    last = handing.again(_place("worker:new|think:1"), SEEN, HELD)
    assert "hops" == (last.code if last else None)


@pytest.mark.req("HANDOFF-2")
def test_an_answer_that_is_read_again_after_a_kill_is_refused_once(handing: Handing) -> None:
    """The count follows the answers, not how often a node ran."""
    wrong = Rejected("evidence", "no", items=(ItemError("changed", 0, "unknown", "cite", "e:0123456789abcdef"),))
    tries = [handing.refused(_place(f"worker:1|think:{turn}"), wrong, None) for turn in (1, 1, 2)]
    assert ([1, 1, 2], 1) == (tries, handing.refused(_place("other:1|think:1"), wrong, None))
