"""Blast: `midwatch blast EVENT`: everything that an event led to, and what it could still reach.

In:   an event's name. Out: counts, then the nearest events; JSON of the same.
May import: tracing and the wiring when it runs. Must not know: how edges come to be.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import click

from midwatch.surfaces.cli.common import Settings, block, command_options, emit, store_of
from midwatch.surfaces.cli.pointing import NAMES, event_of
from midwatch.surfaces.cli.why import line_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from midwatch.tracing.causes import Blast

__all__ = ["blast"]

_MOST: Final = 10


@click.command(short_help="Show everything that an event led to.", help=f"Show everything that EVENT led to. {NAMES}")
@click.argument("event")
@click.argument("text", required=False)
@click.option("--limit", type=click.IntRange(0, 1000), default=20, help="Events that are listed; all are counted.")
@command_options
@click.pass_obj
def blast(settings: Settings, event: str, text: str | None, limit: int) -> None:
    """Count what followed, by kind, and list the nearest."""
    from midwatch.tracing import causes
    from midwatch.tracing.facts import as_json

    with store_of(settings) as store:
        found = causes.blast(store, event_of(store, event, text, first=True), page=limit)
    if settings.json:
        emit({"ok": True, **as_json(found)})
        return
    click.echo(block(_lines(found)))


def _lines(found: Blast) -> Iterator[str]:
    yield line_of(found.event)
    yield ""
    yield f"led to       {'' if found.complete else 'more than '}{found.total:,} events"
    yield f"  of them    {', '.join(f'{count:,} {kind}' for kind, count in found.kinds.items()) or '-'}"
    nearest = "" if found.calls_read else " (of the nearest calls)"
    yield f"runs         {_list([run[:7] for run in found.runs])}"
    yield f"agents{nearest}       {_list([f'{agent} in {run[:7]}' for run, agent in found.agents])}"
    files = list(dict.fromkeys(f"{item.path} in {item.workspace}" for item in found.files))
    yield f"committed    {_list(files)}{'; whoever reads these is reached, too' if files else ''}"
    requests = [f"{name} ({count})" if count > 1 else name for name, count in found.requests.items()]
    yield f"requests{nearest}     {_list(requests)}"
    yield f"gates        {_list(list(found.gates))}"
    if found.quarantined is not None:
        yield f"quarantined  by event {found.quarantined}"
    yield ""
    yield from (line_of(step) for step in found.page)
    if found.total > len(found.page):
        yield f"{found.total - len(found.page):,} more; `--limit` lists them"


def _list(names: Sequence[str]) -> str:
    more = f" and {len(names) - _MOST:,} more" if len(names) > _MOST else ""
    return ", ".join(names[:_MOST]) + more or "-"
