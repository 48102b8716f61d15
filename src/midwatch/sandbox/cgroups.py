"""Control groups: bounds, freezing, killing and counting of a sandbox's whole process tree.

In:   limits; processes that join. Out: `Layout` (what this machine's control groups can do), `Group` (one sandbox's), `Stats`.
May import: cgroup_places, config's limits, the port's `Stats`, errors. Must not know: who runs inside, overlays, the broker.
Nothing about paths is assumed: the mounts come from `/proc/self/mountinfo`, this process's own place from `/proc/self/cgroup`. Groups
are made in a folder `midwatch` at or above the own place, as near as the machine lets us, so that what bounds this process bounds
its sandboxes, too. A layout is pure v2, hybrid (v1 controllers, and v2 which freezes and kills), v1, or none; `missing` names what
it cannot bound, `create` refuses it. Version 2 keeps processes only in leaves: where the own place is delegated to us, or holds this
process alone, everything in it moves into a leaf `midwatch.self` first.
Source: kernel documentation, admin-guide/cgroup-v2 and admin-guide/cgroup-v1.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import signal
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from midwatch.config.specs import SandboxLimits
from midwatch.errors import SandboxError
from midwatch.sandbox.cgroup_places import BOUNDS, LEAF, PARENT, Kind, Place, find, pids, text
from midwatch.sandbox.port import Stats

__all__ = ["LEAF", "PARENT", "Clock", "Group", "Kind", "Layout", "Place", "detect", "named", "supervised", "sweep"]

_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_FREEZE_US: Final = 2_000_000
_KILL_US: Final = 5_000_000
_REMOVE_US: Final = 2_000_000
_WALKED: Final = 20_000
_REMEDY: Final = (
    "run Midwatch as root, or as a plain user below a delegated group (`systemd-run --user --scope -p Delegate=yes midwatch …`); "
    "`midwatch doctor` shows what this machine has"
)


@dataclass(frozen=True, slots=True)
class Clock:
    """How waiting is done: `now` in microseconds, `pause` for some of them."""

    now: Callable[[], int] = lambda: time.monotonic_ns() // 1000
    pause: Callable[[int], None] = lambda us: time.sleep(us / 1_000_000)


def detect(
    mountinfo: str | None = None,
    membership: str | None = None,
    *,
    root: Path = Path("/"),
    may: Callable[[Path, int], bool] = os.access,
    clock: Clock | None = None,
) -> Layout:
    """Find what this machine's control groups can do for this process. Nothing is made or changed.

    Args:
        mountinfo, membership: of `/proc/self/mountinfo` and `/proc/self/cgroup`; read unless given.
        root: before every path read. may: as `os.access`.
    """
    kind, places = find(
        text(root / "proc/self/mountinfo") if mountinfo is None else mountinfo,
        text(root / "proc/self/cgroup") if membership is None else membership,
        root,
        may,
    )
    return Layout(kind, places, len(text(root / "proc/swaps").splitlines()) > 1, clock or Clock())


@dataclass(frozen=True, slots=True)
class Layout:
    """What this machine's control groups can do.

    Attributes:
        places: the hierarchies that can be used, each once. swap: whether the machine swaps.
    """

    kind: Kind
    places: tuple[Place, ...] = ()
    swap: bool = False
    clock: Clock = field(default_factory=Clock, repr=False)

    def missing(self, limits: SandboxLimits) -> tuple[str, ...]:
        """Name the limits set that no group here can hold, and `freeze`, which every sandbox needs."""
        there = {name for place in self.places for name in place.controllers}
        lost = [name for name, needed in BOUNDS.items() if getattr(limits, name) is not None and needed not in there]
        can_freeze = "freezer" in there or any(place.version == 2 for place in self.places)
        return (*lost, *(() if can_freeze else ("freeze",)))

    def create(self, name: str, limits: SandboxLimits) -> Group:
        """Make a group in every hierarchy that is needed, with its limits set, and nobody in it.

        Raises:
            SandboxError: a limit cannot be held, the name is taken or is none. Nothing stays behind.
        """
        if not _NAME.fullmatch(name):
            raise SandboxError(f"`{name}` names no control group; use letters, digits, `.`, `_` and `-`")
        if lost := self.missing(limits):
            raise SandboxError(f"this machine's control groups ({self.kind}) cannot hold {', '.join(lost)}; {_REMEDY}")
        where: dict[str, Path] = {}
        group = Group(name, where, self.clock)
        try:
            for place in self.places:
                if place.controllers == {"freezer"} and "" in where and (where[""] / "cgroup.freeze").exists():
                    continue
                folder = _made(place, name)
                where |= dict.fromkeys(place.controllers, folder)
                if place.version == 2:
                    where[""] = folder
            group.can_freeze()
            self.bound(group, limits)
        except BaseException:
            with contextlib.suppress(SandboxError):
                group.remove()
            raise
        return group

    def bound(self, group: Group, limits: SandboxLimits) -> None:
        """Set limits of a group that this layout has made, whoever is in it already; what `limits` leaves open stays.

        Raises:
            SandboxError: the kernel does not take one. Some may be set.
        """
        for path, value in _settings(group.where, limits, swap=self.swap):
            _write(path, value)


@dataclass(frozen=True, slots=True)
class Group:
    """One sandbox's control group: one folder in each hierarchy.

    Attributes:
        where: the folder of each controller; `""` is the one of version 2, which freezes and kills.
    """

    name: str
    where: Mapping[str, Path]
    clock: Clock = field(default_factory=Clock, repr=False)

    @property
    def paths(self) -> tuple[Path, ...]:
        """Give its folders, each once."""
        return tuple(dict.fromkeys(self.where.values()))

    @property
    def join_files(self) -> tuple[Path, ...]:
        """Give the files into which a process writes `0` to join by itself, all of them, before it gives up its rights."""
        return tuple(path / "cgroup.procs" for path in self.paths)

    def join(self, pid: int) -> None:
        """Put a process, with all its threads, into the group; what it starts later is in it, too.

        Raises:
            SandboxError: it is gone, or may not be moved; it may be in some of the hierarchies, so kill it.
        """
        for path in self.join_files:
            _write(path, str(pid))

    def procs(self) -> frozenset[int]:
        """Give the living processes, of whichever hierarchy; 0 is one that this process's namespace does not see."""
        return frozenset(pid for path in self.join_files for pid in _members(path))

    def freeze(self, bound_us: int = _FREEZE_US) -> int:
        """Stop every process where it stands; gives how many microseconds that took.

        Raises:
            SandboxError: the kernel has not said `frozen` in time. It is still asked for; kill the group.
        """
        begun = self.clock.now()
        path, frozen = self.can_freeze()
        _write(path, frozen)
        while not self.frozen():
            if self.clock.now() - begun > bound_us:
                raise SandboxError(
                    f"control group `{self.name}` was not frozen within {bound_us:,} µs; kill the sandbox"
                )
            self.clock.pause(20)
            if frozen == "FROZEN":  # who forked meanwhile is asked, too
                _write(path, frozen)
        return self.clock.now() - begun

    def thaw(self) -> None:
        """Let every process go on."""
        path, frozen = self.can_freeze()
        _write(path, "0" if frozen == "1" else "THAWED")

    def frozen(self) -> bool:
        """Whether the kernel says that every process stands still."""
        if "" in self.where:
            return _numbers(self.where[""] / "cgroup.events").get("frozen") == 1
        return "freezer" in self.where and text(self.where["freezer"] / "freezer.state").strip() == "FROZEN"

    def can_freeze(self) -> tuple[Path, str]:
        """Give the file that freezes, and the word for it.

        Raises:
            SandboxError: there is none.
        """
        for path, word in (("cgroup.freeze", "1"), ("freezer.state", "FROZEN")):
            folder = self.where.get("" if word == "1" else "freezer")
            if folder is not None and (folder / path).exists():
                return folder / path, word
        raise SandboxError(
            f"no control group of `{self.name}` can freeze: version 2 of Linux 5.2, or the freezer, is needed"
        )

    def kill(self, bound_us: int = _KILL_US) -> int:
        """Kill every process, frozen or not, whatever it does meanwhile; gives how many microseconds until none was left.

        Raises:
            SandboxError: some still live; the message names them.
        """
        begun = self.clock.now()
        struck = begun
        if self.procs():
            self._unbind()
            self._strike()
        while left := self.procs():
            now = self.clock.now()
            if now - begun > bound_us:
                told = ", ".join(str(pid) for pid in sorted(left)[:8])
                raise SandboxError(
                    f"processes of `{self.name}` outlive SIGKILL by {bound_us:,} µs: {told}; look at them with `ps`"
                )
            if now - struck > 20_000:
                self._strike()
                struck = now
            self.clock.pause(200)
        return self.clock.now() - begun

    def stats(self) -> Stats:
        """Read the kernel's counters."""
        memory, pids = self.where.get("memory"), self.where.get("pids")
        time_used, throttled = self._processor()
        one = memory is not None and memory != self.where.get("")
        used, peak = (
            ("memory.usage_in_bytes", "memory.max_usage_in_bytes") if one else ("memory.current", "memory.peak")
        )
        return Stats(
            memory=_number(memory, used),
            memory_peak=_number(memory, peak),
            cpu_us=time_used,
            throttled_us=throttled,
            oom_kills=_counted(memory, "memory.oom_control" if one else "memory.events", "oom_kill"),
            processes=len(self.procs()) if pids is None else _number(pids, "pids.current"),
            processes_peak=_number(pids, "pids.peak"),
            processes_refused=_counted(pids, "pids.events", "max"),
            frozen=self.frozen(),
        )

    def remove(self, bound_us: int = _REMOVE_US) -> None:
        """Take the folders away; the kernel needs a moment after the last process. Safe to repeat.

        Raises:
            SandboxError: it is busy still. Kill first.
        """
        begun = self.clock.now()
        for path in reversed(self.paths):
            while not _removed(path):
                if self.clock.now() - begun > bound_us:
                    raise SandboxError(f"control group `{path}` is busy; kill what lives in it, then remove it again")
                self.clock.pause(500)
            with contextlib.suppress(OSError):  # others may have groups in it
                path.parent.rmdir()

    def _processor(self) -> tuple[int | None, int | None]:
        two, cpu = self.where.get(""), self.where.get("cpu")
        if cpu is not None and cpu != two:
            held = _counted(cpu, "cpu.stat", "throttled_time")
            used = _number(self.where.get("cpuacct"), "cpuacct.usage")
            mine = _counted(two, "cpu.stat", "usage_usec") if used is None else used // 1000
            return mine, None if held is None else held // 1000
        return _counted(two, "cpu.stat", "usage_usec"), _counted(cpu, "cpu.stat", "throttled_usec")

    def _unbind(self) -> None:
        """Lift the bound on processor time: who gives back much memory needs some to die, and its supervisor waits for it."""
        cpu = self.where.get("cpu")
        if cpu is not None:
            file, word = ("cpu.max", "max") if cpu == self.where.get("") else ("cpu.cfs_quota_us", "-1")
            with contextlib.suppress(SandboxError):  # its group may be going already
                _write(cpu / file, word)

    def _strike(self) -> None:
        """Kill all there are now; who forked meanwhile is for the next strike, unless the kernel does it in one go."""
        two = self.where.get("")
        whole = None if two is None else two / "cgroup.kill"
        if two is not None and whole is not None and whole.exists():
            _write(whole, "1")
            for pid in self.procs() - pids(two):
                self._signal(pid)
            return
        with contextlib.suppress(SandboxError):  # who cannot be frozen is killed moving
            self.freeze(50_000)
        for pid in self.procs():
            self._signal(pid)
        with contextlib.suppress(SandboxError):  # of version 1, the frozen die only when they go on
            self.thaw()

    def _signal(self, pid: int) -> None:
        if pid <= 1 or pid == os.getpid():
            return
        with contextlib.suppress(ProcessLookupError):
            handle = os.pidfd_open(pid)
            try:
                if pid in self.procs():  # else the number has meanwhile become someone else's
                    signal.pidfd_send_signal(handle, signal.SIGKILL)
            finally:
                os.close(handle)


def sweep(layout: Layout, alive: Callable[[str], bool]) -> tuple[str, ...]:
    """Kill and remove the groups that no living supervisor owns, wherever in the hierarchies; gives their names.

    Args:
        alive: whether the group of this name is someone's; `supervised` answers for names that `named` made.

    Raises:
        SandboxError: after all others are gone: one could not be removed.
    """
    gone: dict[str, None] = {}
    problems: list[str] = []
    for group in _orphans(layout, alive):
        try:
            group.kill()
            group.remove()
        except SandboxError as problem:
            problems.append(str(problem))
        gone[group.name] = None
    if problems:
        raise SandboxError("; ".join(problems))
    return tuple(gone)


def _orphans(layout: Layout, alive: Callable[[str], bool]) -> list[Group]:
    found: dict[str, list[dict[str, Path]]] = {}
    for place in layout.places:
        names = place.controllers | ({""} if place.version == 2 else set())
        for folder in _left(place.mount, place.base):
            known = found.setdefault(folder.name, [])
            where = next((where for where in known if where.keys().isdisjoint(names)), None)
            if where is None:  # the same name below two parents
                known.append(where := {})
            where |= dict.fromkeys(sorted(names), folder)
    return [Group(name, where, layout.clock) for name in sorted(found) if not alive(name) for where in found[name]]


def named(prefix: str) -> str:
    """Give a group's name from which `supervised` tells whether this process still lives."""
    return f"{prefix}.{os.getpid()}.{_started(os.getpid())}"


def supervised(name: str) -> bool:
    """Whether the process that made this name with `named` lives; True for all other names, which are not ours to judge."""
    found = re.search(r"\.([0-9]{1,10})\.([0-9]{1,20})$", name)
    return found is None or _started(int(found[1])) == int(found[2])


def _started(pid: int) -> int:
    """When a process began, in the kernel's ticks; -1 when there is none. Its name may hold spaces and parentheses."""
    fields = text(Path(f"/proc/{pid}/stat")).rpartition(")")[2].split()
    return int(fields[19]) if len(fields) > 19 else -1


def _made(place: Place, name: str) -> Path:
    parent = place.base / PARENT
    try:
        for _ in range(500):  # whoever removes the last group takes the parent along
            with contextlib.suppress(FileNotFoundError):
                with contextlib.suppress(FileExistsError):  # also where it is there, and gone before that was looked at
                    parent.mkdir()
                if place.version == 2 and place.controllers:
                    _given_on(place, parent)
                (parent / name).mkdir()
                return parent / name
    except FileExistsError as taken:
        raise SandboxError(
            f"control group `{name}` exists; another sandbox has it, or one was left: sweep first"
        ) from taken
    except OSError as problem:
        raise SandboxError(f"no control group can be made in `{parent}`: {problem.strerror}; {_REMEDY}") from problem
    raise SandboxError(f"`{parent}` goes away as fast as it is made; start again")


def _given_on(place: Place, parent: Path) -> None:
    """Give the controllers on to the groups below, after moving processes out of the way where that is ours to do."""
    for folder in (place.base, parent):
        path = folder / "cgroup.subtree_control"
        absent = sorted(place.controllers - set(text(path).split()))
        if absent and folder == place.base and place.settle:
            leaf = folder / LEAF
            leaf.mkdir(exist_ok=True)
            for _ in range(64):  # who forks meanwhile needs another round
                for pid in pids(folder):
                    with contextlib.suppress(ProcessLookupError):
                        (leaf / "cgroup.procs").write_text(str(pid))
        if absent:
            _put(path, " ".join(f"+{name}" for name in absent))


def _settings(where: Mapping[str, Path], limits: SandboxLimits, *, swap: bool) -> Iterator[tuple[Path, str]]:
    two = where.get("")
    if limits.memory is not None:
        folder = where["memory"]
        limit, both, value = ("memory.limit_in_bytes", "memory.memsw.limit_in_bytes", str(limits.memory))
        if folder == two:
            limit, both, value = ("memory.max", "memory.swap.max", "0")
        yield folder / limit, str(limits.memory)
        if swap or (folder / both).exists():
            yield folder / both, value
    if limits.processes is not None:
        yield where["pids"] / "pids.max", str(limits.processes)
    if limits.cpu_milli is not None:
        folder = where["cpu"]
        # The kernel takes no quota below one millisecond, so a small share is counted over a longer period.
        period = 100_000 if limits.cpu_milli >= 10 else 1_000_000
        quota = limits.cpu_milli * period // 1000
        if folder == two:
            yield folder / "cpu.max", f"{quota} {period}"
        else:
            yield folder / "cpu.cfs_period_us", str(period)
            yield folder / "cpu.cfs_quota_us", str(quota)


def _left(mount: Path, base: Path) -> Iterable[Path]:
    """Find groups of ours anywhere below a mount: another supervisor may have begun in another place."""
    found = [path for path in (base / PARENT).glob("*") if path.is_dir()]
    for count, (folder, folders, _) in enumerate(os.walk(mount)):
        if PARENT in folders:
            folders.remove(PARENT)
            found += [path for path in (Path(folder) / PARENT).glob("*") if path.is_dir() and path not in found]
        if count > _WALKED:
            break
    return found


def _removed(path: Path) -> bool:
    """Take a folder and those below away; False while it is busy."""
    try:
        for below in path.iterdir():
            if below.is_dir():
                _removed(below)
        path.rmdir()
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return True


def _write(path: Path, value: str) -> None:
    try:
        _put(path, value)
    except OSError as problem:
        raise SandboxError(f"`{path}` does not take `{value}`: {problem.strerror}; {_REMEDY}") from problem


def _put(path: Path, value: str) -> None:
    handle = os.open(path, os.O_WRONLY | os.O_CLOEXEC)  # never makes a file where the kernel has none
    try:
        os.write(handle, value.encode("ascii"))
    finally:
        os.close(handle)


def _members(path: Path) -> frozenset[int]:
    try:
        return frozenset(int(line) for line in path.read_text(encoding="utf-8").split())
    except OSError as problem:
        if problem.errno in (errno.ENOENT, errno.ENODEV):  # removed meanwhile: the kernel does so only when it is empty
            return frozenset()
        raise SandboxError(
            f"`{path}` cannot be read: {problem.strerror}; who lives in the group is unknown"
        ) from problem


def _number(folder: Path | None, name: str) -> int | None:
    told = "" if folder is None else text(folder / name).strip()
    return int(told) if told.isdecimal() else None


def _numbers(path: Path) -> dict[str, int]:
    pairs = (line.split() for line in text(path).splitlines())
    return {pair[0]: int(pair[1]) for pair in pairs if len(pair) == 2 and pair[1].isdecimal()}


def _counted(folder: Path | None, name: str, key: str) -> int | None:
    return None if folder is None else _numbers(folder / name).get(key)
