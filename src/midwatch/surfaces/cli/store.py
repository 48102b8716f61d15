"""Store: `midwatch store copy`: take a home's records from its file to a Postgres server.

In:   the home, an address. Out: what was copied, and the head that both chains end in.
May import: the wiring when it runs. Must not know: how a store is written.
"""

from __future__ import annotations

import click

from midwatch.surfaces.cli.common import Settings, command_options, emit, plain, say

__all__ = ["store"]


@click.group(short_help="Where a home's records are; copy them to a server.")
def store() -> None:
    """Where a home's records are: in a file of it, or on a server."""


@store.command("copy", short_help="Copy the home's file to an empty Postgres store.")
@click.option(
    "--to", "url", required=True, metavar="URL", help="`postgresql://user@host/database`, without a password."
)
@command_options
@click.pass_obj
def copy_to(settings: Settings, url: str) -> None:
    """Copy every record, and check the chain on both sides; all or nothing. The file stays as it is."""
    from midwatch import wiring

    report = wiring.copy_store(settings.place, url)
    if settings.json:
        emit({"ok": True, "events": report.events, "head": report.head})
        return
    click.echo(plain(f"ok: {report.events:,} events copied, head {report.head}"))
    say(
        f"next: move `{settings.place / wiring.DATABASE}` away and set MIDWATCH_STORE; docs/how-to/move-a-home-to-postgres.md"
    )
