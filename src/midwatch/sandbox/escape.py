"""Escape: the self-test. It lays out bait on the host, sends a hostile program into sandboxes, and says what held.

In:   whatever starts a sandbox. Out: one `Check` an attack.
May import: the port, profile, seccomp (numbers of calls); the text of `attacks`. Must not know: any backend.
Who is believed: the program inside tells what it got; the bait tells what it saw. Where they differ, what is worse counts, and an attack
of which nothing is heard counts as open.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import ctypes
import json
import os
import platform
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import zlib
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final, Literal, Self

from midwatch.config.specs import MountSpec, SandboxLimits
from midwatch.sandbox import attacks
from midwatch.sandbox.attacks import files, kernel, network, processes, resources
from midwatch.sandbox.port import RunResult, Sandbox
from midwatch.sandbox.profile import INSIDE, SandboxProfile, merged
from midwatch.sandbox.seccomp import DENIED

__all__ = ["LIMITS", "Bait", "Check", "Kind", "program", "run_escape"]

Kind = Literal["escape", "information", "resource"]
LIMITS: Final = SandboxLimits(
    memory=256 << 20, processes=32, open_files=256, file_size=8 << 20, disk=32 << 20, inodes=1024, cpu_milli=1000
)
"""Small, so that going beyond them harms nobody where nothing holds."""

_MODULES: Final = ("common", "files", "kernel", "network", "processes", "resources")
_MORE_CALLS: Final = {"name_to_handle_at": (303, 264), "shmget": (29, 194)}
_RUN_US: Final = 180_000_000
_SERVE_S: Final = 6
_ANSWER: Final = 1 << 20
_FLOOD: Final = 32 << 20
_HEARD: Final = 64 << 10
_REFERENCE: Final = "/mnt/reference"
_IPC_CREAT, _IPC_RMID = 0o1000, 0


@dataclass(frozen=True, slots=True)
class Check:
    """One attack and how it ended.

    Attributes:
        held: it got nothing. detail: what it got, or what stopped it.
        kind: `information` tells something of the host, and opens nothing.
    """

    name: str
    held: bool
    detail: str
    kind: Kind = "escape"


async def run_escape(
    start: Callable[[SandboxProfile], Awaitable[Sandbox]],
    *,
    python: Sequence[str] = ("python3", "-I"),
    limits: SandboxLimits = LIMITS,
) -> list[Check]:
    """Try every attack. Sandboxes are started, two of them at once, and closed.

    Args:
        start: as `Backend.start`.
        python: the interpreter as it is called inside, 3.11 or newer; it needs nothing but its standard library.
        limits: of the sandboxes; a machine that bounds no whole tree holds none but the default ones.

    Raises:
        SandboxError: a sandbox cannot be started.
    """
    async with Bait(merged(limits)) as bait:
        checks = [
            *await _main(start, bait, python),
            *await _memory(start, bait, python),
            *await _outlived(start, bait, python),
        ]
        return bait.judged(checks)


async def _main(
    start: Callable[[SandboxProfile], Awaitable[Sandbox]], bait: Bait, python: Sequence[str]
) -> list[Check]:
    """All that one sandbox can do to the host and to the one beside it."""
    names = (*files.NAMES, *kernel.NAMES, *network.NAMES, *processes.NAMES, *resources.NAMES)
    one = await start(bait.profile("one"))
    try:
        two = await start(bait.profile("two"))
        try:
            found = await _attacked(one, bait, python, names)
            serving = asyncio.ensure_future(
                _ran(two, [*python, "-c", bait.neighbour_text(_SERVE_S), f"{bait.neighbour}-serves"])
            )
            try:
                found += await _attacked(one, bait, python, network.NEIGHBOUR)
            finally:
                await two.kill()
                await serving
        finally:
            await two.close()
        return [*found, *await _daemon(one, bait, python), await _flooded(one, python)]
    finally:
        await one.close()


async def _attacked(sandbox: Sandbox, bait: Bait, python: Sequence[str], names: tuple[str, ...]) -> list[Check]:
    ran = await _ran(sandbox, [*python, "-c", bait.text(f"common.report(told, {names!r})")])
    return _read(ran, bait.token, names)


async def _memory(
    start: Callable[[SandboxProfile], Awaitable[Sandbox]], bait: Bait, python: Sequence[str]
) -> list[Check]:
    """In a sandbox of its own: whoever takes too much memory may be ended with everything around it."""
    sandbox = await start(bait.profile("memory"))
    try:
        ran = await _ran(sandbox, [*python, "-c", bait.text(f"common.report(told, {resources.MEMORY!r})")])
    finally:
        await sandbox.close()
    if ran.status == "crashed" or ran.exit_code in (-9, 137):
        return [Check(resources.MEMORY[0], held=True, detail="the sandbox was killed", kind="resource")]
    return _read(ran, bait.token, resources.MEMORY)


async def _daemon(sandbox: Sandbox, bait: Bait, python: Sequence[str]) -> list[Check]:
    """What a call leaves behind must not live when the next one runs."""
    mark = f"{bait.token}-daemon"
    begun = await _ran(sandbox, [*python, "-c", bait.text(f"processes.daemon({mark!r}); print('begun')")])
    left = list(_with_words(mark))
    then = await _ran(sandbox, [*python, "-c", bait.text(f"print('alive', processes.daemon_lives({mark!r}))")])
    for pid in left:
        with contextlib.suppress(OSError):
            os.kill(pid, signal.SIGKILL)
    if b"begun" not in begun.stdout or b"alive" not in then.stdout:
        return [Check("daemon", held=False, detail=f"no answer: {then.status} {then.detail}")]
    alive = b"alive True" in then.stdout
    detail = (
        "it lives in the next call"
        if alive
        else f"it lives as process {left[0]}"
        if left
        else "gone when its call ended"
    )
    return [Check("daemon", not (alive or left), detail)]


async def _flooded(sandbox: Sandbox, python: Sequence[str]) -> Check:
    """Output without end is counted and not kept."""
    text = program({}, f"resources.flood({_FLOOD})")
    ran = await _ran(sandbox, [*python, "-c", text], _HEARD)
    kept = max(len(ran.stdout), len(ran.stderr))
    detail = f"{kept} bytes kept of {ran.stdout_bytes + ran.stderr_bytes}"
    return Check("flood", kept <= _HEARD and ran.stdout_bytes >= kept > 0, detail, "resource")


async def _outlived(
    start: Callable[[SandboxProfile], Awaitable[Sandbox]], bait: Bait, python: Sequence[str]
) -> list[Check]:
    """A sandbox that is closed in the middle of a call takes everything with it."""
    mark = f"{bait.token}-closed"
    sandbox = await start(bait.profile("closed"))
    under_way = asyncio.ensure_future(
        _ran(sandbox, [*python, "-c", bait.text(f"processes.daemon({mark!r}); import time; time.sleep({_SERVE_S})")])
    )
    try:
        for _ in range(100):
            if under_way.done() or any(_with_words(mark)):
                break
            await asyncio.sleep(0.05)
        begun = any(_with_words(mark))
        await sandbox.kill()
        await under_way
    finally:
        await sandbox.close()
    left = list(_with_words(mark))
    for pid in left:
        with contextlib.suppress(OSError):
            os.kill(pid, signal.SIGKILL)
    if not begun:
        return [Check("outlives_sandbox", held=False, detail="no answer: it was never seen")]
    return [Check("outlives_sandbox", not left, f"process {left[0]} lives" if left else "gone with its sandbox")]


async def _ran(sandbox: Sandbox, argv: Sequence[str], max_bytes: int = _ANSWER) -> RunResult:
    return await sandbox.run(
        argv, limits=SandboxLimits(), workdir=Path(INSIDE), timeout_us=_RUN_US, max_bytes=max_bytes
    )


def _read(ran: RunResult, token: str, names: Sequence[str]) -> list[Check]:
    """Take the lines that begin with the token; an attack without one is open."""
    found: dict[str, Check] = {}
    for line in ran.stdout.decode("utf-8", "replace").splitlines():
        mark, _, body = line.partition(" ")
        if mark == token:
            with contextlib.suppress(ValueError, KeyError):
                said = json.loads(body)
                found[said["name"]] = Check(said["name"], said["held"] is True, str(said["detail"]), said["kind"])
    said_of_it = f"{ran.status} {ran.exit_code} {ran.detail} {ran.stderr[-200:].decode('utf-8', 'replace')}".strip()
    return [found.get(name) or Check(name, held=False, detail=f"no answer: {said_of_it}") for name in names]


def _with_words(mark: str) -> Iterator[int]:
    """Find processes of this machine by a word of their command line."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            with contextlib.suppress(OSError):
                words = (entry / "cmdline").read_bytes()
                if mark.encode() in words and b"sleep(600)" in words:
                    yield int(entry.name)


def program(told: Mapping[str, Any], statement: str) -> str:
    """Write a program that brings its modules along as text, so that it runs where nothing is installed."""
    folder = Path(attacks.__file__).parent
    sources = {name: (folder / f"{name}.py").read_text(encoding="utf-8") for name in _MODULES}
    packed = base64.b64encode(zlib.compress(json.dumps([sources, dict(told)]).encode(), 9)).decode()
    package = attacks.__name__
    lines = [
        "import base64, json, sys, types, zlib",
        f"sources, facts = json.loads(zlib.decompress(base64.b64decode({packed!r})))",
        f"parts = {package!r}.split('.')",
        "for count in range(len(parts)):",
        "    sys.modules['.'.join(parts[:count + 1])] = types.ModuleType(parts[count])",
        "for name, text in sources.items():",
        f"    module = sys.modules[{package!r} + '.' + name] = globals()[name] = types.ModuleType({package!r} + '.' + name)",
        "    exec(compile(text, name, 'exec'), module.__dict__)",
        *(["told = common.Told(**facts)"] if told else []),
        statement,
    ]
    return "\n".join(lines)


@dataclass
class Bait:
    """What lies on the host for a program that gets out, and what was seen to touch it."""

    limits: SandboxLimits = field(default_factory=lambda: merged(LIMITS))
    token: str = field(default_factory=lambda: f"mw{secrets.token_hex(8)}")
    canary: str = field(default_factory=lambda: f"canary-{secrets.token_hex(16)}")
    hits: set[str] = field(default_factory=set)
    facts: dict[str, Any] = field(default_factory=dict)
    workspaces: list[Path] = field(default_factory=list)

    @property
    def neighbour(self) -> str:
        """The neighbour's name."""
        return f"{self.token}-neighbour"

    async def __aenter__(self) -> Self:
        """Lay it out."""
        with contextlib.ExitStack() as stack:
            self._lay(stack)
            self.facts |= await self._listening(stack)
            self._stack = stack.pop_all()
        return self

    async def __aexit__(self, *_: object) -> None:
        """Take it away."""
        self._stack.close()

    def _lay(self, stack: contextlib.ExitStack) -> None:
        folder = Path(tempfile.mkdtemp(prefix="midwatch-bait-"))
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        folder.chmod(0o755)
        self.folder, self.secret, self.reference = folder, folder / "secret", folder / "reference" / "book"
        self.reference.parent.mkdir()
        for path in (self.secret, self.reference):
            path.write_text(self.canary, encoding="ascii")
            path.chmod(0o666)
        for path in (folder, self.reference.parent):
            path.chmod(0o777)
        shared = Path("/dev/shm") / self.token  # noqa: S108 - the place that is tried
        with contextlib.suppress(OSError):
            shared.write_text(self.canary, encoding="ascii")
            stack.callback(shared.unlink, missing_ok=True)
        os.environ["MIDWATCH_BAIT"] = self.canary
        stack.callback(os.environ.pop, "MIDWATCH_BAIT", None)
        self.victim = self._started(stack)
        home = Path.home()
        self.facts = {
            "token": self.token, "numbers": _numbers(), "canary": self.canary, "secret": str(self.secret), "home": str(home),
            "home_names": sorted(path.name for path in home.iterdir())[:200], "folder": str(folder), "hostname": socket.gethostname(),
            "victim": self.victim.pid, "victim_mark": f"{self.token}-victim", "abstract": f"{self.token}-abstract",
            "path_socket": str(folder / "socket"), "shared_file": str(shared), "ipc_key": self._segment(stack),
            "readonly": f"{_REFERENCE}/book", "processes": self.limits.processes, "memory": self.limits.memory, "disk": self.limits.disk,
            "inodes": self.limits.inodes, "file_size": self.limits.file_size,
        }  # fmt: skip
        there = {"tcp": _free_port(), "abstract": self.neighbour, "file": f"/tmp/{self.neighbour}"}  # noqa: S108 - inside
        self.facts["neighbour"] = there

    def _started(self, stack: contextlib.ExitStack) -> subprocess.Popen[bytes]:
        """Start a process that has the canary in its environment, for somebody to find."""
        code = f"import time; time.sleep(600)  # {self.token}-victim"
        victim = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", code], env={"CANARY": self.canary}, start_new_session=True
        )
        stack.callback(victim.wait)
        stack.callback(victim.kill)
        return victim

    def _segment(self, stack: contextlib.ExitStack) -> int:
        libc, key = ctypes.CDLL(None), 1 + secrets.randbelow(1 << 30)
        made = libc.shmget(key, 4096, _IPC_CREAT | 0o666)
        if made < 0:
            return 0
        stack.callback(libc.shmctl, made, _IPC_RMID, None)
        return key

    async def _listening(self, stack: contextlib.ExitStack) -> dict[str, Any]:
        """Listen wherever the host can be reached, and remember who came."""
        own = _own_address()
        path = str(self.folder / "socket")
        tcp = await asyncio.start_server(self._seen("loopback_tcp"), "127.0.0.1", 0)
        servers = [tcp, await asyncio.start_unix_server(self._seen("path_socket"), path)]
        servers.append(await asyncio.start_unix_server(self._seen("abstract_socket"), f"\0{self.token}-abstract"))
        if own:
            servers.append(await asyncio.start_server(self._seen("host_tcp"), own, 0))
        for server in servers:
            stack.callback(server.close)
        os.chmod(path, 0o777)  # noqa: PTH101, S103 - for everybody: what keeps them away must be the sandbox
        loop = asyncio.get_running_loop()
        transport, _ = await loop.create_datagram_endpoint(lambda: _Datagrams(self.hits), local_addr=("127.0.0.1", 0))
        stack.callback(transport.close)
        return {
            "tcp": tcp.sockets[0].getsockname()[1], "udp": transport.get_extra_info("sockname")[1], "address": own,
            "address_tcp": servers[-1].sockets[0].getsockname()[1] if own else 0,
        }  # fmt: skip

    def _seen(self, name: str) -> Callable[[asyncio.StreamReader, asyncio.StreamWriter], None]:
        def came(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            self.hits.add(name)
            writer.close()

        return came

    def profile(self, name: str) -> SandboxProfile:
        """Give the profile of one sandbox: an empty workspace, one thing to read, nothing to ask of the network."""
        workspace = self.folder / name
        workspace.mkdir()
        self.workspaces.append(workspace)
        mounts = (MountSpec(self.reference.parent, _REFERENCE),)
        return SandboxProfile(workspace=workspace, limits=self.limits, mounts=mounts)

    def text(self, statement: str) -> str:
        """Write a program that knows the bait."""
        return program(self.facts, statement)

    def neighbour_text(self, seconds: float) -> str:
        """Write the program of the sandbox beside the hostile one."""
        return program(self.facts, f"network.serve(told.neighbour, {seconds})")

    def judged(self, checks: Sequence[Check]) -> list[Check]:
        """Correct what the program said by what the bait saw."""
        held = [
            replace(check, held=False, detail="the host saw it") if check.name in self.hits and check.held else check
            for check in checks
        ]
        if self._struck():
            held = [replace(check, held=False) if check.name == "signal_host" else check for check in held]
        return [*held, self._untouched()]

    def _struck(self) -> bool:
        """Whether the bait's process has been ended or stopped."""
        if self.victim.poll() is not None:
            return True
        stat = Path(f"/proc/{self.victim.pid}/stat").read_text(encoding="ascii")
        return stat.rpartition(")")[2].split()[0] in "Tt"

    def _untouched(self) -> Check:
        """The files of the bait are as they were laid out, and nobody has added one."""
        changed = [path.name for path in (self.secret, self.reference) if _text(path) != self.canary]
        own = {"secret", "reference", "socket", *(place.name for place in self.workspaces)}
        added = sorted(path.name for path in self.folder.iterdir() if path.name not in own)
        inside = sorted(path.name for place in self.workspaces for path in place.iterdir())
        told = ", ".join([*changed, *added, *inside])
        return Check("host_files", not told, f"changed: {told}" if told else "as they were laid out")


class _Datagrams(asyncio.DatagramProtocol):
    def __init__(self, hits: set[str]) -> None:
        self._hits = hits

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def datagram_received(self, data: bytes, addr: Any) -> None:
        self._hits.add("loopback_udp")
        self._transport.sendto(data, addr)


def _text(path: Path) -> str | None:
    with contextlib.suppress(OSError):
        return path.read_text(encoding="utf-8", errors="replace")
    return None


def _numbers() -> dict[str, int]:
    arm = platform.machine() in {"aarch64", "arm64"}
    pairs = {item.name: item.aarch64 if arm else item.x86_64 for item in DENIED}
    pairs |= {name: numbers[arm] for name, numbers in _MORE_CALLS.items()}
    return {name: number for name, number in pairs.items() if number is not None}


def _own_address() -> str:
    """Give the address that this machine has towards others; nothing is sent."""
    with contextlib.suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        asking.connect(("192.0.2.1", 9))
        own = str(asking.getsockname()[0])
        return "" if own.startswith(("0.", "127.")) else own
    return ""


def _free_port() -> int:
    with socket.socket() as asking:
        asking.bind(("127.0.0.1", 0))
        return int(asking.getsockname()[1])
