"""Simulate: `midwatch policy simulate FLEET`: what a changed fleet would have said to the calls of recorded runs.

In:   a fleet, runs of the home. Out: every verdict that differs, with its chain; exit code 1 when one does.
May import: errors; the engine's simulating and the wiring when the command runs. Must not know: how a verdict is reached.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import click

from midwatch.errors import UsageProblem
from midwatch.surfaces.cli.common import Settings, block, command_options, emit, find_run, say, store_of

if TYPE_CHECKING:
    from midwatch.containment.simulate import Compared
    from midwatch.records.run import RunRow
    from midwatch.store.port import Store

__all__ = ["simulate"]

_MOST = 1000


@click.command("simulate", short_help="Judge recorded calls under a changed fleet.")
@click.argument("fleet", type=click.Path())
@click.option(
    "--run",
    "runs",
    multiple=True,
    metavar="RUN",
    help="A run; may be given more than once. Else runs of a fleet of that name.",
)
@click.option("--since", metavar="SPAN", help="Runs that began within this time, such as `24h` or `7d`.")
@click.option(
    "--limit", type=click.IntRange(1, _MOST), default=100, show_default=True, help="Newest runs that are looked at."
)
@command_options
@click.pass_context
def simulate(ctx: click.Context, fleet: str, runs: tuple[str, ...], since: str | None, limit: int) -> None:
    """Judge the calls of recorded runs again, by FLEET; exit code 1 when a verdict differs. Nothing is run, and nothing is written."""
    from midwatch import wiring
    from midwatch.engine.simulating import simulate_runs
    from midwatch.tools.registry import Registry

    settings: Settings = ctx.obj
    if runs and since:
        raise UsageProblem("name runs with `--run`, or a time with `--since`, not both")
    loaded, _ = wiring.load_fleet(fleet, environ=os.environ)
    wiring.untouched(loaded, settings.place)
    registry = Registry.of_fleet(loaded)
    with store_of(settings) as store:
        rows = _chosen(store, loaded.name, runs, since, limit, wiring.clock())
        found = simulate_runs(store, loaded, registry, rows, environ=os.environ)
    if settings.json:
        told = {
            "differing": [each.to_json() for each in found.differing],
            "unclear": [each.to_json() for each in found.unclear],
        }
        emit({"ok": not found.differing, "runs": found.runs, "judged": found.judged, **told})
    else:
        for each in found.differing:
            click.echo(block(_lines(each)))
        said = f"{found.runs} runs, {found.judged} calls judged, {len(found.differing)} differ"
        click.echo(f"{said}, {len(found.unclear)} cannot be judged again")
        for why, count in _reasons(found.unclear):
            say(f"not judged again, {count}: {why}")
    if found.differing:
        ctx.exit(1)


def _chosen(store: Store, name: str, runs: tuple[str, ...], since: str | None, limit: int, now: int) -> list[RunRow]:
    from midwatch.config.quantities import parse_duration

    if runs:
        full = dict.fromkeys(find_run(store, prefix) for prefix in runs)
        named = store.read(lambda tx: [tx.runs.get(run) for run in full])
        return [row for row in named if row is not None]
    try:
        first = 0 if since is None else now - parse_duration(since)
    except ValueError as fault:
        raise UsageProblem(f"`--since {since}` is no time; write it as `24h` or `7d`") from fault
    found: list[RunRow] = []
    before: int | None = None
    while len(found) < limit:
        page = store.read(lambda tx, before=before: tx.runs.list(limit=_MOST, before_us=before))  # type: ignore[misc]
        found += [row for row in page if row.fleet == name and row.created_us >= first]
        if len(page) < _MOST or page[-1].created_us < first:
            break
        before = page[-1].created_us
    return found[:limit]


def _lines(each: Compared) -> list[str]:
    call = each.call
    lines = [
        f"run {call.run[:7]} event {call.decided}: {call.agent} {call.tool}: was {call.word}, now {each.now} (by {each.by})"
    ]
    lines += [f"  {each.why}"] if each.why else []
    return lines + [f"  lacks: {lack.where} ({lack.role}): {lack.cause or '-'}" for lack in each.chain]


def _reasons(unclear: tuple[Compared, ...]) -> list[tuple[str, int]]:
    counts: dict[str, int] = {}
    for each in unclear:
        counts[each.why] = counts.get(each.why, 0) + 1
    return sorted(counts.items(), key=lambda item: (-item[1], item[0]))
