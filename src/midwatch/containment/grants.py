"""Grants: who may call which tool, on which targets. No grant, no action.

In:   the fleet's grants; an agent's name, a tool's name and its parsed arguments.
Out:  `Allowed` naming the grant, or `Denied` with a hint that quotes no value.
May import: `conditions`; config, records. Must not know: budgets, gates, the graph, what a tool does.
Why so small: labels, mandates and acquired authority come on top of this and can only narrow it (CONTAINMENT.md, 18–19).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

from midwatch.config.matching import fits
from midwatch.config.specs import Grant
from midwatch.containment.conditions import holds
from midwatch.records.decision import Allowed, Denied

__all__ = ["decide"]


def decide(grants: Sequence[Grant], *, agent: str, tool: str, arguments: Mapping[str, Any]) -> Allowed | Denied:
    """Say whether some grant covers this call whole; two grants never add up to one.

    Args:
        agent: the agent's name, without `agent:`.
        arguments: parsed and checked. A bound argument must be present and be text or a list of texts, each of which matches.

    Returns:
        `Allowed(by="grants[2]")` for the first that fits, else `Denied`.
    """
    near: list[str] = []
    for place, grant in enumerate(grants):
        if not any(fnmatchcase(f"agent:{agent}", who) for who in grant.who):
            continue
        if not any(fnmatchcase(tool, may) for may in grant.may):
            continue
        if grant.condition is not None and not holds(grant.condition, arguments):
            near.append("its condition does not hold")
            continue
        broken = [name for name, globs in grant.where.items() if not fits(arguments.get(name), globs)]
        if not broken:
            return Allowed(f"grants[{place}]")
        near.append("argument " + ", ".join(f"`{name}`" for name in sorted(broken)) + " is outside what it covers")
    hint = f"a grant for `{tool}` exists, but {near[0]}" if near else f"no grant gives `{agent}` the tool `{tool}`"
    return Denied(f"`{agent}` is not allowed to do this with `{tool}`", by="grants", hint=hint)
