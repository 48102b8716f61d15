"""Verify: `midwatch verify`: walk the ledger's chain, and compare it with a head noted earlier.

In:   the home. Out: what was checked; exit code 1 when anything does not fit.
May import: the wiring when it runs. Must not know: how hashes are made.
"""

from __future__ import annotations

import re

import click

from midwatch.errors import UsageProblem
from midwatch.surfaces.cli.common import Settings, command_options, emit, plain, say, store_of

__all__ = ["verify"]


@click.command(short_help="Check the ledger's chain of hashes.")
@click.option("--head", metavar="HASH", help="A head that `run` printed earlier; it must still be in the chain.")
@command_options
@click.pass_context
def verify(ctx: click.Context, head: str | None) -> None:
    """Check every event, every hash and every blob of the home. A lost tail shows only against --head."""
    settings: Settings = ctx.obj
    if head is not None and not re.fullmatch(r"[0-9a-f]{64}", head):
        raise UsageProblem("`--head` takes the whole hash, 64 hex digits, as `run` printed it")
    with store_of(settings) as store:
        report = store.read(lambda tx: tx.ledger.verify(expected_head=head))
    if settings.json:
        body = {"ok": report.ok, "events": report.events, "head": report.head, "problems": list(report.problems)}
        emit(body | {"anchored": head is not None})
    else:
        for problem in report.problems:
            say(f"midwatch: {problem}")
        click.echo(plain(f"{'ok' if report.ok else 'NOT OK'}: {report.events:,} events, head {report.head}"))
    if not report.ok:
        ctx.exit(1)
