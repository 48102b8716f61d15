"""Messenger: a thread that tells channels, beside whatever its process is for.

In:   an open store. Out: messages; whether any is still owed.
May import: the engine's delivery; errors. Must not know: the governor, the server.
Why a thread: a channel that answers slowly must not hold up a heartbeat, nor a page.
"""

from __future__ import annotations

import os
import sys
import threading

from midwatch.errors import MidwatchError
from midwatch.store.port import Store
from midwatch.wiring import clock

__all__ = ["Messenger"]


class Messenger(threading.Thread):
    """Runs a pass each second until told to stop.

    Attributes:
        busy: a question still has to be told, or will escalate; true until the first pass has looked.
    """

    def __init__(self, store: Store, over: threading.Event, *, period_s: float = 1.0) -> None:
        super().__init__(name="midwatch-messenger", daemon=True)
        self._store, self._over, self._period = store, over, period_s
        self.busy = True

    def run(self) -> None:
        """Tell what is due, until `over` is set or the store cannot be used."""
        from midwatch.engine.delivery import deliver, pending  # noqa: PLC0415 - beside the first heartbeats, not before
        from midwatch.surfaces.posting import post  # noqa: PLC0415 - as above

        while not self._over.is_set():
            try:
                deliver(self._store, environ=os.environ, at_us=clock(), post=post)
                self.busy = pending(self._store)
            except MidwatchError as error:
                self.busy = False
                sys.stderr.write(f"channels: {error}\n")
                return
            self._over.wait(self._period)
