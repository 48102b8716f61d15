"""Explain: why an action was not allowed, in words that quote no value.

In:   the chain of a verdict. Out: one sentence for people and agents, a hint, JSON for the ledger.
May import: records. Must not know: values, labels' readers, who reads it.
Why causes by name and values never: a name is the fleet's own word; a value may be the secret that the denial protects.
Source: CONTAINMENT.md, clause 5; DESIGN.md, section 3 (explanation).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from midwatch.records.label import UNKNOWN_CAUSE, Cause

__all__ = ["Lack", "hint", "reason"]

_SHOWN: Final = 3
_ROLES: Final[Mapping[str, str]] = {
    "control": "chose that it happens",
    "endorsement": "must be endorsed, because it gives somebody power",
    "readers": "would be seen by somebody who may not read all that went into it",
}


@dataclass(frozen=True, slots=True)
class Lack:
    """One link of the chain: at this place, this cause lacks the reach.

    Attributes:
        where: `control`, `readers`, `endorsement`, an argument such as `order.to`, or `what PLACE refers to`.
        role: that the place is used in. cause: None where it is not about one.
    """

    where: str
    role: str
    cause: Cause | None

    def to_json(self) -> dict[str, Any]:
        """Give the JSON object of the `decided` event."""
        return {"where": self.where, "role": self.role, "cause": None if self.cause is None else str(self.cause)}


def reason(tool: str, chain: Sequence[Lack]) -> str:
    """Say in one sentence what lacks reach; at most three links, the first being the most telling."""
    told = "; ".join(dict.fromkeys(_link(lack) for lack in chain[:_SHOWN]))
    more = f"; and {len(chain) - _SHOWN} more" if len(chain) > _SHOWN else ""
    return f"`{tool}` needs somebody's yes: {told}{more}"


def hint(chain: Sequence[Lack]) -> str:
    """Say what the agent can do instead."""
    if any(lack.where == "readers" for lack in chain):
        return "leave out what was read from that source, or ask the person who may release it"
    return "take the value from the request, or ask the person who gave the task"


def _link(lack: Lack) -> str:
    if lack.where in {"readers", "endorsement"}:
        return f"it {_ROLES[lack.where]}"
    who = "something of unknown origin" if lack.cause in {None, UNKNOWN_CAUSE} else f"`{lack.cause}`"
    if lack.where == "control":
        return f"{who} may have chosen that it happens, and may not"
    return f"{who} may have chosen `{lack.where}` (its {lack.role}), and may not"
