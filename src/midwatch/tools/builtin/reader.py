"""Reader: the tool by which an agent learns facts of what stands behind handles, without reading it.

In:   handles, a question, the facts that are wanted, each of a closed type. Out: those facts, and a handle for each.
May import: the decorator, the markers, errors. Must not know: models; the engine asks one, alone with the values and without any tool.
Why closed types: a text that steers can choose among what was asked for, and cannot say anything.
Source: CONTAINMENT.md, clause 13.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Final, Literal

from pydantic import Field

from midwatch.errors import ToolFailure
from midwatch.tools.contract import Arg, Out
from midwatch.tools.decorate import tool

__all__ = ["ANSWERS", "HANDLES", "READER", "Fact", "Facts", "Wanted", "facts"]

READER: Final = "reader.facts"
HANDLES: Final = 8
ANSWERS: Final = 20
"""Values of one fact, at most."""

_Name = Annotated[str, Field(max_length=40, pattern=r"^[a-z][a-z0-9_]{0,39}$")]
_Option = Annotated[str, Field(max_length=40, pattern=r"^[A-Za-z0-9][A-Za-z0-9 _.-]{0,39}$")]
_Number = Annotated[float, Field(ge=-1e15, le=1e15)]


@dataclass(frozen=True, slots=True)
class Wanted:
    """One fact. `options`: of an enum. `least`, `most`: of a number. `many`: for a list, the most values it may have; 0: one value."""

    name: _Name
    type: Literal["bool", "enum", "number", "date", "handle"]
    options: Annotated[list[_Option], Field(max_length=50)] | None = None
    least: _Number | None = None
    most: _Number | None = None
    many: Annotated[int, Field(ge=0, le=20)] = 0


@dataclass(frozen=True, slots=True)
class Fact:
    """One fact: its value, null where it was not to be shown, and a handle that can be passed on as an argument."""

    name: _Name
    value: (
        bool
        | float
        | Annotated[str, Field(max_length=64)]
        | Annotated[list[bool | float | Annotated[str, Field(max_length=64)]], Field(max_length=20)]
        | None
    )
    handle: Annotated[str, Field(max_length=34)]


@dataclass(frozen=True, slots=True)
class Facts:
    """What the reader found."""

    facts: Annotated[list[Fact], Field(max_length=20)]


@tool(
    name=READER,
    effect="read",
    idempotent=True,
    reversible=False,
    open_world=False,
    observers=(),
    runs="broker",
    timeout="5m",
)
def facts(
    handles: Annotated[
        list[Annotated[str, Field(max_length=34, pattern=r"^h:[0-9a-f]{32}$")]],
        Field(min_length=1, max_length=8),
        Arg(role="selector"),
    ],
    question: Annotated[str, Field(min_length=1, max_length=2_000), Arg(role="content", interprets=False)],
    wanted: Annotated[list[Wanted], Field(min_length=1, max_length=20), Arg(role="content", interprets=False)],
    show: Annotated[bool, Arg(role="selector")] = True,  # noqa: FBT002 - a parameter of the tool, always named
) -> Annotated[Facts, Out(author="caller")]:
    """Learn facts of what stands behind handles, from a reader that can do nothing else; use it for text that you may not read.

    Args:
        handles: as results gave them to you.
        question: what to look for in them.
        wanted: the facts to answer with: `bool`, `enum` (one of `options`), `number` (from `least` to `most`), `date`, or which `handle`.
        show: whether you are told the values. Without, each stands behind its handle, and what you do next is not bound by what was read.
    """
    del handles, question, wanted, show
    raise ToolFailure("unavailable", "facts can be asked for only within a run")
