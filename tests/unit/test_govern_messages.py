"""Between LangChain's messages and the kernel's; plain JSON of state; texts scrubbed inside the user's own classes."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from langchain_core.messages import AIMessage, ChatMessage, HumanMessage, SystemMessage, ToolMessage
from langgraph.types import Send
from pydantic import BaseModel

from midwatch.errors import Divergence, UsageProblem
from midwatch.graph.messages import raw_arguments, scrubbed, to_json, to_langchain, to_records
from midwatch.graph.scope import Place, Scope, node_of
from midwatch.records.chat import ChatAnswer, Message, ToolRequest, Usage


def answered(*calls: ToolRequest) -> ChatAnswer:
    """Make an answer that asks for these calls."""
    return ChatAnswer("text", calls, Usage(3, 4), "tool_calls", "tiny")


@pytest.mark.req("GOVERN-4")
@given(
    raw=st.one_of(
        st.text(max_size=40), st.sampled_from(['{"a": 1, "a": 2}', '{"a": NaN}', "[1]", "null", '{"a": 1}', ""])
    )
)
def test_arguments_reach_the_kernel_as_the_model_wrote_them(raw: str) -> None:
    """What is no plain JSON object comes out again to the letter; what is one keeps its value."""
    call = to_langchain(answered(ToolRequest("1", "ops.look", raw))).tool_calls[0]
    given_back = raw_arguments(call["args"])
    assert given_back == raw or to_json_text(given_back) == to_json_text(raw)


def to_json_text(raw: str) -> Any:
    """Read a text that is a JSON object."""
    import json  # noqa: PLC0415 - for this comparison alone

    value = json.loads(raw)
    assert isinstance(value, dict)
    return value


def test_a_conversation_keeps_its_roles_calls_and_answers() -> None:
    """Every kind of message that a model is sent, in order; an invalid call of LangChain's stays the text it was."""
    said = AIMessage(
        [{"type": "text", "text": "a"}, "b"],
        tool_calls=[{"name": "ops.look", "args": {"what": "é"}, "id": "1"}],
        invalid_tool_calls=[{"name": "ops.log", "args": "{broken", "id": "2", "error": None}],
    )
    told = ToolMessage("found", tool_call_id="1", name="ops.look")
    assert (
        Message("system", "be kind"),
        Message("user", "go"),
        Message(
            "assistant", "ab", (ToolRequest("1", "ops.look", '{"what": "é"}'), ToolRequest("2", "ops.log", "{broken"))
        ),
        Message("tool", "found", tool_call_id="1", name="ops.look"),
    ) == to_records([SystemMessage("be kind"), HumanMessage("go"), said, told])


@pytest.mark.parametrize(
    "message",
    [
        ChatMessage(content="x", role="critic"),
        HumanMessage([{"type": "image_url", "image_url": "https://example.org/x.png"}]),
    ],
    ids=["role", "image"],
)
def test_what_a_model_is_not_sent_is_refused(message: Any) -> None:
    """Never dropped silently."""
    with pytest.raises(UsageProblem, match="cannot be sent"):
        to_records([message])


class Colour(Enum):
    RED = "red"


class Town(BaseModel):
    city: str
    notes: list[str]


@dataclass(frozen=True)
class Trip:
    to: Town
    colours: frozenset[Colour]


def test_state_becomes_plain_json() -> None:
    """Messages, models, dataclasses, enums and sets; a value without a JSON form is refused by name."""
    trip = Trip(Town(city="Oslo", notes=[]), frozenset({Colour.RED}))
    expected = {
        "trip": {"to": {"city": "Oslo", "notes": []}, "colours": ["red"]},
        "said": [{"type": "human", "content": "go"}],
    }
    assert expected == to_json({"trip": trip, "said": [HumanMessage("go")]})
    with pytest.raises(UsageProblem, match="no JSON"):
        to_json({"x": object()})


def hide(value: Any) -> Any:
    """Stand in for the scrubber."""
    if isinstance(value, str):
        return value.replace("secret", "***")
    if isinstance(value, dict):
        return {key: hide(item) for key, item in value.items()}
    return [hide(item) for item in value] if isinstance(value, list) else value


@pytest.mark.req("GOVERN-6")
def test_texts_are_scrubbed_wherever_they_stand() -> None:
    """In messages and their calls, in models inside dataclasses, in tuples and sends; what has no text stays the same object."""
    trip = Trip(Town(city="secret", notes=["a secret"]), frozenset({Colour.RED}))
    said = AIMessage("secret", tool_calls=[{"name": "n", "args": {"x": ["secret"]}, "id": "1"}])
    value = {1: (said, trip), "send": Send("n", {"k": "secret"}), "plain": {"deep": ["secret"]}}
    assert "secret" not in repr(scrubbed(value, hide))
    assert "secret" in repr(value)
    clean = HumanMessage("nothing to hide")
    assert clean is scrubbed(clean, hide)


def place(scope: Scope, *, task: str = "n:1", attempt: int = 1) -> Place:
    """Make a place in a scope."""
    return Place("n", task, attempt, 1, "c", scope)


@pytest.mark.req("GOVERN-3")
def test_equal_calls_are_counted_by_task_and_attempt() -> None:
    """A retried node counts anew, as a node that runs again does; other words have a number of their own."""
    scope = Scope("n", "n:1", 1, 1)
    first = [scope.ordinal(place(scope), text) for text in ("a", "a", "b")]
    assert ["0", "1", "0"] == [name.rpartition(":")[2] for name in first]
    assert first[0] == scope.ordinal(place(scope, attempt=2), "a")
    assert first[0] == scope.ordinal(place(scope, task="n:1|m:2"), "a")


@pytest.mark.req("GOVERN-3")
def test_a_call_id_belongs_to_one_call_of_a_task() -> None:
    """The same again is the same; other words under it are a divergence; a long id is kept by its digest."""
    scope = Scope("n", "n:1", 1, 1)
    assert "1" == scope.call(place(scope), "1", "look", "{}") == scope.call(place(scope), "1", "look", "{}")
    with pytest.raises(Divergence):
        scope.call(place(scope), "1", "look", '{"x": 1}')
    with pytest.raises(UsageProblem):
        scope.call(place(scope), "", "look", "{}")
    assert 64 == len(scope.call(place(scope), "x" * 500, "look", "{}"))


def test_a_node_is_named_by_the_nodes_around_it() -> None:
    """LangGraph's task ids and the numbers of repeated subgraphs are left out."""
    assert "agent.tools" == node_of("agent:0f3b|1|tools:9a")
