"""Accounts: what scopes may spend and have spent; reservations between the two; what people said about caps.

In:   caps, lines, actual amounts. Out: accounts; `BoundReached` when a line does not fit.
May import: store.connection, records, errors. Must not know: what a scope stands for.
Why exact: every claim runs under the write lock, so two processes cannot both take the last unit; and sums are made in Python,
where they do not turn into floats past 63 bits as they do in SQL.
Why few statements: each is a round trip to a server, so all lines of a claim are read by one and written by one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

import orjson

from midwatch.errors import BoundReached, Divergence, NotFound, UsageProblem
from midwatch.records.spend import HELD_UNITS, Account, Line, Order, Unit
from midwatch.store.connection import Connection

__all__ = ["SqlBudgets"]

_MOST: Final = 2**63 - 1
"""The largest number a column holds."""
_Key = tuple[str, Unit]
_Standing = tuple[int | None, int, int]
_NOTHING: Final[_Standing] = (None, 0, 0)


class SqlBudgets:
    """`store.port.Budgets`."""

    __slots__ = ("_sql",)

    def __init__(self, connection: Connection) -> None:
        self._sql = connection

    def set_cap(self, scope: str, unit: Unit, cap: int | None) -> None:
        """Create the account or change its cap."""
        if cap is not None:
            _whole(cap)
        self._sql.execute(
            "INSERT INTO budget (scope, unit, cap, spent, held) VALUES (?, ?, ?, 0, 0) "
            "ON CONFLICT (scope, unit) DO UPDATE SET cap = excluded.cap",
            (scope, unit, cap),
        )

    def accounts(self, scopes: Sequence[str] = (), *, prefix: str | None = None) -> Sequence[Account]:
        """Read accounts by name or prefix, in order of scope and unit."""
        sql = "SELECT scope, unit, cap, spent, held FROM budget WHERE "
        if prefix is not None:
            rows = self._sql.execute(
                f"{sql} substr(scope, 1, CAST(? AS INTEGER)) = ? ORDER BY scope, unit", (len(prefix), prefix)
            )
        else:
            rows = self._sql.execute(f"{sql} scope IN ({_marks(scopes)}) ORDER BY scope, unit", tuple(scopes))
        return [Account(*row) for row in rows.fetchall()]

    def reserve(self, reservation: str, *, run: str, lines: Sequence[Line], at_us: int) -> Sequence[BoundReached]:
        """Hold every line or none: the check of all comes before the first change."""
        standing = self._standings({line.scope for line in lines})
        asked: dict[_Key, int] = {}
        would: list[BoundReached] = []
        for line in lines:
            _whole(line.amount)
            key = (line.scope, line.unit)
            asked[key] = asked.get(key, 0) + line.amount
            reached = _reached(key, standing.get(key, _NOTHING), asked[key])
            if reached is None:
                continue
            if not line.shadow or reached.cap == _MOST:
                raise reached
            would.append(reached)
        body = orjson.dumps([[scope, unit, amount] for (scope, unit), amount in asked.items()])
        made = self._sql.execute(
            "INSERT INTO reservation (id, run, state, lines, at_us) VALUES (?, ?, 'held', ?, ?) ON CONFLICT DO NOTHING",
            (reservation, run, body, at_us),
        )
        if made.rowcount != 1:
            raise Divergence(f"reservation `{reservation}` exists already")
        moved = []
        for key, amount in asked.items():
            _, spent, held = standing.get(key, _NOTHING)
            moved.append((*key, spent, held + amount))
        self._stand(moved)
        return would

    def confirm(self, reservation: str) -> None:
        """Make a hold durable."""
        sql = "UPDATE reservation SET state = 'confirmed' WHERE id = ? AND state = 'held'"
        if self._sql.execute(sql, (reservation,)).rowcount != 1:
            raise Divergence(f"reservation `{reservation}` is not held, so nothing may begin on it")

    def release(self, reservation: str) -> None:
        """Give back an unconfirmed hold; one that is gone already stays gone."""
        found = self._find(reservation)
        if found is None or found[0] == "settled":
            return
        if found[0] == "confirmed":
            raise Divergence(f"reservation `{reservation}` is confirmed and can only be settled")
        self._turn(found[1], {})
        self._sql.execute("DELETE FROM reservation WHERE id = ?", (reservation,))

    def settle(self, reservation: str, actual: Mapping[Unit, int] | None, *, at_us: int) -> Mapping[Unit, int]:
        """Turn a hold into spend on every scope it was held on; a unit used but not held is charged to all of them.

        Returns the charge per unit, the most where scopes differ; nothing when it was settled before.
        """
        found = self._find(reservation)
        if found is None:
            raise NotFound(f"no reservation `{reservation}`")
        state, holds = found
        if state == "settled":
            return {}
        used = {} if actual is None else actual
        for amount in used.values():
            _whole(amount)
        units = {unit for _, unit in holds}
        extra = [unit for unit, amount in used.items() if amount and unit not in units]
        holds |= {(scope, unit): 0 for scope in {scope for scope, _ in holds} for unit in extra}
        charges = {
            (scope, unit): 0 if unit in HELD_UNITS else min(used.get(unit, hold), _MOST)
            for (scope, unit), hold in holds.items()
        }
        self._turn(holds, charges)
        self._sql.execute(
            "UPDATE reservation SET state = 'settled', at_us = ?, lines = ? WHERE id = ?",
            (at_us, _body(charges), reservation),
        )
        charged: dict[Unit, int] = {}
        for (_, unit), amount in charges.items():
            if unit not in HELD_UNITS:
                charged[unit] = max(amount, charged.get(unit, 0))
        return charged

    def amend(self, reservation: str, truth: Mapping[Unit, int]) -> Mapping[Unit, int]:
        """Put what a settled reservation truly cost in the place of what was charged, on every scope alike."""
        found = self._find(reservation)
        if found is None:
            raise NotFound(f"no reservation `{reservation}`")
        state, charges = found
        if state != "settled":
            raise UsageProblem(f"reservation `{reservation}` is not settled yet, so there is nothing to put right")
        standing = self._standings({scope for scope, _ in charges})
        moved, differences = [], {}
        for key in charges:
            unit = key[1]
            if unit not in truth or unit in HELD_UNITS:
                continue
            _whole(truth[unit])
            differences[unit] = truth[unit] - charges[key]
            _, spent, held = standing.get(key, _NOTHING)
            moved.append((*key, min(max(0, spent + differences[unit]), _MOST), held))
            charges[key] = truth[unit]
        self._stand(moved)
        self._sql.execute("UPDATE reservation SET lines = ? WHERE id = ?", (_body(charges), reservation))
        return differences

    def charged(self, run: str) -> Mapping[str, Mapping[Unit, int]]:
        """What each settled reservation of a run was charged."""
        rows = self._sql.execute("SELECT id, lines FROM reservation WHERE run = ? AND state = 'settled'", (run,))
        found: dict[str, dict[Unit, int]] = {}
        for name, lines in rows.fetchall():
            units = found.setdefault(name, {})
            for _, unit, amount in orjson.loads(lines):
                units[unit] = max(amount, units.get(unit, 0))
        return found

    def open_reservations(self, run: str) -> Sequence[tuple[str, bool]]:
        """What is neither settled nor released."""
        sql = "SELECT id, state FROM reservation WHERE run = ? AND state IN ('held', 'confirmed') ORDER BY at_us, id"
        return [(row[0], row[1] == "confirmed") for row in self._sql.execute(sql, (run,)).fetchall()]

    def orders(self, scopes: Sequence[str]) -> Mapping[tuple[str, Unit], Order]:
        """Read what people said about the caps of these scopes."""
        sql = f"SELECT scope, unit, file, cap, added FROM budget_order WHERE scope IN ({_marks(scopes)})"  # noqa: S608
        return {(row[0], row[1]): Order(*row) for row in self._sql.execute(sql, tuple(scopes)).fetchall()}

    def order(self, order: Order) -> None:
        """Keep what a person said; it takes the place of what was said before."""
        for amount in (order.file, order.cap, order.added):
            if amount is not None:
                _whole(amount)
        self._sql.execute(
            "INSERT INTO budget_order (scope, unit, file, cap, added) VALUES (?, ?, ?, ?, ?) "
            "ON CONFLICT (scope, unit) DO UPDATE SET file = excluded.file, cap = excluded.cap, added = excluded.added",
            (order.scope, order.unit, order.file, order.cap, order.added),
        )

    def begun(self, scopes: Sequence[str], at_us: int | None) -> Mapping[str, int]:
        """When these scopes were first claimed on; those that never were begin at `at_us`, where it is given."""
        sql = f"SELECT scope, at_us FROM budget_begun WHERE scope IN ({_marks(scopes)})"  # noqa: S608
        known = {row[0]: row[1] for row in self._sql.execute(sql, tuple(scopes)).fetchall()}
        if at_us is not None:
            for scope in scopes:
                if scope not in known:
                    self._sql.execute("INSERT INTO budget_begun (scope, at_us) VALUES (?, ?)", (scope, at_us))
                    known[scope] = at_us
        return known

    def _standings(self, scopes: Iterable[str]) -> dict[_Key, _Standing]:
        names = sorted(scopes)
        sql = f"SELECT scope, unit, cap, spent, held FROM budget WHERE scope IN ({_marks(names)})"  # noqa: S608
        return {(row[0], row[1]): (row[2], row[3], row[4]) for row in self._sql.execute(sql, names).fetchall()}

    def _stand(self, rows: Sequence[tuple[str, Unit, int, int]]) -> None:
        if not rows:
            return
        marks = ", ".join(["(?, ?, NULL, ?, ?)"] * len(rows))
        self._sql.execute(
            f"INSERT INTO budget (scope, unit, cap, spent, held) VALUES {marks} "  # noqa: S608
            "ON CONFLICT (scope, unit) DO UPDATE SET spent = excluded.spent, held = excluded.held",
            tuple(value for row in rows for value in row),
        )

    def _turn(self, holds: Mapping[_Key, int], charges: Mapping[_Key, int]) -> None:
        """Give holds back and charge in their place."""
        standing = self._standings({scope for scope, _ in holds})
        moved = []
        for key, hold in holds.items():
            _, spent, held = standing.get(key, _NOTHING)
            moved.append((*key, min(spent + charges.get(key, 0), _MOST), held - hold))
        self._stand(moved)

    def _find(self, reservation: str) -> tuple[str, dict[_Key, int]] | None:
        row = self._sql.execute("SELECT state, lines FROM reservation WHERE id = ?", (reservation,)).fetchone()
        if row is None:
            return None
        return row[0], {(scope, unit): amount for scope, unit, amount in orjson.loads(row[1])}


def _reached(key: _Key, standing: _Standing, asked: int) -> BoundReached | None:
    cap, spent, held = standing
    bound = _MOST if cap is None else cap
    if spent + held + asked <= bound and spent + held + asked <= _MOST:
        return None
    return BoundReached(scope=key[0], unit=key[1], cap=bound, used=spent + held, asked=asked, held=held)


def _body(charges: Mapping[_Key, int]) -> bytes:
    return orjson.dumps([[scope, unit, amount] for (scope, unit), amount in charges.items()])


def _marks(names: Sequence[str]) -> str:
    return ", ".join("?" * len(names)) or "NULL"


def _whole(amount: int) -> None:
    if type(amount) is not int:
        raise TypeError("amounts and caps are whole numbers")
    if amount < 0:
        raise ValueError("an amount or a cap must not be negative")
