"""Blocks: several files out of one text, as models like to write them.

In:   Markdown with a fenced block for each file and its name beside it, or `<file path="…">` elements.
Out:  what was written; `ToolFailure` where the text cannot be read in one way only, and then nothing is written.
May import: the files tool, the recovery of blocks, the decorator; errors. Must not know: who asks.
Why the text is a command: it names the places that are written, so whoever wrote it chose them. In a sandbox that costs nothing; outside
of one it takes the reach of a command (CONTAINMENT.md, clause 6).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Final

from pydantic import Field

from midwatch.errors import ToolFailure
from midwatch.recovery.blocks import MAX_BLOCKS, RefusedBlocks, file_blocks
from midwatch.tools.binding import ToolContext
from midwatch.tools.builtin.files import MAX_FILE, Written, put
from midwatch.tools.contract import Arg
from midwatch.tools.decorate import tool

__all__ = ["write"]

_WHY: Final = {
    "empty": "the text is empty",
    "too_long": "the text is larger than 1 MiB; write fewer files at a time",
    "too_many": f"the text holds more than {MAX_BLOCKS} files",
    "no_candidate": "no block of the text has a file name beside it",
    "truncated": "a block has no end",
    "ambiguous": "a file stands there twice, with two contents",
    "path": "a path leads out of the working directory, or cannot be a file",
}


@dataclass(frozen=True, slots=True)
class Unpacked:
    """The files that were written, in the order of the text."""

    files: Annotated[list[Written], Field(max_length=MAX_BLOCKS)]


@tool(
    name="blocks.write",
    effect="write",
    idempotent=True,
    reversible=False,
    open_world=False,
    observers=(),
    runs="sandbox",
    timeout="30s",
)
def write(context: ToolContext, text: Annotated[str, Field(max_length=MAX_FILE), Arg(role="command")]) -> Unpacked:
    """Write every file of a Markdown text below the working directory: one fenced block for each, its path in the info string.

    Args:
        text: such as "```python src/app.py", the whole content, "```"; use a longer fence around content that has fences of its own.
    """
    found = file_blocks(text)
    if isinstance(found, RefusedBlocks):
        hint = "give each block its relative path in the info string, and the whole file in the block"
        raise ToolFailure("invalid_arguments", f"nothing was written: {_WHY[found.code]}", hint=hint)
    return Unpacked([put(context, block.path, block.content.encode()) for block in found])
