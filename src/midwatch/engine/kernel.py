"""Kernel: what a program holds: runs a fleet, takes a stopped run up again.

In:   a fleet and the parts that wiring chose. Out: `RunResult`; a stopped run is a result, not an exception.
May import: everything right of engine. Must not know: which adapters stand behind the ports, the command line.
"""

from __future__ import annotations

import asyncio
import os
import secrets
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from midwatch.config.fleet import Fleet
from midwatch.config.guarantees import not_guaranteed
from midwatch.engine.context import RouteRuntime, Scrub, Segment
from midwatch.engine.runner import LEASE_US, deadline, result_of, run_segment
from midwatch.errors import Divergence, MidwatchError, NotFound, NotGuaranteed, RunHalted, UsageProblem
from midwatch.graph import team
from midwatch.records.event import EventDraft
from midwatch.records.run import RunResult, RunRow, new_run_id
from midwatch.sandbox.port import Sandbox
from midwatch.store.port import Store, Tx
from midwatch.tools.registry import Registry

__all__ = ["Kernel", "Parts"]


@dataclass(frozen=True, slots=True)
class Parts:
    """What wiring chose for one fleet.

    Attributes:
        govern: makes sure that a governor lives outside this process, or raises; None only where the caller watches itself (tests).
        pause: awaits a number of microseconds.
    """

    store: Store
    fleet: Fleet
    registry: Registry
    routes: Mapping[str, RouteRuntime]
    scrub: Scrub
    sandbox: Sandbox
    clock: Callable[[], int]
    pause: Callable[[int], Awaitable[None]]
    workdir: Path
    govern: Callable[[], None] | None = None
    start_info: str = ""


class Kernel:
    """Runs one fleet in one home. Made by `midwatch.open`, closed with it."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

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

    def resume(self, run: str) -> RunResult:
        """Take a stopped run up again; see `aresume`."""
        return asyncio.run(self.aresume(run))

    async def arun(self, request: Any) -> RunResult:
        """Start a run on `request`, a JSON value.

        Raises:
            NotGuaranteed: the fleet asks for what this version does not enforce; nothing was started.
            UsageProblem: `request` is not JSON.
            StoreError: the home cannot be used; nothing was started.
        """
        self._refuse_unkept()
        try:
            body = orjson.dumps(request, option=orjson.OPT_SORT_KEYS)
        except TypeError as error:
            raise UsageProblem("the input of a run must be a JSON value") from error
        return await self._segment(self._create(body))

    async def aresume(self, run: str) -> RunResult:
        """Go on with a run that waits, is paused or was cut; a finished one is given back as it is.

        Raises:
            NotFound: no such run. RunHeld: another process runs it. Divergence: fleet, policy or graph have changed.
        """
        self._refuse_unkept()
        row = self._parts.store.read(lambda tx: tx.runs.get(run))
        if row is None:
            raise NotFound(f"no run `{run}` in this home; `midwatch runs ls` lists them")
        if row.status == "done":
            return result_of(row, row.head or "", self._body(row.output))
        if row.status == "cancelled":
            raise RunHalted(f"run `{run[:7]}` was cancelled for good; start a new one with `midwatch run`")
        fleet = self._parts.fleet
        mine = (fleet.digest, fleet.policy_digest, team.digest(fleet))
        if (row.fleet_digest, row.policy_digest, row.graph_digest) != mine:
            raise Divergence(
                f"run `{run[:7]}` was started under another version of the fleet; put that version back, or start a new run"
            )
        return await self._segment(row)

    def _refuse_unkept(self) -> None:
        problems = not_guaranteed(self._parts.fleet)
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
                graph_digest=team.digest(fleet),
                policy_digest=fleet.policy_digest,
                preset=fleet.preset,
                status="created",
                created_us=now,
                input=tx.blobs.put(orjson.dumps(clean)),
            )
            tx.runs.create(row)
            data = {
                "fleet": fleet.name,
                "fleet_digest": fleet.digest,
                "policy_digest": fleet.policy_digest,
                "graph_digest": row.graph_digest,
                "input_blob": row.input,
                "fleet_text_blob": row.fleet_blob,
                "sandbox": parts.sandbox.level,
                "isolates": parts.sandbox.isolates,
            }
            tx.ledger.append(EventDraft("run.created", run, now, data))
            return row

        return parts.store.write(work, durable=True)

    async def _segment(self, row: RunRow) -> RunResult:
        parts = self._parts
        owner = f"{os.getpid()}:{secrets.token_hex(4)}"
        now = parts.clock()
        epoch = parts.store.write(
            lambda tx: tx.fences.take(row.id, owner=owner, at_us=now, ttl_us=LEASE_US), durable=True
        )
        if parts.govern is not None:
            try:
                parts.govern()
            except MidwatchError:
                parts.store.write(lambda tx: tx.fences.release(row.id, epoch=epoch))
                raise
        budget = parts.fleet.budgets.get("run")
        segment = Segment(
            store=parts.store,
            fleet=parts.fleet,
            registry=parts.registry,
            routes=parts.routes,
            scrub=parts.scrub,
            sandbox=parts.sandbox,
            clock=parts.clock,
            pause=parts.pause,
            run=row.id,
            epoch=epoch,
            workdir=parts.workdir,
            governed=parts.govern is not None,
            deadline_us=deadline(row, {} if budget is None else budget.caps, now=now),
        )
        return await run_segment(segment, row, self._body(row.input))

    def _body(self, digest: str | None) -> Any:
        if digest is None:
            return None
        body = self._parts.store.read(lambda tx: tx.blobs.get(digest))
        return None if body is None else orjson.loads(body)
