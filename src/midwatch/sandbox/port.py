"""Port: what every sandbox can do, written so that another one can be built from this page.

In:   a profile; calls and programs, with their bounds.
Out:  results as values. What a tool does, however bad, never raises here; cancellation passes through after every
      process of the call has been killed. What the sandbox itself cannot do is `SandboxError`, and nothing has begun.
May import: profile, layers (their types), config's limits. Must not know: any backend.

    backend.start(profile, layers) → Sandbox → call | run … → effects() → close()

A sandbox is disposable: all that outlives it is the layer that `effects` gives. Starting one with the layers of a run brings the
run's workspace back, on this machine or another. Commit and discard are therefore the same for every backend and stand in
`sandbox.release`. `tests/contract/sandbox_suite.py` is the conformance suite: a new backend runs it and changes nothing in it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

from midwatch.config.specs import SandboxLimits
from midwatch.sandbox.layers import Layer
from midwatch.sandbox.profile import SandboxProfile

__all__ = ["Backend", "Egress", "RunResult", "Sandbox", "SandboxResult", "Stats", "Tools", "Workable", "answered"]


@dataclass(frozen=True, slots=True)
class SandboxResult:
    """How a call of a tool ended.

    Attributes:
        status: `answered`: the worker gave one strict JSON value. `timeout`: killed at its deadline. `crashed`: the
            worker ended, or never began, without an answer. `garbage`: what it answered is no strict JSON.
            `too_big`: it answered more than `max_bytes`, and was killed.
        answer: what the worker answered; it is not believed, the caller checks every part.
        output: what the tool printed, its end; for the trace only.
        detail: why there is no answer; for the trace only.
        exit_code: of the worker; negative for a signal; None when it was killed before it ended.
        began: foreign code may have run; False only where that is certain, so that nothing can have been done.
    """

    status: Literal["answered", "timeout", "crashed", "garbage", "too_big"]
    answer: Any = None
    output: str = ""
    detail: str = ""
    exit_code: int | None = None
    began: bool = True


def answered(text: str | bytes, output: str, exit_code: int | None) -> SandboxResult:
    """Read what a worker answered as a stranger's: one strict JSON value, or a call that crashed or answered garbage."""
    try:
        value = json.loads(text, parse_constant=_no_number)
    except (ValueError, RecursionError) as wrong:
        if exit_code != 0:
            return SandboxResult("crashed", None, output, f"the worker ended with {exit_code}", exit_code)
        return SandboxResult("garbage", None, output, f"the worker's answer is no JSON: {wrong}", exit_code)
    return SandboxResult("answered", value, output, "", exit_code)


def _no_number(name: str) -> Any:
    raise ValueError(f"{name} is no JSON number")


@dataclass(frozen=True, slots=True)
class RunResult:
    """How a program ended.

    Attributes:
        status: `ended`, `timeout` (killed) or `crashed` (it could not be started; `detail` says why).
        exit_code: negative for a signal, None when there is none.
        stdout, stderr: the end of each, at most `max_bytes`; `stdout_bytes` and `stderr_bytes` count all that came.
    """

    status: Literal["ended", "timeout", "crashed"]
    exit_code: int | None = None
    stdout: bytes = b""
    stderr: bytes = b""
    stdout_bytes: int = 0
    stderr_bytes: int = 0
    detail: str = ""


class Workable(Protocol):
    """What a reference must lead to, so that a worker can perform it."""

    def work(self, arguments: str, facts: Mapping[str, Any]) -> Mapping[str, Any]:
        """Perform one call; `arguments` is JSON text; the answer is JSON data."""
        ...


@dataclass(frozen=True, slots=True)
class Stats:
    """What the kernel counted of a sandbox's process tree since its start; None where this machine counts no such thing.

    Attributes:
        memory, memory_peak: bytes. cpu_us: processor time. throttled_us: time it was held back by its quota.
        oom_kills: processes killed at the memory bound. processes, processes_peak: now, and most at once.
        processes_refused: forks refused at the bound. frozen: whether it is paused.
    """

    memory: int | None = None
    memory_peak: int | None = None
    cpu_us: int | None = None
    throttled_us: int | None = None
    oom_kills: int | None = None
    processes: int | None = None
    processes_peak: int | None = None
    processes_refused: int | None = None
    frozen: bool = False


class Tools(Protocol):
    """What performs one call of a tool: a sandbox, or what finds the right one for each call."""

    @property
    def level(self) -> str:
        """One word for what it is: `process`, `bubblewrap`, `docker`."""
        ...

    @property
    def isolates(self) -> bool:
        """Whether a hostile tool is kept from the rest of the machine. When False, every reader is told so."""
        ...

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
        """Perform one call of a tool in a process of its own.

        Args:
            ref: `module:qualname` or `/path/file.py:qualname`; leads to a `Workable`.
            arguments: JSON text. facts: JSON data for the tool's context.
            limits: None in a field leaves the backend's own bound, which is never `unlimited`. A backend that bounds the whole
                sandbox takes its profile's limits and lets a call only be stricter.
            workdir: absolute; the worker's working directory where nothing isolates, else the profile's `inside` is.
            timeout_us: from now to the answer, microseconds. max_bytes: of the answer.
        """
        ...


class Sandbox(Tools, Protocol):
    """One agent's place to act, alive between calls. Calls are taken one after the other, so that each effect has one cause.

    Between calls nothing inside runs: the tree is frozen where the machine can do that, and what a call left behind is killed.

    """

    @property
    def name(self) -> str:
        """Unique among the living; names the control group, the folder."""
        ...

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
        """Run one program to its end; no shell. Its environment is an allow-list, the profile's and `env`."""
        ...

    async def effects(self, into: Path) -> Layer:
        """Give what has changed in the workspace since the start or the last `effects`, with what was read, executed and requested.

        Args:
            into: file to write, in an existing folder; not made when nothing changed and nothing was tried.

        Nothing inside runs while it is read, and what is written is out of reach of the sandbox.

        Raises:
            SandboxError: it cannot be told what was done. The caller lets nothing of it count.
        """
        ...

    async def pause(self) -> None:
        """Freeze the whole tree; a call under way stays under way."""
        ...

    async def resume(self) -> None:
        """Let the tree go on."""
        ...

    async def kill(self) -> None:
        """Kill the whole tree, frozen or not; a call under way ends as `crashed`. `effects` can still be asked, then `close`."""
        ...

    async def stats(self) -> Stats:
        """Read the kernel's counters; also after `kill`, until `close`."""
        ...

    async def close(self) -> None:
        """Kill what lives and give everything back: mounts, control group, folder, user. What no layer holds is gone."""
        ...


class Egress(Protocol):
    """The only way out of a sandbox: what listens on the socket that is put into it. See `sandbox.egress`."""

    def attach(self, socket_path: Path, profile: SandboxProfile, owner: tuple[int, int] | None) -> Any:
        """Listen on a new socket for one sandbox, owned by `(uid, gid)`; gives an async context manager around its life.

        The manager's value has `requests() -> tuple[Request, ...]`: what was tried since the last time it was asked.
        """
        ...


class Backend(Protocol):
    """Makes sandboxes of one kind."""

    @property
    def level(self) -> str:
        """One word for what it is."""
        ...

    @property
    def isolates(self) -> bool:
        """Whether its sandboxes keep a hostile tool from the rest of the machine."""
        ...

    async def start(
        self, profile: SandboxProfile, layers: Sequence[Layer] = (), *, egress: Egress | None = None
    ) -> Sandbox:
        """Make a sandbox whose workspace is the profile's base with `layers` on top, oldest first.

        Raises:
            SandboxError: this machine cannot hold the profile; nothing was started, nothing was weakened.
        """
        ...

    async def close(self) -> None:
        """Kill and give back every sandbox that is still open."""
        ...
