"""Helpers: tools that a contract names to undo, to show, to watch or to clear up a call of its own.

In:   a tool, the registry, arguments of a call and, where there is one, its result.
Out:  the helper's arguments, found by name; the problems of a registry whose contracts name what does not fit.
May import: contract, errors. Must not know: when a helper is called, gates, the journal.
Why tools and not functions: they run where the tool itself runs, within bounds of their own, and their digest is known.

    reversible    undoes the call         any effect   arguments of the call, then fields of its result
    preview       shows what it would do  reads        arguments of the call
    precondition  the target's state      reads        arguments of the call; equal results mean an equal state
    reconcile     what became of it       reads        arguments of the call; is given the call's own idempotency key and answers
                                                       `{outcome: done | not_done | unknown, result: …}`
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final, Literal

from midwatch.errors import Problem
from midwatch.tools.contract import HELPERS, ToolContract

__all__ = ["OUTCOMES", "arguments_for", "helper_problems", "outcome_of"]

OUTCOMES: Final = ("done", "not_done", "unknown")


def arguments_for(
    helper: ToolContract, arguments: Mapping[str, Any], result: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Take what the helper accepts from a call's arguments, and what is missing there from its result, by name."""
    wanted = helper.input_schema.get("properties", {})
    known = {**(result or {}), **arguments}
    return {name: known[name] for name in wanted if name in known}


def helper_problems(contracts: Mapping[str, ToolContract]) -> Iterator[Problem]:
    """Check every name that a contract of this registry gives: the tool exists, only reads where it must, gets its arguments."""
    for contract in contracts.values():
        for key in HELPERS:
            name = getattr(contract, key)
            if name is None:
                continue
            helper = contracts.get(name)
            where = f"tool `{contract.name}`"
            if helper is None:
                message = f"`{key}` names `{name}`, which is not loaded; add its source to `tools:`"
                yield Problem(where, message, f"unknown-{key}")
            else:
                yield from (Problem(where, message, f"bad-{key}") for message in _misfits(contract, key, helper))


def outcome_of(value: Any) -> tuple[Literal["done", "not_done", "unknown"], Any]:
    """Read a reconciler's answer; whatever is not exactly one of the three words is `unknown`."""
    word = value.get("outcome") if isinstance(value, Mapping) else None
    if word == "done":
        return "done", value.get("result")
    return ("not_done", None) if word == "not_done" else ("unknown", None)


def _misfits(contract: ToolContract, key: str, helper: ToolContract) -> Iterator[str]:
    if key != "reversible" and helper.effect not in ("pure", "read"):
        yield f"`{key}` names `{helper.name}`, which is {helper.effect}; it may only read"
    given = set(contract.input_schema.get("properties", {}))
    if key == "reversible":
        given |= set(contract.output_schema.get("properties", {}))
    lacking = sorted(set(helper.input_schema.get("required", ())) - given)
    if lacking:
        named = ", ".join(f"`{name}`" for name in lacking)
        yield f"`{key}` names `{helper.name}`, which requires {named}; a call of `{contract.name}` does not give that"
    if key == "reconcile":
        words = helper.output_schema.get("properties", {}).get("outcome", {}).get("enum", ())
        if not words or not set(words) <= set(OUTCOMES):
            yield f"`reconcile` names `{helper.name}`, which must return `outcome`: one of {', '.join(OUTCOMES)}"
