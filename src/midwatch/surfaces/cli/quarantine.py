"""Quarantine: `midwatch quarantine EVENT --reason …`: stops what follows from an event; `--lift` lets it go on.

In:   an event's name, a reason, who speaks. Out: what was marked.
May import: the engine's quarantine and the wiring when it runs. Must not know: how marks are kept.
"""

from __future__ import annotations

import dataclasses

import click

from midwatch.surfaces.cli.common import Settings, command_options, emit, store_of
from midwatch.surfaces.cli.pointing import NAMES, event_of
from midwatch.surfaces.cli.speaking import speaker, token_option

__all__ = ["quarantine"]


@click.command(
    short_help="Stop what follows from an event; or lift that again.",
    help="Stop whatever follows from EVENT: calls of models and tools, commits, in every run, until somebody else lifts it. "
    f"It takes an operator. {NAMES}",
)
@click.argument("event")
@click.argument("text", required=False)
@click.option("--reason", default="", help="Why; kept in the ledger.")
@click.option("--lift", is_flag=True, help="Let it go on; not for whoever quarantined it.")
@click.option("--by", help="Who; only where people have no tokens.")
@token_option
@command_options
@click.pass_obj
def quarantine(
    settings: Settings,
    event: str,
    text: str | None,
    reason: str,
    lift: bool,
    by: str | None,
    token_file: str | None,
) -> None:
    """Mark an event and all that it led to, or take the marks back."""
    from midwatch import wiring
    from midwatch.engine import quarantine as orders

    order = orders.lift if lift else orders.quarantine
    with store_of(settings) as store:
        seq = event_of(store, event, text, first=True)
        who = speaker(store, token_file, by)
        done = order(store, seq, speaker=who, reason=reason, at_us=wiring.clock())
    if settings.json:
        emit({"ok": True, **dataclasses.asdict(done)})
        return
    if done.already:
        click.echo(f"event {done.event} is quarantined already, by event {done.by}")
        return
    word = "may go on" if lift else "quarantined"
    click.echo(f"event {done.event} {word}: {done.marked:,} events {'are no longer marked' if lift else 'are marked'}")
    if not lift:
        click.echo(f"see what they are: midwatch blast {done.event}", err=True)
