"""Journal: effects and fences: what makes an action happen at most once, by whom it may.

In:   rows. Out: rows; `Divergence`, `GateNotUsable`, `FenceLost`, `RunHeld`, `NotFound`, `Ambiguous`.
May import: store.connection, records, errors. Must not know: why an effect is begun.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from typing import Any, Final

from midwatch.errors import Ambiguous, Divergence, FenceLost, GateNotUsable, NotFound, RunHeld
from midwatch.records.effect import EffectRow
from midwatch.store.connection import Connection

__all__ = ["SqlEffects", "SqlFences", "columns", "find_one", "marks", "plain"]


def columns(row: type) -> str:
    """Give a record's fields as the columns of its table."""
    return ", ".join(f'"{field.name}"' for field in fields(row))


def marks(row: type) -> str:
    """Give one `?` per field."""
    return ", ".join("?" * len(fields(row)))


def plain(row: Any) -> tuple[Any, ...]:
    """Give a flat record's values in the order of its fields; `astuple` would copy each of them deeply."""
    return tuple(getattr(row, field.name) for field in fields(row))


def find_one(sql: Connection, table: str, names: str, prefix: str, noun: str) -> tuple[Any, ...]:
    """Read the one row whose id begins with `prefix`.

    Raises:
        NotFound: none, or fewer than 4 digits. Ambiguous: several.
    """
    if len(prefix) < 4 or not all(digit in "0123456789abcdef" for digit in prefix):
        raise NotFound(f"`{prefix}` is no id of a {noun}; ids are hex digits, at least 4 of them")
    statement = f"SELECT {names} FROM {table} WHERE id >= ? AND id < ? LIMIT 2"  # noqa: S608 - our own words
    rows = sql.execute(statement, (prefix, prefix + "g")).fetchall()
    if not rows:
        raise NotFound(f"no {noun} `{prefix}` in this home")
    if len(rows) > 1:
        raise Ambiguous(f"`{prefix}` fits more than one {noun}; write more of it")
    found: tuple[Any, ...] = rows[0]
    return found


_EFFECT: Final = columns(EffectRow)


class SqlEffects:
    """`store.port.Effects`."""

    __slots__ = ("_sql",)

    def __init__(self, connection: Connection) -> None:
        self._sql = connection

    def begin(self, row: EffectRow) -> None:
        """Write an intent; a repeated one needs a higher attempt and the same arguments."""
        if row.status != "started" or row.result is not None:
            raise ValueError("an intent has the status `started` and no result")
        old = self.get(row.id)
        if old is not None:
            if old.status == "done" or (old.status == "started" and row.attempt <= old.attempt):
                raise Divergence(f"effect `{row.id}` was begun already and may not begin again")
            if old.args_digest != row.args_digest:
                raise Divergence(f"effect `{row.id}` was begun with other arguments")
            self._sql.execute("DELETE FROM effect WHERE id = ?", (row.id,))
        self._sql.execute(f"INSERT INTO effect ({_EFFECT}) VALUES ({marks(EffectRow)})", plain(row))  # noqa: S608

    def get(self, effect: str) -> EffectRow | None:
        """Read by full id."""
        found = self._sql.execute(f"SELECT {_EFFECT} FROM effect WHERE id = ?", (effect,)).fetchone()  # noqa: S608
        return None if found is None else EffectRow(*found)

    def find(self, prefix: str) -> EffectRow:
        """Read by unique prefix."""
        return EffectRow(*find_one(self._sql, "effect", _EFFECT, prefix, "effect"))

    def finish(self, effect: str, *, epoch: int, result: str, at_us: int, seq: int) -> None:
        """Record the outcome of this epoch's intent."""
        changed = self._sql.execute(
            "UPDATE effect SET status = 'done', result = ?, finished_us = ?, finished_seq = ? "
            "WHERE id = ? AND epoch = ? AND status = 'started'",
            (result, at_us, seq, effect, epoch),
        ).rowcount
        if changed != 1:
            raise FenceLost(f"effect `{effect}` is no longer this worker's to finish")
        self._unlease(effect)

    def list(self, run: str, *, statuses: Sequence[str] = ()) -> Sequence[EffectRow]:
        """In order of intent."""
        where = f" AND status IN ({', '.join('?' * len(statuses))})" if statuses else ""
        sql = f"SELECT {_EFFECT} FROM effect WHERE run = ?{where} ORDER BY intent_seq"  # noqa: S608
        return [EffectRow(*row) for row in self._sql.execute(sql, (run, *statuses)).fetchall()]

    def resolve(self, effect: str, *, status: str, result: str | None, by: str, at_us: int, seq: int) -> None:
        """Record a person's word on an effect in doubt."""
        if status not in ("done", "not_done", "retry") or (status == "done") != (result is not None):
            raise ValueError("an effect is resolved as `done` with a result, or as `not_done` or `retry` without one")
        changed = self._sql.execute(
            "UPDATE effect SET status = ?, result = ?, finished_us = ?, finished_seq = ?, resolved_by = ? "
            "WHERE id = ? AND status = 'started'",
            (status, result, at_us, seq, by, effect),
        ).rowcount
        if changed != 1:
            raise GateNotUsable(f"effect `{effect}` is not in doubt")
        self._unlease(effect)

    def _unlease(self, effect: str) -> None:
        """What has ended writes nowhere any more."""
        self._sql.execute("DELETE FROM lease WHERE effect = ?", (effect,))


class SqlFences:
    """`store.port.Fences`."""

    __slots__ = ("_sql",)

    def __init__(self, connection: Connection) -> None:
        self._sql = connection

    def take(self, run: str, *, owner: str, at_us: int, ttl_us: int) -> int:
        """Take the run under a new epoch."""
        row = self._sql.execute("SELECT epoch, owner, until_us FROM fence WHERE run = ?", (run,)).fetchone()
        if row is not None and row[1] not in (None, owner) and row[2] > at_us:
            raise RunHeld(
                f"run `{run[:7]}` is held by a live process (`{row[1]}`); wait for it, or `midwatch cancel {run[:7]}`"
            )
        epoch: int = 1 if row is None else row[0] + 1
        self._sql.execute(
            "INSERT INTO fence (run, epoch, owner, until_us) VALUES (?, ?, ?, ?) "
            "ON CONFLICT (run) DO UPDATE SET epoch = excluded.epoch, owner = excluded.owner, until_us = excluded.until_us",
            (run, epoch, owner, at_us + ttl_us),
        )
        return epoch

    def renew(self, run: str, *, epoch: int, at_us: int, ttl_us: int) -> None:
        """Prolong the newest epoch's lease."""
        self.check(run, epoch)
        sql = "UPDATE fence SET until_us = ? WHERE run = ? AND epoch = ? AND owner IS NOT NULL"
        if self._sql.execute(sql, (at_us + ttl_us, run, epoch)).rowcount != 1:
            raise FenceLost(f"the lease of run `{run[:7]}` was released; take the run again before writing for it")

    def check(self, run: str, epoch: int) -> None:
        """Raise unless `epoch` is the newest."""
        row = self._sql.execute("SELECT epoch FROM fence WHERE run = ?", (run,)).fetchone()
        if row is None or row[0] != epoch:
            raise FenceLost(f"another process has taken run `{run[:7]}` over; nothing more is written from here")

    def release(self, run: str, *, epoch: int) -> None:
        """End the lease now."""
        self._sql.execute("UPDATE fence SET owner = NULL, until_us = 0 WHERE run = ? AND epoch = ?", (run, epoch))

    def expired(self, at_us: int) -> Sequence[str]:
        """Runs whose lease ran out."""
        sql = "SELECT run FROM fence WHERE owner IS NOT NULL AND until_us <= ? ORDER BY run"
        return [row[0] for row in self._sql.execute(sql, (at_us,)).fetchall()]

    def live(self, run: str, at_us: int) -> bool:
        """Say whether somebody holds the run."""
        sql = "SELECT 1 FROM fence WHERE run = ? AND owner IS NOT NULL AND until_us > ?"
        return self._sql.execute(sql, (run, at_us)).fetchone() is not None
