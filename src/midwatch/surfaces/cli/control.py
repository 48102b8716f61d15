"""Control: `midwatch cancel`, `approve`, `resolve`: what a person says to a run.

In:   a short id and a word. Out: one line, or one JSON object; the change itself is `engine.control`'s.
May import: errors; engine.control and the wiring when a command runs. Must not know: the store's adapter, the graph.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from midwatch.errors import UsageProblem
from midwatch.surfaces.cli.common import Settings, command_options, emit, find_run, operator, say, store_of

if TYPE_CHECKING:
    from midwatch.engine.control import Word

__all__ = ["approve", "cancel", "resolve"]


@click.command(short_help="Stop a run for good.")
@click.argument("run")
@click.option("--reason", default="cancelled by hand", show_default=True, help="Why; kept in the ledger.")
@click.option("--by", help="Who; the login name by default.")
@command_options
@click.pass_obj
def cancel(settings: Settings, run: str, reason: str, by: str | None) -> None:
    """Stop RUN for good: nothing new begins, and a live worker stops within a second."""
    from midwatch import wiring
    from midwatch.engine import control

    with store_of(settings) as store:
        full = find_run(store, run)
        done = control.cancel(store, full, by=operator(by), reason=reason, at_us=wiring.clock())
    if settings.json:
        emit({"ok": True, "run": full, "status": done.status, "held": done.held, "already": done.already})
        return
    said = "its worker stops within a second" if done.held else "cancelled"
    say(f"run {full[:7]}: {said}{' (it was marked before)' if done.already else ''}")


@click.command(short_help="Say yes, or no, to an action that waits.")
@click.argument("gate")
@click.option("--deny", is_flag=True, help="Say no instead of yes.")
@click.option("--reason", default="", help="Why; kept in the ledger.")
@click.option("--by", help="Who; the login name by default.")
@command_options
@click.pass_obj
def approve(settings: Settings, gate: str, deny: bool, reason: str, by: str | None) -> None:
    """Answer GATE. A yes holds once, for exactly the action that was shown, until the gate expires."""
    from midwatch import wiring
    from midwatch.engine import control

    with store_of(settings) as store:
        full = store.read(lambda tx: tx.gates.find(gate)).id
        row = control.answer(store, full, approve=not deny, by=operator(by), reason=reason, at_us=wiring.clock())
    if settings.json:
        emit({"ok": True, "gate": row.id, "run": row.run, "status": row.status, "by": row.answered_by})
        return
    say(f"gate {row.id}: {row.status} by {row.answered_by}: {row.tool} of {row.agent}")
    say(f"go on with: midwatch resume {row.run[:7]}")


@click.command(short_help="Say what became of an effect in doubt.")
@click.argument("effect")
@click.option("--done", is_flag=True, help="It happened.")
@click.option("--not-done", is_flag=True, help="It did not happen; the agent is told so.")
@click.option("--retry", is_flag=True, help="Do it again.")
@click.option("--by", help="Who; the login name by default.")
@command_options
@click.pass_obj
def resolve(settings: Settings, effect: str, done: bool, not_done: bool, retry: bool, by: str | None) -> None:
    """Say what became of EFFECT after looking at the outside world: exactly one of --done, --not-done, --retry."""
    from midwatch import wiring
    from midwatch.engine import control

    flags: dict[Word, bool] = {"done": done, "not_done": not_done, "retry": retry}
    words = [word for word, given in flags.items() if given]
    if len(words) != 1:
        raise UsageProblem("say exactly one of `--done`, `--not-done` and `--retry`")
    with store_of(settings) as store:
        full = store.read(lambda tx: tx.effects.find(effect)).id
        row = control.resolve(store, full, word=words[0], by=operator(by), at_us=wiring.clock())
    if settings.json:
        emit({"ok": True, "effect": row.id, "run": row.run, "status": row.status, "by": row.resolved_by})
        return
    say(f"effect {row.id}: {row.status} by {row.resolved_by}: {row.tool} of {row.agent}")
    say(f"go on with: midwatch resume {row.run[:7]}")
