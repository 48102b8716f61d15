"""Card: what a person is shown of one action: exactly what would run, and what helps to judge it.

In:   a contract, canonical arguments, what the helpers said. Out: a JSON object, kept as a blob beside the gate.
May import: records, store (port), tools' contract, `origins`. Must not know: how a card is rendered.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from midwatch.engine import origins
from midwatch.store.port import Tx
from midwatch.tools.contract import ToolContract

__all__ = ["Circumstances", "card"]


@dataclass(frozen=True, slots=True)
class Circumstances:
    """Where and why an action is asked about.

    Attributes:
        lacks: what containment found to lack reach, as its chain.
        reason: why it is asked. preview: what the tool's preview said, or None. causes: ledger events behind the proposal.
    """

    run: str
    agent: str
    node: str
    environment: str
    reason: str
    preview: str | None
    causes: tuple[int, ...]
    lacks: tuple[Mapping[str, Any], ...] = ()


def card(tx: Tx, contract: ToolContract, arguments: Mapping[str, Any], about: Circumstances) -> dict[str, Any]:
    """Make the card; `arguments` are parsed, as they would run, in full."""
    return {
        "action": contract.name,
        "does": contract.description,
        "effect": contract.effect,
        "arguments": dict(arguments),
        "agent": about.agent,
        "node": about.node,
        "reversible": contract.reversible,
        "cost": contract.cost,
        "environment": about.environment,
        "reason": about.reason,
        "preview": about.preview,
        "origins": origins.of(tx, about.run, contract, arguments),
        "causes": list(about.causes),
        **({"lacks": [dict(lack) for lack in about.lacks]} if about.lacks else {}),
    }
