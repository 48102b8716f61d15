"""Undo: takes back what a run did, newest first, as far as its tools say how; and says what stays.

In:   a run that nobody works on, who orders it. Out: one line an effect.
May import: tools, records, store (port), `helping`'s place. Must not know: the graph.
Why the order of a person is enough: undoing is not an agent's proposal. It takes the role operator, is journalled like every other
effect (a cut undo is in doubt, never silently repeated), and nothing but the named compensation with the call's own values runs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import orjson

from midwatch.engine.helping import Place
from midwatch.engine.identity import present, require
from midwatch.engine.observing import left_nothing, observe, seen_in, where
from midwatch.engine.passage import program_name
from midwatch.engine.staging import Isolation, Observed, Staging, Turn
from midwatch.errors import Denied, NotFound, UsageProblem
from midwatch.gates.review import Speaker
from midwatch.records.effect import EffectRow, effect_id
from midwatch.records.envelope import Envelope
from midwatch.records.event import EventDraft
from midwatch.store.port import Store, Tx
from midwatch.tools import arguments, envelope, helpers, perform
from midwatch.tools.decorate import Tool

__all__ = ["Undone", "plan", "undo"]

_HARMLESS = ("pure", "read")
_TASK = "undo"

Outcome = Literal["undone", "planned", "already", "cannot", "changed", "failed", "in_doubt"]


@dataclass(frozen=True, slots=True)
class Undone:
    """What became of one effect.

    Attributes:
        outcome: `cannot`: the tool names nothing that undoes it. `changed`: the tool is another one than it was. `in_doubt`: the
            effect itself, or its undoing, has an unknown outcome: look, then `midwatch resolve`.
        by: tool that undid it, or would.
    """

    effect: str
    tool: str
    outcome: Outcome
    by: str | None = None
    detail: str = ""


def plan(store: Store, run: str, place: Place, isolation: Isolation) -> list[Undone]:
    """Say what `undo` would do; nothing is changed.

    Raises:
        NotFound: no such run.
    """
    return [_judge(store, row, place, isolation)[0] for row in _effects(store, run)]


@dataclass(frozen=True, slots=True)
class _Order:
    """What holds for every compensation of one undo."""

    store: Store
    place: Place
    staging: Staging
    epoch: int
    speaker: Speaker
    at_us: int


async def undo(
    store: Store, run: str, place: Place, staging: Staging, *, epoch: int, speaker: Speaker, at_us: int
) -> Sequence[Undone]:
    """Undo a run's effects in reverse order; the first failure or doubt ends it, since what came before may build on it.

    Args:
        place: its context's key is replaced by each compensation's own. epoch: fence of the run, taken by the caller.
        staging: the run's sandboxes; what a compensation changes there is staged like all else, and takes a commit.

    Raises:
        Denied: it takes an operator whose reach covers every tool that undoes something; nothing was undone. NotFound: no such
            run. StoreError: nothing more was undone.
    """
    speaker = store.read(lambda tx: present(tx, speaker))
    require(speaker, "operator", "undo what a run did")
    out_of_reach = [
        item.by
        for item in plan(store, run, place, staging.isolation)
        if item.outcome == "planned" and not speaker.reaches(item.by or "")
    ]
    if out_of_reach:
        raise Denied(
            f"the reach of `{speaker.name}` does not cover `{out_of_reach[0]}`; somebody whose `may` does must undo"
        )
    order = _Order(store, place, staging, epoch, speaker, at_us)
    told: list[Undone] = []
    for row in _effects(store, run):
        found, tool, values = _judge(store, row, place, staging.isolation)
        if found.outcome == "planned" and tool is not None:
            found = await _carry_out(order, row, tool, values)
        told.append(found)
        if found.outcome in ("failed", "in_doubt"):
            break
    return told


def _effects(store: Store, run: str) -> list[EffectRow]:
    def work(tx: Tx) -> list[EffectRow]:
        if tx.runs.get(run) is None:
            raise NotFound(f"no run `{run}` in this home; `midwatch runs ls` lists them")
        rows = tx.effects.list(run, statuses=("done", "started"))
        return [row for row in rows if row.kind == "tool" and row.effect not in _HARMLESS and row.task != _TASK]

    return sorted(store.read(work), key=lambda row: row.finished_seq or row.intent_seq, reverse=True)


def _judge(
    store: Store, row: EffectRow, place: Place, isolation: Isolation
) -> tuple[Undone, Tool[..., Any] | None, Mapping[str, Any]]:
    if row.status == "started":
        return Undone(row.id, row.tool, "in_doubt", detail="its own outcome is unknown"), None, {}
    result = store.read(lambda tx: _json(tx, row.result))
    if not result.get("ok"):
        return Undone(row.id, row.tool, "already", detail="it failed, so there is nothing to take back"), None, {}
    if row.tool not in place.registry.names():
        return _untold(row), None, {}
    contract = place.registry.get(row.tool).contract
    if contract.reversible is None:
        return Undone(row.id, row.tool, "cannot", detail="the tool names nothing that undoes it"), None, {}
    if contract.digest != row.tool_digest:
        detail = "the tool is another one than it was; undo it by hand"
        return Undone(row.id, row.tool, "changed", contract.reversible, detail), None, {}
    tool = place.registry.get(contract.reversible)
    earlier = store.read(lambda tx: tx.effects.get(_key(row, tool)))
    if earlier is not None and earlier.status == "done":
        ok = store.read(lambda tx: _json(tx, earlier.result)).get("ok")
        return Undone(row.id, row.tool, "already" if ok else "failed", tool.contract.name), None, {}
    cut = earlier is not None and earlier.status == "started" and not tool.contract.idempotent
    if cut and earlier is not None and not left_nothing(store, earlier, isolation):
        detail = f"its undoing was cut; `midwatch resolve {earlier.id}`"
        return Undone(row.id, row.tool, "in_doubt", tool.contract.name, detail), None, {}
    data = result.get("data")
    given = store.read(lambda tx: _json(tx, row.arguments))
    values = helpers.arguments_for(tool.contract, given, data if isinstance(data, dict) else None)
    return Undone(row.id, row.tool, "planned", tool.contract.name), tool, values


def _untold(row: EffectRow) -> Undone:
    """Say why nothing is known that would undo an effect."""
    if row.tool == program_name(row.agent):
        detail = "a program says nothing of how to undo it; what is still staged goes with `midwatch effects discard`"
        return Undone(row.id, row.tool, "cannot", detail=detail)
    return Undone(row.id, row.tool, "changed", detail="its tool is not loaded any more")


async def _carry_out(order: _Order, row: EffectRow, tool: Tool[..., Any], values: Mapping[str, Any]) -> Undone:
    """Call the compensation: intent before, outcome after; one that did not answer stays in doubt."""
    name, place = tool.contract.name, order.place
    checked = arguments.check(tool, values)
    if isinstance(checked, Envelope):
        return Undone(row.id, row.tool, "failed", name, "its values do not fit the tool that undoes it")
    key = _key(row, tool)
    seq = order.store.write(lambda tx: _begin(tx, order, row, tool, checked), durable=True)
    context = replace(place.context, idempotency_key=key, agent=row.agent)
    async with order.staging.turn(row.agent, f"{key}-undo") as turn:
        performed = await perform.perform(tool, checked, context=context, sandbox=turn)
        performed, seen = await observe(tool, performed, turn)
        if performed.unclear and not tool.contract.idempotent and not (turn.loose and not turn.asked):
            detail = f"its undoing did not answer; look, then `midwatch resolve {key}`"
            return Undone(row.id, row.tool, "in_doubt", name, detail)
        return _finish(order, row, tool, checked, performed, seq, turn, seen)


def _finish(
    order: _Order,
    row: EffectRow,
    tool: Tool[..., Any],
    checked: arguments.Checked,
    performed: perform.Performed,
    seq: int,
    turn: Turn,
    seen: Observed | None,
) -> Undone:
    """Write down what became of a compensation."""
    name, place, key = tool.contract.name, order.place, _key(row, tool)
    clean, _ = place.scrub.value(performed.value)

    def finish(tx: Tx) -> tuple[bool, int]:
        sealed = envelope.seal(
            tool,
            checked,
            replace(performed, value=clean),
            effect_id=key,
            put_blob=tx.blobs.put,
            ms=performed.duration_us // 1000,
        )
        blob = tx.blobs.put(orjson.dumps(sealed.to_json()))
        data = {"effect": row.id, "by_effect": key, "tool": name, "ok": sealed.ok, "result_blob": blob}
        data |= {"declared": {"class": tool.contract.effect}, **seen_in(tx, seen)}
        event = EventDraft("effect.undone", row.run, order.at_us, data, agent=row.agent, task=_TASK, causes=(seq,))
        done = tx.ledger.append(event)
        tx.effects.finish(key, epoch=order.epoch, result=blob, at_us=order.at_us, seq=done)
        tx.runs.add_spend(row.run, {"tool_calls": 1})
        return sealed.ok, done

    ok, done = order.store.write(finish, durable=True)
    turn.keep(done, key, name, seen)
    code = performed.error.code if performed.error is not None else "it broke its own contract"
    return Undone(row.id, row.tool, "undone" if ok else "failed", name, "" if ok else code)


def _begin(tx: Tx, order: _Order, row: EffectRow, tool: Tool[..., Any], checked: arguments.Checked) -> int:
    """Write the intent of a compensation; returns its event."""
    tx.fences.check(row.run, order.epoch)
    key, contract = _key(row, tool), tool.contract
    old, blob = tx.effects.get(key), tx.blobs.put(checked.canonical)
    data = {
        "effect": key,
        "undoes": row.id,
        "tool": contract.name,
        "tool_digest": contract.digest,
        "class": contract.effect,
        "arguments_blob": blob,
        "by": order.speaker.name,
        **where(order.staging.isolation, row.agent, contract.runs),
    }
    causes = (row.finished_seq or row.intent_seq,)
    seq = tx.ledger.append(EventDraft("intent", row.run, order.at_us, data, agent=row.agent, task=_TASK, causes=causes))
    tx.effects.begin(
        EffectRow(
            id=key,
            run=row.run,
            task=_TASK,
            call_id=f"undo:{row.id}",
            kind="tool",
            tool=contract.name,
            tool_digest=contract.digest,
            effect=contract.effect,
            agent=row.agent,
            args_digest=checked.args_digest,
            arguments=blob,
            epoch=order.epoch,
            attempt=1 if old is None else old.attempt + 1,
            status="started",
            started_us=order.at_us,
            intent_seq=seq,
        )
    )
    return seq


def _key(row: EffectRow, tool: Tool[..., Any]) -> str:
    return effect_id(row.run, _TASK, f"undo:{row.id}", tool.contract.name)


def _json(tx: Tx, digest: str | None) -> dict[str, Any]:
    body = None if digest is None else tx.blobs.get(digest)
    if body is None:
        raise UsageProblem("a body that this needs is missing from the store; `midwatch verify` says what else is")
    value: dict[str, Any] = orjson.loads(body)
    return value
