"""Cards: one gate as a person sees it, and as JSON; and the kernel of the run that it belongs to.

In:   a gate's row. Out: plain facts, text on stdout.
May import: records, store (port); the wiring when a kernel is needed. Must not know: how answers are recorded.
What is shown of a canary is what is shown of any gate: no field here tells them apart.
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
from midwatch.surfaces.cli.common import Settings, began_in, folder, moment, money, plain, seconds
from midwatch.surfaces.cli.speaking import read_token

if TYPE_CHECKING:
    from midwatch.config.fleet import Fleet
    from midwatch.engine.kernel import Kernel
    from midwatch.records.gate import GateRow
    from midwatch.store.port import Store

__all__ = ["entry", "fleet_of", "kernel_of", "open_needs", "show_card"]


def entry(store: Store, row: GateRow, *, full: bool = False) -> dict[str, Any]:
    """Give the facts of a gate as JSON.

    Args:
        full: with the whole card, what was said, and the events that led to it.
    """

    def work(tx: Any) -> dict[str, Any]:
        card = json.loads(tx.blobs.get(row.card) or b"{}")
        words = tx.gates.said(row.id, row.nonce)
        needs = [
            {
                "by": need.by,
                "who": need.who,
                "quorum": need.quorum,
                "four_eyes": need.four_eyes,
                "said": len(
                    {word.by for word in words if word.word == "approve" and need.who in word.roles.split(",")}
                ),
                "escalates_to": None if need.escalate is None else need.escalate.to,
                "escalates_us": None if need.escalate is None else need.escalate.at_us,
            }
            for need in row.asks.needs
        ]
        found = {
            "gate": row.id,
            "run": row.run,
            "status": row.status,
            "question": row.kind == "question",
            "tool": row.tool,
            "agent": row.agent,
            "arguments": card.get("arguments", {}),
            "reason": row.reason,
            "needs": needs,
            "opened_us": row.opened_us,
            "expires_us": row.expires_us,
            "action": row.action or row.id,
            "digest": row.digest,
            "edited_by": row.edited_by,
            "answered_by": row.answered_by,
        }
        if not full:
            return found
        said = [
            {"by": word.by, "word": word.word, "reason": word.reason, "at_us": word.at_us, "channel": word.channel}
            for word in words
        ]
        return found | {"card": card, "said": said, "asked_by": row.asked_by, "behind": _behind(tx, row.run, card)}

    return store.read(work)


def _behind(tx: Any, run: str, card: Mapping[str, Any]) -> dict[str, Any]:
    """What asked for it: the run's input, and the model call behind the proposal."""
    row = tx.runs.get(run)
    given = None if row is None else json.loads(tx.blobs.get(row.input) or b"null")
    calls = []
    for seq in card.get("causes", []):
        event = tx.ledger.get(seq)
        if event is not None and event.data.get("model"):
            calls.append({"event": seq, "agent": event.agent, "model": event.data["model"]})
    return {"input": given, "model_calls": calls}


def open_needs(store: Store, row: GateRow) -> str:
    """Say which needs are not met yet; empty when all are."""
    needs = entry(store, row)["needs"]
    return ", ".join(
        f"{need['quorum'] - need['said']} more of `{need['who']}`" for need in needs if need["said"] < need["quorum"]
    )


def show_card(found: Mapping[str, Any], *, at_us: int, err: bool = False) -> None:
    """Print one card in full: a person must see what they say yes to."""
    card = found.get("card", {})
    lines = [
        f"gate       {found['gate']}  {found['status']}",
        f"{'question' if found['question'] else 'action':<10} {found['tool']}"
        + (f" ({card.get('effect', '?')})" if not found["question"] else ""),
        f"what       {(card.get('does') or '-').strip().splitlines()[0]}",
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
    click.echo(plain("\n".join(lines)), err=err)


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
    return f"said       {word['word']} by {word['by']} ({word['channel']}, {moment(word['at_us'])}){reason}"


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
    return wiring.load_fleet(row.fleet_path, preset=row.preset, environ=os.environ)


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
