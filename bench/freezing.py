"""Freezing: how fast a control group stops, lets go and kills a tree that does not want to die.

Bar: 60 processes, half of them daemons in sessions of their own, all deaf to SIGTERM and SIGHUP: frozen within 5 ms, killed within
150 ms, frozen or not (medians). `python -m bench.freezing [ROUNDS]`; needs a machine whose control groups can freeze.
"""

from __future__ import annotations

import contextlib
import os
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass

from midwatch.config.specs import SandboxLimits
from midwatch.sandbox import cgroups

__all__ = ["Measured", "main", "measured", "tree"]

_TREE = """
import os, signal, sys, time
for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
    signal.signal(number, signal.SIG_IGN)
for path in sys.argv[2:]:
    with open(path, "w") as file:
        file.write("0")
count = int(sys.argv[1])
for index in range(count - 1):
    if os.fork() == 0:
        if index % 2:
            os.setsid()
            if os.fork():
                os._exit(0)
        os.write(1, b".")
        while True:
            time.sleep(0.01)
os.write(1, b".")
while True:
    time.sleep(0.01)
"""


@dataclass(frozen=True, slots=True)
class Measured:
    """Microseconds of one round; `left` is how many processes outlived the two kills."""

    freeze: int
    thaw: int
    kill: int
    kill_frozen: int
    left: int


@contextlib.contextmanager
def tree(group: cgroups.Group, count: int = 60) -> Iterator[subprocess.Popen[bytes]]:
    """Start `count` processes in a group, every second a daemon; all ignore what can be ignored. The group is killed at the end."""
    argv = [sys.executable, "-I", "-S", "-c", _TREE, str(count), *(str(path) for path in group.join_files)]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL) as process:
        try:
            assert process.stdout is not None
            said = b""
            while len(said) < count:  # each tells that it lives; who cannot start closes the pipe
                data = os.read(process.stdout.fileno(), count)
                assert data, f"only {len(said)} of {count} processes began"
                said += data
            yield process
        finally:
            try:
                group.kill()
            finally:
                process.kill()
                process.wait(10)


def measured(layout: cgroups.Layout, count: int = 60) -> Measured:
    """Freeze, thaw and kill one tree, then kill another while it is frozen."""
    # Who is dead counts as a process until somebody has waited for it, so there is room for both trees.
    limits = SandboxLimits(memory=1 << 30, processes=4 * count, cpu_milli=2000)
    group = layout.create(cgroups.named("bench"), SandboxLimits() if layout.missing(limits) else limits)
    try:
        with tree(group, count):
            freeze = group.freeze()
            begun = time.perf_counter_ns()
            group.thaw()
            thaw = (time.perf_counter_ns() - begun) // 1000
            kill = group.kill()
            left = len(group.procs())
        with tree(group, count):
            group.freeze()
            kill_frozen = group.kill()
            left += len(group.procs())
            group.thaw()
    finally:
        group.kill()
        group.remove()
    return Measured(freeze, thaw, kill, kill_frozen, left)


def main(rounds: int = 10) -> None:
    """Print medians and worst; raises when a bar is missed."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that the groups are given back
    layout = cgroups.detect()
    found = [measured(layout) for _ in range(rounds)]
    for name in ("freeze", "thaw", "kill", "kill_frozen"):
        values = [getattr(one, name) for one in found]
        print(f"{name:12} {layout.kind}: median {statistics.median(values):8,.0f} µs, worst {max(values):8,.0f} µs")
    assert not sum(one.left for one in found), "processes outlived the kill"
    assert statistics.median(one.freeze for one in found) <= 5_000, "freezing took too long"
    for name in ("kill", "kill_frozen"):
        assert statistics.median(getattr(one, name) for one in found) <= 150_000, f"{name} took too long"


if __name__ == "__main__":
    main(*(int(word) for word in sys.argv[1:2]))
