"""Breakers: closed, open, half open: what a call's beginning and its end do to the breaker of its tool, its route, its agent.

In:   a row, what happened, the time. Out: the next row, and whether a call may begin.
May import: config's specs, store's rows. Must not know: where rows are kept, what a call is, who is paused.

    closed --errors, slow calls, a loop--> open --cool-down is over, one call--> half open --it went well--> closed
                                             ^------------ it did not; twice the cool-down ------------|

While it is open only the probe's end counts: calls that had begun before say nothing about whether it is well again.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

from midwatch.config.specs_breakers import BreakerSpec
from midwatch.store.breakers import BreakerRow

__all__ = ["Admission", "admit", "ended", "opened"]

_MOST_TRIPS: Final = 7
_CALM: Final = 10
"""Cool-downs that a breaker must stay closed for, until it opens for the short time again."""


@dataclass(frozen=True, slots=True)
class Admission:
    """Whether a call may begin.

    Attributes:
        row: as it is from now on. wait_us: until it is worth asking again; 0 where the call may begin.
    """

    row: BreakerRow
    wait_us: int = 0
    allowed: bool = True


def admit(row: BreakerRow, *, probe: str, run: str, held: bool, now: int) -> Admission:
    """Let a call begin, or not.

    Args:
        probe: reservation of the call, which becomes the probe where the cool-down is over. run: its run.
        held: the row's present probe is still under way, in a process that lives.
    """
    if row.state == "closed":
        return Admission(row)
    if now < row.until_us:  # also for a clock that went back: early is never
        return Admission(row, row.until_us - now, allowed=False)
    if row.state == "half_open" and held and row.probe != probe:
        return Admission(row, 1_000_000, allowed=False)
    return Admission(replace(row, state="half_open", probe=probe, probe_run=run, changed_us=now))


def ended(row: BreakerRow, spec: BreakerSpec, *, call: str, ok: bool, took_us: int, why: str, now: int) -> BreakerRow:
    """Count how a call ended.

    Args:
        call: its reservation. why: what went wrong, in a word.
    """
    slow = bool(spec.slow_call_us) and took_us > spec.slow_call_us
    if row.state == "half_open" and row.probe == call:
        if ok and not slow:
            return replace(row, state="closed", errors=0, slow=0, probe="", probe_run="", changed_us=now)
        return opened(row, spec, f"the probe {'was slow' if ok else f'failed: {why}'}", now)
    if row.state != "closed":
        return row
    row = replace(row, errors=0 if ok else row.errors + 1, slow=row.slow + 1 if slow else 0)
    if spec.consecutive_errors and row.errors >= spec.consecutive_errors:
        return opened(
            row,
            spec,
            f"{row.errors} calls in a row failed, the limit is {spec.consecutive_errors}; the last: {why}",
            now,
        )
    if spec.slow_calls and row.slow >= spec.slow_calls:
        return opened(
            row,
            spec,
            f"{row.slow} calls in a row took more than {spec.slow_call_us / 1e6:g} s; the last {took_us / 1e6:.1f} s",
            now,
        )
    return row


def opened(row: BreakerRow, spec: BreakerSpec, reason: str, now: int) -> BreakerRow:
    """Open a breaker: each time that it opens again soon, for twice as long."""
    calm = row.state == "closed" and now - row.changed_us > _CALM * spec.cooldown_us
    trips = 1 if calm or not row.trips else min(row.trips + 1, _MOST_TRIPS)
    until = now + (spec.cooldown_us << (trips - 1))
    return replace(
        row, state="open", trips=trips, changed_us=now, until_us=until, probe="", probe_run="", reason=reason[:500]
    )
