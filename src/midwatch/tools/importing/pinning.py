"""Pinning: the digest of a source's tools is written into the fleet file, and nothing else there changes.

In:   the text of a fleet file, a block (`mcp`, `openapi`, `langchain`), a name, the block's line, a digest. Out: the new text.
May import: the standard library. Must not know: what the digest is of, fleets.
Why the text and not the values: comments, order and spelling of the file are its author's. Whoever writes the file loads the new text
first, and compares: where a file is written in a way that is not understood here, nothing is written.
"""

from __future__ import annotations

import re
from typing import Final

__all__ = ["pinned_text"]

_DIGEST: Final = re.compile(r"(?<![\w-])digest:[ \t]*[^\s,}#]+")


def pinned_text(text: str, line: int, digest: str) -> str:
    """Put `digest` into the block that begins at `line`.

    Args:
        line: of the block's own key, from 1.
    """
    lines = text.split("\n")
    start = line - 1
    first = lines[start]
    indent = len(first) - len(first.lstrip())
    end = start + 1
    while end < len(lines) and (not lines[end].strip() or len(lines[end]) - len(lines[end].lstrip()) > indent):
        end += 1
    for number in range(start, end):
        if _DIGEST.search(lines[number]):
            lines[number] = _DIGEST.sub(f"digest: {digest}", lines[number], count=1)
            return "\n".join(lines)
    key, brace, rest = first.partition("{")
    if brace:
        lines[start] = f"{key}{{digest: {digest}, {rest}"
    else:
        inner = next(
            (row for row in lines[start + 1 : end] if row.strip() and not row.strip().startswith("#")),
            " " * (indent + 2),
        )
        lines.insert(start + 1, f"{' ' * (len(inner) - len(inner.lstrip()))}digest: {digest}")
    return "\n".join(lines)
