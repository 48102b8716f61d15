"""Breakers: the state of every breaker of a home, and what runs of late did, shared by all processes and machines.

In:   rows. Out: the same; `states` for whoever shows them.
May import: store.connection. Must not know: when a breaker opens, what it stops.
Why rows in the home's own store: whoever records how a call ended changes the breaker in that very transaction, and two processes
that want to probe are told apart by the write lock. See `docs/decisions/0011-breakers-of-our-own.md`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Final, Literal, Protocol

from midwatch.store.connection import Connection

if TYPE_CHECKING:
    from midwatch.store.port import Tx

__all__ = ["BreakerRow", "BreakerState", "Breakers", "SqlBreakers", "states"]

BreakerState = Literal["closed", "open", "half_open"]


@dataclass(frozen=True, slots=True)
class BreakerRow:
    """One breaker.

    Attributes:
        subject: `tool:FLEET/NAME`, `route:FLEET/ALIAS`, `agent:FLEET/NAME/RUN`, `pair:FLEET/ONE+OTHER/RUN`, `fleet:FLEET`.
        errors, slow: how many of the last calls in a row failed, or were slow.
        trips: how often it opened of late; each time the cool-down is twice as long.
        changed_us: of the last transition. until_us: the cool-down's end.
        probe, probe_run: reservation and run of the one call that tries again, while it is half open.
        reason: what opened it, with the numbers.
    """

    subject: str
    state: BreakerState = "closed"
    errors: int = 0
    slow: int = 0
    trips: int = 0
    changed_us: int = 0
    until_us: int = 0
    probe: str = ""
    probe_run: str = ""
    reason: str = ""


class Breakers(Protocol):
    """Breakers by subject, and trails by run; one noun of `store.port.Tx`."""

    def get(self, subject: str) -> BreakerRow:
        """Give a breaker; a closed one where there is no row."""

    def put(self, row: BreakerRow) -> None:
        """Set or replace a breaker."""

    def list(self) -> Sequence[BreakerRow]:
        """Give those that are not closed, in order of subject."""

    def all(self) -> Sequence[BreakerRow]:
        """Give every one, in order of subject."""

    def trail(self, run: str, part: str) -> bytes | None:
        """Read what a part of a run did of late."""

    def keep_trail(self, run: str, part: str, body: bytes) -> None:
        """Set or replace it."""

    def drop_trails(self, run: str, part: str | None = None) -> None:
        """Forget what a run, or a part of it, did of late."""


_NAMES: Final = tuple(field.name for field in fields(BreakerRow))
_COLUMNS: Final = ", ".join(_NAMES)
_PUT: Final = (
    f"INSERT INTO breaker ({_COLUMNS}) VALUES ({', '.join('?' * len(_NAMES))}) "  # noqa: S608 - our own words
    f"ON CONFLICT (subject) DO UPDATE SET {', '.join(f'{name} = excluded.{name}' for name in _NAMES[1:])}"
)


class SqlBreakers:
    """`Breakers` over SQL."""

    __slots__ = ("_sql",)

    def __init__(self, connection: Connection) -> None:
        self._sql = connection

    def get(self, subject: str) -> BreakerRow:
        """Give one."""
        sql = f"SELECT {_COLUMNS} FROM breaker WHERE subject = ?"  # noqa: S608 - our own words
        row = self._sql.execute(sql, (subject,)).fetchone()
        return BreakerRow(subject) if row is None else BreakerRow(*row)

    def put(self, row: BreakerRow) -> None:
        """Set one."""
        self._sql.execute(_PUT, tuple(getattr(row, name) for name in _NAMES))

    def list(self) -> Sequence[BreakerRow]:
        """Give those that are not closed."""
        sql = f"SELECT {_COLUMNS} FROM breaker WHERE state <> 'closed' ORDER BY subject"  # noqa: S608 - our own words
        return [BreakerRow(*row) for row in self._sql.execute(sql).fetchall()]

    def all(self) -> Sequence[BreakerRow]:
        """Give all."""
        rows = self._sql.execute(f"SELECT {_COLUMNS} FROM breaker ORDER BY subject").fetchall()  # noqa: S608 - our own words
        return [BreakerRow(*row) for row in rows]

    def trail(self, run: str, part: str) -> bytes | None:
        """Read one."""
        row = self._sql.execute("SELECT body FROM breaker_trail WHERE run = ? AND part = ?", (run, part)).fetchone()
        return None if row is None else bytes(row[0])

    def keep_trail(self, run: str, part: str, body: bytes) -> None:
        """Set one."""
        sql = (
            "INSERT INTO breaker_trail (run, part, body) VALUES (?, ?, ?) "
            "ON CONFLICT (run, part) DO UPDATE SET body = excluded.body"
        )
        self._sql.execute(sql, (run, part, body))

    def drop_trails(self, run: str, part: str | None = None) -> None:
        """Forget them."""
        if part is None:
            self._sql.execute("DELETE FROM breaker_trail WHERE run = ?", (run,))
        else:
            self._sql.execute("DELETE FROM breaker_trail WHERE run = ? AND part = ?", (run, part))


def states(tx: Tx) -> Sequence[BreakerRow]:
    """Give the breakers that are not closed, for whoever shows them."""
    return tx.breakers.list()
