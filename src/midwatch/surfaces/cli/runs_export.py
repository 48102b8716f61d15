"""Export: `midwatch runs export RUN -o FILE`: one run as one file, for another machine to check and to replay.

In:   a short id, a file's name. Out: the file, readable by its owner alone; its SHA-256.
May import: tracing when the command runs. Must not know: what the file looks like inside.
"""

from __future__ import annotations

from pathlib import Path

import click

from midwatch.surfaces.cli.common import Settings, command_options, emit, find_run, say, store_of

__all__ = ["export"]


@click.command("export", short_help="Write a run to one file.")
@click.argument("run")
@click.option(
    "-o", "--output", required=True, metavar="FILE", help="A new file; one that is there is never overwritten."
)
@command_options
@click.pass_obj
def export(settings: Settings, run: str, output: str) -> None:
    """Write RUN to FILE: its events, every body that they name, what its agents were. RUN may be `last`.

    The file holds what the run's prompts and results hold, credentials replaced as everywhere; `midwatch replay FILE` reads it anywhere.
    """
    from midwatch.tracing.export import write_archive
    from midwatch.tracing.recording import read_run

    with store_of(settings) as store:
        recording = read_run(store, find_run(store, run))
    digest = write_archive(recording, Path(output))
    if settings.json:
        emit({"ok": True, "run": recording.run, "file": output, "sha256": digest, "events": len(recording.events)})
        return
    click.echo(digest)
    say(
        f"run {recording.run[:7]}: {len(recording.events):,} events, {len(recording.blobs):,} bodies in `{output}`; above is its SHA-256"
    )
