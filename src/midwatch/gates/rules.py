"""Rules: which actions wait for a person.

In:   the fleet's gate rules, a tool's contract, an agent, parsed arguments.
Out:  `Ask` for the first rule that applies, else `Allowed`.
May import: config, records, tools. Must not know: whether the question was answered already.
Why a floor of its own: a tool whose effect class nobody declared counts as the worst, and with no rule for that class at all it
asks an operator rather than nobody.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

import orjson

from midwatch.config.specs import GateRule, GateWhen
from midwatch.records.decision import Allowed, Ask
from midwatch.tools.contract import ToolContract

__all__ = ["FLOOR_TIMEOUT_US", "decide"]

FLOOR_TIMEOUT_US = 900_000_000


def decide(
    rules: Sequence[GateRule], *, contract: ToolContract, agent: str, arguments: Mapping[str, Any]
) -> Allowed | Ask:
    """Say whether a person must decide.

    Returns:
        `Ask` with `by="gates[0]"`, or `by="floor"` where an undeclared effect class met no rule.
        `expires_us` is a duration here; the engine adds its clock.
    """
    for place, rule in enumerate(rules):
        if _applies(rule.when, contract, agent, arguments):
            reason = f"`{contract.name}` is {contract.effect} and needs a yes of `{rule.ask}`"
            return Ask(reason, by=f"gates[{place}]", who=rule.ask, expires_us=rule.timeout_us)
    if "effect" in contract.undeclared:
        reason = f"`{contract.name}` declares no effect class, so it counts as the worst"
        return Ask(reason, by="floor", who="operator", expires_us=FLOOR_TIMEOUT_US)
    return Allowed("gates")


def _applies(when: GateWhen, contract: ToolContract, agent: str, arguments: Mapping[str, Any]) -> bool:
    if when.effect and contract.effect not in when.effect:
        return False
    if when.tool and not any(fnmatchcase(contract.name, glob) for glob in when.tool):
        return False
    if when.agent and not any(fnmatchcase(agent, glob) for glob in when.agent):
        return False
    if when.keywords:
        text = f"{contract.name} {orjson.dumps(arguments).decode()}".casefold()
        if not any(word.casefold() in text for word in when.keywords):
            return False
    return bool(when.effect or when.tool or when.agent or when.keywords)
