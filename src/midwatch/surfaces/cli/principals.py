"""Principals: `midwatch principals add | ls | set | disable | enable | rotate`: who may speak in this home.

In:   names, roles, globs. Out: tables; a token once, on stdout.
May import: errors; the engine's people and the wiring when a command runs. Must not know: what a role allows.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from midwatch.surfaces.cli.common import Settings, command_options, emit, moment, say, store_of
from midwatch.surfaces.cli.speaking import speaker, token_option

if TYPE_CHECKING:
    from midwatch.records.principal import Principal

__all__ = ["principals"]


@click.group(short_help="Who may speak in this home.")
def principals() -> None:
    """Who may speak in this home. As soon as there is one, nobody speaks without a token."""


@principals.command("add", short_help="Add a person; prints their token once.")
@click.argument("name")
@click.option(
    "--role", "roles", multiple=True, required=True, help="viewer, operator, approver, admin, or your own word."
)
@click.option("--may", multiple=True, metavar="GLOB", help="Tools that they may say yes to; all unless given.")
@token_option
@command_options
@click.pass_obj
def add(settings: Settings, name: str, roles: tuple[str, ...], may: tuple[str, ...], token_file: str | None) -> None:
    """Add NAME. The first one must be an admin; later ones take an admin's token."""
    from midwatch import wiring
    from midwatch.engine import people

    with wiring.open_store(settings.place, create=True) as store:
        who = speaker(store, token_file)
        row, token = people.add(store, name, roles=roles, may=may or ("*",), speaker=who, at_us=wiring.clock())
    _told(settings, row, "added", token)


@principals.command("ls", short_help="List people.")
@command_options
@click.pass_obj
def list_people(settings: Settings) -> None:
    """List people with their roles and reach; tokens are kept only as hashes."""
    with store_of(settings) as store:
        rows = store.read(lambda tx: tx.principals.list())
    if settings.json:
        emit({"ok": True, "principals": [_facts(row) for row in rows]})
        return
    if not rows:
        click.echo("this home knows nobody by token: whoever works on the machine speaks for it", err=True)
        return
    from midwatch.surfaces.cli.render import table

    table(
        ("name", "roles", "may", "since", "status"),
        [
            (row.name, row.roles, row.may, moment(row.created_us), "enabled" if row.disabled_us is None else "disabled")
            for row in rows
        ],
    )


@principals.command("set", short_help="Change roles or reach.")
@click.argument("name")
@click.option("--role", "roles", multiple=True, help="All roles they have from now on.")
@click.option("--may", multiple=True, metavar="GLOB", help="Tools that they may say yes to.")
@token_option
@command_options
@click.pass_obj
def change(settings: Settings, name: str, roles: tuple[str, ...], may: tuple[str, ...], token_file: str | None) -> None:
    """Give NAME other roles, or another reach."""
    from midwatch import wiring
    from midwatch.engine import people

    with store_of(settings) as store:
        who = speaker(store, token_file)
        row = people.change(store, name, roles=roles, may=may, speaker=who, at_us=wiring.clock())
    _told(settings, row, "changed")


def _simple(word: str, help_: str) -> click.Command:
    @principals.command(word, short_help=help_)
    @click.argument("name")
    @token_option
    @command_options
    @click.pass_obj
    def command(settings: Settings, name: str, token_file: str | None) -> None:
        from midwatch import wiring
        from midwatch.engine import people

        token = None
        with store_of(settings) as store:
            who, now = speaker(store, token_file), wiring.clock()
            if word == "rotate":
                row, token = people.rotate(store, name, speaker=who, at_us=now)
            else:
                order = people.disable if word == "disable" else people.enable
                row = order(store, name, speaker=who, at_us=now)
        _told(settings, row, f"{word}d", token)

    command.help = help_
    return command


disable = _simple("disable", "Take every right from NAME, at once.")
enable = _simple("enable", "Give NAME their rights back.")
rotate = _simple("rotate", "Give NAME a new token; the old one is worthless at once.")


def _facts(row: Principal) -> dict[str, Any]:
    return {
        "name": row.name,
        "roles": row.roles.split(","),
        "may": row.may.split(","),
        "created_us": row.created_us,
        "created_by": row.created_by,
        "disabled_us": row.disabled_us,
    }


def _told(settings: Settings, row: Principal, word: str, token: str | None = None) -> None:
    if settings.json:
        emit({"ok": True, **_facts(row), **({} if token is None else {"token": token})})
        return
    say(f"{row.name}: {word}; roles {row.roles}; may say yes to {row.may}")
    if token is not None:
        say("their token, shown this once (MIDWATCH_TOKEN, or a file for --token-file):")
        click.echo(token)
