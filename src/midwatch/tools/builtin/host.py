"""Host facts: what this machine says of itself, read-only, without arguments that reach a command line.

In:   small numbers. Out: small typed results; where a source is missing, `missing` says which.
May import: decorate, contract, the standard library. Must not know: who asks.
"""

from __future__ import annotations

import gzip
import os
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Final

from pydantic import Field

from midwatch.tools.binding import ToolContext
from midwatch.tools.contract import Arg, Out
from midwatch.tools.decorate import tool

__all__ = ["disks", "memory", "packages", "processes"]

_DPKG_LOGS: Final = ("/var/log/dpkg.log", "/var/log/dpkg.log.1", "/var/log/dpkg.log.2.gz")
_NO_DISK: Final = frozenset({"proc", "sysfs", "tmpfs", "devtmpfs", "devpts", "cgroup", "cgroup2", "mqueue", "overlayfs", "squashfs"})
_LOG_LIMIT: Final = 4_000_000
_Text = Annotated[str, Field(max_length=200)]


@dataclass(frozen=True, slots=True)
class Package:
    """One change of a package."""

    at: _Text
    action: _Text
    name: _Text
    old: _Text
    new: _Text


@dataclass(frozen=True, slots=True)
class Packages:
    """What the package manager's log says."""

    source: _Text
    missing: list[_Text]
    count: int
    changes: Annotated[list[Package], Field(max_length=200)]


@dataclass(frozen=True, slots=True)
class Disk:
    """One mounted file system; sizes in bytes."""

    mount: _Text
    kind: _Text
    size: int
    free: int
    used_percent: int


@dataclass(frozen=True, slots=True)
class Disks:
    """Mounted file systems, fullest first."""

    disks: Annotated[list[Disk], Field(max_length=100)]
    missing: list[_Text]


@dataclass(frozen=True, slots=True)
class Memory:
    """Main memory, in bytes; zero where the kernel does not say, and then `missing` names it."""

    total: int
    available: int
    used_percent: int
    swap_total: int
    swap_free: int
    missing: list[_Text]


@dataclass(frozen=True, slots=True)
class Process:
    """One process; memory in bytes, processor time in seconds."""

    pid: int
    name: _Text
    memory: int
    cpu_seconds: int


@dataclass(frozen=True, slots=True)
class Processes:
    """Processes, largest first."""

    count: int
    zombies: int
    top: Annotated[list[Process], Field(max_length=50)]
    missing: list[_Text]


@tool(
    name="host.packages", effect="read", idempotent=True, open_world=False, runs="broker", reversible=False, timeout="30s"
)
def packages(
    context: ToolContext, since_hours: Annotated[int, Field(ge=1, le=720), Arg(role="quantity")] = 24
) -> Annotated[Packages, Out(author="service")]:
    """List the packages that were installed, upgraded or removed lately, from the package manager's log.

    Args:
        since_hours: how far to look back.
    """
    since = datetime.fromtimestamp(context.clock() / 1_000_000 - since_hours * 3600, UTC).strftime("%Y-%m-%d %H:%M:%S")
    found, missing = [], []
    for place in map(Path, _DPKG_LOGS):
        try:
            found += [change for line in _lines(place) if (change := _dpkg(line)) is not None and change.at >= since]
        except FileNotFoundError:
            missing.append(f"{place} does not exist")
        except (OSError, EOFError) as error:
            missing.append(f"{place} cannot be read ({type(error).__name__})")
    if len(missing) == len(_DPKG_LOGS):
        return Packages("none", ["no log of dpkg on this machine; other package managers are not read", *missing], 0, [])
    changes = sorted(found, key=lambda change: (change.at, change.name))
    return Packages("dpkg", missing[:1] if missing and missing[0].startswith(_DPKG_LOGS[0] + " ") else [], len(changes), changes[-200:])


@tool(name="host.disks", effect="read", idempotent=True, open_world=False, runs="broker", reversible=False, timeout="20s")
def disks() -> Annotated[Disks, Out(author="service")]:
    """List the mounted file systems with size, free space and percent used, fullest first."""
    try:
        mounts = Path("/proc/self/mounts").read_text(errors="replace").splitlines()
    except OSError:
        return Disks([], ["/proc/self/mounts cannot be read"])
    seen: dict[int, Disk] = {}
    missing = []
    for line in mounts:
        _, mount, kind, *_ = line.split(" ")
        if kind in _NO_DISK or not Path(mount).is_dir():
            continue
        try:
            facts, device = os.statvfs(mount), Path(mount).stat().st_dev
        except OSError:
            missing.append(f"{mount} cannot be measured"[:200])
            continue
        if not facts.f_blocks:
            continue
        used = facts.f_blocks - facts.f_bfree
        percent = -(-100 * used // max(1, used + facts.f_bavail))
        disk = Disk(mount[:200], kind[:200], facts.f_blocks * facts.f_frsize, facts.f_bavail * facts.f_frsize, percent)
        if device not in seen or len(disk.mount) < len(seen[device].mount):
            seen[device] = disk
    ordered = sorted(seen.values(), key=lambda disk: (-disk.used_percent, disk.mount))
    return Disks(ordered[:100], missing[:20])


@tool(name="host.memory", effect="read", idempotent=True, open_world=False, runs="broker", reversible=False, timeout="10s")
def memory() -> Annotated[Memory, Out(author="service")]:
    """Tell total and available main memory and swap, in bytes."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return Memory(0, 0, 0, 0, 0, ["/proc/meminfo cannot be read"])
    facts = {name: int(rest.split()[0]) * 1024 for name, _, rest in (line.partition(":") for line in lines) if rest.split()}
    wanted = ("MemTotal", "MemAvailable", "SwapTotal", "SwapFree")
    missing = [f"the kernel does not tell {name}" for name in wanted if name not in facts]
    total, free = facts.get("MemTotal", 0), facts.get("MemAvailable", 0)
    percent = 100 * (total - free) // total if total else 0
    return Memory(total, free, percent, facts.get("SwapTotal", 0), facts.get("SwapFree", 0), missing)


@tool(name="host.processes", effect="read", idempotent=True, open_world=False, runs="broker", reversible=False, timeout="20s")
def processes(
    top: Annotated[int, Field(ge=1, le=50), Arg(role="quantity")] = 10,
) -> Annotated[Processes, Out(author="third_party")]:
    """Count the processes and list those that use most memory.

    Args:
        top: how many to list.
    """
    found, zombies = [], 0
    tick, page = os.sysconf("SC_CLK_TCK"), os.sysconf("SC_PAGE_SIZE")
    try:
        pids = [name for name in os.listdir("/proc") if name.isdigit()]
    except OSError:
        return Processes(0, 0, [], ["/proc cannot be read"])
    for pid in pids:
        try:
            stat = Path(f"/proc/{pid}/stat").read_text(errors="replace")
        except OSError:
            continue  # it ended meanwhile
        name, rest = stat[stat.index("(") + 1 : stat.rindex(")")], stat[stat.rindex(")") + 2 :].split()
        zombies += rest[0] == "Z"
        cpu = (int(rest[11]) + int(rest[12])) // tick
        found.append(Process(int(pid), name[:200], int(rest[21]) * page, cpu))
    ordered = sorted(found, key=lambda process: (-process.memory, process.pid))
    return Processes(len(found), zombies, ordered[:top], [])


def _lines(place: Path) -> list[str]:
    if place.suffix == ".gz":
        with gzip.open(place, "rb") as packed:
            return packed.read(_LOG_LIMIT).decode(errors="replace").splitlines()
    with place.open("rb") as plain:
        plain.seek(max(0, place.stat().st_size - _LOG_LIMIT))
        return plain.read(_LOG_LIMIT).decode(errors="replace").splitlines()


def _dpkg(line: str) -> Package | None:
    """Read `2026-11-24 00:20:01 upgrade git:amd64 1:2.39 1:2.40`."""
    words = line.split(" ")
    if len(words) != 6 or words[2] not in ("install", "upgrade", "remove", "purge"):  # noqa: PLR2004 - the line's own form
        return None
    day, time, action, name, old, new = (word[:100] for word in words)
    return Package(f"{day} {time}", action, name, old, new)
