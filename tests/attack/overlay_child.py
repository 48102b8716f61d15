"""A process in a mount namespace of its own, which tells one reading of a real overlay after the other.

In:   lines of JSON on standard input: `{"seed": [act...], "calls": [[act...]...]}`, acts as `act` takes them. Names are latin-1 text.
Out:  a line of JSON each: the changes of every call, and whether the replayed layers give the same tree.
Why a process: what is mounted here goes with it, and is seen by nobody else.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import shutil
import socket
import stat
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from midwatch.errors import MidwatchError
from midwatch.sandbox import layers as layering
from midwatch.sandbox.overlay import apply, diff

_LIBC = ctypes.CDLL(None, use_errno=True)
_NEWNS, _NEWUSER, _PRIVATE = 0x20000, 0x10000000, 1 << 18 | 1 << 14


def enter() -> None:
    """Enter a mount namespace; as a plain user, a user namespace too."""
    uid, gid = os.getuid(), os.getgid()
    _ok(_LIBC.unshare(_NEWNS if uid == 0 else _NEWNS | _NEWUSER), "unshare")
    if uid:
        Path("/proc/self/setgroups").write_text("deny", encoding="ascii")
        Path("/proc/self/uid_map").write_text(f"0 {uid} 1", encoding="ascii")
        Path("/proc/self/gid_map").write_text(f"0 {gid} 1", encoding="ascii")
    _ok(_LIBC.mount(b"none", b"/", None, _PRIVATE, None), "mount")


class Ground:
    """A workspace and a view over it."""

    def __init__(self, base: Path, lower: Path, name: str, *, size: str = "64m") -> None:
        self.lower, self.store, self.merged = lower, base / f"{name}.store", base / f"{name}.merged"
        for folder in (self.store, self.merged):
            folder.mkdir()
        mount("none", self.store, "tmpfs", f"size={size},mode=0700")
        self.upper = self.store / "upper"
        for folder in (self.upper, self.store / "work"):
            folder.mkdir()
        mount(
            "overlay", self.merged, "overlay",
            f"lowerdir={lower},upperdir={self.upper},workdir={self.store}/work"
            + (",userxattr" if USER else ""),
        )  # fmt: skip
        self.fd = os.open(self.upper, os.O_RDONLY | os.O_DIRECTORY)
        self.merged_fd = os.open(self.merged, os.O_RDONLY | os.O_DIRECTORY)

    def close(self) -> None:
        """Unmount both."""
        os.close(self.fd)
        os.close(self.merged_fd)
        for folder in (self.merged, self.store):
            _ok(_LIBC.umount2(str(folder).encode(), 2), "umount")


def mount(source: str, target: Path, kind: str, data: str) -> None:
    """Mount one file system."""
    _ok(_LIBC.mount(source.encode(), os.fsencode(target), kind.encode(), 0, data.encode()), f"mount {kind}")


def act(root: Path, what: str, *args: Any) -> None:
    """Do one thing below `root`, as the agent would; what the system refuses did not happen."""
    first = _named(root, args[0])
    with contextlib.suppress(OSError):
        ACTS[what](root, first, args[1] if len(args) > 1 else None)


def write(_: Path, path: Path, text: str, mode: str = "wb") -> None:
    """Write or append; folders are made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open(mode) as file:
        file.write(text.encode("latin-1"))


def remove(_: Path, path: Path, __: None) -> None:
    """Remove a file, or a folder with all that is below."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()


def special(_: Path, path: Path, which: int) -> None:
    """Make a FIFO, a socket or a device."""
    if which == 0:
        os.mkfifo(path)
    elif which == 1:
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(os.fsencode(path))
    else:
        os.mknod(path, stat.S_IFCHR | 0o666, os.makedev(1, 3))


def deep(_: Path, top: Path, depth: int) -> None:
    """Make folders in folders, with a file in the last."""
    name = "d" if len(top.name) < 100 else "d" * 200
    top.mkdir()
    here = os.open(top, os.O_RDONLY)
    for _number in range(depth):
        os.mkdir(name, dir_fd=here)
        there = os.open(name, os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = there
    os.close(os.open("end", os.O_CREAT | os.O_WRONLY, 0o644, dir_fd=here))
    os.close(here)


def many(_: Path, folder: Path, count: int) -> None:
    """Make many small files."""
    for number in range(count):
        (folder / str(number)).write_bytes(b"%d" % number)


def _named(root: Path, name: str) -> Path:
    return Path(os.fsdecode(os.fsencode(root) + b"/" + name.encode("latin-1")))


ACTS: dict[str, Callable[[Path, Path, Any], Any]] = {
    "write": write,
    "append": lambda root, path, text: write(root, path, text, "ab"),
    "folder": lambda _, path, __: path.mkdir(parents=True),
    "link": lambda _, path, target: path.symlink_to(os.fsdecode(target.encode("latin-1"))),
    "hardlink": lambda root, path, other: _named(root, other).hardlink_to(path),
    "rename": lambda root, path, other: path.rename(_named(root, other)),
    "remove": remove,
    "mode": lambda _, path, mode: None if path.is_symlink() else path.chmod(mode),
    "touch": lambda _, path, __: os.utime(path),
    "hole": lambda _, path, size: os.truncate(path, size),
    "special": special,
    "mark": lambda _, path, name: os.setxattr(path, name, b"y"),
    "deep": deep,
    "many": many,
}


def tree(root: Path) -> dict[str, Any]:
    """Give names, kinds, modes and contents of all that is below."""
    found: dict[str, Any] = {}
    for above, folders, files in os.walk(root):
        for path in (Path(above) / name for name in folders + files):
            state = path.lstat()
            if stat.S_ISREG(state.st_mode):
                what: str | None = path.read_bytes().decode("latin-1")
            elif stat.S_ISLNK(state.st_mode):
                what = os.fsencode(path.readlink()).decode("latin-1")
            elif stat.S_ISDIR(state.st_mode):
                what = None
            else:
                continue
            name = os.fsencode(path.relative_to(root)).decode("latin-1")
            found[name] = [stat.filemode(state.st_mode), what]
    return found


def told(base: Path, case: dict[str, Any]) -> dict[str, Any]:
    """Play one case."""
    lower, kept = base / "lower", base / "layers"
    for folder in (lower, kept):
        folder.mkdir()
    for item in case["seed"]:
        act(lower, *item)
    limit, began_ns = int(case.get("limit", 0)), max((path.lstat().st_ctime_ns for path in lower.rglob("*")), default=0)
    for item in case.get("between", ()):
        while _named(lower, item[1]).stat().st_ctime_ns <= began_ns:  # a clock may be coarse
            act(lower, *item)
    ground = Ground(base, lower, "first", size=case.get("size", "64m"))
    made: list[layering.Layer] = []
    calls, took = [], []
    try:
        for number, call in enumerate(case["calls"]):
            for item in call:
                act(ground.merged, *item)
            began = time.perf_counter()
            changes, spool = diff(
                ground.fd, lower, earlier=layering.fold(made), limit=limit, userxattr=USER, began_ns=began_ns
            )
            took.append(time.perf_counter() - began)
            made.append(layering.write(kept / str(number), changes, (), spool))
            spool.close()
            calls.append([change.to_json() for change in changes])
        after = tree(ground.merged) if case.get("trees", True) else {}
        folded = {path: change.to_json() for path, change in layering.fold(made).items()}
    finally:
        ground.close()
    answer = {"calls": calls, "tree": after, "fold": folded, "took": took}
    if case.get("replay", True):
        again = Ground(base, lower, "second", size=case.get("size", "64m"))
        try:
            apply(again.merged_fd, [layering.read(layer.file) for layer in made if layer.file])
            answer["replayed"] = tree(again.merged) if case.get("trees", True) else {}
            answer["left"] = [
                change.to_json()
                for change in diff(again.fd, lower, earlier=layering.fold(made), userxattr=USER)[0]
                if change.kind != "other"
            ]
        finally:
            again.close()
    return answer


def main() -> None:
    """Answer cases until standard input ends."""
    os.umask(0o022)
    for line in sys.stdin:
        base = Path(tempfile.mkdtemp(prefix="overlay-"))
        try:
            answer = told(base, json.loads(line))
        except (MidwatchError, OSError) as problem:
            answer = {"refused": str(problem), "kind": type(problem).__name__}
        finally:
            shutil.rmtree(base, ignore_errors=True)
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


def _ok(result: int, what: str) -> None:
    if result != 0:
        raise OSError(ctypes.get_errno(), f"{what}: {os.strerror(ctypes.get_errno())}")


USER = os.getuid() != 0

if __name__ == "__main__":
    enter()
    main()
