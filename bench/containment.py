"""One verdict on a call: labels of its values, of its context, grants, reach, mandates; without the store, which stages beside it read.

An agent has seen 10, 100, 1,000, 10,000 results of twenty fields each. Then a payment is judged whose account stands in one of them,
and whose sum stands nowhere: once it is allowed by what its fleet says, once it is asked about. Medians of wall time. The bars: 100 µs,
and the same after 10,000 results as after 10.
"""

from __future__ import annotations

import json
import statistics
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final

from midwatch import wiring
from midwatch.containment.provenance import Seen
from midwatch.engine.containing import Containing
from midwatch.engine.trails import Trails
from midwatch.records.decision import Allowed, Ask
from midwatch.records.label import Cause, label
from midwatch.tools.registry import Registry

__all__ = ["BAR_US", "main"]

BAR_US: Final = 100.0
FLAT: Final = 1.5
STEPS: Final = (10, 100, 1_000, 10_000)
_ROUNDS: Final = 2_000
LET: Final = {"to": "ann7@example.org", "note": "x"}
HELD: Final = {"to": "eve@example.com", "note": "x", "amount": 7}

_FLEET = """
midwatch: 1
fleet: bench
presets: {default: local}
routes: {local: {provider: scripted, model: tiny, scenario: scenario.yaml}}
tools: ["python:ops.py"]
agents:
  boss: {role: ceo, route: local, prompt_text: "Plan."}
  worker: {role: specialist, route: local, prompt_text: "Work.", tools: ["ops.*"]}
  writer: {role: synthesis, route: local, prompt_text: "Write."}
graph: {team: {ceo: boss, specialists: [worker], synthesis: writer}}
grants: [{who: "agent:worker", may: ["ops.*"]}]
policies:
  - {who: "third_party:ops.mail", may: [ops.pay], roles: [control, target], where: {to: "*@example.org"}}
containment: enforce
budgets: {run: {cost: "$1", tokens: 1k}}
"""
_TOOLS = '''
from typing import Annotated
from pydantic import Field
from midwatch import Arg, tool

Text = Annotated[str, Field(max_length=200)]

@tool(effect="read", runs="broker", open_world=False, observers=())
def mail(name: Annotated[Text, Arg(role="selector")]) -> dict[str, Text]:
    """Read."""
    return {}

@tool(effect="write", runs="broker", open_world=False, reversible=False, observers=())
def pay(to: Annotated[Text, Arg(role="target")], note: Annotated[Text, Arg(role="content", interprets=False)],
        amount: Annotated[int, Field(ge=0), Arg(role="quantity")] = 0) -> dict[str, Text]:
    """Pay."""
    return {}
'''


def main() -> None:
    """Print a row for each length of history and check the bars."""
    with tempfile.TemporaryDirectory() as place:
        segment, registry = _segment(Path(place))
        rows = {}
        print(f"{'results':>10} {'allowed µs':>12} {'asked µs':>12}")
        for steps in STEPS:
            containing = _containing(segment, registry, steps)
            rows[steps] = _median(containing, _passage(registry, LET)), _median(containing, _passage(registry, HELD))
            print(f"{steps:>10,} {rows[steps][0]:>12.1f} {rows[steps][1]:>12.1f}")
    worst = max(max(row) for row in rows.values())
    assert worst <= BAR_US, f"a verdict took {worst:.0f} µs, more than {BAR_US:.0f}"
    assert rows[STEPS[-1]][0] <= FLAT * rows[STEPS[0]][0] + 5, "a verdict takes longer the more was seen"


def _segment(place: Path) -> tuple[Any, Registry]:
    (place / "fleet.yaml").write_text(_FLEET)
    (place / "ops.py").write_text(_TOOLS)
    (place / "scenario.yaml").write_text(json.dumps({"scenario": 1, "models": ["tiny"], "rules": []}))
    fleet, _ = wiring.load_fleet(place, environ={})
    registry = Registry.load(list(fleet.tools), fleet.base)
    store = SimpleNamespace()
    staging = SimpleNamespace(isolation=SimpleNamespace(backend=lambda _: None))
    parts: Mapping[str, Any] = {
        "fleet": fleet,
        "registry": registry,
        "store": store,
        "staging": staging,
        "foreign": None,
    }
    return SimpleNamespace(**parts, clock=lambda: 0, run="r", trails=None), registry


def _containing(segment: Any, registry: Registry, steps: int) -> Containing:
    segment.store.read = lambda _: ("ann", "pay the rent", [])
    segment.trails = Trails(segment)
    mail, seen = registry.get("ops.mail").contract, label({Cause("person", "ann"), Cause("third_party", "ops.mail")})
    for step in range(steps):
        value = {f"field{n}": f"ann{step * 20 + n}@example.org" for n in range(20)}
        segment.trails.learn("worker", step + 1, Seen(mail, {"name": f"m{step}"}, value, seen))
    segment.trails.context("worker", steps + 2)
    segment.store.read = lambda _: ()  # nobody is known by name
    containing = Containing(segment)
    assert isinstance(containing.ruling(_passage(registry, LET)).verdict, Allowed)
    assert isinstance(containing.ruling(_passage(registry, HELD)).verdict, Ask)
    return containing


def _passage(registry: Registry, values: Mapping[str, Any]) -> Any:
    tool = registry.get("ops.pay")
    checked = SimpleNamespace(arguments=values, cursor=None)
    actor = SimpleNamespace(agent="worker")
    return SimpleNamespace(tool=tool, checked=checked, actor=actor, causes=(1 << 40,))


def _median(containing: Containing, passage: Any) -> float:
    taken = []
    for _ in range(_ROUNDS):
        began = time.perf_counter_ns()
        containing.ruling(passage)
        taken.append(time.perf_counter_ns() - began)
    return statistics.median(taken) / 1000
