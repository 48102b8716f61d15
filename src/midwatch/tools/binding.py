"""Binding: the way from checked JSON to the values a function declares, and from what it returns back to JSON.

In:   canonical argument bytes; what the function returned.
Out:  keyword arguments of the annotated types; plain JSON data.
May import: `outcome`, `sizing`, records; pydantic. Must not know: contracts, who calls, where.
Why pydantic behind the schema check: the schema says whether the JSON is right, pydantic builds the very types that the
author wrote, and runs the validators that no schema can say. Both are strict: no text becomes a number on the way.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError
from pydantic_core import PydanticSerializationError

from midwatch.records.envelope import ErrorBody
from midwatch.records.fields import FieldError
from midwatch.tools.outcome import BadOutput
from midwatch.tools.sizing import encode

__all__ = ["BadArguments", "Binding", "ToolContext", "facts_of"]


@dataclass(frozen=True, slots=True)
class ToolContext:
    """What a tool may ask the kernel for: a parameter annotated with it is filled in and is no argument.

    Attributes:
        idempotency_key: the same again when this very call is repeated after a crash; give it to the target.
        run: 32 hex digits. agent: name from the fleet file.
        clock: gives the time in microseconds UTC.
        workdir: absolute; the only folder that the tool should touch.
    """

    idempotency_key: str
    run: str
    agent: str
    clock: Callable[[], int]
    workdir: Path


class BadArguments(Exception):
    """The author's own validators refused the arguments. The caller answers `invalid_arguments`."""

    def __init__(self, errors: tuple[FieldError, ...]) -> None:
        self.errors = errors
        super().__init__("the arguments were refused by the tool's own types")

    def error(self) -> ErrorBody:
        """Give the answer for the agent."""
        return ErrorBody(
            "invalid_arguments",
            "the arguments do not fit",
            field_errors=self.errors,
            hint="correct them and call again",
        )


@dataclass(frozen=True, slots=True)
class Binding:
    """How one function takes and gives.

    Attributes:
        arguments: adapter of a closed typed dictionary, one key for each argument.
        output: adapter of the return annotation.
        context: name of the parameter that is filled with a `ToolContext`, or None.
    """

    arguments: TypeAdapter[Any]
    output: TypeAdapter[Any]
    context: str | None = None

    def bind(self, canonical: bytes, context: ToolContext | None) -> dict[str, Any]:
        """Build the keyword arguments.

        Raises:
            BadArguments: they do not fit; its errors repeat no value.
        """
        try:
            values: dict[str, Any] = dict(self.arguments.validate_json(canonical, strict=True, extra="forbid"))
        except ValidationError as refused:
            raise BadArguments(_told(refused)) from refused
        if self.context is not None:
            values[self.context] = context
        return values

    def plain(self, value: Any) -> Any:
        """Turn what the function returned into plain JSON data.

        Raises:
            BadOutput: it is not what the annotation says. The text may quote the value: for the trace only.
        """
        try:
            checked = self.output.validate_python(value, strict=True, extra="forbid")
            return self.output.dump_python(checked, mode="json", by_alias=True, warnings="error")
        except (ValidationError, PydanticSerializationError, ValueError, RecursionError) as wrong:
            raise BadOutput(str(wrong)[:4000]) from wrong

    def carried(self, value: Any) -> Any:
        """As `plain`, and proved to be what JSON can carry to another process.

        Raises:
            BadOutput: also for NaN, an infinity, half of a character.
        """
        found = self.plain(value)
        try:
            encode(found)
        except (ValueError, TypeError, RecursionError) as wrong:
            raise BadOutput(str(wrong)) from wrong
        return found


def _told(refused: ValidationError) -> tuple[FieldError, ...]:
    """Say which argument broke which rule. The messages of validators may quote the value, so none is passed on."""
    found: list[FieldError] = []
    for error in refused.errors(include_url=False, include_context=False, include_input=False)[:20]:
        path = "".join(f"/{part}" for part in error["loc"] if _shown(part))
        found.append(FieldError(path, error["type"], f"breaks the rule `{error['type']}`"))
    return tuple(found)


def _shown(part: int | str) -> bool:
    # A location may hold a key of the value itself; names of parameters and fields are identifiers.
    return isinstance(part, int) or (part.isidentifier() and len(part) <= 64)


def facts_of(context: ToolContext) -> Mapping[str, Any]:
    """Give what a worker needs to make the same context: JSON data, with the time of sending."""
    return {
        "idempotency_key": context.idempotency_key,
        "run": context.run,
        "agent": context.agent,
        "now_us": context.clock(),
        "workdir": str(context.workdir),
    }
