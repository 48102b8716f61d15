"""What a claim costs: reserve and settle on SQLite, for a call that four scopes bound in up to four units.

In:   nothing. Out: a table: single claims, and 12 agents with 100 calls each at the same time, in processor time and wall time a claim;
lock errors; whether the accounts are exact afterwards. The bar: at most 150 us of processor time for each reserve and each settle,
amortised, and no lock error. Processor time is that of the whole process: group commit does one thread's work on another. `confirm` is
part of the intent's transaction in a run; here it goes with the reserve.
"""

from __future__ import annotations

import resource
import tempfile
import threading
import time
from pathlib import Path

from midwatch.errors import BoundReached, StoreBusy
from midwatch.governor.scopes import Scope, lines
from midwatch.records.spend import Unit
from midwatch.store.port import Tx
from midwatch.store.sqlite import SqliteStore

__all__ = ["BAR_US", "main", "rows"]

BAR_US = 150
AGENTS, CALLS = 12, 100
ALONE = 500
RUN = "ab" * 16
MODEL: dict[Unit, int] = {"cost": 50, "tokens": 900, "steps": 1, "concurrency": 1}
TOOL: dict[Unit, int] = {"tool_calls": 1, "concurrency": 1}
USED: dict[Unit, int] = {"cost": 20, "tokens": 300, "steps": 1, "tool_calls": 1}


def _path(agent: int) -> tuple[Scope, ...]:
    names = ("fleet:f@2026-11-25", "vertical:f/v@2026-11-25", f"run:{RUN}", f"agent:{RUN}/a{agent}")
    return tuple(Scope(name, "", {}) for name in names)


def _claim(store: SqliteStore, name: str, agent: int, amounts: dict[Unit, int]) -> None:
    claimed, used = lines(_path(agent), amounts), {unit: USED[unit] for unit in amounts if unit in USED}

    def reserve(tx: Tx) -> None:
        tx.budgets.reserve(name, run=RUN, lines=claimed, at_us=1)
        tx.budgets.confirm(name)

    store.write(reserve)
    store.write(lambda tx: tx.budgets.settle(name, used, at_us=2))


def _cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def _row(what: str, began: tuple[float, float], claims: int, busy: int) -> dict[str, object]:
    cpu, wall = (_cpu() - began[0]) * 1e6 / claims, (time.perf_counter() - began[1]) * 1e6 / claims
    return {
        "what": what,
        "claims": claims,
        "cpu_us": round(cpu),
        "each_us": round(cpu / 2),
        "wall_us": round(wall),
        "lock_errors": busy,
    }


def _together(store: SqliteStore, kind: str, amounts: dict[Unit, int]) -> dict[str, object]:
    """All calls of all agents at once, each in its thread as the engine's writers are; claims of one agent follow on its threads."""
    busy: list[str] = []
    start = threading.Barrier(AGENTS * 8 + 1)

    def work(agent: int, part: int) -> None:
        start.wait(30)
        for number in range(part, CALLS, 8):
            try:
                _claim(store, f"{kind}:{agent}:{number}", agent, amounts)
            except (StoreBusy, BoundReached) as error:
                busy.append(type(error).__name__)

    threads = [threading.Thread(target=work, args=(agent, part)) for agent in range(AGENTS) for part in range(8)]
    for thread in threads:
        thread.start()
    start.wait(30)
    began = (_cpu(), time.perf_counter())
    for thread in threads:
        thread.join(120)
    return _row(f"{kind}, {AGENTS} agents x {CALLS}", began, AGENTS * CALLS, len(busy))


def rows() -> list[dict[str, object]]:
    """Measure."""
    found = []
    with tempfile.TemporaryDirectory() as folder:
        store = SqliteStore(Path(folder) / "midwatch.db")
        for unit, cap in (("cost", 10**12), ("tokens", 10**12), ("steps", 10**9), ("tool_calls", 10**9)):
            for agent in range(AGENTS):
                for scope in _path(agent):
                    store.write(lambda tx, name=scope.name, unit=unit, cap=cap: tx.budgets.set_cap(name, unit, cap))  # type: ignore[misc]
        for kind, amounts in (("model call", MODEL), ("tool call", TOOL)):
            began = (_cpu(), time.perf_counter())
            for number in range(ALONE):
                _claim(store, f"{kind} alone:{number}", 0, amounts)
            found.append(_row(f"{kind}, alone", began, ALONE, 0))
            found.append(_together(store, kind, amounts))
        account = next(row for row in store.read(lambda tx: tx.budgets.accounts([f"run:{RUN}"])) if row.unit == "cost")
        assert (account.spent, account.held) == (20 * (ALONE + AGENTS * CALLS), 0), "the accounts must be exact"
        store.close()
    return found


def main() -> None:
    """Print the table."""
    found = rows()
    print("a claim = reserve and settle of every line on 4 scopes, two transactions; each_us: one of them")
    print("  " + "".join(f"{name:>30}" if name == "what" else f"{name:>13}" for name in found[0]))
    for row in found:
        print("  " + "".join(f"{value!s:>30}" if name == "what" else f"{value!s:>13}" for name, value in row.items()))
    worst = max(int(str(row["each_us"])) for row in found if "agents" in str(row["what"]))
    print(f"bar: {BAR_US} us each, amortised: {worst} us")
    assert worst <= BAR_US, f"{worst} us of processor time each, over {BAR_US}"
    assert not any(row["lock_errors"] for row in found), "a claim met a locked database"


if __name__ == "__main__":
    main()
