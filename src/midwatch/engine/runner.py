"""Runner: one segment of one run, from taking the lease to the row that says how it stopped.

In:   a run row, what wiring chose. Out: `RunResult`.
May import: everything right of engine. Must not know: which adapters stand behind the ports.

    take lease → settle what a dead worker left → graph until end, interrupt or halt → write the row, release the lease

Beside the graph runs one watcher: it renews the lease, reads the sticky halt a few times a second, and cancels the graph when
either says so. What was in flight then is UNKNOWN or repeated as the journal decides.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import anyio
import orjson
from langchain_core.runnables import RunnableConfig
from langgraph.errors import GraphDrained, GraphRecursionError
from langgraph.graph.state import CompiledStateGraph
from langgraph.types import Command, Interrupt, StateSnapshot
from langsmith import tracing_context

from midwatch.config.specs import TeamSpec
from midwatch.engine import books, rebinding, releasing, stopping
from midwatch.engine.context import Halted, Segment
from midwatch.engine.foreign import Hosted, host, is_ours
from midwatch.engine.issuing import issue_root
from midwatch.engine.nodes import Nodes
from midwatch.engine.program import program_of
from midwatch.engine.timing import Meter, deadline
from midwatch.errors import (
    BoundReached,
    Denied,
    FenceLost,
    MidwatchError,
    NotGuaranteed,
    RunHalted,
    SandboxError,
    UsageProblem,
)
from midwatch.governor import scopes
from midwatch.graph.states import TeamSaver
from midwatch.graph.team import build
from midwatch.records.decision import Halt
from midwatch.records.event import EventDraft, EventKind
from midwatch.records.run import RunResult, RunRow, RunStatus
from midwatch.store.port import Tx

__all__ = ["LEASE_US", "deadline", "run_segment"]

LEASE_US: Final = 15_000_000
"""A worker that does not renew for this long has lost the run."""
POLL_US: Final = 200_000
RENEW_EVERY: Final = 15
"""Polls between two renewals: a fifth of the lease."""
METER_EVERY: Final = 5
RECURSION_LIMIT: Final = 2_000

_EVENTS: Final[Mapping[RunStatus, EventKind]] = {
    "done": "run.finished",
    "waiting": "run.waiting",
    "paused": "run.paused",
    "failed": "run.failed",
    "denied": "run.failed",
    "cancelled": "run.halted",
    "interrupted": "run.paused",
}


@dataclass(frozen=True, slots=True)
class _Stop:
    """How a segment ended."""

    status: RunStatus
    output: Any = None
    code: str | None = None
    message: str | None = None
    detail: str | None = None
    gates: tuple[str, ...] = ()
    in_doubt: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Course:
    """The graph of one segment; `hosted` where it is somebody else's."""

    graph: CompiledStateGraph[Any, Any, Any, Any]
    hosted: Hosted | None = None

    def entry(self, request: Any) -> Any:
        """Give what the graph begins with."""
        return {"request": request} if self.hosted is None else request

    async def settle(self) -> None:
        """Wait for what the graph left unfinished."""
        if self.hosted is not None:
            await self.hosted.governed.settle()

    async def abort(self) -> None:
        """Cut what the graph left unfinished."""
        if self.hosted is not None:
            await self.hosted.governed.abort()


async def run_segment(segment: Segment, row: RunRow, request: Any, *, lifts: Halt | None = None) -> RunResult:
    """Run until the end, an interrupt or a halt, and write down how it stopped.

    Args:
        segment: its `epoch` holds the lease.
        request: the run's input, used when no checkpoint exists yet.
        lifts: the mark that whoever goes on with the run has seen; a pause that came after it holds.
    """
    seg = segment
    began = seg.clock()
    with tracing_context(enabled=False):  # a variable of the environment would send the graph's state to a service
        return await _run(seg, row, request, began, lifts)


async def _run(seg: Segment, row: RunRow, request: Any, began: int, lifts: Halt | None) -> RunResult:
    try:
        course = _course(seg)
    except MidwatchError:
        seg.store.write(lambda tx: tx.fences.release(seg.run, epoch=seg.epoch))
        raise
    _begin(seg, row, began, lifts)
    seg.meter = Meter(seg, row, began)
    seg.meter.tick(began)
    stop = _Stop("interrupted", code="interrupted", message="the process was stopped; `midwatch resume` goes on")
    try:
        stop = await _guarded(seg, course, request)
    finally:
        with anyio.CancelScope(shield=True):
            try:
                await seg.staging.close()
            except SandboxError as error:
                stop = _Stop("failed", code="sandboxerror", message=str(error))
            stop = await _released(seg, stop)
        result = _end(seg, stop, began)
    return result


async def _released(seg: Segment, stop: _Stop) -> _Stop:
    """Let what a finished run did leave its sandboxes, or drop it, as its fleet says; else it stays staged.

    One agent's changes may rest on another's, so they go one way together: where their words differ, a person decides.
    """
    words = {seg.staging.isolation.spec(item.agent).commit for item in seg.staging.staged if item.leaves}
    if stop.status != "done" or len(words) != 1 or words == {"ask"}:
        return stop
    order = releasing.Order(seg.run, seg.staging.workspace, seg.staging.folder, seg.epoch, None, seg.clock())
    try:
        if words == {"discard"}:
            releasing.discard(seg.store, order)
            return stop
        released = await releasing.commit(seg.store, seg.fleet, seg.registry, order, seg.staging.isolation.send)
    except Denied as refused:
        return replace(stop, status="denied", code="denied", message=str(refused))
    except MidwatchError as error:
        return replace(stop, status="failed", code=type(error).__name__.lower(), message=str(error))
    if released.gate is None:
        return stop
    message = "what the run did waits for a person, before it leaves its sandboxes"
    return _Stop("waiting", code="waiting", message=message, gates=(released.gate,))


def _course(seg: Segment) -> _Course:
    """Make the graph of this segment.

    Raises:
        NotGuaranteed, InvalidFleet: there is none that this version can run.
    """
    if isinstance(seg.fleet.graph, TeamSpec):
        saver = TeamSaver(seg.store, run=seg.run, epoch=seg.epoch, stamp=seg.stamp)
        return _Course(build(seg.fleet.graph, Nodes(seg), saver))
    if seg.foreign is None:
        raise NotGuaranteed("the imported graph was not loaded; open the fleet with `midwatch.open`")
    hosted = host(seg, seg.foreign)
    return _Course(hosted.graph, hosted)


def _begin(seg: Segment, row: RunRow, now: int, lifts: Halt | None) -> None:
    """Charge what a dead worker left open, set the caps, and say that the run is up."""
    program = program_of(seg)

    def work(tx: Tx) -> None:
        tx.fences.check(seg.run, seg.epoch)
        books.close(tx, seg.run, at_us=now)
        scopes.set_caps(tx.budgets, seg.fleet, run=seg.run, at_us=now)
        mark = tx.runs.halt(seg.run)
        if mark is not None and mark.kind == "pause" and mark == lifts and row.segment > 0:
            # a person resumes; nobody resumes what was killed, or was paused since that person spoke
            tx.runs.clear_halt(seg.run)
        tx.runs.update(
            seg.run,
            status="running",
            segment=row.segment + 1,
            started_us=row.started_us or now,
            ended_us=None,
            error_code=None,
            error_message=None,
        )
        kind: EventKind = "run.started" if row.segment == 0 else "run.resumed"
        data = {"segment": row.segment + 1, "epoch": seg.epoch, "program_blob": tx.blobs.put(program)}
        tx.ledger.append(EventDraft(kind, seg.run, now, data))

    seg.store.write(work, durable=True)


async def _guarded(seg: Segment, course: _Course, request: Any) -> _Stop:
    """Run the graph beside its watcher and turn every way to stop into one value."""
    async with _watched(seg) as tasks:
        try:
            task = asyncio.ensure_future(_asked(seg, course, request))
            tasks.append(task)
            return await task
        except Halted as halted:
            return _halted(seg, halted.error)
        except asyncio.CancelledError:
            if seg.halt is None:
                raise
            return _halted(seg, seg.halt)
        except GraphRecursionError:
            return _Stop("paused", code="bound_reached", message=f"the graph took more than {RECURSION_LIMIT:,} steps")
        except Exception as error:  # noqa: BLE001 - the boundary of a run: recorded in full, reported as failed
            return _raised(seg, error)
        finally:
            await course.abort()


def _raised(seg: Segment, error: Exception) -> _Stop:
    """Say how the graph stopped that raised; a sticky halt explains whatever came after it."""
    if seg.halt is not None or isinstance(error, MidwatchError):
        return _halted(seg, seg.halt or error)  # type: ignore[arg-type]
    if isinstance(error, GraphDrained):
        return _Stop("paused", code="drained", message=f"a node asked the run to stop: {error}")
    kind = type(error).__name__
    return _Stop("failed", code="internal", message=f"a node failed with {kind}; see the trace", detail=repr(error))


async def _asked(seg: Segment, course: _Course, request: Any) -> _Stop:
    """Read out of the request what it allows, before the graph lets anything else in; then run it."""
    seg.store.read(
        lambda tx: stopping.at_work(tx, seg.fleet, seg.run)
    )  # a mark that a worker before this one never read
    if seg.meter is not None:
        seg.meter.open()
    await issue_root(seg, request)
    return await _drive(seg, course, request)


async def _drive(seg: Segment, course: _Course, request: Any) -> _Stop:
    """Take the graph from where it stands to where it stops. Always goes on with `None`, never by `next`."""
    graph = course.graph
    config: RunnableConfig = {"configurable": {"thread_id": seg.run}, "recursion_limit": RECURSION_LIMIT}
    state = await graph.aget_state(config)
    rebinding.same_stamp(seg, (state.metadata or {}).get("midwatch"))
    _only_ours(seg, state.interrupts)
    entry: Any = None
    if not state.config.get("configurable", {}).get("checkpoint_id"):
        entry = course.entry(request)
    elif state.interrupts:
        entry = Command(resume={item.id: True for item in state.interrupts})
    try:
        stream = graph.astream(entry, config, durability="sync", stream_mode="updates", control=seg.control)
        async for _ in stream:
            seg.check()
    except Exception:  # what was cut from outside is aborted instead
        await course.settle()
        raise
    await course.settle()
    seg.check()
    return _stopped(seg, course, await graph.aget_state(config))


def _stopped(seg: Segment, course: _Course, state: StateSnapshot) -> _Stop:
    """Say how the graph stopped, from its newest state."""
    if state.interrupts:
        _only_ours(seg, state.interrupts)
        values = [item.value for item in state.interrupts]
        gates = {gate for value in values for gate in value["gates"]}
        doubt = {effect for value in values for effect in value["in_doubt"]}
        if course.hosted is not None:
            gates |= course.hosted.gates()
            doubt |= course.hosted.in_doubt()
        said = "an effect is in doubt" if doubt else "an action waits for a person"
        return _Stop("waiting", code="waiting", message=said, gates=tuple(sorted(gates)), in_doubt=tuple(sorted(doubt)))
    if course.hosted is not None and state.next:
        message = f"the graph stopped at a breakpoint before `{state.next[0]}`, which nobody can answer; take it away"
        return _Stop("failed", code="breakpoint", message=message)
    if course.hosted is not None:
        return _Stop("done", output=course.hosted.result(state.values))
    result = state.values.get("result")
    if result is None:
        return _Stop("failed", code="no_result", message="the graph ended without a result")
    return _Stop("done", output=result)


def _only_ours(seg: Segment, interrupts: Sequence[Interrupt]) -> None:
    """Stop the run at an interrupt that no gate belongs to: nobody could answer it, and a wake-up would pass for a yes.

    Raises:
        Halted: with `UsageProblem`.
    """
    if not seg.store.read(lambda tx: all(is_ours(tx, seg.run, item.value) for item in interrupts)):
        raise seg.stop(
            UsageProblem(
                "a node calls `interrupt` itself, which no person's answer is bound to; ask by a tool that has a gate, "
                "or by `gates.request_human`"
            )
        )


@contextlib.asynccontextmanager
async def _watched(seg: Segment) -> AsyncIterator[list[asyncio.Future[Any]]]:
    tasks: list[asyncio.Future[Any]] = []
    watcher = asyncio.create_task(_watch(seg, tasks))
    try:
        yield tasks
    finally:
        watcher.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await watcher


async def _watch(seg: Segment, tasks: list[asyncio.Future[Any]]) -> None:
    """Poll the sticky halt, renew the lease, mind the clock; any of them failing stops the graph."""
    polls = 0
    while True:
        await seg.pause(POLL_US)
        polls += 1
        now = seg.clock()
        try:
            seg.store.read(lambda tx: stopping.at_work(tx, seg.fleet, seg.run))
            if seg.meter is not None and polls % METER_EVERY == 0:
                seg.meter.tick(now)
            late = None if seg.meter is None else seg.meter.late(now)
            if late is not None:
                seg.stop(late)
            if polls % RENEW_EVERY == 0:
                seg.store.write(lambda tx: tx.fences.renew(seg.run, epoch=seg.epoch, at_us=now, ttl_us=LEASE_US))  # noqa: B023 - called at once
        except MidwatchError as error:
            seg.stop(error)
        if seg.halt is not None:
            for task in tasks:
                task.cancel()
            return


def _halted(seg: Segment, error: MidwatchError) -> _Stop:
    if isinstance(error, BoundReached):
        return _Stop("paused", code="bound_reached", message=str(error))
    if isinstance(error, RunHalted):
        halt = error.halt if isinstance(error, stopping.Stopped) else seg.store.read(lambda tx: tx.runs.halt(seg.run))
        status: RunStatus = "cancelled" if halt is not None and halt.kind in ("cancel", "kill") else "paused"
        return _Stop(status, code="halted", message=str(error))
    if isinstance(error, FenceLost):
        raise error
    return _Stop("failed", code=type(error).__name__, message=str(error))


def _end(seg: Segment, stop: _Stop, began: int) -> RunResult:
    now = seg.clock()
    if seg.meter is not None:
        seg.meter.tick(now, last=True)

    def work(tx: Tx) -> tuple[RunRow, str]:
        tx.fences.check(seg.run, seg.epoch)
        output = None if stop.output is None else tx.blobs.put(orjson.dumps(stop.output))
        detail = None if stop.detail is None else tx.blobs.put(seg.scrub.text(stop.detail)[0].encode())
        data = {
            "status": stop.status,
            "code": stop.code,
            "message": stop.message,
            "output_blob": output,
            "detail_blob": detail,
            "gates": list(stop.gates),
            "in_doubt": list(stop.in_doubt),
            **_untold(seg),
        }
        tx.runs.add_spend(seg.run, {"working": now - began})
        books.close(tx, seg.run, at_us=now)
        tx.ledger.append(EventDraft(_EVENTS[stop.status], seg.run, now, data))
        head = tx.ledger.head()[1]
        changes = {"status": stop.status, "ended_us": now, "error_code": stop.code, "error_message": stop.message}
        tx.runs.update(seg.run, **changes, head=head, output=output)
        tx.fences.release(seg.run, epoch=seg.epoch)
        row = tx.runs.get(seg.run)
        if row is None:
            raise FenceLost("the row of this run is gone")
        return row, head

    row, head = seg.store.write(work, durable=True)
    result = result_of(row, head, stop.output)
    return replace(result, gates=stop.gates, in_doubt=stop.in_doubt)


def _untold(seg: Segment) -> dict[str, Any]:
    """Give what previews and the like asked of the network since their agent's last call, which no other event has."""
    asked = {agent: [item.to_json() for item in requests] for agent, requests in seg.staging.untold.items() if requests}
    return {"looked": asked} if asked else {}


def result_of(row: RunRow, head: str, output: Any) -> RunResult:
    """Make the result of a run from its row."""
    return RunResult(
        run=row.id,
        status=row.status,
        output=output,
        error_code=row.error_code,
        error_message=row.error_message,
        cost=row.cost,
        tokens=row.tokens,
        tool_calls=row.tool_calls,
        steps=row.steps,
        head=head,
    )
