"""A process that forks one child a kill point: the child commits, and dies by SIGKILL right before its n-th step.

In:   `commit_child.py FOLDER`. Out: a line of JSON for every point: the step's word, what the workspace is right after the next process
looked at the journal, and what a second look did. A child that survives ends the list.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
from pathlib import Path
from typing import Any

from midwatch.sandbox.release import commit, plan, resume_commit
from tests.crash.trees import layer, look, make

BEFORE: dict[str, Any] = {
    "edited": "one", "edited2": ("two", 0o664), "gone": "three", "mode": "four", "d": None, "d/in": "five", "d/e": None, "d/e/deep": "six",
    "f": None, "f/in": "seven", "g": "eight", "link": ("link", "edited"), "kept": "nine", "h": None, "h/kept": "ten", "h/gone": "x",
}  # fmt: skip
AFTER: dict[str, Any] = {
    "edited": "ONE", "edited2": ("TWO", 0o664), "mode": ("four", 0o755), "new": "n", "n": None, "n/a": "a", "n/b": None, "n/b/c": "c",
    "n/b/l": ("link", "c"), "n/empty": None, "f": "a file now", "g": None, "g/in": "a folder now", "link": ("link", "kept"),
    "kept": "nine", "h": (None, 0o700), "h/kept": "ten", "h/new": "y",
}  # fmt: skip


def child(base: Path, number: int, report: int) -> None:
    """Commit; die before step `number`."""
    count = 0

    def step(word: str) -> None:
        nonlocal count
        count += 1
        if count == number:
            os.write(report, word.encode())
            os.kill(os.getpid(), signal.SIGKILL)

    made = layer(base / "layer", BEFORE, AFTER)
    commit(plan([made], base / "work"), [made], base / "work", base / "journal", step=step)


def point(base: Path, number: int, again: int) -> dict[str, Any]:
    """Kill at one step, and the resuming process at its own `again`-th step; then look."""
    base.mkdir()
    make(base / "work", BEFORE)
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            child(base, number, writing)
        finally:
            os._exit(0)
    os.close(writing)
    died = os.WIFSIGNALED(os.waitpid(pid, 0)[1])
    word = os.read(reading, 100).decode()
    os.close(reading)
    for turn in range(1, again):
        pid = os.fork()
        if pid == 0:
            try:
                _resume(base, turn)
            finally:
                os._exit(0)
        os.waitpid(pid, 0)
    told = resume_commit(base / "journal", base / "work")
    state = {path: list(map(str, value)) for path, value in look(base / "work").items()}
    twice = resume_commit(base / "journal", base / "work")
    shutil.rmtree(base)
    return {"died": died, "word": word, "told": told, "twice": twice, "state": state}


def _resume(base: Path, number: int) -> None:
    count = 0

    def step(_: str) -> None:
        nonlocal count
        count += 1
        if count == number:
            os.kill(os.getpid(), signal.SIGKILL)

    resume_commit(base / "journal", base / "work", step=step)


def main(folder: Path, again: int) -> None:
    """Tell every point until a child survives."""
    os.umask(0o022)
    for number in range(1, 1000):
        answer = point(folder / str(number), number, again)
        sys.stdout.write(json.dumps(answer) + "\n")
        if not answer["died"]:
            return


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
