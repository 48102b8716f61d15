"""What tests of containers stand on: a backend of the test engine, a workspace, and programs to run in it.

In:   `docker_host`. Out: `Ground`; `TREE`, the sixty processes that do not want to end.
Must not know: what a test proves.
"""

from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import anyio

from midwatch.config.specs import SandboxLimits
from midwatch.sandbox.celled import CelledSandbox
from midwatch.sandbox.docker import DockerBackend
from midwatch.sandbox.docker_api import Engine
from midwatch.sandbox.docker_plan import LABEL
from midwatch.sandbox.layers import Layer
from midwatch.sandbox.port import RunResult
from midwatch.sandbox.profile import DEFAULT_LIMITS, SandboxProfile

__all__ = ["TREE", "Ground", "nothing_left", "run", "said", "soon"]

TREE: Final = """
import os, signal, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
for _ in range(59):
    if os.fork() == 0:
        os.setsid()
        time.sleep(3600)
print("grown", flush=True)
time.sleep(3600)
"""
"""Sixty processes, each in a session of its own, none of which ends when asked to."""


@dataclass(frozen=True, slots=True)
class Ground:
    """One test's place: an engine, a backend of it, a workspace with one file, a folder for layers."""

    host: str
    backend: DockerBackend
    workspace: Path
    layers: Path

    @classmethod
    def below(cls, folder: Path, host: str, backend: DockerBackend) -> "Ground":
        """Make one."""
        for name in ("work", "layers"):
            (folder / name).mkdir()
        (folder / "work" / "base.txt").write_text("base\n")
        return cls(host, backend, folder / "work", folder / "layers")

    def profile(self, **changes: Any) -> SandboxProfile:
        """Give a profile of the workspace, with some limits and fields changed."""
        names = SandboxLimits.__dataclass_fields__
        limits = replace(DEFAULT_LIMITS, **{name: value for name, value in changes.items() if name in names})
        rest = {name: value for name, value in changes.items() if name not in names}
        return SandboxProfile(self.workspace, limits=limits, **rest)

    @asynccontextmanager
    async def sandbox(self, *layers: Layer, egress: Any = None, **changes: Any) -> AsyncIterator[CelledSandbox]:
        """Open a sandbox; it is closed with the block."""
        sandbox = await self.backend.start(self.profile(**changes), layers, egress=egress)
        try:
            yield sandbox
        finally:
            await sandbox.close()

    def engine(self) -> Engine:
        """Speak with the engine itself."""
        return Engine(self.host)


def run(body: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run a test's body; a minute is more than any needs."""

    async def bounded() -> None:
        with anyio.fail_after(60):
            await body()

    anyio.run(bounded)


async def said(sandbox: CelledSandbox, *argv: str, timeout_us: int = 20_000_000) -> RunResult:
    """Run one program in a sandbox."""
    return await sandbox.run(
        argv, limits=SandboxLimits(), workdir=Path("/workspace"), timeout_us=timeout_us, max_bytes=100_000
    )


async def soon(holds: Callable[[], bool], seconds: float = 10) -> bool:
    """Wait until something holds; False when it did not in time."""
    for _ in range(int(seconds / 0.01)):
        if holds():
            return True
        await anyio.sleep(0.01)
    return holds()


async def nothing_left(ground: Ground) -> None:
    """No container, no folder of a sandbox."""
    async with ground.engine() as engine:
        assert [] == await engine.containers({LABEL: None})
    client = ground.backend._client
    if client is not None:
        assert [] == [*(client.folder / "net").iterdir(), *(client.folder / "control").iterdir()]
