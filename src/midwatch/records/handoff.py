"""What passes between agents: plans downwards, handoffs onwards; typed items, no free text beside them.

Source: DESIGN.md, promise 5. Sizes are caps, refused beyond, never cut silently.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

import orjson

__all__ = [
    "ITEM_LIMIT",
    "LISTS",
    "TEXT_LIMIT",
    "Criterion",
    "Dispatch",
    "Handoff",
    "HandoffStatus",
    "Item",
    "ItemError",
    "ListName",
    "Plan",
    "Shown",
]

TEXT_LIMIT: Final[int] = 400
"""Characters of one item's text."""
ITEM_LIMIT: Final[int] = 12
"""Items of one list."""

HandoffStatus = Literal["complete", "unmet", "failed"]
"""`complete`: every criterion is shown. `unmet`: some are not. `failed`: the agent could not finish; `risks` say why."""


ListName = Literal["changed", "needed", "risks"]
LISTS: Final[tuple[ListName, ...]] = ("changed", "needed", "risks")

Shown = Literal["done", "seen"]
"""What the evidence of a `changed` item shows: `done`: an effect of this run changed something; `seen`: something was only looked at."""


@dataclass(frozen=True, slots=True)
class Item:
    """One statement with what shows it.

    Attributes:
        text: one sentence, at most `TEXT_LIMIT` characters.
        evidence: references: `e:<effect id>`, an execution of this run; `h:<item id>`, an item that its author was handed.
        shown: set by the kernel for items of `changed`; None elsewhere.
    """

    text: str
    evidence: tuple[str, ...] = ()
    shown: Shown | None = None

    def to_json(self) -> dict[str, Any]:
        """Give the JSON object."""
        shown = {} if self.shown is None else {"shown": self.shown}
        return {"text": self.text, "evidence": list(self.evidence), **shown}

    @staticmethod
    def from_json(body: Mapping[str, Any]) -> Item:
        """Read back what `to_json` gave."""
        return Item(body["text"], tuple(body["evidence"]), body.get("shown"))


@dataclass(frozen=True, slots=True)
class ItemError:
    """Why one item of a handoff is refused, said without quoting its text.

    Attributes:
        field: the list. index: the item's place in it. code: closed word. hint: what to do instead.
        ref: the reference at fault, where there is one.
    """

    field: str
    index: int
    code: str
    hint: str
    ref: str | None = None

    def to_json(self) -> dict[str, Any]:
        """Give the JSON object."""
        ref = {} if self.ref is None else {"ref": self.ref}
        return {"field": self.field, "index": self.index, "code": self.code, "hint": self.hint, **ref}


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

    def items(self) -> Iterator[tuple[ListName, int, Item, str]]:
        """Give every item: its list, its place there, itself, and the name by which whoever receives it may cite it."""
        for field, items in zip(LISTS, (self.changed, self.needed, self.risks), strict=True):
            for index, item in enumerate(items):
                body = orjson.dumps([self.agent, field, index, item.text, list(item.evidence)])
                yield field, index, item, f"h:{hashlib.sha256(body).hexdigest()[:16]}"

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
