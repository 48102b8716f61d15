"""The list of refused calls, loaded by the kernel: each call is tried for real, and so is ordinary work."""

import json
import os
import platform
import struct
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from midwatch.sandbox import seccomp
from midwatch.sandbox.seccomp import DENIED, Deny
from tests.bpf import ALLOW

pytestmark = pytest.mark.req("SECCOMP-3")

REFUSED: dict[str, list[tuple[int, ...]]] = {
    "clone": [(0x10000000 | 17,), (0x40000000 | 17,), (0x20000 | 17,)],
    "unshare": [(0x10000000,), (0x80,), (0x20000,)],
    "socket": [
        (40, 1, 0),
        (38, 5, 0),
        (17, 3, 0),
        (2, 3, 1),
        (16, 3, 9),
        (2, 1, 132),
        (2, 2, 1),
        (30, 5, 0),
        (16, 3, 4),
    ],
    "socketpair": [(30, 1, 0)],
    "ioctl": [(0, 0x5412, 0), (0, 0x541C, 0), (0, 1 << 32 | 0x5412, 0)],
    "personality": [(0x40000,), (0x400000,)],
    "mknod": [(0, 0o20666, 0x103)],
    "mknodat": [(-100, 0, 0o60666, 0x103)],
}
"""Arguments that are refused, for the calls whose arguments decide."""

TRIES = """
import ctypes, json, sys
libc = ctypes.CDLL(None, use_errno=True)
answers = []
for number, args in json.load(sys.stdin):
    ctypes.set_errno(0)
    result = libc.syscall(ctypes.c_long(number), *(ctypes.c_long(arg) for arg in args))
    answers.append(ctypes.get_errno() if result == -1 else 0)
print(json.dumps(answers))
"""
WORK = """
import asyncio, concurrent.futures, ctypes, fcntl, json, mmap, multiprocessing, os, pty, signal, socket, sqlite3, ssl
import subprocess, sys, tempfile, threading, time
def double(n): return 2 * n
def main():
    done = {}
    with concurrent.futures.ThreadPoolExecutor(8) as pool: done["threads"] = sum(pool.map(double, range(100)))
    for way in ("fork", "spawn", "forkserver"):
        with multiprocessing.get_context(way).Pool(2) as pool: done[way] = sum(pool.map(double, range(10)))
    done["subprocess"] = subprocess.run(["sh", "-c", "echo $((6*7)) | cat"], capture_output=True, text=True).stdout.strip()
    done["vfork"] = subprocess.run(["true"], close_fds=False).returncode
    base = sqlite3.connect("work.db"); base.execute("PRAGMA journal_mode=wal"); base.execute("create table t(a)")
    base.execute("insert into t values (5)"); done["sqlite"] = base.execute("select a from t").fetchone()[0]; base.close()
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as near:
        far, _ = server.accept(); near.sendall(b"hi"); done["tcp"] = far.recv(2).decode(); far.close()
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as udp: udp.bind(("::1", 0)); done["udp6"] = True
    left, right = socket.socketpair(); left.sendall(b"yo"); done["unix"] = right.recv(2).decode()
    left.close(); right.close()
    done["interfaces"] = [name for _, name in socket.if_nameindex()]
    done["resolved"] = socket.getaddrinfo("localhost", 80)[0][4][0] in ("127.0.0.1", "::1")
    async def asked():
        made = await asyncio.create_subprocess_exec("cat", stdin=-1, stdout=-1)
        return (await made.communicate(b"async"))[0].decode()
    done["asyncio"] = asyncio.run(asked())
    mine, theirs = pty.openpty(); os.write(mine, b"x"); done["terminal"] = os.isatty(theirs)
    with tempfile.NamedTemporaryFile() as file:
        fcntl.flock(file, fcntl.LOCK_EX); file.write(b"page"); file.flush()
        with mmap.mmap(file.fileno(), 4) as seen: done["mmap"] = seen[:].decode()
    os.mkfifo("pipe"); done["fifo"] = os.path.exists("pipe")
    os.symlink("pipe", "link"); os.link("pipe", "hard"); os.rename("hard", "harder")
    signal.signal(signal.SIGUSR1, lambda *_: done.setdefault("signal", True)); signal.raise_signal(signal.SIGUSR1)
    memory = os.memfd_create("m"); os.write(memory, b"z"); done["memfd"] = os.fstat(memory).st_size
    done["clock"] = time.clock_gettime(time.CLOCK_MONOTONIC) > 0
    done["ssl"] = bool(ssl.create_default_context())
    os.sched_setaffinity(0, os.sched_getaffinity(0)); os.nice(1)
    print(json.dumps(done))
if __name__ == "__main__": main()
"""


@pytest.fixture
def inside(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run a Python program under a filter, in namespaces of its own and without capabilities."""

    def run(filter_: bytes, source: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        (tmp_path / "program.py").write_text(source)
        memory = os.memfd_create("filter")
        os.write(memory, filter_)
        os.lseek(memory, 0, os.SEEK_SET)
        try:
            return subprocess.run(
                ["bwrap", "--ro-bind", "/", "/", "--dev", "/dev", "--proc", "/proc", "--bind", str(tmp_path), "/mnt",
                 "--unshare-all", "--die-with-parent", "--new-session", "--cap-drop", "ALL", "--chdir", "/mnt",
                 "--seccomp", str(memory), sys.executable, "-I", "program.py"],
                input=stdin, capture_output=True, text=True, timeout=60, pass_fds=(memory,), check=False,
            )  # fmt: skip
        finally:
            os.close(memory)

    return run


def listed() -> list[tuple[Deny, int, tuple[int, ...]]]:
    """Each call of this machine with arguments that are refused, and that would do nothing if they were not."""
    x86 = platform.machine() == "x86_64"
    return [
        (item, number, args)
        for item in DENIED
        if (number := item.x86_64 if x86 else item.aarch64) is not None
        for args in REFUSED.get(item.name, [(-1,) * 6])
    ]


def renamed(filter_: bytes, errors: Mapping[int, int]) -> bytes:
    """The same program with other errors, so that the filter's answers differ from the kernel's own."""
    steps = [struct.unpack_from("<HBBI", filter_, at) for at in range(0, len(filter_), 8)]
    return b"".join(
        struct.pack("<HBBI", code, yes, no, 0x50000 | errors[k & 0xFFFF] if code == 6 and k >> 16 == 5 else k)
        for code, yes, no, k in steps
    )


def test_each_listed_call_is_refused_with_its_error(inside: Callable[..., Any]) -> None:
    """All calls of the list, with the very errors that it names."""
    tried = listed()
    answered = inside(seccomp.program(), TRIES, json.dumps([(number, args) for _, number, args in tried]))
    assert 0 == answered.returncode, answered.stderr
    found = {
        (item.name, args): error for (item, _, args), error in zip(tried, json.loads(answered.stdout), strict=True)
    }
    assert {(item.name, args): item.error for item, _, args in tried} == found
    assert 70 <= len({name for name, _ in found}) or platform.machine() != "x86_64"


def test_it_is_the_filter_that_refuses(inside: Callable[..., Any]) -> None:
    """With other errors in the same program, the callers see those: no refusal was the kernel's own for lack of rights."""
    tried = listed()
    filter_ = renamed(seccomp.program(), {1: 123, 38: 124})
    answered = inside(filter_, TRIES, json.dumps([(number, args) for _, number, args in tried]))
    assert 0 == answered.returncode, answered.stderr
    assert [{1: 123, 38: 124}[item.error] for item, _, _ in tried] == json.loads(answered.stdout)


def test_ordinary_work_does_not_notice(inside: Callable[..., Any]) -> None:
    """Threads, processes of each kind, sqlite, sockets, terminals, signals, files: as without a filter."""
    filtered, free = (inside(code, WORK) for code in (seccomp.program(), struct.pack("<HBBI", 6, 0, 0, ALLOW)))
    assert (0, "") == (filtered.returncode, filtered.stderr)
    done = json.loads(filtered.stdout)
    assert 20 <= len(done)
    assert free.returncode != 0 or json.loads(free.stdout) == done


def test_another_language_ends_the_process(inside: Callable[..., Any]) -> None:
    """An x32 number is no way around the list: who tries it is dead; where there is no x32 it is no call at all."""
    ended = inside(seccomp.program(), "import ctypes\nprint(ctypes.CDLL(None).syscall(0x40000000 | 39))")
    expected = (128 + 31, "") if platform.machine() == "x86_64" else (0, "-1\n")  # 31 is SIGSYS
    assert expected == (ended.returncode, ended.stdout)
