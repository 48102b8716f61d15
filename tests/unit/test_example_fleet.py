"""The nightwatch fleet as files: it loads, asks for nothing that is refused, and its scenario answers each agent."""

from pathlib import Path

import pytest

from midwatch import wiring
from midwatch.config.check import check
from midwatch.config.fleet import Fleet
from midwatch.errors import InvalidFleet
from midwatch.models.scripted.scenario import load_scenario

FLEET = Path(__file__).resolve().parents[2] / "examples" / "nightwatch"
SERVER = {"OPENAI_BASE_URL": "http://127.0.0.1:11434/v1", "OPENAI_MODEL": "qwen2.5"}


@pytest.mark.req("EXAMPLE-1")
@pytest.mark.parametrize(
    ("preset", "environ", "model"),
    [
        (None, {}, "nightwatch-scripted"),
        ("cloud", {}, "gpt-5-mini"),
        ("own", SERVER, "qwen2.5"),
    ],
    ids=["no key", "cloud", "own server"],
)
def test_each_preset_loads_and_checks_clean(preset: str | None, environ: dict[str, str], model: str) -> None:
    """Whoever has no key, a key or a server of their own starts with a fleet without a single problem or warning."""
    fleet = Fleet.load(FLEET, preset=preset, environ=environ)
    assert {model} == {fleet.route_of(name).model for name in fleet.agents}
    assert ([], []) == check(fleet)


@pytest.mark.req("EXAMPLE-1")
def test_a_server_without_a_model_is_named() -> None:
    """An address alone is not enough, and the message names the variable that is missing."""
    with pytest.raises(InvalidFleet) as raised:
        Fleet.load(FLEET, preset="own", environ={"OPENAI_BASE_URL": SERVER["OPENAI_BASE_URL"]})
    assert ["missing-variable"] == [problem.code for problem in raised.value.problems]
    assert "`OPENAI_MODEL`" in str(raised.value)


@pytest.mark.req("EXAMPLE-1")
def test_the_scenario_answers_each_agent_and_prices_its_model() -> None:
    """No agent is left without an answer, and a run has a cost that its bounds can hold."""
    fleet = Fleet.load(FLEET, environ={})
    scenario = load_scenario(FLEET / "scenario.yaml")
    assert set(fleet.agents) == {agent for rule in scenario.rules for agent in rule.agents or ()}
    assert {"nightwatch-scripted"} == set(scenario.prices)


@pytest.mark.req("EXAMPLE-1")
def test_only_the_editor_may_write_and_only_reports() -> None:
    """The one effect of the fleet has one grant, bound to one folder."""
    fleet = Fleet.load(FLEET, environ={})
    writing = [grant for grant in fleet.grants if any(tool.startswith("files.") for tool in grant.may)]
    assert [(("agent:editor",), ("files.write",), {"path": ("reports/**",)})] == [
        (tuple(grant.who), tuple(grant.may), dict(grant.where)) for grant in writing
    ]


@pytest.mark.req("CONFIG-11")
def test_grants_that_allow_nothing_and_rules_that_take_people_are_told() -> None:
    """A misspelt tool, a misspelt argument and a quorum are warnings of `check`, each at its line."""
    text = (FLEET / "fleet.yaml").read_text(encoding="utf-8")
    text = text.replace("may: files.write, where: {path:", "may: files.write, where: {pth:")
    text = text.replace("may: [git.log, git.churn]", "may: [git.log, git.churn, git.lgo]").replace(
        "ask: operator,", "ask: operator, quorum: 2,"
    )
    _, warnings, _ = wiring.check_fleet(Fleet.from_text(text, base=FLEET), {})
    assert ["idle-grant", "idle-grant", "needs-people"] == sorted(
        item.code for item in warnings if item.code in ("idle-grant", "needs-people")
    )
