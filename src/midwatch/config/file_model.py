"""The fleet file's shape: one pydantic model for each block, with the sentences that editors and the reference show.

In:   plain values from `yaml_source`. Out: validated blocks; pydantic's errors, which `draft` turns into problems.
May import: records; pydantic; `file_types`, `policy_model`, `sandbox_model`, `specs`. Must not know: lines, files on disk,
what refers to what.
Why `null`, `[]` and absent mean the same (nothing allowed): a list that somebody has emptied must not open anything.
One word may stand for a list of one.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, get_args

from pydantic import BeforeValidator, Field, StringConstraints, WithJsonSchema, model_validator
from pydantic_core import PydanticCustomError

from midwatch.config.breakers_model import BreakersFile
from midwatch.config.file_types import (
    CRON_PATTERN,
    Argument,
    Block,
    BudgetName,
    Count,
    Duration,
    Effects,
    EnvName,
    Globs,
    Labels,
    Line,
    Lines,
    Money,
    Name,
    Names,
    OrWord,
    Percent,
    PrincipalName,
    Span,
    Tokens,
    Who,
    listed,
    or_empty,
    rows,
    version,
    words_schema,
)
from midwatch.config.imports_model import LangchainFile, McpFile, OpenApiFile
from midwatch.config.policy_model import Contained, PolicyFile, SourceFile
from midwatch.config.route_policy import RoutePolicyFile
from midwatch.config.sandbox_model import Sandboxed
from midwatch.config.specs import AgentRole, ChannelFormat, ObservedOp, Per, Protocol, Provider
from midwatch.config.watch_model import GovernorFile
from midwatch.records.effect import Role

__all__ = [
    "AgentFile",
    "BudgetFile",
    "ChannelFile",
    "EscalateFile",
    "ExemptFile",
    "FleetFile",
    "GateFile",
    "GovernorFile",
    "GrantFile",
    "GraphFile",
    "LimitsFile",
    "ObservedFile",
    "PolicyFile",
    "PriceFile",
    "ReviewFile",
    "RouteFile",
    "RungFile",
    "ScheduleFile",
    "SourceFile",
    "TeamFile",
    "WhenFile",
]


class PriceFile(Block):
    """The fleet's own price of a model that the price list does not know, in dollars per million tokens."""

    input_per_mtok: Money = Field(description='Price of a million input tokens, such as `"$0.25"`.')
    cached_input_per_mtok: Money | None = Field(
        None, description="Price of a million input tokens that the provider had cached; the input price unless given."
    )
    output_per_mtok: Money = Field(description="Price of a million output tokens.")


class RouteFile(Block):
    """Where an alias leads: a provider and one of its models."""

    provider: Provider = Field(
        description="`openai` for OpenAI and every server that speaks its chat API, `anthropic`, or `scripted`: "
        "answers from a scenario file, over a real connection."
    )
    model: Line | None = Field(
        None, description="The provider's name of the model. Required, except for `scripted`. May hold `${env:NAME}`."
    )
    base_url: Line | None = Field(
        None,
        description="Address of an OpenAI-compatible server; the provider's own unless given. May hold `${env:NAME}`.",
    )
    api_key_env: EnvName | None = Field(
        None,
        description="Name of the environment variable that holds the key. The provider's usual one unless given; none "
        "is sent to a `base_url` unless it is named here.",
    )
    max_output: Annotated[Tokens, Field(gt=0)] = Field(4096, description="Most tokens of one answer.")
    context: Annotated[Tokens, Field(gt=0)] | None = Field(None, description="Tokens that the model can take in.")
    price: PriceFile | None = Field(None, description="The fleet's own price. An unpriced model is refused.")
    protocol: Protocol = Field(
        "native", description="`constrained` for a model without tool calls of its own: it answers with one JSON value."
    )
    scenario: Line | None = Field(None, description="File of the scripted provider, below the fleet file's folder.")
    retries: Annotated[int, Field(ge=0, le=10)] = Field(
        2, description="Further attempts after a failure that may pass."
    )
    timeout: Span = Field(120_000_000, description="Longest time of one call.", json_schema_extra={"default": "120s"})


class LimitsFile(Block):
    """What one agent may use within one run."""

    steps: Count | None = Field(None, description="Turns of thinking.")
    tokens: Tokens | None = Field(None, description="Tokens in and out.")
    cost: Money | None = Field(None, description="Money.")
    tool_calls: Count | None = Field(None, description="Tool calls.")
    wall: Duration | None = Field(None, description="Time from its first step on.")
    working: Duration | None = Field(None, description="Time at work: its calls, waiting left out.")


class AgentFile(Block):
    """One agent: a role, a route, a prompt or a command, and the tools it may see."""

    role: AgentRole = Field(
        description="`ceo` plans and has no tools, `specialist` works, `synthesis` writes the result."
    )
    route: Line = Field(description="Alias of a route.")
    prompt: Line | None = Field(None, description="File of its prompt, below the fleet file's folder.")
    prompt_text: Annotated[str, StringConstraints(min_length=1, max_length=262_144)] | None = Field(
        None, description="The prompt itself, instead of `prompt`."
    )
    command: Lines = Field(
        (),
        description="Program and arguments, instead of a prompt: the agent is this program, run in its sandbox. A word that names a "
        "file below the fleet file's folder is that file.",
    )
    tools: Globs = Field(
        (), description="Tools it is shown: names or globs, such as `host.*`. Grants decide what it may do."
    )
    limits: LimitsFile | None = Field(None, description="What it may use within one run.")
    sandbox: Sandboxed | None = Field(None, description="Its own sandbox, instead of the fleet's.")


class TeamFile(Block):
    """The ready-made graph: plan, parallel work, synthesis."""

    ceo: Name = Field(description="Agent that plans.")
    specialists: Names = Field(description="Agents that work, in parallel.")
    synthesis: Name = Field(description="Agent that writes the result.")


class GraphFile(Block):
    """How the agents are put together: exactly one of `team` and `import`."""

    team: TeamFile | None = Field(None, description="The ready-made graph.")
    import_: Line | None = Field(
        None,
        alias="import",
        description="A graph made in Python: `module:attribute`, importable from the file's folder.",
    )

    @model_validator(mode="after")
    def _one(self) -> GraphFile:
        if (self.team is None) == (self.import_ is None):
            raise PydanticCustomError("graph-shape", "must have exactly one of `team` and `import`")
        return self


class RungFile(Block):
    """One rung of a ladder: what becomes cheaper once so much of a cap is used."""

    at: Percent = Field(description="Share of the scope's fullest cap, such as `70%`.")
    route: Line | None = Field(None, description="Alias of the route that models are asked by from then on.")
    context: Percent | None = Field(
        None, description="Share of its conversation that an agent still sees; the oldest turns go."
    )
    specialists: Count | None = Field(None, description="Specialists that a plan may still send out.")


def _rungs(value: object) -> object:
    return rows([{"at": "80%", "route": value}] if isinstance(value, str) else value)


class BudgetFile(Block):
    """The caps of one scope. A cap is never overshot."""

    cost: Money | None = Field(None, description="Money.")
    tokens: Tokens | None = Field(None, description="Tokens in and out.")
    tool_calls: Count | None = Field(None, description="Tool calls.")
    steps: Count | None = Field(None, description="Steps of agents.")
    wall: Duration | None = Field(None, description="Time from the start on.")
    working: Duration | None = Field(None, description="Time at work, pauses left out.")
    processes: Count | None = Field(None, description="Processes that sandboxes may hold at once.")
    concurrency: Count | None = Field(None, description="Calls of models and tools at once; further ones wait.")
    per: Per | None = Field(None, description="Window after which the caps begin anew. Not for `run` and nodes.")
    degrade: Annotated[
        tuple[RungFile, ...],
        BeforeValidator(_rungs),
        OrWord({"type": "string", "description": "A route, from 80% on."}, or_null=True),
    ] = Field((), description="What becomes cheaper before the cap stops anything. A word is a route, from 80% on.")
    shadow: bool = Field(False, description="Count, and record what would have stopped; stop nothing.")


class GrantFile(Block):
    """Who may do what. What no grant allows is denied."""

    who: Who = Field(description="`agent:NAME`, where the name may be a glob.")
    may: Globs = Field(description="Tools: names or globs.")
    where: dict[Argument, Lines] = Field(
        {}, description="Bounds of arguments: globs, one of which the argument's value must match. Absent: no bound."
    )
    if_: Line | None = Field(
        None, alias="if", description="Condition in CEL over `args`, the call's arguments. Only true counts."
    )


class ObservedFile(Block):
    """What a sandbox was seen to do: to one file, or towards one host. At least one key."""

    ops: Annotated[tuple[ObservedOp, ...], BeforeValidator(listed), words_schema(words=get_args(ObservedOp))] = Field(
        (), description="What was done to a file."
    )
    paths: Lines = Field((), description="Globs of paths below the workspace, such as `src/*`.")
    hosts: Lines = Field((), description="Globs of hosts that a request was for. Not beside the other keys.")
    watched: bool = Field(
        False, description="Only files that grant later power: hooks, CI files, shell profiles, agent configuration."
    )


class WhenFile(Block):
    """When a gate applies: each key must match, within a key one word is enough."""

    effect: Effects = Field((), description="Effect classes of the tool.")
    tool: Globs = Field((), description="Tools: names or globs.")
    agent: Globs = Field((), description="Agents: names or globs.")
    keywords: Lines = Field((), description="Words in the tool's name or in its arguments.")
    label: Labels = Field(
        (),
        description="Whose words the run has taken in before: `request` always, else the authors that its tools declare.",
    )
    role: Annotated[dict[Role, Lines], BeforeValidator(or_empty)] = Field(
        {}, description="Patterns of arguments, by their role."
    )
    cost: Money | None = Field(
        None, description="Actions that may cost at least this; a tool that declares no cost and writes counts as such."
    )
    reversible: bool | None = Field(None, description="Whether the tool can be undone.")
    environment: Globs = Field((), description="Names or globs of the fleet's `environment`.")
    observed: ObservedFile | None = Field(
        None,
        description="What the run's sandboxes were seen to do; asked before its changes are committed. Beside it only `tool`, "
        "`agent`, `effect` and `environment`.",
    )


class EscalateFile(Block):
    """Whom to ask when nobody has answered."""

    after: Span = Field(description="Time without an answer.")
    to: Name = Field(description="Role to ask then.")


class GateFile(Block):
    """A rule: which actions wait for a person."""

    when: WhenFile = Field(description="Which actions.")
    ask: Name = Field(description="Role of the person who may answer.")
    timeout: Span = Field(
        900_000_000, description="After this time the answer is no.", json_schema_extra={"default": "15m"}
    )
    quorum: Annotated[int, Field(ge=1, le=100)] = Field(1, description="How many must say yes.")
    four_eyes: bool = Field(False, description="Whoever asked for the run may not answer.")
    channels: Lines = Field((), description="Where the question is also shown.")
    escalate: EscalateFile | None = Field(None, description="Whom to ask when nobody has answered.")


class ChannelFile(Block):
    """A place where questions are shown: a webhook, with signed links that answer once."""

    url: Line | None = Field(None, description="Address that the message is posted to.")
    url_env: EnvName | None = Field(
        None, description="Name of the environment variable that holds the address, instead of `url`."
    )
    format: ChannelFormat = Field(
        "json", description="`json` for programs, `slack` for an incoming webhook of Slack, `mail` for a mail gateway."
    )
    principal: PrincipalName | None = Field(
        None, description="Whose rights the links in the message carry. Absent: the message has no links."
    )
    secret_env: EnvName | None = Field(
        None,
        description="Name of the variable with the key that signs the message (HMAC-SHA256, `X-Midwatch-Signature`).",
    )

    @model_validator(mode="after")
    def _one(self) -> ChannelFile:
        if (self.url is None) == (self.url_env is None):
            raise PydanticCustomError("channel-shape", "must have exactly one of `url` and `url_env`")
        return self


class ExemptFile(Block):
    """Calls that the floor of words lets pass; rules still apply to them."""

    tool: Globs = Field(description="Tools: names or globs.")
    where: dict[Argument, Lines] = Field(
        {}, description="Bounds of arguments, as in a grant: each must match one of its globs. Absent: no bound."
    )


class ReviewFile(Block):
    """How people are asked, whatever the rules say."""

    keywords: Lines = Field(
        (), description="Words of your own for the floor, beside deploy, production, database, billing and delete."
    )
    exempt: Annotated[tuple[ExemptFile, ...], BeforeValidator(rows)] = Field(
        (), description="Calls whose words ask nobody, such as reports that speak of everything."
    )
    ask: Name = Field("operator", description="Role that the floor asks.")
    timeout: Span = Field(
        900_000_000, description="After this time the floor's answer is no.", json_schema_extra={"default": "15m"}
    )
    links: Line | None = Field(
        None, description="Address under which people reach `midwatch inbox serve`; links in messages begin with it."
    )
    canary: Annotated[int, Field(ge=0, le=10**6)] = Field(
        0, description="One in so many questions is followed by a made-up one that must be denied; 0 for none."
    )


class ScheduleFile(Block):
    """A run that begins by itself."""

    name: Name = Field(description="Its name.")
    cron: Annotated[str, StringConstraints(pattern=CRON_PATTERN)] = Field(description="Five fields, UTC.")
    input: Annotated[dict[str, Any], BeforeValidator(or_empty)] = Field({}, description="The run's input.")


def _presets_schema() -> WithJsonSchema:
    target = {"type": "string", "minLength": 1}
    return WithJsonSchema(
        {
            "type": ["object", "null"],
            "additionalProperties": {"anyOf": [target, {"type": "object", "additionalProperties": target}]},
        }
    )


def _preset(value: object) -> object:
    if isinstance(value, str) and value:
        return value
    if isinstance(value, dict) and all(isinstance(target, str) and target for target in value.values()):
        return value
    raise PydanticCustomError("wrong-type", "must be a route, or a mapping from aliases to routes")


def _tools_schema() -> WithJsonSchema:
    return words_schema(r"^(?:builtin\.[a-z_]+|python:.+)$")


Preset = Annotated[Any, BeforeValidator(_preset)]


class FleetFile(Block):
    """A fleet: what agents exist, what they may do, what they may use, and who is asked."""

    midwatch: Annotated[Literal[1], BeforeValidator(version)] = Field(description="Version of this format.")
    fleet: Name = Field(description="The fleet's name.")
    presets: Annotated[dict[Name, Preset], BeforeValidator(or_empty), _presets_schema()] = Field(
        {},
        description="Choices of models. A word sends every alias to that route; a mapping sends an alias to a route or "
        "to `provider/model`. Chosen by `--preset`, else by `MIDWATCH_PRESET`, else `default`.",
    )
    routes: Annotated[dict[Name, RouteFile], BeforeValidator(or_empty)] = Field({}, description="Models, by alias.")
    route_policy: RoutePolicyFile | None = Field(None, description="What routes may lead to, under every preset.")
    tools: Annotated[tuple[Line, ...], BeforeValidator(listed), _tools_schema()] = Field(
        (), description="Where tools come from: `builtin.NAME`, `python:FILE.py` or `python:MODULE`."
    )
    mcp: Annotated[dict[Name, McpFile], BeforeValidator(or_empty)] = Field({}, description="Servers of tools, by name.")
    openapi: Annotated[dict[Name, OpenApiFile], BeforeValidator(or_empty)] = Field(
        {}, description="Services with an OpenAPI document, by name."
    )
    langchain: Annotated[dict[Name, LangchainFile], BeforeValidator(or_empty)] = Field(
        {}, description="Tools of LangChain, by name."
    )
    agents: Annotated[dict[Name, AgentFile], BeforeValidator(or_empty)] = Field({}, description="Agents, by name.")
    graph: GraphFile = Field(description="How the agents are put together.")
    verticals: Annotated[dict[Name, Names], BeforeValidator(or_empty)] = Field(
        {}, description="Groups of agents with a common budget."
    )
    budgets: Annotated[dict[BudgetName, BudgetFile], BeforeValidator(or_empty)] = Field(
        {}, description="Caps, by scope: `fleet`, `run`, a vertical, an agent, or `node:NAME` for a node of the graph."
    )
    sources: Annotated[dict[Line, SourceFile], BeforeValidator(or_empty)] = Field(
        {}, description="Trust in what tools bring in, by pattern, such as `tool:web.*`."
    )
    policies: Annotated[tuple[PolicyFile, ...], BeforeValidator(rows)] = Field(
        (), description="Which causes may bring about what; grants still bound it."
    )
    containment: Contained | None = Field(
        None, description="Whether verdicts on causes stop calls; `record` unless given."
    )
    grants: Annotated[tuple[GrantFile, ...], BeforeValidator(rows)] = Field((), description="Who may do what.")
    environment: Name | None = Field(
        None, description="Where this fleet acts, such as `staging`; gates can ask for it."
    )
    gates: Annotated[tuple[GateFile, ...], BeforeValidator(rows)] = Field((), description="What waits for a person.")
    review: ReviewFile | None = Field(None, description="How people are asked.")
    channels: Annotated[dict[Name, ChannelFile], BeforeValidator(or_empty)] = Field(
        {}, description="Where questions are shown, by name."
    )
    sandbox: Sandboxed | None = Field(None, description="Where tools act; `bubblewrap` unless given.")
    schedules: Annotated[tuple[ScheduleFile, ...], BeforeValidator(rows)] = Field(
        (), description="Runs that begin by themselves."
    )
    governor: GovernorFile | None = Field(None, description="The watch outside the runs.")
    breakers: BreakersFile | None = Field(None, description="What opens by itself after failures, loops and the like.")
    require_guarded: bool = Field(False, description="Refuse a graph with nodes whose effects are not governed.")
    authority: Literal["running", "pinned"] = Field(
        "running",
        description="Who lets a change of this fleet count: `running`, whoever runs it, unless a run of ours wrote it; with `pinned` only "
        "`midwatch grants endorse`.",
    )
