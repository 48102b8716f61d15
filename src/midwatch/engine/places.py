"""Places: where in a run an event about a gate belongs: where the gate was opened, and caused by that.

In:   a transaction, a gate. Out: a draft of an event.
May import: records, store (port). Must not know: what is said to a gate.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from midwatch.records.event import Event, EventDraft, EventKind
from midwatch.store.port import Tx

__all__ = ["about"]

_PAGE: Final = 1000


def about(tx: Tx, run: str, kind: EventKind, data: Mapping[str, Any], *, gate: str, at_us: int) -> EventDraft:
    """Make an event at the place where the gate was last opened, caused by its opening."""
    opened = None
    for event in _openings(tx, run):
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


def _openings(tx: Tx, run: str) -> Iterator[Event]:
    after = 0
    while page := tx.ledger.read(run=run, after=after, limit=_PAGE, kinds=("gate.opened",)):
        yield from page
        after = page[-1].seq
