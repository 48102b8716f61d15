"""Constrained: tools for models that have no tool calls of their own.

In:   a `ChatRequest`, later the text that the model wrote.
Out:  a `Payload` that asks for one JSON value (`{tool, args}` for one of the tools, or `{final}`); that value as tool
call or content.
May import: sibling `wire`; recovery, records. Must not know: clients, routes.
Why one `anyOf`: small models ignore `tools=` (0 of 10 calls parsed) but cannot leave a grammar: all outputs under a
schema were valid JSON. A server without constrained decoding only sees a wish; then recovery reads the text, with its
signal.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from midwatch.models.wire import Payload
from midwatch.records.chat import ChatRequest, Message
from midwatch.recovery import Clean, Refused, SchemaRefused, Validator, compile_schema, recover

__all__ = ["Reading", "constrained_payload", "read_answer", "step_schema"]

_LARGEST_ANSWER: Final = 1 << 20
_FINAL_NAME: Final = "step"


@dataclass(frozen=True, slots=True)
class Reading:
    """What the text meant.

    Attributes:
        content: the final answer, or the text as it was when it could not be read.
        call: name and arguments (JSON text) of the tool that is asked for, or None.
        signals: the recovery rule that fired, or `unreadable:CODE`; empty when the text was exact.
    """

    content: str
    call: tuple[str, str] | None
    signals: tuple[str, ...] = ()


def step_schema(request: ChatRequest) -> dict[str, Any] | None:
    """Give the schema of one step, or None when the request has neither tools nor an answer schema."""
    if not request.tools and request.answer_schema is None:
        return None
    shared: dict[str, Any] = {}
    forms = [
        _closed({"tool": {"const": tool.name}, "args": _nested(tool.input_schema, f"t{index}", shared)})
        for index, tool in enumerate(request.tools)
    ]
    final = {"type": "string"} if request.answer_schema is None else _nested(request.answer_schema, "final", shared)
    forms.append(_closed({"final": final}))
    schema: dict[str, Any] = {"anyOf": forms}
    if shared:
        schema["$defs"] = shared
    return schema


def _closed(properties: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


def _nested(schema: Mapping[str, Any], name: str, shared: dict[str, Any]) -> dict[str, Any]:
    """Place one schema inside another: where it refers to itself it moves below `$defs`, and its references with it."""
    own = {key: value for key, value in schema.items() if key not in ("$schema", "$id")}
    if not _refers(own):
        return own
    shared[name] = _moved(own, f"#/$defs/{name}")
    return {"$ref": f"#/$defs/{name}"}


def _refers(node: Any) -> bool:
    if isinstance(node, Mapping):
        return isinstance(node.get("$ref"), str) or any(_refers(child) for child in node.values())
    return isinstance(node, list | tuple) and any(_refers(child) for child in node)


def _moved(node: Any, base: str) -> Any:
    if isinstance(node, Mapping):
        return {
            key: base + value[1:]
            if key == "$ref" and isinstance(value, str) and value.startswith("#")
            else _moved(value, base)
            for key, value in node.items()
        }
    return [_moved(child, base) for child in node] if isinstance(node, list | tuple) else node


def constrained_payload(request: ChatRequest) -> Payload:
    """Build the payload: the tools become words in the system message, their results words of the user."""
    schema = step_schema(request)
    messages = [_message(message) for message in request.messages]
    if schema is None:
        return Payload(messages, None, None)
    manual = _manual(request)
    if messages and messages[0]["role"] == "system":
        messages[0] = {"role": "system", "content": f"{messages[0]['content']}\n\n{manual}"}
    else:
        messages.insert(0, {"role": "system", "content": manual})
    name = request.answer_name if request.answer_schema is not None else _FINAL_NAME
    wanted = {"name": name, "schema": schema, "strict": True}
    return Payload(messages, None, {"type": "json_schema", "json_schema": wanted})


def _manual(request: ChatRequest) -> str:
    lines = ["Answer with exactly one JSON object and nothing else."]
    if request.tools:
        lines.append(
            'To use a tool, answer {"tool": NAME, "args": ARGUMENTS}. You are then told its result. The tools:'
        )
    lines += [
        f"- {tool.name}: {tool.description} ARGUMENTS: {_dump(dict(tool.input_schema))}" for tool in request.tools
    ]
    if request.answer_schema is None:
        lines.append('When you are done, answer {"final": "your answer as text"}.')
    else:
        lines.append(f'When you are done, answer {{"final": ANSWER}}. ANSWER: {_dump(dict(request.answer_schema))}')
    return "\n".join(lines)


def _message(message: Message) -> dict[str, Any]:
    if message.role == "tool":
        return {"role": "user", "content": f"Result of `{message.name or message.tool_call_id}`: {message.content}"}
    steps = [_step(call.name, call.arguments) for call in message.tool_calls]
    return {"role": message.role, "content": "\n".join([part for part in (message.content, *steps) if part])}


def _step(name: str, arguments: str) -> str:
    try:
        value = json.loads(arguments)
    except (ValueError, RecursionError):
        value = arguments
    return _dump({"tool": name, "args": value})


def read_answer(request: ChatRequest, text: str, *, truncated: bool) -> Reading:
    """Turn the model's text back into a tool call or a final answer. Never raises for any text.

    Args:
        truncated: the model stopped at its output limit; nothing is then guessed.
    """
    validator = _validator(request)
    if validator is None:
        return Reading(text, None)
    found = recover(text, validator, truncated=truncated, limit=_LARGEST_ANSWER)
    if isinstance(found, Refused):
        return Reading(text, None, (f"unreadable:{found.code}",))
    signals = () if isinstance(found, Clean) else (found.rule,)
    value = found.value
    if "tool" in value:
        return Reading("", (value["tool"], _dump(value["args"])), signals)
    final = value["final"]
    return Reading(final if request.answer_schema is None else _dump(final), None, signals)


def _validator(request: ChatRequest) -> Validator | None:
    schema = step_schema(request)
    try:
        return None if schema is None else compile_schema(schema)
    except SchemaRefused:
        # Tools and answers are compiled when they are loaded; one that cannot be is refused there. Reading nothing is
        # closed.
        return compile_schema({"not": {}})


def _dump(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
