"""Schema: the fleet file's JSON Schema, for editors that complete and underline while somebody writes.

In:   nothing. Out: a JSON Schema (2020-12) made from the models of `file_model`; never written by hand.
May import: `file_model`; pydantic. Must not know: cross-checks, which no schema can express.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from midwatch.config.file_model import FleetFile

__all__ = ["DIALECT", "fleet_json_schema"]

DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"


def fleet_json_schema() -> dict[str, Any]:
    """Make the schema, a new object at each call: keys with descriptions, closed objects, patterns of quantities."""
    schema = FleetFile.model_json_schema(by_alias=True, mode="validation")
    for block in (schema, *schema["$defs"].values()):
        required = block.get("required", ())
        for key, value in block["properties"].items():
            value.pop("title", None)  # the key again, in capitals
            # What may be absent may be `null`.
            if key not in required and value.get("type") in ("object", "array"):
                value["type"] = [value["type"], "null"]
    for block in _blocks(schema):
        if "patternProperties" in block:
            block["additionalProperties"] = False
    return {"$schema": DIALECT, **schema, "title": "Midwatch fleet"}


def _blocks(value: object) -> Iterator[dict[str, Any]]:
    if isinstance(value, dict):
        yield value
        for child in value.values():
            yield from _blocks(child)
    elif isinstance(value, list):
        for child in value:
            yield from _blocks(child)
