"""A gate: one question to a person, as a row. Nothing else of the run stays in memory meanwhile.

Out:  `GateRow`, what it asks of whom (`Terms`), what was said (`GateAnswer`), how it is told (`Notice`, `Link`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final, Literal, get_args

import orjson

__all__ = [
    "GATE_KINDS",
    "GATE_STATUSES",
    "Escalate",
    "GateAnswer",
    "GateKind",
    "GateRow",
    "GateStatus",
    "Link",
    "Need",
    "Notice",
    "Terms",
]

GateStatus = Literal["open", "approved", "denied", "expired", "used"]
GATE_STATUSES: Final[tuple[GateStatus, ...]] = get_args(GateStatus)

GateKind = Literal["action", "question", "canary", "release"]
"""`question`: an agent asks a person in words. `canary`: nobody proposed it; a yes shows an approver who does not read.
`release`: what a run did in its sandboxes wants to leave them."""

GATE_KINDS: Final[tuple[GateKind, ...]] = get_args(GateKind)


@dataclass(frozen=True, slots=True)
class Escalate:
    """From `at_us` (microseconds UTC) on, whoever has the role `to` may answer too."""

    at_us: int
    to: str


@dataclass(frozen=True, slots=True)
class Need:
    """What one rule asks for.

    Attributes:
        by: the rule, such as `gates[0]`. who: role that may answer.
        quorum: how many different persons must say yes, >= 1.
        four_eyes: whoever started the run may not be among them, even where nobody else is known.
    """

    by: str
    who: str
    quorum: int = 1
    four_eyes: bool = False
    escalate: Escalate | None = None


@dataclass(frozen=True, slots=True)
class Terms:
    """All that must be met before a gate is a yes: every need, by persons who may.

    Attributes:
        needs: at least one; one person counts for each need whose role they have.
        channels: names of the fleet's channels that are told.
    """

    needs: tuple[Need, ...]
    channels: tuple[str, ...] = ()

    def to_text(self) -> str:
        """Give the JSON text that the row keeps."""
        return orjson.dumps({"needs": [asdict(need) for need in self.needs], "channels": list(self.channels)}).decode()

    @staticmethod
    def from_text(text: str) -> Terms:
        """Read `to_text` back."""
        body: Mapping[str, Any] = orjson.loads(text)
        needs = []
        for item in body["needs"]:
            later = item["escalate"]
            needs.append(Need(**{**item, "escalate": None if later is None else Escalate(**later)}))
        return Terms(tuple(needs), tuple(body["channels"]))


@dataclass(frozen=True, slots=True)
class GateRow:
    """One question to a person, bound to one exact action.

    Attributes:
        id: 16 hex digits; the effect id of the action.
        digest: SHA-256 hex over tool digest, canonical arguments (RFC 8785), agent, run, policy digest, precondition,
            expiry, nonce. Recomputed when the action is about to run; another value means another action.
        nonce: 32 hex digits, random at opening.
        who: role that may answer, of the first need; `terms` has them all.
        card: blob digest of what the person is shown (JSON).
        expires_us: microseconds UTC; later the answer is no.
        action: SHA-256 hex over tool digest, canonical arguments, agent and policy: equal for gates that may be answered together.
        arguments: blob digest of the canonical arguments that `digest` is over.
        asked_by: who started the run.
        precondition: the target's state as the tool gave it at opening; empty where the tool has none.
        terms: `Terms.to_text()`; empty for a gate of an older home: one yes of `who`.
        edited_by: who changed the arguments after the agent proposed them, or None.
        answer: blob digest of the answer's JSON text, for a question that was answered.
        escalated_us: when the first escalation was announced, or None.
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
    kind: GateKind = "action"
    action: str = ""
    arguments: str = ""
    asked_by: str = ""
    precondition: str = ""
    terms: str = ""
    edited_by: str | None = None
    answer: str | None = None
    escalated_us: int | None = None

    @property
    def asks(self) -> Terms:
        """Give the terms; those of an older row are one yes of its role."""
        return Terms.from_text(self.terms) if self.terms else Terms((Need("gates", self.who),))


@dataclass(frozen=True, slots=True)
class GateAnswer:
    """What one person said to one gate; kept also when more must speak.

    Attributes:
        gate, nonce: the asking that it belongs to; a gate that asks again has a new nonce, so that old words do not count.
        by: name of the principal.
        roles: the needs' roles that it counted for, comma-separated; empty for a no.
        channel: `cli`, `terminal`, `link`, `api`, `python`.
        break_glass: given without the right to; it counts, and somebody must review it afterwards.
        reviewed_by, reviewed_us, review: the review, or None.
    """

    gate: str
    nonce: str
    by: str
    word: Literal["approve", "deny"]
    roles: str
    reason: str
    at_us: int
    channel: str
    break_glass: bool = False
    reviewed_by: str | None = None
    reviewed_us: int | None = None
    review: str | None = None


@dataclass(frozen=True, slots=True)
class Link:
    """One signed, single-use way to answer one gate once, with the rights of one principal.

    Attributes:
        id: 32 random hex digits. nonce: of the asking; a gate that asks again makes old links worthless.
        used_us: when it was used, or None.
    """

    id: str
    gate: str
    nonce: str
    principal: str
    expires_us: int
    used_us: int | None = None


@dataclass(frozen=True, slots=True)
class Notice:
    """One message to one channel about one gate, kept until it was taken or its gate is closed.

    Attributes:
        id: `GATE:NONCE:CHANNEL:WHY`; the same again is the same notice.
        why: `opened`, `escalated`.
        attempts: how often it was tried. next_us: not before this time.
    """

    id: str
    gate: str
    nonce: str
    channel: str
    why: Literal["opened", "escalated"]
    created_us: int
    next_us: int
    attempts: int = 0
    sent_us: int | None = None
    error: str | None = None
