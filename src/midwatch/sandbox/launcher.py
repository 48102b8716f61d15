"""Launcher: a small process that makes file views and starts sandboxes in them, for one supervisor, until that ends.

In:   requests on a socket, each one JSON message, with descriptors beside it. Out: one JSON answer each.
May import: `mounts`, the standard library: it runs in a bare interpreter, since it lives as long as the supervisor.
Must not know: profiles, tools, agents. Whoever holds the other end of the socket is trusted; what runs in a sandbox never sees it.
Why a process of its own: a sandbox dies with the *thread* that started it (PR_SET_PDEATHSIG), so that must be one that never ends
early; and the mounts stand in a mount namespace of its own, so that nothing is left on the machine, however the supervisor ends.

    stand   → a process that joins control groups and waits there; joining takes the kernel longer than all the rest
    prepare → the view is mounted; descriptors of the merged tree and of what changes in it
    start   → a program in it: who stands by becomes it, under its own user
    adopt   → a container that an engine started in it; signal, poll, stop, sweep

When the socket ends, every sandbox is killed.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import resource
import select
import shutil
import signal
import socket
import sys
import time
from typing import Any, Final

if __name__ == "__main__":
    sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))

from midwatch.sandbox import mounts

__all__ = ["ARGUMENTS_FD", "CONTROL_FD", "ETC", "MESSAGE", "SECCOMP_FD", "main"]

CONTROL_FD: Final = 3
SECCOMP_FD: Final = 4
ARGUMENTS_FD: Final = 5
"""Where the program that is started finds its descriptors."""
MESSAGE: Final = 262_144
"""Bytes of the largest message."""
_FDS: Final = 8
_MOMENTS: Final = 500
_HIGH: Final = 16
_EXPENDABLE: Final = "500"
_VIEW: Final = {"sticky": 0o711, "entries": 16_384, "bytes": 32 << 20}
ETC: Final = ".etc"
"""Folder beside the sandboxes' own, with what all of them see as `/etc`."""
_LIMITS: Final = {
    "core": resource.RLIMIT_CORE,
    "open_files": resource.RLIMIT_NOFILE,
    "file_size": resource.RLIMIT_FSIZE,
    "address_space": resource.RLIMIT_AS,
    "processes": resource.RLIMIT_NPROC,
}


class Box:
    """One sandbox: its folder, and the program in it, once started."""

    def __init__(self, root: str) -> None:
        self.root = root
        self.pid = 0
        self.status: int | None = None
        self.groups: list[str] = []
        self.adopted = -1

    def path(self, *parts: str) -> str:
        """Give a path below the sandbox's folder."""
        return "/".join((self.root, *parts))


class Standing:
    """A process in control groups that waits to become a program. It ends with its end of the socket."""

    def __init__(self, pid: int, orders: socket.socket, joins: list[str], groups: list[str]) -> None:
        self.pid, self.orders, self.joins, self.groups = pid, orders, joins, groups

    def lives(self) -> bool:
        """Whether it waits still; only somebody else's kill ends it."""
        orders = select.poll()
        orders.register(self.orders, select.POLLIN)
        return not orders.poll(0)

    def told(self, request: dict[str, Any], fds: list[int]) -> str:
        """Tell it what to become; gives why it has not, or nothing."""
        failed, into = os.pipe()
        with self.orders, open(failed, "rb") as stream:
            try:
                socket.send_fds(self.orders, [json.dumps(request).encode()], [*fds, into])
            except OSError as gone:
                return f"who stood by is gone: {gone}"
            finally:
                os.close(into)
            return stream.read(4096).decode()

    def end(self) -> None:
        """Kill it."""
        self.orders.close()
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)


class Launcher:
    """Serves one socket. `base` is an existing folder that only this user may enter."""

    def __init__(self, channel: socket.socket, base: str, mode: str) -> None:
        """Enter the mount namespace that `mode` names: `private`, `user` (a plain user's) or the path of another one."""
        self._channel, self._base, self._user = channel, base, mode == "user"
        self._boxes: dict[str, Box] = {}
        self._standing: dict[str, Standing] = {}
        if mode == "user":
            mounts.enter_user()
        elif mode == "private":
            mounts.enter_private()
        else:
            descriptor = os.open(mode, os.O_RDONLY)
            mounts.enter(descriptor)
            os.close(descriptor)
        mounts.tmpfs(base, size=_VIEW["bytes"], inodes=_VIEW["entries"], mode=_VIEW["sticky"])

    def serve(self) -> None:
        """Answer until the socket ends."""
        poller = select.poll()
        poller.register(self._channel, select.POLLIN)
        while True:
            poller.poll()
            data, fds, _, _ = socket.recv_fds(self._channel, MESSAGE, _FDS)
            if not data:
                return
            back: list[int] = []
            try:
                request = json.loads(data)
                answer = getattr(self, f"do_{request.pop('op')}")(request, fds, back)
            except (OSError, ValueError, KeyError, AttributeError, TypeError) as problem:
                answer = {"error": f"{type(problem).__name__}: {problem}"}
            finally:
                for descriptor in fds:
                    os.close(descriptor)
            socket.send_fds(self._channel, [json.dumps(answer).encode()], back)
            for descriptor in back:
                os.close(descriptor)

    def do_prepare(self, request: dict[str, Any], _fds: list[int], back: list[int]) -> dict[str, Any]:
        """Mount a view. A failure leaves nothing."""
        name = request["name"]
        if name in self._boxes or "/" in name or name.startswith("."):
            raise ValueError(f"`{name}` cannot name a sandbox")
        box = Box(f"{self._base}/{name}")
        os.mkdir(box.root, 0o711)
        try:
            self._view(box, request)
            back.append(os.open(box.path("merged"), os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC))
            back.append(os.open(box.path("store", "upper"), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))
        except OSError:
            self._drop(box)
            raise
        self._boxes[name] = box
        return {"root": box.root}

    def _view(self, box: Box, request: dict[str, Any]) -> None:
        here = tuple(request["owner"])
        workspace = request["workspace"]
        if "shared" in request:
            _share(f"{self._base}/{ETC}", request["shared"])
        there = os.stat(workspace)
        for part in ("store", "lower", "merged", "code", "etc"):
            os.mkdir(box.path(part), 0o755)
        mounts.tmpfs(box.path("store"), size=request["size"], inodes=request["inodes"], mode=0o711)
        for part in ("upper", "work"):
            os.mkdir(box.path("store", part), 0o755)
        os.chmod(box.path("store", "upper"), there.st_mode & 0o777 | 0o700)
        mapped = None if self._user else ((there.st_uid, there.st_gid), (here[0], here[1]))
        if mapped is not None:
            os.chown(box.path("store", "upper"), *mapped[1])
        with mounts.Mapping() as mapping:
            mounts.bind(workspace, box.path("lower"), to=mapping.of(mapped))
            for number, (source, mapped_too) in enumerate(request["binds"]):
                self._bind(box.path("code", str(number)), source, here if mapped_too else None, mapping)
        mounts.overlay(
            box.path("merged"),
            lower=box.path("lower"),
            upper=box.path("store", "upper"),
            work=box.path("store", "work"),
            user=self._user,
        )
        for file, text in request["etc"].items():
            with open(box.path("etc", file), "x", encoding="utf-8") as out:
                out.write(text)
            os.chmod(box.path("etc", file), 0o644)

    def _bind(self, target: str, source: str, here: tuple[int, ...] | None, mapping: mounts.Mapping) -> None:
        """Show a file or folder. `here`: the agent may read it even where its owner alone may."""
        found = os.stat(source)
        if os.path.isdir(source):
            os.mkdir(target, 0o755)
        else:
            os.close(os.open(target, os.O_CREAT | os.O_WRONLY, 0o644))
        owner = None if self._user or here is None else ((found.st_uid, found.st_gid), (here[0], here[1]))
        mounts.bind(source, target, to=mapping.of(owner), recursive=owner is None)

    def do_stand(self, request: dict[str, Any], _fds: list[int], _back: list[int]) -> dict[str, Any]:
        """Have a process join the control groups of a sandbox that is not prepared yet, or not even asked for."""
        if request["name"] in self._standing:
            raise ValueError("it stands by already")
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        pid = os.fork()
        if pid == 0:
            for held in (self._channel, ours, *(standing.orders for standing in self._standing.values())):
                held.close()
            _stand(theirs, request["joins"])
        theirs.close()
        self._standing[request["name"]] = Standing(pid, ours, list(request["joins"]), list(request["groups"]))
        return {"pid": pid}

    def do_start(self, request: dict[str, Any], fds: list[int], _back: list[int]) -> dict[str, Any]:
        """Start the program of a prepared sandbox. Descriptors: its control socket, its seccomp filter, its output."""
        name = request["name"]
        box = self._boxes[name]
        if box.pid:
            raise ValueError("it was started already")
        if not self._standing[name].lives():
            standing = self._standing.pop(name)
            standing.end()
            self.do_stand({"name": name, "joins": standing.joins, "groups": standing.groups}, [], [])
        standing = self._standing.pop(name)
        refused = standing.told(request, fds)
        if refused:
            standing.end()
            raise OSError(refused)
        box.groups, box.pid = standing.groups, standing.pid
        return {"pid": box.pid}

    def do_adopt(self, request: dict[str, Any], fds: list[int], _back: list[int]) -> dict[str, Any]:
        """Take charge of a program that somebody else started in a view: it is killed when the view goes. Descriptor: its pidfd."""
        box = self._boxes[request["name"]]
        box.groups, box.adopted = list(request["groups"]), os.dup(fds[0])
        return {}

    def do_sweep(self, request: dict[str, Any], _fds: list[int], _back: list[int]) -> dict[str, Any]:
        """Take away what is mounted in the folder of a supervisor that is gone, where the namespace is not the launcher's own."""
        with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
            points = [line.split(" ")[4] for line in file]
        for point in reversed(points):
            if point.startswith(request["folder"] + "/"):
                mounts.detach(point)
        return {}

    def do_poll(self, request: dict[str, Any], _fds: list[int], _back: list[int]) -> dict[str, Any]:
        """Say whether the program has ended, and how."""
        box = self._boxes[request["name"]]
        self._reap(box, wait=False)
        return {"status": box.status}

    def do_signal(self, request: dict[str, Any], _fds: list[int], _back: list[int]) -> dict[str, Any]:
        """Send a signal to every process of a sandbox; for machines without control groups."""
        box = self._boxes[request["name"]]
        sent: set[int] = set()
        for _ in range(8):  # until a round finds nobody new: who was about to fork has done so
            new = _tree(box.pid) - sent if box.pid else set()
            for pid in sorted(new):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, request["signal"])
            if not new:
                break
            sent |= new
        return {"processes": len(sent)}

    def do_stop(self, request: dict[str, Any], _fds: list[int], _back: list[int]) -> dict[str, Any]:
        """Kill what lives or stands by, and take the view away."""
        standing = self._standing.pop(request["name"], None)
        if standing is not None:
            standing.end()
        box = self._boxes.pop(request["name"], None)
        if box is None:
            return {"status": None}
        self._kill(box)
        self._drop(box)
        return {"status": box.status}

    def close(self) -> None:
        """Kill everything; the mounts go with the namespace, or are taken away where it is not ours."""
        for standing in self._standing.values():
            standing.end()
            for group in standing.groups:
                _remove(group)
        for box in self._boxes.values():
            with contextlib.suppress(OSError):  # the others must be killed, too
                self._kill(box)
        for box in self._boxes.values():
            with contextlib.suppress(OSError):
                self._drop(box)
            for group in box.groups:  # whose supervisor is gone: nobody else takes them away
                _remove(group)
        with contextlib.suppress(OSError):
            mounts.detach(self._base)
        for folder in (self._base, os.path.join(os.path.dirname(self._base), "net"), os.path.dirname(self._base)):
            with contextlib.suppress(OSError):  # where the supervisor lives, it takes away what is left
                os.rmdir(folder)

    def _kill(self, box: Box) -> None:
        for group in box.groups:
            with contextlib.suppress(OSError), open(f"{group}/cgroup.kill", "w", encoding="ascii") as file:
                file.write("1")
        if box.adopted >= 0:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(box.adopted, signal.SIGKILL)
            for group in box.groups:  # what version 1 has frozen dies when it goes on
                with contextlib.suppress(OSError), open(f"{group}/freezer.state", "r+", encoding="ascii") as file:
                    file.write("THAWED")
            os.close(box.adopted)
            box.adopted = -1
        if box.pid and box.status is None:
            # Both: the outer process, whose end takes the inner tree with it, and a frozen one, which a group's kill wakes.
            for pid in sorted(_tree(box.pid)):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            self._reap(box, wait=True)

    def _reap(self, box: Box, *, wait: bool) -> None:
        if box.status is None and box.pid:
            with contextlib.suppress(ChildProcessError):
                pid, status = os.waitpid(box.pid, 0 if wait else os.WNOHANG)
                if pid:
                    box.status = os.waitstatus_to_exitcode(status)

    def _drop(self, box: Box) -> None:
        codes = os.listdir(box.path("code")) if os.path.isdir(box.path("code")) else []
        for part in (*(f"code/{number}" for number in codes), "merged", "lower", "store"):
            mounts.detach(box.path(part))
        shutil.rmtree(box.root, ignore_errors=True)


def _share(folder: str, wanted: dict[str, Any]) -> None:
    """Make the folder that every sandbox sees as `/etc`, once: texts, and copies of what this machine has there."""
    if os.path.isdir(folder):
        return
    new = f"{folder}.new"
    shutil.rmtree(new, ignore_errors=True)
    os.mkdir(new, 0o755)
    for name in wanted["copies"]:
        _copy(os.path.realpath(f"/etc/{name}"), f"{new}/{name}")
    for name, text in wanted["texts"].items():
        with open(f"{new}/{name}", "x", encoding="utf-8") as out:
            out.write(text)
        os.chmod(f"{new}/{name}", 0o644)
    os.rename(new, folder)


def _copy(source: str, target: str) -> None:
    """Copy files, folders and links; who may not read a file here may not there. What this user cannot read is no file there."""
    found = os.lstat(source)
    os.makedirs(os.path.dirname(target), 0o755, exist_ok=True)
    with contextlib.suppress(PermissionError):
        if os.path.islink(source):
            os.symlink(os.readlink(source), target)
        elif os.path.isdir(source):
            os.mkdir(target, 0o755)
            for name in os.listdir(source):
                _copy(f"{source}/{name}", f"{target}/{name}")
            os.chmod(target, found.st_mode & 0o755)
        elif os.path.isfile(source):
            shutil.copyfile(source, target)
            os.chmod(target, found.st_mode & 0o755)


def _stand(orders: socket.socket, joins: list[str]) -> None:
    """Be the child: join the groups, and become a program when told to. Never returns."""
    told = -1
    try:
        problem = None
        try:
            os.setsid()
            for path in joins:
                with open(path, "w", encoding="ascii") as file:
                    file.write("0")
        except OSError as refused:
            problem = refused  # told when somebody listens
        data, fds, _, _ = socket.recv_fds(orders, MESSAGE, _FDS)
        if data:
            told = fds.pop()
            if problem is not None:
                raise problem
            _become(json.loads(data), fds, told)
    except BaseException as problem:  # noqa: BLE001 - a child may not return, whatever happened
        for descriptor in (told, ARGUMENTS_FD + 1):  # where it has been moved to meanwhile, perhaps
            with contextlib.suppress(OSError):
                os.write(descriptor, f"{type(problem).__name__}: {problem}".encode())
                break
    finally:
        os._exit(127)


def _become(request: dict[str, Any], fds: list[int], told: int) -> None:
    """Turn this child into the program: descriptors, limits, user, and nothing of the environment."""
    control, seccomp, output = fds
    null = os.open(os.devnull, os.O_RDONLY)
    arguments = os.memfd_create("arguments")
    os.write(arguments, b"".join(os.fsencode(word) + b"\0" for word in request["arguments"]))
    os.lseek(arguments, 0, os.SEEK_SET)
    # Above every place first, so that none is written over before it was moved.
    high = [fcntl.fcntl(fd, fcntl.F_DUPFD, _HIGH) for fd in (null, output, output, control, seccomp, arguments, told)]
    for place, descriptor in enumerate(high):
        os.dup2(descriptor, place, inheritable=place <= ARGUMENTS_FD)
    os.closerange(ARGUMENTS_FD + 2, os.sysconf("SC_OPEN_MAX"))
    for name, value in request["rlimits"].items():
        if value is not None:
            resource.setrlimit(_LIMITS[name], (value, value))
    for kind in (
        resource.RLIMIT_RTPRIO,
        resource.RLIMIT_NICE,
    ):  # no share of the processor bounds what runs in real time
        resource.setrlimit(kind, (0, 0))
    # The machine out of memory kills sandboxes before their supervisor, whose own score they would have.
    with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w", encoding="ascii") as score:
        score.write(_EXPENDABLE)
    if request["owner"] is not None:
        os.setgroups([])
        os.setgid(request["owner"][1])
        os.setuid(request["owner"][0])
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    for number in (signal.SIGPIPE, signal.SIGXFSZ):
        signal.signal(number, signal.SIG_DFL)
    os.umask(0o022)
    os.chdir("/")
    os.execve(request["argv"][0], request["argv"], {})


def _tree(root: int) -> set[int]:
    """Give a process and all that descends from it; who lost its parent has the sandbox's first process as one."""
    children: dict[int, list[int]] = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            with contextlib.suppress(OSError, ValueError), open(f"/proc/{entry}/stat", "rb") as file:
                parent = int(file.read().rpartition(b")")[2].split()[1])
                children.setdefault(parent, []).append(int(entry))
    found, todo = set(), [root]
    while todo:
        pid = todo.pop()
        found.add(pid)
        todo += children.get(pid, ())
    return found


def _remove(group: str) -> None:
    """Take an empty control group away; the kernel needs a moment after the last process."""
    for _ in range(_MOMENTS):
        try:
            os.rmdir(group)
        except FileNotFoundError:
            return
        except OSError:
            time.sleep(0.002)
        else:
            return


def main(descriptor: int, base: str, mode: str) -> None:
    """Serve the socket at `descriptor` to its end."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal's interrupt is the supervisor's to answer
    channel = socket.socket(fileno=descriptor)
    channel.set_inheritable(False)
    try:
        launcher = Launcher(channel, base, mode)
    except OSError as problem:
        channel.send(json.dumps({"error": str(problem)}).encode())
        return
    channel.send(json.dumps({"ready": os.getpid()}).encode())
    try:
        launcher.serve()
    finally:
        launcher.close()


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2], sys.argv[3])
