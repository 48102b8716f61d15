"""Agents that are programs, in the fleet file."""

from __future__ import annotations

from pathlib import Path

import pytest

from midwatch.config.check import check
from midwatch.config.fleet import Fleet
from midwatch.errors import InvalidFleet

FLEET = """
midwatch: 1
fleet: f
routes: {smart: {provider: openai, model: gpt-5-mini, base_url: "http://127.0.0.1:1"}}
agents:
  boss: {role: ceo, route: smart, BOSS}
  worker: {role: specialist, route: smart, WORKER}
  writer: {role: synthesis, route: smart, prompt_text: "Write."}
graph: GRAPH
SANDBOX
"""
TEAM = "{team: {ceo: boss, specialists: [worker], synthesis: writer}}"


def fleet(
    base: Path, worker: str, *, boss: str = 'prompt_text: "Plan."', graph: str = TEAM, sandbox: str = ""
) -> Fleet:
    """Load a fleet."""
    text = FLEET.replace("BOSS", boss).replace("WORKER", worker).replace("GRAPH", graph).replace("SANDBOX", sandbox)
    return Fleet.from_text(text, base=base)


@pytest.mark.req("COMMAND-11")
def test_words_that_name_files_are_those_files(tmp_path: Path) -> None:
    """A file below the folder is found and digested; other words stay words; the digest follows the bytes."""
    (tmp_path / "agent.py").write_text("one")
    first = fleet(tmp_path, "command: [python3, -u, agent.py, /etc/hosts]")
    assert (("python3", "-u", "agent.py", "/etc/hosts"), [("agent.py", tmp_path / "agent.py")]) == (
        first.agents["worker"].command,
        [(item.word, item.path) for item in first.agents["worker"].programs],
    )
    (tmp_path / "agent.py").write_text("two")
    assert first.digest != fleet(tmp_path, "command: [python3, -u, agent.py, /etc/hosts]").digest
    assert ("worker",) == fleet(tmp_path, "command: worker").agents["worker"].command


@pytest.mark.req("COMMAND-11")
def test_a_misspelt_program_is_a_warning(tmp_path: Path) -> None:
    """A word that almost names a file of the fleet is told; one that names none may be the workspace's."""
    (tmp_path / "agent.py").write_text("one")
    for word, expected in (("agnt.py", ["no-program"]), ("main.sh", []), ("agent.py", [])):
        found = check(fleet(tmp_path, f"command: [python3, {word}]"))[1]
        assert expected == [warning.code for warning in found if warning.code == "no-program"]


@pytest.mark.req("COMMAND-15")
@pytest.mark.parametrize(
    ("worker", "rest", "code"),
    [
        ('command: [a], prompt_text: "x"', {}, "two-prompts"),
        ("tools: []", {}, "missing-prompt"),
        ("command: []", {}, "missing-prompt"),
        ("command: [a]", {"sandbox": 'sandbox: {backend: process, because: "x"}'}, "command-shape"),
        ('command: [a], sandbox: {backend: process, because: "x"}', {}, "command-shape"),
        ("command: [a], sandbox: {egress: [{host: api.example.com}]}", {}, "command-shape"),
        ("command: [a], sandbox: {egress: [{host: api.example.com, methods: [GET, POST]}]}", {}, "command-shape"),
        ("command: [a]", {"sandbox": "sandbox: {egress: [{host: api.example.com, methods: [PUT]}]}"}, "command-shape"),
        ("command: [a]", {"graph": '{import: "m:build"}'}, "command-shape"),
        ('prompt_text: "x"', {"boss": "command: [a]"}, "command-shape"),
    ],
)
def test_what_could_not_be_held_is_refused(tmp_path: Path, worker: str, rest: dict[str, str], code: str) -> None:
    """No isolation, a way out that cannot be repeated, a CEO, an imported graph: each with its line."""
    with pytest.raises(InvalidFleet) as invalid:
        fleet(tmp_path, worker, **rest)
    assert {code} == {problem.code for problem in invalid.value.problems}
    assert all(":" in problem.where for problem in invalid.value.problems)


@pytest.mark.req("COMMAND-15")
def test_reads_and_staged_requests_are_a_programs_own(tmp_path: Path) -> None:
    """What can be asked again, or is kept until it is committed, may be let out."""
    rules = "[{host: a.example.com, methods: [GET, HEAD]}, {host: b.example.com, stage: true}]"
    assert 2 == len(fleet(tmp_path, f"command: [a], sandbox: {{egress: {rules}}}").sandbox_of("worker").egress)
