"""Program: what a run's agents are, as one JSON body that is kept with each of its segments, so that a replay needs no file but the record.

In:   a segment. Out: its program as JSON; that JSON read back as what the nodes of a team ask a fleet and its registry.
May import: config, records. Must not know: who replays it, the store.
Why kept when the segment begins: prompts and tools are files, and files change; what the agents were told then must not.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import orjson

from midwatch.config.specs import AgentSpec, Limits, TeamSpec
from midwatch.records.chat import ToolOffer

if TYPE_CHECKING:
    from midwatch.engine.context import Segment

__all__ = ["Program", "program_of", "read_program"]

FORMAT = 1


def program_of(seg: Segment) -> bytes:
    """Give the program of a segment; credentials in prompts are replaced as everywhere else."""
    fleet = seg.fleet
    team = fleet.graph
    if not isinstance(team, TeamSpec):
        return orjson.dumps({"program": FORMAT, "fleet": fleet.name, "team": None}, option=orjson.OPT_SORT_KEYS)
    body = {
        "program": FORMAT,
        "fleet": fleet.name,
        "team": {"ceo": team.ceo, "specialists": list(team.specialists), "synthesis": team.synthesis},
        "agents": {name: _agent(seg, name) for name in sorted(fleet.agents)},
        "tools": [
            {**offer.to_json(), "digest": seg.registry.get(offer.name).contract.digest}
            for offer in seg.registry.offers(name for name in seg.registry.names() if name not in seg.withheld)
        ],
    }
    return orjson.dumps(body, option=orjson.OPT_SORT_KEYS)


def _agent(seg: Segment, name: str) -> dict[str, Any]:
    spec, route = seg.fleet.agents[name], seg.fleet.route_of(name)
    runtime = seg.routes.get(spec.route)
    return {
        "role": spec.role,
        "route": spec.route,
        "target": route.target,
        "model": route.model,
        "max_output": route.max_output if runtime is None else runtime.max_output,
        "prompt": seg.scrub.text(spec.prompt)[0],
        "tools": list(spec.tools),
        "steps": spec.limits.steps,
        "vertical": seg.fleet.vertical_of(name),
        "is_program": bool(spec.command),
    }


@dataclass(frozen=True, slots=True)
class Program:
    """A program read back; it answers what the nodes of a team ask a `Fleet`.

    Attributes:
        offers_by: what each tool was offered as. routes: per alias, what the nodes ask of it.
    """

    name: str
    graph: TeamSpec
    agents: Mapping[str, AgentSpec]
    verticals: Mapping[str, str | None]
    targets: Mapping[str, Any]
    routes: Mapping[str, Any]
    offers_by: Mapping[str, ToolOffer]

    def route_of(self, agent: str) -> Any:
        """Give target and model of an agent's route."""
        return self.targets[agent]

    def vertical_of(self, agent: str) -> str | None:
        """Give the vertical of an agent, or None."""
        return self.verticals[agent]

    def names(self) -> tuple[str, ...]:
        """Name the tools, as a registry does."""
        return tuple(self.offers_by)

    def offers(self, names: Iterable[str]) -> tuple[ToolOffer, ...]:
        """Give what a model was shown of these tools."""
        return tuple(self.offers_by[name] for name in names)


def read_program(body: bytes) -> Program | None:
    """Read a program back; None: the graph is somebody else's code, which no record holds.

    Raises:
        ValueError, KeyError, TypeError: it is none.
    """
    read = orjson.loads(body)
    if read["program"] != FORMAT:
        raise ValueError(f"a program of form {read['program']!r}, where this version reads {FORMAT}")
    if read["team"] is None:
        return None
    agents, team = read["agents"], read["team"]
    offers = {
        item["name"]: ToolOffer(item["name"], item["description"], item["input_schema"]) for item in read["tools"]
    }
    return Program(
        name=read["fleet"],
        graph=TeamSpec(team["ceo"], tuple(team["specialists"]), team["synthesis"]),
        agents={name: _spec(name, item) for name, item in agents.items()},
        verticals={name: item["vertical"] for name, item in agents.items()},
        targets={name: SimpleNamespace(target=item["target"], model=item["model"]) for name, item in agents.items()},
        routes={item["route"]: SimpleNamespace(max_output=item["max_output"]) for item in agents.values()},
        offers_by=offers,
    )


def _spec(name: str, item: Mapping[str, Any]) -> AgentSpec:
    return AgentSpec(
        name=name,
        role=item["role"],
        route=item["route"],
        prompt_path=None,
        prompt=item["prompt"],
        tools=tuple(item["tools"]),
        limits=Limits(steps=item["steps"]),
        command=("program",) if item["is_program"] else (),
    )
