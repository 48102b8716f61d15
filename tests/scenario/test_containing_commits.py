"""Containing at the commit: what leaves has its label, and waits where strangers may have led to it, unless a grant said where."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from midwatch.engine import leaving
from tests.scenario.bank import TOOLS, Bank, Call

MAIL: Call = ("ops_mail", {})
STRANGER = "third_party:ops.mail"
DONE = "backend: bubblewrap, commit: done"
PLACED = '[{who: "agent:*", may: ["ops.*"]}, {who: "agent:*", may: [files.write], where: {path: "reports/**"}}]'
WIDE = '[{who: "agent:*", may: ["ops.*", "files.*"]}]'


def _write(path: str) -> Call:
    return "files_write", {"path": path, "content": "text"}


def _label(bank: Bank, run: str) -> Any:
    return [event.data["label"]["causes"] for event in bank.events(run, "effects.releasing")]


@pytest.mark.req("CONTAIN-10")
def test_what_was_read_before_waits_at_the_commit_that_nobody_ordered(tmp_path: Path) -> None:
    """A mail, then a file, in a sandbox: the call passes; the fleet's own commit waits, its card names the mail; a yes lets it go, once."""
    bank = Bank(tmp_path / "b", [[MAIL], [_write("plan.txt")]], sandbox=DONE, grants=WIDE)
    waits = bank.go()
    assert ("waiting", [None, None], False) == (waits.status, bank.codes(waits.run), (bank.work / "plan.txt").exists())
    card = bank.cards(waits.run)[0]
    assert STRANGER in card["reason"]
    assert STRANGER in card["label"]["causes"]
    done = bank.answer(waits.run)
    assert ("done", "text") == (done.status, (bank.work / "plan.txt").read_text())
    assert [STRANGER in causes for causes in _label(bank, waits.run)] == [True]


@pytest.mark.req("CONTAIN-10")
@pytest.mark.parametrize("way", ["request", "grant", "record"])
def test_a_commit_goes_by_itself_where_nothing_lacks(tmp_path: Path, way: str) -> None:
    """The twins: by the request alone; where a grant bound the place in advance; where the fleet only records. The label is on record."""
    calls: list[list[Call]] = [[_write("reports/a.txt")]] if way == "request" else [[MAIL], [_write("reports/a.txt")]]
    grants = PLACED if way == "grant" else WIDE
    bank = Bank(tmp_path / "b", calls, sandbox=DONE, grants=grants, mode="record" if way == "record" else "enforce")
    done = bank.go()
    assert ("done", True) == (done.status, (bank.work / "reports/a.txt").exists())
    assert [STRANGER in causes for causes in _label(bank, done.run)] == [way != "request"]


@pytest.mark.req("CONTAIN-10")
def test_a_file_outside_of_the_place_waits_with_the_rest(tmp_path: Path) -> None:
    """A tool that is granted a place, and writes beside it, is bound by what it did, not by what it was asked for."""
    tools = TOOLS + BESIDE
    grants = '[{who: "agent:*", may: [ops.mail]}, {who: "agent:*", may: [ops.stray], where: {path: "reports/**"}}]'
    bank = Bank(
        tmp_path / "b", [[MAIL], [("ops_stray", {"path": "reports/a.txt"})]], sandbox=DONE, grants=grants, tools=tools
    )
    assert "waiting" == bank.go().status


BESIDE = '''
@tool(effect="write", open_world=False, reversible=False, observers=())
def stray(context: ToolContext, path: Target) -> dict[str, Text]:
    """Write where it should, and beside it."""
    (context.workdir / "reports").mkdir()
    (context.workdir / path).write_text("x")
    (context.workdir / "beside.txt").write_text("x")
    return {"wrote": path}
'''


@pytest.mark.req("CONTAIN-8")
@pytest.mark.parametrize("name", ["_labelled", "_bound"])
def test_a_commit_that_cannot_be_judged_waits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Whatever breaks: enforcing, people are asked; recording, the commit is as ever, of unknown label where that was what broke."""

    def broken(*_: object, **__: object) -> None:
        raise OSError("the disk is gone")

    monkeypatch.setattr(leaving, name, broken)
    calls: list[list[Call]] = [[MAIL], [_write("plan.txt")]]
    enforced = Bank(tmp_path / "e", calls, sandbox=DONE, grants=WIDE)
    recorded = Bank(tmp_path / "r", calls, sandbox=DONE, grants=WIDE, mode="record")
    held, done = enforced.go(), recorded.go()
    assert ("waiting", "done") == (held.status, done.status)
    assert "could not be told" in json.dumps(enforced.cards(held.run))
    assert ["unknown" in causes for causes in _label(recorded, done.run)] == [name == "_labelled"]
