"""Live: the picture of a run on a terminal: agents in the order of the graph, and spend against caps.

In:   a `Progress` that somebody else grows. Out: a block on stderr, redrawn a few times a second until the run stops.
May import: `drawing`, `progress`. Must not know: events, the kernel.
"""

from __future__ import annotations

import contextlib
import itertools
import sys
from collections.abc import Iterator
from typing import Final

from midwatch.surfaces.cli.common import money
from midwatch.surfaces.cli.drawing import Line, columns, line, live, output
from midwatch.surfaces.cli.progress import AgentLine, Progress

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
_SPINNER: Final = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"
_BAR: Final = 24
_DOING: Final = 48
"""Letters of what an agent does that are shown: the picture is one line an agent."""


@contextlib.contextmanager
def shown(progress: Progress) -> Iterator[None]:
    """Show `progress` while the block runs; the last state stays on the screen."""
    turns = itertools.cycle(_SPINNER)
    with live(lambda: picture(progress, next(turns), output(sys.stderr)[0])):
        yield


def picture(progress: Progress, turn: str, width: int) -> list[Line]:
    """Draw one moment.

    Args:
        turn: the sign of who is busy. width: of the terminal.
    """
    head = line((f"{progress.fleet}  run {(progress.run or '-')[:7]}", "bold"))
    rows = [[[cell] for cell in _row(agent, turn)] for agent in list(progress.agents.values())]
    spend = [[[cell] for cell in row] for row in _spend(progress)]
    agents = columns(rows, right=[False, False, False, True, True, True], width=max(width, 100))
    bounds = columns(spend, right=[False] * 3, width=max(width, 100))
    lines = [head, *(pieces for row in (*agents, *bounds) for pieces in row)]
    return [*lines, line((progress.note, "yellow"))] if progress.note else lines


def _row(agent: AgentLine, turn: str) -> tuple[Line, ...]:
    mark, style = _MARKS[agent.state]
    doing = agent.doing if len(agent.doing) <= _DOING else f"{agent.doing[: _DOING - 1]}…"
    name = line(_ARROWS.get(agent.role, "  ") + agent.name)
    state = line((f"{mark or turn} {agent.state}", style))
    numbers = (money(agent.cost), f"{agent.tokens:,} tokens", f"{agent.tools} tools")
    return name, state, line((doing, "dim")), *(line(number) for number in numbers)


def _spend(progress: Progress) -> Iterator[tuple[Line, Line, Line]]:
    for unit, used in (("cost", progress.cost), ("tokens", progress.tokens), ("tool_calls", progress.tools)):
        cap = progress.caps.get(unit)
        told, name = money(used) if unit == "cost" else f"{used:,}", line(unit.replace("_", " "))
        if cap is None:
            yield name, line(("no cap", "dim")), line(told)
            continue
        bound = money(cap) if unit == "cost" else f"{cap:,}"
        full = min(_BAR, used * _BAR // max(cap, 1))
        bar = line(("━" * full, "red" if used * 10 >= cap * 9 else "green"), ("━" * (_BAR - full), "dim"))
        yield name, bar, line(f"{told} of {bound}")
