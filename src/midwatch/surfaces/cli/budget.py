"""Budget: `midwatch budget show | set | topup | history | reconcile`: what may be spent, what was, and who said so.

In:   a scope, a unit, an amount; a bill. Out: tables or JSON; changed caps.
May import: errors; the engine's budgeting and the wiring when a command runs. Must not know: how claims are made.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from midwatch.errors import UsageProblem
from midwatch.surfaces.cli.common import Settings, command_options, emit, find_run, moment, money, seconds, store_of
from midwatch.surfaces.cli.speaking import speaker, token_option

if TYPE_CHECKING:
    from midwatch.records.event import Event
    from midwatch.records.spend import Account

__all__ = ["budget", "shown"]


@click.group(short_help="What may be spent, and what was.")
def budget() -> None:
    """Show, set and top up what may be spent.

    A SCOPE is an account as `show` names it; its window may be left out, and so may `fleet:` and `vertical:`. A run is `run:ID`, an agent
    in it `agent:ID/NAME`, with short ids.
    """


@budget.command("show", short_help="Show caps and what is spent.")
@click.argument("scope", required=False)
@click.option("--run", "run", metavar="RUN", help="A run and its agents.")
@command_options
@click.pass_obj
def show(settings: Settings, scope: str | None, run: str | None) -> None:
    """Show where SCOPE stands, or a run, or everything that runs share in its present window."""
    from midwatch.engine import budgeting

    if scope is not None and run is not None:
        raise UsageProblem("give a scope or `--run`, not both")
    with store_of(settings) as store:
        rows = budgeting.show(store, scope, run=None if run is None else find_run(store, run))
    if settings.json:
        emit({"ok": True, "accounts": [_facts(row) for row in rows]})
        return
    if not rows:
        click.echo("nothing was spent here yet; scopes appear with the first run", err=True)
        return
    from midwatch.surfaces.cli.render import table

    table(
        ("scope", "unit", "spent", "held", "cap", "used"),
        [
            (
                row.scope,
                row.unit,
                shown(row.unit, row.spent),
                shown(row.unit, row.held),
                shown(row.unit, row.cap),
                _share(row),
            )
            for row in rows
        ],
    )


def _order(word: str, help_: str, more: str) -> click.Command:
    @budget.command(word, short_help=help_)
    @click.argument("scope")
    @click.argument("unit")
    @click.argument("amount")
    @click.option("--reason", default="", help="Why; kept in the ledger.")
    @token_option
    @command_options
    @click.pass_obj
    def command(settings: Settings, scope: str, unit: str, amount: str, reason: str, token_file: str | None) -> None:
        from midwatch import wiring
        from midwatch.engine import budgeting

        with store_of(settings) as store:
            who, order = speaker(store, token_file), budgeting.set_cap if word == "set" else budgeting.topup
            done = order(store, scope, unit, amount, speaker=who, reason=reason, at_us=wiring.clock())
        if settings.json:
            facts = {
                "scope": done.scope,
                "unit": done.unit,
                "before": done.before,
                "after": done.after,
                "event": done.seq,
            }
            emit({"ok": True, **facts})
            return
        click.echo(f"{done.scope}: {done.unit} {shown(done.unit, done.before)} -> {shown(done.unit, done.after)}")
        if done.scope.startswith("run:"):
            click.echo(f"go on with it: midwatch resume {done.scope[4:11]}", err=True)

    command.help = more
    return command


set_ = _order(
    "set",
    "Put a cap in the place of the file's.",
    "Bound UNIT of SCOPE by AMOUNT, whatever the fleet file says, until the file says something else than now. "
    "`file` as AMOUNT takes that back.",
)
topup = _order(
    "topup", "Add to a cap.", "Add AMOUNT to what SCOPE may use of UNIT, in its present window; nothing else changes."
)


@budget.command("history", short_help="Show who changed caps, and what came near them.")
@click.argument("scope", required=False)
@command_options
@click.pass_obj
def history(settings: Settings, scope: str | None) -> None:
    """Show orders, corrected bills, ladders and what a shadow would have stopped; of SCOPE, or all."""
    from midwatch.engine import budgeting

    with store_of(settings) as store:
        events = budgeting.history(store, scope)
    if settings.json:
        emit({"ok": True, "events": [event.to_json() for event in events]})
        return
    from midwatch.surfaces.cli.render import table

    table(
        ("event", "at", "what", "scope", "numbers", "by", "reason"),
        [
            (
                event.seq,
                moment(event.at_us),
                event.data.get("what") or event.kind.partition(".")[2],
                event.data.get("scope", ""),
                _numbers(event),
                event.data.get("by", ""),
                event.data.get("reason", ""),
            )
            for event in events
        ],
    )


@budget.command("reconcile", short_help="Put right what calls were charged.")
@click.argument("run")
@click.argument("file", type=click.Path(exists=True, dir_okay=False))
@token_option
@command_options
@click.pass_obj
def reconcile(settings: Settings, run: str, file: str, token_file: str | None) -> None:
    """Charge what the provider says in FILE, in the place of what RUN's calls were charged.

    FILE is JSON: {"calls": [{"effect": "…", "attempt": 1, "cost": "$0.0012", "tokens": 345}]}.
    """
    from midwatch import wiring
    from midwatch.engine import budgeting

    bills = _bills(Path(file))
    with store_of(settings) as store:
        who, full = speaker(store, token_file), find_run(store, run)
        done = budgeting.reconcile(store, full, bills, speaker=who, source=Path(file).name, at_us=wiring.clock())
    if settings.json:
        calls = [
            {"reservation": one.reservation, "differences": dict(one.differences), "event": one.seq} for one in done
        ]
        emit({"ok": True, "run": full, "calls": calls})
        return
    for one in done:
        told = ", ".join(
            f"{unit} {'+' if by >= 0 else '-'}{shown(unit, abs(by))}" for unit, by in one.differences.items()
        )
        click.echo(f"{one.reservation}: {told}")


def _bills(file: Path) -> Sequence[dict[str, Any]]:
    try:
        body = json.loads(file.read_bytes())
        calls = body["calls"]
    except (ValueError, KeyError, TypeError) as error:
        raise UsageProblem(f'`{file}` is no bill; write {{"calls": [{{"effect": "…", "cost": "$…"}}]}}') from error
    if not isinstance(calls, list) or not calls:
        raise UsageProblem(f"`{file}` holds no calls")
    return calls


def shown(unit: str, amount: int | None) -> str:
    """Write an amount as people read it."""
    if amount is None:
        return "-"
    return money(amount) if unit == "cost" else seconds(amount) if unit in ("wall", "working") else f"{amount:,}"


def _share(row: Account) -> str:
    return "-" if row.cap is None else "full" if not row.cap else f"{(row.spent + row.held) * 100 // row.cap}%"


def _facts(row: Account) -> dict[str, Any]:
    left = None if row.cap is None else max(0, row.cap - row.spent - row.held)
    return {"scope": row.scope, "unit": row.unit, "cap": row.cap, "spent": row.spent, "held": row.held, "left": left}


def _numbers(event: Event) -> str:
    data = event.data
    unit = str(data.get("unit", ""))
    match event.kind:
        case "budget.set":
            return f"{unit} {shown(unit, data['before'])} -> {shown(unit, data['after'])}"
        case "budget.reconciled":
            return ", ".join(f"{name} {by:+,}" for name, by in data["differences"].items())
        case "budget.degraded":
            asked = [f"{key} {data[key]}" for key in ("route", "context", "specialists") if data[key] is not None]
            return f"{unit} {shown(unit, data['used'])} of {shown(unit, data['cap'])} (from {data['at']}): {', '.join(asked)}"
        case _:
            return (
                f"{unit} {shown(unit, data['used'])} of {shown(unit, data['cap'])}, asked {shown(unit, data['asked'])}"
            )
