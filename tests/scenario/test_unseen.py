"""What a sandbox does must be seen: when its listener dies, the sandbox is killed at once, and what it did counts for nothing."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path

import pytest

from midwatch.config.specs import SandboxLimits
from midwatch.errors import Unseen
from midwatch.sandbox.bubblewrap import BubblewrapBackend
from midwatch.sandbox.port import RunResult
from midwatch.sandbox.profile import SandboxProfile


@pytest.mark.req("OBSERVE-7")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_sandbox_whose_listener_dies_is_killed_and_leaves_nothing(tmp_path: Path) -> None:
    """A call of a minute ends within seconds, its effects are refused, and nothing of it reaches the workspace."""
    if os.geteuid() != 0:
        pytest.fail("the listener takes root; run the tests as root")

    async def course() -> tuple[RunResult, float, bool]:
        backend = BubblewrapBackend()
        try:
            sandbox = await backend.start(SandboxProfile(workspace=tmp_path))
            call = asyncio.ensure_future(
                sandbox.run(
                    ["sh", "-c", "echo x > new; sleep 60"],
                    limits=SandboxLimits(),
                    workdir=Path("/workspace"),
                    timeout_us=60_000_000,
                    max_bytes=1000,
                )
            )
            await asyncio.sleep(0.3)
            listener = sandbox._parts.listener
            assert listener is not None
            began = time.monotonic()
            os.close(listener._fd)
            ended = await asyncio.wait_for(call, 30)
            took = time.monotonic() - began
            with pytest.raises(Unseen, match="cannot be told"):
                await sandbox.effects(tmp_path / "x.layer")
            return ended, took, (tmp_path / "new").exists()
        finally:
            await backend.close()

    ended, took, leaked = asyncio.run(course())
    assert ("crashed", False) == (ended.status, leaked)
    assert took < 20
