"""Stopping: how long after a pause or a kill the last effect of what was stopped begins or ends, while other runs go on.

Bar: at most 1 s in 99 of 100 trials. Several processes run agents against the scripted provider in one home; each trial stops one live
run, or the tool that all of them call, and reads the ledger for what came after. `python -m bench.stopping [TRIALS] [WORKERS]`.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from midwatch import wiring
from midwatch.engine import stops
from midwatch.errors import MidwatchError
from midwatch.governor.watch import HEARTBEAT
from midwatch.records.event import Event
from midwatch.store.port import Store
from tests.e2e.trial import DONE, FLEET, TOOLS, _scenario, call

__all__ = ["main"]

STEPS = 60
SETTLED_S = 1.5
"""How long after a stop the ledger is read: longer than the bar, so that what is late is seen."""
BAR_MS = 1000


def main(trials: int = 200, workers: int = 3) -> None:
    """Print the table; raises when the bar is missed."""
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        _fleet(place)
        context = multiprocessing.get_context("spawn")
        done = context.Event()
        load = [context.Process(target=_work, args=(place, done), daemon=True) for _ in range(workers)]
        for process in load:
            process.start()
        try:
            found = _trials(place, trials)
        finally:
            done.set()
            for process in load:
                process.join(30)
                if process.is_alive():
                    process.kill()
    print(f"{trials} trials beside {workers} processes; ms from the stop to the last event of an effect")
    print(f"{'stop':<12} {'trials':>6} {'p50':>6} {'p99':>6} {'max':>6}")
    late = []
    for what in sorted({what for what, _ in found}):
        times = sorted(ms for item, ms in found if item == what)
        p99 = times[min(len(times) - 1, len(times) * 99 // 100)]
        print(f"{what:<12} {len(times):>6} {times[len(times) // 2]:>6} {p99:>6} {times[-1]:>6}")
        late += [what] if p99 > BAR_MS else []
    assert not late, f"past {BAR_MS} ms: {', '.join(late)}"


def _trials(place: Path, trials: int) -> list[tuple[str, int]]:
    found = []
    with wiring.open_store(place / "home", create=True) as store:
        for trial in range(trials):
            run = _live(store)
            at = wiring.clock()
            more = {"by": "bench", "reason": "a trial", "at_us": at}
            what = ("pause run", "kill run", "pause tool", "kill all")[trial % 4]
            if what.endswith("run"):
                stops.stop_run(store, run, kind="pause" if what.startswith("pause") else "kill", **more)  # type: ignore[arg-type]
            else:
                scope, kind = ("tool:things.look", "pause") if what == "pause tool" else ("all", "kill")
                stops.stop(store, scope, kind=kind, **more)  # type: ignore[arg-type]
            head = store.read(lambda tx: tx.ledger.head()[0])
            time.sleep(SETTLED_S)
            events = _since(store, head)
            mine = [event for event in events if _meant(what, run, event.run, event.data)]
            found.append((what, max([0, *((event.at_us - at) // 1000 for event in mine)])))
            if not what.endswith("run"):
                stops.lift(store, scope, by="bench", reason="next", at_us=wiring.clock())
    return found


def _since(store: Store, head: int) -> Sequence[Event]:
    return store.read(lambda tx: tx.ledger.read(after=head, kinds=("intent", "finished"), limit=100_000))


def _meant(what: str, run: str, other: str | None, data: object) -> bool:
    if what.endswith("run"):
        return run == other
    return what == "kill all" or (isinstance(data, dict) and data.get("tool") == "things.look" and "effect" in data)


def _live(store: Store) -> str:
    """Give a run that has just done something; waits for one."""
    give_up = time.monotonic() + 60
    while time.monotonic() < give_up:
        now = wiring.clock()
        rows = store.read(
            lambda tx: [row.id for row in tx.runs.list(statuses=("running",)) if tx.runs.halt(row.id) is None]
        )
        for run in rows:
            done = store.read(lambda tx, run=run: tx.effects.list(run))  # type: ignore[misc]
            if 4 < len(done) < STEPS and now - done[-1].started_us < 500_000:
                return run
        time.sleep(0.02)
    raise TimeoutError("no run is at work")


def _fleet(place: Path) -> None:
    (place / "work").mkdir()
    text = FLEET.replace("ROUTE", "max_output: 500, retries: 1").replace(", LIMITS", "")
    text = text.replace("limits: {steps: 5}", f"limits: {{steps: {2 * STEPS}}}")
    text = text.replace(
        'fleet: {cost: "$2.00", per: month}, run: {cost: "$1.00", tokens: 900k, tool_calls: 40}', 'run: {cost: "$90"}'
    )
    (place / "fleet.yaml").write_text(text)
    (place / "things.py").write_text(TOOLS)
    rules = [call("look", {"what": f"thing {turn}"}, turn=turn) for turn in range(STEPS)]
    (place / "scenario.yaml").write_text(json.dumps(_scenario([*rules, DONE])))


def _work(place: Path, done: object) -> None:
    """Start one run after the other; what is stopped is left, and the next one begins."""
    wiring._govern = _beat  # type: ignore[assignment]  # noqa: SLF001 - the governor is no part of what is measured
    while not done.is_set():  # type: ignore[attr-defined]
        try:
            with wiring.open(place, home=place / "home", workdir=place / "work", environ={}) as kernel:
                while not done.is_set():  # type: ignore[attr-defined]
                    kernel.run({"n": 1})
        except MidwatchError:  # all is stopped for now
            time.sleep(0.1)


def _beat(store: Store, *_: object) -> None:
    store.write(lambda tx: tx.watch.beat(HEARTBEAT, pid=os.getpid(), at_us=wiring.clock()))


if __name__ == "__main__":
    main(*(int(word) for word in sys.argv[1:]))
