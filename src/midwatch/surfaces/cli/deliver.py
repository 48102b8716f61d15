"""Deliver: `midwatch inbox deliver`: one pass over the messages that channels were not told yet; for cron, or by hand.

In:   a home. Out: how many were taken.
May import: errors; the engine's delivery and the wiring when it runs. Must not know: what is told.
"""

from __future__ import annotations

import dataclasses
import os

import click

from midwatch.surfaces.cli.common import Settings, command_options, emit, say, store_of

__all__ = ["deliver"]


@click.command("deliver", short_help="Send what channels were not told yet, once.")
@command_options
@click.pass_context
def deliver(ctx: click.Context) -> None:
    """Tell channels of what waits, once; the governor's process and `inbox serve` do so by themselves."""
    from midwatch import wiring
    from midwatch.engine import delivery
    from midwatch.surfaces.posting import post

    settings: Settings = ctx.obj
    with store_of(settings) as store:
        passed = delivery.deliver(store, environ=os.environ, clock=wiring.clock, post=post)
    if settings.json:
        emit({"ok": passed.failed == 0, **dataclasses.asdict(passed)})
    else:
        say(f"{passed.told} told, {passed.failed} not taken, {passed.escalated} escalated")
    ctx.exit(1 if passed.failed else 0)
