"""Lint: what makes a tool hard to use well or to judge; warnings, never errors.

In:   a contract. Out: problems with codes.
May import: contract, errors. Must not know: which agent has the tool.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from midwatch.errors import Problem
from midwatch.tools.contract import ToolContract

__all__ = ["lint"]

_VAGUE: Final = frozenset({"do", "run", "handle", "process", "misc", "execute", "action", "call", "tool", "helper", "thing", "manage"})
_SHORT: Final = 20


def lint(contract: ToolContract) -> list[Problem]:
    """Check one tool: its name, description, effect class, argument roles, and whether its results are bounded."""
    name = contract.name
    found: list[Problem] = []

    def warn(code: str, message: str) -> None:
        found.append(Problem(f"tool {name}", message, code))

    if name.rpartition(".")[2] in _VAGUE:
        warn("vague-name", f"`{name}` does not say what it does; name the act and its object")
    if len(contract.description) < _SHORT:
        warn("short-description", f"the description of `{name}` is too short for a model to choose by")
    if "effect" in contract.undeclared:
        warn("no-effect-class", f"`{name}` declares no effect class and counts as the worst; set `effect=`")
    found += [
        Problem(f"tool {name}", f"argument `{arg.name}` of `{name}` has no role and counts as a command", "no-role")
        for arg in contract.args
        if f"args.{arg.name}.role" in contract.undeclared
    ]
    for path in sorted(set(_unbounded(contract.output_schema, "", contract.output_schema))):
        warn("unbounded-result", f"`{path or 'the result'}` of `{name}` has no bound; declare a maximum length")
    return found


def _unbounded(schema: Any, path: str, root: Mapping[str, Any], depth: int = 0) -> Iterator[str]:
    """Paths of arrays without `maxItems`."""
    if not isinstance(schema, Mapping) or depth > 12:  # noqa: PLR2004 - deeper results are refused elsewhere
        return
    reference = schema.get("$ref")
    if isinstance(reference, str) and reference.startswith("#/$defs/"):
        yield from _unbounded(root.get("$defs", {}).get(reference[8:]), path, root, depth + 1)
    if schema.get("type") == "array":
        if "maxItems" not in schema:
            yield path
        yield from _unbounded(schema.get("items"), f"{path}[]", root, depth + 1)
    for key, item in schema.get("properties", {}).items():
        yield from _unbounded(item, f"{path}.{key}" if path else key, root, depth + 1)
    for item in schema.get("anyOf", ()):
        yield from _unbounded(item, path, root, depth + 1)
