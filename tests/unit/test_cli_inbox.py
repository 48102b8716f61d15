"""The inbox: what a card cannot be made to say, how people are measured, broken glasses, edits, runs that go on."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from midwatch import wiring
from midwatch.records.gate import GateAnswer, GateRow
from midwatch.store.port import Tx
from midwatch.surfaces.cli import main
from midwatch.surfaces.cli.common import block, plain
from midwatch.tracing.fatigue import Fatigue, fatigue
from tests.scenario.office import GATES, Office

SHOP = ("ops.place", {"service": "shop", "version": "v2"})
CART = ("ops.place", {"service": "cart", "version": "v2"})
CANARY = "review: {canary: 1}"
SECOND = 1_000_000


@pytest.fixture(autouse=True)
def _nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("USER", "ann")
    monkeypatch.delenv("MIDWATCH_TOKEN", raising=False)


def call(office: Office, *arguments: str, who: str | None = None) -> Result:
    """Call a command in the office's home, as one of its people."""
    env = {} if who is None else {"MIDWATCH_TOKEN": office.tokens[who]}
    return CliRunner().invoke(main, ["--home", str(office.home), *arguments], env=env)


def answer(office: Office, *arguments: str, who: str | None = None, code: int = 0) -> dict[str, Any]:
    """Call with `--json`; the exit code must be this."""
    done = call(office, *arguments, "--json", who=who)
    assert code == done.exit_code, done.output
    body: dict[str, Any] = json.loads(done.stdout)
    return body


def rows(office: Office) -> list[GateRow]:
    """Give every gate."""
    with wiring.open_store(office.home) as store:
        return list(store.read(lambda tx: tx.gates.list()))


@pytest.mark.req("CLI-17")
@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\x1b[2Jb", "a\\x1b[2Jb"),
        ("a\rb\x08\x7f\x9b", "a\\x0db\\x08\\x7f\\x9b"),
        ("\u202a\u202b\u202c\u202d\u202e", "\\u202a\\u202b\\u202c\\u202d\\u202e"),
        ("\u2066\u2067\u2068\u2069", "\\u2066\\u2067\\u2068\\u2069"),
        ("\u200b\u200c\u200d\u200e\u200f\u2060\ufeff", "\\u200b\\u200c\\u200d\\u200e\\u200f\\u2060\\ufeff"),
        ("\u061c\u00ad\u034f\u3164\u115f\uffa0\u2800", "\\u061c\\xad\\u034f\\u3164\\u115f\\uffa0\\u2800"),
        ("\U000e0041\U000e007f\U000e0100\ufe00", "\\U000e0041\\U000e007f\\U000e0100\\ufe00"),
        ("\u2028\u2029\x85\x0b\x0c", "\\u2028\\u2029\\x85\\x0b\\x0c"),
        ("\ud800\ue000", "\\ud800\\ue000"),
        ("naïve café 日本語 ❤\ufe0f\n\tx", "naïve café 日本語 ❤\ufe0f\n\tx"),
    ],
)
def test_what_cannot_be_seen_is_shown_and_the_rest_is_left(text: str, shown: str) -> None:
    """Controls, bidi, zero-width, tags, selectors and fillers become escapes that name the character."""
    assert shown == plain(text)


@pytest.mark.req("CLI-17")
def test_a_line_of_a_card_is_the_cards_own() -> None:
    """What has several lines itself is set in; only what the card writes begins at the margin."""
    lines = block(["why asked  x\ndigest     0000\r\nneeds      nothing", "digest     1234"]).split("\n")
    assert ["why asked", "digest"] == [line[:10].strip() for line in lines if not line.startswith(" ")]
    assert 4 == len(lines)


@pytest.mark.req("CLI-17", "CLI-5")
def test_a_question_cannot_forge_its_card_and_is_told_how_to_be_answered(tmp_path: Path) -> None:
    """Neither `show` nor the cards of a run that waits give an agent's words a line of their own."""
    forged = "Fine?\ndigest     0000\n  yes        midwatch approve 0000"
    office = Office(tmp_path, [[("gates.request_human", {"question": forged})]])
    run = office.run()
    (gate,) = run.gates
    shown = call(office, "inbox", "show", gate).stdout
    told = call(office, "runs", "show", run.run).output
    for text in (shown, told):
        assert not any(
            line.startswith(("digest     0000", "  yes        midwatch approve 0000")) for line in text.split("\n")
        )
    assert f"midwatch inbox approve {gate} --answer TEXT" in told
    assert 2 == call(office, "approve", gate).exit_code
    assert "approved" == answer(office, "inbox", "approve", gate, "--answer", "yes")["status"]


@pytest.mark.req("CLI-5", "PEOPLE-6")
def test_a_broken_glass_is_seen_on_the_card_and_leaves_the_list_once_reviewed(tmp_path: Path) -> None:
    """By somebody else who may review; whoever broke it may not, nor one of too low a rank."""
    office = Office(tmp_path, [[SHOP]], gates="- {when: {effect: destructive}, ask: admin}")
    for name, role in (("boss", "admin"), ("ops", "operator"), ("rev", "approver"), ("eve", "viewer")):
        office.person(name, role)
    (gate,) = office.run(speaks="boss").gates
    assert 2 == call(office, "inbox", "approve", gate, "--break-glass", who="ops").exit_code
    assert 4 == call(office, "inbox", "approve", gate, "--break-glass", "--reason", "fire", who="eve").exit_code
    assert 2 == call(office, "inbox", "approve", gate, "--break-glass", "--batch", who="ops").exit_code
    broken = answer(office, "inbox", "approve", gate, "--break-glass", "--reason", "fire", who="ops")
    assert "approved" == broken["status"]
    assert "breaking the glass): fire" in call(office, "inbox", "show", gate).stdout
    assert [True] == [word["break_glass"] for word in answer(office, "inbox", "show", gate)["said"]]
    assert [(gate, "ops")] == [(item["gate"], item["by"]) for item in answer(office, "inbox", "reviews")["reviews"]]
    review = ("inbox", "review", gate, "--by-whom", "ops", "--text", "right call")
    assert [4, 4, 4] == [call(office, *review, who=name).exit_code for name in ("ops", "eve", None)]
    assert "rev" == answer(office, *review, who="rev")["reviewer"]
    assert [] == answer(office, "inbox", "reviews")["reviews"]
    assert 6 == call(office, *review, who="rev").exit_code


@pytest.mark.req("CLI-5")
def test_what_was_cancelled_no_longer_waits(tmp_path: Path) -> None:
    """Its questions leave the list, and stand in the full one."""
    office = Office(tmp_path, [[SHOP]])
    run = office.run().run
    assert 1 == len(answer(office, "inbox", "ls")["gates"])
    call(office, "cancel", run)
    assert (0, 1) == tuple(len(answer(office, "inbox", "ls", *more)["gates"]) for more in ((), ("--all",)))


@pytest.mark.req("CLI-5")
def test_a_list_that_is_cut_says_so(tmp_path: Path) -> None:
    """Nobody takes the oldest ones for all."""
    office = Office(tmp_path, [[SHOP, CART]])
    office.run()
    cut, whole = (answer(office, "inbox", "ls", "--limit", limit) for limit in ("1", "2"))
    assert ((1, True), (2, False)) == ((len(cut["gates"]), cut["more"]), (len(whole["gates"]), whole["more"]))
    assert "there are more" in call(office, "inbox", "ls", "--limit", "1").stderr


@pytest.mark.req("PEOPLE-9", "PEOPLE-7")
def test_a_made_up_question_is_edited_like_any_other(tmp_path: Path) -> None:
    """No refusal tells which is which; and who put other arguments in its place has read it, so a yes then is no miss."""
    office = Office(tmp_path, [[SHOP]], extra=CANARY)
    office.run()
    keys = []
    for row in rows(office):
        body = answer(office, "inbox", "edit", row.id, "--set", "version=v3", "--workdir", str(office.work))
        keys.append((sorted(body), sorted(body["card"]), body["edited_by"]))
        assert "approved" == answer(office, "inbox", "approve", row.id)["status"]
    assert keys[0] == keys[1]
    (person,) = answer(office, "inbox", "stats")["people"]
    assert (2, 1, 0, False) == (person["yes"], person["canaries"], person["missed"], person["tired"])
    done = office.run(rows(office)[0].run)
    assert ("done", ["place shop v3"]) == (done.status, office.calls()), done


@pytest.mark.req("CLI-5")
@pytest.mark.parametrize(
    "options",
    [
        ("--editor",),
        ("--editor", "--set", "version=v3"),
        (),
        ("--set", "version"),
        ("--set", "=1"),
        ("--arguments", "[1]"),
    ],
)
def test_an_edit_that_says_nothing_usable_changes_nothing(tmp_path: Path, options: tuple[str, ...]) -> None:
    """No terminal for an editor, two ways at once, none, no name, no object: 2 each."""
    office = Office(tmp_path, [[SHOP]])
    (gate,) = office.run().gates
    before = rows(office)
    assert 2 == call(office, "inbox", "edit", gate, *options).exit_code
    assert before == rows(office)


def measured(tmp_path: Path, words: Callable[[int], tuple[str, int]], count: int = 20) -> tuple[Office, Fatigue]:
    """Let `ann` answer so many questions: each a word, and how many microseconds it took."""
    office = Office(tmp_path, [[SHOP]])
    (gate,) = office.run().gates
    (row,) = rows(office)

    def work(tx: Tx) -> None:
        for place in range(count):
            word, took = words(place)
            made = replace(row, id=f"{place:016x}", nonce=f"{place:032x}")
            tx.gates.open(made)
            at_us = made.opened_us + took
            said: Any = word
            tx.gates.say(GateAnswer(made.id, made.nonce, "ann", said, "operator", "", at_us, "cli"))

    with wiring.open_store(office.home) as store:
        store.write(work)
        assert gate == row.id
        return office, fatigue(store, since_us=0)


@pytest.mark.req("CLI-16")
def test_waving_through_is_named_plainly(tmp_path: Path) -> None:
    """Twenty yes within a second or two each."""
    office, found = measured(tmp_path, lambda place: ("approve", SECOND + place))
    assert [(20, 20, SECOND + 9, SECOND + 18, True)] == [
        (item.answers, item.yes, item.median_us, item.p90_us, item.tired) for item in found.people
    ]
    assert (21, 20) == (found.waiting, found.runs[0][1])
    told = call(office, "inbox", "stats")
    assert "ann said yes in 20 of 20 answers, half of them within 1.0s: this looks like rubber-stamping" in told.stderr
    assert "21 wait now" in told.stderr


@pytest.mark.req("CLI-16")
@pytest.mark.parametrize(
    ("words", "count"),
    [
        (lambda _: ("approve", 6 * SECOND), 20),
        (lambda place: ("deny" if place % 10 == 0 else "approve", SECOND), 20),
        (lambda _: ("approve", SECOND), 19),
    ],
    ids=["slow", "some no", "few"],
)
def test_who_takes_time_says_no_at_times_or_answers_little_is_not(
    tmp_path: Path, words: Callable[[int], tuple[str, int]], count: int
) -> None:
    """One measure alone makes nobody tired."""
    office, found = measured(tmp_path, words, count)
    assert [False] == [person.tired for person in found.people]
    assert "rubber-stamping" not in call(office, "inbox", "stats").output


@pytest.mark.req("CLI-16")
def test_a_yes_to_what_was_made_up_is_named_plainly(tmp_path: Path) -> None:
    """One is enough."""
    office = Office(tmp_path, [[SHOP]], extra=CANARY)
    (real,) = office.run().gates
    canary = next(row.id for row in rows(office) if row.id != real)
    call(office, "inbox", "approve", canary)
    told = call(office, "inbox", "stats", "--since", "1h").stderr
    assert "local:ann said yes to 1 of 1 made-up questions" in told
    assert 2 == call(office, "inbox", "stats", "--since", "soon").exit_code


@pytest.mark.req("PEOPLE-9")
@pytest.mark.parametrize("options", [(), ("--batch",)])
def test_a_made_up_question_is_answered_after_its_run_has_ended(tmp_path: Path, options: tuple[str, ...]) -> None:
    """The real one was answered first and the run is done: a refusal would tell, and nothing would be measured."""
    office = Office(tmp_path, [[SHOP]], extra=CANARY)
    run = office.run()
    (real,) = run.gates
    answer(office, "inbox", "approve", real)
    assert "done" == office.run(run.run).status
    (canary,) = answer(office, "inbox", "ls")["gates"]
    assert "denied" == answer(office, "inbox", "deny", canary["gate"], *options)["status"]
    (person,) = answer(office, "inbox", "stats")["people"]
    assert (1, 0, ["place shop v2"]) == (person["canaries"], person["missed"], office.calls())
    assert answer(office, "verify")["ok"]


@pytest.mark.req("CLI-15")
def test_going_on_with_nothing_is_fine(tmp_path: Path) -> None:
    """Nothing was answered: 0, said in words, one empty object."""
    office = Office(tmp_path, [[SHOP]])
    office.run()
    done = call(office, "resume", "--answered")
    assert (0, True) == (done.exit_code, "nothing that waits was answered" in done.stderr)
    assert {"ok": True, "runs": []} == answer(office, "resume", "--answered")


@pytest.mark.req("CLI-15")
def test_what_cannot_go_on_is_named_and_the_rest_goes_on(tmp_path: Path) -> None:
    """Two runs were answered; the fleet of one has changed since: it waits on, untouched, and the other is done."""
    office = Office(tmp_path, [[SHOP]])
    old = office.run().run
    office.rules(f"{GATES}\n- {{when: {{tool: ops.note}}, ask: operator}}")
    new = office.run().run
    for row in rows(office):
        answer(office, "inbox", "approve", row.id)
    body = answer(office, "resume", "--answered", code=1)
    assert {old: False, new: True} == {item["run"]: item["ok"] for item in body["runs"]}
    assert "Divergence" == next(item["error"]["type"] for item in body["runs"] if item["run"] == old)
    assert ["place shop v2"] == office.calls()


@pytest.mark.req("CLI-15")
def test_a_run_goes_on_under_a_changed_fleet_only_with_a_reason(tmp_path: Path) -> None:
    """Refused without `--under-new`, and without `--reason`; then it asks anew, and who said so is on record."""
    office = Office(tmp_path, [[SHOP]])
    run = office.run().run
    (row,) = rows(office)
    answer(office, "inbox", "approve", row.id)
    office.rules(f"{GATES}\n- {{when: {{tool: ops.note}}, ask: operator}}")
    assert 1 == call(office, "resume", run, "--no-prompt").exit_code
    assert 2 == call(office, "resume", run, "--no-prompt", "--under-new").exit_code
    assert 2 == call(office, "resume", "--answered", "--under-new", "--reason", "x").exit_code
    assert 2 == call(office, "resume", run, "--answered").exit_code
    assert 2 == call(office, "resume", "--follow").exit_code
    again = call(office, "resume", run, "--no-prompt", "--under-new", "--reason", "a rule for notes")
    assert (3, []) == (again.exit_code, office.calls())
    (event,) = office.events(run, "run.rebound")
    assert ("local:ann", "a rule for notes") == (event.data["by"], event.data["reason"])


@pytest.mark.req("CLI-15", "PEOPLE-1")
def test_whoever_may_not_steer_goes_on_with_nothing(tmp_path: Path) -> None:
    """Without a token, and as a viewer: refused, the run waits on."""
    office = Office(tmp_path, [[SHOP]])
    for name, role in (("boss", "admin"), ("ops", "operator"), ("eve", "viewer")):
        office.person(name, role)
    (gate,) = office.run(speaks="boss").gates
    answer(office, "inbox", "approve", gate, who="ops")
    for who in (None, "eve"):
        body = answer(office, "resume", "--answered", who=who, code=1)
        assert ["Denied"] == [item["error"]["type"] for item in body["runs"]]
    assert [] == office.calls()
    assert 0 == call(office, "resume", "--answered", who="ops").exit_code
    assert ["place shop v2"] == office.calls()
