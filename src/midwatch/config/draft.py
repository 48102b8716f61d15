"""Draft: what of a fleet file can be used, and what is wrong with the rest, in the operator's words and lines.

In:   `Source`. Out: `Draft`: the blocks that fit the schema, and the problems of those that do not.
May import: `file_model`, `yaml_source`, errors; pydantic. Must not know: files on disk, the environment, presets.
Why blocks that break the schema are taken out, not the whole file given up: the cross-checks then run over the rest,
and the operator sees every problem at once. Names of blocks taken out still count as declared.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from midwatch.config.file_model import FleetFile
from midwatch.config.yaml_source import Place, Source
from midwatch.errors import InvalidFleet, Problem

__all__ = ["Draft", "draft", "known_keys"]

_LISTS: Final = ("tools", "policies", "grants", "gates", "schedules")
_ENTRIES: Final = frozenset(
    (
        "presets",
        "routes",
        "mcp",
        "openapi",
        "langchain",
        "agents",
        "verticals",
        "budgets",
        "sources",
        "policies",
        "tools",
        "grants",
        "gates",
        "schedules",
        "channels",
    )
)
# Required keys that are wrong or missing have been reported; these let the other checks run, and never reach a `Fleet`.
_STANDINS: Final[Mapping[str, Any]] = {"midwatch": 1, "fleet": "unnamed", "graph": {"import": "none:none"}}
_SHOWN: Final = 60
_EXPECTED: Final[Mapping[str, str]] = {
    "string_type": "must be text; put it in quotes if it looks like a number",
    "int_type": "must be a whole number",
    "bool_type": "must be `true` or `false`",
    "dict_type": "must be a mapping",
    "tuple_type": "must be a list",
    "model_type": "must be a mapping",
    "model_attributes_type": "must be a mapping",
    "greater_than": "must be more than {gt}",
    "greater_than_equal": "must be at least {ge}",
    "less_than_equal": "must be at most {le}",
    "string_too_short": "must not be empty",
    "string_too_long": "is longer than {max_length} characters",
    "string_pattern_mismatch": "has a form that cannot be used here; it must match `{pattern}`",
    "int_from_float": "must be a whole number",
}
_CODES: Final[Mapping[str, str]] = {
    "greater_than": "out-of-range",
    "greater_than_equal": "out-of-range",
    "less_than_equal": "out-of-range",
    "string_too_short": "out-of-range",
    "string_too_long": "out-of-range",
    "string_pattern_mismatch": "bad-form",
}
_HINTS: Final[Mapping[str, str]] = {
    "api_key": "keys do not belong into a fleet file; name the environment variable with `api_key_env`",
}


@dataclass(frozen=True, slots=True)
class Draft:
    """The usable part of a file.

    Attributes:
        source: values and lines as they were.
        raw: the file's top mapping as it was, for names of blocks that were taken out.
        file: the blocks that fit the schema.
        kept: for each list at the top, the original index of each entry that was kept.
        problems: of the blocks that were taken out.
    """

    source: Source
    raw: Mapping[str, Any]
    file: FleetFile
    kept: Mapping[str, Sequence[int]]
    problems: tuple[Problem, ...]

    def names(self, block: str) -> frozenset[str]:
        """Give the names declared in a block, those of broken entries included."""
        value = self.raw.get(block)
        return frozenset(value) if isinstance(value, dict) else frozenset()

    def problem(self, place: Place, message: str, code: str) -> Problem:
        """Make a problem at the line of `place`."""
        return Problem(self.source.where(place), message, code)


def draft(source: Source) -> Draft:
    """Validate block by block.

    Raises:
        InvalidFleet: the file is not a mapping at all.
    """
    if not isinstance(source.value, dict):
        raise InvalidFleet(
            (Problem(source.where(()), "a fleet file is a mapping; begin with `midwatch: 1`", "wrong-type"),)
        )
    raw: dict[str, Any] = source.value
    rest: dict[str, Any] = dict(raw)
    kept = {key: list(range(len(rest[key]))) for key in _LISTS if isinstance(rest.get(key), list)}
    problems: list[Problem] = []
    try:
        return Draft(source, raw, FleetFile.model_validate(rest), kept, ())
    except ValidationError as failure:
        errors = failure.errors(include_url=False, include_input=False)
        problems = [_problem(source, error) for error in errors]
        _take_out(rest, kept, errors)
    return Draft(source, raw, FleetFile.model_validate(rest), kept, tuple(problems))


def known_keys(place: Place) -> tuple[str, ...]:
    """Give the keys that the schema knows at a place of the file; empty where names are free."""
    model: type[BaseModel] | None = FleetFile
    for part in place:
        if model is None:
            return ()
        if isinstance(part, int) or part not in _keys(model):
            continue  # an index or a free name: the same block goes on below it
        model = _block_below(model, part)
    return _keys(model) if model is not None else ()


def _keys(model: type[BaseModel]) -> tuple[str, ...]:
    return tuple(info.alias or name for name, info in model.model_fields.items())


def _block_below(model: type[BaseModel], key: str) -> type[BaseModel] | None:
    info = next(info for name, info in model.model_fields.items() if (info.alias or name) == key)
    found: list[type[BaseModel]] = []

    def look(annotation: Any) -> None:
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            found.append(annotation)
        for inner in getattr(annotation, "__args__", ()):
            look(inner)

    look(info.annotation)
    return found[0] if found else None


def _take_out(rest: dict[str, Any], kept: dict[str, list[int]], errors: Sequence[ErrorDetails]) -> None:
    """Remove each block that an error names: an entry of a mapping or list, else the whole key."""
    gone: set[tuple[str | int, ...]] = set()
    for error in errors:
        place = error["loc"]
        value = rest.get(str(place[0])) if place else None
        # An entry is named by its key or index; an error at the block itself has none.
        entry = len(place) > 1 and place[0] in _ENTRIES and isinstance(value, dict | list)
        gone.add(tuple(place[:2]) if entry else tuple(place[:1]))
    for place in gone:
        if len(place) == 1:
            rest.pop(str(place[0]), None)
            kept.pop(str(place[0]), None)
    for key in {str(place[0]) for place in gone if len(place) == 2 and place[0] in rest}:
        lost = {place[1] for place in gone if len(place) == 2 and place[0] == key}
        value = rest[key]
        if isinstance(value, dict):
            rest[key] = {name: child for name, child in value.items() if name not in lost}
        else:
            kept[key] = [index for index in range(len(value)) if index not in lost]
            rest[key] = [value[index] for index in kept[key]]
    for key, standin in _STANDINS.items():
        rest.setdefault(key, standin)


def _problem(source: Source, error: ErrorDetails) -> Problem:
    kind = error["type"]
    place: Place = tuple(part for part in error["loc"] if part != "[key]")
    key = str(place[-1]) if place else source.name
    if kind == "missing":
        where = f"in `{'.'.join(str(part) for part in place[:-1])}`" if len(place) > 1 else "in this file"
        return Problem(source.where(place[:-1]), f"`{key}` is missing {where}; write it", "missing-key")
    if kind == "extra_forbidden":
        return Problem(source.where(place), _unknown_key(place, key), "unknown-key")
    found = _found(source, place)
    if error["loc"] and error["loc"][-1] == "[key]":
        pattern = error.get("ctx", {}).get("pattern", "a plain word")
        return Problem(
            source.where(place), f"the name `{key[:_SHOWN]}` cannot be used; it must match `{pattern}`", "bad-form"
        )
    label = _label(place)
    if kind == "literal_error":
        expected = str(error.get("ctx", {}).get("expected", "")).replace("'", "`")
        return Problem(source.where(place), f"{label} is {_show(found)}; it must be {expected}", "unknown-word")
    if kind in _EXPECTED:
        message = _EXPECTED[kind].format(**error.get("ctx", {}))
        return Problem(source.where(place), f"{label} is {_show(found)}; it {message}", _CODES.get(kind, "wrong-type"))
    return Problem(source.where(place), f"{label}: {error['msg']}", kind.replace("_", "-"))


def _unknown_key(place: Place, key: str) -> str:
    known = known_keys(place[:-1])
    if key in _HINTS:
        return f"`{key}` is not a key here; {_HINTS[key]}"
    near = difflib.get_close_matches(key, known, n=1)
    if near:
        return f"`{key[:_SHOWN]}` is not a key here; did you mean `{near[0]}`?"
    return f"`{key[:_SHOWN]}` is not a key here; known keys: {', '.join(known)}"


def _label(place: Place) -> str:
    words = [part for part in place if isinstance(part, str)]
    return f"`{'.'.join(words[-2:])}`" if words else "this file"


def _found(source: Source, place: Place) -> object:
    value = source.value
    for part in place:
        if isinstance(value, dict):
            value = value.get(part)
        elif isinstance(value, list) and isinstance(part, int) and part < len(value):
            value = value[part]
        # One word stands for a list of one: index 0 is the word itself.
    return value


def _show(value: object) -> str:
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, list):
        return "a list"
    if value is None:
        return "empty"
    text = str(value).lower() if isinstance(value, bool) else str(value)
    return f"`{text[:_SHOWN]}…`" if len(text) > _SHOWN else f"`{text}`"
