"""Peers: the same probe for what others offer: twenty calls at once against a cap that is worth ten, each library as its makers say.

In:   `python -m bench.overshoot_peers`. Out: a table: calls that went out, what they cost, what the cap was, for each library
with its version.
Each runs in `.venv-peers/` (no commit takes it; `--fetch` fills it with pip). A call is 10 ms of waiting that costs one unit; the
library's own primitive is driven, not a whole deployment of it. Ours: the same calls through `ModelCalls` (`overshoot_world`).
"""

from __future__ import annotations

import argparse
import asyncio
import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.overshoot_schedules import Schedule
from bench.overshoot_world import Doing, World

__all__ = ["PROBES", "fetch", "main", "rows"]

_ROOT = Path(__file__).resolve().parent.parent
_HOME = _ROOT / ".venv-peers"
_NAMES = ("agent-governance-toolkit-core", "inspect-ai", "pydantic-ai-slim", "breakerbox")
_HEAD = """
import asyncio, json
from importlib.metadata import version
CALLS, CAP, EACH = 20, 1000, 100
sent = 0
async def provider():
    global sent
    sent += 1
    await asyncio.sleep(0.01)
async def together(one):
    await asyncio.gather(*(one(number) for number in range(CALLS)), return_exceptions=True)
def told(name, cost=None):
    print(json.dumps({"name": name, "version": version(name), "sent": sent, "cost": sent * EACH if cost is None else cost, "cap": CAP}))
"""
PROBES = {
    "agent-governance-toolkit-core": """
from agentmesh.governance.budget import BudgetConfig, BudgetTracker
tracker = BudgetTracker(BudgetConfig(max_cost_usd=CAP / 1000))
async def one(_):
    if tracker.check_budget("a").allowed:
        await provider()
        tracker.record_usage("a", cost_usd=EACH / 1000)
asyncio.run(together(one))
told("agent-governance-toolkit-core")
""",
    "inspect-ai": """
from inspect_ai.model import ModelOutput, ModelUsage, get_model
from inspect_ai.util import token_limit
from inspect_ai.model import modelapi, ModelAPI
@modelapi(name="probe")
class Probe(ModelAPI):
    def __init__(self, model_name, base_url=None, api_key=None, config=None, **more):
        super().__init__(model_name, base_url, api_key, [])
    def max_connections(self):
        return 100
    async def generate(self, input, tools, tool_choice, config):
        await provider()
        output = ModelOutput.from_content("probe", "yes")
        output.usage = ModelUsage(input_tokens=EACH - 1, output_tokens=1, total_tokens=EACH)
        return output
model = get_model("probe/x")
async def all_of_it():
    with token_limit(CAP):
        await together(lambda _: model.generate("go"))
asyncio.run(all_of_it())
told("inspect-ai")
""",
    "pydantic-ai-slim": """
from pydantic_ai import Agent
from pydantic_ai.messages import ModelResponse, TextPart
from pydantic_ai.models.function import FunctionModel
from pydantic_ai.usage import RequestUsage, RunUsage, UsageLimits
async def answer(messages, info):
    await provider()
    return ModelResponse(parts=[TextPart("yes")], usage=RequestUsage(input_tokens=EACH - 1, output_tokens=1))
agent, usage = Agent(FunctionModel(answer)), RunUsage()
asyncio.run(together(lambda _: agent.run("go", usage=usage, usage_limits=UsageLimits(total_tokens_limit=CAP))))
told("pydantic-ai-slim")
""",
    "breakerbox": """
from breakerbox.ledger import InsufficientBudget, Ledger
def probe(reserved):
    global sent
    sent, ledger = 0, Ledger()
    ledger.open_account("root", None, CAP)
    async def one(_):
        held = ledger.reserve("root", reserved)
        await provider()
        ledger.reconcile(held, EACH)
    asyncio.run(together(one))
    told("breakerbox")
probe(EACH)
probe(EACH // 2)
""",
}
_SAID = {
    "agent-governance-toolkit-core": ("check_budget, then record_usage",),
    "inspect-ai": ("token_limit around generate()",),
    "pydantic-ai-slim": ("UsageLimits over one shared RunUsage",),
    "breakerbox": ("Ledger, the estimate is exact", "Ledger, the estimate is half of it"),
}


def fetch() -> None:
    """Fill the folder; asks the package index."""
    subprocess.run([sys.executable, "-m", "venv", str(_HOME)], check=True, timeout=120)
    subprocess.run([str(_HOME / "bin" / "pip"), "install", "--quiet", *_NAMES], check=True, timeout=900)


def rows() -> list[dict[str, Any]]:
    """Probe each that is there, then ours."""
    found: list[dict[str, Any]] = []
    for name, text in PROBES.items():
        done = subprocess.run(
            [str(_HOME / "bin" / "python"), "-c", _HEAD + text],
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        if done.returncode:
            found.append(
                {"name": name, "how": f"not probed: {(done.stderr.strip() or 'no answer').splitlines()[-1][:80]}"}
            )
            continue
        lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
        found += [line | {"how": how} for line, how in zip(lines, _SAID[name], strict=True)]
    return [*found, *ours()]


def ours() -> list[dict[str, Any]]:
    """Do it here: the cap is worth ten calls as the provider bills them; without faults, and where its report is a tenth of the truth."""
    found = []
    for how, faulty, kind in (
        ("reserve, lower the output cap, settle", 0, ""),
        ("the same, usage is under-reported", 1000, "lying_usage"),
    ):
        with tempfile.TemporaryDirectory() as folder:
            world = World(Path(folder))
            plan = Schedule(7, 20, 1, 1, 64, 2000, {"run": {"cost": 10**9}})
            each = max(1, _billed(world, plan)[1] // 20)
            again = Schedule(8, 20, 1, 1, 64, 2000, {"run": {"cost": 10 * each}}, faulty=faulty, kind=kind)
            sent, cost = _billed(world, again)
            world.store.close()
        found.append({"name": "midwatch", "version": "", "sent": sent, "cost": cost, "cap": 10 * each, "how": how})
    return found


def _billed(world: World, plan: Schedule) -> tuple[int, int]:
    doing = Doing(world, plan)
    done = asyncio.run(doing.go())
    return done.lines, done.billed


def main(words: Sequence[str] = ()) -> None:
    """Print the table; ours must stay within its cap."""
    parser = argparse.ArgumentParser(prog="python -m bench.overshoot_peers")
    parser.add_argument("--fetch", action="store_true")
    if parser.parse_args(list(words)).fetch:
        fetch()
    found = rows() if (_HOME / "bin" / "python").exists() else ours()
    print("20 calls at once, a cap that is worth 10")
    for row in found:
        if "sent" not in row:
            print(f"{row['name']:<31}{'':>34}  {row['how']}")
            continue
        share = row["cost"] / row["cap"]
        print(
            f"{row['name']:<31}{row['version']:<10}{row['sent']:>4} calls{row['cost']:>8} of {row['cap']:<6} {share:>6.0%}  {row['how']}"
        )
    assert all(row["cost"] <= row["cap"] for row in found if row["name"] == "midwatch"), "past the cap"


if __name__ == "__main__":
    main(sys.argv[1:])
