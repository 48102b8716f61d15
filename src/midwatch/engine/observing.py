"""Observing: what one call did in its sandbox, beside what it answered; either both count, or nothing does.

In:   a tool, what came of its call, the call's turn. Out: what came of it now, and what the ledger gets of it.
May import: staging, tools, records, errors; store (port). Must not know: guards, the journal.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from midwatch.engine.staging import Isolation, Observed, Turn
from midwatch.errors import Conflict, SandboxError, Unseen
from midwatch.records.effect import EffectRow
from midwatch.records.envelope import ErrorBody
from midwatch.store.port import Store, Tx
from midwatch.tools import envelope, perform
from midwatch.tools.decorate import Tool

__all__ = ["left_nothing", "observe", "seen_in", "where"]


def where(isolation: Isolation, agent: str, runs: str) -> dict[str, Any]:
    """Give what an intent says of where a call acts. `confined`: nothing that it does is outside before it is committed."""
    if runs != "sandbox":
        return {"isolation": "none: in the broker", "confined": False}
    return {"isolation": isolation.level(agent), "confined": isolation.confined(agent)}


def left_nothing(store: Store, row: EffectRow, isolation: Isolation) -> bool:
    """Say whether a call that was cut can have done nothing: it acted in a sandbox that is gone, and nothing was let out."""
    intent = store.read(lambda tx: tx.ledger.get(row.intent_seq))
    return intent is not None and intent.data.get("confined") is True and isolation.confined(row.agent)


async def observe(
    tool: Tool[..., Any], performed: perform.Performed, turn: Turn
) -> tuple[perform.Performed, Observed | None]:
    """Read what a call did. What cannot be told, met another agent's change, or came with no answer of the tool's, did not happen.

    Raises:
        Unseen: nobody sees any more what sandboxes do; the run must stop.
    """
    turn.answered = turn.answered and envelope.keeps_contract(tool, performed)
    try:
        return performed, await turn.gather()
    except Conflict as met:
        hint = "nothing of it was kept; read what is there now, and call again"
        done = "no file was changed, but what it asked for outside was sent" if turn.asked else "nothing was done"
        error = ErrorBody("conflict", f"{done}: {met}", hint=hint)
        return replace(performed, value=None, error=error), turn.left
    except Unseen:
        raise
    except SandboxError as untold:
        error = ErrorBody("crashed", "what the call did cannot be told, so nothing of it was kept")
        return replace(performed, value=None, error=error, detail=str(untold)), turn.left


def seen_in(tx: Tx, seen: Observed | None) -> dict[str, Any]:
    """Give what an event says of what a sandbox was seen to do."""
    return {} if seen is None else {"observed": seen.to_json(tx.blobs.put(seen.manifest))}
