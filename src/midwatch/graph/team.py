"""The team: CEO → specialists in parallel → synthesis, as one LangGraph `StateGraph` with every loop visible.

In:   a fleet's team, two node bodies (`think`, `act`) and a saver.
Out:  a compiled graph; `digest` names its shape, so that a paused run is not resumed under another one.
May import: agents, config, records. Must not know: guards, stores, models; the bodies do the work.

    START → ceo{think ↺} → Send → packages{think ⇄ act} ┐
                         → Send → storage{think ⇄ act}  ├→ editor{think ⇄ act} → END
                         → Send → repo{think ⇄ act}     ┘

Why subgraphs: an agent's own loop is two nodes and their edges, so that each turn is a transition with a checkpoint. A CEO has
no `act` node: it has no tools by construction, and the pipeline refuses it one besides.
"""

from __future__ import annotations

import hashlib
import operator
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Protocol, TypedDict

import orjson
from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.graph import END, START, StateGraph
from langgraph.graph.state import CompiledStateGraph
from langgraph.types import Send

from midwatch.config.fleet import Fleet
from midwatch.config.specs import TeamSpec

__all__ = ["AgentState", "Bodies", "TeamState", "build", "digest", "outline", "team"]


class TeamState(TypedDict, total=False):
    """State of the root graph; JSON values only, so that strict deserialisation needs no allow-list."""

    request: Any
    plan: dict[str, Any]
    handoffs: Annotated[list[dict[str, Any]], operator.add]
    result: dict[str, Any]


class AgentState(TypedDict, total=False):
    """State of one agent's subgraph.

    Attributes:
        dispatch: the task of a specialist. transcript: messages as JSON, growing. pending: tool calls that `act` must carry out.
        guessed: rule by which the adapter recovered them from prose, or None.
        turn: how often `think` ran. causes: ledger events behind the next action.
    """

    request: Any
    plan: dict[str, Any]
    dispatch: dict[str, Any]
    handoffs: Annotated[list[dict[str, Any]], operator.add]
    transcript: Annotated[list[dict[str, Any]], operator.add]
    pending: list[dict[str, str]]
    guessed: str | None
    turn: int
    causes: list[int]
    done: bool
    result: dict[str, Any]


class _PlanOut(TypedDict, total=False):
    plan: dict[str, Any]


class _HandoffOut(TypedDict, total=False):
    handoffs: Annotated[list[dict[str, Any]], operator.add]


class _ResultOut(TypedDict, total=False):
    result: dict[str, Any]


class Bodies(Protocol):
    """What the nodes do; given by the engine."""

    async def think(self, agent: str, state: AgentState) -> dict[str, Any]:
        """One step: ask the model, read the answer; sets `done`, or `pending`, or neither to think again."""
        ...

    async def act(self, agent: str, state: AgentState) -> dict[str, Any]:
        """Carry out `pending`; appends the answers to `transcript`."""
        ...


def team(*, ceo: str, specialists: Sequence[str], synthesis: str) -> TeamSpec:
    """Declare a team in Python: the names of agents of a fleet, as `graph: {team: …}` does in a fleet file."""
    return TeamSpec(ceo=ceo, specialists=tuple(specialists), synthesis=synthesis)


def build(
    spec: TeamSpec, bodies: Bodies, saver: BaseCheckpointSaver[Any] | None
) -> CompiledStateGraph[Any, Any, Any, Any]:
    """Compile the team."""
    graph = StateGraph(TeamState)
    graph.add_node(spec.ceo, _agent(spec.ceo, bodies, _PlanOut, acts=False))
    for name in spec.specialists:
        graph.add_node(name, _agent(name, bodies, _HandoffOut, acts=True))
        graph.add_edge(name, spec.synthesis)
    graph.add_node(spec.synthesis, _agent(spec.synthesis, bodies, _ResultOut, acts=True))
    graph.add_edge(START, spec.ceo)
    graph.add_conditional_edges(spec.ceo, _dispatch, list(spec.specialists))
    graph.add_edge(spec.synthesis, END)
    return graph.compile(checkpointer=saver)


def outline(fleet: Fleet) -> dict[str, list[str]]:
    """Give the drawing's data: each stage's agents, for the terminal."""
    spec = fleet.graph
    if not isinstance(spec, TeamSpec):
        return {}
    return {"ceo": [spec.ceo], "specialists": list(spec.specialists), "synthesis": [spec.synthesis]}


def digest(fleet: Fleet) -> str:
    """Digest the shape: nodes, edges, roles; a resume under another digest is refused."""
    shape: Mapping[str, Any] = {"pattern": "team/1", "graph": outline(fleet)}
    return hashlib.sha256(orjson.dumps(shape, option=orjson.OPT_SORT_KEYS)).hexdigest()


def _agent(name: str, bodies: Bodies, output: type, *, acts: bool) -> CompiledStateGraph[Any, Any, Any, Any]:
    graph = StateGraph(AgentState, output_schema=output)

    async def think(state: AgentState) -> dict[str, Any]:
        return await bodies.think(name, state)

    graph.add_node("think", think)
    graph.add_edge(START, "think")
    if not acts:
        graph.add_conditional_edges("think", _ceo_next, ["think", END])
        return graph.compile()

    async def act(state: AgentState) -> dict[str, Any]:
        return await bodies.act(name, state)

    graph.add_node("act", act)
    graph.add_conditional_edges("think", _next, ["think", "act", END])
    graph.add_edge("act", "think")
    return graph.compile()


def _next(state: AgentState) -> str:
    if state.get("done"):
        return END
    return "act" if state.get("pending") else "think"


def _ceo_next(state: AgentState) -> str:
    return END if state.get("done") else "think"


def _dispatch(state: TeamState) -> list[Send]:
    return [
        Send(item["agent"], {"request": state["request"], "dispatch": item}) for item in state["plan"]["dispatches"]
    ]
