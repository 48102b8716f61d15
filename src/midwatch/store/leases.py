"""Leases: which call is writing to which shared resource, across all processes and machines of a home.

In:   rows. Out: the same; who is in the way.
May import: store.connection. Must not know: which calls need a lease, what a resource is.
Why a row for each call and not one for each resource: an agent's own parallel calls share a resource, and a call that lost its row to
another writer can tell, however late it looks. Whoever records how a call ended takes its rows away in that very transaction.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Final, Protocol

from midwatch.store.connection import Connection

__all__ = ["LeaseRow", "Leases", "SqlLeases"]


@dataclass(frozen=True, slots=True)
class LeaseRow:
    """One call that writes to one resource.

    Attributes:
        resource: canonical name. effect: of the call. epoch: of the worker that began it. until_us: after that another may take it.
    """

    resource: str
    effect: str
    run: str
    agent: str
    tool: str
    epoch: int
    taken_us: int
    until_us: int


class Leases(Protocol):
    """Who writes where; one noun of `store.port.Tx`."""

    def take(self, row: LeaseRow) -> LeaseRow | None:
        """Take a lease, or give the live one that is in the way.

        Rows of the same agent in the same run are not in the way. Rows of others that ran out are taken away: their calls are fenced.
        """

    def mine(self, effect: str) -> Sequence[str]:
        """Give the resources that a call still holds."""

    def list(self) -> Sequence[LeaseRow]:
        """Give all, those that ran out too, in order of resource and effect."""

    def release(self, resource: str, effect: str) -> bool:
        """Take one row away; False where there is none."""


_NAMES: Final = tuple(field.name for field in fields(LeaseRow))
_COLUMNS: Final = ", ".join(_NAMES)


class SqlLeases:
    """`Leases` over SQL."""

    __slots__ = ("_sql",)

    def __init__(self, connection: Connection) -> None:
        self._sql = connection

    def take(self, row: LeaseRow) -> LeaseRow | None:
        """Take one."""
        others = "resource = ? AND NOT (run = ? AND agent = ?)"
        named = (row.resource, row.run, row.agent)
        self._sql.execute(f"DELETE FROM lease WHERE {others} AND until_us <= ?", (*named, row.taken_us))  # noqa: S608 - our own words
        sql = f"SELECT {_COLUMNS} FROM lease WHERE {others} ORDER BY until_us DESC LIMIT 1"  # noqa: S608 - as above
        held = self._sql.execute(sql, named).fetchone()
        if held is not None:
            return LeaseRow(*held)
        put = (
            f"INSERT INTO lease ({_COLUMNS}) VALUES ({', '.join('?' * len(_NAMES))}) "  # noqa: S608 - as above
            f"ON CONFLICT (resource, effect) DO UPDATE SET {', '.join(f'{name} = excluded.{name}' for name in _NAMES[2:])}"
        )
        self._sql.execute(put, tuple(getattr(row, name) for name in _NAMES))
        return None

    def mine(self, effect: str) -> Sequence[str]:
        """Give what a call holds."""
        rows = self._sql.execute("SELECT resource FROM lease WHERE effect = ? ORDER BY resource", (effect,)).fetchall()
        return [row[0] for row in rows]

    def list(self) -> Sequence[LeaseRow]:
        """Give all."""
        rows = self._sql.execute(f"SELECT {_COLUMNS} FROM lease ORDER BY resource, effect").fetchall()  # noqa: S608 - our own words
        return [LeaseRow(*row) for row in rows]

    def release(self, resource: str, effect: str) -> bool:
        """Take one away."""
        return (
            self._sql.execute("DELETE FROM lease WHERE resource = ? AND effect = ?", (resource, effect)).rowcount == 1
        )
