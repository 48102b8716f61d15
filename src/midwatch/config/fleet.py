"""Fleet: one file that declares agents, what they may do, what they may use, and who is asked.

In:   a path, a text or a mapping; the preset asked for; the environment. All passed in.
Out:  `Fleet`, frozen and complete, or `InvalidFleet` with every problem and its line.
May import: the rest of this room, records, errors. Must not know: tools, prices, the store, who runs it.
Why the digest covers what the file means, not its bytes: a comment changes nothing; a prompt in another file does.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, Literal

import rfc8785

from midwatch.config.build import Parts, build
from midwatch.config.crosscheck import cross_check
from midwatch.config.draft import draft
from midwatch.config.route_policy import RoutePolicySpec, route_policy_spec
from midwatch.config.routing import route
from midwatch.config.specs import (
    AgentSpec,
    Backend,
    BudgetSpec,
    ChannelSpec,
    ContainmentSpec,
    Escalation,
    GateRule,
    GateWhen,
    GovernorSpec,
    Grant,
    ImportSpec,
    LangchainSpec,
    Limits,
    McpSpec,
    OpenApiSpec,
    PolicySpec,
    PriceSpec,
    ReviewSpec,
    RouteSpec,
    SandboxLimits,
    SandboxSpec,
    ScheduleSpec,
    SourceSpec,
    TeamSpec,
)
from midwatch.config.specs_breakers import BreakersSpec
from midwatch.config.yaml_source import Source, from_python, read_file, read_yaml
from midwatch.errors import InvalidFleet, Problem

__all__ = [
    "DEFAULT_BACKEND",
    "FILE_NAME",
    "AgentSpec",
    "BudgetSpec",
    "ChannelSpec",
    "ContainmentSpec",
    "Escalation",
    "Fleet",
    "GateRule",
    "GateWhen",
    "GovernorSpec",
    "Grant",
    "ImportSpec",
    "Limits",
    "McpSpec",
    "PolicySpec",
    "PriceSpec",
    "ReviewSpec",
    "RouteSpec",
    "SandboxLimits",
    "SandboxSpec",
    "ScheduleSpec",
    "SourceSpec",
    "TeamSpec",
]

_LATER: Final[Mapping[str, Any]] = {
    "environment": "",
    "review": ReviewSpec(),
    "channels": {},
    "policies": (),
    "containment": ContainmentSpec(),
    "authority": "running",
    "breakers": BreakersSpec(),
    "route_policy": RoutePolicySpec(),
    "openapi": {},
    "langchain": {},
    "servers": {},
}
"""Blocks that the format did not have from the start, and what they are when a file says nothing: left out of digests then, so
that a run which waits goes on under a newer version. Fields of specs say the same with `metadata={"later": True}`; a field whose
default was another value once says that value with `metadata={"was": VALUE}`, which stands for it in digests."""

_GONE: Final[Mapping[type, Mapping[str, Any]]] = {BudgetSpec: {"others": {}}}
"""Fields that specs had once, as they were when a file said nothing: digests still hold them."""

DEFAULT_BACKEND: Final[Backend] = "bubblewrap"
"""What holds the tools of a fleet that says nothing about it: a machine that cannot do that refuses the run."""

FILE_NAME: Final = "fleet.yaml"
"""What a folder is expected to hold when it is named instead of a file."""


@dataclass(frozen=True, slots=True, eq=False)
class Fleet:
    """What one fleet file declares, under one preset. Two fleets are the same when their `digest` is.

    Attributes:
        name: the fleet's own name.
        path: the file, absolute; None when it was given as text or mapping.
        base: folder below which prompts, scenarios and tools are looked for; absolute.
        text: the file's text as read.
        digest: hex SHA-256 of the canonical JSON (RFC 8785) of what the fleet means: the routes that agents use as
            resolved, prompts in full, tool specifications; without comments, unused routes, and where the folder is.
        policy_digest: the same over grants, policies, sources, containment, gates and review, environment, budgets, sandboxes, tools.
        preset: the one chosen, or None when the file has none.
        presets: as written.
        authority: whether whoever runs a changed fleet endorses the change by that (`pinned`: nobody does).
        routes: by alias, as the preset resolves them.
        route_policy: what they may lead to.
        source: values and lines, for problems that other rooms find; see `where`.
    """

    name: str
    path: Path | None
    base: Path
    text: str = field(repr=False)
    digest: str
    policy_digest: str
    preset: str | None
    presets: Mapping[str, str | Mapping[str, str]]
    routes: Mapping[str, RouteSpec]
    route_policy: RoutePolicySpec
    tools: tuple[str, ...]
    mcp: Mapping[str, McpSpec]
    openapi: Mapping[str, OpenApiSpec]
    langchain: Mapping[str, LangchainSpec]
    agents: Mapping[str, AgentSpec] = field(repr=False)
    graph: TeamSpec | ImportSpec
    verticals: Mapping[str, tuple[str, ...]]
    budgets: Mapping[str, BudgetSpec]
    sources: Mapping[str, SourceSpec]
    policies: tuple[PolicySpec, ...]
    containment: ContainmentSpec
    grants: tuple[Grant, ...]
    environment: str
    gates: tuple[GateRule, ...]
    review: ReviewSpec
    channels: Mapping[str, ChannelSpec]
    sandbox: SandboxSpec
    schedules: tuple[ScheduleSpec, ...]
    governor: GovernorSpec
    breakers: BreakersSpec
    require_guarded: bool
    authority: Literal["running", "pinned"]
    source: Source = field(repr=False)

    @classmethod
    def load(cls, path: Path | str, *, preset: str | None = None, environ: Mapping[str, str]) -> Fleet:
        """Load a file, or the `fleet.yaml` of a folder.

        Args:
            preset: choice of models; else the variable `MIDWATCH_PRESET`, else `default`.
            environ: where `${env:NAME}` and `MIDWATCH_PRESET` are looked up; nothing else is read from it.

        Raises:
            InvalidFleet: every problem, each with `file:line`; the user corrects the file.
        """
        file = Path(path)
        try:
            if file.is_dir() and (file / FILE_NAME).exists():
                file = file / FILE_NAME
        except (OSError, ValueError) as failure:  # a name too long, or with a null character
            raise InvalidFleet((Problem("", "the name of the fleet file cannot be used", "unreadable"),)) from failure
        source = read_yaml(read_file(file), str(file))
        return _assemble(source, path=file.absolute(), base=file.absolute().parent, preset=preset, environ=environ)

    @classmethod
    def last(
        cls,
        file: Path,
        values: Mapping[str, Any],
        text: str,
        *,
        preset: str | None,
        environ: Mapping[str, str],
        prompts: Mapping[str, str],
    ) -> Fleet:
        """Make the fleet of a file out of what it said once; `prompts` as in `with_values`.

        Raises:
            InvalidFleet: as `load`.
        """
        source = Source(str(file), dict(values), {}, text)
        return _assemble(source, path=file, base=file.parent, preset=preset, environ=environ, prompts=prompts)

    @classmethod
    def from_text(
        cls,
        text: str,
        *,
        base: Path,
        name: str = "<fleet>",
        preset: str | None = None,
        environ: Mapping[str, str] = MappingProxyType({}),
    ) -> Fleet:
        """Load YAML text; `base` is the folder that its files lie below, `name` what problems are reported under.

        Raises:
            InvalidFleet: as `load`.
        """
        return _assemble(read_yaml(text, name), path=None, base=base.absolute(), preset=preset, environ=environ)

    @classmethod
    def from_mapping(
        cls,
        mapping: Mapping[str, Any],
        *,
        base: Path,
        name: str = "<fleet>",
        preset: str | None = None,
        environ: Mapping[str, str] = MappingProxyType({}),
    ) -> Fleet:
        """Load what a fleet file would say, from Python: the same keys, quantities as text (`"10m"`, `"$0.25"`).

        Raises:
            InvalidFleet: as `load`, with the place (`agents.ceo.route`) for a line.
        """
        source = from_python(mapping, name)
        return _assemble(source, path=None, base=base.absolute(), preset=preset, environ=environ)

    def with_values(
        self, values: Mapping[str, Any], text: str, *, prompts: Mapping[str, str], environ: Mapping[str, str]
    ) -> Fleet:
        """Make the fleet that this one would be if its file said this instead.

        Args:
            prompts: by agent, what is taken for its prompt instead of the file that it names.

        Raises:
            InvalidFleet: as `load`, with the place for a line.
        """
        source = Source(self.source.name, dict(values), {}, text)
        return _assemble(source, path=self.path, base=self.base, preset=self.preset, environ=environ, prompts=prompts)

    def where(self, *place: str | int) -> str:
        """Give `file:line` of a place, such as `where("agents", "ceo", "tools")`, or of what encloses it."""
        return self.source.where(place)

    def route_of(self, agent: str) -> RouteSpec:
        """Give the route of an agent. KeyError for an unknown agent: a mistake of the caller."""
        return self.routes[self.agents[agent].route]

    @property
    def used_routes(self) -> frozenset[str]:
        """Give the aliases that something in this fleet calls: its agents, and what reads its requests."""
        planner = self.containment.planner
        rungs = {rung.route for budget in self.budgets.values() for rung in budget.degrade if rung.route is not None}
        agents = (agent.route for agent in self.agents.values())
        return frozenset({*agents, *rungs, *(() if planner is None else (planner,))})

    def sandbox_of(self, agent: str) -> SandboxSpec:
        """Give the sandbox that an agent's tools act in: its own, else the fleet's; `backend` is never None."""
        spec = self.agents[agent].sandbox or self.sandbox
        spec = spec if spec.backend is not None else dataclasses.replace(spec, backend=DEFAULT_BACKEND)
        share = self._processes(agent)
        if share is None or (spec.limits.processes is not None and spec.limits.processes <= share):
            return spec
        return dataclasses.replace(spec, limits=dataclasses.replace(spec.limits, processes=share))

    def _processes(self, agent: str) -> int | None:
        """Give an agent's share of the processes that its scopes may have at once; each of its sandboxes gets no more."""
        members = {"fleet": self.agents, "run": self.agents, agent: (agent,), **self.verticals}
        shares = []
        for scope in ("fleet", "run", self.vertical_of(agent), agent):
            budget = None if scope is None else self.budgets.get(scope)
            cap = None if budget is None or budget.shadow else budget.caps.get("processes")
            if scope is None or cap is None:
                continue
            working = [self.agents[name] for name in members[scope] if self.agents[name].role != "ceo"]
            cells = sum(2 if one.command else 1 for one in working)  # a program has a sandbox beside that of its tools
            shares.append(max(1, cap // max(1, cells)))
        return min(shares, default=None)

    def vertical_of(self, agent: str) -> str | None:
        """Give the vertical of an agent, or None."""
        return next((name for name, members in self.verticals.items() if agent in members), None)


def _assemble(
    source: Source,
    *,
    path: Path | None,
    base: Path,
    preset: str | None,
    environ: Mapping[str, str],
    prompts: Mapping[str, str] = MappingProxyType({}),
) -> Fleet:
    found = draft(source)
    routing = route(found, base=base, asked=preset, environ=environ)
    parts, unread = build(found, base=base, prompts=prompts)
    problems = [*found.problems, *routing.problems, *cross_check(found, base=base, environ=environ), *unread]
    if problems:
        raise InvalidFleet(_sorted(problems))
    used = {agent.route for agent in parts.agents.values()} | {parts.containment.planner}
    bounded = route_policy_spec(found.file.route_policy)
    apart = {"servers": parts.mcp, "route_policy": bounded}
    silent = {
        key for key, nothing in _LATER.items() if (apart[key] if key in apart else getattr(parts, key)) == nothing
    }
    policy = {
        "agent_sandboxes": {name: agent.sandbox for name, agent in parts.agents.items()},
        "budgets": parts.budgets,
        "channels": parts.channels,
        "containment": parts.containment,
        "environment": parts.environment,
        "gates": parts.gates,
        "grants": parts.grants,
        "langchain": parts.langchain,
        "openapi": parts.openapi,
        "policies": parts.policies,
        "review": parts.review,
        "sandbox": parts.sandbox,
        "servers": parts.mcp,
        "sources": parts.sources,
        "tools": parts.tools,
    }
    meaning = {
        **{item.name: getattr(parts, item.name) for item in dataclasses.fields(Parts)},
        "midwatch": found.file.midwatch,
        "route_policy": bounded,
        "routes": {alias: spec for alias, spec in routing.routes.items() if alias in used},
    }
    return Fleet(
        path=path,
        base=base,
        text=source.text,
        digest=_digest({key: value for key, value in meaning.items() if key not in silent}, base),
        policy_digest=_digest({key: value for key, value in policy.items() if key not in silent}, base),
        preset=routing.preset,
        routes=MappingProxyType(dict(routing.routes)),
        route_policy=bounded,
        source=source,
        **{item.name: getattr(parts, item.name) for item in dataclasses.fields(Parts)},
    )


def _sorted(problems: Iterable[Problem]) -> tuple[Problem, ...]:
    """In the order of the file, each once."""

    def place(problem: Problem) -> tuple[str, int]:
        file, _, line = problem.where.rpartition(":")
        return (file, int(line)) if line.isdigit() else (problem.where, 0)

    return tuple(sorted(dict.fromkeys(problems), key=place))


def _digest(value: object, base: Path) -> str:
    return hashlib.sha256(rfc8785.dumps(_plain(value, base))).hexdigest()


def _plain(value: object, base: Path) -> Any:
    """Turn specs into JSON. Paths become relative to `base`, so that the same folder elsewhere has the same digest."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {**_GONE.get(type(value), {}), **_fields(value, base)}
    if isinstance(value, Mapping):
        return {str(key): _plain(child, base) for key, child in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(child, base) for child in value]
    if isinstance(value, Path):
        root = base.resolve()
        return value.relative_to(root).as_posix() if value.is_relative_to(root) else str(value)
    return value


def _fields(value: Any, base: Path) -> dict[str, Any]:
    found = {}
    for item in dataclasses.fields(value):
        said = getattr(value, item.name)
        silent = ("later" in item.metadata or "was" in item.metadata) and said == _default(item)
        if not silent:
            found[item.name] = _plain(said, base)
        elif "was" in item.metadata:
            found[item.name] = item.metadata["was"]
    return found


def _default(item: dataclasses.Field[Any]) -> Any:
    return item.default if item.default_factory is dataclasses.MISSING else item.default_factory()
