"""Agents that are programs, and how they end: hostile ones, kernels that die, runs that are cancelled."""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from midwatch import wiring
from midwatch.engine import control
from tests.scenario.agency import Agency

MARK = f"86400.{os.getpid()}"
"""What `sleep` is given, so that this test's own are found among the machine's processes. In programs it stands as `MARK`."""


@pytest.mark.req("COMMAND-9")
def test_a_hostile_program_leaves_nothing_and_reaches_nobody(tmp_path: Path) -> None:
    """Daemons die with it, no other agent's socket or key is there, and its own way out leads to its own tools only."""
    hostile = """
        import glob, socket, subprocess
        subprocess.Popen(["sh", "-c", "setsid sleep MARK & (setsid sleep MARK &)"], start_new_session=True)
        if os.fork() == 0:
            os.setsid()
            os.fork()
            os.execvp("sleep", ["sleep", "MARK"])
        sockets = glob.glob("/run/midwatch*/**", recursive=True) + glob.glob("/tmp/**/*.sock", recursive=True)
        def reached(path):
            try:
                socket.socket(socket.AF_UNIX).connect(path)
                return True
            except OSError:
                return False
        keys = [name for name, value in os.environ.items() if "KEY" in name and value != "midwatch-holds-the-key"]
        hand(risks=[json.dumps([[path for path in sockets if reached(path)], keys,
                                sorted(tool["name"] for tool in kernel("/midwatch/tools")[1]["tools"]),
                                kernel("/midwatch/tools/ops.log", {"line": "as worker"}, {"host": "worker"})[1]["error"]["code"]])])
        """
    agency = Agency(tmp_path, "hand()", other=hostile.replace("MARK", MARK))
    done = agency.run(request="go")
    assert [["/run/midwatch/broker.sock"], [], ["ops.look"], "unknown_tool"] == agency.told(done.run, "other")
    assert [] == living(MARK)


@pytest.mark.req("COMMAND-10")
def test_a_kernel_that_dies_takes_the_program_along_and_bills_nothing_twice(tmp_path: Path) -> None:
    """Killed after two answers of the model and one action, resumed: the provider was asked once for each question."""
    agency = Agency(
        tmp_path,
        """
        first = chat("first")[0]
        call("ops.log", line="only once")
        second = chat("second")[0]
        if os.path.exists("/workspace/die"):
            import subprocess
            subprocess.Popen(["sleep", "MARK"], start_new_session=True)
        call("ops.crash", what="here")
        third = chat("third")[0]
        open("made", "w").close()
        hand(risks=[json.dumps([first, second, third, sorted(os.listdir("."))])])
        """.replace("MARK", MARK),
    )
    (agency.work / "die").touch()
    dead = agency.process(request="go")
    assert (-9, 2, ["log only once"]) == (dead.returncode, len(agency.bills("worker")), agency.calls("log"))
    assert [] == gone(MARK)
    done = agency.run(resume=agency.freed())
    assert ("done", [200, 200, 200, ["calls", "made"]]) == (done.status, agency.told(done.run))
    assert (3, ["log only once"]) == (len(agency.bills("worker")), agency.calls("log"))


@pytest.mark.req("COMMAND-5")
@pytest.mark.req("COMMAND-10")
def test_an_action_that_nobody_saw_end_waits_for_a_person(tmp_path: Path) -> None:
    """The kernel dies within an action of the program: it is in doubt, a person says that it was done, and it is not done again."""
    agency = Agency(
        tmp_path,
        'hand(risks=[json.dumps([call("ops.deploy", target="PRODUCTION")["ok"], call("ops.look", what="x")["ok"]])])',
    )
    agency.say(agency.run(request="go").gates[0])
    (agency.work / "die").touch()
    run = agency.only()
    dead = agency.process(run)
    (agency.work / "die").unlink()
    doubted = agency.run(resume=agency.freed())
    assert (-9, "waiting", 1, ()) == (dead.returncode, doubted.status, len(doubted.in_doubt), doubted.gates)
    with wiring.open_store(agency.home) as store:
        control.resolve(store, doubted.in_doubt[0], word="done", by="ann", at_us=wiring.clock())
    done = agency.run(resume=run)
    assert ("done", [True, True], ["deploy PRODUCTION"]) == (done.status, agency.told(run), agency.calls("deploy"))


KILLER = """
import os, signal, sys
from pathlib import Path
from midwatch import wiring
def seen(event):
    if event.agent == "worker" and [event.kind, event.data.get("tool", "-")] == sys.argv[4:6]:
        os.kill(os.getpid(), signal.SIGKILL)
with wiring.open(sys.argv[1], home=sys.argv[2], workdir=Path(sys.argv[3]), environ={"USER": "ann"}, on_event=seen) as kernel:
    kernel.run("go")
"""


@pytest.mark.req("COMMAND-10")
@pytest.mark.parametrize(
    ("kind", "tool", "starts"),
    [("intent", "-", 2), ("finished", "-", 2), ("intent", "ops.log", 2), ("finished", "command:worker", 1)],
    ids=["model-asked", "model-answered", "action-begun", "program-ended"],
)
def test_wherever_the_kernel_dies_nothing_is_billed_or_done_twice(
    tmp_path: Path, kind: str, tool: str, starts: int
) -> None:
    """Killed as an event is on record, resumed: each question once, the action once, the file once."""
    agency = Agency(
        tmp_path,
        """
        said = [chat(word)[1]["choices"][0]["message"]["content"] for word in ("first", "second")]
        call("ops.log", line="once")
        open("made", "w").write("".join(said))
        hand(changed=[("made", json.load(sys.stdin)["evidence"])])
        """,
    )
    argv = [sys.executable, "-c", KILLER, str(agency.fleet), str(agency.home), str(agency.work), kind, tool]
    assert -9 == subprocess.run(argv, check=False, capture_output=True, timeout=90).returncode
    done = agency.run(resume=agency.freed())
    if done.in_doubt:  # it had begun when nobody was left to see it: here it had not
        with wiring.open_store(agency.home) as store:
            control.resolve(store, done.in_doubt[0], word="retry", by="ann", at_us=wiring.clock())
        done = agency.run(resume=done.run)
    made = [change.path for item in agency.staged(done.run) for change in item.layer.changes if change.op == "created"]
    begun = [event for event in agency.events(done.run, "intent") if event.data.get("tool") == "command:worker"]
    assert ("done", 2, ["log once"], ["made"]) == (done.status, len(agency.bills("worker")), agency.calls(), made)
    assert starts <= len(begun) <= starts + 1


@pytest.mark.req("COMMAND-12")
def test_a_cancel_stops_the_program_at_once(tmp_path: Path) -> None:
    """A program that never ends is dead within the second that a run takes to stop, and so is what it started."""
    agency = Agency(
        tmp_path,
        """
        import subprocess
        call("ops.log", line="begun")
        subprocess.Popen(["sleep", "MARK"])
        while True:
            pass
        """.replace("MARK", MARK),
    )
    with ThreadPoolExecutor() as pool:
        running = pool.submit(agency.process, request="go")
        assert ["log begun"] == until(lambda: agency.calls("log")), "the program is under way"
        assert until(lambda: living(MARK))
        run = agency.only()
        began = time.monotonic()
        with wiring.open_store(agency.home) as store:
            control.cancel(store, run, by="ann", reason="enough", at_us=wiring.clock())
        assert [] == gone(MARK)
        took = time.monotonic() - began
        ended = running.result(timeout=60)
    row = next(row for row in agency.effects() if row.tool == "command:worker")
    assert ([run, "cancelled"], "retry") == (json.loads(ended.stdout), row.status)
    assert took < 3


def until(look: Callable[[], list[str]]) -> list[str]:
    """Look until there is something, for at most half a minute."""
    for _ in range(600):
        found = look()
        if found:
            return found
        select.select([], [], [], 0.05)
    return []


def living(marker: str) -> list[str]:
    """Give the command lines on this machine that hold a word."""
    found = []
    for place in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = place.read_bytes().decode(errors="replace").split("\0")
        except OSError:
            continue
        if marker in words:
            found.append(" ".join(words))
    return found


def gone(marker: str) -> list[str]:
    """Give what is still living once the launcher has had its time to see that its kernel is dead."""
    for _ in range(200):
        found = living(marker)
        if not found:
            return []
        select.select([], [], [], 0.05)
    return found
