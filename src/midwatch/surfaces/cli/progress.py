"""Progress: where each agent of a run stands, and what was spent, grown from the ledger's events.

In:   a fleet, then events in order, from any thread. Out: states and sums; one plain line an event.
May import: config, records. Must not know: how it is shown.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from midwatch.config.specs import TeamSpec
from midwatch.surfaces.cli.common import money, seconds

if TYPE_CHECKING:
    from midwatch.config.fleet import Fleet
    from midwatch.records.event import Event

__all__ = ["AgentLine", "Progress", "line_of"]

_SILENT: Final = (
    "node.finished",
    "decided",
    "gate.used",
    "budget.set",
    "budget.settled",
    "fleet.loaded",
    "run.created",
)


@dataclass(slots=True)
class AgentLine:
    """One agent: `state` is waiting, thinking, acting, asking, done or failed; `doing` the tool it uses last."""

    name: str
    role: str
    state: str = "waiting"
    doing: str = ""
    cost: int = 0
    tokens: int = 0
    tools: int = 0


@dataclass(slots=True)
class Progress:
    """A run's standing. Mutable; `add` may be called on any thread.

    Attributes:
        caps: of the run, by unit; units without a cap are absent.
        run: its id, once the first event has come.
        cost: micro-dollars. tokens, tools: whole. started_us: of this segment.
    """

    fleet: str
    agents: dict[str, AgentLine]
    caps: Mapping[str, int]
    run: str | None = None
    cost: int = 0
    tokens: int = 0
    tools: int = 0
    started_us: int | None = None
    note: str = ""
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @classmethod
    def of(cls, fleet: Fleet) -> Progress:
        """Begin with every agent waiting, in the order of the graph."""
        graph = fleet.graph
        order = (graph.ceo, *graph.specialists, graph.synthesis) if isinstance(graph, TeamSpec) else tuple(fleet.agents)
        agents = {name: AgentLine(name, fleet.agents[name].role) for name in order}
        budget = fleet.budgets.get("run")
        return cls(fleet.name, agents, {} if budget is None else {str(unit): cap for unit, cap in budget.caps.items()})

    def add(self, event: Event) -> None:
        """Take one event into account; events of other runs in the same home are passed over."""
        with self._lock:
            if self.run is None and event.kind in ("run.created", "run.started", "run.resumed"):
                self.run, self.started_us = event.run, event.at_us
            if event.run != self.run or event.run is None:
                return
            agent = self.agents.get(event.agent or "")
            if agent is not None:
                _move(agent, event)
            if event.kind == "finished" and "effect" in event.data:
                self._spent(agent, event)
            elif event.kind in ("signal", "handoff.refused", "governor.acted", "run.halted"):
                self.note = line_of(event) or self.note

    def _spent(self, agent: AgentLine | None, event: Event) -> None:
        usage = event.data.get("usage") or {}
        tokens = int(usage.get("input", 0)) + int(usage.get("output", 0))
        cost, tools = int(event.data.get("cost", 0)), int("tool" in event.data)
        self.cost, self.tokens, self.tools = self.cost + cost, self.tokens + tokens, self.tools + tools
        if agent is not None:
            agent.cost, agent.tokens, agent.tools = agent.cost + cost, agent.tokens + tokens, agent.tools + tools


def _move(agent: AgentLine, event: Event) -> None:
    if event.kind == "node.started":
        agent.state = "acting" if (event.node or "").endswith(".act") else "thinking"
    elif event.kind == "node.failed":
        agent.state = "failed"
    elif event.kind == "gate.opened":
        agent.state = "asking"
    elif event.kind == "intent" and "tool" in event.data:
        agent.doing = str(event.data["tool"])
    elif event.kind == "plan":
        agent.state, agent.doing = "done", f"{event.data.get('dispatches', 0)} tasks"
    elif event.kind == "handoff":
        agent.state = "failed" if event.data.get("status") == "failed" else "done"
        agent.doing = str(event.data.get("status", ""))


def line_of(event: Event) -> str | None:
    """Tell one event in one line, or None where it would tell nothing new."""
    if event.kind in _SILENT:
        return None
    data, where = event.data, event.node or event.agent or "run"
    at = event.at_us // 1_000_000 % 86_400
    clock = f"{at // 3600:02d}:{at // 60 % 60:02d}:{at % 60:02d}"
    said = _said(event.kind, data)
    return f"{clock}  {where:<18}  {event.kind:<14}  {said}".rstrip()


def _said(kind: str, data: Mapping[str, object]) -> str:
    what = data.get("tool") or data.get("model") or data.get("route") or ""
    if kind == "finished":
        cost, ms = data.get("cost"), data.get("ms")
        parts = [str(what), "ok" if data.get("ok") else str(data.get("code"))]
        parts += [seconds(ms * 1000)] if isinstance(ms, int) else []
        parts += [money(cost)] if isinstance(cost, int) else []
        return " ".join(parts)
    if kind in ("proposed", "intent"):
        return str(what)
    shown = (
        f"{key} {value}"
        for key, value in data.items()
        if isinstance(value, str | int) and not key.endswith(("_blob", "digest"))
    )
    return ", ".join(shown)
