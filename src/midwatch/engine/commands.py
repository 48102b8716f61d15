"""Commands: agents that are programs: one start of one program in its agent's sandbox, as one effect of the run.

In:   an agent's actor and what it may see. Out: `Ended` with its answer, `GaveUp` with a reason, `Wait` for a person.
May import: everything right of engine. Must not know: the graph around it, any backend.

    reserve → intent (durable) → start with its brief → calls through the gateway → end → layer → answer → finished

Why its changes count only with its answer: what a program did on the way to nothing is of no use to anybody, and a program that is
started again begins where this one began. What it had the kernel do is journalled and not done twice.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

import orjson

from midwatch.agents import step
from midwatch.agents.answers import Evidence, answer_schema
from midwatch.config.command_rules import digest_of
from midwatch.engine import quarantine, stopping
from midwatch.engine.attending import Attended
from midwatch.engine.containing import Containing
from midwatch.engine.context import Segment
from midwatch.engine.finishing import to_the_end
from midwatch.engine.gateway import Gateway
from midwatch.engine.passage import draft, program_name
from midwatch.engine.pipeline import Pipeline
from midwatch.engine.staged import Observed, observed, unsent
from midwatch.engine.staging import Turn
from midwatch.errors import (
    BoundReached,
    Conflict,
    Divergence,
    FenceLost,
    MidwatchError,
    RunHalted,
    SandboxError,
    StoreError,
)
from midwatch.governor import scopes
from midwatch.graph.scope import Wait
from midwatch.records.call import Actor
from midwatch.records.chat import ChatAnswer, Usage
from midwatch.records.decision import StageMark
from midwatch.records.effect import EffectRow, effect_id
from midwatch.records.envelope import Code, Envelope, ErrorBody
from midwatch.records.handoff import Handoff, Plan
from midwatch.sandbox.effects import CHANGING
from midwatch.sandbox.layers import Layer
from midwatch.sandbox.plan import BRIDGE_PORT
from midwatch.sandbox.port import RunResult
from midwatch.sandbox.profile import merged
from midwatch.store.port import Tx

__all__ = ["Commands", "Ended", "GaveUp"]

_BRIEF: Final = "/tmp/midwatch-brief.json"  # noqa: S108 - inside, a file system of its own
_START: Final = 'cat >"$MIDWATCH_BRIEF" && exec "$@" <"$MIDWATCH_BRIEF"'
"""What the sandbox's shell does first: the brief is there as a file and as the program's input."""
_SAID: Final = 65_536
"""Bytes of a program's output that are kept, its end: more cannot be an answer."""
_TRACED: Final = 8_192
_CALL: Final = "command"
Known = Callable[[], Mapping[str, Evidence]]


@dataclass(frozen=True, slots=True)
class Ended:
    """The program's answer holds. `rule` names the recovery rule that was needed; `seq` is the event that records it."""

    value: Plan | Handoff
    rule: str | None
    seq: int


@dataclass(frozen=True, slots=True)
class GaveUp:
    """Its agent can do nothing more. `rejected`: code of an answer that broke its contract."""

    reason: str
    seq: int | None = None
    rejected: str | None = None


@dataclass(frozen=True, slots=True)
class _Start:
    """One start: what it is, and where the journal has it."""

    actor: Actor
    view: step.View
    known: Known
    brief: bytes
    effect: str
    attempt: int
    seq: int
    began_us: int

    @property
    def reservation(self) -> str:
        return f"t:{self.effect}:{self.attempt}"

    @property
    def name(self) -> str:
        return program_name(self.actor.agent)


@dataclass(frozen=True, slots=True)
class _Verdict:
    """What a start came to."""

    said: str
    value: Plan | Handoff | None = None
    rule: str | None = None
    code: Code = "contract"
    reason: str = ""
    rejected: str | None = None


class Commands:
    """Runs the programs of one segment's agents."""

    def __init__(self, segment: Segment, pipeline: Pipeline) -> None:
        self._seg, self._pipeline = segment, pipeline
        self._containing = Containing(segment)

    async def run(self, actor: Actor, view: step.View, known: Known, causes: tuple[int, ...]) -> Ended | GaveUp | Wait:
        """Run an agent's program to its end, at most once for its place in the run as far as anybody can tell.

        Args:
            known: gives what the agent may cite besides its own run; asked when the program has ended.

        Raises:
            Halted: the run must stop; the program is dead by then.
        """
        seg = self._seg
        seg.check()
        effect = effect_id(actor.run, actor.task, _CALL, program_name(actor.agent))
        row = seg.store.read(lambda tx: tx.effects.get(effect))
        if row is not None and row.status == "done":
            return self._stored(row, view, known)
        if row is not None and row.status == "not_done":
            return GaveUp("a person says that its program did nothing", row.finished_seq)
        body = {
            **step.brief(view),
            "agent": actor.agent,
            "role": actor.role,
            "evidence": f"e:{effect}",
            "answer_schema": answer_schema(actor.role),
        }
        attempt = 1 if row is None else row.attempt + 1
        brief = orjson.dumps(body, option=orjson.OPT_SORT_KEYS)
        start = _Start(actor, view, known, brief, effect, attempt, 0, seg.clock())
        refused = await self._reserve(start)
        if refused is not None:
            return refused
        start = replace(start, seq=await self._intend(start, causes))
        attended = Attended(seg, actor, command=effect, started=start.seq, again=row is not None)
        async with seg.staging.turn(
            actor.agent, f"{effect}-{attempt}", api=self._gateway(actor.agent, view, attended)
        ) as turn:
            return await self._carried(start, attended, turn)

    def _gateway(self, agent: str, view: step.View, attended: Attended) -> Gateway:
        route = self._seg.routes[view.spec.route]
        return Gateway(
            agent, view.spec.route, self._seg.fleet.route_of(agent).model, route.max_output, view.offers, attended
        )

    async def _reserve(self, start: _Start) -> GaveUp | None:
        """Hold one tool call for the start, on every scope."""
        seg, actor, now = self._seg, start.actor, self._seg.clock()
        self._pipeline.governing.alive(now)
        bounds = self._pipeline.governing.bounds
        try:
            await bounds.claim(actor, start.reservation, lambda _: {"tool_calls": 1}, lasting=True)
        except BoundReached as error:
            if not scopes.is_agent_scope(error.scope):
                raise seg.stop(error) from error
            return GaveUp(f"its program was not started: {error}")
        return None

    async def _intend(self, start: _Start, causes: tuple[int, ...]) -> int:
        """One durable transaction: fence, halt, reservation, intent."""
        seg, actor, spec = self._seg, start.actor, start.view.spec
        isolation = seg.staging.isolation

        def work(tx: Tx) -> int:
            tx.fences.check(actor.run, actor.epoch)
            stopping.hold(tx, seg.fleet, actor.run, agent=actor.agent)
            tx.budgets.confirm(start.reservation)
            # Charged at once: what a start costs is known, and the calls of the program must not wait for it.
            tx.runs.add_spend(actor.run, tx.budgets.settle(start.reservation, {"tool_calls": 1}, at_us=seg.clock()))
            blob = tx.blobs.put(start.brief)
            digest = hashlib.sha256(orjson.dumps([spec.command, [item.sha256 for item in spec.programs]])).hexdigest()
            data = {
                "effect": start.effect,
                "tool": start.name,
                "tool_digest": digest,
                "class": "write",
                "arguments_blob": blob,
                "attempt": start.attempt,
                "runs": "sandbox",
                "isolation": isolation.level(actor.agent),
                "confined": isolation.confined(actor.agent),
                "argv": list(spec.command),
            }
            named = {"call": _CALL, "tool": start.name}
            asked = draft("proposed", actor, start.began_us, {**named, "arguments_blob": blob}, causes)
            held = StageMark("governor", "pass", {"reservation": start.reservation})
            let = draft(
                "decided", actor, start.began_us, {**named, "stages": [held.to_json()]}, (tx.ledger.append(asked),)
            )
            seq = tx.ledger.append(draft("intent", actor, start.began_us, data, causes=(tx.ledger.append(let),)))
            quarantine.begins(tx, seq)
            row = EffectRow(
                id=start.effect,
                run=actor.run,
                task=actor.task,
                call_id=_CALL,
                kind="tool",
                tool=start.name,
                tool_digest=digest,
                effect="write",
                agent=actor.agent,
                args_digest=hashlib.sha256(start.brief).hexdigest(),
                arguments=blob,
                epoch=actor.epoch,
                attempt=start.attempt,
                status="started",
                started_us=start.began_us,
                intent_seq=seq,
            )
            tx.effects.begin(row)
            return seq

        try:
            return await seg.durable(work)
        except (FenceLost, RunHalted, Divergence, StoreError) as error:
            raise seg.stop(error) from error

    async def _carried(self, start: _Start, attended: Attended, turn: Turn) -> Ended | GaveUp | Wait:
        """Run the program, stop it when it must stop, and write down what it came to."""
        ended: RunResult | None = None
        try:
            ended = await self._performed(start, attended, turn)
        finally:
            await to_the_end(self._quiet(start, attended, turn, cut=ended is None))
        waits = attended.waits
        if self._seg.halt is not None or waits:
            self._seg.check()
            gates = tuple(gate for wait in waits for gate in wait.gates)
            return Wait(gates, tuple(effect for wait in waits for effect in wait.in_doubt))
        return await self._settled(start, attended, turn, ended)

    async def _quiet(self, start: _Start, attended: Attended, turn: Turn, *, cut: bool) -> None:
        """Let calls under way end, and note it where the program will be started again or never."""
        await attended.settle()
        if cut or self._seg.halt is not None:
            await self._cut(start, turn, "the run was stopped")
        elif attended.waits:
            await self._cut(start, turn, "a person must speak first")

    async def _performed(self, start: _Start, attended: Attended, turn: Turn) -> RunResult:
        """Run it until it ends, or until it has nothing more to do."""
        spec, limits = start.view.spec, merged(self._seg.staging.isolation.spec(start.actor.agent).limits)
        changed = [item.word for item in spec.programs if digest_of(item.path) != item.sha256]
        if changed:
            return RunResult(
                "crashed", detail=f"`{changed[0]}` is another file than it was when the fleet was loaded; start anew"
            )
        where = {item.word: str(item.path) for item in spec.programs}
        argv = ["/bin/sh", "-c", _START, start.name, *(where.get(word, word) for word in spec.command)]
        running = asyncio.ensure_future(
            turn.run(
                argv,
                stdin=start.brief,
                env=self._environment(start.actor.agent),
                timeout_us=limits.wall_us or 0,
                max_bytes=_SAID,
            )
        )
        stopping = asyncio.ensure_future(attended.stopping.wait())
        try:
            await asyncio.wait({running, stopping}, return_when=asyncio.FIRST_COMPLETED)
            if running.done() and not running.cancelled():
                return running.result()
            return RunResult("crashed", detail=attended.ended or "it was stopped")
        finally:
            for task in (running, stopping):
                task.cancel()
            await to_the_end(_both(running, stopping))

    def _environment(self, agent: str) -> dict[str, str]:
        """Give the variables that a program finds beside those of every sandbox."""
        inside = f"http://127.0.0.1:{BRIDGE_PORT}/midwatch/tools"
        told = {"MIDWATCH_AGENT": agent, "MIDWATCH_BRIEF": _BRIEF, "MIDWATCH_TOOLS": inside}
        imports = self._seg.staging.isolation.imports(agent)
        return told | ({"PYTHONPATH": imports} if imports else {})

    async def _settled(self, start: _Start, attended: Attended, turn: Turn, ended: RunResult) -> Ended | GaveUp:
        """Judge the answer; its changes are staged with it, or dropped without it."""
        verdict, seen = await self._judged(start, attended, turn, ended)
        turn.answered = verdict.value is not None
        envelope = _sealed(start, verdict, changed=_changed(seen))
        seq = await self._finish(start, turn, ended, envelope, seen)
        turn.keep(seq, start.effect, start.name, seen)
        if verdict.value is not None:
            return Ended(verdict.value, verdict.rule, seq)
        return GaveUp(verdict.reason, seq, verdict.rejected)

    async def _judged(
        self, start: _Start, attended: Attended, turn: Turn, ended: RunResult
    ) -> tuple[_Verdict, Observed | None]:
        said = self._seg.scrub.text(ended.stdout.decode("utf-8", "replace"))[0]
        failure = _failure(ended, attended)
        turn.answered = failure is None
        seen: Observed | None = None
        try:
            seen = await turn.gather()
        except (Conflict, SandboxError) as untold:
            seen = turn.left
            code: Code = "conflict" if isinstance(untold, Conflict) else "crashed"
            failure = failure or _Verdict(said, code=code, reason=f"nothing of what its program did was kept: {untold}")
        verdict = failure or self._read(start.view, start.effect, start.known, said, changed=_changed(seen))
        if verdict.value is None and seen is not None:
            seen = observed(Layer((), unsent(seen.layer.requests)))  # of what gave no answer, no change counts
        return replace(verdict, said=said), seen

    def _read(self, view: step.View, effect: str, known: Known, said: str, *, changed: bool) -> _Verdict:
        """Read what a program said as its agent's answer. It may cite its own run where that changed something."""
        rows, own = dict(known()), f"e:{effect}"
        rows.pop(own, None)
        if changed:
            rows[own] = Evidence(program_name(view.spec.name), ok=True, changed=True)
        found = step.after_answer(view, ChatAnswer(said, (), Usage(0, 0), "stop", ""), rows.get)
        match found:
            case step.Finish(value=value, rule=rule):
                return _Verdict(said, value, rule)
            case step.TryAgain(rejected=rejected):
                fields = [f"; `{error.path}`: {error.message}" for error in rejected.field_errors]
                items = [f"; `{item.field}`, item {item.index}: {item.hint}" for item in rejected.items]
                first = next(iter((*fields, *items)), "")
                reason = f"its program's answer was refused: {rejected.message}{first}"
                return _Verdict(said, reason=reason, rejected=rejected.code)
        return _Verdict(said, reason="its program gave no answer")

    def _stored(self, row: EffectRow, view: step.View, known: Known) -> Ended | GaveUp:
        """Answer from the journal: the program has ended, and what came after it was cut."""
        body = self._seg.store.read(lambda tx: tx.blobs.get(row.result or ""))
        if body is None:
            raise self._seg.stop(Divergence(f"the result of effect `{row.id}` is missing from the store"))
        envelope = Envelope.from_json(orjson.loads(body))
        seq = row.finished_seq or row.intent_seq
        if envelope.error is not None:
            return GaveUp(envelope.error.message, seq, envelope.meta.get("rejected"))
        data = envelope.data if isinstance(envelope.data, dict) else {}
        verdict = self._read(view, row.id, known, str(data.get("said", "")), changed=bool(data.get("changed")))
        if verdict.value is None:
            return GaveUp(verdict.reason, seq, verdict.rejected)
        return Ended(verdict.value, verdict.rule, seq)

    async def _cut(self, start: _Start, turn: Turn, why: str) -> None:
        """Note that the program was stopped. It may be started again: what it changed is dropped, what it asked for is on record."""
        seg, actor = self._seg, start.actor
        turn.answered, seen = False, None
        with contextlib.suppress(Conflict, SandboxError):
            seen = await turn.gather()
        counted, kept, now = await turn.counted(), seen, seg.clock()

        def work(tx: Tx) -> None:
            tx.fences.check(actor.run, actor.epoch)
            data = {"effect": start.effect, "tool": start.name, "word": "retry", "by": "kernel", "reason": why}
            more = {} if kept is None else {"observed": kept.to_json(tx.blobs.put(kept.manifest))}
            told = {**data, **more, **counted, "ms": max(0, (now - start.began_us) // 1000)}
            seq = tx.ledger.append(draft("effect.resolved", actor, now, told, causes=(start.seq,)))
            tx.effects.resolve(start.effect, status="retry", result=None, by="kernel", at_us=now, seq=seq)
            tx.runs.add_spend(actor.run, tx.budgets.settle(start.reservation, {"tool_calls": 1}, at_us=now))

        with contextlib.suppress(MidwatchError):  # a fence that is lost is another worker's run now
            seg.store.write(work)

    async def _finish(
        self, start: _Start, turn: Turn, ended: RunResult, envelope: Envelope, seen: Observed | None
    ) -> int:
        """One transaction: what it came to, its layer, what the machine counted, the charge."""
        seg, actor, now = self._seg, start.actor, self._seg.clock()
        counted = await turn.counted()
        stderr = ended.stderr.decode("utf-8", "replace")[-_TRACED:]
        stdout = "" if envelope.ok else ended.stdout.decode("utf-8", "replace")[-_TRACED:]
        detail = "\n".join(part for part in (ended.detail, stderr, stdout) if part)

        def work(tx: Tx) -> int:
            blob = tx.blobs.put(orjson.dumps(envelope.to_json()))
            data = {
                "effect": start.effect,
                "tool": start.name,
                "ok": envelope.ok,
                "code": None if envelope.error is None else envelope.error.code,
                "result_blob": blob,
                "refs": list(envelope.refs),
                "truncated": ended.stdout_bytes > len(ended.stdout),
                "ms": max(0, (now - start.began_us) // 1000),
                "declared": {"class": "write", "open_world": False},
                "exit_code": ended.exit_code,
                "said_bytes": [ended.stdout_bytes, ended.stderr_bytes],
                **({} if seen is None else {"observed": seen.to_json(tx.blobs.put(seen.manifest))}),
                **self._containing.program(tx, actor.agent),
                **counted,
                "detail_blob": tx.blobs.put(seg.scrub.text(detail)[0].encode()) if detail else None,
            }
            seq = tx.ledger.append(draft("finished", actor, now, data, causes=(start.seq,)))
            tx.effects.finish(start.effect, epoch=actor.epoch, result=blob, at_us=now, seq=seq)
            tx.runs.add_spend(actor.run, tx.budgets.settle(start.reservation, {"tool_calls": 1}, at_us=now))
            return seq

        return seg.write(work)


async def _both(*tasks: asyncio.Future[Any]) -> None:
    await asyncio.gather(*tasks, return_exceptions=True)


def _failure(ended: RunResult, attended: Attended) -> _Verdict | None:
    """Say why there is no answer to read; None where there may be one."""
    if attended.ended is not None:
        return _Verdict("", code="bound_reached", reason=f"its program was stopped: {attended.ended}")
    if ended.status == "timeout":
        return _Verdict("", code="timeout", reason="its program took longer than `sandbox.limits.wall` allows")
    if ended.status != "ended":
        return _Verdict("", code="crashed", reason="its program could not be run; the trace says why")
    if ended.exit_code != 0:
        return _Verdict("", code="crashed", reason=f"its program ended with exit code {ended.exit_code}")
    return None


def _sealed(start: _Start, verdict: _Verdict, *, changed: bool) -> Envelope:
    meta = {"tool": start.name}
    if verdict.value is not None:
        data = {"said": verdict.said, "changed": changed}
        return Envelope(ok=True, data=data, refs=(f"e:{start.effect}",), meta=meta)
    return Envelope(
        ok=False, error=ErrorBody(verdict.code, verdict.reason), meta={**meta, "rejected": verdict.rejected}
    )


def _changed(seen: Observed | None) -> bool:
    return seen is not None and any(change.op in CHANGING for change in seen.layer.changes)
