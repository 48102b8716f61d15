"""Events: one line each of the append-only, hash-chained ledger.

The stored bytes of an event are sorted-key JSON with integers only (no floats), holding every column that a query uses,
so that changing any of them breaks the chain. Large or protected values are blobs; the event holds their digests.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal, get_args

__all__ = ["EVENT_KINDS", "GENESIS", "Event", "EventDraft", "EventKind"]

EventKind = Literal[
    "run.created",
    "run.started",
    "run.resumed",
    "run.paused",
    "run.waiting",
    "run.finished",
    "run.failed",
    "run.halted",
    "node.started",
    "node.finished",
    "node.failed",
    "proposed",
    "decided",
    "intent",
    "finished",
    "signal",
    "mandate.issued",
    "mandate.refused",
    "plan",
    "handoff",
    "handoff.refused",
    "run.rebound",
    "gate.opened",
    "gate.said",
    "gate.edited",
    "gate.escalated",
    "gate.answered",
    "gate.used",
    "gate.expired",
    "gate.reviewed",
    "gate.told",
    "canary.answered",
    "principal.changed",
    "authority.pending",
    "authority.endorsed",
    "authority.rejected",
    "effect.in_doubt",
    "effect.resolved",
    "effect.undone",
    "effects.releasing",
    "effects.sending",
    "effects.sent",
    "effects.committed",
    "effects.discarded",
    "event.quarantined",
    "event.lifted",
    "sandbox.steered",
    "budget.set",
    "budget.settled",
    "budget.reconciled",
    "budget.degraded",
    "budget.would_stop",
    "governor.acted",
    "breaker.changed",
    "flag.raised",
    "flag.lowered",
    "lease.released",
    "fleet.loaded",
]
"""Closed list. `proposed, decided, intent, finished` are the four of one proposal (DESIGN.md, section 2)."""

EVENT_KINDS: Final[tuple[EventKind, ...]] = get_args(EventKind)
GENESIS: Final[str] = "0" * 64


@dataclass(frozen=True, slots=True)
class EventDraft:
    """An event before the ledger has given it a place.

    Attributes:
        run: run id, or None for an event of the whole home.
        at_us: microseconds UTC, from the kernel's clock.
        node, agent, step, task: where in the run, as far as it applies.
        causes: sequence numbers of earlier events that led to this one; each must exist already.
        data: JSON object; integers, strings, booleans, null, lists, objects; no floats.
    """

    kind: EventKind
    run: str | None
    at_us: int
    data: Mapping[str, Any] = field(default_factory=dict)
    node: str | None = None
    agent: str | None = None
    step: int | None = None
    task: str | None = None
    causes: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Event:
    """An event in its place.

    Attributes:
        seq: place in the store's one chain, from 1; the event's id.
        prev, hash: hex SHA-256; `hash = SHA-256(prev bytes + stored bytes)`.
    """

    seq: int
    kind: EventKind
    run: str | None
    at_us: int
    data: Mapping[str, Any]
    node: str | None
    agent: str | None
    step: int | None
    task: str | None
    causes: tuple[int, ...]
    prev: str
    hash: str

    def to_json(self) -> dict[str, Any]:
        """Give the JSON object that `--json` prints."""
        return {
            "seq": self.seq,
            "kind": self.kind,
            "run": self.run,
            "at_us": self.at_us,
            "node": self.node,
            "agent": self.agent,
            "step": self.step,
            "task": self.task,
            "causes": list(self.causes),
            "data": dict(self.data),
            "hash": self.hash,
        }
