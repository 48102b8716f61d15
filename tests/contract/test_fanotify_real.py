"""Reads, writes and executions of a real overlay, as the kernel tells them.

Where this process is not root, it is refused, and that is what each test asserts then.
"""

import ctypes
import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from midwatch.errors import SandboxError
from midwatch.sandbox import fanotify
from midwatch.sandbox.fanotify import Listener, Observed

_OVERLAID = Path(__file__).with_name("overlaid.py")
_ALL = """
import os, subprocess
open("config.yaml").read()
open("new.py", "w").write("x")
os.close(os.open("config.yaml", os.O_WRONLY | os.O_APPEND))
os.mkdir("deep")
open("deep/er", "w").close()
subprocess.run(["./tool"], check=True)
"""


class View:
    """A workspace elsewhere, and what acts in it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        lower = folder / "lower"
        lower.mkdir()
        (lower / "config.yaml").write_text("a: 1\n")
        (lower / "other.txt").write_text("nobody reads this\n")
        (lower / "tool").write_bytes(Path("/bin/true").resolve().read_bytes())
        (lower / "tool").chmod(0o755)
        self._channel, theirs = socket.socketpair()
        argv = [sys.executable, str(_OVERLAID), str(folder), str(theirs.fileno())]
        self.process = subprocess.Popen(argv, pass_fds=[theirs.fileno()])
        theirs.close()
        self._channel.settimeout(30)
        number, descriptors, _, _ = socket.recv_fds(self._channel, 16, 1)
        self.cell, self.merged = int(number), descriptors[0]
        self._lines = self._channel.makefile("rw")

    def act(self, program: str, *, inside: bool = True) -> None:
        """Run a program to its end; it must succeed."""
        self._lines.write(json.dumps({"program": program, "inside": inside}) + "\n")
        self._lines.flush()
        assert self._lines.readline() == "0\n"

    def kill_cell(self) -> None:
        """Kill the cell, its namespaces with it, and await that."""
        handle = os.pidfd_open(self.cell)
        poll = select.poll()
        poll.register(handle, select.POLLIN)
        os.kill(self.cell, signal.SIGKILL)
        assert poll.poll(30_000)
        os.close(handle)

    def close(self) -> None:
        self._lines.close()
        self._channel.close()
        self.process.wait(30)
        os.close(self.merged)


@pytest.fixture
def view(tmp_path: Path) -> Iterator[View | None]:
    """A workspace of root's; None for others, who have been refused."""
    if os.geteuid() != 0:
        handle = os.open(tmp_path, os.O_PATH)
        with pytest.raises(SandboxError):
            Listener(handle)
        os.close(handle)
        yield None
        return
    made = View(tmp_path)
    try:
        yield made
    finally:
        made.close()


@pytest.fixture
def listener(view: View | None) -> Iterator[Listener | None]:
    """What watches the workspace."""
    if view is None:
        yield None
        return
    made = Listener(view.merged)
    yield made
    made.close()
    assert not made.alive()


@pytest.mark.req("OBSERVE-1")
@pytest.mark.parametrize("inside", [True, False])
def test_what_a_program_did(view: View | None, listener: Listener | None, inside: bool) -> None:
    """Exactly what was read, written and executed is told, whichever namespace it happened in, and nothing of what was not."""
    if view is None or listener is None:
        return
    view.act(_ALL, inside=inside)
    seen = listener.take()
    assert (
        Observed(
            read=frozenset({"config.yaml", "tool", "deep/er"}),  # opened without a write: it may have been read
            executed=frozenset({"tool"}),
            written=frozenset({"config.yaml", "new.py", "deep/er"}),
        )
        == seen
    )
    assert listener.alive()


@pytest.mark.req("OBSERVE-1")
def test_reading_through_a_mapping(view: View | None, listener: Listener | None) -> None:
    """A file that is opened for writing, only to be read through a mapping, is told as read."""
    if view is None or listener is None:
        return
    view.act(
        "import mmap\nwith open('config.yaml', 'r+b', 0) as file:\n    assert mmap.mmap(file.fileno(), 0)[:1] == b'a'\n"
    )
    assert frozenset({"config.yaml"}) == listener.take().read


@pytest.mark.req("OBSERVE-1")
def test_a_script_is_read_and_its_interpreter_is_elsewhere(view: View | None, listener: Listener | None) -> None:
    """A script that is started itself is executed; given to its interpreter, it is only read."""
    if view is None or listener is None:
        return
    started = "import os, subprocess\nopen('run', 'w').write('#!/bin/sh\\nexit 0\\n')\nos.chmod('run', 0o755)\n"
    view.act(started + "subprocess.run(['./run'], check=True)")
    assert frozenset({"run"}) == listener.take().executed
    view.act("import subprocess\nsubprocess.run(['/bin/sh', 'run'], check=True)")
    assert Observed(read=frozenset({"run"})) == listener.take()


@pytest.mark.req("OBSERVE-2")
def test_windows(view: View | None, listener: Listener | None) -> None:
    """What was taken is not told again; `begin` forgets; this process's own reads are nobody's business."""
    if view is None or listener is None:
        return
    view.act("open('config.yaml').read()")
    assert frozenset({"config.yaml"}) == listener.take().read
    assert Observed() == listener.take()
    view.act("open('config.yaml').read()")
    listener.begin()
    view.act("open('other.txt').read()")
    with open(os.open("config.yaml", os.O_RDONLY, dir_fd=view.merged)) as file:  # noqa: PTH123
        file.read()
    assert Observed(read=frozenset({"other.txt"})) == listener.take()


@pytest.mark.req("OBSERVE-2")
def test_two_overlays_are_kept_apart(view: View | None, listener: Listener | None, tmp_path: Path) -> None:
    """A listener sees its own run, and no other's."""
    if view is None or listener is None:
        return
    folder = tmp_path / "another"
    folder.mkdir()
    other = View(folder)
    try:
        other.act("open('config.yaml').read()")
        assert Observed() == listener.take()
    finally:
        other.close()


@pytest.mark.req("OBSERVE-3")
def test_twenty_thousand_events(view: View | None, listener: Listener | None) -> None:
    """Twenty thousand files, made and read by eight processes at once, are all told."""
    if view is None or listener is None:
        return
    program = """
import os
for part in range(8):
    if os.fork() == 0:
        os.mkdir(str(part))
        for index in range(1250):
            name = f"{part}/{index}"
            with open(name, "w") as file:
                file.write(name)
            with open(name) as file:
                file.read()
        os._exit(0)
assert all(os.wait()[1] == 0 for _ in range(8))
"""
    view.act(program)
    seen = listener.take()
    names = frozenset(f"{part}/{index}" for part in range(8) for index in range(1250))
    assert (names, names, False) == (seen.read, seen.written, seen.lost)


@pytest.mark.req("OBSERVE-3")
def test_what_overflowed_is_lost(view: View | None, listener: Listener | None) -> None:
    """An overflow that the kernel reports makes the window `lost`, and only that one."""
    if view is None or listener is None:
        return
    with listener._lock:
        listener._named([(0x4000, -1, 0)])
    assert Observed(lost=True) == listener.take()
    assert Observed() == listener.take()


@pytest.mark.req("OBSERVE-6")
def test_mount_that_went_away(view: View | None, listener: Listener | None) -> None:
    """What a killed sandbox opened last is named, even when its namespaces are gone before anybody looked."""
    if view is None or listener is None:
        return
    listener.learn(view.cell)
    with listener._lock:
        view.act("open('config.yaml').read()")
        view.kill_cell()
    assert Observed(read=frozenset({"config.yaml"})) == listener.take()


@pytest.mark.req("OBSERVE-3")
def test_mount_that_nobody_can_see_any_more(view: View | None, listener: Listener | None) -> None:
    """What cannot be named, since all that saw its mount is gone, is lost and not guessed."""
    if view is None or listener is None:
        return
    with listener._lock:
        view.act("open('config.yaml').read()")
        view.kill_cell()
    assert Observed(lost=True) == listener.take()


@pytest.mark.req("OBSERVE-1")
def test_process_that_is_gone_before_it_is_looked_at(view: View | None, listener: Listener | None) -> None:
    """Who opened a file may have ended: whatever lives in its namespace leads to the name."""
    if view is None or listener is None:
        return
    with listener._lock:
        view.act("open('config.yaml').read()")
    assert Observed(read=frozenset({"config.yaml"})) == listener.take()


@pytest.mark.req("OBSERVE-6")
def test_names_that_mislead(view: View | None, listener: Listener | None) -> None:
    """Files deleted meanwhile, files that look deleted, names of odd bytes, and a FIFO that nobody writes to."""
    if view is None or listener is None:
        return
    program = r"""
import os
for name in (b"gone", b"kept (deleted)", b"odd\xff\n\x1b", b"\\040"):
    with open(name, "wb") as file:
        file.write(b"x")
os.unlink("gone")
os.mkfifo("fifo")
os.close(os.open("fifo", os.O_RDWR))
os.close(os.open("fifo", os.O_RDONLY | os.O_NONBLOCK))
"""
    with listener._lock:
        view.act(program)
    seen = listener.take()
    names = frozenset({"gone", "kept (deleted)", "odd\\xff\\x0a\\x1b", "\\x5c040"})
    assert (names, False) == (seen.written - {"fifo"}, seen.lost)
    assert listener.alive()


@pytest.mark.req("OBSERVE-3")
def test_path_that_is_too_long_to_be_told(view: View | None, listener: Listener | None) -> None:
    """A file so deep that the kernel tells no path is lost, and the listener goes on."""
    if view is None or listener is None:
        return
    program = (
        "import os\nfor _ in range(30):\n    os.mkdir('d' * 200)\n    os.chdir('d' * 200)\nopen('deep', 'w').close()"
    )
    view.act(program)
    assert Observed(lost=True) == listener.take()
    view.act("open('config.yaml').read()")
    assert Observed(read=frozenset({"config.yaml"})) == listener.take()


@pytest.mark.req("OBSERVE-4")
@pytest.mark.filterwarnings(
    "ignore::pytest.PytestUnhandledThreadExceptionWarning"
)  # it is the test that ends the thread
@pytest.mark.parametrize("how", ["killed", "closed", "behind"])
def test_listener_that_ends(view: View | None, how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A listener whose thread is ended, whose queue is closed under it, or that falls behind, tells its owner; nothing is whole then."""
    if view is None:
        return
    told, heard = [], threading.Event()

    def died(why: str) -> None:
        told.append(why)
        heard.set()

    listener = Listener(view.merged, died=died)
    assert listener.alive()
    if how == "behind":
        monkeypatch.setattr(fanotify, "_BACKLOG", 10)
    with listener._lock:
        if how == "killed":
            ctypes.pythonapi.PyThreadState_SetAsyncExc(
                ctypes.c_ulong(listener._thread.ident or 0), ctypes.py_object(SystemExit)
            )
        if how == "closed":
            os.close(listener._fd)
        else:
            view.act("for i in range(400): open(str(i), 'w').close()", inside=False)
    assert heard.wait(30)
    assert not listener.alive()
    assert listener.take().lost
    reason = {"killed": "its thread was ended", "closed": "Bad file descriptor", "behind": "more than 10 events wait"}[
        how
    ]
    assert len(told) == 1
    assert reason in told[0]
    listener.close()


@pytest.mark.req("OBSERVE-4")
def test_listener_that_is_stuck(view: View | None) -> None:
    """A listener that has been at one read for longer than it may is not alive."""
    if view is None:
        return
    now = [0.0]
    listener = Listener(view.merged, clock=lambda: now[0])
    with listener._lock:
        view.act("open('config.yaml').read()", inside=False)
        while listener._busy_since is None:  # it wakes by itself
            os.sched_yield()
        assert listener.alive()
        now[0] = 6.0
        assert not listener.alive()
    listener.close()


@pytest.mark.req("OBSERVE-5")
def test_no_more_than_the_run_is_observed(view: View | None, tmp_path: Path) -> None:
    """A folder of the machine's own file system is refused, and so is a user who may not watch."""
    handle = os.open(tmp_path, os.O_PATH)
    with pytest.raises(SandboxError, match="would see the whole machine"):
        Listener(handle)
    os.close(handle)
    if view is None:
        return
    child = os.fork()
    if child == 0:
        told = ""
        try:
            os.setuid(65_534)
            Listener(view.merged)
        except SandboxError as refused:
            told = str(refused)
        finally:
            os._exit(0 if "it needs root (CAP_SYS_ADMIN); run Midwatch as root" in told else 1)
    assert os.waitpid(child, 0)[1] == 0
