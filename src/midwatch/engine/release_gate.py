"""Release gate: people are asked for one commit of what a run did, as for every other action.

In:   a planned commit, what the rules ask. Out: the gate that was approved for this very commit, or the one that now waits; or a no.
May import: planned, answering, gates, records, store (port). Must not know: how files are written.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final

import orjson

from midwatch.config.fleet import Fleet
from midwatch.engine import granting, leaving
from midwatch.engine.answering import clean, standing
from midwatch.engine.planned import COMMIT, TASK, Planned
from midwatch.errors import Denied, SandboxError
from midwatch.gates.binding import bind, new_nonce
from midwatch.gates.review import met
from midwatch.records.decision import Ask
from midwatch.records.event import EventDraft
from midwatch.records.gate import GateRow, Notice, Terms
from midwatch.records.label import Label
from midwatch.sandbox.layers import open_content
from midwatch.sandbox.showing import diff_of
from midwatch.store.port import Store, Tx

__all__ = ["approved", "ask"]

_BODY: Final = 2_000
"""Characters of a request's body that a card shows."""


def approved(store: Store, fleet: Fleet, planned: Planned) -> GateRow | None:
    """Give the gate whose yes is for this very commit, in time, by people who still may say it; None: people must be asked.

    Raises:
        Denied: people said no to it, or, where nobody ordered it, to what the run did before; or nobody said yes in time.
    """
    order = planned.order
    gate = store.read(lambda tx: tx.gates.get(order.gate))
    _refused(store, planned, gate)
    if gate is None or gate.status != "approved" or order.at_us > gate.expires_us:
        return None
    stands = store.read(lambda tx: met(gate, standing(tx, gate)))
    return gate if stands and gate.digest == _binding(gate, planned, fleet) else None


def _refused(store: Store, planned: Planned, gate: GateRow | None) -> None:
    order, kept = planned.order, "its changes stay staged until they are discarded"

    def same(tx: Tx) -> list[GateRow]:
        rows = tx.gates.list(run=order.run, statuses=("denied",), limit=10_000)
        return [row for row in rows if row.kind == "release" and tx.blobs.get(row.arguments) == planned.arguments]

    denied = store.read(same)
    if gate is not None and gate.status == "denied" and order.speaker is None:
        denied.append(gate)
    if denied:
        said = f": {denied[0].answer_reason}" if denied[0].answer_reason else ""
        raise Denied(f"a person said no to this commit{said}; {kept}")
    late = gate is not None and (
        gate.status == "expired" or (gate.status in ("open", "approved") and order.at_us > gate.expires_us)
    )
    if late and order.speaker is None:
        raise Denied(
            f"no valid yes was given to this commit in time; order it with `midwatch effects commit`, else {kept}"
        )


def ask(store: Store, fleet: Fleet, planned: Planned, verdict: Ask) -> str:
    """Open the gate, or leave it open where it asks for the same already; gives its id."""
    order = planned.order
    old = store.read(lambda tx: tx.gates.get(order.gate))
    if (
        old is not None
        and old.status == "open"
        and order.at_us <= old.expires_us
        and old.digest == _binding(old, planned, fleet)
    ):
        return old.id
    preview, label = _preview(planned), leaving.carried(store, planned)

    def work(tx: Tx) -> GateRow:
        tx.fences.check(order.run, order.epoch)
        row = _row(tx, fleet, planned, verdict, clean(tx, preview), label)
        opened = _opener(tx, old)(row)
        data = {"gate": opened.id, "digest": opened.digest, "who": opened.who, "card_blob": opened.card}
        tx.ledger.append(EventDraft("gate.opened", order.run, order.at_us, data, task=TASK))
        for channel in opened.asks.channels:
            name = f"{opened.id}:{opened.nonce}:{channel}:opened"
            tx.notices.add(
                Notice(name, opened.id, opened.nonce, channel, "opened", created_us=order.at_us, next_us=order.at_us)
            )
        return opened

    return store.write(work, durable=True).id


def _opener(tx: Tx, old: GateRow | None) -> Callable[[GateRow], GateRow]:
    if old is None:
        return tx.gates.open
    return tx.gates.amend if old.status in ("open", "approved") else tx.gates.reopen


def _row(tx: Tx, fleet: Fleet, planned: Planned, verdict: Ask, preview: str, label: Label) -> GateRow:
    order, run = planned.order, tx.runs.get(planned.order.run)
    row = GateRow(
        id=order.gate,
        run=order.run,
        agent="",
        tool=COMMIT,
        digest="",
        nonce=new_nonce(),
        policy_digest=fleet.policy_digest,
        who=verdict.who,
        reason=clean(tx, verdict.reason),
        card=tx.blobs.put(orjson.dumps(_card(fleet, planned, verdict, preview, label))),
        status="open",
        opened_us=order.at_us,
        expires_us=order.at_us + verdict.expires_us,
        kind="release",
        action=planned.action(fleet),
        arguments=tx.blobs.put(planned.arguments),
        asked_by="" if run is None else run.asked_by,
        terms=(verdict.terms or Terms(())).to_text(),
    )
    return replace(row, digest=_binding(row, planned, fleet))


def _binding(gate: GateRow, planned: Planned, fleet: Fleet) -> str:
    return bind(
        action=planned.action(fleet),
        run=planned.order.run,
        precondition=gate.precondition,
        expires_us=gate.expires_us,
        nonce=gate.nonce,
    )


def _card(fleet: Fleet, planned: Planned, verdict: Ask, preview: str, label: Label) -> dict[str, Any]:
    """Make what people are shown: the shape of every other card."""
    order = planned.order
    changes = [
        {
            "path": item.path,
            "op": item.change.op,
            "kind": item.change.kind,
            "size": item.change.size,
            "sha256": item.change.sha256,
            **({} if item.change.mode is None else {"mode": f"{item.change.mode:04o}"}),
            **({} if item.change.target is None else {"target": item.change.target}),
            "person": list(item.person),
        }
        for item in planned.chosen
    ]
    requests = [f"{item.agent}: {_told(item.layer.requests[index])}" for item, index in planned.kept]
    sends = f", then sends {len(requests)} requests that were held back" if requests else ""
    values = {"release": planned.release.digest, "workspace": str(order.workspace), "changes": changes}
    return {
        "action": COMMIT,
        "does": f"writes {len(changes)} changed paths of the run into {order.workspace}{sends}",
        "effect": "write",
        "arguments": values | ({"requests": requests} if requests else {}),
        "agent": "",
        "node": "",
        "reversible": None,
        "cost": None,
        "environment": fleet.environment,
        "reason": verdict.reason,
        "preview": preview,
        "grants": [item.to_json() for item in planned.gives.grants],
        "origins": [],
        "causes": [],
        "label": label.to_json(),
    }


def _preview(planned: Planned) -> str:
    """Show the lines that change, and what is sent."""
    parts = [f"gives {granting.line(item)}\n" for item in planned.gives.grants]
    parts.append(diff_of(planned.release, planned.layers, planned.order.workspace, only=planned.paths))
    for item, index in planned.kept:
        request = item.layer.requests[index]
        parts.append(f"send {_told(request)}\n")
        try:
            with open_content(item.layer, request.body or "") as stream:
                body = stream.read(4 * _BODY + 1)
        except SandboxError as lost:
            parts.append(f"  its body cannot be read, so it will not be sent: {lost}\n")
            continue
        parts += [f"  {name}: {value}\n" for name, value in request.headers]
        text = body.decode("utf-8", "replace")
        parts += [f"  {line}\n" for line in text[:_BODY].splitlines()]
        if len(text) > _BODY or len(body) > 4 * _BODY:
            parts.append(f"  … the rest of its body is not shown; sha256 {request.body}\n")
    return "".join(parts)


def _told(request: Any) -> str:
    return f"{request.method} {request.url or request.host}"
