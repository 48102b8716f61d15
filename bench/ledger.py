"""The ledger's price: microseconds of CPU an event, by events a transaction and by durability.

One event is what a node leaves: kind, run, node, a cause, a checkpoint's name and a size. CPU is the process's own; wall is the
median of single transactions, so that one slow flush of the disk does not count for all.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from pathlib import Path

from midwatch.records.event import EventDraft
from midwatch.store.port import Store, Tx
from midwatch.store.sqlite import SqliteStore

__all__ = ["main", "rows"]

BATCHES = (1, 4, 64)
EVENTS = 2048
EVENTS_FLUSHED = 512
BAR_US = 60
RUN = "ab" * 16


def _append(count: int, tx: Tx) -> int:
    last = tx.ledger.head()[0]
    for place in range(count):
        causes = (last,) if last else ()
        data = {"checkpoint": "1f0e2d3c-4b5a-6978-8796-a5b4c3d2e1f0", "bytes": 1000 + place}
        last = tx.ledger.append(
            EventDraft("node.finished", RUN, 1_790_000_000_000_000, data, "node", "ceo", 3, "t", causes)
        )
    return last


def _measure(store: Store, batch: int, events: int, *, durable: bool) -> tuple[float, float]:
    """Append `events` in transactions of `batch`; give (CPU, median wall) in microseconds an event."""
    walls = []
    cpu = time.process_time_ns()
    for _ in range(events // batch):
        began = time.perf_counter_ns()
        store.write(lambda tx: _append(batch, tx), durable=durable)
        walls.append(time.perf_counter_ns() - began)
    spent = time.process_time_ns() - cpu
    return spent / 1000 / events, statistics.median(walls) / 1000 / batch


def rows() -> list[dict[str, object]]:
    """Measure each batch size, NORMAL and FULL: `cpu_us` and `wall_us` an event."""
    found: list[dict[str, object]] = []
    for durable in (False, True):
        for batch in BATCHES:
            with tempfile.TemporaryDirectory() as folder:
                store = SqliteStore(Path(folder) / "midwatch.db")
                _measure(store, batch, 64, durable=durable)
                cpu, wall = _measure(store, batch, EVENTS_FLUSHED if durable else EVENTS, durable=durable)
                report = store.read(lambda tx: tx.ledger.verify())
                store.close()
            assert report.ok, "what was measured must be a chain"
            found.append(
                {
                    "durability": "FULL" if durable else "NORMAL",
                    "events_a_transaction": batch,
                    "cpu_us": round(cpu, 1),
                    "wall_us": round(wall, 1),
                }
            )
    return found


def main() -> None:
    """Print the table and hold it to its bar."""
    found = rows()
    names = list(found[0])
    print("one event appended to the ledger, on disk")
    print("  " + "".join(f"{name:>22}" for name in names))
    for row in found:
        print("  " + "".join(f"{row[name]!s:>22}" for name in names))
    few = next(row for row in found if (row["durability"], row["events_a_transaction"]) == ("NORMAL", 4))
    assert isinstance(few["cpu_us"], float)
    assert few["cpu_us"] <= BAR_US, f"an event must cost at most {BAR_US} µs of CPU in transactions of a few"


if __name__ == "__main__":
    main()
