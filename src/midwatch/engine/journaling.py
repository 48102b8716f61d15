"""Journaling: stage 6 of the pipeline: what is about to happen is durable before it begins.

In:   a passage past every guard. Out: its row and its event; a refusal; a question asked anew; a halt.
May import: passage, record, gating, containing; store (port). Must not know: how a call is performed.
Why one transaction: fence, halt, gate, reservation and intent hold together or not at all (DESIGN.md, section 2).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from midwatch.engine import leasing, quarantine, stopping
from midwatch.engine.mandating import Stale
from midwatch.engine.observing import where
from midwatch.engine.passage import Answered, Passage, Waiting, draft, known
from midwatch.errors import Divergence, FenceLost, GateNotUsable, RunHalted, StoreError
from midwatch.records.effect import EffectRow

if TYPE_CHECKING:
    from midwatch.engine.containing import Containing
    from midwatch.engine.context import Segment
    from midwatch.engine.gating import Gating
    from midwatch.engine.outcomes import Outcomes
    from midwatch.engine.record import Record
    from midwatch.store.port import Tx

__all__ = ["Journal"]


class Journal:
    """The intents of one segment."""

    def __init__(
        self, segment: Segment, record: Record, gating: Gating, containing: Containing, outcomes: Outcomes
    ) -> None:
        self._seg = segment
        self._record = record
        self._gating = gating
        self._containing = containing
        self._outcomes = outcomes

    async def begin(self, p: Passage) -> Answered | Waiting | None:
        """One durable transaction: fence, halt, gate, reservation, what was judged, intent.

        Raises:
            Stale: what was judged does not hold any more; nothing of the transaction stands.
        """
        seg, now = self._seg, self._seg.clock()

        def work(tx: Tx) -> tuple[EffectRow, int]:
            tx.fences.check(p.actor.run, p.actor.epoch)
            stopping.hold(tx, seg.fleet, p.actor.run, agent=p.actor.agent, tool=p.name)
            self._outcomes.recheck(tx, p)
            cause = self._record.propose(tx, p, now)
            if p.gate is not None:
                tx.gates.consume(p.gate.id, digest=self._gating.binding(p, p.gate), at_us=now)
                tx.ledger.append(
                    draft("gate.used", p.actor, now, {"gate": p.gate.id, "digest": p.gate.digest}, (cause,))
                )
            tx.budgets.confirm(p.reservation)
            p.leases = leasing.take(tx, p, now)
            spent, issued = self._containing.recheck(tx, p, now)
            return self._intent(tx, p, (cause, *issued), now, spent)

        try:
            p.row, p.seq = await seg.durable(work)
        except Stale:
            self._record.release(p)
            raise
        except leasing.Taken as error:
            self._record.release(p)
            p.mark("journal", "deny", reason="lease")
            return self._record.refuse(
                p, "conflict", str(error), hint="look at what is there once that has ended, then decide anew"
            )
        except GateNotUsable as error:
            self._record.release(p)
            if self._gating.asks_again(p):
                return Waiting(gate=p.effect)
            p.mark("journal", "deny", reason="gate")
            return self._record.refuse(p, "denied", str(error))
        except (FenceLost, RunHalted, Divergence, StoreError) as error:
            raise seg.stop(error) from error
        return None

    def _intent(
        self, tx: Tx, p: Passage, causes: tuple[int, ...], now: int, spent: Mapping[str, Any]
    ) -> tuple[EffectRow, int]:
        """Write down what is about to happen; gives the row and its event."""
        tool, checked = known(p)
        contract, blob = tool.contract, tx.blobs.put(checked.canonical)
        data = {
            "effect": p.effect,
            "tool": contract.name,
            "tool_digest": contract.digest,
            "class": contract.effect,
            "arguments_blob": blob,
            "attempt": p.attempt,
            "runs": contract.runs,
            **spent,
            **({"leases": list(p.leases)} if p.leases else {}),
            **where(self._seg.staging.isolation, p.actor.agent, contract.runs),
        }
        seq = tx.ledger.append(draft("intent", p.actor, now, data, causes=causes))
        quarantine.begins(tx, seq)
        row = EffectRow(
            id=p.effect,
            run=p.actor.run,
            task=p.actor.task,
            call_id=p.id,
            kind="tool",
            tool=contract.name,
            tool_digest=contract.digest,
            effect=contract.effect,
            agent=p.actor.agent,
            args_digest=checked.args_digest,
            arguments=blob,
            epoch=p.actor.epoch,
            attempt=p.attempt,
            status="started",
            started_us=now,
            intent_seq=seq,
        )
        tx.effects.begin(row)
        return row, seq
