"""The escape self-test can fail: where little or nothing holds, it says so, attack by attack."""

import asyncio
import contextlib
import signal
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any, cast

import pytest

from midwatch.sandbox.escape import Check, run_escape
from midwatch.sandbox.port import RunResult, Sandbox
from midwatch.sandbox.profile import SandboxProfile

pytestmark = pytest.mark.req("ESCAPE-1")

_NAIVE = ("bwrap", "--ro-bind", "/", "/", "--dev-bind", "/dev", "/dev", "--bind", "/tmp", "/tmp", "--proc", "/proc")


class Naive:
    """What somebody would write first: the machine, read-only, and nothing else held."""

    def __init__(self, profile: SandboxProfile, before: Sequence[str]) -> None:
        self._profile, self._before = profile, before
        self._running: asyncio.subprocess.Process | None = None

    async def run(
        self, argv: Sequence[str], *, limits: Any, workdir: Path, timeout_us: int, max_bytes: int, **_: Any
    ) -> RunResult:
        """Run one program, and keep all that it says."""
        words = [*self._before, *(("--chdir", str(self._profile.workspace)) if self._before else ()), *argv]
        pipe = asyncio.subprocess.PIPE
        started = await asyncio.create_subprocess_exec(*words, stdout=pipe, stderr=pipe, cwd=self._profile.workspace)
        self._running = started
        out, err = await asyncio.wait_for(started.communicate(), timeout_us / 1_000_000)
        return RunResult("ended", started.returncode, out, err, len(out), len(err))

    async def kill(self) -> None:
        """Kill what was started, and nothing of what that has started."""
        if self._running is not None:
            with contextlib.suppress(ProcessLookupError):
                self._running.send_signal(signal.SIGKILL)

    async def close(self) -> None:
        """Nothing is held."""


def tried(before: Sequence[str]) -> dict[str, Check]:
    """Run the self-test there."""

    async def start(profile: SandboxProfile) -> Sandbox:
        return cast("Sandbox", Naive(profile, before))

    starting: Callable[[SandboxProfile], Awaitable[Sandbox]] = start
    found = asyncio.run(run_escape(starting))
    assert len(found) == len({check.name for check in found})
    return {check.name: check for check in found}


def opened(checks: dict[str, Check]) -> set[str]:
    """Names of what got out."""
    broken = {
        name: check.detail for name, check in checks.items() if "broke" in check.detail or "no answer" in check.detail
    }
    assert {} == broken
    return {name for name, check in checks.items() if not check.held}


@pytest.mark.timeout(240)
def test_a_naive_sandbox_is_told_from_a_real_one() -> None:
    """Bubblewrap without its switches, as it is often used: most of the ways out are open, and each is found."""
    found = opened(tried(_NAIVE))
    assert 50 <= len(found), sorted(found)
