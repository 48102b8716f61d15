"""Control: what a person says to a run from outside it: stop, yes, no, it was done, it was not, try again.

In:   a store, an id, a word, who says it, the time. Out: the changed row, and one event that says so.
May import: store (port), records, errors. Must not know: the graph, LangGraph, how the word came in.
Why rows only: the run may live in another process or in none; that process reads the rows, nothing is sent to it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, Literal

import orjson

from midwatch.engine import answering, books
from midwatch.engine.identity import identify
from midwatch.errors import GateNotUsable, NotFound, RunHeld, UsageProblem
from midwatch.gates.review import Speaker
from midwatch.records.decision import Halt
from midwatch.records.effect import EffectRow, EffectStatus
from midwatch.records.envelope import Envelope
from midwatch.records.event import EventDraft
from midwatch.records.gate import GateRow
from midwatch.records.run import RunRow, RunStatus
from midwatch.store.port import Store, Tx

__all__ = ["WORDS", "Cancelled", "Word", "answer", "cancel", "resolve"]

Word = Literal["done", "not_done", "retry"]
WORDS: Final[tuple[Word, ...]] = ("done", "not_done", "retry")
_OVER: Final[tuple[RunStatus, ...]] = ("done", "cancelled")


@dataclass(frozen=True, slots=True)
class Cancelled:
    """What a cancel did.

    Attributes:
        status: of the row now; still `running` while a live worker has yet to read the mark.
        held: a live worker holds the run and stops by itself within a second.
        already: it carried such a mark before; nothing new was written.
    """

    run: str
    status: RunStatus
    held: bool
    already: bool


def cancel(store: Store, run: str, *, by: str, reason: str, at_us: int) -> Cancelled:
    """Leave the sticky mark `cancel` on a run; a run that nobody works on is over at once.

    Args:
        run: full id.
        at_us: now, microseconds UTC.

    Raises:
        NotFound: no such run. UsageProblem: it has ended already.
    """

    def work(tx: Tx) -> Cancelled:
        row = _run(tx, run)
        if row.status in _OVER:
            raise UsageProblem(f"run `{run[:7]}` is already {row.status}; there is nothing to cancel")
        mark = tx.runs.halt(run)
        already = mark is not None and mark.kind in ("cancel", "kill")
        held = tx.fences.live(run, at_us)
        if mark is not None and not already:
            tx.runs.clear_halt(run)  # a pause gives way: a person's cancel goes further
        if not already:
            tx.runs.set_halt(run, Halt("cancel", reason, by, at_us))
            data = {"kind": "cancel", "reason": reason, "by": by, "held": held}
            tx.ledger.append(EventDraft("run.halted", run, at_us, data))
        if not held:
            books.close(tx, run, at_us=at_us)
            message = f"stopped by `{by}`: {reason}"
            head = tx.ledger.head()[1]
            tx.runs.update(
                run, status="cancelled", ended_us=at_us, error_code="halted", error_message=message, head=head
            )
        return Cancelled(run, row.status if held else "cancelled", held, already)

    return store.write(work, durable=True)


def answer(
    store: Store, gate: str, *, approve: bool, by: str | Speaker, reason: str, at_us: int, **more: Any
) -> GateRow:
    """Answer a gate as `answering.answer` does; a bare name speaks only in a home that knows nobody by token.

    Raises:
        Denied: a name is no proof where people have tokens. Else as `answering.answer`.
    """
    if isinstance(by, Speaker):
        return answering.answer(store, gate, approve=approve, speaker=by, reason=reason, at_us=at_us, **more)
    speaker = identify(store, token=None, user=by, channel="python")
    plain = Speaker(by, None, speaker.channel)
    return answering.answer(store, gate, approve=approve, speaker=plain, reason=reason, at_us=at_us, **more)


def resolve(store: Store, effect: str, *, word: Word, by: str, at_us: int) -> EffectRow:
    """Say what became of an effect whose outcome is unknown, after looking at the outside world.

    Args:
        effect: full id. word: `done` (it happened), `not_done` (it did not), `retry` (do it again).
        at_us: now, microseconds UTC.

    Raises:
        NotFound: no such effect. RunHeld: a live worker holds the run, so the effect may still be running.
        GateNotUsable: it is not in doubt. UsageProblem: the word does not fit a model call.
    """

    def work(tx: Tx) -> EffectRow:
        row = tx.effects.get(effect)
        if row is None:
            raise NotFound(f"no effect `{effect}` in this home; `midwatch trace RUN` lists a run's effects")
        if row.status != "started":
            said = f"its outcome is recorded as `{row.status}`"
            raise GateNotUsable(f"effect `{effect}` of `{row.tool}` is not in doubt: {said}")
        if tx.fences.live(row.run, at_us):
            raise RunHeld(
                f"effect `{effect}` of `{row.tool}` is still running under a live worker, so it is not in doubt; "
                f"wait, or `midwatch cancel {row.run[:7]}` first"
            )
        if word == "done" and row.kind == "model":
            raise UsageProblem(f"model call `{effect}` cannot be called done, since its answer is lost; use `--retry`")
        result = _result_blob(tx, row, by) if word == "done" else None
        data = {"effect": effect, "tool": row.tool, "word": word, "by": by, "result_blob": result}
        place = EventDraft(
            "effect.resolved", row.run, at_us, data, agent=row.agent, task=row.task, causes=(row.intent_seq,)
        )
        seq = tx.ledger.append(place)
        status: EffectStatus = word
        tx.effects.resolve(effect, status=status, result=result, by=by, at_us=at_us, seq=seq)
        _settle(tx, row, at_us)
        changed = tx.effects.get(effect)
        if changed is None:
            raise NotFound(f"effect `{effect}` is gone from the store")
        return changed

    return store.write(work, durable=True)


def _run(tx: Tx, run: str) -> RunRow:
    row = tx.runs.get(run)
    if row is None:
        raise NotFound(f"no run `{run}` in this home; `midwatch runs ls` lists them")
    return row


def _result_blob(tx: Tx, row: EffectRow, by: str) -> str:
    """Store what the journal answers from now on: it happened, what it gave is not known."""
    meta = {"tool": row.tool, "resolved_by": by}
    envelope = Envelope(ok=True, data=None, refs=(f"e:{row.id}",), meta=meta)
    return tx.blobs.put(orjson.dumps(envelope.to_json()))


def _settle(tx: Tx, row: EffectRow, at_us: int) -> None:
    """Charge what the attempt held: it was begun, whatever became of it."""
    reservation = f"{row.kind[0]}:{row.id}:{row.attempt}"
    if (reservation, True) in set(tx.budgets.open_reservations(row.run)):
        tx.runs.add_spend(row.run, tx.budgets.settle(reservation, None, at_us=at_us))
