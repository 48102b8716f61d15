"""Build: the blocks that fit the schema become specs; prompts are read here, once.

In:   the draft and the folder. Out: `Parts`, and the problems of prompts that cannot be read.
May import: `draft`, `file_model`, `files`, `policy_model`, `sandbox_model`, `sandbox_mounts`, `specs`; errors. Must not know:
routes' resolution, cross-checks.
Broken drafts are built too, so that unreadable prompts are reported with the rest; such parts never reach a `Fleet`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, TypeVar

from midwatch.config.breakers_model import breakers_spec
from midwatch.config.command_rules import programs
from midwatch.config.draft import Draft
from midwatch.config.file_model import (
    AgentFile,
    BudgetFile,
    ChannelFile,
    GateFile,
    GrantFile,
    GraphFile,
    LimitsFile,
    ObservedFile,
    ReviewFile,
    RungFile,
    WhenFile,
)
from midwatch.config.files import read_text
from midwatch.config.imports_model import McpFile, rules_of
from midwatch.config.policy_model import BoundFile, ContainmentFile, PolicyFile
from midwatch.config.sandbox_model import EgressFile, SandboxFile, SandboxLimitsFile
from midwatch.config.sandbox_mounts import find, target_of
from midwatch.config.specs import (
    AgentSpec,
    ArgumentBound,
    BudgetSpec,
    ChannelSpec,
    CommitTarget,
    ContainmentSpec,
    EgressRule,
    Escalation,
    Exempt,
    GateRule,
    GateWhen,
    GovernorSpec,
    Grant,
    ImportSpec,
    LangchainSpec,
    Limits,
    McpSpec,
    MountSpec,
    ObservedWhen,
    OpenApiSpec,
    PolicySpec,
    ReviewSpec,
    Rung,
    SandboxLimits,
    SandboxSpec,
    ScheduleSpec,
    SourceSpec,
    TeamSpec,
)
from midwatch.config.specs_breakers import BreakersSpec
from midwatch.config.watch_model import governor_spec
from midwatch.errors import Problem
from midwatch.records.spend import UNITS

__all__ = ["Parts", "build"]

_V = TypeVar("_V")


@dataclass(frozen=True, slots=True)
class Parts:
    """Everything of a `Fleet` that needs no preset. Each attribute as `Fleet` names it."""

    name: str
    presets: Mapping[str, str | Mapping[str, str]]
    tools: tuple[str, ...]
    mcp: Mapping[str, McpSpec]
    openapi: Mapping[str, OpenApiSpec]
    langchain: Mapping[str, LangchainSpec]
    agents: Mapping[str, AgentSpec]
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


def build(
    draft: Draft, *, base: Path, prompts: Mapping[str, str] = MappingProxyType({})
) -> tuple[Parts, list[Problem]]:
    """Turn the file's blocks into specs, reading each prompt that is not given."""
    file = draft.file
    problems: list[Problem] = []
    agents = {
        name: _agent(draft, base, name, agent, problems, prompts.get(name)) for name, agent in file.agents.items()
    }
    parts = Parts(
        name=file.fleet,
        presets=_frozen({name: _frozen(to) if isinstance(to, dict) else to for name, to in file.presets.items()}),
        tools=file.tools,
        mcp=_frozen({name: _server(name, server) for name, server in file.mcp.items()}),
        openapi=_frozen(
            {
                name: OpenApiSpec(
                    name, own.document, own.server, _frozen(own.headers), own.private, own.digest, rules_of(own)
                )
                for name, own in file.openapi.items()
            }
        ),
        langchain=_frozen(
            {
                name: LangchainSpec(name, own.source, own.digest, own.runs, rules_of(own))
                for name, own in file.langchain.items()
            }
        ),
        agents=_frozen(agents),
        graph=_graph(file.graph),
        verticals=_frozen(file.verticals),
        budgets=_frozen({scope: _budget(scope, budget) for scope, budget in file.budgets.items()}),
        sources=_frozen(
            {
                pattern: SourceSpec(pattern, source.trust, source.readers, source.writers, source.name or "")
                for pattern, source in file.sources.items()
            }
        ),
        policies=tuple(_policy(policy) for policy in file.policies),
        containment=_containment(file.containment),
        grants=tuple(_grant(grant) for grant in file.grants),
        environment=file.environment or "",
        gates=tuple(_gate(gate) for gate in file.gates),
        review=_review(file.review),
        channels=_frozen({name: _channel(name, channel) for name, channel in file.channels.items()}),
        sandbox=_sandbox(file.sandbox, base) or SandboxSpec(),
        schedules=tuple(ScheduleSpec(item.name, item.cron, _frozen(item.input)) for item in file.schedules),
        governor=governor_spec(file.governor),
        breakers=breakers_spec(file.breakers),
        require_guarded=file.require_guarded,
        authority=file.authority,
    )
    return parts, problems


def _agent(
    draft: Draft, base: Path, name: str, agent: AgentFile, problems: list[Problem], given: str | None
) -> AgentSpec:
    path, prompt = None, agent.prompt_text or ""
    if given is not None:
        path, prompt = None if agent.prompt is None else (base / agent.prompt).resolve(), given
    elif agent.prompt is not None:
        found = read_text(base, agent.prompt)
        path, prompt = found.path, found.text
        if found.reason is not None:
            place = ("agents", name, "prompt")
            problems.append(draft.problem(place, f"the prompt `{agent.prompt}` {found.reason}", found.code))
    named, unread = programs(draft, ("agents", name, "command"), agent.command, base)
    problems += unread
    return AgentSpec(
        name=name,
        role=agent.role,
        route=agent.route,
        prompt_path=path,
        prompt=prompt,
        tools=agent.tools,
        limits=_limits(agent.limits),
        sandbox=_sandbox(agent.sandbox, base),
        command=agent.command,
        programs=named,
    )


def _limits(limits: LimitsFile | None) -> Limits:
    if limits is None:
        return Limits()
    return Limits(limits.steps, limits.tokens, limits.cost, limits.tool_calls, limits.wall, limits.working)


def _sandbox(sandbox: SandboxFile | None, base: Path) -> SandboxSpec | None:
    if sandbox is None:
        return None
    return SandboxSpec(
        backend=sandbox.backend,
        because=sandbox.because or "",
        limits=_sandbox_limits(sandbox.limits),
        image=sandbox.image,
        runtime=sandbox.runtime,
        mounts=tuple(MountSpec(find(base, mount.from_).path, target_of(mount)) for mount in sandbox.mounts),
        egress=tuple(_egress(rule) for rule in sandbox.egress),
        secrets=sandbox.secrets,
        env=_frozen(sandbox.env),
        commit=sandbox.commit,
    )


def _sandbox_limits(limits: SandboxLimitsFile | None) -> SandboxLimits:
    if limits is None:
        return SandboxLimits()
    return SandboxLimits(
        memory=limits.memory,
        cpu_us=limits.cpu,
        processes=limits.processes,
        open_files=limits.open_files,
        file_size=limits.file_size,
        disk=limits.disk,
        inodes=limits.inodes,
        cpu_milli=limits.cpus,
        wall_us=limits.wall,
    )


def _egress(rule: EgressFile) -> EgressRule:
    return EgressRule(
        host=rule.host,
        port=rule.port,
        methods=rule.methods,
        paths=rule.paths,
        tls=rule.tls,
        headers=_frozen(rule.headers),
        stage=rule.stage,
        private=rule.private,
    )


def _graph(graph: GraphFile) -> TeamSpec | ImportSpec:
    if graph.team is not None:
        return TeamSpec(graph.team.ceo, graph.team.specialists, graph.team.synthesis)
    module, _, attr = (graph.import_ or "").partition(":")
    return ImportSpec(module, attr)


def _budget(scope: str, budget: BudgetFile) -> BudgetSpec:
    caps = {unit: getattr(budget, unit) for unit in UNITS if getattr(budget, unit) is not None}
    rungs = sorted((_rung(rung) for rung in budget.degrade), key=lambda rung: rung.at)
    return BudgetSpec(scope, _frozen(caps), budget.per, tuple(rungs), budget.shadow)


def _rung(rung: RungFile) -> Rung:
    return Rung(
        _thousandths(rung.at), rung.route, _thousandths(rung.context) if rung.context else None, rung.specialists
    )


def _thousandths(percent: str) -> int:
    return 10 * int(percent.removesuffix("%"))


def _grant(grant: GrantFile) -> Grant:
    return Grant(grant.who, grant.may, _frozen(grant.where), grant.if_)


def _policy(policy: PolicyFile) -> PolicySpec:
    return PolicySpec(policy.who, policy.may, policy.roles, _frozen(policy.where), policy.when)


def _containment(containment: ContainmentFile | None) -> ContainmentSpec:
    if containment is None:
        return ContainmentSpec()
    bounds = {
        tool: _frozen({name: _bound(bound) for name, bound in found.items()})
        for tool, found in containment.bounds.items()
    }
    return ContainmentSpec(
        containment.mode,
        containment.ask,
        containment.timeout,
        containment.mandate,
        containment.planner,
        containment.lasts,
        _frozen(bounds),
        containment.handles,
        containment.reads,
        tuple(CommitTarget(target.paths, target.executed_by) for target in containment.commits),
    )


def _bound(bound: BoundFile) -> ArgumentBound:
    return ArgumentBound(None if bound.most is None else str(bound.most), bound.values, bound.delegate, bound.addressed)


def _gate(gate: GateFile) -> GateRule:
    escalate = gate.escalate
    return GateRule(
        when=_when(gate.when),
        ask=gate.ask,
        timeout_us=gate.timeout,
        quorum=gate.quorum,
        four_eyes=gate.four_eyes,
        channels=gate.channels,
        escalate=None if escalate is None else Escalation(escalate.after, escalate.to),
    )


def _when(when: WhenFile) -> GateWhen:
    return GateWhen(
        effect=when.effect,
        tool=when.tool,
        agent=tuple(name.removeprefix("agent:") for name in when.agent),
        keywords=when.keywords,
        label=when.label,
        role=_frozen(dict(when.role)),
        cost=when.cost,
        reversible=when.reversible,
        environment=when.environment,
        observed=_observed(when.observed),
    )


def _observed(observed: ObservedFile | None) -> ObservedWhen | None:
    if observed is None:
        return None
    return ObservedWhen(observed.ops, observed.paths, observed.hosts, observed.watched)


def _review(review: ReviewFile | None) -> ReviewSpec:
    if review is None:
        return ReviewSpec()
    exempt = tuple(Exempt(item.tool, _frozen(item.where)) for item in review.exempt)
    return ReviewSpec(review.keywords, review.ask, review.timeout, review.links, review.canary, exempt)


def _server(name: str, file: McpFile) -> McpSpec:
    return McpSpec(
        name,
        file.command,
        file.url,
        file.digest,
        file.env,
        file.runs,
        _frozen(file.headers),
        file.private,
        rules_of(file),
    )


def _channel(name: str, channel: ChannelFile) -> ChannelSpec:
    return ChannelSpec(name, channel.url, channel.url_env, channel.format, channel.principal, channel.secret_env)


def _frozen(value: Mapping[Any, _V]) -> Mapping[Any, _V]:
    return MappingProxyType(dict(value))
