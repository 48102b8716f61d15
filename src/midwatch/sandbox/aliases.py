"""Aliases: files of the workspace that are run or obeyed under another name, because a watched name is a link to them.

In:   the workspace. Out: by path, the watched link that leads there and why it is watched.
May import: effects, watched. Must not know: layers, who asks.
Why: `.git/hooks/pre-commit` is often a link to a script of the project, and `CLAUDE.md` one to `AGENTS.md`. Whoever changes what a link
leads to changes what is run, and the list of watched names would not tell. Links that a run itself makes are told by their own names.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from midwatch.sandbox.effects import shown
from midwatch.sandbox.watched import why

__all__ = ["aliases", "named"]

_ENTRIES: Final = 300_000
"""Names that are looked at; what lies beyond them is not told."""
_INERT: Final = frozenset({b"objects", b"node_modules", b"site-packages"})
"""Folders that hold most names of a project, and no link that somebody runs by habit."""


def aliases(workspace: Path) -> dict[str, tuple[str, str]]:
    """Give `{path: (link, reason)}`, of links that stand in the workspace now."""
    root = os.path.realpath(os.fsencode(workspace))
    found: dict[str, tuple[str, str]] = {}
    for link in _links(root):
        name = shown(link)
        reason = why(name)
        if reason is None:
            continue
        target = os.path.realpath(root + b"/" + link)
        if target.startswith(root + b"/"):
            found[shown(target[len(root) + 1 :])] = (name, reason)
    return found


def named(path: str, known: Mapping[str, tuple[str, str]]) -> str | None:
    """Say in words which watched link leads to a path, or to a folder above it; None where none does."""
    place = path
    while place:
        if place in known and path != known[place][0]:
            link, reason = known[place]
            return f"`{link}` leads to it: {reason}"
        place = place.rpartition("/")[0]
    return None


def _links(root: bytes) -> Iterator[bytes]:
    """Give every link below a folder, through none of them."""
    todo, left = [b""], _ENTRIES
    while todo and left > 0:
        here = todo.pop()
        try:
            with os.scandir(root + b"/" + here) as entries:
                for entry in entries:
                    left -= 1
                    path = here + b"/" + entry.name if here else entry.name
                    if entry.is_symlink():
                        yield path
                    elif entry.is_dir(follow_symlinks=False) and entry.name not in _INERT:
                        todo.append(path)
        except OSError:  # it went meanwhile, or is nobody's to read: then nobody runs it from here
            continue
