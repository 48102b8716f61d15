"""Handles: `midwatch handles RUN [HANDLE]`: what agents were given behind handles, and with `--values` what they hold.

In:   a run, a handle or the beginning of one. Out: a line for each; JSON of the same.
May import: the engine's view of handles when it runs. Must not know: how handles are made or opened.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import click

from midwatch.surfaces.cli.common import Settings, block, command_options, emit, find_run, store_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from midwatch.engine.handles_shown import ShownHandle

__all__ = ["handles"]


@click.command(short_help="Show what agents were given behind handles.")
@click.argument("run")
@click.argument("handle", required=False)
@click.option("--values", is_flag=True, help="Show what they hold, too: a stranger's words.")
@command_options
@click.pass_obj
def handles(settings: Settings, run: str, handle: str | None, *, values: bool) -> None:
    """Show the handles that RUN gave to its agents: of which call and field, whose words. HANDLE may be the beginning of one.

    RUN may be `last`. A handle's value is shown with `--values` alone.
    """
    from midwatch.engine.handles_shown import of_run
    from midwatch.tracing.facts import as_json

    with store_of(settings) as store:
        found = of_run(store, find_run(store, run), handle, values=values)
    if settings.json:
        emit({"ok": True, "handles": [as_json(each) for each in found]})
        return
    click.echo(block(_lines(found, values=values)))


def _lines(found: tuple[ShownHandle, ...], *, values: bool) -> Iterator[str]:
    if not found:
        yield "no agent of this run was given a handle"
    for each in found:
        causes = ", ".join(each.label["causes"])
        yield f"{each.id}  event {each.event}  {each.agent}  {each.tool} {each.path or '(all)'}  {each.type}  {causes}"
        if values:
            yield f"  {json.dumps(each.value, ensure_ascii=False)}"
