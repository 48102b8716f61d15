"""Flags: what a person stopped for more than one run: all, a fleet, an agent, a tool, a vertical; until the same is resumed.

In:   a scope, who, why. Out: the flags that stand.
May import: store.connection, records. Must not know: who checks them, what they stop.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from midwatch.store.connection import Connection

__all__ = ["Flag", "FlagKind", "Flags", "SqlFlags"]

FlagKind = Literal["pause", "kill"]


@dataclass(frozen=True, slots=True)
class Flag:
    """One sticky mark.

    Attributes:
        scope: `all`, `agent:NAME`, `tool:NAME` or `vertical:NAME`. fleet: in which one; empty: in every fleet.
    """

    scope: str
    fleet: str
    kind: FlagKind
    reason: str
    by: str
    at_us: int


class Flags(Protocol):
    """Sticky marks by scope and fleet; one noun of `store.port.Tx`."""

    def raise_(self, flag: Flag) -> bool:
        """Set a flag; False where one stands that goes as far. A kill takes the place of a pause, never the other way round."""

    def lower(self, scope: str, fleet: str) -> Flag | None:
        """Take the flag of exactly this scope and fleet away; gives it."""

    def list(self) -> Sequence[Flag]:
        """Give all that stand, in order of scope and fleet."""


class SqlFlags:
    """`Flags` over SQL."""

    __slots__ = ("_sql",)

    def __init__(self, connection: Connection) -> None:
        self._sql = connection

    def raise_(self, flag: Flag) -> bool:
        """Set one."""
        old = self._get(flag.scope, flag.fleet)
        if old is not None and (old.kind == "kill" or flag.kind == "pause"):
            return False
        sql = (
            'INSERT INTO flag (scope, fleet, kind, reason, "by", at_us) VALUES (?, ?, ?, ?, ?, ?) '
            "ON CONFLICT (scope, fleet) DO UPDATE SET kind = excluded.kind, reason = excluded.reason, "
            '"by" = excluded."by", at_us = excluded.at_us'
        )
        self._sql.execute(sql, (flag.scope, flag.fleet, flag.kind, flag.reason, flag.by, flag.at_us))
        return True

    def lower(self, scope: str, fleet: str) -> Flag | None:
        """Take one away."""
        old = self._get(scope, fleet)
        self._sql.execute("DELETE FROM flag WHERE scope = ? AND fleet = ?", (scope, fleet))
        return old

    def list(self) -> Sequence[Flag]:
        """Give all."""
        sql = 'SELECT scope, fleet, kind, reason, "by", at_us FROM flag ORDER BY scope, fleet'
        return [Flag(*row) for row in self._sql.execute(sql).fetchall()]

    def _get(self, scope: str, fleet: str) -> Flag | None:
        sql = 'SELECT scope, fleet, kind, reason, "by", at_us FROM flag WHERE scope = ? AND fleet = ?'
        row = self._sql.execute(sql, (scope, fleet)).fetchone()
        return None if row is None else Flag(*row)
