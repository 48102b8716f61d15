"""Reaching: what an agent could cause, from what its fleet declares; nothing is run.

In:   a fleet, its tools. Out: per agent that can be influenced, its tools, grants, gates, sandbox and way out.
May import: config, the tools' registry and contracts. Must not know: runs, the ledger, how an answer is shown.

An upper bound: what causes a call has narrows it when it is made (CONTAINMENT.md 18-22), and budgets bound how much. Influence goes over
what agents hand to each other, and over the workspace that all agents of a run share: whoever changes a file there reaches
whoever reads one.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Final, Literal

from midwatch.config.fleet import Fleet
from midwatch.config.specs import AgentSpec, EgressRule, GateRule, GateWhen, SandboxSpec, TeamSpec
from midwatch.errors import NotFound
from midwatch.tools.contract import ToolContract
from midwatch.tools.registry import Registry

__all__ = ["AgentReach", "Outcome", "Reach", "SandboxReach", "Stop", "ToolReach", "reach"]

Outcome = Literal["free", "may ask", "asks", "never"]
"""Of one tool: no gate can stop it; some call may; every call waits for a person; no grant allows it."""

_READS: Final = ("pure", "read")
_ONLY_READS: Final = frozenset({"GET", "HEAD", "OPTIONS"})


@dataclass(frozen=True, slots=True)
class Stop:
    """A gate that may stop a call.

    Attributes:
        by: the rule. who: the role that must say yes. always: every call, not only some by their arguments or by what came before.
    """

    by: str
    who: str
    quorum: int = 1
    four_eyes: bool = False
    always: bool = True


@dataclass(frozen=True, slots=True)
class ToolReach:
    """One tool that an agent is offered.

    Attributes:
        runs: in the sandbox, or in the broker outside it. grants: those that allow it. where: bounds of its arguments, by grant.
    """

    tool: str
    effect: str
    runs: str
    open_world: bool
    outcome: Outcome
    grants: tuple[str, ...] = ()
    where: Mapping[str, Mapping[str, tuple[str, ...]]] = field(default_factory=dict)
    stops: tuple[Stop, ...] = ()


@dataclass(frozen=True, slots=True)
class SandboxReach:
    """Where an agent's tools act, and what leaves.

    Attributes:
        backend: `process` isolates nothing. mounts: what is seen of the machine, read-only.
        egress: what is let out, in words; staged requests leave with the commit. secrets: variables that the broker puts into those.
        commit: what becomes of changed files when a run ends well. stops: who is asked before they are committed.
    """

    backend: str
    mounts: tuple[str, ...] = ()
    egress: tuple[str, ...] = ()
    secrets: tuple[str, ...] = ()
    commit: str = "ask"
    stops: tuple[Stop, ...] = ()


@dataclass(frozen=True, slots=True)
class AgentReach:
    """What one agent can do itself.

    Attributes:
        route: the model that sees what it sees. command: it is a program, which may do anything inside its sandbox.
        path: how it is reached: `(agent, way)` from the first one on; empty for that one.
    """

    agent: str
    role: str
    route: str
    command: bool
    tools: tuple[ToolReach, ...]
    sandbox: SandboxReach
    path: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Reach:
    """What an agent could cause: itself first, then whom it can influence, nearest first.

    Attributes:
        certain: False for a graph of the fleet's own, where any agent is taken to reach any other.
    """

    agent: str
    agents: tuple[AgentReach, ...]
    certain: bool = True


def reach(fleet: Fleet, registry: Registry, agent: str) -> Reach:
    """Say what an agent could cause.

    Raises:
        NotFound: the fleet has no such agent.
    """
    if agent not in fleet.agents:
        raise NotFound(f"fleet `{fleet.name}` has no agent `{agent}`; it has {', '.join(sorted(fleet.agents))}")
    paths: dict[str, tuple[tuple[str, str], ...]] = {agent: ()}
    queue = deque([agent])
    while queue:
        at = queue.popleft()
        for other, way in _influences(fleet, registry, at):
            if other not in paths:
                paths[other] = (*paths[at], (other, way))
                queue.append(other)
    own = tuple(_agent(fleet, registry, name, path) for name, path in paths.items())
    return Reach(agent, own, isinstance(fleet.graph, TeamSpec))


def _influences(fleet: Fleet, registry: Registry, agent: str) -> Iterator[tuple[str, str]]:
    graph = fleet.graph
    if not isinstance(graph, TeamSpec):
        yield from ((name, "the graph's state") for name in fleet.agents if name != agent)
        return
    if agent == graph.ceo:
        yield from ((name, "the plan") for name in graph.specialists)
    if agent in graph.specialists:
        yield graph.synthesis, "what is handed over"
    if _writes(fleet, registry, agent):
        yield from (
            (name, "files of the workspace")
            for name in (*graph.specialists, graph.synthesis)
            if name != agent and _looks(fleet, registry, name)
        )


def _writes(fleet: Fleet, registry: Registry, agent: str) -> bool:
    """Say whether an agent can leave a file in the workspace."""
    spec = fleet.agents[agent]
    return bool(spec.command) or any(
        contract.effect not in _READS and _grants(fleet, agent, contract.name) for contract in _offered(spec, registry)
    )


def _looks(fleet: Fleet, registry: Registry, agent: str) -> bool:
    spec = fleet.agents[agent]
    return bool(spec.command) or any(
        contract.runs == "sandbox" and _grants(fleet, agent, contract.name) for contract in _offered(spec, registry)
    )


def _offered(spec: AgentSpec, registry: Registry) -> list[ToolContract]:
    if spec.role == "ceo":  # has no tools, whatever stands there
        return []
    names = (name for name in registry.names() if any(fnmatchcase(name, glob) for glob in spec.tools))
    return [registry.get(name).contract for name in names]


def _agent(fleet: Fleet, registry: Registry, name: str, path: tuple[tuple[str, str], ...]) -> AgentReach:
    spec, route = fleet.agents[name], fleet.route_of(name)
    return AgentReach(
        agent=name,
        role=spec.role,
        route=f"{route.provider}/{route.model}" + (f" at {route.base_url}" if route.base_url else ""),
        command=bool(spec.command),
        tools=tuple(_tool(fleet, name, contract) for contract in _offered(spec, registry)),
        sandbox=_sandbox(fleet, name, spec.sandbox or fleet.sandbox),
        path=path,
    )


def _grants(fleet: Fleet, agent: str, tool: str) -> list[int]:
    return [
        place
        for place, grant in enumerate(fleet.grants)
        if any(fnmatchcase(f"agent:{agent}", who) for who in grant.who)
        and any(fnmatchcase(tool, may) for may in grant.may)
    ]


def _tool(fleet: Fleet, agent: str, contract: ToolContract) -> ToolReach:
    grants = _grants(fleet, agent, contract.name)
    stops = tuple(_stops(fleet, agent, contract))
    outcome: Outcome = "free"
    if not grants:
        outcome = "never"
    elif any(stop.always for stop in stops):
        outcome = "asks"
    elif stops:
        outcome = "may ask"
    where = {f"grants[{place}]": fleet.grants[place].where for place in grants if fleet.grants[place].where}
    names = tuple(f"grants[{place}]" for place in grants)
    return ToolReach(contract.name, contract.effect, contract.runs, contract.open_world, outcome, names, where, stops)


def _stops(fleet: Fleet, agent: str, contract: ToolContract) -> Iterator[Stop]:
    always = False
    for place, rule in enumerate(fleet.gates):
        if rule.when.observed is None and _may_apply(fleet, rule.when, agent, contract):
            sure = not (rule.when.keywords or rule.when.label or rule.when.role)
            always = always or sure
            yield _stop(place, rule, always=sure)
    if always:
        return
    if "effect" in contract.undeclared:
        yield Stop("floor", fleet.review.ask)
    elif contract.effect not in _READS or any(arg.role == "command" for arg in contract.args):
        yield Stop("floor", fleet.review.ask, always=False)


def _stop(place: int, rule: GateRule, *, always: bool) -> Stop:
    return Stop(f"gates[{place}]", rule.ask, rule.quorum, rule.four_eyes, always)


def _may_apply(fleet: Fleet, when: GateWhen, agent: str, contract: ToolContract) -> bool:
    """Say whether a rule's fixed words all match; those that hang on a call's values, or on what came before, may."""
    cost = contract.cost
    return all(
        (
            not when.effect or contract.effect in when.effect,
            not when.tool or _any(contract.name, when.tool),
            not when.agent or _any(agent, when.agent),
            not when.environment or (bool(fleet.environment) and _any(fleet.environment, when.environment)),
            when.reversible is None or (contract.reversible is not None) == when.reversible,
            when.cost is None
            or (contract.effect not in _READS or contract.open_world if cost is None else cost >= when.cost),
        )
    )


def _any(name: str, globs: tuple[str, ...]) -> bool:
    return any(fnmatchcase(name, glob) for glob in globs)


def _sandbox(fleet: Fleet, agent: str, spec: SandboxSpec) -> SandboxReach:
    backend = spec.backend or "bubblewrap"
    if backend == "process":
        return SandboxReach(backend, ("everything that this user may read",), ("anywhere",), commit="at once")
    stops = [
        _stop(place, rule, always=False)
        for place, rule in enumerate(fleet.gates)
        if rule.when.observed is not None and (not rule.when.agent or _any(agent, rule.when.agent))
    ]
    if spec.commit == "done":
        stops.append(Stop("watched", fleet.review.ask, always=False))
    elif spec.commit == "ask":
        stops.append(Stop("commit", "operator"))
    return SandboxReach(
        backend,
        tuple(f"{mount.source} as {mount.target}" for mount in spec.mounts),
        tuple(_way_out(rule) for rule in spec.egress),
        spec.secrets,
        spec.commit,
        tuple(stops),
    )


def _way_out(rule: EgressRule) -> str:
    methods = " ".join(rule.methods) or "any method and tunnels"
    port = "" if rule.port is None else f":{rule.port}"
    paths = f" {' '.join(rule.paths)}" if rule.paths else ""
    changes = not rule.methods or not set(rule.methods) <= _ONLY_READS
    staged = ", what changes something with the commit" if rule.stage and changes else ""
    private = ", private addresses too" if rule.private else ""
    return f"{methods} {'https' if rule.tls else 'http'}://{rule.host}{port}{paths}{staged}{private}"
