"""Specs of breakers: when calls of a tool, a route, an agent are stopped by themselves, and for how long.

In:   nothing. Out: frozen facts, the defaults. May import: nothing. Must not know: YAML, events, how anything is counted.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

__all__ = ["BreakerSpec", "BreakersSpec"]


@dataclass(frozen=True, slots=True)
class BreakerSpec:
    """When a breaker opens; 0 turns a rule off.

    Attributes:
        consecutive_errors: calls in a row that failed. slow_call_us, slow_calls: so many in a row took longer than that.
        cooldown_us: until one call tries again; twice as long each time that it fails. refusals: after so many of a run, it pauses.
        cycle: how often the same few calls with the same results repeat. no_progress: calls in a row that brought nothing new.
    """

    consecutive_errors: int = 3
    slow_call_us: int = 0
    slow_calls: int = 3
    cooldown_us: int = 60_000_000
    refusals: int = 5
    cycle: int = 5
    no_progress: int = 20
    ping_pong: int = 8


@dataclass(frozen=True, slots=True)
class BreakersSpec:
    """Breakers of a fleet: what holds for all, and for single subjects (`tool:NAME`, `route:ALIAS`, `agent:NAME`)."""

    on: bool = True
    usual: BreakerSpec = field(default_factory=BreakerSpec)
    own: Mapping[str, BreakerSpec] = field(default_factory=dict)

    def of(self, kind: str, name: str) -> BreakerSpec:
        """Give what holds for one subject."""
        return self.own.get(f"{kind}:{name}", self.usual)
