"""Checking: what is wrong with a fleet that only several rooms together can tell.

In:   a fleet, the environment. Out: every error and every warning at once; the routes that it uses, with their prices.
May import: everything below surfaces and wiring. Must not know: homes, stores, how anything is shown.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

from midwatch.config.check import check as check_config
from midwatch.config.route_policy import offences
from midwatch.config.specs import ImportSpec, RouteSpec
from midwatch.errors import InvalidFleet, MidwatchError, Problem

if TYPE_CHECKING:
    from midwatch.config.fleet import Fleet
    from midwatch.tools.registry import Registry

__all__ = ["check_fleet"]


def check_fleet(
    fleet: Fleet, environ: Mapping[str, str] | None = None
) -> tuple[list[Problem], list[Problem], list[dict[str, Any]]]:
    """Check what needs several rooms: tools exist and are well made, routes have prices, bounds are enforced.

    Returns:
        Errors, warnings, and per route `{alias, provider, model, base_url, price}`.
    """
    from midwatch.containment.policy_lint import check_policies  # noqa: PLC0415 - as below
    from midwatch.tools.lint import lint  # noqa: PLC0415 - pydantic and tool modules load late, for a fast `--help`
    from midwatch.tools.registry import Registry  # noqa: PLC0415 - as above

    env = os.environ if environ is None else environ
    found, warned = check_config(fleet)
    errors, warnings = list(found), list(warned)
    try:
        registry = Registry.of_fleet(fleet, env)
    except MidwatchError as error:
        errors += getattr(error, "problems", (Problem("tools", str(error), "tools"),))
        registry = Registry.load([], fleet.base)
    warnings += registry.notes
    for name in registry.names():
        tool = registry.get(name)
        warnings += lint(tool.contract)
    for name, agent in fleet.agents.items():
        place = fleet.where("agents", name, "tools")
        given = [tool for tool in registry.names() if any(fnmatchcase(tool, glob) for glob in agent.tools)]
        lost = [glob for glob in agent.tools if not any(fnmatchcase(tool, glob) for tool in registry.names())]
        errors += [
            Problem(place, f"no loaded tool matches `{glob}`; add its source to `tools:`", "unknown-tool")
            for glob in lost
        ]
        if len(given) > 10:
            warnings.append(
                Problem(place, f"`{name}` has {len(given)} tools; more than 10 confuse a model", "many-tools")
            )
        if (agent.limits.steps or 0) > 20:
            warnings.append(
                Problem(place, f"`{name}` may take {agent.limits.steps} steps; 20 are usually enough", "many-steps")
            )
    if isinstance(fleet.graph, ImportSpec) and all(problem.code == "not-guaranteed" for problem in errors):
        found, warned = _imported(fleet, registry)
        errors += found
        warnings += warned
    found, warned = check_policies(fleet, registry)
    errors += found
    warnings += [*warned, *_idle_grants(fleet, registry), *_peopled(fleet)]
    routes = []
    for alias in sorted(fleet.used_routes):
        route = fleet.routes[alias]
        shown, found = _priced(fleet, route, env)
        routes.append(shown)
        errors += found
    return errors, warnings, routes


def _imported(fleet: Fleet, registry: Registry) -> tuple[list[Problem], list[Problem]]:
    """Load and build an imported graph; name its parts that can act past the guards, as errors where the fleet asks for that."""
    from midwatch.graph import foreign, guards  # noqa: PLC0415 - langgraph costs a second
    from midwatch.graph.govern import Kit, NotRunning  # noqa: PLC0415 - as above

    kit = Kit(fleet, registry, NotRunning())
    try:
        graph = foreign.load(fleet, kit).compile(kit, None)
    except InvalidFleet as invalid:
        return list(invalid.problems), []
    place = fleet.where("graph", "import")
    open_ = [
        Problem(
            place,
            f"`{part.node}` is unguarded: {part.why}" if part.node else f"the graph's start is unguarded: {part.why}",
            "unguarded",
        )
        for part in guards.unguarded(graph)
    ]
    return (open_, []) if fleet.require_guarded else ([], open_)


def _idle_grants(fleet: Fleet, registry: Registry) -> Iterator[Problem]:
    """Find grants that allow nothing: no loaded tool has that name, or none of them has the argument that is bounded."""
    for index, grant in enumerate(fleet.grants):
        meant = [name for name in registry.names() if any(fnmatchcase(name, glob) for glob in grant.may)]
        for glob in grant.may:
            if not any(fnmatchcase(name, glob) for name in registry.names()):
                message = f"no loaded tool matches `{glob}`, so this grant allows nothing there; correct the name"
                yield Problem(fleet.where("grants", index, "may"), message, "idle-grant")
        for argument in grant.where:
            known = [
                name for name in meant if argument in registry.get(name).contract.input_schema.get("properties", {})
            ]
            if meant and not known:
                message = f"no tool that this grant names has an argument `{argument}`, so it allows nothing; correct the name"
                yield Problem(fleet.where("grants", index, "where"), message, "idle-grant")


def _peopled(fleet: Fleet) -> Iterator[Problem]:
    """Say how many people a rule takes: a home that does not know that many refuses the run."""
    for index, rule in enumerate(fleet.gates):
        wanted = rule.quorum + (1 if rule.four_eyes else 0)
        if wanted > 1:
            message = f"takes {wanted} people with tokens, whoever starts the run not counted; `midwatch principals add` makes them"
            yield Problem(fleet.where("gates", index), message, "needs-people")


def _priced(fleet: Fleet, route: RouteSpec, env: Mapping[str, str]) -> tuple[dict[str, Any], list[Problem]]:
    from midwatch.models.routes import dearest, route_price  # noqa: PLC0415 - the price list takes 0.2 s to load

    shown: dict[str, Any] = {
        "alias": route.alias,
        "provider": route.provider,
        "model": route.model,
        "base_url": route.base_url,
        "key": None if route.api_key_env is None else ("set" if env.get(route.api_key_env) else "missing"),
        "price": None,
    }
    try:
        price = route_price(route, at_us=time.time_ns() // 1000)
    except MidwatchError as error:
        return shown, [Problem(fleet.where("routes", route.target), str(error), "unpriced")]
    shown["price"] = {
        "input_per_mtok": price.input,
        "cached_input_per_mtok": price.cached_input,
        "output_per_mtok": price.output,
        "version": price.version,
    }
    place = fleet.where("routes", route.target)
    return shown, [Problem(place, text, "route-policy") for text in offences(fleet.route_policy, route, dearest(price))]
