"""Inbox: what waits for a person: `midwatch inbox ls | show | approve | edit | deny | stats | reviews | review | serve | deliver`.

In:   a short id and a word. Out: tables and cards on stdout, what was recorded on stderr; JSON with `--json`.
May import: errors; engine, tracing and the wiring when a command runs. Must not know: how a word counts.
Why canaries look like the rest: a person who could tell them apart would read only them.
"""

from __future__ import annotations

import importlib
import json
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Final

import click

from midwatch.errors import UsageProblem
from midwatch.surfaces.cli.common import Settings, command_options, emit, find_run, say, seconds, store_of
from midwatch.surfaces.cli.speaking import speaker, token_option

if TYPE_CHECKING:
    from midwatch.records.gate import GateRow
    from midwatch.store.port import Store
    from midwatch.tracing.fatigue import PersonFacts

__all__ = ["Said", "answer_gate", "inbox", "onward", "read_arguments"]

_ELSEWHERE: Final = {
    "serve": ("serve:serve", "Serve the page behind signed links, and the API."),
    "deliver": ("deliver:deliver", "Send what channels were not told yet, once."),
}


class _Inbox(click.Group):
    """Adds the commands that need the extra `server` or the network, imported when asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Name all of them."""
        there = [
            name
            for name, (place, _) in _ELSEWHERE.items()
            if find_spec(f"midwatch.surfaces.cli.{place.partition(':')[0]}")
        ]
        return sorted({*super().list_commands(ctx), *there})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import one."""
        if cmd_name not in _ELSEWHERE:
            return super().get_command(ctx, cmd_name)
        module, _, attribute = _ELSEWHERE[cmd_name][0].partition(":")
        found = getattr(importlib.import_module(f"midwatch.surfaces.cli.{module}"), attribute)
        if not isinstance(found, click.Command):
            raise TypeError(f"`{cmd_name}` leads to no command")
        return found


@click.group(cls=_Inbox, short_help="See and answer what waits for a person.")
def inbox() -> None:
    """See and answer what waits for a person."""


@inbox.command("ls", short_help="List what waits.")
@click.option("--run", "run", help="Only of this run.")
@click.option("--all", "everything", is_flag=True, help="Answered and expired ones, too.")
@click.option("--limit", type=click.IntRange(1, 100_000), default=200, show_default=True)
@command_options
@click.pass_obj
def list_gates(settings: Settings, run: str | None, everything: bool, limit: int) -> None:
    """List what waits, oldest first; the very same action asked several times is one line with a count."""
    from midwatch import wiring
    from midwatch.surfaces.gate_facts import entry

    with store_of(settings) as store:
        full = None if run is None else find_run(store, run)
        statuses = () if everything else ("open",)
        rows = store.read(lambda tx: tx.gates.list(run=full, statuses=statuses, limit=limit + 1))
        more, rows = len(rows) > limit, rows[:limit]
        over = set() if everything else _cancelled(store, {row.run for row in rows})
        found = [entry(store, row) for row in rows if row.run not in over]
    now = wiring.clock()
    if settings.json:
        emit({"ok": True, "gates": found, "more": more})
        return
    if more:
        say(f"these are the oldest {limit:,}; there are more, `--limit` shows them")
    if not found:
        say("nothing waits")
        return
    from midwatch.surfaces.cli.render import table

    groups: dict[str, list[dict[str, Any]]] = {}
    for item in found:
        groups.setdefault(item["action"] if item["status"] == "open" else item["gate"], []).append(item)
    heads = ("gate", "alike", "waits", "left", "asked", "agent", "tool", "arguments")
    table(heads, [_line(items, now) for items in groups.values()])


def _cancelled(store: Store, runs: set[str]) -> set[str]:
    """Give those that were cancelled: nothing of theirs can be answered any more."""
    rows = store.read(lambda tx: [tx.runs.get(run) for run in sorted(runs)])
    return {row.id for row in rows if row is not None and row.status == "cancelled"}


def _line(items: list[dict[str, Any]], now: int) -> tuple[str, ...]:
    first = items[0]
    left = first["expires_us"] - now
    asked = ", ".join(f"{need['who']} {need['said']}/{need['quorum']}" for need in first["needs"])
    status = seconds(left) if first["status"] == "open" and left > 0 else first["status"]
    alike = "" if len(items) == 1 else str(len(items))
    text = json.dumps(first["arguments"], ensure_ascii=False)
    shown = text if len(text) <= 60 else f"{text[:59]}…"
    return (
        first["gate"][:8],
        alike,
        seconds(now - first["opened_us"]),
        status,
        asked,
        first["agent"],
        first["tool"],
        shown,
    )


@inbox.command("show", short_help="Show one card in full.")
@click.argument("gate")
@command_options
@click.pass_obj
def show(settings: Settings, gate: str) -> None:
    """Show GATE: the exact action, what it would change, where its values came from, what asked for it, what was said."""
    from midwatch import wiring
    from midwatch.surfaces.cli.cards import show_card
    from midwatch.surfaces.gate_facts import entry

    with store_of(settings) as store:
        row = store.read(lambda tx: tx.gates.find(gate))
        found = entry(store, row, full=True)
    if settings.json:
        emit({"ok": True, **found})
        return
    show_card(found, at_us=wiring.clock())


@dataclass(frozen=True, slots=True)
class Said:
    """One word as the command line gives it; see `engine.answering.answer`."""

    gate: str
    approve: bool
    reason: str = ""
    by: str | None = None
    batch: bool = False
    value: dict[str, Any] | None = None
    break_glass: bool = False


def answer_gate(settings: Settings, said: Said, token_file: str | None) -> None:
    """Record one word, or the same word to every gate of the very same action, and tell what came of it."""
    from midwatch import wiring
    from midwatch.engine import answering

    with store_of(settings) as store:
        full = store.read(lambda tx: tx.gates.find(said.gate)).id
        who = speaker(store, token_file, said.by)
        now, yes, why = wiring.clock(), said.approve, said.reason
        if said.batch:
            rows = list(answering.answer_batch(store, full, approve=yes, speaker=who, reason=why, at_us=now))
        else:
            made = answering.answer(
                store,
                full,
                approve=yes,
                speaker=who,
                reason=why,
                at_us=now,
                value=said.value,
                break_glass=said.break_glass,
            )
            rows = [made]
        _tell(settings, store, rows, who.name)


def _tell(settings: Settings, store: Store, rows: list[GateRow], by: str) -> None:
    first = rows[0]
    if settings.json:
        told = [{"gate": row.id, "run": row.run, "status": row.status} for row in rows]
        one = {"gate": first.id, "run": first.run, "status": first.status, "by": by}
        emit({"ok": True, **one, "gates": told})
        return
    from midwatch.surfaces.gate_facts import open_needs

    for row in rows:
        missing = open_needs(store, row) if row.status == "open" else ""
        said = f"said by {by}; still needs {missing}" if missing else f"{row.status} by {row.answered_by or by}"
        say(f"gate {row.id}: {said}: {row.tool}{f' of {row.agent}' if row.agent else ''}")
    for run in dict.fromkeys(row.run for row in rows if row.status != "open"):
        say(f"go on with: midwatch {onward(store, run)} {run[:7]}")


def onward(store: Store, run: str) -> str:
    """Give the command that makes use of an answer: a run that is done waits for nothing but its commit."""
    row = store.read(lambda tx: tx.runs.get(run))
    return "effects commit" if row is not None and row.status == "done" else "resume"


@inbox.command("approve", short_help="Say yes.")
@click.argument("gate")
@click.option("--batch", is_flag=True, help="Also to every other gate of the very same action.")
@click.option("--reason", default="", help="Why; kept in the ledger.")
@click.option("--answer", "text", help="The answer to a question, in words.")
@click.option("--choice", help="The answer to a question, one of its choices.")
@click.option("--break-glass", is_flag=True, help="Without the right to; needs --reason, and is reviewed afterwards.")
@click.option("--by", help="Who; only where people have no tokens.")
@token_option
@command_options
@click.pass_obj
def approve(
    settings: Settings,
    gate: str,
    batch: bool,
    reason: str,
    text: str | None,
    choice: str | None,
    break_glass: bool,
    by: str | None,
    token_file: str | None,
) -> None:
    """Say yes to GATE. It holds once, for exactly the action that is shown, until the gate expires."""
    value = {"answer": text or "", "choice": choice} if text is not None or choice is not None else None
    if batch and (value is not None or break_glass):
        raise UsageProblem("`--batch` says a plain yes; answer questions and break glasses one at a time")
    answer_gate(settings, Said(gate, True, reason, by, batch, value, break_glass), token_file)


@inbox.command("deny", short_help="Say no.")
@click.argument("gate")
@click.option("--batch", is_flag=True, help="Also to every other gate of the very same action.")
@click.option("--reason", default="", help="Why; kept in the ledger.")
@click.option("--by", help="Who; only where people have no tokens.")
@token_option
@command_options
@click.pass_obj
def deny(settings: Settings, gate: str, batch: bool, reason: str, by: str | None, token_file: str | None) -> None:
    """Say no to GATE; the agent is told."""
    answer_gate(settings, Said(gate, False, reason, by, batch), token_file)


def read_arguments(now: dict[str, Any], pairs: tuple[str, ...], whole: str | None) -> dict[str, Any]:
    """Make the new arguments: all of them from `@FILE` or JSON, or single ones set over what stands there now.

    Raises:
        UsageProblem: what is given is no JSON, or no `NAME=JSON`.
    """
    from midwatch.surfaces.cli.run import read_input

    if (whole is None) == (not pairs):
        raise UsageProblem("say what changes, with `--set NAME=JSON` (repeatable) or with `--arguments JSON|@FILE`")
    if whole is not None:
        value = read_input(whole, (), option="--arguments")
        if not isinstance(value, dict):
            raise UsageProblem("`--arguments` must be one JSON object, with every argument")
        return value
    changed = dict(now)
    for pair in pairs:
        name, mark, text = pair.partition("=")
        if not mark or not name:
            raise UsageProblem(f'`--set {pair}` must be `NAME=JSON`, such as `version="2.1"`')
        try:
            changed[name] = json.loads(text)
        except ValueError:
            changed[name] = text  # a bare word is text, as a person at a prompt means it
    return changed


def _by_hand(now: dict[str, Any], pairs: tuple[str, ...], whole: str | None) -> dict[str, Any]:
    import sys

    from midwatch.surfaces.cli.prompt import edited_by_hand

    if pairs or whole is not None:
        raise UsageProblem("`--editor` opens all arguments; `--set` and `--arguments` are other ways to say them")
    if not sys.stdin.isatty():
        raise UsageProblem("`--editor` needs a terminal; `--set NAME=JSON` or `--arguments @FILE` need none")
    return edited_by_hand(now)


@inbox.command("edit", short_help="Put other arguments in their place; asks anew.")
@click.argument("gate")
@click.option("--set", "pairs", multiple=True, metavar="NAME=JSON", help="One argument; repeatable.")
@click.option("--arguments", "whole", metavar="JSON|@FILE", help="All arguments.")
@click.option("--editor", "by_hand", is_flag=True, help="All arguments, in $VISUAL or $EDITOR; needs a terminal.")
@click.option("--reason", default="", help="Why; kept in the ledger.")
@click.option("--workdir", metavar="DIR", help="What the tool's preview may see; else where the run was started.")
@token_option
@command_options
@click.pass_obj
def edit(
    settings: Settings,
    gate: str,
    pairs: tuple[str, ...],
    whole: str | None,
    by_hand: bool,
    reason: str,
    workdir: str | None,
    token_file: str | None,
) -> None:
    """Change what GATE asks about. Every guard is passed again, and the new action needs its own yes."""
    from midwatch.surfaces.cli.cards import kernel_of, show_card
    from midwatch.surfaces.gate_facts import entry

    with store_of(settings) as store:
        row = store.read(lambda tx: tx.gates.find(gate))
        now = entry(store, row)["arguments"]
    new = _by_hand(now, pairs, whole) if by_hand else read_arguments(now, pairs, whole)
    with kernel_of(settings, row.run, token_file, workdir=workdir) as kernel:
        changed = kernel.edit(row.id, new, reason=reason)
        found = entry(kernel.store, changed, full=True)
    if settings.json:
        emit({"ok": True, **found})
        return
    show_card(found, at_us=changed.opened_us)
    say(f"gate {row.id} asks about this now; answer with: midwatch inbox approve {row.id[:8]}")


@inbox.command("stats", short_help="How people answer: how fast, how often yes.")
@click.option("--since", default="30d", show_default=True, help="How far back, such as 12h or 30d.")
@command_options
@click.pass_obj
def stats(settings: Settings, since: str) -> None:
    """Show for each person how they answer, and which runs ask most."""
    import dataclasses

    from midwatch import wiring
    from midwatch.config.quantities import QuantityError, parse_duration
    from midwatch.tracing.fatigue import fatigue

    try:
        back = parse_duration(since)
    except QuantityError as error:
        raise UsageProblem(f"`--since`: {error}") from error
    with store_of(settings) as store:
        found = fatigue(store, since_us=max(0, wiring.clock() - back))
    if settings.json:
        people = [dataclasses.asdict(person) for person in found.people]
        runs = [{"run": run, "answers": count} for run, count in found.runs]
        emit({"ok": True, "waiting": found.waiting, "people": people, "runs": runs})
        return
    say(f"{found.waiting:,} wait now")
    if not found.people:
        say(f"nobody answered anything in the last {since}")
        return
    from midwatch.surfaces.cli.render import table

    heads = ("who", "answers", "yes", "median", "9 of 10 within", "made up", "missed", "broken", "")
    table(
        heads,
        [
            (
                person.name,
                person.answers,
                f"{person.yes * 100 // max(1, person.answers)} %",
                seconds(person.median_us),
                seconds(person.p90_us),
                person.canaries,
                person.missed,
                person.broken_glasses,
                "tired?" if person.tired else "",
            )
            for person in found.people
        ],
    )
    table(("run", "answers"), [(run[:7], count) for run, count in found.runs[:10]])
    for person in found.people:
        if person.tired:
            say(_tired(person))


def _tired(person: PersonFacts) -> str:
    if person.missed:
        made_up = f"{person.missed} of {person.canaries} made-up questions"
        return f"{person.name} said yes to {made_up}, which nobody may say yes to: this looks like rubber-stamping"
    fast = f"{person.yes} of {person.answers} answers, half of them within {seconds(person.median_us)}"
    return f"{person.name} said yes in {fast}: this looks like rubber-stamping"


@inbox.command("reviews", short_help="Broken glasses that nobody has reviewed.")
@command_options
@click.pass_obj
def reviews(settings: Settings) -> None:
    """List answers that were given without the right to and wait for somebody else's review."""
    import dataclasses

    from midwatch.surfaces.cli.common import moment

    with store_of(settings) as store:
        found = store.read(lambda tx: tx.gates.unreviewed())
    if settings.json:
        emit({"ok": True, "reviews": [dataclasses.asdict(item) for item in found]})
        return
    if not found:
        click.echo("nothing waits for a review", err=True)
        return
    from midwatch.surfaces.cli.render import table

    table(("gate", "who", "when", "reason"), [(item.gate, item.by, moment(item.at_us), item.reason) for item in found])


@inbox.command("review", short_help="Review a broken glass.")
@click.argument("gate")
@click.option("--who", "--by-whom", "who", required=True, help="Whose answer is reviewed.")
@click.option("--text", required=True, help="What you found; kept in the ledger.")
@token_option
@command_options
@click.pass_obj
def review(settings: Settings, gate: str, who: str, text: str, token_file: str | None) -> None:
    """Review the answer that WHO gave to GATE by breaking the glass; it takes an approver who is somebody else."""
    from midwatch import wiring
    from midwatch.engine import answering

    with store_of(settings) as store:
        full = store.read(lambda tx: tx.gates.find(gate)).id
        reviewer = speaker(store, token_file)
        answering.review(store, full, who, speaker=reviewer, text=text, at_us=wiring.clock())
    if settings.json:
        emit({"ok": True, "gate": full, "who": who, "reviewer": reviewer.name})
        return
    say(f"gate {full}: the answer of {who} is reviewed by {reviewer.name}")
