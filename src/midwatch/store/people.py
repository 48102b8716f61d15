"""People: principals of a home; messages to them, and the links in those.

In:   rows and changes. Out: rows; `UsageProblem`, `NotFound`, `GateNotUsable`.
May import: store.connection, store.journal (row helpers), records, errors. Must not know: what a role allows, how a message is sent.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final

from midwatch.errors import GateNotUsable, NotFound, UsageProblem
from midwatch.records.gate import Link, Notice
from midwatch.records.principal import Principal
from midwatch.store.connection import Connection
from midwatch.store.journal import columns, marks, plain

__all__ = ["SqlNotices", "SqlPrincipals"]

_PRINCIPAL: Final = columns(Principal)
_NOTICE: Final = columns(Notice)
_LINK: Final = columns(Link)
_CHANGES: Final = frozenset({"roles", "may", "token_hash", "disabled_us"})


class SqlPrincipals:
    """`store.port.Principals`."""

    __slots__ = ("_sql",)

    def __init__(self, connection: Connection) -> None:
        self._sql = connection

    def add(self, row: Principal) -> None:
        """Insert the row."""
        sql = f"INSERT INTO principal ({_PRINCIPAL}) VALUES ({marks(Principal)}) ON CONFLICT DO NOTHING"  # noqa: S608
        if self._sql.execute(sql, plain(row)).rowcount != 1:
            raise UsageProblem(f"the name `{row.name}` is taken in this home; choose another")

    def get(self, name: str) -> Principal | None:
        """Read by name."""
        return self._one("name", name)

    def by_token(self, token_hash: str) -> Principal | None:
        """Read by hash of the token."""
        return self._one("token_hash", token_hash)

    def list(self) -> Sequence[Principal]:
        """In order of name."""
        rows = self._sql.execute(f"SELECT {_PRINCIPAL} FROM principal ORDER BY name").fetchall()  # noqa: S608
        return [Principal(*row) for row in rows]

    def update(self, name: str, **changes: Any) -> None:
        """Set the named columns."""
        unknown = sorted(set(changes) - _CHANGES)
        if unknown:
            raise TypeError(f"a principal has no column to change named {', '.join(unknown)}")
        if self.get(name) is None:
            raise NotFound(f"no principal `{name}` in this home; `midwatch principals ls` lists them")
        for column, value in changes.items():
            self._sql.execute(f"UPDATE principal SET {column} = ? WHERE name = ?", (value, name))  # noqa: S608 - checked above

    def _one(self, column: str, value: str) -> Principal | None:
        sql = f"SELECT {_PRINCIPAL} FROM principal WHERE {column} = ?"  # noqa: S608 - our own words
        row = self._sql.execute(sql, (value,)).fetchone()
        return None if row is None else Principal(*row)


class SqlNotices:
    """`store.port.Notices`."""

    __slots__ = ("_sql",)

    def __init__(self, connection: Connection) -> None:
        self._sql = connection

    def add(self, notice: Notice) -> bool:
        """Insert unless it is there."""
        sql = f"INSERT INTO notice ({_NOTICE}) VALUES ({marks(Notice)}) ON CONFLICT DO NOTHING"  # noqa: S608
        return self._sql.execute(sql, plain(notice)).rowcount == 1

    def due(self, at_us: int, *, limit: int = 100) -> Sequence[Notice]:
        """What waits to be sent, of gates that still ask."""
        names = ", ".join(f"n.{name}" for name in _NOTICE.split(", "))
        sql = (
            f"SELECT {names} FROM notice n CROSS JOIN gate g ON g.id = n.gate AND g.nonce = n.nonce "  # noqa: S608 - CROSS: from the notices
            "WHERE n.sent_us IS NULL AND n.next_us <= ? AND g.status = 'open' AND g.expires_us >= ? "
            "ORDER BY n.created_us, n.id LIMIT ?"
        )
        return [Notice(*row) for row in self._sql.execute(sql, (at_us, at_us, limit)).fetchall()]

    def owed(self, at_us: int) -> bool:
        """Say whether anything waits to be sent, ever."""
        sql = (
            "SELECT 1 FROM notice n JOIN gate g ON g.id = n.gate AND g.nonce = n.nonce "
            "WHERE n.sent_us IS NULL AND g.status = 'open' AND g.expires_us >= ? LIMIT 1"
        )
        return self._sql.execute(sql, (at_us,)).fetchone() is not None

    def claim(self, notice: str, *, at_us: int, until_us: int) -> bool:
        """Put it off for one sender."""
        sql = "UPDATE notice SET next_us = ? WHERE id = ? AND sent_us IS NULL AND next_us <= ?"
        return self._sql.execute(sql, (until_us, notice, at_us)).rowcount == 1

    def sent(self, notice: str, *, at_us: int) -> None:
        """Note that it was taken."""
        sql = "UPDATE notice SET sent_us = ?, attempts = attempts + 1, error = NULL WHERE id = ?"
        self._sql.execute(sql, (at_us, notice))

    def failed(self, notice: str, *, next_us: int, error: str) -> None:
        """Count a failed attempt."""
        sql = "UPDATE notice SET next_us = ?, attempts = attempts + 1, error = ? WHERE id = ? AND sent_us IS NULL"
        self._sql.execute(sql, (next_us, error, notice))

    def list(self, gate: str) -> Sequence[Notice]:
        """All of a gate."""
        sql = f"SELECT {_NOTICE} FROM notice WHERE gate = ? ORDER BY created_us, id"  # noqa: S608
        return [Notice(*row) for row in self._sql.execute(sql, (gate,)).fetchall()]

    def link(self, row: Link) -> None:
        """Keep a link."""
        self._sql.execute(f"INSERT INTO link ({_LINK}) VALUES ({marks(Link)})", plain(row))  # noqa: S608

    def find_link(self, link: str) -> Link | None:
        """Read by full id."""
        row = self._sql.execute(f"SELECT {_LINK} FROM link WHERE id = ?", (link,)).fetchone()  # noqa: S608
        return None if row is None else Link(*row)

    def use_link(self, link: str, *, at_us: int) -> Link:
        """Use it once, in time."""
        row = self.find_link(link)
        if row is None or at_us > row.expires_us:
            raise GateNotUsable("this link is not known here, or too old")
        if (
            self._sql.execute("UPDATE link SET used_us = ? WHERE id = ? AND used_us IS NULL", (at_us, link)).rowcount
            != 1
        ):
            raise GateNotUsable("this link was used already; it holds once")
        return replace(row, used_us=at_us)
