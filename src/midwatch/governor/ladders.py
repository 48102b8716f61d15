"""Ladders: what becomes cheaper before a cap stops anything: another route, less context, fewer specialists.

In:   the scopes of a call and their accounts. Out: what holds now, and which rungs say so, with the numbers.
May import: config, records; scopes. Must not know: models, plans, events.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from midwatch.config.fleet import Fleet
from midwatch.config.specs import Rung
from midwatch.governor.scopes import Scope
from midwatch.records.spend import HELD_UNITS, Account, Unit

__all__ = ["Cheaper", "Step", "cheaper", "narrowed", "told"]


@dataclass(frozen=True, slots=True)
class Step:
    """A rung that has been reached: at which scope, in which unit, and how much of its cap is used."""

    scope: str
    unit: Unit
    used: int
    cap: int
    rung: Rung


@dataclass(frozen=True, slots=True)
class Cheaper:
    """What holds now; None: as written. `steps`: the rungs that say so."""

    route: str | None = None
    context: int | None = None
    specialists: int | None = None
    steps: tuple[Step, ...] = ()


def cheaper(fleet: Fleet, scopes: Sequence[Scope], accounts: Sequence[Account]) -> Cheaper:
    """Look at each scope's fullest account. The highest rung's route counts, the least context, the fewest specialists."""
    by_scope: dict[str, list[Account]] = {}
    for account in accounts:
        if account.cap is not None and account.unit not in HELD_UNITS:
            by_scope.setdefault(account.scope, []).append(account)
    found: list[Step] = []
    for scope in scopes:
        budget = fleet.budgets.get(scope.key)
        full = by_scope.get(scope.name)
        if budget is None or not budget.degrade or not full:
            continue
        worst = max(full, key=_share)
        used = worst.spent + worst.held
        found += [
            Step(scope.name, worst.unit, used, worst.cap or 0, rung)
            for rung in budget.degrade
            if _share(worst) >= rung.at
        ]
    made = Cheaper(steps=tuple(found))
    for step in sorted(found, key=lambda one: one.rung.at):
        made = replace(
            made,
            route=step.rung.route or made.route,
            context=_least(step.rung.context, made.context),
            specialists=_least(step.rung.specialists, made.specialists),
        )
    return made


def narrowed(sizes: Sequence[int], groups: Sequence[int], share: int) -> list[int]:
    """Choose which turns of a conversation are still sent.

    Args:
        sizes: bytes of each message. groups: number of the turn that each belongs to, ascending; 0 is what is always sent (prompt and
            request). A turn goes or stays whole, since an answer belongs to its call.
        share: thousandths of all bytes after group 0 that may stay.

    Returns:
        Places of the messages that stay, in order: group 0, and the newest turns that fit, the last one always.
    """
    total: dict[int, int] = {}
    for size, group in zip(sizes, groups, strict=True):
        total[group] = total.get(group, 0) + size
    left = sum(size for group, size in total.items() if group) * share // 1000
    keep = {0}
    for number, group in enumerate(sorted((group for group in total if group), reverse=True)):
        if total[group] > left and number:
            break
        keep.add(group)
        left -= total[group]
    return [place for place, group in enumerate(groups) if group in keep]


def _share(account: Account) -> int:
    cap = account.cap or 0
    return 1000 if cap == 0 else (account.spent + account.held) * 1000 // cap


def _least(one: int | None, other: int | None) -> int | None:
    named = [value for value in (one, other) if value is not None]
    return min(named) if named else None


def told(step: Step) -> Mapping[str, object]:
    """Give the numbers for the ledger."""
    return {
        "scope": step.scope,
        "unit": step.unit,
        "used": step.used,
        "cap": step.cap,
        "at": f"{step.rung.at // 10}%",
        "route": step.rung.route,
        "context": None if step.rung.context is None else f"{step.rung.context // 10}%",
        "specialists": step.rung.specialists,
    }
