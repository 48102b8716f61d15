"""Performing in the broker: time, threads, and what passes through."""

import threading
from pathlib import Path
from typing import Any

import anyio
import pytest

from midwatch.sandbox.process import ProcessSandbox
from midwatch.tools.arguments import Checked, check
from midwatch.tools.decorate import Tool, tool
from midwatch.tools.perform import PerformContext, Performed, perform

GO = threading.Event()


@tool(effect="write", runs="broker", timeout="50ms")
def waits() -> int:
    """Wait until it is let go."""
    GO.wait(10)
    return 1


@tool(effect="write", runs="sandbox")
def acts() -> int:
    """Act in a worker."""
    return 1


@tool(effect="read", runs="broker")
def interrupts() -> int:
    """Raise what ends a process."""
    raise KeyboardInterrupt


@tool(effect="read", runs="broker")
def times_out() -> int:
    """Raise the system's time-out."""
    raise TimeoutError("while waiting for db-7.internal")


def context(limiter: anyio.CapacityLimiter) -> PerformContext:
    """Give a context whose clock stands."""
    return PerformContext("k", "r", "a", lambda: 5, Path("/"), limiter)


async def call(made: Tool[..., Any], limiter: anyio.CapacityLimiter) -> Performed:
    """Perform a call without arguments."""
    checked = check(made, "{}")
    assert isinstance(checked, Checked)
    return await perform(made, checked, context=context(limiter), sandbox=ProcessSandbox())


@pytest.mark.req("TOOLS-16")
def test_an_overrunning_thread_keeps_its_place() -> None:
    """After a time-out the thread still counts; the next call waits no longer than its own time; at the end it is given back."""

    async def body() -> None:
        GO.clear()
        limiter = anyio.CapacityLimiter(1)
        first = await call(waits, limiter)
        assert ("timeout", True, 1) == (first.error and first.error.code, first.may_continue, limiter.borrowed_tokens)
        second = await call(waits, limiter)
        assert ("timeout", False) == (second.error and second.error.code, second.may_continue)
        GO.set()
        with anyio.fail_after(5):
            while limiter.borrowed_tokens:
                await anyio.lowlevel.checkpoint()
        third = await call(waits, limiter)
        assert (1, None) == (third.value, third.error)

    anyio.run(body)


@pytest.mark.req("TOOLS-6")
def test_what_ends_the_process_passes_through() -> None:
    """An interrupt is not a tool's failure."""
    with pytest.raises(KeyboardInterrupt):
        anyio.run(call, interrupts, anyio.CapacityLimiter(1))


@pytest.mark.req("TOOLS-6")
def test_a_time_out_of_the_tools_own_is_a_time_out() -> None:
    """`TimeoutError` is told as `timeout`, without its text."""
    done = anyio.run(call, times_out, anyio.CapacityLimiter(1))
    assert done.error is not None
    assert ("timeout", False) == (done.error.code, "db-7" in done.error.message)
    assert "db-7" in (done.detail or "")


@pytest.mark.req("BAD-1")
def test_what_never_began_is_not_in_doubt(tmp_path: Path) -> None:
    """No thread was free, or no worker could be started: then nothing can have been done, and the answer is certain."""

    async def body() -> None:
        GO.clear()
        limiter = anyio.CapacityLimiter(1)
        overran = await call(waits, limiter)
        queued = await call(waits, limiter)
        GO.set()
        checked = check(acts, "{}")
        assert isinstance(checked, Checked)
        nowhere = ProcessSandbox(python=str(tmp_path / "none"))
        unstarted = await perform(acts, checked, context=context(limiter), sandbox=nowhere)
        assert ("timeout", True) == (overran.error and overran.error.code, overran.unclear)
        assert ("timeout", False) == (queued.error and queued.error.code, queued.unclear)
        assert ("crashed", False) == (unstarted.error and unstarted.error.code, unstarted.unclear)

    anyio.run(body)
