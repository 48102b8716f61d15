"""Serving: what a program may ask of its model, and how it is answered."""

from __future__ import annotations

from typing import Any

import pytest

from midwatch.models import serving
from midwatch.records.chat import ChatAnswer, Message, ToolOffer, ToolRequest, Usage

USER: dict[str, Any] = {"role": "user", "content": "hi"}
TOOL: dict[str, Any] = {
    "type": "function",
    "function": {"name": "ops_look", "description": "Look.", "parameters": {"type": "object"}},
}
CALL: dict[str, Any] = {"id": "c1", "type": "function", "function": {"name": "ops_look", "arguments": "{}"}}


def read(**body: Any) -> serving.Asked:
    """Read a request of the agent `a`."""
    return serving.read({"model": "x", "messages": [USER], **body}, agent="a", route="smart", max_output=100)


@pytest.mark.req("COMMAND-16")
def test_a_conversation_becomes_the_kernels_own_request() -> None:
    """Every role, parts of text, tool calls and their answers; the route and the agent are not the program's to choose."""
    messages = [
        {"role": "developer", "content": "Be brief."},
        {"role": "user", "content": [{"type": "text", "text": "lo"}, {"type": "text", "text": "ok"}]},
        {"role": "assistant", "content": None, "tool_calls": [CALL]},
        {"role": "tool", "tool_call_id": "c1", "content": "{}"},
    ]
    asked = read(
        messages=messages, tools=[TOOL], tool_choice="auto", temperature=0.3, user="me", metadata={"agent": "b"}
    )
    call = ToolRequest("c1", "ops_look", "{}")
    expected = (
        Message("system", "Be brief."),
        Message("user", "look"),
        Message("assistant", "", (call,)),
        Message("tool", "{}", tool_call_id="c1", name="ops_look"),
    )
    assert expected == asked.request.messages
    assert ("a", "smart", (ToolOffer("ops_look", "Look.", {"type": "object"}),)) == (
        asked.request.agent,
        asked.request.route,
        asked.request.tools,
    )


@pytest.mark.req("COMMAND-16")
@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({}, (100, (), None, "answer")),
        ({"max_tokens": 7}, (7, (), None, "answer")),
        ({"max_completion_tokens": 9_999}, (100, (), None, "answer")),
        ({"tools": [TOOL], "tool_choice": "none"}, (100, (), None, "answer")),
        ({"response_format": {"type": "json_object"}}, (100, (), {"type": "object"}, "json_object")),
        (
            {
                "response_format": {
                    "type": "json_schema",
                    "json_schema": {"name": "My-City", "schema": {"type": "object"}},
                }
            },
            (100, (), {"type": "object"}, "my_city"),
        ),
    ],
)
def test_settings_that_hold(body: dict[str, Any], expected: tuple[Any, ...]) -> None:
    """The bound of an answer is never raised, tools can be left out, a shape is passed on."""
    asked = read(**body).request
    assert expected == (asked.max_output, asked.tools, asked.answer_schema, asked.answer_name)


@pytest.mark.req("COMMAND-16")
@pytest.mark.parametrize(
    "body",
    [
        {"n": 2},
        {"stop": ["x"]},
        {"logprobs": True},
        {"functions": [{}]},
        {"modalities": ["audio"]},
        {"tools": [TOOL], "tool_choice": "required"},
        {"tools": [TOOL, TOOL]},
        {"tools": [TOOL] * 129},
        {"tools": [{"type": "function", "function": {"name": "a b"}}]},
        {"tools": [{"type": "function", "function": {"name": "a", "parameters": [1]}}]},
        {"messages": []},
        {"messages": [USER] * 4_097},
        {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]},
        {"messages": [{"role": "tool", "tool_call_id": "c1", "content": "{}"}]},
        {"messages": [USER, {"role": "assistant", "content": None, "tool_calls": [CALL]}]},
        {"model": None},
        {"stream_options": {"include_usage": True}},
    ],
)
def test_what_is_not_served_is_refused(body: dict[str, Any]) -> None:
    """Nothing that changes an answer's meaning is dropped in silence."""
    with pytest.raises(serving.Refused) as refused:
        read(**body)
    assert 400 == refused.value.status


@pytest.mark.req("COMMAND-3")
def test_an_answer_is_the_same_each_time_whole_or_in_pieces() -> None:
    """Ids and times do not change from start to start; the pieces make the whole."""
    answer = ChatAnswer("text", (ToolRequest("c1", "ops_look", '{"a":1}'),), Usage(5, 7, 2), "tool_calls", "tiny")
    whole = serving.object_of(answer, "d-0")
    chunks = list(serving.chunks(answer, "d-0", include_usage=True))
    message = whole["choices"][0]["message"]
    assert ("chatcmpl-d-0", 0, "tiny", 12) == (
        whole["id"],
        whole["created"],
        whole["model"],
        whole["usage"]["total_tokens"],
    )
    deltas = [chunk["choices"][0]["delta"] for chunk in chunks if chunk["choices"]]
    assert message["content"] == "".join(delta.get("content") or "" for delta in deltas)
    calls = [call for delta in deltas for call in delta.get("tool_calls", ())]
    assert ("ops_look", '{"a":1}') == (
        calls[0]["function"]["name"],
        "".join(call["function"]["arguments"] for call in calls),
    )
    assert whole["usage"] == chunks[-1]["usage"]
    assert "tool_calls" == next(chunk["choices"][0]["finish_reason"] for chunk in reversed(chunks) if chunk["choices"])
    assert all("usage" not in chunk for chunk in serving.chunks(answer, "d-0", include_usage=False))
