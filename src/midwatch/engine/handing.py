"""Handing: what an agent may cite, and what the ledger keeps of its handoff or of why that was refused.

In:   an actor, what it sees, its handoff as the pure step read it. Out: evidence by reference; events; how often an answer was refused.
May import: agents, trails, records, tracing; store (port). Must not know: the graph around it, how a handoff is read.

    known     executions that this agent may cite, and what each of them can show
    again     the same task answered with the same handoff a second time, or handed on too often: refused
    refused   the refusal with the reason that only people are told; gives how many this agent has had
    given     the handoff with the labels of its items, which come from the ledger and from nothing that the agent wrote

Why an item's label is that of all its agent had seen, joined with that of what it cites: whoever wrote the sentence chose what to cite,
so a clean reference cleans nothing. Source: CONTAINMENT.md, clauses 1-5.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final

import orjson

from midwatch.agents.answers import Evidence, Rejected
from midwatch.engine.passage import draft
from midwatch.engine.trails import Trails, label_of
from midwatch.records.effect import is_worse
from midwatch.records.label import UNKNOWN, Label, join
from midwatch.tracing.paging import events_of

if TYPE_CHECKING:
    from midwatch.agents.step import View
    from midwatch.engine.context import Segment
    from midwatch.records.call import Actor
    from midwatch.records.effect import EffectRow
    from midwatch.records.event import Event
    from midwatch.records.handoff import Handoff
    from midwatch.store.port import Tx

__all__ = ["HOPS", "TRIES", "Handing"]

TRIES: Final = 5
"""Answers of one agent at one task that may be refused; then it cannot finish."""
HOPS: Final = 64
"""Handoffs of one run; more is agents that pass work around."""


class Handing:
    """Of one segment."""

    def __init__(self, segment: Segment) -> None:
        self._seg = segment

    def known(self, agent: str, view: View) -> Mapping[str, Evidence]:
        """Give what this agent may cite: its own executions, and what handoffs that it received cite."""
        received = {ref for handoff in view.handoffs for _, _, item, _ in handoff.items() for ref in item.evidence}

        def work(tx: Tx) -> dict[str, Evidence]:
            rows = tx.effects.list(self._seg.run, statuses=("done",))
            mine = (row for row in rows if row.kind == "tool" and (row.agent == agent or f"e:{row.id}" in received))
            return {f"e:{row.id}": _evidence(tx, row) for row in mine if row.result is not None}

        return self._seg.store.read(work)

    def again(self, actor: Actor, view: View, handoff: Handoff) -> Rejected | None:
        """Refuse what goes round: the same handoff for the same task, or more handoffs than a run may have."""
        digest = _digest(view, handoff)

        def work(tx: Tx) -> list[Event]:
            found = events_of(tx, self._seg.run, ("handoff",))
            return [event for event in found if _place(event.task) != _place(actor.task)]

        others = self._seg.store.read(work)
        if any(event.data.get("digest") == digest for event in others):
            return Rejected("repeated", "this very handoff was given before for this task; say what is new")
        if len(others) >= HOPS:
            return Rejected("hops", f"the agents of this run have handed over {HOPS} times; it goes no further")
        return None

    def refused(self, actor: Actor, rejected: Rejected, cause: int | None) -> int:
        """Write a refusal down, once for each answer; gives how many this agent has had at its task."""
        seg, now = self._seg, self._seg.clock()

        def work(tx: Tx) -> int:
            before = [e for e in events_of(tx, seg.run, ("handoff.refused",)) if _place(e.task) == _place(actor.task)]
            answers = {event.task for event in before}
            if actor.task in answers:
                return len(answers)
            items = [{**item.to_json(), **_reason(tx, seg.run, item.ref)} for item in rejected.items]
            data = {"code": rejected.code, "reason": rejected.message, "tries": len(answers) + 1, "items": items}
            tx.ledger.append(draft("handoff.refused", actor, now, data, causes=() if cause is None else (cause,)))
            return len(answers) + 1

        return seg.write(work)

    def given(self, actor: Actor, view: View, handoff: Handoff, cause: int | None) -> None:
        """Write a handoff down, with what stands behind each of its items."""
        seg, now = self._seg, self._seg.clock()
        context = self._context(actor.agent, cause)
        leaves = {name: item.evidence for each in view.handoffs for _, _, item, name in each.items()}

        def work(tx: Tx) -> None:
            seqs = {f"e:{row.id}": row.finished_seq or row.intent_seq for row in tx.effects.list(seg.run)}
            items = []
            for field, index, item, name in handoff.items():
                refs = [leaf for ref in item.evidence for leaf in leaves.get(ref, (ref,))]
                events = sorted({seqs[ref] for ref in refs if ref in seqs})
                label = join(context, *(label_of(tx, seq) for seq in events))
                items.append({"id": name, "field": field, "index": index, "events": events, "label": label.to_json()})
            gone = sum(_place(event.task) != _place(actor.task) for event in events_of(tx, seg.run, ("handoff",)))
            data = {
                "status": handoff.status,
                "handoff_blob": tx.blobs.put(orjson.dumps(handoff.to_json())),
                "items_blob": tx.blobs.put(orjson.dumps(items)),
                "received": sorted({name for each in view.handoffs for _, _, _, name in each.items()}),
                "digest": _digest(view, handoff),
                "hop": gone + 1,
            }
            tx.ledger.append(draft("handoff", actor, now, data, causes=() if cause is None else (cause,)))

        seg.write(work)

    def _context(self, agent: str, cause: int | None) -> Label:
        """Give the label of all that an agent had seen when it answered; who cannot tell says so."""
        try:
            if self._seg.trails is None:
                self._seg.trails = Trails(self._seg)
            trails = self._seg.trails
            return trails.context(agent, trails.chosen(agent, () if cause is None else (cause,)))
        except Exception:  # noqa: BLE001  # an item whose causes cannot be told has unknown ones: the worst
            return UNKNOWN


def _place(task: str | None) -> str:
    """Give an agent's place in the graph, the same for each of its turns."""
    return (task or "").rpartition("|")[0]


def _digest(view: View, handoff: Handoff) -> str:
    task = None if view.dispatch is None else view.dispatch.task
    lists = [[field, item.text, list(item.evidence)] for field, _, item, _ in handoff.items()]
    return hashlib.sha256(orjson.dumps([handoff.agent, task, lists, handoff.answer])).hexdigest()


def _evidence(tx: Tx, row: EffectRow) -> Evidence:
    """Say what an execution can show."""
    body = tx.blobs.get(row.result or "")
    envelope = {} if body is None else orjson.loads(body)
    data = envelope.get("data")
    code = data.get("exit_code") if isinstance(data, Mapping) else None
    return Evidence(row.tool, envelope.get("ok") is True, _changed(tx, row), code in (None, 0))


def _changed(tx: Tx, row: EffectRow) -> bool | None:
    """Say whether a call changed something: as its sandbox was seen to, else as its class says; None: it only looks.

    A program that was run and left nothing (its tool may do anything) has looked; a write that left nothing has failed to write.
    """
    intent, ended = tx.ledger.get(row.intent_seq), tx.ledger.get(row.finished_seq or 0)
    seen = {} if ended is None else ended.data.get("observed") or {}
    if seen.get("changes") or seen.get("requests"):
        return True
    if not is_worse(row.effect, "read"):
        return None
    if intent is None or intent.data.get("confined") is not True:
        return True
    return None if row.effect == "grants_authority" else False


def _reason(tx: Tx, run: str, ref: str | None) -> Mapping[str, Any]:
    """Say for people why a reference may not be cited: an agent is not told what other runs and agents did."""
    if ref is None or not ref.startswith("e:"):
        return {}
    row = tx.effects.get(ref[2:])
    return {"why": next(_reasons(row, run))}


def _reasons(row: EffectRow | None, run: str) -> Iterator[str]:
    if row is None:
        yield "no such effect"
    elif row.run != run:
        yield "an effect of another run"
    elif row.status != "done":
        yield "an effect that has not ended, or did not happen"
    elif row.kind != "tool":
        yield "an answer of a model"
    yield "as its code says, or an effect of another agent"
