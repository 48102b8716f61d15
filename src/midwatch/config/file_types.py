"""Types of the fleet file: words, lists, quantities and patterns that its blocks are made of.

In:   plain values from `yaml_source`. Out: validated values; pydantic's errors, which `draft` turns into problems.
May import: records; pydantic; `quantities`. Must not know: blocks, lines, files on disk.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Final, get_args

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    GetJsonSchemaHandler,
    StringConstraints,
    WithJsonSchema,
)
from pydantic_core import CoreSchema, PydanticCustomError

from midwatch.config.quantities import (
    DURATION_PATTERN,
    LARGEST,
    MONEY_PATTERN,
    SIZE_PATTERN,
    TOKENS_PATTERN,
    Parser,
    QuantityError,
    parse_duration,
    parse_money,
    parse_share,
    parse_size,
    parse_tokens,
)
from midwatch.records.effect import EffectClass, Label, Role
from midwatch.records.principal import NAME_PATTERN

__all__ = [
    "CRON_PATTERN",
    "AllRoles",
    "Argument",
    "Block",
    "BudgetName",
    "Causes",
    "Count",
    "Duration",
    "Effects",
    "EnvName",
    "EnvNames",
    "Glob",
    "Globs",
    "Labels",
    "Line",
    "Lines",
    "Money",
    "Name",
    "Names",
    "OrWord",
    "Percent",
    "PrincipalName",
    "Roles",
    "Share",
    "Size",
    "Span",
    "Tokens",
    "Who",
    "listed",
    "or_empty",
    "rows",
    "version",
    "words_schema",
]

_NAME_PATTERN: Final = r"^[a-z][a-z0-9_-]{0,62}$"
_GLOB_PATTERN: Final = r"^[A-Za-z0-9_.:/*?!\[\]-]{1,200}$"
_ENV_PATTERN: Final = r"^[A-Za-z_][A-Za-z0-9_]{0,127}$"
_CRON_FIELD: Final = r"(?:\*|[0-9]{1,2}(?:-[0-9]{1,2})?)(?:/[0-9]{1,2})?"
CRON_PATTERN: Final = rf"^{_CRON_FIELD}(?:,{_CRON_FIELD})*(?: {_CRON_FIELD}(?:,{_CRON_FIELD})*){{4}}$"
_MOST_WORDS: Final = 500


def listed(value: object) -> object:
    """Take one word for a list of one, and null for an empty one."""
    if value is None:
        return ()
    if isinstance(value, str):
        return (value,)
    if isinstance(value, list):
        if len(value) > _MOST_WORDS:
            raise PydanticCustomError("out-of-range", "has more than {most} entries; write less", {"most": _MOST_WORDS})
        return tuple(value)
    raise PydanticCustomError("wrong-type", "must be a word or a list of words")


def rows(value: object) -> object:
    """Take a list of mappings, and null for an empty one."""
    if value is None:
        return ()
    if not isinstance(value, list):
        raise PydanticCustomError("wrong-type", "must be a list, each entry beginning with `-`")
    return listed(value)


def or_empty(value: object) -> object:
    """Take null and `[]` for an empty mapping."""
    return {} if value is None or value == [] else value


def version(value: object) -> object:
    """Refuse `true` where the number 1 is meant."""
    # `Literal[1]` alone would take `true` for 1: they are equal in Python.
    if isinstance(value, bool):
        raise PydanticCustomError("unknown-word", "must be the number 1")
    return value


def quantity(parse: Parser, pattern: str, unit: str, *, bare: bool = False) -> tuple[BeforeValidator, WithJsonSchema]:
    def read(value: object) -> int:
        try:
            return parse(value)
        except QuantityError as failure:
            raise PydanticCustomError("quantity", "{reason}", {"reason": str(failure)}) from failure

    text = {"type": "string", "pattern": pattern, "description": unit}
    whole = {"type": "integer", "minimum": 0, "maximum": LARGEST}
    return BeforeValidator(read), WithJsonSchema({"anyOf": [whole, text]} if bare else text)


@dataclass(frozen=True, slots=True, eq=False)
class OrWord:
    """Tells editors that a block may also be written as one word; a validator beside it makes the block."""

    schema: dict[str, Any]
    or_null: bool = False

    def __get_pydantic_json_schema__(self, core: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        """Give both ways of writing it."""
        return {"anyOf": [self.schema, handler(core), *([{"type": "null"}] if self.or_null else [])]}


def words_schema(pattern: str | None = None, words: tuple[str, ...] | None = None) -> WithJsonSchema:
    """Give the schema of a word, a list of words, or null."""
    item: dict[str, Any] = {"type": "string"}
    if pattern is not None:
        item["pattern"] = pattern
    if words is not None:
        item["enum"] = list(words)
    return WithJsonSchema({"anyOf": [item, {"type": "array", "items": item}, {"type": "null"}]})


def _share() -> tuple[BeforeValidator, WithJsonSchema]:
    validator, _ = quantity(parse_share, "", "share of processors")
    return validator, WithJsonSchema({"type": "number", "exclusiveMinimum": 0, "maximum": 1024})


Duration = Annotated[int, *quantity(parse_duration, DURATION_PATTERN, "duration")]
Money = Annotated[int, *quantity(parse_money, MONEY_PATTERN, "money")]
Size = Annotated[int, *quantity(parse_size, SIZE_PATTERN, "size")]
Tokens = Annotated[int, *quantity(parse_tokens, TOKENS_PATTERN, "tokens", bare=True)]
Span = Annotated[Duration, Field(gt=0)]
Count = Annotated[int, Field(ge=0, le=10**9)]
Share = Annotated[int, *_share()]

Name = Annotated[str, StringConstraints(pattern=_NAME_PATTERN)]
BudgetName = Annotated[str, StringConstraints(pattern=r"^(?:[a-z][a-z0-9_-]{0,62}|node:[A-Za-z0-9_.-]{1,100})$")]
Percent = Annotated[str, StringConstraints(pattern=r"^(?:100|[1-9]?[0-9])%$")]
Argument = Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_.-]{0,127}$")]
EnvName = Annotated[str, StringConstraints(pattern=_ENV_PATTERN)]
Line = Annotated[str, StringConstraints(min_length=1, max_length=1000, pattern=r"^\S(?:[^\n]*\S)?$")]
Glob = Annotated[str, StringConstraints(pattern=_GLOB_PATTERN)]
Names = Annotated[tuple[Name, ...], BeforeValidator(listed), words_schema(_NAME_PATTERN)]
PrincipalName = Annotated[str, StringConstraints(pattern=NAME_PATTERN)]
Globs = Annotated[tuple[Glob, ...], BeforeValidator(listed), words_schema(_GLOB_PATTERN)]
Lines = Annotated[tuple[Line, ...], BeforeValidator(listed), words_schema()]
EnvNames = Annotated[tuple[EnvName, ...], BeforeValidator(listed), words_schema(_ENV_PATTERN)]
_WHO_PATTERN: Final = r"^agent:[a-z0-9_*?!\[\]-]{1,100}$"
Who = Annotated[
    tuple[Annotated[str, StringConstraints(pattern=_WHO_PATTERN)], ...],
    BeforeValidator(listed),
    words_schema(_WHO_PATTERN),
]
Effects = Annotated[
    tuple[EffectClass, ...],
    BeforeValidator(listed),
    words_schema(words=("pure", "read", "write", "destructive", "grants_authority")),
]
Labels = Annotated[
    tuple[Label, ...],
    BeforeValidator(listed),
    words_schema(words=("request", "service", "caller", "third_party")),
]
Roles = Annotated[
    tuple[Role, ...],
    BeforeValidator(listed),
    words_schema(words=("target", "command", "credential", "selector", "quantity", "content", "control")),
]
_CAUSE_PATTERN: Final = r"^(?:operator|(?:person|source|service|caller|third_party|agent):[^\s:][^\s]{0,199})$"
Causes = Annotated[
    tuple[Annotated[str, StringConstraints(pattern=_CAUSE_PATTERN)], ...],
    BeforeValidator(listed),
    words_schema(_CAUSE_PATTERN),
]


def _every_role(value: object) -> object:
    return get_args(Role) if value in ("all", ["all"]) else listed(value)


AllRoles = Annotated[
    tuple[Role, ...],
    BeforeValidator(_every_role),
    words_schema(words=(*get_args(Role), "all")),
]


class Block(BaseModel):
    """A mapping of the fleet file: closed, strict, frozen."""

    # `hide_input_in_errors`: what a `${env:…}` became must not appear in a message.
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, hide_input_in_errors=True)
