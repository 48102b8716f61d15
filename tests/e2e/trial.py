"""A trial: one small fleet in its own home, run in this process; store, provider with its bill, tools and files are real.

`Trial(folder, rules)` takes what the scenario says of the worker; the CEO dispatches it and the writer reports, unless `rules`
say something of `boss` or `writer` first. The governor is a heartbeat, and waits of retries are noted instead of waited for.
"""

from __future__ import annotations

import asyncio
import json
import os
import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from midwatch import wiring
from midwatch.engine import control
from midwatch.engine.runner import POLL_US
from midwatch.governor.watch import HEARTBEAT
from midwatch.records.effect import EffectRow
from midwatch.records.event import Event
from midwatch.records.run import RunResult
from midwatch.store.port import Store

__all__ = ["DONE", "Trial", "call"]

FLEET = """
midwatch: 1
fleet: trial
presets: {default: local}
routes:
  local: {provider: scripted, model: tiny, scenario: scenario.yaml, ROUTE}
  smart: {provider: openai, model: gpt-5-mini}
tools: ["python:things.py", builtin.files]
agents:
  boss: {role: ceo, route: smart, prompt_text: "Plan.", limits: {steps: 3}}
  worker: {role: specialist, route: smart, prompt_text: "Work.", tools: [things.*, files.*], limits: {steps: 5}}
  writer: {role: synthesis, route: smart, prompt_text: "Write.", limits: {steps: 3}}
graph: {team: {ceo: boss, specialists: [worker], synthesis: writer}}
grants: [{who: "agent:worker", may: ["things.*", "files.*"]}]
budgets: {fleet: {cost: "$2.00", per: month}, run: {cost: "$1.00", tokens: 900k, tool_calls: 40}}
sandbox: {backend: process, because: "a trial", LIMITS}
"""

TOOLS = '''
import os, resource, time
from dataclasses import dataclass
from typing import Annotated, Literal
from pydantic import Field
from midwatch import Arg, ToolFailure, tool
from midwatch.tools.binding import ToolContext

Text = Annotated[str, Field(max_length=200), Arg(role="content", interprets=False)]

def note_down(context, name, line):
    with (context.workdir / name).open("a") as file:
        file.write(line + "\\n")

@tool(effect="read", runs="broker", open_world=False)
def look(context: ToolContext, what: Text) -> dict[str, str]:
    """Look at the thing that is named."""
    note_down(context, "looks", what)
    return {"found": what}

@tool(effect="write", runs="broker", open_world=False)
def note(context: ToolContext, what: Text) -> dict[str, str]:
    """Note a line."""
    note_down(context, "notes", what)
    return {"noted": what}

@tool(effect="write", runs="broker", open_world=False, timeout="50ms")
def slow(context: ToolContext, what: Text) -> dict[str, str]:
    """Note a line, too late."""
    note_down(context, "notes", what)
    give_up = time.monotonic() + 20
    while not (context.workdir / "go").exists() and time.monotonic() < give_up:
        time.sleep(0.005)
    note_down(context, "late", what)
    return {"noted": what}

@tool(effect="write", idempotent=True, runs="broker", open_world=False, timeout="400ms")
def slow_keyed(context: ToolContext, what: Text) -> dict[str, str]:
    """Note a line, too late, under a key."""
    note_down(context, "keys", context.idempotency_key)
    return slow(context, what)

@tool(effect="read", runs="broker", open_world=False, timeout="50ms")
def slow_look(context: ToolContext, what: Text) -> dict[str, str]:
    """Look, too late."""
    return slow(context, what)

@tool(effect="write", runs="broker", open_world=False)
def stuck(context: ToolContext, what: Text) -> dict[str, str]:
    """Note a line, and take long."""
    return slow(context, what)

@dataclass(frozen=True)
class Noted:
    """What was noted."""
    noted: str

@dataclass(frozen=True)
class Outcome:
    """What became of a call."""
    outcome: Literal["done", "not_done", "unknown"]
    result: Noted | None

@tool(effect="read", runs="broker", open_world=False)
def outcome(context: ToolContext, what: Text) -> Outcome:
    """Say what became of a slow call: nothing, until it has ended."""
    note_down(context, "asked", what)
    done = (context.workdir / "late").exists()
    return Outcome("done" if done else "not_done", Noted(what) if done else None)

@tool(effect="write", runs="broker", open_world=False, timeout="50ms", reconcile="things.outcome")
def slow_told(context: ToolContext, what: Text) -> Noted:
    """Note a line, too late; somebody can tell."""
    slow(context, what)
    return Noted(what)

@tool(effect="write", runs="broker", open_world=False)
def says_timeout(context: ToolContext, what: Text) -> dict[str, str]:
    """Note a line, and hear nothing from the other side."""
    note_down(context, "notes", what)
    raise ToolFailure("timeout", "the other side did not answer")

@tool(effect="write", runs="sandbox", open_world=False)
def dies(context: ToolContext, what: Text) -> dict[str, str]:
    """Note a line, and end the worker."""
    note_down(context, "notes", what)
    os._exit(9)

@tool(effect="write", runs="sandbox", open_world=False, timeout="3s")
def hangs(context: ToolContext, what: Text) -> dict[str, str]:
    """Note a line, and never end."""
    note_down(context, "notes", what)
    time.sleep(60)
    return {"noted": what}

@tool(effect="read", runs="sandbox", open_world=False)
def limits(what: Text) -> dict[str, int]:
    """Say which bounds this process has."""
    return {"files": resource.getrlimit(resource.RLIMIT_NOFILE)[0], "size": resource.getrlimit(resource.RLIMIT_FSIZE)[0]}
'''

DONE: dict[str, Any] = {"agent": "worker", "answer": {"changed": [], "needed": [], "risks": []}}
"""The worker's last rule."""


def call(tool: str, arguments: Any, *, turn: int = 0, **more: Any) -> dict[str, Any]:
    """Make a rule: the worker calls one tool."""
    asked = [{"name": f"things_{tool}", "arguments": arguments}]
    return {"agent": "worker", "turn": turn, "tool_calls": asked, **more}


class Trial:
    """One fleet folder, home and working directory.

    Attributes:
        waits: microseconds that retries would have waited.
    """

    def __init__(
        self,
        folder: Path,
        monkeypatch: pytest.MonkeyPatch,
        rules: Sequence[dict[str, Any]],
        *,
        route: str = "max_output: 500, retries: 1",
        limits: str = "",
    ) -> None:
        self.fleet, self.home, self.work = folder / "fleet", folder / "home", folder / "work"
        self.fleet.mkdir()
        self.work.mkdir()
        text = FLEET.replace("ROUTE", route).replace(", LIMITS", f", {limits}" if limits else "")
        (self.fleet / "fleet.yaml").write_text(text)
        (self.fleet / "things.py").write_text(TOOLS)
        self.rules(rules)
        self.waits: list[int] = []
        monkeypatch.setattr(wiring, "pause", self._pause)
        monkeypatch.setattr(wiring, "_govern", _beat)

    def rules(self, rules: Sequence[dict[str, Any]]) -> None:
        """Write the scenario: these rules, then the default ones."""
        (self.fleet / "scenario.yaml").write_text(json.dumps(_scenario(rules)))

    async def _pause(self, microseconds: int) -> None:
        if microseconds == POLL_US:
            await asyncio.sleep(POLL_US / 1_000_000)
        else:
            self.waits.append(microseconds)

    def opened(self) -> Any:
        """Open the kernel."""
        return wiring.open(self.fleet, home=self.home, workdir=self.work, environ={})

    def run(self, resume: str | None = None) -> RunResult:
        """Run, or resume."""
        with self.opened() as kernel:
            result: RunResult = kernel.run({"n": 1}) if resume is None else kernel.resume(resume)
        return result

    def store(self) -> Any:
        """Open the home's store."""
        return wiring.open_store(self.home)

    def events(self, run: str, *kinds: str) -> list[Event]:
        """Give the run's events of these kinds."""
        with self.store() as store:
            return list(store.read(lambda tx: tx.ledger.read(run=run, kinds=kinds, limit=5000)))

    def calls(self, run: str) -> list[Any]:
        """Give the error codes of the run's tool calls, in order; None for a success."""
        return [event.data.get("code") for event in self.events(run, "finished") if "tool" in event.data]

    def told(self, run: str) -> list[dict[str, Any]]:
        """Give the envelopes of the run's tool calls."""
        with self.store() as store:
            return [
                json.loads(_blob(store, event.data["result_blob"]))
                for event in store.read(lambda tx: tx.ledger.read(run=run, kinds=("finished",), limit=5000))
                if "tool" in event.data
            ]

    def signals(self, run: str) -> list[tuple[Any, Any]]:
        """Give `(tool or model, rule)` of the run's signals."""
        return [
            (event.data.get("tool") or event.data.get("model"), event.data["rule"])
            for event in self.events(run, "signal")
        ]

    def handoff(self, run: str) -> dict[str, Any]:
        """Give the worker's handoff."""
        events = [event for event in self.events(run, "handoff") if event.agent == "worker"]
        with self.store() as store:
            body: dict[str, Any] = json.loads(_blob(store, events[-1].data["handoff_blob"]))
        return body

    def effects(self, run: str, kind: str = "tool") -> list[EffectRow]:
        """Give the run's effects of a kind."""
        with self.store() as store:
            return [row for row in store.read(lambda tx: tx.effects.list(run)) if row.kind == kind]

    def resolve(self, effect: str, word: control.Word) -> None:
        """Say what became of an effect in doubt."""
        with self.store() as store:
            control.resolve(store, effect, word=word, by="ann", at_us=wiring.clock())

    def bill(self) -> list[dict[str, Any]]:
        """Give the provider's bill."""
        place = self.home / "scripted-bill-trial.jsonl"
        return [json.loads(line) for line in place.read_text().splitlines()] if place.exists() else []

    def charged(self) -> int:
        """Give what the provider charged, in micro-dollars."""
        return sum(line["cost_microusd"] for line in self.bill())

    def held_for(self, effect: str, attempt: int) -> int:
        """Give the micro-dollars that one attempt of a model call had reserved of the run."""
        with sqlite3.connect(self.home / wiring.DATABASE) as raw:
            row = raw.execute("SELECT lines FROM reservation WHERE id = ?", (f"m:{effect}:{attempt}",)).fetchone()
        held = {(scope.partition(":")[0], unit): int(amount) for scope, unit, amount in json.loads(row[0])}
        return held["run", "cost"]

    def kept(self, run: str) -> bool:
        """Whether the chain verifies and no scope is past its cap or holds anything."""
        with self.store() as store:
            report = store.read(lambda tx: tx.ledger.verify())
            accounts = store.read(lambda tx: tx.budgets.accounts(prefix=""))
            still = store.read(lambda tx: tx.budgets.open_reservations(run))
        bounded = all(item.held == 0 and (item.cap is None or item.spent <= item.cap) for item in accounts)
        return report.ok and bounded and not still

    def lines(self, name: str) -> list[str]:
        """Give the lines that tools left in a file of the working directory."""
        place = self.work / name
        return place.read_text().splitlines() if place.exists() else []


def _blob(store: Store, digest: str) -> bytes:
    body = store.read(lambda tx: tx.blobs.get(digest))
    assert body is not None
    return body


def _beat(store: Store, *_: object) -> None:
    store.write(lambda tx: tx.watch.beat(HEARTBEAT, pid=os.getpid(), at_us=wiring.clock()))


def _scenario(rules: Sequence[dict[str, Any]]) -> dict[str, Any]:
    dispatch = {"agent": "worker", "task": "work", "criteria": [{"text": "it was done", "shown_by": ["things.look"]}]}
    plan = {"agent": "boss", "answer": {"goal": "try it", "dispatches": [dispatch]}}
    report = {"agent": "writer", "answer": {"answer": "# Report", "changed": [], "needed": [], "risks": []}}
    prices = {"tiny": {"input": "$1.00", "output": "$2.00"}}
    return {"scenario": 1, "models": ["tiny"], "prices": prices, "rules": [*rules, plan, report]}
