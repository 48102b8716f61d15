"""People are asked about what a run was seen to do, before it leaves its sandboxes; what their yes is for, and how often."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from midwatch import wiring
from midwatch.errors import Denied, UsageProblem
from midwatch.surfaces.cli import main
from tests.scenario.studio import Host, Studio, write

DEPLOY = '[{when: {observed: {paths: ["deploy/*"]}}, ask: operator, timeout: 15m}]'
ANY = '[{when: {observed: {paths: ["*"]}, effect: [write]}, ask: operator, timeout: 15m}]'
DONE = "commit: done"
TICK_US = 1_000_000


def _cli(studio: Studio, *arguments: str) -> Result:
    return CliRunner().invoke(main, ["--home", str(studio.home), *arguments], catch_exceptions=False)


@pytest.mark.req("RELEASE-1")
@pytest.mark.parametrize(("word", "code", "files"), [("approve", 0, {"deploy/a": "new\n"}), ("deny", 4, {})])
def test_a_finished_run_waits_for_a_person_before_it_writes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, word: str, code: int, files: dict[str, str]
) -> None:
    """Exit code 3, a card with the lines; yes writes at the resume, no ends with 4; there are no arguments to edit."""
    monkeypatch.setenv("USER", "ann")
    studio = Studio(tmp_path / "s", [write("deploy/a")], sandbox=DONE, gates=DEPLOY)
    started = _cli(
        studio, "run", str(studio.fleet), "--input", "{}", "--workdir", str(studio.work), "--no-prompt", "--json"
    )
    assert (3, {}) == (started.exit_code, studio.files())
    run = json.loads(started.stdout)["run"]
    gate = json.loads(_cli(studio, "inbox", "ls", "--json").stdout)["gates"][0]["gate"]
    card = _cli(studio, "inbox", "show", gate).stdout
    assert all(part in card for part in ("+new", "deploy/a", str(studio.work), "what the run was seen to do"))
    edited = _cli(studio, "inbox", "edit", gate, "--set", "release=x", "--reason", "no")
    assert (2, True) == (edited.exit_code, "cannot be edited" in edited.stderr)
    assert 0 == _cli(studio, "inbox", word, gate, "--reason", "seen").exit_code
    assert (code, files) == (_cli(studio, "resume", run, "--no-prompt").exit_code, studio.files())
    assert (code, files) == (_cli(studio, "resume", run, "--no-prompt").exit_code, studio.files())
    assert 0 == _cli(studio, "verify").exit_code
    if word == "deny":
        denied = _cli(studio, "effects", "commit", run, "--yes")
        assert (4, {}, ["created deploy", "created deploy/a"]) == (
            denied.exit_code,
            studio.files(),
            studio.paths(run),
        )


@pytest.mark.req("RELEASE-1")
def test_no_yes_in_time_is_no(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether nobody spoke or the yes came to nothing in time; a person may then order it, which asks anew."""
    studio = Studio(tmp_path / "s", [write("deploy/a")], sandbox=DONE, gates=DEPLOY)
    result = studio.carry()
    (gate,) = result.gates
    now, late = wiring.clock, 16 * 60 * TICK_US
    studio.answer(gate)
    with monkeypatch.context() as ahead:
        ahead.setattr(wiring, "clock", lambda: now() + late)
        ahead.setattr(wiring, "_govern", lambda *_: None)  # the governor's clock is not ahead
        resumed = studio.carry(result.run)
        assert ("denied", 4, {}) == (resumed.status, resumed.exit_code, studio.files())
        again = studio.commit(result.run)
        assert ("waiting", gate, {}) == (again.status, again.gate, studio.files())
        studio.answer(gate, at_us=wiring.clock())
        assert "committed" == studio.commit(result.run).status
    assert {"deploy/a": "new\n"} == studio.files()


@pytest.mark.req("RELEASE-1")
def test_quorum_and_four_eyes_hold(tmp_path: Path) -> None:
    """Who started the run does not count; one of two is not enough."""
    rule = "[{when: {observed: {watched: true}}, ask: approver, quorum: 2, four_eyes: true}]"
    studio = Studio(tmp_path / "s", [write(".git/hooks/post-commit", "#!/bin/sh\n")], sandbox=DONE, gates=rule)
    ann, bob, eve = (studio.person(name, "operator", "approver") for name in ("ann", "bob", "eve"))
    (gate,) = (result := studio.carry(speaks="ann")).gates
    with pytest.raises(Denied):
        studio.answer(gate, ann)
    studio.answer(gate, bob)
    assert ("waiting", {}) == (studio.carry(result.run, speaks="ann").status, studio.files())
    studio.answer(gate, eve)
    assert ("done", [".git/hooks/post-commit"]) == (studio.carry(result.run, speaks="ann").status, list(studio.files()))


@pytest.mark.req("RELEASE-1")
def test_what_grants_later_power_is_never_written_by_itself(tmp_path: Path) -> None:
    """Without any rule, `commit: done` waits for a person who sees the file; one without such files does not."""
    studio = Studio(tmp_path / "s", [write("a.txt"), write(".github/workflows/x.yml"), write("mod.pth")], sandbox=DONE)
    result = studio.carry()
    row, card = studio.gate(result.gates[0])
    assert ("waiting", {}, "release") == (result.status, studio.files(), row.kind)
    assert (True, True) == ("never committed without a person" in row.reason, "+++ b/mod.pth" in card["preview"])
    studio.answer(row.id)
    assert ("done", 3) == (studio.carry(result.run).status, len(studio.files()))
    assert "used" == studio.gate(row.id)[0].status


@pytest.mark.req("RELEASE-2")
def test_a_yes_is_for_one_release(tmp_path: Path) -> None:
    """Another layer asks again, another workspace asks again, another policy asks again; the last yes commits, and is used up."""
    gates = f"{ANY[:-1]}, {{when: {{effect: [destructive]}}, ask: operator}}]"
    studio = Studio(tmp_path / "s", [write("a.txt"), [("drop", {"path": "b.txt"})], write("c.txt")], gates=gates)
    (studio.work / "b.txt").write_text("old\n")
    result = studio.carry()
    (call,) = result.gates

    def more() -> None:
        studio.answer(call)
        assert "done" == studio.carry(result.run).status

    def workspace() -> None:
        (studio.work / "a.txt").write_text("new\n")

    def policy() -> None:
        studio.rules("timeout: 15m", "timeout: 14m")

    steps: list[Callable[[], None]] = [more, workspace, policy]
    nonces = set()
    for step in steps:
        asked = studio.commit(result.run)
        assert ("waiting", "old\n") == (asked.status, studio.files()["b.txt"])
        assert asked.gate == studio.commit(result.run).gate, "the same question is not asked twice"
        nonces.add(studio.gate(asked.gate or "")[0].nonce)
        studio.answer(asked.gate or "")
        step()
    asked = studio.commit(result.run)
    assert ("waiting", 3) == (asked.status, len(nonces - {studio.gate(asked.gate or "")[0].nonce}))
    studio.answer(asked.gate or "")
    assert "committed" == studio.commit(result.run).status
    assert ({"a.txt": "new\n", "c.txt": "new\n"}, "used") == (studio.files(), studio.gate(asked.gate or "")[0].status)
    assert 1 == len(studio.events(result.run, "effects.committed"))


@pytest.mark.req("RELEASE-2")
def test_what_people_said_no_to_is_not_asked_again_in_other_words(tmp_path: Path) -> None:
    """A glob that means the same paths is the same commit; a part of them is another."""
    studio = Studio(tmp_path / "s", [write("a.txt"), write("b.txt")], gates=ANY)
    run = studio.carry().run
    asked = studio.commit(run, only=("*",))
    studio.answer(asked.gate or "", approve=False)
    for only in (("*",), ("*.txt",), ("a*", "b*")):
        with pytest.raises(Denied, match="said no"):
            studio.commit(run, only=only)
    assert ("waiting", {}) == (studio.commit(run, only=("a*",)).status, studio.files())


@pytest.mark.req("RELEASE-3")
def test_a_rule_on_what_was_seen_asks_of_nothing_else(tmp_path: Path) -> None:
    """No call waits, only the commit; another agent's name, other paths and other hosts are not meant."""
    rule = '{when: {observed: {paths: ["*"]}, agent: other}, ask: operator}'
    hosts = '{when: {observed: {hosts: ["*.net"]}}, ask: operator}'
    studio = Studio(tmp_path / "s", [write("a.txt")], sandbox=DONE, gates=f"[{DEPLOY[1:-1]}, {rule}, {hosts}]")
    result = studio.carry()
    assert ("done", {"a.txt": "new\n"}) == (result.status, studio.files())
    assert [] == studio.events(result.run, "gate.opened")


@pytest.mark.req("RELEASE-3")
@pytest.mark.parametrize("way", ["link", "case", "gone", "weaker"])
def test_a_rule_on_what_was_seen_is_not_evaded(tmp_path: Path, way: str) -> None:
    """By a link that leads what it names elsewhere, by case, by a tool that has gone or calls itself harmless since."""
    calls = {
        "link": [("link", {"path": "deploy", "to": "docs"})],
        "case": [("put", {"path": "DEPLOY/a", "text": "x"})],
    }.get(way, [("put", {"path": "a", "text": "x"})])
    studio = Studio(tmp_path / "s", [calls], gates=DEPLOY if way in ("link", "case") else ANY)
    run = studio.carry().run
    tools = studio.fleet / "ops.py"
    text = tools.read_text()
    put = '@tool(effect="write", open_world=False, reversible="ops.drop")\ndef put'
    assert put in text
    if way == "gone":
        tools.write_text(text.replace(put, put.replace("def put", "def place")))
    if way == "weaker":
        tools.write_text(text.replace(put, '@tool(effect="read", open_world=False)\ndef put'))
    assert ("waiting", {}) == (studio.commit(run).status, studio.files())


@pytest.mark.req("RELEASE-3")
def test_a_host_that_was_asked_is_seen(tmp_path: Path) -> None:
    """Also where it was asked for in capitals; and where it refused."""
    with Host(500) as host:
        rule = '[{when: {observed: {hosts: ["LocalHost"]}}, ask: operator}]'
        studio = Studio(
            tmp_path / "s", [[("get", {"path": "/x"})], write("a.txt")], sandbox=f"{DONE}, {host.rule()}", gates=rule
        )
        (studio.meeting / "host").write_text(f"http://LOCALHOST.:{host.port}")
        result = studio.carry()
    assert ("waiting", {}, ["/x"]) == (result.status, studio.files(), [item[1] for item in host.seen])


@pytest.mark.req("RELEASE-1")
def test_a_viewer_commits_and_discards_nothing(tmp_path: Path) -> None:
    """It takes an operator; whoever may not is told so, and everything stays."""
    studio = Studio(tmp_path / "s", [write("a.txt")])
    run = studio.carry().run
    studio.person("boss", "admin")
    eve = studio.person("eve", "viewer")
    with studio.opened(speaks="boss") as kernel:
        for order in (kernel.commit, kernel.discard):
            with pytest.raises(Denied, match="operator"):
                order(run, speaker=eve)
        with pytest.raises(UsageProblem, match="no staged path"):
            kernel.commit(run, only=("b*",))
    assert ({}, ["created a.txt"]) == (studio.files(), studio.paths(run))
