"""The shape of `sources:`, `policies:` and `containment:` in a fleet file.

In:   plain values from `yaml_source`. Out: validated blocks.
May import: records; pydantic; `file_types`. Must not know: what tools exist, what a condition means, how causes are told apart.
Why `operator` and persons are causes like all others here: a policy may name them, though who asked needs none.
"""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

from pydantic import BeforeValidator, Field

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
    or_empty,
)

__all__ = ["Contained", "ContainmentFile", "PolicyFile", "SourceFile"]


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
        description="Who may read what it says: `everyone`, `requester` (whoever asked for the run), or names. Absent: everyone.",
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


def _word(value: object) -> object:
    return {"mode": value} if isinstance(value, str) else or_empty(value)


_MODES: Final[dict[str, Any]] = {"type": "string", "enum": ["record", "enforce"]}
Contained = Annotated[ContainmentFile, BeforeValidator(_word), OrWord(_MODES)]
