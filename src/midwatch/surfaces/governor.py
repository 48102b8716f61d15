"""The governor's process: `python -m midwatch.surfaces.governor --home DIR`; started by `run`, ends when no run is left.

In:   a home. Out: heartbeats and marks in its store, every second; messages to channels.
Why a process of its own: what watches a run must not hang, crash or be blocked with it.
"""

from __future__ import annotations

import argparse
import os
import sys
import threading
from pathlib import Path

from midwatch.errors import MidwatchError
from midwatch.governor.watch import watch_once
from midwatch.surfaces.messenger import Messenger
from midwatch.wiring import clock, open_store

__all__ = ["main"]

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
    home: Path = parser.parse_args().home
    try:
        with open_store(home) as store:
            watch_once(store, pid=os.getpid(), now=clock())
    except MidwatchError as error:
        sys.stderr.write(f"governor: {error}\n")
        return 1
    if os.fork():  # no thread runs yet; the launcher is told that the first pass went well
        return 0
    os.setsid()
    return _watch(home)


def _watch(home: Path) -> int:
    idle = 0
    rest, over = threading.Event(), threading.Event()
    try:
        with open_store(home) as store:
            messenger = Messenger(store, over)
            messenger.start()
            try:
                while idle < IDLE_PASSES:
                    live = watch_once(store, pid=os.getpid(), now=clock())
                    owed = messenger.busy and messenger.is_alive()
                    idle = 0 if live or owed else idle + 1
                    rest.wait(PERIOD_S)
            finally:
                over.set()
                messenger.join(timeout=LAST_WORD_S)
    except MidwatchError as error:
        sys.stderr.write(f"governor: {error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
