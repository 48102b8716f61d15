"""What a guard answers: a frozen value with its reason, never an exception that user code could swallow.

Source: `Allowed | Denied` as values after CaMeL (arXiv 2503.18813, section 5.3); `Ask` is CONTAINMENT.md, clause 21.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from midwatch.records.gate import Terms

__all__ = ["Allowed", "Ask", "Denied", "Halt", "HaltKind", "StageMark", "Verdict"]


@dataclass(frozen=True, slots=True)
class Allowed:
    """The guard has no objection; `by` names the rule that says so."""

    by: str


@dataclass(frozen=True, slots=True)
class Denied:
    """The guard refuses. `reason` and `hint` reach the agent, so they quote no protected value."""

    reason: str
    by: str
    hint: str | None = None


@dataclass(frozen=True, slots=True)
class Ask:
    """A person must decide. `who` names the role that may; `expires_us` microseconds from now, then the answer is no.

    Attributes:
        terms: everything that must be met; None: one yes of `who`.
    """

    reason: str
    by: str
    who: str
    expires_us: int
    terms: Terms | None = None


Verdict = Allowed | Denied | Ask

HaltKind = Literal["cancel", "pause", "kill"]


@dataclass(frozen=True, slots=True)
class Halt:
    """A sticky mark on a run: nothing new begins until a person resumes it."""

    kind: HaltKind
    reason: str
    by: str
    at_us: int


@dataclass(frozen=True, slots=True)
class StageMark:
    """What one stage of the pipeline left behind; the `decided` event carries one per stage, in order."""

    stage: str
    outcome: Literal["pass", "deny", "ask", "stop"]
    detail: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Give the JSON object."""
        return {"stage": self.stage, "outcome": self.outcome, **self.detail}
