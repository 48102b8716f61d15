"""Shape: walking a JSON Schema or a value by dotted paths, in which lists add nothing.

In:   a schema of a tool's arguments or result; a value that fits it.
Out:  closed schemas, the paths of a schema, the part of a value that was asked for.
May import: the standard library only. Must not know: tools, contracts, envelopes.
Why dotted paths and no query language: a model writes them right the first time, and each is known from the schema, so
a wrong one is refused with the list of right ones.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

__all__ = [
    "KERNEL_ARGUMENTS",
    "MAX_PATHS",
    "close",
    "has_path",
    "nest",
    "open_objects",
    "pageable",
    "paths",
    "pick",
    "project",
    "walk",
]

KERNEL_ARGUMENTS: Final = frozenset({"cursor", "fields"})
"""Arguments that the kernel adds to a tool's own: which fields to show, and from where on."""

MAX_PATHS: Final = 64
_MAX_DEPTH: Final = 6
_BRANCHES: Final = ("anyOf", "oneOf", "allOf")
_PLAIN_KEY: Final = re.compile(r"[A-Za-z0-9_-]+")
_SCHEMA_MAPS: Final = ("properties", "$defs", "definitions", "patternProperties", "dependentSchemas")
_SCHEMA_LISTS: Final = (*_BRANCHES, "prefixItems")
_SCHEMA_PLACES: Final = ("items", "additionalProperties", "not", "if", "then", "else", "contains", "propertyNames")


def close(schema: Any) -> Any:
    """Give a copy in which every object with named properties refuses others, without the generator's titles.

    Typed maps (`additionalProperties` as a schema, no `properties`) stay what they are.
    """
    if not isinstance(schema, Mapping):
        return schema
    own = {key: value for key, value in schema.items() if not (key == "title" and isinstance(value, str))}
    for key in _SCHEMA_MAPS:
        if isinstance(own.get(key), Mapping):
            own[key] = {name: close(part) for name, part in own[key].items()}
    for key in _SCHEMA_LISTS:
        if isinstance(own.get(key), list):
            own[key] = [close(part) for part in own[key]]
    for key in _SCHEMA_PLACES:
        if isinstance(own.get(key), Mapping):
            own[key] = close(own[key])
    if "properties" in own or (own.get("type") == "object" and "additionalProperties" not in own):
        own["additionalProperties"] = False
    return own


def _children(schema: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for key in _SCHEMA_MAPS:
        yield from ((f"{key}/{name}", part) for name, part in (schema.get(key) or {}).items())
    for key in _SCHEMA_LISTS:
        yield from ((f"{key}/{number}", part) for number, part in enumerate(schema.get(key) or []))
    yield from ((key, schema[key]) for key in _SCHEMA_PLACES if isinstance(schema.get(key), Mapping))


def open_objects(schema: Mapping[str, Any], path: str = "#") -> Iterator[str]:
    """Find each object with named properties, or with no rule at all, that lets others in; schema pointers."""
    extra = schema.get("additionalProperties", schema.get("unevaluatedProperties", True))
    if ("properties" in schema and extra is not False) or (
        schema.get("type") == "object" and "properties" not in schema and "additionalProperties" not in schema
    ):
        yield path
    for place, part in _children(schema):
        yield from open_objects(part, f"{path}/{place}")


def paths(schema: Mapping[str, Any]) -> tuple[str, ...]:
    """List the dotted paths of a schema, parents before children, at most `MAX_PATHS`."""
    found: dict[str, None] = {}
    for path, _part in walk(schema):
        if path and len(found) < MAX_PATHS:
            found.setdefault(path)
    return tuple(found)


def has_path(schema: Mapping[str, Any], path: str) -> bool:
    """Say whether a dotted path names something in the schema; it may not lead through a key that contains a dot."""
    return any(found == path for found, _part in walk(schema))


def pageable(schema: Mapping[str, Any]) -> tuple[str, ...]:
    """List the paths that lead, through objects only, to a list or to a text without a short bound."""
    found: dict[str, None] = {}
    for path, part in walk(schema, through_lists=False):
        kinds = part.get("type")
        kinds = kinds if isinstance(kinds, list) else [kinds]
        if "array" in kinds or ("string" in kinds and "enum" not in part and part.get("maxLength", 1 << 20) > 1024):
            found.setdefault(path)
    return tuple(found)


def walk(schema: Mapping[str, Any], *, through_lists: bool = True) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Give (path, schema) for each place, breadth first; what contains itself is followed `_MAX_DEPTH` deep."""
    todo: list[tuple[str, Mapping[str, Any], int]] = [("", schema, 0)]
    while todo:
        path, part, depth = todo.pop(0)
        for plain in _plain(schema, part, 0):
            yield path, plain
            if depth >= _MAX_DEPTH:
                continue
            for name, child in (plain.get("properties") or {}).items():
                if _PLAIN_KEY.fullmatch(name) and isinstance(child, Mapping):
                    todo.append((f"{path}.{name}" if path else name, child, depth + 1))
            if through_lists and isinstance(plain.get("items"), Mapping):
                todo.append((path, plain["items"], depth + 1))


def _plain(root: Mapping[str, Any], part: Mapping[str, Any], hops: int) -> Iterator[Mapping[str, Any]]:
    """Follow references and branches until a schema says something itself."""
    if hops > _MAX_DEPTH or not isinstance(part, Mapping):
        return
    yield part
    reference = part.get("$ref")
    if isinstance(reference, str) and reference.startswith("#/"):
        target: Any = root
        for name in reference[2:].split("/"):
            target = target.get(name.replace("~1", "/").replace("~0", "~")) if isinstance(target, Mapping) else None
        yield from _plain(root, target, hops + 1)
    for key in _BRANCHES:
        for branch in part.get(key) or []:
            yield from _plain(root, branch, hops + 1)


def project(value: Any, fields: Iterable[str]) -> Any:
    """Keep only the named paths of a value. A path names all below it; what a value does not have is left out."""
    tree: dict[str, Any] = {}
    for path in fields:
        place = tree
        for name in path.split("."):
            place = place.setdefault(name, {})
        place[""] = {}  # this path was asked for as a whole
    return _kept(value, tree)


def _kept(value: Any, tree: Mapping[str, Any]) -> Any:
    if "" in tree:
        return value
    if isinstance(value, list):
        return [_kept(item, tree) for item in value]
    if isinstance(value, dict):
        return {name: _kept(value[name], below) for name, below in tree.items() if name in value}
    return value


def pick(value: Any, path: str) -> Any:
    """Give what lies at a dotted path that leads through objects only.

    Raises:
        KeyError: there is nothing.
    """
    for name in path.split(".") if path else ():
        if not isinstance(value, dict):
            raise KeyError(path)
        value = value[name]
    return value


def nest(path: str, value: Any) -> Any:
    """Put a value back to where `pick` found it, with nothing beside it."""
    for name in reversed(path.split(".") if path else ()):
        value = {name: value}
    return value
