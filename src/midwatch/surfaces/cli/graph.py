"""Graph: `midwatch graph FLEET`: the fleet's graph as text, JSON, Mermaid or SVG, made on this machine alone.

In:   a fleet file or its folder. Out: a listing on stdout; or Mermaid text; or an SVG file.
May import: errors; the graph's drawing and the wiring when the command runs. Must not know: how it is laid out.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from midwatch.errors import UsageProblem
from midwatch.surfaces.cli.common import Settings, block, command_options, emit, say

if TYPE_CHECKING:
    from midwatch.graph.draw import Drawing

__all__ = ["graph"]


@click.command("graph", short_help="Draw a fleet's graph, offline.")
@click.argument("fleet", type=click.Path())
@click.option(
    "--svg", "picture", metavar="FILE", help="Write a picture; `-` is stdout. Only another picture is overwritten."
)
@click.option("--mermaid", "flow", is_flag=True, help="Print it as a Mermaid flow chart.")
@click.option("--preset", help="Choice of models; else MIDWATCH_PRESET, else what fits the environment.")
@command_options
@click.pass_obj
def graph(settings: Settings, fleet: str, picture: str | None, flow: bool, preset: str | None) -> None:
    """Draw the graph of FLEET: nodes, roles, routes, tools, who must say yes, what is unguarded. No web service, no run."""
    from midwatch import wiring
    from midwatch.graph import paint
    from midwatch.graph.draw import drawing
    from midwatch.tools.registry import Registry

    if picture is not None and flow:
        raise UsageProblem("give `--svg` or `--mermaid`, not both")
    loaded, _ = wiring.load_fleet(fleet, preset=preset, environ=os.environ)
    wiring.untouched(loaded, settings.place)
    drawn = drawing(loaded, Registry.of_fleet(loaded))
    if picture == "-":
        click.echo(paint.svg(drawn), nl=False)
    elif picture is not None:
        _write(Path(picture), paint.svg(drawn))
        if settings.json:
            emit({"ok": True, "file": picture, **drawn.to_json()})
        else:
            say(f"{len(drawn.nodes)} nodes, {len(drawn.edges)} edges in `{picture}`")
    elif flow:
        click.echo(paint.mermaid(drawn), nl=False)
    elif settings.json:
        emit({"ok": True, **drawn.to_json()})
    else:
        _list(drawn)


def _write(place: Path, text: str) -> None:
    try:
        if place.exists() and not place.read_bytes().startswith(b"<svg "):
            raise UsageProblem(f"`{place}` is there and is no picture; name another file")
        place.write_text(text)
    except OSError as error:
        raise UsageProblem(f"`{place}` cannot be written: {error.strerror}") from error


def _list(drawn: Drawing) -> None:
    for node in drawn.nodes:
        out = [f"{edge.target}{'?' if edge.conditional else ''}" for edge in drawn.edges if edge.source == node.id]
        told = [*node.detail, *(f"gate: {who}" for who in node.gates)]
        lines = [f"{node.id}{' → ' + ', '.join(out) if out else ''}", *(f"  {line}" for line in told)]
        click.echo(block([*lines, *([f"  unguarded: {node.unguarded}"] if node.unguarded else [])]))
