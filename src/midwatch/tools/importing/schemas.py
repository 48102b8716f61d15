"""Schemas of strangers: a JSON Schema that somebody else wrote becomes a closed one of bounded size, or is refused.

In:   a schema as a source gave it. Out: closed schemas; the kernel's own argument names moved away; values cut to what a schema names.
May import: recovery (to compile), `shape`, errors. Must not know: where the schema came from, contracts.
Why checked before anything walks it: a small schema that refers to itself in many places has more places than there is time,
and one that refers elsewhere would make whoever resolves it call that address.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Mapping
from typing import Any, Final

from midwatch.recovery.schema import SchemaRefused, compile_schema
from midwatch.tools.shape import KERNEL_ARGUMENTS, close

__all__ = ["MAX_SCHEMA_BYTES", "closed", "input_schema", "pruned", "renamed"]

MAX_SCHEMA_BYTES: Final = 64 * 1024
_MAX_PLACES: Final = 4_000
_MAX_DEPTH: Final = 8
_MAX_FOLLOWED: Final = 4
_LISTS: Final = ("anyOf", "oneOf", "allOf")
_DROPPED: Final = ("$id", "$anchor", "id")


def closed(schema: Any) -> dict[str, Any]:
    """Give a closed copy.

    Raises:
        SchemaRefused: it is no schema, refers outside itself, or is too large or too deep to be walked.
    """
    if not isinstance(schema, Mapping):
        raise SchemaRefused("a schema must be an object")
    compile_schema(schema)  # before anything else: references, depth and number of parts
    text = json.dumps(schema, allow_nan=False)
    if len(text) > MAX_SCHEMA_BYTES:
        raise SchemaRefused(f"the schema is longer than {MAX_SCHEMA_BYTES:,} bytes; describe less in it")
    own = {key: part for key, part in json.loads(text).items() if key not in _DROPPED or not isinstance(part, str)}
    if sum(1 for _ in itertools.islice(_places(own, own, 0), _MAX_PLACES)) >= _MAX_PLACES:
        raise SchemaRefused(
            f"the schema unfolds to more than {_MAX_PLACES:,} places; refer less to the same definitions"
        )
    found: dict[str, Any] = close(merged(own, own))
    return found


def input_schema(schema: Any) -> dict[str, Any]:
    """Give the schema of a tool's arguments: closed, an object, no argument with a name of the kernel's own.

    Raises:
        SchemaRefused: as `closed`; or it is no object.
    """
    own = closed(schema)
    if own.get("type", "object") != "object":
        raise SchemaRefused("the arguments must be an object")
    properties = {renamed(name): part for name, part in own.get("properties", {}).items()}
    made = {**own, "type": "object", "properties": properties, "additionalProperties": False}
    if "required" in own:
        made["required"] = [renamed(name) for name in own["required"]]
    return made


def renamed(name: str) -> str:
    """Give the name of an argument as a model is shown it."""
    return f"{name}_" if name in KERNEL_ARGUMENTS else name


def pruned(value: Any, schema: Mapping[str, Any], root: Mapping[str, Any] | None = None, depth: int = 0) -> Any:
    """Leave out of a value what its schema does not name: a service may say more tomorrow, and no model is shown it unasked."""
    root = schema if root is None else root
    schema = _target(root, schema)
    if depth > 4 * _MAX_DEPTH:
        return value
    if isinstance(value, list) and isinstance(schema.get("items"), Mapping):
        return [pruned(item, schema["items"], root, depth + 1) for item in value]
    if isinstance(value, dict) and schema.get("additionalProperties") is False:
        known = schema.get("properties", {})
        return {name: pruned(part, known[name], root, depth + 1) for name, part in value.items() if name in known}
    return value


def merged(root: Mapping[str, Any], schema: Any, hops: int = 0) -> Any:
    """Make one object of `allOf` several: closed each for itself, they would exclude each other.

    Args:
        hops: how many references were followed on the way here; what contains itself is not followed for ever.
    """
    if not isinstance(schema, Mapping):
        return schema
    own = {key: _merged_part(root, key, value, hops) for key, value in schema.items()}
    parts = own.get("allOf")
    if not isinstance(parts, list) or hops >= _MAX_FOLLOWED:
        return own
    del own["allOf"]
    for part in parts:
        found = merged(root, _target(root, part if isinstance(part, Mapping) else {}), hops + 1)
        own = {**found, **own, **_joined(found, own)}
    return own


def _merged_part(root: Mapping[str, Any], key: str, value: Any, hops: int) -> Any:
    if key in ("properties", "$defs", "definitions") and isinstance(value, Mapping):
        return {name: merged(root, part, hops) for name, part in value.items()}
    if key in ("anyOf", "oneOf", "prefixItems") and isinstance(value, list):
        return [merged(root, part, hops) for part in value]
    return merged(root, value, hops) if key in ("items", "additionalProperties", "not") else value


def _joined(one: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    made: dict[str, Any] = {}
    if "properties" in one or "properties" in other:
        made["properties"] = {**one.get("properties", {}), **other.get("properties", {})}
    if "required" in one or "required" in other:
        made["required"] = list(dict.fromkeys([*one.get("required", ()), *other.get("required", ())]))
    return made


def _target(root: Mapping[str, Any], schema: Mapping[str, Any]) -> Mapping[str, Any]:
    """Follow references inside the schema; what leads nowhere says nothing."""
    for _ in range(_MAX_DEPTH):
        reference = schema.get("$ref")
        if not isinstance(reference, str) or not reference.startswith("#"):
            return schema
        found: Any = root
        for name in reference[1:].strip("/").split("/") if reference != "#" else ():
            found = found.get(name.replace("~1", "/").replace("~0", "~")) if isinstance(found, Mapping) else None
        if not isinstance(found, Mapping):
            return {}
        schema = found
    return {}


def _places(root: Mapping[str, Any], schema: Any, depth: int, hops: int = 0) -> Iterator[None]:
    """Give one mark for each place that a walk of the schema (`shape.walk`) would come to."""
    if not isinstance(schema, Mapping) or depth > _MAX_DEPTH or hops > _MAX_DEPTH:
        return
    yield None
    if isinstance(schema.get("$ref"), str):
        yield from _places(root, _target(root, schema), depth, hops + 1)
    for key in _LISTS:
        for part in schema[key] if isinstance(schema.get(key), list) else ():
            yield from _places(root, part, depth, hops + 1)
    properties = schema.get("properties")
    for part in properties.values() if isinstance(properties, Mapping) else ():
        yield from _places(root, part, depth + 1)
    if "items" in schema:
        yield from _places(root, schema["items"], depth + 1)
