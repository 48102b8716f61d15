"""What passes between agents: plans downwards, handoffs onwards; typed items, no free text beside them.

Source: DESIGN.md, promise 5. Sizes are caps, refused beyond, never cut silently.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

__all__ = ["ITEM_LIMIT", "TEXT_LIMIT", "Criterion", "Dispatch", "Handoff", "HandoffStatus", "Item", "Plan"]

TEXT_LIMIT: Final[int] = 400
"""Characters of one item's text."""
ITEM_LIMIT: Final[int] = 12
"""Items of one list."""

HandoffStatus = Literal["complete", "unmet", "failed"]
"""`complete`: every criterion is shown. `unmet`: some are not. `failed`: the agent could not finish; `risks` say why."""


@dataclass(frozen=True, slots=True)
class Item:
    """One statement with what shows it.

    Attributes:
        text: one sentence, at most `TEXT_LIMIT` characters.
        evidence: references such as `e:<effect id>`, each of which must resolve to an execution of this run.
    """

    text: str
    evidence: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Give the JSON object."""
        return {"text": self.text, "evidence": list(self.evidence)}

    @staticmethod
    def from_json(body: Mapping[str, Any]) -> Item:
        """Read back what `to_json` gave."""
        return Item(body["text"], tuple(body["evidence"]))


@dataclass(frozen=True, slots=True)
class Criterion:
    """When a dispatch counts as done, so that the kernel can check it without a model.

    Attributes:
        text: for people.
        shown_by: tool names; some item of the handoff must cite a successful execution of one of them.
    """

    text: str
    shown_by: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Give the JSON object."""
        return {"text": self.text, "shown_by": list(self.shown_by)}


@dataclass(frozen=True, slots=True)
class Dispatch:
    """One task that the CEO gives to one specialist."""

    agent: str
    task: str
    criteria: tuple[Criterion, ...]

    def to_json(self) -> dict[str, Any]:
        """Give the JSON object."""
        return {"agent": self.agent, "task": self.task, "criteria": [item.to_json() for item in self.criteria]}

    @staticmethod
    def from_json(body: Mapping[str, Any]) -> Dispatch:
        """Read back what `to_json` gave."""
        criteria = tuple(Criterion(item["text"], tuple(item["shown_by"])) for item in body["criteria"])
        return Dispatch(body["agent"], body["task"], criteria)


@dataclass(frozen=True, slots=True)
class Plan:
    """What the CEO decided: the goal in its own words and who does what."""

    goal: str
    dispatches: tuple[Dispatch, ...]

    def to_json(self) -> dict[str, Any]:
        """Give the JSON object."""
        return {"goal": self.goal, "dispatches": [item.to_json() for item in self.dispatches]}


@dataclass(frozen=True, slots=True)
class Handoff:
    """What one agent passes on.

    Attributes:
        agent: who hands off.
        changed: what is different now, or was found.
        needed: what the next one must know or do.
        risks: what remains uncertain or dangerous.
        unmet: texts of criteria that no cited evidence shows; set by the kernel.
        answer: only from a synthesis agent: the run's output, Markdown.
    """

    agent: str
    status: HandoffStatus
    changed: tuple[Item, ...]
    needed: tuple[Item, ...]
    risks: tuple[Item, ...]
    unmet: tuple[str, ...] = ()
    answer: str | None = None

    def to_json(self) -> dict[str, Any]:
        """Give the JSON object."""
        return {
            "agent": self.agent,
            "status": self.status,
            "changed": [item.to_json() for item in self.changed],
            "needed": [item.to_json() for item in self.needed],
            "risks": [item.to_json() for item in self.risks],
            "unmet": list(self.unmet),
            "answer": self.answer,
        }

    @staticmethod
    def from_json(body: Mapping[str, Any]) -> Handoff:
        """Read back what `to_json` gave."""
        return Handoff(
            agent=body["agent"],
            status=body["status"],
            changed=tuple(Item.from_json(item) for item in body["changed"]),
            needed=tuple(Item.from_json(item) for item in body["needed"]),
            risks=tuple(Item.from_json(item) for item in body["risks"]),
            unmet=tuple(body["unmet"]),
            answer=body["answer"],
        )
