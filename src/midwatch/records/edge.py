"""Edges: why one event of the ledger led to another.

In:   nothing. Out: `Edge`, `EDGE_KINDS`; frozen, JSON-ready.
May import: the standard library. Must not know: where edges are kept, how they are found.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, Literal, get_args

__all__ = ["EDGE_KINDS", "UNSURE", "Edge", "EdgeKind"]

EdgeKind = Literal[
    "cause",
    "request",
    "dispatch",
    "handoff",
    "gate",
    "read",
    "executed",
    "changed",
    "may-read",
    "may-execute",
    "released",
    "ended",
]
"""How the earlier event led to the later one.

cause        the later event names the earlier one in its own `causes`
request      the later event names nothing, and happened in the run that the earlier one began
dispatch     the plan sent the agent to work; handoff: what was handed over was the agent's input
gate         a person's word was used, or the action that it was used for
read         the call read a file whose content the earlier call had left; executed, changed: the same
may-read     as `read`, but the content was not found to be the same: somebody else may have written it in between; may-execute: the same
released     the call's changes were committed, or people were asked about that
ended        the run's answer
"""

EDGE_KINDS: Final[tuple[EdgeKind, ...]] = get_args(EdgeKind)
UNSURE: Final[tuple[EdgeKind, ...]] = ("may-read", "may-execute")


@dataclass(frozen=True, slots=True)
class Edge:
    """`cause` led to `effect`; both are events by number, and the cause is always the earlier one.

    Attributes:
        note: the path, where a file is what leads from one to the other.
    """

    cause: int
    effect: int
    kind: EdgeKind
    note: str | None = None

    def to_json(self) -> dict[str, Any]:
        """Give JSON data without what is absent."""
        body: dict[str, Any] = {"cause": self.cause, "effect": self.effect, "kind": self.kind}
        return body if self.note is None else body | {"note": self.note}
