"""Timing: who is at work, and since when; the time that scopes are charged for it.

In:   calls that begin and end; the time. Out: charges of `working` on every scope that bounds it, holds of `processes`, a stop.
May import: records, governor, sandbox's profile, store (port). Must not know: what is being done.
Why slices: time passes by itself, so a second of it is reserved ahead, and what was really used is settled; a worker that is killed
has paid for its last second. A scope is at work while any of its calls is: calls side by side are not counted twice.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Final

from midwatch.engine import books
from midwatch.errors import BoundReached, NotFound
from midwatch.governor import scopes
from midwatch.governor.scopes import Scope
from midwatch.records.run import RunRow
from midwatch.records.spend import Account, Line
from midwatch.sandbox.profile import merged
from midwatch.store.port import Tx

if TYPE_CHECKING:
    from midwatch.engine.context import Segment

__all__ = ["Meter", "Times", "deadline"]

SLICE_US: Final = 1_000_000


class Times:
    """Who is at work in one segment, by key: an agent, `vertical:NAME`, `node:NAME`."""

    __slots__ = ("_busy", "_since", "_worked")

    def __init__(self) -> None:
        self._busy: dict[str, int] = {}
        self._since: dict[str, int] = {}
        self._worked: dict[str, int] = {}

    def begin(self, keys: tuple[str, ...], now: int) -> None:
        """Note that a call begins."""
        for key in keys:
            if not self._busy.get(key):
                self._since[key] = now
            self._busy[key] = self._busy.get(key, 0) + 1

    def end(self, keys: tuple[str, ...], now: int) -> None:
        """Note that a call has ended."""
        for key in keys:
            self._busy[key] -= 1
            if not self._busy[key]:
                self._worked[key] = self._worked.get(key, 0) + max(0, now - self._since.pop(key))

    def take(self, now: int) -> Mapping[str, int]:
        """Give what each worked since it was last asked for, in microseconds."""
        found = dict(self._worked)
        self._worked.clear()
        for key in self._since:
            found[key] = found.get(key, 0) + max(0, now - self._since[key])
            self._since[key] = now
        return found

    def at_work(self, key: str) -> bool:
        """Say whether any call of it is under way."""
        return self._busy.get(key, 0) > 0


def deadline(row: RunRow, caps: Mapping[str, int], *, now: int) -> int | None:
    """When the run's time is over: `wall` counts from its start, `working` only while a segment runs. Microseconds UTC."""
    ends = []
    if "wall" in caps:
        ends.append((row.started_us or now) + caps["wall"])
    if "working" in caps:
        ends.append(now + max(0, caps["working"] - row.working_us))
    return min(ends) if ends else None


class Meter:
    """Charges the time of one segment, about once a second; holds what its sandboxes may have of processes."""

    def __init__(self, segment: Segment, row: RunRow, began: int) -> None:
        self._seg, self._row, self._began = segment, row, began
        self._last, self._turn = began, 0
        self._open: dict[str, str] = {}
        self._caps: dict[str, int] = {}

    def open(self) -> None:
        """Hold the processes that the run's sandboxes may have, on every scope.

        Raises:
            Halted: a scope has no room for them; nothing was started.
        """
        seg = self._seg
        amounts: dict[str, int] = {}
        shadow: dict[str, bool] = {}
        for agent, spec in seg.fleet.agents.items():
            if spec.role == "ceo":  # it has no tools, so no sandbox
                continue
            most = (merged(seg.fleet.sandbox_of(agent).limits).processes or 0) * (2 if spec.command else 1)
            for scope in self._path(agent, self._began):
                if "processes" in scope.caps:
                    amounts[scope.name] = amounts.get(scope.name, 0) + most
                    shadow[scope.name] = scope.shadow
        if not amounts:
            return
        lines = [Line(name, "processes", amount, shadow[name]) for name, amount in amounts.items()]
        name = f"p:{seg.run}:{seg.epoch}"

        def work(tx: Tx) -> None:
            books.free(tx, beside=seg.run, at_us=self._began)
            tx.budgets.reserve(name, run=seg.run, lines=lines, at_us=self._began)
            tx.budgets.confirm(name)

        try:
            seg.store.write(work)
        except BoundReached as reached:
            raise seg.stop(reached) from reached

    def tick(self, now: int, *, last: bool = False) -> None:
        """Charge what was worked since the last tick, and hold the next second; stop the run where a scope's time is over."""
        seg = self._seg
        worked = seg.times.take(now)
        passed, self._last = max(0, now - self._last), now
        self._turn += 1
        over = seg.store.write(lambda tx: self._charge(tx, now, passed, worked, last=last))
        if over is not None and not last:
            seg.stop(over)

    def _charge(self, tx: Tx, now: int, passed: int, worked: Mapping[str, int], *, last: bool) -> BoundReached | None:
        seg = self._seg
        timed = {scope.name: (scope, key) for agent in seg.fleet.agents for scope, key in self._keyed(agent, now)}
        standing = tx.budgets.accounts(sorted(timed))
        caps = {str(row.unit): row.cap for row in standing if row.scope == f"run:{seg.run}" and row.cap is not None}
        self._caps = caps
        shadowed = timed[f"run:{seg.run}"][0].shadow
        seg.deadline_us = None if shadowed else deadline(self._row, caps, now=self._began)
        over: BoundReached | None = None
        for account in standing:
            scope, key = timed[account.scope]
            own = account.scope == f"run:{seg.run}" and not shadowed  # its deadline says the same, to the microsecond
            if account.unit != "working" or account.cap is None or own:
                continue
            used = passed if key is None else worked.get(key, 0)
            busy = not last and (key is None or seg.times.at_work(key))
            spent = self._turned(tx, scope, account, used, now, busy=busy)
            if spent >= account.cap and not scope.shadow and not scopes.is_agent_scope(scope.name):
                over = over or BoundReached(scope=scope.name, unit="working", cap=account.cap, used=spent, asked=0)
        return over

    def _turned(self, tx: Tx, scope: Scope, account: Account, used: int, now: int, *, busy: bool) -> int:
        """Settle the slice that was open and open the next one; gives what the scope has spent."""
        seg, open_ = self._seg, self._open.pop(scope.name, None)
        spent, held = account.spent, account.held
        if open_ is not None:
            with contextlib.suppress(NotFound):  # the transaction that should have made it was undone
                charged = tx.budgets.settle(open_, {"working": used}, at_us=now)
                spent, used = spent + charged.get("working", 0), 0
                held = next((row.held for row in tx.budgets.accounts([scope.name]) if row.unit == "working"), 0)
        ahead = min(SLICE_US, max(0, (account.cap or 0) - spent - held - used)) if busy else 0
        if not used and not ahead:
            return spent
        name = f"w:{seg.run}:{seg.epoch}:{self._turn}:{scope.name}"
        if used:  # begun and ended between two ticks: it is gone, whatever the cap
            tx.budgets.reserve(f"{name}:past", run=seg.run, lines=[Line(scope.name, "working", 0)], at_us=now)
            tx.budgets.settle(f"{name}:past", {"working": used}, at_us=now)
        if ahead:
            tx.budgets.reserve(name, run=seg.run, lines=[Line(scope.name, "working", ahead, scope.shadow)], at_us=now)
            tx.budgets.confirm(name)
            self._open[scope.name] = name
        return spent + used

    def late(self, now: int) -> BoundReached | None:
        """Say whether the run's own time is over, in the unit that ran out first."""
        seg, row = self._seg, self._row
        if seg.deadline_us is None or now <= seg.deadline_us:
            return None
        wall = self._caps.get("wall")
        begun = row.started_us or self._began
        if wall is not None and now - begun > wall:
            return BoundReached(scope=f"run:{seg.run}", unit="wall", cap=wall, used=now - begun, asked=0)
        used, cap = row.working_us + now - self._began, self._caps.get("working", 0)
        return BoundReached(scope=f"run:{seg.run}", unit="working", cap=cap, used=used, asked=0)

    def _path(self, agent: str, now: int) -> tuple[Scope, ...]:
        seg = self._seg
        nodes = [None, *(key.removeprefix("node:") for key in seg.fleet.budgets if key.startswith("node:"))]
        found = {
            scope.name: scope
            for node in nodes
            for scope in scopes.path(seg.fleet, run=seg.run, agent=agent, at_us=now, node=node, around=seg.around)
        }
        return tuple(found.values())

    def _keyed(self, agent: str, now: int) -> Iterator[tuple[Scope, str | None]]:
        """Give each scope of an agent with the key that says when it is at work; None: as long as the run is."""
        vertical = self._seg.fleet.vertical_of(agent)
        for scope in self._path(agent, now):
            if scope.key and scope.key == agent:
                yield scope, agent
            elif scope.key.startswith("node:"):
                yield scope, scope.key
            elif scope.key and scope.key == vertical:
                yield scope, f"vertical:{vertical}"
            else:
                yield scope, None
