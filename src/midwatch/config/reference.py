"""Reference: the tables of `docs/reference/fleet-file.md`, made from the schema so that they cannot drift from it.

In:   the page's text. Out: the text with everything between the two marks made anew.
May import: `quantities`, `schema`; the standard library. Must not know: the prose around the tables.
Use: `python -m midwatch.config.reference docs/reference/fleet-file.md` writes the page; a test compares it.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from midwatch.config.quantities import DURATION_PATTERN, MONEY_PATTERN, SIZE_PATTERN, TOKENS_PATTERN
from midwatch.config.schema import fleet_json_schema

__all__ = ["BEGIN", "END", "refresh", "tables"]

BEGIN: Final = "<!-- generated from the schema: begin -->"
END: Final = "<!-- generated from the schema: end -->"
_KINDS: Final[Mapping[str, str]] = {
    "object": "mapping",
    "array": "list",
    "string": "text",
    "integer": "whole number",
    "number": "number",
    "boolean": "`true` or `false`",
}
_UNITS: Final[Mapping[str, str]] = {
    DURATION_PATTERN: "duration",
    MONEY_PATTERN: "money",
    SIZE_PATTERN: "size",
    TOKENS_PATTERN: "tokens",
}


def refresh(page: str) -> str:
    """Replace what stands between the marks.

    Raises:
        ValueError: a mark is missing; whoever edited the page puts it back.
    """
    head, begin, rest = page.partition(BEGIN)
    _, end, tail = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"the page must hold `{BEGIN}` and, below it, `{END}`")
    return f"{head}{BEGIN}\n\n{tables()}\n{END}{tail}"


def tables() -> str:
    """Make one table a block, the whole file first, in the order in which blocks are met in it."""
    schema = fleet_json_schema()
    return "\n".join(line for path, block in _sections(schema) for line in (*_table(path, block, schema), ""))


def _sections(schema: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    waiting: list[tuple[str, Mapping[str, Any]]] = [("", schema)]
    seen: set[str] = set()
    while waiting:
        path, block = waiting.pop(0)
        yield path, block
        found: list[tuple[str, Mapping[str, Any]]] = []
        for key, value in block["properties"].items():
            for suffix, name in _references(value):
                if name not in seen:  # a block that stands in two places is described at the first
                    seen.add(name)
                    found.append((f"{path}.{key}{suffix}".lstrip("."), schema["$defs"][name]))
        waiting = [*found, *waiting]


def _references(value: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Give the blocks that a key holds, with the sign of how: one, one a name, one an entry."""
    if "$ref" in value:
        yield "", value["$ref"].rpartition("/")[2]
    for choice in value.get("anyOf", ()):
        yield from _references(choice)
    for child in value.get("patternProperties", {}).values():
        yield from ((".NAME" + suffix, name) for suffix, name in _references(child))
    if isinstance(value.get("items"), dict):
        yield from (("[]" + suffix, name) for suffix, name in _references(value["items"]))


def _table(path: str, block: Mapping[str, Any], schema: Mapping[str, Any]) -> Iterator[str]:
    yield f"### `{path}`" if path else "### The file"
    yield ""
    yield block["description"]
    yield ""
    yield "| key | value | absent | meaning |"
    yield "|---|---|---|---|"
    required = block.get("required", ())
    for key, value in block["properties"].items():
        description = value.get("description") or _described(value, schema)
        absent = "**required**" if key in required else _default(value.get("default"))
        yield f"| `{key}` | {_kind(value)} | {absent} | {description} |"


def _described(value: Mapping[str, Any], schema: Mapping[str, Any]) -> str:
    return str(next((schema["$defs"][name]["description"] for _, name in _references(value)), ""))


def _default(value: object) -> str:
    if value is None or value in ([], {}):
        return "none"
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"


def _kind(value: Mapping[str, Any]) -> str:
    """Say in words what may be written."""
    if "anyOf" in value:
        kinds = [_kind(choice) for choice in value["anyOf"] if choice.get("type") != "null"]
        return " or ".join(dict.fromkeys(kinds))
    if "enum" in value:
        return ", ".join(f"`{word}`" for word in value["enum"])
    if "const" in value:
        return f"`{value['const']}`"
    kind = value.get("type", "object")
    name = kind[0] if isinstance(kind, list) else kind
    # A key's own description hides the unit's; the pattern still tells it.
    return _UNITS.get(str(value.get("pattern"))) or _KINDS[name]


def _main(arguments: list[str]) -> None:
    page = Path(arguments[0])
    page.write_text(refresh(page.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    _main(sys.argv[1:])
