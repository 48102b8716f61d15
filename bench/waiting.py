"""Waiting: what many open gates cost, and how soon a run goes on once one of them is answered.

Bars: 10,000 waiting gates under 1 GB in all and without threads; from the answer to the approved tool, p95 of 200 ms.
Real runs of a real team against the scripted provider; each stops with 16 calls of one answer that wait. Then runs are answered one at
a time from another thread, as another process would, while `engine.following` follows the home.
"""

from __future__ import annotations

import asyncio
import os
import random
import statistics
import sys
import tempfile
import threading
import time
from pathlib import Path

import psutil

from midwatch import wiring
from midwatch.engine import answering
from midwatch.engine.following import follow
from midwatch.engine.kernel import Kernel
from midwatch.errors import MidwatchError
from midwatch.gates.review import Speaker
from midwatch.records.run import RunResult, RunRow
from midwatch.store.port import Store
from tests.scenario.office import Office

__all__ = ["main"]

A_RUN = 16
ANSWERED = 200


def main(gates: int = 10_000) -> None:
    """Print the table. `python -m bench.waiting [GATES]`."""
    with tempfile.TemporaryDirectory() as folder:
        calls = [("ops.note", {"text": f"line {place}"}) for place in range(A_RUN)]
        office = Office(Path(folder), [calls], gates="- {when: {tool: ops.note}, ask: operator, timeout: 24h}")
        text = (office.fleet / "fleet.yaml").read_text()
        (office.fleet / "fleet.yaml").write_text(text.replace('cost: "$0.50"', 'cost: "$50.00"'))
        with office.opened() as kernel:
            _measure(kernel, gates)


def _measure(kernel: Kernel, gates: int) -> None:
    here = psutil.Process(os.getpid())
    before = here.memory_info().rss
    began, cpu = time.perf_counter(), time.process_time()
    runs = [kernel.run({"n": number}).run for number in range(-(-gates // A_RUN))]
    waited, worked = time.perf_counter() - began, time.process_time() - cpu
    open_now = kernel.store.read(lambda tx: len(tx.gates.list(statuses=("open",), limit=10**6)))
    threads = threading.active_count()
    rss = here.memory_info().rss
    print(f"gates that wait             {open_now:>10,}  in {len(runs):,} runs")
    print(f"to open them, wall / CPU    {waited:>10.1f} s / {worked:.1f} s")
    print(
        f"memory of the process       {rss / 1e6:>10.0f} MB, {(rss - before) / 1e6:+.0f} MB since before the first run"
    )
    print(f"threads                     {threads:>10}")
    took = asyncio.run(_answer(kernel, random.Random(7).sample(runs, min(ANSWERED, len(runs)))))
    ordered = sorted(took)
    p95 = ordered[int(len(ordered) * 0.95) - 1]
    print(
        f"answer to tool, of {len(took):>4}     median {statistics.median(took):.0f} ms, p95 {p95:.0f} ms, max {ordered[-1]:.0f} ms"
    )


async def _answer(kernel: Kernel, runs: list[str]) -> list[float]:
    """Answer one gate of each run in turn; gives the milliseconds from the answer's call to the tool's own event."""
    store = kernel.store
    done, took = threading.Event(), list[float]()
    seen: dict[str, int] = {}
    arrived = threading.Event()

    def told(row: RunRow, outcome: RunResult | MidwatchError) -> None:
        if isinstance(outcome, MidwatchError):
            print(f"run {row.id[:7]}: {outcome}", file=sys.stderr)

    def listen(seqs: object) -> None:
        for seq in list(seqs):  # type: ignore[call-overload]
            event = store.read(lambda tx, seq=seq: tx.ledger.get(seq))  # type: ignore[misc]
            if event is not None and event.kind == "finished" and event.data.get("tool") == "ops.note":
                seen[event.run or ""] = time.perf_counter_ns()
                arrived.set()

    def person() -> None:
        for run in runs:
            gate = store.read(lambda tx, run=run: tx.gates.list(run=run, statuses=("open",), limit=1))[0]  # type: ignore[misc]
            arrived.clear()
            asked = time.perf_counter_ns()
            answering.answer(
                store, gate.id, approve=True, speaker=Speaker("local:ann"), reason="", at_us=wiring.clock()
            )
            if not arrived.wait(30):
                print(f"run {run[:7]} did not go on", file=sys.stderr)
                continue
            took.append((seen[run] - asked) / 1e6)
            _settled(store, run)
        done.set()

    silence = store.on_commit(listen)
    thread = threading.Thread(target=person, daemon=True)
    thread.start()
    await follow(
        store,
        lambda row: kernel.aresume(row.id),
        clock=wiring.clock,
        pause=lambda us: asyncio.sleep(us / 1e6),
        stopped=done.is_set,
        told=told,
    )
    silence()
    return took


def _settled(store: Store, run: str) -> None:
    """Wait, bounded, until the run's segment has ended, so that the next answer meets an idle process."""
    end = time.monotonic() + 10
    while time.monotonic() < end:
        row = store.read(lambda tx: tx.runs.get(run))
        if row is not None and row.status != "running" and row.segment > 1:
            return
        threading.Event().wait(0.005)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 10_000)
