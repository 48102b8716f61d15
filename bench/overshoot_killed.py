"""Killed: processes of one home that share a cap and are killed with SIGKILL while they ask a real provider over loopback.

In:   a seed. Out: `Killed`: what the provider billed beside the cap. Store, SDK, sockets, faults and kills are real; the provider lives in
the process that looks on, so that it bills what the killed ones had asked for.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import random
import secrets
import tempfile
import time
from dataclasses import dataclass, field
from fractions import Fraction
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Final

from bench.overshoot_schedules import Schedule
from bench.overshoot_world import Doing, World
from midwatch.engine import books
from midwatch.models.scripted.faults import Fault
from midwatch.models.scripted.provider import ScriptedProvider
from midwatch.store.sqlite import SqliteStore

__all__ = ["Killed", "killed"]

_LIVES: Final = 3
_PATIENCE_S: Final = 60
_FAULTS: Final = (
    *(
        Fault("status", status=500),
        Fault("status", status=429),
        Fault("timeout", seconds=1),
        Fault("cut_stream", after_chunks=3),
    ),
    *(
        Fault("no_finish"),
        Fault("no_usage"),
        Fault("slow", delay_ms=5),
        Fault("lying_usage", multiplier=Fraction(1, 10)),
    ),
    *(Fault("lying_usage", multiplier=Fraction(5)), Fault("lying_usage", multiplier=Fraction(0))),
)


@dataclass(slots=True)
class Killed:
    """What one schedule came to; `over` are sentences."""

    calls: int = 0
    billed: int = 0
    kills: int = 0
    over: list[str] = field(default_factory=list)


def killed(seed: int) -> Killed:
    """Carry out one schedule: up to four processes, each with a run of its own under one cap, up to three lives each."""
    dice, found = random.Random(f"killed/{seed}"), Killed()
    processes, fan, output = dice.randint(1, 4), dice.choice((2, 6, 12, 25)), dice.choice((64, 200, 800))
    prompt = dice.randint(20, 3000)
    cap = int((3 * (prompt + 500) + 12 * output) * dice.choice((2, fan / 2, fan)))
    plan = Schedule(seed, fan, processes, 2, output, prompt, {"fleet": {"cost": cap}}, ladder=False)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        store = SqliteStore(folder / "midwatch.db")
        runs = [secrets.token_hex(16) for _ in range(processes)]
        world = World(folder, store=store, url="http://127.0.0.1:9/v1")
        doing = Doing(world, plan, runs)
        doing.begin()
        with ScriptedProvider(folder / "scenario.yaml", clock=world.clock, keep_requests=False) as provider:
            for fault in dice.choices(_FAULTS, k=dice.choice((0, 2, 6, 20))):
                provider.inject(fault)
            found.kills = _live(folder, provider.base_url, plan, runs, dice)
        found.calls, found.billed = len(provider.bill), sum(line.cost_microusd for line in provider.bill)
        for run in runs:
            store.write(lambda tx, run=run: books.close(tx, run, at_us=world.clock()))  # type: ignore[misc]
        rows = store.read(lambda tx: tx.budgets.accounts(prefix=f"fleet:f{seed}@"))
        charged = sum(row.spent for row in rows if row.unit == "cost")
        windows = sum(row.unit == "cost" for row in rows)
        if found.billed > cap * max(1, windows):
            found.over.append(f"killed {seed}: {found.billed} > {cap}")
        if found.billed > charged:
            found.over.append(f"killed {seed}: billed {found.billed}, charged {charged}")
        store.close()
    return found


def _live(folder: Path, url: str, plan: Schedule, runs: list[str], dice: random.Random) -> int:
    """Start a process a run; kill some in the middle, and start those again; gives how many were killed."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["bench.overshoot_world", "midwatch.models.sdk"])
    kills, left = 0, list(range(len(runs)))
    for life in range(_LIVES):
        begun: dict[int, BaseProcess] = {
            number: context.Process(target=_work, args=(folder, url, plan, runs, number), daemon=True)
            for number in left
        }
        for process in begun.values():
            process.start()
        doomed = [number for number in left if life < _LIVES - 1 and dice.random() < 0.7]
        for number in doomed:
            time.sleep(dice.uniform(0, 0.6))
            begun[number].kill()
        give_up = time.monotonic() + _PATIENCE_S
        for process in begun.values():
            process.join(max(0.1, give_up - time.monotonic()))
            if process.is_alive():
                process.kill()
                process.join(5)
        kills += sum(begun[number].exitcode == -9 for number in doomed)
        wrong = [process.exitcode for process in begun.values() if process.exitcode not in (0, -9)]
        if wrong:
            raise RuntimeError(f"a worker ended with {wrong[0]}")
        left = doomed
        if not left:
            break
    return kills


def _work(folder: Path, url: str, plan: Schedule, runs: list[str], number: int) -> None:
    place = folder / f"w{number}"
    place.mkdir(exist_ok=True)
    store = SqliteStore(folder / "midwatch.db")
    world = World(place, store=store, url=url)
    asyncio.run(Doing(world, plan, runs).take(runs[number], number))
    store.close()
