"""Mounts: the few system calls that a sandbox's file view is built from, in the mount namespace of whoever calls.

In:   absolute paths of this machine, owners. Out: mounts, and nothing but mounts.
May import: the standard library only: the launcher loads it into a bare interpreter. Must not know: profiles, bubblewrap.
Why an identity-mapped lower layer: the agent acts under a user of its own. The workspace's owner is shown as that user, so that
the agent may change, in its copy, what the owner may change, and nobody else's user id is lent to it.
Source: open_tree(2), mount_setattr(2), user_namespaces(7); Documentation/filesystems/overlayfs.rst.
"""

from __future__ import annotations

import ctypes
import errno
import os
import signal
from typing import Final

__all__ = [
    "Mapping",
    "Owner",
    "bind",
    "detach",
    "enter",
    "enter_private",
    "enter_user",
    "overlay",
    "tmpfs",
]

_libc = ctypes.CDLL(None, use_errno=True)

CLONE_NEWNS: Final = 0x00020000
CLONE_NEWUSER: Final = 0x10000000
_MS_NOSUID, _MS_NODEV, _MS_REC, _MS_PRIVATE = 2, 4, 16384, 1 << 18
_MNT_DETACH, _UMOUNT_NOFOLLOW = 2, 8
_AT_FDCWD, _AT_EMPTY_PATH, _AT_RECURSIVE = -100, 0x1000, 0x8000
_OPEN_TREE_CLONE, _OPEN_TREE_CLOEXEC = 1, os.O_CLOEXEC
_MOVE_MOUNT_F_EMPTY_PATH = 4
_ATTR_RDONLY, _ATTR_NOSUID, _ATTR_NODEV, _ATTR_IDMAP = 1, 2, 4, 0x00100000
_SYS_OPEN_TREE, _SYS_MOVE_MOUNT, _SYS_MOUNT_SETATTR = 428, 429, 442

Owner = tuple[int, int]
"""User and group id."""


class _MountAttr(ctypes.Structure):
    _fields_ = (
        ("attr_set", ctypes.c_uint64),
        ("attr_clr", ctypes.c_uint64),
        ("propagation", ctypes.c_uint64),
        ("userns_fd", ctypes.c_uint64),
    )


def _checked(result: int, what: str) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
    return result


def _call(number: int, *arguments: object, what: str) -> int:
    _libc.syscall.restype = ctypes.c_long
    return _checked(int(_libc.syscall(ctypes.c_long(number), *arguments)), what)


def _mount(source: str, target: str, kind: str, flags: int, data: str = "") -> None:
    result = _libc.mount(source.encode(), os.fsencode(target), kind.encode(), ctypes.c_ulong(flags), os.fsencode(data))
    _checked(result, f"mount {kind} on {target}")


def _unshare(flags: int) -> None:
    _checked(_libc.unshare(flags), "unshare")


def enter(namespace: int) -> None:
    """Enter the mount namespace that a descriptor leads to."""
    _checked(_libc.setns(namespace, CLONE_NEWNS), "enter a mount namespace")


def enter_private() -> None:
    """Enter a mount namespace of one's own, from which nothing spreads to the machine."""
    _unshare(CLONE_NEWNS)
    _checked(_libc.mount(b"none", b"/", None, ctypes.c_ulong(_MS_REC | _MS_PRIVATE), None), "make mounts private")


def enter_user() -> None:
    """Enter a user and a mount namespace in which a plain user may mount; the user is 0 there and itself outside."""
    uid, gid = os.getuid(), os.getgid()
    _unshare(CLONE_NEWUSER | CLONE_NEWNS)
    for name, text in (("setgroups", "deny"), ("uid_map", f"0 {uid} 1"), ("gid_map", f"0 {gid} 1")):
        with open(f"/proc/self/{name}", "w", encoding="ascii") as file:
            file.write(text)
    _checked(_libc.mount(b"none", b"/", None, ctypes.c_ulong(_MS_REC | _MS_PRIVATE), None), "make mounts private")


def tmpfs(target: str, *, size: int, inodes: int, mode: int = 0o700) -> None:
    """Mount an empty file system that holds at most `size` bytes and `inodes` files and folders."""
    _mount("workspace", target, "tmpfs", _MS_NOSUID | _MS_NODEV, f"size={size},nr_inodes={inodes},mode={mode:o}")


def overlay(target: str, *, lower: str, upper: str, work: str, user: bool) -> None:
    """Mount an overlay. `user`: marks are kept in `user.` attributes, which is all that a plain user may write.

    Raises:
        OSError: the kernel refuses. Also where a path has a sign that the options would take apart.
    """
    for path in (lower, upper, work):
        if any(sign in path for sign in ",:\\"):
            raise OSError(errno.EINVAL, f"`{path}` has a sign that an overlay's options cannot hold")
    data = f"lowerdir={lower},upperdir={upper},workdir={work},redirect_dir=off,metacopy=off,index=off"
    if user:
        data = f"lowerdir={lower},upperdir={upper},workdir={work},userxattr"
    _mount("workspace", target, "overlay", _MS_NOSUID | _MS_NODEV, data)


def bind(source: str, target: str, *, to: int | None = None, recursive: bool = False) -> None:
    """Show `source` at `target`, read-only, without set-user-id and devices.

    Args:
        to: a user namespace, by which owners are shown; see `Mapping`.
        recursive: with the mounts below it; not together with `to`.

    Raises:
        OSError: the kernel or the source's file system cannot do that.
    """
    clone = _OPEN_TREE_CLONE | _OPEN_TREE_CLOEXEC | (_AT_RECURSIVE if recursive else 0)
    tree = _call(
        _SYS_OPEN_TREE,
        ctypes.c_int(_AT_FDCWD),
        ctypes.c_char_p(os.fsencode(source)),
        ctypes.c_uint(clone),
        what=f"open `{source}`",
    )
    try:
        attributes = _MountAttr(attr_set=_ATTR_RDONLY | _ATTR_NOSUID | _ATTR_NODEV)
        if to is not None:
            attributes.attr_set |= _ATTR_IDMAP
            attributes.userns_fd = to
        _call(
            _SYS_MOUNT_SETATTR,
            ctypes.c_int(tree),
            ctypes.c_char_p(b""),
            ctypes.c_uint(_AT_EMPTY_PATH | (_AT_RECURSIVE if recursive else 0)),
            ctypes.byref(attributes),
            ctypes.c_size_t(ctypes.sizeof(attributes)),
            what=f"set attributes of `{source}`",
        )
        _call(
            _SYS_MOVE_MOUNT,
            ctypes.c_int(tree),
            ctypes.c_char_p(b""),
            ctypes.c_int(_AT_FDCWD),
            ctypes.c_char_p(os.fsencode(target)),
            ctypes.c_uint(_MOVE_MOUNT_F_EMPTY_PATH),
            what=f"mount `{source}` at {target}",
        )
    finally:
        os.close(tree)


class Mapping:
    """User namespaces by which owners are shown: files of the user `there` as files of `here`, all others as nobody's.

    Each pair takes a process to make, so it is made once. Takes CAP_SETUID and CAP_SETGID.
    """

    def __init__(self) -> None:
        self._made: dict[tuple[Owner, Owner], int] = {}

    def __enter__(self) -> Mapping:  # noqa: PYI034 - `typing` is not loaded here
        return self

    def __exit__(self, *_: object) -> None:
        for descriptor in self._made.values():
            os.close(descriptor)

    def of(self, pair: tuple[Owner, Owner] | None) -> int | None:
        """Give the namespace for `(there, here)`, open as long as this is; None for no pair."""
        if pair is not None and pair not in self._made:
            self._made[pair] = _namespace(*pair)
        return None if pair is None else self._made[pair]


def _namespace(there: Owner, here: Owner) -> int:
    ready, told = os.pipe()
    child = os.fork()
    if child == 0:  # it only has to exist in the namespace until it was opened
        try:
            os.close(ready)
            _unshare(CLONE_NEWUSER)
            os.write(told, b"x")
            signal.pause()
        finally:
            os._exit(1)
    try:
        os.close(told)
        if os.read(ready, 1) != b"x":
            raise OSError(errno.EPERM, "a user namespace for mapped mounts was refused")
        for name, pair in (("uid_map", (there[0], here[0])), ("gid_map", (there[1], here[1]))):
            with open(f"/proc/{child}/{name}", "w", encoding="ascii") as file:
                file.write(f"{pair[0]} {pair[1]} 1")
        return os.open(f"/proc/{child}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
    finally:
        os.close(ready)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def detach(target: str) -> None:
    """Take a mount away, busy or not; none there is fine."""
    if _libc.umount2(os.fsencode(target), _MNT_DETACH | _UMOUNT_NOFOLLOW) < 0:
        number = ctypes.get_errno()
        if number not in (errno.EINVAL, errno.ENOENT):
            raise OSError(number, f"unmount {target}: {os.strerror(number)}")
