"""Causes: the index of what led to what: edges between events, versions of files, marks of quarantine.

In:   every event, from the ledger, as it is appended. Out: `store.history.Causes`.
May import: store.connection, store.files, records, errors. Must not know: who asks, how an answer is shown.

Why a flag for the event just before: most events are caused by it, and a row of another table costs a page at every commit. So
`event.follows` says it, and `cause` holds all other edges. Towards the causes an event's own body is read; the table is
searched that way only for edges that no body names (`cause_to`).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, ClassVar, Final

import orjson

from midwatch.records.edge import Edge, EdgeKind
from midwatch.records.event import EventDraft
from midwatch.store.connection import Connection
from midwatch.store.files import Blobs, SqlFiles
from midwatch.store.history import FileVersion, Reached

__all__ = ["SqlCauses", "rebuild"]

_Row = tuple[int, int, str, str | None]
_INSERT: Final = "INSERT OR IGNORE INTO cause (from_seq, to_seq, kind, note) VALUES (?, ?, ?, ?)"
_STEPS: Final = (
    "UNION SELECT c.to_seq FROM reach JOIN cause c ON c.from_seq = reach.seq "
    "UNION SELECT e.seq FROM reach JOIN event e ON e.seq = reach.seq + 1 AND e.follows = 1 "
)
_FROM_EVENT: Final = f"WITH RECURSIVE reach(seq) AS (VALUES(?) {_STEPS}"
_FROM_RUN: Final = f"WITH RECURSIVE reach(seq) AS (SELECT seq FROM event WHERE run = ? {_STEPS}"  # noqa: S608 - our own words
_SHOWN: Final = "LIMIT ?) SELECT reach.seq, event.kind, event.run FROM reach CROSS JOIN event ON event.seq = reach.seq"
_MARK: Final = "INSERT OR IGNORE INTO quarantine (seq, by_seq) "
_MARKED: Final = ") SELECT seq, ? FROM reach WHERE seq <> ?"
_MARKS_OF: Final = "SELECT ?, by_seq FROM quarantine WHERE seq = ?"
_LAST: Final = "SELECT seq, body FROM event WHERE run = ? AND seq < ? AND kind = ? ORDER BY seq DESC LIMIT 1"
_RECENT: Final = 200
"""Events of a run that are looked through for an agent's last result."""
_CHUNK: Final = 500


class SqlCauses:
    """`store.history.Causes`; one instance a transaction, which the ledger tells of each event."""

    __slots__ = ("_active", "_files", "_rows", "_seen", "_sql", "_used")

    def __init__(self, connection: Connection, blobs: Blobs, *, marks: bool = True) -> None:
        self._sql, self._files = connection, SqlFiles(connection, blobs)
        self._rows: list[_Row] = []
        self._seen: list[tuple[int, str | None]] = []
        self._used: tuple[int, str | None, str] | None = None
        self._active: bool | None = None if marks else False

    # ------------------------------------------------------------------------------------------------- from the ledger

    def add(self, seq: int, draft: EventDraft) -> None:
        """Take in an event that was just appended."""
        self._seen.append((seq, draft.run))
        for cause in draft.causes:
            self._rows.append((cause, seq, "cause", None))
        handle = self._HANDLERS.get(draft.kind)
        if handle is not None and draft.run is not None:
            handle(self, seq, draft)

    def flush(self) -> None:
        """Write what was taken in; before the transaction ends, and before anything is read."""
        if not self._seen:
            return
        rows = [row for row in self._rows if row[0] != row[1] - 1 or row[2] != "cause"]
        if rows:
            self._sql.executemany(_INSERT, rows)
        if self._active is None:
            self._active = self._sql.execute("SELECT 1 FROM quarantine LIMIT 1").fetchone() is not None
        if self._active:
            self._spread()
        self._rows, self._seen = [], []

    def _observed(self, seq: int, draft: EventDraft) -> None:
        if draft.data.get("observed"):
            self._rows += self._files.observe(seq, draft)

    def _opened(self, seq: int, draft: EventDraft) -> None:
        if draft.task == "release":
            self._many(self._files.staged(draft.run or ""), seq, "released")

    def _releasing(self, seq: int, draft: EventDraft) -> None:
        self._gate_spent(seq, draft.run, draft.data.get("gate"))
        self._many(self._files.staged(draft.run or "", self._files.paths_of(draft)), seq, "released")

    def _discarded(self, _: int, draft: EventDraft) -> None:
        self._files.discard(draft.run or "", draft.data.get("paths"))

    def _ended(self, seq: int, draft: EventDraft) -> None:
        run = draft.run or ""
        found = self._last(run, seq, "handoff") or self._last(run, seq, "node.finished")
        self._many(() if found is None else (found[0],), seq, "ended")

    def _many(self, causes: Collection[int], seq: int, kind: EdgeKind, note: str | None = None) -> None:
        self._rows += [(cause, seq, kind, note) for cause in causes]

    def _intent(self, seq: int, draft: EventDraft) -> None:
        """An action that a gate's yes was just used for."""
        self._gate_spent(seq, draft.run, draft.data.get("effect"))
        self._first(seq, draft)

    def _first(self, seq: int, draft: EventDraft) -> None:
        """The first call of an agent names nothing itself: the plan sent it, or it was handed what others had done."""
        if draft.causes or draft.agent is None or draft.run is None:
            return
        plan = self._last(draft.run, seq, "plan")
        if plan is None:
            return
        body = self._files.blob(plan[1]["data"].get("plan_blob"))
        dispatched = [item.get("agent") for item in body.get("dispatches", ())] if isinstance(body, dict) else []
        if draft.agent in dispatched:
            self._many((plan[0],), seq, "dispatch")
            return
        found = self._sql.execute(
            "SELECT seq FROM event WHERE run = ? AND seq > ? AND seq < ? AND kind = 'handoff'",
            (draft.run, plan[0], seq),
        )
        self._many([row[0] for row in found.fetchall()], seq, "handoff")

    def _handoff(self, seq: int, draft: EventDraft) -> None:
        """An agent that gave up names nothing: what it gave up after is its own last result, or the plan that sent it."""
        if draft.causes:
            return
        found = self._sql.execute(
            "SELECT seq, kind, body FROM event WHERE run = ? AND seq < ? ORDER BY seq DESC LIMIT ?",
            (draft.run, seq, _RECENT),
        )
        for before, kind, body in found.fetchall():
            if kind == "finished" and orjson.loads(body)["agent"] == draft.agent:
                self._many((before,), seq, "handoff")
                return

    def _gate_used(self, seq: int, draft: EventDraft) -> None:
        gate = str(draft.data.get("gate"))
        self._used = (seq, draft.run, gate)
        found = self._sql.execute(
            "SELECT seq, body FROM event WHERE run = ? AND seq < ? AND kind = 'gate.answered' ORDER BY seq DESC",
            (draft.run, seq),
        )
        for before, body in found:
            if orjson.loads(body)["data"].get("gate") == gate:
                self._many((before,), seq, "gate")
                return

    def _gate_spent(self, seq: int, run: str | None, gate: Any) -> None:
        """The yes is used up in the event just before the action that it is for."""
        if self._used is not None and self._used == (seq - 1, run, gate):
            self._many((seq - 1,), seq, "gate")

    def _committed(self, seq: int, draft: EventDraft) -> None:
        run = draft.run or ""
        begun = self._last(run, seq, "effects.releasing")
        if begun is not None:
            self._many((begun[0],), seq, "released")
        workspace = None if begun is None else begun[1]["data"].get("workspace")
        self._files.commit(run, seq, workspace, draft.data.get("paths"))

    def _last(self, run: str, seq: int, kind: str) -> tuple[int, dict[str, Any]] | None:
        row = self._sql.execute(_LAST, (run, seq, kind)).fetchone()
        return None if row is None else (row[0], orjson.loads(row[1]))

    _HANDLERS: ClassVar[Mapping[str, Callable[[SqlCauses, int, EventDraft], None]]] = {
        "proposed": _first,
        "intent": _intent,
        "finished": _observed,
        "effect.undone": _observed,
        "effect.resolved": _observed,
        "effect.in_doubt": _observed,
        "handoff": _handoff,
        "gate.opened": _opened,
        "gate.used": _gate_used,
        "effects.releasing": _releasing,
        "effects.committed": _committed,
        "effects.discarded": _discarded,
        "run.finished": _ended,
    }
    """What is read out of an event besides its causes, by its kind."""

    # ---------------------------------------------------------------------------------------------------------- edges

    def before(self, seq: int) -> Sequence[Edge]:
        """Give the edges that lead to an event."""
        self.flush()
        row = self._sql.execute("SELECT run, kind, body FROM event WHERE seq = ?", (seq,)).fetchone()
        if row is None:
            return []
        edges = [Edge(cause, seq, "cause") for cause in dict.fromkeys(orjson.loads(row[2])["causes"])]
        found = self._sql.execute(
            "SELECT from_seq, kind, note FROM cause WHERE to_seq = ? AND kind <> 'cause'", (seq,)
        ).fetchall()
        edges += [Edge(cause, seq, kind, note) for cause, kind, note in found]
        if not edges:
            edges += [Edge(first, seq, "request") for first in self._beginning(row[0], seq)]
        return sorted(edges, key=lambda edge: (edge.cause, edge.kind))

    def after(self, seq: int, *, limit: int = 1000) -> Sequence[Edge]:
        """Give the edges that lead away from an event."""
        self.flush()
        rows = self._sql.execute(
            "SELECT to_seq, kind, note FROM cause WHERE from_seq = ? "
            "UNION ALL SELECT seq, 'cause', NULL FROM event WHERE seq = ? + 1 AND follows = 1 ORDER BY 1 LIMIT ?",
            (seq, seq, limit),
        ).fetchall()
        edges = [Edge(seq, effect, kind, note) for effect, kind, note in rows]
        run = self._begins(seq)
        if run is not None and len(edges) < limit:
            later = self._sql.execute(
                "SELECT seq FROM event WHERE run = ? AND seq > ? ORDER BY seq LIMIT ?", (run, seq, limit)
            ).fetchall()
            bare = [item for (item,) in later if any(edge.kind == "request" for edge in self.before(item))]
            edges += [Edge(seq, item, "request") for item in bare]
        return sorted(edges, key=lambda edge: (edge.effect, edge.kind))[:limit]

    def reach(self, seq: int, *, limit: int) -> Sequence[Reached]:
        """Give a forward closure, nearest first."""
        self.flush()
        forward, seed = self._forward(seq)
        return [Reached(*row) for row in self._sql.execute(forward + _SHOWN, (seed, limit)).fetchall()]

    def _forward(self, seq: int) -> tuple[str, int | str]:
        """Give the first half of the statement that follows the edges, and its value."""
        run = self._begins(seq)
        return (_FROM_EVENT, seq) if run is None else (_FROM_RUN, run)

    def _beginning(self, run: str | None, seq: int) -> list[int]:
        """Give the event with which a run began, if it came before `seq`."""
        row = self._sql.execute("SELECT seq, kind FROM event WHERE run = ? ORDER BY seq LIMIT 1", (run,)).fetchone()
        return [row[0]] if row is not None and row[1] == "run.created" and row[0] < seq else []

    def _begins(self, seq: int) -> str | None:
        """Give the run whose beginning an event is: everything of the run follows from it."""
        row = self._sql.execute("SELECT run FROM event WHERE seq = ? AND kind = 'run.created'", (seq,)).fetchone()
        return None if row is None else row[0]

    def committed(self, seqs: Collection[int]) -> Sequence[FileVersion]:
        """Give the versions of these calls that were committed."""
        return self._files.committed(seqs)

    def writers(self, run: str, paths: Collection[str] | None, *, limit: int) -> Sequence[int]:
        """Give the calls that left what is there."""
        self.flush()
        return self._files.writers(run, paths, limit)

    def lacks(self, seq: int, causes: Sequence[int], *, follows: bool) -> bool:
        """Say whether the index differs from what an event says of its causes."""
        if follows != (seq - 1 in causes):
            return True
        sql = "SELECT 1 FROM cause WHERE from_seq = ? AND to_seq = ? AND kind = 'cause'"
        return any(cause != seq - 1 and self._sql.execute(sql, (cause, seq)).fetchone() is None for cause in causes)

    # ----------------------------------------------------------------------------------------------------- quarantine

    def quarantine(self, seq: int, *, by: int) -> int:
        """Mark a forward closure, whole."""
        self.flush()
        forward, seed = self._forward(seq)
        done = self._sql.execute(_MARK + forward + _MARKED, (seed, by, by))
        self._active = True
        return done.rowcount

    def lift(self, by: int) -> int:
        """Take one quarantine's marks away."""
        self.flush()
        self._active = None
        return self._sql.execute("DELETE FROM quarantine WHERE by_seq = ?", (by,)).rowcount

    def marks(self, seq: int) -> Sequence[int]:
        """Give every event on account of which this one is marked."""
        self.flush()
        found = self._sql.execute("SELECT by_seq FROM quarantine WHERE seq = ? ORDER BY by_seq", (seq,))
        return [row[0] for row in found.fetchall()]

    def quarantined(self, seqs: Collection[int]) -> Mapping[int, int]:
        """Give the marked ones of these events."""
        self.flush()
        found: dict[int, int] = {}
        wanted = list(dict.fromkeys(seqs))
        for start in range(0, len(wanted), _CHUNK):
            part = wanted[start : start + _CHUNK]
            marks = ", ".join("?" * len(part))
            rows = self._sql.execute(
                f"SELECT seq, min(by_seq) FROM quarantine WHERE seq IN ({marks}) GROUP BY seq",  # noqa: S608 - `?` only
                part,
            )
            found.update(rows.fetchall())
        return found

    def _spread(self) -> None:
        """Mark what follows from what is marked; in order, so that one new event marks the next."""
        sources: dict[int, list[int]] = {}
        for cause, effect, _, _ in self._rows:
            sources.setdefault(effect, []).append(cause)
        for seq, run in self._seen:
            for cause in sources.get(seq) or self._beginning(run, seq):
                self._sql.execute(_MARK + _MARKS_OF, (seq, cause))


def rebuild(connection: Connection, blobs: Blobs) -> None:
    """Make edges and versions anew from the events of the whole ledger, in the caller's transaction. Marks of quarantine stay."""
    for table in ("cause", "file_version"):
        connection.execute(f"DELETE FROM {table}")  # noqa: S608 - our own words
    causes, after = SqlCauses(connection, blobs, marks=False), 0
    while True:
        rows = connection.execute(
            "SELECT seq, body FROM event WHERE seq > ? ORDER BY seq LIMIT ?", (after, 10 * _CHUNK)
        )
        found = rows.fetchall()
        if not found:
            return
        following: list[tuple[int]] = []
        for seq, body in found:
            read = orjson.loads(body)
            read.pop("seq")
            draft = EventDraft(**{**read, "causes": tuple(read["causes"])})
            causes.add(seq, draft)
            if seq - 1 in draft.causes:
                following.append((seq,))
        causes.flush()
        connection.executemany("UPDATE event SET follows = 1 WHERE seq = ?", following)
        after = found[-1][0]
