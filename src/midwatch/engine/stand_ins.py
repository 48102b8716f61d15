"""Stand-ins: what the nodes of a replayed run are given in the place of a segment, a pipeline, models and programs.

In:   a record, its program, an order. Out: the team's real nodes, which can reach nothing but the record; what they made, by place.
May import: nodes, recorded, program; records, errors. Must not know: what is compared, who asked for the replay.
Why the real nodes: a replay that had its own would prove itself, not them.
"""

from __future__ import annotations

import asyncio
import hashlib
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, Final, NoReturn, TypeVar, cast

import orjson
from langgraph.types import interrupt

from midwatch.engine.commands import Ended, GaveUp
from midwatch.engine.context import Halted, Segment
from midwatch.engine.model_call import ModelAnswered, ModelRefused
from midwatch.engine.nodes import Nodes
from midwatch.engine.passage import Answered, Waiting
from midwatch.engine.program import Program
from midwatch.engine.recorded import COMPARED, Call, Record, place_of
from midwatch.errors import Divergence, MidwatchError
from midwatch.governor.ladders import Cheaper
from midwatch.records.call import Actor
from midwatch.records.chat import ChatAnswer, ChatRequest
from midwatch.records.effect import EffectRow
from midwatch.records.envelope import Envelope
from midwatch.records.event import GENESIS, Event, EventDraft
from midwatch.records.handoff import Dispatch, Handoff, Plan

__all__ = ["RECURSION_LIMIT", "Stage"]

T = TypeVar("T")
RECURSION_LIMIT: Final = 2_000
_TURNS: Final = 7
"""Most turns of the loop by which an answer is put off."""
_OVER: Final[Mapping[str, Any]] = {"gates": [], "in_doubt": []}

Key = tuple[str, str, int, str, int]


@dataclass(slots=True)
class Stage:
    """Everything of one replay.

    Attributes:
        made: what the nodes made, by (live place, node, step, kind, ordinal). mapped: live place -> recorded place.
        over: the record ended before the agents did.
    """

    record: Record
    program: Program
    order: random.Random
    made: dict[Key, bytes] = field(default_factory=dict)
    mapped: dict[str, str] = field(default_factory=dict)
    shown: dict[str, EffectRow] = field(default_factory=dict)
    tape: list[Event] = field(default_factory=list)
    blobs: dict[str, bytes] = field(default_factory=dict)
    halt: MidwatchError | None = None
    over: bool = False
    steps: int = 0
    programs: set[str] = field(default_factory=set)

    @property
    def run(self) -> str:
        """Give the run's id."""
        return self.record.recording.run

    @property
    def status(self) -> str:
        """Say how the recorded run stopped last."""
        last = self.record.ended()
        return "interrupted" if last is None else str(last.data.get("status"))

    def nodes(self) -> Nodes:
        """Make the team's nodes."""
        return _Nodes(self)

    def notes(self) -> Iterator[str]:
        """Say what was not made again."""
        if self.programs:
            named = ", ".join(sorted(self.programs))
            yield f"agents that are programs are not run again, their answers come from the record: {named}"
        if self.status != "done":
            yield f"the record ends where the run stopped ({self.status}); it was replayed up to there"

    # ------------------------------------------------------------------------------------------------ what nodes make

    def keep(self, actor: Actor, kind: str, body: bytes) -> None:
        """Keep a part of the stream."""
        place = place_of(actor.task)
        ordinal = sum(key[:4] == (place, actor.node, actor.step, kind) for key in self.made) if kind in COMPARED else 0
        self.made[(place, actor.node, actor.step, kind, ordinal)] = body

    def write(self, draft: EventDraft) -> int:
        """Take an event that a node writes."""
        if draft.kind == "node.started":
            self.steps += 1
        elif draft.kind in COMPARED:
            recorded = self._recorded(draft)
            body = self.body_of(draft.kind, draft.data, recorded, lambda digest: self.blobs.get(str(digest)))
            actor = SimpleNamespace(task=draft.task, node=draft.node, step=draft.step)
            self.keep(cast("Actor", actor), draft.kind, body)
        seq = len(self.tape) + 1
        self.tape.append(
            Event(
                seq=seq,
                kind=draft.kind,
                run=draft.run,
                at_us=draft.at_us,
                data=draft.data,
                node=draft.node,
                agent=draft.agent,
                step=draft.step,
                task=draft.task,
                causes=draft.causes,
                prev=GENESIS,
                hash=GENESIS,
            )
        )
        return seq

    def _recorded(self, draft: EventDraft) -> Mapping[str, Any]:
        place = self.mapped.get(place_of(draft.task), "")
        found = self.record.given(place, draft.node or "", draft.step or 0, draft.kind)
        return draft.data if found is None else found.data

    @staticmethod
    def body_of(
        kind: str, data: Mapping[str, Any], like: Mapping[str, Any], blob: Callable[[Any], bytes | None]
    ) -> bytes:
        """Give the bytes of an event that are compared: of the keys that the recorded one has; bodies in full."""
        told = {key: data.get(key) for key in COMPARED[kind] if key in like}
        bodies = [blob(value) or b"" for key, value in told.items() if key.endswith("_blob")]
        plain = {key: value for key, value in told.items() if not key.endswith("_blob")}
        return b"\n".join([orjson.dumps(plain, option=orjson.OPT_SORT_KEYS), *bodies])

    @staticmethod
    def proposal(tool: str, raw: str) -> bytes:
        """Give the bytes of a proposed call."""
        return orjson.dumps({"tool": tool, "arguments": raw}, option=orjson.OPT_SORT_KEYS)

    # ------------------------------------------------------------------------------------------------ where it stands

    def place(self, actor: Actor, body: bytes | None = None, route: str = "") -> str:
        """Give the recorded place of a live one; agents sent out twice are told apart by what they ask first."""
        live = place_of(actor.task)
        if live not in self.mapped:
            taken = set(self.mapped.values())
            free = [place for place in self.record.places.get(actor.agent, ()) if place not in taken]
            same = [place for place in free if body is not None and self._asks(place, actor, route, body)]
            self.mapped[live] = next(iter((*same, *free)), "")
        return self.mapped[live]

    def _asks(self, place: str, actor: Actor, route: str, body: bytes) -> bool:
        heard = self.record.heard(place, actor.node, actor.step, route)
        if heard is None:
            return False
        return heard.request == body or heard.asked == hashlib.sha256(body).hexdigest()

    async def later(self) -> None:
        """Put an answer off, so that those which are waited for side by side come in another order than they did."""
        for _ in range(self.order.randrange(_TURNS)):
            await asyncio.sleep(0)

    def stop_here(self) -> NoReturn:
        """Let this branch go no further; those beside it go on. Raises LangGraph's interrupt."""
        interrupt(dict(_OVER))
        raise Divergence("a replay is never taken up again")

    def ends(self) -> NoReturn:
        """The record says nothing of what comes now."""
        self.over = self.over or self.status != "done"
        self.stop_here()


class _Nodes(Nodes):
    """The team's nodes, on a stage."""

    def __init__(self, stage: Stage) -> None:
        super().__init__(cast("Segment", _segment(stage)))
        self._pipeline = cast("Any", _Pipeline(stage))
        self._models = cast("Any", _Models(stage))
        self._commands = cast("Any", _Commands(stage))


class _Models:
    """Answers model calls from the record."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage

    async def ask(
        self, actor: Actor, call_id: str, request: ChatRequest, causes: tuple[int, ...]
    ) -> ModelAnswered | ModelRefused:
        """Give what the model answered to this very request."""
        stage = self._stage
        body = orjson.dumps(request.to_json(), option=orjson.OPT_SORT_KEYS)
        place = stage.place(actor, body, request.route)
        await stage.later()
        heard = stage.record.heard(place, actor.node, actor.step, request.route)
        if heard is None:
            given = stage.record.given(place, actor.node, actor.step, "handoff")
            if given is None:
                stage.keep(actor, "request", body)
                stage.ends()
            return ModelRefused("bound_reached", _reason(stage, actor, given))
        stage.keep(actor, "request", body)
        if hashlib.sha256(body).hexdigest() != (heard.asked or hashlib.sha256(heard.request or b"").hexdigest()):
            stage.stop_here()
        if heard.answer is None:
            return ModelRefused(heard.code, heard.reason)
        return ModelAnswered(ChatAnswer.from_json(heard.answer), heard.seq)


class _Pipeline:
    """Answers tool calls from the record."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self.governing = SimpleNamespace(bounds=SimpleNamespace(cheaper=self._cheaper))

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
        """Give what became of this very call."""
        await self._stage.later()
        return self._answer(actor, call_id, name, raw)

    def turn_away(
        self, actor: Actor, call_id: str, name: str, raw: str, causes: tuple[int, ...], *, most: int
    ) -> Answered | Waiting:
        """Give how a call beyond the bound was refused."""
        return self._answer(actor, call_id, name, raw)

    def _answer(self, actor: Actor, call_id: str, name: str, raw: str) -> Answered | Waiting:
        stage = self._stage
        found = stage.record.call(stage.place(actor), actor.node, actor.step, call_id, name)
        live = stage.proposal(name[:100], raw)
        stage.keep(actor, f"call {call_id}", live)
        if found is None:
            stage.ends()
        if live != stage.proposal(found.tool, (found.raw or b"").decode()):
            stage.stop_here()
        return self._settled(found)

    def _settled(self, found: Call) -> Answered | Waiting:
        if found.result is None:
            self._stage.over = True
            return Waiting(gate=found.gate)
        if found.effect is not None:
            self._stage.shown[found.effect.id] = found.effect
        return Answered(Envelope.from_json(found.result), found.seq)

    def _cheaper(self, actor: Actor) -> Cheaper:
        """Say how many specialists a plan was cut to, where a ladder said so."""
        stage = self._stage
        degraded = any(event.kind == "budget.degraded" for event in stage.record.recording.events)
        plan = stage.record.given(stage.place(actor), actor.node, actor.step, "plan") if degraded else None
        return Cheaper() if plan is None else Cheaper(specialists=int(plan.data["dispatches"]))


class _Commands:
    """Answers for agents that are programs, whole, from the record."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage

    async def run(self, actor: Actor, view: Any, known: Any, causes: tuple[int, ...]) -> Ended | GaveUp:
        """Give what the program ended with."""
        stage = self._stage
        place = stage.place(actor)
        await stage.later()
        stage.programs.add(actor.agent)
        plan = stage.record.given(place, actor.node, actor.step, "plan")
        given = plan or stage.record.given(place, actor.node, actor.step, "handoff")
        if given is None:
            stage.ends()
        for effects in stage.record.by_effect:
            row = stage.record.effect(effects)
            if row is not None and row.kind == "tool" and place_of(row.task) == place:
                stage.shown[row.id] = row
        refused = stage.record.given(place, actor.node, actor.step, "handoff.refused")
        if given.data.get("status") == "failed":
            rejected = None if refused is None else str(refused.data["code"])
            reason = _reason(stage, actor, given) if refused is None else str(refused.data["reason"])
            return GaveUp(reason, next(iter(() if refused is None else refused.causes), None), rejected)
        signal = stage.record.given(place, actor.node, actor.step, "signal")
        rule = None if signal is None else str(signal.data["rule"])
        body = stage.record.json(given.data["plan_blob" if plan else "handoff_blob"])
        value: Plan | Handoff = Handoff.from_json(body) if plan is None else _plan(body)
        return Ended(value, rule, next(iter(given.causes), 0))


def _plan(body: Mapping[str, Any]) -> Plan:
    return Plan(body["goal"], tuple(Dispatch.from_json(item) for item in body["dispatches"]))


def _reason(stage: Stage, actor: Actor, given: Event) -> str:
    """Read out of a recorded handoff why its agent could not finish."""
    body = stage.record.json(given.data.get("handoff_blob"))
    text = str(body["risks"][0]["text"]) if body.get("risks") else ""
    return text.removeprefix(f"`{actor.agent}` could not finish: ")


# ---------------------------------------------------------------------------------------------------- segment and store


def _segment(stage: Stage) -> SimpleNamespace:
    tx = _Tx(stage)

    def stop(error: MidwatchError) -> Halted:
        stage.halt = stage.halt or error
        return Halted(stage.halt)

    def check() -> None:
        if stage.halt is not None:
            raise Halted(stage.halt)

    def work(given: Callable[[Any], T]) -> T:
        return given(tx)

    program = stage.program
    fleet = SimpleNamespace(
        name=program.name,
        graph=program.graph,
        agents=program.agents,
        route_of=program.route_of,
        vertical_of=program.vertical_of,
        containment=SimpleNamespace(handles=()),
    )
    return SimpleNamespace(
        fleet=fleet,
        registry=program,
        routes=program.routes,
        withheld=frozenset(),
        run=stage.run,
        epoch=0,
        store=SimpleNamespace(read=work),
        write=work,
        clock=lambda: 0,
        check=check,
        stop=stop,
        trails=None,
        staging=SimpleNamespace(),
        mandating=SimpleNamespace(plan=lambda *_: None),
    )


class _Tx:
    """What the nodes see of a store: the record, as far as they have come."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self.fences = SimpleNamespace(check=lambda *_: None)
        self.transitions = SimpleNamespace(start=lambda *_: None, finish=lambda *_, **__: None)
        self.ledger = SimpleNamespace(append=stage.write, read=self._events, get=self._event)
        self.blobs = SimpleNamespace(put=self._put, get=self._get)
        self.effects = SimpleNamespace(list=self._effects, get=stage.shown.get)

    def _put(self, body: bytes) -> str:
        digest = hashlib.sha256(body).hexdigest()
        self._stage.blobs[digest] = body
        return digest

    def _get(self, digest: str) -> bytes | None:
        return self._stage.blobs.get(digest) or self._stage.record.blob(digest)

    def _effects(self, run: str, *, statuses: Sequence[str] = ()) -> list[EffectRow]:
        return sorted(self._stage.shown.values(), key=lambda row: row.intent_seq)

    def _events(
        self, *, run: str | None = None, after: int = 0, limit: int = 1000, kinds: Sequence[str] = ()
    ) -> list[Event]:
        found = [event for event in self._stage.tape[after:] if not kinds or event.kind in kinds]
        return found[:limit]

    def _event(self, seq: int) -> Event | None:
        return self._stage.record.by_seq.get(seq)
