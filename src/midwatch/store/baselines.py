"""Baselines: what the governor has learned, how far it has read, and the rates that it set.

In:   states as bytes, rates. Out: the same; how long an agent must wait for its next call.
May import: store.connection. Must not know: what a state means, who is slowed and why.
Why a cursor beside the states: both change in one transaction with whatever the governor did about them, so a pass counts once,
however many governors there are and wherever one of them is killed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from midwatch.store.connection import Connection

__all__ = ["Baselines", "SqlBaselines", "Throttle"]


@dataclass(frozen=True, slots=True)
class Throttle:
    """A rate that holds for a subject for some time.

    Attributes:
        subject: `FLEET/AGENT`. gap_us: least time between two beginnings. until_us: when it ends by itself.
        next_us: before this nothing of the subject begins. reason: in words, of whoever set it.
    """

    subject: str
    gap_us: int
    until_us: int
    next_us: int
    reason: str


class Baselines(Protocol):
    """States of subjects, the cursor, and rates; one noun of `store.port.Tx`."""

    def cursor(self) -> int:
        """Give the number of the last event that was taken in; 0 before the first."""

    def advance(self, seq: int) -> None:
        """Set the cursor."""

    def load(self, subject: str) -> Mapping[str, bytes]:
        """Give a subject's parts by name; empty for one that is new."""

    def save(self, subject: str, part: str, body: bytes, *, at_us: int) -> None:
        """Set or replace a part."""

    def subjects(self) -> Mapping[str, int]:
        """Give every subject with the time of its last change, in order of name."""

    def forget(self, subject: str) -> int:
        """Drop everything of a subject; gives how many parts there were."""

    def slow(self, throttle: Throttle) -> None:
        """Set or replace a subject's rate."""

    def throttles(self, at_us: int) -> tuple[Throttle, ...]:
        """Give the rates that hold at this time, in order of subject."""

    def take_turn(self, subject: str, at_us: int) -> int:
        """Give how many microseconds the subject must still wait; 0 takes the turn, so that the next one waits for its gap."""


class SqlBaselines:
    """`Baselines` over SQL."""

    __slots__ = ("_sql",)

    def __init__(self, connection: Connection) -> None:
        self._sql = connection

    def cursor(self) -> int:
        """Give the last event's number."""
        row = self._sql.execute("SELECT at_us FROM baseline WHERE subject = '' AND part = 'cursor'").fetchone()
        return 0 if row is None else int(row[0])

    def advance(self, seq: int) -> None:
        """Set the cursor."""
        self.save("", "cursor", b"", at_us=seq)

    def load(self, subject: str) -> Mapping[str, bytes]:
        """Give the parts."""
        rows = self._sql.execute("SELECT part, body FROM baseline WHERE subject = ?", (subject,)).fetchall()
        return {part: bytes(body) for part, body in rows}

    def save(self, subject: str, part: str, body: bytes, *, at_us: int) -> None:
        """Set or replace a part."""
        sql = (
            "INSERT INTO baseline (subject, part, body, at_us) VALUES (?, ?, ?, ?) "
            "ON CONFLICT (subject, part) DO UPDATE SET body = excluded.body, at_us = excluded.at_us"
        )
        self._sql.execute(sql, (subject, part, body, at_us))

    def subjects(self) -> Mapping[str, int]:
        """Give every subject."""
        sql = "SELECT subject, MAX(at_us) FROM baseline WHERE subject <> '' GROUP BY subject ORDER BY subject"
        return {subject: int(at_us) for subject, at_us in self._sql.execute(sql).fetchall()}

    def forget(self, subject: str) -> int:
        """Drop a subject."""
        return self._sql.execute("DELETE FROM baseline WHERE subject = ? AND subject <> ''", (subject,)).rowcount

    def slow(self, throttle: Throttle) -> None:
        """Set or replace a rate."""
        sql = (
            "INSERT INTO throttle (subject, gap_us, until_us, next_us, reason) VALUES (?, ?, ?, ?, ?) "
            "ON CONFLICT (subject) DO UPDATE SET gap_us = excluded.gap_us, until_us = excluded.until_us, "
            "next_us = excluded.next_us, reason = excluded.reason"
        )
        values = (throttle.subject, throttle.gap_us, throttle.until_us, throttle.next_us, throttle.reason)
        self._sql.execute(sql, values)

    def throttles(self, at_us: int) -> tuple[Throttle, ...]:
        """Give the rates that hold."""
        sql = "SELECT subject, gap_us, until_us, next_us, reason FROM throttle WHERE until_us > ? ORDER BY subject"
        return tuple(Throttle(*row) for row in self._sql.execute(sql, (at_us,)).fetchall())

    def take_turn(self, subject: str, at_us: int) -> int:
        """Take the turn, or say how long it is."""
        sql = "SELECT gap_us, next_us FROM throttle WHERE subject = ? AND until_us > ?"
        row = self._sql.execute(sql, (subject, at_us)).fetchone()
        if row is None:
            return 0
        gap, due = row
        if 0 < due - at_us <= gap:  # further away only for a clock that went backwards, which must not stop it for long
            return int(due - at_us)
        self._sql.execute("UPDATE throttle SET next_us = ? WHERE subject = ?", (at_us + gap, subject))
        return 0
