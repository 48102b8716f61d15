"""Probing: tries, one after the other, what an isolating sandbox is made of, each in a process of its own that ends right after.

In:   one JSON object on standard input. Out: one JSON object, each attempt by name: `[whether it worked, in words]`.
May import: `mounts`, the standard library: it runs in a bare interpreter. Must not know: what any of it is needed for.
Why it tries instead of reading settings: a security module, a container around this machine, a file system or an old kernel each
refuse in their own way, and only the call itself tells. Mounts are made in namespaces that end with the attempt.
"""

from __future__ import annotations

import codecs
import ctypes
import errno
import json
import os
import select
import signal
import stat
import struct
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from midwatch.sandbox import mounts

__all__ = ["ATTEMPTS", "main"]

_ATTEMPT_S: Final = 8
_SIZE, _INODES = 1 << 20, 64
_STRANGER: Final = 0x70010000
"""A user id that nobody has."""
_PR_SET_DUMPABLE, _PR_SET_SECCOMP, _PR_SET_NO_NEW_PRIVS, _PR_GET_NO_NEW_PRIVS = 4, 22, 38, 39
_OPENAT2, _LANDLOCK_CREATE_RULESET, _IO_URING_SETUP = 437, 444, 425
_libc = ctypes.CDLL(None, use_errno=True)


class Failed(Exception):
    """What was tried does not hold."""


def user_namespaces(told: Mapping[str, Any]) -> str:
    """A user without rights makes a user namespace and mounts something in it."""
    _drop(told)
    mounts.enter_user()
    mounts.tmpfs(told["folder"], size=_SIZE, inodes=_INODES)
    return "a plain user may make them, and mount inside"


def mount_namespaces(told: Mapping[str, Any]) -> str:
    """A view of its own, from which nothing spreads."""
    _private(told)
    return "private, as root" if told["root"] else "private, in a user namespace"


def overlay(told: Mapping[str, Any]) -> str:
    """Change and delete through an overlay: both show in the upper layer, and the lower one stays as it was."""
    _private(told)
    place = Path(told["folder"])
    lower, upper, work, merged = parts = [place / name for name in ("lower", "upper", "work", "merged")]
    for part in parts:
        part.mkdir()
    for name in ("kept", "gone"):
        (lower / name).write_bytes(b"before")
    mounts.overlay(str(merged), lower=str(lower), upper=str(upper), work=str(work), user=not told["root"])
    (merged / "kept").write_bytes(b"after")
    (merged / "gone").unlink()
    found = (upper / "gone").lstat()
    if not stat.S_ISCHR(found.st_mode) or found.st_rdev or (lower / "kept").read_bytes() != b"before":
        raise Failed("what was changed through it does not stand where it should")
    return "as root" if told["root"] else "`userxattr`, in a user namespace"


def idmapped_mounts(told: Mapping[str, Any]) -> str:
    """Show a folder's owner as somebody else, on the file system where workspaces are."""
    if not told["root"]:
        raise Failed("only root may map owners")
    target = Path(told["folder"]) / "shown"
    owner = target.parent.stat()
    target.mkdir()
    try:
        mounts.enter_private()
        with mounts.Mapping() as mapping:
            pair = ((owner.st_uid, owner.st_gid), (_STRANGER, _STRANGER))
            mounts.bind(told["folder"], str(target), to=mapping.of(pair))
        seen = target.stat().st_uid
        mounts.detach(str(target))
    finally:
        target.rmdir()
    if seen != _STRANGER:
        raise Failed(f"the owner is shown as {seen}")
    return f"on the file system of `{told['near']}`"


def no_new_privs(_told: Mapping[str, Any]) -> str:
    """Give up gaining rights by executing."""
    _checked(_libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
    if _libc.prctl(_PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) != 1:
        raise Failed("it was set and is not")
    return "set and seen"


def seccomp(told: Mapping[str, Any]) -> str:
    """Load the filter, and be refused."""
    program = bytes.fromhex(told["filter"])
    if not program:
        raise Failed("no list of calls is known for this machine's processor")
    code = ctypes.create_string_buffer(program, len(program))
    head = ctypes.create_string_buffer(struct.pack("HxxxxxxP", len(program) // 8, ctypes.addressof(code)))
    _checked(_libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
    _checked(_libc.prctl(_PR_SET_SECCOMP, 2, head, 0, 0))
    for number, arguments, error in ((told["unshare"], (mounts.CLONE_NEWUSER,), 1), (_IO_URING_SETUP, (1, 0), 38)):
        if _raw(number, *arguments) != -error:
            raise Failed(f"loaded, but call {number} is not refused")
    return f"{len(program) // 8} instructions, loaded and obeyed"


def fanotify(told: Mapping[str, Any]) -> str:
    """Watch a whole file system, and be told who opens a file of it."""
    if not told["root"]:
        raise Failed("only root may watch a whole file system")
    _private(told)
    group = _checked(_libc.fanotify_init(0x4 | 0x1 | 0x2, os.O_RDONLY | os.O_CLOEXEC))  # content class: may refuse
    mask = ctypes.c_uint64(0x20 | 0x40000)  # an open; an execution that waits for a word
    _checked(_libc.fanotify_mark(group, 0x1 | 0x100, mask, -100, os.fsencode(told["folder"])))
    (Path(told["folder"]) / "seen").write_bytes(b"x")
    if not select.select([group], [], [], 2)[0]:
        raise Failed("a file was opened and nothing was told")
    pid = struct.unpack_from("<IBBHQii", os.read(group, 4096))[6]
    if pid != os.getpid():
        raise Failed(f"process {os.getpid()} opened a file and {pid} was told")
    return "marks on a file system, opens and executions, with process ids"


def bubblewrap(told: Mapping[str, Any]) -> str:
    """Start a program as the backend does: another user, no environment, every namespace, no rights, the filter."""
    program = bytes.fromhex(told["filter"])
    filter_ = os.memfd_create("filter")
    os.write(filter_, program)
    os.lseek(filter_, 0, os.SEEK_SET)
    words = (
        "--unshare-all --unshare-user --uid 1000 --gid 1000 --disable-userns --clearenv --die-with-parent --new-session"
    )
    words += " --cap-drop ALL --ro-bind / / --proc /proc --dev /dev --tmpfs /tmp --remount-ro /"
    words += f" --seccomp {filter_}" if program else ""
    said, into = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.dup2(into, 2)
            os.set_inheritable(filter_, True)
            _drop(told)
            os.execve(told["bwrap"], [told["bwrap"], *words.split(), "--", told["true"]], {})  # noqa: S606 - no shell
        except OSError as problem:
            os.write(2, str(problem).encode())
        finally:
            os._exit(127)
    os.close(into)
    with os.fdopen(said, "rb") as stream:
        words_of_it = stream.read(2048).decode("utf-8", "replace").strip()
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if code:
        raise Failed(words_of_it or f"it ended with {code}")
    return "every namespace, no capability, the filter: started" + (" as a user of its own" if told["root"] else "")


def landlock(_told: Mapping[str, Any]) -> str:
    """Ask for the version of its interface."""
    version = _raw(_LANDLOCK_CREATE_RULESET, 0, 0, 1)
    if version < 0:
        raise Failed(os.strerror(-version))
    return f"ABI {version}"


def openat2(told: Mapping[str, Any]) -> str:
    """Open below a folder, and be refused above it and through a link."""
    folder = os.open(told["folder"], os.O_PATH | os.O_DIRECTORY)
    link = Path(told["folder"]) / "link"
    link.symlink_to("/")
    try:
        how = ctypes.create_string_buffer(struct.pack("<QQQ", os.O_PATH, 0, 8 | 4))  # beneath, no links
        answers = []
        for name in (b".", b"..", b"link"):
            text = ctypes.create_string_buffer(name)
            answers.append(_raw(_OPENAT2, folder, ctypes.addressof(text), ctypes.addressof(how), 24))
    finally:
        link.unlink()
    if answers[0] < 0 or answers[1:] != [-errno.EXDEV, -errno.ELOOP]:
        raise Failed(f"answers {answers}")
    return "stays beneath a folder, follows no link"


ATTEMPTS: Final[tuple[Callable[[Mapping[str, Any]], str], ...]] = (
    user_namespaces,
    mount_namespaces,
    overlay,
    idmapped_mounts,
    no_new_privs,
    seccomp,
    fanotify,
    bubblewrap,
    landlock,
    openat2,
)


def _drop(told: Mapping[str, Any]) -> None:
    """As root: become a user that nobody is."""
    if told["root"]:
        os.setgroups([])
        os.setresgid(_STRANGER, _STRANGER, _STRANGER)
        os.setresuid(_STRANGER, _STRANGER, _STRANGER)
        _checked(_libc.prctl(_PR_SET_DUMPABLE, 1, 0, 0, 0))  # else its own `/proc/self` belongs to root


def _private(told: Mapping[str, Any]) -> None:
    """Enter a mount namespace and put an empty file system over the folder."""
    if told["root"]:
        mounts.enter_private()
    else:
        mounts.enter_user()
    mounts.tmpfs(told["folder"], size=_SIZE, inodes=_INODES)


def _checked(result: int) -> int:
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result


def _raw(number: int, *arguments: int) -> int:
    """Make a system call; gives what the kernel gives, an error as its negative number."""
    _libc.syscall.restype = ctypes.c_long
    result = int(_libc.syscall(ctypes.c_long(number), *(ctypes.c_long(argument) for argument in arguments)))
    return -ctypes.get_errno() if result == -1 else result


def _attempt(work: Callable[[Mapping[str, Any]], str], told: Mapping[str, Any]) -> tuple[bool, str]:
    """Do one attempt in a child that cannot outlast its time."""
    said, into = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(said)
        os.setpgid(0, 0)
        signal.alarm(_ATTEMPT_S)
        try:
            answer: tuple[bool, str] = (True, work(told))
        except BaseException as problem:  # noqa: BLE001 - a child may not return, whatever happened
            answer = (False, str(problem) or type(problem).__name__)
        os.write(into, json.dumps(answer).encode())
        os._exit(0)
    os.close(into)
    with os.fdopen(said, "rb") as stream:
        ready = select.select([stream], [], [], _ATTEMPT_S + 1)[0]
        data = stream.read(65_536) if ready else b""
    try:
        os.killpg(child, signal.SIGKILL)
    except OSError:
        os.kill(child, signal.SIGKILL)
    status = os.waitpid(child, 0)[1]
    if not data:
        return False, f"the attempt was ended by {status} before it could tell" if ready else "no answer in time"
    worked, words = json.loads(data)
    return bool(worked), str(words)


def main(told: Mapping[str, Any]) -> None:
    """Do the attempts that are named."""
    codecs.lookup("ascii")  # a user that nobody is may not be able to load it
    answers = {work.__name__: _attempt(work, told) for work in ATTEMPTS if work.__name__ in told["attempts"]}
    sys.stdout.write(json.dumps(answers))


if __name__ == "__main__":
    main(json.load(sys.stdin))
