"""Cell: the long-lived process inside a sandbox that performs one call after the other, each in a process of its own.

In:   requests on a socket, each a length and JSON. Out: one JSON answer each.
May import: `worker`, `bridge`, the standard library; what a call names. Must not know: contracts, envelopes.
Who believes it: nobody. It shares user and memory limits with what it performs, so the supervisor bounds and checks all it says,
and kills the whole sandbox when it does not answer in time.
Why one process that stays: starting Python and importing the tools costs a hundred times what a fork does.
Why everything else is killed after each call: what a call leaves behind would act in the name of the next one.
"""

from __future__ import annotations

import base64
import contextlib
import ctypes
import fcntl
import importlib
import json
import os
import pty
import selectors
import signal
import socket
import struct
import sys
import termios
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from midwatch.sandbox import worker

if TYPE_CHECKING:
    from midwatch.sandbox.bridge import Bridge

__all__ = ["HEAD", "main"]

HEAD: Final = 8
"""Bytes before each message: its length, big end first."""
_CHUNK: Final = 65_536
_OUTPUT: Final = 8_192
"""Bytes of each stream of a call that are kept: its end."""
_PR_SET_DUMPABLE: Final = 4
_libc = ctypes.CDLL(None)


class Child:
    """A process under way, and what came from it so far."""

    def __init__(self, request: Mapping[str, Any]) -> None:
        self.id: int = request["id"]
        self.kind: str = request["kind"]
        self.limit: int = request["max_bytes"]
        self.pid = 0
        self.status: int | None = None
        self.kept: dict[str, bytearray] = {"stdout": bytearray(), "stderr": bytearray(), "answer": bytearray()}
        self.total = {"stdout": 0, "stderr": 0, "answer": 0}
        self.open: dict[str, int] = {}
        self.stdin: memoryview = memoryview(base64.b64decode(request.get("stdin", "")))
        self.end: str | None = None

    def take(self, name: str, data: bytes) -> None:
        """Keep what may be kept of a stream."""
        self.total[name] += len(data)
        kept = self.kept[name]
        kept += data
        if name == "answer":
            if len(kept) > self.limit:
                self.end = "too_big"
        else:
            room = self.limit if self.kind == "run" else _OUTPUT
            del kept[: max(0, len(kept) - room)]


class Cell:
    """Serves one control socket until it ends."""

    def __init__(self, channel: socket.socket) -> None:
        self._channel = channel
        self._selector = selectors.DefaultSelector()
        self._child: Child | None = None
        self._bridge: Bridge | None = None
        self._env: dict[str, str] = {}
        self._wake = _wakeups()

    def serve(self) -> None:
        """Say hello, then answer requests."""
        hello = self._receive()
        sys.path[:] = hello["sys_path"]
        self._env = hello["env"]
        os.environ.clear()
        os.environ.update(self._env)
        os.chdir(hello["cwd"])
        if hello.get("bridge"):
            bridge = importlib.import_module("midwatch.sandbox.bridge")
            self._bridge = bridge.Bridge(self._selector, hello["bridge"]["port"], hello["bridge"]["socket"])
        self._send({"ready": os.getpid(), "version": list(sys.version_info[:3])})
        self._selector.register(self._channel, selectors.EVENT_READ, self._request)
        self._selector.register(self._wake, selectors.EVENT_READ, self._woken)
        while True:
            for key, mask in self._selector.select():
                key.data(mask)
                if self._child is not None and self._child.end is not None:
                    self._finish(self._child)

    def _request(self, _mask: int) -> None:
        request = self._receive()
        kind = request["kind"]
        if kind == "cut":
            if self._child is not None and self._child.id == request["id"]:
                self._child.end = "timeout"
        elif kind == "inline":
            self._send({"id": request["id"], "status": "answered", "answer": _performed(request)})
        elif kind == "shell":
            self._shell(request)
        elif self._child is not None:
            self._send(
                {"id": request["id"], "status": "crashed", "detail": "another call is under way", "began": False}
            )
        else:
            self._begin(request)

    def _begin(self, request: Mapping[str, Any]) -> None:
        child = Child(request)
        if child.kind == "call":
            _preload(request["ref"])
        ends = {name: os.pipe() for name in ("stdin", "stdout", "stderr", "answer")}
        try:
            child.pid = os.fork()
        except OSError as refused:
            for pair in ends.values():
                os.close(pair[0])
                os.close(pair[1])
            self._send(
                {"id": child.id, "status": "crashed", "detail": f"no process: {refused.strerror}", "began": False}
            )
            return
        if child.pid == 0:
            self._perform(request, ends)
        for name, (out, into) in ends.items():
            ours, theirs = (into, out) if name == "stdin" else (out, into)
            os.close(theirs)
            os.set_blocking(ours, False)
            child.open[name] = ours
            event = selectors.EVENT_WRITE if name == "stdin" else selectors.EVENT_READ
            self._selector.register(ours, event, self._feed if name == "stdin" else self._reader(name))
        self._child = child

    def _reader(self, name: str) -> Callable[[int], None]:
        def read(_mask: int) -> None:
            child = self._child
            if child is None:
                return
            try:
                data = os.read(child.open[name], _CHUNK)
            except BlockingIOError:
                return
            if data:
                child.take(name, data)
            else:
                self._shut(child, name)

        return read

    def _feed(self, _mask: int) -> None:
        child = self._child
        if child is None:
            return
        with contextlib.suppress(BlockingIOError):
            try:
                child.stdin = child.stdin[os.write(child.open["stdin"], child.stdin) :] if child.stdin else child.stdin
            except BrokenPipeError:
                child.stdin = memoryview(b"")
        if not child.stdin:
            self._shut(child, "stdin")

    def _shut(self, child: Child, name: str) -> None:
        descriptor = child.open.pop(name, None)
        if descriptor is not None:
            self._selector.unregister(descriptor)
            os.close(descriptor)

    def _woken(self, _mask: int) -> None:
        """A child ended. What it and its children still hold open says nothing any more."""
        with contextlib.suppress(BlockingIOError):
            self._wake.recv(_CHUNK)
        with contextlib.suppress(ChildProcessError):
            while True:
                pid, status = os.waitpid(-1, os.WNOHANG)
                if pid == 0:
                    break
                child = self._child
                if child is not None and pid == child.pid:
                    child.status = os.waitstatus_to_exitcode(status)
                    child.end = child.end or "ended"

    def _finish(self, child: Child) -> None:
        """Kill what is left, take what it said, answer."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(-1, signal.SIGKILL)
        for name in ("stdout", "stderr", "answer"):
            self._drain(child, name)
        for name in list(child.open):
            self._shut(child, name)
        if child.status is None:
            with contextlib.suppress(ChildProcessError):
                child.status = os.waitstatus_to_exitcode(os.waitpid(child.pid, 0)[1])
        self._child = None
        self._send(_told(child))

    def _drain(self, child: Child, name: str) -> None:
        with contextlib.suppress(BlockingIOError):
            while name in child.open and child.end != "too_big":
                data = os.read(child.open[name], _CHUNK)
                if not data:
                    return
                child.take(name, data)

    def _perform(self, request: Mapping[str, Any], ends: Mapping[str, tuple[int, int]]) -> None:
        """Be the child: perform the request and end."""
        try:
            self._leave()
            answer = os.dup(ends["answer"][1])
            for place, descriptor in enumerate((ends["stdin"][0], ends["stdout"][1], ends["stderr"][1])):
                os.dup2(descriptor, place)
            for pair in ends.values():
                os.close(pair[0])
                os.close(pair[1])
            os.set_inheritable(answer, False)
            sys.stdout, sys.stderr = _text(1), _text(2)
            os.setpgid(0, 0)
            worker.bound(request["limits"])
            _libc.prctl(_PR_SET_DUMPABLE, 1, 0, 0, 0)
            os.write(answer, worker.ALIVE)
            if request["kind"] == "run":
                _become(request, answer)
            _write(answer, _performed(request).encode())
            for stream in (sys.stdout, sys.stderr):
                with contextlib.suppress(OSError, ValueError):  # the tool may have closed it
                    stream.flush()
            os._exit(0)
        except BaseException:  # noqa: BLE001 - the boundary to foreign code; what it says goes to the trace
            with contextlib.suppress(BaseException):
                traceback.print_exc()
                sys.stderr.flush()
        os._exit(126)

    def _leave(self) -> None:
        """Let go of all that is the cell's."""
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        if self._bridge is not None:
            self._bridge.close_in_child()
        self._selector.close()
        self._channel.close()
        self._wake.close()

    def _shell(self, request: Mapping[str, Any]) -> None:
        """Start a program on a terminal of its own and give the terminal's other side away."""
        pid, master = pty.fork()
        if pid == 0:
            with contextlib.suppress(BaseException):
                self._leave()
                os.chdir(request["cwd"])
                _libc.prctl(_PR_SET_DUMPABLE, 1, 0, 0, 0)
                os.execvpe(request["argv"][0], request["argv"], {**os.environ, **request["env"]})
            os._exit(126)
        size = struct.pack("HHHH", request["rows"], request["columns"], 0, 0)
        fcntl.ioctl(master, termios.TIOCSWINSZ, size)
        body = json.dumps({"id": request["id"], "status": "answered", "answer": str(pid)}).encode()
        socket.send_fds(self._channel, [len(body).to_bytes(HEAD) + body], [master])
        os.close(master)

    def _receive(self) -> dict[str, Any]:
        size = int.from_bytes(self._exactly(HEAD))
        message: dict[str, Any] = json.loads(self._exactly(size))
        return message

    def _exactly(self, count: int) -> bytes:
        parts, left = [], count
        while left:
            data = self._channel.recv(min(left, _CHUNK))
            if not data:
                os._exit(0)  # the supervisor is gone, and with it the sandbox
            parts.append(data)
            left -= len(data)
        return b"".join(parts)

    def _send(self, message: Mapping[str, Any]) -> None:
        body = json.dumps(message).encode()
        self._channel.sendall(len(body).to_bytes(HEAD) + body)


def _told(child: Child) -> dict[str, Any]:
    text = {name: bytes(kept) for name, kept in child.kept.items()}
    if child.kind == "run":
        refused = text["answer"][1:].decode("utf-8", "replace")
        return {
            "id": child.id,
            "status": "crashed" if refused else "timeout" if child.end == "timeout" else "ended",
            "detail": refused,
            "began": not refused,
            "exit_code": child.status,
            **{name: base64.b64encode(text[name]).decode() for name in ("stdout", "stderr")},
            **{f"{name}_bytes": child.total[name] for name in ("stdout", "stderr")},
        }
    began = text["answer"][:1] == worker.ALIVE
    status = child.end if child.end in ("timeout", "too_big") else "answered"
    output = "\n".join(text[name].decode("utf-8", "replace") for name in ("stdout", "stderr") if text[name])
    return {
        "id": child.id,
        "status": status if text["answer"][1:] or status != "answered" else "crashed",
        "began": began,
        "exit_code": child.status,
        "output": output,
        "answer": text["answer"][1:].decode("utf-8", "replace") if status == "answered" else "",
    }


def _performed(request: Mapping[str, Any]) -> str:
    answer = worker.resolve(request["ref"]).work(request["arguments"], request["facts"])
    return json.dumps(answer, allow_nan=False, ensure_ascii=True)


def _preload(ref: str) -> None:
    """Import Midwatch's own tools here, so that each child has them; a user's file is loaded in the child alone."""
    module = ref.rpartition(":")[0]
    if module.startswith("midwatch.") and module not in sys.modules:
        with contextlib.suppress(ImportError):  # the child says so, where somebody listens
            importlib.import_module(module)


def _wakeups() -> socket.socket:
    ours, theirs = socket.socketpair()
    for end in (ours, theirs):
        end.setblocking(False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(theirs.detach(), warn_on_full_buffer=False)
    return ours


def _text(descriptor: int) -> Any:
    return open(descriptor, "w", encoding="utf-8", errors="replace", buffering=_CHUNK, closefd=False)


def _write(descriptor: int, data: bytes) -> None:
    left = memoryview(data)
    while left:
        left = left[os.write(descriptor, left) :]


def _become(request: Mapping[str, Any], answer: int) -> None:
    """Become a program. Its end is all it answers, unless it never begins."""
    try:
        os.chdir(request["cwd"])
        os.execvpe(request["argv"][0], request["argv"], {**os.environ, **request["env"]})
    except OSError as problem:
        _write(answer, f"`{request['argv'][0]}` cannot be started: {problem.strerror}".encode())
        os._exit(126)


def main(place: str) -> None:
    """Serve the descriptor, or the socket at the path, that `place` names."""
    if place.isdigit():
        channel = socket.socket(fileno=int(place))
    else:
        channel = socket.socket(socket.AF_UNIX)
        channel.connect(place)
    channel.set_inheritable(False)
    _libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)  # what it forks may not write into its memory
    Cell(channel).serve()


if __name__ == "__main__":
    main(sys.argv[1])
