"""Resources: more than the sandbox's share. See the package's head.

Each tries a little more than it is said to have, and gives it back, so that a sandbox without bounds is told apart and not harmed.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import sys
import time
from typing import Final

from midwatch.sandbox.attacks.common import Told, attack

__all__ = ["MEMORY", "NAMES", "flood"]

_MORE: Final = 48
_PIECE: Final = 1 << 20


@attack("resource")
def many_processes(told: Told) -> str:
    """More processes than allowed, all at once."""
    children: list[int] = []
    try:
        while len(children) < told.processes + _MORE:
            child = os.fork()
            if child == 0:
                signal.pause()
                os._exit(0)
            children.append(child)
    except OSError:
        return ""
    finally:
        for child in children:
            os.kill(child, signal.SIGKILL)
        for child in children:
            os.waitpid(child, 0)
    return f"{len(children)} processes"


def _filled(folder: str, told: Told, bound: int) -> str:
    """Write files until `bound` and a quarter more is there."""
    place = f"{folder}/fill-{told.token}"
    os.mkdir(place)
    block, written, number = bytes(_PIECE), 0, 0
    try:
        with contextlib.suppress(OSError):
            while written < bound + bound // 4:
                with open(f"{place}/{number}", "wb", buffering=0) as file:
                    for _ in range(4):
                        written += file.write(block)
                number += 1
    finally:
        shutil.rmtree(place, ignore_errors=True)
    return f"{written >> 20} MiB in `{folder}`" if written >= bound + bound // 4 else ""


@attack("resource")
def fill_workspace(told: Told) -> str:
    """More bytes than the workspace may take, in many files."""
    return _filled(told.workspace, told, told.disk)


@attack("resource")
def fill_temporary(told: Told) -> str:
    """The same in the other places that can be written: what memory does not bound there, the disk must."""
    for place in ("/tmp", "/dev/shm", "/var/tmp"):
        with contextlib.suppress(OSError):
            found = _filled(place, told, told.disk)
            if found:
                return found
    return ""


@attack("resource")
def many_files(told: Told) -> str:
    """More files than allowed, each empty."""
    place = f"{told.workspace}/many-{told.token}"
    os.mkdir(place)
    made = 0
    try:
        with contextlib.suppress(OSError):
            for made in range(told.inodes + 64):
                os.close(os.open(f"{place}/{made}", os.O_CREAT | os.O_WRONLY))
    finally:
        shutil.rmtree(place, ignore_errors=True)
    return f"{made + 1} files" if made + 1 >= told.inodes + 64 else ""


def _grown(told: Told, size: int) -> str:
    path = f"{told.workspace}/big-{told.token}"
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        with open(path, "wb") as file:
            file.truncate(size)
        return f"a file of {size >> 20} MiB"
    finally:
        os.unlink(path)


@attack("resource")
def sparse_file(told: Told) -> str:
    """A file of a terabyte that takes no room, until somebody copies it."""
    return _grown(told, 1 << 40)


@attack("resource")
def large_file(told: Told) -> str:
    """A file that is a little larger than the largest allowed."""
    return _grown(told, told.file_size + _PIECE)


NAMES: Final = ("many_processes", "fill_workspace", "fill_temporary", "many_files", "sparse_file", "large_file")


@attack("resource", dies=(signal.SIGSYS, signal.SIGKILL))
def much_memory(told: Told) -> str:
    """More memory than allowed, all of it touched, by several processes, so that no bound of one holds it."""
    parts, ends = 4, []
    share = (told.memory + told.memory // 4) // parts
    for _ in range(parts):
        heard, into = os.pipe()
        if os.fork() == 0:
            try:
                room = bytearray(share)
                for place in range(0, share, 4096):
                    room[place] = 1
                os.write(into, b"x")
                time.sleep(1.5)
            finally:
                os._exit(0)
        os.close(into)
        ends.append(heard)
    touched = sum(len(os.read(end, 1)) for end in ends)
    alive = touched
    for _ in range(parts):
        _, status = os.wait()
        alive -= os.waitstatus_to_exitcode(status) != 0
    return f"{parts * share >> 20} MiB at once" if touched == parts and alive == parts else ""


MEMORY: Final = ("much_memory",)


def flood(size: int) -> None:
    """Say more than anybody wants to hear, on both streams."""
    block = b"x" * _PIECE
    for _ in range(size // _PIECE):
        for stream in (sys.stdout.buffer, sys.stderr.buffer):
            stream.write(block)
            stream.flush()
