"""Command line: `midwatch COMMAND`; data on stdout, all else on stderr, exit codes of DESIGN.md, section 7.

In:   arguments, the environment. Out: `main`, a click group.
May import: click, errors; each command's module when that command is asked for. Must not know: what a command does.
Why a table of commands: `midwatch --help` answers within 150 ms of processor time, so it imports none of them
(the test is `tests/unit/test_cli_group.py`).
"""

from __future__ import annotations

import difflib
import importlib
import sys
from collections.abc import Sequence
from typing import Any, Final

import click

from midwatch import __version__
from midwatch.errors import MidwatchError
from midwatch.surfaces.cli.common import Settings, report_error, report_usage

__all__ = ["COMMANDS", "main"]

COMMANDS: Final[dict[str, tuple[str, str]]] = {
    "approve": ("control:approve", "Say yes, or no, to an action that waits."),
    "blast": ("blast:blast", "Show everything that an event led to."),
    "budget": ("budget:budget", "What may be spent, and what was."),
    "cancel": ("control:cancel", "Stop a run for good."),
    "check": ("check:check", "Check a fleet file; every problem at once."),
    "completion": ("completion:completion", "Print the completion script of a shell."),
    "grants": ("grants:grants", "See and answer changes of what fleets may do."),
    "graph": ("graph:graph", "Draw a fleet's graph, offline."),
    "handles": ("handles:handles", "Show what agents were given behind handles."),
    "init": ("init:init", "Make a new fleet that runs at once."),
    "inbox": ("inbox:inbox", "See and answer what waits for a person."),
    "effects": ("effects:effects", "Show what a run was seen to do; commit or discard it."),
    "doctor": ("doctor:doctor", "Check this machine and the home."),
    "leases": ("leases:leases", "See which call writes where; release it."),
    "mandate": ("mandate:mandate", "Show what a run was allowed in advance, and what is left."),
    "breakers": ("breakers:breakers", "See what stopped by itself; let it go on."),
    "kill": ("control:kill", "Stop a run, an agent, a tool, a vertical, or all, for good."),
    "pause": ("control:pause", "Stop a run, an agent, a tool, a vertical, or all, until it is resumed."),
    "governor": ("governor:governor", "The watch outside the runs: run it, ask it."),
    "policy": ("policy:policy", "Check, explain and test what causes may bring about."),
    "principals": ("principals:principals", "Who may speak in this home."),
    "purity": ("purity:purity", "Run each recorded step twice apart; say what differs."),
    "quarantine": ("quarantine:quarantine", "Stop what follows from an event; or lift that again."),
    "reach": ("reach:reach", "Show what an agent, or the fleet, could cause."),
    "replay": ("replay:replay", "Take a run's agents through what was recorded; compare every byte."),
    "resolve": ("control:resolve", "Say what became of an effect in doubt."),
    "resume": ("run:resume", "Go on with a stopped run."),
    "routes": ("routes:routes", "See where routes lead, and what they cost."),
    "run": ("run:run", "Run a fleet to its answer."),
    "runs": ("runs:runs", "List runs; show one."),
    "sandbox": ("sandbox:sandbox", "See living sandboxes, stop them, look into one."),
    "store": ("store:store", "Where a home's records are; copy them to a server."),
    "tools": ("tools:tools", "See a fleet's tools and their contracts; pin those of others."),
    "top": ("top:top", "What is going on: runs, agents, spend against caps."),
    "trace": ("trace:trace", "Show what a run did, node by node."),
    "undo": ("undo:undo", "Take back what a run did, as far as its tools say how."),
    "verify": ("verify:verify", "Check the ledger's chain of hashes."),
    "which": ("trace:which", "Find the model call behind a piece of output."),
    "why": ("why:why", "Show what led to an event, back to the request."),
}
"""Command: (`module:attribute` below this package, the line that `--help` shows)."""

_INTERRUPTED: Final = 130


class LazyGroup(click.Group):
    """Imports a command's module when that command is asked for, and turns our errors into exit codes."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Name every command, without importing any."""
        return sorted(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import one command; None for a name that is none."""
        if cmd_name not in COMMANDS:
            return None
        module, _, attribute = COMMANDS[cmd_name][0].partition(":")
        found = getattr(importlib.import_module(f"midwatch.surfaces.cli.{module}"), attribute)
        if not isinstance(found, click.Command):
            raise TypeError(f"`{cmd_name}` leads to no command")
        return found

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command; for a name that is none, say which one is near."""
        near = difflib.get_close_matches(args[0], COMMANDS, n=1) if args and args[0] not in COMMANDS else []
        if near:
            ctx.fail(f"no such command `{args[0]}`; did you mean `{near[0]}`?")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the table of commands from `COMMANDS`, so that nothing is imported for it."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, COMMANDS[name][1]) for name in self.list_commands(ctx)])

    def main(self, args: Sequence[str] | None = None, *rest: Any, **extra: Any) -> Any:
        """Note whether JSON was asked for, since a usage error comes up before the option is read."""
        given = list(sys.argv[1:] if args is None else args)
        extra.setdefault("obj", Settings(json="--json" in given))
        return super().main(given, *rest, **extra)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; every error of ours ends in its message and its exit code."""
        settings: Settings = ctx.obj
        try:
            return super().invoke(ctx)
        except MidwatchError as error:
            report_error(error, as_json=settings.json)
            ctx.exit(error.exit_code)
        except click.UsageError as error:
            if not settings.json:
                raise
            report_usage(error)
            ctx.exit(error.exit_code)
        except KeyboardInterrupt:
            click.echo("interrupted; a run that was cut goes on with `midwatch resume RUN`", err=True)
            ctx.exit(_INTERRUPTED)


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.option("--home", metavar="DIR", help="Where state lives; else MIDWATCH_HOME, else the user's state directory.")
@click.version_option(__version__, "-V", "--version", prog_name="midwatch")
@click.pass_obj
def main(settings: Settings, home: str | None) -> None:
    """Midwatch: the operations kernel for AI agents. Runs teams of agents in bounds, with gates, traced."""
    settings.home = home
