"""Following: goes on with every run whose gates were answered, as soon as they are.

In:   a store, a way to the kernel of a run, when to stop. Out: results, one a resumed run.
May import: records, store (port), errors. Must not know: how kernels are made, who answers.
Why a poll: answers come from other processes, and a row is all they leave. One poll is one indexed read of a few microseconds,
whatever the number of runs that wait; a run that waits costs nothing else.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final, Protocol

from midwatch.engine import answering
from midwatch.errors import MidwatchError
from midwatch.records.run import RunResult, RunRow
from midwatch.store.port import Store

__all__ = ["POLL_US", "Resumer", "follow", "ready"]

POLL_US: Final = 25_000
_AT_ONCE: Final = 4
_OVERLAP_US: Final = 2_000_000
"""How far back each poll looks, since another process's answer is stamped before it is committed."""


class Resumer(Protocol):
    """Goes on with one run; a run that cannot is told by the error that is raised."""

    async def __call__(self, row: RunRow, /) -> RunResult:
        """Resume."""
        ...


def ready(store: Store, *, since_us: int, at_us: int) -> list[RunRow]:
    """Give the runs that wait and can go on, without those that were stopped; gates that nobody answered in time are closed first.

    Args:
        since_us: answers before this are not looked at; 0 for all.
    """
    if store.read(lambda tx: tx.gates.overdue(at_us)):
        store.write(lambda tx: answering.expire(tx, at_us))
    found = store.read(lambda tx: [tx.runs.get(run) for run in tx.gates.ready(since_us) if tx.runs.halt(run) is None])
    return [row for row in found if row is not None]


async def follow(
    store: Store,
    resume: Resumer,
    *,
    clock: Callable[[], int],
    pause: Callable[[int], Awaitable[None]],
    stopped: Callable[[], bool],
    told: Callable[[RunRow, RunResult | MidwatchError], None],
) -> None:
    """Go on with runs until `stopped()`; at most four at once.

    Args:
        told: called with every outcome; a run that cannot go on is not tried again before another answer.
    """
    since, busy, seen = 0, set[str](), dict[str, int]()
    tasks: set[asyncio.Task[None]] = set()

    async def one(row: RunRow) -> None:
        try:
            told(row, await resume(row))
        except MidwatchError as error:
            told(row, error)
        finally:
            busy.discard(row.id)

    while not stopped():
        now = clock()
        for row in ready(store, since_us=since, at_us=now):
            if row.id in busy or len(busy) >= _AT_ONCE or seen.get(row.id) == row.ended_us:
                continue
            busy.add(row.id)
            seen[row.id] = row.ended_us or 0
            task = asyncio.ensure_future(one(row))
            tasks.add(task)
            task.add_done_callback(tasks.discard)
        if not busy:
            since = max(0, now - _OVERLAP_US)
        await pause(POLL_US)
    if tasks:
        await asyncio.gather(*tasks)
