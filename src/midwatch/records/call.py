"""An action on its way past the guards: who wants it, where in the run, and what exactly.

Out: `Actor` and `Call`, read by every guard; no guard changes them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

__all__ = ["Actor", "AgentRole", "Call"]

AgentRole = Literal["ceo", "specialist", "synthesis"]


@dataclass(frozen=True, slots=True)
class Actor:
    """Who acts, and where in which run.

    Attributes:
        run: 32 hex digits; run, trace and thread id in one.
        vertical: group of agents with a common budget, or None.
        node: name of the graph node.
        task: LangGraph's checkpoint namespace of the node's task; the same again after a crash.
        step: ordinal of the agent's step in this task, from 1.
        epoch: fence epoch under which this worker may write.
    """

    run: str
    fleet: str
    agent: str
    role: AgentRole
    vertical: str | None
    node: str
    task: str
    step: int
    epoch: int


@dataclass(frozen=True, slots=True)
class Call:
    """One action: a tool execution or a model call.

    Attributes:
        id: unique within the task, made by the kernel from the step's ordinal, never by a model.
        name: tool name, or route alias for a model call.
        arguments: parsed JSON object; for a model call, `ChatRequest.to_json()`.
        causes: ledger sequence numbers of the events that led to this action.
    """

    id: str
    kind: Literal["tool", "model"]
    name: str
    arguments: Mapping[str, Any]
    causes: tuple[int, ...] = ()
