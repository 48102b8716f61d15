"""The truth about causes: the edges that a ledger's events prove, computed slowly and apart from the index.

In:   events in order, a way to read bodies. Out: `Edge`s. Must not know: the store's tables.
One pass over the events with every file version kept in lists; each edge kind's meaning is that of `records.edge`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson

from midwatch.records.edge import Edge
from midwatch.records.event import Event
from midwatch.store.port import Store

__all__ = ["all_events", "indexed", "proved", "truth"]

CHANGING = ("created", "modified", "deleted", "permission")


@dataclass(slots=True)
class Version:
    """A content at a path."""

    run: str
    path: str
    seq: int
    sha256: str | None
    workspace: str
    committed: int | None = None
    gone: bool = False


@dataclass(slots=True)
class Truth:
    """What was seen so far."""

    body: Callable[[str | None], Any]
    events: list[Event] = field(default_factory=list)
    versions: list[Version] = field(default_factory=list)

    def of_run(self, event: Event, *kinds: str) -> list[Event]:
        return [old for old in self.events if old.run == event.run and old.kind in kinds and old.seq < event.seq]

    def add(self, event: Event) -> Iterator[Edge]:
        self.events.append(event)
        edges = [Edge(cause, event.seq, "cause") for cause in dict.fromkeys(event.causes)]
        if event.run is not None:
            edges += [*self.files(event), *self.words(event), *self.work(event)]
            first = next(old for old in self.events if old.run == event.run)
            if not edges and first.kind == "run.created" and first is not event:
                edges.append(Edge(first.seq, event.seq, "request"))
        yield from dict.fromkeys(edges)

    def words(self, event: Event) -> Iterator[Edge]:
        """A person's yes, to its use, to what it was used for."""
        if event.kind == "gate.used":
            same = [old for old in self.of_run(event, "gate.answered") if old.data["gate"] == event.data["gate"]]
            yield from (Edge(old.seq, event.seq, "gate") for old in same[-1:])
        before = self.events[-2] if len(self.events) > 1 else None
        named = event.data.get("effect" if event.kind == "intent" else "gate")
        if event.kind not in ("intent", "effects.releasing") or before is None or before.kind != "gate.used":
            return
        if before.run == event.run and before.data["gate"] == named:
            yield Edge(before.seq, event.seq, "gate")

    def work(self, event: Event) -> Iterator[Edge]:
        """The plan, what was handed over, the run's answer."""
        if event.kind in ("intent", "proposed") and not event.causes and event.agent is not None:
            plans = self.of_run(event, "plan")
            if plans:
                sent = [
                    item["agent"] for item in (self.body(plans[-1].data.get("plan_blob")) or {}).get("dispatches", ())
                ]
                given = [old for old in self.of_run(event, "handoff") if old.seq > plans[-1].seq]
                if event.agent in sent:
                    yield Edge(plans[-1].seq, event.seq, "dispatch")
                else:
                    yield from (Edge(old.seq, event.seq, "handoff") for old in given)
        if event.kind == "handoff" and not event.causes:
            mine = [old for old in self.of_run(event, "finished") if old.agent == event.agent]
            yield from (Edge(old.seq, event.seq, "handoff") for old in mine[-1:])
        if event.kind == "run.finished":
            last = self.of_run(event, "handoff")[-1:] or self.of_run(event, "node.finished")[-1:]
            yield from (Edge(old.seq, event.seq, "ended") for old in last)

    def live(self, run: str | None, path: str | None = None) -> list[Version]:
        return [
            item
            for item in self.versions
            if item.run == run and item.committed is None and not item.gone and path in (None, item.path)
        ]

    def latest(self, run: str | None, paths: Sequence[str] | None) -> list[Version]:
        found = {item.path: item for item in self.live(run)}
        return [item for item in found.values() if paths is None or item.path in paths]

    def files(self, event: Event) -> Iterator[Edge]:
        if event.kind == "effects.releasing":
            chosen = self.latest(event.run, self.body(event.data.get("paths_blob")))
            yield from (Edge(item.seq, event.seq, "released") for item in chosen)
        elif event.kind == "gate.opened" and event.task == "release":
            yield from (Edge(item.seq, event.seq, "released") for item in self.latest(event.run, None))
        elif event.kind == "effects.committed":
            yield from self.commit(event)
        elif event.kind == "effects.discarded":
            for item in self.live(event.run):
                item.gone = event.data.get("paths") is None or item.path in event.data["paths"]
        elif event.data.get("observed"):
            changes = (self.body(event.data["observed"]["blob"]) or {}).get("changes", ())
            first = next(old for old in self.events if old.run == event.run)
            place = str(first.data.get("workdir") or "")
            for change in changes:
                mine = {item["path"] for item in changes if item["op"] in CHANGING}
                yield from self.met(event, change, place, mine)
            for change in changes:
                if change["op"] in CHANGING and (change["kind"] != "folder" or change["op"] == "deleted"):
                    sha = None if change["op"] == "deleted" else change.get("sha256") or change.get("before")
                    self.versions.append(Version(event.run or "", change["path"], event.seq, sha, place))

    def commit(self, event: Event) -> Iterator[Edge]:
        begun = self.of_run(event, "effects.releasing")[-1:]
        yield from (Edge(old.seq, event.seq, "released") for old in begun)
        paths = event.data.get("paths")
        last = {item.path: item for item in self.latest(event.run, paths)}
        for item in self.live(event.run):
            if item.path not in last:
                continue
            if item is not last[item.path]:
                item.gone = True
                continue
            item.committed = event.seq
            item.workspace = (begun[0].data.get("workspace") if begun else None) or item.workspace

    def met(self, event: Event, change: dict[str, Any], place: str, mine: set[str]) -> Iterator[Edge]:
        path, began = change["path"], min(event.causes, default=event.seq)
        own = self.live(event.run, path)
        landed = sorted(
            (item for item in self.versions if (item.workspace, item.path) == (place, path) and item.committed),
            key=lambda item: (item.committed or 0, item.seq),
        )
        if change.get("before"):
            same = [item for item in own if item.sha256 == change["before"]] or [
                item for item in landed if item.sha256 == change["before"]
            ]
            yield from (Edge(item.seq, event.seq, "changed", path) for item in same[-1:])
        if change["op"] not in ("read", "executed"):
            return
        sure, unsure = ("executed", "may-execute") if change["op"] == "executed" else ("read", "may-read")
        before = [item for item in own if item.seq < began]
        later = [item for item in own if item.seq > began and item.sha256 is not None]
        saw = None if path in mine or "moved" in change.get("flags", ()) else change.get("sha256")
        if saw is not None:
            for group in (before, later, landed[-1:], landed):
                same = [item for item in group if item.sha256 == saw]
                if same:
                    yield Edge(same[-1].seq, event.seq, sure, path)  # type: ignore[arg-type]
                    if group in (before, later):
                        return
                    break
            else:
                yield from (Edge(item.seq, event.seq, unsure, path) for item in landed[-1:] if item.sha256 is not None)  # type: ignore[arg-type]
            yield from (Edge(item.seq, event.seq, unsure, path) for item in before[-1:] if item.sha256 is not None)  # type: ignore[arg-type]
            yield from (Edge(item.seq, event.seq, unsure, path) for item in later)  # type: ignore[arg-type]
            return
        if before and before[-1].sha256 is not None:
            kind = unsure if any(item.seq > began for item in own) else sure
            yield Edge(before[-1].seq, event.seq, kind, path)  # type: ignore[arg-type]
        yield from (Edge(item.seq, event.seq, unsure, path) for item in later)  # type: ignore[arg-type]
        if not before:
            yield from (Edge(item.seq, event.seq, unsure, path) for item in landed[-1:] if item.sha256 is not None)  # type: ignore[arg-type]


def all_events(store: Store) -> list[Event]:
    """Read a whole ledger."""
    return list(store.read(lambda tx: tx.ledger.read(limit=1_000_000)))


def truth(store: Store) -> dict[int, list[Edge]]:
    """Give the proved edges, by the event that they lead to."""

    def body(digest: str | None) -> Any:
        found = None if digest is None else store.read(lambda tx: tx.blobs.get(digest))
        return None if found is None else orjson.loads(found)

    known = Truth(body)
    return {event.seq: list(known.add(event)) for event in all_events(store)}


def indexed(store: Store) -> dict[int, list[Edge]]:
    """Give the store's edges, in the same shape."""
    return {event.seq: list(store.read(lambda tx, seq=event.seq: tx.causes.before(seq))) for event in all_events(store)}  # type: ignore[misc]


def proved(edges: dict[int, list[Edge]]) -> dict[int, set[tuple[int, str, str | None]]]:
    """Make edges comparable; of several paths between two calls one note is enough, so it is the kinds that count."""
    return {seq: {(edge.cause, edge.kind, None) for edge in found} for seq, found in edges.items()}
