"""A gate: one action that waits for a person, as a row. Nothing else of the run stays in memory meanwhile."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal, get_args

__all__ = ["GATE_STATUSES", "GateRow", "GateStatus"]

GateStatus = Literal["open", "approved", "denied", "expired", "used"]
GATE_STATUSES: Final[tuple[GateStatus, ...]] = get_args(GateStatus)


@dataclass(frozen=True, slots=True)
class GateRow:
    """One question to a person, bound to one exact action.

    Attributes:
        id: 16 hex digits; the effect id of the action.
        digest: SHA-256 hex over tool digest, canonical arguments (RFC 8785), agent, run, policy digest, expiry, nonce.
            Recomputed when the action is about to run; another value means another action.
        nonce: 32 hex digits, random at opening.
        who: role that may answer.
        card: blob digest of what the person is shown (JSON).
        expires_us: microseconds UTC; later the answer is no.
    """

    id: str
    run: str
    agent: str
    tool: str
    digest: str
    nonce: str
    policy_digest: str
    who: str
    reason: str
    card: str
    status: GateStatus
    opened_us: int
    expires_us: int
    answered_us: int | None = None
    answered_by: str | None = None
    answer_reason: str | None = None
