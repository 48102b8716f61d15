"""Shell: programs that a person runs in a sandbox as an agent of a fleet has it, to see what it sees.

In:   a fleet, an agent, a workspace, a run's layers. Out: results of programs, and at the end what they changed, which is dropped.
May import: the wiring, config, engine's staging, the sandbox's port. Must not know: how anything is shown, who may do this.
Why without the network: what goes out is on record with the call of a tool that asked for it, and here there is none.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from midwatch import wiring
from midwatch.config.apart import not_apart
from midwatch.config.fleet import Fleet
from midwatch.config.specs import SandboxLimits, SandboxSpec
from midwatch.engine.staging import Isolation, Staged, Staging
from midwatch.errors import InvalidFleet, NotFound, UsageProblem
from midwatch.isolating import isolation
from midwatch.sandbox.effects import Change
from midwatch.sandbox.port import RunResult, Sandbox
from midwatch.sandbox.profile import INSIDE
from midwatch.tools.registry import Registry

__all__ = ["Shell", "agent_of", "inside", "opened"]

MAX_BYTES: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class Shell:
    """An open sandbox. `level` is the backend's word."""

    sandbox: Sandbox
    level: str

    async def run(self, argv: Sequence[str], *, timeout_us: int) -> RunResult:
        """Run one program to its end."""
        return await self.sandbox.run(
            argv, limits=SandboxLimits(), workdir=Path(INSIDE), timeout_us=timeout_us, max_bytes=MAX_BYTES
        )

    async def changed(self) -> tuple[Change, ...]:
        """Say what was changed, read and executed since the last time; it is in no layer and goes with the sandbox."""
        with tempfile.TemporaryDirectory(prefix="midwatch-shell-") as folder:
            return (await self.sandbox.effects(Path(folder) / "shell.layer")).changes


def agent_of(fleet: Fleet, asked: str | None) -> str:
    """Choose whose sandbox is meant: the one asked for, else the only agent with tools or a program.

    Raises:
        NotFound: there is no such agent. UsageProblem: several have tools, or its tools are not isolated.
    """
    if asked is not None and asked not in fleet.agents:
        raise NotFound(f"there is no agent `{asked}`; the fleet has {', '.join(f'`{name}`' for name in fleet.agents)}")
    able = [name for name, agent in fleet.agents.items() if agent.tools or agent.command]
    if asked is None and len(able) != 1:
        raise UsageProblem(f"say whose sandbox: `--agent {' | '.join(able or fleet.agents)}`")
    name = asked or able[0]
    if fleet.sandbox_of(name).backend == "process":
        raise UsageProblem(f"the tools of `{name}` act in no sandbox: its fleet says `process`")
    return name


@contextlib.contextmanager
def opened(fleet: Fleet, agent: str, *, home: Path, workspace: Path, environ: Mapping[str, str]) -> Iterator[Isolation]:
    """Choose the sandbox of one agent, without a way out and without secrets; closed with the block.

    Raises:
        InvalidFleet: this machine cannot hold it, or it would show the home.
    """
    problems = not_apart(fleet, home=home, workspace=workspace, environ=environ)
    if problems:
        raise InvalidFleet(problems)
    own = replace(fleet.sandbox_of(agent), egress=(), secrets=())
    nobody: Callable[[str], bool] = lambda _text: False  # noqa: E731 - nothing is asked of the network
    lone = replace(
        fleet, agents={agent: replace(fleet.agents[agent], sandbox=own)}, sandbox=SandboxSpec(backend="process")
    )
    registry = Registry.of_fleet(fleet)
    with isolation(
        lone, registry, home=home, env=environ, clock=wiring.clock, make=wiring.backend_of, known=nobody
    ) as chosen:
        yield chosen


@contextlib.asynccontextmanager
async def inside(
    chosen: Isolation, agent: str, *, run: str, workspace: Path, staged: Sequence[Staged]
) -> AsyncIterator[Shell]:
    """Open the sandbox, with what a run has done so far in it; closed with the block, and all that was changed with it.

    Raises:
        SandboxError: it cannot be as its profile says.
    """
    staging = Staging(chosen, run, workspace, list(staged))
    try:
        yield Shell(await staging.sandbox(agent), chosen.level(agent))
    finally:
        await staging.close()
