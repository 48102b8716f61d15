"""Handoffs shown: what the agents of a run handed over, what was refused and why, and which items whoever received them used.

In:   a run of a home. Out: `Handovers`, from the ledger alone: no fleet file, no tools.
May import: records, tracing; store (port). Must not know: how it is printed.
Why measured from what was written: that an agent was shown an item is no sign that it took it in; that it cites or repeats it is one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import orjson

from midwatch.records.event import Event
from midwatch.records.handoff import Handoff, Shown
from midwatch.store.port import Store, Tx
from midwatch.tracing.paging import events_of

__all__ = ["Handovers", "RefusedHandoff", "ShownHandoff", "ShownItem", "of_run"]

Use = Literal["cited", "repeated", "ignored", "not received"]


@dataclass(frozen=True, slots=True)
class ShownItem:
    """One item.

    Attributes:
        shown: for `changed`: whether an effect did it, or somebody only saw it. label: of all that stands behind the sentence; None where a
            version wrote it that kept none.
        use: what became of it: `cited` by a later handoff, `repeated` in its words, `ignored` by all who received it, or `not received`.
    """

    id: str
    field: str
    text: str
    evidence: tuple[str, ...]
    events: tuple[int, ...]
    shown: Shown | None
    label: Mapping[str, Any] | None
    use: Use


@dataclass(frozen=True, slots=True)
class ShownHandoff:
    """One handoff. `hop`: how many there were in the run by then; 0 where that was not counted yet."""

    event: int
    agent: str
    status: str
    hop: int
    items: tuple[ShownItem, ...]
    unmet: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class RefusedHandoff:
    """One answer that was refused. `items`: field, index, code, hint and reference; `why` is what the agent was not told."""

    event: int
    agent: str
    code: str
    reason: str
    tries: int
    items: tuple[Mapping[str, Any], ...]


@dataclass(frozen=True, slots=True)
class Handovers:
    """All of one run. `consumed`, `ignored`: items, of those that somebody received."""

    given: tuple[ShownHandoff, ...]
    refused: tuple[RefusedHandoff, ...]
    consumed: int
    ignored: int


def of_run(store: Store, run: str) -> Handovers:
    """Read what the agents of a run handed over, in the order in which they did."""
    return store.read(lambda tx: _read(tx, run))


def _read(tx: Tx, run: str) -> Handovers:
    found = list(events_of(tx, run, ("handoff", "handoff.refused")))
    handed = [(event, _handoff(tx, event)) for event in found if event.kind == "handoff"]
    given = tuple(_shown(tx, event, handoff, handed) for event, handoff in handed)
    uses = [item.use for each in given for item in each.items]
    used = sum(use in ("cited", "repeated") for use in uses)
    refused = tuple(_refused(event) for event in found if event.kind == "handoff.refused")
    return Handovers(given, refused, used, uses.count("ignored"))


def _handoff(tx: Tx, event: Event) -> Handoff:
    return Handoff.from_json(_json(tx, event.data["handoff_blob"]))


def _shown(tx: Tx, event: Event, handoff: Handoff, handed: Sequence[tuple[Event, Handoff]]) -> ShownHandoff:
    kept = {each["id"]: each for each in _json(tx, event.data.get("items_blob")) or ()}
    items = []
    for field, _, item, name in handoff.items():
        later = [other for at, other in handed if at.seq > event.seq and name in at.data.get("received", ())]
        facts = kept.get(name, {})
        items.append(
            ShownItem(
                id=name,
                field=field,
                text=item.text,
                evidence=item.evidence,
                events=tuple(facts.get("events", ())),
                shown=item.shown,
                label=facts.get("label"),
                use=_use(name, item.evidence, item.text, later),
            )
        )
    hop = int(event.data.get("hop", 0))
    return ShownHandoff(event.seq, handoff.agent, handoff.status, hop, tuple(items), handoff.unmet)


def _use(name: str, evidence: Iterable[str], text: str, later: Sequence[Handoff]) -> Use:
    if not later:
        return "not received"
    cited = {ref for other in later for _, _, item, _ in other.items() for ref in item.evidence}
    if cited & {name, *evidence}:
        return "cited"
    said = [item.text for other in later for _, _, item, _ in other.items()] + [other.answer or "" for other in later]
    return "repeated" if any(text in each for each in said) else "ignored"


def _refused(event: Event) -> RefusedHandoff:
    data = event.data
    code, reason = str(data.get("code", "")), str(data.get("reason", ""))
    return RefusedHandoff(
        event.seq, event.agent or "", code, reason, int(data.get("tries", 0)), tuple(data.get("items", ()))
    )


def _json(tx: Tx, digest: str | None) -> Any:
    body = None if digest is None else tx.blobs.get(digest)
    return None if body is None else orjson.loads(body)
