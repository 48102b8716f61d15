"""Places: where in a run an event about a gate belongs: where the gate was opened, and caused by that.

In:   a transaction, a gate. Out: a draft of an event.
May import: records, store (port), tracing's paging. Must not know: what is said to a gate.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from midwatch.records.event import EventDraft, EventKind
from midwatch.store.port import Tx
from midwatch.tracing.paging import events_of

__all__ = ["about"]


def about(tx: Tx, run: str, kind: EventKind, data: Mapping[str, Any], *, gate: str, at_us: int) -> EventDraft:
    """Make an event at the place where the gate was last opened, caused by its opening."""
    opened = None
    for event in events_of(tx, run, ("gate.opened",)):
        opened = event if event.data.get("gate") == gate else opened
    if opened is None:
        return EventDraft(kind, run, at_us, data)
    return EventDraft(
        kind,
        run,
        at_us,
        data,
        node=opened.node,
        agent=opened.agent,
        step=opened.step,
        task=opened.task,
        causes=(opened.seq,),
    )
