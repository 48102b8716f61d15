"""Control: `midwatch cancel`, `approve`, `resolve`: what a person says to a run.

In:   a short id and a word. Out: one line, or one JSON object; the change itself is `engine.control`'s.
May import: errors; engine.control and the wiring when a command runs. Must not know: the store's adapter, the graph.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from midwatch.errors import UsageProblem
from midwatch.surfaces.cli.common import Settings, command_options, emit, find_run, say, store_of
from midwatch.surfaces.cli.speaking import speaker, token_option

if TYPE_CHECKING:
    from midwatch.engine.control import Word
    from midwatch.store.port import Store

__all__ = ["approve", "cancel", "resolve"]


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
