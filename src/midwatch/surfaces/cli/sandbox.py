"""Sandbox: `midwatch sandbox ls | stats | pause | resume | kill | shell`: which sandboxes live, what is counted, a look from inside.

In:   a short name or id. Out: tables on stdout, JSON with `--json`; programs' output as it is, made harmless.
May import: errors; the wiring, engine and sandbox when a command runs. Must not know: any one backend.
"""

from __future__ import annotations

import asyncio
import os
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from midwatch.errors import SandboxError
from midwatch.surfaces.cli.common import (
    Settings,
    began_in,
    command_options,
    emit,
    find_run,
    folder,
    plain,
    say,
    seconds,
    store_of,
)
from midwatch.surfaces.cli.speaking import speaker, token_option

if TYPE_CHECKING:
    from collections.abc import Sequence

    from midwatch.config.fleet import Fleet
    from midwatch.engine.staging import Isolation, Staged
    from midwatch.engine.steering import Act
    from midwatch.sandbox.living import Living
    from midwatch.sandbox.port import RunResult, Stats
    from midwatch.surfaces.shell import Shell

__all__ = ["sandbox"]

_TIMED_OUT: Final = 124
_STEERING: Final = {
    "pause": "Stop sandbox NAME where it stands; no time counts against its call meanwhile.",
    "resume": "Let sandbox NAME go on that was paused.",
    "kill": "Kill every process of sandbox NAME, paused or not; its call ends as crashed and leaves nothing.",
}
_SHELL: Final = "/bin/sh"


@click.group(short_help="See living sandboxes, stop them, look into one.")
def sandbox() -> None:
    """See living sandboxes, stop them, and look into one."""


@sandbox.command("ls", short_help="List the sandboxes that live.")
@command_options
@click.pass_obj
def list_living(settings: Settings) -> None:
    """List the sandboxes of this home that live, oldest first."""
    from midwatch import wiring

    found = [(item, _stats(item)) for item in _living(settings)]
    if settings.json:
        emit({"ok": True, "sandboxes": [_json(item, stats) for item, stats in found]})
        return
    if not found:
        say("no sandbox lives; they begin with a run's first call of a tool, and end with the run")
        return
    from midwatch.surfaces.cli.render import table

    now = wiring.clock()
    heads = ("sandbox", "run", "agent", "backend", "lives", "state", "processes", "memory")
    table(heads, [_row(item, stats, now) for item, stats in found])


@sandbox.command("stats", short_help="Show what the machine counts of a sandbox.")
@click.argument("name", required=False)
@command_options
@click.pass_obj
def show_stats(settings: Settings, name: str | None) -> None:
    """Show what the machine counted of sandbox NAME, or of all that live: memory, processor time, processes, refusals."""
    from midwatch.isolating import sandboxes

    chosen = _living(settings) if name is None else [sandboxes(settings.place).find(name)]
    found = [(item, _stats(item)) for item in chosen]
    if settings.json:
        emit({"ok": True, "sandboxes": [_json(item, stats) for item, stats in found]})
        return
    if not found:
        say("no sandbox lives")
    for item, stats in found:
        click.echo(plain(f"{item.name}  {item.level} of {item.agent or '-'} in run {item.run[:7]}"))
        for line in _counters(stats):
            click.echo(f"  {line}")


def _steered(act: Act, words: str) -> click.Command:
    @click.argument("name")
    @click.option("--reason", default="", help="Why; it is recorded.")
    @token_option
    @command_options
    @click.pass_obj
    def command(settings: Settings, name: str, reason: str, token_file: str | None) -> None:
        from midwatch import wiring
        from midwatch.engine.steering import steer
        from midwatch.isolating import sandboxes

        register = sandboxes(settings.place)
        living = register.find(name)
        with store_of(settings) as store:
            who = speaker(store, token_file)
            steer(store, register, living, act, speaker=who, reason=reason, at_us=wiring.clock())
        if settings.json:
            emit({"ok": True, "sandbox": living.name, "run": living.run, "agent": living.agent, "act": act})
        else:
            say(f"{living.name} of {living.agent or '-'} in run {living.run[:7]}: {words}")

    return click.command(act, help=_STEERING[act], short_help=_STEERING[act])(command)


for _act, _words in (("pause", "stands still"), ("resume", "goes on"), ("kill", "killed")):
    sandbox.add_command(_steered(_act, _words))  # type: ignore[arg-type]  # the three words of `Act`


@sandbox.command("shell", short_help="Run programs in a sandbox as an agent has it.")
@click.argument("target", metavar="RUN|FLEET")
@click.argument("command", nargs=-1)
@click.option("--agent", help="Whose sandbox; else that of the only agent with tools or a program.")
@click.option(
    "--workdir", metavar="DIR", help="The workspace; else where the run was started, or the current directory."
)
@click.option(
    "--timeout", type=click.IntRange(1, 86_400), default=60, show_default=True, help="Seconds for one program."
)
@token_option
@command_options
@click.pass_context
def shell(
    ctx: click.Context,
    target: str,
    command: tuple[str, ...],
    agent: str | None,
    workdir: str | None,
    timeout: int,
    token_file: str | None,
) -> None:
    """Run COMMAND, else each line of the standard input with sh, in a sandbox as an agent of RUN or FLEET has it.

    It holds what the run has changed so far and has no network. What is changed here is shown at the end, and dropped.
    """
    settings: Settings = ctx.obj
    from midwatch.surfaces import shell as shells

    fleet, run, workspace, staged = _target(settings, target, workdir, token_file)
    name = shells.agent_of(fleet, agent)
    with shells.opened(fleet, name, home=settings.place, workspace=workspace, environ=os.environ) as chosen:
        code = asyncio.run(
            _session(settings, chosen, name, run, workspace, staged, command, timeout_us=timeout * 1_000_000)
        )
    ctx.exit(code)


async def _session(
    settings: Settings,
    chosen: Isolation,
    agent: str,
    run: str,
    workspace: Path,
    staged: Sequence[Staged],
    command: tuple[str, ...],
    *,
    timeout_us: int,
) -> int:
    from midwatch.surfaces import shell as shells

    async with shells.inside(chosen, agent, run=run, workspace=workspace, staged=staged) as opened:
        if not settings.json:
            say(f"{opened.level} sandbox of `{agent}`; no network; what is changed here is dropped at the end")
        told, code = [], 0
        for argv in [command] if command else _typed(settings):
            result = await opened.run(argv, timeout_us=timeout_us)
            told.append(_told(argv, result))
            code = _code(result)
            if not settings.json:
                _show(result)
        await _end(settings, opened, told, ok=code == 0)
        return code


async def _end(settings: Settings, opened: Shell, told: list[dict[str, Any]], *, ok: bool) -> None:
    from midwatch.sandbox.effects import CHANGING

    changes = [change for change in await opened.changed() if change.op in CHANGING]
    if settings.json:
        emit({"ok": ok, "programs": told, "dropped": [change.to_json() for change in changes]})
        return
    for change in changes:
        say(f"dropped: {change.op} {change.path}")


def _typed(settings: Settings) -> Any:
    """Give each line of the standard input as a program for sh; on a terminal, with a prompt."""
    asks = sys.stdin.isatty() and not settings.json
    while True:
        if asks:
            click.echo("sandbox$ ", nl=False, err=True)
        line = sys.stdin.readline()
        if not line or line.strip() in ("exit", "quit"):
            return
        if line.strip():
            yield (_SHELL, "-c", line)


def _told(argv: Sequence[str], result: RunResult) -> dict[str, Any]:
    return {
        "argv": list(argv),
        "status": result.status,
        "exit_code": result.exit_code,
        "stdout": result.stdout.decode("utf-8", "replace"),
        "stderr": result.stderr.decode("utf-8", "replace"),
        "detail": result.detail,
    }


def _show(result: RunResult) -> None:
    for data, err in ((result.stdout, False), (result.stderr, True)):
        if data:
            click.echo(plain(data.decode("utf-8", "replace")), nl=not data.endswith(b"\n"), err=err)
    if result.status != "ended":
        say(f"{'timed out' if result.status == 'timeout' else 'could not be started:'} {result.detail}".rstrip())
    elif result.exit_code:
        say(f"exit code {result.exit_code}")


def _code(result: RunResult) -> int:
    if result.status == "timeout":
        return _TIMED_OUT
    return 0 if result.status == "ended" and result.exit_code == 0 else 1


def _target(
    settings: Settings, target: str, workdir: str | None, token_file: str | None
) -> tuple[Fleet, str, Path, Sequence[Staged]]:
    """Find the fleet, the run, its workspace and what it has changed so far; it takes an operator where people have tokens."""
    from midwatch import wiring
    from midwatch.engine.identity import require
    from midwatch.engine.staging import staged_of
    from midwatch.surfaces.cli.cards import fleet_of

    if wiring.has_store(settings.place):
        with store_of(settings) as store:
            require(speaker(store, token_file), "operator", "look into a sandbox")
    if Path(target).exists():
        fleet, _ = wiring.load_fleet(target, environ=os.environ)
        return fleet, "shell", folder(workdir), ()
    with store_of(settings) as store:
        run = find_run(store, target)
        staged = store.read(lambda tx: staged_of(tx, run, settings.place / "layers" / run))
    fleet, _ = fleet_of(settings, run)
    return fleet, run, folder(workdir or began_in(settings, run)), staged


def _living(settings: Settings) -> list[Living]:
    from midwatch.isolating import sandboxes

    return sandboxes(settings.place).list()


def _stats(item: Living) -> Stats | None:
    """Read the counters; None where the sandbox ended meanwhile."""
    try:
        return item.stats()
    except (OSError, SandboxError):
        return None


def _json(item: Living, stats: Stats | None) -> dict[str, Any]:
    body = asdict(item)
    body.pop("where")
    return body | {"stats": None if stats is None else asdict(stats)}


def _row(item: Living, stats: Stats | None, now: int) -> tuple[str, ...]:
    from midwatch.surfaces.cli.effects import quantity

    state = "ended" if stats is None else "frozen" if stats.frozen else "lives"
    memory = "-" if stats is None or stats.memory is None else quantity(stats.memory)
    processes = "-" if stats is None or stats.processes is None else str(stats.processes)
    lives = seconds(max(0, now - item.began_us))
    return (item.name, item.run[:7], item.agent or "-", item.level, lives, state, processes, memory)


def _counters(stats: Stats | None) -> list[str]:
    from midwatch.surfaces.cli.effects import quantity

    if stats is None:
        return ["it has ended"]
    rows = (
        ("memory", stats.memory, quantity),
        ("memory, most", stats.memory_peak, quantity),
        ("processor time", stats.cpu_us, seconds),
        ("held back", stats.throttled_us, seconds),
        ("killed for memory", stats.oom_kills, str),
        ("processes", stats.processes, str),
        ("processes, most", stats.processes_peak, str),
        ("processes refused", stats.processes_refused, str),
    )
    lines = [f"{name:<18} {write(value)}" for name, value, write in rows if value is not None]
    return [*lines, f"{'frozen':<18} {'yes' if stats.frozen else 'no'}"]
