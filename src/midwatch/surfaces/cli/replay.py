"""Replay: `midwatch replay RUN|FILE`: the agents of a recorded run once more, on what was recorded; the first difference, if there is one.

In:   a short id, or a file that `runs export` wrote. Out: identical (exit code 0), or the first difference (1).
May import: errors; the engine's replaying and the wiring when the command runs. Must not know: what is compared, or how.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from midwatch.errors import UsageProblem
from midwatch.surfaces.cli.common import Settings, block, command_options, emit, find_run, say, store_of

if TYPE_CHECKING:
    from midwatch.engine.replaying import Replayed
    from midwatch.tracing.recording import Recording

__all__ = ["read", "replay"]


@click.command("replay", short_help="Take a run's agents through what was recorded; compare every byte.")
@click.argument("run", metavar="RUN|FILE")
@click.option(
    "--seed", type=click.IntRange(0), default=0, show_default=True, help="Another order in which answers come back."
)
@click.option(
    "--policy",
    metavar="FLEET",
    help="Judge the recorded calls by this fleet instead; says which verdicts would change.",
)
@command_options
@click.pass_context
def replay(ctx: click.Context, run: str, seed: int, policy: str | None) -> None:
    """Take the agents of RUN, or of a FILE that `runs export` wrote, through their graph again.

    Models, tools, programs and the clock answer from the record: nothing is performed, no model is called, no sandbox is started.
    Exit code 0: every byte is the same. 1: the first difference is shown, with both sides.
    """
    settings: Settings = ctx.obj
    if policy is not None:
        if Path(run).is_file():
            raise UsageProblem("verdicts are judged in the home that has the run; `--policy` takes a RUN, not a file")
        from midwatch.surfaces.cli.policy_simulate import simulate

        ctx.invoke(simulate, fleet=policy, runs=(run,), since=None, limit=1)
        return
    from midwatch.engine.replaying import replay as replayed

    found = replayed(read(settings, run), seed=seed)
    if settings.json:
        emit({"ok": found.identical, **found.to_json()})
    else:
        _show(found)
    if not found.identical:
        ctx.exit(1)


def read(settings: Settings, run: str) -> Recording:
    """Read a run out of a file, where there is one of that name, else out of the home."""
    place = Path(run)
    if place.is_file() or os.sep in run:
        from midwatch.tracing.export import read_archive

        return read_archive(place)
    from midwatch.tracing.recording import read_run

    with store_of(settings) as store:
        return read_run(store, find_run(store, run))


def _show(found: Replayed) -> None:
    first = found.difference
    if first is None:
        click.echo(f"identical: {found.steps:,} steps, {found.compared:,} parts compared, stream {found.stream[:12]}")
    else:
        where = f"{first.node}, step {first.step}, " if first.node else ""
        click.echo(block([f"diverged at event {first.event}: {where}{first.what}"]))
        if first.what == "record":
            click.echo(block([f"  {first.recorded}"]))
        else:
            click.echo(
                block([f"  recorded: {first.recorded or '(nothing)'}", f"  replayed: {first.replayed or '(nothing)'}"])
            )
    for note in found.notes:
        say(note)
