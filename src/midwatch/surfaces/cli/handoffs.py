"""Handoffs: `midwatch runs handoffs RUN`: what agents handed over, what was refused and why, what whoever received it used.

In:   a run. Out: a line for each item; JSON of the same.
May import: the engine's view of handoffs when it runs. Must not know: how handoffs are checked.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from midwatch.surfaces.cli.common import Settings, block, command_options, emit, find_run, store_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from midwatch.engine.handoffs_shown import Handovers

__all__ = ["handoffs"]


@click.command(short_help="Show what agents handed over, and what became of it.")
@click.argument("run")
@command_options
@click.pass_obj
def handoffs(settings: Settings, run: str) -> None:
    """Show the handoffs of RUN: each item with the events that show it and what became of it; and the answers that were refused.

    RUN may be `last`. An item was `cited` or `repeated` by whoever received it, or `ignored`.
    """
    from midwatch.engine.handoffs_shown import of_run
    from midwatch.tracing.facts import as_json

    with store_of(settings) as store:
        found = of_run(store, find_run(store, run))
    if settings.json:
        emit({"ok": True, **as_json(found)})
        return
    click.echo(block(_lines(found)))


def _lines(found: Handovers) -> Iterator[str]:
    if not found.given and not found.refused:
        yield "no agent of this run has handed anything over"
    for each in found.given:
        yield f"event {each.event}  {each.agent}  {each.status}" + (f"  hop {each.hop}" if each.hop else "")
        for item in each.items:
            shown = f" ({item.shown})" if item.shown else ""
            events = ", ".join(map(str, item.events)) or "none"
            yield f"  {item.id}  {item.field}{shown}: {item.text}"
            causes = "" if item.label is None else f"  causes: {', '.join(item.label['causes'])}"
            yield f"    {item.use}  events: {events}{causes}"
        for text in each.unmet:
            yield f"  not shown: {text}"
    for refused in found.refused:
        yield f"event {refused.event}  {refused.agent}  refused ({refused.code}), try {refused.tries}: {refused.reason}"
        for wrong in refused.items:
            why = f"; {wrong['why']}" if "why" in wrong else ""
            yield f"  {wrong['field']}[{wrong['index']}] {wrong['code']} {wrong.get('ref', '')}{why}"
    if found.given:
        yield f"items that were received: {found.consumed} used, {found.ignored} ignored"
