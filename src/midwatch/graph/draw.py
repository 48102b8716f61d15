"""Draw: a fleet's graph as data: nodes with what they are and who must say yes, edges; for a team and for an imported graph alike.

In:   a fleet and its tools. Out: `Drawing`; `graph.paint` makes pictures of it.
May import: this room, config, tools. Must not know: how it is shown.
Why LangGraph's own drawing is only read here: what it renders itself, it renders by asking a public web service.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, Final

from midwatch.config.fleet import Fleet
from midwatch.config.specs import GateRule, ImportSpec, TeamSpec
from midwatch.graph import foreign, guards
from midwatch.graph.govern import Kit, NotRunning
from midwatch.graph.team import AgentState, build
from midwatch.tools.registry import Registry

__all__ = ["Drawing", "Edge", "Node", "drawing"]

_START: Final = "__start__"
_END: Final = "__end__"


@dataclass(frozen=True, slots=True)
class Node:
    """One node.

    Attributes:
        id: as the graph names it, subgraphs before a colon. kind: `start`, `end` or `node`. detail: lines on what it is.
        gates: who must say yes to some of what it may do. unguarded: why its effects are not governed, or None.
    """

    id: str
    kind: str
    detail: tuple[str, ...] = ()
    gates: tuple[str, ...] = ()
    unguarded: str | None = None

    def to_json(self) -> dict[str, Any]:
        """Give the JSON object that `--json` prints."""
        told = {"id": self.id, "kind": self.kind, "detail": list(self.detail), "gates": list(self.gates)}
        return {**told, "unguarded": self.unguarded}


@dataclass(frozen=True, slots=True)
class Edge:
    """One edge. `conditional`: it is taken or not, as the state says."""

    source: str
    target: str
    conditional: bool = False

    def to_json(self) -> dict[str, Any]:
        """Give the JSON object that `--json` prints."""
        return {"source": self.source, "target": self.target, "conditional": self.conditional}


@dataclass(frozen=True, slots=True)
class Drawing:
    """A graph, in the order in which it declares its nodes."""

    fleet: str
    nodes: tuple[Node, ...]
    edges: tuple[Edge, ...]

    def to_json(self) -> dict[str, Any]:
        """Give the JSON object that `--json` prints."""
        return {
            "fleet": self.fleet,
            "nodes": [node.to_json() for node in self.nodes],
            "edges": [edge.to_json() for edge in self.edges],
        }


class _Still:
    """Bodies of nodes that are drawn and never run."""

    async def think(self, agent: str, state: AgentState) -> dict[str, Any]:
        """Never called."""
        raise NotImplementedError

    async def act(self, agent: str, state: AgentState) -> dict[str, Any]:
        """Never called."""
        raise NotImplementedError


def drawing(fleet: Fleet, registry: Registry) -> Drawing:
    """Draw a fleet's graph. Nothing of it runs but an imported graph's own `build`.

    Raises:
        InvalidFleet: the imported graph cannot be built.
    """
    open_: Mapping[str, str] = {}
    if isinstance(fleet.graph, ImportSpec):
        kit = Kit(fleet, registry, NotRunning())
        compiled = foreign.load(fleet, kit).compile(kit, None)
        open_ = {part.node.replace(".", ":"): part.why for part in guards.unguarded(compiled)}
    else:
        compiled = build(fleet.graph, _Still(), None)
    drawn = compiled.get_graph(xray=True)
    edges = _contracted([Edge(edge.source, edge.target, edge.conditional) for edge in drawn.edges])
    kept = [name for name in drawn.nodes if name in (_START, _END) or not _is_border(name)]
    kept.sort(key=lambda name: name == _END)
    nodes = tuple(_node(fleet, registry, name, open_.get("" if name == _START else name)) for name in kept)
    return Drawing(fleet.name, nodes, tuple(edges))


def _is_border(name: str) -> bool:
    return name.rpartition(":")[2] in (_START, _END) and ":" in name


def _contracted(edges: list[Edge]) -> list[Edge]:
    """Take out the borders of subgraphs: what led to one leads on to what follows."""
    borders = {name for edge in edges for name in (edge.source, edge.target) if _is_border(name)}
    for border in sorted(borders):
        into = [edge for edge in edges if edge.target == border]
        out = [edge for edge in edges if edge.source == border]
        joined = [Edge(a.source, b.target, a.conditional or b.conditional) for a in into for b in out]
        edges = [edge for edge in edges if border not in (edge.source, edge.target)] + joined
    merged: dict[tuple[str, str], bool] = {}
    for edge in edges:
        key = (edge.source, edge.target)
        merged[key] = merged.get(key, True) and edge.conditional
    return [Edge(*key, conditional) for key, conditional in merged.items()]


def _node(fleet: Fleet, registry: Registry, name: str, unguarded: str | None) -> Node:
    if name in (_START, _END):
        return Node(name, name.strip("_"), unguarded=unguarded)
    agent, _, part = name.partition(":")
    spec = fleet.agents.get(agent)
    if not isinstance(fleet.graph, TeamSpec) or spec is None:
        return Node(name, "node", unguarded=unguarded)
    tools = [tool for tool in registry.names() if any(fnmatchcase(tool, glob) for glob in spec.tools)]
    if part == "act":
        detail = tuple(tools[:4]) + ((f"and {len(tools) - 4} more",) if len(tools) > 4 else ())
        return Node(name, "node", detail, tuple(dict.fromkeys(_asks(fleet, registry, agent, tools))))
    route = fleet.route_of(agent)
    how = "program" if spec.command else f"{spec.route}: {route.provider}/{route.model}"
    return Node(name, "node", (spec.role, how))


def _asks(fleet: Fleet, registry: Registry, agent: str, tools: list[str]) -> Iterator[str]:
    """Name who must say yes to some of what these tools may do."""
    for rule in fleet.gates:
        if any(_may_apply(rule, agent, tool, registry.get(tool).contract.effect) for tool in tools):
            yield rule.ask


def _may_apply(rule: GateRule, agent: str, tool: str, effect: str) -> bool:
    when = rule.when
    if when.effect and effect not in when.effect:
        return False
    if when.agent and not any(fnmatchcase(agent, glob) for glob in when.agent):
        return False
    return not when.tool or any(fnmatchcase(tool, glob) for glob in when.tool)
