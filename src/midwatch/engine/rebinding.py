"""Rebinding: a run that goes on under another fleet, policy or graph than it began with; only a person may say so.

In:   a run, what it was made under, what is loaded now, who says so. Out: the changed row and its event; `Divergence` else.
May import: gates, records, store (port), errors. Must not know: what has changed.
Why also at the checkpoint: the row says what the run was told, a checkpoint what its state was really made under. Old yeses do not
carry over: they are bound to the policy, so what they allowed is asked again.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from midwatch.config.fleet import Fleet
from midwatch.engine.context import Segment
from midwatch.engine.identity import require
from midwatch.errors import Divergence, UsageProblem
from midwatch.gates.review import Speaker
from midwatch.records.event import EventDraft
from midwatch.records.run import RunRow
from midwatch.store.port import Store, Tx

__all__ = ["rebind", "same_stamp", "stamp"]


def stamp(fleet: Fleet, graph_digest: str) -> dict[str, str]:
    """Give what every checkpoint of a run under this fleet carries."""
    return {"fleet": fleet.digest, "graph": graph_digest, "policy": fleet.policy_digest}


def rebind(store: Store, row: RunRow, now: Mapping[str, str], *, speaker: Speaker, reason: str, at_us: int) -> RunRow:
    """Let the run go on under what is loaded now.

    Args:
        now: `stamp` of what is loaded. reason: why; required.

    Raises:
        Denied: it takes an operator. UsageProblem: no reason was given.
    """
    require(speaker, "operator", "let a run go on under another fleet")
    if not reason.strip():
        raise UsageProblem("say why the run may go on under another fleet, with `--reason`")
    before = {"fleet": row.fleet_digest, "graph": row.graph_digest, "policy": row.policy_digest}

    def work(tx: Tx) -> RunRow:
        data = {"before": before, "after": dict(now), "by": speaker.name, "reason": reason}
        tx.ledger.append(EventDraft("run.rebound", row.id, at_us, data))
        tx.runs.update(row.id, fleet_digest=now["fleet"], graph_digest=now["graph"], policy_digest=now["policy"])
        return tx.runs.get(row.id) or row

    return store.write(work, durable=True)


def same_stamp(seg: Segment, found: Any) -> None:
    """Stop the run if its newest checkpoint was made under what no person has let it leave.

    Raises:
        Halted: with `Divergence`.
    """
    if not found or not seg.stamp or dict(found) == dict(seg.stamp):
        return
    events = seg.store.read(lambda tx: tx.ledger.read(run=seg.run, kinds=("run.rebound",), limit=10_000))
    reached = dict(found)
    for event in events:
        if event.data["before"] == reached:
            reached = dict(event.data["after"])
    if reached != dict(seg.stamp):
        raise seg.stop(
            Divergence(
                f"the state of run `{seg.run[:7]}` was made under another fleet or graph; put that back, "
                f"or `midwatch resume {seg.run[:7]} --under-new --reason WHY`"
            )
        )
