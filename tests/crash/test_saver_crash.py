"""Kill -9 between the saver's writes, then resume in a new process."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from subprocess import PIPE
from typing import Any

import pytest

from midwatch.graph.saver import Saver
from midwatch.store.sqlite import SqliteStore

CHILD = Path(__file__).with_name("saver_child.py")
NODES = ("first", "left", "right", "join", "last")

# `put` is called six times: for the input, before `first`, and after each of the four steps; `put_writes` once for the
# input and once for each of the five nodes.
POINTS = [
    *(("before put_writes", number) for number in (2, 4, 6)),
    *(("after put_writes", number) for number in (2, 3, 4, 5, 6)),
    *(("inside put", number) for number in (2, 3, 4, 5, 6)),
    *(("after put", number) for number in (1, 2, 3, 5)),
]


class Children:
    """The process that forks one child a case."""

    def __init__(self) -> None:
        self.process = subprocess.Popen([sys.executable, str(CHILD)], stdin=PIPE, stdout=PIPE, text=True)

    def run(self, folder: Path, point: str, number: int, mode: str) -> tuple[int, str]:
        """Run one case; give its exit code and what it printed."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        case = [str(folder / "midwatch.db"), str(folder / "log"), point, number, mode]
        self.process.stdin.write(json.dumps(case) + "\n")
        self.process.stdin.flush()
        code, output = json.loads(self.process.stdout.readline())
        return int(code), str(output)

    def close(self) -> None:
        """End it."""
        self.process.communicate(timeout=30)


@pytest.fixture(scope="module")
def children() -> Iterator[Children]:
    """One forking process for all cases."""
    made = Children()
    yield made
    made.close()


def _finished(folder: Path) -> set[str]:
    """Nodes whose result was durable when the process died: in a stored write, or in the newest checkpoint's list."""
    store = SqliteStore(folder / "midwatch.db")
    newest = Saver(store).get_tuple({"configurable": {"thread_id": "run"}})
    store.close()
    if newest is None:
        return set()
    held = [message.id for message in newest.checkpoint["channel_values"].get("messages", [])]
    for _, channel, value in newest.pending_writes or []:
        if channel == "messages" and isinstance(value, list):
            held += [message.id for message in value]
    return set(held) - {"go"}


@pytest.fixture(scope="module")
def expected(children: Children, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The state at the end of a run that nobody kills."""
    code, output = children.run(tmp_path_factory.mktemp("whole"), "none", 0, "threads")
    assert 0 == code
    return json.loads(output)


@pytest.mark.req("SAVER-14")
@pytest.mark.parametrize("mode", ["threads", "loop"])
@pytest.mark.parametrize(("point", "number"), POINTS)
def test_a_killed_run_resumes_to_the_same_end(
    children: Children, expected: Any, tmp_path: Path, point: str, number: int, mode: str
) -> None:
    """The process dies at the point, a new one resumes: no finished node ran twice, and the end is that of a whole run."""
    died, _ = children.run(tmp_path, point, number, mode)
    finished = _finished(tmp_path)
    code, output = children.run(tmp_path, "none", 0, mode)
    ran = Counter((tmp_path / "log").read_text().split())
    twice = {node for node, times in ran.items() if times > 1}

    assert (-signal.SIGKILL, 0) == (died, code)
    assert expected == json.loads(output)
    assert set(NODES) == set(ran)
    assert set() == twice & finished
    assert len(twice) <= 2, "at most the step that was under way"
    if point == "after put_writes":
        assert number - 1 <= len(finished) + (mode == "threads"), "what was acknowledged is there"


@pytest.mark.req("SAVER-14")
def test_a_kill_before_the_write_repeats_that_node_only(children: Children, tmp_path: Path) -> None:
    """The test above would see a repetition: a node whose write never came runs again, and it alone."""
    died, _ = children.run(tmp_path, "before put_writes", 2, "loop")
    code, _ = children.run(tmp_path, "none", 0, "loop")

    assert (-signal.SIGKILL, 0) == (died, code)
    assert {"first": 2, "left": 1, "right": 1, "join": 1, "last": 1} == Counter((tmp_path / "log").read_text().split())
