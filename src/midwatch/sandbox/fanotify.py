"""Fanotify: which files of a run's workspace were read, written and executed, as the kernel saw it.

In:   a descriptor of the merged folder of the run's overlay, in whatever mount namespace that is. Out: `Observed`, one for each window.
May import: effects (names), errors. Must not know: layers, calls, who asks.
One mark on the overlay's superblock sees every process in every namespace; nothing inside can see or stop it. It observes, and
decides nothing: a verdict given in Python would stop the tree whenever this process is slow, and the kernel allows when nobody
answers. So its owner must ask `alive` (or be told by `died`), and kill the run when it is not.
Why descriptors and not handles: an overlay gives handles that can be opened again only when it is mounted with `nfs_export`.
How a descriptor gets its name: its path is told from the root of the namespace of whoever opened the file (`/workspace/a`), or, once
that namespace is gone, from the root of its mount (`/a`). So a descriptor of the mount's own root is held for each mount, asked for its
path before and after, and cut off. What cannot be named counts as lost: never guessed, never dropped.
Source: fanotify(7), fanotify_init(2), fanotify_mark(2), statx(2).
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import os
import re
import select
import struct
import termios
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from midwatch.errors import SandboxError
from midwatch.sandbox.effects import shown

__all__ = ["Listener", "Observed"]

_ACCESS, _MODIFY, _CLOSE_WRITE, _CLOSE_NOWRITE, _OPEN, _OPEN_EXEC = 0x1, 0x2, 0x8, 0x10, 0x20, 0x1000
_OVERFLOW: Final = 0x4000
_WATCHED: Final = _ACCESS | _MODIFY | _CLOSE_WRITE | _CLOSE_NOWRITE | _OPEN | _OPEN_EXEC
_INIT: Final = 0x1 | 0x2 | 0x10 | 0x20
"""CLOEXEC, NONBLOCK, UNLIMITED_QUEUE, UNLIMITED_MARKS; of the class that only notifies."""

_MARK: Final = 0x1 | 0x100  # add; for the whole file system
_EVENT: Final = struct.Struct("=IBBHQii")
_READ: Final = 170 * _EVENT.size
"""Each event of a read holds a descriptor, so a read is kept well below the usual bound of 1,024."""

_BACKLOG: Final = 1_000_000
"""Events that may wait; the kernel keeps some hundred bytes for each."""

_STUCK_S: Final = 5.0
_BEAT_MS: Final = 250
_OVERLAY: Final = 0x794C7630
_STATX_MNT_ID: Final = 0x1000
_EMPTY_PATH: Final = 0x1000
_DELETED: Final = b" (deleted)"

_libc: Final = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True, slots=True)
class Observed:
    """What was seen in one window. Paths are relative to the workspace, as `shown`; folders are not told.

    Attributes:
        read: files whose content may have been learned: read, executed, or opened without being written.
        executed: files that were started as a program. A script given to its interpreter is only read.
        written: files opened for writing; through a mapping they may have been read as well.
        lost: something happened that is not told here, so that nothing can be concluded from what is absent.
    """

    read: frozenset[str] = frozenset()
    executed: frozenset[str] = frozenset()
    written: frozenset[str] = frozenset()
    lost: bool = False


@dataclass(frozen=True, slots=True)
class _Mount:
    """A descriptor of a mount's root, and where in the workspace that root is: empty, or ending in `/`."""

    handle: int
    root: bytes

    def path(self) -> bytes:
        return _path(self.handle).rstrip(b"/") + b"/"


class Listener:
    """Watches one overlay from its making to `close`. Its thread reads all the time; `begin` and `take` bound a window."""

    def __init__(
        self, merged: int, *, died: Callable[[str], None] | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Begin to watch; the first window begins now.

        Args:
            merged: descriptor of the merged folder's root, `O_PATH` or not; it is duplicated.
            died: told once, from the listener's thread, why nothing is seen any more. The run must be killed then.
            clock: seconds, only for `alive`.

        Raises:
            SandboxError: this process may not watch, or the folder is no overlay's.
        """
        self._died, self._clock = died, clock
        self._lock = threading.Lock()
        self._seen: dict[bytes, int] = {}
        self._mounts: dict[int, _Mount] = {}
        self._unknown: set[int] = set()
        self._lost, self._failed, self._closing = False, "", False
        self._busy_since: float | None = None
        self._fd = _opened(merged)
        held = fcntl.fcntl(merged, fcntl.F_DUPFD_CLOEXEC, 3)
        self._merged, self._device = held, os.fstat(held).st_dev
        self._mounts[_mount_of(held)] = _Mount(held, b"")
        self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._thread = threading.Thread(target=self._run, name="midwatch-fanotify", daemon=True)
        self._thread.start()

    def begin(self) -> None:
        """Forget what was seen until now."""
        self.take()

    def take(self) -> Observed:
        """Give all that was seen since the last `begin` or `take`, to the last event that had happened when this was called."""
        with self._lock:
            if self._usable():
                try:
                    self._drain()
                except OSError as problem:
                    self._failed = str(problem)
            seen, self._seen = self._seen, {}
            lost = self._lost or not self._usable()
            self._lost = False
            self._unknown.clear()
        return Observed(
            read=_told(seen, lambda mask: bool(mask & (_ACCESS | _CLOSE_NOWRITE | _OPEN_EXEC)) or not mask & _MODIFY),
            executed=_told(seen, lambda mask: bool(mask & _OPEN_EXEC)),
            written=_told(seen, lambda mask: bool(mask & (_MODIFY | _CLOSE_WRITE))),
            lost=lost,
        )

    def alive(self) -> bool:
        """Whether every event is still seen. When not, what the sandbox does is not known any more: kill it."""
        since = self._busy_since
        stuck = since is not None and self._clock() - since > _STUCK_S
        return self._usable() and self._thread.is_alive() and not stuck

    def when_it_dies(self, died: Callable[[str], None]) -> None:
        """Say whom to tell, from the listener's thread, why nothing is seen any more; at once where that is so already."""
        with self._lock:
            self._died = died
            failed = self._failed
        if failed:
            died(failed)

    def learn(self, pid: int) -> None:
        """Look through the eyes of a living process of the sandbox, so that what short-lived ones open can be named, too.

        Not needed while any process of its mount namespace lives when the first file is opened.
        """
        with self._lock:
            for mount in list(_overlays(pid)):
                self._hold(mount, pid)

    def close(self) -> None:
        """Stop watching. Safe to repeat."""
        self._closing = True
        with contextlib.suppress(OSError):
            os.eventfd_write(self._wake, 1)
        if threading.current_thread() is not self._thread:
            self._thread.join(_STUCK_S)

    def _usable(self) -> bool:
        return not self._failed and not self._closing

    def _drain(self) -> None:
        """Read what waits. Its makers are stopped, as a rule; when they are not, there is an end all the same."""
        until = self._clock() + _STUCK_S
        while self._round():
            if self._clock() > until:
                self._lost = True
                return

    def _run(self) -> None:
        """Read until closed. However it ends, its owner learns of it."""
        why = "its thread was ended"
        try:
            poll = select.poll()
            poll.register(self._fd, select.POLLIN)
            poll.register(self._wake, select.POLLIN)
            while self._usable():
                poll.poll(_BEAT_MS)
                self._busy_since = self._clock()
                self._turn()
                self._busy_since = None
        except OSError as problem:
            why = str(problem)
        finally:
            with self._lock:
                if not self._closing:
                    self._failed = self._failed or why
                self._give_back()
            if self._failed and self._died is not None:
                self._died(f"the sandbox is no longer observed: {self._failed}")

    def _turn(self) -> None:
        """Read one round, unless there is nothing.

        Raises:
            OSError: the kernel's queue cannot be read, or grows faster than it is read.
        """
        with self._lock:
            more = not self._closing and self._round()
            if more and _waiting(self._fd) > _BACKLOG:
                raise OSError(errno.EOVERFLOW, f"more than {_BACKLOG:,} events wait")

    def _give_back(self) -> None:
        for handle in (self._fd, self._wake, *(mount.handle for mount in self._mounts.values())):
            with contextlib.suppress(OSError):
                os.close(handle)
        self._mounts.clear()

    def _round(self) -> bool:
        """Read and name what one read gives; whether there was anything. With the lock held."""
        try:
            data = os.read(self._fd, _READ)
        except BlockingIOError:
            return False
        except OSError as problem:
            if problem.errno in (errno.EBADF, errno.EINVAL):
                raise
            self._lost = True  # the event is gone from the queue, and this process had no descriptor for it
            return True
        events = list(_events(data))
        try:
            self._named(events)
        finally:
            for _, handle, _ in events:
                if handle >= 0:
                    os.close(handle)
        return True

    def _named(self, events: list[tuple[int, int, int]]) -> None:
        """Name each event's file. When a mount is moved or goes away meanwhile, all are named again."""
        own = os.getpid()
        for _ in range(4):
            before = {mount: held.path() for mount, held in self._mounts.items()}
            names: list[tuple[bytes | None, int]] = []
            for mask, handle, pid in events:
                if pid != own or mask & _OVERFLOW:
                    name = self._name(handle, pid, before) if handle >= 0 else None
                    names.append((name, mask))
            if before == {mount: self._mounts[mount].path() for mount in before}:
                break
        else:
            names.append((None, 0))
        for name, mask in names:
            if name is None:
                self._lost = True
            else:
                self._seen[name] = self._seen.get(name, 0) | mask

    def _name(self, handle: int, pid: int, paths: dict[int, bytes]) -> bytes | None:
        try:
            mount = _mount_of(handle)
            if mount not in self._mounts and not self._found(mount, pid):
                return None
            held = self._mounts[mount]
            if mount not in paths:
                paths[mount] = held.path()
            path = _path(handle)
        except OSError:  # longer than the kernel tells
            return None
        if not path.startswith(paths[mount]):
            return None
        name = held.root + path[len(paths[mount]) :]
        if name.endswith(_DELETED) and not self._is(name, handle):
            name = name.removesuffix(_DELETED)
        return name

    def _is(self, name: bytes, handle: int) -> bool:
        try:
            there, here = os.stat(name, dir_fd=self._merged, follow_symlinks=False), os.fstat(handle)
        except OSError:
            return False
        return (there.st_dev, there.st_ino) == (here.st_dev, here.st_ino)

    def _found(self, mount: int, pid: int) -> bool:
        """Find a mount's root through whoever opened the file, or any process that shares its namespace."""
        if mount in self._unknown:
            return False
        if any(self._hold(mount, candidate) for candidate in (pid, *_one_of_each_namespace())):
            return True
        self._unknown.add(mount)
        return False

    def _hold(self, mount: int, pid: int) -> bool:
        if mount in self._mounts:
            return True
        there = _overlays(pid).get(mount)
        if there is None:
            return False
        point, root = there
        with contextlib.suppress(OSError):
            handle = os.open(b"/proc/%d/root" % pid + point, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
            if _mount_of(handle) == mount and os.fstat(handle).st_dev == self._device:
                self._mounts[mount] = _Mount(handle, root)
                return True
            os.close(handle)
        return False


def _opened(merged: int) -> int:
    """Make the kernel's queue, with its one mark.

    Raises:
        SandboxError: see `Listener`.
    """
    described = ctypes.create_string_buffer(256)
    if _libc.fstatfs(merged, described) != 0 or struct.unpack_from("=l", described)[0] != _OVERLAY:
        raise SandboxError(
            "only a run's own overlay is observed: a mark on another file system would see the whole machine"
        )
    queue = _libc.fanotify_init(_INIT, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | getattr(os, "O_LARGEFILE", 0))
    if queue < 0:
        raise _refused("fanotify_init")
    if _libc.fanotify_mark(queue, _MARK, ctypes.c_uint64(_WATCHED), merged, b".") != 0:
        problem = _refused("fanotify_mark")
        os.close(queue)
        raise problem
    return int(queue)


def _refused(call: str) -> SandboxError:
    number = ctypes.get_errno()
    remedies = {
        errno.EPERM: "it needs root (CAP_SYS_ADMIN); run Midwatch as root, or set `observe` to false in the profile",
        errno.EMFILE: "raise `fs.fanotify.max_user_groups` or the number of open files, or run fewer sandboxes at once",
        errno.ENOSYS: "this kernel has no fanotify; use one that has, or set `observe` to false in the profile",
    }
    told = remedies.get(number, "`midwatch doctor` shows what this machine has")
    return SandboxError(f"reads and executions cannot be observed: {call}: {os.strerror(number)}; {told}")


def _events(data: bytes) -> Iterator[tuple[int, int, int]]:
    """Read `(mask, descriptor, process)` of each event."""
    at = 0
    while at + _EVENT.size <= len(data):
        length, _, _, _, mask, handle, pid = _EVENT.unpack_from(data, at)
        yield mask, handle, pid
        at += max(length, _EVENT.size)


def _waiting(queue: int) -> int:
    size = struct.unpack("=i", fcntl.ioctl(queue, termios.FIONREAD, b"\0" * 4))[0]
    return int(size) // _EVENT.size


def _path(handle: int) -> bytes:
    return os.readlink(b"/proc/self/fd/%d" % handle)  # noqa: PTH115 - `Path` takes no bytes


_STATX: Final = ctypes.create_string_buffer(256)
_STATX_LOCK: Final = threading.Lock()


def _mount_of(handle: int) -> int:
    """Give the number of the mount through which a descriptor was opened."""
    with _STATX_LOCK:
        if _libc.statx(handle, b"", _EMPTY_PATH, _STATX_MNT_ID, _STATX) != 0:
            raise OSError(ctypes.get_errno(), "statx")
        return int(struct.unpack_from("=Q", _STATX, 144)[0])


def _overlays(pid: int) -> dict[int, tuple[bytes, bytes]]:
    """Read a process's overlay mounts: number, mount point, and which folder of the file system it shows."""
    found: dict[int, tuple[bytes, bytes]] = {}
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/mountinfo").read_bytes().splitlines():
            left, _, right = line.partition(b" - ")
            fields = left.split(b" ")
            if right.startswith(b"overlay ") and len(fields) >= 5:
                root = _plain(fields[3]).strip(b"/")
                found[int(fields[0])] = (_plain(fields[4]), root + b"/" if root else b"")
    return found


def _one_of_each_namespace() -> Iterator[int]:
    seen: set[str] = set()
    for entry in os.listdir("/proc"):  # noqa: PTH208
        if entry.isdecimal():
            with contextlib.suppress(OSError):
                space = os.readlink(f"/proc/{entry}/ns/mnt")  # noqa: PTH115
                if space not in seen:
                    seen.add(space)
                    yield int(entry)


def _plain(field: bytes) -> bytes:
    return re.sub(rb"\\([0-7]{3})", lambda found: bytes([int(found[1], 8)]), field)


def _told(seen: dict[bytes, int], fits: Callable[[int], bool]) -> frozenset[str]:
    return frozenset(shown(name) for name, mask in seen.items() if fits(mask))
