"""Releasing: `midwatch effects commit RUN` and `effects discard RUN`: what is written back, what speaks against it, the question.

In:   a short id. Out: one line a path; exit code 0 when it is done, 3 when people must say yes first, 1 on a conflict.
May import: errors; surfaces' facts, engine and the wiring when it runs. Must not know: how files are written.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from midwatch.errors import UsageProblem
from midwatch.surfaces.cli.common import Settings, command_options, emit, find_run, plain, say, store_of
from midwatch.surfaces.cli.speaking import token_option

if TYPE_CHECKING:
    from midwatch.engine.releasing import Released
    from midwatch.sandbox.effects import Request
    from midwatch.sandbox.release import Item
    from midwatch.surfaces.effects_facts import Planned

__all__ = ["commit", "discard"]

_WAITING: Final = 3
_WORDS: Final = {
    "create": "create",
    "replace": "replace",
    "delete": "delete",
    "mode": "set mode",
    "none": "there already",
    "never": "left behind",
}


def _options(dry: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give what both commands are asked with; `dry` says what `--dry-run` does."""
    added = (
        click.argument("run"),
        click.option(
            "--only", multiple=True, metavar="GLOB", help="Only these paths, below the workspace; may be repeated."
        ),
        click.option("--dry-run", is_flag=True, help=dry),
        click.option("--yes", is_flag=True, help="Do not ask."),
        click.option("--reason", default="", help="Why; kept in the ledger."),
        click.option("--workdir", metavar="DIR", help="The workspace; else where the run was started."),
        token_option,
        command_options,
        click.pass_context,
    )

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        for option in reversed(added):
            command = option(command)
        return command

    return decorate


@click.command(short_help="Write a run's changes to its workspace.")
@_options("Only say what would be written, and what speaks against it.")
def commit(
    ctx: click.Context,
    run: str,
    only: tuple[str, ...],
    dry_run: bool,
    yes: bool,
    reason: str,
    workdir: str | None,
    token_file: str | None,
) -> None:
    """Write what RUN changed to its workspace: all of it, or nothing. What somebody changed meanwhile is never overwritten."""
    settings: Settings = ctx.obj
    full, plan = _planned(settings, run, workdir, only)
    conflicts = any(item.conflict for item in plan.items)
    if dry_run or conflicts or _empty(plan):
        _tell(settings, full, plan, None)
        ctx.exit(1 if conflicts else 0)
    sends = f" and send {len(plan.requests):,} requests" if plan.requests else ""
    _ask(settings, plan, f"write {len(plan.items):,} changes to the workspace{sends}?", yes=yes)
    from midwatch.surfaces.cli.cards import kernel_of

    with kernel_of(settings, full, token_file, workdir=workdir) as kernel:
        done = kernel.commit(full, only=only, reason=reason, workspace=_workspace(workdir))
    _tell(settings, full, plan, done)
    ctx.exit(_WAITING if done.status == "waiting" else 0)


@click.command(short_help="Drop a run's changes.")
@_options("Only say what would be dropped.")
def discard(
    ctx: click.Context,
    run: str,
    only: tuple[str, ...],
    dry_run: bool,
    yes: bool,
    reason: str,
    workdir: str | None,
    token_file: str | None,
) -> None:
    """Drop what RUN changed and nobody has committed; without `--only` the requests, too, that were held back. The record stays."""
    settings: Settings = ctx.obj
    full, plan = _planned(settings, run, workdir, only)
    dropped = tuple(replace(item, conflict=None) for item in plan.items)
    plan = replace(
        plan, items=dropped, gives=type(plan.gives)({}, ())
    )  # it gives nobody anything and overwrites nothing
    if dry_run and not settings.json and not _empty(plan):
        say("this would be dropped, and never be done:")
    if dry_run or _empty(plan):
        _tell(settings, full, plan, None)
        ctx.exit(0)
    _ask(settings, plan, f"drop {len(plan.items):,} changes and {len(plan.requests):,} requests for good?", yes=yes)
    from midwatch.surfaces.cli.cards import kernel_of

    with kernel_of(settings, full, token_file, workdir=workdir) as kernel:
        count = kernel.discard(full, only=only, reason=reason, workspace=_workspace(workdir))
    if settings.json:
        emit({"ok": True, "run": full, "discarded": count})
        return
    say(f"run {full[:7]}: {count:,} changes dropped")


def _planned(settings: Settings, run: str, workdir: str | None, only: tuple[str, ...]) -> tuple[str, Planned]:
    """Give what is staged, as the workspace is now. UsageProblem: `only` fits nothing of it."""
    from midwatch.surfaces import effects_facts
    from midwatch.surfaces.cli.common import began_in, folder

    with store_of(settings) as store:
        full = find_run(store, run)
        place: Path = folder(workdir or began_in(settings, full))
        plan = effects_facts.planned(store, full, settings.place / "layers" / full, place, only)
    if plan.others and not plan.items:
        globs = ", ".join(f"`{glob}`" for glob in only)
        raise UsageProblem(f"no staged path fits {globs}; `midwatch effects {full[:7]}` lists them")
    return full, plan


def _workspace(workdir: str | None) -> Path | None:
    from midwatch.surfaces.cli.common import folder

    return None if workdir is None else folder(workdir)


def _empty(plan: Planned) -> bool:
    return not plan.items and not plan.requests


def _ask(settings: Settings, plan: Planned, question: str, *, yes: bool) -> None:
    if yes:
        return
    if settings.json or not _terminal():
        raise UsageProblem("say `--yes` to do it without being asked, or `--dry-run` to see what would be done")
    _list(plan)
    try:
        agreed = click.confirm(question, err=True)
    except click.Abort:
        agreed = False
        click.echo("", err=True)
    if not agreed:
        raise UsageProblem("nothing was done")


def _terminal() -> bool:
    return sys.stdin.isatty()


def _list(plan: Planned) -> None:
    for item in plan.items:
        click.echo(plain(_line(item)))
    for request in plan.requests:
        click.echo(plain(f"{'send':<13}  {_asked(request)}"))
    for line in _gives(plan):
        click.echo(plain(f"{'gives':<13}  {line}"))


def _gives(plan: Planned) -> list[str]:
    from midwatch.surfaces.grants_facts import lines

    return lines(plan.gives.grants)


def _asked(request: Request) -> str:
    return f"{request.method} {request.host}:{request.port}{request.path}"


def _tell(settings: Settings, run: str, plan: Planned, done: Released | None) -> None:
    if settings.json:
        ok = done is not None or not any(item.conflict for item in plan.items)
        body: dict[str, Any] = {"ok": ok, "run": run, "status": "planned" if done is None else done.status}
        if done is not None:
            body |= {"paths": list(done.paths), "gate": done.gate, "sent": _sent(done)}
        body |= {"changes": [_json(item) for item in plan.items]}
        body |= {"grants": [item.to_json() for item in plan.gives.grants]}
        emit(body | {"requests": [request.to_json() for request in plan.requests]})
        return
    if done is None:
        _list(plan)
        if _empty(plan):
            say(f"run {run[:7]} has nothing staged")
        if any(item.conflict for item in plan.items):
            say(
                "nothing is written while there is a conflict: put the file back, name the others with `--only`, or discard"
            )
        return
    if done.status == "waiting":
        say(f"run {run[:7]}: people must say yes first: midwatch inbox show {done.gate}")
        say(f"then again: midwatch effects commit {run[:7]}")
        return
    for path in done.paths:
        click.echo(plain(f"{'written':<13}  {path}"))
    for request, word in done.requests:
        click.echo(plain(f"{word:<13}  {_asked(request)}{'' if request.status is None else f' {request.status}'}"))
    sent = f", {len(done.requests):,} held back requests ended as above" if done.requests else ""
    say(f"run {run[:7]}: {len(plan.items):,} change{'' if len(plan.items) == 1 else 's'} {done.status}{sent}")


def _sent(done: Released) -> list[dict[str, Any]]:
    return [request.to_json() | {"ended": word} for request, word in done.requests]


def _line(item: Item) -> str:
    against = f"  CONFLICT: {item.conflict}" if item.conflict else ""
    person = f"  [{'; '.join(item.person)}]" if item.person else ""
    return f"{_WORDS[item.action]:<13}  {item.path}{person}{against}"


def _json(item: Item) -> dict[str, Any]:
    return {
        "path": item.path,
        "action": item.action,
        "op": item.change.op,
        "kind": item.change.kind,
        "size": item.change.size,
        "sha256": item.change.sha256,
        "person": list(item.person),
        "conflict": item.conflict,
    }
