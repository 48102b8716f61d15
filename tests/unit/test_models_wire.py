"""Names and messages on their way to a provider, and events on their way back."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from midwatch.errors import ModelFailure
from midwatch.models.assembly import Assembly, call_id
from midwatch.models.wire import Names, native_payload, response_format
from midwatch.records.chat import ChatAnswer, ChatRequest, Message, ToolOffer, ToolRequest, Usage
from tests.contract.models_raw_server import delta, usage

REQUEST = ChatRequest("a", "r", (Message("user", "hi"),), 100, (ToolOffer("host.disks", "d", {"type": "object"}),))
COUNTS = usage(prompt_tokens=10, completion_tokens=5, total_tokens=15)

CLOSED = {"type": "object", "properties": {"a": {"type": "string"}}, "additionalProperties": False}


def read(*events: Any, request: ChatRequest = REQUEST) -> ChatAnswer:
    """Assemble an answer from its events."""
    assembly = Assembly("r")
    for event in events:
        assembly.feed(event)
    return assembly.answer(request, Names.of(request))


def refused(*events: Any) -> ModelFailure:
    """The failure that these events lead to; an answer that was begun may have been charged."""
    with pytest.raises(ModelFailure) as caught:
        read(*events)
    assert caught.value.dispatched
    return caught.value


def call(index: int | None = 0, **parts: Any) -> dict[str, Any]:
    """A fragment of a tool call."""
    function = {key: parts.pop(key) for key in ("name", "arguments") if key in parts}
    return {**({} if index is None else {"index": index}), **parts, "function": function}


@pytest.mark.req("MODELS-6")
@given(st.lists(st.text(max_size=80), unique=True, max_size=12), st.lists(st.text(max_size=80), max_size=4))
def test_names_are_one_to_one(offered: list[str], mentioned: list[str]) -> None:
    """Every name becomes one that providers take, no two the same, and comes back as it was."""
    names = Names(offered, mentioned)
    wire = [names.to_wire(name) for name in {*offered, *mentioned}]
    assert len(wire) == len(set(wire))
    assert all(re.fullmatch(r"[A-Za-z0-9_-]{1,64}", name) for name in wire)
    assert offered == [names.from_wire(names.to_wire(name)) for name in offered]


def test_names_are_stable() -> None:
    """A valid name stays, a dot becomes `_`, the order of offers and what was mentioned change nothing."""
    names = Names(["host.disks", "host_disks", "git-log"], ["host/disks"])
    again = Names(["git-log", "host_disks", "host.disks"])
    assert ("host_disks", "git-log") == (names.to_wire("host_disks"), names.to_wire("git-log"))
    assert names.to_wire("host.disks") == again.to_wire("host.disks") != "host_disks"
    assert "host_disks" == Names(["host.disks"], ["host_disks"]).to_wire("host.disks")


def test_unknown_names_stay() -> None:
    """A name that was not offered stays as the model wrote it, also one that only history mentions."""
    names = Names(["host.disks"], ["files.gone"])
    assert ("host.disks", "files_gone", "x y") == tuple(map(names.from_wire, ("host_disks", "files_gone", "x y")))


def test_history_goes_out_as_it_was() -> None:
    """Arguments of earlier calls keep their bytes; what is no object is wrapped, since servers parse it again."""
    raw = '{"a": 1, "a": 2}'
    calls = (ToolRequest("1", "host.disks", raw), ToolRequest("2", "gone.tool", '{"a":'), ToolRequest("3", "x", "[1]"))
    request = ChatRequest("a", "r", (Message("assistant", "", calls),), 100, REQUEST.tools)
    message = native_payload(request, Names.of(request)).messages[0]
    assert message["content"] is None
    functions = [one["function"] for one in message["tool_calls"]]
    assert ["host_disks", "gone_tool", "x"] == [one["name"] for one in functions]
    assert raw == functions[0]["arguments"]
    assert [{"malformed_arguments": '{"a":'}, {"malformed_arguments": "[1]"}] == [
        json.loads(one["arguments"]) for one in functions[1:]
    ]


@pytest.mark.parametrize(
    ("schema", "strict"),
    [
        ({**CLOSED, "required": ["a"]}, True),
        ({**CLOSED, "required": []}, False),
        ({"type": "object", "properties": {}, "required": []}, False),
        ({"type": "array", "items": {"type": "string"}}, False),
        ({"type": "object", "properties": {}, "required": [], "additionalProperties": False, "allOf": []}, False),
    ],
)
def test_strict_only_where_allowed(schema: dict[str, Any], strict: bool) -> None:
    """`strict` is asked for only where OpenAI's subset of JSON Schema allows it; elsewhere it fails."""
    assert strict is response_format("x", schema)["json_schema"]["strict"]


@pytest.mark.req("MODELS-6")
def test_interleaved_fragments() -> None:
    """Fragments of several calls may come mixed; each call is put together, in the order of its index."""
    answer = read(
        delta(
            tool_calls=[call(1, id="b", name="x.y", arguments=""), call(0, id="a", name="host_disks", arguments='{"l')]
        ),
        delta(tool_calls=[call(0, arguments='imit": 2}'), call(1, arguments="{}")]),
        delta("tool_calls"),
        COUNTS,
    )
    expected = (ToolRequest("a", "host.disks", '{"limit": 2}'), ToolRequest("b", "x.y", "{}"))
    assert expected == answer.tool_calls


@pytest.mark.req("MODELS-6")
def test_calls_without_index() -> None:
    """A server that leaves the index out, or gives every call the same one, loses no call."""
    without = [delta(tool_calls=[call(None, id=one, name="x", arguments="{}")]) for one in "ab"]
    same = [delta(tool_calls=[call(0, id=one, name="x", arguments="{}")]) for one in "ab"]
    for events in (without, same):
        assert ["a", "b"] == [one.id for one in read(*events, delta("stop"), COUNTS).tool_calls]


def test_ids_are_made_where_missing() -> None:
    """Missing and repeated ids are replaced by ones that the same conversation always gets."""
    fragments = [call(0, name="x", arguments="{}"), call(1, id="d", name="x", arguments="{}")]
    events = (delta(tool_calls=[*fragments, call(2, id="d", name="x", arguments="{}")]), delta("tool_calls"), COUNTS)
    first, again = read(*events), read(*events)
    assert first == again
    assert (call_id(REQUEST, 0), "d", call_id(REQUEST, 2)) == tuple(one.id for one in first.tool_calls)
    history = (Message("assistant", "", (ToolRequest("d", "x", "{}"),)), Message("tool", "", tool_call_id="d"))
    later = ChatRequest("a", "r", history, 100)
    assert "d" not in [one.id for one in read(*events, request=later).tool_calls]


def test_shapes_of_arguments() -> None:
    """No arguments become `{}` with a signal; an object instead of text becomes its text."""
    answer = read(
        delta(tool_calls=[call(0, id="a", name="x"), call(1, id="b", name="y", arguments={"k": "é"})]),
        delta("tool_calls"),
        COUNTS,
    )
    assert (["{}", '{"k": "é"}'], ("empty_arguments",)) == (
        [one.arguments for one in answer.tool_calls],
        answer.signals,
    )


@pytest.mark.parametrize(
    ("reason", "finish"),
    [
        ("stop", "stop"),
        ("eos_token", "stop"),
        ("length", "length"),
        ("max_tokens", "length"),
        ("safety", "content_filter"),
    ],
)
def test_finish_reasons(reason: str, finish: str) -> None:
    """The reasons of compatible servers are read as the API's own."""
    assert finish == read(delta(content="x"), delta(reason), COUNTS).finish


def test_refusal() -> None:
    """A refusal is an answer that is settled, not a result: its text, the finish `content_filter`, a signal."""
    answer = read(delta(refusal="I will "), delta(refusal="not."), delta("stop"), COUNTS)
    assert ("I will not.", "content_filter", ("refusal",)) == (answer.content, answer.finish, answer.signals)


def test_calls_with_finish_stop() -> None:
    """Some servers say `stop` beside tool calls; the calls decide."""
    answer = read(delta(tool_calls=[call(0, id="a", name="x", arguments="{}")]), delta("stop"), COUNTS)
    assert "tool_calls" == answer.finish


@pytest.mark.parametrize(
    ("counts", "expected"),
    [
        ([{"prompt_tokens": 10, "completion_tokens": 5}], Usage(10, 5, 0)),
        (
            [{"prompt_tokens": 10, "completion_tokens": 5, "prompt_tokens_details": {"cached_tokens": 4}}],
            Usage(10, 5, 4),
        ),
        (
            [{"prompt_tokens": 10, "completion_tokens": 5, "prompt_tokens_details": {"cached_tokens": 40}}],
            Usage(10, 5, 10),
        ),
        ([{"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 95}], Usage(10, 85, 0)),
        ([{"prompt_tokens": 10, "completion_tokens": one} for one in (1, 7, 3)], Usage(10, 7, 0)),
        (
            [{"prompt_tokens": 10, "completion_tokens": 5}, {"prompt_tokens": 0, "completion_tokens": 0}],
            Usage(10, 5, 0),
        ),
    ],
)
def test_usage(counts: list[dict[str, Any]], expected: Usage) -> None:
    """Usage counts hidden reasoning, never more cached than read, and the most of several reports."""
    assert expected == read(delta("stop"), *(usage(**one) for one in counts)).usage


@pytest.mark.req("MODELS-1")
@pytest.mark.parametrize(
    "counts",
    [
        {},
        {"prompt_tokens": 0, "completion_tokens": 0},
        {"prompt_tokens": -1, "completion_tokens": 5},
        {"prompt_tokens": 10},
        {"prompt_tokens": "10", "completion_tokens": 5},
        {"prompt_tokens": True, "completion_tokens": 5},
        {"prompt_tokens": 1.5, "completion_tokens": 5},
    ],
)
def test_unusable_usage(counts: dict[str, Any]) -> None:
    """Usage that is missing, empty, negative or no whole number settles nothing: the answer is refused."""
    assert ("no_usage", False) == ((failure := refused(delta("stop"), usage(**counts))).code, failure.retryable)


@pytest.mark.req("MODELS-1")
def test_no_finish() -> None:
    """No finish reason, or one that nobody knows, is no answer."""
    assert "no_finish" == refused(delta(content="x"), COUNTS).code
    failure = refused(delta("insufficient_system_resource"), COUNTS)
    assert ("no_finish", True) == (failure.code, "insufficient_system_resource" in str(failure))


@pytest.mark.parametrize(
    "events",
    [
        ([1, 2],),
        ("text",),
        (None,),
        (delta(tool_calls=["x"]),),
        (delta(tool_calls=[{"index": 0}]),),
        (delta("tool_calls"), COUNTS),
    ],
)
def test_malformed(events: tuple[Any, ...]) -> None:
    """Events of another shape, and `tool_calls` without a call, are failures and not silence."""
    assert "malformed" == refused(*events).code


def test_odd_events_are_harmless() -> None:
    """Empty choices, no delta, null parts and foreign fields change nothing."""
    odd: list[Any] = [
        {"choices": []},
        {"choices": None, "usage": None},
        {"choices": [{"delta": None}]},
        {"choices": [{"delta": {"content": None, "tool_calls": None, "reasoning_content": "hm"}}]},
        {"x_groq": {"id": "q"}},
    ]
    assert "xy" == read(*odd, delta(content="x"), *odd, delta(content="y"), delta("stop"), COUNTS, *odd).content


@pytest.mark.req("BAD-5")
def test_halves_of_characters_are_joined_or_replaced() -> None:
    """A server that cuts between the halves of a character loses nothing; a half alone, which no store can keep, becomes U+FFFD."""
    asked = call(0, id="a\ud800", name="host.disks", arguments='{"a": "\ud83d')
    answer = read(
        delta(content="so \ud83d"),
        delta(content="\ude00 \udc00!", tool_calls=[asked]),
        delta("tool_calls", tool_calls=[call(0, arguments='\ude00"}')]),
        COUNTS,
    )
    assert ("so \U0001f600 \ufffd!", "a\ufffd", '{"a": "\U0001f600"}') == (
        answer.content,
        answer.tool_calls[0].id,
        answer.tool_calls[0].arguments,
    )


def test_size_counts_all_that_is_generated() -> None:
    """The live bound counts text, reasoning, refusals, tool names and arguments, in bytes."""
    assembly = Assembly("r")
    assembly.feed(delta(content="é", reasoning_content="abc", refusal="no"))
    assembly.feed(delta(tool_calls=[call(0, id="a", name="xy", arguments="{}")]))
    assert 2 + 3 + 2 + 2 + 2 == assembly.size
