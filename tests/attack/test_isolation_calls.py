"""Attacks of one call on the next, on the cell, and on whoever waits for it, in bubblewrap."""

import asyncio
import os
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import pytest

from midwatch.config.specs import EgressRule, SandboxLimits
from midwatch.sandbox.bubblewrap import BubblewrapBackend
from midwatch.sandbox.celled import CelledSandbox
from midwatch.sandbox.effects import Request
from midwatch.sandbox.egress import Broker
from midwatch.sandbox.port import RunResult, Sandbox
from midwatch.sandbox.profile import DEFAULT_LIMITS, SandboxProfile

T = TypeVar("T")
PYTHON = "/opt/midwatch/bin/python"


async def run(box: Sandbox, code: str, seconds: int = 20) -> RunResult:
    """Run hostile Python inside."""
    argv = [PYTHON, "-I", "-c", code]
    return await box.run(
        argv, limits=SandboxLimits(), workdir=Path("/workspace"), timeout_us=seconds * 1_000_000, max_bytes=100_000
    )


def inside(profile: SandboxProfile, body: Callable[[Sandbox], Awaitable[T]]) -> T:
    """Do something in a sandbox of its own."""

    async def work() -> T:
        backend = BubblewrapBackend()
        try:
            return await body(await backend.start(profile))
        finally:
            await backend.close()

    return asyncio.run(work())


@pytest.mark.alone
@pytest.mark.req("ISOLATION-1")
def test_a_tree_that_is_slow_to_stand_still_holds_nobody_up(tmp_path: Path) -> None:
    """A call that leaves much to give back under a small share of the processor is a result, and the loop goes on meanwhile."""
    heavy = """
import mmap, os, time
for _ in range(8):
    if os.fork() == 0:
        held = mmap.mmap(-1, 40 << 20)
        for place in range(0, 40 << 20, 4096):
            held[place] = 1
        time.sleep(1000)
time.sleep(4)
"""
    worst = 0.0

    async def attack(box: Sandbox) -> RunResult:
        nonlocal worst
        call = asyncio.ensure_future(run(box, heavy, 60))
        while not call.done():
            begun = time.perf_counter()
            await asyncio.sleep(0.002)
            worst = max(worst, time.perf_counter() - begun)
        return await call

    result = inside(SandboxProfile(tmp_path, limits=replace(DEFAULT_LIMITS, cpu_milli=50)), attack)
    assert result.status in ("ended", "crashed")
    assert 0.5 > worst


@pytest.mark.req("ISOLATION-2")
def test_what_a_call_left_in_the_bridge_is_not_sent_by_the_next(tmp_path: Path) -> None:
    """More connections than the bridge accepts, each with a request, and an end without waiting: the next call asks for nothing."""
    leave = """
import os, socket
left = []
try:
    for number in range(200):
        client = socket.socket()
        client.settimeout(0.3)
        client.connect(("127.0.0.1", 8631))
        client.sendall(b"POST http://api.partner.net/%d HTTP/1.1\\r\\nHost: x\\r\\nContent-Length: 0\\r\\n\\r\\n" % number)
        left.append(client)
except OSError:
    pass
print(len(left), flush=True)
os._exit(0)
"""

    async def attack() -> tuple[int, tuple[Request, ...]]:
        backend = BubblewrapBackend()
        try:
            profile = SandboxProfile(tmp_path, egress=(EgressRule("example.com"),))
            box = await backend.start(profile, egress=Broker(lambda: 0))
            first = await run(box, leave)
            await box.effects(tmp_path.parent / "first.layer")
            await run(box, "import time; time.sleep(1.5)")
            second = await box.effects(tmp_path.parent / "second.layer")
            await box.close()
            return int(first.stdout), second.requests
        finally:
            await backend.close()

    tried, innocent = asyncio.run(attack())
    assert 64 < tried
    assert () == innocent


@pytest.mark.req("ISOLATION-1")
def test_a_launcher_that_was_killed_takes_no_later_sandbox_with_it(tmp_path: Path) -> None:
    """Its sandboxes are gone, told as such; the next one starts under another launcher."""

    async def attack() -> tuple[str, bytes]:
        backend = BubblewrapBackend()
        try:
            box = await backend.start(SandboxProfile(tmp_path))
            launcher = backend._client
            assert launcher is not None
            launcher._process.kill()
            launcher._process.wait(10)
            first = (await run(box, "print(1)")).status
            await box.close()
            again = await backend.start(SandboxProfile(tmp_path))
            return first, (await run(again, "print(2)")).stdout
        finally:
            await backend.close()

    assert ("crashed", b"2\n") == asyncio.run(attack())


@pytest.mark.req("ISOLATION-1")
def test_a_sandbox_is_killed_before_its_supervisor_and_never_runs_in_real_time(tmp_path: Path) -> None:
    """Whatever score and rights this process was started with: the sandbox has others, and cannot better them."""
    ask = """
import os
print(open("/proc/self/oom_score_adj").read().strip())
for value in ("0", "-1000"):
    try:
        file = os.open("/proc/self/oom_score_adj", os.O_WRONLY)
        os.write(file, value.encode())
    except OSError:
        pass
print(open("/proc/self/oom_score_adj").read().strip())
for policy in (os.SCHED_FIFO, os.SCHED_RR):
    try:
        os.sched_setscheduler(0, policy, os.sched_param(1))
        print("real time")
    except OSError:
        pass
"""
    said = inside(SandboxProfile(tmp_path), lambda box: run(box, ask)).stdout.split()
    own = int(Path("/proc/self/oom_score_adj").read_text())
    assert 500 == int(said[0])
    assert own <= int(said[1])  # 500 still, where root has every right to say so for good
    assert 2 == len(said)


@pytest.mark.req("ISOLATION-2")
def test_what_a_shell_left_does_not_act_during_the_next_call(tmp_path: Path) -> None:
    """A program that was put into the background on a terminal is dead before a call begins."""

    async def attack(box: Sandbox) -> bytes:
        assert isinstance(box, CelledSandbox)
        terminal = await box.shell(["/bin/sh"], rows=24, columns=80, env={})
        try:
            os.write(terminal, b"(trap '' HUP; setsid sh -c 'sleep 2; echo late >/workspace/late') & sleep 0.2; exit\n")
            await asyncio.sleep(0.6)
        finally:
            os.close(terminal)
        await box.effects(tmp_path.parent / "shell.layer")
        return (await run(box, "import os, time; time.sleep(2.5); print(os.listdir('/workspace'))")).stdout

    assert b"[]\n" == inside(SandboxProfile(tmp_path), attack)
