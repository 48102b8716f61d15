"""Docker: sandboxes whose processes are a container of a Docker engine on this machine.

In:   profiles, layers; an engine's Unix socket. Out: sandboxes of the port.
May import: docker_api, docker_image, docker_plan, docker_tree, celled, replay, fanotify, launching; anyio.
Must not know: who asks, the ledger.
What the engine does: the image, namespaces, bounds, the filter of system calls. What it is not asked for: files (the workspace is our
overlay, mounted in the engine's mount namespace by a launcher of ours), network (there is none), programs (`exec` outlives its
caller), pauses and kills (by the container's control groups, which is faster, and works while the engine does not).
What is checked after the start, at the kernel: what the engine was asked for holds, and the workspace is the run's. Else it is killed.
gVisor's containers are no processes of this machine's kernel, so there the runtime is believed; it must be registered with
`--network=none --host-uds=open`, since it has no network to set up and the cell calls at a Unix socket.
What outlives a killed supervisor: its launcher, until it has killed the containers and taken the mounts away. Were both killed at
once, the next start of this backend finds the folder whose lock nobody holds, and does the same.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import platform
import secrets
import shutil
import socket
import struct
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import anyio
import anyio.to_thread

from midwatch.config.specs import SandboxLimits
from midwatch.errors import SandboxError
from midwatch.sandbox import cgroups, docker_plan, replay
from midwatch.sandbox.celled import CelledSandbox, Network, Parts
from midwatch.sandbox.docker_api import Engine, Info, discard, socket_of
from midwatch.sandbox.docker_image import Image, of_machine, of_operator
from midwatch.sandbox.docker_plan import LABEL, OWNER_LABEL, Place, is_gvisor
from midwatch.sandbox.docker_tree import ContainerTree, enforced, group_of, in_gvisor
from midwatch.sandbox.fanotify import Listener
from midwatch.sandbox.launching import ELSEWHERE, LauncherClient, User, attached, runtime_folder, stopped
from midwatch.sandbox.layers import Layer
from midwatch.sandbox.link import Broken, Link
from midwatch.sandbox.port import Egress
from midwatch.sandbox.profile import INSIDE, SandboxProfile

__all__ = ["DockerBackend", "refused"]

_GREETING_S: Final = 30.0
_OUTPUT: Final = 4096
_COARSE: Final = 5
"""CLOCK_REALTIME_COARSE: what files are stamped by."""


@dataclass(slots=True)
class _Making:
    """One sandbox while it is made: what there is of it so far."""

    profile: SandboxProfile
    place: Place
    image: Image
    network: Network | None
    merged: int = -1
    upper: int = -1
    began_ns: int = 0
    container: str = ""
    listener: Listener | None = None


class DockerBackend:
    """See `port.Backend`. Any number of sandboxes of one engine; one launcher, started with the first of them."""

    level = "docker"
    isolates = True

    def __init__(self, host: str | None = None, *, sys_path: Sequence[str] | None = None) -> None:
        """Make one.

        Args:
            host: address of the engine, as `docker_api.socket_of`.
            sys_path: where workers import from; this process's own unless given.

        Raises:
            SandboxError: the address is none of a Unix socket, or this process may not mount.
        """
        self._socket = socket_of(host)
        if os.geteuid() != 0:
            raise SandboxError(
                "the `docker` backend mounts each run's workspace, which takes root; run as root, or choose `bubblewrap`"
            )
        self._sys_path = tuple(sys.path if sys_path is None else sys_path)
        self._images: dict[str | None, Image] = {}
        self._client: LauncherClient | None = None
        self._held: int | None = None
        self._lock = threading.Lock()
        self._open: dict[str, CelledSandbox] = {}

    async def start(
        self, profile: SandboxProfile, layers: Sequence[Layer] = (), *, egress: Egress | None = None
    ) -> CelledSandbox:
        """As `Backend.start`."""
        name = cgroups.named(f"mw-{secrets.token_hex(4)}")
        async with contextlib.AsyncExitStack() as outer, Engine(f"unix://{self._socket}") as engine:
            if problems := refused(await engine.info(), profile):
                raise SandboxError(f"the Docker engine cannot hold the profile: {'; '.join(problems)}")
            image = await self._image(engine, profile.image)
            client = await self._ready(engine)
            user = User()
            outer.callback(user.close)
            owner = (user.id, user.id)
            network, sockets = await attached(
                client.folder / "net" / name.partition(".")[0], profile, egress, owner, outer
            )
            control = client.folder / "control" / name
            place = Place(name, str(client.base / name), str(control), sockets, owner, str(client.folder))
            making = _Making(profile, place, image, network)
            with contextlib.ExitStack() as inner:
                inner.callback(user.close)  # given back last, when nobody has it any more
                parts = await self._made(engine, client, making, layers, inner, outer)
                told = docker_plan.hello(profile, image, self._sys_path, bridged=sockets is not None)
                sandbox = CelledSandbox(self.level, parts, told, layers)
            await self._greeted(engine, sandbox, making)
        self._open[name] = sandbox
        return sandbox

    def refuse(self, limits: SandboxLimits) -> None:
        """Refuse where no engine answers, so that a run does not begin whose every call would fail. Each start asks about its bounds."""
        _peer(self._socket)

    async def close(self) -> None:
        """As `Backend.close`."""
        await anyio.to_thread.run_sync(self.shut)

    def shut(self) -> None:
        """Give everything back, without a loop."""
        problems: list[SandboxError] = []
        for sandbox in list(self._open.values()):
            try:
                sandbox.shut()
            except SandboxError as problem:  # the others are to end, too
                problems.append(problem)
        self._open.clear()
        self._forgotten()
        if problems:
            raise problems[0]

    def _forgotten(self) -> None:
        with self._lock:
            if self._client is not None:
                self._client.close()
                self._client = None
            if self._held is not None:
                os.close(self._held)
                self._held = None

    # ------------------------------------------------------------------------------------------- once
    async def _image(self, engine: Engine, name: str | None) -> Image:
        if name not in self._images or await engine.image(self._images[name].name) is None:
            self._images[name] = await (of_machine(engine) if name is None else of_operator(engine, name))
        return self._images[name]

    async def _ready(self, engine: Engine) -> LauncherClient:
        """Have a launcher in the engine's mount namespace. The first thing it does is to take away what killed supervisors left."""
        if self._client is not None and not self._client.alive():  # killed: its containers died with it
            await anyio.to_thread.run_sync(self._forgotten)
        client = self._client
        if client is None:
            namespace = await anyio.to_thread.run_sync(_namespace_of, self._socket)
            client = await anyio.to_thread.run_sync(self._launched, namespace)
            await _swept(engine, client)
        return client

    def _launched(self, namespace: str) -> LauncherClient:
        with self._lock:
            if self._client is None:
                client = LauncherClient(namespace)
                (client.folder / "control").mkdir(mode=0o711)
                self._held = os.open(client.folder / ELSEWHERE, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
                fcntl.flock(self._held, fcntl.LOCK_EX)
                self._client = client
            return self._client

    # ------------------------------------------------------------------------------------------- one sandbox
    async def _made(
        self,
        engine: Engine,
        client: LauncherClient,
        making: _Making,
        layers: Sequence[Layer],
        inner: contextlib.ExitStack,
        outer: contextlib.AsyncExitStack,
    ) -> Parts:
        """Mount the view, lay the layers on it, start the container, take the cell's call. A failure gives all of it back."""
        profile, place = making.profile, making.place
        await anyio.to_thread.run_sync(_viewed, client, making, layers, inner)
        with contextlib.ExitStack() as failed:
            failed.callback(_shut, making)
            making.listener = Listener(making.merged) if profile.observe else None
            with _listening(Path(place.control), place.owner) as waiting:
                body = docker_plan.container(profile, place, making.image)
                inner.callback(_discarded, self._socket, place.name)  # by its name: the answer with its id may be lost
                making.container = await engine.create(place.name, body)
                await engine.start(making.container)
                tree = await self._checked(engine, client, making)
                inner.callback(tree.close)
                inner.callback(tree.kill)
                channel = await _called(engine, making, waiting)
            failed.pop_all()
        closing = inner.pop_all()
        return Parts(
            name=place.name,
            profile=profile,
            link=Link(channel),
            tree=tree,
            merged=making.merged,
            upper=making.upper,
            owner=place.owner,
            began_ns=making.began_ns,
            network=making.network,
            listener=making.listener,
            close=lambda: self._gone(place.name, closing),
            aclose=outer.pop_all().aclose,
        )

    async def _checked(self, engine: Engine, client: LauncherClient, making: _Making) -> ContainerTree:
        """Take hold of what was started, and ask the kernel whether it is what was asked for."""
        place = making.place
        state = await engine.inspect(making.container)
        if state is None or not state.pid:
            raise SandboxError(
                f"the sandbox did not begin: {await _said(engine, making) or 'its container ended at once'}"
            )
        try:
            tree = ContainerTree(group_of(state.pid, making.container, place.name), os.pidfd_open(state.pid))
        except (OSError, ValueError, SandboxError) as gone:  # it may have ended while it was looked at
            raise SandboxError(f"the sandbox did not begin: {await _said(engine, making) or gone}") from gone
        try:
            paths = [str(path) for path in tree.group.paths]
            await anyio.to_thread.run_sync(
                lambda: client.ask("adopt", fds=(tree.pidfd,), name=place.name, groups=paths)
            )
            if not in_gvisor(state.pid):
                enforced(state.pid, place.owner, os.fstat(making.merged), INSIDE)
        except (OSError, SandboxError) as wrong:
            tree.kill()
            tree.close()
            said = await _said(engine, making) if isinstance(wrong, OSError) else ""
            raise SandboxError(f"{wrong} {said}".strip()) from wrong
        return tree

    async def _greeted(self, engine: Engine, sandbox: CelledSandbox, making: _Making) -> None:
        try:
            with anyio.fail_after(_GREETING_S):
                await sandbox.greet()
        except (Broken, TimeoutError) as broken:
            said = await _said(engine, making)
            await sandbox.close()
            raise SandboxError(f"the sandbox did not begin: {said or broken}") from broken
        except BaseException:
            await sandbox.close()
            raise

    def _gone(self, name: str, closing: contextlib.ExitStack) -> None:
        self._open.pop(name, None)
        closing.close()


def refused(info: Info, profile: SandboxProfile) -> list[str]:
    """Say what an engine cannot do that a profile needs, each with what to do; empty: nothing."""
    limits, swaps = profile.limits, len(Path("/proc/swaps").read_text().splitlines()) > 1
    found = [
        (
            info.system != "linux" or info.kernel != platform.release(),
            "it runs another kernel; it must be on this machine, outside of any VM",
        ),
        ("seccomp" not in info.security, "it filters no system calls; use an engine built with seccomp"),
        (
            "rootless" in info.security,
            "it is rootless, so that workspaces cannot be mounted for it; use the system's engine",
        ),
        (
            "userns" in info.security,
            "it maps users (`userns-remap`), so that the agent's own user is another; turn that off",
        ),
        (limits.memory is not None and not info.memory, "it bounds no memory"),
        (
            limits.memory is not None and swaps and not info.swap,
            "it bounds no swap, and this machine swaps; boot with `swapaccount=1`",
        ),
        (limits.processes is not None and not info.pids, "it bounds no processes"),
        (limits.cpu_milli is not None and not info.cpu, "it bounds no processor time"),
        (
            not profile.runtime and is_gvisor(info.runtime),
            f"its own runtime is `{info.runtime}`; name it as the sandbox's `runtime`, so that its bounds are reckoned for it",
        ),
        (
            bool(profile.runtime) and profile.runtime not in info.runtimes,
            f"it has no runtime `{profile.runtime}`, only {', '.join(info.runtimes)}; add it to the engine's `daemon.json`",
        ),
    ]
    return [words for holds, words in found if holds]


def _peer(path: str) -> int:
    """Give the process id of the engine behind a socket; 0 where it is not to be seen from here."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as asked:
        asked.settimeout(5)
        try:
            asked.connect(path)
        except OSError as problem:
            raise SandboxError(
                f"no Docker engine answers at `{path}`: {problem.strerror or problem}. Start it, set DOCKER_HOST to its "
                "`unix://` address, or choose `sandbox: bubblewrap`"
            ) from problem
        pid, _, _ = struct.unpack("3i", asked.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    return int(pid)


def _namespace_of(path: str) -> str:
    """Give the mount namespace of the engine behind a socket, as a path."""
    pid = _peer(path)
    namespace = f"/proc/{pid}/ns/mnt"
    if pid <= 0 or not Path(namespace).exists():
        raise SandboxError(
            f"the process behind `{path}` is not to be seen from here, so that nothing can be mounted for it; "
            "run Midwatch beside the engine, not in a container with its socket"
        )
    return namespace


def _viewed(client: LauncherClient, making: _Making, layers: Sequence[Layer], stack: contextlib.ExitStack) -> None:
    """Mount the view and lay the layers on it."""
    profile, place = making.profile, making.place
    making.began_ns = time.clock_gettime_ns(_COARSE)
    asked: dict[str, Any] = docker_plan.view(profile, place.owner)
    stack.callback(shutil.rmtree, place.control, ignore_errors=True)
    _, (making.merged, making.upper) = client.ask("prepare", name=place.name, owner=place.owner, **asked)
    stack.callback(stopped, client, place.name)
    try:
        replay.apply(making.merged, layers, owner=place.owner)
    except BaseException:
        _shut(making)
        raise


def _shut(making: _Making) -> None:
    """Close what a sandbox that was made would close itself."""
    os.close(making.merged)
    os.close(making.upper)
    if making.listener is not None:
        making.listener.close()


@contextlib.contextmanager
def _listening(folder: Path, owner: tuple[int, int]) -> Iterator[socket.socket]:
    """Await one call at `cell.sock` in a new folder. After it the socket's name is gone; the folder stays, since it is mounted."""
    folder.mkdir(mode=0o700)
    path = folder / "cell.sock"
    waiting = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        waiting.bind(str(path))
        path.chmod(0o600)
        os.chown(path, *owner)
        os.chown(folder, *owner)
        waiting.listen(1)
        waiting.setblocking(False)
        yield waiting
    finally:
        waiting.close()
        path.unlink(missing_ok=True)


async def _called(engine: Engine, making: _Making, waiting: socket.socket) -> socket.socket:
    """Take the cell's call. Nobody else can make it: no foreign code has run yet, and the folder is the agent's alone."""
    async with anyio.create_task_group() as group:

        async def watch() -> None:
            with contextlib.suppress(SandboxError):
                await engine.wait(making.container, _GREETING_S)
            group.cancel_scope.cancel()

        group.start_soon(watch)
        await anyio.wait_readable(waiting)
        channel, _ = waiting.accept()
        group.cancel_scope.cancel()
        return channel
    hint = (
        f"; does `{making.profile.runtime}` let containers reach Unix sockets of this machine?"
        if making.profile.runtime
        else ""
    )
    raise SandboxError(f"the sandbox did not begin: {await _said(engine, making) or 'its cell did not call'}{hint}")


async def _said(engine: Engine, making: _Making) -> str:
    """Give what the container said before it ended, or why the engine could not start it."""
    with contextlib.suppress(SandboxError), anyio.CancelScope(shield=True):
        printed = (await engine.logs(making.container, _OUTPUT)).decode("utf-8", "replace").strip()
        state = await engine.inspect(making.container)
        return printed or ("" if state is None else state.error)
    return ""


def _discarded(path: str, container: str) -> None:
    """Remove a container whose processes are gone. Where the engine does not answer, a later start finds what it keeps of it."""
    with contextlib.suppress(SandboxError):
        discard(path, container)


async def _swept(engine: Engine, client: LauncherClient) -> None:
    """Take away what supervisors left that are gone: their folders are those with a lock that nobody holds."""
    for folder in runtime_folder().glob("box.*"):
        with contextlib.suppress(OSError):  # it has no lock, or somebody holds it
            lock = os.open(folder / ELSEWHERE, os.O_RDWR | os.O_CLOEXEC)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                for left in await engine.containers({LABEL: None, OWNER_LABEL: str(folder)}):
                    await engine.remove(left.id)
                await anyio.to_thread.run_sync(lambda: client.ask("sweep", folder=str(folder)))  # noqa: B023 - awaited
                shutil.rmtree(folder)
            finally:
                os.close(lock)
    for left in await engine.containers({LABEL: None}):
        # Of a folder that is gone. Only what has ended: a supervisor in another process namespace is not to be seen from here.
        if left.status in ("exited", "dead") and not cgroups.supervised(left.name):
            await engine.remove(left.id)
