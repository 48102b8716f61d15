"""Watch: one pass of the governor, outside every run.

In:   the store, the time, counters of living sandboxes. Out: how many runs are live, what was found; marks and events in the store.
May import: records, governor, store (port). Must not know: the graph, the process that runs it.
What it does: judges what is new in the ledger (`policies_pass`), then gives a sign of life, expires unanswered gates, and marks runs whose
worker died as interrupted. In this order: a governor that cannot judge gives no sign of life, and effects stop.

Every governor beats under a name of its own, so that one that is stopped does not hide behind another, nor the other way round; any
of them that lives will do, since each watches the whole store.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from midwatch.governor.policies_pass import Sample, study
from midwatch.records.event import EventDraft
from midwatch.store.port import Beat, Store, Tx

__all__ = ["HEARTBEAT", "Passed", "beat_name", "living", "watch_once"]

HEARTBEAT: Final = "governor"
"""What the names of all governors begin with."""
AHEAD_US: Final = 5_000_000
"""How far a beat may lie ahead of the reader's clock: clocks of several machines differ by less. Beyond that a clock went backwards."""
_FORGOTTEN_US: Final = 7 * 86_400_000_000


@dataclass(frozen=True, slots=True)
class Passed:
    """What one pass did.

    Attributes:
        live: runs that a live worker holds. read, behind: events taken in, and left. acted: what was written, oldest first.
    """

    live: int
    read: int = 0
    behind: int = 0
    acted: tuple[Mapping[str, Any], ...] = ()


def beat_name(host: str, pid: int) -> str:
    """Name a governor by its machine and process."""
    return f"{HEARTBEAT}/{host}/{pid}"


def living(beats: Sequence[Beat], *, now: int, stale_after_us: int) -> tuple[Beat, ...]:
    """Give the signs of life that count: not too old, and not from a future that the clock has fallen behind."""
    return tuple(beat for beat in beats if -AHEAD_US <= now - beat.at_us <= stale_after_us)


def watch_once(
    store: Store, *, pid: int, now: int, name: str = HEARTBEAT, samples: Sequence[Sample] = (), most: int = 2000
) -> Passed:
    """Do one pass.

    Raises:
        StoreError: the caller ends, its heartbeat goes stale and effects stop.
    """
    studied = study(store, now=now, samples=samples, most=most)

    def work(tx: Tx) -> tuple[int, list[Mapping[str, Any]]]:
        tx.watch.beat(name, pid=pid, at_us=now)
        tx.watch.silence(HEARTBEAT, before_us=now - _FORGOTTEN_US)
        for gate in tx.gates.expire(now):
            row = tx.gates.get(gate)
            tx.ledger.append(EventDraft("gate.expired", None if row is None else row.run, now, {"gate": gate}))
        return _dead(tx, now)

    live, marked = store.write(work)
    return Passed(live, studied.read, studied.behind, (*studied.acted, *marked))


def _dead(tx: Tx, now: int) -> tuple[int, list[Mapping[str, Any]]]:
    """Mark runs whose worker died; gives how many live, and what was written."""
    live = 0
    marked: list[Mapping[str, Any]] = []
    for run in tx.runs.list(statuses=("running",), limit=1000):
        if tx.fences.live(run.id, now):
            live += 1
            continue
        tx.runs.update(run.id, status="interrupted")
        data = {"action": "mark interrupted", "reason": "its worker gave no sign of life"}
        tx.ledger.append(EventDraft("governor.acted", run.id, now, data))
        marked.append({**data, "run": run.id})
    return live, marked
