"""LangChain: a `BaseTool`, or a list of them, out of a file beside the fleet file or an installed module.

In:   a `LangchainSpec`, the fleet's folder. Out: `Brought`: the tools under contracts.
May import: `foreign`, `langchain_work`, the registry's words for what a file raises, config's specs, records, errors; LangChain.
Must not know: who calls, gates.
Why they act in a sandbox like tools of one's own: their code is a stranger's, and nothing that it needs of the kernel is here.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, Final

from langchain_core.tools import BaseTool
from pydantic import BaseModel

from midwatch.config.specs_imports import LangchainSpec
from midwatch.errors import InvalidTool, Problem
from midwatch.tools.importing.foreign import Brought, Call, Described, brought
from midwatch.tools.importing.langchain_work import answered, found_at, place_of

__all__ = ["bring"]

_RESULT: Final = {
    "type": "object",
    "properties": {
        "text": {"type": "string", "description": "What the tool answered."},
        "artifact": {
            "type": "boolean",
            "description": "Whether it kept an object beside its text, which is not shown.",
        },
    },
    "required": ["text", "artifact"],
    "additionalProperties": False,
}


def bring(spec: LangchainSpec, base: Path) -> Brought:
    """Load the tools that a source names.

    Raises:
        InvalidTool: the source does not load, or names no tools.
    """
    source = f"langchain.{spec.name}"
    module, _, attribute = spec.source.rpartition(":")
    if module.endswith(".py"):
        place = f"{(base / module).resolve()}:{attribute}"
    else:
        place = spec.source
        if str(base) not in sys.path:
            sys.path.append(str(base))
    try:
        known = found_at(place)
    except (Exception, SystemExit) as raised:  # noqa: BLE001  the boundary to foreign code: it becomes a problem
        told = f"`{spec.source}` raises while it is loaded: {type(raised).__name__}: {str(raised)[:200]}"
        raise InvalidTool((Problem(source, told, "import-failed"),)) from None
    if not known:
        raise InvalidTool(
            (Problem(source, f"`{spec.source}` is neither a LangChain tool nor a list of them", "no-tools"),)
        )
    described, left = [], []
    for tool in known.values():
        try:
            described.append(_described(tool))
        except Exception as raised:  # noqa: BLE001  a stranger's schema, made by a stranger's code
            told = f"`{tool.name[:64]}` is left out: its schema cannot be written ({type(raised).__name__})"
            left.append(Problem(source, told, "tool-left-out"))

    def call(one: Described) -> Call:
        def ask(arguments: dict[str, Any], key: str) -> Any:
            return answered(known[one.name], arguments, key)

        return ask

    where = None if spec.runs == "broker" else lambda name, renamed: place_of(place, name, renamed)
    made = brought(source, described, call, rules=spec.rules, pin=spec.digest, ref=where, threaded=True)
    files = (Path(place.rpartition(":")[0]),) if module.endswith(".py") else ()
    return Brought(made.source, made.digest, made.tools, made.pending, (*left, *made.notes), None, files)


def _described(tool: BaseTool) -> Described:
    """Say what a model would be told of a tool: what is injected into it is no argument."""
    form = tool.tool_call_schema
    schema: Any = form.model_json_schema() if isinstance(form, type) and issubclass(form, BaseModel) else form
    schema = schema if isinstance(schema, dict) else schema.schema()
    pin = {"name": tool.name, "description": tool.description, "input": schema, "format": tool.response_format}
    return Described(tool.name, tool.description, schema, _RESULT, pin)
