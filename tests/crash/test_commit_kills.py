"""Kill -9 at every step of a commit, and at every step of what cleans up after it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.crash.commit_child import AFTER, BEFORE
from tests.crash.trees import look, make

CHILD = Path(__file__).with_name("commit_child.py")
ROOT = Path(__file__).parents[2]


@pytest.mark.req("FILES-10")
@pytest.mark.parametrize("again", [1, 12], ids=["once", "and the next twelve times"])
def test_a_killed_commit_is_whole_or_absent(tmp_path: Path, again: int) -> None:
    """Whatever the step, the next look leaves the workspace entirely as before or entirely as wanted, and no file beside."""
    output = subprocess.run(
        [sys.executable, str(CHILD), str(tmp_path), str(again)],
        env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=True, timeout=100,
    ).stdout  # fmt: skip
    points = [json.loads(line) for line in output.splitlines()]
    states = {"undone": _expected(tmp_path / "before", BEFORE), "done": _expected(tmp_path / "after", AFTER)}
    assert {"fsync", "rename", "unlink", "chmod", "make"} == {point["word"] for point in points[:-1]}
    assert "done" == points[-1]["told"]
    for number, point in enumerate(points, 1):
        told = point["told"] or "undone"
        assert states[told] == point["state"], f"step {number}, {point['word']}, told {told}"
        assert point["twice"] == point["told"]
    assert {"done", "undone"} <= {point["told"] for point in points}


def _expected(folder: Path, tree: dict[str, Any]) -> dict[str, list[str]]:
    make(folder, tree)
    return {path: list(map(str, value)) for path, value in look(folder).items()}
