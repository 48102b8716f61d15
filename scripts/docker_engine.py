"""Docker engine: a private one for tests, from Debian's packages, with nothing installed on the system.

In:   `start NAME`, `stop NAME`; root, on Debian or a descendant; `--while PID` stops it when that process is gone.
Out:  `start` prints the address for `DOCKER_HOST`; everything lies below `.docker-engine/` of this checkout.
Must not know: midwatch; it runs before anything is installed, on the standard library.
Why a network namespace of its own: the host's tables and interfaces are left alone, and no image can be pulled by accident.
Why a mount namespace of its own: images, containers and their mounts are on a tmpfs in it, and end with the last process in it.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

BASE: Final = Path(__file__).resolve().parent.parent / ".docker-engine"
PACKAGES: Final = ("docker.io", "containerd", "runc", "tini")
WISHED: Final = "runsc"
"""gVisor's runtime; an engine without it is an engine."""
COVERED: Final = (Path("/run/containerd"), Path("/etc/docker"))
"""Where containerd and the engine write whatever they are told; a tmpfs lies over each in the engine's namespace."""

_CGROUPS: Final = Path("/sys/fs/cgroup")
_ENTER: Final = """
set -e
while [ "$1" != -- ]; do mount -t tmpfs -o mode=0711 engine "$1"; shift; done
shift
exec "$@"
"""


class EngineProblem(Exception):
    """The engine cannot be had here; the text says why and what to do."""


def start(name: str, owner: int | None = None) -> str:
    """Start the engine called `name`, or find it running; give its address."""
    if os.geteuid() != 0:
        raise EngineProblem("a private engine needs root; or set DOCKER_HOST to an engine that you may use")
    unpack()
    place = BASE / "run" / name
    place.mkdir(parents=True, exist_ok=True)
    with _locked(place / "lock"):
        if not answers(place / "docker.sock"):
            _end(place)
            _begin(place)
            if owner is not None:
                _stop_when_gone(owner, name)
    return f"unix://{place / 'docker.sock'}"


def stop(name: str) -> None:
    """Stop the engine called `name` with all its containers, and remove what it left. Nothing happens when there is none."""
    place = BASE / "run" / name
    if place.is_dir():
        with _locked(place / "lock"):
            _end(place)
            shutil.rmtree(place)
    with _locked(BASE / "lock"):
        for folder in COVERED:
            if folder.is_dir() and not _covered(folder):
                with contextlib.suppress(OSError):  # not empty: somebody else's
                    folder.rmdir()


def unpack() -> None:
    """Have the programs below `.docker-engine/root`; the first time they are downloaded."""
    BASE.mkdir(exist_ok=True)
    with _locked(BASE / "lock"):
        if (BASE / "root" / ".complete").exists():
            return
        if shutil.which("apt-get") is None or shutil.which("dpkg-deb") is None:
            raise EngineProblem("no Debian packages here; set DOCKER_HOST to an engine that you may use")
        for part in ("packages", "root"):
            shutil.rmtree(BASE / part, ignore_errors=True)
            (BASE / part).mkdir()
        command = ["apt-get", "-qq", "-o", "APT::Sandbox::User=root", "download", *PACKAGES]
        if _run(command, BASE / "packages", 120) != 0:
            _run(["apt-get", "-qq", "update"], BASE, 120)
            if _run(command, BASE / "packages", 120) != 0:
                raise EngineProblem(f"apt-get cannot download {', '.join(PACKAGES)}; see its words above")
        _run([*command[: -len(PACKAGES)], WISHED], BASE / "packages", 60)
        for package in sorted((BASE / "packages").glob("*.deb")):
            if _run(["dpkg-deb", "-x", str(package), str(BASE / "root")], BASE, 120) != 0:
                raise EngineProblem(f"{package.name} cannot be unpacked; remove {BASE} and try again")
        shutil.rmtree(BASE / "packages")
        (BASE / "root" / ".complete").touch()


def answers(path: Path) -> bool:
    """Say whether an engine answers on this socket."""
    connection = http.client.HTTPConnection("docker", timeout=5)
    try:
        connection.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        connection.sock.settimeout(5)
        connection.sock.connect(str(path))
        connection.request("GET", "/_ping")
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def _begin(place: Path) -> None:
    data = place / "data"
    data.mkdir(exist_ok=True)
    address = place / "docker.sock"
    if len(str(address)) > 100:
        raise EngineProblem(f"{address} is too long for a socket; use a checkout with a shorter path")
    engine = ["dockerd", "--host", f"unix://{address}", "--pidfile", str(place / "pid"), "--data-root", str(data)]
    engine += ["--exec-root", str(COVERED[0] / "engine"), "--storage-driver", "overlay2"]
    engine += ["--cgroup-parent", f"/{_group(place)}", "--bridge", "none"]
    engine += ["--iptables=false", "--ip6tables=false", "--ip-forward=false", "--ip-masq=false"]
    engine += ["--exec-opt", "native.cgroupdriver=cgroupfs", "--config-file", str(place / "engine.json")]
    root = BASE / "root" / "usr"
    gvisor = {"path": str(root / "bin" / WISHED), "runtimeArgs": ["--network=none", "--host-uds=open"]}
    runtimes = {WISHED: gvisor} if (root / "bin" / WISHED).exists() else {}
    (place / "engine.json").write_text(json.dumps({"runtimes": runtimes}))
    path = f"{root / 'bin'}:{root / 'sbin'}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    command = ["unshare", "--net", "--mount", "sh", "-c", _ENTER, "engine", str(data), *map(str, COVERED), "--"]
    with _locked(BASE / "lock"), (place / "log").open("wb") as log:
        for folder in COVERED:
            folder.mkdir(mode=0o711, exist_ok=True)
        process = subprocess.Popen(
            command + engine,
            env={"PATH": path, "DOCKER_TMPDIR": str(data)},
            cwd=place,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        (place / "namespace").write_text(_own_namespace(process.pid))
        up = _wait(lambda: answers(address) or process.poll() is not None, 30)
    if not up or process.poll() is not None:
        tail = (place / "log").read_text(errors="replace")[-2000:]
        _end(place)
        raise EngineProblem(f"the engine did not start:\n{tail}")


def _own_namespace(process: int) -> str:
    """Give the mount namespace that a new process is about to enter, once it has."""
    ours, found = str(Path("/proc/self/ns/mnt").readlink()), [""]

    def entered() -> bool:
        found[0] = str(Path(f"/proc/{process}/ns/mnt").readlink())
        return found[0] != ours

    if not _wait(entered, 5):
        raise EngineProblem("this machine gives no namespaces of its own: `unshare --net --mount` does not work")
    return found[0]


def _covered(folder: Path) -> bool:
    """Say whether any namespace of this machine has a mount there."""
    for table in Path("/proc").glob("[0-9]*/mountinfo"):
        with contextlib.suppress(OSError):
            if f" {folder} " in table.read_text(errors="replace"):
                return True
    return False


def _end(place: Path) -> None:
    """Kill the engine that lies in `place`: its containers by their control groups, itself by its namespace."""
    with contextlib.suppress(OSError):
        (place / "pid").unlink()
    _empty_groups(_group(place))
    with contextlib.suppress(OSError):
        namespace = (place / "namespace").read_text()
        if not _wait(lambda: not _kill_all(_inside(namespace)), 10):
            raise EngineProblem(f"the engine in {place} does not end")
    _empty_groups(_group(place))
    for name in ("docker.sock", "namespace"):
        (place / name).unlink(missing_ok=True)


def _group(place: Path) -> str:
    return f"midwatch-engine-{place.name}"


def _inside(namespace: str) -> list[int]:
    """Give the processes of the engine's mount namespace: itself, containerd, their shims; nothing else is ever in it."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if str((entry / "ns" / "mnt").readlink()) == namespace:
                found.append(int(entry.name))
    return found


def _kill_all(processes: list[int]) -> bool:
    for process in processes:
        with contextlib.suppress(ProcessLookupError):
            os.kill(process, signal.SIGKILL)
    return bool(processes)


def _empty_groups(name: str) -> None:
    """Kill what is in these control groups and remove them, in every hierarchy."""

    def emptied() -> bool:
        tops = [top for top in (_CGROUPS / name, *_CGROUPS.glob(f"*/{name}")) if top.is_dir() and not top.is_symlink()]
        for top in tops:
            for folder, _, _ in os.walk(top, topdown=False):
                _thaw(Path(folder))
                with contextlib.suppress(OSError):
                    _kill_all([int(line) for line in (Path(folder) / "cgroup.procs").read_text().split()])
                with contextlib.suppress(OSError):  # busy until what was killed is gone
                    Path(folder).rmdir()
        return not tops

    if not _wait(emptied, 10):
        raise EngineProblem(f"control groups called {name} cannot be removed")


def _thaw(folder: Path) -> None:
    for name, word in (("freezer.state", "THAWED"), ("cgroup.freeze", "0")):
        with contextlib.suppress(OSError):
            if (folder / name).exists():
                (folder / name).write_text(word)


def _stop_when_gone(owner: int, name: str) -> None:
    """Leave a process behind that waits for the owner's end."""
    watcher = [sys.executable, "-I", str(Path(__file__).resolve()), "watch", name, "--while", str(owner)]
    subprocess.Popen(
        watcher,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def _watch(owner: int, name: str) -> None:
    place = BASE / "run" / name
    while (place / "namespace").exists():
        try:
            os.kill(owner, 0)
        except ProcessLookupError:
            stop(name)
            return
        time.sleep(1)


def _wait(done: Callable[[], bool], seconds: float) -> bool:
    end = time.monotonic() + seconds
    while not done():
        if time.monotonic() > end:
            return False
        time.sleep(0.02)
    return True


def _run(command: list[str], folder: Path, seconds: float) -> int:
    return subprocess.run(
        command, cwd=folder, check=False, timeout=seconds, stdin=subprocess.DEVNULL, stdout=sys.stderr
    ).returncode


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def main() -> int:
    """Do what the command line says; return the exit code."""
    parser = argparse.ArgumentParser(description="A private Docker engine for tests.")
    parser.add_argument("action", choices=("start", "stop", "watch"))
    parser.add_argument("name", nargs="?", default="default")
    parser.add_argument("--while", dest="owner", type=int, metavar="PID", help="stop it when this process is gone")
    asked = parser.parse_args()
    try:
        if asked.action == "start":
            print(start(asked.name, asked.owner))
        elif asked.action == "watch":
            _watch(asked.owner, asked.name)
        else:
            stop(asked.name)
    except (EngineProblem, subprocess.TimeoutExpired) as problem:
        print(f"docker_engine: {problem}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
