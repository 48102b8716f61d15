"""Kernel: what a program holds: runs a fleet, takes a stopped run up again.

In:   a fleet and the parts that wiring chose. Out: `RunResult`; a stopped run is a result, not an exception.
May import: everything right of engine. Must not know: which adapters stand behind the ports, the command line.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anyio
import orjson

from midwatch.config.fleet import Fleet
from midwatch.config.guarantees import not_guaranteed
from midwatch.config.specs import ImportSpec
from midwatch.engine import rebinding, releasing, stopping, undo
from midwatch.engine.authority import Standing, record, withheld_of
from midwatch.engine.context import RouteRuntime, Scrub, Segment
from midwatch.engine.delivery import keep_channels
from midwatch.engine.editing import Edit, edit
from midwatch.engine.helping import Place
from midwatch.engine.identity import local, require
from midwatch.engine.releasing import Released
from midwatch.engine.runner import LEASE_US, result_of, run_segment
from midwatch.engine.staging import Isolation, Staging, staged_of
from midwatch.engine.undo import Undone
from midwatch.engine.vouching import vouch
from midwatch.errors import Divergence, MidwatchError, NotFound, NotGuaranteed, RunHalted, UsageProblem
from midwatch.gates.review import Speaker, unmanned
from midwatch.governor import budgets
from midwatch.graph import foreign, states, team
from midwatch.graph.govern import Kit, NotRunning
from midwatch.records.decision import Halt
from midwatch.records.event import EventDraft
from midwatch.records.gate import GateRow
from midwatch.records.label import Label
from midwatch.records.run import RunResult, RunRow, new_run_id
from midwatch.store.port import Store, Tx
from midwatch.tools.perform import PerformContext
from midwatch.tools.registry import Registry

__all__ = ["Kernel", "Parts"]


@dataclass(frozen=True, slots=True)
class Parts:
    """What wiring chose for one fleet.

    Attributes:
        govern: makes sure that a governor lives outside this process, or raises; None only where the caller watches itself (tests).
        pause: awaits a number of microseconds.
        speaker: who starts runs, and speaks where nobody else is named.
        standings: how the fleet's own authority stands, judged again where a run begins; tools last.
        words: per agent, whose words its specification is, where that is not the operator alone.
    """

    store: Store
    fleet: Fleet
    registry: Registry
    routes: Mapping[str, RouteRuntime]
    scrub: Scrub
    isolation: Isolation
    clock: Callable[[], int]
    pause: Callable[[int], Awaitable[None]]
    workdir: Path
    govern: Callable[[], None] | None = None
    start_info: str = ""
    speaker: Speaker = field(default_factory=lambda: local("python", "python"))
    standings: tuple[Standing, ...] = ()
    words: Mapping[str, Label] = field(default_factory=dict)


class Kernel:
    """Runs one fleet in one home. Made by `midwatch.open`, closed with it."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._foreign: foreign.Foreign | None = None
        if isinstance(parts.fleet.graph, ImportSpec):
            self._foreign = foreign.load(parts.fleet, Kit(parts.fleet, parts.registry, NotRunning()))

    @property
    def store(self) -> Store:
        """The home's store, for queries."""
        return self._parts.store

    @property
    def fleet(self) -> Fleet:
        """The fleet as it was loaded."""
        return self._parts.fleet

    @property
    def start_info(self) -> str:
        """Which model is used and why, in plain words."""
        return self._parts.start_info

    def run(self, request: Any) -> RunResult:
        """Run to the end or to a stop; see `arun`. Not for use inside a running event loop: await `arun` there."""
        return asyncio.run(self.arun(request))

    def resume(self, run: str, *, accept: bool = False, reason: str = "", lift: bool = True) -> RunResult:
        """Take a stopped run up again; see `aresume`."""
        return asyncio.run(self.aresume(run, accept=accept, reason=reason, lift=lift))

    def edit(
        self, gate: str, arguments: Mapping[str, Any], *, speaker: Speaker | None = None, reason: str = ""
    ) -> GateRow:
        """Put other arguments in the place of those that wait for a yes; see `engine.editing.edit`. Not in a running loop."""
        row = self._parts.store.read(lambda tx: tx.gates.get(gate))
        run, agent = ("", "") if row is None else (row.run, row.agent)
        wanted = Edit(gate, arguments, speaker or self._parts.speaker, reason)

        async def work() -> GateRow:
            staging = self._staging(run)
            try:
                place = self._place(staging, agent, gate)
                return await edit(self._parts.store, self._parts.fleet, place, wanted, at_us=self._parts.clock())
            finally:
                await staging.close()

        return asyncio.run(work())

    def plan_undo(self, run: str) -> list[Undone]:
        """Say what `undo` would do, newest effect first; nothing is changed. Raises `NotFound`."""
        staging = self._staging(run)
        return undo.plan(self._parts.store, run, self._place(staging, "", ""), staging.isolation)

    def undo(self, run: str, *, speaker: Speaker | None = None) -> list[Undone]:
        """Take back what a run did, as far as its tools say how; see `engine.undo`. Not in a running loop.

        Raises:
            NotFound: no such run. RunHeld: a live process works on it. Denied: it takes an operator.
        """
        parts = self._parts
        self.plan_undo(run)
        epoch = self._take(run)
        try:
            return list(asyncio.run(self._undo(run, epoch, speaker or parts.speaker)))
        finally:
            parts.store.write(lambda tx: tx.fences.release(run, epoch=epoch))

    def commit(
        self,
        run: str,
        *,
        only: Sequence[str] = (),
        speaker: Speaker | None = None,
        reason: str = "",
        workspace: Path | None = None,
    ) -> Released:
        """Bring what a run did in its sandboxes into its workspace; see `engine.releasing`. Not in a running loop.

        Args:
            only: globs of paths; empty: all, and the requests that were kept.
            workspace: another folder than the one that the run was started in; it must hold what the run found.

        Raises:
            NotFound: no such run. RunHeld: a live process works on it. Denied: it takes an operator, or people said no.
            Conflict: the workspace is not as the run found it; nothing was written.
        """
        parts = self._parts

        async def work() -> Released:
            with self._ordered(run, speaker, only, reason, workspace) as order:
                return await releasing.commit(parts.store, parts.fleet, parts.registry, order, parts.isolation.send)

        return asyncio.run(work())

    def discard(
        self,
        run: str,
        *,
        only: Sequence[str] = (),
        speaker: Speaker | None = None,
        reason: str = "",
        workspace: Path | None = None,
    ) -> int:
        """Drop what a run did in its sandboxes and nobody has committed; gives how many changes. As `commit`."""
        with self._ordered(run, speaker, only, reason, workspace) as order:
            return releasing.discard(self._parts.store, order)

    @contextlib.contextmanager
    def _ordered(
        self, run: str, speaker: Speaker | None, only: Sequence[str], reason: str, workspace: Path | None
    ) -> Iterator[releasing.Order]:
        """Hold a run while what it did is released."""
        parts = self._parts
        if parts.store.read(lambda tx: tx.runs.get(run)) is None:
            raise NotFound(f"no run `{run}` in this home; `midwatch runs ls` lists them")
        epoch = self._take(run)
        try:
            yield releasing.Order(
                run,
                self._workspace(run) if workspace is None else workspace,
                parts.isolation.layers / run,
                epoch,
                speaker or parts.speaker,
                parts.clock(),
                tuple(only),
                reason,
            )
        finally:
            parts.store.write(lambda tx: tx.fences.release(run, epoch=epoch))

    def _workspace(self, run: str) -> Path:
        """Give the workspace that a run was started in, whatever this process's own is."""
        events = self._parts.store.read(lambda tx: tx.ledger.read(run=run, kinds=("run.created",), limit=1))
        told = events[0].data.get("workdir") if events else None  # a run of an older home does not say
        return self._parts.workdir if told is None else Path(told)

    async def _undo(self, run: str, epoch: int, speaker: Speaker) -> Sequence[Undone]:
        parts, staging = self._parts, self._staging(run)
        try:
            place = self._place(staging, "", "")
            return await undo.undo(parts.store, run, place, staging, epoch=epoch, speaker=speaker, at_us=parts.clock())
        finally:
            await staging.close()

    async def arun(self, request: Any) -> RunResult:
        """Start a run on `request`, a JSON value.

        Raises:
            NotGuaranteed: the fleet asks for what this version does not enforce; nothing was started.
            UsageProblem: `request` is not JSON, or does not fit an imported graph.
            StoreError: the home cannot be used; nothing was started.
        """
        self._refuse_unkept()
        require(self._parts.speaker, "operator", "start a run")
        try:
            body = orjson.dumps(request, option=orjson.OPT_SORT_KEYS)
        except TypeError as error:
            raise UsageProblem("the input of a run must be a JSON value") from error
        self._parts.store.read(lambda tx: stopping.new_run(tx, self._parts.fleet))
        if self._foreign is not None:
            self._foreign.accept(orjson.loads(body))
        return await self._segment(self._create(body))

    async def aresume(self, run: str, *, accept: bool = False, reason: str = "", lift: bool = True) -> RunResult:
        """Go on with a run that waits, is paused or was cut; a finished one is given back as it is.

        Args:
            accept: a person lets the run go on under another fleet, policy or graph than it began with. reason: why.
            lift: a pause that stands ends by this; without, the run stays paused.

        Raises:
            NotFound: no such run. RunHeld: another process runs it. Divergence: fleet, policy or graph have changed.
        """
        require(self._parts.speaker, "operator", "go on with a run")
        row, mark = self._parts.store.read(lambda tx: (tx.runs.get(run), tx.runs.halt(run)))
        if row is None:
            raise NotFound(f"no run `{run}` in this home; `midwatch runs ls` lists them")
        self._refuse_unkept()
        if row.status == "done":
            return result_of(row, row.head or "", self._body(row.output))
        if row.status == "cancelled":
            raise RunHalted(f"run `{run[:7]}` was cancelled for good; start a new one with `midwatch run`")
        self._parts.store.read(lambda tx: states.refuse_newer(tx, run))
        fleet = self._parts.fleet
        self._parts.store.read(lambda tx: stopping.new_run(tx, fleet))
        mine = rebinding.stamp(fleet, self._graph_digest())
        if {"fleet": row.fleet_digest, "graph": row.graph_digest, "policy": row.policy_digest} != mine:
            if not accept:
                raise Divergence(
                    f"run `{run[:7]}` was started under another version of the fleet; put that version back, "
                    f"or let it go on with `midwatch resume {run[:7]} --under-new --reason WHY`"
                )
            parts = self._parts
            row = rebinding.rebind(parts.store, row, mine, speaker=parts.speaker, reason=reason, at_us=parts.clock())
        self._parts.store.write(lambda tx: self._counts(tx, self._parts.clock()), durable=True)
        return await self._segment(row, lifts=mark if lift else None)

    def _counts(self, tx: Tx, now: int) -> tuple[int, ...]:
        """Let the fleet's own authority count as it was judged; gives the events by which it does."""
        return tuple(sorted({seq for made in self._parts.standings for seq in record(tx, made, at_us=now)}))

    def _graph_digest(self) -> str:
        return team.digest(self._parts.fleet) if self._foreign is None else self._foreign.digest

    def _refuse_unkept(self) -> None:
        problems = not_guaranteed(self._parts.fleet)
        problems += self._parts.store.read(lambda tx: unmanned(self._parts.fleet, tx.principals.list()))
        if problems:
            raise NotGuaranteed(problems)

    def _create(self, body: bytes) -> RunRow:
        parts, fleet, now = self._parts, self._parts.fleet, self._parts.clock()
        clean, _ = parts.scrub.value(orjson.loads(body))
        run = new_run_id()

        def work(tx: Tx) -> RunRow:
            row = RunRow(
                id=run,
                fleet=fleet.name,
                fleet_path=None if fleet.path is None else str(fleet.path),
                fleet_digest=fleet.digest,
                fleet_blob=tx.blobs.put(fleet.text.encode()),
                graph_digest=self._graph_digest(),
                policy_digest=fleet.policy_digest,
                preset=fleet.preset,
                status="created",
                created_us=now,
                input=tx.blobs.put(orjson.dumps(clean)),
                asked_by=parts.speaker.name,
            )
            tx.runs.create(row)
            vouch(tx, fleet, parts.speaker)
            causes = self._counts(tx, now)
            keep_channels(tx, fleet)
            data = {
                "fleet": fleet.name,
                "fleet_digest": fleet.digest,
                "policy_digest": fleet.policy_digest,
                "graph_digest": row.graph_digest,
                "input_blob": row.input,
                "fleet_text_blob": row.fleet_blob,
                "workdir": str(parts.workdir),
                "sandboxes": {name: parts.isolation.level(name) for name in sorted(fleet.agents)},
                "isolates": all(parts.isolation.backend(name) is not None for name in fleet.agents),
            }
            tx.ledger.append(EventDraft("run.created", run, now, data, causes=causes))
            return row

        return parts.store.write(work, durable=True)

    async def _segment(self, row: RunRow, lifts: Halt | None = None) -> RunResult:
        parts = self._parts
        around = parts.store.read(budgets.around)
        epoch = self._take(row.id)
        if parts.govern is not None:
            try:
                parts.govern()
            except MidwatchError:
                parts.store.write(lambda tx: tx.fences.release(row.id, epoch=epoch))
                raise
        segment = Segment(
            store=parts.store,
            fleet=parts.fleet,
            registry=parts.registry,
            routes=parts.routes,
            scrub=parts.scrub,
            staging=self._staging(row.id),
            clock=parts.clock,
            pause=parts.pause,
            run=row.id,
            epoch=epoch,
            workdir=parts.workdir,
            governed=parts.govern is not None,
            around=around,
            stamp=rebinding.stamp(parts.fleet, self._graph_digest()),
            foreign=self._foreign,
            withheld=withheld_of(parts.standings) | parts.registry.pending,
            words=parts.words,
        )
        return await run_segment(segment, row, self._body(row.input), lifts=lifts)

    def _take(self, run: str) -> int:
        parts, owner = self._parts, f"{os.getpid()}:{secrets.token_hex(4)}"
        now = parts.clock()
        return parts.store.write(lambda tx: tx.fences.take(run, owner=owner, at_us=now, ttl_us=LEASE_US), durable=True)

    def _staging(self, run: str) -> Staging:
        isolation = self._parts.isolation
        staged = self._parts.store.read(lambda tx: staged_of(tx, run, isolation.layers / run))
        return Staging(isolation, run, self._workspace(run) if run else self._parts.workdir, staged)

    def _place(self, staging: Staging, agent: str, key: str) -> Place:
        parts = self._parts
        context = PerformContext(
            idempotency_key=key,
            run=staging.run,
            agent=agent,
            clock=parts.clock,
            workdir=parts.workdir,
            limiter=anyio.CapacityLimiter(4),
            limits=parts.isolation.spec(agent).limits,
        )
        return Place(parts.registry, staging.peek(agent), parts.scrub, context)

    def _body(self, digest: str | None) -> Any:
        if digest is None:
            return None
        body = self._parts.store.read(lambda tx: tx.blobs.get(digest))
        return None if body is None else orjson.loads(body)
