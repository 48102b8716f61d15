"""Watch: one pass of the governor, outside every run.

In:   the store, the time. Out: how many runs are live; marks and events in the store.
May import: records, store (port). Must not know: the graph, the process that runs it.
What it does: gives a sign of life, expires unanswered gates, and marks runs whose worker died as interrupted.
"""

from __future__ import annotations

from midwatch.records.event import EventDraft
from midwatch.store.port import Store, Tx

__all__ = ["HEARTBEAT", "watch_once"]

HEARTBEAT = "governor"


def watch_once(store: Store, *, pid: int, now: int) -> int:
    """Do one pass; returns the number of runs that a live worker holds.

    Raises:
        StoreError: nothing was done; the caller ends, its heartbeat goes stale and effects stop.
    """

    def work(tx: Tx) -> int:
        tx.watch.beat(HEARTBEAT, pid=pid, at_us=now)
        for gate in tx.gates.expire(now):
            row = tx.gates.get(gate)
            tx.ledger.append(EventDraft("gate.expired", None if row is None else row.run, now, {"gate": gate}))
        live = 0
        for run in tx.runs.list(statuses=("running",), limit=1000):
            if tx.fences.live(run.id, now):
                live += 1
                continue
            tx.runs.update(run.id, status="interrupted")
            data = {"action": "mark interrupted", "reason": "its worker gave no sign of life"}
            tx.ledger.append(EventDraft("governor.acted", run.id, now, data))
        return live

    return store.write(work)
