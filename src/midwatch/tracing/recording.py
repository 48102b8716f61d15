"""Recording: everything that one run left in the ledger, with the bodies that its events name, out of a store or out of a file.

In:   a store and a run, or the bytes of an archive. Out: `Recording`; what in it does not fit its own hashes.
May import: records, store (port), errors. Must not know: what the events mean, who replays them.
Why each event carries the hash before it: events of other runs stand between those of this one, so a run alone has no unbroken chain; but
each event can be held against its own hash, and so a changed byte is found at the event that holds it.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson

from midwatch.errors import NotFound, StoreCorrupt
from midwatch.records.event import Event
from midwatch.records.run import RunRow
from midwatch.store.port import Store, Tx
from midwatch.tracing.paging import events_of

__all__ = ["Damage", "Recording", "body_of", "damage", "named", "read_run"]


@dataclass(frozen=True, slots=True)
class Recording:
    """One run as it was recorded.

    Attributes:
        row: the run's row as JSON. events: in order. blobs: by digest, those that could be read.
        unreadable: by digest, why a body could not be read.
    """

    run: str
    row: Mapping[str, Any]
    events: tuple[Event, ...]
    blobs: Mapping[str, bytes]
    unreadable: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Damage:
    """Something recorded that does not fit its hash. `event`: the number of the event at fault; 0: the run's row."""

    event: int
    message: str

    def to_json(self) -> dict[str, Any]:
        """Give the JSON object that `--json` prints."""
        return {"event": self.event, "message": self.message}


def read_run(store: Store, run: str) -> Recording:
    """Read a run out of a home.

    Raises:
        NotFound: no such run. StoreCorrupt: its events cannot be read at all.
    """

    def work(tx: Tx) -> Recording:
        row = tx.runs.get(run)
        if row is None:
            raise NotFound(f"no run `{run}` in this home; `midwatch runs ls` lists them")
        try:
            events = tuple(events_of(tx, run, ()))
        except ValueError as error:
            raise StoreCorrupt(f"an event of run `{run[:7]}` is no JSON; `midwatch verify` says which") from error
        blobs, unreadable = _bodies(tx, row, events)
        return Recording(run, dataclasses.asdict(row), events, blobs, unreadable)

    return store.read(work)


def body_of(event: Event) -> bytes:
    """Give the bytes over which an event's hash is made."""
    body = {
        "seq": event.seq,
        "kind": event.kind,
        "run": event.run,
        "at_us": event.at_us,
        "node": event.node,
        "agent": event.agent,
        "step": event.step,
        "task": event.task,
        "causes": event.causes,
        "data": event.data,
    }
    return orjson.dumps(body, option=orjson.OPT_SORT_KEYS)


def named(data: Any) -> Iterator[str]:
    """Give the digests under keys that end in `_blob`, at any depth."""
    if isinstance(data, Mapping):
        for key, value in data.items():
            if key.endswith("_blob") and isinstance(value, str):
                yield value
            else:
                yield from named(value)
    elif isinstance(data, list | tuple):
        for item in data:
            yield from named(item)


def damage(recording: Recording) -> list[Damage]:
    """Hold every event and every body against its hash; gives what does not fit, in order of events."""
    found: list[Damage] = []
    before: Event | None = None
    for event in recording.events:
        made = hashlib.sha256(bytes.fromhex(event.prev) + body_of(event)).hexdigest()
        if made != event.hash:
            found.append(Damage(event.seq, "its bytes do not fit its hash"))
        elif event.run != recording.run:
            found.append(Damage(event.seq, "it belongs to another run"))
        elif before is not None and event.seq <= before.seq:
            found.append(Damage(event.seq, "it is out of order"))
        elif before is not None and event.seq == before.seq + 1 and event.prev != before.hash:
            found.append(Damage(event.seq, f"it does not follow from event {before.seq}"))
        found += [Damage(event.seq, why) for digest in named(event.data) for why in _body(recording, digest)]
        before = event
    return found + list(_row(recording))


def _row(recording: Recording) -> Iterator[Damage]:
    row = recording.row
    for key in ("input", "output", "fleet_blob"):
        if row.get(key) is not None:
            yield from (Damage(0, f"`{key}` of the run: {why}") for why in _body(recording, row[key]))
    created = [event.data for event in recording.events if event.kind == "run.created"]
    if not created:
        yield Damage(0, "the event that created the run is missing")
    elif created[0].get("input_blob") != row.get("input"):
        yield Damage(0, "the run's input is not the one that it was created with")
    head = row.get("head")
    if head is not None and all(event.hash != head for event in recording.events):
        yield Damage(0, f"the event with the run's head `{str(head)[:12]}` is missing")


def _body(recording: Recording, digest: str) -> Iterator[str]:
    body = recording.blobs.get(digest)
    if body is not None:
        if hashlib.sha256(body).hexdigest() != digest:
            yield f"body `{digest[:12]}` was changed"
    else:
        yield recording.unreadable.get(digest, f"body `{digest[:12]}` is missing")


def _bodies(tx: Tx, row: RunRow, events: tuple[Event, ...]) -> tuple[dict[str, bytes], dict[str, str]]:
    blobs: dict[str, bytes] = {}
    unreadable: dict[str, str] = {}
    wanted = [digest for event in events for digest in named(event.data)]
    wanted += [digest for digest in (row.input, row.output, row.fleet_blob) if digest is not None]
    for digest in dict.fromkeys(wanted):
        try:
            body = tx.blobs.get(digest)
        except StoreCorrupt:
            unreadable[digest] = f"body `{digest[:12]}` was changed"
            continue
        if body is not None:
            blobs[digest] = body
    return blobs, unreadable
