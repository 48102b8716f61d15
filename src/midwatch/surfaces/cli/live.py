"""Live: the picture of a run on a terminal: agents in the order of the graph, and spend against caps.

In:   a `Progress` that somebody else grows. Out: a block on stderr, redrawn a few times a second until the run stops.
May import: rich. Must not know: events, the kernel.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Final

from rich.console import Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from midwatch.surfaces.cli.common import money, plain
from midwatch.surfaces.cli.progress import AgentLine, Progress
from midwatch.surfaces.cli.render import console

__all__ = ["picture", "shown"]

_MARKS: Final = {
    "waiting": ("·", "dim"),
    "thinking": ("", "cyan"),
    "acting": ("", "blue"),
    "asking": ("?", "yellow"),
    "done": ("✓", "green"),
    "failed": ("✗", "red"),
}
_ARROWS: Final = {"ceo": "┌ ", "specialist": "├ ", "synthesis": "└ "}


@contextlib.contextmanager
def shown(progress: Progress) -> Iterator[None]:
    """Show `progress` while the block runs; the last state stays on the screen."""
    spinner = Spinner("dots")
    screen = console(err=True)
    with Live(
        get_renderable=lambda: picture(progress, spinner), console=screen, refresh_per_second=8, redirect_stdout=False
    ):
        yield


def picture(progress: Progress, spinner: Spinner) -> RenderableType:
    """Draw one moment."""
    grid = Table.grid(padding=(0, 2))
    for _ in range(3):
        grid.add_column()
    for _ in range(3):
        grid.add_column(justify="right")
    for agent in list(progress.agents.values()):
        grid.add_row(*_row(agent, spinner))
    head = Text(f"{progress.fleet}  run {(progress.run or '-')[:7]}", style="bold")
    parts: list[RenderableType] = [head, grid, _spend(progress)]
    if progress.note:
        parts.append(Text(plain(progress.note), style="yellow", no_wrap=True, overflow="ellipsis"))
    return Group(*parts)


def _row(agent: AgentLine, spinner: Spinner) -> tuple[RenderableType, ...]:
    mark, style = _MARKS[agent.state]
    busy = agent.state in ("thinking", "acting")
    name = Text(_ARROWS.get(agent.role, "  ") + agent.name)
    state = Table.grid(padding=(0, 1))
    state.add_row(spinner if busy else Text(mark, style=style), Text(agent.state, style=style))
    doing = Text(plain(agent.doing), style="dim", no_wrap=True, overflow="ellipsis")
    return name, state, doing, money(agent.cost), f"{agent.tokens:,} tokens", f"{agent.tools} tools"


def _spend(progress: Progress) -> RenderableType:
    grid = Table.grid(padding=(0, 2))
    for unit, used in (("cost", progress.cost), ("tokens", progress.tokens), ("tool_calls", progress.tools)):
        cap = progress.caps.get(unit)
        told = money(used) if unit == "cost" else f"{used:,}"
        if cap is None:
            grid.add_row(Text(unit.replace("_", " ")), Text("no cap", style="dim"), Text(told))
            continue
        bound = money(cap) if unit == "cost" else f"{cap:,}"
        style = "red" if used * 10 >= cap * 9 else "green"
        bar = ProgressBar(total=max(cap, 1), completed=used, width=24, complete_style=style, finished_style=style)
        grid.add_row(Text(unit.replace("_", " ")), bar, Text(f"{told} of {bound}"))
    return grid
