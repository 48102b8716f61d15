"""Broken fleet files: a table. Each shows what to change in a good file, and where which problem is expected.

`#! code` at the end of a line says: a problem with that code is reported for this line. Nothing else may be reported.
"""

import re
from dataclasses import dataclass
from pathlib import Path

import pytest

from midwatch.config.fleet import Fleet
from midwatch.errors import InvalidFleet

GOOD = """\
midwatch: 1
fleet: nightwatch
presets:
  default: local
  cloud:
    smart: openai/gpt-5-mini
routes:
  smart:
    provider: openai
    model: gpt-5-mini
    max_output: 2048
  own:
    provider: openai
    base_url: ${env:OPENAI_BASE_URL}
    model: qwen2.5
    context: 32768
    price:
      input_per_mtok: "$0"
      output_per_mtok: "$0"
  local:
    provider: scripted
    scenario: scenario.yaml
tools: [builtin.host, builtin.git]
mcp: {}
agents:
  ceo:
    role: ceo
    route: smart
    prompt: prompts/ceo.md
    limits: {steps: 4}
  storage:
    role: specialist
    route: smart
    prompt: prompts/storage.md
    tools: [host.disks, host.memory]
  editor:
    role: synthesis
    route: smart
    prompt_text: write
    tools: [files.write]
graph:
  team:
    ceo: ceo
    specialists: [storage]
    synthesis: editor
verticals:
  operations: [storage]
budgets:
  run:
    cost: "$0.25"
    tokens: 120k
    wall: 10m
  fleet: {cost: "$5.00", per: day}
sources:
  "tool:web.*": {trust: none, readers: everyone}
grants:
  - who: agent:editor
    may: files.write
    where: {path: "reports/**"}
  - who: "agent:*"
    may: [host.*]
gates:
  - when: {effect: [destructive]}
    ask: operator
    timeout: 15m
sandbox:
  backend: process
  because: our own tools only
schedules:
  - name: nightly
    cron: "0 4 * * *"
governor: {mode: child, stale_after: 30s}
require_guarded: false
"""


@dataclass(frozen=True)
class Broken:
    """`old` in the good file becomes `new`; pairs may be several."""

    name: str
    edits: tuple[tuple[str, str], ...]


def broken(name: str, *edits: tuple[str, str]) -> Broken:
    """Name a case and its edits."""
    return Broken(name, edits)


CASES = [
    # the format and the top of the file
    broken("no version", ("midwatch: 1\nfleet: nightwatch", "fleet: nightwatch #! missing-key")),
    broken("newer version", ("midwatch: 1", "midwatch: 2 #! unknown-word")),
    broken("version as text", ("midwatch: 1", 'midwatch: "1" #! unknown-word')),
    broken("version as boolean", ("midwatch: 1", "midwatch: true #! unknown-word")),
    broken("no name", ("midwatch: 1\nfleet: nightwatch", "midwatch: 1 #! missing-key")),
    broken("name with capitals", ("fleet: nightwatch", "fleet: NightWatch #! bad-form")),
    broken("name is a number", ("fleet: nightwatch", "fleet: 12 #! wrong-type")),
    broken("unknown key", ("require_guarded: false", "require_gaurded: false #! unknown-key")),
    broken("yes is no boolean", ("require_guarded: false", "require_guarded: yes #! wrong-type")),
    broken("key twice", ("governor: {mode: child", "fleet: again #! duplicate-key\ngovernor: {mode: child")),
    broken("key twice below", ("    role: ceo\n", "    role: ceo\n    role: specialist #! duplicate-key\n")),
    broken("tag", ("fleet: nightwatch", "fleet: !!str nightwatch #! tag")),
    broken("python tag", ("fleet: nightwatch", 'fleet: !!python/object/apply:os.system ["x"] #! tag')),
    broken("merge key", ("  ceo:\n    role: ceo", "  ceo:\n    <<: {} #! merge-key\n    role: ceo")),
    broken("second document", ("midwatch: 1\n", "midwatch: 1\n--- #! many-documents\n")),
    broken("not YAML", ("limits: {steps: 4}", "limits: {steps: 4\n  storage: #! not-yaml")),
    broken("alias to nothing", ("fleet: nightwatch", "fleet: *name #! bad-alias")),
    broken("control character", ("fleet: nightwatch", 'fleet: "night\\0watch" #! control-character')),
    broken("list as key", ("fleet: nightwatch", "fleet: nightwatch\n? [a] #! bad-key\n: b")),
    broken("number beyond JSON", ("max_output: 2048", "max_output: 90071992547409920 #! too-large-number")),
    # routes and presets
    broken("unknown provider", ("provider: openai\n    model: gpt-5-mini", "provider: acme #! unknown-word")),
    broken("no model", ("    provider: openai\n    model: gpt-5-mini\n", "    provider: openai #! route-shape\n")),
    broken("model looks like a number", ("model: qwen2.5", "model: 2.5 #! wrong-type")),
    broken("key in the file", ("    max_output: 2048", "    api_key: sk-123 #! unknown-key")),
    broken(
        "no scenario",
        ("    scenario: scenario.yaml\n", ""),
        ("provider: scripted", "provider: scripted #! route-shape"),
    ),
    broken("scenario missing", ("scenario: scenario.yaml", "scenario: gone.yaml #! missing-file")),
    broken("scenario outside", ("scenario: scenario.yaml", "scenario: ../out.yaml #! outside-folder")),
    broken("scenario of a provider", ("max_output: 2048", "scenario: scenario.yaml #! route-shape")),
    broken(
        "scripted with an address",
        ("scenario: scenario.yaml", "scenario: scenario.yaml\n    base_url: http://h #! route-shape"),
    ),
    broken("address without scheme", ("base_url: ${env:OPENAI_BASE_URL}", "base_url: localhost:11434 #! bad-url")),
    broken(
        "credentials in the address", ("base_url: ${env:OPENAI_BASE_URL}", "base_url: https://me:pw@host/v1 #! bad-url")
    ),
    broken(
        "variable misspelt",
        ("base_url: ${env:OPENAI_BASE_URL}", "base_url: ${OPENAI_BASE_URL} #! misplaced-variable #! bad-url"),
    ),
    broken("variable elsewhere", ("ask: operator", "ask: ${env:ROLE} #! misplaced-variable #! bad-form")),
    broken("no room for input", ("context: 32768", "context: 4096\n    max_output: 4096 #! out-of-range")),
    broken("too many retries", ("max_output: 2048", "retries: 11 #! out-of-range")),
    broken("no output", ("max_output: 2048", "max_output: 0 #! out-of-range")),
    broken("price half", ('      output_per_mtok: "$0"\n', ""), ("    price:", "    price: #! missing-key")),
    broken("price without a sign", ('input_per_mtok: "$0"', "input_per_mtok: 0.25 #! quantity")),
    broken("negative price", ('input_per_mtok: "$0"', 'input_per_mtok: "$-1" #! quantity')),
    broken("preset to nothing", ("default: local", "default: locale #! unknown-route")),
    broken("preset alias to nothing", ("smart: openai/gpt-5-mini", "smart: acme/gpt #! unknown-route")),
    broken(
        "preset in a circle", ("smart: openai/gpt-5-mini", "smart: own #! alias-cycle\n    own: smart #! alias-cycle")
    ),
    broken("preset to itself", ("smart: openai/gpt-5-mini", "smart: smart #! alias-cycle")),
    broken("preset is a list", ("default: local", "default: [local] #! wrong-type")),
    # tools
    broken("tools of no kind", ("[builtin.host, builtin.git]", "[host] #! bad-tools")),
    broken("tools twice", ("[builtin.host, builtin.git]", "\n  - builtin.host\n  - builtin.host #! duplicate-entry")),
    broken("tools file missing", ("[builtin.host, builtin.git]", '["python:gone.py"] #! missing-file')),
    broken("tools file outside", ("[builtin.host, builtin.git]", '["python:../tools.py"] #! outside-folder')),
    broken("server without command", ("mcp: {}", "mcp:\n  docs: {} #! mcp-shape")),
    broken("server with both", ("mcp: {}", "mcp:\n  docs: {command: [x], url: y} #! mcp-shape")),
    # agents
    broken("role unknown", ("role: specialist", "role: worker #! unknown-word")),
    broken("role missing", ("  ceo:\n    role: ceo\n", "  ceo: #! missing-key\n")),
    broken(
        "route dangling",
        (
            "    route: smart\n    prompt: prompts/ceo.md",
            "    route: smrt #! unknown-route\n    prompt: prompts/ceo.md",
        ),
    ),
    broken("prompt missing", ("prompts/ceo.md", "prompts/gone.md #! missing-file")),
    broken("prompt outside", ("prompts/ceo.md", "../outside.md #! outside-folder")),
    broken("prompt absolute", ("prompts/ceo.md", "/etc/hostname #! outside-folder")),
    broken("prompt by a link outside", ("prompts/ceo.md", "link.md #! outside-folder")),
    broken("prompt is a folder", ("prompts/ceo.md", "prompts #! not-a-file")),
    broken("prompt empty", ("prompts/ceo.md", "prompts/empty.md #! empty-file")),
    broken("prompt in Latin-1", ("prompts/ceo.md", "prompts/latin.md #! not-utf8")),
    broken(
        "no prompt", ("    prompt: prompts/ceo.md\n", ""), ("  ceo:\n    role", "  ceo: #! missing-prompt\n    role")
    ),
    broken("two prompts", ("prompt: prompts/ceo.md", "prompt: prompts/ceo.md\n    prompt_text: hi #! two-prompts")),
    broken("CEO with tools", ("    limits: {steps: 4}", "    tools: [host.disks] #! ceo-with-tools")),
    broken("tool twice", ("[host.disks, host.memory]", "[host.disks, host.disks] #! duplicate-entry")),
    broken("tools a mapping", ("[host.disks, host.memory]", "{host: disks} #! wrong-type")),
    broken("tool name with a space", ("[host.disks, host.memory]", '["host disks"] #! bad-form')),
    broken("limit unknown", ("limits: {steps: 4}", "limits: {stpes: 4} #! unknown-key")),
    broken("limit negative", ("limits: {steps: 4}", "limits: {steps: -4} #! out-of-range")),
    broken("limit not whole", ("limits: {steps: 4}", "limits: {steps: 4.5} #! wrong-type")),
    broken("tokens not whole", ("limits: {steps: 4}", "limits: {tokens: 0.0001k} #! quantity")),
    broken(
        "agent named like a scope",
        ("  ceo:\n    role", "  run: #! reserved-name\n    role"),
        ("    ceo: ceo", "    ceo: run"),
    ),
    broken(
        "agent name unusable",
        ("  ceo:\n    role", "  CEO: #! bad-form\n    role"),
        ("    ceo: ceo", "    ceo: storage #! wrong-role"),
    ),
    broken("a list for a mapping", ("verticals:\n  operations: [storage]", "verticals: [storage] #! wrong-type")),
    broken(
        "own sandbox unexplained",
        (
            "    prompt: prompts/ceo.md",
            "    prompt: prompts/ceo.md\n    sandbox: {backend: process} #! unexplained-sandbox",
        ),
    ),
    # graph and verticals
    broken(
        "graph missing",
        ("graph:\n  team:\n    ceo: ceo\n    specialists: [storage]\n    synthesis: editor\n", ""),
        ("midwatch: 1", "midwatch: 1 #! missing-key"),
    ),
    broken("graph of two kinds", ("graph:\n", "graph: #! graph-shape\n  import: my:build\n")),
    broken(
        "graph of no kind",
        (
            "graph:\n  team:\n    ceo: ceo\n    specialists: [storage]\n    synthesis: editor\n",
            "graph: {} #! graph-shape\n",
        ),
    ),
    broken("team without CEO", ("  team:\n    ceo: ceo", "  team: #! missing-key")),
    broken("team without specialists", ("specialists: [storage]", "specialists: [] #! no-specialists")),
    broken("team without synthesis", ("    synthesis: editor\n", ""), ("  team:", "  team: #! missing-key")),
    broken("CEO dangling", ("    ceo: ceo", "    ceo: boss #! unknown-agent")),
    broken("specialist dangling", ("specialists: [storage]", "specialists: [storage, packages] #! unknown-agent")),
    broken("specialist twice", ("specialists: [storage]", "specialists: [storage, storage] #! duplicate-entry")),
    broken("synthesis of another role", ("synthesis: editor", "synthesis: storage #! wrong-role")),
    broken(
        "import without attribute",
        ("  team:\n    ceo: ceo\n    specialists: [storage]\n    synthesis: editor", "  import: mygraph #! bad-import"),
    ),
    broken(
        "import of a path",
        (
            "  team:\n    ceo: ceo\n    specialists: [storage]\n    synthesis: editor",
            "  import: ./my.py:build #! bad-import",
        ),
    ),
    broken("vertical dangling", ("operations: [storage]", "operations: [storge] #! unknown-agent")),
    broken(
        "agent in two verticals",
        ("operations: [storage]", "operations: [storage]\n  other: [storage] #! two-verticals"),
    ),
    broken("vertical empty", ("operations: [storage]", "operations: [storage]\n  other: [] #! empty-vertical")),
    broken("vertical named like an agent", ("operations: [storage]", "editor: [storage] #! duplicate-name")),
    broken("vertical named like a scope", ("operations: [storage]", "fleet: [storage] #! reserved-name")),
    # budgets
    broken("scope dangling", ("  fleet: {cost", "  fleat: #! unknown-scope\n    {cost")),
    broken("bare cost", ('cost: "$0.25"', "cost: 0.25 #! quantity")),
    broken("negative cost", ('cost: "$0.25"', 'cost: "-$0.25" #! quantity')),
    broken("seven decimals", ('cost: "$0.25"', 'cost: "$0.1234567" #! quantity')),
    broken("cost beyond JSON", ('cost: "$0.25"', 'cost: "$9999999999999999" #! quantity')),
    broken("bare time", ("wall: 10m", "wall: 600 #! quantity")),
    broken("time in another unit", ("wall: 10m", "wall: 10min #! quantity")),
    broken("window unknown", ("per: day}", "per: week} #! unknown-word")),
    broken("window of a run", ("    tokens: 120k", "    per: day #! window-of-run")),
    broken(
        "budget of nothing",
        ('{cost: "$5.00", per: day}', "{per: day}"),
        ("  fleet: {per", "  fleet: #! empty-budget\n    {per"),
    ),
    broken("budget null", ('  fleet: {cost: "$5.00", per: day}', "  fleet: null #! wrong-type")),
    # sources, grants, gates
    broken("trust unknown", ("{trust: none, readers: everyone}", "{trust: some} #! unknown-word")),
    broken(
        "trusted, writers unknown", ("{trust: none, readers: everyone}", "{trust: full} #! trusted-without-writers")
    ),
    broken("grant to a dangling agent", ("- who: agent:editor", "- who: agent:editro #! unknown-agent")),
    broken("grant to a glob of nobody", ('- who: "agent:*"', '- who: "agent:x*" #! unknown-agent')),
    broken("grant to no agent", ("- who: agent:editor", "- who: editor #! bad-form")),
    broken(
        "grant of nothing named",
        ("    may: files.write\n", ""),
        ("- who: agent:editor", "- who: agent:editor #! missing-key"),
    ),
    broken("grant with an empty bound", ('where: {path: "reports/**"}', "where: {} #! empty-where")),
    broken("grant with a null bound", ('where: {path: "reports/**"}', "where: null #! wrong-type")),
    broken("grant bound to a number", ('where: {path: "reports/**"}', "where: {path: 5} #! wrong-type")),
    broken("grant twice", ("gates:\n", '  - who: "agent:*" #! duplicate-entry\n    may: [host.*]\ngates:\n')),
    broken(
        "a broken entry before a dangling one",
        ("- who: agent:editor", "- who: editor #! bad-form"),
        ('- who: "agent:*"', "- who: agent:nobody #! unknown-agent"),
        ("gates:\n", "gates:\n  - {when: {effect: write}, ask: Operator} #! bad-form\n"),
        ("{effect: [destructive]}", "{agent: nobody} #! unknown-agent"),
    ),
    broken(
        "a broken tool before a double one",
        ("[builtin.host, builtin.git]", "\n  - 12 #! wrong-type\n  - builtin.git\n  - builtin.git #! duplicate-entry"),
    ),
    broken("gates a mapping", ("gates:\n  - when", "gates: #! wrong-type\n    when")),
    broken("effect unknown", ("effect: [destructive]}", "effect: [destructiv]} #! unknown-word")),
    broken("gate on nothing", ("{effect: [destructive]}", "{} #! empty-when")),
    broken("gate on an empty list", ("{effect: [destructive]}", "{effect: []} #! empty-when")),
    broken(
        "gate that asks nobody",
        ("    ask: operator\n", ""),
        ("{effect: [destructive]}", "{effect: [destructive]} #! missing-key"),
    ),
    broken("gate for a dangling agent", ("{effect: [destructive]}", "{agent: nobody} #! unknown-agent")),
    broken("gate that ends at once", ("timeout: 15m", "timeout: 0s #! out-of-range")),
    broken(
        "gate twice",
        ("sandbox:\n", "  - when: {effect: [destructive]} #! duplicate-entry\n    ask: operator\nsandbox:\n"),
    ),
    # sandbox, schedules, governor
    broken(
        "sandbox unexplained",
        ("  because: our own tools only\n", ""),
        ("backend: process", "backend: process #! unexplained-sandbox"),
    ),
    broken("sandbox explained with nothing", ("because: our own tools only", 'because: "" #! out-of-range')),
    broken("sandbox unknown", ("backend: process", "backend: jail #! unknown-word")),
    broken("size without unit", ("because: our own tools only", "because: x\n  limits: {memory: 64} #! quantity")),
    broken(
        "size in powers of ten", ("because: our own tools only", "because: x\n  limits: {memory: 64MB} #! quantity")
    ),
    broken("cron of four fields", ('cron: "0 4 * * *"', 'cron: "0 4 * *" #! bad-form')),
    broken(
        "schedule twice", ("governor: {", '  - name: nightly #! duplicate-entry\n    cron: "0 5 * * *"\ngovernor: {')
    ),
    broken("governor unknown", ("governor: {mode: child, stale_after: 30s}", "governor: {mode: none} #! unknown-word")),
    # several at once
    broken(
        "many in one file",
        ("fleet: nightwatch", "fleet: Night #! bad-form"),
        (
            "    route: smart\n    prompt: prompts/ceo.md",
            "    route: smrt #! unknown-route\n    prompt: gone.md #! missing-file",
        ),
        ("role: specialist", "rol: specialist #! unknown-key"),
        ("  storage:\n", "  storage: #! missing-key\n"),
        ("operations: [storage]", "operations: [storage, nobody] #! unknown-agent"),
        ('cost: "$0.25"', "cost: 1 #! quantity"),
        ("- who: agent:editor", "- who: agent:edit #! unknown-agent"),
        ("    ask: operator", "    ask: Operator #! bad-form"),
        ("  because: our own tools only\n", ""),
        ("backend: process", "backend: process #! unexplained-sandbox"),
    ),
]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Give a folder with the files that the good fleet names, and some that no fleet may use."""
    base = tmp_path / "fleet"
    (base / "prompts").mkdir(parents=True)
    for name in ("ceo", "storage"):
        (base / "prompts" / f"{name}.md").write_text(f"you are {name}\n", encoding="utf-8")
    (base / "prompts" / "empty.md").write_text(" \n", encoding="utf-8")
    (base / "prompts" / "latin.md").write_bytes("naïve".encode("latin-1"))
    (base / "scenario.yaml").write_text("rules: []\n", encoding="utf-8")
    for name in ("outside.md", "out.yaml", "tools.py"):
        (tmp_path / name).write_text("secret", encoding="utf-8")
    (base / "link.md").symlink_to(tmp_path / "outside.md")
    return base


def _broken_text(case: Broken) -> str:
    text = GOOD
    for old, new in case.edits:
        assert old in text, f"`{old}` is not in the good file"
        text = text.replace(old, new, 1)
    return text


def _expected(text: str) -> list[tuple[int, str]]:
    return sorted(
        (number, code)
        for number, line in enumerate(text.splitlines(), start=1)
        for code in re.findall(r"#! ([a-z0-9-]+)", line)
    )


@pytest.mark.req("CONFIG-1")
def test_the_good_file_is_good(folder: Path) -> None:
    """Each broken file differs from one that loads, so that what is reported is due to the difference alone."""
    assert "nightwatch" == Fleet.from_text(GOOD, base=folder).name


@pytest.mark.req("CONFIG-2")
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_broken_file_is_refused_with_each_line_and_code(case: Broken, folder: Path) -> None:
    """Exactly the expected problems are reported, at the lines where the operator must look."""
    text = _broken_text(case)
    expected = _expected(text)
    file = folder / "fleet.yaml"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(InvalidFleet) as caught:
        Fleet.load(file, environ={})
    found = sorted((int(problem.where.rpartition(":")[2]), problem.code) for problem in caught.value.problems)
    assert expected == found, str(caught.value)
    assert expected
    assert all(problem.where.startswith(f"{file}:") for problem in caught.value.problems)


@pytest.mark.req("CONFIG-2")
def test_problems_come_in_the_order_of_the_file_and_in_one_style(folder: Path) -> None:
    """An operator works from top to bottom; every message is one lowercase line."""
    for case in CASES:
        with pytest.raises(InvalidFleet) as caught:
            Fleet.from_text(_broken_text(case), base=folder)
        lines = [int(problem.where.rpartition(":")[2]) for problem in caught.value.problems]
        assert sorted(lines) == lines
        for problem in caught.value.problems:
            assert problem.message[0].islower() or problem.message[0] == "`", problem.message
            assert "\n" not in problem.message
            assert not problem.message.endswith(".")


@pytest.mark.req("CONFIG-2")
def test_the_table_is_as_large_as_it_claims() -> None:
    """Sixty ways to break a file at the least, each named once."""
    assert len(CASES) >= 60
    assert len(CASES) == len({case.name for case in CASES})


@pytest.mark.req("CONFIG-2")
def test_a_near_miss_is_answered_with_the_word_that_was_meant(folder: Path) -> None:
    """A misspelt key or name names its neighbour."""
    text = GOOD.replace("require_guarded", "require_gaurded").replace("[storage]\n    syn", "[storag]\n    syn")
    with pytest.raises(InvalidFleet) as caught:
        Fleet.from_text(text, base=folder)
    told = str(caught.value)
    assert "did you mean `require_guarded`?" in told
    assert "did you mean `storage`?" in told


@pytest.mark.req("CONFIG-5")
def test_a_value_from_the_environment_is_never_quoted(folder: Path) -> None:
    """An address with a credential in it is refused without showing the credential."""
    text = GOOD.replace("default: local", "default: own")
    with pytest.raises(InvalidFleet) as caught:
        Fleet.from_text(text, base=folder, environ={"OPENAI_BASE_URL": "https://me:hunter2@host/v1"})
    assert ["bad-url"] == [problem.code for problem in caught.value.problems]
    assert "hunter2" not in str(caught.value)
