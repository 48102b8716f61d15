"""Answers: what an agent of each role must answer with, as JSON Schema, and how its text becomes a plan or a handoff.

In:   the text of a model's final answer; a way to resolve evidence.
Out:  `Plan` or `Handoff`, or `Rejected` with what to do better, as data for the agent.
May import: recovery, records. Must not know: where evidence is kept, who asks again.
Why typed lists alone: free text between agents bloats the next context and cannot be checked (DESIGN.md, promise 5).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from midwatch.records.call import AgentRole
from midwatch.records.fields import FieldError
from midwatch.records.handoff import (
    ITEM_LIMIT,
    LISTS,
    TEXT_LIMIT,
    Criterion,
    Dispatch,
    Handoff,
    HandoffStatus,
    Item,
    ItemError,
    Plan,
    Shown,
)
from midwatch.recovery import Clean, Recovered, compile_schema, recover

__all__ = ["Evidence", "Parsed", "Rejected", "Resolve", "answer_schema", "failed", "parse_handoff", "parse_plan"]

ANSWER_LIMIT: Final[int] = 40_000
"""Characters of a synthesis agent's Markdown answer."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """What a reference leads to: an execution of this run.

    Attributes:
        ok: it ended well; what failed shows nothing but that.
        changed: whether it changed something; None for what only looks. A write that was seen to change nothing: False.
        passed: False where its result says that what it ran failed: an `exit_code` other than 0.
    """

    tool: str
    ok: bool
    changed: bool | None = None
    passed: bool = True


Resolve = Callable[[str], Evidence | None]
"""Turns `e:<effect id>` into the execution it names, if this agent may cite it."""

_HINTS: Final[Mapping[str, str]] = {
    "unknown": "cite only references from `refs` of answers that you were given",
    "unknown_item": "cite only what `refs` of a handoff that you received gives for its items",
    "no_evidence": "cite at least one reference that shows it, or say it in `needed` or `risks`",
    "failed": "that call failed, so it shows no change; say in `risks` that it failed",
    "no_change": "those calls changed nothing; say what you found, citing what you looked at",
}


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
    items: tuple[ItemError, ...] = ()


def _closed(properties: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "type": "object",
        "additionalProperties": False,
        "required": list(properties),
        "properties": dict(properties),
    }


_TEXT: Final = {"type": "string", "minLength": 1, "maxLength": TEXT_LIMIT}


def _items(kinds: str) -> dict[str, Any]:
    reference = {"type": "string", "pattern": f"^{kinds}:[0-9a-f]{{16}}$"}
    evidence = {"type": "array", "maxItems": 8, "items": reference}
    return {"type": "array", "maxItems": ITEM_LIMIT, "items": _closed({"text": _TEXT, "evidence": evidence})}


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
    lists: dict[str, Any] = {name: _items("e" if role == "specialist" else "[eh]") for name in LISTS}
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
    text: str,
    *,
    agent: str,
    role: AgentRole,
    criteria: Sequence[Criterion],
    resolve: Resolve,
    truncated: bool,
    received: Sequence[Handoff] = (),
) -> Parsed | Rejected:
    """Read the answer of a specialist or of synthesis: every reference must resolve, and what is said to be changed be shown.

    A criterion counts as met when an item cites an execution that ended well, and whose result does not say otherwise, of one of the
    tools that can show it; the others are listed in `unmet`, and the handoff says so in its status.

    Args:
        received: whose items it may cite; an item stands for what it cites itself.
    """
    read = _read(text, answer_schema(role), truncated=truncated)
    if isinstance(read, Rejected):
        return read
    body, rule = read
    handed = {name: item.evidence for handoff in received for _, _, item, name in handoff.items()}
    lists: dict[str, tuple[Item, ...]] = {}
    errors: list[ItemError] = []
    cited: list[Evidence] = []
    for field in LISTS:
        found = [_judged(field, at, Item.from_json(item), resolve, handed) for at, item in enumerate(body[field])]
        lists[field] = tuple(item for item, _, _ in found)
        errors += [error for _, _, wrong in found for error in wrong]
        cited += [each for _, shows, _ in found for each in shows]
    if errors:
        return Rejected("evidence", "some items are not shown by what they cite", items=tuple(errors[:20]))
    shown = {each.tool for each in cited if each.ok and each.passed}
    unmet = tuple(item.text for item in criteria if not shown.intersection(item.shown_by))
    status: HandoffStatus = "unmet" if unmet else "complete"
    return Parsed(Handoff(agent, status, **lists, unmet=unmet, answer=body.get("answer")), rule)


def _judged(
    field: str, index: int, item: Item, resolve: Resolve, handed: Mapping[str, tuple[str, ...]]
) -> tuple[Item, tuple[Evidence, ...], tuple[ItemError, ...]]:
    """Give an item as the kernel sees it, what it rests on, and what is wrong with it."""

    def wrong(code: str, ref: str | None = None) -> ItemError:
        return ItemError(field, index, code, _HINTS[code], ref)

    shows: dict[str, Evidence] = {}
    errors: list[ItemError] = []
    for ref in item.evidence:
        if ref.startswith("h:") and ref not in handed:
            errors.append(wrong("unknown_item", ref))
            continue
        for leaf in handed[ref] if ref.startswith("h:") else (ref,):
            found = resolve(leaf)
            if found is None:
                errors.append(wrong("unknown", ref))
            else:
                shows[leaf] = found
    rests = tuple(shows.values())
    if errors or field != "changed":
        return item, rests, tuple(errors)
    if not rests:
        return item, rests, (wrong("no_evidence"),)
    failed = tuple(wrong("failed", ref) for ref, each in shows.items() if not each.ok)
    if failed:
        return item, rests, failed
    if all(each.changed is False for each in rests):
        return item, rests, (wrong("no_change"),)
    shown: Shown = "done" if any(each.changed for each in rests) else "seen"
    return replace(item, shown=shown), rests, ()


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
