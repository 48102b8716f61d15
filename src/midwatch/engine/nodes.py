"""Nodes: what `think` and `act` do, on top of the pure step and the guarded calls.

In:   an agent's name and its state. Out: the state's changes.
May import: everything right of engine. Must not know: how the graph is compiled, who started the run.
Why a failed agent is a handoff: a specialist that cannot finish must not take its siblings' work with it; a CEO or a synthesis
that cannot finish ends the run.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import Any

import orjson
from langgraph.runtime import get_runtime
from langgraph.types import interrupt

from midwatch.agents import answers, step
from midwatch.config.specs import TeamSpec
from midwatch.engine import degrading
from midwatch.engine.commands import Commands, Ended
from midwatch.engine.context import Segment
from midwatch.engine.handing import TRIES, Handing
from midwatch.engine.model_call import ModelCalls, ModelRefused
from midwatch.engine.passage import Answered, Waiting, draft, program_name
from midwatch.engine.pipeline import Pipeline
from midwatch.errors import HandoffRefused
from midwatch.graph.scope import Wait
from midwatch.graph.team import AgentState
from midwatch.records.call import Actor
from midwatch.records.chat import Message, ToolRequest
from midwatch.records.envelope import Envelope, ErrorBody
from midwatch.records.handoff import Dispatch, Handoff, Plan
from midwatch.records.run import Transition
from midwatch.store.port import Tx

__all__ = ["Nodes"]

CALLS_PER_STEP = 16
"""Tool calls carried out of one answer; further ones are refused as data."""
STEPS_WITHOUT_BOUND = 20


class Nodes:
    """Bodies of the team's nodes for one segment."""

    def __init__(self, segment: Segment) -> None:
        self._seg = segment
        self._pipeline = Pipeline(segment)
        self._models = ModelCalls(segment, self._pipeline)
        self._commands = Commands(segment, self._pipeline)
        self._handing = Handing(segment)

    async def think(self, agent: str, state: AgentState) -> dict[str, Any]:
        """Ask the model once and read its answer; the pure part is `agents.step`."""
        actor = self._enter(agent, "think", state)
        turn = state.get("turn", 0)
        view = self._view(agent, state)
        if view.spec.command:
            return await self._command(actor, view, state)
        bound = view.spec.limits.steps or STEPS_WITHOUT_BOUND
        if turn >= bound:
            return self._give_up(actor, view, f"its {bound} steps are used", turn)
        asked = step.before_model(view)
        causes = tuple(state.get("causes", ()))
        result = await self._models.ask(actor, f"model:{turn}", asked.request, causes)
        if isinstance(result, ModelRefused):
            return self._give_up(actor, view, result.reason, turn)
        known = self._handing.known(agent, view)
        proposal = step.after_answer(view, result.answer, known.get)
        if isinstance(proposal, step.Finish) and isinstance(proposal.value, Handoff):
            repeated = self._handing.again(actor, view, proposal.value)
            proposal = proposal if repeated is None else step.again(result.answer, repeated)
        said = Message("assistant", result.answer.content, result.answer.tool_calls).to_json()
        out: dict[str, Any] = {"turn": turn + 1, "causes": [result.seq], "pending": [], "guessed": None}
        match proposal:
            case step.CallTools(calls=calls, guessed=guessed) if agent != self._team().ceo:
                out |= {"transcript": [said], "pending": [call.to_json() for call in calls], "guessed": guessed}
            case step.CallTools(calls=calls):
                out |= {"transcript": [said, *await self._refused_to_ceo(actor, calls, result.seq)]}
            case step.CutCalls(calls=calls, rule=rule):
                out |= {"transcript": [said, *self._cut(actor, calls, rule, result.seq)]}
            case step.TryAgain(rejected=rejected, said=kept, message=message):
                if self._handing.refused(actor, rejected, result.seq) >= TRIES:
                    last = f"its answer was refused {TRIES} times, the last one for `{rejected.code}`"
                    return self._give_up(actor, view, last, turn)
                out |= {"transcript": [kept.to_json(), message.to_json()]}
            case step.Finish(value=value, rule=rule):
                out |= self._finish(actor, view, value, rule, result.seq)
        self._leave(actor, out)
        return out

    async def act(self, agent: str, state: AgentState) -> dict[str, Any]:
        """Carry out the pending calls side by side; waits for a person where one must speak."""
        actor = self._enter(agent, "act", state)
        causes = tuple(state.get("causes", ()))
        calls, guessed = [ToolRequest(**call) for call in state.get("pending", ())], state.get("guessed")
        while True:
            outcomes = await asyncio.gather(
                *(self._call(actor, place, call, causes, guessed) for place, call in enumerate(calls)),
                return_exceptions=True,
            )
            for outcome in outcomes:
                if isinstance(outcome, BaseException):
                    raise outcome
            waiting = [item for item in outcomes if isinstance(item, Waiting)]
            if not waiting:
                break
            self._transition(actor, "waiting", None)
            interrupt(
                {"gates": [w.gate for w in waiting if w.gate], "in_doubt": [w.in_doubt for w in waiting if w.in_doubt]}
            )
        settled = [item for item in outcomes if isinstance(item, Answered)]
        out = {
            "transcript": [_told(call, item.envelope) for call, item in zip(calls, settled, strict=True)],
            "pending": [],
            "causes": [item.seq for item in settled],
        }
        self._leave(actor, out)
        return out

    async def _command(self, actor: Actor, view: step.View, state: AgentState) -> dict[str, Any]:
        """Run the program that this agent is; it is started again after a person has spoken."""
        causes = tuple(state.get("causes", ()))
        while True:
            outcome = await self._commands.run(actor, view, lambda: self._handing.known(actor.agent, view), causes)
            if not isinstance(outcome, Wait):
                break
            self._transition(actor, "waiting", None)
            while self._is_open(outcome):  # an answer of an earlier wait wakes this one up, too
                interrupt(outcome.to_json())
        if not isinstance(outcome, Ended):
            if outcome.rejected is not None:
                self._handing.refused(actor, answers.Rejected(outcome.rejected, outcome.reason), outcome.seq)
            return self._give_up(actor, view, outcome.reason, 0)
        out: dict[str, Any] = {"turn": 1, "causes": [outcome.seq], "pending": [], "guessed": None}
        out |= self._finish(actor, view, outcome.value, outcome.rule, outcome.seq)
        self._leave(actor, out)
        return out

    def _is_open(self, wait: Wait) -> bool:
        def work(tx: Tx) -> bool:
            gates = [tx.gates.get(gate) for gate in wait.gates]
            effects = [tx.effects.get(effect) for effect in wait.in_doubt]
            open_gates = any(row is not None and row.status == "open" for row in gates)
            return open_gates or any(row is not None and row.status == "started" for row in effects)

        return self._seg.store.read(work)

    async def _call(
        self, actor: Actor, place: int, call: ToolRequest, causes: tuple[int, ...], guessed: str | None = None
    ) -> Answered | Waiting:
        where = f"tool:{actor.step}.{place}"
        if place >= CALLS_PER_STEP:
            return self._pipeline.turn_away(actor, where, call.name, call.arguments, causes, most=CALLS_PER_STEP)
        return await self._pipeline.tool(actor, where, call.name, call.arguments, causes, guessed=guessed)

    def _cut(self, actor: Actor, calls: tuple[ToolRequest, ...], rule: str, cause: int) -> list[dict[str, Any]]:
        """Tell the agent that none of its calls was carried out; each gets its answer, as the providers' protocol wants."""
        route = self._seg.fleet.route_of(actor.agent)
        told = {"route": route.target, "model": route.model, "rule": rule, "where": "tool calls"}
        self._note(actor, "signal", told | {"tools": [call.name[:100] for call in calls]}, cause)
        error = ErrorBody(
            "invalid_arguments",
            "the answer was cut before its end, so none of its calls was carried out",
            hint="send the call again, shorter, with its arguments as one plain JSON object",
        )
        return [_told(call, Envelope(ok=False, error=error, meta={"tool": call.name[:100]})) for call in calls]

    async def _refused_to_ceo(self, actor: Actor, calls: tuple[ToolRequest, ...], cause: int) -> list[dict[str, Any]]:
        told = []
        for place, call in enumerate(calls):
            outcome = await self._call(actor, place, call, (cause,))
            if isinstance(outcome, Answered):
                told.append(_told(call, outcome.envelope))
        return told

    def _finish(
        self, actor: Actor, view: step.View, value: Plan | Handoff, rule: str | None, cause: int
    ) -> dict[str, Any]:
        if rule is not None:
            route = self._seg.fleet.route_of(actor.agent)
            told = {"route": route.target, "model": route.model, "rule": rule, "where": f"{view.spec.role} answer"}
            self._note(actor, "signal", told, cause)
        if isinstance(value, Plan):
            value = degrading.planned(value, self._pipeline.governing.bounds.cheaper(actor))
        body = value.to_json()
        if isinstance(value, Plan):
            self._planned(actor, value, {"plan_blob": self._blob(body), "dispatches": len(value.dispatches)}, cause)
            return {"done": True, "plan": body}
        self._handing.given(actor, view, value, cause)
        return {"done": True, "result": body} if view.spec.role == "synthesis" else {"done": True, "handoffs": [body]}

    def _give_up(self, actor: Actor, view: step.View, reason: str, turn: int) -> dict[str, Any]:
        if view.spec.role != "specialist":
            raise self._seg.stop(HandoffRefused(f"`{actor.agent}` could not finish: {reason}"))
        handoff = answers.failed(actor.agent, reason, criteria=view.criteria)
        self._handing.given(actor, view, handoff, None)
        out = {"done": True, "turn": turn + 1, "pending": [], "handoffs": [handoff.to_json()]}
        self._leave(actor, out)
        return out

    def _view(self, agent: str, state: AgentState) -> step.View:
        seg, team = self._seg, self._team()
        spec = seg.fleet.agents[agent]
        allowed = {name: (*self._allowed(name), *self._own_run(name)) for name in team.specialists}
        return step.View(
            spec=spec,
            request=state.get("request"),
            max_output=seg.routes[spec.route].max_output,
            offers=() if spec.role == "ceo" else tuple(seg.registry.offers(self._allowed(agent))),
            dispatch=Dispatch.from_json(state["dispatch"]) if state.get("dispatch") else None,
            plan=_plan(state["plan"]) if spec.role == "synthesis" and state.get("plan") else None,
            handoffs=tuple(Handoff.from_json(item) for item in state.get("handoffs", ())),
            roster=allowed if spec.role == "ceo" else None,
            transcript=tuple(Message.from_json(item) for item in state.get("transcript", ())),
        )

    def _allowed(self, agent: str) -> tuple[str, ...]:
        globs = self._seg.fleet.agents[agent].tools
        names = (name for name in self._seg.registry.names() if name not in self._seg.withheld)
        return tuple(name for name in names if any(fnmatchcase(name, glob) for glob in globs))

    def _own_run(self, agent: str) -> tuple[str, ...]:
        """Give the name of a program's own run, whose observed changes can show that something is met."""
        return (program_name(agent),) if self._seg.fleet.agents[agent].command else ()

    def _team(self) -> TeamSpec:
        spec = self._seg.fleet.graph
        if not isinstance(spec, TeamSpec):
            raise self._seg.stop(HandoffRefused("only `graph: {team: …}` can be run by this version"))
        return spec

    def _enter(self, agent: str, node: str, state: AgentState) -> Actor:
        self._seg.check()
        info = get_runtime().execution_info
        task = info.checkpoint_ns if info is not None else f"{agent}|{node}"
        spec = self._seg.fleet.agents[agent]
        actor = Actor(
            run=self._seg.run,
            fleet=self._seg.fleet.name,
            agent=agent,
            role=spec.role,
            vertical=self._seg.fleet.vertical_of(agent),
            node=f"{agent}.{node}",
            task=task,
            step=state.get("turn", 0),
            epoch=self._seg.epoch,
        )
        self._transition(actor, "started", None)
        return actor

    def _leave(self, actor: Actor, out: Mapping[str, Any]) -> None:
        self._transition(actor, "finished", orjson.dumps(out))

    def _transition(self, actor: Actor, status: str, out: bytes | None) -> None:
        now, size = self._seg.clock(), None if out is None else len(out)

        def work(tx: Tx) -> None:
            tx.fences.check(actor.run, actor.epoch)
            if status == "started":
                seq = tx.ledger.append(draft("node.started", actor, now, {}))
                ns = actor.task.rpartition("|")[0]
                tx.transitions.start(Transition(actor.run, seq, ns, actor.node, actor.task, actor.step, "started", now))
                return
            tx.transitions.finish(actor.run, actor.task, status=status, ended_us=now, bytes_out=size)
            if out is not None:
                told = {"bytes": size, "digest": hashlib.sha256(out).hexdigest()}
                tx.ledger.append(draft("node.finished", actor, now, told))

        self._seg.write(work)

    def _note(self, actor: Actor, kind: str, data: Mapping[str, Any], cause: int | None) -> None:
        event = draft(kind, actor, self._seg.clock(), data, causes=() if cause is None else (cause,))
        self._seg.write(lambda tx: tx.ledger.append(event))

    def _planned(self, actor: Actor, plan: Plan, data: Mapping[str, Any], cause: int) -> None:
        """Write a plan down, and what it hands on of what the request allows."""
        now = self._seg.clock()

        def work(tx: Tx) -> None:
            seq = tx.ledger.append(draft("plan", actor, now, data, causes=(cause,)))
            self._seg.mandating.plan(tx, actor, plan, seq, now)

        self._seg.write(work)

    def _blob(self, body: Mapping[str, Any]) -> str:
        return self._seg.write(lambda tx: tx.blobs.put(orjson.dumps(body)))


def _plan(body: Mapping[str, Any]) -> Plan:
    return Plan(body["goal"], tuple(Dispatch.from_json(item) for item in body["dispatches"]))


def _told(call: ToolRequest, envelope: Envelope) -> dict[str, Any]:
    content = orjson.dumps(envelope.to_json()).decode()
    return Message("tool", content, tool_call_id=call.id, name=call.name).to_json()
