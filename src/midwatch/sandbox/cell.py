"""Cell: the long-lived process inside a sandbox that performs one call after the other, each in a process of its own.

In:   requests on a socket, each a length and marshalled data. Out: one JSON answer each, since nobody may unmarshal a stranger's bytes.
May import: `worker`, `bridge`, the standard library; what a call names. Must not know: contracts, envelopes.
Who believes it: nobody. It shares user and memory limits with what it performs, so the supervisor bounds and checks all it says,
and kills the whole sandbox when it does not answer in time.
Why one process that stays: starting Python and importing the tools costs a hundred times what a fork does.
Why so little is imported: it is paid for at the start of every sandbox, and held as long as that lives. `json`, `socket`, `selectors`
and `signal` would double both.
Why everything else is killed after each call: what a call leaves behind would act in the name of the next one.
"""

from __future__ import annotations

import marshal
import os
import select
import sys

if __name__ == "__main__":
    sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))

from midwatch.sandbox import worker
from midwatch.sandbox.worker import Passing

TYPE_CHECKING = False  # as type checkers read it; see `worker`
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any, Final

    from midwatch.sandbox.bridge import Bridge

__all__ = ["HEAD", "Poller", "main"]

HEAD: Final = 8
"""Bytes before each message: its length, big end first."""
_CHUNK: Final = 65_536
_OUTPUT: Final = 8_192
"""Bytes of each stream of a call that are kept: its end."""
_ANSWER: Final = 3
"""Where a child writes its answer: beside its three streams, and nothing else is open in it."""
_READ, _WRITE = 1, 2
"""As `selectors` has them."""
_PR_SET_DUMPABLE: Final = 4
_DECORATE: Final = "midwatch.tools.builtin.shell"
"""A small module of ours that decorates, so that what decorating loads when it is first done is loaded, too."""
_FILES: Final = ("importlib.util",)
"""What loading a file takes."""
_ENDS: Final = (".py", "/__init__.py")
_preloaded: set[str | None] = set()
_core: Any = worker.imported("_ctypes")
"""Of `ctypes`, whose whole takes as long to import as all else together."""
_prctl: int = _core.dlsym(_core.dlopen(None, 0), "prctl")
_signal: Any = worker.imported("_signal")
_quoted: Callable[[str], str] = worker.imported("_json").encode_basestring_ascii


class Poller:
    """What `selectors` does, for this one loop: descriptors, and what to call when they are ready."""

    def __init__(self) -> None:
        self._poll = select.poll()
        self._calls: dict[int, Callable[[int], None]] = {}

    def register(self, file: Any, events: int, data: Callable[[int], None]) -> None:
        """Call `data` with the events that came."""
        descriptor = file if isinstance(file, int) else file.fileno()
        self._poll.register(
            descriptor, (select.POLLIN if events & _READ else 0) | (select.POLLOUT if events & _WRITE else 0)
        )
        self._calls[descriptor] = data

    modify = register

    def unregister(self, file: Any) -> None:
        """Forget a descriptor."""
        descriptor = file if isinstance(file, int) else file.fileno()
        self._poll.unregister(descriptor)
        del self._calls[descriptor]

    def turn(self) -> None:
        """Wait, then call; who was forgotten by an earlier call of the same turn is not called."""
        for descriptor, ready in self._poll.poll():
            call = self._calls.get(descriptor)
            if call is not None:
                into, out = ready & ~select.POLLOUT, ready & ~select.POLLIN
                call((_READ if into else 0) | (_WRITE if out else 0))


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
        self.stdin = memoryview(request.get("stdin", b""))
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

    def __init__(self, channel: int) -> None:
        self._channel = channel
        self._selector = Poller()
        self._child: Child | None = None
        self._bridge: Bridge | None = None
        self._env: dict[str, str] = {}
        self._wake = _wakeups()
        self._shells = False
        self._null = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
        self._most = os.sysconf("SC_OPEN_MAX")

    def serve(self) -> None:
        """Say hello, then answer requests."""
        hello = self._receive()
        sys.path[:] = hello["sys_path"]
        self._env = hello["env"]
        os.environ.clear()
        os.environ.update(self._env)
        os.chdir(hello["cwd"])
        if hello.get("bridge"):
            bridge = worker.imported("midwatch.sandbox.bridge")
            self._bridge = bridge.Bridge(self._selector, hello["bridge"]["port"], hello["bridge"]["socket"])
        self._send({"ready": os.getpid()})
        self._selector.register(self._channel, _READ, self._request)
        self._selector.register(self._wake, _READ, self._woken)
        while True:
            self._selector.turn()
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
        if self._shells:  # what a shell left acts in no call's name
            self._shells = False
            with Passing(ProcessLookupError):
                os.kill(-1, worker.KILL)
        child = Child(request)
        _preload(request)
        ends = {name: os.pipe() for name in (*(("stdin",) if child.stdin else ()), "stdout", "stderr", "answer")}
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
            event = _WRITE if name == "stdin" else _READ
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
        with Passing(BlockingIOError):
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
        with Passing(BlockingIOError):
            os.read(self._wake, _CHUNK)
        with Passing(ChildProcessError):
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
        with Passing(ProcessLookupError):
            os.kill(-1, worker.KILL)
        if self._bridge is not None:
            self._bridge.renew()
        for name in ("stdout", "stderr", "answer"):
            self._drain(child, name)
        for name in list(child.open):
            self._shut(child, name)
        if child.status is None:
            with Passing(ChildProcessError):
                child.status = os.waitstatus_to_exitcode(os.waitpid(child.pid, 0)[1])
        self._child = None
        self._send(_told(child))

    def _drain(self, child: Child, name: str) -> None:
        with Passing(BlockingIOError):
            while name in child.open and child.end != "too_big":
                data = os.read(child.open[name], _CHUNK)
                if not data:
                    return
                child.take(name, data)

    def _perform(self, request: Mapping[str, Any], ends: Mapping[str, tuple[int, int]]) -> None:
        """Be the child: perform the request and end."""
        try:
            # Each line here is paid for by each call: what a child touches, the kernel copies, a page at a time.
            self._deaf()
            os.dup2(ends["stdin"][0] if "stdin" in ends else self._null, 0)
            os.dup2(ends["stdout"][1], 1)
            os.dup2(ends["stderr"][1], 2)
            os.dup2(ends["answer"][1], _ANSWER, inheritable=False)
            os.closerange(_ANSWER + 1, self._most)
            os.setpgid(0, 0)
            worker.bound(request["limits"])
            _dumpable(1)
            os.write(_ANSWER, worker.ALIVE)
            if request["kind"] == "run":
                _become(request)
            _write(_ANSWER, _performed(request).encode())
            for stream in (sys.stdout, sys.stderr):
                with Passing(OSError, ValueError):  # the tool may have closed it
                    stream.flush()
            os._exit(0)
        except BaseException:  # noqa: BLE001 - the boundary to foreign code; what it says goes to the trace
            with Passing(BaseException):
                import traceback  # noqa: PLC0415 - as above

                traceback.print_exc()
                sys.stderr.flush()
        os._exit(126)

    def _deaf(self) -> None:
        """Be told nothing that is for the cell."""
        _signal.set_wakeup_fd(-1)
        _signal.signal(_signal.SIGCHLD, _signal.SIG_DFL)
        if self._bridge is not None:
            self._bridge.close_in_child()

    def _shell(self, request: Mapping[str, Any]) -> None:
        """Start a program on a terminal of its own and give the terminal's other side away."""
        import fcntl  # noqa: PLC0415 - as all that is seldom used
        import pty  # noqa: PLC0415 - as above
        import socket  # noqa: PLC0415 - as above
        import struct  # noqa: PLC0415 - as above
        import termios  # noqa: PLC0415 - as above

        self._shells = True
        pid, master = pty.fork()
        if pid == 0:
            with Passing(BaseException):
                self._deaf()
                os.closerange(_ANSWER, self._most)
                os.chdir(request["cwd"])
                _dumpable(1)
                os.execvpe(request["argv"][0], request["argv"], {**os.environ, **request["env"]})
            os._exit(126)
        size = struct.pack("HHHH", request["rows"], request["columns"], 0, 0)
        fcntl.ioctl(master, termios.TIOCSWINSZ, size)
        body = _json({"id": request["id"], "status": "answered", "answer": str(pid)})
        with socket.socket(fileno=os.dup(self._channel)) as channel:
            socket.send_fds(channel, [len(body).to_bytes(HEAD) + body], [master])
        os.close(master)

    def _receive(self) -> dict[str, Any]:
        size = int.from_bytes(self._exactly(HEAD))
        message: dict[str, Any] = marshal.loads(self._exactly(size))  # noqa: S302 - from the supervisor, which is trusted
        return message

    def _exactly(self, count: int) -> bytes:
        parts, left = [], count
        while left:
            data = os.read(self._channel, min(left, _CHUNK))
            if not data:
                os._exit(0)  # the supervisor is gone, and with it the sandbox
            parts.append(data)
            left -= len(data)
        return b"".join(parts)

    def _send(self, message: Mapping[str, Any]) -> None:
        body = _json(message)
        _write(self._channel, len(body).to_bytes(HEAD) + body)


def _told(child: Child) -> dict[str, Any]:
    text = {name: bytes(kept) for name, kept in child.kept.items()}
    if child.kind == "run":
        import binascii  # noqa: PLC0415 - as all that an idle cell can do without

        refused = text["answer"][1:].decode("utf-8", "replace")
        return {
            "id": child.id,
            "status": "crashed" if refused else "timeout" if child.end == "timeout" else "ended",
            "detail": refused,
            "began": not refused,
            "exit_code": child.status,
            **{name: binascii.b2a_base64(text[name], newline=False).decode() for name in ("stdout", "stderr")},
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
    import json  # noqa: PLC0415 - as all that only a child needs

    return json.dumps(answer, allow_nan=False, ensure_ascii=True)


def _preload(request: Mapping[str, Any]) -> None:
    """Have here what each child would make anew: Midwatch's own modules, and a user's file read, though run in the child alone."""
    source = request["ref"].rpartition(":")[0] if request["kind"] == "call" else None
    if source not in _preloaded:
        _preloaded.add(source)
        names = ["resource"]
        if source is not None:
            names += ["json", *(_FILES if source.endswith(".py") else ())]
            names += [source] if source.startswith("midwatch.") else [_DECORATE] if _decorated(source) else []
        for name in names:
            with Passing(ImportError):  # the child says so, where somebody listens
                worker.imported(name)
        sys.stdout, sys.stderr = _text(1), _text(2)  # a child's own, whose places they are
        worker.imported("gc").freeze()  # so that no collection in a child writes on pages that it shares
    if source is not None and source.endswith(".py"):
        with Passing(Exception):  # as above
            worker.prepare(source, _from_outside)


def _decorated(source: str) -> bool:
    """Whether a user's file says that it needs Midwatch. It is looked at, not run."""
    tail = source.replace(".", "/")
    places = [source] if source.endswith(".py") else [f"{entry}/{tail}{end}" for entry in sys.path for end in _ENDS]
    for place in places:
        with Passing(OSError):
            if _from_outside(place):
                with open(place, "rb") as file:
                    return b"midwatch" in file.read(_CHUNK)
    return False


def _from_outside(path: str) -> bool:
    """Whether nothing inside can have written a file, so that this process may look into it."""
    return bool(os.statvfs(path).f_flag & os.ST_RDONLY)


def _dumpable(value: int) -> None:
    """Say whether others of this user may look into this process."""
    if _core.call_function(_prctl, (_PR_SET_DUMPABLE, value, 0, 0, 0)) != 0:
        raise OSError("this process cannot be closed to others")


def _wakeups() -> int:
    ours, theirs = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    _signal.signal(_signal.SIGCHLD, lambda *_: None)
    _signal.set_wakeup_fd(theirs, warn_on_full_buffer=False)
    return ours


def _json(message: Mapping[str, Any]) -> bytes:
    """Write a flat object of texts, whole numbers, truth values and nothing."""
    return ("{" + ",".join(f"{_quoted(name)}:{_word(value)}" for name, value in message.items()) + "}").encode()


def _word(value: Any) -> str:
    if isinstance(value, str):
        return _quoted(value)
    return "null" if value is None else str(value).lower()


def _text(descriptor: int) -> Any:
    return open(descriptor, "w", encoding="utf-8", errors="replace", buffering=_CHUNK, closefd=False)


def _write(descriptor: int, data: bytes) -> None:
    left = memoryview(data)
    while left:
        left = left[os.write(descriptor, left) :]


def _become(request: Mapping[str, Any]) -> None:
    """Become a program. Its end is all it answers, unless it never begins."""
    try:
        os.chdir(request["cwd"])
        os.execvpe(request["argv"][0], request["argv"], {**os.environ, **request["env"]})
    except OSError as problem:
        _write(_ANSWER, f"`{request['argv'][0]}` cannot be started: {problem.strerror}".encode())
        os._exit(126)


def main(place: str) -> None:
    """Serve the descriptor, or the socket at the path, that `place` names."""
    if place.isdigit():
        channel = int(place)
    else:
        import socket  # noqa: PLC0415 - only where no descriptor was given

        with socket.socket(socket.AF_UNIX) as connected:
            connected.connect(place)
            channel = connected.detach()
    os.set_inheritable(channel, False)
    _dumpable(0)  # what it forks may not write into its memory
    Cell(channel).serve()


if __name__ == "__main__":
    main(sys.argv[1])
