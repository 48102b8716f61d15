"""Gating: stage 5 of the pipeline: is a person's yes needed, is it there, and is it for this very action?

In:   a passage with its tool and checked arguments. Out: nothing when it may go on, `Answered` after a no, `Waiting` else.
May import: gates, records, store (port), `helping`, `record`. Must not know: who people are, how they are told.
Why the target's state is read again before a yes is used: between the question and the answer the world went on
(DESIGN.md, promise 6). What changed asks again, with a new nonce, so that no earlier word counts.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

import orjson
import rfc8785

from midwatch.engine.answering import standing
from midwatch.engine.card import Circumstances, card
from midwatch.engine.context import Segment
from midwatch.engine.editing import merged
from midwatch.engine.helping import HelperFailed, Place, labels_in, preview_of, state_of
from midwatch.engine.passage import Answered, Passage, Waiting, draft, known
from midwatch.engine.record import Record
from midwatch.gates import rules
from midwatch.gates.binding import action_digest, bind, bind_first, new_nonce
from midwatch.gates.review import met
from midwatch.records.decision import Ask
from midwatch.records.envelope import Envelope
from midwatch.records.gate import GateKind, GateRow, Need, Notice, Terms
from midwatch.store.port import Tx
from midwatch.tools.arguments import check
from midwatch.tools.builtin.gates import REQUEST_HUMAN, URGENCY_US
from midwatch.tools.perform import PerformContext

__all__ = ["MOST_NOS", "Gating"]

MOST_NOS: Final = 20
"""How often people may say no in one run before nobody is asked any more: an agent that varies what it asks wears nobody down."""

_ID: Final = 16


class Gating:
    """Asks people for the passages of one segment."""

    def __init__(self, segment: Segment, record: Record) -> None:
        self._seg, self._record = segment, record

    def place(self, p: Passage) -> Place:
        """Where the helpers of a passage's tool are called, under the call's own key."""
        seg = self._seg
        context = PerformContext(
            idempotency_key=p.effect,
            run=p.actor.run,
            agent=p.actor.agent,
            clock=seg.clock,
            workdir=seg.workdir,
            limiter=seg.limiter,
            limits=seg.fleet.sandbox_of(p.actor.agent).limits,
        )
        return Place(seg.registry, seg.staging.peek(p.actor.agent), seg.scrub, context)

    def edited(self, p: Passage) -> str | None:
        """Give the arguments that a person put in the place of the agent's, as JSON text; None when nobody did."""

        def work(tx: Tx) -> str | None:
            gate = tx.gates.get(p.effect)
            if gate is None or gate.edited_by is None:
                return None
            body = tx.blobs.get(gate.arguments)
            return None if body is None else body.decode()

        return self._seg.store.read(work)

    async def decide(self, p: Passage) -> Answered | Waiting | None:
        """Carry out stage 5."""
        gate = self._seg.store.read(lambda tx: tx.gates.get(p.effect))
        if gate is not None and gate.status == "denied":
            return self._no(p, _no_of(gate), by="person", gate=gate.id)  # whatever the rules say by now
        verdict = self._verdict(p, gate)
        if verdict is None:
            return None
        now = self._seg.clock()
        if gate is None or (gate.status == "used" and p.attempt > 1):
            return await self._ask(p, verdict, old=gate)
        if gate.status == "open" and now <= gate.expires_us:
            self._record.release(p)
            return Waiting(gate=gate.id)
        if gate.status == "approved" and now <= gate.expires_us:
            return await self._use(p, verdict, gate)
        return self._no(p, "no valid yes was given in time", by=verdict.by, gate=gate.id)

    def _no(self, p: Passage, reason: str, **detail: str) -> Answered:
        self._record.release(p)
        p.mark("gates", "deny", **detail)
        return self._record.refuse(p, "denied", reason, hint="do not propose the same action again")

    def _enough(self, p: Passage, state: str) -> str | None:
        """Say why nobody is asked any more: no to this very action, on the target as it is, is not asked twice; nor is no end of others."""
        rows = self._seg.store.read(lambda tx: tx.gates.list(run=p.actor.run, statuses=("denied",), limit=10_000))
        if any(row.kind == "action" and (row.action, row.precondition) == (self._action(p), state) for row in rows):
            return "a person said no to this very action in this run"
        if sum(row.kind != "canary" for row in rows) >= MOST_NOS:
            return f"people said no {MOST_NOS} times in this run, and are not asked any more"
        return None

    def asks_again(self, p: Passage) -> bool:
        """Say whether the gate was opened anew since its yes was read: somebody changed the action at that very moment."""
        gate = self._seg.store.read(lambda tx: tx.gates.get(p.effect))
        return gate is not None and gate.status == "open" and self._seg.clock() <= gate.expires_us

    def binding(self, p: Passage, gate: GateRow) -> str:
        """Recompute the digest of one asking from what is about to run; a gate of an older home by that home's formula."""
        if not gate.action:
            tool, checked = known(p)
            return bind_first(
                tool=tool.contract.name,
                tool_digest=tool.contract.digest,
                args_digest=checked.args_digest,
                agent=p.actor.agent,
                run=p.actor.run,
                policy_digest=self._seg.fleet.policy_digest,
                expires_us=gate.expires_us,
                nonce=gate.nonce,
            )
        return bind(
            action=self._action(p),
            run=p.actor.run,
            precondition=gate.precondition,
            expires_us=gate.expires_us,
            nonce=gate.nonce,
        )

    def _verdict(self, p: Passage, gate: GateRow | None) -> Ask | None:
        tool, checked = known(p)
        now = self._seg.clock()
        if tool.contract.name == REQUEST_HUMAN:
            who = self._seg.fleet.review.ask
            asked = str(checked.arguments.get("question", ""))
            wait = URGENCY_US[checked.arguments.get("urgency", "normal")]
            return Ask(asked, by="request_human", who=who, expires_us=wait, terms=Terms((Need("request_human", who),)))
        verdict = rules.decide(
            self._seg.fleet,
            contract=tool.contract,
            agent=p.actor.agent,
            arguments=checked.arguments,
            at_us=now,
            labels=labels_in(self._seg.store, self._seg.fleet, p.actor.run, self._seg.registry),
        )
        if p.contained is not None:
            verdict = rules.besides(verdict, p.contained)
        if isinstance(verdict, Ask):
            if gate is None or gate.edited_by is None:
                return verdict
            return replace(verdict, terms=merged(gate.asks, verdict))
        if gate is not None and gate.edited_by is not None:  # an edit does not talk a gate away
            left = max(1, gate.expires_us - now)
            return Ask(gate.reason, by="edited", who=gate.who, expires_us=left, terms=gate.asks)
        p.mark("gates", "pass", by=verdict.by)
        return None

    async def _use(self, p: Passage, verdict: Ask, gate: GateRow) -> Answered | Waiting | None:
        """Let an approved action pass if it is the one that was approved, on the target as it was; else ask again."""
        tool, checked = known(p)
        try:
            state = await state_of(self.place(p), tool, checked.arguments)
        except HelperFailed as failed:
            return self._unreadable(p, verdict, failed)
        stands = not gate.action or self._seg.store.read(lambda tx: met(gate, standing(tx, gate)))
        if stands and state == gate.precondition and gate.digest == self.binding(p, gate):
            p.gate = gate
            p.mark("gates", "pass", by=verdict.by, gate=gate.id, answered_by=gate.answered_by)
            return None
        changed = "the target changed since" if state != gate.precondition else "the tool or the policy changed since"
        if not stands:
            changed = "who said yes may not say it any more"
        return await self._ask(p, replace(verdict, reason=f"{verdict.reason}; asked again: {changed}"), old=gate)

    def _unreadable(self, p: Passage, verdict: Ask, failed: HelperFailed) -> Answered:
        self._record.release(p)
        p.mark("gates", "deny", by=verdict.by, reason=str(failed))
        message = "the target's state cannot be read, so nobody can be asked about it"
        return self._record.refuse(p, "unavailable", message, hint="try again later")

    async def _ask(self, p: Passage, verdict: Ask, *, old: GateRow | None) -> Answered | Waiting:
        """Open the gate; an old one of the same place is replaced, and what was said to it does not count again."""
        tool, checked = known(p)
        try:
            state = await state_of(self.place(p), tool, checked.arguments)
        except HelperFailed as failed:
            return self._unreadable(p, verdict, failed)
        enough = self._enough(p, state) if old is None else None
        if enough is not None:
            return self._no(p, enough, by="person")
        preview = await preview_of(self.place(p), tool, checked.arguments)
        made_up = await self._made_up(p)
        now = self._seg.clock()
        p.mark("gates", "ask", by=verdict.by, who=verdict.who)

        def work(tx: Tx) -> None:
            cause = self._record.propose(tx, p, now)
            shown = self._card(tx, p, verdict, preview)
            row = self._row(tx, p, verdict, shown=shown, state=state, now=now)
            if old is None:
                opened = tx.gates.open(row)
            elif old.status in ("open", "approved"):
                opened = tx.gates.amend(replace(row, edited_by=old.edited_by))
            else:
                opened = tx.gates.reopen(replace(row, edited_by=old.edited_by))
            data = {"gate": opened.id, "digest": opened.digest, "who": opened.who, "card_blob": opened.card}
            tx.ledger.append(draft("gate.opened", p.actor, now, data, causes=(cause,)))
            self._tell(tx, opened, now)
            if made_up is not None:
                self._canary(tx, p, verdict, opened, made_up, cause)
            tx.budgets.release(p.reservation)

        self._seg.write(work)
        return Waiting(gate=p.effect)

    def _row(self, tx: Tx, p: Passage, verdict: Ask, *, shown: Mapping[str, Any], state: str, now: int) -> GateRow:
        tool, checked = known(p)
        run = tx.runs.get(p.actor.run)
        kind: GateKind = "question" if tool.contract.name == REQUEST_HUMAN else "action"
        row = GateRow(
            id=p.effect,
            run=p.actor.run,
            agent=p.actor.agent,
            tool=tool.contract.name,
            digest="",
            nonce=new_nonce(),
            policy_digest=self._seg.fleet.policy_digest,
            who=verdict.who,
            reason=verdict.reason,
            card=tx.blobs.put(orjson.dumps(shown)),
            status="open",
            opened_us=now,
            expires_us=now + verdict.expires_us,
            kind=kind,
            action=self._action(p),
            arguments=tx.blobs.put(checked.canonical),
            asked_by="" if run is None else run.asked_by,
            precondition=state,
            terms=(verdict.terms or Terms((Need(verdict.by, verdict.who),))).to_text(),
        )
        return replace(row, digest=self.binding(p, row))

    def _card(
        self, tx: Tx, p: Passage, verdict: Ask, preview: str | None, values: Mapping[str, Any] | None = None
    ) -> dict[str, Any]:
        tool, checked = known(p)
        actor, environment = p.actor, self._seg.fleet.environment
        lacks = tuple(lack.to_json() for lack in p.ruling.chain) if p.ruling is not None and p.contained else ()
        about = Circumstances(actor.run, actor.agent, actor.node, environment, verdict.reason, preview, p.causes, lacks)
        return card(tx, tool.contract, checked.arguments if values is None else values, about)

    def _action(self, p: Passage) -> str:
        tool, checked = known(p)
        return action_digest(
            tool=tool.contract.name,
            tool_digest=tool.contract.digest,
            code=tool.code(),
            args_digest=checked.args_digest,
            agent=p.actor.agent,
            policy_digest=self._seg.fleet.policy_digest,
        )

    def _tell(self, tx: Tx, gate: GateRow, now: int) -> None:
        for channel in gate.asks.channels:
            name = f"{gate.id}:{gate.nonce}:{channel}:opened"
            tx.notices.add(Notice(name, gate.id, gate.nonce, channel, "opened", created_us=now, next_us=now))

    async def _made_up(self, p: Passage) -> tuple[dict[str, Any], str | None] | None:
        """Draw whether a made-up question follows; give its arguments and their preview, as the real one has."""
        every = self._seg.fleet.review.canary
        tool, checked = known(p)
        if not every or tool.contract.name == REQUEST_HUMAN or secrets.randbelow(every):
            return None
        values = {
            name: "*" if isinstance(value, str) and tool.contract.arg(name).role in ("target", "command") else value
            for name, value in checked.arguments.items()
        }
        made = check(tool, values)
        if (
            isinstance(made, Envelope) or made.args_digest == checked.args_digest
        ):  # what nobody could tell from a real one
            return None
        return values, await preview_of(self.place(p), tool, values)

    def _canary(
        self, tx: Tx, p: Passage, verdict: Ask, gate: GateRow, made_up: tuple[dict[str, Any], str | None], cause: int
    ) -> None:
        """Ask also about an action that nobody proposed and that must be denied; a yes does nothing but tell."""
        (values, preview), now = made_up, gate.opened_us
        nonce = new_nonce()
        name, digest, action = (
            hashlib.sha256(f"canary\x1f{word}\x1f{nonce}".encode()).hexdigest() for word in ("id", "digest", "action")
        )
        row = replace(
            gate,
            id=name[:_ID],
            kind="canary",
            nonce=nonce,
            digest=digest,
            action=action,
            arguments=tx.blobs.put(rfc8785.dumps(values)),
            card=tx.blobs.put(orjson.dumps(self._card(tx, p, verdict, preview, values))),
            precondition="",
        )
        tx.gates.open(row)
        data = {"gate": row.id, "digest": digest, "who": row.who, "card_blob": row.card}
        tx.ledger.append(draft("gate.opened", p.actor, now, data, causes=(cause,)))
        self._tell(tx, row, now)


def _no_of(gate: GateRow) -> str:
    """Say no in the person's own words, where they gave any."""
    return f"a person said no: {gate.answer_reason}" if gate.answer_reason else "a person said no"
