"""Serving: the OpenAI chat API from the other side, for programs that speak it to the kernel.

In:   the body of `POST /v1/chat/completions`; a `ChatAnswer`.
Out:  `Asked`; the answer as one object or as the events of a stream. A body that cannot be kept is `Refused`, as the provider would.
May import: the scripted provider's reading and writing of the same API; records. Must not know: sockets, budgets, who asks.
Why some settings are taken and not passed on: the fleet file says how a model is asked, and clients send them by habit. What would
change the meaning of the answer is refused instead, by name.
Source: OpenAI API reference, chat completions, "Create chat completion".
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from midwatch.models.scripted.ask import Ask, Refused, read_ask
from midwatch.models.scripted.faults import Call, Reply
from midwatch.models.scripted.wire import Head, completion, events
from midwatch.records.chat import ChatAnswer, ChatRequest, Message, ToolOffer, ToolRequest

__all__ = ["Asked", "Refused", "chunks", "object_of", "read"]

_KEPT: Final = frozenset(
    (
        *("model", "messages", "tools", "tool_choice", "response_format", "n"),
        *("max_tokens", "max_completion_tokens", "stream", "stream_options"),
    )
)
_PASSED_OVER: Final = frozenset(
    (
        *("temperature", "top_p", "presence_penalty", "frequency_penalty", "seed", "user", "metadata", "store"),
        *("parallel_tool_calls", "reasoning_effort", "verbosity", "service_tier"),
        *("safety_identifier", "prompt_cache_key"),
    )
)
_MOST_TOOLS: Final = 128
_MOST_MESSAGES: Final = 4_096
_PIECE: Final = 512
_NAME: Final = re.compile(r"[^a-z_]+")


@dataclass(frozen=True, slots=True)
class Asked:
    """What a program asks. `stream`, `include_usage`: how it wants the answer."""

    request: ChatRequest
    stream: bool
    include_usage: bool


def read(body: Any, *, agent: str, route: str, max_output: int) -> Asked:
    """Read a request; whatever model it names, `route` is asked.

    Raises:
        Refused: it breaks the protocol, or wants what cannot be given; status 400.
    """
    if isinstance(body, dict) and isinstance(body.get("messages"), list) and len(body["messages"]) > _MOST_MESSAGES:
        raise Refused(400, f"at most {_MOST_MESSAGES:,} messages can be sent", param="messages")
    ask = read_ask(body, None)
    for key, value in body.items():
        if key not in _KEPT and key not in _PASSED_OVER and value not in (None, False, [], {}):
            raise Refused(400, f"`{key[:40]}` is not served here; leave it out", param=key[:40])
    request = ChatRequest(
        agent=agent,
        route=route,
        messages=_messages(body["messages"]),
        max_output=max_output if ask.cap is None else min(ask.cap, max_output),
        tools=_tools(body, ask),
        answer_schema={"type": "object"} if ask.schema_name == "json_object" else ask.schema,
        answer_name=_NAME.sub("_", ask.schema_name.lower()).strip("_") or "answer",
    )
    return Asked(request, ask.stream, ask.include_usage)


def _tools(body: Mapping[str, Any], ask: Ask) -> tuple[ToolOffer, ...]:
    if ask.tool_choice == "none":
        return ()
    if ask.tool_choice != "auto":
        message = "a model cannot be forced to call a tool; for an answer of a given shape use `response_format`"
        raise Refused(400, message, param="tool_choice")
    functions = [tool["function"] for tool in body.get("tools") or ()]
    if len(functions) > _MOST_TOOLS:
        raise Refused(400, f"at most {_MOST_TOOLS} tools can be offered", param="tools")
    if len({function["name"] for function in functions}) != len(functions):
        raise Refused(400, "two tools have one name", param="tools")
    offers = []
    for function in functions:
        schema = function.get("parameters") or {"type": "object", "properties": {}}
        if not isinstance(schema, dict) or not isinstance(function.get("description") or "", str):
            raise Refused(400, "a tool's `parameters` is an object and its `description` a text", param="tools")
        offers.append(ToolOffer(function["name"], function.get("description") or "", schema))
    return tuple(offers)


def _messages(messages: list[dict[str, Any]]) -> tuple[Message, ...]:
    names: dict[str, str] = {}
    made = []
    for message in messages:
        role, text = message["role"], _text(message)
        if role == "assistant":
            calls = tuple(_call(call) for call in message.get("tool_calls") or ())
            names |= {call.id: call.name for call in calls}
            made.append(Message("assistant", text, calls))
        elif role == "tool":
            made.append(
                Message("tool", text, tool_call_id=message["tool_call_id"], name=names[message["tool_call_id"]])
            )
        else:
            made.append(Message("user" if role == "user" else "system", text))
    return tuple(made)


def _call(call: Mapping[str, Any]) -> ToolRequest:
    return ToolRequest(call["id"], call["function"]["name"], call["function"]["arguments"])


def _text(message: Mapping[str, Any]) -> str:
    content = message.get("content")
    if not isinstance(content, list):
        return content or ""
    parts = []
    for part in content:
        if not isinstance(part, dict) or part.get("type") not in ("text", "refusal"):
            kind = part.get("type") if isinstance(part, dict) else type(part).__name__
            raise Refused(
                400, f"content of the type `{str(kind)[:40]}` is not served here; send text", param="messages"
            )
        text = part.get("text") if part["type"] == "text" else part.get("refusal")
        if not isinstance(text, str):
            raise Refused(400, "a part of a message holds no text", param="messages")
        parts.append(text)
    return "".join(parts)


def object_of(answer: ChatAnswer, id_: str) -> dict[str, Any]:
    """Give an answer as one object. It holds no time, so that a program that is started again reads the very same."""
    body = completion(_head(answer, id_), _reply(answer), _usage(answer))
    return {key: value for key, value in body.items() if key != "system_fingerprint"}


def chunks(answer: ChatAnswer, id_: str, *, include_usage: bool) -> Iterator[dict[str, Any]]:
    """Give an answer as the events of a stream. They come after it is whole: only then does it count."""
    for event in events(_head(answer, id_), _reply(answer), _usage(answer) if include_usage else None, _PIECE):
        yield {key: value for key, value in event.body.items() if key != "system_fingerprint"}


def _head(answer: ChatAnswer, id_: str) -> Head:
    return Head(answer.response_id or f"chatcmpl-{id_}", 0, answer.model)


def _reply(answer: ChatAnswer) -> Reply:
    calls = tuple(Call(call.id, call.name, call.arguments) for call in answer.tool_calls)
    return Reply(answer.content, calls, answer.finish)


def _usage(answer: ChatAnswer) -> dict[str, Any]:
    usage = answer.usage
    return {
        "prompt_tokens": usage.input,
        "completion_tokens": usage.output,
        "total_tokens": usage.input + usage.output,
        "prompt_tokens_details": {"cached_tokens": usage.cached},
    }
