"""Degrading: what a request becomes once a ladder says so: another route, a shorter conversation; and how many specialists go out.

In:   a request, a plan, what holds now. Out: the request that is sent, the plan that is carried out.
May import: governor's ladders, records. Must not know: scopes, who decides.
Why here and not in the agent's step: the journal knows a call by what the agent asked for, so that a run that is resumed finds the
answer that it paid for, whatever was cheaper then.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from midwatch.engine.context import RouteRuntime
from midwatch.governor.ladders import Cheaper, narrowed
from midwatch.records.chat import ChatRequest, Message
from midwatch.records.handoff import Plan

__all__ = ["asked", "planned"]


def asked(request: ChatRequest, cheaper: Cheaper, routes: Mapping[str, RouteRuntime]) -> ChatRequest:
    """Give the request that is sent in the place of `request`."""
    route = request.route if cheaper.route is None or cheaper.route not in routes else cheaper.route
    messages = request.messages
    if cheaper.context is not None:
        groups = _groups(messages)
        sizes = [_size(message) for message in messages]
        messages = tuple(messages[place] for place in narrowed(sizes, groups, cheaper.context))
    return replace(request, route=route, messages=messages)


def planned(plan: Plan, cheaper: Cheaper) -> Plan:
    """Give the plan with as many dispatches as may still go out, the first ones; one at least, or nobody would work."""
    if cheaper.specialists is None or len(plan.dispatches) <= max(1, cheaper.specialists):
        return plan
    return replace(plan, dispatches=plan.dispatches[: max(1, cheaper.specialists)])


def _groups(messages: tuple[Message, ...]) -> list[int]:
    """Number the turns: 0 up to the first answer of the agent, then one a further answer, with what was said to it."""
    found, group = [], 0
    for message in messages:
        group += message.role == "assistant"
        found.append(group)
    return found


def _size(message: Message) -> int:
    return len(message.content.encode()) + sum(len(call.arguments) for call in message.tool_calls)
