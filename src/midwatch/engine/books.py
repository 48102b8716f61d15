"""Books: leaves no hold behind where nothing of a run is under way any more.

In:   a transaction, a run, the time. Out: settled accounts.
May import: store (port). Must not know: who ended the run, the graph.
Why at every end: a run that stopped for good is never taken up again, and its holds would bind the scopes that others share.
"""

from __future__ import annotations

from midwatch.store.port import Tx

__all__ = ["close", "free"]


def close(tx: Tx, run: str, *, at_us: int) -> None:
    """Charge in full what was begun and never settled; give back what never began."""
    for reservation, confirmed in tx.budgets.open_reservations(run):
        if confirmed:
            tx.runs.add_spend(run, tx.budgets.settle(reservation, None, at_us=at_us))
        else:
            tx.budgets.release(reservation)


def free(tx: Tx, *, beside: str, at_us: int) -> None:
    """Close the books of runs whose worker gave no sign of life: what they hold would bind scopes that live runs share.

    A worker that comes back finds its claims gone: what it had not begun cannot begin, what it had begun is charged already.
    """
    for row in tx.runs.list(statuses=("running", "interrupted"), limit=1000):
        if row.id != beside and not tx.fences.live(row.id, at_us):
            close(tx, row.id, at_us=at_us)
