"""Celled: what every isolating backend shares: calls through a cell, one after the other, and what they changed.

In:   a link to a cell, a hold on its process tree, descriptors of its workspace. Out: a `Sandbox` of the port.
May import: the port and its types, link, looking, overlay, layers, profile; anyio. Must not know: bubblewrap, Docker.

    thaw → one call → freeze → effects (nothing inside runs) → thaw → …
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import os
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol

import anyio
import anyio.to_thread

from midwatch.config.specs import SandboxLimits
from midwatch.errors import SandboxError, Unseen
from midwatch.sandbox import layers as layering
from midwatch.sandbox import overlay
from midwatch.sandbox.cgroups import Group
from midwatch.sandbox.effects import Request
from midwatch.sandbox.fanotify import Listener, Observed
from midwatch.sandbox.layers import Layer
from midwatch.sandbox.link import Broken, Link
from midwatch.sandbox.looking import looked_at
from midwatch.sandbox.port import RunResult, SandboxResult, Stats, answered
from midwatch.sandbox.profile import DEFAULT_LIMITS, INSIDE, SandboxProfile, merged

__all__ = ["CelledSandbox", "Network", "Parts", "Tree"]

_PATIENCE_US: Final = 1_000_000
"""What a cell is given to cut a call short, before its whole sandbox is killed."""
_MOMENT_US: Final = 1_000
"""For which the loop waits."""
_ROOM: Final = 262_144
"""Bytes of a cell's answer beside the tool's own: output, exit code, framing."""


class Tree(Protocol):
    """A hold on all processes of one sandbox."""

    def freeze(self) -> object:
        """Return when nothing inside runs."""
        ...

    def thaw(self) -> object:
        """Let it go on."""
        ...

    def kill(self) -> object:
        """Return when all are gone, frozen or not."""
        ...

    def stats(self) -> Stats:
        """Read the counters."""
        ...


class Network(Protocol):
    """What stands at the other end of the sandbox's socket."""

    async def settle(self) -> None:
        """Return when nothing is under way any more."""
        ...

    def requests(self) -> tuple[Request, ...]:
        """Give what was tried since the last time."""
        ...

    def bodies(self) -> Mapping[str, bytes]:
        """Give the bodies of requests that are kept, by SHA-256."""
        ...


@dataclass(slots=True)
class Parts:
    """What a backend made for one sandbox.

    Attributes:
        merged, upper: descriptors of the workspace as seen inside, and of what changes in it. They are closed with the sandbox.
        owner: user and group of the files inside, on this machine; None where they are this process's own.
        began_ns: when the workspace was first seen, by the clock that files are stamped by.
        close: gives back processes, mounts and groups, on any thread. aclose: then what lives on the loop, and the user.
    """

    name: str
    profile: SandboxProfile
    link: Link
    tree: Tree
    merged: int
    upper: int
    owner: tuple[int, int] | None
    began_ns: int
    network: Network | None
    listener: Listener | None
    close: Callable[[], None]
    aclose: Callable[[], Awaitable[None]]


class CelledSandbox:
    """See `port.Sandbox`."""

    isolates = True

    def __init__(self, level: str, parts: Parts, hello: Mapping[str, Any], layers: Sequence[Layer]) -> None:
        self.level, self.name = level, parts.name
        self._parts, self._hello = parts, hello
        self._earlier = layering.fold(layers)
        self._lock: asyncio.Lock | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._dead, self._closed, self._paused = False, False, False
        if parts.listener is not None:
            parts.listener.when_it_dies(self._blind)
        self.untold: tuple[Request, ...] = ()
        """What was asked of the network, where `effects` could not tell what was changed: to be on record all the same."""

    @property
    def observes(self) -> bool:
        """Whether reads and executions are told."""
        return self._parts.listener is not None

    @property
    def group(self) -> Group | None:
        """The control group that holds its processes, where there is one."""
        return getattr(self._parts.tree, "group", None)

    async def greet(self) -> None:
        """Await the cell's greeting, then stop the tree until the first call.

        Raises:
            Broken: it does not come.
        """
        answer = await self._parts.link.hello(self._hello)
        if "ready" not in answer:
            raise Broken("the cell did not begin")
        await self._still()
        if self._parts.listener is not None:
            await anyio.to_thread.run_sync(self._acquainted, self._parts.listener)

    def _acquainted(self, listener: Listener) -> None:
        """Let the listener see through the eyes of who lives inside, so that it can name what short-lived ones open."""
        for pid in () if self.group is None else sorted(self.group.procs()):
            if pid:
                listener.learn(pid)
        listener.begin()  # what it took to begin is no call's doing

    async def call(
        self,
        ref: str,
        arguments: str,
        *,
        facts: Mapping[str, Any],
        limits: SandboxLimits,
        workdir: Path,
        timeout_us: int,
        max_bytes: int,
    ) -> SandboxResult:
        """As `Tools.call`."""
        body = {
            "kind": "call",
            "ref": ref,
            "arguments": arguments,
            "facts": {**facts, "workdir": INSIDE},
            "limits": self._bounds(limits, timeout_us),
            "max_bytes": max_bytes + 1,
        }
        try:
            answer = await self._asked(body, limits, timeout_us, 2 * max_bytes)
        except Broken as broken:
            return SandboxResult("crashed", detail=str(broken))
        return _result(answer, max_bytes)

    async def run(
        self,
        argv: Sequence[str],
        *,
        limits: SandboxLimits,
        workdir: Path,
        timeout_us: int,
        max_bytes: int,
        stdin: bytes = b"",
        env: Mapping[str, str] | None = None,
    ) -> RunResult:
        """As `Sandbox.run`."""
        inside = workdir if str(workdir).startswith(INSIDE) else Path(INSIDE)
        body = {
            "kind": "run",
            "argv": list(argv),
            "env": dict(env or {}),
            "cwd": str(inside),
            "stdin": stdin,
            "limits": self._bounds(limits, timeout_us),
            "max_bytes": max_bytes,
        }
        try:
            answer = await self._asked(body, limits, timeout_us, 3 * max_bytes)
        except Broken as broken:
            return RunResult("crashed", detail=str(broken))
        return _ran(answer, max_bytes)

    async def shell(self, argv: Sequence[str], *, rows: int, columns: int, env: Mapping[str, str]) -> int:
        """Start a program on a terminal inside; gives a descriptor of the terminal. The tree runs until `effects` or `close`.

        Raises:
            SandboxError: the sandbox is of no use any more.
        """
        self._usable()
        self._parts.tree.thaw()
        body = {"argv": list(argv), "cwd": INSIDE, "env": dict(env), "rows": rows, "columns": columns}
        try:
            return await self._parts.link.shell(body)
        except Broken as broken:
            raise SandboxError(f"no shell in the sandbox: {broken}") from broken

    async def effects(self, into: Path) -> Layer:
        """As `Sandbox.effects`."""
        async with self._turn():
            if not self._dead:
                await self._still()
            if self._parts.network is not None:
                await self._parts.network.settle()
            return await anyio.to_thread.run_sync(self._gathered, into)

    def _gathered(self, into: Path) -> Layer:
        parts = self._parts
        self.untold = requests = () if parts.network is None else parts.network.requests()
        seen = self._seen()
        limit = parts.profile.limits.disk or DEFAULT_LIMITS.disk or 0
        try:
            changes, spool = overlay.diff(
                parts.upper,
                parts.profile.workspace,
                earlier=self._earlier,
                spool=layering.Spool(into.parent, max_bytes=2 * limit),
                limit=limit,
                userxattr=parts.owner is None,
                began_ns=parts.began_ns,
            )
            try:
                bodies = {} if parts.network is None else parts.network.bodies()
                looks = looked_at(
                    seen, changes, earlier=self._earlier, lower=parts.profile.workspace, began_ns=parts.began_ns
                )
                layer = layering.write(into, (*changes, *looks), requests, spool, bodies)
            finally:
                spool.close()
        except OSError as problem:
            raise SandboxError(f"what the sandbox changed cannot be read: {problem}") from problem
        self._earlier = layering.fold([layer], base=self._earlier)
        self.untold = ()
        return layer

    def _blind(self, _why: str) -> None:
        """Kill the tree at once: what it did from here on nobody would know. On the listener's thread."""
        self._dead = True
        with contextlib.suppress(SandboxError):  # whoever asks for its effects kills it once more, and is told
            self._parts.tree.kill()

    def _seen(self) -> Observed:
        """Give what was read and executed.

        Raises:
            Unseen: that cannot be told any more. The sandbox is dead then.
        """
        listener = self._parts.listener
        if listener is None:
            return Observed()
        seen = listener.take()
        if seen.lost or not listener.alive():
            self._dead = True
            self._parts.tree.kill()
            raise Unseen("what was read in the sandbox cannot be told any more, since its listener lost events")
        return seen

    async def pause(self) -> None:
        """As `Sandbox.pause`."""
        self._usable()
        self._paused = True
        self._parts.tree.freeze()

    async def resume(self) -> None:
        """As `Sandbox.resume`."""
        self._usable()
        self._paused = False
        if self._lock is not None and self._lock.locked():  # else the next call does
            self._parts.tree.thaw()

    async def kill(self) -> None:
        """As `Sandbox.kill`."""
        if not self._closed:
            self._dead = True
            await anyio.to_thread.run_sync(self._parts.tree.kill)

    async def stats(self) -> Stats:
        """As `Sandbox.stats`."""
        return self._parts.tree.stats()

    async def close(self) -> None:
        """As `Sandbox.close`."""
        if not self._closed:
            with anyio.CancelScope(shield=True):
                await anyio.to_thread.run_sync(self.shut)
                await self._parts.aclose()

    def shut(self) -> None:
        """Give everything back but what lives on a loop. Safe to repeat."""
        if self._closed:
            return
        self._closed = self._dead = True
        parts = self._parts
        parts.link.close()
        for descriptor in (parts.merged, parts.upper):
            with contextlib.suppress(OSError):
                os.close(descriptor)
        if parts.listener is not None:
            parts.listener.close()
        parts.close()

    def _usable(self) -> None:
        if self._dead or self._parts.link.broken:
            raise SandboxError(f"sandbox `{self.name}` has ended; start another with its layers")

    def _turn(self) -> asyncio.Lock:
        """One call at a time. The lock belongs to the loop that asks; a sandbox outlives a loop, never a call."""
        loop = asyncio.get_running_loop()
        if self._lock is None or self._loop is not loop:
            self._lock, self._loop = asyncio.Lock(), loop
        return self._lock

    async def _asked(
        self, body: Mapping[str, Any], limits: SandboxLimits, timeout_us: int, max_bytes: int
    ) -> dict[str, Any]:
        async with self._turn():
            if self._dead or self._parts.link.broken:
                raise Broken("the sandbox has ended")
            wall = merged(limits, self._parts.profile.limits).wall_us or timeout_us
            if not self._paused:
                self._parts.tree.thaw()
            try:
                return await self._parts.link.ask(
                    body,
                    timeout_us=min(timeout_us, wall),
                    patience_us=_PATIENCE_US,
                    max_bytes=max_bytes + _ROOM,
                    stands=self._stands,
                )
            finally:
                with anyio.CancelScope(shield=True):
                    await self._settle()

    def _stands(self) -> bool:
        """Say whether the tree was stopped from outside while a call is under way."""
        if self._paused or self.group is None:
            return self._paused
        try:
            return self.group.frozen()
        except (OSError, SandboxError):
            return False

    async def _settle(self) -> None:
        """After a call nothing inside runs: frozen, or, where the cell is of no more use, dead.

        Beside the loop: a tree that has used up its processor takes seconds to stand still, and others must not wait for it.

        Raises:
            Broken: it does not stand still. What it did meanwhile cannot be told.
        """
        tree = self._parts.tree
        try:
            if not self._parts.link.broken:
                await self._still()
                return
            self._dead = True
            await anyio.to_thread.run_sync(tree.kill)
        except SandboxError as moving:
            self._dead = True
            with contextlib.suppress(SandboxError):  # it is killed once more when it is closed
                await anyio.to_thread.run_sync(tree.kill)
            raise Broken(str(moving)) from moving

    async def _still(self) -> None:
        """Freeze the tree: where a moment suffices, as nearly always, without the way to another thread and back."""
        if self.group is not None:
            with contextlib.suppress(SandboxError):
                self.group.freeze(_MOMENT_US)
                return
        await anyio.to_thread.run_sync(self._parts.tree.freeze)

    def _bounds(self, wanted: SandboxLimits, timeout_us: int) -> dict[str, int | None]:
        bounds = merged(wanted, self._parts.profile.limits)
        return {
            "memory": wanted.memory,
            "file_size": bounds.file_size,
            "open_files": bounds.open_files,
            "processes": None,
            "cpu_seconds": -(-(bounds.cpu_us or timeout_us) // 1_000_000),
            "core": 0,
        }


def _result(answer: Mapping[str, Any], max_bytes: int) -> SandboxResult:
    """Read a cell's answer to a call as a stranger's."""
    status, output, code = answer.get("status"), str(answer.get("output", "")), answer.get("exit_code")
    exit_code = code if isinstance(code, int) else None
    began = answer.get("began") is not False
    if status == "timeout":
        return SandboxResult("timeout", None, output, "killed at its deadline", exit_code, began)
    if status == "too_big" or len(str(answer.get("answer", ""))) > max_bytes:
        return SandboxResult("too_big", None, output, f"answered more than {max_bytes:,} bytes", exit_code)
    if status != "answered":
        detail = str(answer.get("detail", "")) or f"the worker ended with {exit_code}"
        return SandboxResult("crashed", None, output, detail, exit_code, began)
    return answered(str(answer.get("answer")), output, exit_code)


def _ran(answer: Mapping[str, Any], max_bytes: int) -> RunResult:
    code = answer.get("exit_code")
    exit_code = code if isinstance(code, int) else None
    try:
        said = [base64.b64decode(str(answer.get(name, "")))[-max_bytes:] for name in ("stdout", "stderr")]
        counts = [int(answer.get(f"{name}_bytes", 0)) for name in ("stdout", "stderr")]
    except (ValueError, TypeError, OverflowError):
        return RunResult("crashed", detail="the sandbox answers what no cell says")
    status = answer.get("status")
    if status == "timeout":
        return RunResult("timeout", None, said[0], said[1], counts[0], counts[1], "killed at its deadline")
    if status != "ended" or exit_code is None:
        return RunResult("crashed", None, said[0], said[1], counts[0], counts[1], str(answer.get("detail", "")))
    return RunResult("ended", exit_code, said[0], said[1], counts[0], counts[1])
