"""Completion: `midwatch completion SHELL`: the script that teaches a shell our commands.

In:   the name of a shell. Out: its script on stdout.
May import: click. Must not know: any command.
"""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

from midwatch.errors import UsageProblem
from midwatch.surfaces.cli.common import Settings, command_options, emit

__all__ = ["completion"]


@click.command(short_help="Print the completion script of a shell.")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@command_options
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """Print the completion script of SHELL; for bash: eval "$(midwatch completion bash)"."""
    settings: Settings = ctx.obj
    kind = get_completion_class(shell)
    if kind is None:
        raise UsageProblem(f"there is no completion for `{shell}`; use bash, zsh or fish")
    script = kind(ctx.find_root().command, {}, "midwatch", "_MIDWATCH_COMPLETE").source()
    if settings.json:
        emit({"ok": True, "shell": shell, "script": script})
    else:
        click.echo(script)
