"""Places: the folders of control groups that this process may use, read from what the kernel says of itself.

In:   the texts of `/proc/self/mountinfo` and `/proc/self/cgroup`. Out: `Place`, one for each hierarchy that can be used.
May import: the standard library. Must not know: limits, groups, who runs in them.
Why a file of its own: all of it only reads, so that every kind of machine can be laid out in a folder and tried.
Source: kernel documentation, admin-guide/cgroup-v2 ("Delegation") and filesystems/proc (mountinfo).
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

__all__ = ["BOUNDS", "LEAF", "PARENT", "Kind", "Place", "find", "pids", "text"]

Kind = Literal["v2", "hybrid", "v1", "none"]
PARENT: Final = "midwatch"
LEAF: Final = "midwatch.self"
BOUNDS: Final = {"memory": "memory", "processes": "pids", "cpu_milli": "cpu"}
"""Fields of the limits, and the controller that holds each."""

_V1: Final = ("memory", "pids", "cpu", "cpuacct", "freezer")


@dataclass(frozen=True, slots=True)
class Place:
    """One hierarchy, and where in it groups can be made.

    Attributes:
        base: the folder that gets `midwatch`. mount: where the hierarchy begins. version: of the interface.
        controllers: what groups below `base` can have.
        settle: `base` holds processes that may be moved into a leaf, and must be before controllers are given on.
    """

    version: Literal[1, 2]
    base: Path
    mount: Path
    controllers: frozenset[str]
    settle: bool = False


@dataclass(frozen=True, slots=True)
class _Mount:
    root: str
    point: Path
    options: frozenset[str]
    version: Literal[1, 2]


def find(
    mountinfo: str, membership: str, root: Path, may: Callable[[Path, int], bool]
) -> tuple[Kind, tuple[Place, ...]]:
    """Tell the kind of this machine, and where groups can be made: version 2 first, since it freezes and kills.

    Args:
        mountinfo, membership: see the module's head. root: before every path read. may: as `os.access`.
    """
    mounts = list(_mounts(mountinfo, root))
    own = dict(_own(membership))
    places: dict[str, Place] = {}
    for mount in mounts:  # a later mount lies over an earlier one
        for name in ("",) if mount.version == 2 else tuple(name for name in _V1 if name in mount.options):
            place = _place(mount, own.get(name), may)
            if place is not None:
                places[name] = place
    kinds: dict[tuple[bool, bool], Kind] = {(True, True): "hybrid", (True, False): "v2", (False, True): "v1"}
    one = any(mount.version == 1 and not mount.options.isdisjoint(_V1) for mount in mounts)
    kind = kinds.get((any(mount.version == 2 for mount in mounts), one), "none")
    return kind, tuple({places[name]: None for name in sorted(places)})


def text(path: Path) -> str:
    """Read a file of the kernel's; empty where there is none."""
    with contextlib.suppress(OSError):
        return path.read_text(encoding="utf-8", errors="replace")
    return ""


def pids(folder: Path) -> frozenset[int]:
    """Read the processes of one group."""
    return frozenset(int(line) for line in text(folder / "cgroup.procs").split())


def _mounts(mountinfo: str, root: Path) -> Iterator[_Mount]:
    for line in mountinfo.splitlines():
        left, found, right = line.partition(" - ")
        fields, kind = left.split(" "), right.split(" ")
        if found and len(fields) >= 6 and len(kind) >= 3 and kind[0] in ("cgroup", "cgroup2"):
            point = root / _plain(fields[4]).lstrip("/")
            if point.is_dir():
                version: Literal[1, 2] = 2 if kind[0] == "cgroup2" else 1
                yield _Mount(_plain(fields[3]), point, frozenset(kind[2].split(",")), version)


def _plain(field: str) -> str:
    return re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), field)


def _own(membership: str) -> Iterator[tuple[str, str]]:
    """Read where this process is: by controller, `""` for version 2."""
    for line in membership.splitlines():
        _, _, rest = line.partition(":")
        names, _, path = rest.partition(":")
        yield from ((name, path) for name in names.split(","))


def _place(mount: _Mount, own: str | None, may: Callable[[Path, int], bool]) -> Place | None:
    """Find the folder nearest to the own one in which groups can be made, with as many controllers as any above has."""
    best: Place | None = None
    for folder in _upwards(mount, own):
        if not (may(folder, os.W_OK | os.X_OK) and may(folder / "cgroup.procs", os.W_OK)):
            continue
        if mount.version == 1:
            return Place(1, folder, mount.point, mount.options & set(_V1))
        offered = set(text(folder / "cgroup.controllers").split()) & set(BOUNDS.values())
        given = set(text(folder / "cgroup.subtree_control").split())
        inside = (folder / "cgroup.events").exists()  # the root of all has none, and may hold processes
        there = pids(folder) if inside else frozenset()
        settle = bool(there) and best is None and (there == {os.getpid()} or _delegated(folder))
        fixed = (there and not settle) or not may(folder / "cgroup.subtree_control", os.W_OK)
        can = offered & given if fixed else offered
        if best is None or len(can) > len(best.controllers):
            best = Place(2, folder, mount.point, frozenset(can), settle)
    return best


def _upwards(mount: _Mount, own: str | None) -> Iterator[Path]:
    base = mount.root.rstrip("/")
    inside = own is not None and ".." not in own.split("/") and (own == base or own.startswith(base + "/"))
    parts = [part for part in (own or "")[len(base) :].split("/") if part] if inside else []
    if parts and parts[-1] == LEAF:
        parts.pop()
    for length in range(len(parts), -1, -1):
        folder = mount.point.joinpath(*parts[:length])
        if folder.is_dir():
            yield folder


def _delegated(folder: Path) -> bool:
    """Whether the service manager says that everything below is its user's own business."""
    for mark in ("user.delegate", "trusted.delegate"):
        with contextlib.suppress(OSError):
            if os.getxattr(folder, mark) == b"1":
                return True
    return False
