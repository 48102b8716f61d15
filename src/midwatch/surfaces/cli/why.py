"""Why: `midwatch why EVENT`: what led to an event, step by step, back to the request.

In:   an event's name. Out: chains, one line a step; JSON of the same.
May import: tracing and the wiring when it runs. Must not know: how edges come to be.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import click

from midwatch.surfaces.cli.common import Settings, block, command_options, emit, moment, store_of
from midwatch.surfaces.cli.pointing import NAMES, event_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from midwatch.records.edge import Edge
    from midwatch.tracing.causes import Step, Why

__all__ = ["line_of", "why"]

_EDGES: Final = {
    "dispatch": "was sent by the plan",
    "handoff": "was handed that",
    "gate": "under a person's yes",
    "read": "read",
    "executed": "executed",
    "changed": "changed",
    "may-read": "read, perhaps as it was left then:",
    "may-execute": "executed, perhaps as it was left then:",
    "released": "released that",
    "ended": "gave that out",
}


@click.command(short_help="Show what led to an event, back to the request.", help=f"Show what led to EVENT. {NAMES}")
@click.argument("event")
@click.argument("text", required=False)
@command_options
@click.pass_obj
def why(settings: Settings, event: str, text: str | None) -> None:
    """Show the chains of causes that end in the event; the shortest first."""
    from midwatch.tracing import causes
    from midwatch.tracing.facts import as_json

    with store_of(settings) as store:
        found = causes.why(store, event_of(store, event, text, first=False))
    if settings.json:
        emit({"ok": True, **as_json(found)})
        return
    click.echo(block(_lines(found)))


def _lines(found: Why) -> Iterator[str]:
    from midwatch.tracing.causes import FIRST

    for chain in found.chains:
        for place, step in enumerate(chain.steps):
            if chain.left_out and place == FIRST:
                yield f"  … {chain.left_out:,} steps"
            yield line_of(step)
        yield ""
    if not found.chains:
        yield line_of(found.event)
        yield ""
    if found.people:
        yield from ("on the way", *(line_of(step) for step in found.people), "")
    if found.quarantined is not None:
        yield f"quarantined  by event {found.quarantined}"
    shown, all_of_them = len(found.chains), found.beginnings
    many = f"{found.causes:,}" if found.complete else f"more than {found.causes:,}"
    word = "chain" if all_of_them == 1 else "chains"
    ways = (
        f"no {word}" if not shown else f"{shown} {word}" if shown == all_of_them else f"{shown} of {all_of_them} {word}"
    )
    yield f"{many} events led to it; {ways} shown, the shortest from each beginning"


def line_of(step: Step) -> str:
    """Write one step: when, who, where, how it came from the step before, what, which event."""
    where = step.node or "run"
    return f"{moment(step.at_us)}  {step.agent or '-':<10}  {where:<16}  {step.what}{_how(step.edge)}  [{_ids(step)}]"


def _how(edge: Edge | None) -> str:
    word = None if edge is None else _EDGES.get(edge.kind)
    if edge is None or word is None:
        return ""
    return f" ({word}{'' if edge.note is None else f' {edge.note}'})"


def _ids(step: Step) -> str:
    names: Sequence[str] = (str(step.seq),) if step.id == str(step.seq) else (str(step.seq), step.id)
    return ", ".join(names) + ("" if step.run is None else f", run {step.run[:7]}")
