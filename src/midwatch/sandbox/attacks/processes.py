"""Processes: those of the host, those that started the sandbox, and what outlives a call. See the package's head."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys
import time
from collections.abc import Iterator
from typing import Final

from midwatch.sandbox.attacks.common import Told, attack, call, got

__all__ = ["NAMES", "daemon", "daemon_lives"]


def _others() -> Iterator[int]:
    """Processes that this program did not start."""
    own = {os.getpid(), os.getppid()}
    return (int(name) for name in os.listdir("/proc") if name.isdigit() and int(name) not in own)


def _before() -> tuple[int, ...]:
    """The first process, and who started this program."""
    with open(f"/proc/{os.getppid()}/stat", "rb") as file:
        starter = int(file.read().rpartition(b")")[2].split()[1])
    return tuple({1, starter} - {0})


@attack()
def own_environment(told: Told) -> str:
    """A credential that the supervisor has in its environment."""
    return next((f"`{name}`" for name, value in os.environ.items() if told.canary in value), "")


@attack()
def environment_of_others(told: Told) -> str:
    """The same in every other process, the first and the supervisor's launcher included."""
    for pid in _others():
        with contextlib.suppress(OSError), open(f"/proc/{pid}/environ", "rb") as file:
            if told.canary.encode() in file.read():
                return f"process {pid} has it"
    return ""


@attack()
def host_processes(told: Told) -> str:
    """A process of the host in the list of processes."""
    for pid in _others():
        with contextlib.suppress(OSError), open(f"/proc/{pid}/cmdline", "rb") as file:
            if told.victim_mark.encode() in file.read():
                return f"it is process {pid}"
    return ""


@attack()
def signal_host(told: Told) -> str:
    """Stop that process, by the number it has on the host."""
    with open(f"/proc/{told.victim}/cmdline", "rb") as file:
        if told.victim_mark.encode() not in file.read():
            return ""  # somebody in here who happens to have that number
    os.kill(told.victim, signal.SIGSTOP)
    return f"process {told.victim} was stopped"


@attack()
def trace_others(told: Told) -> str:
    """Take over whoever started this, or the first process."""
    seize, detach = 0x4206, 17
    for pid in _before():
        if call(told, "ptrace", seize, pid, 0, 0) == 0:
            call(told, "ptrace", detach, pid, 0, 0)
            return f"process {pid} is traced"
    return ""


@attack()
def trace_child(told: Told) -> str:
    """Trace a process of one's own, whose calls then pass a filter as another one's."""
    return got(call(told, "ptrace", 0, 0, 0, 0), "tracing")


@attack()
def memory_by_call(told: Told) -> str:
    """Read and write the memory of whoever started this."""

    class Piece(ctypes.Structure):
        _fields_ = (("base", ctypes.c_void_p), ("length", ctypes.c_size_t))

    room = ctypes.create_string_buffer(16)
    here = Piece(ctypes.addressof(room), 16)
    for pid in _before():
        with contextlib.suppress(OSError), open(f"/proc/{pid}/maps", encoding="utf-8", errors="replace") as file:
            there = Piece(int(file.readline().partition("-")[0], 16), 16)
            for name in ("process_vm_readv", "process_vm_writev"):
                if call(told, name, pid, ctypes.byref(here), 1, ctypes.byref(there), 1, 0) > 0:
                    return f"the memory of process {pid}"
    return ""


@attack()
def memory_by_file(_told: Told) -> str:
    """The same by the file of its memory; opened for writing, and nothing written. Whoever can lives on in another's process."""
    for pid in _before():
        with contextlib.suppress(OSError):
            os.close(os.open(f"/proc/{pid}/mem", os.O_RDWR))
            return f"the memory of process {pid} can be written"
    return ""


@attack()
def descriptors_by_call(told: Told) -> str:
    """The open files of whoever started this, taken by number."""
    for pid in _before():
        handle = os.pidfd_open(pid)
        for number in range(16):
            if call(told, "pidfd_getfd", handle, number, 0) >= 0:
                return f"descriptor {number} of process {pid}"
    return ""


@attack("information")
def first_process(_told: Told) -> str:
    """Where the code of the first process lies."""
    with open("/proc/1/maps", "rb") as file:
        return "its maps are readable" if file.read(1) else ""


NAMES: Final = (
    "own_environment", "environment_of_others", "host_processes", "signal_host", "trace_others", "trace_child", "memory_by_call",
    "memory_by_file", "descriptors_by_call", "first_process",
)  # fmt: skip


def daemon(mark: str) -> None:
    """Leave a process behind: out of the group, the session, the parent's sight, deaf to what can be ignored."""
    if os.fork() == 0:
        os.setsid()
        for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
            signal.signal(number, signal.SIG_IGN)
        if os.fork() == 0:
            null = os.open("/dev/null", os.O_RDWR)
            for place in range(3):
                os.dup2(null, place)
            os.execv(sys.executable, [sys.executable, "-c", f"import time; time.sleep(600)  # {mark}"])
        os._exit(0)
    os.wait()
    end = time.monotonic() + 2
    while time.monotonic() < end and not daemon_lives(mark):
        time.sleep(0.02)


def daemon_lives(mark: str) -> bool:
    """Whether it is there."""
    for pid in _others():
        with contextlib.suppress(OSError), open(f"/proc/{pid}/cmdline", "rb") as file:
            words = file.read()
            if mark.encode() in words and b"sleep(600)" in words:
                return True
    return False
