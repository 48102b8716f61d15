"""Routes: `midwatch routes audit FLEET`: where each alias leads and what it costs, dearest first; exit code 1 on drift.

In:   a fleet file or its folder; the home, if there is one. Out: a line for each alias; JSON of the same.
May import: errors; the wiring and the engine's view of routes when it runs. Must not know: how prices are found.
"""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

import click

from midwatch.errors import NotFound
from midwatch.surfaces.cli.common import Settings, command_options, emit, money, say, store_of

if TYPE_CHECKING:
    from midwatch.engine.routes_shown import RouteRow

__all__ = ["routes"]


@click.group(short_help="See where routes lead, and what they cost.")
def routes() -> None:
    """See where a fleet's routes lead, and what they cost. No model is asked."""


@routes.command("audit", short_help="Resolve and price every route; find drift.")
@click.argument("fleet", type=click.Path(), default=".")
@click.option("--preset", help="Choice of models; else MIDWATCH_PRESET, else what fits the environment.")
@command_options
@click.pass_context
def audit(ctx: click.Context, fleet: str, preset: str | None) -> None:
    """Resolve and price every alias of FLEET, dearest first.

    Exit code 1 where a route that the fleet uses has no price, is not what `route_policy` allows, or leads elsewhere than in the last run
    of this fleet under the same preset. Routes that nothing uses are shown and are no drift.
    """
    from midwatch import wiring
    from midwatch.engine.routes_shown import audit as audited
    from midwatch.tracing.facts import as_json

    settings: Settings = ctx.obj
    loaded, info = wiring.load_fleet(fleet, preset=preset, environ=os.environ)
    now = time.time_ns() // 1000
    try:
        with store_of(settings) as store:
            rows = audited(loaded, store, os.environ, at_us=now)
    except NotFound:  # no home: nothing has run yet
        rows = audited(loaded, None, os.environ, at_us=now)
    drifted = sum(len(row.drift) for row in rows if row.used)
    if settings.json:
        told = [as_json(row) for row in rows]
        emit(
            {
                "ok": not drifted,
                "fleet": loaded.name,
                "preset": loaded.preset,
                "info": info,
                "drift": drifted,
                "routes": told,
            }
        )
    else:
        say(info)
        _show(rows)
        click.echo(f"{loaded.name}: {len(rows)} routes, {drifted} drifted")
    if drifted:
        ctx.exit(1)


def _show(rows: tuple[RouteRow, ...]) -> None:
    from midwatch.surfaces.cli.render import table

    shown = [
        (
            row.alias,
            f"{row.provider}/{row.model}",
            row.base_url or "-",
            money(row.input),
            money(row.output),
            "-" if row.last is None else row.last.answered or row.last.model,
            "yes" if row.used else "no",
        )
        for row in rows
    ]
    table(("route", "model", "server", "in per million", "out per million", "last answered by", "used"), shown)
    for row in rows:
        for drift in row.drift:
            say(f"{'drift' if row.used else 'unused'}: `{row.alias}` {drift.message} ({drift.code})")
