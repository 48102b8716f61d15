"""Foreign: the calls of an imported graph, carried by the kernel for one segment.

In:   calls of a kit's models and tools, from any thread or event loop.
Out:  answers, envelopes, waits; `Halted`.
May import: everything right of engine. Must not know: what the graph is for, how a segment was started.

    a call → its place (task, id) → the segment's own loop, shielded → pipeline or model call → answer
    the graph stops → no new call begins → calls in flight end → the row of the run is written

Why shielded: a graph may give up on a call (a sibling's interrupt, a time-out of its own). The effect has begun, so it ends and is
journalled, and the resumed node is answered from there; otherwise it would be in doubt.
Why a node that runs again must do again what it did: each call is named by what it says, so other words are another call. A node
whose words hang on the clock or on chance would act twice. So nothing new with an effect begins before the old calls came back.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextvars
from collections.abc import Callable, Coroutine, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, NoReturn, TypeVar

import orjson

from midwatch.engine.context import Halted, Segment
from midwatch.engine.model_call import ModelCalls, ModelRefused
from midwatch.engine.passage import Answered, Passage, Waiting
from midwatch.engine.pipeline import REPEATABLE, Pipeline
from midwatch.engine.record import Record
from midwatch.engine.watching import Watching
from midwatch.errors import BoundReached, Divergence, MidwatchError, ModelFailure, NotFound, RunHalted, UsageProblem
from midwatch.graph.foreign import Foreign, watched
from midwatch.graph.govern import Kit
from midwatch.graph.messages import scrubbed, to_json
from midwatch.graph.saver import Saver
from midwatch.graph.scope import Place, Wait
from midwatch.records.call import Actor
from midwatch.records.chat import ChatAnswer, ChatRequest, Message
from midwatch.records.effect import effect_id
from midwatch.records.envelope import Envelope
from midwatch.store.port import Tx

__all__ = ["Governed", "Hosted", "host", "is_ours"]

T = TypeVar("T")
_OVER: Final = "the segment is over; a node that goes on by itself can do nothing more"
_PATIENCE: Final = 20
_PATIENCE_US: Final = 50_000
_TURNS: Final = 8
"""Turns of the event loop after the graph has stopped, in which calls that were begun together still begin."""


@dataclass(slots=True)
class _Proposer:
    """Which agents' models asked for a call of this id, and the event of the newest answer that did."""

    agents: set[str] = field(default_factory=set)
    seq: int = 0


class Governed:
    """`graph.govern.Calls` of one segment. Made on the segment's event loop."""

    def __init__(self, segment: Segment) -> None:
        self._seg = segment
        self._pipeline = Pipeline(segment)
        self._models = ModelCalls(segment, self._pipeline)
        self._record = Record(segment)
        self._loop = asyncio.get_running_loop()
        self._flight: set[asyncio.Task[Any]] = set()
        self._locks: dict[str, asyncio.Lock] = {}
        self._proposers: dict[str, _Proposer] | None = None
        self._context = contextvars.copy_context()
        self._kept: set[str] = set()
        self._closed = False
        self.waits: dict[str, Wait] = {}

    async def ask(self, place: Place, agent: str, call_id: str, request: ChatRequest) -> ChatAnswer:
        """See `Calls`."""
        return await self._carried(lambda: self._ask(place, agent, call_id, request))

    async def tool(
        self, place: Place, agent: str, call_id: str, name: str, raw: str, proposed: str | None
    ) -> Envelope | Wait:
        """See `Calls`."""
        return await self._carried(lambda: self._tool(place, agent, call_id, name, raw, proposed))

    def stop(self, error: MidwatchError) -> Halted:
        """See `Calls`."""
        return self._seg.stop(error)

    def from_thread(self, make: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """See `Calls`."""
        if _running() is self._loop:
            self._refuse(
                "an asynchronous node called a model or tool synchronously, which would block every node; await `ainvoke`"
            )
        try:
            return self._submitted(make).result()
        except (asyncio.CancelledError, concurrent.futures.CancelledError) as error:
            raise Halted(RunHalted("the segment ended while a node waited for a call")) from error

    async def _carried(self, make: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Carry a call out on the segment's loop; it ends there, whatever becomes of the caller."""
        if _running() is self._loop:
            return await asyncio.shield(self._launched(make))
        return await asyncio.wrap_future(self._submitted(make))

    def _launched(self, make: Callable[[], Coroutine[Any, Any, T]]) -> asyncio.Task[T]:
        self._seg.check()
        if self._closed:
            raise Halted(RunHalted(_OVER))
        # A context of its own: what holds for the node's code, such as a tripwire, does not hold for the kernel's.
        task = self._loop.create_task(make(), context=self._context.copy())
        self._flight.add(task)
        task.add_done_callback(self._landed)
        return task

    def _landed(self, task: asyncio.Task[Any]) -> None:
        self._flight.discard(task)
        if not task.cancelled():
            task.exception()  # its caller may be gone

    def _submitted(self, make: Callable[[], Coroutine[Any, Any, T]]) -> concurrent.futures.Future[T]:
        async def go() -> T:
            return await self._launched(make)

        begun = go()
        try:
            return self._context.copy().run(asyncio.run_coroutine_threadsafe, begun, self._loop)
        except RuntimeError as error:
            begun.close()
            raise Halted(RunHalted(_OVER)) from error

    def _refuse(self, message: str) -> NoReturn:
        raise self._seg.stop(UsageProblem(message))

    async def _ask(self, place: Place, agent: str, call_id: str, request: ChatRequest) -> ChatAnswer:
        actor = await self._actor(place, agent)
        causes = self._causes(place)
        result = await self._models.ask(actor, call_id, self._clean(request), causes)
        if isinstance(result, ModelRefused):
            if isinstance(result.error, BoundReached):
                raise self._ended(result.error)
            raise result.error or ModelFailure(result.code, result.reason, retryable=False, dispatched=True)
        self._proposed(result.answer, agent, result.seq)
        place.scope.settled(causes, result.seq)
        return result.answer

    def _ended(self, error: MidwatchError) -> BaseException:
        """Say what is raised where a node can do nothing more: here the run ends with it."""
        return self._seg.stop(error)

    def _clean(self, request: ChatRequest) -> ChatRequest:
        """Scrub what the model call itself does not: arguments of earlier calls, which foreign code may have written."""

        def clean(message: Message) -> Message:
            if not message.tool_calls:
                return message
            calls = [call.to_json() for call in message.tool_calls]
            texts = [call | {"arguments": self._seg.scrub.text(call["arguments"])[0]} for call in calls]
            return Message.from_json(message.to_json() | {"tool_calls": texts})

        body = {
            name: getattr(request, name)
            for name in ("agent", "route", "max_output", "tools", "answer_schema", "answer_name")
        }
        return ChatRequest(messages=tuple(clean(message) for message in request.messages), **body)

    async def _tool(
        self, place: Place, agent: str, call_id: str, name: str, raw: str, proposed: str | None
    ) -> Envelope | Wait:
        actor = await self._actor(place, agent)
        proposer = None if proposed is None else self._who_proposed().get(proposed)
        causes = self._causes(place, *(() if proposer is None else (proposer.seq,)))
        key = f"{actor.task}\x1f{call_id}"
        if proposer is not None and agent not in proposer.agents:
            outcome: Answered | Waiting = self._not_its_own(
                Passage(actor, call_id, name, raw, causes), min(proposer.agents)
            )
        else:
            await self._same_course(place, effect_id(actor.run, actor.task, call_id, name), name)
            async with self._locks.setdefault(key, asyncio.Lock()):
                outcome = await self._pipeline.tool(actor, call_id, name, raw, causes)
        if isinstance(outcome, Waiting):
            wait = Wait(
                () if outcome.gate is None else (outcome.gate,), () if outcome.in_doubt is None else (outcome.in_doubt,)
            )
            place.scope.waits[key] = self.waits[key] = wait
            return wait
        place.scope.waits.pop(key, None)
        self.waits.pop(key, None)
        place.scope.settled(causes, outcome.seq)
        return outcome.envelope

    def _not_its_own(self, p: Passage, other: str) -> Answered:
        """Refuse to carry out with one agent's authority what another one's model asked for."""
        reason = f"`{other}` asked for this call; it has not the authority of `{p.actor.agent}`"
        p.mark("contract", "deny", by="proposer", reason=reason)
        return self._record.refuse(p, "denied", reason, hint="use only tools you were offered")

    async def _same_course(self, place: Place, effect: str, name: str) -> None:
        """Let nothing new with an effect begin in a node that runs again, until what it did before was called again.

        Calls that run side by side may come in another order, so it waits a while for the others.

        Raises:
            Halted: with `Divergence`: the node goes another way than before.
        """
        earlier = self._earlier(place)
        if effect in earlier:
            earlier.discard(effect)
            return
        if name in self._seg.registry.names() and self._seg.registry.get(name).contract.effect in REPEATABLE:
            return
        for _ in range(_PATIENCE):
            if not earlier:
                return
            await self._seg.pause(_PATIENCE_US)
        if earlier:
            raise self._ended(
                Divergence(
                    f"node `{place.node}` runs again and does not repeat effect `{min(earlier)}`, which it had before `{name}`; "
                    "what it does must follow from its state and from answers alone, not from the clock or chance"
                )
            )

    def _earlier(self, place: Place) -> set[str]:
        scope, key = place.scope, (place.task, place.attempt)
        if not scope.again and place.attempt == 1:
            return set()
        if key not in scope.earlier:
            rows = self._seg.store.read(lambda tx: tx.effects.list(self._seg.run, statuses=("done", "started")))
            scope.earlier[key] = {
                row.id for row in rows if row.kind == "tool" and row.task == place.task and row.effect not in REPEATABLE
            }
        return scope.earlier[key]

    async def _actor(self, place: Place, agent: str) -> Actor:
        seg = self._seg
        seg.check()
        if not await self._is_kept(place):
            self._refuse(
                f"node `{place.node}` runs under a checkpointer or thread of its own, so its calls could repeat after a crash; "
                "compile the subgraph without one, and give it no `thread_id`"
            )
        spec = seg.fleet.agents.get(agent)
        if spec is None:
            raise seg.stop(NotFound(f"the fleet has no agent `{agent}`"))
        vertical = seg.fleet.vertical_of(agent)
        return Actor(seg.run, seg.fleet.name, agent, spec.role, vertical, place.node, place.task, place.step, seg.epoch)

    async def _is_kept(self, place: Place) -> bool:
        """Say whether the checkpoint that a call's task follows from is in the run's own store."""
        ns = place.task.rpartition("|")[0]
        for _ in range(_TURNS):
            if place.checkpoint in self._kept:
                return True
            if self._seg.store.read(lambda tx: tx.checkpoints.get(self._seg.run, ns, place.checkpoint)) is not None:
                self._kept.add(place.checkpoint)
            else:  # LangGraph has begun to put it, in a task that has its turn soon
                await asyncio.sleep(0)
        return place.checkpoint in self._kept

    def _causes(self, place: Place, *first: int) -> tuple[int, ...]:
        """Give the events behind the next call: the answer that asked for it, then all that the node has settled so far."""
        return (*first, *sorted({place.scope.started, *place.scope.causes} - set(first)))

    def _proposed(self, answer: ChatAnswer, agent: str, seq: int) -> None:
        known = self._who_proposed()
        for call in answer.tool_calls:
            proposer = known.setdefault(call.id, _Proposer())
            proposer.agents.add(agent)
            proposer.seq = max(seq, proposer.seq)

    def _who_proposed(self) -> dict[str, _Proposer]:
        """Give the proposers by call id, those of earlier segments too."""
        if self._proposers is None:
            self._proposers = {}
            for agent, seq, body in self._seg.store.read(lambda tx: list(_answers(tx, self._seg.run))):
                self._proposed(ChatAnswer.from_json(orjson.loads(body)), agent, seq)
        return self._proposers

    async def settle(self) -> None:
        """Let no new call begin, and wait for those in flight: each is bounded by its own time-out."""
        for _ in range(_TURNS):
            await asyncio.sleep(0)
        self._closed = True
        while self._flight:
            await asyncio.wait(self._flight)

    async def abort(self) -> None:
        """Cut what is in flight; the journal knows what was begun."""
        self._closed = True
        for task in tuple(self._flight):
            task.cancel()
        if self._flight:
            await asyncio.wait(self._flight, timeout=5)


@dataclass(frozen=True, slots=True)
class Hosted:
    """An imported graph, ready for one segment."""

    graph: Any
    governed: Governed
    outputs: Any

    def gates(self) -> set[str]:
        """Give the gates that calls of this segment wait for, also those whose interrupt LangGraph did not keep."""
        return {gate for wait in self.governed.waits.values() for gate in wait.gates}

    def in_doubt(self) -> set[str]:
        """Give the effects in doubt that calls of this segment wait for."""
        return {effect for wait in self.governed.waits.values() for effect in wait.in_doubt}

    def result(self, values: Mapping[str, Any]) -> Any:
        """Give the run's output: the graph's output keys as plain JSON.

        Raises:
            UsageProblem: they have no JSON form.
        """
        keys = [self.outputs] if isinstance(self.outputs, str) else self.outputs
        return to_json({key: values[key] for key in keys if key in values})


def host(segment: Segment, foreign: Foreign) -> Hosted:
    """Build the graph for a segment, with our saver and with its nodes watched.

    Raises:
        InvalidFleet: it no longer builds.
    """
    governed = Governed(segment)
    kit = Kit(segment.fleet, segment.registry, governed)

    def scrub(value: object) -> object:
        return scrubbed(value, lambda plain: segment.scrub.value(plain)[0])

    def saver(types: tuple[type, ...]) -> Saver:
        seg = segment
        return Saver(seg.store, run=seg.run, epoch=seg.epoch, stamp=seg.stamp, scrub=scrub, types=types)

    graph = foreign.compile(kit, saver)
    return Hosted(watched(graph, Watching(segment)), governed, graph.output_channels)


def is_ours(tx: Tx, run: str, value: Any) -> bool:
    """Say whether an interrupt came from a governed call: it names gates and effects of this run, and nothing else."""
    if not isinstance(value, dict) or value.keys() != {"gates", "in_doubt"}:
        return False
    gates = [tx.gates.get(str(gate)) for gate in value["gates"]]
    effects = [tx.effects.get(str(effect)) for effect in value["in_doubt"]]
    return bool(gates or effects) and all(row is not None and row.run == run for row in (*gates, *effects))


def _answers(tx: Tx, run: str) -> Iterator[tuple[str, int, bytes]]:
    for row in tx.effects.list(run, statuses=("done",)):
        body = tx.blobs.get(row.result) if row.kind == "model" and row.result is not None else None
        if body is not None:
            yield row.agent, row.finished_seq or row.intent_seq, body


def _running() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None
