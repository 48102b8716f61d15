"""A conversation with a model, as plain facts: what is sent, what comes back, what it used.

Messages are JSON-able and small in kind, so that they can lie in a checkpoint under strict deserialisation and hash the
same everywhere. Adapters in `models` turn them into what a provider's client wants.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

__all__ = ["ChatAnswer", "ChatRequest", "FinishReason", "Message", "ToolOffer", "ToolRequest", "Usage"]

FinishReason = Literal["stop", "tool_calls", "length", "content_filter"]
"""Why the model stopped; an answer without one is a failure, never a result."""


@dataclass(frozen=True, slots=True)
class ToolRequest:
    """A tool call that a model asks for, before anything is checked.

    Attributes:
        id: the provider's id of the call, or one that the adapter made.
        name: as the model wrote it; may name no tool.
        arguments: the raw JSON text as the model wrote it; may be malformed.
    """

    id: str
    name: str
    arguments: str

    def to_json(self) -> dict[str, str]:
        """Give the JSON object kept in a transcript."""
        return {"id": self.id, "name": self.name, "arguments": self.arguments}


@dataclass(frozen=True, slots=True)
class Message:
    """One message of a conversation.

    Attributes:
        tool_call_id: for `role="tool"`: which request this answers.
        name: for `role="tool"`: the tool.
    """

    role: Literal["system", "user", "assistant", "tool"]
    content: str
    tool_calls: tuple[ToolRequest, ...] = ()
    tool_call_id: str | None = None
    name: str | None = None

    def to_json(self) -> dict[str, Any]:
        """Give the JSON object kept in a transcript; absent parts are left out."""
        body: dict[str, Any] = {"role": self.role, "content": self.content}
        if self.tool_calls:
            body["tool_calls"] = [call.to_json() for call in self.tool_calls]
        if self.tool_call_id is not None:
            body["tool_call_id"] = self.tool_call_id
        if self.name is not None:
            body["name"] = self.name
        return body

    @staticmethod
    def from_json(body: Mapping[str, Any]) -> Message:
        """Read back what `to_json` gave."""
        return Message(
            role=body["role"],
            content=body["content"],
            tool_calls=tuple(ToolRequest(**call) for call in body.get("tool_calls", ())),
            tool_call_id=body.get("tool_call_id"),
            name=body.get("name"),
        )


@dataclass(frozen=True, slots=True)
class ToolOffer:
    """A tool as a model may see it: name, what it does, what it takes."""

    name: str
    description: str
    input_schema: Mapping[str, Any]

    def to_json(self) -> dict[str, Any]:
        """Give the JSON object that counts towards the input bound."""
        return {"name": self.name, "description": self.description, "input_schema": dict(self.input_schema)}


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """What an agent wants to ask a model.

    Attributes:
        agent: who asks; sent to our own scripted provider only, as a header.
        route: alias from the fleet file.
        max_output: whole tokens, > 0; the governor may lower it before dispatch.
        answer_schema: JSON Schema that the final text must fit, or None for free text.
        answer_name: identifier of that schema, `^[a-z_]+$`.
    """

    agent: str
    route: str
    messages: tuple[Message, ...]
    max_output: int
    tools: tuple[ToolOffer, ...] = ()
    answer_schema: Mapping[str, Any] | None = None
    answer_name: str = "answer"

    def to_json(self) -> dict[str, Any]:
        """Give the JSON object that is digested, journalled and shown by `which`; `max_output` is not part of it."""
        return {
            "agent": self.agent,
            "route": self.route,
            "messages": [message.to_json() for message in self.messages],
            "tools": [tool.to_json() for tool in self.tools],
            "answer_schema": None if self.answer_schema is None else dict(self.answer_schema),
            "answer_name": self.answer_name,
        }


@dataclass(frozen=True, slots=True)
class Usage:
    """What the provider says it counted; whole tokens.

    Attributes:
        input: all prompt tokens, cached ones included (OpenTelemetry GenAI, `gen_ai.usage.input_tokens`).
        cached: the part of `input` that was read from a cache.
        output: generated tokens, reasoning included.
    """

    input: int
    output: int
    cached: int = 0

    def to_json(self) -> dict[str, int]:
        """Give the JSON object."""
        return {"input": self.input, "cached": self.cached, "output": self.output}


@dataclass(frozen=True, slots=True)
class ChatAnswer:
    """What a model answered, complete: it has a finish reason and a usage, or it would have been a `ModelFailure`.

    Attributes:
        content: the text; may be empty when tools are called.
        model: as the provider names it.
        response_id: the provider's id, or empty.
        signals: names of recovery rules that fired inside the adapter (the constrained protocol), for the trace.
    """

    content: str
    tool_calls: tuple[ToolRequest, ...]
    usage: Usage
    finish: FinishReason
    model: str
    response_id: str = ""
    signals: tuple[str, ...] = field(default=())

    def to_json(self) -> dict[str, Any]:
        """Give the JSON object kept in the journal."""
        return {
            "content": self.content,
            "tool_calls": [call.to_json() for call in self.tool_calls],
            "usage": self.usage.to_json(),
            "finish": self.finish,
            "model": self.model,
            "response_id": self.response_id,
            "signals": list(self.signals),
        }

    @staticmethod
    def from_json(body: Mapping[str, Any]) -> ChatAnswer:
        """Read back what `to_json` gave, as the journal does on resume."""
        return ChatAnswer(
            content=body["content"],
            tool_calls=tuple(ToolRequest(**call) for call in body["tool_calls"]),
            usage=Usage(**body["usage"]),
            finish=body["finish"],
            model=body["model"],
            response_id=body["response_id"],
            signals=tuple(body["signals"]),
        )
