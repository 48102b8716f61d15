"""Ask: a chat-completions request, checked the way the real server checks it, as expressions see it.

In:   the body of `POST /v1/chat/completions` and the name of the asking agent from its header.
Out:  an `Ask`; `Refused` with the HTTP status and the OpenAI-shaped error of a request that breaks the protocol.
May import: siblings `expressions`, `functions`, orjson. Must not know: rules, the wire, the bill.
Why it is strict: a conversation that the real provider refuses (a tool result without its call, a call left without
its result, a tool name with a dot) must not pass every test here and fail on the first day with a key.
Source: OpenAI API reference, chat completions, "Create chat completion".
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import orjson

from midwatch.models.scripted.expressions import plain

__all__ = ["Ask", "Refused", "read_ask"]

_ROLES: Final = frozenset({"system", "developer", "user", "assistant", "tool"})
_TOOL_NAME: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")


class Refused(Exception):  # not a user's error but an HTTP answer; `server` sends it
    """A request is answered with an error. `body` is the OpenAI error object, without its envelope."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        code: str | None = None,
        param: str | None = None,
        kind: str = "invalid_request_error",
        headers: Mapping[str, str] | None = None,
    ) -> None:
        self.status = status
        self.body: dict[str, Any] = {"message": message, "type": kind, "param": param, "code": code}
        self.headers = dict(headers or {})
        super().__init__(message)


@dataclass(frozen=True, slots=True)
class Ask:
    """A request that keeps the protocol.

    Attributes:
        cap: the most completion tokens that may be generated; None = no cap.
        schema: the JSON Schema of `response_format`, or None; `schema_name` is its name, `json_object` or "".
        strict: the schema must hold, as constrained decoding would make it.
        tool_choice: `auto`, `none`, `required`, or the name of a tool that must be called.
        prompt_bytes: UTF-8 bytes of what a model reads: texts, tool calls, offered tools, the schema.
        variables: what expressions may name, in JSON that CEL takes.
    """

    agent: str
    model: str
    turn: int
    system: str
    stream: bool
    include_usage: bool
    cap: int | None
    tools: tuple[str, ...]
    tool_choice: str
    parallel: bool
    schema: Mapping[str, Any] | None
    schema_name: str
    strict: bool
    prompt_bytes: int
    variables: Mapping[str, object]


def read_ask(body: Any, agent_header: str | None) -> Ask:
    """Check a request body.

    Args:
        body: parsed JSON, of whatever shape.
        agent_header: the value of `x-midwatch-agent`, or None.

    Raises:
        Refused: it breaks the protocol; status 400.
    """
    if not isinstance(body, dict):
        raise Refused(400, "the body must be a JSON object")
    model = body.get("model")
    if not isinstance(model, str) or not model:
        raise Refused(400, "you must provide a model parameter", param="model")
    if body.get("n", 1) not in (1, None):
        raise Refused(400, "only `n: 1` is served", param="n")
    messages = _messages(body.get("messages"))
    offered = _tools(body.get("tools"))
    schema_name, schema, strict = _response_format(body.get("response_format"))
    agent = _agent(body, agent_header)
    system = "\n".join(_text(one) for one in messages if one["role"] in ("system", "developer"))
    turn = sum(one["role"] == "assistant" for one in messages)
    variables = {
        "agent": agent,
        "model": model,
        "turn": turn,
        "schema": schema_name,
        "system": system,
        "user": next((_text(one) for one in reversed(messages) if one["role"] == "user"), ""),
        "messages": plain([_seen(one) for one in messages]),
        "results": plain(_results(messages)),
        "tools": plain(offered),
    }
    stream = body.get("stream") is True
    return Ask(
        agent=agent,
        model=model,
        turn=turn,
        system=system,
        stream=stream,
        include_usage=_include_usage(body, stream=stream),
        cap=_cap(body),
        tools=tuple(tool["name"] for tool in offered),
        tool_choice=_tool_choice(body.get("tool_choice"), offered),
        parallel=body.get("parallel_tool_calls") is not False,
        schema=schema,
        schema_name=schema_name,
        strict=strict,
        prompt_bytes=_prompt_bytes(messages, offered, schema),
        variables=variables,
    )


def _agent(body: Mapping[str, Any], header: str | None) -> str:
    metadata = body.get("metadata")
    named = metadata.get("agent") if isinstance(metadata, dict) else None
    if named is not None and not isinstance(named, str):
        raise Refused(400, "`metadata.agent` must be a string", param="metadata")
    if header and named and header != named:
        raise Refused(400, f"the header names agent `{header}`, `metadata.agent` names `{named}`", param="metadata")
    return header or named or ""


def _messages(value: Any) -> list[dict[str, Any]]:
    if not isinstance(value, list) or not value:
        raise Refused(400, "`messages` must be a list with at least one message", param="messages")
    open_calls: set[str] = set()
    for index, message in enumerate(value):
        place = f"messages.[{index}]"
        role = message.get("role") if isinstance(message, dict) else None
        if role not in _ROLES:
            raise Refused(400, f"`{place}.role` must be one of {', '.join(sorted(_ROLES))}", param=place)
        content = message.get("content")
        if not (content is None or isinstance(content, str | list)):
            raise Refused(400, f"`{place}.content` must be a string or a list of parts", param=place)
        if content is None and not (role == "assistant" and message.get("tool_calls")):
            raise Refused(400, f"`{place}.content` is missing", param=place)
        if role == "tool":
            if message.get("tool_call_id") not in open_calls:
                raise Refused(400, f"`{place}` with role `tool` must answer a preceding tool call", param=place)
            open_calls.discard(message["tool_call_id"])
            continue
        if open_calls:
            raise _unanswered(open_calls, place)
        if role == "assistant":
            open_calls = _called(message, place)
    if open_calls:
        raise _unanswered(open_calls, "messages")
    return value


def _unanswered(calls: set[str], place: str) -> Refused:
    ids = ", ".join(f"`{one}`" for one in sorted(calls))
    return Refused(400, f"tool calls without a tool message that answers them: {ids}", param=place)


def _called(message: Mapping[str, Any], place: str) -> set[str]:
    """The ids of the tool calls in an assistant message."""
    ids: set[str] = set()
    for call in message.get("tool_calls") or ():
        function = call.get("function") if isinstance(call, dict) else None
        if not isinstance(function, dict) or not isinstance(call.get("id"), str):
            raise Refused(400, f"`{place}.tool_calls` must be a list of calls with id and function", param=place)
        if not isinstance(function.get("name"), str) or not isinstance(function.get("arguments"), str):
            raise Refused(400, f"`{place}.tool_calls` needs `name` and `arguments` as strings", param=place)
        if call["id"] in ids:
            raise Refused(400, f"`{place}.tool_calls` uses the id `{call['id']}` twice", param=place)
        ids.add(call["id"])
    return ids


def _tools(value: Any) -> list[dict[str, Any]]:
    """The offered tools as `{name, description, parameters}`."""
    if value is None:
        return []
    if not isinstance(value, list) or not value:
        raise Refused(400, "`tools` must be a list with at least one tool, or be left out", param="tools")
    offered = []
    for index, tool in enumerate(value):
        function = tool.get("function") if isinstance(tool, dict) and tool.get("type") == "function" else None
        name = function.get("name") if isinstance(function, dict) else None
        if not isinstance(function, dict) or not isinstance(name, str) or not _TOOL_NAME.fullmatch(name):
            message = f"`tools[{index}].function.name` must match `^[a-zA-Z0-9_-]{{1,64}}$`, got `{name}`"
            raise Refused(400, message, param=f"tools[{index}].function.name", code="invalid_value")
        parameters = function.get("parameters", {})
        offered.append({"name": name, "description": function.get("description") or "", "parameters": parameters})
    return offered


def _tool_choice(value: Any, offered: list[dict[str, Any]]) -> str:
    if value is None:
        return "auto"
    if not offered:
        raise Refused(400, "`tool_choice` is only allowed when `tools` are given", param="tool_choice")
    if value in ("auto", "none", "required"):
        return str(value)
    function = value.get("function") if isinstance(value, dict) else None
    name = function.get("name") if isinstance(function, dict) else None
    if name not in [tool["name"] for tool in offered]:
        raise Refused(400, f"`tool_choice` names `{name}`, which is not among `tools`", param="tool_choice")
    return f"tool:{name}"


def _response_format(value: Any) -> tuple[str, Mapping[str, Any] | None, bool]:
    kind = value.get("type") if isinstance(value, dict) else None
    if value is None or kind == "text":
        return "", None, False
    if kind == "json_object":
        return "json_object", None, False
    body = value.get("json_schema") if kind == "json_schema" else None
    name = body.get("name") if isinstance(body, dict) else None
    if not isinstance(body, dict) or not isinstance(name, str) or not _TOOL_NAME.fullmatch(name):
        message = "`response_format` must be text, json_object, or json_schema with a name of letters, digits, `_`, `-`"
        raise Refused(400, message, param="response_format")
    schema = body.get("schema")
    if not isinstance(schema, dict):
        raise Refused(400, "`response_format.json_schema.schema` must be an object", param="response_format")
    return name, schema, body.get("strict") is True


def _cap(body: Mapping[str, Any]) -> int | None:
    """The smaller of `max_tokens` and `max_completion_tokens`."""
    caps = []
    for key in ("max_tokens", "max_completion_tokens"):
        value = body.get(key)
        if value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise Refused(400, f"`{key}` must be a whole number >= 1", param=key)
        caps.append(value)
    return min(caps, default=None)


def _include_usage(body: Mapping[str, Any], *, stream: bool) -> bool:
    options = body.get("stream_options")
    if options is None:
        return False
    if not stream:
        raise Refused(400, "`stream_options` is only allowed when `stream` is true", param="stream_options")
    return isinstance(options, dict) and options.get("include_usage") is True


def _text(message: Mapping[str, Any]) -> str:
    content = message.get("content")
    if isinstance(content, list):
        return "".join(str(part.get("text", "")) for part in content if isinstance(part, dict))
    return content if isinstance(content, str) else ""


def _parsed(text: str) -> object:
    """The JSON value that a text holds, or the text itself."""
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        return text


def _seen(message: Mapping[str, Any]) -> dict[str, object]:
    """A message as `{role, content, tool_calls}`; content as text."""
    calls = [
        {"id": call["id"], "name": call["function"]["name"], "arguments": _parsed(call["function"]["arguments"])}
        for call in message.get("tool_calls") or ()
    ]
    return {"role": message["role"], "content": _text(message), "tool_calls": calls}


def _results(messages: list[dict[str, Any]]) -> list[dict[str, object]]:
    """Every tool result so far with the call that it answers, oldest first."""
    calls: dict[str, tuple[int, Mapping[str, Any]]] = {}
    results: list[dict[str, object]] = []
    turn = -1
    for message in messages:
        if message["role"] == "assistant":
            turn += 1
            for call in message.get("tool_calls") or ():
                calls[call["id"]] = (turn, call["function"])
        if message["role"] == "tool":
            asked_at, function = calls[message["tool_call_id"]]
            results.append(
                {
                    "name": function["name"],
                    "call_id": message["tool_call_id"],
                    "arguments": _parsed(function["arguments"]),
                    "content": _parsed(_text(message)),
                    "turn": asked_at,
                }
            )
    return results


def _prompt_bytes(messages: list[dict[str, Any]], tools: list[dict[str, Any]], schema: object) -> int:
    read = [_text(message) for message in messages]
    for message in messages:
        for call in message.get("tool_calls") or ():
            read += [call["function"]["name"], call["function"]["arguments"]]
    size = sum(len(text.encode("utf-8", "surrogatepass")) for text in read)
    size += sum(len(orjson.dumps(tool)) for tool in tools)
    return size + (len(orjson.dumps(schema)) if schema is not None else 0)
