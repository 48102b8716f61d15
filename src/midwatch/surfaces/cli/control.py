"""Control: `midwatch cancel`, `pause`, `kill`, `approve`, `resolve`: what a person says to runs.

In:   a short id and a word. Out: one line, or one JSON object; the change itself is `engine.control`'s.
May import: errors; engine.control and the wiring when a command runs. Must not know: the store's adapter, the graph.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, TypeVar

import click

from midwatch.errors import UsageProblem
from midwatch.surfaces.cli.common import Settings, command_options, emit, find_run, say, store_of
from midwatch.surfaces.cli.speaking import speaker, token_option

if TYPE_CHECKING:
    from midwatch.engine.control import Word
    from midwatch.engine.stops import Stop
    from midwatch.store.flags import FlagKind
    from midwatch.store.port import Store

__all__ = ["approve", "cancel", "kill", "lift", "pause", "resolve", "scope_options", "scoped"]


@click.command(short_help="Stop a run for good.")
@click.argument("run")
@click.option("--reason", default="cancelled by hand", show_default=True, help="Why; kept in the ledger.")
@click.option("--by", help="Who; only where people have no tokens.")
@token_option
@command_options
@click.pass_obj
def cancel(settings: Settings, run: str, reason: str, by: str | None, token_file: str | None) -> None:
    """Stop RUN for good: nothing new begins, and a live worker stops within a second."""
    from midwatch import wiring
    from midwatch.engine import control

    with store_of(settings) as store:
        full = find_run(store, run)
        who = _operator(store, token_file, by, "cancel a run")
        done = control.cancel(store, full, by=who, reason=reason, at_us=wiring.clock())
    if settings.json:
        emit({"ok": True, "run": full, "status": done.status, "held": done.held, "already": done.already})
        return
    said = "its worker stops within a second" if done.held else "cancelled"
    say(f"run {full[:7]}: {said}{' (it was marked before)' if done.already else ''}")


_Callback = TypeVar("_Callback", bound=Callable[..., Any])


def scope_options(callback: _Callback) -> _Callback:
    """Give a command what names more than one run: `--agent`, `--tool`, `--vertical`, `--all`, and `--fleet`."""
    for option in (
        click.option(
            "--fleet", metavar="FLEET", default="", help="Only in this fleet; else in every fleet of the home."
        ),
        click.option("--all", "all_", is_flag=True, help="All runs, and new ones."),
        click.option("--vertical", metavar="NAME", help="Every agent of a vertical."),
        click.option("--tool", metavar="NAME", help="A tool, whoever calls it."),
        click.option("--agent", metavar="NAME", help="An agent, in every run."),
    ):
        callback = option(callback)
    return callback


def scoped(wish: dict[str, Any], run: str | None) -> str | None:
    """Give the scope that options name; None: a run was named. UsageProblem: neither, or more than one."""
    named = [f"{kind}:{wish[kind]}" for kind in ("agent", "tool", "vertical") if wish[kind]] + ["all"] * wish["all_"]
    if len(named) + (run is not None) != 1:
        raise UsageProblem("name exactly one of RUN, `--agent`, `--tool`, `--vertical` and `--all`")
    if wish["fleet"] and not named:
        raise UsageProblem("`--fleet` goes with `--agent`, `--tool`, `--vertical` or `--all`")
    return named[0] if named else None


def _stopper(kind: FlagKind, words: str) -> click.Command:
    @click.argument("run", required=False)
    @scope_options
    @click.option("--reason", required=True, help="Why; kept in the ledger.")
    @click.option("--by", help="Who; only where people have no tokens.")
    @token_option
    @command_options
    @click.pass_obj
    def command(
        settings: Settings, /, run: str | None, reason: str, by: str | None, token_file: str | None, **wish: Any
    ) -> None:
        from midwatch import wiring
        from midwatch.engine import stops

        scope = scoped(wish, run)
        with store_of(settings) as store:
            who = _operator(store, token_file, by, f"{kind} what runs")
            more: dict[str, Any] = {"kind": kind, "by": who, "reason": reason, "at_us": wiring.clock()}
            if scope is None:
                done = stops.stop_run(store, find_run(store, run or ""), **more)
            else:
                done = stops.stop(store, scope, fleet=wish["fleet"], **more)
            boxes = _boxes(settings, done, scope) if kind == "kill" else []
        _told(settings, done, run, boxes)

    return click.command(kind, short_help=words, help=words)(command)


def _boxes(settings: Settings, done: Stop, scope: str | None) -> list[str]:
    """Kill the process trees of the sandboxes that are meant; their own processes would do so too, if they still can."""
    from midwatch.errors import SandboxError
    from midwatch.isolating import sandboxes

    killed = []
    kind, _, name = (scope or "all").partition(":")
    for living in sandboxes(settings.place).list():
        flying = kind in ("agent", "tool") and any(
            item.run == living.run and item.agent == living.agent for item in done.in_flight
        )
        if living.run in done.held and (kind == "all" or (kind == "agent" and living.agent == name) or flying):
            try:
                living.group().kill()
            except SandboxError as error:
                say(f"sandbox {living.name}: {error}")
            else:
                killed.append(living.name)
    return killed


def _told(settings: Settings, done: Stop, run: str | None, boxes: list[str]) -> None:
    if settings.json:
        flying = [asdict(item) | {"outcome": "UNKNOWN"} for item in done.in_flight]
        emit({"ok": True, **asdict(done), "in_flight": flying, "sandboxes": boxes})
        return
    where = f" of fleet {done.fleet}" if done.fleet and run is None else ""
    what = f"run {run}" if run is not None else f"{done.scope}{where}"
    word = "paused" if done.kind == "pause" else "killed"
    say(
        f"{what}: {word}{' (it was before)' if done.already else ''}; {len(done.held)} live, {len(done.dropped)} dropped"
    )
    for item in done.in_flight:
        say(f"  UNKNOWN {item.effect}: {item.tool} of {item.agent} in run {item.run[:7]}")
    for box in boxes:
        say(f"  sandbox {box}: its processes are gone")


pause = _stopper("pause", "Stop a run, an agent, a tool, a vertical, or all, until it is resumed.")
kill = _stopper("kill", "Stop a run, an agent, a tool, a vertical, or all, for good.")


def lift(settings: Settings, scope: str, fleet: str, reason: str, token_file: str | None) -> None:
    """Take back a stop; runs that it paused go on when each of them is resumed."""
    from midwatch import wiring
    from midwatch.engine import stops

    with store_of(settings) as store:
        who = _operator(store, token_file, None, "let go on what was stopped")
        left = stops.lift(store, scope, fleet=fleet, by=who, reason=reason, at_us=wiring.clock())
    if settings.json:
        emit({"ok": True, "scope": scope, "fleet": fleet, "still": [asdict(flag) for flag in left]})
        return
    say(f"{scope}: may go on; runs that it paused go on with `midwatch resume RUN`")
    for flag in left:
        say(
            f"  still stopped: {flag.scope}{f' of fleet {flag.fleet}' if flag.fleet else ''} ({flag.kind}: {flag.reason})"
        )


@click.command(short_help="Say yes, or no, to an action that waits.")
@click.argument("gate")
@click.option("--deny", is_flag=True, help="Say no instead of yes.")
@click.option("--reason", default="", help="Why; kept in the ledger.")
@click.option("--by", help="Who; only where people have no tokens.")
@token_option
@command_options
@click.pass_obj
def approve(settings: Settings, gate: str, deny: bool, reason: str, by: str | None, token_file: str | None) -> None:
    """Answer GATE, as `midwatch inbox approve` and `inbox deny` do, which can do more."""
    from midwatch.surfaces.cli.inbox import Said, answer_gate

    answer_gate(settings, Said(gate, not deny, reason, by), token_file)


@click.command(short_help="Say what became of an effect in doubt.")
@click.argument("effect")
@click.option("--done", is_flag=True, help="It happened.")
@click.option("--not-done", is_flag=True, help="It did not happen; the agent is told so.")
@click.option("--retry", is_flag=True, help="Do it again.")
@click.option("--by", help="Who; only where people have no tokens.")
@token_option
@command_options
@click.pass_obj
def resolve(
    settings: Settings, effect: str, done: bool, not_done: bool, retry: bool, by: str | None, token_file: str | None
) -> None:
    """Say what became of EFFECT after looking at the outside world: exactly one of --done, --not-done, --retry."""
    from midwatch import wiring
    from midwatch.engine import control

    flags: dict[Word, bool] = {"done": done, "not_done": not_done, "retry": retry}
    words = [word for word, given in flags.items() if given]
    if len(words) != 1:
        raise UsageProblem("say exactly one of `--done`, `--not-done` and `--retry`")
    with store_of(settings) as store:
        full = store.read(lambda tx: tx.effects.find(effect)).id
        who = _operator(store, token_file, by, "say what became of an effect")
        row = control.resolve(store, full, word=words[0], by=who, at_us=wiring.clock())
    if settings.json:
        emit({"ok": True, "effect": row.id, "run": row.run, "status": row.status, "by": row.resolved_by})
        return
    say(f"effect {row.id}: {row.status} by {row.resolved_by}: {row.tool} of {row.agent}")
    say(f"go on with: midwatch resume {row.run[:7]}")


def _operator(store: Store, token_file: str | None, by: str | None, what: str) -> str:
    """Give the name of whoever speaks; where people have tokens, it takes an operator."""
    from midwatch.engine.identity import require

    found = speaker(store, token_file, by)
    require(found, "operator", what)
    return found.name if by is not None or found.principal is not None else found.name.removeprefix("local:")
