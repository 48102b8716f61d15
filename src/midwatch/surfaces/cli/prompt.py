"""Prompt: on a terminal, a run that waits asks on the spot: yes, no, edit, later.

In:   what a run waits for, a terminal. Out: words recorded under the channel `terminal`; whether anything was answered.
May import: errors; the engine and the wiring when it asks. Must not know: how the run goes on.
Why refusals end in `later`: whoever started a run is often not who may answer; the question stays for who may.
Why all open gates of the run and not those that it named: what is made up is asked like the rest, or it would show.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Callable, Iterator
from typing import Any

import click

from midwatch.errors import MidwatchError, UsageProblem
from midwatch.surfaces.cli.cards import show_card
from midwatch.surfaces.cli.common import Settings, plain, say, store_of
from midwatch.surfaces.cli.speaking import speaker
from midwatch.surfaces.gate_facts import entry

__all__ = ["Prompt", "edited_by_hand", "picked", "possible"]


def possible(settings: Settings, *, wanted: bool) -> bool:
    """Say whether there is somebody to ask: questions go to stderr, so both ends must be a terminal."""
    return wanted and not settings.json and sys.stdin.isatty() and sys.stderr.isatty()


class Prompt:
    """Asks whoever sits at the terminal about one run, each question once: what was put off is not asked again."""

    def __init__(self, settings: Settings, token_file: str | None, edit: Callable[[str, dict[str, Any]], None]) -> None:
        """Take `edit`, called with a gate and its new arguments; it opens the gate again under a new digest."""
        self._settings, self._token, self._edit = settings, token_file, edit
        self._put_off: set[str] = set()

    def ask(self, run: str) -> bool:
        """Ask about each open gate of the run in turn.

        Returns:
            Whether any of them is closed now, so that the run can go on; False also at the end of the input.
        """
        closed = False
        try:
            for gate in self._open(run):
                closed = self._until_said(gate) or closed
        except click.Abort:
            click.echo("", err=True)
        return closed

    def _open(self, run: str) -> list[str]:
        with store_of(self._settings) as store:
            rows = store.read(lambda tx: tx.gates.list(run=run, statuses=("open",)))
        return [row.id for row in rows if row.digest not in self._put_off]

    def _until_said(self, gate: str) -> bool:
        while True:
            with store_of(self._settings) as store:
                row = store.read(lambda tx: tx.gates.get(gate))
                found = None if row is None or row.status != "open" else entry(store, row, full=True)
            if found is None:  # somebody else was faster
                return True
            from midwatch import wiring

            click.echo("", err=True)
            show_card(found, at_us=wiring.clock(), err=True)
            word = self._question(found) if found["question"] else self._action(found)
            if word == "closed":
                return True
            if word == "later":
                self._put_off.add(found["digest"])
                return False

    def _action(self, found: dict[str, Any]) -> str:
        word = click.prompt(
            "[y]es  [n]o  [e]dit  [l]ater", type=click.Choice(["y", "n", "e", "l"]), show_choices=False, err=True
        )
        if word == "l":
            return "later"
        if word == "e":
            with _told():
                self._edit(found["gate"], edited_by_hand(found["arguments"]))
            return "again"
        reason = click.prompt("why (empty for nothing)", default="", show_default=False, err=True)
        return self._say(found["gate"], approve=word == "y", reason=reason)

    def _question(self, found: dict[str, Any]) -> str:
        choices = found["arguments"].get("choices") or []
        numbered = _numbered(choices)
        for place, choice in enumerate(choices, 1):
            click.echo(
                plain(f"  {place}. {choice}" if numbered else f"  - {choice}").replace("\n", "\n     "), err=True
            )
        how = "a number, or words" if numbered else "words"
        text = click.prompt(
            f"answer ({how}; empty for later, - for no answer)", default="", show_default=False, err=True
        )
        if not text:
            return "later"
        if text == "-":
            return self._say(found["gate"], approve=False)
        return self._say(found["gate"], approve=True, value=picked(text, choices))

    def _say(self, gate: str, *, approve: bool, reason: str = "", value: dict[str, Any] | None = None) -> str:
        from midwatch import wiring
        from midwatch.engine import answering

        status = "open"
        with _told(), store_of(self._settings) as store:
            who = speaker(store, self._token, channel="terminal")
            now = wiring.clock()
            made = answering.answer(store, gate, approve=approve, speaker=who, reason=reason, at_us=now, value=value)
            status = made.status
            say(f"gate {gate}: {'said; others must speak too' if status == 'open' else status}")
        return "later" if status == "open" else "closed"


def picked(text: str, choices: list[str]) -> dict[str, Any]:
    """Read an answer: one of the choices in words, else its number, else an answer in words."""
    if text in choices:
        return {"answer": text, "choice": text}
    if _numbered(choices) and text.isascii() and text.isdigit() and 0 < int(text) <= len(choices):
        return {"answer": choices[int(text) - 1], "choice": choices[int(text) - 1]}
    return {"answer": text, "choice": None}


def _numbered(choices: list[str]) -> bool:
    """Number choices only where none of them is a number itself: `2` must not mean two things."""
    return not any(choice.strip().isdecimal() for choice in choices)


def edited_by_hand(now: dict[str, Any]) -> dict[str, Any]:
    """Let the person change arguments in their editor, or on one line where none is named.

    Raises:
        UsageProblem: the editor failed, nothing was changed, or it is not one JSON object.
    """
    named = os.environ.get("VISUAL") or os.environ.get("EDITOR")
    try:
        if named and named.strip():
            edited = click.edit(json.dumps(now, ensure_ascii=True, indent=2), editor=named, extension=".json")
        else:
            edited = click.prompt("all arguments, as one JSON object", default=json.dumps(now), err=True)
    except click.ClickException as error:
        raise UsageProblem(f"the editor `{named}` failed ({error.format_message()}); nothing was changed") from error
    if edited is None:
        raise UsageProblem("the editor was left without a change; nothing was changed")
    try:
        value = json.loads(edited)
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
