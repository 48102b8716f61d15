"""Undo: `midwatch undo RUN`: takes back what a run did, as far as its tools say how.

In:   a short id. Out: one line an effect, newest first; exit code 0 when nothing is left, 3 in doubt, 1 else.
May import: errors; the wiring when it runs. Must not know: how a compensation is made.
"""

from __future__ import annotations

import dataclasses
import sys
from typing import TYPE_CHECKING, Final

import click

from midwatch.errors import UsageProblem
from midwatch.surfaces.cli.common import Settings, command_options, emit, find_run, say, store_of
from midwatch.surfaces.cli.speaking import token_option

if TYPE_CHECKING:
    from collections.abc import Sequence

    from midwatch.engine.undo import Undone

__all__ = ["undo"]

_WORDS: Final = {
    "planned": "would be undone by",
    "undone": "undone by",
    "already": "nothing to do",
    "cannot": "cannot be undone",
    "changed": "cannot be undone",
    "failed": "failed",
    "in_doubt": "in doubt",
}


@click.command(short_help="Take back what a run did, as far as its tools say how.")
@click.argument("run")
@click.option("--dry-run", is_flag=True, help="Only say what would be done.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--workdir", metavar="DIR", help="What tools may see; else where the run was started.")
@token_option
@command_options
@click.pass_context
def undo(ctx: click.Context, run: str, dry_run: bool, yes: bool, workdir: str | None, token_file: str | None) -> None:
    """Take back what RUN did, newest first. It stops at the first failure, since what came before may build on it."""
    from midwatch.surfaces.cli.cards import kernel_of

    settings: Settings = ctx.obj
    with store_of(settings) as store:
        full = find_run(store, run)
    with kernel_of(settings, full, token_file, workdir=workdir) as kernel:
        told: Sequence[Undone] = kernel.plan_undo(full)
        ready = [item for item in told if item.outcome == "planned"]
        if not dry_run and ready:
            _ask(settings, told, yes=yes)
            told = kernel.undo(full)
    staged = 0
    if any(item.outcome == "undone" for item in told):
        from midwatch.surfaces.effects_facts import still_staged

        with store_of(settings) as store:
            staged = still_staged(store, full)
    if settings.json:
        emit(
            {
                "ok": _code(told) == 0,
                "staged": staged,
                "run": full,
                "effects": [dataclasses.asdict(item) for item in told],
            }
        )
    else:
        _show(told)
        if staged:
            say(f"what that changed is staged: `midwatch effects commit {full[:7]}` writes it to the workspace")
    ctx.exit(0 if dry_run else _code(told))


def _ask(settings: Settings, told: Sequence[Undone], *, yes: bool) -> None:
    if yes:
        return
    if settings.json or not _terminal():
        raise UsageProblem("say `--yes` to undo without being asked, or `--dry-run` to see what would be done")
    _show(told)
    try:
        agreed = click.confirm("undo this?", err=True)
    except click.Abort:
        agreed = False
        click.echo("", err=True)
    if not agreed:
        raise UsageProblem("nothing was undone")


def _terminal() -> bool:
    return sys.stdin.isatty()


def _show(told: Sequence[Undone]) -> None:
    if not told:
        say("the run changed nothing that is on record")
    for item in told:
        how = f" {item.by}" if item.by and item.outcome in ("planned", "undone") else ""
        detail = f" ({item.detail})" if item.detail else ""
        click.echo(f"{item.effect}  {item.tool}: {_WORDS[item.outcome]}{how}{detail}")


def _code(told: Sequence[Undone]) -> int:
    outcomes = {item.outcome for item in told}
    if "in_doubt" in outcomes:
        return 3
    return 1 if outcomes & {"cannot", "changed", "failed", "planned"} else 0
