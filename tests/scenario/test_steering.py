"""An operator's hold on one sandbox: paused where it stands, let go, killed; from another process's point of view, on record."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from midwatch.config.specs import SandboxLimits
from midwatch.engine.identity import local
from midwatch.engine.steering import steer
from midwatch.errors import Denied, NotFound, SandboxError
from midwatch.gates.review import Speaker
from midwatch.records.principal import Principal
from midwatch.sandbox import cgroups
from midwatch.sandbox.bubblewrap import BubblewrapBackend
from midwatch.sandbox.celled import CelledSandbox
from midwatch.sandbox.living import Living, Register
from midwatch.sandbox.port import RunResult
from midwatch.sandbox.profile import SandboxProfile
from midwatch.store.memory import MemoryStore

SPEAKER = local("ops", "cli")
BUSY = ["python3", "-c", "import time; t=time.monotonic()\nwhile time.monotonic()-t < 0.4: pass\nprint('done')"]


@pytest.fixture
def store() -> Iterator[MemoryStore]:
    """Give an empty store."""
    with contextlib.closing(MemoryStore()) as made:
        yield made


def _living(sandbox: CelledSandbox) -> Living:
    group = sandbox.group
    assert group is not None
    where = {key: str(path) for key, path in group.where.items()}
    return Living(sandbox.name, "", "hand", sandbox.level, cgroups.named("supervisor"), 1, where)


async def _work(sandbox: CelledSandbox, timeout_us: int = 1_500_000) -> RunResult:
    return await sandbox.run(
        BUSY, limits=SandboxLimits(), workdir=Path("/workspace"), timeout_us=timeout_us, max_bytes=1000
    )


@pytest.mark.req("STEER-1")
def test_a_sandbox_that_is_held_stands_still_and_no_time_counts_against_it(tmp_path: Path, store: MemoryStore) -> None:
    """Held for longer than the call may take, it does nothing; let go, the call ends well. Both are on record, with who and why."""
    register = Register(tmp_path / "sandboxes")

    async def course() -> tuple[int, RunResult]:
        backend = BubblewrapBackend()
        try:
            sandbox = await backend.start(SandboxProfile(workspace=tmp_path))
            living = _living(sandbox)
            register.began(living)
            call = asyncio.ensure_future(_work(sandbox))
            await asyncio.sleep(0.1)
            steer(store, register, living, "pause", speaker=SPEAKER, reason="look at it", at_us=1)
            before = (await sandbox.stats()).cpu_us or 0
            await asyncio.sleep(2.0)
            used = ((await sandbox.stats()).cpu_us or 0) - before
            assert register.held(living.name)
            assert not call.done()
            steer(store, register, living, "resume", speaker=SPEAKER, reason="", at_us=2)
            return used, await call
        finally:
            await backend.close()

    used, result = asyncio.run(course())
    assert used < 20_000
    assert ("ended", 0, b"done\n") == (result.status, result.exit_code, result.stdout)
    told = store.read(lambda tx: tx.ledger.read(kinds=("sandbox.steered",)))
    expected = [("pause", SPEAKER.name, "look at it"), ("resume", SPEAKER.name, "")]
    assert expected == [(event.data["act"], event.data["by"], event.data["reason"]) for event in told]


@pytest.mark.req("STEER-2")
def test_a_killed_sandbox_ends_its_call_even_while_it_is_held(tmp_path: Path, store: MemoryStore) -> None:
    """Nothing of the tree is left, its call ends as crashed at once, and the sandbox takes no further one."""
    register = Register(tmp_path / "sandboxes")

    async def course() -> tuple[RunResult, RunResult, float, int]:
        backend = BubblewrapBackend()
        try:
            sandbox = await backend.start(SandboxProfile(workspace=tmp_path))
            living = _living(sandbox)
            register.began(living)
            call = asyncio.ensure_future(_work(sandbox, 60_000_000))
            await asyncio.sleep(0.1)
            steer(store, register, living, "pause", speaker=SPEAKER, reason="", at_us=1)
            began = time.monotonic()
            steer(store, register, living, "kill", speaker=SPEAKER, reason="", at_us=2)
            ended = await asyncio.wait_for(call, 10)
            took = time.monotonic() - began
            return ended, await _work(sandbox), took, len(living.group().procs())
        finally:
            await backend.close()

    ended, later, took, left = asyncio.run(course())
    assert ("crashed", "crashed", 0) == (ended.status, later.status, left)
    assert took < 8


@pytest.mark.req("STEER-3")
def test_who_may_not_steer_changes_nothing(tmp_path: Path, store: MemoryStore) -> None:
    """It takes an operator, a living sandbox and a control group; else it is refused, and nothing is recorded."""
    register = Register(tmp_path / "sandboxes")
    living = Living("mw-x", "", "hand", "bubblewrap", cgroups.named("supervisor"), 1, {})
    with pytest.raises(SandboxError, match="no control group"):
        steer(store, register, living, "pause", speaker=SPEAKER, reason="", at_us=1)
    viewer = Principal("eve", "viewer", "*", "h", 1, "admin")
    store.write(lambda tx: tx.principals.add(viewer))
    where = {"pids": str(tmp_path)}
    other = Living("mw-y", "", "hand", "bubblewrap", cgroups.named("supervisor"), 1, where)
    with pytest.raises(Denied):
        steer(store, register, other, "kill", speaker=Speaker("eve", viewer, "cli"), reason="", at_us=1)
    with pytest.raises(NotFound, match="sandbox ls"):
        register.find("mw-nobody")
    assert [] == list(store.read(lambda tx: tx.ledger.read(kinds=("sandbox.steered",))))
