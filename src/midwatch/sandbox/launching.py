"""Launching: the supervisor's end of a launcher, and what every sandbox gets beside its view: a user, a folder for its socket.

In:   what the launcher is told. Out: `LauncherClient`, `User`, `attached`; each gives back what it holds when it is closed.
May import: launcher's message size, cgroups, the port, profile, celled's `Network`; anyio. Must not know: bubblewrap, Docker.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import secrets
import select
import shutil
import socket
import subprocess
import tempfile
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from midwatch.errors import SandboxError
from midwatch.sandbox import cgroups, launcher
from midwatch.sandbox.celled import Network
from midwatch.sandbox.port import Egress
from midwatch.sandbox.profile import SandboxProfile, interpreter

__all__ = ["ELSEWHERE", "LauncherClient", "User", "attached", "runtime_folder", "stopped"]

ELSEWHERE: Final = "lock"
"""A file in the folder of a supervisor whose mounts stand in another's namespace: they do not go with its launcher."""
_FIRST_USER: Final = 0x70000000
_USERS: Final = 65_536
"""User ids that no system gives to people or services: systemd's containers end below, the signed range ends above."""
_READY_S: Final = 20.0
_ANSWER_S: Final = 30.0


def runtime_folder() -> Path:
    """Give the folder for what lives as long as sandboxes do: sockets and mount points."""
    if os.geteuid() == 0:
        place = Path("/run/midwatch")
    else:
        state = os.environ.get("XDG_RUNTIME_DIR")
        place = Path(state) / "midwatch" if state else Path(tempfile.gettempdir()) / f"midwatch-{os.getuid()}"
    place.mkdir(mode=0o711, parents=True, exist_ok=True)
    found = place.lstat()
    if found.st_uid != os.getuid() or found.st_mode & 0o022 or not place.is_dir() or place.is_symlink():
        raise SandboxError(f"`{place}` must be a folder that only this user may write to; remove it")
    return place


def _sweep(folder: Path) -> None:
    """Remove what supervisors left that are dead. Their mounts went with their launchers; whose did not is swept by its backend."""
    for path in folder.glob("box.*"):
        if not cgroups.supervised(path.name.rpartition(".")[0]) and not (path / ELSEWHERE).exists():
            shutil.rmtree(path, ignore_errors=True)
    for path in (folder / "users").glob("*"):
        _free(path)


def _free(path: Path) -> None:
    """Take a user id's file away that nobody holds: its supervisor was killed."""
    with contextlib.suppress(OSError):
        descriptor = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            path.unlink()  # whoever waits for this very file finds that it has no name any more
        finally:
            os.close(descriptor)


class LauncherClient:
    """The supervisor's end of one launcher. Any thread may ask; requests are answered one after the other."""

    def __init__(self, mode: str | None = None) -> None:
        """Start a launcher. `mode`: as its own; None: `private` for root, `user` for a plain user.

        Raises:
            SandboxError: this machine does not let it mount.
        """
        _sweep(runtime_folder())
        self.folder = Path(tempfile.mkdtemp(prefix=f"{cgroups.named('box')}.", dir=runtime_folder()))
        self.folder.chmod(0o711)
        self.base = self.folder / "box"
        self.base.mkdir(mode=0o711)
        (self.folder / "net").mkdir(mode=0o711)
        self._lock = threading.Lock()
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        chosen = mode or ("private" if os.geteuid() == 0 else "user")
        python = interpreter()
        self._process = subprocess.Popen(
            [python, "-I", "-S", launcher.__file__, str(theirs.fileno()), str(self.base), chosen],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            env={},
            pass_fds=(theirs.fileno(),),
            start_new_session=True,
        )
        theirs.close()
        self._channel = ours
        answer, _ = self._receive(_READY_S)
        if "ready" not in answer:
            self.close()
            raise SandboxError(
                f"file views cannot be mounted here: {answer.get('error')}; `midwatch doctor` says what is missing"
            )

    def ask(self, op: str, *, fds: Sequence[int] = (), **body: Any) -> tuple[dict[str, Any], list[int]]:
        """Send one request; gives the answer and the descriptors that came with it.

        Raises:
            SandboxError: the launcher says no, or is gone.
        """
        with self._lock:
            try:
                socket.send_fds(self._channel, [json.dumps({"op": op, **body}).encode()], list(fds))
            except OSError as gone:
                raise SandboxError(f"the sandboxes' launcher is gone: {gone}") from gone
            answer, back = self._receive(_ANSWER_S)
        if "error" in answer:
            for descriptor in back:
                os.close(descriptor)
            raise SandboxError(f"the sandbox could not do `{op}`: {answer['error']}")
        return answer, back

    def _receive(self, seconds: float) -> tuple[dict[str, Any], list[int]]:
        readable, _, _ = select.select([self._channel], [], [], seconds)
        if not readable:
            self._process.kill()
            raise SandboxError("the sandboxes' launcher does not answer")
        data, back, _, _ = socket.recv_fds(self._channel, launcher.MESSAGE, 8)
        if not data:
            raise SandboxError("the sandboxes' launcher is gone")
        return json.loads(data), back

    def alive(self) -> bool:
        """Whether it still answers; one that was killed has taken its sandboxes with it, and another can be started."""
        return self._process.poll() is None

    def close(self) -> None:
        """End the launcher: every sandbox of it is killed, every mount goes."""
        self._channel.close()
        try:
            self._process.wait(_ANSWER_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)


class User:
    """A user id that no other living sandbox on this machine has; held by a lock on a file, so that a crash gives it back."""

    def __init__(self) -> None:
        folder = runtime_folder() / "users"
        folder.mkdir(mode=0o700, exist_ok=True)
        while True:
            number = secrets.randbelow(_USERS)
            descriptor = os.open(folder / str(number), os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(descriptor)
                continue
            if os.fstat(descriptor).st_nlink:
                break
            os.close(descriptor)  # its last holder took the name away meanwhile, so that another may lock a new file
        self.id, self._descriptor, self._file = _FIRST_USER + number, descriptor, folder / str(number)

    def close(self) -> None:
        """Give it back. Safe to repeat."""
        if self._descriptor >= 0:
            self._file.unlink(missing_ok=True)
            os.close(self._descriptor)
            self._descriptor = -1


def stopped(client: LauncherClient, name: str) -> None:
    """Kill what lives in a view and take it away."""
    with contextlib.suppress(SandboxError):  # a launcher that is gone has taken everything with it
        client.ask("stop", name=name)


async def attached(
    folder: Path,
    profile: SandboxProfile,
    egress: Egress | None,
    owner: tuple[int, int] | None,
    stack: contextlib.AsyncExitStack,
) -> tuple[Network | None, str | None]:
    """Put the broker's socket into a folder that only this sandbox sees."""
    if egress is None:
        return None, None
    stack.callback(shutil.rmtree, folder, ignore_errors=True)
    _own_folder(folder, owner)
    network: Network = await stack.enter_async_context(egress.attach(folder / "broker.sock", profile, owner))
    return network, str(folder)


def _own_folder(folder: Path, owner: tuple[int, int] | None) -> None:
    folder.mkdir(mode=0o700)
    if owner is not None:
        os.chown(folder, *owner)
