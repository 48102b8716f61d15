"""Overshoot: random schedules against caps, with the provider's own bill as the truth. Bar: no line of any bill goes past a cap.

    python -m bench.overshoot                                   a thousand schedules and ten with killed processes
    python -m bench.overshoot --schedules 10000 --killed 200    all of it
    python -m bench.overshoot --first 4711 --schedules 1        one of them again

In:   how many, from which seed on. Out: a table by what was played; every line past a cap, and every schedule that charged less than
was billed. Schedules are `overshoot_schedules`, carried out in this process by `overshoot_world`, or over loopback by processes that are
killed: `overshoot_killed`. Where nothing is played and more is asked than fits, at least 95 % of the cap must be billed.
"""

from __future__ import annotations

import argparse
import multiprocessing
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bench.overshoot_killed import killed
from bench.overshoot_schedules import Schedule, schedule
from bench.overshoot_world import World

__all__ = ["USABLE", "Line", "Tally", "carry_out", "main", "tally"]

USABLE = 0.95
_BATCH = 50


@dataclass(frozen=True, slots=True)
class Line:
    """What came of one schedule; `named` are the rows of the table that it belongs to."""

    seed: int
    named: tuple[str, ...]
    calls: int
    billed: int
    over: tuple[str, ...]
    share: float | None


@dataclass(slots=True)
class Tally:
    """One row of the table."""

    schedules: int = 0
    calls: int = 0
    over: int = 0
    shares: list[float] = field(default_factory=list)


def carry_out(seeds: Sequence[int]) -> list[Line]:
    """Do these schedules, one after the other, in one store."""
    found = []
    with tempfile.TemporaryDirectory() as folder:
        world = World(Path(folder))
        try:
            for seed in seeds:
                plan = schedule(seed)
                done = world.carry_out(plan)
                over = [*done.over, *([] if done.known else [f"{seed}: charged less than was billed"])]
                found.append(Line(seed, _names(plan), done.calls, done.billed, tuple(over), done.share))
        finally:
            world.store.close()
    return found


def tally(lines: Sequence[Line]) -> dict[str, Tally]:
    """Add up by what was played."""
    rows: dict[str, Tally] = {}
    for line in lines:
        for name in ("all", *line.named):
            row = rows.setdefault(name, Tally())
            row.schedules += 1
            row.calls += line.calls
            row.over += bool(line.over)
            row.shares += [] if line.share is None else [line.share]
    return rows


def main(words: Sequence[str] = ()) -> None:
    """Print the table; raises when a bar is missed."""
    parser = argparse.ArgumentParser(prog="python -m bench.overshoot")
    parser.add_argument("--schedules", type=int, default=1000)
    parser.add_argument("--killed", type=int, default=10)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=2)
    asked = parser.parse_args(list(words))
    began, lines = time.monotonic(), []
    for found in _spread(range(asked.first, asked.first + asked.schedules), asked.jobs):
        lines += found
        for said in (said for line in found for said in line.over):
            print(said)
    for seed in range(asked.first, asked.first + asked.killed):
        done = killed(seed)
        lines.append(Line(seed, ("processes killed",), done.calls, done.billed, tuple(done.over), None))
    rows = tally(lines)
    print(f"{'played':<26}{'schedules':>10}{'calls':>10}{'past a cap':>12}")
    for name in sorted(rows, key=lambda item: (item != "all", item)):
        print(f"{name:<26}{rows[name].schedules:>10,}{rows[name].calls:>10,}{rows[name].over:>12,}")
    shares = sorted(rows["all"].shares)
    if shares:
        print(f"billed of a cap that could be used: least {shares[0]:.1%}, median {shares[len(shares) // 2]:.1%}")
    print(f"{time.monotonic() - began:,.0f} s")
    assert not rows["all"].over, f"{rows['all'].over} schedules went past a cap"
    assert not shares or shares[0] >= USABLE, f"only {shares[0]:.1%} of a cap could be used"


def _spread(seeds: range, jobs: int) -> Iterator[list[Line]]:
    batches = [seeds[start : start + _BATCH] for start in range(0, len(seeds), _BATCH)]
    if jobs < 2 or len(batches) < 2:
        yield from map(carry_out, batches)
        return
    with multiprocessing.get_context("spawn").Pool(jobs, maxtasksperchild=20) as pool:
        yield from pool.imap_unordered(carry_out, batches)


def _names(plan: Schedule) -> tuple[str, ...]:
    said = {
        "faults of the provider": plan.faulty,
        f"only {plan.kind}": plan.kind,
        "locked ledger": plan.busy,
        "workers that die": plan.crash,
        "top-ups": plan.top_up,
        "windows that end": plan.jump,
        "a cheaper route": plan.ladder,
        "several runs": plan.runs > 1,
        "over 20 at once": plan.fan > 20,
        "nothing, all is asked for": plan.usable,
    }
    return tuple(name for name, played in said.items() if played)


if __name__ == "__main__":
    main(sys.argv[1:])
