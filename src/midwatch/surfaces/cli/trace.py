"""Trace: `midwatch trace RUN` and `midwatch which RUN TEXT`: what happened, and where a piece of output comes from.

In:   a short id, a fragment. Out: a tree, or one place with its prompt; JSON of the same.
May import: tracing and the wiring when it runs; `render` when it shows. Must not know: how events come to be.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from midwatch.surfaces.cli.common import Settings, command_options, emit, find_run, money, plain, store_of

if TYPE_CHECKING:
    from midwatch.tracing.facts import Which

__all__ = ["trace", "which"]

_PROMPT_LINES = 12


@click.command(short_help="Show what a run did, node by node.")
@click.argument("run")
@command_options
@click.pass_obj
def trace(settings: Settings, run: str) -> None:
    """Show what RUN did: per node its model calls, proposals, verdicts, results, gates. With --json: every event."""
    from midwatch.tracing import queries

    with store_of(settings) as store:
        full = find_run(store, run)
        if settings.json:
            emit({"ok": True, "run": full, "events": [event.to_json() for event in queries.events(store, full)]})
            return
        tree = queries.trace(store, full)
        used = queries.spend(store, full)
    from midwatch.surfaces.cli.render import show_trace

    show_trace(tree, used)


@click.command(short_help="Find the model call behind a piece of output.")
@click.argument("run")
@click.argument("text")
@command_options
@click.pass_obj
def which(settings: Settings, run: str, text: str) -> None:
    """Find which node, agent, step, prompt and model call wrote TEXT, a fragment of RUN's output."""
    from midwatch.tracing import queries
    from midwatch.tracing.facts import as_json

    with store_of(settings) as store:
        found = queries.which(store, find_run(store, run), text)
    if settings.json:
        emit({"ok": True, **as_json(found)})
        return
    click.echo(plain("\n".join(_lines(found))))


def _lines(found: Which) -> list[str]:
    place = found.place
    lines = [
        f"{place.what} of {place.node or '-'} (agent {place.agent or '-'}, step {place.step}, event {place.seq})",
    ]
    if place.what == "tool result":
        lines.append(f"  tool     {place.name}, effect {place.effect or '-'}")
    if found.seq is not None:
        usage = found.usage or {}
        lines += [
            f"  model    {found.model} over route {found.route}, effect {found.effect}, event {found.seq}",
            f"  tokens   {_tokens(usage)}, {money(found.cost)}, finish {found.finish}",
        ]
    first = found.seen[0]
    if first.seq != place.seq:
        lines.append(f"  first    {first.what} of {first.node or '-'}: {first.name}, event {first.seq}")
    lines += [
        f"  also     {item.what} of {item.node or '-'}: {item.name}, event {item.seq}"
        for item in found.seen[1:]
        if item.seq != place.seq and item.what == "tool result"
    ]
    if found.request is not None:
        lines += _prompt(found.request, found.request_blob)
    return lines


def _prompt(request: Any, blob: str | None) -> list[str]:
    """Give the first lines of each message, within a bound; `--json` has all of it."""
    lines = [f"  prompt   {len(request['messages'])} messages, blob {(blob or '-')[:12]} (in full: --json)"]
    for message in request["messages"]:
        body = str(message.get("content") or "").strip().splitlines() or ["(no text)"]
        lines += [f"    {message['role']}: {_cut(body[0])}", *(f"      {_cut(line)}" for line in body[1:3])]
    return lines if len(lines) <= _PROMPT_LINES else [*lines[:_PROMPT_LINES], "    …"]


def _cut(line: str, width: int = 140) -> str:
    return line if len(line) <= width else line[: width - 1] + "…"


def _tokens(usage: Any) -> str:
    return f"{usage.get('input', 0):,} in ({usage.get('cached', 0):,} cached), {usage.get('output', 0):,} out"
