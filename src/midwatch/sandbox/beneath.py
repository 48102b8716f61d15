"""Beneath: files below one open folder, by names that somebody hostile may have chosen.

In:   a descriptor of the folder, names as bytes. Out: descriptors; nothing outside of the folder is ever opened.
May import: errors, effects. Must not know: overlays, layers, who asks.
Why system calls by hand: `openat2` alone refuses a link in *every* component and every way out in one step that nobody can race, and
`renameat2` alone can swap two names; Python has neither. Where the machine lacks them the answer is `SandboxError`, never a weaker walk.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
from collections.abc import Sequence
from typing import Final

from midwatch.errors import SandboxError
from midwatch.sandbox.effects import raw

__all__ = [
    "EXCHANGE",
    "FOLDER",
    "NOREPLACE",
    "Folders",
    "open_at",
    "open_below",
    "open_root",
    "parts_of",
    "rename_at",
    "sync_all",
]

FOLDER: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
NOREPLACE: Final = 1
EXCHANGE: Final = 2

_NO_XDEV, _NO_MAGICLINKS, _NO_SYMLINKS, _BENEATH = 0x01, 0x02, 0x04, 0x08
_RESOLVE: Final = _NO_MAGICLINKS | _NO_SYMLINKS | _BENEATH
_OPENAT2: Final = 437
_RENAMEAT2: Final = {"x86_64": 316, "aarch64": 276, "riscv64": 276, "ppc64le": 357, "s390x": 347}
_CHUNK: Final = 3500
"""Bytes of a path given to the system at once; its own limit is 4096."""

_KEPT: Final = 64
"""Folders kept open on the way to one."""

_libc: Final = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long


class _How(ctypes.Structure):
    _fields_ = (("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64))


def parts_of(path: str) -> list[bytes]:
    """Give the names of a path that `shown` wrote.

    Raises:
        SandboxError: it is no path below a folder.
    """
    parts = raw(path).split(b"/")
    if any(part in (b"", b".", b"..") or b"\0" in part for part in parts):
        raise SandboxError(f"`{path}` is no path below the workspace; the layer that names it cannot be used")
    return parts


def open_at(folder: int, path: bytes, flags: int, mode: int = 0, *, same_mount: bool = True) -> int:
    """Open one path of at most 4095 bytes below `folder`; no component is a link, none leads out, none lies on another mount.

    Raises:
        OSError: as of `open`; `ELOOP` for a link, `EXDEV` for what would lead out.
        SandboxError: this machine cannot open so.
    """
    how = _How(flags | os.O_CLOEXEC, mode, _RESOLVE | (_NO_XDEV if same_mount else 0))
    for _ in range(128):
        got = int(_libc.syscall(_OPENAT2, folder, ctypes.c_char_p(path), ctypes.byref(how), ctypes.sizeof(how)))
        if got >= 0:
            return got
        number = ctypes.get_errno()
        if number == errno.ENOSYS:
            raise SandboxError("this machine has no `openat2` (Linux 5.6); without it no file is written for a sandbox")
        if number not in (errno.EAGAIN, errno.EINTR):
            raise OSError(number, os.strerror(number), path)
    raise OSError(errno.EAGAIN, "the folder is renamed all the time", path)


def open_below(root: int, parts: Sequence[bytes], *, same_mount: bool = True) -> int:
    """Open a folder below `root`, however deep it is; the caller closes it."""
    here = os.dup(root)
    try:
        at = 0
        while at < len(parts):
            end, size = at, 0
            while end < len(parts) and (end == at or size + len(parts[end]) + 1 < _CHUNK):
                size += len(parts[end]) + 1
                end += 1
            there = open_at(here, b"/".join(parts[at:end]), FOLDER, same_mount=same_mount)
            os.close(here)
            here, at = there, end
    except BaseException:
        os.close(here)
        raise
    return here


class Folders:
    """Folders below a root, by paths as `shown`. Those on the way to the last one stay open, so that neighbours cost one step.

    Paths asked for in order, or in the reverse of it, cost a bounded number of steps each, however deep an agent has made them.
    """

    def __init__(self, root: int, *, same_mount: bool = True) -> None:
        self._root, self._same_mount = root, same_mount
        self._chain: list[tuple[str, int]] = []

    def open(self, path: str) -> int:
        """Give a descriptor of a folder, valid until the next call; empty: the root.

        Raises:
            OSError: as of `open_at`.
        """
        chain = self._chain
        while chain and not f"{path}/".startswith(f"{chain[-1][0]}/"):
            os.close(chain.pop()[1])
        here, folder = chain[-1] if chain else ("", self._root)
        if here == path:
            return folder
        names = path[len(here) + 1 if here else 0 :].split("/")
        if len(names) > _KEPT:
            here = "/".join([*([here] if here else []), *names[:-_KEPT]])
            folder = open_below(folder, parts_of("/".join(names[:-_KEPT])), same_mount=self._same_mount)
            chain.append((here, folder))
            names = names[-_KEPT:]
        for name in names:
            folder = open_at(folder, parts_of(name)[0], FOLDER, same_mount=self._same_mount)
            here = f"{here}/{name}" if here else name
            chain.append((here, folder))
        while len(chain) > 2 * _KEPT:
            os.close(chain.pop(0)[1])
        return folder

    def close(self) -> None:
        """Close all but the root; they are opened again when they are asked for."""
        while self._chain:
            os.close(self._chain.pop()[1])


def open_root(path: os.PathLike[str] | str) -> int:
    """Open the folder that everything else is below of; the caller closes it."""
    return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)


def rename_at(old_folder: int, old: bytes, new_folder: int, new: bytes, how: int) -> None:
    """Rename, either refusing to replace anything (`NOREPLACE`) or swapping the two (`EXCHANGE`).

    Raises:
        OSError: as of `rename`; `EEXIST` where something stands, `EINVAL` where the file system cannot.
        SandboxError: this machine cannot rename so.
    """
    number = _RENAMEAT2.get(platform.machine())
    if number is None:
        raise SandboxError(f"midwatch does not know `renameat2` of a `{platform.machine()}`; nothing is committed here")
    got = _libc.syscall(number, old_folder, ctypes.c_char_p(old), new_folder, ctypes.c_char_p(new), ctypes.c_uint(how))
    if got != 0:
        failed = ctypes.get_errno()
        raise OSError(failed, os.strerror(failed), old, None, new)


def sync_all(folder: int) -> None:
    """Make everything durable that was written to the file system of an open folder."""
    if _libc.syncfs(folder) != 0:
        failed = ctypes.get_errno()
        raise OSError(failed, os.strerror(failed))
