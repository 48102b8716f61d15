"""Reach: `midwatch reach AGENT` or `midwatch reach FLEET`: what could be caused, from what a fleet file declares.

In:   an agent's name, or a fleet file. Out: per agent its tools, what stops them, its way out; JSON of the same.
May import: errors; the engine's reaching and the wiring when it runs. Must not know: how influence is told.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from midwatch.surfaces.cli.common import Settings, block, command_options, emit

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from midwatch.engine.reaching import AgentReach, Reach, Stop

__all__ = ["reach"]


@click.command(short_help="Show what an agent, or the fleet, could cause.")
@click.argument("what")
@click.option("--fleet", metavar="FLEET", help="File or folder of the agent's fleet; else the current folder.")
@click.option("--preset", help="Choice of models, as `check` takes it.")
@command_options
@click.pass_obj
def reach(settings: Settings, what: str, fleet: str | None, preset: str | None) -> None:
    """Show what WHAT could cause: an agent, or every agent of a fleet file or folder. Nothing is run.

    It follows what agents hand to each other and the workspace that they share. Labels, mandates and budgets narrow it at run time.
    """
    from midwatch import wiring
    from midwatch.engine import reaching
    from midwatch.tools.registry import Registry
    from midwatch.tracing.facts import as_json

    whole = fleet is None and Path(what).exists()
    loaded, _ = wiring.load_fleet(what if whole else fleet or ".", preset=preset, environ=os.environ)
    wiring.untouched(loaded, settings.place)
    registry = Registry.of_fleet(loaded)
    found = [reaching.reach(loaded, registry, name) for name in (loaded.agents if whole else (what,))]
    if settings.json:
        emit({"ok": True, "fleet": loaded.name, "reach": [as_json(item) for item in found]})
        return
    click.echo(block(line for item in found for line in _lines(item, short=whole)))


def _lines(found: Reach, *, short: bool) -> Iterator[str]:
    """Write an agent in full, and whom it reaches: in full too, or by name where every agent is shown."""
    own, *others = found.agents
    yield from _agent(own)
    if not found.certain:
        yield "  the graph is the fleet's own: any agent is taken to reach any other"
    for other in others:
        way = ", then ".join(f"{name} by {how}" for name, how in other.path)
        if short:
            yield f"  reaches    {way}"
        else:
            yield f"  through {way}:"
            yield from (f"  {line}" for line in _agent(other))
    yield ""


def _agent(item: AgentReach) -> Iterator[str]:
    box = item.sandbox
    yield f"{item.agent} ({item.role}), seen by {item.route}"
    if item.role == "ceo":
        yield "  tools      none: it plans, and others act"
    if item.command:
        yield "  program    does anything inside its sandbox"
    for tool in item.tools:
        bounds = "; ".join(
            f"{grant}: " + ", ".join(f"{name} in {' '.join(globs) or 'nothing'}" for name, globs in where.items())
            for grant, where in tool.where.items()
        )
        yield f"  {tool.outcome:<9}  {tool.tool} ({tool.effect}, {tool.runs}){' where ' + bounds if bounds else ''}{_stops(tool.stops)}"
    if item.role == "ceo":
        return
    seen = ", ".join(box.mounts) or "nothing of the machine"
    yield f"  sandbox    {box.backend}; sees {seen}; changes leave: {box.commit}{_stops(box.stops)}"
    secrets = f"; with secrets {', '.join(box.secrets)}" if box.secrets else ""
    yield f"  way out    {'; '.join(box.egress) or 'none'}{secrets}"


def _stops(stops: Sequence[Stop]) -> str:
    told = [
        f"{'' if stop.always else 'perhaps '}{f'{stop.quorum} of ' if stop.quorum > 1 else ''}`{stop.who}` ({stop.by})"
        for stop in stops
    ]
    return f"; asks {', '.join(told)}" if told else ""
