"""Breakers: `midwatch breakers ls` and `reset`: what stopped by itself, by which numbers, and a person's word that it may go on.

In:   a name. Out: a table, or one JSON object.
May import: errors; the engine's breaking and the wiring when a command runs. Must not know: when a breaker opens.
"""

from __future__ import annotations

from dataclasses import asdict

import click

from midwatch.surfaces.cli.common import Settings, command_options, emit, moment, say, store_of
from midwatch.surfaces.cli.speaking import speaker, token_option

__all__ = ["breakers"]


@click.group(short_help="See what stopped by itself; let it go on.")
def breakers() -> None:
    """Breakers open after failures, loops and the like, and let one call try again after a while."""


@breakers.command(short_help="Show breakers.")
@click.option("--every", is_flag=True, help="Closed ones too, with what they count.")
@command_options
@click.pass_obj
def ls(settings: Settings, every: bool) -> None:
    """Show the breakers that are open or half open, and what opened each."""
    from midwatch.store.breakers import states
    from midwatch.surfaces.cli.render import table

    with store_of(settings) as store:
        rows = store.read(lambda tx: tx.breakers.all() if every else states(tx))
    if settings.json:
        emit({"ok": True, "breakers": [asdict(row) for row in rows]})
        return
    if not rows:
        say("no breaker is open")
        return
    lines = [(row.subject, row.state, moment(row.until_us or None), row.reason) for row in rows]
    table(("breaker", "state", "tries again", "why"), lines)


@breakers.command(short_help="Close a breaker.")
@click.argument("name")
@click.option("--reason", required=True, help="Why; kept in the ledger.")
@click.option("--by", help="Who; only where people have no tokens.")
@token_option
@command_options
@click.pass_obj
def reset(settings: Settings, name: str, reason: str, by: str | None, token_file: str | None) -> None:
    """Close NAME, as `breakers ls` shows it, and forget what it counted."""
    from midwatch import wiring
    from midwatch.engine import breaking

    with store_of(settings) as store:
        who = speaker(store, token_file, by)
        row = breaking.reset(store, name, speaker=who, reason=reason, at_us=wiring.clock())
    if settings.json:
        emit({"ok": True, "breaker": row.subject, "was": row.state, "state": "closed"})
        return
    say(f"{row.subject}: closed (it was {row.state})")
