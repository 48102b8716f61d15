"""Accounts: what scopes may spend and have spent; reservations between the two.

In:   caps, lines, actual amounts. Out: accounts; `BoundReached` when a line does not fit.
May import: store.connection, records, errors. Must not know: what a scope stands for.
Why exact: every claim runs under the write lock, so two processes cannot both take the last unit; and sums are made in Python,
where they do not turn into floats past 63 bits as they do in SQL.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import orjson

from midwatch.errors import BoundReached, Divergence, NotFound
from midwatch.records.spend import Account, Line, Unit
from midwatch.store.connection import Connection

__all__ = ["SqlBudgets"]

_MOST: Final = 2**63 - 1
"""The largest number a column holds."""


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
            marks = ", ".join("?" * len(scopes))
            rows = self._sql.execute(f"{sql} scope IN ({marks}) ORDER BY scope, unit", tuple(scopes))
        return [Account(*row) for row in rows.fetchall()]

    def reserve(self, reservation: str, *, run: str, lines: Sequence[Line], at_us: int) -> None:
        """Hold every line or none: the check of all comes before the first change."""
        if self._state(reservation) is not None:
            raise Divergence(f"reservation `{reservation}` exists already")
        asked: dict[tuple[str, Unit], int] = {}
        for line in lines:
            _whole(line.amount)
            account = (line.scope, line.unit)
            asked[account] = asked.get(account, 0) + line.amount
            cap, spent, held = self._standing(*account)
            bound = _MOST if cap is None else cap
            if spent + held + asked[account] > bound:
                raise BoundReached(scope=line.scope, unit=line.unit, cap=bound, used=spent + held, asked=asked[account])
        for account, amount in asked.items():
            _, spent, held = self._standing(*account)
            self._stand(*account, spent, held + amount)
        body = orjson.dumps([[scope, unit, amount] for (scope, unit), amount in asked.items()])
        self._sql.execute(
            "INSERT INTO reservation (id, run, state, lines, at_us) VALUES (?, ?, 'held', ?, ?)",
            (reservation, run, body, at_us),
        )

    def confirm(self, reservation: str) -> None:
        """Make a hold durable."""
        if self._set(reservation, "confirmed", "held") != 1:
            raise Divergence(f"reservation `{reservation}` is not held, so nothing may begin on it")

    def release(self, reservation: str) -> None:
        """Give back an unconfirmed hold; one that is gone already stays gone."""
        state = self._state(reservation)
        if state == "confirmed":
            raise Divergence(f"reservation `{reservation}` is confirmed and can only be settled")
        if state == "held":
            self._free(reservation)
            self._sql.execute("DELETE FROM reservation WHERE id = ?", (reservation,))

    def settle(self, reservation: str, actual: Mapping[Unit, int] | None, *, at_us: int) -> Mapping[Unit, int]:
        """Turn a hold into spend on every scope it was held on; a unit used but not held is charged to all of them.

        Returns the charge per unit, the most where scopes differ; nothing when it was settled before.
        """
        state = self._state(reservation)
        if state is None:
            raise NotFound(f"no reservation `{reservation}`")
        if state == "settled":
            return {}
        used = {} if actual is None else actual
        for amount in used.values():
            _whole(amount)
        holds = {(scope, unit): held for scope, unit, held in self._free(reservation)}
        scopes, units = {scope for scope, _ in holds}, {unit for _, unit in holds}
        for unit, amount in used.items():
            if amount and unit not in units:
                holds.update({(scope, unit): 0 for scope in scopes})
        charged: dict[Unit, int] = {}
        for (scope, unit), hold in holds.items():
            amount = min(used.get(unit, hold), _MOST)
            _, spent, held = self._standing(scope, unit)
            self._stand(scope, unit, min(spent + amount, _MOST), held)
            charged[unit] = max(amount, charged.get(unit, 0))
        self._sql.execute("UPDATE reservation SET state = 'settled', at_us = ? WHERE id = ?", (at_us, reservation))
        return charged

    def open_reservations(self, run: str) -> Sequence[tuple[str, bool]]:
        """What is neither settled nor released."""
        sql = "SELECT id, state FROM reservation WHERE run = ? AND state IN ('held', 'confirmed') ORDER BY at_us, id"
        return [(row[0], row[1] == "confirmed") for row in self._sql.execute(sql, (run,)).fetchall()]

    def _standing(self, scope: str, unit: Unit) -> tuple[int | None, int, int]:
        sql = "SELECT cap, spent, held FROM budget WHERE scope = ? AND unit = ?"
        row: tuple[int | None, int, int] | None = self._sql.execute(sql, (scope, unit)).fetchone()
        return (None, 0, 0) if row is None else row

    def _stand(self, scope: str, unit: Unit, spent: int, held: int) -> None:
        self._sql.execute(
            "INSERT INTO budget (scope, unit, cap, spent, held) VALUES (?, ?, NULL, ?, ?) "
            "ON CONFLICT (scope, unit) DO UPDATE SET spent = excluded.spent, held = excluded.held",
            (scope, unit, spent, held),
        )

    def _state(self, reservation: str) -> str | None:
        row = self._sql.execute("SELECT state FROM reservation WHERE id = ?", (reservation,)).fetchone()
        return None if row is None else row[0]

    def _set(self, reservation: str, state: str, before: str) -> int:
        sql = "UPDATE reservation SET state = ? WHERE id = ? AND state = ?"
        return self._sql.execute(sql, (state, reservation, before)).rowcount

    def _free(self, reservation: str) -> list[tuple[str, Unit, int]]:
        row = self._sql.execute("SELECT lines FROM reservation WHERE id = ?", (reservation,)).fetchone()
        lines: list[tuple[str, Unit, int]] = [tuple(line) for line in orjson.loads(row[0])]
        for scope, unit, amount in lines:
            self._sql.execute("UPDATE budget SET held = held - ? WHERE scope = ? AND unit = ?", (amount, scope, unit))
        return lines


def _whole(amount: int) -> None:
    if type(amount) is not int:
        raise TypeError("amounts and caps are whole numbers")
    if amount < 0:
        raise ValueError("an amount or a cap must not be negative")
