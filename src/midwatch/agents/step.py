"""One step: what an agent sees in, what it proposes out. A pure function; no I/O, no clock, no store.

In:   `View`: the agent's specification, what it was asked, its transcript.
Out:  `AskModel` when the model must speak next; `CallTools`, `Finish` or `TryAgain` once it has spoken.
May import: config, records. Must not know: how a model or tool is reached, what it costs, whether it is allowed.
Source: 12-factor agents, factor 12 (a stateless reducer).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import orjson

from midwatch.agents.answers import Parsed, Rejected, Resolve, answer_schema, parse_handoff, parse_plan
from midwatch.config.specs import AgentSpec
from midwatch.records.chat import ChatAnswer, ChatRequest, Message, ToolOffer, ToolRequest
from midwatch.records.handoff import LISTS, Criterion, Dispatch, Handoff, Plan

__all__ = [
    "AskModel",
    "CallTools",
    "CutCalls",
    "Finish",
    "Proposal",
    "TryAgain",
    "View",
    "after_answer",
    "again",
    "before_model",
    "brief",
]

_RULES: Final[Mapping[str, str]] = {
    "ceo": (
        "You plan and delegate; you have no tools. Answer with one JSON object: `goal`, and `dispatches`, each with `agent`, `task` "
        "and `criteria`. A criterion has `text` and `shown_by`: names of that agent's tools whose success shows that it is met."
    ),
    "specialist": (
        "Use your tools for facts. When done, answer with one JSON object and nothing beside it: `changed`, `needed`, `risks`, each a "
        "list of {`text`, `evidence`}. Evidence is a list of references from `refs` of tool answers (`e:...`). Say what is missing."
    ),
    "synthesis": (
        "You receive typed handoffs. Write the result. When done, answer with one JSON object and nothing beside it: `answer` "
        "(Markdown) and `changed`, `needed`, `risks`, each a list of {`text`, `evidence`} that cites references you were given: "
        "`e:...`, or what `refs` of a handoff gives for an item (`h:...`)."
    ),
}

_CUT: Final = ("length", "content_filter")
"""Finish reasons after which an answer may lack its end."""
_PLAIN: Final = ("empty_arguments", "refusal")
"""Signals of an adapter after which its calls are still what the model wrote; after any other they were recovered."""
_SHOWN: Final = 2_000
"""Characters of a refused answer that its agent sees again; a megabyte of prose would otherwise be paid for at every turn."""


@dataclass(frozen=True, slots=True)
class View:
    """Everything an agent may see.

    Attributes:
        request: the run's input, as JSON. dispatch: a specialist's task. plan, handoffs: for synthesis.
        roster: agent name -> tool names, for the CEO.
        offers: tools that the agent may be offered; always empty for a CEO.
        transcript: messages after the first, oldest first.
    """

    spec: AgentSpec
    request: Any
    max_output: int
    offers: tuple[ToolOffer, ...] = ()
    dispatch: Dispatch | None = None
    plan: Plan | None = None
    handoffs: tuple[Handoff, ...] = ()
    roster: Mapping[str, tuple[str, ...]] | None = None
    transcript: tuple[Message, ...] = ()

    @property
    def criteria(self) -> tuple[Criterion, ...]:
        """What the dispatch asks to be shown."""
        return self.dispatch.criteria if self.dispatch is not None else ()


@dataclass(frozen=True, slots=True)
class AskModel:
    """Ask the model this."""

    request: ChatRequest


@dataclass(frozen=True, slots=True)
class CallTools:
    """Carry out these tool calls, each past every guard. `guessed` names the rule by which they were recovered from prose."""

    calls: tuple[ToolRequest, ...]
    guessed: str | None = None


@dataclass(frozen=True, slots=True)
class CutCalls:
    """Carry out none of these: the answer was cut, so that nobody knows what the calls were going to say. `rule` says by what."""

    calls: tuple[ToolRequest, ...]
    rule: str


@dataclass(frozen=True, slots=True)
class Finish:
    """The agent's part is done. `rule` names the recovery rule that was needed to read it."""

    value: Plan | Handoff
    rule: str | None


@dataclass(frozen=True, slots=True)
class TryAgain:
    """The answer breaks its contract; `said` is what the transcript keeps of it, `message` what the agent is told."""

    rejected: Rejected
    said: Message
    message: Message


Proposal = AskModel | CallTools | CutCalls | Finish | TryAgain


def before_model(view: View) -> AskModel:
    """Build the request of the next model call from the view alone."""
    system = f"{view.spec.prompt.rstrip()}\n\n{_RULES[view.spec.role]}"
    opening = Message("user", orjson.dumps(brief(view), option=orjson.OPT_SORT_KEYS).decode())
    return AskModel(
        ChatRequest(
            agent=view.spec.name,
            route=view.spec.route,
            messages=(Message("system", system), opening, *view.transcript),
            max_output=view.max_output,
            tools=() if view.spec.role == "ceo" else view.offers,
            answer_schema=answer_schema(view.spec.role, specialists=tuple(view.roster or ())),
            answer_name={"ceo": "plan", "specialist": "handoff", "synthesis": "report"}[view.spec.role],
        )
    )


def after_answer(view: View, answer: ChatAnswer, resolve: Resolve) -> CallTools | CutCalls | Finish | TryAgain:
    """Turn the model's answer into the next proposal.

    A CEO's tool call is passed on like any other, so that the pipeline refuses and records it.
    """
    truncated = answer.finish in _CUT
    if answer.tool_calls:
        if truncated:
            return CutCalls(answer.tool_calls, f"cut:{answer.finish}")
        guessed = next((rule for rule in answer.signals if rule not in _PLAIN), None)
        return CallTools(answer.tool_calls, guessed)
    parsed: Parsed | Rejected
    if view.spec.role == "ceo":
        parsed = parse_plan(answer.content, specialists=tuple(view.roster or ()), truncated=truncated)
    else:
        parsed = parse_handoff(
            answer.content,
            agent=view.spec.name,
            role=view.spec.role,
            criteria=view.criteria,
            resolve=resolve,
            truncated=truncated,
            received=view.handoffs,
        )
    if isinstance(parsed, Parsed):
        return Finish(parsed.value, parsed.rule)
    return again(answer, parsed)


def again(answer: ChatAnswer, rejected: Rejected) -> TryAgain:
    """Tell an agent what is wrong with its answer."""
    return TryAgain(rejected, Message("assistant", _clipped(answer.content)), Message("user", _complaint(rejected)))


def brief(view: View) -> dict[str, Any]:
    """Give what an agent is asked, as JSON: the request, and what its role has besides."""
    told: dict[str, Any] = {"request": view.request}
    if view.roster is not None:
        told["agents"] = {name: list(tools) for name, tools in view.roster.items()}
    if view.dispatch is not None:
        told["task"] = view.dispatch.task
        told["criteria"] = [item.to_json() for item in view.dispatch.criteria]
    if view.plan is not None:
        told["plan"] = view.plan.to_json()
        told["handoffs"] = [_for_reader(item) for item in view.handoffs]
    return told


def _for_reader(handoff: Handoff) -> dict[str, Any]:
    """Give a handoff without what only the kernel adds to its items: copied as they stand, they are items of the next one."""
    body = handoff.to_json()
    del body["answer"]
    refs: dict[str, list[str]] = {field: [] for field in LISTS}
    for field, index, item, name in handoff.items():
        body[field][index].pop("shown", None)
        refs[field].append(name)
        if item.shown is not None:
            body.setdefault("shown", []).append(item.shown)
    return body | {"refs": refs}


def _clipped(text: str) -> str:
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}\n[{len(text) - _SHOWN:,} more characters are left out]"


def _complaint(rejected: Rejected) -> str:
    errors: Sequence[dict[str, str]] = [error.to_json() for error in rejected.field_errors]
    items = [item.to_json() for item in rejected.items]
    told = {"code": rejected.code, "message": rejected.message, "field_errors": errors, "items": items}
    body = {"ok": False, "error": told}
    return orjson.dumps(body).decode()
