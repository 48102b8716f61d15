"""Host: what this machine says of itself; read-only, and no argument reaches a command line.

In:   small numbers. Out: small typed results; what this machine does not tell stands under `missing`.
May import: the decorator, the markers, the package logs; the standard library. Must not know: who asks.
Why `disks` and `processes` act in the broker: these facts are the machine's, and a sandbox that isolates would tell its own instead.
`memory` is the same inside, and `packages` needs `/var/log`, which a fleet mounts; where it is missing, it says so.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import Field

from midwatch.tools.binding import ToolContext
from midwatch.tools.builtin.packages import changes_since, program
from midwatch.tools.contract import Arg, Out
from midwatch.tools.decorate import tool

__all__ = ["disks", "memory", "packages", "processes"]

_host = partial(tool, effect="read", idempotent=True, reversible=False, open_world=False, observers=(), timeout="30s")
# File systems that live in memory, or show something that is no disk.
_NO_DISK: Final = frozenset(
    {
        "autofs", "binfmt_misc", "bpf", "cgroup", "cgroup2", "configfs", "debugfs", "devpts", "devtmpfs", "efivarfs",
        "fusectl", "hugetlbfs", "mqueue", "nsfs", "proc", "pstore", "ramfs", "rpc_pipefs", "securityfs", "squashfs",
        "sysfs", "tmpfs", "tracefs",
    }
)  # fmt: skip
# A server that is gone makes `statvfs` wait for ever, and one thread with it.
_REMOTE: Final = re.compile(r"(nfs|cifs|smb|9p$|ceph|fuse\.sshfs|afs)")
_MAX_CHANGES: Final = 200
_MAX_DISKS: Final = 64
_MAX_PROCESSES: Final = 50

Text = Annotated[str, Field(max_length=200)]
Missing = Annotated[list[Text], Field(max_length=20)]
Count = Annotated[int, Field(ge=0)]
Percent = Annotated[int, Field(ge=0, le=100)]


@dataclass(frozen=True, slots=True)
class Package:
    """One change of a package: when (UTC), what, which, from and to which version."""

    at: Text
    action: Text
    name: Text
    old: Text
    new: Text


@dataclass(frozen=True, slots=True)
class Packages:
    """What the package manager's log says; `count` is of all changes, `changes` has the latest 200, oldest first."""

    source: Text
    count: Count
    changes: Annotated[list[Package], Field(max_length=_MAX_CHANGES)]
    missing: Missing


@dataclass(frozen=True, slots=True)
class Disk:
    """One mounted file system; sizes in bytes, `free` for ordinary users."""

    mount: Text
    kind: Text
    size: Count
    free: Count
    used_percent: Percent
    inodes_percent: Percent


@dataclass(frozen=True, slots=True)
class Disks:
    """Mounted file systems, fullest first."""

    disks: Annotated[list[Disk], Field(max_length=_MAX_DISKS)]
    missing: Missing


@dataclass(frozen=True, slots=True)
class Memory:
    """Main memory in bytes; pressure in hundredths of a percent of time that something waited for memory, or null."""

    total: Count
    available: Count
    used_percent: Percent
    swap_total: Count
    swap_free: Count
    pressure_60s: Annotated[int, Field(ge=0, le=10_000)] | None
    missing: Missing


@dataclass(frozen=True, slots=True)
class Process:
    """One process; memory in bytes, processor time in whole seconds since it began."""

    pid: Count
    name: Annotated[Text, Out(author="third_party")]
    memory: Count
    cpu_seconds: Count


@dataclass(frozen=True, slots=True)
class Processes:
    """How many processes there are, and the largest of them."""

    count: Count
    zombies: Count
    top: Annotated[list[Process], Field(max_length=_MAX_PROCESSES)]
    missing: Missing


@_host(name="host.packages", runs="sandbox")
def packages(
    context: ToolContext, since_hours: Annotated[int, Field(ge=1, le=8760), Arg(role="quantity")] = 24
) -> Annotated[Packages, Out(author="service")]:
    """List the packages that were installed, upgraded or removed lately, from the package manager's log.

    Args:
        since_hours: how many hours to look back.
    """
    found = changes_since(context.clock() - since_hours * 3_600_000_000)
    changes = [Package(item.at, item.action, item.name, item.old, item.new) for item in found.changes]
    return Packages(found.source or "none", len(changes), changes[-_MAX_CHANGES:], _short(found.missing))


@_host(name="host.disks", runs="broker")
def disks() -> Annotated[Disks, Out(author="service")]:
    """List the mounted file systems with size, free space and how full they are in percent, fullest first."""
    missing: list[str] = []
    mounts = list(_mounts(missing))
    found: dict[int, Disk] = {}
    for mount, kind in mounts:
        try:
            facts, device = os.statvfs(mount), Path(mount).stat().st_dev
        except OSError as failure:
            missing.append(f"{mount} cannot be measured: {(failure.strerror or 'unknown reason').lower()}")
            continue
        # One file system may be mounted in several places, and files may be mounted: the shortest path names it.
        known = found.get(device)
        if facts.f_blocks and Path(mount).is_dir() and (known is None or len(mount) < len(known.mount)):
            found[device] = _disk(mount, kind, facts)
    ordered = sorted(found.values(), key=lambda disk: (-disk.used_percent, disk.mount))
    return Disks(ordered[:_MAX_DISKS], _short(missing))


@_host(name="host.memory", runs="sandbox")
def memory() -> Annotated[Memory, Out(author="service")]:
    """Tell how much main memory and swap there is and is free, in bytes, and whether programs wait for memory."""
    missing: list[str] = []
    facts = _meminfo(missing)
    total, available = facts.get("MemTotal", 0), facts.get("MemAvailable", 0)
    return Memory(
        total=total,
        available=available,
        used_percent=min(100, 100 * max(0, total - available) // total) if total else 0,
        swap_total=facts.get("SwapTotal", 0),
        swap_free=facts.get("SwapFree", 0),
        pressure_60s=_pressure(missing),
        missing=_short(missing),
    )


@_host(name="host.processes", runs="broker")
def processes(
    top: Annotated[int, Field(ge=1, le=_MAX_PROCESSES), Arg(role="quantity")] = 10,
    by: Annotated[Literal["memory", "cpu"], Arg(role="selector")] = "memory",
) -> Annotated[Processes, Out(author="service")]:
    """Count the processes of this machine and list those that use most memory or processor time.

    Args:
        top: how many to list.
        by: whether memory or processor time decides.
    """
    tick, page = os.sysconf("SC_CLK_TCK"), os.sysconf("SC_PAGE_SIZE")
    found: list[Process] = []
    zombies = 0
    try:
        pids = [name for name in os.listdir("/proc") if name.isdigit()]  # noqa: PTH208  as names, thousands of them
    except OSError:
        return Processes(0, 0, [], ["/proc cannot be read: the processes are not known"])
    for pid in pids:
        fields = _stat(pid)
        if fields is None:
            continue  # it ended meanwhile
        name, rest = fields
        zombies += rest[0] == "Z"
        cpu = (int(rest[11]) + int(rest[12])) // tick  # utime and stime; proc(5), fields 14 and 15
        found.append(Process(int(pid), _clean(name), max(0, int(rest[21])) * page, cpu))
    ordered = sorted(found, key=lambda item: (-(item.cpu_seconds if by == "cpu" else item.memory), item.pid))
    return Processes(len(found), zombies, ordered[:top], [])


def _mounts(missing: list[str]) -> Iterator[tuple[str, str]]:
    """Give (mount point, type) of what may be a disk; `df` is asked where there is no /proc."""
    try:
        lines = Path("/proc/self/mounts").read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except OSError:
        table = program("df", "-P", "-l")
        if table is None:
            missing.append("neither /proc/self/mounts nor df tells what is mounted")
        for line in (table or "").splitlines()[1:]:
            words = line.split(None, 5)
            if len(words) == 6:
                yield words[5], "unknown"
        return
    for line in lines:
        words = line.split(" ")
        if len(words) < 3 or words[2] in _NO_DISK:
            continue
        mount = re.sub(r"\\([0-7]{3})", lambda octal: chr(int(octal.group(1), 8)), words[1])
        if _REMOTE.match(words[2]):
            missing.append(f"{mount} is on a server and is not measured")
        else:
            yield mount, words[2]


def _disk(mount: str, kind: str, facts: os.statvfs_result) -> Disk:
    used = facts.f_blocks - facts.f_bfree
    inodes = 100 * (facts.f_files - facts.f_ffree) // facts.f_files if facts.f_files else 0
    # As df counts: of what ordinary users could ever use, rounded up.
    percent = -(-100 * used // max(1, used + facts.f_bavail))
    size, free = facts.f_blocks * facts.f_frsize, facts.f_bavail * facts.f_frsize
    return Disk(_clean(mount), _clean(kind), size, free, _percent(percent), _percent(inodes))


def _meminfo(missing: list[str]) -> Mapping[str, int]:
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        missing.append("/proc/meminfo cannot be read: the memory is not known")
        return {}
    found = (re.match(r"(\w+):\s+(\d+) kB$", line) for line in lines)
    facts = {match[1]: int(match[2]) * 1024 for match in found if match is not None}
    missing += [f"the kernel does not tell {name}" for name in ("MemTotal", "MemAvailable") if name not in facts]
    return facts


def _pressure(missing: list[str]) -> int | None:
    try:
        text = Path("/proc/pressure/memory").read_text(encoding="ascii", errors="replace")
    except OSError:
        text = ""
    match = re.search(r"some .*avg60=(\d{1,3})\.(\d\d)", text)
    if match is None:
        missing.append("the kernel does not tell memory pressure")
        return None
    return min(10_000, int(match[1]) * 100 + int(match[2]))


def _stat(pid: str) -> tuple[str, list[str]] | None:
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    name, closing, rest = text.partition("(")[2].rpartition(")")  # a name may hold spaces and brackets
    fields = rest.split()
    return (name, fields) if closing and len(fields) > 21 else None


def _percent(value: int) -> int:
    return max(0, min(100, value))


def _clean(text: str) -> str:
    return text.encode("utf-8", "replace").decode()[:200]


def _short(missing: list[str] | tuple[str, ...]) -> list[str]:
    return [_clean(text) for text in missing[:20]]
