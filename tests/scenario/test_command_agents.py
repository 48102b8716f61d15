"""Agents that are programs, over whole runs: what they are given, what they may do, and what becomes of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.scenario.agency import Agency, called

SDK = """
import openai
client, brief = openai.OpenAI(), json.load(sys.stdin)
offered = {tool["name"]: tool["openai"] for tool in kernel("/midwatch/tools")[1]["tools"]}
names = {tool["function"]["name"]: name for name, tool in offered.items()}
messages = [{"role": "system", "content": "Look."}, {"role": "user", "content": brief["task"]}]
said = []
while True:
    answer = client.chat.completions.create(model="gpt-99", messages=messages, tools=[offered["ops.look"]], temperature=0)
    message = answer.choices[0].message
    said.append([answer.model, answer.choices[0].finish_reason, answer.usage.total_tokens > 0])
    messages.append(message.model_dump(exclude_none=True))
    if not message.tool_calls:
        break
    for asked in message.tool_calls:
        told = kernel("/midwatch/tools/" + asked.function.name, json.loads(asked.function.arguments), {"midwatch-call-id": asked.id})[1]
        messages.append({"role": "tool", "tool_call_id": asked.id, "content": json.dumps(told)})
stream = client.chat.completions.create(
    model="x", messages=[{"role": "user", "content": "again"}], stream=True, stream_options={"include_usage": True}, max_tokens=50
)
pieces = list(stream)
text = "".join(piece.choices[0].delta.content or "" for piece in pieces if piece.choices)
shape = {"type": "json_schema", "json_schema": {"name": "city", "schema": {"type": "object"}}}
shaped = client.chat.completions.create(model="x", messages=[{"role": "user", "content": "city"}], response_format=shape)
refused = None
try:
    client.chat.completions.create(model="x", messages=[{"role": "user", "content": "no"}], n=2)
except openai.BadRequestError as error:
    refused = error.status_code
hand(risks=[json.dumps([said, text, pieces[-1].usage.completion_tokens > 0, shaped.choices[0].message.content, refused,
                       [model.id for model in client.models.list()]])])
"""


@pytest.mark.req("COMMAND-1")
@pytest.mark.req("COMMAND-2")
def test_a_program_is_an_agent_with_a_brief_an_answer_and_effects(tmp_path: Path) -> None:
    """It reads its brief twice, changes a file, cites its own run; the file is staged, the machine's counters are on record."""
    agency = Agency(
        tmp_path,
        """
        brief = json.load(sys.stdin)
        assert brief == json.load(open(os.environ["MIDWATCH_BRIEF"]))
        print("some words before the answer", {"not": "it"})
        os.makedirs("out")
        with open("out/made.txt", "w") as file:
            file.write(brief["task"])
        hand(changed=[("made a file", brief["evidence"])], risks=[json.dumps([brief["agent"], brief["role"], sorted(brief)])])
        """,
    )
    result = agency.run(request="go")
    found = agency.handoff(result.run)
    keys = ["agent", "answer_schema", "criteria", "evidence", "request", "role", "task"]
    row = next(row for row in agency.effects() if row.tool == "command:worker")
    event = next(event for event in agency.events(result.run, "finished") if event.data["effect"] == row.id)
    assert ("done", "complete", []) == (result.status, found["status"], found["unmet"])
    assert ["worker", "specialist", keys] == agency.told(result.run)
    assert ("tool", "worker", "done", [f"e:{row.id}"]) == (
        row.kind,
        row.agent,
        row.status,
        found["changed"][0]["evidence"],
    )
    assert not (agency.work / "out").exists(), "nothing is in the workspace before it is committed"
    changed = [
        change.path for item in agency.staged(result.run) for change in item.layer.changes if change.op == "created"
    ]
    assert ["out", "out/made.txt"] == changed
    assert (0, True) == (event.data["exit_code"], event.data["usage"]["memory_peak"] > 0)


@pytest.mark.req("COMMAND-3")
def test_the_real_sdk_inside_the_sandbox_works_unchanged(tmp_path: Path) -> None:
    """Models, a loop of tool calls, a stream with its usage and a shaped answer; the route decides which model answers."""
    agency = Agency(
        tmp_path,
        SDK,
        [
            {"agent": "worker", "when": 'schema == "city"', "answer": {"city": "Rome"}},
            {"agent": "worker", "when": 'user == "again"', "say": "once more"},
            called("look", what="disk", turn=0),
            {"agent": "worker", "say": "it is full"},
        ],
    )
    result = agency.run(request="go")
    said = [["tiny", "tool_calls", True], ["tiny", "stop", True]]
    assert [said, "once more", True, '{"city":"Rome"}', 400, ["tiny"]] == agency.told(result.run)
    assert ["look disk"] == agency.calls()
    look = next(event for event in agency.events(result.run, "proposed") if event.data["tool"] == "ops.look")
    causes = {
        event.seq: event.data.get("finish")
        for event in agency.events(result.run, "finished")
        if event.agent == "worker"
    }
    assert "tool_calls" == causes[look.causes[0]], "the call follows from the answer that asked for it"


@pytest.mark.req("COMMAND-3")
def test_a_framework_inside_the_sandbox_works_unchanged(tmp_path: Path) -> None:
    """LangChain's own agent loop, its model and its stream, with the kernel's tool as one of its tools."""
    agency = Agency(
        tmp_path,
        """
        from langchain.agents import create_agent
        from langchain_core.tools import StructuredTool
        from langchain_openai import ChatOpenAI
        given = next(tool for tool in kernel("/midwatch/tools")[1]["tools"] if tool["name"] == "ops.look")
        look = StructuredTool(
            name=given["openai"]["function"]["name"], description=given["description"], args_schema=given["input_schema"],
            func=lambda **arguments: json.dumps(call("ops.look", **arguments)),
        )
        agent = create_agent(ChatOpenAI(model="gpt-99"), [look], system_prompt="Look.")
        out = agent.invoke({"messages": [{"role": "user", "content": "disk?"}]})["messages"][-1].content
        streamed = "".join(chunk.content for chunk in ChatOpenAI(model="x", streaming=True).stream("again"))
        hand(risks=[json.dumps([out, streamed])])
        """,
        [
            {"agent": "worker", "when": 'user == "again"', "say": "once more"},
            called("look", what="disk", turn=0),
            {"agent": "worker", "say": "it is full"},
        ],
    )
    done = agency.run(request="go")
    assert (["it is full", "once more"], ["look disk"]) == (agency.told(done.run), agency.calls())


@pytest.mark.req("COMMAND-4")
def test_tools_are_the_agents_own_and_pass_every_guard(tmp_path: Path) -> None:
    """What is not granted is denied, what is not given is unknown, bad arguments are said so; whoever it claims to be."""
    agency = Agency(
        tmp_path,
        """
        lies = {"x-midwatch-agent": "worker", "authorization": "Bearer admin", "openai-organization": "worker"}
        out = [call("ops.secret", line="x")["error"]["code"], kernel("/midwatch/tools/ops.crash", {"what": "x"}, lies)[1]["error"]["code"],
               call("ops.look", wrong=1)["error"]["code"], kernel("/midwatch/tools/ops.look", None)[0],
               sorted(tool["name"] for tool in kernel("/midwatch/tools")[1]["tools"]), call("ops_look", what="y")["ok"]]
        hand(risks=[json.dumps(out)])
        """,
        own="tools: [ops.look, ops.secret]",
    )
    result = agency.run(request="go")
    names = ["ops.look", "ops.secret"]
    assert ["denied", "unknown_tool", "invalid_arguments", 404, names, True] == agency.told(result.run)
    assert ["look y"] == agency.calls()
    stages = [
        event.data["stages"] for event in agency.events(result.run, "decided") if event.data["tool"] == "ops.secret"
    ]
    assert [("contract", "pass"), ("containment", "deny")] == [
        (s["stage"], s["outcome"]) for s in stages[0] if s["stage"] != "provenance"
    ]


GATED = """
first = chat("first")[1]["choices"][0]["message"]["content"]
open("half", "w").write("half")
with open("/workspace/seen", "a") as file:
    file.write("x")
print(call("ops.log", line="before"), file=sys.stderr)
deployed = call("ops.deploy", target="PRODUCTION")
after = chat("second")[1]["choices"][0]["message"]["content"]
hand(risks=[json.dumps([first, deployed["ok"], after, len(open("/workspace/seen").read())])])
"""


@pytest.mark.req("COMMAND-5")
def test_a_gate_stops_the_program_and_a_yes_starts_it_again_exactly_once(tmp_path: Path) -> None:
    """Its changes are dropped; started again it is answered from the journal, nothing is billed or done twice."""
    agency = Agency(tmp_path, GATED)
    waiting = agency.run(request="go")
    before = (waiting.status, len(waiting.gates), agency.calls(), len(agency.bills("worker")))
    assert ("waiting", 1, ["log before"], 1) == before
    assert [] == [change for item in agency.staged(waiting.run) for change in item.layer.changes if change.op != "read"]
    row = next(row for row in agency.effects() if row.tool == "command:worker")
    assert ("retry", "kernel") == (row.status, row.resolved_by), "it is not in doubt: the kernel stopped it"
    agency.say(waiting.gates[0])
    done = agency.run(resume=waiting.run)
    assert "done" == done.status
    assert ["deploy PRODUCTION", "log before"] == agency.calls()
    assert (["hello from the model", True, "hello from the model", 1], 2) == (
        agency.told(done.run),
        len(agency.bills("worker")),
    )


@pytest.mark.req("COMMAND-5")
def test_a_no_is_told_to_the_program_and_calls_made_together_are_asked_together(tmp_path: Path) -> None:
    """Two threads want two actions: one stop, two questions; each gets its own person's word."""
    agency = Agency(
        tmp_path,
        """
        from concurrent.futures import ThreadPoolExecutor
        with ThreadPoolExecutor() as pool:
            got = list(pool.map(lambda target: call("ops.deploy", target=target), ("staging", "PRODUCTION")))
        hand(risks=[json.dumps([[one["ok"], (one.get("error") or {}).get("code")] for one in got])])
        """,
    )
    waiting = agency.run(request="go")
    assert 2 == len(waiting.gates)
    for gate in waiting.gates:
        agency.say(gate, approve=agency.asked(gate)["target"] == "staging")
    done = agency.run(resume=waiting.run)
    assert ([[True, None], [False, "denied"]], ["deploy staging"]) == (agency.told(done.run), agency.calls())


@pytest.mark.req("COMMAND-17")
def test_what_a_program_has_read_counts_as_a_third_partys_words(tmp_path: Path) -> None:
    """Nobody sees what it reads by itself, so a rule on such words asks about its first action already."""
    agency = Agency(tmp_path, 'hand(risks=[json.dumps(call("ops.log", line="x")["ok"])])')
    fleet = agency.fleet / "fleet.yaml"
    rule = "{when: {label: [third_party], tool: [ops.log]}, ask: operator, timeout: 15m}"
    fleet.write_text(fleet.read_text().replace("gates: [", f"gates: [{rule}, "))
    waiting = agency.run(request="go")
    assert ("waiting", []) == (waiting.status, agency.calls())
    agency.say(waiting.gates[0])
    assert (True, ["log x"]) == (agency.told(agency.run(resume=waiting.run).run), agency.calls())


@pytest.mark.req("COMMAND-6")
def test_a_program_that_goes_another_way_ends_its_agent_and_not_the_run(tmp_path: Path) -> None:
    """Started again it does not repeat an action it had before; the next action is refused, the others' work stands."""
    agency = Agency(
        tmp_path,
        """
        import uuid
        call("ops.log", line=uuid.uuid4().hex)
        call("ops.deploy", target="PRODUCTION")
        hand()
        """,
        other='hand(risks=["other was here"])',
    )
    waiting = agency.run(request="go")
    agency.say(waiting.gates[0])
    done = agency.run(resume=waiting.run)
    assert ("done", "failed", "complete") == (
        done.status,
        agency.handoff(done.run)["status"],
        "complete" if agency.handoff(done.run, "other")["risks"] else "",
    )
    assert ([], 1) == (agency.calls("deploy"), len(agency.calls("log"))), "nothing was done twice"


@pytest.mark.req("COMMAND-7")
def test_an_agents_bound_stops_its_program_and_a_runs_bound_the_run(tmp_path: Path) -> None:
    """The model is not asked beyond the bound; with the agent's own bound its siblings go on."""
    program = """
        while True:
            chat("more " + str(len(os.listdir("."))))
            open(str(len(os.listdir("."))), "w")
        """
    agency = Agency(tmp_path / "agent", program, own="tools: [ops.*], limits: {steps: 2}", other='hand(risks=["fine"])')
    done = agency.run(request="go")
    assert ("done", "failed", 2) == (done.status, agency.handoff(done.run)["status"], len(agency.bills("worker")))
    assert [{"text": "fine", "evidence": []}] == agency.handoff(done.run, "other")["risks"]
    tight = Agency(tmp_path / "run", program)
    fleet = tight.fleet / "fleet.yaml"
    fleet.write_text(fleet.read_text().replace("tool_calls: 40", "steps: 3"))
    paused = tight.run(request="go")
    assert ("paused", "bound_reached", 3) == (paused.status, paused.error_code, len(tight.bills()))


@pytest.mark.req("COMMAND-7")
def test_a_program_that_does_not_tire_of_asking_is_stopped(tmp_path: Path) -> None:
    """Each refusal is on record, so there is a bound of them, too: after thirty its run pauses and says so, and nothing is handed over."""
    agency = Agency(tmp_path, 'while True: call("ops.secret", line="please")')
    done = agency.run(request="go")
    refused = [event for event in agency.events(done.run, "finished") if event.data.get("code") == "denied"]
    assert ("paused", True) == (done.status, "denied 30 times" in (done.error_message or ""))
    assert (30, []) == (len(refused), agency.handoffs(done.run))


@pytest.mark.req("COMMAND-7")
def test_a_program_that_does_not_tire_of_what_does_not_exist_is_a_failed_agent(tmp_path: Path) -> None:
    """Refusals that are no denials have a bound as well: after a hundred its part ends, and the run goes on."""
    agency = Agency(tmp_path, 'while True: call("ops.nothing", line="please")')
    done = agency.run(request="go")
    found = agency.handoff(done.run)
    assert ("done", "failed", True) == (done.status, found["status"], "100 times" in found["risks"][0]["text"])


@pytest.mark.req("COMMAND-8")
@pytest.mark.parametrize(
    ("program", "reason"),
    [
        ('print(\'{"changed": [], "needed": [], "risks": "none"}\')', "`/risks`"),
        ("hand(changed=[('I did it', 'e:0123456789abcdef')])", "refused"),
        ("print('x' * 20_000_000)", "refused"),
        ("hand(); sys.exit(3)", "exit code 3"),
        ("os.kill(os.getpid(), 9)", "exit code -9"),
        ("while True: print('y' * 100_000)", "took longer"),
    ],
    ids=["garbage", "made-up-evidence", "flood", "exit-code", "killed", "never-ends"],
)
def test_a_program_without_a_good_answer_is_a_failed_agent(tmp_path: Path, program: str, reason: str) -> None:
    """Whatever it says or does, it ends as a labelled gap; its changes are dropped, the run goes on."""
    agency = Agency(tmp_path, f"open('left', 'w').close()\n{program}\n", sandbox="{limits: {wall: 2s}}")
    done = agency.run(request="go")
    found = agency.handoff(done.run)
    assert ("done", "failed", True) == (done.status, found["status"], reason in found["risks"][0]["text"])
    assert [] == [change for item in agency.staged(done.run) for change in item.layer.changes]


@pytest.mark.req("COMMAND-11")
def test_a_program_that_is_another_one_now_is_not_run(tmp_path: Path) -> None:
    """The fleet's digest covers the program's bytes: a run that waits is not resumed under another program."""
    agency = Agency(tmp_path, GATED)
    with agency.opened() as kernel:
        (agency.fleet / "agent.py").write_text("print('somebody else')")
        result = kernel.run("go")
    found = agency.handoff(result.run)
    assert ("failed", []) == (found["status"], agency.calls())
    (agency.fleet / "agent.py").write_text("print('a third one')")
    with agency.opened() as kernel:
        digest = kernel.fleet.digest
    (agency.fleet / "agent.py").write_text("print('a fourth one')")
    with agency.opened() as kernel:
        assert digest != kernel.fleet.digest


@pytest.mark.req("COMMAND-13")
def test_its_tools_act_beside_it_and_what_meets_at_one_path_is_refused(tmp_path: Path) -> None:
    """A file tool works in a sandbox of its own meanwhile; a program that then changes the same file has no answer that counts."""
    program = """
        wrote = call("files.write", path="shared.txt", content="by the tool")
        open(PLACE, "w").write("by the program")
        hand(changed=[("wrote", json.load(sys.stdin)["evidence"])], risks=[json.dumps(wrote["ok"])])
        """
    own = 'tools: ["files.*"]'
    apart = Agency(tmp_path / "apart", program.replace("PLACE", '"own.txt"'), own=own)
    done = apart.run(request="go")
    made = {change.path for item in apart.staged(done.run) for change in item.layer.changes if change.op == "created"}
    assert (True, {"shared.txt", "own.txt"}) == (apart.told(done.run), made)
    met = Agency(tmp_path / "met", program.replace("PLACE", '"shared.txt"'), own=own)
    done = met.run(request="go")
    made = {change.path for item in met.staged(done.run) for change in item.layer.changes if change.op == "created"}
    assert ("failed", {"shared.txt"}) == (met.handoff(done.run)["status"], made)


@pytest.mark.req("COMMAND-1")
def test_the_synthesis_can_be_a_program_too(tmp_path: Path) -> None:
    """It is given the plan and the handoffs, and its report is the run's result."""
    agency = Agency(
        tmp_path,
        'hand(needed=["a disk"])',
        writer="""
        brief = json.load(sys.stdin)
        needed = [item["text"] for handoff in brief["handoffs"] for item in handoff["needed"]]
        print(json.dumps({"answer": f"# {brief['plan']['goal']}: {needed}", "changed": [], "needed": [], "risks": []}))
        """,
    )
    done = agency.run(request="go")
    assert ("done", "# go: ['a disk']") == (done.status, done.output["answer"])


@pytest.mark.req("COMMAND-14")
def test_a_program_runs_in_docker_as_in_bubblewrap(
    tmp_path: Path, docker_host: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same program with the same SDK: a model, a tool, a file."""
    monkeypatch.setenv("DOCKER_HOST", docker_host)
    agency = Agency(
        tmp_path,
        """
        import openai
        brief = json.load(sys.stdin)
        answer = openai.OpenAI().chat.completions.create(model="x", messages=[{"role": "user", "content": "hi"}])
        open("made.txt", "w").write(answer.choices[0].message.content)
        hand(changed=[("made", brief["evidence"])], risks=[json.dumps(call("ops.look", what="disk")["data"])])
        """,
        sandbox="docker",
    )
    done = agency.run(request="go")
    assert ("done", {"found": "disk"}) == (done.status, agency.told(done.run))
    made = [change.path for item in agency.staged(done.run) for change in item.layer.changes if change.op == "created"]
    assert ["made.txt"] == made
