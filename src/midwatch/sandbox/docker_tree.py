"""Docker tree: a hold on a container's processes by the control groups that the engine put them in, without asking the engine.

In:   the container's first process, the engine's name for the container. Out: `ContainerTree`, a `celled.Tree`; `enforced`, which refuses.
May import: cgroups, the port's `Stats`, errors. Must not know: how the container was made.
Why not by the engine: its pause takes 20 ms and its kill 150 ms and more, and an engine that hangs must not keep a tree alive.
Why the counters are kept at each freeze: the engine removes the groups as soon as the last process is gone, also when that was
the kernel's doing, and what was used until then is still asked for.
"""

from __future__ import annotations

import contextlib
import os
import re
import select
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from midwatch.errors import SandboxError
from midwatch.sandbox.cgroups import Group
from midwatch.sandbox.port import Stats

__all__ = ["ContainerTree", "enforced", "group_of", "groups", "in_gvisor"]

_V1: Final = ("memory", "pids", "cpu", "cpuacct", "freezer")
_GONE_S: Final = 5.0
_NO_RIGHTS: Final = "0000000000000000"


@dataclass(slots=True)
class ContainerTree:
    """One container's processes. `pidfd`: of the first of them, with which all end; closed with the tree."""

    group: Group
    pidfd: int
    last: Stats = field(default_factory=Stats)

    def freeze(self) -> None:
        """As `Tree.freeze`. A tree that has ended stands still."""
        if self.ended():
            return
        try:
            self.group.freeze()
        except SandboxError:
            if not self.ended():
                raise
        self._keep()

    def thaw(self) -> None:
        """As `Tree.thaw`."""
        try:
            self.group.thaw()
        except SandboxError:
            if not self.ended():
                raise

    def kill(self) -> None:
        """As `Tree.kill`."""
        if self.ended():
            return
        self._keep()
        with contextlib.suppress(
            SandboxError
        ):  # the groups may go while they are read; the first process says when all is over
            self.group.kill()
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self.pidfd, signal.SIGKILL)
        with contextlib.suppress(SandboxError):  # version 1 lets the frozen die only when they go on
            self.group.thaw()
        if not _readable(self.pidfd, _GONE_S):
            raise SandboxError(
                f"the container of `{self.group.name}` outlives SIGKILL by {_GONE_S:g} s; look at it with `docker ps`"
            )

    def stats(self) -> Stats:
        """As `Tree.stats`; after the end, what was read last."""
        if self.ended():
            return replace(self.last, memory=0, processes=0, frozen=False)
        self._keep()
        return self.last

    def ended(self) -> bool:
        """Whether the first process, and so all of them, is gone."""
        return self.pidfd < 0 or _readable(self.pidfd, 0)

    def close(self) -> None:
        """Let go of the first process."""
        if self.pidfd >= 0:
            os.close(self.pidfd)
            self.pidfd = -1

    def _keep(self) -> None:
        seen = self.group.stats()
        if seen.processes:  # else the groups are on their way out, and their counters with them
            self.last = seen


def group_of(pid: int, container: str, name: str) -> Group:
    """Find the control groups of a container by its first process.

    Raises:
        SandboxError: they are not to be seen from here, are none of this container's own, or cannot freeze.
    """
    where = dict(groups(Path("/proc/self/mountinfo").read_text(), Path(f"/proc/{pid}/cgroup").read_text()))
    # What bounds and freezes must be the container's own: a group that others share would stop them, too.
    foreign = [path for path in where.values() if container not in path.name or not path.is_dir()]
    if not where or foreign:
        raise SandboxError(
            f"the control groups of the container are not to be seen from here ({', '.join(map(str, foreign)) or 'none found'}); "
            "the engine and Midwatch must run on the same machine and in the same control group namespace"
        )
    group = Group(name, where)
    group.can_freeze()
    return group


def groups(mountinfo: str, membership: str) -> Iterator[tuple[str, Path]]:
    """Read where a process is, by controller; `""` for version 2, where the process is in a group of it.

    Args:
        mountinfo: of this process. membership: `/proc/PID/cgroup` of the other.
    """
    own: dict[str, str] = {}
    for line in membership.splitlines():
        _, mounted, path = line.split(":", 2)
        own |= dict.fromkeys(mounted.split(","), path)
    for line in mountinfo.splitlines():
        left, _, right = line.partition(" - ")
        kind, _, options = right.split(" ")[:3]
        root, point = left.split(" ")[3:5]
        if kind == "cgroup2":
            names: tuple[str, ...] = ("",)
        elif kind == "cgroup":
            names = tuple(name for name in _V1 if name in options.split(","))
        else:
            continue
        for name in names:
            path = own.get(name, "/")
            if path not in ("/", root) and (root == "/" or path.startswith(f"{root}/")):
                folder = Path(_plain(point), path.removeprefix(root).lstrip("/"))
                yield name, folder
                if name == "":
                    yield from ((each, folder) for each in _given(folder))


def _given(folder: Path) -> list[str]:
    with contextlib.suppress(OSError):
        return [
            name for name in (folder / "cgroup.controllers").read_text().split() if name in ("memory", "pids", "cpu")
        ]
    return []


def _plain(text: str) -> str:
    return re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), text)


def enforced(pid: int, owner: tuple[int, int], workspace: os.stat_result, inside: str) -> None:
    """Refuse a container that is not what was asked for. Read from the kernel, not from what the engine says.

    Args:
        workspace: of the merged tree, as seen from here.

    Raises:
        SandboxError: naming what does not hold.
    """
    text = Path(f"/proc/{pid}/status").read_text()
    status = {name: value.split() for name, _, value in (line.partition(":") for line in text.splitlines())}
    held: dict[str, Callable[[], bool]] = {
        "a user of its own": lambda: set(status["Uid"]) == {str(owner[0])} and set(status["Gid"]) == {str(owner[1])},
        "no other groups": lambda: set(status["Groups"]) <= {str(owner[1])},
        "no capabilities": lambda: all(
            status[f"Cap{name}"] == [_NO_RIGHTS] for name in ("Eff", "Prm", "Bnd", "Inh", "Amb")
        ),
        "no_new_privs": lambda: status["NoNewPrivs"] == ["1"],
        "a filter of system calls": lambda: status["Seccomp"] == ["2"],
        "namespaces of its own": lambda: all(_own(pid, name) for name in ("mnt", "pid", "net", "ipc", "uts", "cgroup")),
        "a read-only root": lambda: bool(os.statvfs(f"/proc/{pid}/root").f_flag & os.ST_RDONLY),
        "the run's workspace": lambda: _same(Path(f"/proc/{pid}/root{inside}").stat(), workspace),
    }
    lost = [name for name, holds in held.items() if not holds()]
    if lost:
        raise SandboxError(f"the Docker engine started a container without {', '.join(lost)}; nothing ran in it")


def in_gvisor(pid: int) -> bool:
    """Whether a process is gVisor's kernel in user space, by the title that it gives itself before anything runs in it."""
    return Path(f"/proc/{pid}/cmdline").read_bytes().startswith(b"runsc-sandbox\0")


def _own(pid: int, name: str) -> bool:
    return Path(f"/proc/{pid}/ns/{name}").stat().st_ino != Path(f"/proc/self/ns/{name}").stat().st_ino


def _same(one: os.stat_result, other: os.stat_result) -> bool:
    return (one.st_dev, one.st_ino) == (other.st_dev, other.st_ino)


def _readable(descriptor: int, seconds: float) -> bool:
    """Whether a pidfd says that its process has ended, within these seconds."""
    poller = select.poll()
    poller.register(descriptor, select.POLLIN)
    return bool(poller.poll(seconds * 1000))
