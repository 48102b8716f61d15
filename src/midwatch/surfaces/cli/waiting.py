"""Waiting: what a run waits for, as cards with the exact command that answers each.

In:   a store, a run. Out: open gates and effects in doubt; text or JSON.
May import: records, store (port), tracing. Must not know: how an answer is recorded.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from midwatch.surfaces.cli.common import block, moment
from midwatch.tracing import queries

if TYPE_CHECKING:
    from midwatch.records.gate import GateRow
    from midwatch.store.port import Store

__all__ = ["Waits", "read", "show"]


@dataclass(frozen=True, slots=True)
class Waits:
    """Open gates with their cards, and effects whose outcome is unknown; plain JSON objects."""

    run: str
    gates: tuple[Mapping[str, Any], ...]
    in_doubt: tuple[Mapping[str, Any], ...]

    def to_json(self) -> dict[str, Any]:
        """Give the two lists as part of a JSON answer."""
        return {"gates": [dict(item) for item in self.gates], "in_doubt": [dict(item) for item in self.in_doubt]}


def read(store: Store, run: str, *, at_us: int) -> Waits:
    """Read what waits; effects of a run that a live worker holds are under way, not in doubt."""
    gates = tuple(
        {
            "gate": row.id,
            "tool": row.tool,
            "agent": row.agent,
            "who": row.who,
            "reason": row.reason,
            "expires_us": row.expires_us,
            "expired": at_us > row.expires_us,
            "digest": row.digest,
            "card": card,
            "approve": _yes(row),
            "deny": f"midwatch approve {row.id} --deny",
        }
        for row, card in queries.gates(store, run)
        if row.status == "open"
    )

    def work(tx: Any) -> tuple[dict[str, Any], ...]:
        if tx.fences.live(run, at_us):
            return ()
        rows = [row for row in tx.effects.list(run, statuses=("started",)) if row.kind == "tool"]
        return tuple(
            {
                "effect": row.id,
                "tool": row.tool,
                "class": row.effect,
                "agent": row.agent,
                "started_us": row.started_us,
                "attempt": row.attempt,
                "arguments": json.loads(tx.blobs.get(row.arguments) or b"null"),
                "resolve": f"midwatch resolve {row.id} --done|--not-done|--retry",
            }
            for row in rows
        )

    return Waits(run, gates, store.read(work))


def _yes(row: GateRow) -> str:
    """Give the command that says yes; a question takes an answer in words."""
    return f"midwatch inbox approve {row.id} --answer TEXT" if row.kind == "question" else f"midwatch approve {row.id}"


def show(waits: Waits, *, err: bool = True) -> None:
    """Print each card with the commands that answer it, and how to go on."""
    for gate in waits.gates:
        card = gate["card"]
        lines = [
            f"waits for {gate['who']}: {gate['tool']} ({card.get('effect', '?')}), proposed by {gate['agent']}",
            f"  what       {_one_line(card.get('does', ''))}",
            *(f"  argument   {name} = {_value(value)}" for name, value in (card.get("arguments") or {}).items()),
            f"  why asked  {gate['reason']}",
            f"  undo       {_undo(card.get('reversible'))}",
            f"  until      {moment(gate['expires_us'])}{' (expired: counts as no)' if gate['expired'] else ''}",
            f"  yes        {gate['approve']}",
            f"  no         {gate['deny']}",
        ]
        click.echo(block(lines), err=err)
    for effect in waits.in_doubt:
        began = moment(effect["started_us"])
        lines = [
            f"in doubt: {effect['tool']} ({effect['class']}) of {effect['agent']}, begun {began}",
            *(f"  argument   {name} = {_value(value)}" for name, value in (effect["arguments"] or {}).items()),
            f"  it happened      midwatch resolve {effect['effect']} --done",
            f"  it did not       midwatch resolve {effect['effect']} --not-done",
            f"  do it again      midwatch resolve {effect['effect']} --retry",
        ]
        click.echo(block(lines), err=err)
    if waits.gates or waits.in_doubt:
        click.echo(f"then go on with  midwatch resume {waits.run[:7]}", err=err)


def _one_line(text: str) -> str:
    return text.strip().splitlines()[0] if text.strip() else "-"


def _value(value: Any) -> str:
    """Write an argument in full: a person must see what they say yes to."""
    return json.dumps(value, ensure_ascii=False)


def _undo(reversible: Any) -> str:
    if isinstance(reversible, str):
        return f"by {reversible}"
    return "possible" if reversible else "not possible"
