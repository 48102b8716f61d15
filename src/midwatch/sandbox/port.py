"""Port: what every sandbox can do, written so that another one can be built from this page.

In:   calls and programs, with their bounds.
Out:  results as values. What a tool does, however bad, never raises here; cancellation passes through after every
      process of the call has been killed.
May import: config's limits. Must not know: any backend.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

from midwatch.config.specs import SandboxLimits

__all__ = ["RunResult", "Sandbox", "SandboxResult", "Workable"]


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


class Sandbox(Protocol):
    """Where tools act.

    Attributes:
        level: one word for what it is, as `doctor` and the ledger name it: `process`, later `bubblewrap`, `docker`.
        isolates: whether a hostile tool is kept from the rest of the machine. When False, every reader is told so.
    """

    level: str
    isolates: bool

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
        """Perform one call of a tool in a fresh worker.

        Args:
            ref: `module:qualname` or `/path/file.py:qualname`; leads to a `Workable`.
            arguments: JSON text. facts: JSON data for the tool's context.
            limits: None in a field leaves the backend's own bound, which is never `unlimited`.
            workdir: absolute; the worker's working directory.
            timeout_us: from now to the answer, microseconds. max_bytes: of the answer.
        """
        ...

    async def run(
        self, argv: Sequence[str], *, limits: SandboxLimits, workdir: Path, timeout_us: int, max_bytes: int
    ) -> RunResult:
        """Run one program to its end; no shell. Its standard input is empty, its environment an allow-list."""
        ...

    async def close(self) -> None:
        """Give back what the backend holds. Calls under way are killed."""
        ...
