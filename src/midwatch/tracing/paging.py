"""Paging: every event of a run, however many there are, a page of the ledger at a time.

In:   a transaction, a run, kinds. Out: events in the ledger's order.
May import: records, store (port). Must not know: what is looked for.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from midwatch.records.event import Event
from midwatch.store.port import Tx

__all__ = ["events_of"]

_PAGE: Final = 1000


def events_of(tx: Tx, run: str, kinds: Sequence[str] = ()) -> Iterator[Event]:
    """Give the events of a run, of these kinds only where some are named."""
    after = 0
    while page := tx.ledger.read(run=run, after=after, limit=_PAGE, kinds=kinds):
        yield from page
        after = page[-1].seq
