"""Specs: what a fleet file means, as frozen facts.

In:   nothing. Out: the types of `Fleet`'s attributes: routes, agents, graph, budgets, grants, gates and the rest.
May import: records; the standard library; what stands in `specs_bounds`, `specs_imports`, `specs_review` is of
this module.
Must not know: YAML, pydantic, lines, files.
Units everywhere: money in micro-dollars, time in microseconds, sizes in bytes; all whole numbers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal, get_args

from midwatch.config.specs_bounds import BudgetSpec, GovernorSpec, Limits, Per, Rung
from midwatch.config.specs_imports import LangchainSpec, McpSpec, OpenApiSpec, ToolRules
from midwatch.config.specs_review import (
    ChannelFormat,
    ChannelSpec,
    Escalation,
    Exempt,
    GateRule,
    GateWhen,
    ObservedOp,
    ObservedWhen,
    ReviewSpec,
)
from midwatch.records.effect import Role

__all__ = [
    "AGENT_ROLES",
    "AgentRole",
    "AgentSpec",
    "ArgumentBound",
    "Backend",
    "BudgetSpec",
    "ChannelFormat",
    "ChannelSpec",
    "CommitTarget",
    "ContainmentSpec",
    "EgressRule",
    "Escalation",
    "Exempt",
    "GateRule",
    "GateWhen",
    "GovernorSpec",
    "Grant",
    "ImportSpec",
    "LangchainSpec",
    "Limits",
    "McpSpec",
    "MountSpec",
    "ObservedOp",
    "ObservedWhen",
    "OpenApiSpec",
    "Per",
    "PolicySpec",
    "PriceSpec",
    "ProgramSpec",
    "Protocol",
    "Provider",
    "ReviewSpec",
    "RouteSpec",
    "Rung",
    "SandboxLimits",
    "SandboxSpec",
    "ScheduleSpec",
    "SourceSpec",
    "TeamSpec",
    "ToolRules",
]

Provider = Literal["openai", "anthropic", "scripted"]
Protocol = Literal["native", "constrained"]
"""How a model asks for tools: its own tool calls, or one constrained JSON answer."""

AgentRole = Literal["ceo", "specialist", "synthesis"]
AGENT_ROLES: Final[tuple[AgentRole, ...]] = get_args(AgentRole)
Backend = Literal["process", "bubblewrap", "docker", "gvisor"]


@dataclass(frozen=True, slots=True)
class PriceSpec:
    """The fleet's own price of a model, in micro-dollars per million tokens. `cached_input` is `input` unless given."""

    input: int
    cached_input: int
    output: int


@dataclass(frozen=True, slots=True)
class RouteSpec:
    """Where an alias leads under the chosen preset.

    Attributes:
        alias: what agents write.
        target: the route, or the `provider/model`, that the preset made of it; `alias` itself without a preset.
        base_url: of an OpenAI-compatible server; None for the provider's own.
        api_key_env: name of the variable that holds the key; None when none is sent.
        max_output: tokens a call may answer with, before any budget lowers it.
        context: tokens the model can take in, or None when not declared.
        price: the fleet's own price, or None: the price list's.
        scenario: of the scripted provider, absolute; None for the others.
        retries: further attempts after a retryable failure, each reserved anew.
        timeout_us: for one call.
        missing_env: variables that the route asks for and the environment lacks; empty for a route that an agent uses.
    """

    alias: str
    target: str
    provider: Provider
    model: str
    base_url: str | None = None
    api_key_env: str | None = None
    max_output: int = 4096
    context: int | None = None
    price: PriceSpec | None = None
    protocol: Protocol = "native"
    scenario: Path | None = None
    retries: int = 2
    timeout_us: int = 120_000_000
    missing_env: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class SandboxLimits:
    """Bounds of one sandboxed process tree; None leaves the backend's own default.

    Attributes:
        memory: bytes; of the whole tree where a control group holds it, else address space of each process.
        file_size: largest file it may write, bytes.
        cpu_us: processor time of one process. processes, open_files: counts.
        disk: bytes that all changes of the workspace may take. inodes: how many files and folders they may be.
        cpu_milli: share of processors, in thousandths of one.
        wall_us: longest time of one call, whatever the tool's contract allows.
    """

    memory: int | None = None
    cpu_us: int | None = None
    processes: int | None = None
    open_files: int | None = None
    file_size: int | None = None
    disk: int | None = field(default=None, metadata={"later": True})
    inodes: int | None = field(default=None, metadata={"later": True})
    cpu_milli: int | None = field(default=None, metadata={"later": True})
    wall_us: int | None = field(default=None, metadata={"later": True})


@dataclass(frozen=True, slots=True)
class MountSpec:
    """A folder or file of this machine that the sandbox sees, read-only always: what is changed is changed in the workspace.

    Attributes:
        source: absolute, on this machine. target: absolute, inside.
    """

    source: Path
    target: str


@dataclass(frozen=True, slots=True)
class EgressRule:
    """Requests that the broker lets out of a sandbox; what no rule describes is refused.

    Attributes:
        host: a name, or `*.name` for all below it; never an address.
        port: None: 443 where `tls`, else 80.
        methods: in capitals; empty: any, and a tunnel (`CONNECT`) too. paths: globs over the decoded path; empty: any.
        tls: whether the broker speaks TLS to the host. A client inside asks for `http://host/…`; the broker does the rest.
        headers: what the broker adds; a value may hold `${secret:NAME}`, where NAME is one of `SandboxSpec.secrets`.
        stage: requests other than GET, HEAD and OPTIONS are kept and sent only when the run's effects are committed.
        private: the name may lead to a loopback, private or link-local address.
    """

    host: str
    port: int | None = None
    methods: tuple[str, ...] = ()
    paths: tuple[str, ...] = ()
    tls: bool = True
    headers: Mapping[str, str] = field(default_factory=dict)
    stage: bool = False
    private: bool = False


@dataclass(frozen=True, slots=True)
class SandboxSpec:
    """Where tools act. `backend` None: the fleet says nothing, so it is `bubblewrap`.

    Attributes:
        because: why a backend that does not isolate is good enough here, in the operator's words.
        image: for `docker`; None: one made from this machine's Python.
        runtime: of the Docker engine, such as `runsc`; None: the engine's own.
        mounts, egress: see there; empty: nothing, nowhere.
        secrets: names of variables whose values the broker may put into requests; their values never enter the sandbox.
        env: variables that are set inside.
        commit: what becomes of changed files when a run ends well: `ask` keeps them until a person says so, `done` commits them
            unless one of them needs a person, `discard` drops them.
    """

    backend: Backend | None = None
    because: str = ""
    limits: SandboxLimits = SandboxLimits()
    image: str | None = field(default=None, metadata={"later": True})
    runtime: str | None = field(default=None, metadata={"later": True})
    mounts: tuple[MountSpec, ...] = field(default=(), metadata={"later": True})
    egress: tuple[EgressRule, ...] = field(default=(), metadata={"later": True})
    secrets: tuple[str, ...] = field(default=(), metadata={"later": True})
    env: Mapping[str, str] = field(default_factory=dict, metadata={"later": True})
    commit: Literal["ask", "done", "discard"] = field(default="ask", metadata={"later": True})


@dataclass(frozen=True, slots=True)
class ProgramSpec:
    """A file beside the fleet file that an agent's command names.

    Attributes:
        word: as it stands in the command. path: absolute, links followed. sha256: of its bytes, when the fleet was loaded.
    """

    word: str
    path: Path
    sha256: str


@dataclass(frozen=True, slots=True)
class AgentSpec:
    """One agent.

    Attributes:
        route: alias, a key of `Fleet.routes`.
        prompt_path: absolute; None when the prompt stands in the file itself.
        prompt: its text, as read when the fleet was loaded.
        tools: names or globs, such as `host.*`; empty means none.
        sandbox: its own, or None: the fleet's.
        command: program and arguments of an agent that is a program; empty for one that the kernel itself runs by its prompt.
        programs: files that the command names.
    """

    name: str
    role: AgentRole
    route: str
    prompt_path: Path | None
    prompt: str
    tools: tuple[str, ...] = ()
    limits: Limits = field(default_factory=Limits)
    sandbox: SandboxSpec | None = None
    command: tuple[str, ...] = field(default=(), metadata={"later": True})
    programs: tuple[ProgramSpec, ...] = field(default=(), metadata={"later": True})


@dataclass(frozen=True, slots=True)
class TeamSpec:
    """The ready-made pattern: the CEO plans, specialists work in parallel, synthesis writes. Names of agents."""

    ceo: str
    specialists: tuple[str, ...]
    synthesis: str


@dataclass(frozen=True, slots=True)
class ImportSpec:
    """A graph made in Python: `attr` of `module`, importable from the fleet file's folder."""

    module: str
    attr: str


@dataclass(frozen=True, slots=True)
class SourceSpec:
    """How far facts from a source are trusted, who may read them, who else writes there.

    Attributes:
        pattern: `tool:GLOB`: results of tools that match. label: its own name; empty: the glob (`name` is what causes are called by).
        readers: `everyone`, `requester`, or names; empty: the run's default.
    """

    pattern: str
    trust: Literal["none", "full"]
    readers: tuple[str, ...]
    writers: tuple[str, ...] = ()
    label: str = field(default="", metadata={"later": True})

    @property
    def name(self) -> str:
        """Give what follows `source:` in the cause of what it says."""
        return self.label or self.pattern.removeprefix("tool:")


@dataclass(frozen=True, slots=True)
class Grant:
    """Agents that match any of `who` may call tools that match any of `may`.

    Attributes:
        who: `agent:NAME`, where the name may be a glob.
        where: per argument, globs one of which its value must match; an empty tuple matches nothing. No key, no bound.
        condition: CEL over `args`, the call's arguments; nothing but true counts.
    """

    who: tuple[str, ...]
    may: tuple[str, ...]
    where: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    condition: str | None = None


@dataclass(frozen=True, slots=True)
class PolicySpec:
    """Causes that match any of `who` may bring about tools that match any of `may`, in the roles named.

    `who`: `KIND` or `KIND:GLOB`, such as `source:crm`. `where`: per argument, patterns one of which it must match. `condition`: as there.
    """

    who: tuple[str, ...]
    may: tuple[str, ...]
    roles: tuple[Role, ...]
    where: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    condition: str | None = None


@dataclass(frozen=True, slots=True)
class ArgumentBound:
    """What the operator says of one argument, for the mandates that requests issue; as `containment.reading.Knob`, which says more.

    Attributes:
        most: a decimal number as text.
    """

    most: str | None = None
    values: tuple[str | int, ...] = ()
    delegate: tuple[str, ...] = ()
    addressed: bool = False


@dataclass(frozen=True, slots=True)
class CommitTarget:
    """Where a commit may write, and who executes what lies there: `nobody`, `operator`, `person:NAME` or `agent:NAME`."""

    paths: tuple[str, ...]
    executed_by: str


@dataclass(frozen=True, slots=True)
class ContainmentSpec:
    """What becomes of a verdict on causes: `record` writes it down, `enforce` lets it stop the call, or wait for the role `ask`.

    Attributes:
        mandate: who reads out of the request what it allows in advance. planner: the route of the model that does.
        lasts_us: how long that holds. bounds: per tool and argument.
        handles: results that agents pass on and do not read: globs over `TOOL`, `source:NAME`, `agent:NAME`.
        reads: how often a run may ask the isolated reader.
        commits: where whoever executes what is committed is declared; elsewhere it is the operator.
    """

    mode: Literal["record", "enforce"] = "record"
    ask: str = "operator"
    timeout_us: int = 900_000_000
    mandate: Literal["reader", "planner", "none"] = field(default="reader", metadata={"later": True})
    planner: str | None = field(default=None, metadata={"later": True})
    lasts_us: int = field(default=86_400_000_000, metadata={"later": True})
    bounds: Mapping[str, Mapping[str, ArgumentBound]] = field(default_factory=dict, metadata={"later": True})
    handles: tuple[str, ...] = field(default=(), metadata={"later": True})
    reads: int = field(default=20, metadata={"later": True})
    commits: tuple[CommitTarget, ...] = field(default=(), metadata={"later": True})


@dataclass(frozen=True, slots=True)
class ScheduleSpec:
    """A run that begins by itself; refused at run time in this version. `cron` has five fields, UTC."""

    name: str
    cron: str
    input: Mapping[str, Any]
