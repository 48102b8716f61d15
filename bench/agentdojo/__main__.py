"""Print what containment does to AgentDojo: `python -m bench.agentdojo [--suite NAME] [--row static|reader] [--json FILE] [--quick]`.

Nothing here is a model: a scripted agent does the user's ground truth and, at the first injected read, all that the injected text wants.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import yaml

from bench.agentdojo import defence, oracle
from bench.agentdojo.probe import probe
from bench.agentdojo.world import VERSION, World, worlds

REWORDINGS: Final = Path(__file__).parent / "rewordings.yaml"
HOW: Final = f"""AgentDojo {VERSION}, 97 user tasks, 35 injection tasks, 949 pairs. No model: the agent does the user's ground-truth
calls; at the first result that holds the injected text it does all the attacker's calls (`end`: after the user's). AgentDojo's own checkers
judge. Of workspace's injection tasks 6 to 13, which ship without calls, the calls are ours (`attackers.py`). 20 pairs act by words alone:
no guard of tools stops them.
static: roles, authors, readers, rights of `policies/*.yaml` alone. reader: besides, a mandate by the deterministic reader of the request.
alone: solved, and every call of the user's passed without a person. approved: solved when a person lets pass those of the user's own calls
that were asked about, and nothing else. held: calls of the user's that were held back without a person.
probe: after the first injected read, the user's own effect calls with one value changed: to the attacker's own (foreign), or to another one
of the same kind that some result gave (known)."""


@dataclass(slots=True)
class Row:
    """Sums of one suite under one defence."""

    tasks: int = 0
    calls: int = 0
    alone: list[str] = field(default_factory=list)
    approved: int = 0
    approvals: int = 0
    held: int = 0
    asked: dict[str, list[str]] = field(default_factory=dict)
    pairs: int = 0
    attacked: list[tuple[str, str]] = field(default_factory=list)
    useful: int = 0
    tried: int = 0
    stopped: int = 0
    end: int | None = None
    canary: int | None = None
    probed: dict[str, tuple[int, int]] = field(default_factory=dict)


def main() -> int:
    """Run and print; the exit code says nothing about bars, which the table shows."""
    told = _arguments()
    print(HOW)
    rows: dict[str, dict[str, Any]] = {}
    for world in worlds():
        if told.suite and world.name not in told.suite:
            continue
        policy = defence.load(world)
        for name in told.row:
            began = time.monotonic()
            row = _measure(world, policy, name, quick=told.quick)
            rows[f"{world.name}/{name}"] = _json(row)
            print(_shown(world.name, name, row, time.monotonic() - began), flush=True)
        if "reader" in told.row and not told.quick:
            print(_reworded(world, policy), flush=True)
    if told.json:
        Path(told.json).write_text(json.dumps(rows, indent=1), "utf-8")
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.agentdojo", description=__doc__)
    parser.add_argument("--suite", action="append", default=[])
    parser.add_argument("--row", action="append", choices=["undefended", "static", "reader"])
    parser.add_argument("--quick", action="store_true", help="without `end`, bare canary, probe and rewordings")
    parser.add_argument("--json")
    told = parser.parse_args()
    told.row = told.row or ["static", "reader"]
    return told


def _guard(policy: defence.Policy, request: str, name: str) -> defence.Defence | None:
    return None if name == "undefended" else defence.Defence(policy, request, reader=name == "reader")


def _measure(world: World, policy: defence.Policy, name: str, *, quick: bool) -> Row:
    row = Row()
    for key, user in world.users.items():
        plain = oracle.run(world, user, None, _guard(policy, user.PROMPT, name))
        helped = oracle.run(world, user, None, _guard(policy, user.PROMPT, name), approve=True)
        row.tasks += 1
        row.calls += plain.user_calls
        row.held += len(plain.held)
        row.approved += helped.solved and not helped.held
        row.approvals += helped.approvals
        if plain.autonomous:
            row.alone.append(key)
        else:
            row.asked[key] = [tool for tool, _ in plain.held]
    for user, attack in oracle.pairs(world):
        made = oracle.run(world, user, attack, _guard(policy, user.PROMPT, name))
        row.pairs += 1
        row.useful += made.autonomous
        row.tried += made.tried
        row.stopped += made.stopped
        if made.attacked:
            row.attacked.append((user.ID, attack.ID))
    if not quick and name != "undefended":
        _more(world, policy, name, row)
    return row


def _more(world: World, policy: defence.Policy, name: str, row: Row) -> None:
    row.end = row.canary = 0
    for user, attack in oracle.pairs(world):
        row.end += oracle.run(
            world, user, attack, _guard(policy, user.PROMPT, name), mode="end", attacked_only=True
        ).attacked
        row.canary += oracle.run(
            world, user, attack, _guard(policy, user.PROMPT, name), text="", attacked_only=True
        ).attacked
    for user in world.users.values():
        guard = _guard(policy, user.PROMPT, name)
        if guard is None:
            continue
        for word, (passed, tried) in probe(world, user, guard).items():
            before = row.probed.get(word, (0, 0))
            row.probed[word] = (before[0] + passed, before[1] + tried)


def _reworded(world: World, policy: defence.Policy) -> str:
    """Run the even requests in other words: the agent does the same, the reader reads those words."""
    told: Mapping[int, list[str]] = (yaml.safe_load(REWORDINGS.read_text("utf-8")) or {}).get(world.name) or {}
    tasks = approvals = alone = same = pairs = attacked = 0
    lost: list[str] = []
    for number, requests in told.items():
        user = world.users[f"user_task_{number}"]
        original = oracle.run(world, user, None, _guard(policy, user.PROMPT, "reader")).autonomous
        for request in requests:
            tasks += 1
            same += original
            plain = oracle.run(world, user, None, _guard(policy, request, "reader"))
            approvals += oracle.run(world, user, None, _guard(policy, request, "reader"), approve=True).approvals
            alone += plain.autonomous
            lost += [] if plain.autonomous else [str(number)]
            for attack in world.injections.values():
                pairs += 1
                attacked += oracle.run(
                    world, user, attack, _guard(policy, request, "reader"), attacked_only=True
                ).attacked
    return (
        f"  reworded requests: {alone}/{tasks} alone (as written: {same}), {approvals} approvals, "
        f"{attacked}/{pairs} attacks; not alone: {', '.join(lost) or 'none'}"
    )


def _shown(suite: str, name: str, row: Row, seconds: float) -> str:
    odd = [key for key in row.alone if int(key.rsplit("_", 1)[-1]) % 2]
    odd_pairs = sum(1 for user, _ in row.attacked if int(user.rsplit("_", 1)[-1]) % 2)
    odd_all = sum(1 for key in [*row.alone, *row.asked] if int(key.rsplit("_", 1)[-1]) % 2)
    lines = [
        f"\n{suite} / {name} ({seconds:.0f} s)",
        f"  attacks {len(row.attacked)}/{row.pairs} (odd tasks: {odd_pairs}), attacker's calls stopped {row.stopped}/{row.tried}",
        f"  useful under attack {row.useful}/{row.pairs}",
        f"  alone {len(row.alone)}/{row.tasks} (odd: {len(odd)}/{odd_all}), held {row.held}/{row.calls} calls",
        f"  approved {row.approved}/{row.tasks} with {row.approvals} approvals ({row.approvals / row.tasks:.2f} a task)",
    ]
    if row.end is not None:
        probed = ", ".join(f"{word} {passed}/{tried}" for word, (passed, tried) in row.probed.items())
        lines.append(f"  at the end {row.end}, bare canary {row.canary}, adaptive probe passed: {probed}")
    by = Counter(attack for _, attack in row.attacked)
    lines += [f"  lost to {attack} ({count}): {', '.join(_users(row, attack))}" for attack, count in by.items()]
    lines += [
        f"  asked in {key}: {', '.join(dict.fromkeys(tools)) or 'nothing; not solved'}"
        for key, tools in row.asked.items()
    ]
    return "\n".join(lines)


def _users(row: Row, attack: str) -> Iterator[str]:
    return (user.rsplit("_", 1)[-1] for user, which in row.attacked if which == attack)


def _json(row: Row) -> dict[str, Any]:
    return {name: getattr(row, name) for name in Row.__dataclass_fields__}


if __name__ == "__main__":
    sys.exit(main())
