"""Leases: `midwatch leases ls` and `release`: which call writes to which shared resource, and a person's word that it is free.

In:   a resource. Out: a table, or one JSON object.
May import: the engine's leasing and the wiring when a command runs. Must not know: which calls need a lease.
"""

from __future__ import annotations

from dataclasses import asdict

import click

from midwatch.surfaces.cli.common import Settings, command_options, emit, moment, say, store_of
from midwatch.surfaces.cli.speaking import speaker, token_option

__all__ = ["leases"]


@click.group(short_help="See which call writes where; release it.")
def leases() -> None:
    """A call that writes outside sandboxes has its targets to itself until it ends, across runs, processes and machines."""


@leases.command(short_help="Show leases.")
@command_options
@click.pass_obj
def ls(settings: Settings) -> None:
    """Show who writes where and until when. What has run out is free for the next one, and fences whoever held it."""
    from midwatch import wiring
    from midwatch.surfaces.cli.render import table

    with store_of(settings) as store:
        rows = store.read(lambda tx: tx.leases.list())
    now = wiring.clock()
    if settings.json:
        emit({"ok": True, "leases": [{**asdict(row), "live": row.until_us > now} for row in rows]})
        return
    if not rows:
        say("nobody holds a lease")
        return
    lines = [
        (
            row.resource,
            row.agent,
            row.run[:7],
            row.tool,
            moment(row.until_us),
            "yes" if row.until_us > now else "run out",
        )
        for row in rows
    ]
    table(("resource", "agent", "run", "tool", "until", "live"), lines)


@leases.command(short_help="Release a resource.")
@click.argument("resource")
@click.option("--reason", required=True, help="Why; kept in the ledger.")
@click.option("--by", help="Who; only where people have no tokens.")
@token_option
@command_options
@click.pass_obj
def release(settings: Settings, resource: str, reason: str, by: str | None, token_file: str | None) -> None:
    """Let others write to RESOURCE, as `leases ls` shows it. A call that is still at it is fenced: it waits for a person."""
    from midwatch import wiring
    from midwatch.engine import leasing

    with store_of(settings) as store:
        who = speaker(store, token_file, by)
        rows = leasing.release(store, resource, speaker=who, reason=reason, at_us=wiring.clock())
    if settings.json:
        emit({"ok": True, "released": [asdict(row) for row in rows]})
        return
    say(f"{resource}: free ({', '.join(f'agent {row.agent} of run {row.run[:7]}' for row in rows)} held it)")
