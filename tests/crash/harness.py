"""The kill harness: whole runs that die by SIGKILL wherever a test says, are resumed in fresh processes, and are audited.

    with Harness(folder, PLAN) as harness:                     # three processes: provider, target, zygote
        case = harness.case("one")                             # a home and working directory of its own
        case.segment("after tool.journal", number=2)           # a run that dies there; or None: to its stop
        case.until_done()                                      # resumes, answers gates, resolves doubts
        assert [] == case.audit()                              # every promise that was broken, in words

Parts, each a real process that survives the kill: the *scripted provider* with its bill; the *target*, the outside world that
remembers each call with its key (`target.py`); the *zygote*, which forks one child per segment (`zygote.py`: names of places in
`PLACES`). Time is the order's: each segment begins after the dead worker's lease.

A plan is what the worker proposes: a list of answers, each a list of `(tool, item)`. Tools: `pay` (write, idempotent, the target
dedupes by its key), `post` (write, no key), `drop` (destructive, behind a gate, no key), `look` (read).

Several harnesses may live at once, one per thread; a harness itself is used by one thread.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from subprocess import PIPE
from typing import IO, Any, Final, Self

from midwatch import wiring
from midwatch.engine import control
from midwatch.records.effect import EffectRow
from midwatch.records.event import Event
from midwatch.store.port import Store, Tx

__all__ = ["CAP", "PLAN", "Case", "Harness", "Outcome", "Plan", "approve", "deny"]

Plan = Sequence[Sequence[tuple[str, str]]]
PLAN: Final[Plan] = [[("pay", "a")], [("post", "b")], [("drop", "c")]]
"""One keyed call, one without a key, one behind a gate; one after the other."""

ROOT: Final = Path(__file__).resolve().parents[2]
LEASE_US: Final = 20_000_000
"""What each segment's clock is ahead of the one before: a dead worker's lease has run out."""
CAP: Final = 500_000
"""Micro-dollars that a run may cost."""
SEGMENTS: Final = 12

FLEET: Final = """
midwatch: 1
fleet: outside
presets: {default: local}
routes:
  local: {provider: scripted, model: tiny, scenario: scenario.yaml, max_output: 500, retries: 1}
  smart: {provider: openai, model: gpt-5-mini}
tools: ["python:outside.py"]
agents:
  boss: {role: ceo, route: smart, prompt_text: "Plan.", limits: {steps: 3}}
  worker: {role: specialist, route: smart, prompt_text: "Work.", tools: [outside.*], limits: {steps: 20}}
  writer: {role: synthesis, route: smart, prompt_text: "Write.", limits: {steps: 3}}
graph: {team: {ceo: boss, specialists: [worker], synthesis: writer}}
grants: [{who: "agent:worker", may: ["outside.*"]}]
gates: [{when: {effect: [destructive]}, ask: operator, timeout: 30d}]
budgets:
  fleet: {cost: "$1.00", per: month}
  run: {cost: "$0.50", tokens: 400k, tool_calls: 60}
sandbox: {backend: process, because: "a trial"}
"""

TOOLS: Final = '''
import urllib.request
from typing import Annotated
from pydantic import Field
from midwatch import Arg, tool
from midwatch.tools.binding import ToolContext

Item = Annotated[str, Field(max_length=100), Arg(role="content", interprets=False)]

def call(context, place, item, headers):
    url = (context.workdir / "target").read_text() + "/" + place
    request = urllib.request.Request(url, data=item.encode(), headers=headers, method="POST")
    with urllib.request.urlopen(request, timeout=20) as answer:
        return {"done": item, "status": str(answer.status)}

@tool(effect="write", idempotent=True, runs="broker", open_world=False)
def pay(context: ToolContext, item: Item) -> dict[str, str]:
    """Pay an invoice; the other side knows a call by its key."""
    return call(context, "keyed", item, {"idempotency-key": context.idempotency_key})

@tool(effect="write", runs="broker", open_world=False)
def post(context: ToolContext, item: Item) -> dict[str, str]:
    """Post a letter; the other side knows no key."""
    return call(context, "plain", item, {"idempotency-key": context.idempotency_key})

@tool(effect="destructive", runs="broker", open_world=False)
def drop(context: ToolContext, item: Item) -> dict[str, str]:
    """Take a letter away; a person is asked."""
    return call(context, "plain", item, {"idempotency-key": context.idempotency_key})

@tool(effect="read", runs="broker", open_world=False)
def look(context: ToolContext, item: Item) -> dict[str, str]:
    """Look at an item."""
    return call(context, "look", item, {})
'''


@dataclass(frozen=True, slots=True)
class Outcome:
    """How one segment ended.

    Attributes:
        code: of the child; negative for the signal that ended it.
        result: of the run as far as it stopped by itself (`status`, `cost`, `gates`, `in_doubt`, …), else None.
        error: what the engine raised, in words.
    """

    code: int
    result: Mapping[str, Any] | None
    error: str | None

    @property
    def status(self) -> str:
        """The run's status, or `killed`, or the error."""
        return str(self.result["status"]) if self.result is not None else self.error or "killed"


def approve(case: Case, gate: str) -> None:
    """Say yes to a gate."""
    case.answer(gate, approve=True)


def deny(case: Case, gate: str) -> None:
    """Say no to a gate."""
    case.answer(gate, approve=False)


class Harness:
    """Provider, target and zygote, for as long as the `with` block lasts.

    Args:
        folder: empty; cases get folders of their own in it.
        plan: what the worker proposes, in every case of this harness.
        fleet: text of the fleet file; names of agents and of the file with the tools must stay.
        tasks: the worker gets each, side by side, and carries out the plan for it; with several, `a` becomes `a-TASK`.
    """

    def __init__(
        self, folder: Path, plan: Plan = PLAN, *, fleet: str = FLEET, tasks: Sequence[str] = ("work",)
    ) -> None:
        self.plan, self.tasks = plan, tasks
        self.fleet = folder / "fleet"
        self._folder, self._processes = folder, list[subprocess.Popen[str]]()
        self.bill_file, self.target_log = folder / "bill.jsonl", folder / "target.jsonl"
        self.fleet.mkdir(parents=True)
        (self.fleet / "fleet.yaml").write_text(fleet)
        (self.fleet / "outside.py").write_text(TOOLS)
        (self.fleet / "scenario.yaml").write_text(json.dumps(_scenario(plan, tasks)))

    def __enter__(self) -> Self:
        """Start the three."""
        scenario = str(self.fleet / "scenario.yaml")
        scripted = "midwatch.models.scripted"
        told = self._start(scripted, scenario, "--bill", str(self.bill_file), "--until-stdin-closes")
        self.provider = json.loads(told.readline())["base_url"]
        self.target = json.loads(self._start("tests.crash.target", str(self.target_log)).readline())["url"]
        self._zygote_out = self._start("tests.crash.zygote")
        self._zygote = self._processes[-1]
        return self

    def __exit__(self, *_: object) -> None:
        """End them; each ends when its standard input is closed."""
        for process in self._processes:
            if process.stdin is not None:
                process.stdin.close()
            try:
                process.wait(timeout=20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(timeout=20)
            if process.stdout is not None:
                process.stdout.close()

    def case(self, name: str, *, home: Path | None = None) -> Case:
        """Begin a case: a home and a working directory that nobody used before; `name` must be new.

        Args:
            home: where its state lives, when it must be somewhere else, such as on a small disk.
        """
        folder = self._folder / name
        (folder / "work").mkdir(parents=True)
        (folder / "work" / "target").write_text(f"{self.target}/{name}")
        return Case(
            self, name, home or folder / "home", folder / "work", folder / "log", billed_before=len(self.bill())
        )

    def order(self, order: Mapping[str, Any]) -> Outcome:
        """Let the zygote carry out one order; `Case.segment` makes them."""
        assert self._zygote.stdin is not None
        self._zygote.stdin.write(json.dumps(dict(order)) + "\n")
        self._zygote.stdin.flush()
        answer = json.loads(self._zygote_out.readline())
        return Outcome(answer["code"], answer["result"], answer["error"])

    def bill(self) -> list[dict[str, Any]]:
        """Give the provider's bill so far, of all cases."""
        return _lines(self.bill_file)

    def _start(self, module: str, *arguments: str) -> IO[str]:
        argv = [sys.executable, "-m", module, *arguments]
        environ = {key: value for key, value in os.environ.items() if not key.startswith("MIDWATCH_")}
        process = subprocess.Popen(argv, cwd=ROOT, env=environ, stdin=PIPE, stdout=PIPE, text=True)
        self._processes.append(process)
        assert process.stdout is not None
        return process.stdout


@dataclass(slots=True)
class Case:
    """One run, from its start to its end, over any number of segments.

    Attributes:
        kills: how many segments died by SIGKILL.
        cuts: how many were cut, by SIGKILL or because the store failed them, so that an answer in flight may be lost.
        heads: hashes of the ledger's head that segments told when they stopped.
        retried: effects that `resolve` let happen once more; each allows one more call at the target.
        offset_us: what the next segment's clock is ahead; raise it to let gates expire.
    """

    harness: Harness
    name: str
    home: Path
    work: Path
    log: Path
    billed_before: int
    run: str | None = None
    kills: int = 0
    cuts: int = 0
    heads: list[str] = field(default_factory=list)
    retried: Counter[str] = field(default_factory=Counter)
    offset_us: int = 0
    last: Outcome | None = None

    def segment(
        self,
        point: str | None = None,
        *,
        number: int = 1,
        busy_ms: int | None = None,
        file_size: int | None = None,
        **environ: str,
    ) -> Outcome:
        """Start the run, or resume it, in a fresh child.

        Args:
            point: where it dies, `before NAME` or `after NAME` with a name of `zygote.PLACES`; None: it does not.
            number: the how manieth pass of that point is the last.
            busy_ms: how long the child waits for another's write lock. file_size: bytes beyond which no file of it may grow.
            environ: variables for the child.
        """
        order = {
            "fleet": str(self.harness.fleet),
            "home": str(self.home),
            "work": str(self.work),
            "log": str(self.log),
            "provider": self.harness.provider,
            "run": self.known(),
            "request": {"case": self.name},
            "point": point,
            "number": number,
            "offset_us": self.offset_us,
            "environ": environ,
            "busy_ms": busy_ms,
            "file_size": file_size,
        }
        outcome = self.harness.order(order)
        self.offset_us += LEASE_US
        self.last = outcome
        self.kills += outcome.code < 0
        self.cuts += outcome.result is None or str(outcome.result["error_code"]).startswith("Store")
        if outcome.result is not None:
            self.run = outcome.result["run"]
            self.heads.append(outcome.result["head"])
        return outcome

    def known(self) -> str | None:
        """Give the run's id as soon as the home has one: a killed child cannot tell it."""
        if self.run is None and (self.home / wiring.DATABASE).exists():
            with self.store() as store:
                rows = store.read(lambda tx: tx.runs.list())
            self.run = rows[0].id if rows else None
        return self.run

    def until_done(
        self,
        *,
        on_gate: Callable[[Case, str], None] = approve,
        on_doubt: Callable[[Case, EffectRow], control.Word] = lambda case, row: case.looked(row),
    ) -> Outcome:
        """Resume until the run stops for another reason than a person, answering for them.

        Args:
            on_gate: is given each open gate's id. on_doubt: gives the word for each effect in doubt.
        """
        for _ in range(SEGMENTS):
            outcome = self.segment()
            if outcome.status != "waiting" or outcome.result is None:
                return outcome
            for gate in outcome.result["gates"]:
                on_gate(self, gate)
            for effect in outcome.result["in_doubt"]:
                with self.store() as store:
                    row = store.read(lambda tx, effect=effect: tx.effects.get(effect))
                self.resolve(effect, on_doubt(self, row))
        raise AssertionError(f"the run of case `{self.name}` did not end in {SEGMENTS} segments: {self.last}")

    def answer(self, gate: str, *, approve: bool, by: str = "ann") -> None:
        """Answer a gate; raises as `control.answer` does."""
        with self.store() as store:
            control.answer(store, gate, approve=approve, by=by, reason="asked", at_us=self.now())

    def resolve(self, effect: str, word: control.Word) -> None:
        """Say what became of an effect in doubt."""
        with self.store() as store:
            control.resolve(store, effect, word=word, by="ann", at_us=self.now())
        if word == "retry":
            self.retried[effect] += 1

    def looked(self, row: EffectRow) -> control.Word:
        """Look at the outside world, as a person does: what has happened is `done`, what has not is tried again."""
        return "done" if any(call["key"] == row.id for call in self.calls()) else "retry"

    def now(self) -> int:
        """The time at which people speak: after what the segments so far have seen."""
        return wiring.clock() + self.offset_us

    def store(self) -> Any:
        """Open the home's store."""
        return wiring.open_store(self.home)

    def calls(self, *places: str) -> list[dict[str, Any]]:
        """Give what the target has seen of this case."""
        lines = [line for line in _lines(self.harness.target_log) if line["case"] == self.name]
        return [line for line in lines if not places or line["place"] in places]

    def bill(self) -> list[dict[str, Any]]:
        """Give the provider's bill of this case; cases of one harness come one after the other."""
        return self.harness.bill()[self.billed_before :]

    def charged(self) -> tuple[int, int]:
        """Give what the provider charged and what the run counts, in micro-dollars; equal where no answer was lost."""
        with self.store() as store:
            row = store.read(lambda tx: tx.runs.get(self.run or ""))
        return sum(line["cost_microusd"] for line in self.bill()), row.cost

    def events(self, *kinds: str) -> list[Event]:
        """Give the run's events of these kinds, or all."""
        with self.store() as store:
            return list(store.read(lambda tx: tx.ledger.read(run=self.run, kinds=kinds, limit=100_000)))

    def effects(self, kind: str = "tool") -> list[EffectRow]:
        """Give the run's effects."""
        with self.store() as store:
            rows = store.read(lambda tx: tx.effects.list(self.run or ""))
        return [row for row in rows if row.kind == kind]

    def audit(self, *, done: bool = True) -> list[str]:
        """Give every promise that this run broke so far, in words; empty is good.

        Args:
            done: the run has ended, so nothing may be held, missing or in doubt.
        """
        with self.store() as store:
            found = [*self._chain(store), *self._books(store, done=done)]
        found += [*self._nodes(), *self._outside(done=done), *self._answers()]
        if done and (self.last is None or self.last.status != "done"):
            found.append(f"the run ended as {self.last}")
        return found

    def _chain(self, store: Store) -> list[str]:
        """The chain holds, and what was acknowledged (a head told, an event shown after its commit) is in it."""
        found = []
        for head in [None, *self.heads]:
            report = store.read(lambda tx, head=head: tx.ledger.verify(expected_head=head))  # type: ignore[misc]
            if not report.ok:
                found.append(f"the chain does not hold, or lacks head {head}: {report}")
        for seq, hash_ in self._noted("seen"):
            event = store.read(lambda tx, seq=seq: tx.ledger.get(seq))  # type: ignore[misc]
            if event is None or event.hash != hash_:
                found.append(f"acknowledged event {seq} is lost or another one")
        return found

    def _nodes(self) -> list[str]:
        """What was entered after its result had been written ran twice."""
        finished: set[str] = set()
        found = []
        for word, *rest in _lines(self.log):
            if word == "written":
                finished.add(rest[0])
            elif word == "entered" and rest[0] in finished:
                found.append(f"task {rest[0]} began again after its result was written")
        return found

    def _outside(self, *, done: bool) -> list[str]:
        """At the target: once by key where it takes keys; where it does not, once for each attempt that a person allowed."""
        found = []
        rows = {row.id: row for row in self.effects()}
        for key, times in Counter(call["key"] for call in self.calls("keyed") if call["first"]).items():
            if times != 1:
                found.append(f"keyed call {key} was carried out {times} times")
        for key, times in Counter(call["key"] for call in self.calls("plain")).items():
            if times > 1 + self.retried[key]:
                found.append(f"call {key} without a key was made {times} times")
        items = Counter(call["body"] for call in self.calls("keyed") if call["first"])
        if repeated := {item: times for item, times in items.items() if times > 1}:
            found.append(f"paid more than once: {repeated}")
        lost = [call["key"] for call in self.calls("keyed", "plain") if call["key"] not in rows]
        found += [f"call {key} has no intent in the journal" for key in lost]
        if done:
            found += [
                f"effect {row.id} of {row.tool} is still {row.status}"
                for row in rows.values()
                if row.status == "started"
            ]
        return found

    def _books(self, store: Store, *, done: bool) -> list[str]:
        """No scope is past its cap; at the end nothing is held; the run's cost is at least what the provider charged."""

        def work(tx: Tx) -> tuple[Any, Any, Any]:
            run = self.run or ""
            return tx.budgets.accounts(prefix=""), tx.budgets.open_reservations(run), tx.runs.get(run)

        accounts, held, row = store.read(work)
        found = [
            f"{item.scope} has {item.spent} spent and {item.held} held of {item.cap} {item.unit}"
            for item in accounts
            if item.spent < 0 or item.held < 0 or (item.cap is not None and item.spent + item.held > item.cap)
        ]
        if done:
            found += [f"{item.scope} still holds {item.held} {item.unit}" for item in accounts if item.held]
            found += [f"reservation {name} is open" for name, _ in held]
        charged = sum(line["cost_microusd"] for line in self.bill())  # late lines of cut answers only raise it
        if row is not None and done and not charged <= row.cost <= CAP:
            found.append(f"the provider charged {charged}, the run counts {row.cost}, its cap is {CAP}")
        return found

    def _answers(self) -> list[str]:
        """No model call is billed twice, but for those whose answer was lost: each cut loses the ones in flight."""
        asked, billed = len(self.effects("model")), len(self.bill())
        if billed > asked + self.cuts * self.lost_per_cut():
            return [f"{asked} model calls were billed {billed} times after {self.cuts} cuts"]
        return []

    def lost_per_cut(self) -> int:
        """How many answers one cut can lose: as many as agents that think at once."""
        return len(self.harness.tasks)

    def _noted(self, word: str) -> list[list[Any]]:
        return [rest for first, *rest in _lines(self.log) if first == word]


def _lines(path: Path) -> list[Any]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def _scenario(plan: Plan, tasks: Sequence[str]) -> dict[str, Any]:
    criteria = [{"text": "it was done", "shown_by": ["outside.look"]}]
    dispatches = [{"agent": "worker", "task": task, "criteria": criteria} for task in tasks]
    rules: list[dict[str, Any]] = [{"agent": "boss", "answer": {"goal": "try it", "dispatches": dispatches}}]
    of_task = "-${ json_values(user)[0].task }" if len(tasks) > 1 else ""
    for turn, calls in enumerate(plan):
        asked = [{"name": f"outside_{tool}", "arguments": {"item": item + of_task}} for tool, item in calls]
        rules.append({"agent": "worker", "turn": turn, "tool_calls": asked})
    rules.append({"agent": "worker", "answer": {"changed": [], "needed": [], "risks": []}})
    rules.append({"agent": "writer", "answer": {"answer": "# Report", "changed": [], "needed": [], "risks": []}})
    return {
        "scenario": 1,
        "models": ["tiny"],
        "prices": {"tiny": {"input": "$1.00", "output": "$2.00"}},
        "rules": rules,
    }
