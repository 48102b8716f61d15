"""`why`, `blast` and `reach` on the command line: how events are named, what is told, and what is not."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from midwatch import wiring
from midwatch.config.fleet import Fleet
from midwatch.engine import reaching
from midwatch.errors import NotFound
from midwatch.records.event import EventDraft
from midwatch.store.memory import MemoryStore
from midwatch.store.port import Tx
from midwatch.surfaces.cli import main
from midwatch.tools.registry import Registry
from midwatch.tracing import causes
from midwatch.tracing.facts import as_json
from tests.recorded_run import RUN, record

SCENARIO = Path(__file__).parents[1] / "fixtures" / "home_r2"
SECRETS = ("WX-1234", "91 %", "Which disks fill up?", "/etc/motd", "nobody granted", "nginx", "two packages changed")
FLEET = """
midwatch: 1
fleet: reached
presets: {default: local}
routes:
  smart: {provider: openai, model: gpt-5-mini}
  local: {provider: scripted, model: m, scenario: scenario.yaml}
tools: [builtin.files, builtin.git]
agents:
  boss: {role: ceo, route: smart, prompt_text: "Plan."}
  looker: {role: specialist, route: smart, prompt_text: "Look.", tools: [git.log, files.read, files.delete]}
  maker:
    role: specialist
    route: smart
    prompt_text: "Make."
    tools: [files.write, files.delete]
    sandbox:
      backend: bubblewrap
      commit: done
      mounts: [{from: /usr, at: /data/usr}]
      secrets: [TOKEN]
      egress:
        - {host: api.example.org, methods: [GET]}
        - {host: "*.example.net", methods: [POST], paths: ["/v1/**"], stage: true}
  writer: {role: synthesis, route: smart, prompt_text: "Write."}
graph: {team: {ceo: boss, specialists: [looker, maker], synthesis: writer}}
grants:
  - {who: "agent:looker", may: [git.log, files.read]}
  - {who: "agent:maker", may: "files.*", where: {path: "notes/**"}}
gates:
  - {when: {effect: destructive}, ask: dba, quorum: 2, four_eyes: true}
  - {when: {tool: files.write, keywords: [deploy]}, ask: operator}
  - {when: {observed: {paths: ["ci/**"]}}, ask: admin}
sandbox: bubblewrap
"""


@pytest.fixture(name="home")
def _home(tmp_path: Path) -> Path:
    with wiring.open_store(tmp_path, create=True) as store:
        record(store)
    return tmp_path


def _cli(home: Path, *words: str) -> Result:
    return CliRunner().invoke(main, ["--home", str(home), *words], catch_exceptions=False)


@pytest.mark.req("CAUSES-10")
@pytest.mark.parametrize(
    ("words", "seq"),
    [
        (["11"], 11),
        (["e:5d5d5d5d"], 19),
        ([f"{RUN[:8]}+4"], 4),
        (["last+4"], 4),
        (["last"], 23),
        ([RUN, "91 % full"], 22),
        ([RUN, "WX-1234"], 10),
    ],
)
def test_an_event_is_named_by_number_effect_place_or_words(home: Path, words: list[str], seq: int) -> None:
    """Each name leads to its event; an effect is its end, or its beginning where nobody saw the end."""
    shown = _cli(home, "why", *words, "--json")
    assert (0, seq) == (shown.exit_code, json.loads(shown.stdout)["event"]["seq"])


@pytest.mark.req("CAUSES-10")
@pytest.mark.parametrize(
    "words", [["9999"], ["0"], ["e:abcdef"], ["last+999"], ["last+0"], ["ffff"], ["last", "not there"]]
)
def test_a_name_that_is_none_is_not_found(home: Path, words: list[str]) -> None:
    """6, whatever it was meant to be."""
    assert [6, 6] == [_cli(home, command, *words).exit_code for command in ("why", "blast")]


@pytest.mark.req("CAUSES-5", "CAUSES-10")
def test_of_a_run_alone_what_followed_from_its_request_is_meant(home: Path) -> None:
    """`why` explains its newest event, `blast` begins with its first."""
    told = json.loads(_cli(home, "blast", "last", "--json").stdout)
    assert (1, "run.created", 22, True) == (
        told["event"]["seq"],
        told["event"]["kind"],
        told["total"],
        told["complete"],
    )
    assert ["9a9a9a9a9a9a9a9a"] == told["gates"]


@pytest.mark.req("CAUSES-6")
def test_neither_tells_a_value(home: Path) -> None:
    """No argument, result, prompt or reason of any event is in any line of either, nor in their JSON."""
    shown = "".join(
        _cli(home, command, str(seq), *more).stdout
        for seq in range(1, 24)
        for command in ("why", "blast")
        for more in ([], ["--json"])
    )
    assert "host.disks" in shown
    assert [] == [secret for secret in SECRETS if secret in shown]


@pytest.fixture(name="deep")
def _deep() -> Iterator[MemoryStore]:
    store = MemoryStore()

    def work(tx: Tx) -> None:
        last = tx.ledger.append(EventDraft("run.created", RUN, 1, {"fleet": "f"}))
        for _ in range(causes.CAUSES + 1000):
            last = tx.ledger.append(EventDraft("signal", RUN, 1, {}, causes=(last,)))

    store.write(work)
    yield store
    store.close()


@pytest.mark.req("CAUSES-4", "CAUSES-5")
def test_a_long_chain_is_told_by_its_ends_and_a_bound_says_so(deep: MemoryStore) -> None:
    """The steps left out are counted; beyond the bound there is no chain, and the count says that it is not all."""
    found = causes.why(deep, 1001)
    steps = [step.seq for step in found.chains[0].steps]
    left_out = 1001 - causes.FIRST - causes.LAST
    assert (1000, True, left_out) == (found.causes, found.complete, found.chains[0].left_out)
    assert [*range(1, causes.FIRST + 1), *range(1002 - causes.LAST, 1002)] == steps
    beyond = causes.why(deep, causes.CAUSES + 1001)
    assert ((), False, causes.CAUSES) == (beyond.chains, beyond.complete, beyond.causes)
    some = causes.blast(deep, 2, most=100)
    assert (100, False) == (some.total, some.complete)


def _reach(agent: str) -> dict[str, reaching.AgentReach]:
    fleet = Fleet.from_text(FLEET, base=SCENARIO, environ={"TOKEN": "x"})
    registry = Registry.load(list(fleet.tools), fleet.base)
    return {item.agent: item for item in reaching.reach(fleet, registry, agent).agents}


@pytest.mark.req("CAUSES-9")
def test_each_tool_is_told_with_what_allows_and_what_stops_it() -> None:
    """Free, perhaps asked, always asked, never: by grants and gates, with the role, the quorum and the four eyes."""
    tools = {tool.tool: tool for item in _reach("boss").values() for tool in item.tools if item.agent != "maker"}
    made = {tool.tool: tool for tool in _reach("maker")["maker"].tools}
    assert {"git.log": "free", "files.read": "free", "files.delete": "never"} == {
        name: tool.outcome for name, tool in tools.items()
    }
    assert {"files.write": "may ask", "files.delete": "asks"} == {name: tool.outcome for name, tool in made.items()}
    assert {"grants[1]": {"path": ("notes/**",)}} == dict(made["files.delete"].where)
    assert (reaching.Stop("gates[0]", "dba", 2, four_eyes=True),) == made["files.delete"].stops
    assert ["gates[1]", "floor"] == [stop.by for stop in made["files.write"].stops]


@pytest.mark.req("CAUSES-9")
def test_influence_goes_over_the_plan_handoffs_and_the_shared_workspace() -> None:
    """The ceo reaches all, without a tool of its own; who writes files reaches who reads them; who only looks hands over."""
    assert ["boss", "looker", "maker", "writer"] == list(_reach("boss"))
    assert ((), ()) == (_reach("boss")["boss"].tools, _reach("writer")["writer"].tools)
    assert (("looker", "files of the workspace"),) == _reach("maker")["looker"].path
    assert {"looker", "writer"} == set(_reach("looker"))
    assert {"writer"} == set(_reach("writer"))


@pytest.mark.req("CAUSES-9")
def test_the_way_out_and_who_stops_the_commit_are_told() -> None:
    """Mounts, rules of the broker, secrets, and the gates before what changed leaves."""
    box = _reach("maker")["maker"].sandbox
    assert ("bubblewrap", "done", ("TOKEN",)) == (box.backend, box.commit, box.secrets)
    assert (
        "GET https://api.example.org",
        "POST https://*.example.net /v1/**, what changes something with the commit",
    ) == box.egress
    assert [("gates[2]", "admin"), ("watched", "operator")] == [(stop.by, stop.who) for stop in box.stops]


@pytest.mark.req("CAUSES-9")
def test_reach_speaks_text_and_json_of_an_agent_or_a_fleet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An agent in full with those it reaches; a fleet agent by agent; an agent that is none is not found."""
    (tmp_path / "fleet.yaml").write_text(FLEET)
    shutil.copy(SCENARIO / "scenario.yaml", tmp_path)
    monkeypatch.setenv("TOKEN", "x")
    asked = ["reach", "maker", "--fleet", str(tmp_path)]
    shown = CliRunner().invoke(main, asked, catch_exceptions=False)
    assert 0 == shown.exit_code
    assert (
        "  asks       files.delete (destructive, sandbox) where grants[1]: path in notes/**; asks 2 of `dba` (gates[0])"
        in shown.stdout
    )
    assert "  through looker by files of the workspace:" in shown.stdout
    told = json.loads(CliRunner().invoke(main, [*asked, "--json"], catch_exceptions=False).stdout)
    fleet = Fleet.from_text(FLEET, base=tmp_path, environ={"TOKEN": "x"})
    expected = reaching.reach(fleet, Registry.load(list(fleet.tools), tmp_path), "maker")
    assert json.loads(json.dumps([as_json(expected)])) == told["reach"]
    whole: list[Any] = json.loads(CliRunner().invoke(main, ["reach", str(tmp_path), "--json"]).stdout)["reach"]
    assert ["boss", "looker", "maker", "writer"] == [item["agent"] for item in whole]
    assert 6 == CliRunner().invoke(main, ["reach", "nobody", "--fleet", str(tmp_path)]).exit_code
    with pytest.raises(NotFound, match="has no agent `nobody`"):
        _reach("nobody")
