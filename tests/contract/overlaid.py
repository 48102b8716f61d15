"""A workspace in a mount namespace of its own, as a launcher makes one, and a cell in yet another, where programs act.

In:   `FOLDER SOCKET`: an empty folder, a socket's descriptor. Then one JSON line for each program: `{"program", "inside"}`.
Out:  first the cell's process number with the descriptor of the merged folder; then each program's exit code.
`inside`: in the cell, whose mount and process namespaces are its own and where the workspace is at `FOLDER/inside`.
"""

import ctypes
import json
import os
import signal
import socket
import sys
from pathlib import Path

from midwatch.sandbox import mounts

_LIBC = ctypes.CDLL(None, use_errno=True)
_NEWNS, _NEWPID, _BIND, _DEATH = 0x20000, 0x20000000, 0x1000, 1


def _view(folder: Path) -> int:
    for name in ("lower", "store", "merged", "inside"):
        (folder / name).mkdir(exist_ok=True)
    mounts.tmpfs(str(folder / "store"), size=256 << 20, inodes=100_000)
    for name in ("upper", "work"):
        (folder / "store" / name).mkdir()
    upper, work = (str(folder / "store" / name) for name in ("upper", "work"))
    mounts.overlay(str(folder / "merged"), lower=str(folder / "lower"), upper=upper, work=work, user=False)
    return os.open(folder / "merged", os.O_PATH | os.O_DIRECTORY)


def _cell(folder: Path) -> tuple[int, socket.socket]:
    """Start the cell: the first process of its namespace, so that all die with it. Gives its number here, and its channel."""
    ours, theirs = socket.socketpair()
    (ready, told), mounted = os.pipe(), os.pipe()
    if os.fork() == 0:
        _LIBC.prctl(_DEATH, signal.SIGKILL)
        assert _LIBC.unshare(_NEWPID) == 0
        child = os.fork()
        if child == 0:
            _LIBC.prctl(_DEATH, signal.SIGKILL)
            assert _LIBC.unshare(_NEWNS) == 0  # nobody else is in it, so that it ends with the cell
            merged, inside = (os.fsencode(folder / name) for name in ("merged", "inside"))
            assert _LIBC.mount(merged, inside, None, ctypes.c_ulong(_BIND), None) == 0
            ours.close()
            os.write(mounted[1], b".")
            _serve(theirs, folder / "inside")
            os._exit(0)
        os.read(mounted[0], 1)
        os.write(told, str(child).encode())
        os.waitpid(child, 0)
        os._exit(0)
    theirs.close()
    return int(os.read(ready, 20)), ours


def _serve(channel: socket.socket, at: Path, cell: socket.socket | None = None) -> None:
    """Run programs, each to its end, until the channel closes."""
    inner = None if cell is None else cell.makefile("rw")
    with channel.makefile("rw") as lines:
        for line in lines:
            if inner is not None and json.loads(line)["inside"]:
                inner.write(line)
                inner.flush()
                answer = inner.readline()
            else:
                answer = f"{_run(json.loads(line)['program'], at)}\n"
            lines.write(answer)
            lines.flush()


def _run(program: str, at: Path) -> int:
    child = os.fork()
    if child == 0:
        os.chdir(at)
        os.execv(sys.executable, [sys.executable, "-I", "-S", "-c", program])  # noqa: S606
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def main(folder: Path, channel: socket.socket) -> None:
    """Make the view and the cell, then do what is asked."""
    mounts.enter_private()
    merged = _view(folder)
    number, cell = _cell(folder)
    socket.send_fds(channel, [str(number).encode()], [merged])
    _serve(channel, folder / "merged", cell)


if __name__ == "__main__":
    main(Path(sys.argv[1]), socket.socket(fileno=int(sys.argv[2])))
