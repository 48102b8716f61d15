"""Looking: which content a file had that a call read or executed, told by its hash.

In:   paths that were seen to be read or executed, what earlier calls and this one changed, the workspace below. Out: `Change`s.
May import: beneath, effects, fanotify's `Observed`. Must not know: who mounted the workspace, what is allowed.

Read after the call, outside of the sandbox, while nothing inside runs. What the run itself left has its hash already; the workspace's own
files are read here, once: a digest is kept under device, inode, size and both times of change. A file that changed a moment ago is read
again the next time, since its times may not yet tell one change from the next.
Bounded: what is larger, or more than one reading takes, is told with size and time and the flag `unhashed`.
"""

from __future__ import annotations

import hashlib
import os
import stat
import threading
import time
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from midwatch.sandbox.beneath import Folders, open_root, parts_of
from midwatch.sandbox.effects import Change, Op
from midwatch.sandbox.fanotify import Observed

__all__ = ["Digests", "looked_at"]

FILE: Final = 64 << 20
READING: Final = 256 << 20
"""Bytes of one file, and of all that one call's reading takes; what is over is told without a hash."""

_KEPT: Final = 65_536
_SETTLED_NS: Final = 2_000_000_000
"""How long ago a file must have changed for its times to be relied on."""

_READ: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_Key = tuple[int, int, int, int, int]


@dataclass(slots=True)
class Digests:
    """Digests of files that this process has read, of a bounded number, those used last."""

    most: int = _KEPT
    _kept: OrderedDict[_Key, str] = field(default_factory=OrderedDict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def get(self, state: os.stat_result) -> str | None:
        """Give the digest of a file that is as it was when it was read."""
        with self._lock:
            digest = self._kept.get(_key(state))
            if digest is not None:
                self._kept.move_to_end(_key(state))
            return digest

    def put(self, state: os.stat_result, digest: str, *, now_ns: int) -> None:
        """Keep a digest, unless the file's times are too young to be relied on."""
        if max(state.st_ctime_ns, state.st_mtime_ns) > now_ns - _SETTLED_NS:
            return
        with self._lock:
            self._kept[_key(state)] = digest
            while len(self._kept) > self.most:
                self._kept.popitem(last=False)


_SHARED: Final = Digests()


def looked_at(
    seen: Observed,
    changes: Sequence[Change],
    *,
    earlier: Mapping[str, Change],
    lower: Path,
    began_ns: int | None = None,
    digests: Digests = _SHARED,
    most: tuple[int, int] = (FILE, READING),
) -> tuple[Change, ...]:
    """Give what was executed, and what was read and not changed, with the content that it had when the call ended.

    A name that is gone was there when it was opened; it has no content to tell.

    Args:
        changes: of this call. earlier: `fold` of the run's layers before it. lower: the workspace.
        began_ns: when the run first saw `lower`; what changed there later is flagged `moved`: the call may have seen another content.
        most: bytes of one file, and of all files, that are read here.
    """
    changed = {change.path: change for change in changes}
    wanted: list[tuple[str, Op]] = [(path, "executed") for path in seen.executed]
    wanted += [(path, "read") for path in seen.read - seen.executed - changed.keys()]
    if not wanted:
        return ()
    wanted.sort()
    root = open_root(lower)
    base = _Base(root, began_ns, digests, most)
    try:
        return tuple(_looked(path, op, changed.get(path), earlier.get(path), base) for path, op in wanted)
    finally:
        base.close()
        os.close(root)


def _looked(path: str, op: Op, now: Change | None, left: Change | None, base: _Base) -> Change:
    """Tell one file.

    Args:
        now: how this call changed it. left: how earlier calls of the run did.
    """
    if now is not None and now.op == "deleted":
        return Change(op, path, "file", sha256=now.before if now.kind == "file" else None)
    known = now or left
    if known is None:
        return base.look(path, op)
    if known.op == "deleted":
        return Change(op, path, "file")
    return Change(op, path, known.kind, known.mode, known.size, known.sha256)


class _Base:
    """The workspace's own files. Asked for in order of their paths, so that the way to a neighbour is short."""

    def __init__(self, root: int, began_ns: int | None, digests: Digests, most: tuple[int, int]) -> None:
        self._folders = Folders(root)
        self._began_ns, self._digests = began_ns, digests
        self._file, self._left = most

    def look(self, path: str, op: Op) -> Change:
        head, _, _ = path.rpartition("/")
        name = parts_of(path)[-1]
        try:
            folder = self._folders.open(head)
            state = os.stat(name, dir_fd=folder, follow_symlinks=False)
        except OSError:  # it was made and went in the call, or lies where an overlay does not look
            return Change(op, path, "file")
        if not stat.S_ISREG(state.st_mode):
            return Change(op, path, "file")
        moved = self._began_ns is not None and state.st_ctime_ns > self._began_ns
        digest = self._digests.get(state) or self._read(folder, name, state)
        flags = (*(("moved",) if moved else ()), *(() if digest else ("unhashed",)))
        times = None if digest else state.st_mtime_ns
        return Change(op, path, "file", stat.S_IMODE(state.st_mode), state.st_size, digest, flags=flags, mtime_ns=times)

    def _read(self, folder: int, name: bytes, state: os.stat_result) -> str | None:
        """Read one file; None where it is too much, may not be read, or changes meanwhile."""
        if state.st_size > min(self._file, self._left):
            return None
        self._left -= state.st_size
        now_ns = time.time_ns()  # before it is read: what changes from here on is younger
        try:
            file = os.open(name, _READ, dir_fd=folder)
        except OSError:
            return None
        try:
            if _key(os.fstat(file)) != _key(state):
                return None
            digest = _digest(file, state.st_size)
            if digest is None or _key(os.fstat(file)) != _key(state):
                return None
        except OSError:
            return None
        finally:
            os.close(file)
        self._digests.put(state, digest, now_ns=now_ns)
        return digest

    def close(self) -> None:
        self._folders.close()


def _digest(file: int, size: int) -> str | None:
    """Hash exactly `size` bytes; None where there are fewer, or more."""
    digest, left = hashlib.sha256(), size
    while data := os.read(file, min(left + 1, 1 << 20)):
        left -= len(data)
        if left < 0:
            return None
        digest.update(data)
    return digest.hexdigest() if left == 0 else None


def _key(state: os.stat_result) -> _Key:
    return (state.st_dev, state.st_ino, state.st_mtime_ns, state.st_size, state.st_ctime_ns)
