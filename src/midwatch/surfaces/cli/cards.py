"""Cards: one gate as a person sees it on a terminal; and the kernel of the run that it belongs to.

In:   the facts of a gate. Out: text; an open kernel.
May import: the wiring when a kernel is needed. Must not know: how answers are recorded.
"""

from __future__ import annotations

import contextlib
import difflib
import json
import os
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import click

from midwatch.errors import NotFound, UsageProblem
from midwatch.surfaces.cli.common import Settings, began_in, block, folder, moment, money, seconds
from midwatch.surfaces.cli.speaking import read_token

if TYPE_CHECKING:
    from midwatch.config.fleet import Fleet
    from midwatch.engine.kernel import Kernel

__all__ = ["fleet_of", "kernel_of", "show_card"]


def show_card(found: Mapping[str, Any], *, at_us: int, err: bool = False) -> None:
    """Print one card in full: a person must see what they say yes to."""
    card = found.get("card", {})
    does = (card.get("does") or "").strip().splitlines()
    lines = [
        f"gate       {found['gate']}  {found['status']}",
        f"{'question' if found['question'] else 'action':<10} {found['tool']}"
        + (f" ({card.get('effect', '?')})" if not found["question"] else ""),
        f"what       {does[0] if does else '-'}",
        *(f"argument   {name} = {json.dumps(value, ensure_ascii=False)}" for name, value in found["arguments"].items()),
    ]
    lines += _changed(card)
    lines += [f"preview    {line}" for line in (card.get("preview") or "").splitlines()]
    for origin in card.get("origins", []):
        seen = ", ".join(origin["seen_in"]) or "nowhere in the request or in earlier results"
        lines.append(f"seen       {origin['argument']}: {seen}")
    lines += [
        f"why asked  {found['reason']}",
        f"agent      {found['agent']} in run {found['run'][:7]}, started by {found.get('asked_by') or 'nobody known'}",
        *_asked_for(found.get("behind", {})),
        f"undo       {_undo(card.get('reversible'))}",
        f"cost       {'unknown' if card.get('cost') is None else money(card['cost'])}",
        f"needs      {'; '.join(_need(need) for need in found['needs'])}",
        *(_word(word) for word in found.get("said", [])),
        f"until      {moment(found['expires_us'])} ({seconds(max(0, found['expires_us'] - at_us))} left)",
        f"digest     {found['digest']}",
    ]
    click.echo(block(lines), err=err)


def _changed(card: Mapping[str, Any]) -> list[str]:
    if card.get("edited_by") is None:
        return []
    before, now = (
        json.dumps(card.get(key), ensure_ascii=False, indent=1, sort_keys=True).splitlines()
        for key in ("proposed", "arguments")
    )
    lines = difflib.unified_diff(before, now, "the agent", str(card["edited_by"]), lineterm="", n=0)
    return [f"edited     {line}" for line in lines]


def _asked_for(behind: Mapping[str, Any]) -> list[str]:
    lines = []
    if behind.get("input") is not None:
        text = json.dumps(behind["input"], ensure_ascii=False)
        lines.append(f"request    {text if len(text) <= 500 else text[:499] + '…'}")
    calls = behind.get("model_calls", [])
    return lines + [f"proposed   by {call['model']} for {call['agent']} (event {call['event']})" for call in calls]


def _need(need: Mapping[str, Any]) -> str:
    later = ""
    if need["escalates_to"] is not None:
        later = f", `{need['escalates_to']}` too from {moment(need['escalates_us'])}"
    eyes = ", not whoever started the run" if need["four_eyes"] else ""
    return f"{need['said']} of {need['quorum']} yes of `{need['who']}` ({need['by']}{eyes}{later})"


def _word(word: Mapping[str, Any]) -> str:
    reason = f": {word['reason']}" if word["reason"] else ""
    glass = ", breaking the glass" if word["break_glass"] else ""
    return f"said       {word['word']} by {word['by']} ({word['channel']}, {moment(word['at_us'])}{glass}){reason}"


def _undo(reversible: Any) -> str:
    return f"by {reversible}" if isinstance(reversible, str) else "not possible"


def fleet_of(settings: Settings, run: str) -> tuple[Fleet, str]:
    """Load the fleet file that a run was started from, and say which model it uses.

    Raises:
        NotFound: no such run. UsageProblem: it has no file, it was made in Python. InvalidFleet: the file is broken now.
    """
    from midwatch import wiring

    with wiring.open_store(settings.place) as store:
        row = store.read(lambda tx: tx.runs.get(run))
    if row is None:
        raise NotFound(f"no run `{run}` in this home; `midwatch runs ls` lists them")
    if row.fleet_path is None:
        raise UsageProblem(f"run `{run[:7]}` has no fleet file, it was started from Python; go on with it there")
    return wiring.load_fleet(row.fleet_path, preset=row.preset, environ=os.environ, home=settings.place)


@contextlib.contextmanager
def kernel_of(
    settings: Settings, run: str, token_file: str | None, *, workdir: str | None = None, channel: str = "cli"
) -> Iterator[Kernel]:
    """Open the kernel of a run's own fleet.

    Raises:
        NotFound: no such run. UsageProblem: its fleet was made in Python. InvalidFleet, Denied: as `wiring.open`.
    """
    from midwatch import wiring

    fleet, _ = fleet_of(settings, run)
    place = folder(workdir or began_in(settings, run))
    with wiring.open(
        fleet,
        home=settings.place,
        environ=os.environ,
        workdir=place,
        token=read_token(token_file),
        channel=channel,
    ) as kernel:
        yield kernel
