"""Record: what every stage of a passage writes down: the proposal with its marks, a refusal, a hold given back.

In:   a passage. Out: ledger events; `Answered` for a refusal.
May import: records, store (port). Must not know: what a stage decides.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import orjson

from midwatch.engine.context import Segment
from midwatch.engine.passage import Answered, Passage, draft
from midwatch.records.envelope import Code, Envelope, ErrorBody
from midwatch.store.port import Tx

__all__ = ["Record"]

_LONGEST_NAME = 100
"""Characters of a tool's name that are kept; a model may write any."""


class Record:
    """Writes for the passages of one segment."""

    def __init__(self, segment: Segment) -> None:
        self._seg = segment

    def propose(self, tx: Tx, p: Passage, now: int) -> int:
        """Append `proposed` and `decided`; returns the latter's number."""
        name = p.name[:_LONGEST_NAME]
        raw = tx.blobs.put(self._seg.scrub.text(p.raw)[0].encode())
        proposed = tx.ledger.append(
            draft("proposed", p.actor, now, {"call": p.id, "tool": name, "arguments_blob": raw}, causes=p.causes)
        )
        stages = [mark.to_json() for mark in p.marks]
        return tx.ledger.append(
            draft("decided", p.actor, now, {"call": p.id, "tool": name, "stages": stages}, causes=(proposed,))
        )

    def refuse(
        self,
        p: Passage,
        code: Code,
        message: str,
        *,
        hint: str | None = None,
        base: ErrorBody | None = None,
        signal: Mapping[str, Any] | None = None,
    ) -> Answered:
        """Answer with an error envelope and record it, with the signal of a recovery that came before it; nothing was done."""
        error = replace(base, code=code) if base is not None else ErrorBody(code, message, hint=hint)
        answer = Envelope(ok=False, error=error, meta={"tool": p.name[:_LONGEST_NAME]})
        now = self._seg.clock()

        def work(tx: Tx) -> int:
            blob = tx.blobs.put(orjson.dumps(answer.to_json()))
            before = self._told(tx, p, blob)
            if before is not None:
                return before
            cause = self.propose(tx, p, now)
            data = {
                "call": p.id,
                "tool": p.name[:_LONGEST_NAME],
                "ok": False,
                "code": code,
                "result_blob": blob,
            }
            seq = tx.ledger.append(draft("finished", p.actor, now, data, causes=(cause,)))
            if signal is not None:
                tx.ledger.append(draft("signal", p.actor, now, signal, causes=(seq,)))
            return seq

        return Answered(answer, self._seg.write(work))

    def _told(self, tx: Tx, p: Passage, blob: str) -> int | None:
        """Give the event that told this place the very same before: a node that runs again is not denied once more."""
        for event in reversed(tx.ledger.read(run=p.actor.run, kinds=("finished",), limit=100_000)):
            if event.task == p.actor.task and event.data.get("call") == p.id:
                return event.seq if event.data.get("result_blob") == blob else None
        return None

    def release(self, p: Passage) -> None:
        """Give back what a passage held that goes no further now."""
        self._seg.write(lambda tx: tx.budgets.release(p.reservation))
