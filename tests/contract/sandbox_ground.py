"""Ground: what the sandbox suite stands on: a backend's place to work, things to call, and a look at this machine.

In:   a backend, a folder. Out: `Place`, `living`, `left`.
`sandbox_suite.py` is the suite, and says how it is used.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final, TypeVar

import anyio

from midwatch.sandbox import (
    Backend,
    Layer,
    RunResult,
    Sandbox,
    SandboxLimits,
    SandboxProfile,
    SandboxResult,
    open_sandbox,
)

__all__ = ["ATTEMPTS", "MIB", "Place", "left", "living", "mark", "mounted", "sha", "supervisor"]

_T = TypeVar("_T")

MIB: Final = 1 << 20

THINGS: Final = '''
import os, signal, subprocess, sys

class Thing:
    def __init__(self, work):
        self._work = work
    def work(self, arguments, facts):
        return self._work(arguments, facts)

def _fails(arguments, facts):
    raise ValueError("on purpose")

def _shouts(arguments, facts):
    """Write what is no JSON wherever an answer could be expected, and end as if all were well."""
    for descriptor in range(3, 64):
        try:
            os.write(descriptor, b"{not json")
        except OSError:
            pass
    os._exit(0)

def _chatters(arguments, facts):
    print("out" * 400_000)
    print("err" * 400_000, file=sys.stderr)
    return 5

def _hangs(arguments, facts):
    subprocess.Popen(["sleep", arguments.strip('"')])
    subprocess.run(["sleep", arguments.strip('"')])

def _leaves(arguments, facts):
    """Start a daemon that has left every group, hears no signal and holds the answer's way open."""
    program = "import os, signal, sys, time; os.setsid(); [signal.signal(s, signal.SIG_IGN) for s in (1, 2, 15)]; time.sleep(600)"
    subprocess.Popen([sys.executable, "-c", program, arguments.strip('"')], close_fds=False, start_new_session=True)
    return 1

echoes = Thing(lambda arguments, facts: [arguments, facts["who"]])
fails, shouts, chatters, hangs, leaves = Thing(_fails), Thing(_shouts), Thing(_chatters), Thing(_hangs), Thing(_leaves)
ends = Thing(lambda arguments, facts: os._exit(3))
dies = Thing(lambda arguments, facts: os.kill(os.getpid(), signal.SIGKILL))
big = Thing(lambda arguments, facts: "x" * 100_000)
nan = Thing(lambda arguments, facts: float("nan"))
odd = Thing(lambda arguments, facts: object())
'''


ATTEMPTS: Final[dict[str, tuple[dict[str, int], str]]] = {
    "memory": ({"memory": 96 * MIB}, "python3 -c 'b = bytearray(400 << 20); b[::4096] = b[::4096]'"),
    "processes": ({"processes": 20}, "for i in $(seq 60); do sleep 5 & done; echo all"),
    "disk": ({"disk": 8 * MIB}, "head -c 20000000 /dev/zero >big"),
    "file_size": ({"file_size": MIB}, "head -c 20000000 /dev/zero >big"),
    "open_files": ({"open_files": 32}, "python3 -c 'k = [open(\"/dev/null\") for _ in range(100)]'"),
}
"""By bound: limits, and what takes more than they allow."""


@dataclass
class Place:
    """One test's backend, and what its sandboxes are made from."""

    backend: Backend
    folder: Path
    seconds: float
    profile: SandboxProfile = field(init=False)

    def __post_init__(self) -> None:
        """Make the folders."""
        for name in ("workspace", "code", "layers"):
            (self.folder / name).mkdir()
        (self.folder / "code" / "things.py").write_text(THINGS, encoding="utf-8")
        self.profile = SandboxProfile(self.folder / "workspace", code=(self.folder / "code",), observe=False)

    @contextlib.asynccontextmanager
    async def open(self, *layers: Layer, **changes: Any) -> AsyncIterator[Sandbox]:
        """Open a sandbox; `changes` are fields of the profile."""
        async with open_sandbox(replace(self.profile, **changes), self.backend, layers=layers) as box:
            yield box

    def inside(self, body: Callable[[Sandbox], Awaitable[_T]], **changes: Any) -> _T:
        """Run `body` with an open sandbox, bounded."""

        async def whole() -> _T:
            async with self.open(**changes) as box:
                return await body(box)

        return self.go(whole)

    def go(self, body: Callable[[], Awaitable[_T]]) -> _T:
        """Run `body`, bounded, and close the backend."""

        async def whole() -> _T:
            try:
                with anyio.fail_after(4 * self.seconds):
                    return await body()
            finally:
                await self.backend.close()

        return anyio.run(whole)

    async def call(self, box: Sandbox, thing: str, argument: Any = None, **how: Any) -> SandboxResult:
        """Call one of `THINGS`."""
        ref = f"{self.folder / 'code' / 'things.py'}:{thing}"
        bounds: dict[str, Any] = {
            "timeout_us": int(self.seconds * 1e6),
            "max_bytes": 10_000,
            "limits": SandboxLimits(),
        } | how
        workdir = self.profile.workspace
        return await box.call(ref, json.dumps(argument), facts={"who": "me"}, workdir=workdir, **bounds)

    async def run(self, box: Sandbox, *argv: str, **how: Any) -> RunResult:
        """Run one program."""
        bounds: dict[str, Any] = {
            "timeout_us": int(self.seconds * 1e6),
            "max_bytes": 10_000,
            "limits": SandboxLimits(),
        } | how
        return await box.run(argv, workdir=self.profile.workspace, **bounds)

    async def script(self, box: Sandbox, text: str) -> str:
        """Run a shell script that must succeed; gives what it printed."""
        done = await self.run(box, "sh", "-ec", text)
        assert (done.status, done.exit_code) == ("ended", 0), done
        return done.stdout.decode()

    async def layer(self, box: Sandbox) -> Layer:
        """Take the effects, into a file of their own."""
        return await box.effects(self.folder / "layers" / secrets.token_hex(4))

    async def until(self, check: Callable[[], bool]) -> None:
        """Wait, bounded, for what is about to be so."""
        with anyio.fail_after(self.seconds):
            while not check():  # noqa: ASYNC110 - other processes set no event
                await anyio.sleep(0.005)


def supervisor(factory: str, workspace: Path, word: str) -> str:
    """Write a program that opens a sandbox, prints its name, and then waits for a call that does not end."""
    return f"""
import importlib, anyio
from pathlib import Path
from midwatch.sandbox import SandboxLimits, SandboxProfile, open_sandbox

async def main():
    module, _, name = {factory!r}.partition(":")
    made = getattr(importlib.import_module(module), name)()
    async with open_sandbox(SandboxProfile(Path({str(workspace)!r})), made) as box:
        print(box.name, flush=True)
        await box.run(
            ["sh", "-c", "(trap '' TERM HUP; setsid sleep {word} &); sleep {word}"],
            limits=SandboxLimits(), workdir=Path("/workspace"), timeout_us=600_000_000, max_bytes=10,
        )

anyio.run(main)
"""


def mark(start: str = "600") -> str:
    """A number of seconds for `sleep` that no other process has."""
    return f"{start}{'' if '.' in start else '.'}0{secrets.randbelow(10**12):012d}1"


def sha(text: str) -> str:
    """Give the digest by which effects name a content."""
    return hashlib.sha256(text.encode()).hexdigest()


def living(mark: str) -> list[int]:
    """Find the processes of this machine that have `mark` as an argument and are no zombies."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it ended meanwhile
            if mark.encode() in (entry / "cmdline").read_bytes().split(b"\0"):
                found.append(int(entry.name))
    return found


def mounted(name: str) -> list[str]:
    """Find the processes that see a mount named for a sandbox."""
    found = []
    for table in Path("/proc").glob("[0-9]*/mountinfo"):
        with contextlib.suppress(OSError):  # it ended meanwhile
            if name in table.read_text():
                found.append(str(table))
    return found


def left(name: str) -> list[str]:
    """Find what is named for a sandbox: mounts, control groups, folders where such things live."""
    found = mounted(name)
    for top, depth in (("/sys/fs/cgroup", 9), ("/run", 4), ("/tmp", 4), ("/var/lib", 3)):
        for folder, folders, files in os.walk(top):  # what vanishes meanwhile is passed over
            found += [str(Path(folder) / entry) for entry in (*folders, *files) if name in entry]
            if folder.count("/") - top.count("/") >= depth - 1:
                folders.clear()
    return found
