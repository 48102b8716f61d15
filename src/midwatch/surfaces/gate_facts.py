"""Facts of a gate for whoever shows it: the command line, the page behind a link, the API.

In:   a store, a gate's row. Out: plain JSON.
May import: records, store (port). Must not know: how it is shown.
What is told of a canary is what is told of any gate: no field here tells them apart.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from midwatch.records.gate import GateRow
from midwatch.store.port import Store

__all__ = ["entry", "open_needs"]


def entry(store: Store, row: GateRow, *, full: bool = False) -> dict[str, Any]:
    """Give the facts of a gate as JSON.

    Args:
        full: with the whole card, what was said, and the events that led to it.
    """

    def work(tx: Any) -> dict[str, Any]:
        card = json.loads(tx.blobs.get(row.card) or b"{}")
        words = tx.gates.said(row.id, row.nonce)
        needs = [
            {
                "by": need.by,
                "who": need.who,
                "quorum": need.quorum,
                "four_eyes": need.four_eyes,
                "said": len(
                    {word.by for word in words if word.word == "approve" and need.who in word.roles.split(",")}
                ),
                "escalates_to": None if need.escalate is None else need.escalate.to,
                "escalates_us": None if need.escalate is None else need.escalate.at_us,
            }
            for need in row.asks.needs
        ]
        found = {
            "gate": row.id,
            "run": row.run,
            "status": row.status,
            "question": row.kind == "question",
            "tool": row.tool,
            "agent": row.agent,
            "arguments": card.get("arguments", {}),
            "reason": row.reason,
            "needs": needs,
            "opened_us": row.opened_us,
            "expires_us": row.expires_us,
            "action": row.action or row.id,
            "digest": row.digest,
            "edited_by": row.edited_by,
            "answered_by": row.answered_by,
        }
        if not full:
            return found
        said = [
            {
                "by": word.by,
                "word": word.word,
                "reason": word.reason,
                "at_us": word.at_us,
                "channel": word.channel,
                "break_glass": word.break_glass,
            }
            for word in words
        ]
        return found | {"card": card, "said": said, "asked_by": row.asked_by, "behind": _behind(tx, row.run, card)}

    return store.read(work)


def _behind(tx: Any, run: str, card: Mapping[str, Any]) -> dict[str, Any]:
    """What asked for it: the run's input, and the model call behind the proposal."""
    row = tx.runs.get(run)
    given = None if row is None else json.loads(tx.blobs.get(row.input) or b"null")
    calls = []
    for seq in card.get("causes", []):
        event = tx.ledger.get(seq)
        if event is not None and event.data.get("model"):
            calls.append({"event": seq, "agent": event.agent, "model": event.data["model"]})
    return {"input": given, "model_calls": calls}


def open_needs(store: Store, row: GateRow) -> str:
    """Say which needs are not met yet; empty when all are."""
    needs = entry(store, row)["needs"]
    return ", ".join(
        f"{need['quorum'] - need['said']} more of `{need['who']}`" for need in needs if need["said"] < need["quorum"]
    )
