"""Gates on what a sandbox was seen to do: what such a rule means, and which could never be asked."""

from pathlib import Path
from typing import get_args

import pytest

from midwatch.config.fleet import Fleet
from midwatch.config.specs import ObservedOp, ObservedWhen
from midwatch.errors import InvalidFleet
from midwatch.sandbox.effects import Op

FLEET = """\
midwatch: 1
fleet: plain
routes: {local: {provider: scripted, scenario: scenario.yaml}}
agents:
  boss: {role: ceo, route: local, prompt_text: plan}
  hand: {role: specialist, route: local, prompt_text: work, tools: [host.disks]}
  pen: {role: synthesis, route: local, prompt_text: write}
graph: {team: {ceo: boss, specialists: [hand], synthesis: pen}}
budgets: {run: {cost: "$1"}}
grants: [{who: agent:hand, may: host.*}]
gates: [{when: {effect: destructive}, ask: operator}]
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Give the folder of a fleet."""
    (tmp_path / "scenario.yaml").write_text("rules: []\n", encoding="utf-8")
    return tmp_path


OBSERVED = "gates: [{when: {effect: destructive}, ask: operator}]"


def _gate(folder: Path, observed: str, more: str = "") -> Fleet:
    text = FLEET.replace(OBSERVED, f"gates: [{{when: {{observed: {observed}{more}}}, ask: operator}}]")
    return Fleet.from_text(text, base=folder)


@pytest.mark.req("CONFIG-16")
def test_a_gate_can_ask_about_what_was_seen(folder: Path) -> None:
    """Words, globs, the watch-list, hosts; beside the tool and the agent that it is about."""
    when = (
        _gate(folder, "{ops: [created, executed], paths: 'src/*', watched: true}", ", tool: shell.*, agent: hand")
        .gates[0]
        .when
    )
    assert ObservedWhen(ops=("created", "executed"), paths=("src/*",), watched=True) == when.observed
    assert (("shell.*",), ("hand",)) == (when.tool, when.agent)
    assert ObservedWhen(hosts=("*.crates.io",)) == _gate(folder, "{hosts: '*.crates.io'}").gates[0].when.observed
    assert get_args(Op) == get_args(ObservedOp)


@pytest.mark.req("CONFIG-16")
@pytest.mark.parametrize(
    ("observed", "code"),
    [
        ("{}", "empty-observed"),
        ("{watched: false}", "empty-observed"),
        ("{ops: []}", "empty-observed"),
        ("{ops: [renamed]}", "unknown-word"),
        ("{paths: [/etc/*]}", "bad-form"),
        ("{paths: ['../*']}", "bad-form"),
        ("{paths: ['src/*'], hosts: [crates.io]}", "mixed-observed"),
        ("{paths: [a, a]}", "duplicate-entry"),
        ("{path: a}", "unknown-key"),
        ("created", "wrong-type"),
    ],
)
def test_a_gate_on_what_can_never_be_seen_is_refused(folder: Path, observed: str, code: str) -> None:
    """Nothing named, an absolute path, files and hosts in one rule."""
    with pytest.raises(InvalidFleet) as caught:
        _gate(folder, observed)
    assert [code] == [found.code for found in caught.value.problems]


@pytest.mark.req("CONFIG-16")
@pytest.mark.parametrize(
    "more", ["keywords: deploy", "label: third_party", "role: {target: v*}", "cost: $1", "reversible: false"]
)
def test_a_rule_on_what_was_seen_has_no_key_that_would_be_ignored(folder: Path, more: str) -> None:
    """What is asked before a call cannot be asked of what was done."""
    with pytest.raises(InvalidFleet) as caught:
        _gate(folder, "{watched: true}", f", {more}")
    assert ["mixed-observed"] == [found.code for found in caught.value.problems]


@pytest.mark.req("CONFIG-16")
def test_a_rule_on_what_was_seen_is_policy(folder: Path) -> None:
    """It changes the digests where it is used, and only there."""
    one, other = _gate(folder, "{watched: true}"), _gate(folder, "{ops: deleted}")
    assert one.policy_digest != other.policy_digest
