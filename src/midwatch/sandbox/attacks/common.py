"""Common: how an attack is declared, run on its own, and told of.

In:   attacks by `attack`, the bait by `Told`. Out: `report`, one JSON line each. See the package's head.
"""

from __future__ import annotations

import ctypes
import errno
import json
import os
import select
import signal
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

__all__ = ["REFUSED", "Told", "attack", "call", "failed", "got", "report"]

REFUSED: Final = (errno.EPERM, errno.ENOSYS, errno.EACCES)
_SECONDS: Final = 15
_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long


@dataclass(frozen=True)
class Told:
    """The bait, and what bounds this sandbox is said to have.

    Attributes:
        token: before every line, so that nothing else on the same stream is taken for one; also part of every name that is made.
        numbers: of system calls on this machine.
        workspace: where this program was started.
    """

    token: str
    numbers: Mapping[str, int]
    canary: str
    secret: str
    home: str
    home_names: tuple[str, ...]
    folder: str
    hostname: str
    victim: int
    victim_mark: str
    tcp: int
    udp: int
    address: str
    address_tcp: int
    abstract: str
    path_socket: str
    shared_file: str
    ipc_key: int
    readonly: str
    processes: int
    memory: int
    disk: int
    inodes: int
    file_size: int
    neighbour: Mapping[str, Any]
    workspace: str = field(default_factory=os.getcwd)
    descriptors: tuple[str, ...] = field(default_factory=lambda: tuple(_descriptors()))


Work = Callable[[Told], str]
_REGISTRY: dict[str, tuple[str, Work, tuple[int, ...]]] = {}


def attack(kind: str = "escape", *, dies: tuple[int, ...] = (signal.SIGSYS,)) -> Callable[[Work], Work]:
    """Declare one. It gives what it got, in words; nothing, or `OSError`, when it was held.

    Args:
        kind: `escape`, `information` (it tells, but opens nothing) or `resource` (it takes more than its share).
        dies: signals that end it where it is held.
    """

    def declare(work: Work) -> Work:
        _REGISTRY[work.__name__] = (kind, work, dies)
        return work

    return declare


def call(told: Told, name: str, *arguments: Any) -> int:
    """Make a system call; gives what the kernel gives, an error as its negative number. A call this machine lacks is ENOSYS."""
    if name not in told.numbers:
        return -errno.ENOSYS
    given = (ctypes.c_long(value) if isinstance(value, int) else value for value in arguments)
    result = int(_libc.syscall(ctypes.c_long(told.numbers[name]), *given))
    return -ctypes.get_errno() if result == -1 else result


def got(result: int, what: str) -> str:
    """Say that it got `what`, where the call succeeded."""
    if result < 0:
        raise OSError(-result, os.strerror(-result))
    return what


def failed(result: int, what: str) -> str:
    """Say that it reached `what`, where the call was not refused but failed later, on arguments that lead nowhere."""
    if -result in REFUSED:
        raise OSError(-result, os.strerror(-result))
    return f"{what} (answered {result})"


def report(told: Told, names: tuple[str, ...]) -> None:
    """Run the attacks named, each in a process of its own, and tell of each at once."""
    for name in names:
        kind, work, dies = _REGISTRY[name]
        held, detail = _alone(work, told, dies)
        line = {"name": name, "kind": kind, "held": held, "detail": detail[:300]}
        sys.stdout.write(f"{told.token} {json.dumps(line)}\n")
        sys.stdout.flush()


def _alone(work: Work, told: Told, dies: tuple[int, ...]) -> tuple[bool, str]:
    heard, into = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(heard)
        try:
            words = work(told)
            answer = {"held": not words, "detail": words or "nothing there"}
        except (OSError, MemoryError) as refusal:
            answer = {"held": True, "detail": str(refusal) or type(refusal).__name__}
        except BaseException as broken:  # noqa: BLE001 - an attack that cannot tell counts as one that got out
            answer = {"held": False, "detail": f"the attack itself broke: {type(broken).__name__}: {broken}"}
        os.write(into, json.dumps(answer).encode())
        os._exit(0)
    os.close(into)
    ready = select.select([heard], [], [], _SECONDS)[0]
    data = os.read(heard, 65_536) if ready else b""
    os.close(heard)
    if not ready:
        os.kill(child, signal.SIGKILL)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if data:
        answer = json.loads(data)
        return bool(answer["held"]), str(answer["detail"])
    if -status in dies:
        return True, f"killed by {signal.Signals(-status).name}"
    return False, f"it does not say (ended with {status})"


def _descriptors() -> list[str]:
    """What this program was given beside its three streams."""
    found = []
    for name in os.listdir("/proc/self/fd"):
        if int(name) > 2:
            try:
                target = os.readlink(f"/proc/self/fd/{name}")
            except OSError:  # it was the listing's own
                continue
            found.append(f"{name}: {target}")
    return found
