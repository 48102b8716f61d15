"""Governor's pass: what one thousand events of a real ledger cost it, on SQLite, in processor time.

In:   a folder. Out: milliseconds. The events are those of the simulated agents, as the engine writes them: intents and ends of calls, ends
of model calls, arguments as bodies, and as many others between that say nothing of an agent's tools.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterable
from itertools import islice
from pathlib import Path

import orjson

from bench.governor_traffic import KINDS, month
from midwatch.governor.patterns import Fact
from midwatch.governor.policies_pass import study
from midwatch.records.event import EventDraft
from midwatch.records.run import RunRow
from midwatch.store.port import Store, Tx
from midwatch.store.sqlite import SqliteStore

__all__ = ["cost", "fill"]

_MOST = 2000


def cost(folder: Path, events: int) -> float:
    """Write a ledger of so many events and judge it in passes; gives milliseconds for 1,000 events."""
    store = SqliteStore(folder / "midwatch.db")
    try:
        head = fill(store, events)
        begun = time.process_time()
        while study(store, now=2**50, most=_MOST).behind:
            pass
        return (time.process_time() - begun) * 1e6 / head
    finally:
        store.close()


def fill(store: Store, events: int) -> int:
    """Write the events of three agents, side by side; gives the number of the last one."""
    digest = hashlib.sha256(b"{}").hexdigest()
    for kind in KINDS[:3]:
        facts = list(islice(month(kind, 1, days=8), events // 6))
        runs = {fact.run for fact in facts}
        store.write(lambda tx: _runs(tx, [f"{kind.name}-{run}" for run in runs], digest))  # noqa: B023 - called at once
        store.write(lambda tx: _events(tx, facts))  # noqa: B023 - as above
    return store.read(lambda tx: tx.ledger.head()[0])


def _runs(tx: Tx, runs: Iterable[str], digest: str) -> None:
    for run in runs:
        tx.runs.create(RunRow(run, "bench", None, digest, digest, digest, digest, None, "done", 1, digest))


def _events(tx: Tx, facts: Iterable[Fact]) -> None:
    for fact in facts:
        run = f"{fact.agent}-{fact.run}"
        tx.ledger.append(EventDraft("node.started", run, fact.at_us, {}, node="work"))
        if fact.kind == "model":
            usage = {"input": fact.tokens, "output": 0}
            data = {"route": fact.tool, "ok": True, "usage": usage, "cost": fact.cost}
            tx.ledger.append(EventDraft("finished", run, fact.at_us, data, agent=fact.agent))
        elif fact.kind == "call":
            host = fact.places[0].partition(":")[2]
            body = {"url": f"https://{host}/x", "text": "x" * min(fact.sent, 4000), "id": fact.digest}
            data = {"tool": fact.tool, "arguments_blob": tx.blobs.put(orjson.dumps(body)), "runs": "broker"}
            tx.ledger.append(EventDraft("intent", run, fact.at_us, data, agent=fact.agent))
        else:
            counted = (
                {} if fact.processes is None else {"usage": {"processes_peak": fact.processes, "processes_refused": 0}}
            )
            data = {"tool": fact.tool, "ok": not fact.failed, **counted}
            tx.ledger.append(EventDraft("finished", run, fact.at_us, data, agent=fact.agent))
