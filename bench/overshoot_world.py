"""World: one schedule carried out in this process by the kernel's own parts: store, scopes, breakers, model calls, the OpenAI adapter.

In:   a `Schedule`. Out: `Outcome`: what the provider billed beside the caps, at the moment of each line of its bill.
What is not the kernel's: the socket (`overshoot_schedules.Wire`) and the clock. A worker that dies is a task that is cancelled
wherever it stands; the next one takes the run as `midwatch resume` does.
"""

from __future__ import annotations

import asyncio
import dataclasses
import hashlib
import json
import random
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final, TypeVar, cast

from bench.overshoot_schedules import AGENTS, HOUR_US, Schedule, Wire
from midwatch.config.fleet import BudgetSpec, Fleet
from midwatch.config.specs_bounds import Rung
from midwatch.engine import books, budgeting
from midwatch.engine.context import Halted, RouteRuntime, Segment
from midwatch.engine.governing import Governing
from midwatch.engine.model_call import ModelCalls
from midwatch.errors import MidwatchError, StoreBusy
from midwatch.gates.review import Speaker
from midwatch.governor import scopes
from midwatch.models.openai import OpenAIChat, open_model
from midwatch.models.prices import scripted_price
from midwatch.models.scripted.bill import BillLine
from midwatch.models.scripted.scenario import load_scenario
from midwatch.records.call import Actor
from midwatch.records.chat import ChatRequest, Message
from midwatch.records.run import RunRow
from midwatch.records.spend import Unit
from midwatch.store.memory import MemoryStore
from midwatch.store.port import Store, Tx

__all__ = ["SCENARIO", "Doing", "Outcome", "World"]

T = TypeVar("T")
BEGIN_US: Final = 1_790_000_000_000_000
FLEET: Final = """
midwatch: 1
fleet: over
presets: {default: local}
routes:
  local: {provider: scripted, model: dear, scenario: scenario.yaml, max_output: 800, retries: 2}
  spare: {provider: scripted, model: tiny, scenario: scenario.yaml, max_output: 800, retries: 2}
agents:
  boss: {role: ceo, route: local, prompt_text: "Plan."}
  a: {role: specialist, route: local, prompt_text: "Work."}
  b: {role: specialist, route: local, prompt_text: "Work."}
  c: {role: specialist, route: spare, prompt_text: "Work."}
  writer: {role: synthesis, route: local, prompt_text: "Write."}
graph: {team: {ceo: boss, specialists: [a, b, c], synthesis: writer}}
verticals: {north: [a, b]}
budgets: {run: {cost: "$1.00"}}
sandbox: {backend: process, because: "a bench"}
"""
SCENARIO: Final = {
    "scenario": 1,
    "models": ["tiny", "dear"],
    "prices": {"tiny": {"input": "$1.00", "output": "$2.00"}, "dear": {"input": "$3.00", "output": "$12.00"}},
    "rules": [{"agent": "a", "answer": "a long answer goes on. " * 200}, {"answer": "a short answer"}],
}


@dataclass(slots=True)
class Outcome:
    """What one schedule came to.

    Attributes:
        lines: of the provider's bill. over: a sentence for each of them that went past a cap.
        share: billed of the cap, where all of it could be used.
        known: the accounts charged at least what was billed.
    """

    calls: int = 0
    lines: int = 0
    billed: int = 0
    over: list[str] = field(default_factory=list)
    share: float | None = None
    known: bool = True


class _Flaky:
    """A store whose transactions fail now and then: before they begin, or after they were committed."""

    def __init__(self, store: Store, dice: random.Random, busy: int) -> None:
        self._store, self._dice, self._busy = store, dice, busy

    def read(self, work: Callable[[Tx], T]) -> T:
        return self._store.read(work)

    def write(self, work: Callable[[Tx], T], *, durable: bool = False) -> T:
        cast_lot = self._dice.randrange(1000)
        if cast_lot < self._busy // 2:
            raise StoreBusy("the database is locked, says the schedule")
        found = self._store.write(work, durable=durable)
        if cast_lot < self._busy:
            raise StoreBusy("the database is locked, says the schedule, and it was written")
        return found


class _Plain:
    def text(self, text: str) -> tuple[str, Any]:
        return text, None


class World:
    """A store, a fleet and a scenario for many schedules, one after the other."""

    def __init__(self, folder: Path, *, store: Store | None = None, url: str | None = None) -> None:
        """Make it; with the address of a provider that listens, real time and real sockets take the place of `Wire`."""
        (folder / "fleet.yaml").write_text(FLEET)
        (folder / "scenario.yaml").write_text(json.dumps(SCENARIO))
        self._fleet = Fleet.load(folder / "fleet.yaml", environ={})
        self._scenario = load_scenario(folder / "scenario.yaml")
        self.folder, self._now, self.real = folder, BEGIN_US, url is not None
        self.store: Store = MemoryStore() if store is None else store
        self._models = {
            alias: open_model(spec, environ={}, clock=self.clock, scripted_url=url or "http://127.0.0.1:9/v1")
            for alias, spec in self._fleet.routes.items()
        }

    def clock(self) -> int:
        """Give the schedule's time."""
        if self.real:
            return time.time_ns() // 1000
        self._now += 1000
        return self._now

    def carry_out(self, plan: Schedule) -> Outcome:
        """Do one schedule."""
        return asyncio.run(Doing(self, plan).go())

    def fleet(self, plan: Schedule) -> Fleet:
        """Give the fleet with the schedule's caps, under a name of its own."""
        budgets: dict[str, BudgetSpec] = {}
        for scope, caps in plan.caps.items():
            rungs = (Rung(500, route="spare"),) if plan.ladder and scope == "run" else ()
            per = "hour" if scope in ("fleet", "north") else None
            budgets[scope] = BudgetSpec(scope, cast("dict[Unit, int]", dict(caps)), per, rungs)  # type: ignore[arg-type]
        breakers = dataclasses.replace(self._fleet.breakers, on=plan.breakers)
        return dataclasses.replace(self._fleet, name=f"f{plan.seed}", budgets=budgets, breakers=breakers)

    def routes(self, run: str, plan: Schedule, billed: Callable[[str, BillLine], None]) -> dict[str, RouteRuntime]:
        """Give the routes of one run, each with a wire of its own."""
        made = {}
        for alias, spec in self._fleet.routes.items():
            model = object.__new__(OpenAIChat)
            model.__dict__.update(self._models[alias].__dict__)
            if not self.real:
                dice = random.Random(f"{plan.seed}/{run}/{alias}")
                wire = Wire(self._scenario, spec.model, run, dice, plan, self.clock, billed)
                model._client = wire  # type: ignore[assignment]  # the socket is what is left out
            price = scripted_price(spec.model, self._scenario.prices[spec.model])
            made[alias] = RouteRuntime(model, price, plan.output, spec.retries, spec.timeout_us, spec.protocol)
        return made

    def later(self, microseconds: int) -> None:
        """Let time go by."""
        self._now += microseconds


class Doing:
    """One schedule under way."""

    def __init__(self, world: World, plan: Schedule, runs: Sequence[str] = ()) -> None:
        self._world, self._plan, self._dice = world, plan, random.Random(plan.seed)
        self._fleet, self._store = world.fleet(plan), world.store
        self._flaky = _Flaky(world.store, self._dice, plan.busy)
        self._truth: Counter[tuple[str, str]] = Counter()
        self._added: Counter[tuple[str, str]] = Counter()
        self._outcome = Outcome()
        self._runs = list(runs) or [
            hashlib.sha256(f"{plan.seed}/{number}".encode()).hexdigest()[:32] for number in range(plan.runs)
        ]

    def begin(self) -> None:
        """Create the runs."""
        for run in self._runs:
            self._store.write(lambda tx, run=run: tx.runs.create(self._row(tx, run)))  # type: ignore[misc]

    async def take(self, run: str, number: int) -> None:
        """Take up one run as a worker of its own, whatever an earlier one left behind."""
        now = self._world.clock()
        self._store.write(lambda tx: books.close(tx, run, at_us=now))
        for wave in range(self._plan.waves):
            await self._worker(run, wave, number)

    async def go(self) -> Outcome:
        """Do the whole schedule here."""
        plan, world = self._plan, self._world
        self.begin()
        for wave in range(plan.waves):
            before = self._outcome.billed
            await asyncio.gather(*(self._worker(run, wave, number) for number, run in enumerate(self._runs)))
            if plan.usable and self._outcome.billed == before:
                break
            self._top_up()
            if plan.jump:
                world.later(HOUR_US)
        self._finish()
        return self._outcome

    def _row(self, tx: Tx, run: str) -> RunRow:
        blob = tx.blobs.put(b"{}")
        return RunRow(run, self._fleet.name, None, "", blob, "", "", None, "running", self._world.clock(), blob)

    async def _worker(self, run: str, wave: int, number: int) -> None:
        """Take a run; where the schedule has it die, the next worker asks the same again."""
        mine = range(number, self._plan.fan, len(self._runs))
        for life in range(3):
            segment, calls = self._segment(run)
            tasks = [asyncio.create_task(self._ask(calls, segment, run, wave, one)) for one in mine]
            if self._dice.randrange(1000) < self._plan.crash and life < 2:
                for _ in range(self._dice.randint(1, 60)):
                    await asyncio.sleep(0)
                for task in tasks:
                    task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            failed = [task.exception() for task in tasks if not task.cancelled() and task.exception() is not None]
            unforeseen = [error for error in failed if not isinstance(error, Halted)]
            if unforeseen:
                raise unforeseen[0]  # type: ignore[misc]
            again = any(task.cancelled() for task in tasks) or isinstance(segment.halt, StoreBusy)
            self._close(run)
            if not again:
                return

    def _close(self, run: str) -> None:
        now = self._world.clock()

        def work(tx: Tx) -> None:
            books.close(tx, run, at_us=now)
            tx.runs.clear_halt(run)

        self._store.write(work)

    def _segment(self, run: str) -> tuple[Segment, ModelCalls]:
        world, store = self._world, self._store
        epoch = store.write(
            lambda tx: tx.fences.take(run, owner="bench", at_us=world.clock(), ttl_us=60_000_000), durable=True
        )
        segment = Segment(
            store=cast("Store", self._flaky),
            fleet=self._fleet,
            registry=cast("Any", None),
            routes=world.routes(run, self._plan, self._billed),
            scrub=_Plain(),  # type: ignore[arg-type]
            staging=cast("Any", None),
            clock=world.clock,
            pause=self._pause,
            run=run,
            epoch=epoch,
            workdir=world.folder,
            governed=False,
        )
        stages = SimpleNamespace(reads_with=lambda _: None, governing=Governing(segment, cast("Any", None)))
        return segment, ModelCalls(segment, cast("Any", stages))

    async def _pause(self, microseconds: int) -> None:
        self._world.later(min(microseconds, 1000))
        await asyncio.sleep(min(microseconds, 50_000) / 1e6 if self._world.real else 0)

    async def _ask(self, calls: ModelCalls, segment: Segment, run: str, wave: int, number: int) -> None:
        agent = AGENTS[number % len(AGENTS)]
        words = Message("user", "say what is so and what is not so " * (1 + self._plan.prompt // 34))
        route = self._fleet.agents[agent].route
        request = ChatRequest(agent, route, (Message("system", f"call {number}"), words), self._plan.output)
        vertical = self._fleet.vertical_of(agent)
        actor = Actor(run, self._fleet.name, agent, "specialist", vertical, agent, f"{wave}", number + 1, segment.epoch)
        self._outcome.calls += 1
        await calls.ask(actor, f"{number}", request, ())

    def _billed(self, run: str, line: BillLine) -> None:
        """Compare with every cap of the call's path, at the moment at which the provider bills."""
        self._outcome.lines += 1
        self._outcome.billed += line.cost_microusd
        used = {"cost": line.cost_microusd, "tokens": line.prompt_tokens + line.completion_tokens}
        for scope in scopes.path(self._fleet, run=run, agent=line.agent, at_us=line.at_us):
            for unit, amount in used.items():
                key = (scope.name, unit)
                self._truth[key] += amount
                cap = self._plan.caps.get(scope.key, {}).get(unit)
                if cap is not None and amount and self._truth[key] > cap + self._added[key]:
                    said = f"{self._plan.seed}: {scope.name} {unit} {self._truth[key]} > {cap + self._added[key]} ({line.fault})"
                    self._outcome.over.append(said)

    def _top_up(self) -> None:
        plan, now = self._plan, self._world.clock()
        if not plan.top_up:
            return
        scope = self._dice.choice(sorted(plan.caps))
        path = scopes.path(self._fleet, run=self._runs[0], agent="a", at_us=now)
        name = next((one.name for one in path if one.key == scope), None)
        if name is None or "cost" not in plan.caps[scope]:
            return
        try:
            budgeting.topup(self._store, name, "cost", plan.top_up, speaker=Speaker("bench"), at_us=now)
        except MidwatchError:  # nothing was asked for under this scope yet
            return
        self._added[name, "cost"] += plan.top_up

    def _finish(self) -> None:
        plan, rows = self._plan, self._store.read(lambda tx: tx.budgets.accounts([name for name, _ in self._truth]))
        charged: dict[tuple[str, str], int] = {(row.scope, row.unit): row.spent for row in rows}
        self._outcome.known = all(charged.get(key, 0) >= amount for key, amount in self._truth.items())
        if any(row.held for row in rows):
            self._outcome.over.append(f"{plan.seed}: holds were left")
        if plan.usable:
            self._outcome.share = self._outcome.billed / plan.caps["fleet"]["cost"]
