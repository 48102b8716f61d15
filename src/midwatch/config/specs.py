"""Specs: what a fleet file means, as frozen facts.

In:   nothing. Out: the types of `Fleet`'s attributes: routes, agents, graph, budgets, grants, gates and the rest.
May import: records; the standard library. Must not know: YAML, pydantic, lines, files.
Units everywhere: money in micro-dollars, time in microseconds, sizes in bytes; all whole numbers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal, get_args

from midwatch.records.effect import EffectClass, Label, Role
from midwatch.records.spend import Unit

__all__ = [
    "AGENT_ROLES",
    "AgentRole",
    "AgentSpec",
    "Backend",
    "BudgetSpec",
    "ChannelFormat",
    "ChannelSpec",
    "ContainmentSpec",
    "EgressRule",
    "Escalation",
    "Exempt",
    "GateRule",
    "GateWhen",
    "GovernorSpec",
    "Grant",
    "ImportSpec",
    "Limits",
    "McpSpec",
    "MountSpec",
    "ObservedOp",
    "ObservedWhen",
    "Per",
    "PolicySpec",
    "PriceSpec",
    "ProgramSpec",
    "Protocol",
    "Provider",
    "ReviewSpec",
    "RouteSpec",
    "SandboxLimits",
    "SandboxSpec",
    "ScheduleSpec",
    "SourceSpec",
    "TeamSpec",
]

Provider = Literal["openai", "anthropic", "scripted"]
Protocol = Literal["native", "constrained"]
"""How a model asks for tools: its own tool calls, or one constrained JSON answer."""

AgentRole = Literal["ceo", "specialist", "synthesis"]
AGENT_ROLES: Final[tuple[AgentRole, ...]] = get_args(AgentRole)
Backend = Literal["process", "bubblewrap", "docker", "gvisor"]
Per = Literal["hour", "day", "month"]
ChannelFormat = Literal["json", "slack", "mail"]


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
class McpSpec:
    """A server of tools. Exactly one of `command` (argv, not empty) and `url`; `env` names variables it is given."""

    name: str
    command: tuple[str, ...]
    url: str | None
    digest: str | None
    env: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Limits:
    """What one agent may use within one run; None is no bound of its own (those around it still hold)."""

    steps: int | None = None
    tokens: int | None = None
    cost: int | None = None
    tool_calls: int | None = None
    wall: int | None = None

    def amounts(self) -> dict[Unit, int]:
        """Give the bounds that are set, by unit."""
        named: dict[Unit, int | None] = {
            "cost": self.cost,
            "tokens": self.tokens,
            "tool_calls": self.tool_calls,
            "steps": self.steps,
            "wall": self.wall,
        }
        return {unit: amount for unit, amount in named.items() if amount is not None}


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
    limits: Limits = Limits()
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
class BudgetSpec:
    """The caps of one scope.

    Attributes:
        scope: `fleet`, `run`, a vertical or an agent.
        caps: by unit, each >= 0; never empty.
        per: window after which the caps begin anew; None: never (for `run` and agents, a run).
        others: caps in units that this version does not count: `processes`, `concurrency`.
        degrade: what to do when the cap comes near; shadow: count, do not stop. Both refused at run
            time in this version.
    """

    scope: str
    caps: Mapping[Unit, int]
    per: Per | None = None
    others: Mapping[str, int] = field(default_factory=dict)
    degrade: str | None = None
    shadow: bool = False


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
class ContainmentSpec:
    """What becomes of a verdict on causes: `record` writes it down, `enforce` lets it stop the call, or wait for the role `ask`."""

    mode: Literal["record", "enforce"] = "record"
    ask: str = "operator"
    timeout_us: int = 900_000_000


ObservedOp = Literal["created", "modified", "deleted", "permission", "executed", "read"]
"""What a sandbox can be seen to do to a file; the same words as `sandbox.effects.Op`."""


@dataclass(frozen=True, slots=True)
class ObservedWhen:
    """What a sandbox was seen to do: one change of a file that fits, or one request that fits, is enough.

    A rule has `hosts`, or the other three.

    Attributes:
        ops: kinds of change; empty: any. paths: globs of paths below the workspace; empty: any.
        watched: only files that grant later power: those with a `watched:…` flag.
        hosts: globs of hosts that a request was for, whether or not it was let out.
    """

    ops: tuple[ObservedOp, ...] = ()
    paths: tuple[str, ...] = ()
    hosts: tuple[str, ...] = ()
    watched: bool = False


@dataclass(frozen=True, slots=True)
class GateWhen:
    """When a gate rule applies: every field that is not empty must match; within a field one word is enough.

    Attributes:
        effect: effect classes of the tool. tool, agent: name globs.
        keywords: words in the tool's name or in its arguments, whatever their disguise (`gates.floor`).
        role: per argument role, globs one of which an argument of that role must match.
        cost: micro-dollars that a call may cost at least. reversible: whether the tool names what undoes it.
        environment: globs of the fleet's environment.
        label: whose words the run has taken in before the action: `request`, and the authors of its tools' results.
        observed: what a call's sandbox was seen to do; such a rule is asked about before the run's changes are committed, and holds
            only `effect`, `tool`, `agent` and `environment` besides.
    """

    effect: tuple[EffectClass, ...] = ()
    tool: tuple[str, ...] = ()
    agent: tuple[str, ...] = ()
    keywords: tuple[str, ...] = ()
    label: tuple[Label, ...] = ()
    role: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    cost: int | None = None
    reversible: bool | None = None
    environment: tuple[str, ...] = field(default=(), metadata={"later": True})
    observed: ObservedWhen | None = field(default=None, metadata={"later": True})


@dataclass(frozen=True, slots=True)
class Escalation:
    """Whom to ask besides when nobody has answered."""

    after_us: int
    to: str


@dataclass(frozen=True, slots=True)
class GateRule:
    """An action that `when` describes waits for a person in the role `ask`; after `timeout_us` the answer is no.

    Attributes:
        quorum: how many must say yes. four_eyes: whoever started the run may not be one of them.
        channels: names of `Fleet.channels` that are told.
    """

    when: GateWhen
    ask: str
    timeout_us: int = 900_000_000
    quorum: int = 1
    four_eyes: bool = False
    channels: tuple[str, ...] = ()
    escalate: Escalation | None = None


@dataclass(frozen=True, slots=True)
class ChannelSpec:
    """A webhook that is told of questions. Exactly one of `url` and `url_env`.

    Attributes:
        principal: whose rights its links carry; None: no links.
        secret_env: variable with the key that signs the body; None: unsigned.
    """

    name: str
    url: str | None
    url_env: str | None
    format: ChannelFormat = "json"
    principal: str | None = None
    secret_env: str | None = None


@dataclass(frozen=True, slots=True)
class Exempt:
    """Calls whose words ask nobody: tools that match, arguments that lie within `where` as in a grant."""

    tool: tuple[str, ...]
    where: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ReviewSpec:
    """How people are asked, whatever the rules say.

    Attributes:
        keywords: the fleet's own words for the floor. exempt: calls that it lets pass. ask, timeout_us: of the floor.
        links: address that links begin with; None: `http://127.0.0.1:8787`.
        canary: one in so many questions is followed by a made-up one; 0: none.
    """

    keywords: tuple[str, ...] = ()
    ask: str = "operator"
    timeout_us: int = 900_000_000
    links: str | None = None
    canary: int = 0
    exempt: tuple[Exempt, ...] = ()


@dataclass(frozen=True, slots=True)
class ScheduleSpec:
    """A run that begins by itself; refused at run time in this version. `cron` has five fields, UTC."""

    name: str
    cron: str
    input: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class GovernorSpec:
    """The watch outside the runs. After `stale_after_us` without its heartbeat no effect begins."""

    mode: Literal["child", "daemon", "cron"] = "child"
    stale_after_us: int = 30_000_000
