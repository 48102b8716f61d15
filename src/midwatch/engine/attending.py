"""Attending: the calls that one start of a program makes of the kernel, in the name of its agent.

In:   an agent, its place in the run; requests for models and tools. Out: answers, envelopes; `Told` where there is none.
May import: everything right of engine. Must not know: HTTP, how the program is run.
Why the program is stopped when a person must speak: the wait may take days. Started again, it is answered from the journal up to where
it stood, since each call is named by what it says and how often that was said (`graph.scope`).
Why a bound ends the agent and not the run: its siblings go on, as with an agent of the kernel's own; only the run's bounds end the run.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, Final, TypeVar

import orjson

from midwatch.engine.context import Halted, Segment
from midwatch.engine.foreign import Governed
from midwatch.engine.pipeline import REPEATABLE
from midwatch.errors import BoundReached, Divergence, MidwatchError, ModelFailure
from midwatch.graph.scope import Place, Scope, Wait
from midwatch.records.call import Actor
from midwatch.records.chat import ChatAnswer, ChatRequest
from midwatch.records.envelope import Envelope

__all__ = ["Attended", "Told"]

T = TypeVar("T")
_AT_ONCE: Final = 8
_REFUSALS: Final = 100
"""Tool calls that may be refused in one start: each is on record, and a program does not tire of asking."""
_CALLS: Final = 1_000
"""Calls of one start, where its agent's own limits do not allow more: a fleet without budgets is bounded, too."""
_REFUSED: Final = ("denied", "unknown_tool", "invalid_arguments", "bound_reached")
_GRACE_US: Final = 150_000
_GRACES: Final = 10
"""For calls that were made together with the one that waits, so that a person is asked about all of them: as long as more come."""
_SHOWN: Final = {"bound_reached": 429, "rate_limited": 429, "bad_request": 400, "refused": 400, "timeout": 504}


class Told(Exception):
    """There is no answer, and why, in words for the program. `status` is HTTP's."""

    def __init__(self, status: int, code: str, message: str) -> None:
        self.status, self.code = status, code
        super().__init__(message)


class _Governed(Governed):
    """As for an imported graph, in a node of our own: what ends a node here ends its agent."""

    def _ended(self, error: MidwatchError) -> BaseException:
        return error

    async def _is_kept(self, place: Place) -> bool:
        return True  # the team's graph has our saver, at every level


class Attended:
    """One start of one program. Made in the node's task, on the segment's event loop.

    Args:
        command: effect of the program itself. started: its intent's event. again: it was started before.

    Attributes:
        stopping: is set when the program has nothing more to do here.
        ended: why its agent can do nothing more; None while it can.
    """

    def __init__(self, segment: Segment, actor: Actor, *, command: str, started: int, again: bool) -> None:
        self._seg, self._actor = segment, actor
        scope = Scope(actor.node, actor.task, actor.step, started)
        scope.earlier[(actor.task, 1)] = self._effects_before(command) if again else set()
        scope.again = again
        self._place = Place(actor.node, actor.task, 1, actor.step, "", scope)
        self._governed = _Governed(segment)
        self._slots = asyncio.Semaphore(_AT_ONCE)
        limits = segment.fleet.agents[actor.agent].limits
        self._calls, self._most = 0, max(_CALLS, (limits.steps or 0) + (limits.tool_calls or 0))
        self._refusals = 0
        self.stopping = asyncio.Event()
        self.ended: str | None = None

    @property
    def waits(self) -> tuple[Wait, ...]:
        """What a person must speak about before the program can go on."""
        return tuple(self._governed.waits.values())

    async def ask(self, request: ChatRequest) -> tuple[ChatAnswer, str]:
        """Ask the agent's model; gives the answer and the name of the call, which is the same after a new start.

        Raises:
            Told: there is none.
        """
        text = orjson.dumps([request.to_json(), request.max_output], option=orjson.OPT_SORT_KEYS).decode()
        async with self._slots:
            self._check()
            name = self._place.scope.ordinal(self._place, text)
            asked = self._governed.ask(self._place, self._actor.agent, f"model:{name}", request)
            return await self._told(asked), name

    async def tool(self, name: str, raw: str, proposed: str | None) -> Envelope:
        """Carry out a tool call past every guard.

        Args:
            proposed: the id under which the agent's model asked for it, where the program says so.

        Raises:
            Told: there is no answer yet, or none any more.
        """
        agent = self._actor.agent
        async with self._slots:
            self._check()
            text = f"{agent} {name} {proposed or ''} {raw}"
            call = f"code:{self._place.scope.ordinal(self._place, text)}"
            outcome = await self._told(self._governed.tool(self._place, agent, call, name, raw, proposed))
        if isinstance(outcome, Wait):
            await self._others()
            message = "a person must answer first; the program is stopped, and started again then"
            raise Told(409, "needs_approval", message)
        if outcome.error is not None and outcome.error.code in _REFUSED:
            self._refusals += 1
            if self._refusals >= _REFUSALS:
                self._stop(f"it asked {_REFUSALS} times for what it may not have")
        return outcome

    async def _others(self) -> None:
        """Stop the program once it asks for nothing more, or has asked for long enough."""
        seen = -1
        for _ in range(_GRACES):
            if seen == self._calls:
                break
            seen = self._calls
            await self._seg.pause(_GRACE_US)
        self.stopping.set()

    def _check(self) -> None:
        if self.stopping.is_set():
            raise Told(503, "halted", "the program is being stopped; nothing more is answered")
        self._calls += 1
        if self._calls > self._most:
            self._stop(f"it made more than {self._most:,} calls in one start")
            raise Told(429, "bound_reached", f"one start of a program may make {self._most:,} calls")

    async def _told(self, work: Coroutine[Any, Any, T]) -> T:
        """Turn what ends a call into words for the program, and what ends its agent into a stop."""
        try:
            return await work
        except Halted as halted:
            self.stopping.set()
            raise Told(503, "halted", "the run was stopped") from halted
        except (BoundReached, Divergence) as ended:
            self._stop(str(ended))
            code = "bound_reached" if isinstance(ended, BoundReached) else "halted"
            raise Told(_SHOWN.get(code, 503), code, str(ended)) from ended
        except ModelFailure as failed:
            words = self._seg.scrub.text(str(failed))[0]  # a provider may quote what it was sent
            raise Told(_SHOWN.get(failed.code, 502), failed.code, words) from failed

    def _stop(self, reason: str) -> None:
        self.ended = self.ended or reason
        self.stopping.set()

    def _effects_before(self, command: str) -> set[str]:
        """Give the effects that an earlier start of the program had."""
        seg, task = self._seg, self._actor.task
        rows = seg.store.read(lambda tx: tx.effects.list(seg.run, statuses=("done", "started")))
        mine = (row for row in rows if row.kind == "tool" and row.task == task and row.id != command)
        return {row.id for row in mine if row.effect not in REPEATABLE}

    async def settle(self) -> None:
        """Wait for calls under way, which are journalled, and take no more; a run that is stopped does not wait."""
        self.stopping.set()
        if self._seg.halt is None:
            await self._governed.settle()
        await self._governed.abort()
