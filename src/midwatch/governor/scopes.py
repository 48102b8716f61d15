"""Scopes: the budget tree of one call as accounts, outermost first, and the caps that hold on each.

In:   a fleet, a run, an agent, a node, the time; what people said about caps. Out: scopes; caps in the store.
May import: config, records, store (port). Must not know: what a call costs, or who makes it.

    scope:ID > fleet:NAME@WINDOW > vertical:FLEET/NAME@WINDOW > agent:FLEET/NAME@WINDOW > run:ID > agent:RUN/NAME > node:RUN/NAME

`scope:` is a scope opened in Python around the run (`governor.budgets`); `agent:…@WINDOW` stands there where the fleet file gives the
agent a window, `node:` where it names the node. A window is `2026-11-24` (day), `2026-11-24T13` (hour), `2026-11` (month) in UTC, or
`all`. Every claim names a line per scope, so that a cap anywhere on the path holds; the outermost scope without room is reported.

Which cap holds: that of the fleet file, or what a person `set` in its place, for as long as the file says what it said then; and what
people added to this very scope, in this window, on top.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from midwatch.config.fleet import Fleet
from midwatch.config.specs import Per
from midwatch.records.spend import UNITS, Account, Line, Order, Unit
from midwatch.store.port import Budgets

__all__ = ["Scope", "base", "caps_of", "ensure", "is_agent_scope", "lines", "path", "room", "set_caps", "window"]


@dataclass(frozen=True, slots=True)
class Scope:
    """One account of the path.

    Attributes:
        name: of the account. key: of `budgets:` in the fleet file; empty where it is not from there.
        caps: of the fleet file. shadow: they stop nothing.
    """

    name: str
    key: str
    caps: Mapping[Unit, int]
    shadow: bool = False


def window(per: Per | None, at_us: int) -> str:
    """Name the window that `at_us` lies in."""
    if per is None:
        return "all"
    moment = datetime.fromtimestamp(at_us // 1_000_000, UTC)
    return moment.strftime({"hour": "%Y-%m-%dT%H", "day": "%Y-%m-%d", "month": "%Y-%m"}[per])


def path(
    fleet: Fleet, *, run: str, agent: str, at_us: int, node: str | None = None, around: Sequence[str] = ()
) -> tuple[Scope, ...]:
    """Give the scopes that a call of this agent is charged to, outermost first."""
    found = [Scope(name, "", {}) for name in around]
    found.append(_windowed(fleet, "fleet", f"fleet:{fleet.name}", at_us))
    vertical = fleet.vertical_of(agent)
    if vertical is not None:
        found.append(_windowed(fleet, vertical, f"vertical:{fleet.name}/{vertical}", at_us))
    own = fleet.budgets.get(agent)
    if own is not None and own.per is not None:
        found.append(_windowed(fleet, agent, f"agent:{fleet.name}/{agent}", at_us))
    found.append(_lasting(fleet, "run", f"run:{run}"))
    within = _lasting(fleet, agent, f"agent:{run}/{agent}")
    limits = fleet.agents[agent].limits.amounts() if agent in fleet.agents else {}  # what reads requests is no agent
    apart = (own is not None and own.per is not None) or (within.shadow and limits)  # limits are never in shadow
    caps = _tighter({} if apart else dict(within.caps), limits)
    found.append(replace(within, caps=caps, shadow=within.shadow and not apart))
    if node is not None and f"node:{node}" in fleet.budgets:
        found.append(_lasting(fleet, f"node:{node}", f"node:{run}/{node}"))
    return tuple(found)


def set_caps(budgets: Budgets, fleet: Fleet, *, run: str, at_us: int) -> None:
    """Write the caps of the fleet file on every account that this run can touch; a changed file changes them here."""
    nodes = [key.removeprefix("node:") for key in fleet.budgets if key.startswith("node:")]
    every = {
        scope.name: scope
        for agent in fleet.agents
        for node in (None, *nodes)
        for scope in path(fleet, run=run, agent=agent, at_us=at_us, node=node)
    }
    ensure(budgets, every.values())


def ensure(budgets: Budgets, scopes: Iterable[Scope]) -> None:
    """Write on each account the cap that holds: the file's, what a person set, what people added."""
    wanted = list(scopes)
    orders = budgets.orders(sorted({name for scope in wanted for name in (scope.name, base(scope.name))}))
    there = {(row.scope, row.unit): row.cap for row in budgets.accounts([scope.name for scope in wanted])}
    for scope in wanted:
        if not scope.key:
            continue
        caps = caps_of(budgets, scope, orders)
        for unit in UNITS:
            cap = caps.get(unit)
            if there.get((scope.name, unit)) != cap:
                budgets.set_cap(scope.name, unit, cap)


def caps_of(budgets: Budgets, scope: Scope, orders: Mapping[tuple[str, Unit], Order]) -> dict[Unit, int]:
    """Give the caps that hold on a scope; an order that a changed file has overruled is taken back for good."""
    found: dict[Unit, int] = {}
    for unit in UNITS:
        cap = scope.caps.get(unit)
        said = orders.get((base(scope.name), unit))
        if said is not None and said.cap is not None:
            if said.file == cap:
                cap = said.cap
            else:
                budgets.order(replace(said, file=None, cap=None))
        more = orders.get((scope.name, unit))
        if cap is not None:
            found[unit] = cap + (0 if more is None else more.added)
    return found


def base(name: str) -> str:
    """Name a scope without its window: what a person sets holds in every one."""
    return name.partition("@")[0]


def lines(scopes: Sequence[Scope], amounts: Mapping[Unit, int]) -> tuple[Line, ...]:
    """Claim every amount on every scope, outermost first."""
    return tuple(
        Line(scope.name, unit, amount, scope.shadow) for scope in scopes for unit, amount in amounts.items() if amount
    )


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
    return scope.startswith(("agent:", "node:"))


def _windowed(fleet: Fleet, key: str, name: str, at_us: int) -> Scope:
    budget = fleet.budgets.get(key)
    per = budget.per if budget else None
    return _lasting(fleet, key, f"{name}@{window(per, at_us)}")


def _lasting(fleet: Fleet, key: str, name: str) -> Scope:
    budget = fleet.budgets.get(key)
    return Scope(name, key, {}) if budget is None else Scope(name, key, budget.caps, budget.shadow)


def _tighter(left: dict[Unit, int], right: Mapping[Unit, int]) -> dict[Unit, int]:
    return left | {unit: min(cap, left.get(unit, cap)) for unit, cap in right.items()}
