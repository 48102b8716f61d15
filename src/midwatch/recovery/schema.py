"""Schemas: a JSON Schema becomes a validator that speaks to no network and repeats nothing of the value.

In:   a JSON Schema, possibly from a stranger (a tool server, a fleet file), and decoded values.
Out:  `Validator`; its errors are `FieldError`s written from the rule and the schema.
May import: records, errors, jsonschema-rs. Must not know: where the schema or the value came from.
Why so careful: the validator library fetches a remote `$ref` over HTTP unless told otherwise, so a stranger's schema
could make the kernel call an address inside the network; and its messages quote the value, which may hold a secret
(CONTAINMENT.md, clause 5). References are checked before the library sees the schema, and its retriever is off as well.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Mapping
from typing import Any, Final

import jsonschema_rs

from midwatch.errors import UsageProblem
from midwatch.records.fields import FieldError

__all__ = ["MAX_ERRORS", "SchemaRefused", "Validator", "compile_schema"]

MAX_ERRORS: Final = 20
MAX_SCHEMA_DEPTH: Final = 100
MAX_SCHEMA_NODES: Final = 50_000
_MAX_BRANCH_DEPTH: Final = 4
_SHOWN: Final = 10
_REFERENCES: Final = frozenset({"$ref", "$dynamicRef", "$recursiveRef"})
_LIMITS: Final = {
    "maximum": "must be at most {}",
    "minimum": "must be at least {}",
    "exclusiveMaximum": "must be less than {}",
    "exclusiveMinimum": "must be more than {}",
    "multipleOf": "must be a multiple of {}",
    "maxLength": "must have at most {} characters",
    "minLength": "must have at least {} characters",
    "maxItems": "must have at most {} items",
    "minItems": "must have at least {} items",
    "maxProperties": "must have at most {} keys",
    "minProperties": "must have at least {} keys",
    "format": "must be a valid {}",
    "pattern": "must match the pattern {}",
    "const": "must be {}",
}


class SchemaRefused(UsageProblem):
    """The schema reaches outside itself, is too large, or is no JSON Schema. What it belongs to is not loaded."""


class Validator:
    """A compiled schema. Safe to share between threads; made by `compile_schema` only."""

    __slots__ = ("_compiled", "_named", "_schema")

    def __init__(self, schema: dict[str, Any], compiled: jsonschema_rs.Validator) -> None:
        self._schema, self._compiled = schema, compiled
        self._named = frozenset(_property_names(schema))

    def fits(self, value: Any) -> bool:
        """Say whether the value obeys the schema. A value that JSON cannot carry does not."""
        try:
            return self._compiled.is_valid(value)
        except (ValueError, TypeError, OverflowError, RecursionError):
            return False

    def errors(self, value: Any) -> tuple[FieldError, ...]:
        """List what is wrong, at most `MAX_ERRORS` entries; empty means that the value fits.

        Neither path nor message repeats the value: a key that the schema does not name is shown as `*`.
        """
        try:
            found = self._compiled.iter_errors(value)
            told = tuple(itertools.islice(self._tell(found, 0), MAX_ERRORS))
        except (ValueError, TypeError, OverflowError, RecursionError):
            return (FieldError("", "json", "must be a value that JSON can carry"),)
        return told

    def _tell(self, errors: Iterator[jsonschema_rs.ValidationError], depth: int) -> Iterator[FieldError]:
        for error in errors:
            rule = error.kind.name
            yield FieldError(self._pointer(error.instance_path), rule, self._message(rule, error))
            if rule in {"anyOf", "oneOf"} and depth < _MAX_BRANCH_DEPTH:
                nearest = _nearest(getattr(error.kind, "context", None) or [], error.instance_path)
                yield from self._tell(iter(nearest), depth + 1)

    def _pointer(self, path: list[str | int]) -> str:
        shown = (str(part) if isinstance(part, int) or part in self._named else "*" for part in path)
        return "".join("/" + part.replace("~", "~0").replace("/", "~1") for part in shown)

    def _message(self, rule: str, error: jsonschema_rs.ValidationError) -> str:
        kind = error.kind
        if rule == "type":
            return "must be " + " or ".join(_types(kind.value))
        if rule == "required":
            return f"needs the key {_quoted(kind.value)}"
        if rule == "enum":
            return "must be one of " + _list(kind.value)
        if rule in {"additionalProperties", "unevaluatedProperties"}:
            unknown = len(kind.value) if isinstance(kind.value, list) else 1
            known = self._known_keys(error.schema_path)
            allowed = f"; it allows {_list(known)}" if known else ""
            return f"has {unknown} {'key' if unknown == 1 else 'keys'} that the schema does not know{allowed}"
        if rule in {"anyOf", "oneOf"}:
            return (
                "must fit one of the allowed forms" if rule == "anyOf" else "must fit exactly one of the allowed forms"
            )
        if rule in _LIMITS:
            return _LIMITS[rule].format(_quoted(kind.value))
        return f"breaks the rule `{rule}`"

    def _known_keys(self, schema_path: list[str | int]) -> list[str]:
        place: Any = self._schema
        for part in schema_path[:-1]:
            try:
                place = place[part]
            except (KeyError, IndexError, TypeError):
                return []
        known = place.get("properties") if isinstance(place, dict) else None
        return sorted(known) if isinstance(known, dict) else []


def compile_schema(schema: Mapping[str, Any]) -> Validator:
    """Compile a JSON Schema (any draft since 4; 2020-12 when it does not say).

    Args:
        schema: JSON data. `$ref`, `$dynamicRef` and `$recursiveRef` may point inside it (`#...`) only.

    Raises:
        SchemaRefused: a reference that leaves the schema, more than `MAX_SCHEMA_DEPTH` levels, or no valid schema.
            Who loads the tool or the fleet tells its author.
    """
    _check_references(schema)
    try:
        own: dict[str, Any] = json.loads(json.dumps(schema, allow_nan=False))
    except (TypeError, ValueError, RecursionError):
        raise SchemaRefused("the schema is no JSON data; use strings, numbers, lists and objects only") from None
    try:
        # Formats stay unasserted, as the drafts since 2019-09 say. The pattern engine's own step limit stays on.
        compiled = jsonschema_rs.validator_for(own, offline=True)
    except (ValueError, TypeError, jsonschema_rs.ReferencingError) as problem:
        reason = str(problem).splitlines()[0][:200] if str(problem) else "unknown reason"
        raise SchemaRefused(f"the schema does not compile ({reason}); correct it and load it again") from None
    return Validator(own, compiled)


def _check_references(schema: Mapping[str, Any]) -> None:
    if not isinstance(schema, Mapping):
        raise SchemaRefused("a schema must be an object")
    todo: list[tuple[Any, int]] = [(schema, 0)]
    for seen in itertools.count(1):
        if not todo:
            return
        node, depth = todo.pop()
        if depth > MAX_SCHEMA_DEPTH or seen > MAX_SCHEMA_NODES:
            raise SchemaRefused(
                f"the schema has more than {MAX_SCHEMA_DEPTH} levels or {MAX_SCHEMA_NODES:,} parts; make it smaller"
            )
        if isinstance(node, Mapping):
            for key, value in node.items():
                # Under `properties` a key may be called `$ref`; its value is then a schema and never a string.
                if key in _REFERENCES and isinstance(value, str) and not value.startswith("#"):
                    raise SchemaRefused(
                        f"`{key}` points outside the schema (`{value[:80]}`); copy what it names into `$defs`"
                    )
                todo.append((value, depth + 1))
        elif isinstance(node, list | tuple):
            todo.extend((item, depth + 1) for item in node)


def _property_names(schema: dict[str, Any]) -> Iterator[str]:
    todo: list[Any] = [schema]
    while todo:
        node = todo.pop()
        if isinstance(node, dict):
            properties = node.get("properties")
            if isinstance(properties, dict):
                yield from properties
            todo.extend(node.values())
        elif isinstance(node, list):
            todo.extend(node)


def _nearest(
    branches: list[list[jsonschema_rs.ValidationError]], place: list[str | int]
) -> list[jsonschema_rs.ValidationError]:
    """Choose the form that the value was most likely meant to be: its constants fit, then the fewest errors."""

    def distance(branch: list[jsonschema_rs.ValidationError]) -> tuple[int, int]:
        kinds = [(error.kind.name, error.instance_path == place) for error in branch]
        return sum(name in {"const", "enum"} or (name == "type" and here) for name, here in kinds), len(branch)

    return min(branches, key=distance, default=[])


def _types(value: Any) -> list[str]:
    return [str(name) for name in value] if isinstance(value, list) else [str(value)]


def _quoted(value: Any) -> str:
    """Show something of the schema's own, cut at 80 characters."""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    return str(text) if isinstance(value, int | float) else f"`{text[:80]}`"


def _list(values: Any) -> str:
    shown = [_quoted(value) for value in values[:_SHOWN]]
    more = len(values) - len(shown)
    return ", ".join(shown) + (f" and {more} more" if more else "")
