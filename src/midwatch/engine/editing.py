"""Editing: a person puts other arguments in the place of an agent's; the result is another action and asks anew.

In:   a gate that waits, new arguments, who edits. Out: the gate, open again under a new digest.
May import: containment, gates, tools, records, store (port), `helping`. Must not know: the graph.
Why every guard again, here and when it runs: an edit is a proposal like any other. What it may never do is talk a gate away, so
the old needs stay beside those of the rules that now apply; and where people have tokens, who edits does not approve.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import orjson

from midwatch.config.fleet import Fleet
from midwatch.containment import grants
from midwatch.engine.answering import clean, ended, in_words
from midwatch.engine.card import Circumstances, card
from midwatch.engine.helping import HelperFailed, Place, labels_in, preview_of, state_of
from midwatch.engine.places import about
from midwatch.errors import Denied, GateNotUsable, NotFound, Problem, UsageProblem
from midwatch.gates import rules
from midwatch.gates.binding import action_digest, bind, new_nonce
from midwatch.gates.review import Refused, Speaker, roles_for
from midwatch.records import decision
from midwatch.records.effect import Label
from midwatch.records.envelope import Envelope
from midwatch.records.gate import GateRow, Notice, Terms
from midwatch.store.port import Store, Tx
from midwatch.tools import arguments
from midwatch.tools.decorate import Tool

__all__ = ["Edit", "edit", "merged"]


@dataclass(frozen=True, slots=True)
class Edit:
    """What a person wants to run instead.

    Attributes:
        arguments: all of them, as one JSON object; not only those that change.
    """

    gate: str
    arguments: Mapping[str, Any]
    speaker: Speaker
    reason: str


@dataclass(frozen=True, slots=True)
class _Judged:
    """What the guards said of the new action."""

    tool: Tool[..., Any]
    checked: arguments.Checked
    action: str
    terms: Terms
    state: str
    preview: str | None


async def edit(store: Store, fleet: Fleet, place: Place, wanted: Edit, *, at_us: int) -> GateRow:
    """Put other arguments in the place of those that wait for a yes.

    Args:
        place: where the tool's helpers are called; its context carries the gate's id as key.

    Returns:
        The gate, `open`, with a new digest and nonce; earlier words do not count.

    Raises:
        NotFound, GateNotUsable: nothing waits. UsageProblem: the arguments do not fit the tool, or nothing changed.
        Denied: this person may not answer the gate, or no grant covers the new action.
    """
    row = store.read(lambda tx: tx.gates.get(wanted.gate))
    if row is None:
        raise NotFound(f"no gate `{wanted.gate}` in this home; `midwatch inbox ls` lists those that wait")
    in_words(wanted.reason)
    _usable(store, fleet, row, wanted, at_us)
    held = store.read(lambda tx: tx.blobs.get(row.arguments))
    if (
        held == _checked(place.registry.get(row.tool), place, wanted).canonical
    ):  # before any guard: made-up ones answer alike
        raise UsageProblem("these are the arguments that the gate has already; change one, or approve it")
    labels = labels_in(store, fleet, row.run, place.registry)
    judged = await _judge(fleet, place, row, wanted, at_us, labels)
    if judged.action == row.action:
        raise UsageProblem("these are the arguments that the gate has already; change one, or approve it")
    return store.write(lambda tx: _amend(tx, fleet, row, wanted, judged, at_us), durable=True)


async def _judge(
    fleet: Fleet, place: Place, row: GateRow, wanted: Edit, at_us: int, labels: frozenset[Label]
) -> _Judged:
    """Take the new action past the guards: contract, grants, rules; and ask the tool's helpers about it."""
    tool = place.registry.get(row.tool)
    checked = _checked(tool, place, wanted)
    granted = grants.decide(fleet.grants, agent=row.agent, tool=row.tool, arguments=checked.arguments)
    if isinstance(granted, decision.Denied):
        raise Denied(f"{granted.reason}: {granted.hint or 'no grant covers the new arguments'}")
    asked = rules.decide(
        fleet,
        contract=tool.contract,
        agent=row.agent,
        arguments=checked.arguments,
        at_us=at_us,
        labels=labels,
    )
    try:
        state = await state_of(place, tool, checked.arguments)
    except HelperFailed as failed:
        raise GateNotUsable(
            f"the target's state cannot be read ({failed}), so nobody can be asked about it"
        ) from failed
    action = action_digest(
        tool=row.tool,
        tool_digest=tool.contract.digest,
        code=tool.code(),
        args_digest=checked.args_digest,
        agent=row.agent,
        policy_digest=fleet.policy_digest,
    )
    preview = await preview_of(place, tool, checked.arguments)
    return _Judged(tool, checked, action, merged(row.asks, asked), state, preview)


def _amend(tx: Tx, fleet: Fleet, row: GateRow, wanted: Edit, judged: _Judged, at_us: int) -> GateRow:
    """Replace the row by one that asks for the new action."""
    who = wanted.speaker.name
    before = orjson.loads(tx.blobs.get(row.card) or b"{}")
    reason = f"{before.get('reason', row.reason)}; `{who}` changed the arguments"
    causes = tuple(before.get("causes", ()))
    about_it = Circumstances(
        row.run, row.agent, before.get("node", ""), fleet.environment, reason, judged.preview, causes
    )
    shown = card(tx, judged.tool.contract, judged.checked.arguments, about_it)
    first = before.get("proposed", before.get("arguments"))
    new = replace(
        row,
        nonce=new_nonce(),
        status="open",
        opened_us=at_us,
        answered_us=None,
        answered_by=None,
        answer_reason=None,
        reason=reason,
        card=tx.blobs.put(orjson.dumps({**shown, "edited_by": who, "proposed": first})),
        action=judged.action,
        arguments=tx.blobs.put(judged.checked.canonical),
        precondition=judged.state,
        terms=judged.terms.to_text(),
        edited_by=who,
        escalated_us=None,
    )
    digest = bind(
        action=new.action, run=new.run, precondition=new.precondition, expires_us=new.expires_us, nonce=new.nonce
    )
    new = tx.gates.amend(replace(new, digest=digest))
    data = {
        "gate": row.id,
        "digest_before": row.digest,
        "digest": digest,
        "by": who,
        "reason": clean(tx, wanted.reason),
        "card_blob": new.card,
        "arguments_blob": new.arguments,
    }
    tx.ledger.append(about(tx, row.run, "gate.edited", data, gate=row.id, at_us=at_us))
    for channel in judged.terms.channels:
        name = f"{new.id}:{new.nonce}:{channel}:opened"
        tx.notices.add(Notice(name, new.id, new.nonce, channel, "opened", created_us=at_us, next_us=at_us))
    return new


def _usable(store: Store, fleet: Fleet, row: GateRow, wanted: Edit, at_us: int) -> None:
    run = store.read(lambda tx: tx.runs.get(row.run))
    if run is None or ended(row, run):
        raise GateNotUsable(f"the run of gate `{row.id}` has ended, so there is nothing to change")
    if row.status not in ("open", "approved") or at_us > row.expires_us:
        raise GateNotUsable(f"gate `{row.id}` is {row.status} or too old; only what waits can be changed")
    if row.kind == "release":
        raise UsageProblem(
            f"gate `{row.id}` asks whether a run's changes may leave their sandboxes; they cannot be edited here. Say no, and commit "
            "some of them with `midwatch effects commit RUN --only GLOB`"
        )
    if row.kind == "question":  # what is made up is edited like the rest, or the refusal would tell it
        raise UsageProblem(f"gate `{row.id}` asks for an answer; there are no arguments to change")
    if row.policy_digest != fleet.policy_digest:
        raise GateNotUsable(
            f"gate `{row.id}` was opened under another policy; `midwatch resume` asks again under this one"
        )
    mine = roles_for(row, wanted.speaker, approve=False, at_us=at_us)
    if isinstance(mine, Refused):
        raise Denied(mine.reason)


def _checked(tool: Tool[..., Any], place: Place, wanted: Edit) -> arguments.Checked:
    clean, _ = place.scrub.value(dict(wanted.arguments))
    checked = arguments.check(tool, clean)
    if isinstance(checked, Envelope):
        error = checked.error
        found = () if error is None else error.field_errors
        problems = tuple(Problem(item.path or "arguments", item.message, "invalid-arguments") for item in found)
        raise UsageProblem(problems or f"the arguments do not fit `{tool.contract.name}`")
    if checked.cursor is not None:
        raise UsageProblem("`cursor` reads on in an earlier result; it is nothing that a person approves")
    return checked


def merged(old: Terms, asked: decision.Allowed | decision.Ask) -> Terms:
    """Give the needs of the rules that apply now, and beside them those that the agent's own arguments had."""
    new = asked.terms if isinstance(asked, decision.Ask) and asked.terms is not None else Terms(())
    known = {need.by for need in new.needs}
    needs = (*new.needs, *(need for need in old.needs if need.by not in known))
    return Terms(needs, tuple(dict.fromkeys((*new.channels, *old.channels))))
