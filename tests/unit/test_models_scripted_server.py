"""The scripted provider through the real client SDKs: answers, the protocol, caps, errors."""

from __future__ import annotations

import json
import re
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage, ToolMessage
from langchain_openai import ChatOpenAI

from midwatch.models.scripted import ScriptedProvider, parse_scenario

REFERENCE = Path(__file__).parents[2] / "docs" / "reference" / "scenario.md"

SCENARIO = """\
scenario: 1
models: [m, other]
prices: {m: {input: "$0.25", cached_input: "$0.025", output: "$2.00"}}
stream_chars: 5
rules:
  - name: plan
    agent: [worker, lone]
    turn: 0
    when: schema == '' && size(tools) > 0
    say: I look.
    tool_calls:
      - {name: disks, arguments: {limit: 2, fields: [mount, used]}}
      - {name: memory}
  - name: report
    agent: worker
    when: size(results) > 0
    answer:
      rows: {for: "latest(results, 'disks').data", as: d, where: d.used > 10, do: "${ d.mount }=${ d.used }"}
      asked: "${ results[0].arguments.limit }"
      raw: "${ latest(results, 'memory') }"
  - {name: shaped, when: schema == 'verdict', answer: {ok: true, why: "turn ${ turn }"}}
  - {name: bent, when: schema == 'bent', answer: {ok: maybe}}
  - {name: talk, when: schema == 'talk', say: not json}
  - {name: priced, agent: priced, say: x, usage: {prompt_tokens: 1000, cached_tokens: 400, completion_tokens: 50}}
  - {name: long, agent: long, say: "0123456789é123456789"}
  - {name: calls, agent: calls, say: "0123", tool_calls: [{name: disks, arguments: {limit: 12345678}}, {name: memory}]}
  - {name: odd, agent: odd, say: "${ results[3].name }"}
  - {name: odd condition, agent: odd-when, when: "results[3].name == 'x'", say: never}
  - {name: foreign, agent: foreign, tool_calls: [{name: erase, arguments: {}}]}
  - {name: broken call, agent: broken-call, tool_calls: "${ [{'name': 1}] }"}
  - {name: filtered, agent: filtered, say: x, finish_reason: content_filter}
  - {name: by prompt, system_contains: [You are the editor, in German], say: Guten Abend}
  - {name: hello, agent: hello, say: "hello ${ user }"}
"""

VERDICT = {
    "type": "object",
    "properties": {"ok": {"type": "boolean"}, "why": {"type": "string"}},
    "required": ["ok", "why"],
    "additionalProperties": False,
}
TOOLS: list[Any] = [
    {"type": "function", "function": {"name": name, "description": name, "parameters": {"type": "object"}}}
    for name in ("disks", "memory")
]
DISKS = {"data": [{"mount": "/", "used": 50}, {"mount": "/a", "used": 5}, {"mount": "/ü", "used": 11}]}


@pytest.fixture
def provider() -> Iterator[ScriptedProvider]:
    """The scenario above, served."""
    with ScriptedProvider(parse_scenario(SCENARIO), clock=lambda: 1_790_000_000_000_000) as serving:
        yield serving


@pytest.fixture
def client(provider: ScriptedProvider) -> Iterator[openai.OpenAI]:
    """The OpenAI SDK as the kernel sets it: no retries of its own, bounded waits."""
    with openai.OpenAI(base_url=provider.base_url, api_key="any", max_retries=0, timeout=20) as sdk:
        yield sdk


def ask(
    client: openai.OpenAI,
    agent: str,
    messages: list[Any] | None = None,
    *,
    key: dict[str, str] | None = None,
    **options: Any,
) -> Any:
    """One request in the name of an agent, with an idempotency header if one is given."""
    said = messages or [{"role": "user", "content": "go"}]
    headers = {"x-midwatch-agent": agent, **(key or {})}
    return client.chat.completions.create(model="m", messages=said, extra_headers=headers, **options)


def shape(name: str, *, strict: bool = True) -> dict[str, Any]:
    """A `response_format`."""
    return {"type": "json_schema", "json_schema": {"name": name, "strict": strict, "schema": VERDICT}}


def error(failure: openai.APIStatusError) -> dict[str, Any]:
    """The OpenAI error object of a failure."""
    body = failure.response.json()["error"]
    assert {"message", "type", "param", "code"} == body.keys()
    return dict(body)


@pytest.mark.req("SCRIPTED-4")
def test_a_plain_answer(provider: ScriptedProvider, client: openai.OpenAI) -> None:
    """Text arrives with finish reason, usage as billed, and a request id that stands on the bill."""
    answer = ask(client, "hello")
    assert ("hello go", "stop") == (answer.choices[0].message.content, answer.choices[0].finish_reason)
    line = provider.bill[0]
    assert (1, 2) == (answer.usage.prompt_tokens, answer.usage.completion_tokens)  # "go": 2 bytes; "hello go": 8
    assert (1, 2, "finished", "hello") == (line.prompt_tokens, line.completion_tokens, line.outcome, line.agent)
    assert line.request_id == answer._request_id
    assert 1_790_000_000 == answer.created


@pytest.mark.req("SCRIPTED-4")
def test_a_streamed_answer(client: openai.OpenAI) -> None:
    """A stream carries the same text in pieces, one finish reason, and the usage at its end."""
    parts = list(ask(client, "hello", stream=True, stream_options={"include_usage": True}))
    pieces = [part.choices[0].delta.content for part in parts if part.choices and part.choices[0].delta.content]
    assert ["hello", " go"] == pieces
    assert ["stop"] == [one.finish_reason for part in parts for one in part.choices if one.finish_reason]
    assert [None] * (len(parts) - 1) == [part.usage for part in parts[:-1]]
    assert (1, 2, 3) == tuple(
        getattr(parts[-1].usage, key) for key in ("prompt_tokens", "completion_tokens", "total_tokens")
    )


@pytest.mark.req("SCRIPTED-5")
def test_usage_is_streamed_only_when_asked_for(client: openai.OpenAI) -> None:
    """Without `include_usage` no event has a usage, as with the real API."""
    assert {None} == {part.usage for part in ask(client, "hello", stream=True)}


@pytest.mark.req("SCRIPTED-4", "SCRIPTED-2")
@pytest.mark.parametrize("stream", [False, True])
def test_parallel_tool_calls_and_an_answer_from_their_results(client: openai.OpenAI, stream: bool) -> None:
    """Two calls come at once, streamed or whole, and the next answer is computed from what they returned."""
    if stream:
        with client.chat.completions.stream(
            model="m",
            messages=[{"role": "user", "content": "go"}],
            tools=TOOLS,
            extra_headers={"x-midwatch-agent": "worker"},
        ) as events:
            message = events.get_final_completion().choices[0].message
    else:
        message = ask(client, "worker", tools=TOOLS).choices[0].message
    calls = message.tool_calls
    assert calls is not None
    assert "I look." == message.content
    assert [("disks", {"limit": 2, "fields": ["mount", "used"]}), ("memory", {})] == [
        (call.function.name, json.loads(call.function.arguments)) for call in calls
    ]
    asked = [
        {"id": c.id, "type": "function", "function": c.function.model_dump(include={"name", "arguments"})}
        for c in calls
    ]
    messages = [
        {"role": "user", "content": "go"},
        {"role": "assistant", "content": "I look.", "tool_calls": asked},
        {"role": "tool", "tool_call_id": calls[1].id, "content": "no json"},
        {"role": "tool", "tool_call_id": calls[0].id, "content": [{"type": "text", "text": json.dumps(DISKS)}]},
    ]
    # results[0] is `memory`, since it was sent first; it has no `limit`
    with pytest.raises(openai.InternalServerError, match="limit"):
        ask(client, "worker", messages, tools=TOOLS)
    messages[2:] = [messages[3], messages[2]]
    answer = ask(client, "worker", messages, tools=TOOLS).choices[0].message.content
    assert {"rows": ["/=50", "/ü=11"], "asked": 2, "raw": "no json"} == json.loads(answer)


@pytest.mark.req("SCRIPTED-4")
@pytest.mark.parametrize("stream", [False, True])
def test_through_langchain(provider: ScriptedProvider, stream: bool) -> None:
    """LangChain's chat model, set as the kernel sets it, gets tool calls, the computed answer, usage, finish reason."""
    settings: dict[str, Any] = {
        "model": "m",
        "base_url": provider.base_url,
        "api_key": "any",
        "max_retries": 0,
        "timeout": 20,
        "stream_usage": True,
        "streaming": stream,
        "default_headers": {"x-midwatch-agent": "worker"},
    }
    model = ChatOpenAI(**settings)
    bound = model.bind_tools(TOOLS)
    said: list[Any] = [SystemMessage("be brief"), HumanMessage("go")]
    first = bound.invoke(said)
    assert isinstance(first, AIMessage)
    assert ["disks", "memory"] == [call["name"] for call in first.tool_calls]
    assert "tool_calls" == first.response_metadata["finish_reason"]
    results = [ToolMessage(json.dumps(DISKS), tool_call_id=str(call["id"])) for call in first.tool_calls]
    last = bound.invoke([*said, first, *results])
    assert ["/=50", "/ü=11"] == json.loads(str(last.content))["rows"]
    bill = provider.bill
    used = [message.usage_metadata for message in (first, last) if isinstance(message, AIMessage)]
    assert [(line.prompt_tokens, line.completion_tokens) for line in bill] == [
        (one["input_tokens"], one["output_tokens"]) for one in used if one is not None
    ]


@pytest.mark.req("SCRIPTED-4")
def test_json_schema(client: openai.OpenAI) -> None:
    """A schema-bound answer is JSON that fits the schema."""
    answer = ask(client, "x", response_format=shape("verdict"))
    assert {"ok": True, "why": "turn 0"} == json.loads(answer.choices[0].message.content)


@pytest.mark.req("SCRIPTED-2")
def test_the_same_request_gives_the_same_bytes() -> None:
    """Two servers answer the same bodies with the same bytes, ids included, in whatever order they come."""
    bodies = [
        {"model": "m", "messages": [{"role": "user", "content": f"go {number % 4}"}], "tools": TOOLS}
        for number in range(8)
    ]

    def answers(order: list[dict[str, Any]]) -> list[str]:
        with ScriptedProvider(parse_scenario(SCENARIO), clock=lambda: 5) as serving, httpx.Client() as http:
            headers = {"x-midwatch-agent": "lone"}
            url = f"{serving.base_url}/chat/completions"
            return sorted(http.post(url, json=body, headers=headers).text for body in order)

    first = answers(bodies)
    assert first == answers(bodies[::-1])
    assert 8 == len(set(first))  # the same body asked twice has other ids the second time


@pytest.mark.req("SCRIPTED-5")
@pytest.mark.parametrize("stream", [False, True])
def test_text_is_cut_at_the_cap(provider: ScriptedProvider, client: openai.OpenAI, stream: bool) -> None:
    """An answer over the cap is cut, not in the middle of a character, says `length`, and is billed as cut."""
    options: dict[str, Any] = {"stream": True} if stream else {}
    answer = ask(client, "long", max_tokens=3, **options)
    parts = list(answer) if stream else []
    text = "".join(p.choices[0].delta.content or "" for p in parts) if stream else answer.choices[0].message.content
    reason = parts[-1].choices[0].finish_reason if stream else answer.choices[0].finish_reason
    assert ("0123456789é", "length") == (text, reason)
    assert 3 == provider.bill[0].completion_tokens
    tight = ask(client, "long", max_completion_tokens=11 // 4, max_tokens=100).choices[0]
    assert ("01234567", "length") == (tight.message.content, tight.finish_reason)
    assert "stop" == ask(client, "long", max_tokens=6).choices[0].finish_reason


@pytest.mark.req("SCRIPTED-5")
def test_tool_calls_are_cut_at_the_cap(client: openai.OpenAI) -> None:
    """The budget goes to text first, then to the calls in order; what is over it is missing."""
    choice = ask(client, "calls", tools=TOOLS, max_tokens=4).choices[0]
    assert ("0123", "length") == (choice.message.content, choice.finish_reason)
    assert [("disks", '{"limit')] == [(c.function.name, c.function.arguments) for c in choice.message.tool_calls]


@pytest.mark.req("SCRIPTED-5", "SCRIPTED-7")
def test_given_usage_is_clamped_and_priced(provider: ScriptedProvider, client: openai.OpenAI) -> None:
    """Usage from the scenario is reported, billed with its cached part, and never over the cap."""
    usage = ask(client, "priced").usage
    assert (1000, 400, 50) == (usage.prompt_tokens, usage.prompt_tokens_details.cached_tokens, usage.completion_tokens)
    assert 600 // 4 + 400 // 40 + 100 == provider.bill[0].cost_microusd
    assert 20 == ask(client, "priced", max_tokens=20).usage.completion_tokens


@pytest.mark.req("SCRIPTED-4")
def test_matching_by_prompt_and_metadata(client: openai.OpenAI) -> None:
    """A rule can match on the prompt, and the agent can come in `metadata`; both texts must be there."""
    prompt = [{"role": "system", "content": "You are the editor, in German"}, {"role": "user", "content": "x"}]
    assert "Guten Abend" == ask(client, "", prompt).choices[0].message.content
    answer = client.chat.completions.create(
        model="m", messages=[{"role": "user", "content": "x"}], metadata={"agent": "hello"}
    )
    assert "hello x" == answer.choices[0].message.content
    with pytest.raises(openai.BadRequestError, match="metadata"):
        ask(client, "other", metadata={"agent": "hello"})


@pytest.mark.req("SCRIPTED-3")
@pytest.mark.parametrize(
    ("agent", "options", "words"),
    [
        ("nobody", {}, "agent `nobody` at turn 0"),
        ("odd", {}, "`odd` (scenario.yaml:27): expression `results[3].name`"),
        ("odd-when", {}, "`odd condition` (scenario.yaml:28): expression"),
        ("foreign", {"tools": TOOLS}, "`erase`, which was not offered"),
        ("calls", {}, "not offered (offered: none)"),
        ("broken-call", {"tools": TOOLS}, "tool call 1 must be"),
        ("lone", {"tools": TOOLS, "tool_choice": "none"}, "`tool_choice: none`"),
        ("lone", {"tools": TOOLS, "parallel_tool_calls": False}, "`parallel_tool_calls: false`"),
        ("hello", {"tools": TOOLS, "tool_choice": "required"}, "demands one"),
        ("lone", {"tools": TOOLS, "tool_choice": {"type": "function", "function": {"name": "disks"}}}, "no other tool"),
        ("x", {"response_format": shape("bent")}, "breaks the schema `bent` at `/"),
        ("x", {"response_format": shape("talk")}, "use `answer`"),
        ("hello", {"response_format": {"type": "json_object"}}, "use `answer`"),
    ],
)
def test_what_cannot_be_answered_is_loud_and_free(
    provider: ScriptedProvider, client: openai.OpenAI, agent: str, options: dict[str, Any], words: str
) -> None:
    """Each is an HTTP 500 that says where the scenario is wrong; nothing is made up and nothing is billed."""
    for stream in (False, True):
        with pytest.raises(openai.InternalServerError) as caught:
            ask(client, agent, stream=stream, **options)
        assert 500 == caught.value.status_code
        assert words in error(caught.value)["message"]
        assert "scenario_error" == error(caught.value)["type"]
        assert "false" == caught.value.response.headers["x-should-retry"]
    assert () == provider.bill


@pytest.mark.req("SCRIPTED-3")
def test_a_loose_schema_is_not_enforced(client: openai.OpenAI) -> None:
    """Without `strict` a real model may break the schema, so a scenario may too."""
    answer = ask(client, "x", response_format=shape("bent", strict=False))
    assert {"ok": "maybe"} == json.loads(answer.choices[0].message.content)


CALL = {"id": "c1", "type": "function", "function": {"name": "disks", "arguments": "{}"}}
USER = {"role": "user", "content": "x"}


@pytest.mark.req("SCRIPTED-5")
@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "robot", "content": "x"}]}, "role"),
        ({"messages": [{"role": "user"}]}, "content"),
        ({"messages": [{"role": "tool", "tool_call_id": "c1", "content": "x"}]}, "preceding"),
        ({"messages": [USER, {"role": "assistant", "tool_calls": [CALL]}]}, "without a tool message"),
        ({"messages": [USER, {"role": "assistant", "tool_calls": [CALL]}, USER]}, "without a tool message"),
        ({"messages": [USER, {"role": "assistant", "tool_calls": [CALL, CALL]}]}, "twice"),
        ({"messages": [USER, {"role": "assistant", "tool_calls": [{"id": "c"}]}]}, "function"),
        ({"model": ""}, "model"),
        ({"n": 2}, "n: 1"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_completion_tokens": True}, "max_completion_tokens"),
        ({"stream_options": {"include_usage": True}}, "stream"),
        ({"tools": []}, "tools"),
        ({"tools": [{"type": "function", "function": {"name": "host.disks"}}]}, "host.disks"),
        ({"tool_choice": "auto"}, "tools"),
        ({"tools": TOOLS, "tool_choice": {"type": "function", "function": {"name": "erase"}}}, "erase"),
        ({"response_format": {"type": "xml"}}, "response_format"),
        ({"response_format": {"type": "json_schema", "json_schema": {"name": "a.b", "schema": {}}}}, "response_format"),
        ({"metadata": {"agent": 1}}, "metadata"),
    ],
)  # fmt: skip
def test_a_request_that_breaks_the_protocol_is_400(
    provider: ScriptedProvider, change: dict[str, Any], words: str
) -> None:
    """What the real API refuses is refused here, so that no test passes with a conversation that it would not take."""
    body = {"model": "m", "messages": [USER], **change}
    response = httpx.post(f"{provider.base_url}/chat/completions", json=body, headers={"x-midwatch-agent": ""})
    assert 400 == response.status_code, response.text
    assert words in response.json()["error"]["message"]
    assert () == provider.bill


@pytest.mark.req("SCRIPTED-5")
def test_other_refusals(provider: ScriptedProvider, client: openai.OpenAI) -> None:
    """An unknown model, path, body, or type of body each has its status, and the connection stays usable."""
    with pytest.raises(openai.NotFoundError, match="does not exist"):
        client.chat.completions.create(model="none", messages=[{"role": "user", "content": "x"}])
    assert ["m", "other"] == [model.id for model in client.models.list()]
    json_type = {"content-type": "application/json"}
    with httpx.Client(base_url=provider.url) as http:
        assert 400 == http.post("/v1/chat/completions", content="{no", headers=json_type).status_code
        assert 400 == http.post("/v1/chat/completions", content="[1]", headers=json_type).status_code
        assert 415 == http.post("/v1/chat/completions", content="{}").status_code
        assert 404 == http.post("/v1/completions", content="{}").status_code
        assert 404 == http.get("/").status_code
        assert 404 == http.delete("/bill").status_code
        assert 411 == http.post("/v1/chat/completions", content=iter([b"{}"])).status_code
        assert 501 == http.request("PATCH", "/bill").status_code
        assert 0 == http.get("/bill").json()["totals"]["requests"]


@pytest.mark.req("SCRIPTED-5")
@pytest.mark.parametrize(
    ("head", "status"),
    [
        ("POST /v1/chat/completions HTTP/1.1\r\ncontent-length: 99999999999", "413"),
        ("POST /v1/chat/completions HTTP/1.1\r\ncontent-length: -1", "413"),
        ("POST /v1/chat/completions HTTP/1.1\r\ncontent-length: x", "413"),
        ("GET /bill HTTP/9.9", "505"),
        ("rubbish", "400"),
    ],
)
def test_what_is_hardly_http(provider: ScriptedProvider, head: str, status: str) -> None:
    """Impossible lengths and broken request lines get a JSON error, and the connection is closed."""
    port = int(provider.url.rpartition(":")[2])
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        connection.sendall(f"{head}\r\n\r\n".encode())
        answer = b"".join(iter(lambda: connection.recv(4096), b"")).decode()
    assert status == answer.split()[1]
    assert json.loads(answer.rpartition("\r\n\r\n")[2])["error"]["message"]


@pytest.mark.req("SCRIPTED-5")
def test_the_api_key_is_checked() -> None:
    """With `api_key` no other bearer gets anything, the bill and the control endpoint included."""
    text = "scenario: 1\napi_key: sesame\nrules: [{say: in}]"
    with ScriptedProvider(parse_scenario(text), clock=lambda: 0) as serving:
        for key in ("wrong", "sesam", "sesame2"):
            with (
                openai.OpenAI(base_url=serving.base_url, api_key=key, max_retries=0) as sdk,
                pytest.raises(openai.AuthenticationError),
            ):
                ask(sdk, "a")
        for path in ("/bill", "/v1/models"):
            assert 401 == httpx.get(serving.url + path).status_code
        assert 401 == httpx.post(f"{serving.url}/control/faults", json={"fault": "empty"}).status_code
        with openai.OpenAI(base_url=serving.base_url, api_key="sesame", max_retries=0) as sdk:
            assert "in" == ask(sdk, "a").choices[0].message.content
        assert 1 == len(serving.bill)


@pytest.mark.req("SCRIPTED-7")
def test_thirty_two_at_once_are_billed_exactly(tmp_path: Path) -> None:
    """32 clients at once, half of them streaming: every request is one line, and the sums are those they were told."""
    path = tmp_path / "bill.jsonl"
    with (
        ScriptedProvider(parse_scenario(SCENARIO), bill=path, clock=lambda: 1) as serving,
        openai.OpenAI(base_url=serving.base_url, api_key="any", max_retries=0, timeout=60) as sdk,
        ThreadPoolExecutor(32) as pool,
    ):

        def one(number: int) -> tuple[int, int]:
            said = [{"role": "user", "content": "x" * number}]
            key = {"idempotency-key": f"key-{number}"}
            if number % 2:
                options = {"stream": True, "stream_options": {"include_usage": True}}
                usage = list(ask(sdk, "hello", said, key=key, **options))[-1].usage
            else:
                usage = ask(sdk, "hello", said, key=key).usage
            return usage.prompt_tokens, usage.completion_tokens

        told = list(pool.map(one, range(1, 129)))
        report = httpx.get(f"{serving.url}/bill").json()
        assert 128 == len(serving.requests)
    rows = [json.loads(row) for row in path.read_text().splitlines()]
    assert list(range(1, 129)) == [row["seq"] for row in rows]
    assert {f"key-{number}" for number in range(1, 129)} == {row["idempotency_key"] for row in rows}
    assert {number: (-(-number // 4), -(-(number + 6) // 4)) for number in range(1, 129)} == dict(enumerate(told, 1))
    assert sorted(told) == sorted((row["prompt_tokens"], row["completion_tokens"]) for row in rows)
    assert sum(-(-(prompt + 8 * completion) // 4) for prompt, completion in told) == report["totals"]["cost_microusd"]


@pytest.mark.req("SCRIPTED-2")
def test_the_example_of_the_reference_runs() -> None:
    """The scenario that the reference prints answers as its comments say, from plan to report."""
    found = re.search(r"```yaml\n(scenario: 1.*?)```", REFERENCE.read_text(encoding="utf-8"), re.DOTALL)
    assert found is not None
    tools = [{"type": "function", "function": {"name": n}} for n in ("host_disks", "host_memory", "git_log")]
    gib = 2**30
    disks = [{"mount": "/", "used": 95 * gib, "size": 100 * gib}, {"mount": "/x", "used": gib, "size": 0}]
    with (
        ScriptedProvider(parse_scenario(found.group(1)), clock=lambda: 0) as serving,
        openai.OpenAI(base_url=serving.base_url, api_key="any", max_retries=0, timeout=20) as sdk,
    ):

        def say(agent: str, messages: list[Any]) -> Any:
            body: dict[str, Any] = {"model": "gpt-5-mini", "messages": messages, "tools": tools}
            return sdk.chat.completions.create(**body, extra_headers={"x-midwatch-agent": agent}).choices[0].message

        def told(agent: str, envelope: object) -> dict[str, Any]:
            call = say(agent, [USER]).model_dump(exclude_none=True)
            results = [
                {"role": "tool", "tool_call_id": c["id"], "content": json.dumps(envelope)} for c in call["tool_calls"]
            ]
            return dict(json.loads(say(agent, [USER, call, *results]).content))

        assert ["storage", "repo"] == [task["agent"] for task in json.loads(say("ceo", [USER]).content)["dispatches"]]
        storage = told("storage", {"ok": True, "data": {"disks": disks}, "refs": ["e:1"]})
        assert [{"text": "/ holds 95.0 GiB, 95 %", "evidence": ["e:1"]}] == storage["changed"]
        assert [{"text": "a disk is nearly full", "evidence": []}] == storage["risks"]
        with pytest.raises(openai.RateLimitError) as caught:
            say("repo", [USER])
        assert "1" == caught.value.response.headers["retry-after"]
        repo = told("repo", {"ok": True, "data": {"commits": [{"subject": "fix: the pump"}]}, "refs": ["e:2"]})
        assert ["e:2"] == repo["changed"][0]["evidence"]
        prompt = [
            {"role": "system", "content": "You are the editor."},
            {"role": "user", "content": f"Handoffs:\n{json.dumps(storage)}\nand\n{json.dumps(repo)}"},
        ]
        report = say("", prompt).content
    assert "# The night\n\n- / holds 95.0 GiB, 95 %\n- fix: the pump\n" == report
