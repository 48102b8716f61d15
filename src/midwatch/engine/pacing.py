"""Pacing: a call of an agent that the governor slows waits for its turn, before anything is reserved for it.

In:   whose call. Out: its turn has come.
May import: context; store (port). Must not know: who set the rate, and why.
Why in the store: the turns of an agent are a gap apart over all its runs, processes and machines.
"""

from __future__ import annotations

from midwatch.engine.context import Segment

__all__ = ["pace"]

_LOOK_US = 500_000
"""The longest wait without a look at whether the run was stopped or the rate has ended."""


async def pace(seg: Segment, agent: str) -> None:
    """Wait until this agent may begin a call.

    Raises:
        Halted: the run was stopped meanwhile, or the store cannot be used.
    """
    subject = f"{seg.fleet.name}/{agent}"
    while any(item.subject == subject for item in seg.store.read(lambda tx: tx.baselines.throttles(seg.clock()))):
        wait = seg.write(lambda tx: tx.baselines.take_turn(subject, seg.clock()))
        if wait <= 0:
            return
        await seg.pause(min(wait, _LOOK_US))
        seg.check()
