"""Runs: `midwatch runs ls`, `runs show` and `runs handoffs`: which runs there are, and where one stands.

In:   a filter, or a short id. Out: a table, or one run with what it waits for.
May import: `render` when it shows; tracing and the wiring when it runs. Must not know: how runs are carried out.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import click

from midwatch.records.run import RUN_STATUSES
from midwatch.surfaces.cli.common import Settings, command_options, emit, find_run, moment, money, seconds, store_of
from midwatch.surfaces.cli.handoffs import handoffs
from midwatch.surfaces.cli.runs_export import export
from midwatch.surfaces.cli.runs_look import diff, state

if TYPE_CHECKING:
    from midwatch.records.run import RunRow
    from midwatch.tracing.facts import Spend

__all__ = ["runs"]


@click.group(short_help="List runs; show one.")
def runs() -> None:
    """List runs; show one."""


runs.add_command(handoffs)
runs.add_command(export)
runs.add_command(diff)
runs.add_command(state)


@runs.command("ls", short_help="List runs, newest first.")
@click.option(
    "--status", multiple=True, type=click.Choice(RUN_STATUSES), help="Only these; may be given several times."
)
@click.option("--limit", type=click.IntRange(1, 10_000), default=20, show_default=True)
@command_options
@click.pass_obj
def list_runs(settings: Settings, status: tuple[str, ...], limit: int) -> None:
    """List runs, newest first."""
    with store_of(settings) as store:
        rows = store.read(lambda tx: tx.runs.list(limit=limit, statuses=status))
    if settings.json:
        emit({"ok": True, "runs": [dataclasses.asdict(row) for row in rows]})
        return
    if not rows:
        click.echo("no runs" + (f" with status {', '.join(status)}" if status else ""), err=True)
        return
    from midwatch.surfaces.cli.render import table

    lines = [
        (
            row.id[:7],
            row.status,
            row.fleet,
            moment(row.created_us),
            seconds(row.working_us),
            money(row.cost),
            f"{row.tokens:,}",
        )
        for row in rows
    ]
    table(("run", "status", "fleet", "created", "worked", "cost", "tokens"), lines)


@runs.command("show", short_help="Show where a run stands.")
@click.argument("run")
@command_options
@click.pass_obj
def show(settings: Settings, run: str) -> None:
    """Show where RUN stands: spend against caps, who used it, what it waits for. RUN may be `last`."""
    from midwatch import wiring
    from midwatch.surfaces.cli import waiting
    from midwatch.tracing import queries
    from midwatch.tracing.facts import as_json

    with store_of(settings) as store:
        full = find_run(store, run)
        row = store.read(lambda tx: tx.runs.get(full))
        used = queries.spend(store, full)
        waits = waiting.read(store, full, at_us=wiring.clock())
    if row is None:
        return
    if settings.json:
        emit({"ok": True, "run": dataclasses.asdict(row), "spend": as_json(used), **waits.to_json()})
        return
    _print(row, used)
    waiting.show(waits, err=False)


def _print(row: RunRow, used: Spend) -> None:
    from midwatch.surfaces.cli.render import table

    lines: list[tuple[str, str]] = [
        ("run", row.id),
        ("status", row.status + (f": {row.error_message}" if row.error_message else "")),
        ("fleet", f"{row.fleet} ({row.fleet_path or 'made in Python'}, preset {row.preset or 'none'})"),
        ("created", moment(row.created_us)),
        ("ended", moment(row.ended_us)),
        ("segments", f"{row.segment}, worked {seconds(row.working_us)}"),
        ("spend", f"{money(row.cost)}, {row.tokens:,} tokens, {row.tool_calls:,} tool calls, {row.steps:,} steps"),
        ("head", row.head or "-"),
    ]
    table(("", ""), lines)
    if used.agents:
        table(
            ("agent", "cost", "tokens", "model calls", "tool calls"),
            [(s.name, money(s.cost), f"{s.tokens:,}", f"{s.model_calls:,}", f"{s.tool_calls:,}") for s in used.agents],
        )
    caps = [item for item in used.accounts if item.cap is not None]
    if caps:
        rows: list[tuple[Any, ...]] = [
            (
                _scope(item.scope),
                item.unit,
                _amount(item.unit, item.spent),
                _amount(item.unit, item.held),
                _amount(item.unit, item.cap),
            )
            for item in caps
        ]
        table(("scope", "unit", "spent", "held", "cap"), rows)


def _scope(scope: str) -> str:
    kind, _, name = scope.partition(":")
    return kind if kind == "run" else f"{kind} {name.partition('/')[2]}"


def _amount(unit: str, amount: int | None) -> str:
    if amount is None:
        return "-"
    if unit == "cost":
        return money(amount)
    return seconds(amount) if unit in ("wall", "working") else f"{amount:,}"
