"""Policy rules: what is wrong with sources and policies and takes no tool to see.

In:   the draft. Out: problems: causes that nothing has, rights that give nothing, sources that say two things.
May import: `draft`, `specs`, `yaml_source`; errors. Must not know: tools, CEL (`containment.policy_lint` looks at those).
Why a right that gives nothing is refused: whoever wrote it believes that it gives something.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from fnmatch import fnmatchcase
from typing import Final

from midwatch.config.draft import Draft
from midwatch.config.file_model import PolicyFile
from midwatch.config.yaml_source import Place
from midwatch.errors import Problem

__all__ = ["check_commits", "check_mandates", "check_policies", "check_sources"]

_PATTERN: Final = re.compile(r"tool:[A-Za-z0-9_.*?!\[\]-]{1,200}")
_EVERYONE: Final = "everyone"
_AMOUNT: Final = re.compile(r"[0-9]{1,15}(?:\.[0-9]{1,6})?")


def check_sources(draft: Draft) -> Iterator[Problem]:
    """Check each source, and that no two of them have one name."""
    names: dict[str, str] = {}
    for pattern, source in draft.file.sources.items():
        place: Place = ("sources", pattern)
        if _PATTERN.fullmatch(pattern) is None:
            message = (
                f"`{pattern}` names no source; write `tool:` and the name or glob of the tools, such as `tool:web.*`"
            )
            yield draft.problem(place, message, "bad-form")
        if source.trust == "full" and not source.writers:
            message = f"`{pattern}` is trusted and names no `writers`; say who else may write there"
            yield draft.problem(place, message, "trusted-without-writers")
        if source.trust == "full" and _EVERYONE in source.writers:
            message = f"everyone writes to `{pattern}`, so to trust it is to trust everyone; write `trust: none`"
            yield draft.problem((*place, "writers"), message, "trusted-stranger")
        if _EVERYONE in source.readers and len(source.readers) > 1:
            message = f"`readers` of `{pattern}` names everyone and somebody besides; keep one"
            yield draft.problem((*place, "readers"), message, "duplicate-entry")
        name = _name(pattern, source.name)
        if names.setdefault(name, pattern) != pattern:
            message = f"`{name}` is also the name of `{names[name]}`; give each a `name` of its own"
            yield draft.problem(place, message, "duplicate-name")


def check_policies(draft: Draft) -> Iterator[Problem]:
    """Check each policy."""
    kept = draft.kept.get("policies")
    seen: dict[str, Place] = {}
    for index, policy in enumerate(draft.file.policies):
        place: Place = ("policies", kept[index]) if kept is not None else ("policies",)
        key = policy.model_dump_json()
        if key in seen:
            message = f"this policy stands already in {draft.source.where(seen[key])}; remove one of them"
            yield draft.problem(place, message, "duplicate-entry")
        seen.setdefault(key, place)
        yield from _gives_nothing(draft, place, policy)
        for at, who in enumerate(policy.who):
            yield from _cause(draft, (*place, "who", at), who)


def check_mandates(draft: Draft, routes: frozenset[str]) -> Iterator[Problem]:
    """Check who reads requests, and the bounds of what they may leave open."""
    block, place = draft.file.containment, ("containment",)
    if block is None:
        return
    if (block.mandate == "planner") != (block.planner is not None):
        message = "`mandate: planner` and `planner: ROUTE` go together; write both, or none of them"
        yield draft.problem((*place, "mandate"), message, "planner-without-route")
    elif block.planner is not None and block.planner not in routes:
        known = ", ".join(f"`{name}`" for name in sorted(routes)) or "none"
        yield draft.problem(
            (*place, "planner"), f"there is no route `{block.planner}`; known: {known}", "unknown-route"
        )
    for tool, bounds in block.bounds.items():
        for name, bound in bounds.items():
            where: Place = (*place, "bounds", tool, name)
            if bound.most is not None and _AMOUNT.fullmatch(str(bound.most)) is None:
                yield draft.problem(
                    (*where, "most"), f"`{bound.most}` is no amount; write a number such as `100`", "bad-amount"
                )
            if not bound.model_fields_set:
                yield draft.problem(
                    where, f"nothing is said of `{name}`; write its bound, or take it away", "empty-bound"
                )


def check_commits(draft: Draft) -> Iterator[Problem]:
    """Check who is said to execute what is committed."""
    block, place = draft.file.containment, ("containment", "commits")
    for index, target in enumerate(() if block is None else block.commits):
        kind, _, name = target.executed_by.partition(":")
        if kind == "agent" and name not in draft.names("agents"):
            known = ", ".join(f"`{name}`" for name in sorted(draft.names("agents"))) or "none"
            message = f"there is no agent `{name}`; known: {known}"
            yield draft.problem((*place, index, "executed_by"), message, "unknown-agent")
        if not target.paths:
            yield draft.problem(
                (*place, index, "paths"), "`paths` is empty, so this says nothing; fill it", "empty-commits"
            )
        wide = [path for path in target.paths if set(path) <= {"*", "/"}]
        if wide and kind == "nobody":
            message = f"`{wide[0]}` would say of every file that nobody executes it; name the places that are only read"
            yield draft.problem((*place, index, "paths"), message, "wide-commits")


def _gives_nothing(draft: Draft, place: Place, policy: PolicyFile) -> Iterator[Problem]:
    for key in ("who", "may", "roles"):
        words = getattr(policy, key)
        if not words:
            yield draft.problem(
                (*place, key), f"`{key}` is empty, so this policy gives nothing; fill it", "empty-policy"
            )
        for word in sorted({word for word in words if words.count(word) > 1}):
            yield draft.problem(
                (*place, key), f"`{word}` stands twice in this list; remove one of them", "duplicate-entry"
            )
    if not policy.where and "where" in policy.model_fields_set:
        message = "`where` bounds no argument; name one, or take `where` away to leave them unbound"
        yield draft.problem((*place, "where"), message, "empty-where")
    for name, patterns in policy.where.items():
        if not patterns:
            message = f"`where` lets `{name}` hold nothing, so this policy gives nothing; write what it may hold"
            yield draft.problem((*place, "where", name), message, "empty-policy")


def _cause(draft: Draft, place: Place, who: str) -> Iterator[Problem]:
    """Find a cause that this fleet cannot have: a source that is not declared or not trusted, an agent that is not there."""
    kind, _, glob = who.partition(":")
    if kind == "agent" and not any(fnmatchcase(name, glob) for name in draft.names("agents")):
        known = ", ".join(f"`{name}`" for name in sorted(draft.names("agents"))) or "none"
        yield draft.problem(place, f"`{who}` matches no agent; known: {known}", "unknown-agent")
    if kind != "source":
        return
    meant = [
        (pattern, source)
        for pattern, source in draft.file.sources.items()
        if fnmatchcase(_name(pattern, source.name), glob)
    ]
    broken = draft.names("sources") - set(draft.file.sources)
    if not meant and not broken:
        names = [_name(pattern, source.name) for pattern, source in draft.file.sources.items()]
        known = ", ".join(f"`source:{name}`" for name in names) or "none; write it under `sources:`"
        yield draft.problem(place, f"no source is called `{who}`; known: {known}", "unknown-source")
    elif meant and all(source.trust == "none" for _, source in meant):
        message = f"`{who}` is not trusted, so nothing carries its name; write `trust: full` at `{meant[0][0]}`, or name `third_party:`"
        yield draft.problem(place, message, "untrusted-source")


def _name(pattern: str, name: str | None) -> str:
    return name or pattern.removeprefix("tool:")
