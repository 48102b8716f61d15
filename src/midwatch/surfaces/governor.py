"""The governor's process: `python -m midwatch.surfaces.governor --home DIR`; started by `run`, ends when no run is left.

In:   a home. Out: heartbeats, marks and verdicts in its store, every period; messages to channels.
Why a process of its own: what watches a run must not hang, crash or be blocked with it.
`watch` is the same for the service (`midwatch governor run`), which does not end when no run is left.
"""

from __future__ import annotations

import argparse
import os
import socket
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import orjson

from midwatch.errors import MidwatchError, SandboxError
from midwatch.governor.policies_pass import Sample
from midwatch.governor.watch import Passed, beat_name, watch_once
from midwatch.store.port import Store
from midwatch.surfaces.messenger import Messenger
from midwatch.wiring import clock, open_store

__all__ = ["main", "samples", "watch"]

PERIOD_S = 1.0
IDLE_PASSES = 5
LAST_WORD_S = 12.0
"""A message that is being sent is waited for, so that it is noted as sent."""


def main() -> int:
    """Give a first sign of life, then detach and watch until `IDLE_PASSES` passes in a row found no live run.

    Returns:
        In the launching process 0 once the first pass is done; 1 when the store cannot be used.
    """
    parser = argparse.ArgumentParser(description="watch the runs of one home")
    parser.add_argument("--home", required=True, type=Path)
    parser.add_argument("--period-us", type=int, default=int(PERIOD_S * 1e6))
    asked = parser.parse_args()
    home: Path = asked.home
    launcher = beat_name(socket.gethostname(), os.getpid())
    try:
        with open_store(home) as store:
            watch_once(store, pid=os.getpid(), now=clock(), name=launcher)
    except MidwatchError as error:
        sys.stderr.write(f"governor: {error}\n")
        return 1
    if os.fork():  # no thread runs yet; the launcher is told that the first pass went well
        return 0
    os.setsid()
    try:
        watch(
            home, period_s=asked.period_us / 1e6, over=threading.Event(), idle_passes=IDLE_PASSES, instead_of=launcher
        )
    except MidwatchError as error:
        sys.stderr.write(f"governor: {error}\n")
        return 1
    return 0


def watch(
    home: Path,
    *,
    period_s: float,
    over: threading.Event,
    idle_passes: int | None = None,
    instead_of: str | None = None,
    tell: Callable[[Passed], None] = lambda _: None,
) -> None:
    """Pass after pass, until `over` is set, or no run was live for so many passes.

    Args:
        instead_of: the name under which whoever launched this process beat; taken back once this one has beaten itself.

    Raises:
        MidwatchError: the store cannot be used; the heartbeat goes stale, and effects stop.
    """
    idle, pid = 0, os.getpid()
    name = beat_name(socket.gethostname(), pid)
    done = threading.Event()
    with open_store(home) as store:
        messenger = Messenger(store, done)
        messenger.start()
        try:
            while not over.is_set() and (idle_passes is None or idle < idle_passes):
                passed = watch_once(store, pid=pid, now=clock(), name=name, samples=samples(home))
                if instead_of is not None:
                    _leave(store, instead_of)
                    instead_of = None
                tell(passed)
                owed = messenger.busy and messenger.is_alive()
                idle = 0 if passed.live or passed.behind or owed else idle + 1
                over.wait(0 if passed.behind else period_s)
            _leave(store, name)
        finally:
            done.set()
            messenger.join(timeout=LAST_WORD_S)


def samples(home: Path) -> list[Sample]:
    """Read what the machine counts of the sandboxes that live in this home; what cannot be read is left out."""
    folder = home / "sandboxes"
    if not folder.is_dir():
        return []
    from midwatch.sandbox.living import Register  # noqa: PLC0415 - only where a sandbox ever lived

    found = []
    try:
        living = Register(folder).list()
    except (OSError, SandboxError, orjson.JSONDecodeError, TypeError):
        return []
    for item in living:
        try:
            stats = item.stats()
        except (OSError, SandboxError, ValueError):  # it ended meanwhile
            continue
        found.append(Sample(item.run, item.agent, stats.processes, stats.processes_refused))
    return found


def _leave(store: Store, name: str) -> None:
    """Take the sign of life back: a governor that is stopped watches nothing from now on."""
    store.write(lambda tx: tx.watch.silence(name, before_us=2**62))


if __name__ == "__main__":
    sys.exit(main())
