"""Answers: what an agent of each role must answer with, as JSON Schema, and how its text becomes a plan or a handoff.

In:   the text of a model's final answer; a way to resolve evidence.
Out:  `Plan` or `Handoff`, or `Rejected` with what to do better, as data for the agent.
May import: recovery, records. Must not know: where evidence is kept, who asks again.
Why typed lists alone: free text between agents bloats the next context and cannot be checked (DESIGN.md, promise 5).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from midwatch.records.call import AgentRole
from midwatch.records.fields import FieldError
from midwatch.records.handoff import ITEM_LIMIT, TEXT_LIMIT, Criterion, Dispatch, Handoff, HandoffStatus, Item, Plan
from midwatch.recovery import Clean, Recovered, compile_schema, recover

__all__ = ["Evidence", "Parsed", "Rejected", "Resolve", "answer_schema", "failed", "parse_handoff", "parse_plan"]

ANSWER_LIMIT: Final[int] = 40_000
"""Characters of a synthesis agent's Markdown answer."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """What a reference leads to: an execution of this run."""

    tool: str
    ok: bool


Resolve = Callable[[str], Evidence | None]
"""Turns `e:<effect id>` into the execution it names, if this agent may cite it."""


@dataclass(frozen=True, slots=True)
class Parsed:
    """The value, with the recovery rule that had to fire to get it, if one did."""

    value: Plan | Handoff
    rule: str | None


@dataclass(frozen=True, slots=True)
class Rejected:
    """The text breaks the contract. `message` goes back to the agent and quotes nothing of the text."""

    code: str
    message: str
    field_errors: tuple[FieldError, ...] = ()


def _closed(properties: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "type": "object",
        "additionalProperties": False,
        "required": list(properties),
        "properties": dict(properties),
    }


_TEXT: Final = {"type": "string", "minLength": 1, "maxLength": TEXT_LIMIT}
_EVIDENCE: Final = {"type": "array", "maxItems": 8, "items": {"type": "string", "pattern": "^e:[0-9a-f]{16}$"}}
_ITEMS: Final = {"type": "array", "maxItems": ITEM_LIMIT, "items": _closed({"text": _TEXT, "evidence": _EVIDENCE})}


def answer_schema(role: AgentRole, *, specialists: Sequence[str] = ()) -> dict[str, Any]:
    """Give the schema of the final answer of `role`; a CEO may only name agents in `specialists`."""
    if role == "ceo":
        criterion = _closed(
            {
                "text": _TEXT,
                "shown_by": {
                    "type": "array",
                    "minItems": 1,
                    "maxItems": 8,
                    "items": {"type": "string", "maxLength": 100},
                },
            }
        )
        dispatch = _closed(
            {
                "agent": {"type": "string", "enum": list(specialists)},
                "task": {"type": "string", "minLength": 1, "maxLength": 1000},
                "criteria": {"type": "array", "minItems": 1, "maxItems": 5, "items": criterion},
            }
        )
        return _closed(
            {
                "goal": _TEXT,
                "dispatches": {"type": "array", "minItems": 1, "maxItems": 20, "items": dispatch},
            }
        )
    lists = {"changed": _ITEMS, "needed": _ITEMS, "risks": _ITEMS}
    if role == "specialist":
        return _closed(lists)
    return _closed({"answer": {"type": "string", "minLength": 1, "maxLength": ANSWER_LIMIT}, **lists})


def parse_plan(text: str, *, specialists: Sequence[str], truncated: bool) -> Parsed | Rejected:
    """Read a CEO's answer. Names outside the roster cannot pass the schema; a task given twice to one agent is refused."""
    read = _read(text, answer_schema("ceo", specialists=specialists), truncated=truncated)
    if isinstance(read, Rejected):
        return read
    body, rule = read
    dispatches = tuple(Dispatch.from_json(item) for item in body["dispatches"])
    if len({(item.agent, item.task) for item in dispatches}) != len(dispatches):
        return Rejected("duplicate_dispatch", "the same task is given twice to one agent; give each task once")
    return Parsed(Plan(body["goal"], dispatches), rule)


def parse_handoff(
    text: str, *, agent: str, role: AgentRole, criteria: Sequence[Criterion], resolve: Resolve, truncated: bool
) -> Parsed | Rejected:
    """Read the answer of a specialist or of synthesis: every reference must resolve, `changed` must be shown by something.

    A criterion counts as met when an item cites a successful execution of one of the tools that can show it; the others are
    listed in `unmet`, and the handoff says so in its status.
    """
    read = _read(text, answer_schema(role), truncated=truncated)
    if isinstance(read, Rejected):
        return read
    body, rule = read
    lists = {name: tuple(Item.from_json(item) for item in body[name]) for name in ("changed", "needed", "risks")}
    cited = {ref: resolve(ref) for items in lists.values() for item in items for ref in item.evidence}
    lost = sorted(ref for ref, found in cited.items() if found is None)
    if lost:
        errors = tuple(FieldError("", "evidence", f"`{ref}` names no execution that you may cite") for ref in lost[:10])
        return Rejected("evidence", "cite only references from `refs` of answers that you were given", errors)
    if any(not item.evidence for item in lists["changed"]):
        return Rejected("evidence", "every item of `changed` must cite at least one reference that shows it")
    shown = {found.tool for found in cited.values() if found is not None and found.ok}
    unmet = tuple(item.text for item in criteria if not shown.intersection(item.shown_by))
    status: HandoffStatus = "unmet" if unmet else "complete"
    return Parsed(Handoff(agent, status, **lists, unmet=unmet, answer=body.get("answer")), rule)


def failed(agent: str, reason: str, *, criteria: Sequence[Criterion] = ()) -> Handoff:
    """Make the handoff of an agent that could not finish, so that synthesis sees a labelled gap and not a missing part."""
    risk = Item(f"`{agent}` could not finish: {reason}"[:TEXT_LIMIT])
    return Handoff(agent, "failed", (), (), (risk,), unmet=tuple(item.text for item in criteria))


def _read(text: str, schema: Mapping[str, Any], *, truncated: bool) -> tuple[dict[str, Any], str | None] | Rejected:
    found = recover(text, compile_schema(schema), truncated=truncated)
    match found:
        case Clean(value=value):
            return value, None
        case Recovered(value=value, rule=rule):
            return value, rule
    return Rejected(
        found.code, f"the answer is not the JSON object that was asked for ({found.code})", found.field_errors
    )
