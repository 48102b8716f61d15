"""Grants: `midwatch grants pending | diff | endorse | reject`: versions of our own authority that wait for a person.

In:   a version's id and digest; who speaks. Out: what waits, what it changes, what became of it.
May import: the engine's endorsing and the wiring when a command runs. Must not know: how versions are found or kept.
"""

from __future__ import annotations

import dataclasses
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from midwatch.errors import UsageProblem
from midwatch.surfaces.cli.common import Settings, block, command_options, emit, moment, plain, say, store_of
from midwatch.surfaces.cli.speaking import speaker, token_option

if TYPE_CHECKING:
    from midwatch.engine.endorsing import Answered
    from midwatch.records.authority import AuthorityRow

__all__ = ["grants"]

_SHOWN = 12


@click.group(short_help="See and answer changes of what fleets may do.")
def grants() -> None:
    """See and answer changes of what fleets may do: grants, policies, gates, budgets, prompts, tools. Until then they do not count."""


@grants.command("pending", short_help="List what waits.")
@click.argument("fleet", type=click.Path(), required=False)
@token_option
@command_options
@click.pass_obj
def pending(settings: Settings, fleet: str | None, token_file: str | None) -> None:
    """List the versions that wait for a person; with FLEET, a file, look at it first."""
    from midwatch import wiring
    from midwatch.engine import endorsing

    with store_of(settings) as store:
        place = None
        if fleet is not None:
            loaded, _ = wiring.load_fleet(fleet, environ=os.environ, home=settings.place)
            place = str(Path(loaded.path or fleet).absolute())
            wiring.look(store, loaded, speaker=speaker(store, token_file), environ=os.environ)
        found = endorsing.pending(store, place=place)
    if settings.json:
        commits = [{"gate": gate.id, "run": gate.run, "reason": gate.reason} for gate in found.commits]
        emit({"ok": True, "pending": [endorsing.to_json(row) for row in found.versions], "commits": commits})
        return
    for row in found.versions:
        click.echo(block(_lines(row)))
    for gate in found.commits:
        click.echo(
            plain(f"{gate.id[:8]}  commit of run {gate.run[:7]}: {gate.reason}; `midwatch inbox show {gate.id[:8]}`")
        )
    if not found.versions and not found.commits:
        say("nothing waits")


@grants.command("diff", short_help="Show what a version changes.")
@click.argument("version")
@command_options
@click.pass_obj
def diff(settings: Settings, version: str) -> None:
    """Show what VERSION changes against what it is to replace, and the digest by which it is endorsed."""
    from midwatch.engine import endorsing

    with store_of(settings) as store:
        row, changed = endorsing.diff(store, version)
    if settings.json:
        emit({"ok": True, **endorsing.to_json(row), "diff": changed})
        return
    click.echo(block(_lines(row)))
    click.echo(plain(changed))
    if row.state == "pending":
        say(f"midwatch grants endorse {row.id[:8]} --digest {row.digest[:_SHOWN]}")


@grants.command("endorse", short_help="Let a version count.")
@click.argument("version")
@click.option(
    "--digest", required=True, help="Of the version, as `grants diff` showed it; its first 12 digits will do."
)
@click.option("--reason", default="", help="Why; kept in the ledger.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--by", help="Who; only where people have no tokens.")
@token_option
@command_options
@click.pass_obj
def endorse(settings: Settings, /, version: str, yes: bool, **given: Any) -> None:
    """Let VERSION count from the next run on. It takes an approver whose reach covers it, and not who asked for the run that made it."""
    from midwatch import wiring
    from midwatch.engine import endorsing

    with store_of(settings) as store:
        if not yes:
            row, changed = endorsing.diff(store, version)
            _ask(settings, block([*_lines(row), *changed.splitlines()]))
        who = speaker(store, given["token_file"], given["by"])
        done = endorsing.endorse(
            store, version, digest=given["digest"], speaker=who, reason=given["reason"], at_us=wiring.clock()
        )
    _tell(settings, done)


@grants.command("reject", short_help="Let a version not count, for good.")
@click.argument("version")
@click.option("--reason", default="", help="Why; kept in the ledger.")
@click.option("--by", help="Who; only where people have no tokens.")
@token_option
@command_options
@click.pass_obj
def reject(settings: Settings, version: str, reason: str, by: str | None, token_file: str | None) -> None:
    """Say that VERSION shall not count. What was endorsed stays; the file is left as it is."""
    from midwatch import wiring
    from midwatch.engine import endorsing

    with store_of(settings) as store:
        who = speaker(store, token_file, by)
        done = endorsing.reject(store, version, speaker=who, reason=reason, at_us=wiring.clock())
    _tell(settings, done)


def _lines(row: AuthorityRow) -> list[str]:
    from midwatch.engine import endorsing

    facts = endorsing.to_json(row)
    gone = " (gone)" if facts["gone"] else ""
    return [
        f"{row.id[:8]}  {row.kind}/{row.name}{gone}  {row.state}  {moment(row.at_us)}",
        f"  fleet    {row.fleet}: {row.place}",
        f"  digest   {row.digest[:_SHOWN]}, instead of {row.predecessor[:_SHOWN] if row.predecessor else 'nothing'}",
        f"  because  {row.why}",
        f"  causes   {', '.join(facts['label']['causes'])}",
    ]


def _ask(settings: Settings, shown: str) -> None:
    if settings.json or not sys.stdin.isatty():
        raise UsageProblem(
            "say `--yes` to endorse it without being asked; `midwatch grants diff` shows what it changes"
        )
    click.echo(shown)
    try:
        agreed = click.confirm("let this count?", err=True)
    except click.Abort:
        agreed = False
        click.echo("", err=True)
    if not agreed:
        raise UsageProblem("nothing was endorsed")


def _tell(settings: Settings, done: Answered) -> None:
    if settings.json:
        emit({"ok": True, **dataclasses.asdict(done)})
        return
    click.echo(plain(f"{done.kind}/{done.name} ({done.version[:8]}) is {done.state}, event {done.event}"))
