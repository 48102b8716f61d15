"""Governing child: sees to it that a governor lives before a run begins, as the fleet's `governor.mode` says.

In:   the store, the home, a fleet's name and what it says of its governor. Out: nothing; or no run begins.
May import: governor, config, store (port), errors. Must not know: what a governor does, how a run goes on.
With `child` one is started unless one lives. With `daemon` and `cron` none is: somebody else answers for it, and where nobody does
the run is refused, since a child would end with the runs and nobody would notice that the service is down.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from midwatch.config.specs_bounds import GovernorSpec
from midwatch.errors import RunHalted
from midwatch.governor.policies_pass import remember
from midwatch.governor.watch import HEARTBEAT, beat_name, living
from midwatch.store.port import Beat, Store

__all__ = ["govern"]

WAIT_S = 30.0
_FRESH_US = 5_000_000
_START = {
    "daemon": "start `midwatch governor run` as a service",
    "cron": "put `midwatch governor once` into cron, or run it once by hand",
}


def govern(
    store: Store, home: Path, fleet: str, spec: GovernorSpec, *, clock: Callable[[], int], environ: Mapping[str, str]
) -> None:
    """Keep the fleet's policies in the store, and make sure that a governor lives.

    Raises:
        RunHalted: none does; no effect may begin.
    """
    store.write(lambda tx: remember(tx, fleet, spec))
    started = clock()
    if spec.mode != "child":
        if not living(_beats(store), now=started, stale_after_us=spec.stale_after_us):
            raise RunHalted(
                f"no governor gave a sign of life within {spec.stale_after_us / 1e6:g} s, and this fleet's `governor.mode` is "
                f"`{spec.mode}`: {_START[spec.mode]}; `midwatch governor status` shows who beats"
            )
        return
    fresh = living(_beats(store), now=started, stale_after_us=min(spec.stale_after_us, _FRESH_US))
    if any(_runs(beat) for beat in fresh):
        return
    with (home / "governor.log").open("ab") as log:
        launched = subprocess.run(
            [
                sys.executable, "-m", "midwatch.surfaces.governor", "--home", str(home), "--period-us", str(spec.period_us),
            ],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            timeout=WAIT_S,
            check=False,
            env=dict(environ),
        )  # fmt: skip
    if launched.returncode or not any(beat.at_us >= started for beat in _beats(store)):
        raise RunHalted(f"the governor did not start, so no effect may begin; see `{home / 'governor.log'}`")


def _beats(store: Store) -> list[Beat]:
    return list(store.read(lambda tx: tx.watch.beats(HEARTBEAT)))


def _runs(beat: Beat) -> bool:
    """Say whether the process behind a fresh beat still runs, as far as it can be seen from here."""
    if beat.name not in (HEARTBEAT, beat_name(socket.gethostname(), beat.pid)):
        return True
    try:
        os.kill(beat.pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
