"""Worker: the process in which one tool call, or one program, happens.

In:   one JSON request over a private socket, whose descriptor is the only argument.
Out:  one JSON answer over the same socket; exit code 0. Whatever the tool prints goes elsewhere.
May import: the standard library; the tool that the request names. Must not know: contracts, envelopes.
Why limits are set here: between fork and exec only a careful few things are safe in a process with threads; here all is
quiet, and nothing foreign has been imported yet. Why a watcher: if the kernel is killed, its socket closes, and then
this process and everything it started must not act any longer.
"""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False  # as type checkers read it; what is imported here is paid for at the start of every sandbox
if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Mapping
    from types import CodeType, ModuleType, TracebackType
    from typing import Any, Final

__all__ = ["ALIVE", "FILE_MARK", "KILL", "Passing", "bound", "imported", "main", "prepare", "resolve"]

FILE_MARK: Final = "__midwatch_file__"
"""As `midwatch.tools.decorate.FILE_MARK`; a test holds both equal."""

ALIVE: Final = b"\x06"
"""The worker's first byte: limits are set, the request is read, foreign code may begin."""

KILL: Final = 9
"""SIGKILL, without what it takes to import its name."""

_CHUNK: Final = 65_536
_prepared: dict[str, tuple[tuple[int, ...], Any, CodeType | None]] = {}


class Passing:
    """`contextlib.suppress`, without what it takes to import that."""

    def __init__(self, *kinds: type[BaseException]) -> None:
        self._kinds = kinds

    def __enter__(self) -> None:
        return None

    def __exit__(
        self, kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> bool:
        return kind is not None and issubclass(kind, self._kinds)


def main(descriptor: int) -> None:
    """Serve one request."""
    import json  # noqa: PLC0415 - see above
    import socket  # noqa: PLC0415 - as above
    import threading  # noqa: PLC0415 - as above

    channel = socket.socket(fileno=descriptor)
    channel.set_inheritable(False)
    request = _receive(channel)
    bound(request["limits"])
    channel.sendall(ALIVE)
    threading.Thread(target=_watch, args=(channel,), daemon=True).start()
    if request["kind"] == "run":
        answer: Any = _run(request["argv"])
    else:
        sys.path[:] = request["sys_path"]
        answer = resolve(request["ref"]).work(request["arguments"], request["facts"])
    channel.sendall(json.dumps(answer, allow_nan=False, ensure_ascii=True).encode())
    channel.shutdown(socket.SHUT_WR)
    for stream in (sys.stdout, sys.stderr):
        with Passing(OSError, ValueError):  # the tool may have closed it
            stream.flush()
    os._exit(0)  # threads and exit handlers of the tool have no say any more


def _receive(channel: socket.socket) -> dict[str, Any]:
    import json  # noqa: PLC0415 - as above

    head = b""
    while len(head) < 8:
        head += _some(channel, 8 - len(head))
    left, parts = int.from_bytes(head), []
    while left:
        parts.append(_some(channel, min(left, _CHUNK)))
        left -= len(parts[-1])
    request: dict[str, Any] = json.loads(b"".join(parts))
    return request


def _some(channel: socket.socket, count: int) -> bytes:
    data = channel.recv(count)
    if not data:
        os._exit(1)
    return data


def _watch(channel: socket.socket) -> None:
    """End this whole process group when the other side of the socket is gone."""
    with Passing(OSError):
        channel.recv(1)
    os.killpg(os.getpgid(0), KILL)


def bound(limits: Mapping[str, int | None]) -> None:
    """Set what the request asks for; a hard limit below it stays as it is."""
    import resource  # noqa: PLC0415 - see above

    kinds = {
        "memory": resource.RLIMIT_AS,
        "file_size": resource.RLIMIT_FSIZE,
        "open_files": resource.RLIMIT_NOFILE,
        "cpu_seconds": resource.RLIMIT_CPU,
        "core": resource.RLIMIT_CORE,
    }
    for name, kind in kinds.items():
        _lower(kind, limits[name])
    processes = limits["processes"]
    if processes is not None:
        # The system counts all processes and threads of the user, so the bound stands above those that exist.
        _lower(resource.RLIMIT_NPROC, _owned_tasks() + processes)


def _lower(kind: int, wanted: int | None) -> None:
    import resource  # noqa: PLC0415 - see above

    if wanted is None:
        return
    _, hard = resource.getrlimit(kind)
    bound = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    resource.setrlimit(kind, (bound, bound))


def _owned_tasks() -> int:
    count, user = 0, os.getuid()
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            with Passing(OSError):  # it ended while it was counted
                if os.stat(f"/proc/{entry}").st_uid == user:
                    count += len(os.listdir(f"/proc/{entry}/task"))
    return count


def resolve(ref: str) -> Any:
    """Import what a reference leads to."""
    source, _, qualname = ref.rpartition(":")
    found: Any = _load(source) if source.endswith(".py") else imported(source)
    for name in qualname.split("."):
        found = getattr(found, name)
    return found


def imported(name: str) -> Any:
    """As `importlib.import_module`, without what it takes to import that."""
    __import__(name)
    return sys.modules[name]


def prepare(file: str, may: Callable[[str], bool]) -> None:
    """Read and compile a file, without running it, so that what is forked from here need not do so each time.

    Args:
        may: whether it may be looked into here. What was prepared before is forgotten where it may not, is gone, or is no Python.
    """
    known = _prepared.pop(file, None)
    if may(file):
        found = os.stat(file)
        stamp = (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns)
        if known is None or known[0] != stamp:
            spec, loader = _spec(file)
            known = (stamp, spec, loader.get_code(spec.name))
        _prepared[file] = known


def _load(file: str) -> ModuleType:
    import importlib.util  # noqa: PLC0415 - as above

    _, spec, code = _prepared.get(file) or (None, _spec(file)[0], None)
    module = importlib.util.module_from_spec(spec)
    setattr(module, FILE_MARK, file)
    sys.modules[spec.name] = module
    if code is None:
        spec.loader.exec_module(module)
    else:
        exec(code, module.__dict__)  # noqa: S102 - as an import does
    return module


def _spec(file: str) -> tuple[Any, Any]:
    import importlib.util  # noqa: PLC0415 - as above

    name = f"midwatch_tools_{_sha256(file.encode())[:12]}"
    spec = importlib.util.spec_from_file_location(name, file)
    if spec is None or spec.loader is None:
        raise ImportError(f"`{file}` is no Python file")
    return spec, spec.loader


def _sha256(data: bytes) -> str:
    """As `hashlib`, which brings a library along that each fork would pay for."""
    for name in ("_sha2", "_sha256", "hashlib"):  # of Python 3.12, of 3.11, and where neither was built
        with Passing(ImportError):
            digest: str = imported(name).sha256(data).hexdigest()
            return digest
    raise ImportError("this Python has no SHA-256")


def _run(argv: list[str]) -> dict[str, Any]:
    import subprocess  # noqa: PLC0415 - as above

    try:
        child = subprocess.Popen(argv, stdin=subprocess.DEVNULL)
    except OSError as failure:
        return {"exit_code": None, "detail": f"cannot be started: {failure.strerror}"}
    return {"exit_code": child.wait(), "detail": ""}


if __name__ == "__main__":
    main(int(sys.argv[1]))
