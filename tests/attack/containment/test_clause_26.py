"""Clause 26 over whole runs: a commit needs what whoever executes it could do; where nothing is said, the strongest."""

from __future__ import annotations

from pathlib import Path

import pytest

from midwatch.errors import InvalidFleet
from tests.policy_fleet import office
from tests.scenario.bank import Bank, Call

MAIL: Call = ("ops_mail", {})
WIDE = '[{who: "agent:*", may: ["ops.*", "files.*"]}]'


def _write(path: str) -> Call:
    return "files_write", {"path": path, "content": "text"}


def _bank(root: Path, path: str, commits: str, *, agents: str = "", extra: str = "", sandbox: str = "") -> Bank:
    """Make a run that reads a mail and writes a file; the fleet commits by itself."""
    bank = Bank(
        root / "b",
        [[MAIL], [_write(path)]],
        sandbox=f"backend: bubblewrap, commit: done{sandbox}",
        grants=WIDE,
        extra=extra,
    )
    bank.change("timeout: 15m}\nsandbox", f"timeout: 15m, commits: {commits}}}\nsandbox")
    if agents:
        bank.change("graph:", f"{agents}\ngraph:")
    return bank


NOBODY = '[{paths: "docs/**", executed_by: nobody}]'


@pytest.mark.req("CLAUSE-26")
@pytest.mark.parametrize(
    "commits",
    [
        "[]",
        NOBODY.replace("docs", "reports"),
        NOBODY.replace("nobody", "operator"),
        NOBODY.replace("nobody", '"person:ann"'),
    ],
)
def test_attack_where_nothing_lesser_is_said_the_strongest_executes_it(tmp_path: Path, commits: str) -> None:
    """Undeclared, declared of another place, declared of somebody with all rights: a mail's words wait."""
    bank = _bank(tmp_path, "docs/a.txt", commits)
    assert "waiting" == bank.go().status
    assert not (bank.work / "docs").exists()


@pytest.mark.req("CLAUSE-26")
def test_twin_what_nobody_executes_is_committed(tmp_path: Path) -> None:
    """A place of texts that are only read: committed without a person, its label on record."""
    bank = _bank(tmp_path, "docs/a.txt", NOBODY)
    done = bank.go()
    assert ("done", "text") == (done.status, (bank.work / "docs/a.txt").read_text())
    (event,) = bank.events(done.run, "effects.releasing")
    assert "third_party:ops.mail" in event.data["label"]["causes"]


@pytest.mark.req("CLAUSE-26")
@pytest.mark.parametrize(
    "path", ["docs/Makefile", "docs/AGENTS.md", "docs/.github/workflows/x.yml", "docs/conftest.py"]
)
def test_attack_a_declaration_does_not_make_harmless_what_a_detector_knows(tmp_path: Path, path: str) -> None:
    """`nobody` is the operator's word about texts; a file that is run or obeyed by habit waits all the same."""
    bank = _bank(tmp_path, path, NOBODY)
    assert "waiting" == bank.go().status
    assert not (bank.work / "docs").exists()


@pytest.mark.req("CLAUSE-26")
@pytest.mark.parametrize(
    ("tools", "extra", "status"),
    [
        ("[files.*]", "", "done"),
        ("[files.*, ops.pay]", "", "waiting"),
        ("[files.*, ops.pay]", 'policies: [{who: "third_party:*", may: ops.pay, roles: all}]', "done"),
        ("[files.*, ops.pay]", 'policies: [{who: "third_party:*", may: ops.pay, roles: [target]}]', "waiting"),
    ],
)
def test_an_agent_that_executes_it_counts_by_what_it_can_do(
    tmp_path: Path, tools: str, extra: str, status: str
) -> None:
    """In its sandbox it can do nothing outside; with a tool that can, every cause of the file needs reach for that tool."""
    agents = f"  builder: {{role: specialist, route: smart, prompt_text: Build., tools: {tools}}}"
    commits = '[{paths: "work/**", executed_by: "agent:builder"}]'
    bank = _bank(tmp_path, "work/a.py", commits, agents=agents, extra=extra)
    bank.change("specialists: [worker, other]", "specialists: [worker, other, builder]")
    assert status == bank.go().status


@pytest.mark.req("CLAUSE-26")
def test_all_that_is_said_of_a_path_counts(tmp_path: Path) -> None:
    """Of two declarations the stronger holds, in whatever order they stand."""
    for order in (("nobody", "operator"), ("operator", "nobody")):
        rows = ", ".join(f'{{paths: "docs/**", executed_by: {name}}}' for name in order)
        assert "waiting" == _bank(tmp_path / order[0], "docs/a.txt", f"[{rows}]").go().status


@pytest.mark.req("CLAUSE-26")
@pytest.mark.parametrize(
    ("target", "told"),
    [
        ("{paths: '**', executed_by: nobody}", "wide-commits"),
        ("{paths: '*/**', executed_by: nobody}", "wide-commits"),
        ("{paths: [], executed_by: nobody}", "empty-commits"),
        ("{paths: 'docs/**', executed_by: 'agent:none'}", "unknown-agent"),
        ("{paths: 'docs/**', executed_by: everyone}", "commits"),
        ("{paths: 'docs/**'}", "executed_by"),
    ],
)
def test_a_declaration_that_says_too_much_or_nothing_is_refused(tmp_path: Path, target: str, told: str) -> None:
    """At its line, with what to write."""
    with pytest.raises(InvalidFleet) as refused:
        office(tmp_path, f"containment: {{mode: enforce, commits: [{target}]}}\n")
    assert told in repr(refused.value.problems) + str(refused.value)
