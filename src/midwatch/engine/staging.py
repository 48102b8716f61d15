"""Staging: the sandboxes of one run's agents, and what was done in them, call by call.

In:   a run, its ledger, backends and profiles that wiring chose. Out: for each call of a tool the place it acts in, and the layer
      of what it did there, to be recorded with its result.
May import: staged, the sandbox's port and types, config, errors. Must not know: contracts, guards, LangGraph.

    turn(agent) → call … → layer (or none: the call's changes are dropped) → keep (in the transaction's wake)

One workspace a run: an agent's sandbox holds what all finished calls of the run before it did. Two agents at once see each other's
changes from their next call on; of two calls that met at one path, the second is refused and leaves nothing.
A call that gave no answer leaves nothing, too: its sandbox is closed, and the next call begins where the last finished one ended.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from midwatch.config.specs import SandboxLimits, SandboxSpec
from midwatch.engine.finishing import to_the_end
from midwatch.engine.staged import Observed, Staged, observed, staged_of, unsent
from midwatch.errors import Conflict, LayerLost, SandboxError
from midwatch.sandbox import layers as layering
from midwatch.sandbox.effects import CHANGING, Request
from midwatch.sandbox.layers import Layer
from midwatch.sandbox.port import Backend, Egress, RunResult, Sandbox, SandboxResult, Stats, Tools
from midwatch.sandbox.profile import INSIDE, SandboxProfile, merged

if TYPE_CHECKING:
    from midwatch.sandbox.egress import Api, Bars

__all__ = ["Isolation", "Observed", "Peek", "Staged", "Staging", "Turn", "is_confined", "observed", "staged_of"]

_READS: Final = ("GET", "HEAD", "OPTIONS")
_OUT: Final = ("sent", "failed")
_WHOLE: Final = 16
"""How often a run may fill the room of one sandbox, over all its calls."""
_HELD_US: Final = 100_000
_BESIDE: Final = "!"
"""After an agent's name: the sandbox of a program, beside the one of its tools. No agent's name holds it."""


async def _awhile(microseconds: int) -> None:
    await asyncio.sleep(microseconds / 1_000_000)


@dataclass(frozen=True, slots=True)
class Isolation:
    """Where the tools of each agent act, as wiring chose it.

    Attributes:
        plain: what performs the calls of agents whose fleet isolates nothing.
        backends: by their word. specs: by agent; whoever is not in it has `default`. profile: what a spec means for a workspace.
        egress: the way out that a spec gives, with what answers calls to the kernel; None where there is neither.
        layers: folder below the home, for what runs did.
        send: sends a request of an agent that had been kept, now that it is committed.
        imports: where a Python that an agent's program starts finds this installation's packages, as `PYTHONPATH` has it.
        living: told of every sandbox that begins and ends, so that an operator can see them. held: whether one holds it, by its name.
        pause: awaits a number of microseconds.
    """

    plain: Tools
    backends: Mapping[str, Backend]
    specs: Mapping[str, SandboxSpec]
    profile: Callable[[SandboxSpec, Path], SandboxProfile]
    egress: Callable[[SandboxSpec, Api | None, Bars | None], Egress | None]
    layers: Path
    send: Callable[[str, Request, bytes], Awaitable[Request]]
    default: SandboxSpec = field(default_factory=SandboxSpec)
    imports: Callable[[str], str] = lambda _agent: ""
    living: Callable[[str, str, Sandbox, bool], None] = lambda _run, _agent, _sandbox, _begins: None
    held: Callable[[str], bool] = lambda _name: False
    pause: Callable[[int], Awaitable[None]] = _awhile

    def spec(self, agent: str) -> SandboxSpec:
        """Give what holds for an agent."""
        return self.specs.get(agent, self.default)

    def backend(self, agent: str) -> Backend | None:
        """Give what isolates an agent; None: nothing does, as its fleet says in words."""
        word = self.spec(agent).backend or "bubblewrap"
        return None if word == "process" else self.backends[word]

    def level(self, agent: str) -> str:
        """Give one word for the ledger."""
        backend = self.backend(agent)
        return self.plain.level if backend is None else backend.level

    def confined(self, agent: str) -> bool:
        """Say whether nothing that an agent's tools do inside can act outside before it is committed."""
        return self.backend(agent) is not None and is_confined(self.spec(agent))


def is_confined(spec: SandboxSpec) -> bool:
    """Say whether a spec lets out nothing but reads and what is staged."""
    return all(rule.stage or (rule.methods and set(rule.methods) <= set(_READS)) for rule in spec.egress)


@dataclass(slots=True)
class _Cell:
    """An agent's sandbox, and how many of the run's layers it holds."""

    sandbox: Sandbox
    holds: int


@dataclass(slots=True)
class Staging:
    """The sandboxes of one run in one process, and the run's layers so far. Made and closed on one event loop.

    Attributes:
        untold: by agent, what calls that only looked asked of the network, and no record has yet.
        bars: says why a request may not leave now; None: nothing bars any. Set before the first sandbox begins.
    """

    isolation: Isolation
    run: str
    workspace: Path
    staged: list[Staged] = field(default_factory=list)
    untold: dict[str, tuple[Request, ...]] = field(default_factory=dict)
    bars: Callable[[Request], str | None] | None = None
    _cells: dict[str, _Cell] = field(default_factory=dict)
    _locks: dict[str, asyncio.Lock] = field(default_factory=dict)

    @property
    def folder(self) -> Path:
        """Where the run's layers lie."""
        return self.isolation.layers / self.run

    @contextlib.asynccontextmanager
    async def turn(self, agent: str, key: str, *, api: Api | None = None) -> AsyncIterator[Turn]:
        """Take an agent's sandbox for one call, until its effects are recorded.

        Args:
            key: names the layer's file.
            api: answers what the call asks of the kernel while it runs. Such a call has a sandbox of its own, beside the one that the
                agent's tools act in meanwhile, and that sandbox ends with it.
        """
        place = agent if api is None else f"{agent}{_BESIDE}"
        async with self._locks.setdefault(place, asyncio.Lock()):
            turn = Turn(self, agent, key, place, api)
            try:
                yield turn
            finally:
                if turn.loose or api is not None:  # what was done was not recorded: it did not happen
                    await self.drop(place)
                if turn.file is not None and not turn.kept:
                    turn.file.unlink(missing_ok=True)

    def peek(self, agent: str) -> Peek:
        """Give what performs calls that only look: what they change is dropped."""
        return Peek(self, agent)

    def cell(self, place: str) -> _Cell:
        """Give the sandbox that a turn has begun in.

        Raises:
            SandboxError: there is none any more.
        """
        cell = self._cells.get(place)
        if cell is None:
            raise SandboxError(f"the sandbox of `{place.removesuffix(_BESIDE)}` has ended")
        return cell

    def observes(self, place: str) -> bool:
        """Say whether the sandbox that a turn has begun in tells all that is read there; where there is none, nothing does."""
        cell = self._cells.get(place)
        return cell is not None and getattr(cell.sandbox, "observes", False) is True

    async def sandbox(self, agent: str, *, place: str = "", api: Api | None = None) -> Sandbox:
        """Give the agent's sandbox, with all that the run has done so far in it.

        Args:
            place, api: as a turn has them.

        Raises:
            SandboxError: there can be none as its profile says.
        """
        place = place or agent
        cell = self._cells.get(place)
        if cell is not None:
            others = any(_changes(item.layer) for item in self.staged[cell.holds :])
            if not others:
                cell.holds = len(self.staged)
                return cell.sandbox
            await self.drop(place)
        isolation, spec = self.isolation, self.isolation.spec(agent)
        backend = isolation.backend(agent)
        if backend is None:
            raise SandboxError(f"agent `{agent}` has no sandbox that could be started")
        held = len(self.staged)
        sandbox = await backend.start(
            isolation.profile(spec, self.workspace),
            [item.layer for item in self.staged],
            egress=isolation.egress(spec, api, self.bars),
        )
        self._cells[place] = _Cell(sandbox, held)
        isolation.living(self.run, agent, sandbox, True)
        return sandbox

    def kept(self, place: str, item: Staged) -> None:
        """Add a layer that the ledger has."""
        cell = self._cells.get(place)
        behind = cell is not None and cell.holds == len(self.staged)
        self.staged.append(item)
        if cell is not None and behind:
            cell.holds = len(self.staged)

    def met(self, place: str, layer: Layer) -> list[str]:
        """Give the paths of `layer` that calls in other sandboxes changed since this one was brought up to date."""
        cell = self._cells.get(place)
        since = [] if cell is None else [item.layer for item in self.staged[cell.holds :] if item.agent != place]
        return layering.conflicts(layer, since)

    def bounded(self, agent: str, new: Path) -> None:
        """Bound what the run's layers take of the disk that everybody's records lie on.

        Raises:
            SandboxError: they are larger together than a sandbox's workspace, many times.
        """
        files = [new, *(item.layer.file for item in self.staged if item.layer.file is not None)]
        size = sum(file.stat().st_size for file in files if file.exists())
        most = _WHOLE * (merged(self.isolation.spec(agent).limits).disk or 0)
        if size > most:
            raise SandboxError(
                f"what the run's calls changed takes more than {most:,} bytes together; commit or discard some of it first"
            )

    async def drop(self, place: str) -> None:
        """Close an agent's sandbox; what no layer holds is gone."""
        cell = self._cells.pop(place, None)
        if cell is not None:
            self.isolation.living(self.run, place.removesuffix(_BESIDE), cell.sandbox, False)
            await to_the_end(cell.sandbox.close())

    async def stats(self) -> dict[str, Stats]:
        """Give the kernel's counters of each agent's sandbox."""
        return {place: await cell.sandbox.stats() for place, cell in self._cells.items()}

    async def let(self, sandbox: Sandbox) -> None:
        """Wait as long as an operator holds a sandbox: no call begins in it meanwhile."""
        while self.isolation.held(sandbox.name):
            await self.isolation.pause(_HELD_US)

    async def close(self) -> None:
        """Close every sandbox of the run, whatever becomes of one of them.

        Raises:
            SandboxError: one of them cannot be taken away.
        """
        failed: list[Exception] = []
        for place in list(self._cells):
            try:
                await self.drop(place)
            except (SandboxError, OSError) as error:
                failed.append(error)
        if failed:
            raise SandboxError(f"a sandbox could not be taken away: {failed[0]}") from failed[0]


def _changes(layer: Layer) -> bool:
    return any(change.op in CHANGING for change in layer.changes)


@dataclass(slots=True)
class Turn:
    """One call's time in its agent's sandbox. It is `Tools`, for whoever performs the call.

    Attributes:
        place: which of its agent's sandboxes. api: as the turn was given.
        loose: something may have been done that no record has. The sandbox is then dropped at the turn's end.
        answered: the call gave an answer that counts.
        asked: it asked for something on the network that a repetition would ask for again; also where that cannot be told.
        left: after `gather` raised: what is on record all the same, which is what was asked of the network.
        file: of the layer. kept: the run has it.
    """

    staging: Staging
    agent: str
    key: str
    place: str
    api: Api | None = None
    loose: bool = False
    answered: bool = False
    asked: bool = False
    left: Observed | None = None
    file: Path | None = None
    kept: bool = False
    _told: bool = False

    @property
    def level(self) -> str:
        """One word for the ledger."""
        return self.staging.isolation.level(self.agent)

    @property
    def isolates(self) -> bool:
        """Whether a hostile tool is kept from the rest of the machine."""
        return self.staging.isolation.backend(self.agent) is not None

    @property
    def observes(self) -> bool:
        """Whether its layer tells all that the call read."""
        return self.staging.observes(self.place)

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
        """As `Tools.call`. A sandbox that cannot be is a call that did not begin.

        Raises:
            LayerLost: the run's earlier changes cannot be had.
        """
        tools: Tools = self.staging.isolation.plain
        if self.isolates:
            try:
                tools = sandbox = await self.staging.sandbox(self.agent, place=self.place, api=self.api)
            except LayerLost:  # no call may begin as if what the run did had never been
                raise
            except SandboxError as refused:
                return SandboxResult("crashed", detail=str(refused), began=False)
            await self.staging.let(sandbox)
            self.loose = True
        result = await tools.call(
            ref,
            arguments,
            facts=facts,
            limits=limits,
            workdir=workdir,
            timeout_us=timeout_us,
            max_bytes=max_bytes,
        )
        self.answered = result.status == "answered"
        return result

    async def run(
        self, argv: Sequence[str], *, stdin: bytes, env: Mapping[str, str], timeout_us: int, max_bytes: int
    ) -> RunResult:
        """Run one program to its end. Whether it answered is the caller's to judge, and to say in `answered`."""
        if not self.isolates:
            return RunResult("crashed", detail=f"agent `{self.agent}` has no sandbox that a program could run in")
        try:
            sandbox = await self.staging.sandbox(self.agent, place=self.place, api=self.api)
        except LayerLost:
            raise
        except SandboxError as refused:
            return RunResult("crashed", detail=str(refused))
        await self.staging.let(sandbox)
        self.loose = True
        bounds = SandboxLimits()  # of the whole sandbox, in its profile
        return await sandbox.run(
            argv,
            limits=bounds,
            workdir=Path(INSIDE),
            timeout_us=timeout_us,
            max_bytes=max_bytes,
            stdin=stdin,
            env=env,
        )

    async def gather(self) -> Observed | None:
        """Read what the call did. Of a call that gave no answer nothing counts but what it asked of the network.

        Raises:
            Conflict: another agent's call changed the same path meanwhile. Nothing counts.
            SandboxError: it cannot be told what was done. Nothing counts.
        """
        if not self.loose:
            return None
        staging = self.staging
        self.asked = not staging.isolation.confined(self.agent)  # until it is told
        self._told = False
        cell = staging.cell(self.place)
        staging.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.file = staging.folder / f"{self.key}.layer"
        try:
            layer = await cell.sandbox.effects(self.file)
        except SandboxError:  # what left is on record, or a call would hide it by what it does to the files
            self._leave((*staging.untold.pop(self.place, ()), *getattr(cell.sandbox, "untold", ())))
            raise
        asked = (*staging.untold.pop(self.place, ()), *layer.requests)
        self.asked = any(request.method not in _READS and request.outcome in _OUT for request in asked)
        if not self.answered:
            return observed(Layer((), unsent(asked)))
        self._leave(asked)
        staging.bounded(self.agent, self.file)
        met = staging.met(self.place, layer)
        if met:
            raise Conflict(f"another agent changed {', '.join(f'`{path}`' for path in met[:5])} meanwhile")
        self._told = True
        return observed(replace(layer, requests=asked))

    def _leave(self, asked: Sequence[Request]) -> None:
        self.left = observed(Layer((), unsent(asked)))

    async def counted(self) -> dict[str, Any]:
        """Give what the machine counted of the sandbox so far, for the ledger; empty where nothing isolates or counts."""
        if not self.loose:
            return {}
        try:
            stats = asdict(await self.staging.cell(self.place).sandbox.stats())
        except (SandboxError, OSError):  # it has ended, and its counters with it
            return {}
        known = {name: value for name, value in stats.items() if value is not None and name != "frozen"}
        return {"usage": known} if known else {}

    def keep(self, seq: int, effect: str, tool: str, seen: Observed | None) -> None:
        """Let the run's workspace have what the call did; its record is durable with the call's result."""
        self.loose = self.loose and not (self.answered and self._told)
        if seen is not None:
            self.kept = seen.layer.file is not None
            self.staging.kept(self.place, Staged(seq, effect, self.agent, tool, seen.layer))


@dataclass(frozen=True, slots=True)
class Peek:
    """Performs calls of tools that only look, such as previews; it is `Tools`."""

    staging: Staging
    agent: str

    @property
    def level(self) -> str:
        """One word for the ledger."""
        return self.staging.isolation.level(self.agent)

    @property
    def isolates(self) -> bool:
        """Whether a hostile tool is kept from the rest of the machine."""
        return self.staging.isolation.backend(self.agent) is not None

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
        """As `Tools.call`; what it asked of the network is recorded with the agent's next call."""
        async with self.staging.turn(self.agent, "peek") as turn:
            result = await turn.call(
                ref,
                arguments,
                facts=facts,
                limits=limits,
                workdir=workdir,
                timeout_us=timeout_us,
                max_bytes=max_bytes,
            )
            if turn.loose:
                staging = self.staging
                staging.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
                turn.file = staging.folder / "peek.layer"
                layer = await staging.cell(self.agent).sandbox.effects(turn.file)
                staging.untold[self.agent] = (*staging.untold.get(self.agent, ()), *unsent(layer.requests))
                turn.loose = not turn.answered or _changes(layer)
            return result
