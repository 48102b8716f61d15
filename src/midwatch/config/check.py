"""Check: what is wrong with a fleet that loads, and what is only unwise.

In:   a `Fleet`. Out: errors (it cannot run) and warnings (it can), each with its line.
May import: `fleet`, `guarantees`, `sandbox_rules`, `specs`, errors. Must not know: tools and prices; the wiring adds what takes those.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from fnmatch import fnmatchcase
from typing import Final

from midwatch.config.fleet import Fleet, TeamSpec
from midwatch.config.guarantees import not_guaranteed
from midwatch.config.sandbox_rules import SECRET
from midwatch.config.specs import SandboxSpec
from midwatch.errors import Problem

__all__ = ["MANY_STEPS", "check"]

_READS: Final = frozenset(("GET", "HEAD", "OPTIONS"))
_INSIDE: Final = frozenset(("localhost", "localhost.localdomain"))
MANY_STEPS: Final = 20
"""An agent that needs more steps than this in one run has a task that should be divided."""


def check(fleet: Fleet) -> tuple[list[Problem], list[Problem]]:
    """Give (errors, warnings). What breaks the schema or refers to nothing was `InvalidFleet` at loading already."""
    warnings = [
        *_unused(fleet),
        *_ungranted(fleet),
        *_empty_grants(fleet),
        *_unbounded(fleet),
        *_long(fleet),
        *_sandboxes(fleet),
        *_misspelt(fleet),
    ]
    return list(not_guaranteed(fleet)), warnings


def _unused(fleet: Fleet) -> Iterator[Problem]:
    if isinstance(fleet.graph, TeamSpec):
        members = {fleet.graph.ceo, fleet.graph.synthesis, *fleet.graph.specialists}
        for name in fleet.agents:
            if name not in members:
                yield Problem(fleet.where("agents", name), f"`{name}` is in no graph and never runs", "unused-agent")


def _ungranted(fleet: Fleet) -> Iterator[Problem]:
    for name, agent in fleet.agents.items():
        granted = any(
            grant.may and any(fnmatchcase(name, who.removeprefix("agent:")) for who in grant.who)
            for grant in fleet.grants
        )
        if agent.tools and not granted:
            message = f"`{name}` has tools and no grant names it; each of its calls will be denied"
            yield Problem(fleet.where("agents", name, "tools"), message, "ungranted-agent")


def _empty_grants(fleet: Fleet) -> Iterator[Problem]:
    for index, grant in enumerate(fleet.grants):
        if not grant.who or not grant.may or () in grant.where.values():
            message = "this grant has an empty list in it and allows nothing; fill it, or take the grant away"
            yield Problem(fleet.where("grants", index), message, "empty-grant")


def _unbounded(fleet: Fleet) -> Iterator[Problem]:
    capped = {unit for scope in ("run", "fleet") if scope in fleet.budgets for unit in fleet.budgets[scope].caps}
    if "cost" not in capped:
        message = 'no budget of `run` or `fleet` bounds the cost; write one, such as `run: {cost: "$0.25"}`'
        yield Problem(fleet.where("budgets"), message, "unbounded-cost")


def _long(fleet: Fleet) -> Iterator[Problem]:
    for name, agent in fleet.agents.items():
        if agent.limits.steps is not None and agent.limits.steps > MANY_STEPS:
            message = f"`{name}` may take {agent.limits.steps:,} steps; over {MANY_STEPS}, divide its task"
            yield Problem(fleet.where("agents", name, "limits", "steps"), message, "many-steps")


def _misspelt(fleet: Fleet) -> Iterator[Problem]:
    """Find words of a command that almost name a file of the fleet. A word may as well name a file of the workspace."""
    beside = [path.name for path in fleet.base.iterdir() if path.is_file()] if fleet.base.is_dir() else []
    for name, agent in fleet.agents.items():
        known = {program.word for program in agent.programs}
        for index, word in enumerate(agent.command):
            near = difflib.get_close_matches(word, beside, n=1, cutoff=0.8)
            if near and word not in known and word not in beside and "." in word:
                message = f"no file `{word}` stands beside the fleet file; did you mean `{near[0]}`?"
                yield Problem(fleet.where("agents", name, "command", index), message, "no-program")


def _sandboxes(fleet: Fleet) -> Iterator[Problem]:
    own = ((("agents", name, "sandbox"), agent.sandbox) for name, agent in fleet.agents.items())
    for place, sandbox in ((("sandbox",), fleet.sandbox), *own):
        if sandbox is not None:
            yield from _idle_in_sandbox(fleet, place, sandbox)


def _idle_in_sandbox(fleet: Fleet, place: tuple[str, ...], sandbox: SandboxSpec) -> Iterator[Problem]:
    """Find what says something and does nothing."""
    for index, rule in enumerate(sandbox.egress):
        if rule.stage and rule.methods and not set(rule.methods) - _READS:
            message = f"the rule for `{rule.host}` only reads, and reads are sent at once; `stage` holds nothing back"
            yield Problem(fleet.where(*place, "egress", index, "stage"), message, "idle-stage")
        if rule.host in _INSIDE:
            message = (
                f"`{rule.host}` is the sandbox itself for a program in it: clients that heed `NO_PROXY` never ask the broker for it; "
                "give the service another name on this machine, and name that"
            )
            yield Problem(fleet.where(*place, "egress", index, "host"), message, "own-host")
    named = {name for rule in sandbox.egress for value in rule.headers.values() for name in SECRET.findall(value)}
    for index, name in enumerate(sandbox.secrets):
        if name not in named:
            message = f"no header of `egress` uses the secret `{name}`; use it, or take it away"
            yield Problem(fleet.where(*place, "secrets", index), message, "idle-secret")
