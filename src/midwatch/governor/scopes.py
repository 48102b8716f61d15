"""Scopes: the budget tree of one run as account names, outermost first.

In:   a fleet, a run, an agent, the time. Out: scope names and the caps that belong to them.
May import: config, records, store (port). Must not know: what a call costs, or who makes it.

    fleet:NAME@WINDOW > vertical:NAME@WINDOW > run:ID > agent:ID/NAME

A window is `2026-11-24` (day), `2026-11-24T13` (hour), `2026-11` (month) in UTC, or `all`. Every claim names a line per scope, so
that a cap anywhere on the path holds; the outermost scope that has no room is the one reported.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

from midwatch.config.fleet import Fleet
from midwatch.config.specs import Per
from midwatch.records.spend import Account, Line, Unit
from midwatch.store.port import Budgets

__all__ = ["is_agent_scope", "lines", "path", "room", "set_caps", "window"]


def window(per: Per | None, at_us: int) -> str:
    """Name the window that `at_us` lies in."""
    if per is None:
        return "all"
    moment = datetime.fromtimestamp(at_us // 1_000_000, UTC)
    return moment.strftime({"hour": "%Y-%m-%dT%H", "day": "%Y-%m-%d", "month": "%Y-%m"}[per])


def path(fleet: Fleet, *, run: str, agent: str, at_us: int) -> tuple[str, ...]:
    """Give the scopes that a call of this agent is charged to, outermost first."""
    scopes = [f"fleet:{fleet.name}@{_window_of(fleet, 'fleet', at_us)}"]
    vertical = fleet.vertical_of(agent)
    if vertical is not None:
        scopes.append(f"vertical:{fleet.name}/{vertical}@{_window_of(fleet, vertical, at_us)}")
    return (*scopes, f"run:{run}", f"agent:{run}/{agent}")


def set_caps(budgets: Budgets, fleet: Fleet, *, run: str, at_us: int) -> None:
    """Write the caps of the fleet file on every account that this run can touch; a changed file changes them here."""
    for agent, spec in fleet.agents.items():
        names = path(fleet, run=run, agent=agent, at_us=at_us)
        vertical = fleet.vertical_of(agent)
        keys = ["fleet", *([vertical] if vertical else []), "run", agent]
        for scope, key in zip(names, keys, strict=True):
            caps: dict[Unit, int] = dict(fleet.budgets[key].caps) if key in fleet.budgets else {}
            if key == agent:
                caps = _tighter(caps, spec.limits.amounts())
            for unit, cap in caps.items():
                budgets.set_cap(scope, unit, cap)


def lines(scopes: Sequence[str], amounts: Mapping[Unit, int]) -> tuple[Line, ...]:
    """Claim every amount on every scope, outermost first."""
    return tuple(Line(scope, unit, amount) for scope in scopes for unit, amount in amounts.items() if amount)


def room(accounts: Sequence[Account], unit: Unit) -> int | None:
    """Say how much of `unit` is left on the tightest of these accounts; None where nothing bounds it."""
    left = [
        account.cap - account.spent - account.held
        for account in accounts
        if account.unit == unit and account.cap is not None
    ]
    return max(0, min(left)) if left else None


def is_agent_scope(scope: str) -> bool:
    """Say whether a reached bound ends one agent's part only, and not the run."""
    return scope.startswith("agent:")


def _window_of(fleet: Fleet, key: str, at_us: int) -> str:
    budget = fleet.budgets.get(key)
    return window(budget.per if budget else None, at_us)


def _tighter(left: dict[Unit, int], right: Mapping[Unit, int]) -> dict[Unit, int]:
    return left | {unit: min(cap, left.get(unit, cap)) for unit, cap in right.items()}
