"""Handles shown: what the agents of a run were given behind handles: whose words, of which call, and for an operator the value.

In:   a run of a home. Out: `ShownHandle`, from the ledger alone: no fleet file, no tools.
May import: containment, tracing; store (port). Must not know: how it is printed.
Why values only where they are asked for: whoever only looks what happened need not read a stranger's text.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from midwatch.containment.provenance import Held
from midwatch.errors import NotFound
from midwatch.store.port import Store, Tx
from midwatch.tracing.paging import events_of

__all__ = ["ShownHandle", "of_run"]


@dataclass(frozen=True, slots=True)
class ShownHandle:
    """One handle. `event`: of the call that gave it to `agent`. `label`: of what it holds. `value`: None unless it was asked for."""

    id: str
    event: int
    agent: str
    tool: str
    path: str
    type: str
    bytes: int
    label: Mapping[str, Any]
    value: Any = None


def of_run(store: Store, run: str, only: str | None = None, *, values: bool = False) -> tuple[ShownHandle, ...]:
    """Give the handles of a run in the order in which they were given.

    Args:
        only: a handle, or the beginning of one. values: with what they hold.

    Raises:
        NotFound: the run has no such handle.
    """

    def work(tx: Tx) -> tuple[ShownHandle, ...]:
        found = []
        for event in events_of(tx, run, ("finished", "effect.resolved")):
            body = tx.blobs.get(event.data.get("handles_blob") or "")
            for each in map(Held.from_json, orjson.loads(body) if body else ()):
                if only is None or each.id.startswith(only):
                    label, tool = each.label.to_json(), str(event.data.get("tool", ""))
                    value = each.value if values else None
                    found.append(
                        ShownHandle(
                            each.id, event.seq, event.agent or "", tool, each.path, each.kind, each.size, label, value
                        )
                    )
        return tuple(found)

    shown = store.read(work)
    if only is not None and not shown:
        raise NotFound(f"this run gave no handle `{only[:40]}`; `midwatch handles RUN` lists them")
    return shown
