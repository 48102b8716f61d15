"""Trees: small workspaces as dictionaries, and the layer that leads from one to another.

A tree is `{path: value}`; a value is text (a file), `None` (a folder), `("link", target)`, or `(text, mode)`.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from midwatch.sandbox.effects import Change, Kind, raw, shown
from midwatch.sandbox.layers import Layer, Spool, write
from midwatch.sandbox.overlay import leads_out
from midwatch.sandbox.watched import why

Tree = Mapping[str, Any]


def make(root: Path, tree: Tree) -> None:
    """Make a tree; folders above a file are made."""
    root.mkdir(exist_ok=True)
    for path, value in tree.items():
        place = Path(os.fsdecode(os.fsencode(root) + b"/" + raw(path)))
        place.parent.mkdir(parents=True, exist_ok=True)
        kind, mode, data, target = _parts(value)
        if kind == "folder":
            place.mkdir(exist_ok=True)
            place.chmod(mode)
        elif kind == "link":
            place.symlink_to(os.fsdecode(raw(target)))
        else:
            place.write_bytes(data)
            place.chmod(mode)


def look(root: Path) -> dict[str, Any]:
    """Give everything below: kind, mode, content."""
    found: dict[str, Any] = {}
    for above, folders, files in os.walk(root):
        for place in (Path(above) / name for name in folders + files):
            state = place.lstat()
            what = (
                place.read_bytes()
                if stat.S_ISREG(state.st_mode)
                else os.fsencode(place.readlink())
                if stat.S_ISLNK(state.st_mode)
                else None
            )
            found[shown(os.fsencode(place.relative_to(root)))] = (stat.filemode(state.st_mode), what)
    return dict(sorted(found.items()))


def layer(path: Path, before: Tree, after: Tree) -> Layer:
    """Write the layer of a call that found `before` and left `after`; both name every folder."""
    spool = Spool(path.parent)
    changes = []
    for name in sorted({*before, *after}):
        change = _change(name, before.get(name, _NOTHING), after.get(name, _NOTHING), spool)
        if change is not None:
            changes.append(change)
    written = write(path, changes, (), spool)
    spool.close()
    return written


_NOTHING = object()


def _change(path: str, old: Any, new: Any, spool: Spool) -> Change | None:
    if old == new:
        return None
    flags = tuple(f"watched:{reason}" for reason in [why(path)] if reason)
    kind, mode, data, target = _parts("" if old is _NOTHING else old)
    base = None if old is _NOTHING else _sha(kind, data, target)
    was: Kind | None = None if old is _NOTHING else kind
    was_mode = None if old is _NOTHING else mode
    if new is _NOTHING:
        return Change("deleted", path, was or "file", base=base, before=base, flags=flags, was=was, was_mode=was_mode)
    kind, mode, data, target = _parts(new)
    sha256 = _sha(kind, data, target)
    if kind == "file":
        spool.add(data)
    if kind == "link" and leads_out(path, raw(target)):
        flags = ("leaves", *flags)
    same = was == kind and sha256 == base
    return Change(
        "created" if was is None else "permission" if same else "modified",
        path, kind, mode, len(data) if kind == "file" else None, sha256, base, base,
        target or None, flags, was, was_mode,
    )  # fmt: skip


def _parts(value: Any) -> tuple[Kind, int, bytes, str]:
    if value is None:
        return "folder", 0o755, b"", ""
    if isinstance(value, tuple) and value[0] == "link":
        return "link", 0o777, b"", value[1]
    if isinstance(value, tuple):
        return ("folder" if value[0] is None else "file"), value[1], (value[0] or "").encode(), ""
    return "file", 0o644, value.encode(), ""


def _sha(kind: str, data: bytes, target: str) -> str | None:
    if kind == "folder":
        return None
    return hashlib.sha256(raw(target) if kind == "link" else data).hexdigest()
