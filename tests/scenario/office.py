"""An office: one fleet with tools that matter, its home, its people; for tests of gates over whole runs.

The worker of the fleet proposes what a test says, in one answer or in several. Tools, store, provider and processes are real.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from midwatch import wiring
from midwatch.engine import answering
from midwatch.engine.kernel import Kernel
from midwatch.gates.review import Speaker
from midwatch.records.event import Event
from midwatch.records.gate import GateRow
from midwatch.records.principal import Principal, hash_token, new_token
from midwatch.records.run import RunResult

__all__ = ["GATES", "Office"]

GATES = "- {when: {effect: [destructive]}, ask: operator, timeout: 15m}"

FLEET = """
midwatch: 1
fleet: office
presets: {default: local}
routes:
  local: {provider: scripted, model: tiny, scenario: scenario.yaml, max_output: 500}
  smart: {provider: openai, model: gpt-5-mini}
tools: ["python:ops.py", builtin.gates]
agents:
  boss: {role: ceo, route: smart, prompt_text: "Plan.", limits: {steps: 3}}
  worker: {role: specialist, route: smart, prompt_text: "Work.", tools: [ops.*, gates.*], limits: {steps: 6}}
  writer: {role: synthesis, route: smart, prompt_text: "Write.", limits: {steps: 3}}
graph: {team: {ceo: boss, specialists: [worker], synthesis: writer}}
grants: [{who: "agent:worker", may: ["ops.*", "gates.*"]}]
gates:
  GATES
budgets: {run: {cost: "$0.50", tokens: 200k, tool_calls: 40}}
sandbox: {backend: process, because: "a trial"}
EXTRA
"""

TOOLS = '''
import os, signal
from dataclasses import dataclass
from typing import Annotated, Literal
from pydantic import Field
from midwatch import Arg, ToolFailure, tool
from midwatch.tools.binding import ToolContext

Service = Annotated[str, Field(max_length=200), Arg(role="target", interprets=False)]
Version = Annotated[str, Field(max_length=200), Arg(role="content", interprets=False)]

@dataclass(frozen=True)
class Rolled:
    """What a place replaced."""
    service: str
    before: str

@dataclass(frozen=True)
class Outcome:
    """What became of a place."""
    outcome: Literal["done", "not_done", "unknown"]
    result: Rolled | None

def log(context, line):
    with (context.workdir / "calls").open("a") as file:
        file.write(line + "\\n")

def now(context, service):
    place = context.workdir / f"{service}.version"
    return place.read_text() if place.exists() else "none"

@tool(effect="destructive", runs="broker", open_world=False, reversible="ops.restore", preview="ops.preview",
      precondition="ops.version", reconcile="ops.outcome", cost="$2.00")
def place(context: ToolContext, service: Service, version: Version) -> Rolled:
    """Put a version of a service in place of the one that runs."""
    before = now(context, service)
    log(context, f"place {service} {version} {context.idempotency_key}")
    (context.workdir / f"{service}.version").write_text(version)
    if (context.workdir / "die").exists():
        os.kill(os.getpid(), signal.SIGKILL)
    return Rolled(service, before)

@tool(effect="write", idempotent=True, runs="broker", open_world=False)
def restore(context: ToolContext, service: Service, before: Version) -> dict[str, str]:
    """Put the version from before a place back."""
    log(context, f"restore {service} {before}")
    (context.workdir / f"{service}.version").write_text(before)
    return {"service": service, "version": before}

@tool(effect="read", runs="broker", open_world=False)
def version(context: ToolContext, service: Service) -> dict[str, str]:
    """Say which version of a service runs."""
    if (context.workdir / "broken").exists():
        raise ToolFailure("unavailable", "the register does not answer")
    return {"version": now(context, service)}

@tool(effect="read", runs="broker", open_world=False)
def preview(context: ToolContext, service: Service, version: Version) -> dict[str, str]:
    """Show what a place would change."""
    return {"change": f"{service}: {now(context, service)} -> {version}"}

@tool(effect="read", runs="broker", open_world=False)
def outcome(context: ToolContext, service: Service) -> Outcome:
    """Say what became of the place with this key."""
    place = context.workdir / "register"
    word = place.read_text() if place.exists() else "unknown"
    keys = (context.workdir / "calls").read_text() if (context.workdir / "calls").exists() else ""
    if context.idempotency_key not in keys:
        word = "not_done" if word != "unknown" else word
    return Outcome(word, Rolled(service, "none") if word == "done" else None)

@tool(effect="write", runs="broker", open_world=False, reversible=False)
def note(context: ToolContext, text: Version) -> dict[str, str]:
    """Append a line to the log book."""
    log(context, f"note {text}")
    return {"noted": text}
'''


class Office:
    """One fleet folder, home and working directory."""

    def __init__(
        self,
        root: Path,
        calls: Sequence[Sequence[tuple[str, Mapping[str, Any]]]],
        *,
        gates: str = GATES,
        extra: str = "",
    ) -> None:
        """Take what the worker proposes: a list of answers, each a list of (tool, arguments)."""
        self.fleet, self.home, self.work = root / "fleet", root / "home", root / "work"
        self.fleet.mkdir()
        self.work.mkdir()
        self.tokens: dict[str, str] = {}
        self.rules(gates, extra)
        (self.fleet / "ops.py").write_text(TOOLS)
        (self.fleet / "scenario.yaml").write_text(_scenario(calls))

    def rules(self, gates: str, extra: str = "") -> None:
        """Write the fleet file with these rules."""
        (self.fleet / "fleet.yaml").write_text(
            FLEET.replace("GATES", gates.replace("\n", "\n  ")).replace("EXTRA", extra)
        )

    def opened(self, **more: Any) -> Any:
        """Open the kernel."""
        return wiring.open(self.fleet, home=self.home, workdir=self.work, environ={"USER": "ann"}, **more)

    def run(self, resume: str | None = None, *, speaks: str | None = None, **more: Any) -> RunResult:
        """Run, or resume; `speaks` names the principal who does."""
        with self.opened(token=None if speaks is None else self.tokens[speaks]) as kernel:
            made: Kernel = kernel
            return made.run({"n": 1}) if resume is None else made.resume(resume, **more)

    def person(self, name: str, *roles: str, may: str = "*") -> Speaker:
        """Add a principal, and give it as a speaker."""
        self.tokens[name] = new_token()
        row = Principal(name, ",".join(roles), may, hash_token(self.tokens[name]), wiring.clock(), "test")
        with wiring.open_store(self.home, create=True) as store:
            store.write(lambda tx: tx.principals.add(row))
        return Speaker(name, row, "cli")

    def say(self, gate: str, speaker: Speaker | None = None, *, approve: bool = True, **more: Any) -> GateRow:
        """Answer a gate."""
        more.setdefault("at_us", wiring.clock())
        more.setdefault("reason", "")
        with wiring.open_store(self.home) as store:
            return answering.answer(store, gate, approve=approve, speaker=speaker or Speaker("local:ann"), **more)

    def gate(self, gate: str) -> tuple[GateRow, dict[str, Any]]:
        """Read a gate and its card."""
        with wiring.open_store(self.home) as store:
            row = store.read(lambda tx: tx.gates.get(gate))
            assert row is not None
            body = store.read(lambda tx: tx.blobs.get(row.card))
        return row, json.loads(body or b"{}")

    def calls(self, word: str = "") -> list[str]:
        """Give the lines that tools left, those that begin with `word`, without keys."""
        place = self.work / "calls"
        lines = place.read_text().splitlines() if place.exists() else []
        return [" ".join(line.split()[:3]) for line in lines if line.startswith(word)]

    def events(self, run: str, *kinds: str) -> list[Event]:
        """Give the run's events of these kinds."""
        with wiring.open_store(self.home) as store:
            return list(store.read(lambda tx: tx.ledger.read(run=run, kinds=kinds, limit=5000)))

    def answers(self, run: str) -> list[Any]:
        """Give the error codes of the run's tool calls, in order; None for a success."""
        return [event.data.get("code") for event in self.events(run, "finished") if "tool" in event.data]


def _scenario(calls: Sequence[Sequence[tuple[str, Mapping[str, Any]]]]) -> str:
    rules: list[dict[str, Any]] = [
        {
            "agent": "boss",
            "answer": {
                "goal": "try it",
                "dispatches": [
                    {"agent": "worker", "task": "work", "criteria": [{"text": "it was done", "shown_by": ["ops.note"]}]}
                ],
            },
        }
    ]
    for turn, proposals in enumerate(calls):
        asked = [{"name": tool.replace(".", "_"), "arguments": dict(arguments)} for tool, arguments in proposals]
        rules.append({"agent": "worker", "turn": turn, "tool_calls": asked})
    rules.append({"agent": "worker", "answer": {"changed": [], "needed": [], "risks": []}})
    rules.append({"agent": "writer", "answer": {"answer": "# Report", "changed": [], "needed": [], "risks": []}})
    prices = {"tiny": {"input": "$1.00", "output": "$2.00"}}
    return json.dumps({"scenario": 1, "models": ["tiny"], "prices": prices, "rules": rules})
