"""Messages: between LangChain's messages and the kernel's own, and from graph state to plain JSON.

In:   LangChain messages of a foreign graph; the answer of a model; values of state.
Out:  `Message` and back; JSON values; values with their texts scrubbed.
May import: records, errors; LangChain. Must not know: who asks, what is allowed.
Why arguments may travel as text: what a model wrote is judged once, by the tool layer. LangChain wants a mapping, so text that is
no plain JSON object is carried in one, under a name of its own, and comes out again as it was.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from datetime import date, datetime, time
from enum import Enum
from typing import Any, Final

import orjson
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, SystemMessage, ToolMessage
from langgraph.types import Send
from pydantic import BaseModel

from midwatch.errors import UsageProblem
from midwatch.records.chat import ChatAnswer, Message, ToolRequest
from midwatch.recovery.strict import NotStrict, loads_strict

__all__ = ["raw_arguments", "scrubbed", "to_json", "to_langchain", "to_records"]

_RAW: Final = "__arguments_as_written__"


def to_records(messages: Sequence[BaseMessage]) -> tuple[Message, ...]:
    """Turn LangChain messages into the kernel's.

    Raises:
        UsageProblem: a message is of a kind, or holds content, that a model is not sent.
    """
    return tuple(_record(message) for message in messages)


def _record(message: BaseMessage) -> Message:
    text = _text(message)
    if isinstance(message, SystemMessage):
        return Message("system", text)
    if isinstance(message, HumanMessage):
        return Message("user", text)
    if isinstance(message, ToolMessage):
        return Message("tool", text, tool_call_id=message.tool_call_id, name=message.name)
    if isinstance(message, AIMessage):
        calls = [
            ToolRequest(call["id"] or "", call["name"], raw_arguments(call["args"])) for call in message.tool_calls
        ]
        calls += [
            ToolRequest(call.get("id") or "", call.get("name") or "", call.get("args") or "")
            for call in message.invalid_tool_calls
        ]
        return Message("assistant", text, tuple(calls))
    raise UsageProblem(
        f"a message of the type `{message.type}` cannot be sent to a model; use system, human, ai or tool messages"
    )


def _text(message: BaseMessage) -> str:
    if isinstance(message.content, str):
        return message.content
    parts = []
    for block in message.content:
        if isinstance(block, str):
            parts.append(block)
        elif block.get("type") == "text" and isinstance(block.get("text"), str):
            parts.append(block["text"])
        else:
            raise UsageProblem(f"content of the type `{block.get('type')}` cannot be sent to a model; send text")
    return "".join(parts)


def raw_arguments(arguments: Any) -> str:
    """Give the text of a call's arguments, as the model wrote it where it was no plain JSON object."""
    if isinstance(arguments, dict) and arguments.keys() == {_RAW} and isinstance(arguments[_RAW], str):
        return str(arguments[_RAW])
    try:
        return json.dumps(arguments, ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError, RecursionError):
        return str(arguments)  # no JSON: the tool layer refuses it in its own words


def to_langchain(answer: ChatAnswer) -> AIMessage:
    """Turn a model's answer into the message that LangChain's loops go on with."""
    calls = [
        {"type": "tool_call", "id": call.id, "name": call.name, "args": _arguments(call.arguments)}
        for call in answer.tool_calls
    ]
    usage = answer.usage
    return AIMessage(
        content=answer.content,
        tool_calls=calls,
        usage_metadata={
            "input_tokens": usage.input,
            "output_tokens": usage.output,
            "total_tokens": usage.input + usage.output,
        },
        response_metadata={"model_name": answer.model, "finish_reason": answer.finish},
    )


def _arguments(raw: str) -> dict[str, Any]:
    try:
        value = loads_strict(raw)
    except NotStrict:
        return {_RAW: raw}
    return value if isinstance(value, dict) else {_RAW: raw}


def to_json(value: Any) -> Any:
    """Turn a value of graph state into plain JSON; messages become `type`, `content` and what else they carry.

    Raises:
        UsageProblem: it holds what has no JSON form.
    """
    try:
        return orjson.loads(orjson.dumps(value, default=_plain, option=orjson.OPT_NON_STR_KEYS))
    except TypeError as error:
        raise UsageProblem(
            f"the graph's result is no JSON ({str(error).lower()}); keep plain data in its output"
        ) from error


def _plain(value: Any) -> Any:
    if isinstance(value, BaseMessage):
        return _message(value)
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {item.name: getattr(value, item.name) for item in dataclasses.fields(value)}
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, set | frozenset):
        return sorted(value, key=repr)
    if isinstance(value, tuple):
        return list(value)
    if isinstance(value, date | datetime | time):
        return value.isoformat()
    if isinstance(value, bytes):
        raise TypeError("bytes")
    if type(value).__module__ in {"decimal", "uuid", "pathlib", "ipaddress"}:
        return str(value)
    raise TypeError(type(value).__qualname__)


def _message(message: BaseMessage) -> dict[str, Any]:
    body: dict[str, Any] = {"type": message.type, "content": message.content}
    if message.name is not None:
        body["name"] = message.name
    if isinstance(message, AIMessage) and message.tool_calls:
        body["tool_calls"] = [
            {"id": call["id"], "name": call["name"], "args": call["args"]} for call in message.tool_calls
        ]
    if isinstance(message, ToolMessage):
        body |= {"tool_call_id": message.tool_call_id, "status": message.status}
    return body


def scrubbed(value: Any, scrub: Callable[[Any], Any]) -> Any:
    """Give the value with `scrub` applied to its texts, however deep, also inside messages and the user's own classes.

    Args:
        scrub: replaces credentials in a JSON value; what it does not know it gives back as it is.
    """
    if value is None or isinstance(value, bool | int | float | bytes | Enum):
        return value
    if isinstance(value, str):
        return scrub(value)
    if type(value) is dict:
        clean = scrub(value) if _is_json(value) else value
        return clean if _is_json(value) else {key: scrubbed(item, scrub) for key, item in clean.items()}
    if type(value) in (list, tuple):
        return type(value)(scrubbed(item, scrub) for item in value)
    if isinstance(value, Send):
        return Send(value.node, scrubbed(value.arg, scrub), timeout=value.timeout)
    return _own(value, scrub)


def _own(value: Any, scrub: Callable[[Any], Any]) -> Any:
    """Scrub the fields of a model or dataclass; a changed one is a copy, an unchanged one itself."""
    if isinstance(value, BaseModel):
        changed = _changed(value.__dict__, scrub)
        return value.model_copy(update=changed) if changed else value
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {item.name: getattr(value, item.name) for item in dataclasses.fields(value) if item.init}
        changed = _changed(fields, scrub)
        return dataclasses.replace(value, **changed) if changed else value
    return value


def _changed(fields: Mapping[str, Any], scrub: Callable[[Any], Any]) -> dict[str, Any]:
    made = {name: scrubbed(item, scrub) for name, item in fields.items()}
    return {name: item for name, item in made.items() if item is not fields[name] and item != fields[name]}


def _is_json(value: Any) -> bool:
    """Say whether a value is made of JSON's types alone."""
    if value is None or isinstance(value, str | bool | int | float):
        return not isinstance(value, Enum)
    if type(value) is dict:
        return all(isinstance(key, str) and _is_json(item) for key, item in value.items())
    return type(value) is list and all(_is_json(item) for item in value)
