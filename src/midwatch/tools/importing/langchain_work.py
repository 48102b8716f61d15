"""Work of LangChain tools: finds one of them by its place, and performs one call of it, in a sandbox's worker or beside the kernel.

In:   `FILE.py:NAME` or `MODULE:NAME`, a tool's own name; arguments by that tool's names. Out: `{text, artifact}`, or what was raised.
May import: `foreign`, `outcome`, the sandbox's loader of files, errors; LangChain. Must not know: contracts, who calls.
Why attributes that spell a place: a worker is given a name to import. `place_of` writes a place as one, and reading it finds the tool.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from langchain_core.messages import ToolMessage
from langchain_core.tools import BaseTool

from midwatch.errors import ToolFailure
from midwatch.sandbox.worker import imported, resolve
from midwatch.tools.importing.foreign import Words
from midwatch.tools.outcome import Outcome, from_exception

__all__ = ["answered", "found_at", "place_of"]

_MARK: Final = "at_"


@dataclass(frozen=True, slots=True)
class _Worker:
    """What a worker calls: the like of `Tool.work`."""

    source: str
    name: str
    renamed: Mapping[str, str]

    def work(self, arguments: str, facts: Mapping[str, Any]) -> dict[str, Any]:
        """Perform one call; nothing is raised but what ends a process."""
        try:
            tool = found_at(self.source)[self.name]
            given = {self.renamed.get(name, name): value for name, value in json.loads(arguments).items()}
            return Outcome(value=answered(tool, given, str(facts["idempotency_key"]))).to_wire()
        except Exception as raised:  # noqa: BLE001  the boundary to foreign code: whatever it raises becomes a value
            return from_exception(raised).to_wire()


def place_of(source: str, name: str, renamed: Mapping[str, str]) -> str:
    """Write a tool's place as a reference that a worker can import."""
    return f"{__name__}:{_MARK}{json.dumps([source, name, dict(renamed)]).encode().hex()}"


def __getattr__(name: str) -> Any:
    if not name.startswith(_MARK):
        raise AttributeError(name)
    source, tool, renamed = json.loads(bytes.fromhex(name.removeprefix(_MARK)))
    return _Worker(source, tool, renamed)


def found_at(source: str) -> dict[str, BaseTool]:
    """Load what a source names: tools by their own names; what is no tool is left out.

    Raises:
        Exception: whatever the module raises while it is loaded.
    """
    module, _, attribute = source.rpartition(":")
    named = resolve(source) if module.endswith(".py") else getattr(imported(module), attribute)
    listed = list(named) if isinstance(named, list | tuple) else [named]
    return {tool.name: tool for tool in listed if isinstance(tool, BaseTool)}


def answered(tool: BaseTool, arguments: dict[str, Any], key: str) -> dict[str, Any]:
    """Call a tool as an agent would, in this thread; what it handled as its own error is a failure here.

    Raises:
        ToolFailure: it says that it failed; its words are for the trace.
    """
    asked: Any = {"type": "tool_call", "id": key, "name": tool.name, "args": arguments}
    lone = getattr(tool, "func", tool) is None  # it has nothing but a coroutine
    message: Any = asyncio.run(tool.ainvoke(asked)) if lone else tool.invoke(asked)
    if not isinstance(message, ToolMessage):
        raise ToolFailure("upstream", "the tool answered with something that is no message")
    text = message.text
    if message.status == "error":
        raise ToolFailure("upstream", "the tool says that it failed; its words are in the trace") from Words(
            text[:4000]
        )
    return {"text": text, "artifact": message.artifact is not None}
