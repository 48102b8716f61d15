"""Runs: one materialised row a run, its sticky halt, its transitions; heartbeats and settings of the home.

In:   rows and changes. Out: rows; `NotFound`, `Ambiguous`.
May import: store.connection, store.journal (row helpers), records, errors. Must not know: what a status means to a graph.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from operator import attrgetter
from typing import Any, Final

from midwatch.errors import Divergence, NotFound
from midwatch.records.decision import Halt
from midwatch.records.run import RunRow, Transition
from midwatch.records.spend import Amounts
from midwatch.store.connection import Connection
from midwatch.store.journal import columns, find_one, marks, plain
from midwatch.store.port import Beat

__all__ = ["SqlRuns", "SqlTransitions", "SqlWatch"]

_BELOW: Final = "name = ? OR substr(name, 1, CAST(? AS INTEGER)) = ?"
_RUN: Final = columns(RunRow)
_NAMES: Final = frozenset(field.name for field in fields(RunRow)) - {"id"}
_TRANSITION: Final = columns(Transition)
_TRANSITION_VALUES: Final = attrgetter(*(field.name for field in fields(Transition)))
_TRANSITION_MARKS: Final = marks(Transition)
_START: Final = (
    f"INSERT INTO transition ({_TRANSITION}) VALUES ({_TRANSITION_MARKS}) ON CONFLICT (run, task) DO UPDATE SET "  # noqa: S608
    + ", ".join(f"{name} = excluded.{name}" for name in _TRANSITION.split(", ") if name not in ('"run"', '"task"'))
)
_SPEND: Final = {
    "cost": "cost",
    "tokens": "tokens",
    "tool_calls": "tool_calls",
    "steps": "steps",
    "working": "working_us",
}


class SqlRuns:
    """`store.port.Runs`."""

    __slots__ = ("_sql",)

    def __init__(self, connection: Connection) -> None:
        self._sql = connection

    def create(self, row: RunRow) -> None:
        """Insert the row; a second one of the same id raises `Divergence`."""
        sql = f"INSERT INTO run ({_RUN}) VALUES ({marks(RunRow)}) ON CONFLICT DO NOTHING"  # noqa: S608
        if self._sql.execute(sql, plain(row)).rowcount != 1:
            raise Divergence(f"run `{row.id}` exists already; a run id is never used twice")

    def get(self, run: str) -> RunRow | None:
        """Read by full id."""
        found = self._sql.execute(f"SELECT {_RUN} FROM run WHERE id = ?", (run,)).fetchone()  # noqa: S608
        return None if found is None else RunRow(*found)

    def find(self, prefix: str) -> RunRow:
        """Read by unique prefix."""
        return RunRow(*find_one(self._sql, "run", _RUN, prefix, "run"))

    def list(self, *, limit: int = 50, statuses: Sequence[str] = (), before_us: int | None = None) -> Sequence[RunRow]:
        """Newest first."""
        where, values = ["1 = 1"], []  # type: tuple[list[str], list[Any]]
        if statuses:
            where.append(f"status IN ({', '.join('?' * len(statuses))})")
            values += statuses
        if before_us is not None:
            where.append("created_us < ?")
            values.append(before_us)
        sql = f"SELECT {_RUN} FROM run WHERE {' AND '.join(where)} ORDER BY created_us DESC, id LIMIT ?"  # noqa: S608
        return [RunRow(*row) for row in self._sql.execute(sql, (*values, limit)).fetchall()]

    def update(self, run: str, **changes: Any) -> None:
        """Set the named columns."""
        unknown = sorted(set(changes) - _NAMES)
        if unknown:
            raise TypeError(f"a run has no column `{unknown[0]}`")
        parts = ", ".join(f'"{name}" = ?' for name in changes) or "id = id"
        if self._sql.execute(f"UPDATE run SET {parts} WHERE id = ?", (*changes.values(), run)).rowcount != 1:  # noqa: S608
            raise NotFound(f"no run `{run}` in this home")

    def add_spend(self, run: str, spent: Amounts) -> None:
        """Add settled amounts to the counters; `NotFound` for an unknown run, whose spend would be lost."""
        added = {_SPEND[unit]: amount for unit, amount in spent.items() if unit in _SPEND}
        parts = ", ".join(f"{name} = {name} + ?" for name in added) or "id = id"
        if self._sql.execute(f"UPDATE run SET {parts} WHERE id = ?", (*added.values(), run)).rowcount != 1:  # noqa: S608
            raise NotFound(f"no run `{run}` in this home")

    def set_halt(self, run: str, halt: Halt) -> bool:
        """Leave the sticky mark; the first stays."""
        sql = 'INSERT INTO halt (run, kind, reason, "by", at_us) VALUES (?, ?, ?, ?, ?) ON CONFLICT DO NOTHING'
        return self._sql.execute(sql, (run, halt.kind, halt.reason, halt.by, halt.at_us)).rowcount == 1

    def halt(self, run: str) -> Halt | None:
        """Read the mark."""
        row = self._sql.execute('SELECT kind, reason, "by", at_us FROM halt WHERE run = ?', (run,)).fetchone()
        return None if row is None else Halt(*row)

    def clear_halt(self, run: str) -> None:
        """Take the mark away."""
        self._sql.execute("DELETE FROM halt WHERE run = ?", (run,))


class SqlTransitions:
    """`store.port.Transitions`."""

    __slots__ = ("_sql",)

    def __init__(self, connection: Connection) -> None:
        self._sql = connection

    def start(self, row: Transition) -> None:
        """Insert, or set an earlier row of the same task back to started."""
        self._sql.execute(
            _START,
            _TRANSITION_VALUES(row),
        )

    def finish(self, run: str, task: str, *, status: str, ended_us: int, bytes_out: int | None) -> None:
        """Close the row of that task."""
        self._sql.execute(
            "UPDATE transition SET status = ?, ended_us = ?, bytes_out = ? WHERE run = ? AND task = ?",
            (status, ended_us, bytes_out, run, task),
        )

    def list(self, run: str, *, after_seq: int = 0, limit: int = 5000) -> Sequence[Transition]:
        """In order."""
        sql = f"SELECT {_TRANSITION} FROM transition WHERE run = ? AND seq > ? ORDER BY seq LIMIT ?"  # noqa: S608
        return [Transition(*row) for row in self._sql.execute(sql, (run, after_seq, limit)).fetchall()]


class SqlWatch:
    """`store.port.Watch`."""

    __slots__ = ("_sql",)

    def __init__(self, connection: Connection) -> None:
        self._sql = connection

    def beat(self, name: str, *, pid: int, at_us: int) -> None:
        """Record a sign of life."""
        sql = (
            "INSERT INTO beat (name, pid, at_us) VALUES (?, ?, ?) "
            "ON CONFLICT (name) DO UPDATE SET pid = excluded.pid, at_us = excluded.at_us"
        )
        self._sql.execute(sql, (name, pid, at_us))

    def last(self, name: str) -> Beat | None:
        """Read the last one."""
        row = self._sql.execute("SELECT name, pid, at_us FROM beat WHERE name = ?", (name,)).fetchone()
        return None if row is None else Beat(*row)

    def beats(self, prefix: str) -> Sequence[Beat]:
        """Read that of this name and those of names below it, newest first."""
        sql = f"SELECT name, pid, at_us FROM beat WHERE {_BELOW} ORDER BY at_us DESC, name"  # noqa: S608 - our own words
        return [Beat(*row) for row in self._sql.execute(sql, (prefix, len(prefix) + 1, prefix + "/")).fetchall()]

    def silence(self, prefix: str, *, before_us: int) -> None:
        """Drop old ones."""
        sql = f"DELETE FROM beat WHERE ({_BELOW}) AND at_us < ?"  # noqa: S608 - our own words
        self._sql.execute(sql, (prefix, len(prefix) + 1, prefix + "/", before_us))

    def setting(self, key: str, default: bytes | None = None) -> bytes | None:
        """Read a setting; store the default where there is none."""
        if default is not None:
            self._sql.execute("INSERT INTO setting (key, value) VALUES (?, ?) ON CONFLICT DO NOTHING", (key, default))
        row = self._sql.execute("SELECT value FROM setting WHERE key = ?", (key,)).fetchone()
        return None if row is None else row[0]

    def put(self, key: str, value: bytes) -> None:
        """Set or replace a setting."""
        sql = "INSERT INTO setting (key, value) VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value"
        self._sql.execute(sql, (key, value))
