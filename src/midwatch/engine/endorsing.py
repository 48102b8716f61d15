"""Endorsing: what a person says about a changed version of our own authority: let it count, or not.

In:   the id of a version, its digest as the person saw it, who speaks. Out: the version and the event of the answer.
May import: `authority`, the manners of `answering`, identity, quarantine, records, store (port), errors. Must not know: fleet files on
disk, commands.

An endorsement is of one digest in the place of another one: whoever changes the file after it was looked at changes the digest, and what
was said does not hold for that. It adds who said it to the causes and takes none away.
Source: CONTAINMENT.md, clauses 24, 27, 28.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import orjson

from midwatch.config.resources import is_tool
from midwatch.engine import quarantine
from midwatch.engine.answering import clean, in_words
from midwatch.engine.authority import lacks, row_json
from midwatch.engine.identity import present, require
from midwatch.engine.rightful import FILE
from midwatch.errors import Denied, GateNotUsable
from midwatch.gates.review import LOCAL, Speaker
from midwatch.records.authority import ABSENT, AuthorityRow
from midwatch.records.event import EventDraft
from midwatch.records.gate import GateRow
from midwatch.store.port import Store, Tx

__all__ = ["Answered", "Waiting", "diff", "endorse", "find", "pending", "reject", "to_json"]

_LEAST: Final = 12
"""Digits of a digest that name it."""


@dataclass(frozen=True, slots=True)
class Answered:
    """What became of a version. epoch: of the home's authority, since then."""

    version: str
    kind: str
    name: str
    state: str
    event: int
    epoch: int


@dataclass(frozen=True, slots=True)
class Waiting:
    """What waits for a person: versions of our own authority, and commits that a person must let go because of what they give to whom."""

    versions: tuple[AuthorityRow, ...]
    commits: tuple[GateRow, ...]


def pending(store: Store, *, place: str | None = None) -> Waiting:
    """List what waits, oldest first."""

    def work(tx: Tx) -> Waiting:
        gates = () if place is not None else tx.gates.list(statuses=("open",))
        commits = tuple(gate for gate in gates if gate.kind == "release")
        return Waiting(tuple(tx.authority.list(place=place, states=("pending",), limit=10_000)), commits)

    return store.read(work)


def find(store: Store, prefix: str) -> AuthorityRow:
    """Give a version by its id, or the beginning of it. NotFound, Ambiguous: as ids everywhere."""
    return store.read(lambda tx: tx.authority.find(prefix))


def diff(store: Store, prefix: str) -> tuple[AuthorityRow, str]:
    """Give a version and what it changes, line by line, against what it is to replace."""

    def work(tx: Tx) -> tuple[AuthorityRow, str]:
        row = tx.authority.find(prefix)
        before = _before(tx, row)
        old, new = _lines(tx, before), _lines(tx, row)
        said = "nothing" if before is None else f"version {before.number} ({before.digest[:_LEAST]})"
        lines = difflib.unified_diff(old, new, said, f"version {row.number} ({row.digest[:_LEAST]})", lineterm="")
        return row, "\n".join(lines)

    return store.read(work)


def endorse(store: Store, version: str, *, digest: str, speaker: Speaker, reason: str = "", at_us: int) -> Answered:
    """Let a version count from the next run on.

    Args:
        digest: of the version, as it was looked at; at least its first 12 digits.

    Raises:
        Denied: it takes an approver whose reach covers what it grants, and not who asked for the run that made it; or it was quarantined.
        GateNotUsable: it is another version by now, or was answered already.
    """
    reason = in_words(reason)

    def work(tx: Tx) -> Answered:
        who, row = present(tx, speaker), tx.authority.find(version)
        require(who, "approver", "endorse a version")
        _same(row, digest)
        _current(tx, row)
        _entitled(tx, who, row)
        data = {"by": who.name, "channel": who.channel, "place": row.place, "reason": clean(tx, reason)}
        data["versions"] = [{**row_json(row), "why": row.why}]  # type: ignore[assignment]
        seq = tx.ledger.append(EventDraft("authority.endorsed", None, at_us, data, causes=(row.seq,)))
        tx.authority.answer(row.id, state="endorsed", by=who.name, at_us=at_us, seq=seq)
        return Answered(row.id, row.kind, row.name, "endorsed", seq, tx.authority.raise_epoch())

    return store.write(work, durable=True)


def reject(store: Store, version: str, *, speaker: Speaker, reason: str = "", at_us: int) -> Answered:
    """Say that a version shall not count; the endorsed one stays.

    Raises:
        Denied: it takes an approver. GateNotUsable: it was answered already.
    """
    reason = in_words(reason)

    def work(tx: Tx) -> Answered:
        who, row = present(tx, speaker), tx.authority.find(version)
        require(who, "approver", "reject a version")
        data = {**row_json(row), "by": who.name, "channel": who.channel, "reason": clean(tx, reason)}
        seq = tx.ledger.append(EventDraft("authority.rejected", None, at_us, data, causes=(row.seq,)))
        tx.authority.answer(row.id, state="rejected", by=who.name, at_us=at_us, seq=seq)
        return Answered(row.id, row.kind, row.name, "rejected", seq, tx.authority.raise_epoch())

    return store.write(work, durable=True)


def to_json(row: AuthorityRow) -> dict[str, Any]:
    """Give what is shown of a version."""
    return {
        "id": row.id,
        "fleet": row.fleet,
        "place": row.place,
        "kind": row.kind,
        "name": row.name,
        "number": row.number,
        "state": row.state,
        "digest": row.digest,
        "predecessor": row.predecessor,
        "gone": row.digest == ABSENT,
        "why": row.why,
        "label": orjson.loads(row.label),
        "asked_by": row.asked_by or None,
        "at_us": row.at_us,
        "event": row.seq,
        "answered_by": row.answered_by,
        "answered_us": row.answered_us,
    }


def _same(row: AuthorityRow, digest: str) -> None:
    if row.resource == FILE:
        raise Denied("this is no fleet file that could count; correct the file, or reject the version")
    if row.state != "pending":
        raise GateNotUsable(
            f"version `{row.id[:8]}` is {row.state} already; `midwatch grants pending` lists what waits"
        )
    if len(digest) < _LEAST or not row.digest.startswith(digest):
        raise GateNotUsable(
            f"version `{row.id[:8]}` has the digest `{row.digest[:_LEAST]}`, not `{digest[:64]}`; "
            f"look at it again with `midwatch grants diff {row.id[:8]}`"
        )


def _current(tx: Tx, row: AuthorityRow) -> None:
    """What was compared with one version does not replace another one."""
    now = _pin(tx, row)
    if (None if now is None else now.digest) != row.predecessor:
        raise GateNotUsable(
            f"another version of `{row.kind}/{row.name}` was endorsed since this one was compared; start a run, then look again"
        )


def _entitled(tx: Tx, who: Speaker, row: AuthorityRow) -> None:
    held = quarantine.held(tx, (row.seq,))
    if held is not None:
        raise Denied(held)
    if who.principal is not None and row.asked_by in (who.name, f"{LOCAL}{who.name}"):
        raise Denied(
            f"`{who.name}` asked for the run that made this version, and who asks does not answer; somebody else must"
        )
    body = None if row.body is None else tx.blobs.get(row.body)
    pins = (item for item in tx.authority.newest(row.place) if item.state == "endorsed")
    tools = sorted({item.name for item in pins if item.kind == "tools" and is_tool(item.name)})
    missing = lacks(tx, who, row.resource, _pin(tx, row), body, tools)
    if missing:
        raise Denied(
            f"the reach of `{who.name}` does not cover {missing}, which this version is about; somebody whose `may` does must endorse it"
        )


def _pin(tx: Tx, row: AuthorityRow) -> AuthorityRow | None:
    rows = (item for item in tx.authority.newest(row.place) if item.state == "endorsed")
    return next((item for item in rows if item.resource == row.resource), None)


def _before(tx: Tx, row: AuthorityRow) -> AuthorityRow | None:
    """Give the version that a row was compared with when it was found."""
    rows = tx.authority.list(place=row.place, states=("endorsed",), limit=100_000)
    mine = [item for item in rows if item.resource == row.resource and item.number < row.number]
    return next((item for item in reversed(mine) if item.digest == row.predecessor), None)


def _lines(tx: Tx, row: AuthorityRow | None) -> list[str]:
    if row is None or row.digest == ABSENT:
        return []
    body = None if row.body is None else tx.blobs.get(row.body)
    return ["(only its digest is kept)"] if body is None else list(_readable(body))


def _readable(body: bytes) -> Iterator[str]:
    """Write JSON so that a line holds one thing, a prompt as its own lines, and all else as it is."""
    text = body.decode("utf-8", "replace")
    try:
        value = orjson.loads(body)
    except ValueError:
        yield from text.splitlines()
        return
    if isinstance(value, dict) and set(value) == {"prompt"}:
        yield from str(value["prompt"]).splitlines()
        return
    yield from orjson.dumps(value, option=orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS).decode().splitlines()
