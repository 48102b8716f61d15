"""Check: `midwatch check FLEET`: every problem of a fleet at once, and where its routes lead.

In:   a fleet file or its folder. Out: routes with prices, warnings, errors; exit code 2 on errors.
May import: errors; the wiring when it runs. Must not know: what makes a fleet right.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import click

from midwatch.errors import Problem
from midwatch.surfaces.cli.common import Settings, command_options, emit, money, say

__all__ = ["check"]


@click.command(short_help="Check a fleet file; every problem at once.")
@click.argument("fleet", type=click.Path())
@click.option("--preset", help="Choice of models; else MIDWATCH_PRESET, else what fits the environment.")
@command_options
@click.pass_context
def check(ctx: click.Context, fleet: str, preset: str | None) -> None:
    """Check FLEET, a file or a folder with fleet.yaml: nothing is run, no model is asked, no home is made."""
    from midwatch import wiring

    settings: Settings = ctx.obj
    loaded, info = wiring.load_fleet(fleet, preset=preset, environ=os.environ)
    wiring.untouched(loaded, settings.place)
    errors, warnings, routes = wiring.check_fleet(loaded, os.environ)
    if settings.json:
        body = {"ok": not errors, "fleet": loaded.name, "digest": loaded.digest, "preset": loaded.preset, "info": info}
        emit(body | {"routes": routes, "errors": _json(errors), "warnings": _json(warnings)})
    else:
        _show(loaded.name, loaded.digest, info, routes, warnings, errors)
    if errors:
        ctx.exit(2)


def _show(
    name: str,
    digest: str,
    info: str,
    routes: Sequence[dict[str, Any]],
    warnings: Sequence[Problem],
    errors: Sequence[Problem],
) -> None:
    from midwatch.surfaces.cli.render import table

    say(info)
    lines = [
        (
            route["alias"],
            f"{route['provider']}/{route['model']}",
            route.get("base_url") or "-",
            _price(route.get("price")),
        )
        for route in routes
    ]
    table(("route", "model", "server", "price per million tokens"), lines)
    for warning in warnings:
        say(f"warning: {warning}")
    for error in errors:
        say(f"error: {error}")
    verdict = "cannot run" if errors else "ok"
    click.echo(f"{name}: {verdict}, {len(errors)} errors, {len(warnings)} warnings, digest {digest[:12]}")


def _price(price: dict[str, Any] | None) -> str:
    if price is None:
        return "none"
    parts = [f"{word} {money(price[key])}" for word, key in _PRICES if price.get(key) is not None]
    return f"{', '.join(parts)} ({price.get('version', '-')})"


_PRICES = (("in", "input_per_mtok"), ("cached", "cached_input_per_mtok"), ("out", "output_per_mtok"))


def _json(problems: Sequence[Problem]) -> list[dict[str, str]]:
    return [{"where": item.where, "message": item.message, "code": item.code} for item in problems]
