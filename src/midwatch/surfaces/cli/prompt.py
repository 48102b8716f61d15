"""Prompt: on a terminal, a run that waits asks on the spot: yes, no, edit, later.

In:   what a run waits for, a terminal. Out: words recorded under the channel `terminal`; whether anything was answered.
May import: errors; the engine and the wiring when it asks. Must not know: how the run goes on.
Why refusals end in `later`: whoever started a run is often not who may answer; the question stays for who may.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import click

from midwatch.errors import MidwatchError, UsageProblem
from midwatch.surfaces.cli.cards import show_card
from midwatch.surfaces.cli.common import Settings, plain, say, store_of
from midwatch.surfaces.cli.speaking import speaker
from midwatch.surfaces.gate_facts import entry

__all__ = ["ask", "possible"]


def possible(settings: Settings, *, wanted: bool) -> bool:
    """Say whether there is somebody to ask: questions go to stderr, so both ends must be a terminal."""
    return wanted and not settings.json and sys.stdin.isatty() and sys.stderr.isatty()


def ask(settings: Settings, gates: Sequence[str], token_file: str | None, edit: Any) -> bool:
    """Ask about each gate in turn.

    Args:
        edit: called with a gate and its new arguments; opens the gate again under a new digest.

    Returns:
        Whether any of them is closed now, so that the run can go on.
    """
    closed = False
    for gate in gates:
        while True:
            word = _one(settings, gate, token_file)
            if word != "edit":
                break
            with _told():
                edit(gate, _editor(settings, gate))
        closed = closed or word == "closed"
    return closed


def _one(settings: Settings, gate: str, token_file: str | None) -> str:
    from midwatch import wiring
    from midwatch.engine import answering

    with store_of(settings) as store:
        row = store.read(lambda tx: tx.gates.get(gate))
        if row is None or row.status != "open":
            return "later"
        found = entry(store, row, full=True)
    click.echo("", err=True)
    show_card(found, at_us=wiring.clock(), err=True)
    if found["question"]:
        return _question(settings, found, token_file)
    word = click.prompt(
        "[y]es  [n]o  [e]dit  [l]ater", type=click.Choice(["y", "n", "e", "l"]), show_choices=False, err=True
    )
    if word in ("e", "l"):
        return "edit" if word == "e" else "later"
    reason = click.prompt("why (empty for nothing)", default="", show_default=False, err=True)
    outcome = "later"
    with _told(), store_of(settings) as store:
        who = speaker(store, token_file, channel="terminal")
        made = answering.answer(store, gate, approve=word == "y", speaker=who, reason=reason, at_us=wiring.clock())
        say(f"gate {gate}: {made.status}")
        outcome = "closed" if made.status != "open" else "later"
    return outcome  # noqa: RET504 - `_told` swallows a refusal on the way


def _question(settings: Settings, found: dict[str, Any], token_file: str | None) -> str:
    from midwatch import wiring
    from midwatch.engine import answering

    choices = found["arguments"].get("choices") or []
    for place, choice in enumerate(choices, 1):
        click.echo(plain(f"  {place}. {choice}"), err=True)
    text = click.prompt(
        "answer (a number, or words; empty for later, - for no answer)", default="", show_default=False, err=True
    )
    if not text:
        return "later"
    picked = choices[int(text) - 1] if text.isdigit() and 0 < int(text) <= len(choices) else None
    value = None if text == "-" else {"answer": picked or text, "choice": picked}
    outcome = "later"
    with _told(), store_of(settings) as store:
        who = speaker(store, token_file, channel="terminal")
        answering.answer(
            store,
            found["gate"],
            approve=value is not None,
            speaker=who,
            reason="",
            at_us=wiring.clock(),
            value=value,
        )
        outcome = "closed"
    return outcome  # noqa: RET504 - `_told` swallows a refusal on the way


def _editor(settings: Settings, gate: str) -> dict[str, Any]:
    """Let the person change the arguments in their editor, or on one line where there is none."""
    with store_of(settings) as store:
        row = store.read(lambda tx: tx.gates.get(gate))
        now = {} if row is None else entry(store, row)["arguments"]
    text = json.dumps(now, ensure_ascii=False, indent=2)
    named = os.environ.get("VISUAL") or os.environ.get("EDITOR")
    if named and Path(named.split()[0]).name:
        edited = click.edit(text, extension=".json")
    else:
        edited = click.prompt("all arguments, as one JSON object", default=json.dumps(now), err=True)
    try:
        value = json.loads(edited or "")
    except ValueError as error:
        raise UsageProblem(f"that is not JSON ({error}); nothing was changed") from error
    if not isinstance(value, dict):
        raise UsageProblem("the arguments must be one JSON object; nothing was changed")
    return value


@contextlib.contextmanager
def _told() -> Iterator[None]:
    """Tell a refusal and go on: the question stays open."""
    try:
        yield
    except MidwatchError as error:
        say(f"midwatch: {error}")
