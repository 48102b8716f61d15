"""Perform: one call of a tool, to its outcome and no further; nothing it does is raised at the caller.

In:   a tool, checked arguments, what the tool may know of its run, a sandbox.
Out:  `Performed`: a value, or an error in words for the agent, with a detail for the trace.
May import: `arguments`, `binding`, `decorate`, `outcome`, the sandbox's port, config's limits, records.
Must not know: guards, the journal, envelopes; which sandbox it is.
Why a thread that overran keeps its place in the limiter: it may still act. A pool that forgot it would grow for ever.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import functools
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import anyio

from midwatch.config.specs import SandboxLimits
from midwatch.records.envelope import ErrorBody
from midwatch.sandbox.port import Tools
from midwatch.tools.arguments import Checked
from midwatch.tools.binding import BadArguments, ToolContext, facts_of
from midwatch.tools.decorate import Tool
from midwatch.tools.outcome import BadOutput, Outcome, from_exception, from_wire

__all__ = ["PerformContext", "Performed", "may_still_act", "perform"]

_UNCLEAR: Final = ("timeout", "crashed")
"""Codes that say that nobody saw the end of it. An author's own `timeout` says the same of what the tool had asked."""
_THREAD: Final = "midwatch-tool"

_ENVELOPE_ROOM: Final = 65_536
"""What an answer of a worker may hold beside the value: error and detail."""


@dataclass(frozen=True, slots=True)
class PerformContext:
    """What the engine gives along with a call.

    Attributes:
        idempotency_key: the effect's id. clock: microseconds UTC.
        workdir: absolute; the sandbox's working directory, and what file tools see.
        limiter: bounds the threads of synchronous broker tools.
        limits: bounds of a sandboxed call's processes.
    """

    idempotency_key: str
    run: str
    agent: str
    clock: Callable[[], int]
    workdir: Path
    limiter: anyio.CapacityLimiter
    limits: SandboxLimits = field(default_factory=SandboxLimits)

    def for_tool(self) -> ToolContext:
        """Give the part of it that a tool may see."""
        return ToolContext(self.idempotency_key, self.run, self.agent, self.clock, self.workdir)


@dataclass(frozen=True, slots=True)
class Performed:
    """What came of a call.

    Attributes:
        value: plain JSON data; counts only when `error` is None.
        error: in words for the agent.
        detail: for the trace only; may quote anything.
        may_continue: the tool's thread outlived its time and may still act; only its end would settle what it did.
        began: the tool's code was reached; False where its time went by in the queue before it.
    """

    value: Any
    error: ErrorBody | None
    detail: str | None
    duration_us: int
    may_continue: bool = False
    began: bool = True

    @property
    def unclear(self) -> bool:
        """Whether nobody can say what the call did: it was cut, or its process ended, after it had begun."""
        return self.may_continue or (self.began and self.error is not None and self.error.code in _UNCLEAR)


async def perform(tool: Tool[..., Any], checked: Checked, *, context: PerformContext, sandbox: Tools) -> Performed:
    """Perform one call, within the tool's own time.

    Returns:
        Whatever the tool raised is a value here. Only cancellation and what ends the process (KeyboardInterrupt,
        SystemExit) pass through.
    """
    started = context.clock()
    course = _Course(context.idempotency_key)
    if tool.contract.runs == "sandbox":
        outcome = await _in_sandbox(tool, checked, context, sandbox, course)
    else:
        outcome = await _in_broker(tool, checked, context, course)
    spent = max(0, context.clock() - started)
    return Performed(outcome.value, outcome.error, outcome.detail, spent, course.overran, course.began)


def may_still_act(idempotency_key: str) -> bool:
    """Say whether a thread of this process still performs the call with this key, after its time was over."""
    return any(thread.name == f"{_THREAD}:{idempotency_key}" for thread in threading.enumerate())


@dataclass(slots=True)
class _Course:
    """What became of the tool's code in one call: whether it began, and whether its thread outlived its time."""

    key: str
    began: bool = False
    overran: bool = False


async def _in_sandbox(
    tool: Tool[..., Any], checked: Checked, context: PerformContext, sandbox: Tools, course: _Course
) -> Outcome:
    contract = tool.contract
    if tool.ref is None:
        return Outcome.failed(
            "internal", f"`{contract.name}` is a closure; a sandbox can import top-level functions only"
        )
    result = await sandbox.call(
        tool.ref,
        checked.canonical.decode(),
        facts=facts_of(context.for_tool()),
        limits=context.limits,
        workdir=context.workdir,
        timeout_us=contract.timeout_us,
        max_bytes=contract.body_limit + _ENVELOPE_ROOM,
    )
    course.began = result.began
    output = f"\n[output of the tool]\n{result.output}" if result.output else ""
    if result.status == "answered":
        try:
            outcome = from_wire(result.answer)
        except BadOutput as garbage:
            return Outcome.failed("contract", f"{garbage}{output}")
        return Outcome(outcome.value, outcome.error, f"{outcome.detail or ''}{output}" or None)
    code = {"timeout": "timeout", "crashed": "crashed"}.get(result.status, "contract")
    return Outcome.failed(code, f"{result.detail}{output}")  # type: ignore[arg-type]  # three of the closed codes


async def _in_broker(tool: Tool[..., Any], checked: Checked, context: PerformContext, course: _Course) -> Outcome:
    try:
        values = tool.binding.bind(checked.canonical, context.for_tool())
    except BadArguments as refused:
        return Outcome(error=refused.error())
    outcome = Outcome.failed("timeout", "the time-out of the contract passed")
    with anyio.move_on_after(tool.contract.timeout_us / 1_000_000):
        try:
            if tool.is_async:
                course.began = True
                value = await tool.fn(**values)
            else:
                value = await _in_thread(functools.partial(tool.fn, **values), context.limiter, course)
            outcome = Outcome(value=tool.binding.plain(value))
        except Exception as raised:  # noqa: BLE001  the boundary to foreign code: whatever it raises becomes a value
            outcome = from_exception(raised)
    return outcome


async def _in_thread(call: Callable[[], Any], limiter: anyio.CapacityLimiter, course: _Course) -> Any:
    """Run `call` in a thread of its own; its place in the limiter is given back when it really ends.

    The thread is a daemon: a tool that never returns must not keep the process from ending. anyio's own worker threads
    would, and give their place back at the time-out.
    """
    place = object()
    await limiter.acquire_on_behalf_of(place)
    loop = asyncio.get_running_loop()
    ended: asyncio.Future[tuple[Any, BaseException | None]] = loop.create_future()

    def finish(value: Any, raised: BaseException | None) -> None:
        limiter.release_on_behalf_of(place)
        if not ended.done():
            ended.set_result((value, raised))

    def work() -> None:
        value, raised = None, None
        try:
            value = call()
        except BaseException as problem:  # noqa: BLE001  raised again below, in the thread that waits
            raised = problem
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
            loop.call_soon_threadsafe(finish, value, raised)

    name = f"{_THREAD}:{course.key}"
    course.began = True
    threading.Thread(target=contextvars.copy_context().run, args=(work,), name=name, daemon=True).start()
    try:
        value, raised = await ended
    except asyncio.CancelledError:
        course.overran = True
        raise
    if raised is not None:
        raise raised
    return value
