"""Mandate: `midwatch mandate show RUN`: what a run was allowed in advance, and what of it is left.

In:   a run. Out: a tree of mandates with their slots, spent and left; JSON of the same.
May import: the engine's view of mandates when it runs. Must not know: how mandates are read out of requests, or spent.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from midwatch.surfaces.cli.common import Settings, block, command_options, emit, find_run, moment, store_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from midwatch.engine.mandates_shown import Shown, ShownLine, ShownMandate

__all__ = ["mandate"]

_SHOWN = 6
"""Words of one slot that are printed; `--json` has all."""


@click.group(short_help="Show what a run was allowed in advance, and what is left.")
def mandate() -> None:
    """Show what a run was allowed in advance, and what is left."""


@mandate.command("show", short_help="Show a run's mandates: issuer, slots, spent, left.")
@click.argument("run")
@command_options
@click.pass_obj
def show(settings: Settings, run: str) -> None:
    """Show what the request of RUN allowed before anything else was read, what plans cut out of it, what is spent and left.

    RUN may be `last`. Grants of the fleet file that are mandates have neither counts nor sums; how often they covered a call is shown.
    """
    from midwatch.engine.mandates_shown import of_run
    from midwatch.tracing.facts import as_json

    with store_of(settings) as store:
        found = of_run(store, find_run(store, run))
    if settings.json:
        emit({"ok": True, **as_json(found)})
        return
    click.echo(block(_lines(found)))


def _lines(found: Shown) -> Iterator[str]:
    if found.refused is not None:
        yield f"the request allowed nothing in advance: {found.refused}"
    elif not found.mandates:
        yield "the request allowed nothing in advance"
    below: dict[str | None, list[ShownMandate]] = {}
    for item in found.mandates:
        below.setdefault(item.parent, []).append(item)
    todo = [(item, 0) for item in reversed(below.get(None, []))]
    while todo:
        item, depth = todo.pop()
        yield from _mandate(item, "  " * depth)
        todo += [(child, depth + 1) for child in reversed(below.get(item.id, []))]
    for name, calls in found.grants.items():
        yield f"{name} of the fleet file covered {calls} calls"


def _mandate(item: ShownMandate, indent: str) -> Iterator[str]:
    ends = "" if item.expires_us is None else f", until {moment(item.expires_us)}"
    to = "" if item.to is None else f" for {item.to}"
    yield f"{indent}{item.id}{to}: {', '.join(item.issuer)} by {item.by}, event {item.event}{ends}"
    for line in item.lines:
        yield f"{indent}  {line.tool}: {_spent(line)}"
        for name, slots in line.slots.items():
            yield f"{indent}    {name}: {' or '.join(_slot(slot) for slot in slots)}"


def _spent(line: ShownLine) -> str:
    calls = "no cap" if line.left is None else f"{line.left} left"
    sums = "".join(
        f"; {name} {line.sums_spent.get(name, '0')} spent, {rest} left" for name, rest in line.sums_left.items()
    )
    return f"{line.spent} calls spent, {calls}{sums}"


def _slot(slot: dict[str, Any]) -> str:
    """Write one slot in words."""
    if "one_of" in slot:
        return _few([value for _, value in slot["one_of"]]) or "nothing"
    if "mentioned" in slot:
        return f"a name that the request mentions ({_few(slot['mentioned'])})"
    if "of_words" in slot:
        return "the request's own words"
    if "up_to" in slot:
        return f"up to {slot['up_to']}"
    if "from" in slot:
        where = f" of a call bound by {', '.join(name for name, _ in slot['where'])}" if slot["where"] else ""
        return f"{slot['path'] or 'any field'} of {slot['from']}{where}"
    return json.dumps(slot, ensure_ascii=False)


def _few(values: list[str]) -> str:
    more = len(values) - _SHOWN
    return ", ".join(f"`{value}`" for value in values[:_SHOWN]) + (f" and {more} more" if more > 0 else "")
