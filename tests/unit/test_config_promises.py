"""What a fleet file may ask for and is not given yet; its warnings; its schema and reference page."""

from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest

from midwatch.config.check import check
from midwatch.config.fleet import Fleet
from midwatch.config.guarantees import not_guaranteed
from midwatch.config.reference import refresh, tables
from midwatch.config.schema import DIALECT, fleet_json_schema
from midwatch.errors import InvalidFleet

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "fleet-file.md"

PLAIN = """\
midwatch: 1
fleet: plain
routes:
  local: {provider: scripted, scenario: scenario.yaml}
  claude: {provider: anthropic, model: claude-x}
agents:
  boss: {role: ceo, route: local, prompt_text: plan}
  hand:
    role: specialist
    route: local
    prompt_text: work
    tools: [host.disks]
    limits: {steps: 20}
  pen: {role: synthesis, route: local, prompt_text: write}
graph: {team: {ceo: boss, specialists: [hand], synthesis: pen}}
budgets:
  run: {cost: "$1"}
grants:
  - {who: agent:hand, may: host.*}
gates:
  - when: {effect: destructive}
    ask: operator
sandbox: {backend: process, because: trusted tools}
governor: {mode: child}
"""

SCHEDULE = "{name: %s, cron: '0 4 * * *'}"
# What is changed, and the lines at which something must be refused.
WISHES = [
    ("gvisor", "{backend: process, because: trusted tools}", "{backend: gvisor}", [23]),
    ("own gvisor", "    limits: {steps: 20}", "    sandbox: gvisor", [13]),
    ("schedules", "governor:", f"schedules:\n  - {SCHEDULE % 'a'}\n  - {SCHEDULE % 'b'}\ngovernor:", [25, 26]),
    ("anthropic", "role: ceo, route: local", "role: ceo, route: claude", [5]),
    ("anthropic by preset", "routes:\n", "presets:\n  default:\n    local: anthropic/claude-x\nroutes:\n", [5]),
]  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Give a folder with the one file that these fleets name."""
    (tmp_path / "scenario.yaml").write_text("rules: []\n", encoding="utf-8")
    return tmp_path


def _load(folder: Path, old: str = "", new: str = "") -> Fleet:
    assert old in PLAIN
    return Fleet.from_text(PLAIN.replace(old, new, 1) if old else PLAIN, base=folder)


@pytest.mark.req("CONFIG-8")
def test_a_fleet_that_asks_for_nothing_special_may_run(folder: Path) -> None:
    """Each wish below is refused for itself, not for something that every fleet has; unused routes are no wish."""
    assert () == not_guaranteed(_load(folder))
    assert () == not_guaranteed(_load(folder, "sandbox: {backend: process, because: trusted tools}\n", ""))


@pytest.mark.req("CONFIG-8")
@pytest.mark.parametrize(("name", "old", "new", "lines"), WISHES, ids=[wish[0] for wish in WISHES])
def test_each_wish_that_is_not_kept_is_refused_at_its_line(
    folder: Path, name: str, old: str, new: str, lines: list[int]
) -> None:
    """It loads, so that the file may be written today, and is refused before anything runs."""
    problems = not_guaranteed(_load(folder, old, new))
    assert [f"<fleet>:{line}" for line in lines] == [problem.where for problem in problems]
    assert {"not-guaranteed"} == {problem.code for problem in problems}
    assert list(problems) == check(_load(folder, old, new))[0]


@pytest.mark.req("CONFIG-8")
def test_all_wishes_are_refused_together(folder: Path) -> None:
    """One pass names everything, not only the first."""
    text = PLAIN
    wanted = ("gvisor", "own gvisor", "anthropic")
    for name, old, new, _ in WISHES:
        if name in wanted:
            text = text.replace(old, new, 1)
    assert len(wanted) == len(not_guaranteed(Fleet.from_text(text, base=folder)))


@pytest.mark.req("CONFIG-8")
def test_the_page_names_every_wish_that_is_refused() -> None:
    """Whoever reads the reference knows before running."""
    page = PAGE.read_text(encoding="utf-8").partition("## What is refused at run time")[2].partition("\n## ")[0]
    words = ("schedules",)
    more = (
        "anthropic",
        "gvisor",
    )
    assert [] == [word for word in (*words, *more) if word not in page]


@pytest.mark.req("CONFIG-11")
@pytest.mark.parametrize(
    ("old", "new", "where", "code"),
    [
        ("  pen: {", "  idle: {role: specialist, route: local, prompt_text: x}\n  pen: {", 14, "unused-agent"),
        ("agent:hand", "agent:p*", 12, "ungranted-agent"),
        ("may: host.*}", "may: host.*}\n  - {who: [], may: x.y}", 20, "empty-grant"),
        ("may: host.*}", "may: host.*}\n  - {who: agent:pen, may: x.y, where: {path: []}}", 20, "empty-grant"),
        ('{cost: "$1"}', "{tokens: 1k}", 16, "unbounded-cost"),
        ("steps: 20", "steps: 21", 13, "many-steps"),
    ],
)
def test_what_is_unwise_is_a_warning(folder: Path, old: str, new: str, where: int, code: str) -> None:
    """It runs all the same, and says so with the line."""
    errors, warnings = check(_load(folder, old, new))
    assert [] == errors
    assert [(f"<fleet>:{where}", code)] == [(warning.where, warning.code) for warning in warnings]


@pytest.mark.req("CONFIG-11")
def test_a_sound_fleet_has_no_warning(folder: Path) -> None:
    """Warnings that are always there are not read."""
    assert ([], []) == check(_load(folder))


@pytest.mark.req("CONFIG-9")
@pytest.mark.parametrize("wish", ["", *(wish[0] for wish in WISHES)])
def test_the_schema_accepts_what_loads(folder: Path, wish: str) -> None:
    """An editor must not underline what Midwatch accepts."""
    old, new = next(((old, new) for name, old, new, _ in WISHES if name == wish), ("", ""))
    validator = jsonschema_rs.validator_for(fleet_json_schema())
    assert [] == [str(error) for error in validator.iter_errors(_load(folder, old, new).source.value)]


@pytest.mark.req("CONFIG-9")
@pytest.mark.parametrize(
    "change",
    [
        {"fleat": 1},
        {"midwatch": 2},
        {"agents": {"BOSS": {}}},
        {"agents": {"boss": {"role": "chief", "route": "x"}}},
        {"budgets": {"run": {"cost": 1}}},
        {"budgets": {"run": {"wall": 10}}},
        {"sandbox": {"backend": "process", "limits": {"memory": "64MB"}}},
        {"grants": [{"who": "editor", "may": "x"}]},
        {"gates": [{"when": {"effect": "explode"}, "ask": "operator"}]},
        {"schedules": [{"name": "x", "cron": "* * * *"}]},
        {"tools": "host"},
    ],
    ids=repr,
)
def test_the_schema_refuses_what_an_editor_can_see(folder: Path, change: dict[str, Any]) -> None:
    """Unknown keys, words, names and quantities are underlined while they are written."""
    value = _load(folder).source.value
    assert isinstance(value, dict)
    assert not jsonschema_rs.validator_for(fleet_json_schema()).is_valid({**value, **change})


@pytest.mark.req("CONFIG-9")
def test_every_key_of_the_schema_is_described_and_closed() -> None:
    """No object of the schema takes keys that it does not know, and each key says what it is for."""
    schema = fleet_json_schema()
    assert DIALECT == schema["$schema"]
    for name, block in {"": schema, **schema["$defs"]}.items():
        assert block["additionalProperties"] is False, name
        assert block["description"], name
        for key, value in block["properties"].items():
            assert value.get("description"), f"{name}.{key}"


@pytest.mark.req("CONFIG-9")
def test_the_reference_page_is_made_from_the_schema() -> None:
    """Run `python -m midwatch.config.reference docs/reference/fleet-file.md` when this fails."""
    page = PAGE.read_text(encoding="utf-8")
    assert refresh(page) == page


@pytest.mark.req("CONFIG-9")
def test_every_key_of_the_schema_has_a_row() -> None:
    """The tables are complete: each block once, each of its keys in it."""
    schema = fleet_json_schema()
    made = tables()
    blocks = [schema, *schema["$defs"].values()]
    assert len(blocks) == made.count("| key | value |")
    for block in blocks:
        section = next(part for part in made.split("### ") if f"\n\n{block['description']}\n\n" in part)
        assert [] == [key for key in block["properties"] if f"| `{key}` |" not in section]


@pytest.mark.req("CONFIG-9")
def test_the_example_on_the_reference_page_loads(folder: Path) -> None:
    """What is shown works, and warns of nothing."""
    text = PAGE.read_text(encoding="utf-8").partition("```yaml\n")[2].partition("```")[0]
    (folder / "prompts").mkdir()
    for name in ("ceo", "storage", "editor"):
        (folder / "prompts" / f"{name}.md").write_text(name, encoding="utf-8")
    assert ([], []) == check(Fleet.from_text(text, base=folder))


@pytest.mark.req("CONFIG-9")
def test_a_page_without_its_marks_is_not_overwritten() -> None:
    """The prose around the tables is never lost to a mark that somebody deleted."""
    with pytest.raises(ValueError, match="must hold"):
        refresh("# The fleet file\n")


GATE = "  - when: {effect: destructive}\n    ask: operator\n"
CHANNEL = "channels: {ops: {url: 'http://127.0.0.1:1/x', principal: ann}}\n"


@pytest.mark.req("CONFIG-13")
def test_what_a_file_says_about_asking_is_read(folder: Path) -> None:
    """Rules, floor, exemptions, channels and environment become specs, in the units of specs."""
    text = PLAIN.replace("gates:\n", "environment: staging\ngates:\n").replace(
        GATE,
        "  - when: {role: {target: 'v*'}, environment: stag*, cost: $1.50}\n    ask: dba\n    quorum: 2\n    four_eyes: true\n"
        "    timeout: 10m\n    escalate: {after: 5m, to: admin}\n    channels: [ops]\n",
    )
    review = "review: {keywords: [vault], ask: lead, timeout: 1h, canary: 50, exempt: [{tool: host.*, where: {path: r/**}}]}\n"
    fleet = Fleet.from_text(f"{text}{CHANNEL}{review}", base=folder)
    rule = fleet.gates[0]
    assert ("dba", 2, True, 600_000_000, ("ops",)) == (
        rule.ask,
        rule.quorum,
        rule.four_eyes,
        rule.timeout_us,
        rule.channels,
    )
    assert (1_500_000, ("stag*",), {"target": ("v*",)}) == (rule.when.cost, rule.when.environment, dict(rule.when.role))
    assert rule.escalate is not None
    assert (300_000_000, "admin") == (rule.escalate.after_us, rule.escalate.to)
    assert ("staging", "ann", "json") == (
        fleet.environment,
        fleet.channels["ops"].principal,
        fleet.channels["ops"].format,
    )
    assert (("vault",), "lead", 3_600_000_000, 50, ("host.*",)) == (
        fleet.review.keywords,
        fleet.review.ask,
        fleet.review.timeout_us,
        fleet.review.canary,
        fleet.review.exempt[0].tool,
    )
    assert () == not_guaranteed(fleet)


@pytest.mark.req("CONFIG-13")
@pytest.mark.parametrize(
    ("old", "new", "code"),
    [
        ("    ask: operator", "    ask: operator\n    channels: [opps]", "unknown-channel"),
        ("    ask: operator", "    ask: operator\n    escalate: {after: 15m, to: admin}", "late-escalation"),
        ("{effect: destructive}", "{environment: prod}", "no-environment"),
        ("governor:", "review: {exempt: [{tool: '*'}]}\ngovernor:", "wide-exempt"),
        ("governor:", "review: {exempt: [{tool: []}]}\ngovernor:", "empty-exempt"),
        ("governor:", "channels: {ops: {url: x, url_env: Y}}\ngovernor:", "channel-shape"),
        ("governor:", "channels: {ops: {url: x, principal: 'Ann B'}}\ngovernor:", "bad-form"),
        ("    ask: operator", "    ask: operator\n    quorum: 0", "out-of-range"),
    ],
)
def test_what_could_never_ask_anybody_is_refused(folder: Path, old: str, new: str, code: str) -> None:
    """A dangling channel, an escalation after the end, an environment that is not there, an exemption for everything."""
    with pytest.raises(InvalidFleet) as refused:
        _load(folder, old, new)
    assert code in [problem.code for problem in refused.value.problems]


@pytest.mark.req("CONFIG-13")
def test_a_file_that_says_nothing_new_keeps_its_digests(folder: Path) -> None:
    """Runs of an older version wait under these digests; the keys that came later change them only where they are used."""
    plain, same, other = (
        _load(folder),
        _load(folder, "governor:", "review: {}\nchannels: {}\ngovernor:"),
        _load(folder, "governor:", "review: {canary: 5}\ngovernor:"),
    )
    assert (plain.digest, plain.policy_digest) == (same.digest, same.policy_digest)
    assert plain.policy_digest != other.policy_digest
