"""Process: the sandbox that bounds what a tool uses, and does not isolate it.

In:   calls and programs. Out: their results, as the port says.
May import: the port, the worker's path, config's limits; anyio. Must not know: contracts, who asks.
What it does: a process group and session of its own, resource limits, an empty environment but for an allow-list, no
standard input, a working directory, one deadline, capped output, and SIGKILL for the whole group at the end of every
call. What it does not do: the tool reads and writes whatever its user may, reaches the network, and can leave the group
(`setsid`). So `isolates` is False, and a fleet must say why that is good enough.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import anyio
from anyio.abc import ByteReceiveStream, Process

from midwatch.config.specs import SandboxLimits
from midwatch.sandbox import worker
from midwatch.sandbox.port import RunResult, SandboxResult, answered
from midwatch.sandbox.profile import DEFAULT_LIMITS, merged

__all__ = ["ProcessSandbox"]

_ENVIRONMENT: Final = ("LANG", "LC_ALL", "LC_CTYPE", "TZ")
"""What passes from this process's environment; never a key, a home, a proxy."""

_PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_OUTPUT: Final = 16_384
_CHUNK: Final = 65_536


class _Tail:
    """The end of what a stream said, and how much that was."""

    def __init__(self, keep: int) -> None:
        self.keep, self.total, self.kept = keep, 0, b""

    async def drain(self, stream: ByteReceiveStream) -> None:
        with contextlib.suppress(anyio.EndOfStream, anyio.ClosedResourceError, anyio.BrokenResourceError):
            while True:
                data = await stream.receive(_CHUNK)
                self.total += len(data)
                self.kept = (self.kept + data)[-self.keep :]

    def text(self) -> str:
        return self.kept.decode("utf-8", "replace")


@dataclass(slots=True)
class _Exchange:
    """What came over the socket. `answer` without its first byte, which only says that limits are set."""

    limit: int
    data: bytearray = field(default_factory=bytearray)
    over: bool = False
    timed_out: bool = False
    exit_code: int | None = None


class ProcessSandbox:
    """See the module's head. Holds nothing between calls; one object serves any number of calls at once."""

    level = "process"
    isolates = False

    def __init__(self, limits: SandboxLimits | None = None, python: str = sys.executable) -> None:
        """Make one.

        Args:
            limits: the fleet's own bounds; what they leave open is taken from `profile.DEFAULT_LIMITS`.
            python: interpreter of the workers; it must have Midwatch and what the tools import.
        """
        self._defaults = DEFAULT_LIMITS if limits is None else merged(limits)
        self._python = python

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
        """As `Sandbox.call`."""
        request = {
            "kind": "call",
            "ref": ref,
            "arguments": arguments,
            "facts": dict(facts),
            # An empty or relative entry would let the working directory, which agents write, name modules.
            "sys_path": [entry for entry in sys.path if Path(entry).is_absolute()],
        }
        stdout, stderr = _Tail(_OUTPUT // 2), _Tail(_OUTPUT // 2)
        try:
            seen = await self._exchange(request, limits, workdir, timeout_us, max_bytes, (stdout, stderr))
        except OSError as failure:
            return SandboxResult("crashed", detail=f"the worker cannot be started: {failure}", began=False)
        began = bool(seen.data)  # its first byte says that foreign code may begin
        output = "\n".join(text for text in (stdout.text(), stderr.text()) if text)
        if seen.timed_out:
            return SandboxResult("timeout", output=output, detail="killed at its deadline", began=began)
        if seen.over:
            return SandboxResult("too_big", output=output, detail=f"answered more than {max_bytes:,} bytes")
        answer = bytes(seen.data[1:])
        if not answer:
            why = f"the worker ended with {seen.exit_code}"
            return SandboxResult("crashed", None, output, why, seen.exit_code, began)
        return answered(answer, output, seen.exit_code)

    async def run(
        self, argv: Sequence[str], *, limits: SandboxLimits, workdir: Path, timeout_us: int, max_bytes: int
    ) -> RunResult:
        """As `Sandbox.run`."""
        stdout, stderr = _Tail(max_bytes), _Tail(max_bytes)
        request = {"kind": "run", "argv": list(argv)}
        try:
            seen = await self._exchange(request, limits, workdir, timeout_us, _CHUNK, (stdout, stderr))
        except OSError as failure:
            return RunResult("crashed", detail=f"the worker cannot be started: {failure}")
        said = (stdout.kept, stderr.kept, stdout.total, stderr.total)
        if seen.timed_out:
            return RunResult("timeout", None, *said, "killed at its deadline")
        try:
            answer = json.loads(seen.data[1:])
        except ValueError:
            return RunResult("crashed", None, *said, f"the worker ended with {seen.exit_code}")
        code = answer["exit_code"]
        return RunResult("crashed" if code is None else "ended", code, *said, answer["detail"])

    async def close(self) -> None:
        """Nothing is held between calls."""

    async def _exchange(
        self,
        request: Mapping[str, Any],
        limits: SandboxLimits,
        workdir: Path,
        timeout_us: int,
        max_bytes: int,
        tails: tuple[_Tail, _Tail],
    ) -> _Exchange:
        """Start a worker, send it the request, gather what it says, and leave no process of its group behind.

        Raises:
            OSError: the worker cannot be started.
        """
        body = json.dumps({**request, "limits": self._limits(limits, timeout_us)}).encode()
        seen = _Exchange(max_bytes + 1)
        ours, theirs = socket.socketpair()
        with ours, theirs:
            ours.setblocking(False)
            process = await anyio.open_process(
                [self._python, "-I", worker.__file__, str(theirs.fileno())],
                stdin=-3,  # subprocess.DEVNULL
                cwd=workdir,
                env=_environment(workdir),
                start_new_session=True,
                pass_fds=(theirs.fileno(),),
            )
            theirs.close()
            try:
                with anyio.move_on_after(timeout_us / 1_000_000) as deadline:
                    await _talk(process, ours, body, seen, tails)
                seen.timed_out = deadline.cancelled_caught
            finally:
                with anyio.CancelScope(shield=True):
                    _kill_group(process.pid)
                    seen.exit_code = await process.wait()
                    await process.aclose()
        return seen

    def _limits(self, wanted: SandboxLimits, timeout_us: int) -> dict[str, int | None]:
        bounds = merged(wanted, self._defaults)
        return {
            "memory": bounds.memory,
            "file_size": bounds.file_size,
            "open_files": bounds.open_files,
            "processes": bounds.processes,
            "cpu_seconds": -(-(bounds.cpu_us or timeout_us) // 1_000_000),
            "core": 0,
        }


def _environment(workdir: Path) -> dict[str, str]:
    kept = {name: os.environ[name] for name in _ENVIRONMENT if name in os.environ}
    return {"LANG": "C.UTF-8", **kept, "PATH": _PATH, "HOME": str(workdir), "PYTHONDONTWRITEBYTECODE": "1"}


async def _talk(
    process: Process, channel: socket.socket, body: bytes, seen: _Exchange, tails: tuple[_Tail, _Tail]
) -> None:
    """Send the request, then read the socket to its end; the tails are read as long as the worker lives."""
    async with anyio.create_task_group() as group:
        for tail, stream in zip(tails, (process.stdout, process.stderr), strict=True):
            if stream is not None:
                group.start_soon(tail.drain, stream)
        with contextlib.suppress(ConnectionError):  # it ended early: the exit code says why
            await _send(channel, len(body).to_bytes(8) + body)
            await _gather(channel, seen)
        # A grandchild may hold the worker's output open; once the worker has spoken, nobody may go on.
        if not seen.over:
            with anyio.move_on_after(1):
                await process.wait()
        _kill_group(process.pid)
        # Who left the group may hold the output open for ever; what it prints later is of no interest.
        group.cancel_scope.deadline = anyio.current_time() + 0.25


async def _send(channel: socket.socket, data: bytes) -> None:
    left = memoryview(data)
    while left:
        await anyio.wait_writable(channel)
        with contextlib.suppress(BlockingIOError):
            left = left[channel.send(left) :]


async def _gather(channel: socket.socket, seen: _Exchange) -> None:
    while len(seen.data) <= seen.limit:
        await anyio.wait_readable(channel)
        with contextlib.suppress(BlockingIOError):
            data = channel.recv(_CHUNK)
            if not data:
                return
            seen.data += data
    seen.over = True


def _kill_group(group: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, signal.SIGKILL)
