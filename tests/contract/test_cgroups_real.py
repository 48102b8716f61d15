"""Control groups on this machine's own kernel: what is held, frozen, killed, counted and swept.

As root every layout that this machine can play is tried: its own, and version 1 alone where it has that. Who may not make groups is
refused, and each test then asserts just that.
"""

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import pytest

from bench.freezing import measured, tree
from midwatch.config.specs import SandboxLimits
from midwatch.errors import SandboxError
from midwatch.sandbox import cgroups
from midwatch.sandbox.cgroups import Group, Layout, detect, sweep

LIMITS = SandboxLimits(memory=64 << 20, processes=400, cpu_milli=1000)
_JOIN = """
import os, sys
for path in sys.argv[1:]:
    with open(path, "w") as file:
        file.write("0")
"""
_BOMB = _JOIN + "os.write(1, b'.')\nwhile True:\n    try:\n        os.fork()\n    except OSError:\n        pass\n"
_SUPERVISOR = """
import sys
from bench.freezing import tree
from midwatch.config.specs import SandboxLimits
from midwatch.sandbox import cgroups
layout = cgroups.detect()
group = layout.create(cgroups.named("left"), SandboxLimits())
with tree(group, 6):
    print(group.name, flush=True)
    sys.stdin.read()
"""


@dataclass(frozen=True)
class Ground:
    """A layout to try, and the groups made for one test."""

    layout: Layout
    made: list[Group]

    def group(self, limits: SandboxLimits = LIMITS) -> Group:
        group = self.layout.create(cgroups.named(f"test{len(self.made)}"), limits)
        self.made.append(group)
        return group


@pytest.fixture(params=["own", "v1"])
def ground(request: pytest.FixtureRequest) -> Iterator[Ground | None]:
    """This machine's layout, or its version 1 alone; None where it has been seen to refuse."""
    layout = detect()
    if request.param == "v1":
        layout = replace(layout, kind="v1", places=tuple(place for place in layout.places if place.version == 1))
    if layout.missing(LIMITS):
        with pytest.raises(SandboxError, match=r"cannot hold .*; run Midwatch as root"):
            layout.create("refused", LIMITS)
        yield None
        return
    found = Ground(layout, [])
    try:
        yield found
    finally:
        for group in found.made:
            group.kill()
            group.remove()
            assert not any(path.exists() for path in group.paths)


@contextlib.contextmanager
def _inside(group: Group, program: str) -> Iterator[subprocess.Popen[bytes]]:
    argv = [sys.executable, "-I", "-S", "-c", program, *(str(path) for path in group.join_files)]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stdin=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        try:
            yield process
        finally:
            group.kill()
            process.wait(10)


@pytest.mark.req("CGROUP-1", "CGROUP-2")
def test_root_is_not_refused() -> None:
    """Where root meets control groups that can be written, nothing is missing: a refusal there would hide a broken detection."""
    layout = detect()
    writable = any(os.access(place.base, os.W_OK) for place in layout.places)
    assert writable == bool(layout.places)
    if os.geteuid() == 0 and layout.kind in ("hybrid", "v1"):
        assert layout.missing(LIMITS) == ()


@pytest.mark.req("CGROUP-2")
def test_plain_user_without_delegation_is_refused() -> None:
    """Who may not make groups is told what is missing. Root becomes such a user for this test; others are one already."""
    child = os.fork()
    if child == 0:
        told = b"made"
        try:
            if os.geteuid() == 0:
                os.setgroups([])
                os.setgid(65_534)
                os.setuid(65_534)
            layout = detect()
            layout.create("refused", LIMITS).remove()
            told = b"" if layout.missing(LIMITS) else told
        except SandboxError as refused:
            told = str(refused).encode()
        finally:
            os._exit(0 if b"run Midwatch as root" in told or (told == b"made" and os.geteuid() != 65_534) else 1)
    assert os.waitpid(child, 0)[1] == 0


@pytest.mark.req("CGROUP-3")
def test_memory_is_held(ground: Ground | None) -> None:
    """Who takes more memory than the tree may have is killed, and that is counted; the peak stays below the bound."""
    if ground is None:
        return
    group = ground.group()
    with _inside(group, _JOIN + "data = bytearray(200 << 20)\nos.write(1, b'.')\n") as process:
        assert process.communicate(timeout=30)[0] == b""
        assert process.returncode == -signal.SIGKILL
    stats = group.stats()
    assert stats.oom_kills is not None
    assert stats.oom_kills >= 1
    assert stats.memory_peak is not None
    assert 16 << 20 < stats.memory_peak <= 64 << 20


@pytest.mark.req("CGROUP-3")
def test_processes_are_held(ground: Ground | None) -> None:
    """Forks over the bound are refused, and that is counted."""
    if ground is None:
        return
    group = ground.group(replace(LIMITS, processes=3))
    program = """
live = refused = 0
for _ in range(5):
    try:
        if os.fork() == 0:
            sys.stdin.read()
            os._exit(0)
        live += 1
    except BlockingIOError:
        refused += 1
print(live, refused, flush=True)
sys.stdin.read()
"""
    with _inside(group, _JOIN + program) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"2 3\n"
        stats = group.stats()
    assert (3, 3) == (stats.processes, stats.processes_refused)


@pytest.mark.req("CGROUP-3")
def test_processor_time_is_held(ground: Ground | None) -> None:
    """A tree with a tenth of a processor that wants all of it is held back, and both times are counted."""
    if ground is None:
        return
    group = ground.group(replace(LIMITS, cpu_milli=100))
    program = "import time\nwhile time.process_time() < 0.05:\n    pass\nos.write(1, b'.')\n"
    with _inside(group, _JOIN + program) as process:
        assert process.stdout is not None
        assert process.stdout.read(1) == b"."
        stats = group.stats()
    assert stats.cpu_us is not None
    assert stats.cpu_us >= 10_000  # it had used some before it joined
    assert stats.throttled_us is not None
    assert stats.throttled_us > 0


@pytest.mark.req("CGROUP-2")
def test_value_that_the_kernel_refuses(ground: Ground | None) -> None:
    """A limit that cannot be written is an error with a remedy, and no group is left."""
    if ground is None:
        return
    name = cgroups.named("refused")
    with pytest.raises(SandboxError, match=r"pids\.max` does not take `-7`.*run Midwatch as root"):
        ground.layout.create(name, replace(LIMITS, processes=-7))
    assert not any((place.base / cgroups.PARENT / name).exists() for place in ground.layout.places)


@pytest.mark.req("CGROUP-2")
def test_many_groups_at_once(ground: Ground | None) -> None:
    """Groups that come and go together do not take each other's parent away."""
    if ground is None:
        return

    def often(thread: int) -> int:
        for number in range(25):
            ground.layout.create(cgroups.named(f"many{thread}-{number}"), LIMITS).remove()
        return 25

    with ThreadPoolExecutor(4) as threads:
        assert [25] * 4 == list(threads.map(often, range(4)))


@pytest.mark.req("CGROUP-4")
def test_frozen_tree_does_nothing(ground: Ground | None) -> None:
    """While frozen no process is given the processor; thawed, all go on."""
    if ground is None:
        return
    group = ground.group()
    with _inside(group, _JOIN + "while True:\n    os.write(1, b'.')\n") as process:
        assert process.stdout is not None
        assert process.stdout.read(1) == b"."
        group.freeze()
        assert group.stats().frozen
        before = group.stats().cpu_us
        os.set_blocking(process.stdout.fileno(), False)
        with contextlib.suppress(BlockingIOError):
            while os.read(process.stdout.fileno(), 1 << 16):
                pass
        with pytest.raises(BlockingIOError):  # it wanted to write, and there is room now
            os.read(process.stdout.fileno(), 1)
        assert before == group.stats().cpu_us
        os.set_blocking(process.stdout.fileno(), True)
        group.thaw()
        assert os.read(process.stdout.fileno(), 1) == b"."
        assert not group.stats().frozen


@pytest.mark.req("CGROUP-4")
def test_freezing_an_empty_group(ground: Ground | None) -> None:
    """A group without processes is frozen at once, and who joins it stands still."""
    if ground is None:
        return
    group = ground.group()
    group.freeze()
    waits = [sys.executable, "-I", "-S", "-c", "import sys; sys.stdin.read()"]
    with subprocess.Popen(waits, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        group.join(process.pid)
        group.freeze()
        assert process.pid in group.procs()
        group.kill()
        assert process.wait(10) == -signal.SIGKILL


@pytest.mark.req("CGROUP-5")
def test_fork_bomb_is_killed(ground: Ground | None) -> None:
    """A tree that forks as fast as it can is gone all the same, running and frozen."""
    if ground is None:
        return
    group = ground.group(replace(LIMITS, processes=40))
    for frozen in (False, True):
        with _inside(group, _BOMB) as process:
            assert process.stdout is not None
            assert process.stdout.read(1) == b"."
            if frozen:
                group.freeze()
            group.kill()
            assert frozenset() == group.procs()
            group.thaw()


@pytest.mark.req("CGROUP-5")
def test_busy_group_is_not_removed(ground: Ground | None) -> None:
    """A group with somebody in it stays, and the caller is told; joined by its supervisor, it is killed and removed."""
    if ground is None:
        return
    group = ground.group()
    with subprocess.Popen([sys.executable, "-I", "-S", "-c", "input()"], stdin=subprocess.PIPE) as process:
        group.join(process.pid)
        assert frozenset({process.pid}) == group.procs()
        with pytest.raises(SandboxError, match="is busy; kill what lives in it"):
            group.remove(10_000)
        group.kill()
        assert process.wait(10) == -signal.SIGKILL
    group.remove()
    group.remove()
    with pytest.raises(SandboxError, match="does not take"):
        group.join(os.getpid())


@pytest.mark.req("CGROUP-6")
def test_groups_of_a_killed_supervisor_are_swept(ground: Ground | None) -> None:
    """What a supervisor that was killed left behind is killed and removed; what the living have is not touched."""
    if ground is None:
        return
    mine = ground.group()
    with tree(mine, 3):
        argv = [sys.executable, "-c", _SUPERVISOR]
        with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as supervisor:
            assert supervisor.stdout is not None
            name = supervisor.stdout.readline().strip()
            assert name not in sweep(ground.layout, cgroups.supervised)
            supervisor.kill()
            supervisor.wait(10)
        layout = detect()  # all places, whichever are tried here
        left = layout.places[0].base / cgroups.PARENT / name
        assert (left / "cgroup.procs").read_text()
        assert name in sweep(layout, cgroups.supervised)
        assert not left.exists()
        assert len(mine.procs()) == 3


@pytest.mark.alone
@pytest.mark.req("CGROUP-7")
def test_freeze_and_kill_are_quick(ground: Ground | None) -> None:
    """The bars, by the best of five rounds: others work on a shared machine, too. Nobody outlives a kill in any."""
    if ground is None:
        return
    found = [measured(ground.layout) for _ in range(5)]
    assert sum(one.left for one in found) == 0
    assert min(one.freeze for one in found) <= 5_000
    assert min(one.kill for one in found) <= 150_000
    assert min(one.kill_frozen for one in found) <= 150_000
