"""Bounding: takes what a call may use on every scope of its path; waits where others only hold what is left; says what is cheaper now.

In:   an actor, a reservation's name, amounts. Out: a provisional hold; `BoundReached`; events of shadows and ladders.
May import: context, passage; governor, store (port). Must not know: models, tools, who said yes.
Why it waits: a reservation is an upper bound, and most of it comes back. A call that fits what is not spent yet is affordable, so
stopping the run for it would leave money unused; it holds nothing while it waits, so nobody waits for it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from midwatch.engine import books
from midwatch.engine.context import Segment
from midwatch.engine.passage import draft
from midwatch.errors import BoundReached, MidwatchError, RunHalted
from midwatch.governor import ladders, scopes
from midwatch.governor.ladders import Cheaper
from midwatch.governor.scopes import Scope
from midwatch.records.call import Actor
from midwatch.records.spend import Account, Unit
from midwatch.store.port import Tx

__all__ = ["SKEW_US", "Bounds", "forward"]

SKEW_US: Final = 30_000_000
"""How far the clocks of machines that share a store may lie apart."""
WAIT_US: Final = 120_000_000
_FIRST_US: Final = 20_000
_LONGEST_US: Final = 500_000


def forward(tx: Tx, now: int) -> None:
    """Refuse a clock that went back: a window that is over would open again.

    Raises:
        RunHalted: the newest event lies further ahead than clocks may differ.
    """
    newest = tx.ledger.get(tx.ledger.head()[0])
    if newest is not None and newest.at_us > now + SKEW_US:
        raise RunHalted(
            f"the clock stands {(newest.at_us - now) // 1_000_000:,} s before the newest event of this home, so no effect may begin; "
            "put the clock right, then `midwatch resume`"
        )


class Bounds:
    """The scopes of one segment's calls."""

    def __init__(self, segment: Segment) -> None:
        self._seg = segment
        self._ready: set[str] = set()
        self._told: set[tuple[str, int]] = set()

    def path(self, actor: Actor, now: int) -> tuple[Scope, ...]:
        """Give the scopes that a call is charged to, outermost first."""
        seg = self._seg
        return scopes.path(seg.fleet, run=seg.run, agent=actor.agent, at_us=now, node=actor.node, around=seg.around)

    async def claim(
        self,
        actor: Actor,
        reservation: str,
        amounts: Callable[[Sequence[Account]], Mapping[Unit, int]],
        *,
        lasting: bool = False,
    ) -> Mapping[Unit, int]:
        """Hold `amounts` on every scope; gives them.

        Args:
            amounts: from the accounts that may stop the call, as they stand in the same transaction.
            lasting: it holds other calls in it, so it is not itself counted among those at once.

        Raises:
            BoundReached: a scope has no room, and would have none after all holds were given back, or not in time.
            Halted: the run must stop.
        """
        seg, waited, step = self._seg, 0, _FIRST_US
        while True:
            seg.check()
            now = seg.clock()
            try:
                found, names = seg.store.write(lambda tx: self._take(tx, actor, reservation, amounts, now, lasting))  # noqa: B023 - called at once
            except BoundReached as reached:
                if not reached.passing or waited >= WAIT_US:
                    raise
                if not waited:
                    seg.write(lambda tx: books.free(tx, beside=seg.run, at_us=now))  # noqa: B023 - called at once
            except MidwatchError as error:
                raise seg.stop(error) from error
            else:
                self._ready |= names
                return found
            await seg.pause(step)
            await asyncio.sleep(0)
            waited, step = waited + step, min(2 * step, _LONGEST_US)

    def cheaper(self, actor: Actor) -> Cheaper:
        """Say what the ladders ask for now; each rung that is reached is recorded once a segment."""
        seg, now = self._seg, self._seg.clock()
        if not any(budget.degrade for budget in seg.fleet.budgets.values()):
            return Cheaper()
        path = self.path(actor, now)
        found = seg.store.read(
            lambda tx: ladders.cheaper(seg.fleet, path, tx.budgets.accounts([scope.name for scope in path]))
        )
        new = [step for step in found.steps if (step.scope, step.rung.at) not in self._told]
        for step in new:
            data = dict(ladders.told(step))
            seg.write(lambda tx, data=data: tx.ledger.append(draft("budget.degraded", actor, now, data)))  # type: ignore[misc]
            self._told.add((step.scope, step.rung.at))
        return found

    def _take(
        self,
        tx: Tx,
        actor: Actor,
        reservation: str,
        amounts: Callable[[Sequence[Account]], Mapping[Unit, int]],
        now: int,
        lasting: bool,  # noqa: FBT001 - as `claim` has it
    ) -> tuple[Mapping[Unit, int], set[str]]:
        forward(tx, now)
        path = self.path(actor, now)
        new = [scope for scope in path if scope.name not in self._ready]
        if new:  # also where a window has begun since: it must not be without its caps
            scopes.ensure(tx.budgets, new)
        accounts = tx.budgets.accounts([scope.name for scope in path])
        would = [*self._timed(tx, path, accounts, now)]
        shadows = {scope.name for scope in path if scope.shadow}
        wanted = amounts([account for account in accounts if account.scope not in shadows])
        lines = scopes.lines(path, wanted if lasting else {**wanted, "concurrency": 1})
        would += tx.budgets.reserve(reservation, run=self._seg.run, lines=lines, at_us=now)
        for reached in would:
            data = {
                "scope": reached.scope,
                "unit": reached.unit,
                "cap": reached.cap,
                "used": reached.used,
                "asked": reached.asked,
            }
            tx.ledger.append(draft("budget.would_stop", actor, now, data))
        return wanted, {scope.name for scope in path}

    def _timed(self, tx: Tx, path: Sequence[Scope], accounts: Sequence[Account], now: int) -> Sequence[BoundReached]:
        """Look at the bounds of time; those of the run itself are its deadline.

        Raises:
            BoundReached: a scope's time is over.
        """
        would: list[BoundReached] = []
        shadows = {scope.name: scope.shadow for scope in path}
        walled = [row.scope for row in accounts if row.unit == "wall" and row.cap is not None]
        begun = tx.budgets.begun(walled, now) if walled else {}
        for row in accounts:
            own = row.scope == f"run:{self._seg.run}" and not shadows[row.scope]
            if row.cap is None or row.unit not in ("wall", "working") or own:
                continue
            used = row.spent if row.unit == "working" else now - begun[row.scope]
            if used < row.cap and used >= 0:
                continue
            reached = BoundReached(scope=row.scope, unit=row.unit, cap=row.cap, used=max(0, used), asked=0)
            if not shadows[row.scope]:
                raise reached
            would.append(reached)
        return would
