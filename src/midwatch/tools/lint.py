"""Lint: what makes a tool hard to choose, to bound or to judge; warnings, never errors.

In:   a contract. Out: problems, each with a stable code.
May import: contract, shape, errors. Must not know: which agent has the tool, how many it has.
Why so strict about the undeclared: it counts as the worst, so a silent author costs the operator approvals.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from midwatch.errors import Problem
from midwatch.tools.contract import ToolContract
from midwatch.tools.shape import walk

__all__ = ["VAGUE", "lint"]

VAGUE: Final = frozenset(
    {
        "action", "call", "do", "do_it", "execute", "handle", "handler", "helper", "main", "manage", "misc", "perform",
        "process", "run", "stuff", "task", "thing", "tool", "util", "utils", "work",
    }
)  # fmt: skip
"""Last parts of a name that say nothing. `run` says enough where the namespace names what is run, as in `shell.run`."""

_CLEAR_WITH_NAMESPACE: Final = frozenset({"shell.run"})
_SHORT: Final = 20


def lint(contract: ToolContract) -> list[Problem]:
    """Check one tool; an empty list means that there is nothing to say."""
    where = f"tool `{contract.name}`"
    return [
        Problem(where, message, code) for message, code in (*_words(contract), *_silence(contract), *_bounds(contract))
    ]


def _words(contract: ToolContract) -> Iterator[tuple[str, str]]:
    last = contract.name.rpartition(".")[2]
    if last in VAGUE and contract.name not in _CLEAR_WITH_NAMESPACE:
        yield f"the name `{last}` does not say what it does; name the act and its object", "vague-name"
    if len(contract.description) < _SHORT:
        yield "the description is too short for a model to choose by; say what it does and when", "short-description"
    for name, schema in contract.input_schema.get("properties", {}).items():
        if not schema.get("description"):
            yield f"the argument `{name}` has no description; write it under `Args:`", "undescribed-argument"


def _silence(contract: ToolContract) -> Iterator[tuple[str, str]]:
    silent = contract.undeclared
    if "effect" in silent:
        yield "has no effect class and counts as `grants_authority`; say `effect=`", "no-effect"
    for entry in sorted(silent):
        if entry.startswith("args."):
            yield (
                f"the argument `{entry.split('.')[1]}` has no role and counts as a command; say `Arg(role=…)`",
                "no-role",
            )
    if "timeout" in silent:
        yield "has no time-out of its own and gets 30 seconds; say `timeout=`", "no-timeout"
    if contract.effect in {"write", "destructive", "grants_authority"} and "effect" not in silent:
        if "idempotent" in silent:
            yield "changes something; say whether it is `idempotent`, or a crash leaves it in doubt", "no-idempotent"
        if "reversible" in silent:
            yield "changes something; say with `reversible=` which tool undoes it, or False", "no-reversible"
    if "open_world" in silent and contract.effect != "pure":
        yield "does not say whether it reaches the open world and counts as if; say `open_world=`", "no-open-world"
    if "outs" in silent:
        yield "no field of the result has an author, so all counts as a third party's; say `Out(author=…)`", "no-author"


def _bounds(contract: ToolContract) -> Iterator[tuple[str, str]]:
    for path, kind in _unbounded(contract.input_schema):
        yield f"the {kind} `{path}` of the arguments has no upper bound; give it one", "unbounded-argument"
    for path, kind in _unbounded(contract.output_schema):
        yield f"the {kind} `{path or 'itself'}` of the result has no upper bound; give it one", "unbounded-result"
    for side, schema in (("arguments", contract.input_schema), ("result", contract.output_schema)):
        for path in dict.fromkeys(path for path, part in walk(schema) if _free(part)):
            yield f"`{path or 'itself'}` of the {side} may hold anything; name its fields", "free-form"


def _unbounded(schema: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    seen: dict[tuple[str, str], None] = {}
    for path, part in walk(schema):
        if part.get("type") == "array" and "maxItems" not in part:
            seen.setdefault((path, "list"))
        if part.get("type") == "string" and not {"maxLength", "enum", "const", "format"} & set(part):
            seen.setdefault((path, "text"))
    yield from seen


def _free(part: Mapping[str, Any]) -> bool:
    """Say whether a schema, with its references followed elsewhere, lets any value in."""
    said = {"$ref", "allOf", "anyOf", "const", "enum", "not", "oneOf", "type"}
    return not said & set(part) or part.get("additionalProperties") is True
