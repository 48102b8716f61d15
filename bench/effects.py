"""Effects: what a call did to ten thousand files, read from a real overlay, kept, laid again, planned and committed.

Bar: 10,000 entries (5,002 made, 3,000 changed, 1,000 deleted, 1,000 only touched) are read, with every hash of both sides, in 1.2 s.
`python -m bench.effects`. It mounts in a process of its own, in a mount namespace of its own.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from midwatch.sandbox import layers as layering
from midwatch.sandbox.overlay import apply, diff
from midwatch.sandbox.release import commit, plan
from tests.attack.overlay_child import Ground, enter

__all__ = ["main"]

BAR = 1.2
FOLDERS = 50
_Result = TypeVar("_Result")


def main() -> None:
    """Print the table; the bar is an assertion."""
    sys.stdout.flush()
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            enter()
            base = Path(tempfile.mkdtemp(prefix="effects-"))
            try:
                code = 0 if _measured(base) <= BAR else 1
            finally:
                sys.stdout.flush()
                shutil.rmtree(base, ignore_errors=True)
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0, f"10,000 effects were not read in {BAR} s"


def _measured(base: Path) -> float:
    lower, journal = base / "lower", base / "journal"
    lower.mkdir()
    for number in range(5_000):
        _file(lower, f"d{number % FOLDERS}", f"f{number}.txt").write_bytes(b"x%d" % number * 200)
    ground = Ground(base, lower, "first", size="512m")
    _work(ground.merged)
    took, (changes, spool) = min(
        (_timed(lambda: diff(ground.fd, lower, earlier={}, limit=1 << 30)) for _ in range(3)), key=lambda it: it[0]
    )
    print(f"{'diff, all hashes':32} {took * 1000:8.0f} ms   {len(changes):,} changes")
    kept, layer = _timed(lambda: layering.write(base / "layer", changes, (), spool))
    print(f"{'layer written, durable':32} {kept * 1000:8.0f} ms   {(base / 'layer').stat().st_size:,} bytes")
    print(f"{'fold':32} {_timed(lambda: layering.fold([layer]))[0] * 1000:8.0f} ms")
    print(
        f"{'second diff, nothing new':32} {_timed(lambda: diff(ground.fd, lower, earlier=layering.fold([layer])))[0] * 1000:8.0f} ms"
    )
    ground.close()
    again = Ground(base, lower, "second", size="512m")
    print(f"{'laid over a fresh view':32} {_timed(lambda: apply(again.merged_fd, [layer]))[0] * 1000:8.0f} ms")
    again.close()
    planned, release = _timed(lambda: plan([layer], lower))
    print(f"{'release planned':32} {planned * 1000:8.0f} ms")
    print(f"{'committed':32} {_timed(lambda: commit(release, [layer], lower, journal))[0] * 1000:8.0f} ms")
    print(f"{'committed again':32} {_timed(lambda: commit(release, [layer], lower, journal))[0] * 1000:8.0f} ms")
    return took


def _work(merged: Path) -> None:
    for number in range(5_002):
        _file(merged, f"n{number % FOLDERS}", f"a{number}.py").write_bytes(b"y%d" % number * 200)
    for number in range(5_000):
        path = _file(merged, f"d{number % FOLDERS}", f"f{number}.txt")
        if number < 3_000:
            with path.open("ab") as file:
                file.write(b"more")
        elif number < 4_000:
            path.unlink()
        else:
            os.utime(path)


def _file(root: Path, folder: str, name: str) -> Path:
    (root / folder).mkdir(exist_ok=True)
    return root / folder / name


def _timed(work: Callable[[], _Result]) -> tuple[float, _Result]:
    began = time.perf_counter()
    result = work()
    return time.perf_counter() - began, result


if __name__ == "__main__":
    main()
