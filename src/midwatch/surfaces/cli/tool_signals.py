"""Tool signals: `midwatch tools signals`: which tools' arguments models get wrong, by version and model, and where that is too often.

In:   a home; a run; a threshold. Out: a line for each version of a tool and each model; JSON of the same; exit code 1 on an alarm.
May import: the ledger's queries when it runs. Must not know: how signals come about.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from midwatch.surfaces.cli.common import Settings, command_options, emit, find_run, say, store_of

if TYPE_CHECKING:
    from midwatch.tracing.signals import ToolRow

__all__ = ["signals"]


@click.command("signals", short_help="Show which tools models call wrongly, and how often.")
@click.option("--run", metavar="RUN", help="Count one run only; `last` is the newest.")
@click.option(
    "--over", type=click.IntRange(0, 100), default=10, show_default=True, help="Percent of calls; more is an alarm."
)
@click.option(
    "--least", type=click.IntRange(min=1), default=5, show_default=True, help="Fewer calls than this are no alarm."
)
@command_options
@click.pass_context
def signals(ctx: click.Context, run: str | None, over: int, least: int) -> None:
    """Show how often the arguments of each tool had to be recovered from prose or were refused, by tool version and model.

    Exit code 1 when that is more than `--over` of a version's calls. `midwatch tools show NAME` shows the schema at fault.
    """
    from midwatch.tracing.facts import as_json
    from midwatch.tracing.signals import signals as count

    settings: Settings = ctx.obj
    with store_of(settings) as store:
        found = count(store, run=None if run is None else find_run(store, run), over_permille=over * 10, least=least)
    if settings.json:
        emit({"ok": not found.alarms, "over_percent": over, "least": least, **as_json(found)})
    else:
        _show(found.tools)
        for row in found.models:
            if row.signals:
                told = ", ".join(f"{rule} ({times})" for rule, times in row.rules)
                click.echo(f"{row.model} over {row.route}: {row.signals} signals in {row.answers} answers: {told}")
        for tool in found.tools:
            if tool.alarm:
                say(f"alarm: {_worst(tool)}; `midwatch tools show {tool.tool}` shows its schema")
    if found.alarms:
        ctx.exit(1)


def _show(rows: tuple[ToolRow, ...]) -> None:
    from midwatch.surfaces.cli.render import table

    if not rows:
        click.echo("no tool was called yet")
        return
    shown = [
        (row.tool, row.digest[:12], row.model, row.calls, row.recovered, row.refused, _percent(row), _reason(row))
        for row in rows
    ]
    table(("tool", "digest", "model", "calls", "recovered", "refused", "faulty", "mostly"), shown)


def _percent(row: ToolRow) -> str:
    return f"{row.permille // 10}.{row.permille % 10} %"


def _reason(row: ToolRow) -> str:
    most = (*row.arguments[:1], *row.rules[:1])
    return most[0][0] if most else "-"


def _worst(row: ToolRow) -> str:
    version = f"`{row.tool}` ({row.digest[:12]})"
    return f"{row.faults} of {row.calls} calls of {version} by {row.model} had faulty arguments, mostly {_reason(row)}"
