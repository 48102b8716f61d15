"""The proven bound on input tokens."""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from midwatch.config.specs import Protocol, RouteSpec
from midwatch.models.constrained import constrained_payload
from midwatch.models.openai import open_model
from midwatch.models.tokens import input_bound, live_meter
from midwatch.models.wire import Names, native_payload
from midwatch.records.chat import ChatRequest, Message, ToolOffer, ToolRequest
from tests.contract.models_raw_server import RawServer, delta, sse, usage

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=60)
SCHEMAS = st.recursive(
    st.fixed_dictionaries({"type": st.just("string"), "description": TEXT}),
    lambda inner: st.fixed_dictionaries(
        {"type": st.just("object"), "properties": st.dictionaries(TEXT, inner, max_size=3)}
    ),
    max_leaves=6,
)
CALLS = st.lists(st.builds(ToolRequest, st.just("id"), TEXT, TEXT), max_size=2).map(tuple)
MESSAGES = st.one_of(
    st.builds(Message, st.sampled_from(["system", "user"]), TEXT),
    st.builds(Message, st.just("assistant"), TEXT, CALLS),
    st.builds(lambda text: Message("tool", text, tool_call_id="id", name="t"), TEXT),
)
REQUESTS = st.builds(
    ChatRequest,
    st.just("a"),
    st.just("r"),
    st.lists(MESSAGES, min_size=1, max_size=5).map(tuple),
    st.just(10),
    st.lists(st.builds(ToolOffer, TEXT, TEXT, SCHEMAS), max_size=3, unique_by=lambda tool: tool.name).map(tuple),
    st.none() | SCHEMAS,
)


@pytest.mark.req("MODELS-8")
@given(REQUESTS, st.sampled_from(["native", "constrained"]))
@settings(deadline=None, max_examples=200)
def test_bound_is_over_the_bytes(request: ChatRequest, protocol: str) -> None:
    """The bound is at least the bytes of all that is sent, however schemas are printed."""
    payload = constrained_payload(request) if protocol == "constrained" else native_payload(request, Names.of(request))
    bound = input_bound(request, protocol=protocol)
    for ascii_only in (True, False):
        for indent in (None, 4):
            parts = [payload.tools, payload.response_format]
            schemas = [json.dumps(part, ensure_ascii=ascii_only, indent=indent) for part in parts]
            sent = json.dumps(payload.messages, ensure_ascii=False) + "".join(one for one in schemas if one != "null")
            assert bound >= len(sent.encode())


@pytest.mark.req("MODELS-8")
@pytest.mark.parametrize("protocol", ["native", "constrained"])
def test_bound_is_over_the_real_body(protocol: Protocol) -> None:
    """What the real client puts on the wire is smaller than the bound."""
    tools = tuple(ToolOffer(f"host.tool{number}", "é" * 20, {"type": "object"}) for number in range(3))
    call = ToolRequest("1", "host.tool1", '{"a": "\\u00e9 é"}')
    messages = (
        Message("system", "Sei kurz. 简短。"),
        Message("user", '\x00\n"quoted" ' * 50),
        Message("assistant", "", (call,)),
        Message("tool", '{"free": 3}', tool_call_id="1", name="host.tool1"),
    )
    request = ChatRequest("a", "r", messages, 10, tools, {"type": "object", "properties": {"ü": {"type": "string"}}})

    async def run(url: str) -> None:
        spec = RouteSpec("r", "r", "openai", "m", base_url=url, protocol=protocol)
        model = open_model(spec, environ={}, clock=lambda: time.time_ns() // 1000)
        await model.chat(request, max_output=10, deadline_us=time.time_ns() // 1000 + 10_000_000)

    answer = sse(delta("stop", content='{"final": {}}'), usage(prompt_tokens=1, completion_tokens=1))
    with RawServer(answer) as server:
        asyncio.run(run(server.url))
    assert input_bound(request, protocol=protocol) >= len(server.bodies[0])


def test_bound_survives_normalisation() -> None:
    """Tokenizers that normalise first may lengthen a text; the bound already counts the longest form."""
    text = "\ufdfa" * 100  # one sign, three bytes, becomes 18 letters under NFKC
    request = ChatRequest("a", "r", (Message("user", text),), 10)
    assert input_bound(request, protocol="native") >= 33 * 100 > len(text.encode())


def test_bound_takes_any_text() -> None:
    """A text that is no UTF-8 has a bound too; that it cannot be sent is found later."""
    assert input_bound(ChatRequest("a", "r", (Message("user", "\ud800"),), 10), protocol="native") > 0


@pytest.mark.req("MODELS-5")
@pytest.mark.parametrize("cap", [1, 100, 4096])
def test_live_meter_spares_honest_answers(cap: int) -> None:
    """The built-in meter lets any text of the cap's length in tokens pass, and ends one that is far over it."""
    meter = live_meter(cap)
    honest: Any = 16 * cap
    assert (False, True) == (meter(honest), meter(32 * cap + 4097))
