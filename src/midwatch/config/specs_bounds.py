"""Specs of bounds: what budgets, limits and the governor of a fleet file mean. Imported by way of `specs`.

In:   nothing. Out: frozen facts. May import: records. Must not know: YAML, accounts, how anything is counted.
Units: money in micro-dollars, time in microseconds; all whole numbers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from midwatch.config.specs_watch import WatchPolicy, WatchSpec
from midwatch.records.spend import Unit

__all__ = ["BudgetSpec", "GovernorSpec", "Limits", "Per", "Rung"]

Per = Literal["hour", "day", "month"]


@dataclass(frozen=True, slots=True)
class Limits:
    """What one agent may use within one run; None is no bound of its own (those around it still hold)."""

    steps: int | None = None
    tokens: int | None = None
    cost: int | None = None
    tool_calls: int | None = None
    wall: int | None = None
    working: int | None = field(default=None, metadata={"later": True})

    def amounts(self) -> dict[Unit, int]:
        """Give the bounds that are set, by unit."""
        named: dict[Unit, int | None] = {
            "cost": self.cost,
            "tokens": self.tokens,
            "tool_calls": self.tool_calls,
            "steps": self.steps,
            "wall": self.wall,
            "working": self.working,
        }
        return {unit: amount for unit, amount in named.items() if amount is not None}


@dataclass(frozen=True, slots=True)
class Rung:
    """One rung of a ladder: what becomes cheaper once a scope has used so much of its fullest cap.

    Attributes:
        at: thousandths of a cap. route: alias that models are asked by.
        context: thousandths of the conversation that is still sent. specialists: how many a plan may send out.
    """

    at: int
    route: str | None = None
    context: int | None = None
    specialists: int | None = None


@dataclass(frozen=True, slots=True)
class BudgetSpec:
    """The caps of one scope.

    Attributes:
        scope: `fleet`, `run`, a vertical, an agent, or `node:NAME`.
        caps: by unit, each >= 0; never empty.
        per: window after which the caps begin anew; None: never (for `run`, agents and nodes, a run).
        degrade: rungs in the order of `at`. shadow: count and record, do not stop.
    """

    scope: str
    caps: Mapping[Unit, int]
    per: Per | None = None
    degrade: tuple[Rung, ...] = field(default=(), metadata={"was": None})
    shadow: bool = False


@dataclass(frozen=True, slots=True)
class GovernorSpec:
    """The watch outside the runs. After `stale_after_us` without its heartbeat no effect begins.

    Attributes:
        period_us: between two passes. warm_up_us: how long an agent is only learned from.
        policies: those for which the file says something else than `specs_watch.default_policies`.
    """

    mode: Literal["child", "daemon", "cron"] = "child"
    stale_after_us: int = 30_000_000
    period_us: int = field(default=1_000_000, metadata={"later": True})
    warm_up_us: int = field(default=259_200_000_000, metadata={"later": True})
    policies: Mapping[WatchPolicy, WatchSpec] = field(default_factory=dict, metadata={"later": True})
