"""Tripwire: watches a node's function while it runs, by Python's audit events, and stops the run when it reaches outside.

In:   a function of a graph's author. Out: the same function, watched; what it does outside the process's memory is refused.
May import: the standard library. Must not know: the kernel, graphs.
Why it is no sandbox: native code that is loaded already, a thread that the function starts (older Pythons tell nothing of those),
and whoever removes the watch on purpose, pass it by. It turns "this node has no effects of its own" from a sentence in a review into
something that is noticed when it stops being true.
Source: PEP 578 and the table of audit events in the Python documentation.
"""

from __future__ import annotations

import functools
import inspect
import os
import sys
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Final, TypeVar, cast

__all__ = ["guarded", "is_guarded"]

F = TypeVar("F", bound=Callable[..., Any])
Trip = Callable[[str], BaseException]

_WRITES: Final = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_REFUSED: Final = frozenset(
    {
        "_thread.start_joinable_thread",
        "_thread.start_new_thread",
        "ctypes.dlopen",
        "os.chmod",
        "os.chown",
        "os.exec",
        "os.fork",
        "os.forkpty",
        "os.kill",
        "os.killpg",
        "os.link",
        "os.mkdir",
        "os.posix_spawn",
        "os.putenv",
        "os.remove",
        "os.rename",
        "os.rmdir",
        "os.setxattr",
        "os.spawn",
        "os.symlink",
        "os.system",
        "os.truncate",
        "os.unsetenv",
        "os.utime",
        "pty.spawn",
        "shutil.chown",
        "socket.bind",
        "socket.connect",
        "socket.getaddrinfo",
        "socket.sendmsg",
        "socket.sendto",
        "sqlite3.connect",
        "subprocess.Popen",
    }
)

_INSIDE: ContextVar[Trip | None] = ContextVar("midwatch_tripwire", default=None)
_KNOWN: weakref.WeakSet[Any] = weakref.WeakSet()
_lock = threading.Lock()
_armed: list[bool] = []


def guarded(fn: F, trip: Trip) -> F:
    """Watch a function, synchronous or not.

    Args:
        trip: makes what is raised in the function, from a sentence that says what it did.
    """
    _arm()
    if inspect.iscoroutinefunction(fn):

        @functools.wraps(fn)
        async def later(*args: Any, **kwargs: Any) -> Any:
            with _watched(trip):
                return await fn(*args, **kwargs)

        made: Any = later
    else:

        @functools.wraps(fn)
        def now(*args: Any, **kwargs: Any) -> Any:
            with _watched(trip):
                return fn(*args, **kwargs)

        made = now
    _KNOWN.add(made)
    return cast("F", made)


def is_guarded(fn: object) -> bool:
    """Say whether this very function is watched."""
    return inspect.isfunction(fn) and fn in _KNOWN


@contextmanager
def _watched(trip: Trip) -> Iterator[None]:
    token = _INSIDE.set(trip)
    try:
        yield
    finally:
        _INSIDE.reset(token)


def _arm() -> None:
    """Add the hook, once a process; it cannot be taken away again."""
    with _lock:
        if not _armed:
            sys.addaudithook(_hook)
            _armed.append(True)


def _hook(event: str, args: tuple[Any, ...]) -> None:
    if event != "open" and event not in _REFUSED:
        return
    trip = _INSIDE.get()
    if trip is None or (event == "open" and not _is_write(args)):
        return
    token = _INSIDE.set(None)  # what stopping itself writes is the kernel's
    try:
        raised = trip(f"a guarded function reached outside (`{event}`); do that in a tool of the fleet instead")
    finally:
        _INSIDE.reset(token)
    raise raised


def _is_write(args: tuple[Any, ...]) -> bool:
    path, mode, flags = (*args, None, None, None)[:3]
    if isinstance(path, str) and "__pycache__" in path:
        return False  # the import of a module writes its own cache
    wanted = isinstance(mode, str) and any(letter in mode for letter in "wax+")
    return wanted or (isinstance(flags, int) and bool(flags & _WRITES))
