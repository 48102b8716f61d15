"""The process sandbox: what bounds a worker, and what is left when it ends."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import pytest

from midwatch.config.specs import SandboxLimits
from midwatch.sandbox import worker
from midwatch.sandbox.port import RunResult, SandboxResult, Tools
from midwatch.sandbox.process import ProcessSandbox
from midwatch.sandbox.profile import DEFAULT_LIMITS
from midwatch.tools.decorate import FILE_MARK

TOOLS = """
import os, resource, subprocess, sys

class _Tool:
    def __init__(self, work):
        self._work = work
    def work(self, arguments, facts):
        return self._work()

def _sees():
    return {"env": sorted(os.environ), "stdin": sys.stdin.read(), "cwd": os.getcwd(),
            "limits": [resource.getrlimit(kind)[0] for kind in
                       (resource.RLIMIT_AS, resource.RLIMIT_CORE, resource.RLIMIT_NOFILE, resource.RLIMIT_FSIZE)],
            "own_session": os.getsid(0) == os.getpid()}

def _spawns():
    child = subprocess.Popen(["sleep", "1000"])
    print(child.pid, flush=True)
    child.wait()

def _leaves_child():
    print(subprocess.Popen(["sleep", "1000"]).pid, flush=True)
    return 1

def _big():
    return "x" * 100_000

def _prints():
    print("y" * 1_000_000)
    return 5

def _fork_bomb_of_files():
    return len([open("/dev/null") for _ in range(10_000)])

sees, spawns, leaves_child, big = _Tool(_sees), _Tool(_spawns), _Tool(_leaves_child), _Tool(_big)
prints, many_files = _Tool(_prints), _Tool(_fork_bomb_of_files)
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A file of things to work, outside of the working directory."""
    path = tmp_path / "things.py"
    path.write_text(TOOLS, encoding="utf-8")
    (tmp_path / "work").mkdir()
    return path


def call(file: Path, name: str, *, timeout_us: int = 20_000_000, limits: SandboxLimits | None = None) -> SandboxResult:
    """Call one thing."""

    async def body() -> SandboxResult:
        return await ProcessSandbox().call(
            f"{file}:{name}", "{}", facts={}, limits=limits or SandboxLimits(), workdir=file.parent / "work",
            timeout_us=timeout_us, max_bytes=10_000,
        )  # fmt: skip

    return anyio.run(body)


def run(workdir: Path, *argv: str, timeout_us: int = 20_000_000) -> RunResult:
    """Run one program."""

    async def body() -> RunResult:
        return await ProcessSandbox().run(
            argv, limits=SandboxLimits(), workdir=workdir, timeout_us=timeout_us, max_bytes=1000
        )

    return anyio.run(body)


def dead(pid: int) -> bool:
    """Say, within five seconds, whether a process is gone or only a zombie is left of it."""
    end = time.monotonic() + 5
    while time.monotonic() < end:
        try:
            if Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0] == "Z":
                return True
        except FileNotFoundError:
            return True
        os.sched_yield()
    return False


@pytest.mark.req("SANDBOX-5")
def test_it_says_what_it_is() -> None:
    """The level is named, and nobody can take it for isolation."""
    sandbox: Tools = ProcessSandbox()
    assert ("process", False) == (sandbox.level, sandbox.isolates)
    assert FILE_MARK == worker.FILE_MARK


@pytest.mark.req("SANDBOX-3")
def test_a_worker_sees_little(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No variable but the allow-list, no input, the working directory, its own session, and limits that hold."""
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy")
    answer = call(file, "sees", limits=SandboxLimits(open_files=50)).answer
    assert {"HOME", "LANG", "PATH", "PYTHONDONTWRITEBYTECODE"} <= set(answer["env"])
    assert set(answer["env"]) <= {"HOME", "LANG", "PATH", "PYTHONDONTWRITEBYTECODE", "LC_ALL", "LC_CTYPE", "TZ"}
    assert ("", str(file.parent / "work"), True) == (answer["stdin"], answer["cwd"], answer["own_session"])
    assert [DEFAULT_LIMITS.memory, 0, 50, DEFAULT_LIMITS.file_size] == answer["limits"]
    assert "crashed" == call(file, "many_files").status


@pytest.mark.req("SANDBOX-2")
def test_a_deadline_leaves_nobody(file: Path) -> None:
    """At the deadline the worker and what it started are dead."""
    done = call(file, "spawns", timeout_us=700_000)
    assert "timeout" == done.status
    assert dead(int(done.output))


@pytest.mark.req("SANDBOX-2")
def test_an_answer_leaves_nobody(file: Path) -> None:
    """A child that a tool leaves behind dies with the call, and does not hold up the answer."""
    done = call(file, "leaves_child")
    assert ("answered", 1) == (done.status, done.answer)
    assert dead(int(done.output))


@pytest.mark.req("SANDBOX-2")
def test_cancelling_leaves_nobody(file: Path, tmp_path: Path) -> None:
    """When the caller is cancelled the group is killed before the cancellation goes on."""
    mark = tmp_path / "pid"

    async def body() -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(
                lambda: ProcessSandbox().run(
                    ["sh", "-c", f"echo $$ > {mark}.new; mv {mark}.new {mark}; sleep 1000"], limits=SandboxLimits(),
                    workdir=tmp_path, timeout_us=60_000_000, max_bytes=100,
                )
            )  # fmt: skip
            with anyio.fail_after(20):
                while not mark.exists():
                    await anyio.lowlevel.checkpoint()
            group.cancel_scope.cancel()

    anyio.run(body)
    assert dead(int(mark.read_text(encoding="utf-8")))


@pytest.mark.req("SANDBOX-4")
def test_output_and_answer_are_bounded(file: Path) -> None:
    """An answer over its bound is refused; a flood of output is cut and does not stop the answer."""
    assert "too_big" == call(file, "big").status
    done = call(file, "prints")
    assert (5, True) == (done.answer, len(done.output) < 20_000)


@pytest.mark.req("SANDBOX-7")
def test_the_working_directory_names_no_module(file: Path) -> None:
    """A file that an agent wrote is not imported in place of a module of the standard library or of Midwatch."""
    work = file.parent / "work"
    for name in ("json.py", "socket.py", "resource.py", "midwatch.py", "subprocess.py", "sitecustomize.py"):
        (work / name).write_text("raise SystemExit('hijacked')", encoding="utf-8")
    assert "answered" == call(file, "sees").status


@pytest.mark.req("SANDBOX-1")
@pytest.mark.parametrize("name", ["nothing_there", "worse.still"])
def test_what_cannot_be_found_is_a_crash(file: Path, name: str) -> None:
    """A reference that leads nowhere is a result with the reason for the trace."""
    done = call(file, name)
    assert ("crashed", True) == (done.status, "AttributeError" in done.output)


@pytest.mark.req("SANDBOX-1")
def test_programs_end_as_results(tmp_path: Path) -> None:
    """Exit codes, signals, missing programs and deadlines are values; output is the end of each stream."""
    assert ("ended", 3, b"out\n", b"err\n") == _facts(run(tmp_path, "sh", "-c", "echo out; echo err >&2; exit 3"))
    assert ("ended", -9) == _facts(run(tmp_path, "sh", "-c", "kill -9 $$"))[:2]
    assert ("crashed", None) == _facts(run(tmp_path, "no-such-program"))[:2]
    assert "timeout" == run(tmp_path, "sleep", "1000", timeout_us=300_000).status
    flood = run(tmp_path, "sh", "-c", "head -c 100000 /dev/zero | tr '\\0' x; echo end")
    assert (100_004, 1000, True) == (flood.stdout_bytes, len(flood.stdout), flood.stdout.endswith(b"xend\n"))
    assert "crashed" == run(tmp_path / "gone", "true").status


def _facts(done: RunResult) -> tuple[Any, ...]:
    return done.status, done.exit_code, done.stdout, done.stderr


KERNEL = """
import anyio, sys
from pathlib import Path
from midwatch.config.specs import SandboxLimits
from midwatch.sandbox.process import ProcessSandbox
anyio.run(lambda: ProcessSandbox().run(["sh", "-c", sys.argv[1]], limits=SandboxLimits(), workdir=Path("/"),
                                       timeout_us=60_000_000, max_bytes=100))
"""


@pytest.mark.req("SANDBOX-6")
def test_workers_die_with_the_kernel(tmp_path: Path) -> None:
    """After `kill -9` of the kernel nothing that it had started goes on acting."""
    pid = tmp_path / "pid"
    script = f"echo $$ > {pid}.new; mv {pid}.new {pid}; exec sleep 1000"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    kernel = subprocess.Popen([sys.executable, "-c", KERNEL, script], env=environment)
    _until(pid.exists)
    kernel.send_signal(signal.SIGKILL)
    kernel.wait(10)
    assert dead(int(pid.read_text(encoding="utf-8")))


def _until(ready: Callable[[], bool]) -> None:
    end = time.monotonic() + 20
    while not ready():
        assert time.monotonic() < end
        os.sched_yield()
