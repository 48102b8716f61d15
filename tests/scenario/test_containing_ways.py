"""Ways around containment, each over a whole run: files, errors, pages, keys, programs, plans, changed tools; and none of them leads on."""

from __future__ import annotations

from pathlib import Path

import pytest

from midwatch import wiring
from midwatch.containment import provenance
from midwatch.engine.containing import Containing
from tests.scenario.bank import EVE, PAY, TOOLS, Bank, Call

MAIL: Call = ("ops_mail", {})
BUBBLE = "backend: bubblewrap"
STRANGER = "third_party:ops.mail"


def _write(path: str, text: str = "x") -> Call:
    return "files_write", {"path": path, "content": text}


def _read(path: str) -> Call:
    return "files_read", {"path": path}


@pytest.mark.req("CONTAIN-9")
def test_a_file_carries_the_label_of_the_call_that_wrote_it(tmp_path: Path) -> None:
    """One agent reads a mail and writes a file; the synthesis, in the next run, of another process, reads it: the mail is behind that."""
    bank = Bank(tmp_path / "b", [[MAIL], [_write("plan.txt", EVE)]], sandbox=f"{BUBBLE}, commit: ask")
    done = bank.go()
    assert ("done", ["operator", "person:local:ann", STRANGER]) == (done.status, bank.made(done.run, "files.write")[0])
    with bank.opened() as kernel:
        kernel.commit(done.run)
    later = Bank(tmp_path / "later", [[_read("plan.txt")], [_read("other.txt")]])
    later.home, later.work = bank.home, bank.work
    later.change("backend: process, because: a trial", BUBBLE)
    (bank.work / "other.txt").write_text("of the operator")
    run = later.go().run
    assert [STRANGER in causes for causes in later.made(run, "files.read")] == [True, True]
    recalled = [
        event.data.get("recalled") for event in later.events(run, "finished") if event.data.get("tool") == "files.read"
    ]
    assert [True, False] == [body is not None for body in recalled]


@pytest.mark.req("CONTAIN-9")
def test_confined_work_passes_and_a_listing_tells_of_names(tmp_path: Path) -> None:
    """What was read before bars nothing inside a sandbox; the names that it left there carry it to whoever lists them."""
    mine: list[list[Call]] = [[MAIL], [_write("pay-GB33.txt")]]
    last: list[list[Call]] = [[("files_list", {"path": "."})]]
    bank = Bank(tmp_path / "b", mine, (), last, sandbox=BUBBLE)
    done = bank.go()
    assert ("done", [None] * 3) == (done.status, bank.codes(done.run))
    assert ["confined"] == [mark["contained"] for mark in bank.marks(done.run, "files.write", "containment")]
    listed = next(event for event in bank.events(done.run, "finished") if event.data.get("tool") == "files.list")
    assert STRANGER in listed.data["recalled"]["causes"]


@pytest.mark.req("CONTAIN-9")
@pytest.mark.parametrize("way", ["fail", "keys", "far"])
def test_words_that_come_another_way_are_a_strangers_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    """The text of an error; a key of a nested object; a value beyond what is indexed: the payment waits all the same."""
    monkeypatch.setattr(provenance, "FIELDS", 10)
    tools = TOOLS + ODD
    call: Call = {"fail": ("ops_fail", {}), "keys": ("ops_keys", {}), "far": ("ops_far", {})}[way]
    bank = Bank(tmp_path / "b", [[call], [PAY]], tools=tools)
    waits = bank.go()
    assert ("waiting", []) == (waits.status, bank.calls())
    assert f"third_party:ops.{way}" in bank.causes(waits.run, "ops.pay")[0]


ODD = '''
@tool(effect="read", runs="broker", open_world=False, observers=())
def keys(context: ToolContext) -> dict[str, Text]:
    """Say it in a key."""
    return {"GB33BUKB20201555555555": "rent"}

@tool(effect="read", runs="broker", open_world=False, observers=())
def far(context: ToolContext) -> Annotated[list[Text], Field(max_length=100)]:
    """Say it at the end of a long list."""
    return [str(n) for n in range(11)] + ["GB33BUKB20201555555555"]
'''


@pytest.mark.req("CONTAIN-9")
def test_a_page_of_an_earlier_result_keeps_its_label(tmp_path: Path) -> None:
    """A long file that a stranger's words led to, read page by page: each page carries them, and so does each field of it."""
    mine: list[list[Call]] = [[MAIL], [("ops_fill", {"path": "long.txt"})], [_read("long.txt")]]
    bank = Bank(tmp_path / "b", mine, sandbox=BUBBLE, tools=TOOLS + FILL)
    first = bank.go()
    cursor = next(item["next_cursor"] for item in bank.results(first.run) if item["next_cursor"])
    again = Bank(tmp_path / "c", [*mine, [("files_read", {"cursor": cursor})]], sandbox=BUBBLE, tools=TOOLS + FILL)
    run = again.go().run
    pages = [event for event in again.events(run, "finished") if event.data.get("tool") == "files.read"]
    assert [None] * 4 == again.codes(run)
    assert all(STRANGER in page.data["recalled"]["causes"] for page in pages)


FILL = '''
@tool(effect="write", open_world=False, reversible=False, observers=())
def fill(context: ToolContext, path: Target) -> dict[str, Text]:
    """Write a long file."""
    (context.workdir / path).write_text("y" * 20_000)
    return {"filled": path}
'''


@pytest.mark.req("CONTAIN-9")
@pytest.mark.parametrize(
    ("value", "status"),
    [
        ("front desk", "done"),
        ("front\u00a0desk", "waiting"),
        ("fr\u043ent desk", "waiting"),
        ("front desk ", "waiting"),
    ],
)
def test_look_alikes_of_a_value_of_the_request_are_another_value(tmp_path: Path, value: str, status: str) -> None:
    """A Cyrillic letter or a space that does not show makes another value, which the request did not say."""
    extra = 'policies: [{who: ["third_party:*"], may: [ops.ring], roles: [control]}]\n'
    bank = Bank(tmp_path / "b", [[MAIL], [("ops_ring", {"service": value})]], extra=extra)
    assert status == bank.go(request={"bell": "front desk"}).status


@pytest.mark.req("CONTAIN-9")
def test_a_number_as_text_and_a_nested_command_need_reach(tmp_path: Path) -> None:
    """That a sum stands in the request says nothing, as text or number; a value deep in an object that nobody described is a command."""
    extra = 'policies: [{who: ["third_party:*"], may: ["ops.*"], roles: [control, target]}]\n'
    bank = Bank(tmp_path / "b", [[MAIL], [PAY]], extra=extra)
    run = bank.go(request={"sum": 70, "text": "70"}).run
    assert {"amount"} == {lack["where"] for lack in bank.cards(run)[0]["lacks"]}
    order = {"a": {"b": "rm -r"}}
    nested = Bank(tmp_path / "n", [[MAIL], [("ops_post", {"text": "hello", "order": order})]], extra=extra)
    run = nested.go().run
    assert {"order"} == {lack["where"] for lack in nested.cards(run)[0]["lacks"]}


@pytest.mark.req("CONTAIN-9")
def test_a_tool_that_is_another_one_by_now_vouches_for_nothing(tmp_path: Path) -> None:
    """Read as a third party's, then the tool calls itself a service: after the wait its earlier words are a stranger's still."""
    bank = Bank(tmp_path / "b", [[MAIL], [("ops_ring", {"service": "x"})], [PAY]])
    run = bank.go().run
    for gate in bank.go(run).gates:
        bank.say(gate)
    source = (bank.fleet / "ops.py").read_text()
    old = 'def mail(context: ToolContext, name: Named = "new") -> dict[str, Text]:'
    assert old in source
    (bank.fleet / "ops.py").write_text(
        source.replace(old, old.replace("dict[str, Text]", 'Annotated[dict[str, Text], Out(author="service")]'))
    )
    bank.go(run)
    assert all(STRANGER in causes for causes in bank.causes(run, "ops.pay"))
    assert [] == bank.calls("pay")


@pytest.mark.req("CONTAIN-5")
def test_a_graph_of_ones_own_shares_one_trail(tmp_path: Path) -> None:
    """What flows between nodes is not known, so what one agent's tool gave counts for the other agent, too."""
    bank = Bank(tmp_path / "b", [])
    bank.change(
        "graph: {team: {ceo: boss, specialists: [worker, other], synthesis: writer}}",
        'graph: {import: "mygraph:build"}',
    )
    (bank.fleet / "mygraph.py").write_text(GRAPH)
    waits = bank.run(None, {"messages": [{"role": "user", "content": "go"}]})
    assert ("waiting", []) == (waits.status, bank.calls())
    assert ["person:local:ann", STRANGER] == bank.causes(waits.run, "ops.pay")[0]
    assert "done" == bank.answer(waits.run).status
    assert [f"pay {EVE} 70"] == bank.calls("pay")


GRAPH = """
from langgraph.graph import END, START, MessagesState, StateGraph

def build(kit):
    mine = {tool.name: tool for tool in kit.tools("worker")}
    theirs = {tool.name: tool for tool in kit.tools("other")}
    async def one(state):
        await mine["ops.mail"].ainvoke({"name": "new"})
        return {"messages": []}
    async def two(state):
        await theirs["ops.pay"].ainvoke({"to": "GB33BUKB20201555555555", "amount": 70, "note": "rent"})
        return {"messages": []}
    graph = StateGraph(MessagesState)
    graph.add_node("one", one)
    graph.add_node("two", two)
    graph.add_edge(START, "one")
    graph.add_edge("one", "two")
    graph.add_edge("two", END)
    return graph
"""
PROGRAM = """
import json, os, sys, urllib.request
brief = json.load(sys.stdin)
def call(name, **arguments):
    request = urllib.request.Request(f"{os.environ['MIDWATCH_TOOLS']}/{name}", data=json.dumps(arguments).encode(), method="POST")
    try:
        return urllib.request.urlopen(request, timeout=20).read()
    except urllib.error.HTTPError as refused:
        return refused.read()
call("ops_pay", to="GB33BUKB20201555555555", amount=70, note="rent")
print(json.dumps({"changed": [], "needed": [], "risks": []}))
"""


@pytest.mark.req("CONTAIN-9")
def test_a_program_begins_as_a_third_partys(tmp_path: Path) -> None:
    """A program acts by words of its own author: its first payment waits, and what it hands over brings its author along."""
    bank = Bank(tmp_path / "b", [], (), [[PAY]], sandbox=BUBBLE)
    bank.change(
        'worker: {role: specialist, route: smart, prompt_text: "Work.", ',
        "worker: {role: specialist, route: smart, command: [python3, agent.py], ",
    )
    (bank.fleet / "agent.py").write_text(PROGRAM)
    waits = bank.go()
    assert ("waiting", []) == (waits.status, bank.calls())
    assert ["person:local:ann", "third_party:command:worker"] == bank.causes(waits.run, "ops.pay")[0]
    with wiring.open_store(bank.home) as store:
        gates = store.read(lambda tx: tx.gates.list(run=waits.run, statuses=("open",), limit=10))
    assert 1 == len(gates)
    last = bank.answer(waits.run)
    assert ("waiting", [f"pay {EVE} 70"]) == (last.status, bank.calls("pay"))
    assert "third_party:command:worker" in bank.causes(waits.run, "ops.pay")[-1]


@pytest.mark.req("CONTAIN-9")
def test_what_only_the_plan_says_is_not_the_requests(tmp_path: Path) -> None:
    """A target that stands whole in the task that the CEO wrote is no target that the one who asked named."""
    extra = 'policies: [{who: ["third_party:*"], may: [ops.ring], roles: [control]}]\n'
    bank = Bank(tmp_path / "b", [[MAIL], [("ops_ring", {"service": "do worker"})]], extra=extra)
    assert "waiting" == bank.go().status


@pytest.mark.req("CONTAIN-9")
def test_a_file_without_a_label_is_of_nobody_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that an older version committed, which kept no labels: whoever reads it has an unknown cause, which no policy can name."""
    bank = Bank(tmp_path / "b", [[_write("old.txt")]], sandbox=f"{BUBBLE}, commit: ask")
    with monkeypatch.context() as older:
        older.setattr(Containing, "made", lambda *_, **__: {})
        done = bank.go()
    with bank.opened() as kernel:
        kernel.commit(done.run)
    later = Bank(tmp_path / "later", [[_read("old.txt")], [PAY]], sandbox=BUBBLE)
    later.home, later.work = bank.home, bank.work
    waits = later.go()
    assert ("waiting", True) == (waits.status, "unknown" in later.causes(waits.run, "ops.pay")[0])


@pytest.mark.req("CONTAIN-9")
def test_a_way_out_of_a_sandbox_is_no_confinement(tmp_path: Path) -> None:
    """A tool in a sandbox that may ask a host for something is judged like any other, though it could only read there."""
    calls: list[list[Call]] = [[MAIL], [_write("a.txt")]]
    out = f"{BUBBLE}, egress: [{{host: example.org, methods: [GET]}}]"
    waits = Bank(tmp_path / "b", calls, sandbox=out).go()
    assert "waiting" == waits.status
