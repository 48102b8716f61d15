"""Messenger: a thread that tells channels, beside whatever its process is for.

In:   an open store. Out: messages; whether any is still owed.
May import: the engine's delivery; errors. Must not know: the governor, the server.
Why a thread: a channel that answers slowly must not hold up a heartbeat, nor a page.
"""

from __future__ import annotations

import os
import sys
import threading
from typing import Final

from midwatch.errors import MidwatchError
from midwatch.store.port import Store
from midwatch.wiring import clock

__all__ = ["Messenger"]

_REST_S: Final = 10.0


class Messenger(threading.Thread):
    """Runs a pass each second until told to stop.

    Attributes:
        busy: a question still has to be told, or will escalate; true until the first pass has looked, false after one that failed.
    """

    def __init__(self, store: Store, over: threading.Event, *, period_s: float = 1.0) -> None:
        super().__init__(name="midwatch-messenger", daemon=True)
        self._store, self._over, self._period = store, over, period_s
        self.busy = True

    def run(self) -> None:
        """Tell what is due until `over` is set; a pass that fails says so and is tried again after a rest."""
        from midwatch.engine.delivery import deliver  # noqa: PLC0415 - beside the first heartbeats, not before
        from midwatch.surfaces.posting import post  # noqa: PLC0415 - as above

        said = ""
        while not self._over.is_set():
            rest = self._period
            try:
                passed = deliver(self._store, environ=os.environ, clock=clock, post=post, over=self._over.is_set)
                self.busy = passed.owed
                said = ""
            except Exception as error:  # noqa: BLE001 - whatever it is, the process beside goes on, and the next pass is tried
                self.busy, rest = False, _REST_S
                told = f"channels: {error if isinstance(error, MidwatchError) else type(error).__name__}\n"
                if told != said and not self._over.is_set():
                    sys.stderr.write(told)
                said = told
            self._over.wait(rest)
