"""The shape of `sources:`, `policies:` and `containment:` in a fleet file.

In:   plain values from `yaml_source`. Out: validated blocks.
May import: records; pydantic; `file_types`. Must not know: what tools exist, what a condition means, how causes are told apart.
Why `operator` and persons are causes like all others here: a policy may name them, though who asked needs none.
"""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

from pydantic import BeforeValidator, Field, StringConstraints

from midwatch.config.file_types import (
    AllRoles,
    Argument,
    Block,
    Causes,
    Globs,
    Line,
    Lines,
    Name,
    OrWord,
    Span,
    listed,
    or_empty,
    rows,
)

__all__ = ["BoundFile", "CommitTargetFile", "Contained", "ContainmentFile", "PolicyFile", "SourceFile"]

Executor = Annotated[
    str, StringConstraints(pattern=r"^(?:nobody|operator|(?:person|agent):[A-Za-z0-9][A-Za-z0-9._:-]{0,62})$")
]


class SourceFile(Block):
    """How far facts from a source are trusted. The key is `tool:GLOB`: results of tools that match; the narrowest one counts."""

    name: Name | None = Field(
        None, description="What policies call it, as `source:NAME`; the glob of its pattern unless given."
    )
    trust: Literal["none", "full"] = Field(
        "none",
        description="Who is taken for the author of what it says: `full` the source itself, so that a policy may give it rights; `none` "
        "some third party.",
    )
    readers: Lines = Field(
        (),
        description="Who may read what it says: `everyone`, `requester` (whoever asked for the run), or names. Absent: of tools that reach "
        "the open world everyone, else who asked, the fleet's model routes, and targets that the request named.",
    )
    writers: Lines = Field((), description="Who else writes there. Required when trusted, and then never `everyone`.")


class PolicyFile(Block):
    """Which causes may bring about what. Who asked for the run and the operator need no policy; nobody else has any reach without one."""

    who: Causes = Field(
        description="Causes: `operator`, or a kind with a glob: `person:`, `source:`, `service:TOOL`, `caller:TOOL`, "
        "`third_party:TOOL`, `agent:`."
    )
    may: Globs = Field(description="Tools: names or globs.")
    roles: AllRoles = Field(
        description="What of a call they may bring about: roles of its arguments, `control` for that it happens at all, or `all`."
    )
    where: dict[Argument, Lines] = Field(
        {},
        description="Bounds of arguments: values or patterns, one of which the parsed value must match; `*` stays between two `/`, `**` "
        "does not. Absent: no bound.",
    )
    when: Line | None = Field(
        None, description="Condition in CEL over `args`, the call's arguments. Only true counts; an error is a no."
    )


class BoundFile(Block):
    """What the operator says of one argument in advance, for the mandates that requests issue."""

    most: int | Line | None = Field(
        None,
        description='Largest amount of one call, and of all calls of a run together: a number, with a point as text: `"12.50"`.',
    )
    values: Annotated[tuple[int | Line, ...], BeforeValidator(listed)] = Field(
        (), description="The only values that need no person."
    )
    delegate: Globs = Field(
        (),
        description="Reading tools: a source of theirs that the request names may choose the value, whoever wrote it.",
    )
    addressed: bool = Field(
        False,
        description="An address that the request spells out is leave to call the tool with it, in whatever words.",
    )


class CommitTargetFile(Block):
    """Who executes what is committed to a place. All targets that match a path count; a path that none matches counts as the operator's."""

    paths: Lines = Field(
        description="Patterns of paths below the workspace, such as `docs/**`; `*` stays between two `/`."
    )
    executed_by: Executor = Field(
        description="`nobody`: it is only read. `agent:NAME`: in that agent's sandbox. `operator` or `person:NAME`: with all their rights."
    )


class ContainmentFile(Block):
    """What becomes of the verdict on a call's causes. A word alone names the mode: `containment: enforce`."""

    mode: Literal["record", "enforce"] = Field(
        "record",
        description="`record` writes every verdict down and stops nothing; with `enforce` a call waits for a person, or is denied.",
    )
    ask: Name = Field("operator", description="Role of the person who may answer.")
    timeout: Span = Field(
        900_000_000, description="After this time the answer is no.", json_schema_extra={"default": "15m"}
    )
    mandate: Literal["reader", "planner", "none"] = Field(
        "reader",
        description="Who reads out of the request, before anything else is read, what it allows: `reader` goes by its words and needs no "
        "model, `planner` is a model that sees nothing else, with `none` only grants are mandates.",
    )
    planner: Name | None = Field(None, description="Route of the planner.")
    lasts: Span = Field(
        86_400_000_000,
        description="How long what the request allows holds, from the start of the run.",
        json_schema_extra={"default": "1d"},
    )
    bounds: Annotated[
        dict[Line, Annotated[dict[Argument, BoundFile], BeforeValidator(or_empty)]], BeforeValidator(or_empty)
    ] = Field({}, description="By tool and argument: what a request may leave open, within which bound.")
    handles: Globs = Field(
        (),
        description="Results whose values an agent may pass on and not read, as tools, `source:NAME` or `agent:NAME`; it learns facts of "
        "them from `reader.facts`.",
    )
    reads: int = Field(20, ge=0, le=10_000, description="How often a run may ask the isolated reader.")
    commits: Annotated[tuple[CommitTargetFile, ...], BeforeValidator(rows)] = Field(
        (),
        description="Who executes what the fleet's own commit writes, by place; whoever has most rights there unless given.",
    )


def _word(value: object) -> object:
    return {"mode": value} if isinstance(value, str) else or_empty(value)


_MODES: Final[dict[str, Any]] = {"type": "string", "enum": ["record", "enforce"]}
Contained = Annotated[ContainmentFile, BeforeValidator(_word), OrWord(_MODES)]
