"""Staged: what calls did in their sandboxes, as the ledger has it, and what of it is neither committed nor discarded.

In:   a transaction, a run; layers as sandboxes gave them. Out: `Staged`, oldest first; `Observed`, ready for an event.
May import: the sandbox's types, records; store (port). Must not know: sandboxes, people, workspaces.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import orjson

from midwatch.errors import StoreCorrupt
from midwatch.records.effect import EffectClass
from midwatch.records.event import Event
from midwatch.sandbox.effects import CHANGING, Change, Request
from midwatch.sandbox.layers import Layer
from midwatch.store.port import Tx
from midwatch.tracing.paging import events_of

__all__ = ["Observed", "Staged", "layer_of", "observed", "staged_of", "unsent"]

_KINDS: Final = ("finished", "effect.undone", "effects.committed", "effects.discarded")


@dataclass(frozen=True, slots=True)
class Staged:
    """One call's layer, where the ledger has it.

    Attributes:
        seq: the `finished` event. effect: of the call. agent, tool: whose.
        declared: the tool's effect class at the time of the call, where the event says it.
    """

    seq: int
    effect: str
    agent: str
    tool: str
    layer: Layer
    declared: EffectClass | None = None

    @property
    def leaves(self) -> bool:
        """Whether a commit of it would do anything: it changed files, or asked for something that was held back."""
        changed = any(change.op in CHANGING for change in self.layer.changes)
        return changed or any(request.outcome == "staged" for request in self.layer.requests)


@dataclass(frozen=True, slots=True)
class Observed:
    """What a turn saw, ready for the ledger: the layer, and its manifest as JSON text."""

    layer: Layer
    manifest: bytes

    def to_json(self, blob: str) -> dict[str, Any]:
        """Give what the `finished` event keeps; `blob` holds the manifest."""
        changes = sum(change.op in CHANGING for change in self.layer.changes)
        file = None if self.layer.file is None else self.layer.file.name
        data = {"layer": self.layer.digest, "blob": blob, "file": file, "changes": changes}
        return {**data, "requests": len(self.layer.requests)}


def observed(layer: Layer) -> Observed | None:
    """Make a layer ready for the ledger; None where there is nothing to tell."""
    if not layer.digest and not layer.requests and not layer.changes:
        return None
    body = {
        "changes": [change.to_json() for change in layer.changes],
        "requests": [request.to_json() for request in layer.requests],
    }
    return Observed(layer, orjson.dumps(body, option=orjson.OPT_SORT_KEYS))


def staged_of(tx: Tx, run: str, folder: Path) -> list[Staged]:
    """Give the layers of a run that are neither committed nor discarded, oldest first.

    `folder` is the run's own, where the layers' files lie; a file that is missing is found missing when its contents are asked for.
    """
    found: list[Staged] = []
    for event in events_of(tx, run, _KINDS):
        if event.kind in ("effects.committed", "effects.discarded"):
            found = [] if event.data.get("paths") is None else _without(found, set(event.data["paths"]))
            continue
        if not event.data.get("observed"):
            continue
        layer = layer_of(tx, event, folder)
        declared = event.data.get("declared", {}).get("class")
        found.append(Staged(event.seq, event.data["effect"], event.agent or "", event.data["tool"], layer, declared))
    return found


def layer_of(tx: Tx, event: Event, folder: Path) -> Layer:
    """Give the layer of a call that was seen to do something.

    Raises:
        StoreCorrupt: its manifest is missing: as if the call had done nothing, what it did would leave unseen, or be lost unseen.
    """
    told = event.data["observed"]
    manifest = tx.blobs.get(told["blob"])
    if manifest is None:
        raise StoreCorrupt(
            f"what event {event.seq} of run `{(event.run or '')[:7]}` did is missing from the store; `midwatch verify` says what else is"
        )
    body = orjson.loads(manifest)
    return Layer(
        tuple(Change.from_json(item) for item in body.get("changes", ())),
        tuple(Request.from_json(item) for item in body.get("requests", ())),
        told["layer"],
        None if told["file"] is None else folder / told["file"],
    )


def unsent(requests: Sequence[Request]) -> tuple[Request, ...]:
    """Give what a call asked for that does not count: what it wanted kept for the commit is never sent."""
    why = "the call that asked for it does not count, so it is never sent"
    return tuple(
        replace(request, outcome="refused", reason=why, body=None) if request.outcome == "staged" else request
        for request in requests
    )


def _without(staged: Sequence[Staged], paths: set[str]) -> list[Staged]:
    """Take committed paths out of what is still staged."""
    return [
        replace(item, layer=replace(item.layer, changes=tuple(c for c in item.layer.changes if c.path not in paths)))
        for item in staged
    ]
