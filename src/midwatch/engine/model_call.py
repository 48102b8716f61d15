"""Model calls: the same path as a tool call, with tokens and money reserved before and settled after, once per attempt.

In:   an `Actor`, a `ChatRequest`. Out: `ModelAnswered`, or `ModelRefused` when only this agent's part must end.
May import: everything right of engine. Must not know: the graph around it, which provider answers.
Why every attempt is a reservation: a retry costs again, and a cut or silent stream may have been charged (DESIGN.md, section 4).
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import orjson

from midwatch.engine import degrading, quarantine, stopping
from midwatch.engine.context import RouteRuntime, Segment
from midwatch.engine.passage import draft
from midwatch.engine.pipeline import Pipeline
from midwatch.errors import BoundReached, Divergence, FenceLost, MidwatchError, ModelFailure, RunHalted, StoreError
from midwatch.governor import scopes
from midwatch.models.prices import FLOOR_OUTPUT, fit_output
from midwatch.models.tokens import believable, input_bound
from midwatch.records.call import Actor
from midwatch.records.chat import ChatAnswer, ChatRequest, Message
from midwatch.records.effect import EffectRow, effect_id
from midwatch.records.spend import Account, Unit
from midwatch.store.port import Tx

__all__ = ["ModelAnswered", "ModelCalls", "ModelRefused"]

RETRY_US = 500_000
RETRY_LIMIT_US = 20_000_000


@dataclass(frozen=True, slots=True)
class ModelAnswered:
    """The model's answer, scrubbed of credentials; `seq` is the event that records it."""

    answer: ChatAnswer
    seq: int


@dataclass(frozen=True, slots=True)
class ModelRefused:
    """The agent cannot go on: its own bound is reached, or the provider kept failing. `error` is what it met."""

    code: str
    reason: str
    error: MidwatchError | None = None


@dataclass(frozen=True, slots=True)
class _Ask:
    """One question at its place in the run; the same for every attempt."""

    actor: Actor
    call_id: str
    effect: str
    request: ChatRequest
    body: bytes
    digest: str
    causes: tuple[int, ...]


class ModelCalls:
    """Carries model calls of one segment."""

    def __init__(self, segment: Segment, pipeline: Pipeline) -> None:
        self._seg, self._pipeline = segment, pipeline
        pipeline.reads_with(self.ask)

    async def ask(
        self, actor: Actor, call_id: str, request: ChatRequest, causes: tuple[int, ...]
    ) -> ModelAnswered | ModelRefused:
        """Ask once for this place in the run; a repeated place is answered from the journal and not billed again.

        Raises:
            Halted: the run must stop.
        """
        seg = self._seg
        seg.check()
        request = self._scrub(request)
        body = orjson.dumps(
            request.to_json(), option=orjson.OPT_SORT_KEYS
        )  # 30 times faster than RFC 8785; no action hangs on it
        digest = hashlib.sha256(body).hexdigest()
        effect = effect_id(actor.run, actor.task, call_id, request.route)
        row = seg.store.read(lambda tx: tx.effects.get(effect))
        if row is not None and row.args_digest != digest:
            raise seg.stop(
                Divergence(f"step `{actor.node}` repeated its model call with another request; the run stops")
            )
        if row is not None and row.status == "done":
            return self._stored(row)
        attempt = 1 if row is None else row.attempt + 1
        route = seg.routes[request.route]
        for retry in range(route.retries + 1):
            try:
                with seg.at_work(actor):
                    asked = _Ask(actor, call_id, effect, request, body, digest, causes)
                    return await self._attempt(asked, attempt + retry)
            except BoundReached as error:
                if not scopes.is_agent_scope(error.scope):
                    raise seg.stop(error) from error
                return ModelRefused("bound_reached", str(error), error)
            except ModelFailure as error:
                if not error.retryable or retry == route.retries:
                    return ModelRefused(error.code, str(error), error)
                wait = error.retry_after_us if error.retry_after_us is not None else RETRY_US << retry
                await seg.pause(min(wait, RETRY_LIMIT_US))
                seg.check()
        msg = "a route allows no attempt"
        raise seg.stop(Divergence(msg))

    def _stored(self, row: EffectRow) -> ModelAnswered:
        body = self._seg.store.read(lambda tx: tx.blobs.get(row.result or ""))
        if body is None:
            raise self._seg.stop(Divergence(f"the answer of model call `{row.id}` is missing from the store"))
        return ModelAnswered(ChatAnswer.from_json(orjson.loads(body)), row.finished_seq or row.intent_seq)

    async def _attempt(self, ask: _Ask, attempt: int) -> ModelAnswered:
        actor, seg = ask.actor, self._seg
        self._pipeline.governing.alive(seg.clock())
        request = degrading.asked(ask.request, self._pipeline.governing.bounds.cheaper(actor), seg.routes)
        if request != ask.request:  # the journal still knows the call by what the agent asked for
            sent = orjson.dumps(request.to_json(), option=orjson.OPT_SORT_KEYS)
            ask = replace(ask, request=request, body=sent)
        route = seg.routes[request.route]
        reservation = f"m:{ask.effect}:{attempt}"
        output = await self._reserve(actor, request, route, reservation)
        self._pipeline.governing.breaking.admit(actor, "route", request.route, reservation)
        row = await self._intend(ask, attempt, reservation, output)
        try:
            answer = await route.model.chat(
                request, max_output=output, deadline_us=seg.clock() + route.timeout_us, on_delta=None, stop=None
            )
        except ModelFailure as error:
            self._settle_failure(actor, row, request, reservation, error)
            raise
        return self._settle(actor, row, request, route, reservation, answer)

    async def _reserve(self, actor: Actor, request: ChatRequest, route: RouteRuntime, reservation: str) -> int:
        """Hold the worst case on every scope and lower `max_output` to what is left; returns it."""
        bound = input_bound(request, protocol=route.protocol)
        wanted = min(request.max_output, route.max_output)
        output = wanted

        def amounts(accounts: Sequence[Account]) -> Mapping[Unit, int]:
            nonlocal output
            fitted = fit_output(
                route.price,
                balance_cost=scopes.room(accounts, "cost"),
                balance_tokens=scopes.room(accounts, "tokens"),
                input_bound=bound,
                wanted=wanted,
            )
            output = min(wanted, FLOOR_OUTPUT) if fitted is None else fitted
            return {"cost": route.price.worst(bound, output), "tokens": bound + output, "steps": 1}

        await self._pipeline.governing.bounds.claim(actor, reservation, amounts)
        return output

    async def _intend(self, ask: _Ask, attempt: int, reservation: str, output: int) -> EffectRow:
        """One durable transaction: fence, halt, reservation, intent."""
        actor, request = ask.actor, ask.request
        seg, now = self._seg, self._seg.clock()
        price = seg.routes[request.route].price

        def work(tx: Tx) -> EffectRow:
            tx.fences.check(actor.run, actor.epoch)
            stopping.hold(tx, seg.fleet, actor.run, agent=actor.agent)
            tx.budgets.confirm(reservation)
            blob = tx.blobs.put(ask.body)
            data = {
                "effect": ask.effect,
                "model": price.model,
                "route": request.route,
                "request_blob": blob,
                "asked": ask.digest,
                "max_output": output,
                "attempt": attempt,
                "price": price.version,
            }
            seq = tx.ledger.append(draft("intent", actor, now, data, causes=ask.causes))
            quarantine.begins(tx, seq)
            row = EffectRow(
                id=ask.effect,
                run=actor.run,
                task=actor.task,
                call_id=ask.call_id,
                kind="model",
                tool=request.route,
                tool_digest="",
                effect="read",
                agent=actor.agent,
                args_digest=ask.digest,
                arguments=blob,
                epoch=actor.epoch,
                attempt=attempt,
                status="started",
                started_us=now,
                intent_seq=seq,
            )
            tx.effects.begin(row)
            return row

        try:
            return await seg.durable(work)
        except (FenceLost, RunHalted, Divergence, StoreError) as error:
            raise seg.stop(error) from error

    def _settle(
        self,
        actor: Actor,
        row: EffectRow,
        request: ChatRequest,
        route: RouteRuntime,
        reservation: str,
        answer: ChatAnswer,
    ) -> ModelAnswered:
        seg, now = self._seg, self._seg.clock()
        content, _ = seg.scrub.text(answer.content)
        calls = tuple(replace(call, arguments=seg.scrub.text(call.arguments)[0]) for call in answer.tool_calls)
        clean = replace(answer, content=content, tool_calls=calls)
        usage, believed = answer.usage, believable(request, answer)
        used: dict[Unit, int] = {"cost": route.price.cost(usage), "tokens": usage.input + usage.output, "steps": 1}
        actual = used if believed else None
        signals = answer.signals if believed else (*answer.signals, "usage_too_low")

        def work(tx: Tx) -> int:
            blob = tx.blobs.put(orjson.dumps(clean.to_json()))
            charged = tx.budgets.settle(reservation, actual, at_us=now)
            tx.runs.add_spend(actor.run, charged)
            data: dict[str, Any] = {
                "effect": row.id,
                "model": answer.model,
                "route": request.route,
                "ok": True,
                "finish": answer.finish,
                "usage": usage.to_json(),
                "cost": charged.get("cost", 0),
                "price": route.price.version,
                "result_blob": blob,
                "ms": (now - row.started_us) // 1000,
            }
            if not believed:
                data["charged_in_full"] = True
            seq = tx.ledger.append(draft("finished", actor, now, data, causes=(row.intent_seq,)))
            for rule in signals:
                where = "usage" if rule == "usage_too_low" else "constrained answer"
                told = {"route": request.route, "model": answer.model, "rule": rule, "where": where}
                tx.ledger.append(draft("signal", actor, now, told, causes=(seq,)))
            tx.effects.finish(row.id, epoch=actor.epoch, result=blob, at_us=now, seq=seq)
            took = now - row.started_us
            self._pipeline.governing.breaking.model_ended(
                tx, actor, request.route, reservation, error=None, took_us=took, now=now
            )
            return seq

        return ModelAnswered(clean, seg.write(work))

    def _settle_failure(
        self, actor: Actor, row: EffectRow, request: ChatRequest, reservation: str, error: ModelFailure
    ) -> None:
        """What was dispatched is charged in full; what never left is given back."""
        seg, now = self._seg, self._seg.clock()

        def work(tx: Tx) -> None:
            actual = None if error.dispatched else {"cost": 0, "tokens": 0, "steps": 1}
            charged = tx.budgets.settle(reservation, actual, at_us=now)  # type: ignore[arg-type]
            tx.runs.add_spend(actor.run, charged)
            data = {
                "effect": row.id,
                "route": request.route,
                "ok": False,
                "code": error.code,
                "charged_in_full": error.dispatched,
                "cost": charged.get("cost", 0),
                "price": seg.routes[request.route].price.version,
                "detail_blob": tx.blobs.put(seg.scrub.text(str(error))[0].encode()),
                "ms": (now - row.started_us) // 1000,
            }
            tx.ledger.append(draft("finished", actor, now, data, causes=(row.intent_seq,)))
            took = now - row.started_us
            self._pipeline.governing.breaking.model_ended(
                tx, actor, request.route, reservation, error=error.code, took_us=took, now=now
            )

        seg.write(work)

    def _scrub(self, request: ChatRequest) -> ChatRequest:
        def clean(message: Message) -> Message:
            return replace(message, content=self._seg.scrub.text(message.content)[0])

        return replace(request, messages=tuple(clean(message) for message in request.messages))
