"""An agency: a team of which one agent, or two, is a program in a sandbox, with its home; for tests of command agents over whole runs.

A test gives the program's source and what the models answer. Sandbox, tools, store, provider and processes are real.
"""

from __future__ import annotations

import json
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from midwatch import wiring
from midwatch.engine.staging import Staged, staged_of
from midwatch.records.effect import EffectRow
from midwatch.store.port import Store
from tests.scenario.ground import TOOLS, Ground

__all__ = ["HANDOFF", "KERNEL", "Agency", "called", "dispatched"]

FLEET = """
midwatch: 1
fleet: ground
presets: {default: local}
routes:
  local: {provider: scripted, model: tiny, scenario: scenario.yaml, max_output: 500, retries: 0}
  smart: {provider: openai, model: gpt-5-mini}
tools: ["python:ops.py", builtin.files]
agents:
  boss: {role: ceo, route: smart, prompt_text: "Plan."}
  worker: {role: specialist, route: smart, command: [python3, agent.py], OWN}
  other: {role: specialist, route: smart, command: [python3, other.py], tools: [ops.look]}
  writer: {role: synthesis, route: smart, WRITER}
graph: {team: {ceo: boss, specialists: [worker, other], synthesis: writer}}
grants: [{who: "agent:*", may: [ops.look, ops.deploy, ops.log, ops.slow, ops.crash, files.write]}]
gates: [{when: {effect: [destructive], tool: ["ops.*"]}, ask: operator, timeout: 15m}]
budgets: {run: {cost: "$0.50", tokens: 200k, tool_calls: 40}}
sandbox: SANDBOX
EXTRA
"""

CRASH = '''
@tool(effect="read", runs="broker", open_world=False)
def crash(context: ToolContext, what: Name) -> dict[str, str]:
    """Take the kernel down where the file `die` says so, once."""
    note(context, f"crash {what}")
    place = context.workdir / "die"
    if place.exists():
        place.unlink()
        os.kill(os.getpid(), signal.SIGKILL)
    return {"survived": what}
'''

KERNEL = '''
import json, os, sys, urllib.request

def kernel(path, body=None, headers=None):
    """Ask the kernel; gives (status, value)."""
    base = os.environ["OPENAI_BASE_URL"].removesuffix("/v1")
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(base + path, data=data, headers={"content-type": "application/json", **(headers or {})})
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as refused:
        return refused.code, json.load(refused)

def call(name, **arguments):
    return kernel("/midwatch/tools/" + name, arguments)[1]

def chat(text, **more):
    return kernel("/v1/chat/completions", {"model": "any", "messages": [{"role": "user", "content": text}], **more})

def hand(changed=(), needed=(), risks=()):
    """Answer; each item is a text, or a text and its references."""
    def items(given):
        return [{"text": one, "evidence": []} if isinstance(one, str) else {"text": one[0], "evidence": list(one[1:])} for one in given]
    print(json.dumps({"changed": items(changed), "needed": items(needed), "risks": items(risks)}))
'''
"""What most programs of the tests begin with: plain HTTP, no library."""

HANDOFF: Mapping[str, Any] = {"changed": [], "needed": [], "risks": []}


def dispatched(*agents: str) -> list[dict[str, Any]]:
    """Make the rules of a CEO that gives each agent one task, and of a writer that reports."""
    tasks = [
        {"agent": name, "task": f"do {name}", "criteria": [{"text": "done", "shown_by": [f"command:{name}"]}]}
        for name in agents
    ]
    return [
        {"agent": "boss", "answer": {"goal": "go", "dispatches": tasks}},
        {"agent": "writer", "answer": {"answer": "# Report", **HANDOFF}},
    ]


def called(name: str, *, turn: int, **arguments: str) -> dict[str, Any]:
    """Make the rule that `worker`'s model calls a tool at a turn."""
    return {"agent": "worker", "turn": turn, "tool_calls": [{"name": f"ops_{name}", "arguments": arguments}]}


class Agency(Ground):
    """See the module's head.

    Args:
        program: what `worker` is; `KERNEL` comes before it. other: the same for `other`, who is dispatched where it is
            given. writer: the same for the synthesis, which is asked as a model where it is not given.
        own: keys of `worker` in the fleet. sandbox: the fleet's.
    """

    def __init__(
        self,
        root: Path,
        program: str,
        answers: Sequence[Mapping[str, Any]] = (),
        *,
        other: str | None = None,
        writer: str | None = None,
        own: str = "tools: [ops.*]",
        sandbox: str = "bubblewrap",
        extra: str = "",
    ) -> None:
        written = 'prompt_text: "Write."' if writer is None else "command: [python3, writer.py]"
        fleet = FLEET.replace("OWN", own).replace("SANDBOX", sandbox).replace("WRITER", written)
        names = ("worker",) if other is None else ("worker", "other")
        rules = [*answers, {"agent": "worker", "say": "hello from the model"}, *dispatched(*names)]
        super().__init__(root, answers=rules, extra=extra, fleet=fleet)
        (self.fleet / "ops.py").write_text(TOOLS + CRASH)
        for name, source in (("agent.py", program), ("other.py", other or ""), ("writer.py", writer or "")):
            (self.fleet / name).write_text(KERNEL + textwrap.dedent(source))

    def only(self) -> str:
        """Give the only run."""
        with wiring.open_store(self.home) as store:
            rows = store.read(lambda tx: tx.runs.list())
        return rows[0].id

    def effects(self) -> list[EffectRow]:
        """Give every effect of the only run, in order of intent."""
        run = self.only()
        with wiring.open_store(self.home) as store:
            return list(store.read(lambda tx: tx.effects.list(run)))

    def handoffs(self, run: str) -> list[dict[str, Any]]:
        """Give the handoffs of a run, in the order they were given."""
        with wiring.open_store(self.home) as store:
            events = store.read(lambda tx: tx.ledger.read(run=run, kinds=("handoff",)))
            return [self._blob(store, event.data["handoff_blob"]) for event in events]

    def handoff(self, run: str, agent: str = "worker") -> dict[str, Any]:
        """Give the handoff of an agent."""
        return next(item for item in self.handoffs(run) if item["agent"] == agent)

    def told(self, run: str, agent: str = "worker") -> Any:
        """Give what a program said in the first risk of its handoff, as JSON."""
        return json.loads(self.handoff(run, agent)["risks"][0]["text"])

    @staticmethod
    def _blob(store: Store, digest: str) -> Any:
        return json.loads(store.read(lambda tx: tx.blobs.get(digest)) or b"null")

    def staged(self, run: str) -> list[Staged]:
        """Give the layers of a run that are neither committed nor discarded."""
        with wiring.open_store(self.home) as store:
            return store.read(lambda tx: staged_of(tx, run, self.home / "layers" / run))

    def bills(self, agent: str = "") -> list[dict[str, Any]]:
        """Give the provider's own bill, line by line; of one agent, or all."""
        place = self.home / "scripted-bill-ground.jsonl"
        lines = [json.loads(line) for line in place.read_text().splitlines()] if place.exists() else []
        return [line for line in lines if not agent or line["agent"] == agent]
