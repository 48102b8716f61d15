"""Issuing: what a run's request allows is read out of it once, before anything else arrives.

In:   a segment that has done nothing yet, the run's input. Out: `mandate.issued`, or `mandate.refused` with its reason.
May import: everything right of engine. Must not know: what the mandate will be used for.

    reader    goes by the request's words and the tools' own; no model
    planner   a model that sees the request and the tools' signatures alone; its call is bounded, journalled and scrubbed like any other
    none      only grants of the fleet file are mandates

Why a refusal is written down: a run that was cut must not ask again once results are known. Where a planner's answer does not validate, the
run has no mandate of its own, and people are asked.
Source: CONTAINMENT.md, clauses 11, 16, 17.
"""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final

import orjson

from midwatch.config.specs import TeamSpec
from midwatch.containment.kept import from_json, to_json
from midwatch.containment.mandates import Balance, Mandate, Refused, issue
from midwatch.containment.planning import MANUAL, Planner, schema
from midwatch.containment.reading import Knob, Reader
from midwatch.engine.mandating import ROOT, issued, requested
from midwatch.engine.model_call import ModelCalls, ModelRefused
from midwatch.engine.pipeline import Pipeline
from midwatch.records.call import Actor
from midwatch.records.chat import ChatRequest, Message
from midwatch.records.event import EventDraft
from midwatch.records.label import Cause, Label, label
from midwatch.recovery import Clean, compile_schema, recover

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from midwatch.config.fleet import Fleet
    from midwatch.engine.context import Segment
    from midwatch.store.port import Tx
    from midwatch.tools.contract import ToolContract

__all__ = ["PLANNER", "issue_root"]

PLANNER: Final = "request.planner"
"""Who asks the planner's route; no agent has such a name."""
_ANSWER: Final = "mandate"
_ISSUED: Final = ("mandate.issued", "mandate.refused")


async def issue_root(seg: Segment, request: Any) -> None:
    """Issue what the request allows, unless that was tried before, or something has been done already.

    Raises:
        Halted: the run must stop before it has begun.
    """
    spec = seg.fleet.containment
    asker = seg.store.read(lambda tx: _asker(tx, seg.run))
    if spec.mandate == "none" or asker is None:
        return
    text, _ = requested(request)
    issuer, ends = label({asker}), seg.clock() + spec.lasts_us
    contracts, knobs = _usable(seg), _knobs(seg.fleet)
    if spec.mandate == "planner" and spec.planner is not None:
        made, causes = await _planned(seg, spec.planner, text, Planner(contracts, knobs), issuer, ends)
    else:
        made, causes = Reader(contracts, knobs).read(text, issuer, name=ROOT, expires_us=ends), ()
    if causes or isinstance(made, Refused) or made.lines:
        seg.write(lambda tx: _write(tx, seg, made, causes))


def _asker(tx: Tx, run: str) -> Cause | None:
    """Give who asked, where that may still issue something: nothing was issued or refused, and no tool was called."""
    row = tx.runs.get(run)
    tried = tx.ledger.read(run=run, kinds=_ISSUED, limit=1)
    if row is None or not row.asked_by or tried or any(each.kind == "tool" for each in tx.effects.list(run)):
        return None
    return Cause("person", row.asked_by)


def _usable(seg: Segment) -> Sequence[ToolContract]:
    """Give the contracts of the tools that some agent of the run may have."""
    globs = [glob for agent in seg.fleet.agents.values() for glob in agent.tools]
    names = sorted({name for glob in globs for name in seg.registry.match(glob)})
    return [seg.registry.get(name).contract for name in names]


def _knobs(fleet: Fleet) -> Mapping[str, Mapping[str, Knob]]:
    return {
        tool: {
            name: Knob(
                bound.delegate, bound.addressed, None if bound.most is None else Decimal(bound.most), bound.values
            )
            for name, bound in bounds.items()
        }
        for tool, bounds in fleet.containment.bounds.items()
    }


async def _planned(
    seg: Segment, route: str, text: str, planner: Planner, issuer: Label, ends: int
) -> tuple[Mandate | Refused, tuple[int, ...]]:
    wanted = schema(planner.contracts)
    told = orjson.dumps({"request": text, "tools": planner.told()}, option=orjson.OPT_SORT_KEYS).decode()
    asked = ChatRequest(
        agent=PLANNER,
        route=route,
        messages=(Message("system", MANUAL), Message("user", told)),
        max_output=seg.routes[route].max_output,
        answer_schema=wanted,
        answer_name=_ANSWER,
    )
    actor = Actor(seg.run, seg.fleet.name, PLANNER, "ceo", None, PLANNER, PLANNER, 0, seg.epoch)
    result = await ModelCalls(seg, Pipeline(seg)).ask(actor, "mandate", asked, ())
    if isinstance(result, ModelRefused):
        return Refused(f"the planner gave no answer ({result.code})"), ()
    answer, cause = result.answer, (result.seq,)
    if answer.tool_calls or answer.finish != "stop" or answer.signals:
        return Refused("the planner's answer is not the one value that was asked for"), cause
    found = recover(answer.content, compile_schema(wanted))
    if not isinstance(found, Clean):
        return Refused("the planner's answer does not fit its schema"), cause
    lines = planner.read(text, found.value)
    if isinstance(lines, Refused):
        return lines, cause
    return Mandate(ROOT, issuer, lines, f"planner over the request alone ({route})", ends), cause


def _write(tx: Tx, seg: Segment, made: Mandate | Refused, causes: tuple[int, ...]) -> None:
    tx.fences.check(seg.run, seg.epoch)
    if isinstance(made, Mandate):
        # Another process will read it back: what it could not read is no mandate here, either.
        balance = issue(Balance(), from_json(orjson.loads(orjson.dumps(to_json(made)))))
        made = balance if isinstance(balance, Refused) else made
    if isinstance(made, Refused):
        data = {"mandate": ROOT, "reason": made.reason}
        tx.ledger.append(EventDraft("mandate.refused", seg.run, seg.clock(), data, causes=causes))
        return
    graph = seg.fleet.graph
    data = issued(tx, made, to=graph.ceo if isinstance(graph, TeamSpec) else None)
    tx.ledger.append(EventDraft("mandate.issued", seg.run, seg.clock(), data, causes=causes))
