"""Gates: actions that wait for a person, and what was said to them.

In:   rows and words. Out: rows; `GateNotUsable`, `NotFound`, `Ambiguous`.
May import: store.connection, store.journal (row helpers), records, errors. Must not know: who may answer, why a gate opened.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, replace
from typing import Any, Final

from midwatch.errors import GateNotUsable, NotFound
from midwatch.records.gate import GateAnswer, GateRow, GateStatus
from midwatch.store.connection import Connection
from midwatch.store.journal import columns, find_one, marks, plain

__all__ = ["SqlGates"]

_GATE: Final = columns(GateRow)
_ANSWER: Final = columns(GateAnswer)
_NEVER: Final = 2**62


class SqlGates:
    """`store.port.Gates`."""

    __slots__ = ("_sql",)

    def __init__(self, connection: Connection) -> None:
        self._sql = connection

    def open(self, row: GateRow) -> GateRow:
        """Insert the row unless one of its id exists; returns what stands."""
        if row.status != "open":
            raise ValueError("a gate begins with the status `open`")
        old = self.get(row.id)
        if old is not None:
            return old
        self._sql.execute(f"INSERT INTO gate ({_GATE}) VALUES ({marks(GateRow)})", plain(row))  # noqa: S608
        return row

    def get(self, gate: str) -> GateRow | None:
        """Read by full id."""
        found = self._sql.execute(f"SELECT {_GATE} FROM gate WHERE id = ?", (gate,)).fetchone()  # noqa: S608
        return None if found is None else GateRow(*found)

    def find(self, prefix: str) -> GateRow:
        """Read by unique prefix."""
        return GateRow(*find_one(self._sql, "gate", _GATE, prefix, "gate"))

    def list(self, *, run: str | None = None, statuses: Sequence[str] = (), limit: int = 1000) -> Sequence[GateRow]:
        """Oldest first."""
        where, values = ["1 = 1"], []  # type: tuple[list[str], list[Any]]
        if run is not None:
            where.append("run = ?")
            values.append(run)
        if statuses:
            column = "status" if run is None else "+status"  # `+`: one run has few gates, a status may have all
            where.append(f"{column} IN ({', '.join('?' * len(statuses))})")
            values += statuses
        sql = f"SELECT {_GATE} FROM gate WHERE {' AND '.join(where)} ORDER BY opened_us, id LIMIT ?"  # noqa: S608
        return [GateRow(*row) for row in self._sql.execute(sql, (*values, limit)).fetchall()]

    def answer(
        self, gate: str, *, approve: bool, by: str, reason: str, at_us: int, answer: str | None = None
    ) -> GateRow:
        """Close the gate, in time."""
        row = self.get(gate)
        if row is None:
            raise NotFound(f"no gate `{gate}` in this home")
        if row.status != "open":
            raise GateNotUsable(f"gate `{gate}` is {row.status} already; the first answer counts")
        if at_us > row.expires_us:
            self._close_late([gate], at_us)
            raise GateNotUsable(f"gate `{gate}` has expired, which counts as no")
        status: GateStatus = "approved" if approve else "denied"
        self._sql.execute(
            "UPDATE gate SET status = ?, answered_us = ?, answered_by = ?, answer_reason = ?, answer = ? "
            "WHERE id = ? AND status = 'open'",
            (status, at_us, by, reason, answer, gate),
        )
        self._silence([gate])
        return replace(row, status=status, answered_us=at_us, answered_by=by, answer_reason=reason, answer=answer)

    def say(self, answer: GateAnswer) -> None:
        """Add one person's word to one asking."""
        sql = f"INSERT INTO gate_answer ({_ANSWER}) VALUES ({marks(GateAnswer)}) ON CONFLICT DO NOTHING"  # noqa: S608
        if self._sql.execute(sql, plain(answer)).rowcount != 1:
            raise GateNotUsable(
                f"`{answer.by}` has answered gate `{answer.gate}` already; one word of each person counts"
            )

    def said(self, gate: str, nonce: str | None = None) -> Sequence[GateAnswer]:
        """What was said to one asking, or to all."""
        where, values = ("", [gate]) if nonce is None else (" AND nonce = ?", [gate, nonce])
        sql = f"SELECT {_ANSWER} FROM gate_answer WHERE gate = ?{where} ORDER BY at_us, by"  # noqa: S608
        return [_answer(row) for row in self._sql.execute(sql, values).fetchall()]

    def unreviewed(self) -> Sequence[GateAnswer]:
        """Broken glasses that nobody has looked at."""
        sql = f"SELECT {_ANSWER} FROM gate_answer WHERE break_glass = 1 AND reviewed_us IS NULL ORDER BY at_us, by"  # noqa: S608
        return [_answer(row) for row in self._sql.execute(sql).fetchall()]

    def review(self, gate: str, nonce: str, by: str, *, reviewer: str, text: str, at_us: int) -> None:
        """Record the review of one."""
        changed = self._sql.execute(
            "UPDATE gate_answer SET reviewed_by = ?, reviewed_us = ?, review = ? "
            "WHERE gate = ? AND nonce = ? AND by = ? AND break_glass = 1 AND reviewed_us IS NULL",
            (reviewer, at_us, text, gate, nonce, by),
        ).rowcount
        if changed != 1:
            raise GateNotUsable(f"no answer of `{by}` to gate `{gate}` waits for a review")

    def history(self, *, since_us: int = 0, limit: int = 10_000) -> Sequence[tuple[GateRow, GateAnswer]]:
        """Answers with their gates, newest first."""
        gate = ", ".join(f"g.{name}" for name in _GATE.split(", "))
        answer = ", ".join(f"a.{name}" for name in _ANSWER.split(", "))
        sql = (
            f"SELECT {gate}, {answer} FROM gate_answer a JOIN gate g ON g.id = a.gate "  # noqa: S608
            "WHERE a.at_us >= ? ORDER BY a.at_us DESC, a.gate LIMIT ?"
        )
        wide = len(fields(GateRow))
        rows = self._sql.execute(sql, (since_us, limit)).fetchall()
        return [(GateRow(*row[:wide]), _answer(row[wide:])) for row in rows]

    def consume(self, gate: str, *, digest: str, at_us: int) -> GateRow:
        """Use an approval once, for the very action it was given for."""
        row = self.get(gate)
        if row is None:
            raise GateNotUsable(f"gate `{gate}` does not exist")
        if row.status != "approved":
            raise GateNotUsable(f"gate `{gate}` is {row.status}, so it allows nothing")
        if at_us > row.expires_us:
            raise GateNotUsable(f"gate `{gate}` has expired, which counts as no")
        if row.digest != digest:
            raise GateNotUsable(f"gate `{gate}` was approved for another action")
        self._sql.execute("UPDATE gate SET status = 'used' WHERE id = ? AND status = 'approved'", (gate,))
        return replace(row, status="used")

    def expire(self, at_us: int) -> Sequence[str]:
        """Close what nobody answered in time."""
        late = [
            row[0]
            for row in self._sql.execute(
                "SELECT id FROM gate WHERE status = 'open' AND expires_us < ? ORDER BY id", (at_us,)
            ).fetchall()
        ]
        self._close_late(late, at_us)
        return late

    def overdue(self, at_us: int) -> bool:
        """Say whether `expire` would close anything."""
        sql = "SELECT 1 FROM gate WHERE status = 'open' AND expires_us < ? LIMIT 1"
        return self._sql.execute(sql, (at_us,)).fetchone() is not None

    def ready(self, since_us: int) -> Sequence[str]:
        """Runs that can go on."""
        sql = (  # CROSS: from the few that were just answered, not from the many runs that wait
            "SELECT g.run FROM gate g CROSS JOIN run r ON r.id = g.run "
            "WHERE g.answered_us >= ? AND r.status = 'waiting' AND g.answered_us >= r.ended_us"
        )
        return sorted({row[0] for row in self._sql.execute(sql, (since_us,)).fetchall()})

    def reopen(self, row: GateRow) -> GateRow:
        """Replace a closed gate by a new open one."""
        old = self.get(row.id)
        if old is not None and old.status in ("open", "approved") and row.opened_us <= old.expires_us:
            raise GateNotUsable(f"gate `{row.id}` is {old.status}; it needs no reopening")
        if old is not None and row.nonce == old.nonce:
            raise ValueError("a gate that asks again needs a new nonce")
        return self._replace(row)

    def amend(self, row: GateRow) -> GateRow:
        """Replace a gate that waits, or was approved and not used, by one that asks for another action."""
        old = self.get(row.id)
        if old is None or old.status not in ("open", "approved"):
            raise GateNotUsable(
                f"gate `{row.id}` is {'gone' if old is None else old.status}; only what waits can be changed"
            )
        if row.nonce == old.nonce:
            raise ValueError("a gate that asks again needs a new nonce")
        return self._replace(row)

    def escalating(self) -> Sequence[GateRow]:
        """Open, escalating, not announced; the terms' text says `at_us` where a need escalates."""
        sql = f"SELECT {_GATE} FROM gate WHERE status = 'open' AND escalated_us IS NULL AND terms LIKE '%\"at_us\"%'"  # noqa: S608
        return [GateRow(*row) for row in self._sql.execute(sql).fetchall()]

    def escalate(self, gate: str, *, at_us: int) -> bool:
        """Note the first announcement."""
        sql = "UPDATE gate SET escalated_us = ? WHERE id = ? AND escalated_us IS NULL AND status = 'open'"
        return self._sql.execute(sql, (at_us, gate)).rowcount == 1

    def _replace(self, row: GateRow) -> GateRow:
        self._silence([row.id])
        self._sql.execute("DELETE FROM gate WHERE id = ?", (row.id,))
        return self.open(row)

    def _close_late(self, gates: Sequence[str], at_us: int) -> None:
        sql = "UPDATE gate SET status = 'expired', answered_us = ? WHERE id = ?"
        self._sql.executemany(sql, [(at_us, gate) for gate in gates])
        self._silence(gates)

    def _silence(self, gates: Sequence[str]) -> None:
        """Take what was not sent out of what is looked through at each pass; it is no longer due anyway."""
        sql = "UPDATE notice SET next_us = ? WHERE gate = ? AND sent_us IS NULL"
        self._sql.executemany(sql, [(_NEVER, gate) for gate in gates])


def _answer(row: Sequence[Any]) -> GateAnswer:
    found = GateAnswer(*row)
    return replace(found, break_glass=bool(found.break_glass))
