"""Showing: what a release changes, as lines that a person can read.

In:   a release, the layers behind it, the workspace. Out: text, bounded.
May import: release, layers, beneath. Must not know: cards, terminals.
"""

from __future__ import annotations

import difflib
import os
import stat
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Final

from midwatch.sandbox.beneath import open_below, open_root, parts_of
from midwatch.sandbox.layers import Layer, contents_of, open_content
from midwatch.sandbox.release import Item, Release

__all__ = ["diff_of"]

_MOST: Final = 65_536
"""Bytes of a file whose lines are compared."""
_LEAST: Final = 1_000
"""Characters that a file may take however little is shown of all."""
_READ: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC


def diff_of(
    planned: Release,
    layers: Sequence[Layer],
    workspace: Path,
    *,
    only: Collection[str] | None = None,
    most: int = 20_000,
) -> str:
    """Give a unified diff of what is text and small, and one line of all else; at most about `most` characters.

    What needs a person comes first, and no file takes more than its share: else the agent chooses what is cut off.
    """
    holders = contents_of(layers)
    chosen = [item for item in planned.items if only is None or item.path in only]
    parts: list[str] = []
    left = most
    for number, item in enumerate(sorted(chosen, key=lambda item: not item.person)):
        if left <= 0:
            parts.append(f"… {len(chosen) - number:,} more paths are not shown\n")
            break
        text = _cut(_one(item, workspace, holders), item.path, min(left, max(_LEAST, most // 4)))
        parts.append(text)
        left -= len(text)
    return "".join(parts)


def _cut(text: str, path: str, most: int) -> str:
    if len(text) <= most:
        return text
    return f"{text[:most]}\n… {len(text) - most:,} more characters of {path} are not shown\n"


def _one(item: Item, workspace: Path, holders: dict[str, Layer]) -> str:
    change = item.change
    head = f"{change.op} {change.kind} {item.path}{_mode(item)}"
    if change.kind == "link":
        return f"{head}{'' if change.target is None else f' -> {change.target}'}\n"
    if change.kind != "file" or change.op == "permission":
        return f"{head}\n"
    old, new = _before(item, workspace), _after(item, holders)
    lines = "" if old is None or new is None else _lines(item.path, old, new)
    if lines:
        return f"{head}\n{lines}" if _mode(item) else lines
    hidden = old is None or new is None
    return f"{head}{', its content is not shown: no text, or too large' if hidden else ''}\n"


def _mode(item: Item) -> str:
    """Say which rights something gets, where they are not those of an ordinary file or folder."""
    mode, was = item.change.mode, item.change.was_mode
    if mode is None or item.change.kind == "link" or (was == mode or (was is None and not mode & (0o7000 | 0o111))):
        return ""
    if item.change.kind == "folder" and was is None:
        return ""
    return f" (mode {'none' if was is None else f'{was:04o}'} -> {mode:04o})"


def _lines(path: str, old: str, new: str) -> str:
    found = difflib.unified_diff(old.splitlines(keepends=True), new.splitlines(keepends=True), f"a/{path}", f"b/{path}")
    return "".join(line if line.endswith("\n") else f"{line}\n" for line in found)


def _before(item: Item, workspace: Path) -> str | None:
    if item.change.op == "created":
        return ""
    try:
        root = open_root(workspace)
        try:
            *folders, name = parts_of(item.path)
            folder = open_below(root, folders)
            try:
                descriptor = os.open(name, _READ, dir_fd=folder)
            finally:
                os.close(folder)
        finally:
            os.close(root)
    except OSError:
        return None
    with os.fdopen(descriptor, "rb") as stream:
        return _text(stream.read(_MOST + 1)) if stat.S_ISREG(os.fstat(descriptor).st_mode) else None


def _after(item: Item, holders: dict[str, Layer]) -> str | None:
    change = item.change
    if change.op == "deleted":
        return ""
    if change.sha256 is None or change.sha256 not in holders or (change.size or 0) > _MOST:
        return None
    with open_content(holders[change.sha256], change.sha256) as stream:
        return _text(stream.read())


def _text(body: bytes) -> str | None:
    if len(body) > _MOST or b"\0" in body:
        return None
    try:
        return body.decode()
    except UnicodeDecodeError:
        return None
