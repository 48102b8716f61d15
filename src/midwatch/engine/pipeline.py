"""The pipeline: one tool call past every guard, one named stage a line (DESIGN.md, section 2).

In:   an `Actor`, the call's id and what the model wrote. Out: `Answered` with an envelope, or `Waiting` for a person.
May import: everything right of engine. Must not know: the graph around it.
Why values: a denial is data for the agent; only a halt is raised, and it is sticky (`Segment.halt`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from fnmatch import fnmatchcase
from typing import Any, Final

import orjson

from midwatch.engine import acquiring, handles, leasing, quarantine
from midwatch.engine.containing import Containing
from midwatch.engine.context import Segment
from midwatch.engine.gating import Gating
from midwatch.engine.governing import Governing
from midwatch.engine.helping import reconcile
from midwatch.engine.journaling import Journal
from midwatch.engine.mandating import Stale
from midwatch.engine.observing import left_nothing, observe, seen_in
from midwatch.engine.outcomes import Outcomes
from midwatch.engine.passage import Answered, Passage, Waiting, draft, known
from midwatch.engine.reader import Asks, Reader
from midwatch.engine.record import Record
from midwatch.engine.staging import Observed, Turn
from midwatch.errors import (
    Divergence,
    LayerLost,
    RunHalted,
    Unseen,
)
from midwatch.records.call import Actor
from midwatch.records.effect import EffectRow
from midwatch.records.envelope import Envelope, ErrorBody
from midwatch.store.port import Tx
from midwatch.tools import arguments, envelope, perform
from midwatch.tools.builtin.gates import REQUEST_HUMAN
from midwatch.tools.builtin.reader import READER
from midwatch.tools.decorate import Tool

__all__ = ["Pipeline"]

JUDGED: Final = 3
"""How often a call is judged whose grounds change before it begins."""
LEASE_LOST: Final = "another call took what this one was to write to before it began; nothing was done"
MOVED: Final = "what this call rests on was changed while it was decided"
REPEATABLE: Final = ("pure", "read")
ATTEMPTS: Final = 2
"""Of a call that knows its key and whose end nobody saw, in one segment; then the run waits, and `resume` tries again."""


class Pipeline:
    """Carries tool calls of one segment past the guards."""

    def __init__(self, segment: Segment) -> None:
        self._seg = segment
        self._record = Record(segment)
        self._gating = Gating(segment, self._record)
        self._containing = Containing(segment)
        self._outcomes = Outcomes(segment)
        self._reader = Reader(segment, self._containing.handles)
        self.governing = Governing(segment, self._record)
        self._journal = Journal(segment, self._record, self._gating, self._containing, self._outcomes)

    def reads_with(self, ask: Asks) -> None:
        """Let the isolated reader ask models: it takes the path of every model call."""
        self._reader.ask = ask

    async def tool(
        self,
        actor: Actor,
        call_id: str,
        name: str,
        raw: str,
        causes: tuple[int, ...],
        *,
        guessed: str | None = None,
    ) -> Answered | Waiting:
        """Carry out one tool call, at most once for its place in the run.

        Args:
            guessed: the rule by which the call was recovered from prose before it came here, None when it stood there plainly.

        Raises:
            Halted: the run must stop; nothing more of it happens in this segment.
        """
        for attempt in range(ATTEMPTS):
            passage = Passage(actor, call_id, name, raw, causes, guessed=guessed)
            with self._seg.at_work(actor):
                outcome = await self._carry(passage)
            unknown = isinstance(outcome, Waiting) and outcome.in_doubt is not None
            if not unknown or not self._repeatable(passage) or attempt == ATTEMPTS - 1:
                break  # under its own key an idempotent call may be made again: a new proposal of it would have another one
        return outcome

    async def _carry(self, passage: Passage) -> Answered | Waiting:
        """Take one passage through the ten stages."""
        self._seg.check()
        stop = self._contract(passage) or await self._journalled(passage) or await self._begun(passage)
        if stop is not None:
            return stop
        async with self._seg.staging.turn(passage.actor.agent, f"{passage.effect}-{passage.attempt}") as turn:
            try:
                performed = self._moved(passage) or await self._perform(passage, turn)
                performed, seen = await observe(known(passage)[0], performed, turn)
            except (LayerLost, Unseen) as lost:
                raise self._seg.stop(lost) from lost
            if self._doubtful(passage, performed, turn):
                return self._in_doubt(passage, performed, seen)
            return await self._settle(passage, performed, turn, seen)

    async def _begun(self, passage: Passage) -> Answered | Waiting | None:
        """Take one passage through stages 2 to 6, again where what was judged does not hold any more when it should begin."""
        for _ in range(JUDGED):
            stop = (
                self._provenance(passage)
                or self._containment(passage)
                or await self.governing.reserve(passage)
                or await self._gating.decide(passage)
            )
            if stop is not None:
                return stop
            try:
                return await self._journal.begin(passage)
            except Stale as stale:
                reason = str(stale)
                passage.again()
                self._seg.check()
        passage.mark("journal", "deny", reason=reason)
        return self._record.refuse(passage, "denied", MOVED, hint="look again before you propose it again")

    def turn_away(
        self, actor: Actor, call_id: str, name: str, raw: str, causes: tuple[int, ...], *, most: int
    ) -> Answered:
        """Refuse a call beyond what one answer may ask for."""
        self._seg.check()
        passage = Passage(actor, call_id, name, raw, causes)
        passage.mark("contract", "deny", reason="too many calls in one answer")
        return self._record.refuse(
            passage, "bound_reached", f"one answer may ask for {most} calls", hint="ask for the others in the next one"
        )

    # 1 contract
    def _contract(self, p: Passage) -> Answered | None:
        spec = self._seg.fleet.agents[p.actor.agent]
        tool = self._seg.registry.get(p.name) if p.name in self._seg.registry.names() else None
        if p.actor.role == "ceo":
            p.mark("contract", "deny", reason="a ceo has no tools")
            return self._record.refuse(
                p, "denied", "a ceo only plans and delegates", hint="name an agent in `dispatches` instead"
            )
        if tool is None or not any(fnmatchcase(tool.contract.name, glob) for glob in spec.tools):
            p.mark("contract", "deny", reason="unknown tool")
            return self._record.refuse(
                p, "unknown_tool", "you have no tool of that name", hint="use only tools you were offered"
            )
        if p.name in self._seg.withheld:
            p.mark("contract", "deny", reason="pending")
            return self._record.refuse(
                p,
                "denied",
                f"`{p.name}` is not the tool that was endorsed; its version is pending",
                hint="do without it",
            )
        scrubbed, found = self._seg.scrub.text(p.raw)
        edited = self._gating.edited(p)
        opened = self._containing.handles.given(p, scrubbed, edited=edited is not None)
        if isinstance(opened, ErrorBody):
            p.mark("contract", "deny", reason="handle")
            return self._record.refuse(p, opened.code, opened.message, base=opened)
        checked = arguments.check(tool, opened if edited is None else edited)
        p.tool = tool
        if isinstance(checked, Envelope):
            p.mark("contract", "deny", reason="arguments")
            error = self._containing.handles.unfit(p, checked.error)
            return self._record.refuse(p, "invalid_arguments", "the arguments do not fit", base=error)
        if (checked.signal or p.guessed) and tool.contract.effect not in REPEATABLE:
            return self._guessed(p, tool, checked.signal)
        p.checked, p.edited = checked, edited is not None
        bare = self._containing.handles.bare(p)
        if bare is not None:
            p.mark("contract", "deny", reason="handle")
            return self._record.refuse(p, bare.code, bare.message, base=bare)
        p.mark("contract", "pass", credentials=len(found), recovered=checked.signal, edited=p.edited)
        return None

    def _guessed(self, p: Passage, tool: Tool[..., Any], rule: str | None) -> Answered:
        """What was recovered from prose is a guess, and nothing is changed on a guess: the agent is asked to write it again."""
        p.mark("contract", "deny", reason="recovered arguments", rule=rule or p.guessed)
        return self._record.refuse(
            p,
            "invalid_arguments",
            f"`{tool.contract.name}` changes something, and its arguments stood in prose or were broken, so it was not called",
            hint="send the same call again with its arguments as one plain JSON object and nothing beside it",
            signal=None if rule is None else _signal(tool, rule),
        )

    async def _journalled(self, p: Passage) -> Answered | Waiting | None:
        """Answer from the journal what was already done; the same place with other arguments stops the run."""
        tool, checked = known(p)
        row = self._seg.store.read(lambda tx: tx.effects.get(p.effect))
        if row is None:
            return None
        if row.args_digest != checked.args_digest or row.tool_digest != tool.contract.digest:
            raise self._seg.stop(
                Divergence(
                    f"step `{p.actor.node}` repeated call `{p.id}` of `{p.name}` with other arguments; the run stops"
                )
            )
        if row.status == "done":
            body = self._seg.store.read(lambda tx: tx.blobs.get(row.result or ""))
            if body is None:
                raise self._seg.stop(Divergence(f"the result of effect `{row.id}` is missing from the store"))
            self._containing.again(p)
            return Answered(Envelope.from_json(orjson.loads(body)), row.finished_seq or row.intent_seq)
        if row.status == "not_done":
            p.mark("journal", "deny", reason="a person says it was not done")
            return self._record.refuse(
                p, "in_doubt", "this did not happen", hint="propose it again if it is still needed"
            )
        if not self._repeatable(p) and row.status != "retry" and not self._left_nothing(row):
            return await self._reconciled(p, row)
        p.attempt = row.attempt + 1
        return None

    async def _reconciled(self, p: Passage, row: EffectRow) -> Answered | Waiting | None:
        """Let the tool's own reconciler say what became of an effect in doubt; where it cannot, a person must."""
        tool, checked = known(p)
        if perform.may_still_act(row.id):  # whatever a reconciler saw now, the call may yet change it
            return Waiting(in_doubt=row.id)
        word, value = await reconcile(self._gating.place(p), tool, checked.arguments)
        if word == "unknown":
            return Waiting(in_doubt=row.id)
        seg, now = self._seg, self._seg.clock()
        self._containing.labelled(p)
        performed = perform.Performed(value=value, error=None, detail=None, duration_us=0)

        def work(tx: Tx) -> Answered | None:
            tx.fences.check(p.actor.run, p.actor.epoch)
            blob, sealed, behind = None, None, dict[str, Any]()
            if word == "done":
                self._containing.handles.begin(p, page=False)
                came, hide = self._containing.handles.hide(p, self._scrubbed(performed))
                sealed = envelope.seal(tool, checked, came, effect_id=row.id, put_blob=tx.blobs.put, ms=0, hide=hide)
                sealed, behind = handles.kept(tx, p, sealed)
                blob = tx.blobs.put(orjson.dumps(sealed.to_json()))
            by = f"reconciler:{tool.contract.reconcile}"
            data = {"effect": row.id, "tool": row.tool, "word": word, "by": by, "result_blob": blob, **behind}
            seq = tx.ledger.append(draft("effect.resolved", p.actor, now, data, causes=(row.intent_seq,)))
            status = "done" if word == "done" else "retry"
            tx.effects.resolve(row.id, status=status, result=blob, by=by, at_us=now, seq=seq)
            return None if sealed is None else Answered(sealed, seq)

        answered = await seg.durable(work)
        if answered is None:
            p.attempt = row.attempt + 1
        else:
            self._containing.again(p)
        return answered

    # 2 provenance
    def _provenance(self, p: Passage) -> Answered | None:
        held = self._seg.store.read(lambda tx: quarantine.held(tx, p.causes))
        if held is not None:
            p.mark("provenance", "deny", causes=list(p.causes), reason="quarantined")
            self._record.refuse(p, "denied", "what led to this was quarantined", hint="a person must lift that first")
            raise self._seg.stop(RunHalted(held))
        self._containing.judge(p)
        return None

    # 3 containment
    def _containment(self, p: Passage) -> Answered | None:
        seg, outcomes = self._seg, self._outcomes
        denied = outcomes.probed(p) or self._containing.rule(p) or acquiring.rule(seg, p) or outcomes.rule(p)
        return None if denied is None else self._record.refuse(p, "denied", denied.reason, hint=denied.hint)

    # 7 perform
    def _moved(self, p: Passage) -> perform.Performed | None:
        """Refuse what was begun and waited for its sandbox while another call changed what it refers to."""
        taken = leasing.lost(self._seg.store, p)
        if not taken and not self._containing.moved(p):
            return None
        p.started_us = self._seg.clock()
        error = ErrorBody("conflict", LEASE_LOST if taken else MOVED)
        return perform.Performed(value=None, error=error, detail=None, duration_us=0, began=False)

    async def _perform(self, p: Passage, turn: Turn) -> perform.Performed:
        tool, checked = known(p)
        seg = self._seg
        p.started_us = seg.clock()
        if checked.cursor is not None:
            return perform.Performed(value=None, error=None, detail=None, duration_us=0)
        if tool.contract.name == REQUEST_HUMAN:
            return self._said(p)
        if tool.contract.name == READER:
            return await self._reader.read(p)
        return await perform.perform(tool, checked, context=self._gating.place(p).context, sandbox=turn)

    def _doubtful(self, p: Passage, performed: perform.Performed, turn: Turn) -> bool:
        """Say whether nobody knows what the call did. In a sandbox that is known, unless it asked for something outside.

        Nor does anybody where another call took what this one wrote to: whose write stands a person must say.
        """
        if performed.began and leasing.lost(self._seg.store, p):
            return True
        if known(p)[0].contract.effect in REPEATABLE or not performed.unclear:
            return False
        return turn.asked if turn.loose else True

    def _left_nothing(self, row: EffectRow) -> bool:
        """Say whether a call that was cut can have done nothing: it acted in a sandbox that is gone, and nothing was let out."""
        return left_nothing(self._seg.store, row, self._seg.staging.isolation)

    @staticmethod
    def _repeatable(p: Passage) -> bool:
        tool, _ = known(p)
        return tool.contract.effect in REPEATABLE or tool.contract.idempotent

    def _in_doubt(self, p: Passage, performed: perform.Performed, seen: Observed | None) -> Waiting:
        """Leave the effect `started`: nobody saw what it did, so its key, its reconciler or a person must settle it, never we."""
        tool, _ = known(p)
        seg, now = self._seg, self._seg.clock()
        error = performed.error

        def work(tx: Tx) -> None:
            tx.fences.check(p.actor.run, p.actor.epoch)
            data = {
                "effect": p.effect,
                "tool": tool.contract.name,
                "code": None if error is None else error.code,
                "may_continue": performed.may_continue,
                "ms": max(0, (now - p.started_us) // 1000),
                **seen_in(tx, seen),
                "detail_blob": tx.blobs.put(seg.scrub.text(performed.detail)[0].encode()) if performed.detail else None,
            }
            tx.ledger.append(draft("effect.in_doubt", p.actor, now, data, causes=(p.seq,)))
            tx.runs.add_spend(p.actor.run, tx.budgets.settle(p.reservation, {"tool_calls": 1}, at_us=now))
            took = now - p.started_us
            self.governing.breaking.tool_ended(
                tx, p.actor, tool.contract.name, p.reservation, error="in_doubt", took_us=took, now=now
            )

        seg.write(work)
        return Waiting(in_doubt=p.effect)

    def _said(self, p: Passage) -> perform.Performed:
        """Give what a person answered to a question; the gate that was just used holds it."""

        def work(tx: Tx) -> Any:
            gate = tx.gates.get(p.effect)
            body = None if gate is None or gate.answer is None else tx.blobs.get(gate.answer)
            return None if body is None else orjson.loads(body)

        return perform.Performed(value=self._seg.store.read(work), error=None, detail=None, duration_us=0)

    def _sealed(self, tx: Tx, p: Passage, performed: perform.Performed, ms: int, *, hidden: bool) -> Envelope:
        """Give the envelope: of what the call gave, or of the next page of what another one did."""
        tool, checked = known(p)
        if checked.cursor is not None:
            return envelope.page(
                tool,
                checked.cursor,
                get_blob=tx.blobs.get,
                may_read=lambda digest: self._owns(tx, p, digest),
                effect_id=p.effect,
                ms=ms,
                fields=checked.fields,
                hidden=hidden,
            )
        came, hide = self._containing.handles.hide(p, self._scrubbed(performed))
        return envelope.seal(tool, checked, came, effect_id=p.effect, put_blob=tx.blobs.put, ms=ms, hide=hide)

    # 8 envelope, 9 effects, 10 settle
    async def _settle(self, p: Passage, performed: perform.Performed, turn: Turn, seen: Observed | None) -> Answered:
        tool, checked = known(p)
        seg, now = self._seg, self._seg.clock()
        counted = await turn.counted()
        ms = max(0, (now - p.started_us) // 1000)

        def work(tx: Tx) -> Answered:
            made = self._containing.made(tx, p, seen, observes=turn.observes)
            hidden = checked.cursor is not None and self._hidden(tx, p, checked.cursor)
            self._containing.handles.begin(p, page=hidden)
            sealed = self._sealed(tx, p, performed, ms, hidden=hidden)
            sealed, behind = handles.kept(tx, p, sealed)
            if p.edited:
                sealed = replace(
                    sealed, meta={**sealed.meta, "edited": "a person changed the arguments before they said yes"}
                )
            blob = tx.blobs.put(orjson.dumps(sealed.to_json()))
            data = {
                "effect": p.effect,
                "tool": tool.contract.name,
                "ok": sealed.ok,
                "code": None if sealed.error is None else sealed.error.code,
                "result_blob": blob,
                "refs": list(sealed.refs),
                "truncated": sealed.truncated,
                "ms": ms,
                "declared": {"class": tool.contract.effect, "open_world": tool.contract.open_world},
                **seen_in(tx, seen),
                **made,
                **behind,
                **counted,
                "detail_blob": tx.blobs.put(seg.scrub.text(performed.detail)[0].encode()) if performed.detail else None,
            }
            seq = tx.ledger.append(draft("finished", p.actor, now, data, causes=(p.seq,)))
            if checked.signal is not None:
                told = _signal(tool, checked.signal)
                tx.ledger.append(draft("signal", p.actor, now, told, causes=(seq,)))
            tx.effects.finish(p.effect, epoch=p.actor.epoch, result=blob, at_us=now, seq=seq)
            charged = tx.budgets.settle(p.reservation, {"tool_calls": 1}, at_us=now)
            tx.runs.add_spend(p.actor.run, charged)
            self.governing.breaking.settled(
                tx, p.actor, tool.contract.name, p.reservation, checked.canonical, sealed, ms, now
            )
            return Answered(sealed, seq)

        answered = seg.write(work)
        turn.keep(answered.seq, p.effect, tool.contract.name, seen)
        self._containing.learn(p, answered.envelope, answered.seq)
        return answered

    def _scrubbed(self, performed: perform.Performed) -> perform.Performed:
        value, _ = self._seg.scrub.value(performed.value)
        return replace(performed, value=value)

    def _owns(self, tx: Tx, p: Passage, digest: str) -> bool:
        """A cursor opens only bodies that this agent's own executions in this run produced."""
        return next(self._owned(tx, p, digest), None) is not None

    def _hidden(self, tx: Tx, p: Passage, cursor: str) -> bool:
        """Say whether what a cursor reads on in is a result of this very tool that came behind handles."""
        rows = (row for row in self._owned(tx, p, cursor.partition(":")[0]) if row.tool == p.name)
        ends = (tx.ledger.get(row.finished_seq or row.intent_seq) for row in rows)
        return any(event is not None and "plain" in event.data for event in ends)

    def _owned(self, tx: Tx, p: Passage, digest: str) -> Iterator[EffectRow]:
        for row in tx.effects.list(p.actor.run, statuses=("done",)):
            if row.kind == "tool" and row.agent == p.actor.agent and row.result is not None:
                body = tx.blobs.get(row.result)
                if body is not None and f"b:{digest}" in orjson.loads(body).get("refs", ()):
                    yield row


def _signal(tool: Tool[..., Any], rule: str) -> dict[str, Any]:
    """What a `signal` says of arguments that had to be recovered."""
    name, digest = tool.contract.name, tool.contract.digest
    return {"tool": name, "tool_digest": digest, "rule": rule, "where": "arguments"}
