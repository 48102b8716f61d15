"""Schedules: what goes wrong, when, and under which caps, drawn from a number; and a provider without a socket that keeps a true bill.

In:   a seed. Out: a `Schedule`; `Wire`, which stands in the place of a route's client and plays the scripted provider's own code.
Must not know: the kernel, the store, how anything is reserved.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncGenerator, Callable, Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any, Final

import httpx2
import openai
import orjson

from midwatch.models.scripted.answer import compose, find_rule, reported
from midwatch.models.scripted.ask import read_ask
from midwatch.models.scripted.bill import BillLine, cost_microusd
from midwatch.models.scripted.faults import Fault
from midwatch.models.scripted.scenario import Scenario
from midwatch.models.scripted.wire import Head, events

__all__ = ["AGENTS", "HOUR_US", "Schedule", "Wire", "schedule"]

AGENTS: Final = ("a", "b", "c")
HOUR_US: Final = 3_600_000_000
_FAULTS: Final = ("status", "timeout", "cut_stream", "no_finish", "no_usage", "lying_usage", "refused", "bad_json")
_LIES: Final = (
    Fraction(0),
    Fraction(1, 100),
    Fraction(1, 10),
    Fraction(1, 4),
    Fraction(2),
    Fraction(1000),
    Fraction(-1),
)
"""What a report is, as a multiple of the truth. Between a third and the whole nobody can tell without the provider's tokenizer."""
_LONGEST_S: Final = 5.0


@dataclass(frozen=True, slots=True)
class Schedule:
    """One schedule.

    Attributes:
        fan: calls at once. runs: runs that share the fleet's scopes. waves: how often all of it is asked.
        caps: by scope of the fleet file, by unit. ladder: a cheaper route from half of the run's cap on.
        faulty, busy, crash: in thousandths: calls that a fault meets (all of one kind, where `kind` names it); transactions that fail,
            before or after they were committed; runs a wave whose worker dies with its calls under way.
        top_up: micro-dollars added between waves.
        jump: hours that the clock goes on between waves. breakers: they are on. usable: all goes well and more is asked than fits.
    """

    seed: int
    fan: int
    runs: int
    waves: int
    output: int
    prompt: int
    caps: Mapping[str, Mapping[str, int]]
    ladder: bool = False
    faulty: int = 0
    kind: str = ""
    busy: int = 0
    crash: int = 0
    top_up: int = 0
    jump: bool = False
    breakers: bool = False
    usable: bool = False


def schedule(seed: int) -> Schedule:
    """Draw one."""
    dice = random.Random(seed)
    fan = dice.choice((1, 2, 2, 3, 3, 4, 5, 6, 8, 12, 20, dice.randint(1, 100)))
    prompt, output = dice.randint(20, 4000), dice.choice((16, 64, 200, 800))
    each = 3 * (prompt + 500) + 12 * output  # about what one call holds, in micro-dollars
    found = Schedule(seed, fan, dice.randint(1, 4), dice.choice((1, 1, 1, 2, 3)), output, prompt, {})
    if seed % 50 == 0:
        truth = 3 * prompt // 4
        cap = max(60 * each, fan * truth // 2)
        return replace(
            found, waves=200, fan=max(fan, 12), runs=dice.randint(1, 4), caps={"fleet": {"cost": cap}}, usable=True
        )
    share = dice.choice((Fraction(1, 2), Fraction(1), Fraction(3), Fraction(fan, 2), Fraction(fan)))
    caps: dict[str, dict[str, int]] = {}
    for scope in dice.sample(("fleet", "run", "north", "a"), dice.randint(1, 3)):
        caps[scope] = (
            {"cost": int(each * share)} if dice.random() < 0.8 else {"tokens": int((prompt + output + 500) * share)}
        )
    kind = dice.choice(_FAULTS) if dice.random() < 0.2 else ""
    return replace(
        found,
        caps=caps,
        ladder="cost" in caps.get("run", {}) and dice.random() < 0.5,
        waves=found.waves + (5 if kind and fan < 13 else 0),
        faulty=800 if kind else dice.choice((0, 100, 300, 700)),
        kind=kind,
        busy=dice.choice((0, 0, 20, 80)),
        crash=dice.choice((0, 0, 300, 800)),
        top_up=each * dice.randint(1, 5) if dice.random() < 0.3 else 0,
        jump=dice.random() < 0.3,
        breakers=dice.random() < 0.2,
    )


class Wire:
    """A route's client for one run: each request is answered, or spoilt, and billed, as the scripted provider does it.

    Args:
        billed: told of each line of the bill, with the run, at the moment at which the provider would write it.
    """

    def __init__(
        self,
        scenario: Scenario,
        model: str,
        run: str,
        dice: random.Random,
        plan: Schedule,
        clock: Callable[[], int],
        billed: Callable[[str, BillLine], None],
    ) -> None:
        self._scenario, self._model, self._run = scenario, model, run
        self._dice, self._plan, self._clock, self._billed = dice, plan, clock, billed
        self._seen = 0

    async def events(
        self, payload: Mapping[str, Any], *, headers: Mapping[str, str], timeout: float, connect: float
    ) -> AsyncGenerator[dict[str, Any], None]:
        """Answer one request."""
        del timeout, connect
        self._seen += 1
        body = orjson.loads(
            orjson.dumps({"model": self._model, "stream": True, "stream_options": {"include_usage": True}, **payload})
        )
        ask = read_ask(body, headers["x-midwatch-agent"])
        rule = find_rule(self._scenario, ask)
        fault = self._fault()
        kind = "" if fault is None else fault.kind
        await self._turns()
        request = httpx2.Request("POST", "http://127.0.0.1/v1/chat/completions")
        if kind == "refused":
            raise openai.APIConnectionError(request=request) from httpx2.ConnectError("refused")
        spoilt = None if kind == "refused" else fault
        reply, counts = compose(rule, ask, spoilt, f"{self._run}/{self._seen}")
        line = self._line(ask.agent, kind, counts.prompt, counts.completion)
        if kind == "status" and fault is not None:
            self._billed(self._run, self._line(ask.agent, kind, 0, 0))
            response = httpx2.Response(fault.status, request=request)
            raise openai.APIStatusError("the fault of a schedule", response=response, body=None)
        if kind == "timeout":
            self._billed(self._run, line)
            raise openai.APITimeoutError(request=request)
        usage = None if kind == "no_usage" else reported(counts, fault)
        stream = events(Head("chatcmpl-1", 0, self._model), reply, usage, 200)
        if kind == "cut_stream" and fault is not None:
            stream = stream[: fault.after_chunks]
        generated, done = 0, False
        try:
            for event in stream:
                await self._turns()
                if event.last and not done:
                    done = True
                    self._billed(self._run, line)
                yield dict(event.body)
                generated = event.generated
        finally:
            if not done:  # cut, left by the client, or without an end: what was generated is billed
                size = max(1, reply.size)
                part = counts.completion if generated >= size else -(-counts.completion * generated // size)
                self._billed(self._run, replace_tokens(line, part, self._scenario))
        if kind == "cut_stream":
            raise openai.APIConnectionError(request=request) from httpx2.ReadError("cut")

    def _line(self, agent: str, kind: str, prompt: int, completion: int) -> BillLine:
        cost = cost_microusd(self._scenario.prices[self._model], prompt=prompt, cached=0, completion=completion)
        at, name = self._clock(), f"{self._run}/{self._seen}"
        return BillLine(
            self._seen, at, agent, self._model, prompt, 0, completion, cost, kind or "finished", name, None, "", kind
        )

    def _fault(self) -> Fault | None:
        dice = self._dice
        if dice.randrange(1000) >= self._plan.faulty:
            return None
        kind = self._plan.kind or dice.choice(_FAULTS)
        status = dice.choice((400, 408, 409, 429, 500, 503, 529))
        return Fault(kind, status=status, after_chunks=dice.randint(0, 6), multiplier=dice.choice(_LIES))

    async def _turns(self) -> None:
        for _ in range(self._dice.choice((0, 0, 1, 3))):
            await asyncio.sleep(0)


def replace_tokens(line: BillLine, completion: int, scenario: Scenario) -> BillLine:
    """Give a line with other output tokens, and what it costs then."""
    price = scenario.prices[line.model]
    cost = cost_microusd(price, prompt=line.prompt_tokens, cached=0, completion=completion)
    return replace(line, completion_tokens=completion, cost_microusd=cost)
