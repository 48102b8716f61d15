"""The store's price on a Postgres server beside SQLite: one append, one reserve, one settle; alone, and by many threads at once.

In:   nothing; the server of `scripts/postgres_server.py` is started and stopped. Out: microseconds, median and p99 of single transactions.
`durable` waits for the disk, on both. The server is on the same machine, behind a socket: a network adds a round trip for each statement.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from urllib.parse import quote

from midwatch.records.event import EventDraft
from midwatch.records.spend import Line
from midwatch.store.port import Store, Tx
from midwatch.store.postgres import PostgresStore
from midwatch.store.sqlite import SqliteStore

__all__ = ["main", "rows"]

SCRIPT = Path(__file__).resolve().parent.parent / "scripts" / "postgres_server.py"
TIMES = 300
THREADS = 24
EACH = 20
RUN = "ab" * 16
LINES = [Line(scope, "cost", 5) for scope in ("fleet:f", "vertical:v", "run:r", "agent:a")]


def _append(tx: Tx) -> None:
    last = tx.ledger.head()[0]
    tx.ledger.append(
        EventDraft("node.finished", RUN, 1, {"bytes": 1000}, "node", "ceo", 3, "t", (last,) if last else ())
    )


def _works(number: int) -> Iterator[tuple[str, Callable[[Tx], object]]]:
    yield "append", _append
    yield "reserve", lambda tx: tx.budgets.reserve(f"r{number}", run=RUN, lines=LINES, at_us=1)
    yield "settle", lambda tx: tx.budgets.settle(f"r{number}", {"cost": 3}, at_us=2)


def _alone(store: Store, *, durable: bool) -> dict[str, tuple[float, float]]:
    walls: dict[str, list[float]] = {}
    for number in range(TIMES):
        for name, work in _works(number):
            began = time.perf_counter_ns()
            store.write(work, durable=durable)
            walls.setdefault(name, []).append((time.perf_counter_ns() - began) / 1000)
    return {name: (statistics.median(found), statistics.quantiles(found, n=100)[-1]) for name, found in walls.items()}


def _together(store: Store) -> float:
    """Durable reserves and settles by many threads; microseconds of wall time for one of either."""
    numbers = count(10**6)

    def claim() -> None:
        for _ in range(EACH):
            for name, work in _works(next(numbers)):
                if name != "append":
                    store.write(work, durable=True)

    threads = [threading.Thread(target=claim) for _ in range(THREADS)]
    began = time.perf_counter_ns()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return (time.perf_counter_ns() - began) / 1000 / (THREADS * EACH * 2)


@contextmanager
def _server() -> Iterator[str]:
    def control(action: str) -> str:
        done = subprocess.run(
            [sys.executable, "-I", str(SCRIPT), action, "bench"],
            check=True,
            capture_output=True,
            text=True,
            timeout=110,
        )
        return done.stdout.strip()

    folder = control("start")
    try:
        yield f"postgresql://midwatch@/midwatch?host={quote(folder, safe='')}"
    finally:
        control("stop")


def rows() -> list[dict[str, object]]:
    """Measure both stores."""
    found: list[dict[str, object]] = []
    with _server() as url, tempfile.TemporaryDirectory() as folder:
        stores: dict[str, Store] = {"sqlite": SqliteStore(Path(folder) / "midwatch.db"), "postgres": PostgresStore(url)}
        for name, store in stores.items():
            for durable in (False, True):
                for what, (middle, worst) in _alone(_counted(store, durable=durable), durable=durable).items():
                    row: dict[str, object] = {
                        "store": name,
                        "what": what,
                        "durable": durable,
                        "p50_us": round(middle),
                        "p99_us": round(worst),
                    }
                    found.append(row)
            shared: dict[str, object] = {
                "store": name,
                "what": f"{THREADS} threads",
                "durable": True,
                "p50_us": round(_together(store)),
                "p99_us": "-",
            }
            found.append(shared)
            assert store.read(lambda tx: tx.ledger.verify()).ok, "what was measured must be a chain"
            store.close()
    return found


def _counted(store: Store, *, durable: bool) -> Store:
    """Forget the claims of the round before, so that each round may use the same names."""
    if durable:
        store.write(lambda tx: tx.sql.execute("DELETE FROM reservation"))  # type: ignore[attr-defined]
    return store


def main() -> None:
    """Print the table."""
    found = rows()
    print("single transactions, and a reserve or settle when many threads want one (wall time of each)")
    names = list(found[0])
    print("  " + "".join(f"{name:>14}" for name in names))
    for row in found:
        print("  " + "".join(f"{row[name]!s:>14}" for name in names))


if __name__ == "__main__":
    main()
