"""Top: `midwatch top`: what is going on in this home: runs, who is at work, spend against caps, breakers that are open.

In:   the store. Out: a table that is drawn anew when the ledger grows, or one frame.
May import: errors; records, `render` when it runs. Must not know: how claims or breakers work.
Why the ledger's head: whatever changes is an event, so one indexed read says whether anything did; nothing is drawn for nothing.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import click

from midwatch.surfaces.cli.budget import shown
from midwatch.surfaces.cli.common import Settings, command_options, emit, money, seconds, store_of

if TYPE_CHECKING:
    from midwatch.records.run import RunRow
    from midwatch.records.spend import Account
    from midwatch.store.port import Store, Tx

__all__ = ["Frame", "frame", "top"]

_LIVE: Final = ("created", "running", "waiting", "paused", "interrupted")
_RUNS: Final = 20
_LOOK_S: Final = 0.5


@dataclass(frozen=True, slots=True)
class RunLine:
    """One run: its row, the nodes that are at work, and its fullest cap."""

    row: RunRow
    nodes: tuple[str, ...]
    fullest: str


@dataclass(frozen=True, slots=True)
class Frame:
    """One moment. `head`: the ledger's newest event then."""

    head: int
    runs: tuple[RunLine, ...]
    accounts: tuple[Account, ...]
    breakers: tuple[dict[str, Any], ...]

    def to_json(self) -> dict[str, Any]:
        """Give what `--json` prints."""
        return {
            "head": self.head,
            "runs": [
                {
                    "run": line.row.id,
                    "fleet": line.row.fleet,
                    "status": line.row.status,
                    "at_work": list(line.nodes),
                    "cost": line.row.cost,
                    "tokens": line.row.tokens,
                    "tool_calls": line.row.tool_calls,
                    "steps": line.row.steps,
                    "working_us": line.row.working_us,
                    "fullest": line.fullest or None,
                }
                for line in self.runs
            ],
            "budgets": [
                {"scope": row.scope, "unit": row.unit, "spent": row.spent, "held": row.held, "cap": row.cap}
                for row in self.accounts
            ],
            "breakers": list(self.breakers),
        }


@click.command(short_help="What is going on: runs, agents, spend against caps.")
@click.option("--once", is_flag=True, help="Print one frame and end.")
@command_options
@click.pass_obj
def top(settings: Settings, once: bool) -> None:
    """Show live runs, who is at work, spend against caps and open breakers; until Ctrl-C. With `--json`, one line a change."""
    import sys

    with store_of(settings) as store:
        if once or not (settings.json or sys.stdout.isatty()):
            _show(settings, frame(store))
            return
        seen = -1
        while True:
            if store.read(lambda tx: tx.ledger.head()[0]) != seen:
                now = frame(store)
                seen = now.head
                if not settings.json:
                    click.clear()
                _show(settings, now)
            time.sleep(_LOOK_S)


def frame(store: Store) -> Frame:
    """Read one moment, from one snapshot."""
    from midwatch.engine import budgeting

    def work(tx: Tx) -> tuple[int, tuple[RunLine, ...], tuple[dict[str, Any], ...]]:
        rows = tx.runs.list(limit=_RUNS, statuses=_LIVE)
        return tx.ledger.head()[0], tuple(_line(tx, row) for row in rows), _breakers(tx)

    head, runs, breakers = store.read(work)
    accounts = tuple(row for row in budgeting.show(store) if row.cap is not None)
    return Frame(head, runs, accounts, breakers)


def _line(tx: Tx, row: RunRow) -> RunLine:
    nodes: tuple[str, ...] = ()
    if row.status == "running":
        nodes = tuple(sorted({one.node for one in tx.transitions.list(row.id) if one.status == "started"}))
    capped = [one for one in tx.budgets.accounts([f"run:{row.id}"]) if one.cap]
    worst = max(capped, key=lambda one: (one.spent + one.held) / (one.cap or 1), default=None)
    told = (
        ""
        if worst is None
        else f"{worst.unit} {shown(worst.unit, worst.spent + worst.held)} of {shown(worst.unit, worst.cap)}"
    )
    return RunLine(row, nodes, told)


def _breakers(tx: Tx) -> tuple[dict[str, Any], ...]:
    """Read the breakers that are not closed, where this home has any."""
    breakers: Any = getattr(tx, "breakers", None)
    if breakers is None:
        return ()
    found = ({"subject": str(row.subject), "state": str(row.state)} for row in breakers.list())
    return tuple(row for row in found if row["state"] != "closed")


def _show(settings: Settings, now: Frame) -> None:
    if settings.json:
        emit({"ok": True, **now.to_json()})
        return
    from midwatch.surfaces.cli.render import table

    if now.runs:
        table(
            ("run", "fleet", "status", "at work", "cost", "tokens", "tool calls", "worked", "fullest cap"),
            [
                (
                    line.row.id[:7],
                    line.row.fleet,
                    line.row.status,
                    ", ".join(line.nodes) or "-",
                    money(line.row.cost),
                    f"{line.row.tokens:,}",
                    line.row.tool_calls,
                    seconds(line.row.working_us),
                    line.fullest or "-",
                )
                for line in now.runs
            ],
        )
    else:
        click.echo("no run is going on or waits", err=True)
    if now.accounts:
        rows = [
            (row.scope, row.unit, shown(row.unit, row.spent + row.held), shown(row.unit, row.cap))
            for row in now.accounts
        ]
        table(("scope", "unit", "spent", "cap"), rows)
    if now.breakers:
        table(("breaker", "state"), [(row["subject"], row["state"]) for row in now.breakers])
