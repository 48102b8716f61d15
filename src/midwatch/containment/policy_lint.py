"""Policy lint: what is wrong or useless in a fleet's policies, sources and conditions, once its tools are known.

In:   a fleet, its tools. Out: errors (it cannot run) and warnings (it can), each with its line and what to do.
May import: `conditions`, `condition_types`, `policies`, `roles`; config, tools, errors. Must not know: runs, how it is shown.
What no tool is needed for was said when the file was read (`config.policy_rules`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any, Final

from midwatch.config.fleet import Fleet
from midwatch.config.specs import PolicySpec
from midwatch.containment.condition_types import Findings, examine, schema_at
from midwatch.containment.conditions import ConditionFault, compile_condition
from midwatch.containment.policies import slot
from midwatch.containment.roles import kinds, places_of
from midwatch.containment.slots import OneOf, Pattern
from midwatch.errors import Problem
from midwatch.records.effect import ROLES
from midwatch.tools.contract import ToolContract
from midwatch.tools.registry import Registry

__all__ = ["check_policies"]

Place = tuple[str | int, ...]
_STRANGERS: Final = frozenset({"third_party", "caller"})
_NO_TEXT: Final = frozenset({"integer", "number", "boolean", "null"})
_SHOWN: Final = 3


def check_policies(fleet: Fleet, registry: Registry) -> tuple[list[Problem], list[Problem]]:
    """Give (errors, warnings) of `sources:`, `policies:` and the conditions of `grants:`."""
    errors: list[Problem] = []
    warnings: list[Problem] = list(_sources(fleet, registry))
    for index, policy in enumerate(fleet.policies):
        place: Place = ("policies", index)
        tools = _named(policy.may, registry)
        if policy.condition is not None:
            found, warned = _condition(fleet, (*place, "when"), policy.condition, tools)
            errors += found
            warnings += warned
        warnings += [*_idle(fleet, place, policy, registry, tools), *_bounds(fleet, place, policy, tools)]
        warnings += [*_wide(fleet, place, policy), *_shadowed(fleet, index)]
    for index, grant in enumerate(fleet.grants):
        if grant.condition is not None:
            tools = _named(grant.may, registry)
            found, warned = _condition(fleet, ("grants", index, "if"), grant.condition, tools, every=True)
            errors += found
            warnings += warned
    return [*errors, *_unbindable(fleet, registry)], warnings


def _unbindable(fleet: Fleet, registry: Registry) -> Iterator[Problem]:
    """Find bounds for requests of what there is not: whoever wrote them believes that they bound something."""
    for tool, bounds in fleet.containment.bounds.items():
        place: Place = ("containment", "bounds", tool)
        if tool not in registry.names():
            yield Problem(
                fleet.where(*place), f"there is no tool `{tool}`; write the whole name of one", "unknown-tool"
            )
            continue
        known = {each.name for each in places_of(registry.get(tool).contract)}
        for name in bounds:
            if name not in known:
                told = ", ".join(f"`{each}`" for each in sorted(known)) or "none"
                yield Problem(
                    fleet.where(*place, name), f"`{tool}` has no argument `{name}`; known: {told}", "unknown-argument"
                )


def _condition(
    fleet: Fleet, place: Place, source: str, tools: Sequence[ToolContract], *, every: bool = False
) -> tuple[list[Problem], list[Problem]]:
    """Check one condition for each of its tools. `every`: it is asked for all of them, so one that it does not fit is an error."""
    where = fleet.where(*place)
    try:
        compile_condition(source)
    except ConditionFault as fault:
        return [Problem(where, f"the condition cannot be used: {fault}; correct it", "bad-condition")], []
    found = {tool.name: examine(source, tool.input_schema) for tool in tools}
    faults = {name: each.fault for name, each in found.items() if each.fault is not None}
    if faults and (every or len(faults) == len(found)):
        name, why = next(iter(faults.items()))
        message = f"the condition cannot be used for `{name}`: {why}; correct it"
        return [Problem(where, message, "bad-condition")], []
    warned = []
    for name, why in list(faults.items())[:_SHOWN]:
        message = f"for `{name}` the condition never holds: {why}; name the tools that it is for"
        warned.append(Problem(where, message, "idle-condition"))
    return [], warned + list(_doubtful(where, [each for each in found.values() if each.fault is None]))


def _doubtful(where: str, found: Sequence[Findings]) -> Iterator[Problem]:
    if found and all(each.never for each in found):
        yield Problem(where, "the condition can never be true; correct it", "never-true")
    for name in sorted({name for each in found for name in each.open}):
        message = f"`{name}` has no declared type, so nothing about it is checked before a run; declare it in the tool"
        yield Problem(where, message, "free-form")
    for name, value in sorted({pair for each in found for pair in each.strange}):
        message = f"`{value}` is none of the values that `{name}` can have; correct it"
        yield Problem(where, message, "unknown-literal")


def _idle(
    fleet: Fleet, place: Place, policy: PolicySpec, registry: Registry, tools: Sequence[ToolContract]
) -> Iterator[Problem]:
    """Find rules that give nothing: no such tool, no argument in that role."""
    for glob in policy.may:
        if not registry.match(glob):
            message = f"no loaded tool matches `{glob}`, so this policy gives nothing there; correct the name"
            yield Problem(fleet.where(*place, "may"), message, "idle-policy")
    known = {declared.role for tool in tools for declared in places_of(tool)} | {"control"}
    known |= {arg.deref for tool in tools for arg in tool.args if arg.deref is not None}
    for role in policy.roles:
        if tools and role not in known and len(policy.roles) < len(ROLES):
            message = f"no tool that this policy names has an argument of the role `{role}`; take it away, or correct the tools"
            yield Problem(fleet.where(*place, "roles"), message, "idle-role")
    kinds_ = {who.partition(":")[0] for who in policy.who}
    if kinds_ == {"operator"}:
        yield Problem(fleet.where(*place, "who"), "the operator needs no policy; this one adds nothing", "idle-policy")


def _bounds(fleet: Fleet, place: Place, policy: PolicySpec, tools: Sequence[ToolContract]) -> Iterator[Problem]:
    """Find bounds that nothing can satisfy."""
    for name, texts in policy.where.items():
        where = fleet.where(*place, "where", name)
        having = [tool for tool in tools if schema_at(tool.input_schema, name) is not None]
        if tools and not having:
            yield Problem(where, f"no tool that this policy names has an argument `{name}`; correct it", "idle-policy")
        for tool in having:
            part = schema_at(tool.input_schema, name) or {}
            if part.get("type") in _NO_TEXT:
                message = f"`{name}` of `{tool.name}` holds no text, so no pattern fits it; write a condition in `when`"
                yield Problem(where, message, "never-true")
                continue
            for text in texts:
                why = _unfit(text, kinds(tool.input_schema).get(name), part)
                if why is not None:
                    yield Problem(where, f"`{text}` fits no `{name}` of `{tool.name}`: {why}", "never-true")


def _unfit(text: str, kind: str | None, part: Mapping[str, Any]) -> str | None:
    read = slot(text, kind)
    if isinstance(read, OneOf) and not read.values:
        return f"it is no {kind}; correct it"
    if isinstance(read, Pattern) and read.kind == "url" and "://" not in text:
        return "a pattern of addresses begins with its scheme, such as `https://`"
    if isinstance(read, Pattern) and read.kind == "email" and "@" not in text:
        return "a pattern of mail addresses has an `@`, such as `*@example.org`"
    choices = part.get("enum")
    if isinstance(choices, list) and not any(isinstance(word, str) and fnmatchcase(word, text) for word in choices):
        return f"it can only be {', '.join(f'`{word}`' for word in choices[:8])}"
    return None


def _wide(fleet: Fleet, place: Place, policy: PolicySpec) -> Iterator[Problem]:
    strangers = sorted(who for who in policy.who if who.partition(":")[0] in _STRANGERS)
    bound = policy.where or policy.condition is not None
    if strangers and not bound and {"control", "target", "command"} & set(policy.roles):
        message = (
            f"`{strangers[0]}` is whoever wrote there, and nothing bounds what they bring about; add `where` or `when`"
        )
        yield Problem(fleet.where(*place), message, "wide-policy")


def _shadowed(fleet: Fleet, index: int) -> Iterator[Problem]:
    """Find a policy that gives nothing beyond another one: rights only ever add."""
    mine = fleet.policies[index]
    for at, other in enumerate(fleet.policies):
        if at != index and _covers(other, mine) and not (at > index and _covers(mine, other)):
            message = f"policies[{at}] in {fleet.where('policies', at)} gives all of this already; remove one of them"
            yield Problem(fleet.where("policies", index), message, "shadowed-policy")
            return


def _covers(wide: PolicySpec, narrow: PolicySpec) -> bool:
    bound = not wide.where or all(set(narrow.where.get(name, ())) <= set(texts) for name, texts in wide.where.items())
    held = set(wide.where) <= set(narrow.where)
    same = wide.condition is None or wide.condition == narrow.condition
    return (
        all(any(fnmatchcase(who, glob) for glob in wide.who) for who in narrow.who)
        and all(any(fnmatchcase(tool, glob) for glob in wide.may) for tool in narrow.may)
        and set(narrow.roles) <= set(wide.roles)
        and bound
        and held
        and same
    )


def _sources(fleet: Fleet, registry: Registry) -> Iterator[Problem]:
    for pattern, spec in fleet.sources.items():
        glob = pattern.removeprefix("tool:")
        if not registry.match(glob):
            message = f"no loaded tool matches `{glob}`, so this source is nothing; correct the name"
            yield Problem(fleet.where("sources", pattern), message, "idle-source")
        named = any(
            who.startswith("source:") and fnmatchcase(spec.name, who.partition(":")[2])
            for policy in fleet.policies
            for who in policy.who
        )
        if spec.trust == "full" and not named:
            message = (
                f"`source:{spec.name}` is trusted and no policy gives it anything; write one, or leave `trust` away"
            )
            yield Problem(fleet.where("sources", pattern), message, "idle-source")


def _named(globs: Sequence[str], registry: Registry) -> list[ToolContract]:
    return [registry.get(name).contract for name in registry.names() if any(fnmatchcase(name, glob) for glob in globs)]
