"""A fleet: what a good file means, under each preset and environment, and when its digests change."""

import dataclasses
import os
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from midwatch.config.fleet import Fleet, Grant, ImportSpec, Limits, PriceSpec, SandboxSpec, TeamSpec
from midwatch.errors import InvalidFleet

# The whole agreed shape of a fleet file, every block of it in use.
AGREED = """\
# yaml-language-server: $schema=./.midwatch/fleet.schema.json
midwatch: 1
fleet: nightwatch
presets: {default: local, cloud: {smart: openai/gpt-5-mini}, chain: {smart: own}, home: own}
routes:
  smart: {provider: openai, model: gpt-5-mini, max_output: 2048}
  own:
    provider: openai
    base_url: ${env:OPENAI_BASE_URL}
    model: qwen2.5
    context: 32768
    price: {input_per_mtok: "$0.10", output_per_mtok: "$0.30"}
  local: {provider: scripted, scenario: scenario.yaml}
tools: [builtin.host, builtin.git, "python:tools.py"]
agents:
  ceo: {role: ceo, route: smart, prompt: prompts/ceo.md, limits: {steps: 4}}
  packages:
    role: specialist
    route: smart
    prompt: prompts/packages.md
    tools: [host.packages, host.processes]
    limits: {steps: 8, tokens: 20k}
  storage: {role: specialist, route: smart, prompt: prompts/storage.md, tools: [host.disks, host.memory]}
  repo: {role: specialist, route: smart, prompt: prompts/repo.md, tools: [git.log, git.churn]}
  editor: {role: synthesis, route: smart, prompt: prompts/editor.md, tools: [files.write]}
graph: {team: {ceo: ceo, specialists: [packages, storage, repo], synthesis: editor}}
verticals: {operations: [packages, storage, repo]}
budgets:
  fleet: {cost: "$5.00", per: day}
  operations: {cost: "$2.00", per: day}
  run: {cost: "$0.25", tokens: 120k, wall: 10m, tool_calls: 60, steps: 40}
sources: {"tool:web.*": {trust: none, readers: everyone}}
grants:
  - {who: agent:editor, may: files.write, where: {path: "reports/**"}}
  - {who: "agent:*", may: [host.*, git.*]}
gates: [{when: {effect: [destructive, grants_authority]}, ask: operator, timeout: 15m}]
sandbox: {backend: process, because: "not isolated until a sandbox backend is chosen"}
schedules: [{name: nightly, cron: "0 4 * * *", input: {repo: .}}]
governor: {mode: child, stale_after: 30s}
"""
URL = {"OPENAI_BASE_URL": "http://localhost:11434/v1"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Give a folder with every file that the agreed fleet names."""
    return _fill(tmp_path / "nightwatch")


def _fill(base: Path) -> Path:
    (base / "prompts").mkdir(parents=True)
    for name in ("ceo", "packages", "storage", "repo", "editor"):
        (base / "prompts" / f"{name}.md").write_text(f"you are {name}\n", encoding="utf-8")
    (base / "scenario.yaml").write_text("rules: []\n", encoding="utf-8")
    (base / "tools.py").write_text("", encoding="utf-8")
    (base / "fleet.yaml").write_text(AGREED, encoding="utf-8")
    return base


def _load(
    base: Path, *edits: tuple[str, str], preset: str | None = None, environ: dict[str, str] | None = None
) -> Fleet:
    text = AGREED
    for old, new in edits:
        assert old in text
        text = text.replace(old, new)
    return Fleet.from_text(text, base=base, preset=preset, environ=environ or {})


def _codes(
    base: Path, *edits: tuple[str, str], preset: str | None = None, environ: dict[str, str] | None = None
) -> list[str]:
    with pytest.raises(InvalidFleet) as caught:
        _load(base, *edits, preset=preset, environ=environ)
    return [problem.code for problem in caught.value.problems]


@pytest.mark.req("CONFIG-1")
def test_the_agreed_shape_loads_in_full(folder: Path) -> None:
    """Every block arrives as what it says, in whole numbers."""
    fleet = Fleet.load(folder / "fleet.yaml", environ={})
    assert ("nightwatch", folder / "fleet.yaml", folder, "default") == (
        fleet.name,
        fleet.path,
        fleet.base,
        fleet.preset,
    )
    assert AGREED == fleet.text
    assert ("builtin.host", "builtin.git", "python:tools.py") == fleet.tools
    assert TeamSpec("ceo", ("packages", "storage", "repo"), "editor") == fleet.graph
    assert {"operations": ("packages", "storage", "repo")} == fleet.verticals
    assert Limits(steps=8, tokens=20_000) == fleet.agents["packages"].limits
    assert {"steps": 8, "tokens": 20_000} == fleet.agents["packages"].limits.amounts()
    assert ("host.packages", "host.processes") == fleet.agents["packages"].tools
    assert ("you are ceo\n", folder / "prompts/ceo.md") == (fleet.agents["ceo"].prompt, fleet.agents["ceo"].prompt_path)
    caps = {"cost": 250_000, "tokens": 120_000, "wall": 600_000_000, "tool_calls": 60, "steps": 40}
    assert (caps, None) == (fleet.budgets["run"].caps, fleet.budgets["run"].per)
    assert ({"cost": 5_000_000}, "day") == (fleet.budgets["fleet"].caps, fleet.budgets["fleet"].per)
    assert Grant(("agent:editor",), ("files.write",), {"path": ("reports/**",)}) == fleet.grants[0]
    assert ("destructive", "grants_authority") == fleet.gates[0].when.effect
    assert ("operator", 900_000_000) == (fleet.gates[0].ask, fleet.gates[0].timeout_us)
    assert ("process", 30_000_000) == (fleet.sandbox.backend, fleet.governor.stale_after_us)
    assert ("none", ("everyone",)) == (fleet.sources["tool:web.*"].trust, fleet.sources["tool:web.*"].readers)
    assert {"repo": "."} == fleet.schedules[0].input
    assert not fleet.require_guarded


@pytest.mark.req("CONFIG-1")
def test_a_file_its_folder_its_text_and_its_mapping_are_one_fleet(folder: Path) -> None:
    """However a fleet is given, it means the same; a mapping's own text reads back as that fleet."""
    loaded = Fleet.load(folder / "fleet.yaml", environ={})
    mapping = yaml.safe_load(AGREED)
    others = [
        Fleet.load(folder, environ={}),
        Fleet.load(str(folder), environ={}),
        Fleet.from_text(AGREED, base=folder),
        Fleet.from_mapping(mapping, base=folder),
        Fleet.from_text(Fleet.from_mapping(mapping, base=folder).text, base=folder),
    ]
    assert {loaded.digest} == {fleet.digest for fleet in others}
    assert {loaded.policy_digest} == {fleet.policy_digest for fleet in others}
    assert [folder / "fleet.yaml", folder / "fleet.yaml", None, None, None] == [fleet.path for fleet in others]


@pytest.mark.req("CONFIG-1")
def test_a_fleet_cannot_be_changed(folder: Path) -> None:
    """What was validated is what is used: neither attributes nor mappings can be written."""
    fleet = _load(folder)
    with pytest.raises(dataclasses.FrozenInstanceError):
        fleet.name = "other"  # type: ignore[misc]
    for mapping in (fleet.routes, fleet.agents, fleet.budgets, fleet.verticals, fleet.grants[0].where, fleet.presets):
        changeable: Any = mapping
        with pytest.raises(TypeError):
            changeable["x"] = None


@pytest.mark.req("CONFIG-1")
def test_a_graph_made_in_python_is_named(folder: Path) -> None:
    """`import` gives a module and an attribute; agents need not be in a team then."""
    team = "{team: {ceo: ceo, specialists: [packages, storage, repo], synthesis: editor}}"
    fleet = _load(folder, (team, '{import: "my.graph:build"}'))
    assert ImportSpec("my.graph", "build") == fleet.graph


@pytest.mark.req("CONFIG-1")
def test_a_fleet_answers_where_something_stands(folder: Path) -> None:
    """Other rooms report problems at the line too; a mapping from Python has places instead."""
    fleet = Fleet.load(folder, environ={})
    assert f"{folder}/fleet.yaml:21" == fleet.where("agents", "packages", "tools", 1)
    assert f"{folder}/fleet.yaml:29" == fleet.where("budgets", "fleet", "cost")
    made = Fleet.from_mapping(yaml.safe_load(AGREED), base=folder)
    assert "agents.packages.tools" == made.where("agents", "packages", "tools")
    assert "operations" == fleet.vertical_of("repo")
    assert fleet.vertical_of("editor") is None
    assert fleet.sandbox == fleet.sandbox_of("repo")


@pytest.mark.req("CONFIG-5")
def test_the_preset_is_the_one_asked_for_then_the_variable_then_the_default(folder: Path) -> None:
    """An explicit choice wins; an empty variable is none; without any preset each alias is itself."""
    cloud = {"MIDWATCH_PRESET": "cloud"}
    assert "local" == _load(folder).route_of("ceo").target
    assert "openai/gpt-5-mini" == _load(folder, environ=cloud).route_of("ceo").target
    assert "local" == _load(folder, preset="default", environ=cloud).route_of("ceo").target
    assert "local" == _load(folder, environ={"MIDWATCH_PRESET": ""}).route_of("ceo").target
    bare = _load(folder, ("default: local, ", ""))
    assert (None, "smart", "openai") == (bare.preset, bare.route_of("ceo").target, bare.route_of("ceo").provider)


@pytest.mark.req("CONFIG-5")
def test_an_unknown_preset_is_answered_with_those_there_are(folder: Path) -> None:
    """Both ways of asking; the line is that of `presets`."""
    for asked, environ in (("clowd", {}), (None, {"MIDWATCH_PRESET": "clowd"})):
        with pytest.raises(InvalidFleet, match=r":4: there is no preset `clowd`; known presets: `chain`, `cloud`"):
            _load(folder, preset=asked, environ=environ)


@pytest.mark.req("CONFIG-5")
def test_a_replaced_model_keeps_the_bounds_and_loses_what_belonged_to_the_old_one(folder: Path) -> None:
    """`provider/model` must never inherit another model's address, key, price or context."""
    edits = (("cloud: {smart:", "cloud: {own:"), ("route: smart", "route: own"), ("context: 32768", "max_output: 512"))
    route = _load(folder, *edits, preset="cloud").route_of("ceo")
    assert ("gpt-5-mini", None, None, None) == (route.model, route.base_url, route.price, route.context)
    assert ("OPENAI_API_KEY", 512) == (route.api_key_env, route.max_output)


@pytest.mark.req("CONFIG-5")
def test_an_address_comes_from_the_environment_and_the_key_does_not_follow_it(folder: Path) -> None:
    """A provider's key is not sent to another server unless the file names it."""
    route = _load(folder, preset="home", environ={**URL, "OPENAI_API_KEY": "sk-x"}).route_of("ceo")
    assert (URL["OPENAI_BASE_URL"], "qwen2.5", None) == (route.base_url, route.model, route.api_key_env)
    assert PriceSpec(input=100_000, cached_input=100_000, output=300_000) == route.price
    named = ("model: qwen2.5", "model: qwen2.5\n    api_key_env: MY_KEY")
    assert "MY_KEY" == _load(folder, named, preset="home", environ=URL).route_of("ceo").api_key_env
    assert "OPENAI_API_KEY" == _load(folder, preset="cloud").route_of("ceo").api_key_env


@pytest.mark.req("CONFIG-5")
def test_a_missing_variable_stops_only_a_fleet_that_needs_it(folder: Path) -> None:
    """An unused route may ask for what is not set; a used one is a problem, at its line. Empty counts as missing."""
    assert ("OPENAI_BASE_URL",) == _load(folder, preset="cloud").routes["own"].missing_env
    for environ in ({}, {"OPENAI_BASE_URL": ""}):
        with pytest.raises(InvalidFleet, match=r":9: route `own` needs the environment variable `OPENAI_BASE_URL`"):
            _load(folder, preset="chain", environ=environ)
    assert () == _load(folder, preset="chain", environ=URL).route_of("ceo").missing_env


@pytest.mark.req("CONFIG-5")
def test_an_alias_that_only_a_preset_knows_needs_that_preset(folder: Path) -> None:
    """Without it the alias leads nowhere, and that is said instead of failing at the first call."""
    edits = (
        ("cloud: {smart: openai/gpt-5-mini}", "cloud: {clever: openai/gpt-5-mini}"),
        ("route: smart", "route: clever"),
    )
    assert "gpt-5-mini" == _load(folder, *edits, preset="cloud").route_of("ceo").model
    assert {"unresolved-route"} == set(_codes(folder, *edits, preset="chain", environ=URL))


@pytest.mark.req("CONFIG-6")
def test_a_folder_reached_by_a_link_is_still_the_folder(folder: Path, tmp_path: Path) -> None:
    """Links are followed on both sides; a link inside the folder to the inside is fine."""
    (tmp_path / "link").symlink_to(folder)
    (folder / "prompts" / "other.md").symlink_to(folder / "prompts" / "ceo.md")
    direct = _load(folder, ("prompts/ceo.md", "prompts/other.md"))
    linked = Fleet.from_text(direct.text, base=tmp_path / "link")
    assert "you are ceo\n" == linked.agents["ceo"].prompt
    assert direct.digest == linked.digest


@pytest.mark.req("CONFIG-6")
@pytest.mark.parametrize(
    "way", ["../secret.md", "prompts/../../secret.md", "{absolute}", "prompts/link.md", "out/secret.md"]
)
def test_no_way_leads_out_of_the_folder(folder: Path, tmp_path: Path, way: str) -> None:
    """Dots, an absolute name, a link to a file, a link to a folder: refused, and nothing of the file is shown."""
    (tmp_path / "secret.md").write_text("hunter2", encoding="utf-8")
    (folder / "prompts" / "link.md").symlink_to(tmp_path / "secret.md")
    (folder / "out").symlink_to(tmp_path)
    written = way.format(absolute=tmp_path / "secret.md")
    with pytest.raises(InvalidFleet, match="lies outside") as caught:
        _load(folder, ("prompts/ceo.md", written))
    assert "hunter2" not in str(caught.value)


@pytest.mark.req("CONFIG-6")
def test_a_prompt_that_cannot_be_read_is_a_problem_and_never_waits(folder: Path) -> None:
    """A pipe, a link in a circle, a text that is too long, a name with no place on disk."""
    os.mkfifo(folder / "pipe.md")
    (folder / "loop.md").symlink_to("loop.md")
    (folder / "long.md").write_bytes(b"x" * (256 * 1024 + 1))
    for name, code in {"pipe.md": "not-a-file", "long.md": "too-large", "x" * 900: "unreadable"}.items():
        assert [code] == _codes(folder, ("prompts/ceo.md", name))
    assert _codes(folder, ("prompts/ceo.md", "loop.md"))[0] in ("unreadable", "outside-folder", "missing-file")


CHANGES = [
    (("{steps: 4}", "{steps: 5}"), False),
    (('cost: "$0.25"', 'cost: "$0.26"'), True),
    (("reports/**", "reports/*"), True),
    (("timeout: 15m", "timeout: 16m"), True),
    (('because: "not', 'because: "Not'), True),
    (("trust: none", "trust: full, writers: us"), True),
    (("builtin.git, ", ""), True),
    (("max_output: 2048", "max_output: 2049"), False),
    (("stale_after: 30s", "stale_after: 31s"), False),
    (("0 4 * * *", "0 5 * * *"), False),
    (("specialists: [packages, storage, repo]", "specialists: [storage, packages, repo]"), False),
    (("governor:", "require_guarded: true\ngovernor:"), False),
]  # fmt: skip


@pytest.mark.req("CONFIG-7")
@pytest.mark.parametrize(("edit", "policy"), CHANGES, ids=lambda value: value[1] if isinstance(value, tuple) else "")
def test_a_change_of_meaning_changes_the_digest(folder: Path, edit: tuple[str, str], *, policy: bool) -> None:
    """The fleet's digest changes with every meaning, the policy's with those that decide what may be done."""
    preset = "cloud"
    before, after = _load(folder, preset=preset), _load(folder, edit, preset=preset)
    assert before.digest != after.digest
    assert policy == (before.policy_digest != after.policy_digest)


@pytest.mark.req("CONFIG-7")
@pytest.mark.parametrize(
    "edit",
    [
        ("midwatch: 1\n", "midwatch: 1   # a comment\n\n"),
        ("[host.*, git.*]", '\n    - "host.*"\n    - git.*'),
        ("wall: 10m", "wall: 600s"),
        ("tokens: 120k", "tokens: 120000"),
        ('"$5.00"', '"$5"'),
        ("governor: {mode: child, stale_after: 30s}", "governor: null"),
        ("may: files.write", "may: [files.write]"),
        ("model: qwen2.5", "model: qwen3"),
    ],
    ids=lambda value: value[1],
)
def test_a_change_of_writing_changes_no_digest(folder: Path, edit: tuple[str, str]) -> None:
    """Comments, style, another unit for the same amount, a default written out, a route that nobody uses."""
    if edit[0].startswith("[host"):
        edit = (
            '  - {who: "agent:*", may: [host.*, git.*]}',
            '  - who: "agent:*"\n    may:\n      - "host.*"\n      - git.*',
        )
    before, after = _load(folder), _load(folder, edit)
    assert (before.digest, before.policy_digest) == (after.digest, after.policy_digest)


@pytest.mark.req("CONFIG-7")
def test_prompts_and_routes_are_in_the_digest_and_the_place_is_not(folder: Path, tmp_path: Path) -> None:
    """The same folder elsewhere is the same fleet; another word in a prompt, another model or address is another."""
    before = _load(folder)
    assert before.digest == _load(_fill(tmp_path / "copy")).digest
    assert before.digest != _load(folder, preset="cloud").digest
    unused = ("model: qwen2.5", "model: qwen3")
    assert _load(folder, preset="cloud").digest == _load(folder, unused, preset="cloud").digest
    assert _load(folder, preset="cloud").digest == _load(folder, preset="cloud", environ=URL).digest
    one, other = ({"OPENAI_BASE_URL": f"http://h:{port}/v1"} for port in (1, 2))
    assert _load(folder, preset="home", environ=one).digest != _load(folder, preset="home", environ=other).digest
    assert before.digest == _load(folder, environ={**URL, "HOME": "/x"}).digest
    (folder / "prompts" / "repo.md").write_text("you are somebody else\n", encoding="utf-8")
    assert before.digest != _load(folder).digest
    assert before.policy_digest == _load(folder).policy_digest


@pytest.mark.req("CONFIG-10")
def test_absent_null_and_empty_are_the_same_and_allow_nothing(folder: Path) -> None:
    """Three ways to write nothing give one fleet in which nothing is allowed."""
    least = """\
midwatch: 1
fleet: least
routes: {local: {provider: scripted, scenario: scenario.yaml}}
agents:
  boss: {role: ceo, route: local, prompt_text: plan}
  hand: {role: specialist, route: local, prompt_text: work}
  pen: {role: synthesis, route: local, prompt_text: write}
graph: {team: {ceo: boss, specialists: hand, synthesis: pen}}
"""
    blocks = ("presets", "tools", "mcp", "verticals", "budgets", "sources", "grants", "gates", "schedules")
    absent = Fleet.from_text(least, base=folder)
    null = Fleet.from_text(
        least + "".join(f"{block}: null\n" for block in (*blocks, "sandbox", "governor")), base=folder
    )
    empty = Fleet.from_text(least + "".join(f"{block}: []\n" for block in blocks), base=folder)
    agent = Fleet.from_text(
        least.replace("text: work", "text: work, tools: null, limits: null, sandbox: null"), base=folder
    )
    assert {absent.digest} == {null.digest, empty.digest, agent.digest}
    assert ((), (), {}, ()) == (absent.tools, absent.grants, absent.budgets, absent.agents["hand"].tools)
    assert SandboxSpec(backend=None) == absent.sandbox


@pytest.mark.req("CONFIG-10")
def test_an_emptied_list_in_a_grant_closes_it(folder: Path) -> None:
    """`where: {path: []}` matches no path; `may: []` allows no tool; neither falls back to everything."""
    fleet = _load(folder, ('path: "reports/**"', "path: []"), ("[host.*, git.*]", "[]"))
    assert {"path": ()} == fleet.grants[0].where
    assert () == fleet.grants[1].may


@pytest.mark.req("CONFIG-12")
def test_loading_takes_less_than_50_ms_of_processor_time(folder: Path) -> None:
    """The best of five, so that a busy machine does not decide."""
    Fleet.load(folder, environ={})

    def once() -> float:
        began = time.process_time()
        Fleet.load(folder, environ={})
        return time.process_time() - began

    assert min(once() for _ in range(5)) < 0.050
