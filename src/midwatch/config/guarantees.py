"""Guarantees: what the fleet file can say and this version does not enforce. It is refused, never ignored.

In:   a `Fleet`. Out: one `Problem` for each such wish, with its line. The run raises `NotGuaranteed` with all of them.
May import: `fleet`, `specs`, errors. Must not know: who enforces what, and where.
Why in the schema at all: a file written today stays valid when the guarantee arrives, and a wish that is written down
must never be silently without effect.
"""

from __future__ import annotations

from collections.abc import Iterator

from midwatch.config.fleet import Fleet
from midwatch.config.specs import SandboxSpec
from midwatch.errors import Problem

__all__ = ["not_guaranteed"]


def not_guaranteed(fleet: Fleet) -> tuple[Problem, ...]:
    """Give every wish of the fleet that this version cannot keep, in the order of the blocks; empty when it may run."""
    return tuple(
        problem
        for found in (
            _routes(fleet),
            _agents(fleet),
            _operation(fleet),
        )
        for problem in found
    )


def _routes(fleet: Fleet) -> Iterator[Problem]:
    for alias in sorted(fleet.used_routes):
        spec = fleet.routes[alias]
        if spec.provider == "anthropic":
            # A route of the file stands under `routes`; `provider/model` stands in the preset that wrote it.
            written = fleet.source.value
            routes = written.get("routes") if isinstance(written, dict) else None
            in_file = isinstance(routes, dict) and spec.target in routes
            place = ("routes", spec.target, "provider") if in_file else ("presets", fleet.preset or "", alias)
            yield _refuse(fleet, place, f"provider `anthropic` of route `{alias}`", "choose a preset with another one")


def _agents(fleet: Fleet) -> Iterator[Problem]:
    for name, agent in fleet.agents.items():
        yield from _sandbox(fleet, ("agents", name, "sandbox", "backend"), agent.sandbox)


def _sandbox(fleet: Fleet, place: tuple[str | int, ...], sandbox: SandboxSpec | None) -> Iterator[Problem]:
    if sandbox is not None and sandbox.backend == "gvisor":
        yield _refuse(fleet, place, "the sandbox `gvisor`", "write `backend: docker` and `runtime: runsc`")


def _operation(fleet: Fleet) -> Iterator[Problem]:
    yield from _sandbox(fleet, ("sandbox", "backend"), fleet.sandbox)
    for index, schedule in enumerate(fleet.schedules):
        yield _refuse(fleet, ("schedules", index), f"the schedule `{schedule.name}`", "start runs with `midwatch run`")


def _refuse(fleet: Fleet, place: tuple[str | int, ...], what: str, help_: str) -> Problem:
    return Problem(
        fleet.where(*place), f"{what} is not enforced by this version and so is refused; {help_}", "not-guaranteed"
    )
