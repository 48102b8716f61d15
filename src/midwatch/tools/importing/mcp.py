"""MCP: the tools of a Model Context Protocol server, started as a program or reached over HTTP.

In:   an `McpSpec`, the fleet's folder, the environment. Out: `Brought`: its tools under contracts.
May import: `foreign`, `mcp_link`, schemas, config's specs, the vault of the broker's secrets, records, errors; the MCP types.
Must not know: who calls, gates, what was endorsed.
Why the server is asked for its tools once, when the fleet is loaded: what it says later binds nothing. Before each
call it is asked again, and a tool that is not word for word the same is refused.
Source: Model Context Protocol 2026-07-28, server/tools.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import mcp_types as types
import orjson

from midwatch.config.specs_imports import McpSpec, secrets_in
from midwatch.errors import InvalidTool, Problem, ToolFailure
from midwatch.records.effect import EffectClass
from midwatch.sandbox.egress_secrets import Vault
from midwatch.tools.importing.foreign import Brought, Call, Described, Words, brought
from midwatch.tools.importing.mcp_link import Link, Unreachable

__all__ = ["WRAPPER", "bring"]

WRAPPER: Final[Mapping[str, Any]] = {
    "type": "object",
    "properties": {
        "text": {"type": "string", "description": "What the tool answered, its texts joined."},
        "parts": {
            "type": "array",
            "maxItems": 64,
            "items": {
                "type": "object",
                "properties": {
                    "kind": {"type": "string", "maxLength": 40},
                    "mime": {"type": "string", "maxLength": 100},
                    "characters": {"type": "integer", "minimum": 0},
                },
                "required": ["kind"],
                "additionalProperties": False,
            },
        },
    },
    "required": ["text", "parts"],
    "additionalProperties": False,
}
"""Result of a tool that declares no output: its texts, and of all else only what it is and how large."""


def bring(spec: McpSpec, base: Path, environ: Mapping[str, str]) -> Brought:
    """Ask a server for its tools.

    Raises:
        InvalidTool: it cannot be started or reached, or does not answer in time.
    """
    source = f"mcp.{spec.name}"
    wanted = (*spec.env, *secrets_in(spec.headers))
    missing = sorted(name for name in wanted if not environ.get(name))
    if missing:
        raise InvalidTool((Problem(source, f"needs the environment variable `{missing[0]}`; set it", "missing-env"),))
    vault = Vault({name: environ[name] for name in wanted})
    link = Link(spec, base, {name: environ[name] for name in spec.env}, vault)
    try:
        found = {tool.name: tool for tool in link.listed()}
    except Unreachable as failure:
        raise InvalidTool((Problem(source, f"gives no tools: {failure}", "no-server"),)) from None
    described = [_described(tool) for tool in found.values()]
    pins = {one.name: one.pin for one in described}

    def call(one: Described) -> Call:
        async def ask(arguments: dict[str, Any], _key: str) -> Any:
            result = await link.call(one.name, arguments, lambda tool: _pin(tool) == pins[one.name])
            return _value(result, vault, structured=found[one.name].output_schema is not None)

        return ask

    return brought(source, described, call, rules=spec.rules, pin=spec.digest, close=link.close)


def _pin(tool: types.Tool) -> dict[str, Any]:
    """Give all of a tool that somebody relies on: what it is called, says, takes, gives and claims."""
    notes = None if tool.annotations is None else tool.annotations.model_dump(mode="json", exclude_none=True)
    return {
        "name": tool.name,
        "description": tool.description,
        "input": tool.input_schema,
        "output": tool.output_schema,
        "annotations": notes,
    }


def _described(tool: types.Tool) -> Described:
    hints = tool.annotations
    output = tool.output_schema
    return Described(
        name=tool.name,
        description=tool.description or tool.title or "",
        input=tool.input_schema,
        output=WRAPPER if output is None else output,
        pin=_pin(tool),
        said=None if hints is None else _said(hints),
        open_world=None if hints is None else hints.open_world_hint,
        idempotent=None if hints is None else hints.idempotent_hint,
    )


def _said(hints: types.ToolAnnotations) -> EffectClass | None:
    """Read what annotations claim, as far as it makes a tool worse: that it only reads proves nothing."""
    if hints.destructive_hint is True:
        return "destructive"
    return "write" if hints.read_only_hint is False else None


def _value(result: types.CallToolResult, vault: Vault, *, structured: bool) -> Any:
    """Take the value out of an answer.

    Raises:
        ToolFailure: the server says that the tool failed; what it says of that goes to the trace alone.
    """
    text = "\n".join(part.text for part in result.content if isinstance(part, types.TextContent))
    if result.is_error:
        raise ToolFailure("upstream", "the tool says that it failed; its words are in the trace") from Words(
            text[:4000]
        )
    value = (
        result.structured_content if structured else {"text": text, "parts": [_part(part) for part in _others(result)]}
    )
    if vault and vault.holds(orjson.dumps(value)):
        raise ToolFailure("upstream", "the result holds a secret that the server was given, so it is not shown")
    return value


def _others(result: types.CallToolResult) -> list[Any]:
    return [part for part in result.content if not isinstance(part, types.TextContent)][:64]


def _part(part: Any) -> dict[str, Any]:
    data = getattr(part, "data", None)
    made: dict[str, Any] = {"kind": str(getattr(part, "type", "unknown"))[:40]}
    mime = getattr(part, "mime_type", None)
    if isinstance(mime, str):
        made["mime"] = mime[:100]
    if isinstance(data, str):
        made["characters"] = len(data)
    return made
