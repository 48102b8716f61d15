"""Rules: which actions wait for a person, and on which terms.

In:   a fleet's rules, review and environment; a tool's contract, an agent, parsed arguments; the time.
Out:  `Ask` with the terms of every rule that applies, else `Allowed`.
May import: config, records, tools, `floor`. Must not know: whether the question was answered already, who people are.

Effect class, role and environment come first; words are a floor below them:

    every rule that applies    adds a need; all needs must be met, the shortest time-out holds
    no rule applied, and …     … the effect class is undeclared, so it counts as the worst: the floor asks
                               … the call writes or carries a command, and speaks of deploying, production, databases,
                                 billing, deleting or one of the fleet's own words, however disguised: the floor asks
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import replace
from fnmatch import fnmatchcase
from typing import Any, Final

from midwatch.config.fleet import Fleet
from midwatch.config.matching import fits
from midwatch.config.specs import GateRule, GateWhen
from midwatch.gates import floor
from midwatch.gates.canonical import readings
from midwatch.records.decision import Allowed, Ask
from midwatch.records.effect import Label
from midwatch.records.gate import Escalate, Need, Terms
from midwatch.tools.contract import ToolContract

__all__ = ["besides", "decide", "labels_of", "need_of"]

_HARMLESS: Final = ("pure", "read")
_REQUEST: Final[tuple[Label, ...]] = ("request",)


def decide(
    fleet: Fleet,
    *,
    contract: ToolContract,
    agent: str,
    arguments: Mapping[str, Any],
    at_us: int,
    labels: Collection[Label] = _REQUEST,
) -> Allowed | Ask:
    """Say whether a person must decide.

    Args:
        labels: whose words the run has taken in so far; see `labels_of`.

    Returns:
        `Ask` with `by="gates[0]"` (the first rule that applies) or `by="floor"`. `expires_us` is a duration here; the engine
        adds its clock. Times in the terms are absolute.
    """
    found = [
        (place, rule)
        for place, rule in enumerate(fleet.gates)
        if rule.when.observed is None  # those are of what was seen; see `seen`
        and _applies(fleet, rule.when, contract, agent, arguments)
        and _labelled(rule.when, labels)
    ]
    if found:
        needs = tuple(need_of(place, rule, at_us) for place, rule in found)
        channels = tuple(dict.fromkeys(name for _, rule in found for name in rule.channels))
        asked = ", ".join(f"`{need.who}`" for need in needs)
        reason = f"`{contract.name}` is {contract.effect} and needs a yes of {asked}"
        timeout = min(rule.timeout_us for _, rule in found)
        return Ask(reason, by=needs[0].by, who=needs[0].who, expires_us=timeout, terms=Terms(needs, channels))
    why = None if _exempt(fleet, contract, arguments) else _floor(fleet, contract, arguments)
    if why is None:
        return Allowed("gates")
    review = fleet.review
    terms = Terms((Need("floor", review.ask),))
    return Ask(why, by="floor", who=review.ask, expires_us=review.timeout_us, terms=terms)


def besides(verdict: Allowed | Ask, contained: Ask) -> Ask:
    """Let containment's question stand beside the rules': both needs must be met, the shorter time holds."""
    need = Need(contained.by, contained.who)
    if isinstance(verdict, Allowed):
        return replace(contained, terms=Terms((need,)))
    terms = verdict.terms or Terms((Need(verdict.by, verdict.who),))
    return replace(
        verdict,
        reason=f"{verdict.reason}; {contained.reason}",
        expires_us=min(verdict.expires_us, contained.expires_us),
        terms=Terms((*terms.needs, need), terms.channels),
    )


def labels_of(contracts: Iterable[ToolContract | None]) -> frozenset[Label]:
    """Give the labels of a run that has these tools' results; a tool that is not known, or says nothing, is a third party's.

    Coarse on purpose: a label says that such words may have reached the agent through any agent of the run.
    """
    found: set[Label] = {"request"}
    for contract in contracts:
        found |= {out.author for out in contract.outs} if contract is not None and contract.outs else {"third_party"}
    return frozenset(found)


def _labelled(when: GateWhen, labels: Collection[Label]) -> bool:
    return not when.label or any(label in labels for label in when.label)


def need_of(place: int, rule: GateRule, at_us: int) -> Need:
    """Give what a rule asks for; `at_us` is now."""
    later = None if rule.escalate is None else Escalate(at_us + rule.escalate.after_us, rule.escalate.to)
    return Need(f"gates[{place}]", rule.ask, rule.quorum, rule.four_eyes, later)


def _exempt(fleet: Fleet, contract: ToolContract, arguments: Mapping[str, Any]) -> bool:
    """Say whether the operator let such calls pass the words; an undeclared effect class is never let pass."""
    return "effect" not in contract.undeclared and any(
        _any(contract.name, exempt.tool)
        and all(fits(arguments.get(name), globs) for name, globs in exempt.where.items())
        for exempt in fleet.review.exempt
    )


def _floor(fleet: Fleet, contract: ToolContract, arguments: Mapping[str, Any]) -> str | None:
    if "effect" in contract.undeclared:
        return f"`{contract.name}` declares no effect class, so it counts as the worst"
    if contract.effect in _HARMLESS and not any(arg.role == "command" for arg in contract.args):
        return None
    hits = floor.read(contract.name, arguments, _roles(contract), fleet.review.keywords)
    if not hits:
        return None
    named = dict.fromkeys(f"`{hit.word}` ({hit.reading} in {_place(hit.argument)})" for hit in hits)
    return f"`{contract.name}` is about {', '.join(list(named)[:5])}"


def _place(argument: str) -> str:
    return "the tool's name" if argument == floor.TOOL else f"`{argument}`"


def _roles(contract: ToolContract) -> Any:
    def role(name: str) -> tuple[str, bool]:
        known = contract.arg(name)
        return known.role, known.interprets

    return role


def _applies(fleet: Fleet, when: GateWhen, contract: ToolContract, agent: str, arguments: Mapping[str, Any]) -> bool:
    """Say whether every key that says something matches; a rule that says nothing never applies."""
    asked = [
        bool(outcome)
        for says, outcome in (
            (when.effect, contract.effect in when.effect),
            (when.tool, _any(contract.name, when.tool)),
            (when.agent, _any(agent, when.agent)),
            (when.environment, bool(fleet.environment) and _any(fleet.environment, when.environment)),
            (when.reversible is not None, (contract.reversible is not None) == when.reversible),
            (when.cost is not None, _may_cost(contract, when.cost or 0)),
        )
        if says
    ]
    if not all(asked):
        return False
    if when.role:
        asked.append(all(_role_fits(contract, arguments, role, globs) for role, globs in when.role.items()))
    if when.keywords:
        hits = floor.read(contract.name, arguments, _roles(contract), when.keywords)
        wanted = {word.casefold() for word in when.keywords}
        asked.append(any(hit.word.casefold() in wanted for hit in hits))
    return bool(asked or when.label) and all(asked)


def _any(name: str, globs: tuple[str, ...]) -> bool:
    return any(fnmatchcase(name, glob) for glob in globs)


def _may_cost(contract: ToolContract, least: int) -> bool:
    """A tool that declares no cost may cost anything, unless it only reads what the operator controls."""
    if contract.cost is None:
        return contract.effect not in _HARMLESS or contract.open_world
    return contract.cost >= least


def _role_fits(contract: ToolContract, arguments: Mapping[str, Any], role: str, globs: tuple[str, ...]) -> bool:
    """Match every reading of every argument of that role, without case; one is enough. Keys that the caller chose are values, too."""
    wanted = tuple(glob.casefold() for glob in globs)
    declared = {arg.name for arg in contract.args}
    for name, text in _leaves(arguments, declared):
        if contract.arg(name).role != role:
            continue
        if any(_any(reading.casefold(), wanted) for reading in (text, *readings(text).texts)):
            return True
    return False


def _leaves(value: Any, declared: Collection[str], name: str = "") -> Iterator[tuple[str, str]]:
    """Give every text, number, truth value and undeclared key with the dotted name of the argument that it lies in."""
    if isinstance(value, Mapping):
        for key, item in value.items():
            inner = f"{name}.{key}" if name else str(key)
            if name and inner not in declared:
                yield name, str(key)
            yield from _leaves(item, declared, inner)
    elif isinstance(value, list):
        for item in value:
            yield from _leaves(item, declared, name)
    elif isinstance(value, bool):
        yield name, "true" if value else "false"
    elif value is not None:
        yield name, str(value)
