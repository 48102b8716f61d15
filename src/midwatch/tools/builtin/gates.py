"""Gates: the tool by which an agent asks a person a question, in words.

In:   a question, choices, urgency. Out: what the person said.
May import: the decorator, the markers, errors. Must not know: how people are reached; the pipeline carries the question out.
Why a tool at all: the question is bounded, recorded and answered like every other action, and the agent waits as a row.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Final, Literal

from pydantic import Field

from midwatch.errors import ToolFailure
from midwatch.tools.contract import Arg, Out
from midwatch.tools.decorate import tool

__all__ = ["REQUEST_HUMAN", "URGENCY_US", "HumanAnswer", "request_human"]

REQUEST_HUMAN: Final = "gates.request_human"

URGENCY_US: Final = {"low": 86_400_000_000, "normal": 14_400_000_000, "high": 900_000_000}
"""How long a question waits, microseconds: a day, four hours, a quarter of an hour. Then nobody answered."""


@dataclass(frozen=True, slots=True)
class HumanAnswer:
    """What a person said. `choice` is one of the choices, or null where they answered in words of their own."""

    answer: Annotated[str, Field(max_length=10_000)]
    choice: Annotated[str, Field(max_length=200)] | None
    by: Annotated[str, Field(max_length=100)]


@tool(
    name=REQUEST_HUMAN,
    effect="read",
    idempotent=True,
    reversible=False,
    open_world=False,
    observers=("approvers",),
    runs="broker",
    timeout="30s",
)
def request_human(
    question: Annotated[str, Field(min_length=1, max_length=2_000), Arg(role="content", interprets=False)],
    choices: Annotated[
        list[Annotated[str, Field(min_length=1, max_length=200)]],
        Field(max_length=10),
        Arg(role="content", interprets=False),
    ] = [],  # noqa: B006 - never changed: the default of a schema
    urgency: Annotated[Literal["low", "normal", "high"], Arg(role="selector")] = "normal",
) -> Annotated[HumanAnswer, Out(author="third_party")]:
    """Ask a person a question and wait for the answer; use it when only a person can know or decide.

    Args:
        question: one question, with what the person needs to answer it.
        choices: answers to choose from; empty for an answer in words.
        urgency: how long the question may wait: `low` a day, `normal` four hours, `high` fifteen minutes.
    """
    del question, choices, urgency
    raise ToolFailure("unavailable", "a question can be asked only within a run")
