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
_READ: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC


def diff_of(
    planned: Release,
    layers: Sequence[Layer],
    workspace: Path,
    *,
    only: Collection[str] | None = None,
    most: int = 20_000,
) -> str:
    """Give a unified diff of what is text and small, and one line of all else; at most about `most` characters."""
    holders = contents_of(layers)
    parts: list[str] = []
    for item in planned.items:
        if only is not None and item.path not in only:
            continue
        old, new = _before(item, workspace), _after(item, holders)
        if old is None or new is None or item.change.kind != "file":
            parts.append(f"{item.change.op} {item.change.kind} {item.path}\n")
        else:
            parts.append(_lines(item.path, old, new) or f"{item.change.op} {item.change.kind} {item.path}\n")
        if sum(map(len, parts)) > most:
            break
    whole = "".join(parts)
    return whole if len(whole) <= most else f"{whole[:most]}\n… more is not shown"


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
