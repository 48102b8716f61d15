"""Rules on what was seen: which calls they mean, whatever their paths, hosts and tools are called."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from midwatch.config.fleet import Fleet
from midwatch.gates.seen import Seen, decide
from midwatch.sandbox.effects import Change, Request, shown

FLEET = """
midwatch: 1
fleet: seen
presets: {default: local}
routes: {smart: {provider: openai, model: gpt-5-mini}, local: {provider: scripted, model: tiny, scenario: s.yaml}}
tools: [builtin.files]
agents:
  boss: {role: ceo, route: smart, prompt_text: "Plan."}
  worker: {role: specialist, route: smart, prompt_text: "Work.", tools: [files.*]}
  writer: {role: synthesis, route: smart, prompt_text: "Write."}
graph: {team: {ceo: boss, specialists: [worker], synthesis: writer}}
grants: [{who: "agent:worker", may: [files.*]}]
environment: production
gates: [{when: {RULE}, ask: operator}]
budgets: {run: {cost: "$0.50", tokens: 200k}}
sandbox: bubblewrap
"""


def _fleet(folder: Path, rule: str) -> Fleet:
    (folder / "s.yaml").write_text('{"scenario": 1, "models": ["tiny"], "rules": []}')
    (folder / "fleet.yaml").write_text(FLEET.replace("RULE", rule))
    return Fleet.load(folder, environ={})


def _seen(*changes: Change, hosts: tuple[str, ...] = ()) -> Seen:
    requests = tuple(Request(0, "GET", host, 443) for host in hosts)
    return Seen("worker", "files.write", "write", changes, requests, "write")


def _asks(fleet: Fleet, seen: Seen, *, automatic: bool = False, flags: tuple[str, ...] = ()) -> bool:
    return decide(fleet, [seen], flags=flags, automatic=automatic, at_us=0) is not None


@pytest.mark.req("RELEASE-3")
@pytest.mark.parametrize(
    ("path", "asked"),
    [
        ("deploy/prod.yaml", True),
        ("deploy/a/b", True),
        ("DEPLOY/prod.yaml", True),
        ("\uff44eploy/prod.yaml", True),  # wide letters
        ("dep\u200bloy/prod.yaml", True),  # a character that does not show
        ("d\u00e9ploy/x", False),
        ("docs/deploy", False),
        ("deployment/x", False),
        ("r\u00e9sum\u00e9/x", True),
        ("re\u0301sume\u0301/x", True),  # the same letter in two
        ("STRASSE/x", True),
    ],
)
def test_a_path_is_read_as_a_disk_may_read_it(tmp_path: Path, path: str, asked: bool) -> None:
    """Without case, width, composition, and what does not show; other names are other paths."""
    fleet = _fleet(tmp_path, 'observed: {paths: ["deploy/*", "R\u00e9sum\u00e9/*", "stra\u00dfe/*"]}')
    assert asked == _asks(fleet, _seen(Change("created", shown(path.encode()), "file")))


@pytest.mark.req("RELEASE-3")
@pytest.mark.parametrize(
    ("path", "op", "asked"),
    [
        ("deploy", "created", True),
        ("deploy/eu", "created", True),
        ("Deploy", "modified", True),
        ("deploy", "deleted", False),
        ("dep", "created", False),
        ("other", "created", False),
    ],
)
def test_a_link_is_seen_where_a_rule_means_what_lies_behind_it(tmp_path: Path, path: str, op: str, asked: bool) -> None:
    """A link in the place of a folder leads each path below it elsewhere."""
    fleet = _fleet(tmp_path, 'observed: {paths: ["deploy/eu/*.yaml"]}')
    assert asked == _asks(fleet, _seen(Change(op, path, "link", target="docs")))  # type: ignore[arg-type]
    assert not _asks(fleet, _seen(Change("created", path, "folder")))


@pytest.mark.req("RELEASE-3")
@pytest.mark.parametrize(
    ("host", "asked"),
    [
        ("api.crates.io", True),
        ("API.Crates.IO", True),
        ("api.crates.io.", True),
        ("b\u00fccher.example", True),
        ("xn--bcher-kva.example", True),
        ("B\u00dcCHER.example", True),
        ("crates.io.evil.net", False),
        ("xcrates.io", False),
    ],
)
def test_a_host_is_read_in_its_one_spelling(tmp_path: Path, host: str, asked: bool) -> None:
    """Without case, with or without the last dot, in letters or in ASCII; whether it was let out or not."""
    fleet = _fleet(tmp_path, 'observed: {hosts: ["*.crates.io", "b\u00fccher.example"]}')
    assert asked == _asks(fleet, _seen(hosts=("other.net", host)))


@pytest.mark.req("RELEASE-3")
def test_who_did_it_is_read_as_it_was_and_as_it_is(tmp_path: Path) -> None:
    """A tool that has gone may have been of any class; one that was or is of the rule's class is meant; others and other agents not."""
    fleet = _fleet(tmp_path, 'observed: {paths: ["*"]}, effect: [write], agent: worker, tool: "files.*"')
    one = _seen(Change("created", "a", "file"))
    meant = [one, replace(one, effect=None), replace(one, effect="read"), replace(one, declared="read")]
    others = [replace(one, effect="read", declared="read"), replace(one, agent="boss"), replace(one, tool="git.commit")]
    assert ([True] * 4, [False] * 3) == (
        [_asks(fleet, item) for item in meant],
        [_asks(fleet, item) for item in others],
    )


@pytest.mark.req("RELEASE-3")
def test_kinds_of_change_are_told_apart(tmp_path: Path) -> None:
    """A rule without `ops` means changes, not reads; with them only those; watched ones only by their flag."""
    read, run, made = (Change(op, "a", "file") for op in ("read", "executed", "created"))
    assert [False, False, True] == [
        _asks(_fleet(tmp_path, 'observed: {paths: ["*"]}'), _seen(c)) for c in (read, run, made)
    ]
    fleet = _fleet(tmp_path, "observed: {ops: [executed, deleted]}")
    assert [False, True, False] == [_asks(fleet, _seen(change)) for change in (read, run, made)]
    fleet = _fleet(tmp_path, "observed: {watched: true}")
    flagged = (replace(made, flags=("leaves",)), replace(made, flags=("watched:a hook",)))
    assert [False, True] == [_asks(fleet, _seen(change)) for change in flagged]


@pytest.mark.req("RELEASE-1")
def test_what_needs_a_person_waits_only_where_nobody_ordered_the_commit(tmp_path: Path) -> None:
    """Whoever orders it has seen it; a rule that asks somebody else holds for both."""
    one = _seen(Change("created", "x.pth", "file", flags=("watched:it is run by every Python",)))
    fleet = _fleet(tmp_path, "observed: {ops: [deleted]}")
    assert (True, False, False) == (
        _asks(fleet, one, automatic=True, flags=("x.pth",)),
        _asks(fleet, one, flags=("x.pth",)),
        _asks(fleet, one, automatic=True),
    )
    rule = _fleet(tmp_path, "observed: {watched: true}, environment: prod*")
    assert (True, True) == (_asks(rule, one), _asks(rule, one, automatic=True, flags=("x.pth",)))
