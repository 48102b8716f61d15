"""The protocol for models without tool calls of their own."""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any

import pytest

from midwatch.config.specs import RouteSpec
from midwatch.models.constrained import Reading, constrained_payload, read_answer, step_schema
from midwatch.models.openai import open_model
from midwatch.models.scripted import ScriptedProvider, parse_scenario
from midwatch.records.chat import ChatAnswer, ChatRequest, Message, ToolOffer, ToolRequest
from midwatch.recovery import compile_schema
from tests.contract.models_raw_server import RawServer, delta, sse, usage

NODE = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "type": "object",
    "properties": {"child": {"$ref": "#"}, "kind": {"$ref": "#/$defs/kind"}},
    "required": ["kind"],
    "additionalProperties": False,
    "$defs": {"kind": {"enum": ["a", "b"]}},
}
LIMIT = {
    "type": "object",
    "properties": {"limit": {"type": "integer"}},
    "required": ["limit"],
    "additionalProperties": False,
}
TOOLS = (ToolOffer("host.disks", "looks at disks", LIMIT), ToolOffer("tree.walk", "walks", NODE))
ANSWER = {
    "type": "object",
    "properties": {"ok": {"type": "boolean"}},
    "required": ["ok"],
    "additionalProperties": False,
}


def ask(*messages: Message, tools: tuple[ToolOffer, ...] = TOOLS, schema: Any = None) -> ChatRequest:
    """A request on a constrained route."""
    return ChatRequest("a", "r", messages or (Message("user", "hi"),), 500, tools, schema)


@pytest.mark.req("MODELS-12")
def test_references_survive_nesting() -> None:
    """A tool schema that refers to itself still means the same inside the schema of one step."""
    schema = compile_schema(step_schema(ask()) or {})
    nested = {"tool": "tree.walk", "args": {"kind": "a", "child": {"kind": "b"}}}
    assert schema.fits(nested)
    assert not schema.fits({"tool": "tree.walk", "args": {"kind": "a", "child": {"kind": "c"}}})
    assert not schema.fits({"tool": "host.disks", "args": {"kind": "a"}})
    assert not schema.fits({"tool": "nope", "args": {}})
    assert schema.fits({"final": "done"})
    assert not schema.fits({"final": "done", "tool": "host.disks", "args": {"limit": 1}})


@pytest.mark.req("MODELS-12")
@pytest.mark.parametrize(
    ("text", "schema", "expected"),
    [
        ('{"tool": "host.disks", "args": {"limit": 2}}', None, Reading("", ("host.disks", '{"limit": 2}'))),
        ('{"final": "all well"}', None, Reading("all well", None)),
        ('{"final": {"ok": true}}', ANSWER, Reading('{"ok": true}', None)),
        ('Sure!\n```json\n{"final": "x"}\n```', None, Reading("x", None, ("fenced",))),
        ("I would look at the disks.", None, Reading("I would look at the disks.", None, ("unreadable:no_candidate",))),
        ('{"tool": "rm", "args": {}}', None, Reading('{"tool": "rm", "args": {}}', None, ("unreadable:schema",))),
        ("", None, Reading("", None, ("unreadable:empty",))),
    ],
)
def test_reading(text: str, schema: Any, expected: Reading) -> None:
    """Exact text is read silently, other text with the rule that read it, and what cannot be read stays text."""
    assert expected == read_answer(ask(schema=schema), text, truncated=False)


@pytest.mark.req("MODELS-12")
def test_cut_text_is_not_guessed() -> None:
    """A call that was cut at the output limit never becomes a call."""
    reading = read_answer(ask(), '{"tool": "host.disks", "args": {"limit": 2', truncated=True)
    assert (None, ("unreadable:truncated",)) == (reading.call, reading.signals)


def test_duplicate_keys_are_refused() -> None:
    """Two values under one key are a doubt, and a doubt is no call."""
    text = '{"tool": "host.disks", "args": {"limit": 1, "limit": 2}}'
    assert (None, ("unreadable:duplicate_keys",)) == (
        (got := read_answer(ask(), text, truncated=False)).call,
        got.signals,
    )


def test_conversation_becomes_plain_words() -> None:
    """No tool role and no tool calls go out: such servers know neither."""
    request = ask(
        Message("system", "Be brief."),
        Message("user", "hi"),
        Message("assistant", "", (ToolRequest("1", "host.disks", '{"limit": 2}'),)),
        Message("tool", '{"free": 3}', tool_call_id="1", name="host.disks"),
    )
    payload = constrained_payload(request)
    assert payload.tools is None
    assert ["system", "user", "assistant", "user"] == [one["role"] for one in payload.messages]
    assert payload.messages[0]["content"].startswith("Be brief.\n\nAnswer with exactly one JSON object")
    assert {"tool": "host.disks", "args": {"limit": 2}} == json.loads(payload.messages[2]["content"])
    assert 'Result of `host.disks`: {"free": 3}' == payload.messages[3]["content"]


def test_free_text_needs_no_schema() -> None:
    """Without tools and without an answer schema the model just writes."""
    request = ask(tools=())
    assert constrained_payload(request).response_format is None
    assert Reading("{x", None) == read_answer(request, "{x", truncated=False)


async def _once(url: str, request: ChatRequest) -> ChatAnswer:
    spec = RouteSpec("r", "r", "openai", "m", base_url=url, protocol="constrained")
    model = open_model(spec, environ={}, clock=lambda: time.time_ns() // 1000)
    return await model.chat(request, max_output=500, deadline_us=time.time_ns() // 1000 + 10_000_000)


@pytest.mark.req("MODELS-12")
def test_through_the_client() -> None:
    """Through the real client and a server that obeys the schema, the model's JSON becomes a tool call."""
    rule = "{name: c, answer: {tool: host.disks, args: {limit: 3}}}"
    with ScriptedProvider(parse_scenario(f"scenario: 1\nrules: [{rule}]\n"), clock=lambda: 0) as server:
        answer = asyncio.run(_once(server.base_url, ask(tools=TOOLS[:1])))
        sent = server.requests[0]
    assert [("host.disks", {"limit": 3})] == [(one.name, json.loads(one.arguments)) for one in answer.tool_calls]
    assert ("tool_calls", "", ()) == (answer.finish, answer.content, answer.signals)
    assert "tools" not in sent
    assert "anyOf" in sent["response_format"]["json_schema"]["schema"]


@pytest.mark.req("MODELS-12")
def test_through_a_server_without_grammar() -> None:
    """A server that takes the schema as a mere wish gets its prose read, and the answer carries the signal."""
    prose = 'Sure: {"tool": "host.disks", "args": {"limit": 3}} there.'
    with RawServer(sse(delta(content=prose), delta("stop"), usage(prompt_tokens=9, completion_tokens=9))) as server:
        answer = asyncio.run(_once(server.url, ask(tools=TOOLS[:1])))
    assert [("host.disks", '{"limit": 3}')] == [(one.name, one.arguments) for one in answer.tool_calls]
    assert ("scan",) == answer.signals
