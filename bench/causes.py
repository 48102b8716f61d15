"""What led to what, in a ledger of a million events: how long `why` and `blast` take, and what the index adds to an append.

A home of a thousand runs of a thousand events is written through the store: agents in turns (asked, answered, proposed, decided, began,
ended), each run reads a file that the run before it committed, two hundred in a row. `MIDWATCH_BENCH_EVENTS`
makes it smaller. The cost of an append is measured in one process with the index on and off, in turns.
"""

from __future__ import annotations

import hashlib
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson

from midwatch.records.event import EventDraft
from midwatch.store.causes import SqlCauses
from midwatch.store.port import Store, Tx
from midwatch.store.sqlite import SqliteStore
from midwatch.tracing import causes

__all__ = ["fill", "main"]

EVENTS = int(os.environ.get("MIDWATCH_BENCH_EVENTS", "1000000"))
PER_RUN = 1000
CHAINED = 200
"""Runs in a row of which each reads what the one before it committed."""
WHY_MS, BLAST_MS = 50, 200
APPENDED = 4096


def fill(store: Store, events: int, *, per_run: int = PER_RUN) -> None:
    """Write the home."""
    for number in range(max(1, events // per_run)):
        store.write(lambda tx, number=number: _run(tx, number, per_run))  # type: ignore[misc]


def _run(tx: Tx, number: int, size: int) -> None:
    run = hashlib.sha256(str(number).encode()).hexdigest()[:32]

    def add(kind: Any, data: dict[str, Any], *led: int, agent: str = "worker") -> int:
        draft = EventDraft(kind, run, 1_790_000_000_000_000 + number, data, "worker.act", agent, 1, "t", led)
        return tx.ledger.append(draft)

    last = add("run.created", {"fleet": "bench", "workdir": "/srv/work"})
    for turn in range(max(1, (size - 4) // 6)):
        asked = add("intent", {"effect": f"{turn:016x}", "model": "m", "route": "r", "attempt": 1}, last)
        answered = add("finished", {"effect": f"{turn:016x}", "model": "m", "ok": True, "finish": "stop"}, asked)
        add("node.finished", {"bytes": 100}, agent="other")
        proposed = add("proposed", {"call": "c", "tool": "files.write"}, answered)
        began = add("intent", {"effect": f"{turn:015x}t", "tool": "files.write", "class": "write"}, proposed)
        last = add(
            "finished", {"effect": f"{turn:015x}t", "tool": "files.write", "ok": True} | _seen(tx, turn, number), began
        )
    add("effects.releasing", {"release": "r", "by": "ann", "gate": None, "workspace": "/srv/work"})
    add("effects.committed", {"release": "r", "by": "ann", "changed": 1, "paths": None})


def _seen(tx: Tx, turn: int, number: int) -> dict[str, Any]:
    if turn == 0 and number % CHAINED:
        change = {"op": "read", "path": f"notes/{number - 1}.md", "kind": "file"}
    elif turn == 1:
        change = {"op": "created", "path": f"notes/{number}.md", "kind": "file", "sha256": f"{number:064x}"}
    else:
        return {}
    blob = tx.blobs.put(orjson.dumps({"changes": [change], "requests": []}))
    return {"observed": {"layer": "", "blob": blob, "file": None, "changes": 1, "requests": 0}}


def _ms(ask: Callable[[], object], times: int = 7) -> float:
    took = []
    for _ in range(times):
        began = time.perf_counter_ns()
        ask()
        took.append((time.perf_counter_ns() - began) / 1e6)
    return statistics.median(took)


def _append_us(*, index: bool, parallel: bool) -> float:
    """CPU microseconds an event in transactions of four; `parallel`: three agents in turns, so that few follow their cause at once."""
    add, flush = SqlCauses.add, SqlCauses.flush
    if not index:
        SqlCauses.add = SqlCauses.flush = lambda *_: None  # type: ignore[method-assign,assignment]
    try:
        with tempfile.TemporaryDirectory() as folder:
            store = SqliteStore(Path(folder) / "midwatch.db")
            began = time.process_time_ns()
            for _ in range(APPENDED // 4):
                store.write(lambda tx: _four(tx, 3 if parallel else 1))
            spent = time.process_time_ns() - began
            store.close()
    finally:
        SqlCauses.add, SqlCauses.flush = add, flush  # type: ignore[method-assign]
    return spent / 1000 / APPENDED


def _four(tx: Tx, back: int) -> None:
    for _ in range(4):
        head = tx.ledger.head()[0]
        data = {"effect": "ab" * 8, "tool": "files.write", "ok": True, "result_blob": "cd" * 32, "refs": [], "ms": 12}
        led = (head + 1 - back,) if head >= back else ()
        tx.ledger.append(EventDraft("finished", "ab" * 16, 1, data, "worker.act", "worker", 1, "t", led))


def main() -> None:
    """Print the table and hold it to its bars."""
    found: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        store = SqliteStore(Path(folder) / "midwatch.db")
        began = time.perf_counter()
        fill(store, EVENTS)
        head = store.read(lambda tx: tx.ledger.head())[0]
        print(f"{head:,} events written in {time.perf_counter() - began:.0f} s")
        for name, seq in (("first", 1), ("middle", head // 2), ("last", head - 3)):
            found[f"why, {name} event"] = _ms(lambda seq=seq: causes.why(store, seq))  # type: ignore[misc]
            found[f"blast, {name} event"] = _ms(lambda seq=seq: causes.blast(store, seq))  # type: ignore[misc]
            told, back = causes.blast(store, seq), causes.why(store, seq)
            print(f"  {name}: led to {told.total:,} in {len(told.runs)} runs; {back.causes:,} led to it")
        store.close()
    for name, ms in found.items():
        print(f"  {name:<22}{ms:>9.1f} ms")
    added = []
    for parallel in (False, True):
        pairs = [
            (_append_us(index=False, parallel=parallel), _append_us(index=True, parallel=parallel)) for _ in range(5)
        ]
        bare, full = (min(pair[place] for pair in pairs) for place in (0, 1))
        added.append(100 * (full / bare - 1))
        print(
            f"  append, {'agents in turns' if parallel else 'one after another'}: {bare:.1f} -> {full:.1f} us, {added[-1]:+.0f} %"
        )
    assert max(ms for name, ms in found.items() if name.startswith("why")) <= WHY_MS, (
        f"`why` must answer in {WHY_MS} ms"
    )
    assert max(ms for name, ms in found.items() if name.startswith("blast")) <= BLAST_MS, (
        f"`blast` must answer in {BLAST_MS} ms"
    )


if __name__ == "__main__":
    main()
