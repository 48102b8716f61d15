"""Render: tables and trees on the terminal; the only module beside `live` that knows rich.

In:   rows, a trace. Out: text on stdout, without colour where NO_COLOR is set or stdout is no terminal.
May import: rich, tracing's facts. Must not know: where they come from.
Why `Text` and never markup: what an agent wrote must not be read as formatting, nor steer the terminal.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text
from rich.tree import Tree

from midwatch.surfaces.cli.common import money, plain, seconds
from midwatch.tracing.facts import ModelItem, NodePart, NoteItem, Spend, ToolItem, Trace

__all__ = ["console", "show_trace", "table"]

_DETAIL = 12
_WIDE = 160
"""How much of what a crash said is shown: lines, and characters of one."""

_STYLES = {
    "done": "green",
    "finished": "green",
    "failed": "red",
    "denied": "red",
    "cancelled": "red",
    "waiting": "yellow",
    "paused": "yellow",
    "interrupted": "yellow",
    "started": "cyan",
    "running": "cyan",
}


def console(*, err: bool = False) -> Console:
    """Make a console on the stream as it is now; a pipe gets wide lines, so that nothing is folded."""
    stream = sys.stderr if err else sys.stdout
    width = None if stream.isatty() else max(200, shutil.get_terminal_size().columns)
    return Console(file=stream, highlight=False, markup=False, emoji=False, soft_wrap=False, width=width)


def table(heads: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """Print rows under their heads; a head line of blanks is left out."""
    grid = Table(box=box.SIMPLE_HEAD if any(heads) else None, show_header=any(heads), pad_edge=False)
    for head in heads:
        right = head in ("cost", "tokens", "model calls", "tool calls", "spent", "held", "cap", "worked")
        grid.add_column(head, justify="right" if right else "left", overflow="fold")
    for row in rows:
        grid.add_row(*(Text(plain(str(cell)), style=_STYLES.get(str(cell), "")) for cell in row))
    console().print(grid)


def show_trace(tree: Trace, used: Spend) -> None:
    """Print a run as a tree of its node tasks."""
    total = (
        f"{money(used.cost)}, {used.tokens:,} tokens, {used.tool_calls:,} tool calls, worked {seconds(used.working_us)}"
    )
    root = Tree(
        _line(f"run {tree.run[:7]} of {tree.fleet}: ", (tree.status, _STYLES.get(tree.status, "")), f"  {total}")
    )
    for note in tree.notes:
        root.add(_note(note))
    for node in tree.nodes:
        branch = root.add(_node(node))
        for item in node.items:
            if isinstance(item, ToolItem):
                leaf = branch.add(_tool(item))
                _refusal(leaf, item)
            elif isinstance(item, ModelItem):
                leaf = branch.add(_model(item))
            else:
                leaf = branch.add(_note(item))
                continue
            for line in _detail(item.detail):
                leaf.add(line)
            for note in item.notes:
                leaf.add(_note(note))
    console().print(root)


def _line(*parts: str | tuple[str, str]) -> Text:
    text = Text()
    for part in parts:
        body, style = part if isinstance(part, tuple) else (part, "")
        text.append(plain(body).replace("\n", " "), style=style)
    return text


def _node(node: NodePart) -> Text:
    took = "" if node.ended_us is None else f"  {seconds(node.ended_us - node.started_us)}"
    return _line((node.node, "bold"), f" step {node.step}  ", (node.status, _STYLES.get(node.status, "")), took)


def _tool(item: ToolItem) -> Text:
    outcome = (
        "open"
        if item.ok is None
        else "ok"
        if item.ok
        else f"refused: {item.code}"
        if item.effect is None
        else f"error: {item.code}"
    )
    style = "green" if item.ok else "yellow" if item.ok is None else "red"
    effect = (
        "" if item.effect is None else f"  e:{item.effect}" + (f" attempt {item.attempt}" if item.attempt > 1 else "")
    )
    took = "" if item.ms is None else f"  {seconds(item.ms * 1000)}"
    return _line(
        f"tool {item.tool}  ", (outcome, style), took, ("  truncated" if item.truncated else ""), (effect, "dim")
    )


def _refusal(leaf: Tree, item: ToolItem) -> None:
    stages = [f"{mark.get('stage')} {mark.get('outcome')}" for mark in item.verdicts]
    if stages:
        leaf.add(_line((" · ".join(stages), "dim")))
    against = item.denied_by
    if against is not None:
        said = against.get("reason") or against.get("scope") or against.get("gate") or ""
        leaf.add(
            _line((f"{against.get('outcome')} by {against.get('stage')}", "red"), f": {said}", _by(against.get("by")))
        )


def _detail(said: str) -> list[Text]:
    """Give the end of what a crash or a program said, behind a bar, so that it poses as no line of the tree."""
    lines = [line for line in said.splitlines() if line.strip()]
    return [_line(f"| {line if len(line) <= _WIDE else line[: _WIDE - 1] + '…'}") for line in lines[-_DETAIL:]]


def _by(rule: Any) -> str:
    return f" ({rule})" if rule else ""


def _model(item: ModelItem) -> Text:
    if item.ok is None:
        return _line(f"model {item.model}  ", ("no answer recorded", "yellow"), (f"  e:{item.effect}", "dim"))
    outcome = (item.finish or "ok", "green") if item.ok else (f"failed: {item.code}", "red")
    spent = f"  {item.input:,} in ({item.cached:,} cached), {item.output:,} out, {money(item.cost)}"
    again = f" attempt {item.attempt}" if item.attempt > 1 else ""
    return _line(
        f"model {item.model}  ",
        outcome,
        spent,
        f"  {seconds((item.ms or 0) * 1000)}",
        (f"  e:{item.effect}{again}", "dim"),
    )


def _note(note: NoteItem) -> Text:
    shown = [f"{key} {value}" for key, value in note.data.items() if _worth_showing(key, value)]
    style = "yellow" if note.kind.startswith(("gate", "signal", "governor", "effect")) else "dim"
    return _line((note.kind, style), f"  {', '.join(shown)}", (f"  event {note.seq}", "dim"))


def _worth_showing(key: str, value: Any) -> bool:
    hidden = key.endswith(("_blob", "_digest")) or key == "digest"
    return not hidden and value not in (None, "", [], {}) and isinstance(value, str | int | list)
