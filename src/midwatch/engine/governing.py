"""Governing: stage 4 of the pipeline: is there room for this call on every scope, and does the governor live?

In:   a passage that may happen. Out: a provisional hold; a refusal for the agent; a halt of the run.
May import: passage, record; governor, store (port). Must not know: what a call does, who said yes to it.
Source: DESIGN.md, section 4.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from midwatch.engine import stopping
from midwatch.engine.bounding import Bounds
from midwatch.engine.breaking import Breaking, Broken
from midwatch.engine.pacing import pace
from midwatch.errors import BoundReached, MidwatchError, RunHalted
from midwatch.governor import scopes
from midwatch.governor.watch import HEARTBEAT, living

if TYPE_CHECKING:
    from midwatch.engine.context import Segment
    from midwatch.engine.passage import Answered, Passage
    from midwatch.engine.record import Record

__all__ = ["Governing"]


class Governing:
    """The bounds of one segment."""

    def __init__(self, segment: Segment, record: Record) -> None:
        self._seg = segment
        self._record = record
        self.bounds = Bounds(segment)
        self.breaking = Breaking(segment)

    async def reserve(self, p: Passage) -> Answered | None:
        """Carry out stage 4.

        Raises:
            Halted: a bound of the run, or of what it belongs to, is reached; or the governor gives no sign of life.
        """
        seg = self._seg
        await pace(seg, p.actor.agent)
        self.alive(seg.clock())
        try:
            seg.store.read(lambda tx: stopping.hold(tx, seg.fleet, seg.run, agent=p.actor.agent, tool=p.name))
        except MidwatchError as error:
            raise seg.stop(error) from error
        try:
            await self.bounds.claim(p.actor, p.reservation, lambda _: {"tool_calls": 1})
        except BoundReached as error:
            p.mark("governor", "stop", scope=error.scope, unit=error.unit)
            answer = self._record.refuse(
                p, "bound_reached", f"the {error.unit} bound is reached", hint="finish with what you have"
            )
            if not scopes.is_agent_scope(error.scope):
                raise seg.stop(error) from error
            return answer
        try:
            self.breaking.admit(p.actor, "tool", p.name, p.reservation)
        except Broken as broken:
            self._record.release(p)
            p.mark("governor", "deny", breaker=broken.row.subject, why=broken.row.reason)
            hint = f"do without it, or try again in {max(1, broken.wait_us // 1_000_000)} s"
            return self._record.refuse(
                p, "unavailable", f"`{p.name}` keeps failing, so it is not called for now", hint=hint
            )
        p.mark("governor", "pass", reservation=p.reservation)
        return None

    def alive(self, now: int) -> None:
        """Stop the run when it is past its time or when the governor outside it gives no sign of life.

        Raises:
            Halted: with `BoundReached` for time, `RunHalted` for a stale governor.
        """
        seg = self._seg
        late = None if seg.meter is None else seg.meter.late(now)
        if late is not None:
            raise seg.stop(late)
        if not seg.governed:
            return
        beats = seg.store.read(lambda tx: tx.watch.beats(HEARTBEAT))
        if not living(beats, now=now, stale_after_us=seg.fleet.governor.stale_after_us):
            raise seg.stop(
                RunHalted("the governor gives no sign of life, so no effect may begin; `midwatch resume` starts one")
            )
