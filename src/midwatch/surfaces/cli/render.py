"""Render: tables and trees on the terminal.

In:   rows, a trace. Out: text on stdout, without colour where NO_COLOR is set or stdout is no terminal.
May import: `drawing`, tracing's facts. Must not know: where they come from.
Why no markup: what an agent wrote must not be read as formatting, nor steer the terminal.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any, Final

import click

from midwatch.surfaces.cli.common import money, seconds
from midwatch.surfaces.cli.drawing import Branch, Line, columns, line, output, styled
from midwatch.tracing.facts import ModelItem, NodePart, NoteItem, Spend, ToolItem, Trace

__all__ = ["show_trace", "table"]

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


_RIGHT: Final = ("cost", "tokens", "model calls", "tool calls", "spent", "held", "cap", "worked")


def table(heads: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """Print rows under their heads; a head line of blanks is left out."""
    width, _ = output(sys.stdout)
    cells = [[[line((head, "bold"))] for head in heads]] if any(heads) else []
    cells += [[_cell(str(cell)) for cell in row] for row in rows]
    drawn = columns(cells, right=[head in _RIGHT for head in heads], width=width)
    if any(heads):
        across = max(len("".join(text for text, _ in pieces)) for row in drawn for pieces in row)
        drawn.insert(1, [line("─" * across)])
    _print([pieces for row in drawn for pieces in row])


def _cell(text: str) -> list[Line]:
    return [line((part, _STYLES.get(text, ""))) for part in text.split("\n")]


def _print(drawn: Sequence[Line]) -> None:
    _, colour = output(sys.stdout)
    click.echo("\n".join(styled(item, colour=colour) for item in drawn), color=colour)


def show_trace(tree: Trace, used: Spend) -> None:
    """Print a run as a tree of its node tasks."""
    total = (
        f"{money(used.cost)}, {used.tokens:,} tokens, {used.tool_calls:,} tool calls, worked {seconds(used.working_us)}"
    )
    root = Branch(
        line(f"run {tree.run[:7]} of {tree.fleet}: ", (tree.status, _STYLES.get(tree.status, "")), f"  {total}")
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
            for said in _detail(item.detail):
                leaf.add(said)
            for note in item.notes:
                leaf.add(_note(note))
    _print(root.lines(output(sys.stdout)[0]))


def _node(node: NodePart) -> Line:
    took = "" if node.ended_us is None else f"  {seconds(node.ended_us - node.started_us)}"
    return line((node.node, "bold"), f" step {node.step}  ", (node.status, _STYLES.get(node.status, "")), took)


def _tool(item: ToolItem) -> Line:
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
    return line(
        f"tool {item.tool}  ", (outcome, style), took, ("  truncated" if item.truncated else ""), (effect, "dim")
    )


def _refusal(leaf: Branch, item: ToolItem) -> None:
    stages = [f"{mark.get('stage')} {mark.get('outcome')}" for mark in item.verdicts]
    if stages:
        leaf.add(line((" · ".join(stages), "dim")))
    against = item.denied_by
    if against is not None:
        said = against.get("reason") or against.get("scope") or against.get("gate") or ""
        leaf.add(
            line((f"{against.get('outcome')} by {against.get('stage')}", "red"), f": {said}", _by(against.get("by")))
        )


def _detail(said: str) -> list[Line]:
    """Give the end of what a crash or a program said, behind a bar, so that it poses as no line of the tree."""
    ends = [one for one in said.splitlines() if one.strip()][-_DETAIL:]
    return [line(f"| {one if len(one) <= _WIDE else one[: _WIDE - 1] + '…'}") for one in ends]


def _by(rule: Any) -> str:
    return f" ({rule})" if rule else ""


def _model(item: ModelItem) -> Line:
    if item.ok is None:
        return line(f"model {item.model}  ", ("no answer recorded", "yellow"), (f"  e:{item.effect}", "dim"))
    outcome = (item.finish or "ok", "green") if item.ok else (f"failed: {item.code}", "red")
    spent = f"  {item.input:,} in ({item.cached:,} cached), {item.output:,} out, {money(item.cost)}"
    again = f" attempt {item.attempt}" if item.attempt > 1 else ""
    return line(
        f"model {item.model}  ",
        outcome,
        spent,
        f"  {seconds((item.ms or 0) * 1000)}",
        (f"  e:{item.effect}{again}", "dim"),
    )


def _note(note: NoteItem) -> Line:
    shown = [f"{key} {value}" for key, value in note.data.items() if _worth_showing(key, value)]
    style = "yellow" if note.kind.startswith(("gate", "signal", "governor", "effect")) else "dim"
    return line((note.kind, style), f"  {', '.join(shown)}", (f"  event {note.seq}", "dim"))


def _worth_showing(key: str, value: Any) -> bool:
    hidden = key.endswith(("_blob", "_digest")) or key == "digest"
    return not hidden and value not in (None, "", [], {}) and isinstance(value, str | int | list)
