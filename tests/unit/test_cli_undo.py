"""`midwatch undo`: what it shows, when it asks, what it ends with."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from midwatch import wiring
from midwatch.engine.undo import Undone
from midwatch.surfaces.cli import main
from midwatch.surfaces.cli.undo import _code
from tests.scenario.office import Office

SHOP = ("ops.place", {"service": "shop", "version": "v2"})
NOTE = ("ops.note", {"text": "began"})
NOBODY = "- {when: {tool: nothing.at_all}, ask: operator}"


def undo(office: Office, *options: str, typed: str = "") -> Result:
    """Call `undo` on the newest run."""
    return CliRunner().invoke(main, ["--home", str(office.home), "undo", "last", *options], input=typed)


def outcomes(done: Result) -> list[str]:
    """Give the outcome of each effect."""
    body: dict[str, Any] = json.loads(done.stdout)
    return [item["outcome"] for item in body["effects"]]


@pytest.mark.req("CLI-14")
def test_all_undone_is_0_and_so_is_nothing_left(tmp_path: Path) -> None:
    """The plan changes nothing; the second undo has nothing to do."""
    office = Office(tmp_path, [[SHOP]], gates=NOBODY)
    office.run()
    plan = undo(office, "--dry-run")
    assert (0, ["place shop v2"]) == (plan.exit_code, office.calls())
    assert "would be undone by ops.restore" in plan.stdout
    done = undo(office, "--yes")
    assert (0, "ops.place: undone by ops.restore" in done.stdout) == (done.exit_code, True)
    again = undo(office, "--yes", "--json")
    assert (0, ["already"]) == (again.exit_code, outcomes(again))
    assert 1 == len(office.calls("restore"))


@pytest.mark.req("CLI-14")
def test_a_run_that_changed_nothing_has_nothing_to_undo(tmp_path: Path) -> None:
    """0, and said in words."""
    office = Office(tmp_path, [[("ops.version", {"service": "shop"})]], gates=NOBODY)
    office.run()
    done = undo(office)
    assert (0, True) == (done.exit_code, "changed nothing" in done.stderr)


@pytest.mark.req("CLI-14")
def test_what_cannot_be_undone_is_1_and_says_why(tmp_path: Path) -> None:
    """The placing before the note is taken back all the same."""
    office = Office(tmp_path, [[SHOP], [NOTE]], gates=NOBODY)
    office.run()
    done = undo(office, "--yes")
    assert (1, ["restore shop none"]) == (done.exit_code, office.calls("restore"))
    first, second = done.stdout.splitlines()
    assert "ops.note: cannot be undone (the tool names nothing that undoes it)" in first
    assert "ops.place: undone by ops.restore" in second


@pytest.mark.req("CLI-14")
def test_an_effect_in_doubt_is_3_and_nothing_before_it_is_touched(tmp_path: Path) -> None:
    """Its own outcome must be known first."""
    office = Office(tmp_path, [[SHOP]], gates=NOBODY)
    run = office.run().run
    with wiring.open_store(office.home) as store:
        (row,) = (item for item in store.read(lambda tx: tx.effects.list(run)) if item.tool == "ops.place")
        later = replace(
            row, id="5d" * 8, call_id="cut", status="started", result=None, finished_us=None, finished_seq=None
        )
        epoch = store.write(lambda tx: tx.fences.take(run, owner="test", at_us=wiring.clock(), ttl_us=1))
        store.write(lambda tx: tx.effects.begin(replace(later, epoch=epoch, intent_seq=(row.finished_seq or 0) + 1)))
        store.write(lambda tx: tx.fences.release(run, epoch=epoch))
    done = undo(office, "--yes", "--json")
    assert (3, ["in_doubt"], []) == (done.exit_code, outcomes(done), office.calls("restore"))


@pytest.mark.req("CLI-14")
def test_it_asks_a_terminal_and_refuses_to_guess_without_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No terminal and no `--yes`: 2. A no at the question: nothing is done."""
    office = Office(tmp_path, [[SHOP]], gates=NOBODY)
    office.run()
    assert 2 == undo(office).exit_code
    assert 2 == undo(office, "--json").exit_code
    monkeypatch.setattr("midwatch.surfaces.cli.undo._terminal", lambda: True)
    for typed in ("n\n", ""):
        refused = undo(office, typed=typed)
        assert (2, []) == (refused.exit_code, office.calls("restore"))
        assert "nothing was undone" in refused.stderr
    assert 0 == undo(office, typed="y\n").exit_code
    assert ["restore shop none"] == office.calls("restore")


@pytest.mark.req("CLI-14")
@pytest.mark.parametrize(
    ("found", "code"),
    [
        ([], 0),
        (["undone", "already"], 0),
        (["undone", "cannot"], 1),
        (["failed"], 1),
        (["changed"], 1),
        (["undone", "in_doubt"], 3),
        (["cannot", "in_doubt"], 3),
    ],
)
def test_the_exit_code_is_that_of_the_worst(found: list[Any], code: int) -> None:
    """In doubt before failed before done."""
    assert code == _code([Undone("e" * 16, "ops.place", outcome) for outcome in found])
