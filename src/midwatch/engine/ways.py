"""Ways: where a file is, by name and by every link on the way to it.

In:   a path as somebody wrote it. Out: the names under which a workspace knows it; what must be looked at to know when it changed.
May import: sandbox (how paths are written). Must not know: what the file is for.
Why every link: whoever turns one round, or the folder that one leads to, has changed the file without touching it.
Source: CONTAINMENT.md, clause 24.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from midwatch.sandbox.effects import shown

__all__ = ["changing", "names_in"]

_LINKS: Final = 40
"""More of them the kernel does not follow, either."""


def names_in(workspace: Path, file: Path) -> Iterator[str]:
    """Give the names under which a workspace knows a file and the folders above it: as it is named, and wherever links lead on the way."""
    named = Path(os.path.abspath(file))  # noqa: PTH100 - links are followed below; here the name counts
    ways = {*_ways(file), Path(os.path.realpath(named.parent)) / named.name, Path(os.path.realpath(named))}
    for root in {workspace, Path(os.path.realpath(workspace))}:
        for path in ways:
            if path.is_relative_to(root) and path != root:
                parts = path.relative_to(root).parts
                for length in range(1, len(parts) + 1):
                    yield shown(os.fsencode("/".join(parts[:length])))


def _ways(file: Path) -> Sequence[Path]:
    """Give a file as it is named, then once for each link on its way, with what that link says in its place."""
    found = [Path(os.path.abspath(file))]  # noqa: PTH100 - as above
    while len(found) < _LINKS and (link := _link(found[-1])) is not None:
        target = link.parent / os.readlink(link) / found[-1].relative_to(link)  # noqa: PTH115 - a text, as it stands there
        path = Path(os.path.abspath(target))  # noqa: PTH100 - as above
        if path in found:
            break
        found.append(path)
    return found


def _link(path: Path) -> Path | None:
    """Give the first link on the way to a file, the file itself included."""
    return next((each for each in (*reversed(path.parents), path) if each.is_symlink()), None)


def changing(file: Path) -> Sequence[Path]:
    """Give what is to be looked at to know when a file changed: each link on its way, and where they lead to in the end."""
    ways = _ways(file)
    return tuple(dict.fromkeys(_link(way) or way for way in ways))
