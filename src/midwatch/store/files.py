"""Files: which call left which content at which path, so that who reads it later can be told of it.

In:   events that say what a call was seen to do, commits, discards. Out: edges from writers to readers; versions.
May import: store.connection, records. Must not know: sandboxes, workspaces on disk, who asks.

What a call read or executed is known by path, mostly by content, too; what it changed, by the content that it found. A version of that
content at that path is what the call saw. Where none is, or the content was not told, or may not be what the call saw, the path decides:
of a run's own staged files the last version before the call began is what it saw; a version that came in while the call ran, or that
another run committed, may be, or have been in part: that edge says `may`. What was changed leads back by its content or not at all. A hash
detects change and nothing more.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, Final, Protocol

import orjson

from midwatch.records.edge import EdgeKind
from midwatch.records.event import EventDraft
from midwatch.store.connection import Connection
from midwatch.store.history import FileVersion

__all__ = ["Blobs", "SqlFiles"]

_CHANGING: Final = ("created", "modified", "deleted", "permission")
_CHUNK: Final = 500
_STAGED: Final = (
    "SELECT f.path, f.seq, f.sha256 FROM json_each(?) j CROSS JOIN file_version f ON f.run = ? AND f.path = j.value "
    "WHERE f.committed IS NULL AND f.seq < ? ORDER BY f.seq"
)
_COMMITTED: Final = (
    "SELECT j.value, f.seq, f.sha256 FROM json_each(?) j CROSS JOIN file_version f ON f.rowid = ("
    "SELECT v.rowid FROM file_version v WHERE v.workspace = ? AND v.path = j.value AND v.committed IS NOT NULL "
    "ORDER BY v.committed DESC, v.seq DESC LIMIT 1)"
)
_SAME: Final = (
    "SELECT seq FROM file_version WHERE workspace = ? AND path = ? AND committed IS NOT NULL AND sha256 = ? "
    "ORDER BY committed DESC, seq DESC LIMIT 1"
)
_LATEST: Final = (
    "SELECT DISTINCT seq FROM file_version f WHERE f.run = ? AND f.committed IS NULL AND NOT EXISTS ("
    "SELECT 1 FROM file_version v WHERE v.run = f.run AND v.path = f.path AND v.committed IS NULL AND v.seq > f.seq)"
)

_HELD: Final = "SELECT DISTINCT f.seq FROM file_version f WHERE f.run = ? AND f.committed IS NULL"
_LAID: Final = (
    "SELECT DISTINCT f.seq FROM file_version f WHERE f.workspace = ? AND f.committed IS NOT NULL AND NOT EXISTS ("
    "SELECT 1 FROM file_version v WHERE v.workspace = f.workspace AND v.path = f.path AND v.committed > f.committed)"
)
_ALL: Final = (
    "SELECT DISTINCT f.seq FROM (SELECT workspace, path, max(committed) AS last FROM file_version WHERE workspace = ? "
    "AND committed IS NOT NULL GROUP BY workspace, path) l JOIN file_version f "
    "ON f.workspace = l.workspace AND f.path = l.path AND f.committed = l.last"
)
"""The same over the whole workspace: its index is read once, in order."""
_AT: Final = " AND f.path = ?"
_BELOW: Final = " AND f.path >= ? AND f.path < ?"
"""What lies in a folder: `0` is the character after `/`. Apart from the path itself, so that each is one range of an index."""
_OF_PATHS: Final = " AND f.path IN (SELECT value FROM json_each(?))"

_Row = tuple[int, int, str, str | None]
_Found = tuple[int, bytes | None]


class Blobs(Protocol):
    """What is needed of the bodies."""

    def get(self, digest: str) -> bytes | None:
        """Read a body."""


class SqlFiles:
    """Versions of files in one database."""

    __slots__ = ("_blobs", "_sql")

    def __init__(self, connection: Connection, blobs: Blobs) -> None:
        self._sql, self._blobs = connection, blobs

    def blob(self, digest: Any) -> Any:
        """Read a body as JSON; None where there is none."""
        body = self._blobs.get(digest) if isinstance(digest, str) else None
        return None if body is None else orjson.loads(body)

    def paths_of(self, draft: EventDraft) -> list[str] | None:
        """Give the paths that a commit is about to write; None where it names none, so all."""
        found = self.blob(draft.data.get("paths_blob"))
        return found if isinstance(found, list) else None

    def observe(self, seq: int, draft: EventDraft) -> list[_Row]:
        """Take in what a call was seen to do; gives the edges from those whose files it met."""
        changes = (self.blob(draft.data["observed"].get("blob")) or {}).get("changes", ())
        if not changes:
            return []
        run, workspace = draft.run or "", self._workspace(draft.run)
        edges = list(self._met(seq, min(draft.causes, default=seq), run, workspace, changes))
        rows = [
            (run, item["path"], seq, workspace, _content(item))
            for item in changes
            if item["op"] in _CHANGING and (item["kind"] in ("file", "link") or item["op"] == "deleted")
        ]
        self._sql.executemany(
            "INSERT OR IGNORE INTO file_version (run, path, seq, workspace, sha256) VALUES (?, ?, ?, ?, ?)", rows
        )
        return edges

    def _met(
        self, seq: int, began: int, run: str, workspace: str, changes: Sequence[Mapping[str, Any]]
    ) -> Iterator[_Row]:
        looked = {item["path"]: item["op"] for item in changes if item["op"] in ("read", "executed")}
        found = {item["path"]: bytes.fromhex(item["before"]) for item in changes if item.get("before")}
        paths = sorted(looked.keys() | found.keys())
        if not paths:
            return
        staged: dict[str, list[_Found]] = {}
        for path, at, digest in self._sql.execute(_STAGED, (orjson.dumps(paths).decode(), run, seq)).fetchall():
            staged.setdefault(path, []).append((at, digest))
        for path, digest in found.items():
            yield from self._changed(seq, workspace, path, digest, staged.get(path, ()))
        own = {item["path"] for item in changes if item["op"] in _CHANGING}
        told = {item["path"]: digest for item in changes if (digest := _seen(item)) and item["path"] not in own}
        rest: list[str] = []
        for path, op in looked.items():
            edges = list(_of_run(began, staged.get(path, ()), told.get(path)))
            yield from ((at, seq, _sure(op) if sure else _unsure(op), path) for at, sure in edges)
            if not any(sure for _, sure in edges) and (
                path in told or not any(at < began for at, _ in staged.get(path, ()))
            ):
                rest.append(path)
        for path, at, digest in self._sql.execute(_COMMITTED, (orjson.dumps(rest).decode(), workspace)).fetchall():
            saw = told.get(path)
            same = at if saw is not None and digest == saw else None
            if saw is not None and same is None:
                same = self._same(workspace, path, saw)
            if same is not None:
                yield same, seq, _sure(looked[path]), path
            elif digest is not None:
                yield at, seq, _unsure(looked[path]), path

    def _changed(self, seq: int, workspace: str, path: str, digest: bytes, staged: Sequence[_Found]) -> Iterator[_Row]:
        """What a call changed it found first; whose content that was is told by the content alone."""
        own = next((at for at, left in reversed(staged) if left == digest), None)
        if own is None:
            own = self._same(workspace, path, digest)
        if own is not None:
            yield own, seq, "changed", path

    def _same(self, workspace: str, path: str, digest: bytes) -> int | None:
        """Give the last call whose very content was committed at this path."""
        row = self._sql.execute(_SAME, (workspace, path, digest)).fetchone()
        return None if row is None else int(row[0])

    def staged(self, run: str, paths: Collection[str] | None = None) -> list[int]:
        """Give the calls whose versions are what would be committed; of these paths."""
        if paths is None:
            return [row[0] for row in self._sql.execute(_LATEST, (run,)).fetchall()]
        found = self._sql.execute(_LATEST + _OF_PATHS, (run, orjson.dumps(list(paths)).decode()))
        return [row[0] for row in found.fetchall()]

    def commit(self, run: str, seq: int, workspace: str | None, paths: Sequence[str] | None) -> None:
        """Note that a run's versions are in the workspace now; what was overwritten before that never was."""
        some, values = _some(paths)
        self._sql.execute(
            f"DELETE FROM file_version WHERE run = ? AND committed IS NULL{some} AND EXISTS ("  # noqa: S608 - our own words
            "SELECT 1 FROM file_version v WHERE v.run = file_version.run AND v.path = file_version.path "
            "AND v.committed IS NULL AND v.seq > file_version.seq)",
            (run, *values),
        )
        self._sql.execute(
            f"UPDATE file_version SET committed = ?, workspace = coalesce(?, workspace) "  # noqa: S608 - our own words
            f"WHERE run = ? AND committed IS NULL{some}",
            (seq, workspace, run, *values),
        )

    def discard(self, run: str, paths: Sequence[str] | None) -> None:
        """Forget versions that nobody can read any more."""
        some, values = _some(paths)
        self._sql.execute(
            f"DELETE FROM file_version WHERE run = ? AND committed IS NULL{some}",  # noqa: S608 - our own words
            (run, *values),
        )

    def writers(self, run: str, paths: Collection[str] | None, limit: int) -> list[int]:
        """Give the calls whose versions lie at or below these paths, staged in the run or last committed to its workspace."""
        workspace, found = self._workspace(run), set[int]()
        wanted: list[tuple[str, tuple[str, ...]]] = [("", ())]
        if paths is not None:
            below = [(_BELOW, (f"{path}/", f"{path}0")) for path in paths]
            wanted = [*((_AT, (path,)) for path in paths), *below]
        for where, values in wanted:
            for sql, place in ((_HELD, run), (_ALL if paths is None else _LAID, workspace)):
                rows = self._sql.execute(f"{sql}{where} LIMIT ?", (place, *values, limit))
                found.update(row[0] for row in rows.fetchall())
            if len(found) >= limit:
                break
        return sorted(found)[:limit]

    def committed(self, seqs: Collection[int]) -> list[FileVersion]:
        """Give what these calls left and was committed."""
        found: list[FileVersion] = []
        wanted = sorted(seqs)
        for start in range(0, len(wanted), _CHUNK):
            part = wanted[start : start + _CHUNK]
            rows = self._sql.execute(
                "SELECT workspace, path, run, seq, sha256, committed FROM file_version "  # noqa: S608 - `?` only
                f"WHERE seq IN ({', '.join('?' * len(part))}) AND committed IS NOT NULL ORDER BY seq, path",
                part,
            )
            for workspace, path, run, seq, digest, at in rows.fetchall():
                found.append(FileVersion(workspace, path, run, seq, None if digest is None else digest.hex(), at))
        return found

    def _workspace(self, run: str | None) -> str:
        """Read where a run works: its first event says so."""
        row = self._sql.execute("SELECT body FROM event WHERE run = ? ORDER BY seq LIMIT 1", (run,)).fetchone()
        return "" if row is None else str(orjson.loads(row[0])["data"].get("workdir") or "")


def _content(change: Mapping[str, Any]) -> bytes | None:
    digest = None if change["op"] == "deleted" else change.get("sha256") or change.get("before")
    return None if digest is None else bytes.fromhex(digest)


def _of_run(began: int, staged: Sequence[_Found], saw: bytes | None) -> Iterator[tuple[int, bool]]:
    """Give the calls of the same run whose version a call looked at, and whether that is sure.

    Args:
        began: when the call did. staged: versions, oldest first. saw: the content, where it is known.
    """
    before, later = [item for item in staged if item[0] < began], [item for item in staged if item[0] > began]
    same = [at for at, left in (*later, *before) if saw is not None and left == saw]
    if same:
        yield same[-1], True
        return
    if before and before[-1][1] is not None:
        yield before[-1][0], not later and saw is None
    yield from ((at, False) for at, left in later if left is not None)


def _seen(look: Mapping[str, Any]) -> bytes | None:
    """Give the content that a call saw; None where that is not sure."""
    digest = look.get("sha256") if look["op"] in ("read", "executed") and "moved" not in look.get("flags", ()) else None
    return None if digest is None else bytes.fromhex(digest)


def _sure(op: str) -> EdgeKind:
    return "executed" if op == "executed" else "read"


def _unsure(op: str) -> EdgeKind:
    return "may-execute" if op == "executed" else "may-read"


def _some(paths: Sequence[str] | None) -> tuple[str, tuple[str, ...]]:
    if paths is None:
        return "", ()
    return " AND path IN (SELECT value FROM json_each(?))", (orjson.dumps(list(paths)).decode(),)
