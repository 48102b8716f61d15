"""Looking into runs: `midwatch runs diff` and `runs state`: where two runs part; what a run's state was at a moment.

In:   short ids, files of `runs export`. Out: parts that differ, or the state of each place in the graph.
May import: errors; the engine's differing and stating when a command runs. Must not know: what is compared, where state is kept.
"""

from __future__ import annotations

import json

import click

from midwatch.surfaces.cli.common import Settings, block, command_options, emit, find_run, say, store_of
from midwatch.surfaces.cli.replay import read

__all__ = ["diff", "state"]


@click.command("diff", short_help="Show where two runs part.")
@click.argument("left", metavar="RUN|FILE")
@click.argument("right", metavar="RUN|FILE")
@click.option("--limit", type=click.IntRange(1, 10_000), default=10, show_default=True, help="Parts that are shown.")
@command_options
@click.pass_context
def diff(ctx: click.Context, left: str, right: str, limit: int) -> None:
    """Show where two runs part: input, agents, what models were asked and said, calls, results, handoffs, output. Exit code 1: they do."""
    from midwatch.engine.differing import differing

    settings: Settings = ctx.obj
    found = differing(read(settings, left), read(settings, right))
    if settings.json:
        emit(
            {"ok": True, "same": not found, "parts": len(found), "differs": [item.to_json() for item in found[:limit]]}
        )
    else:
        for item in found[:limit]:
            head = f"{item.where}, {item.what} (events {item.left or '-'} and {item.right or '-'})"
            click.echo(block([head, f"  - {item.left_text or '(nothing)'}", f"  + {item.right_text or '(nothing)'}"]))
        click.echo("the same" if not found else f"{len(found):,} parts differ")
        if len(found) > limit:
            say(f"{len(found) - limit:,} more; `--limit {len(found)}` shows all")
    if found:
        ctx.exit(1)


@click.command("state", short_help="Show what a run's state was.")
@click.argument("run")
@click.option("--at", type=click.IntRange(0), metavar="STEP", help="A checkpoint's number; the newest unless given.")
@click.option("--steps", "listed", is_flag=True, help="List the checkpoints instead.")
@command_options
@click.pass_obj
def state(settings: Settings, run: str, at: int | None, listed: bool) -> None:
    """Show what each place in the graph of RUN held at a checkpoint."""
    from midwatch.engine.stating import moments, state_at

    with store_of(settings) as store:
        full = find_run(store, run)
        known = moments(store, full)
        held = [] if listed else state_at(store, full, at)
    if listed and settings.json:
        emit({"ok": True, "run": full, "steps": [item.to_json() for item in known]})
    elif listed:
        from midwatch.surfaces.cli.render import table

        rows = [
            (f"{item.number}", item.place.partition(":")[0] or "(team)", f"{item.step}", item.source) for item in known
        ]
        table(("step", "place", "superstep", "source"), rows)
    elif settings.json:
        emit({"ok": True, "run": full, "state": [item.to_json() for item in held]})
    else:
        for item in held:
            click.echo(block([f"{item.moment.place or '(team)'} at step {item.moment.number}"]))
            for name, value in item.values.items():
                click.echo(block([f"  {name}: {json.dumps(value, ensure_ascii=False, indent=2)}"]))
