"""Wire: a request as the OpenAI chat API wants it.

In:   a `ChatRequest`. Out: a `Payload` (messages, tools, response format) and the `Names` that turn tool names back.
May import: records. Must not know: clients, routes, budgets.
Why our own JSON and not LangChain's conversion: that one parses and rewrites the arguments of earlier tool calls, moves
malformed ones behind the others, and lets the last of two equal keys win. What a model wrote goes back as it wrote it,
and `tokens` can bound exactly what is sent.
Source: OpenAI API reference, "Create chat completion" (`tools[].function.name`: letters, digits, `_`, `-`, at most 64).
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from midwatch.records.chat import ChatRequest, Message

__all__ = ["Names", "Payload", "native_payload", "response_format"]

_LONGEST: Final = 64
_VALID: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")
_STRICT_WORDS: Final = frozenset(
    {
        "type",
        "properties",
        "required",
        "additionalProperties",
        "items",
        "enum",
        "const",
        "anyOf",
        "description",
        "title",
    }
)


@dataclass(frozen=True, slots=True)
class Payload:
    """What of a request a model reads. `tools` and `response_format` are None when they are not sent."""

    messages: list[dict[str, Any]]
    tools: list[dict[str, Any]] | None
    response_format: dict[str, Any] | None


class Names:
    """Tool names of one request, ours and the provider's, one to one.

    A name that the provider takes stays. Others have each foreign sign replaced by `_`; what then collides, or is too
    long, ends in a digest of the name. The same set of names is always mapped the same way.
    """

    __slots__ = ("_ours", "_wire")

    def __init__(self, offered: Iterable[str], mentioned: Iterable[str] = ()) -> None:
        """Map `offered` tools and names that the conversation `mentioned`; only offered ones are turned back."""
        tools = dict.fromkeys(offered)
        self._wire: dict[str, str] = {name: name for name in tools if _VALID.fullmatch(name)}
        taken = set(self._wire.values())
        for name in [*sorted(tools), *sorted(set(mentioned) - tools.keys())]:
            if name not in self._wire:
                self._wire[name] = _fitting(name, taken)
                taken.add(self._wire[name])
        self._ours: dict[str, str] = {self._wire[name]: name for name in tools}

    @staticmethod
    def of(request: ChatRequest) -> Names:
        """Map every tool name in a request."""
        mentioned = (call.name for message in request.messages for call in message.tool_calls)
        return Names((tool.name for tool in request.tools), mentioned)

    def to_wire(self, name: str) -> str:
        """Give the provider's name of one of ours.

        Raises:
            KeyError: the name was not mapped; an error of the caller.
        """
        return self._wire[name]

    def from_wire(self, name: str) -> str:
        """Give our name; a name that was not offered stays as the model wrote it."""
        return self._ours.get(name, name)


def _fitting(name: str, taken: set[str]) -> str:
    plain = re.sub(r"[^A-Za-z0-9_-]", "_", name) or "_"
    if len(plain) <= _LONGEST and plain not in taken:
        return plain
    digest = hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()
    for length in range(8, _LONGEST):
        candidate = f"{plain[: _LONGEST - length - 1]}_{digest[:length]}"
        if candidate not in taken:
            return candidate
    return digest[:_LONGEST]


def native_payload(request: ChatRequest, names: Names) -> Payload:
    """Build the payload for a model with tool calls of its own."""
    tools = [
        {
            "type": "function",
            "function": {
                "name": names.to_wire(tool.name),
                "description": tool.description,
                "parameters": dict(tool.input_schema),
            },
        }
        for tool in request.tools
    ]
    schema = request.answer_schema
    return Payload(
        messages=[_message(message, names) for message in request.messages],
        tools=tools or None,
        response_format=None if schema is None else response_format(request.answer_name, schema),
    )


def _message(message: Message, names: Names) -> dict[str, Any]:
    body: dict[str, Any] = {"role": message.role, "content": message.content}
    if message.role == "assistant" and message.tool_calls:
        body["content"] = message.content or None
        body["tool_calls"] = [
            {
                "id": call.id,
                "type": "function",
                "function": {"name": names.to_wire(call.name), "arguments": _arguments(call.arguments)},
            }
            for call in message.tool_calls
        ]
    if message.role == "tool":
        body["tool_call_id"] = message.tool_call_id or ""
    return body


def _arguments(raw: str) -> str:
    """Give the arguments of an earlier call. Many servers parse them again and fail on what is no object."""
    try:
        parsed = json.loads(raw)
    except (ValueError, RecursionError):
        parsed = None
    return raw if isinstance(parsed, dict) else json.dumps({"malformed_arguments": raw}, ensure_ascii=False)


def response_format(name: str, schema: Mapping[str, Any]) -> dict[str, Any]:
    """Ask for an answer that fits `schema`.

    `strict` is set when OpenAI's subset allows it (every object closed, every property required); elsewhere the schema
    is sent as a wish, and whoever reads the answer checks it, as it must anyway.
    Source: OpenAI guide "Structured outputs", section "Supported schemas".
    """
    body = {"name": name, "schema": dict(schema), "strict": _strict(schema, root=True)}
    return {"type": "json_schema", "json_schema": body}


def _strict(schema: Any, *, root: bool = False) -> bool:
    if not isinstance(schema, Mapping) or schema.keys() - _STRICT_WORDS:
        return False
    if root and schema.get("type") != "object":
        return False
    if schema.get("type") == "object" or "properties" in schema:
        properties = schema.get("properties", {})
        closed = schema.get("additionalProperties") is False and set(schema.get("required", ())) == set(properties)
        if not closed or not all(_strict(one) for one in properties.values()):
            return False
    if "items" in schema and not _strict(schema["items"]):
        return False
    return all(_strict(one) for one in schema.get("anyOf", ()))
