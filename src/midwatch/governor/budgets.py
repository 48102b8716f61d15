"""Budgets: scopes that a program opens around its own code and around runs, as nested blocks over the store's accounts.

In:   limits, amounts as the fleet file writes them, or as whole numbers. Out: `Budget`; `BoundReached` with the scope that was hit.
May import: config's quantities, records, errors, store (port). Must not know: runs, models, where a home is.
Why every claim names all scopes around it: a child can then never use what its parent has not, whoever claims at the same time, in
whichever thread or process.
"""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Callable, Iterator, Mapping
from contextvars import ContextVar
from typing import Final

from midwatch.config.quantities import QuantityError, parse_duration, parse_money, parse_tokens
from midwatch.errors import BoundReached, UsageProblem
from midwatch.records.spend import HELD_UNITS, UNITS, Line, Unit
from midwatch.store.port import Store, Tx

__all__ = ["Budget", "Hold", "amount", "amounts", "around", "current", "opened"]

_LARGEST: Final = 2**53 - 1
_CURRENT: ContextVar[tuple[Budget, ...]] = ContextVar("midwatch_budgets", default=())


class Budget:
    """One scope. All of its numbers are whole: micro-dollars, tokens, microseconds, counts.

    Attributes:
        name: as it was opened. account: its name in the store, which `BoundReached.scope` says where it was hit.
        limit: by unit; what is not named is counted and not bounded.
        parent: the scope around it, or None.
    """

    def __init__(
        self, store: Store, name: str, account: str, limit: Mapping[Unit, int], clock: Callable[[], int]
    ) -> None:
        self.name, self.account, self.limit = name, account, dict(limit)
        self.parent = current()
        self._store, self._clock, self._open = store, clock, True

    @property
    def path(self) -> tuple[str, ...]:
        """Accounts that a claim here is charged to, outermost first."""
        return (*(() if self.parent is None else self.parent.path), self.account)

    @property
    def usage(self) -> Mapping[Unit, int]:
        """What was used and is held, by unit."""
        rows = self._store.read(lambda tx: tx.budgets.accounts([self.account]))
        return {row.unit: row.spent + row.held for row in rows}

    @property
    def remaining(self) -> Mapping[Unit, int]:
        """What is left of each limit here and in the scopes around it; a unit that nothing bounds is not named."""
        left: dict[Unit, int] = {}
        for row in self._store.read(lambda tx: tx.budgets.accounts(self.path)):
            if row.cap is not None:
                here = max(0, row.cap - row.spent - row.held)
                left[row.unit] = min(here, left.get(row.unit, here))
        return left

    def spend(self, **used: int | str) -> None:
        """Charge what is used, before it is used.

        Raises:
            BoundReached: here or in a scope around there is no room; nothing was charged.
            UsageProblem: no such unit or amount, or the block has ended.
        """
        wanted = amounts(used)
        with self.hold(**used) as held:
            held.settle(**{str(unit): amount for unit, amount in wanted.items() if unit not in HELD_UNITS})

    @contextlib.contextmanager
    def hold(self, **most: int | str) -> Iterator[Hold]:
        """Reserve at most so much for the block, and settle what was used with `Hold.settle`; what is not settled is charged in full.

        Raises:
            As `spend`.
        """
        wanted = amounts(most)
        if not self._open:
            raise UsageProblem(f"the budget `{self.name}` has ended; claim inside its block")
        name, now = f"s:{secrets.token_hex(12)}", self._clock()

        def work(tx: Tx) -> None:
            self._in_time(tx, now)
            lines = [Line(scope, unit, amount) for scope in self.path for unit, amount in wanted.items()]
            tx.budgets.reserve(name, run=self.account, lines=lines, at_us=now)
            tx.budgets.confirm(name)

        self._store.write(work, durable=True)
        held = Hold(self._store, name, self._clock)
        try:
            yield held
        finally:
            held.close()

    def _in_time(self, tx: Tx, now: int) -> None:
        walled = [row for row in tx.budgets.accounts(self.path) if row.unit == "wall" and row.cap is not None]
        begun = tx.budgets.begun([row.scope for row in walled], now) if walled else {}
        for row in walled:
            used = now - begun[row.scope]
            if used < 0 or used >= (row.cap or 0):  # a clock that went back is no more time
                raise BoundReached(scope=row.scope, unit="wall", cap=row.cap or 0, used=max(0, used), asked=0)


class Hold:
    """A reservation that is settled once."""

    def __init__(self, store: Store, name: str, clock: Callable[[], int]) -> None:
        self._store, self._name, self._clock = store, name, clock

    def settle(self, **used: int | str) -> None:
        """Charge what was used; a unit that is not named is charged as it was held. Settling again changes nothing."""
        actual = amounts(used)
        self._store.write(lambda tx: tx.budgets.settle(self._name, actual, at_us=self._clock()))

    def close(self) -> None:
        """Charge everything, unless it was settled."""
        self._store.write(lambda tx: tx.budgets.settle(self._name, None, at_us=self._clock()))


@contextlib.contextmanager
def opened(
    store: Store, name: str, limits: Mapping[str, int | str], *, clock: Callable[[], int], shared: bool = False
) -> Iterator[Budget]:
    """Open a scope for the block, within the one that is open already.

    Args:
        shared: every block of that name, in any process, is one scope; its limits must be the same.

    Raises:
        UsageProblem: a limit is none, or another one than the shared scope has; the scope around is in another store.
    """
    if not name or not name.isprintable() or any(sign in name for sign in "@/:") or len(name) > 100:
        raise UsageProblem("a budget's name is at most 100 plain characters, without `@`, `/` and `:`")
    limit, now = amounts(limits), clock()
    account = f"scope:{name}" if shared else f"scope:{secrets.token_hex(8)}/{name}"
    made = Budget(store, name, account, limit, clock)

    def work(tx: Tx) -> None:
        if not around(tx) == tuple(one.account for one in _CURRENT.get()):
            raise UsageProblem("the budget around this one lives in another home; open both in the same")
        there = {row.unit: row.cap for row in tx.budgets.accounts([account]) if row.cap is not None}
        if there and there != limit:
            raise UsageProblem(f"the shared budget `{name}` exists with other limits; open it with those")
        tx.budgets.begun([account], now)
        tx.budgets.set_cap(account, "steps", limit.get("steps"))  # so that it is there, whatever it bounds
        for unit, cap in limit.items():
            tx.budgets.set_cap(account, unit, cap)

    store.write(work, durable=True)
    token = _CURRENT.set((*_CURRENT.get(), made))
    try:
        yield made
    finally:
        _CURRENT.reset(token)
        made._open = False  # noqa: SLF001 - same module


def current() -> Budget | None:
    """Give the innermost scope that is open here."""
    found = _CURRENT.get()
    return found[-1] if found else None


def around(tx: Tx) -> tuple[str, ...]:
    """Give the accounts of the scopes that are open here, outermost first.

    Raises:
        UsageProblem: they are in another store than this one, so what is done here could not be charged to them.
    """
    names = tuple(one.account for one in _CURRENT.get())
    if names and {row.scope for row in tx.budgets.accounts(names)} != set(names):
        raise UsageProblem("the budget around this lives in another home; open both in the same, with `home=`")
    return names


def amounts(given: Mapping[str, int | str]) -> dict[Unit, int]:
    """Read amounts by unit. UsageProblem: an unknown unit, a negative, fractional or huge amount."""
    found: dict[Unit, int] = {}
    for unit, value in given.items():
        if unit not in UNITS:
            raise UsageProblem(f"`{unit}` is no unit; name one of {', '.join(UNITS)}")
        found[unit] = amount(unit, value)
    return found


def amount(unit: Unit, value: int | str) -> int:
    """Read one amount: a whole number >= 0, or text as the fleet file has it (`"$0.25"`, `120k`, `90s`)."""
    if (
        isinstance(value, str)
        and value.isascii()
        and value.isdigit()
        and len(value) <= 16
        and unit not in ("cost", "wall", "working")
    ):
        value = int(value)
    if type(value) is int:
        if not 0 <= value <= _LARGEST:
            raise UsageProblem(f"an amount of {unit} is a whole number from 0 to {_LARGEST:,}")
        return value
    if not isinstance(value, str):
        raise UsageProblem(f"an amount of {unit} is a whole number, or text such as the fleet file has")
    try:
        if unit == "cost":
            return parse_money(value if value.startswith("$") else f"${value}")
        if unit in ("wall", "working"):
            return parse_duration(value)
        return parse_tokens(value)
    except QuantityError as error:
        raise UsageProblem(f"{unit}: {error}") from error
