"""A Postgres server of our own for tests: installed ones are used, else Debian's packages, unpacked below this tree.

In:   `start [NAME]`, `stop [NAME]`, `restart [NAME]`, `kill [NAME]`; `start --while PID` also stops it when that process is gone.
Out:  the folder of its socket, on standard output; the role `midwatch` and the database `midwatch` are there.
Must not know: what the server is used for.

Nothing is installed and nothing runs as root: programs lie in the system or in `.postgres-server/root`, the data and the only socket
in a folder of the temporary directory that the server's user owns. There is no TCP port. `fsync` stays on, so that what tests prove
of durability is what a real server does.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

BASE: Final = Path(__file__).resolve().parent.parent / ".postgres-server"
PACKAGE: Final = "postgresql"
_NOBODY: Final = 65534
_SETTINGS: Final = {
    "listen_addresses": "",
    "max_connections": "60",
    "shared_buffers": "32MB",
    "jit": "off",
    "autovacuum": "off",
    "log_min_messages": "warning",
}


class ServerProblem(Exception):
    """The server cannot be had here; the text says why and what to do."""


def start(name: str, owner: int | None = None) -> Path:
    """Start the server called `name`, or find it running; give the folder of its socket."""
    place = _place(name)
    with _locked(name):
        programs, env = _programs()
        if not (place / "data" / "PG_VERSION").exists():
            _make(place, programs, env)
        if not _runs(place, programs, env):
            _begin(place, programs, env)
        _role(place, programs, env)
        if owner is not None and not (place / "watched").exists():
            (place / "watched").touch()
            _stop_when_gone(owner, name)
    return place


def stop(name: str) -> None:
    """Stop the server called `name` and remove what it left. Nothing happens when there is none."""
    place = _place(name)
    with _locked(name):
        if (place / "data" / "PG_VERSION").exists():
            programs, env = _programs()
            _control(place, programs, env, "stop", "-m", "immediate", check=False)
        shutil.rmtree(place, ignore_errors=True)


def restart(name: str, *, crash: bool) -> Path:
    """Stop and start it: in order, or as a crash would."""
    place = _place(name)
    with _locked(name):
        programs, env = _programs()
        _control(place, programs, env, "stop", "-m", "immediate" if crash else "fast")
        _begin(place, programs, env)
    return place


def _place(name: str) -> Path:
    return Path(tempfile.gettempdir()) / f"midwatch-pg-{os.getuid()}-{name}"


def _make(place: Path, programs: Path, env: dict[str, str]) -> None:
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(mode=0o700)
    if os.geteuid() == 0:
        os.chown(place, _NOBODY, _NOBODY)
    command = [str(programs / "initdb"), "-D", str(place / "data"), "-U", "midwatch", "--auth=trust", "--no-sync"]
    _run([*command, "--encoding=UTF8", "--locale=C.UTF-8"], place, env, 60)


def _begin(place: Path, programs: Path, env: dict[str, str]) -> None:
    words = " ".join(f"-c {key}='{value}'" for key, value in _SETTINGS.items())
    _control(place, programs, env, "start", "-l", str(place / "log"), "-o", f"-k {place} {words}")


def _role(place: Path, programs: Path, env: dict[str, str]) -> None:
    command = [str(programs / "psql"), "-h", str(place), "-U", "midwatch", "-d", "postgres", "-XAtqc"]
    if _run([*command, "SELECT 1 FROM pg_database WHERE datname = 'midwatch'"], place, env, 30) != "1":
        _run([*command, "CREATE DATABASE midwatch"], place, env, 30)


def _runs(place: Path, programs: Path, env: dict[str, str]) -> bool:
    return _control(place, programs, env, "status", check=False)


def _control(place: Path, programs: Path, env: dict[str, str], *words: str, check: bool = True) -> bool:
    command = [str(programs / "pg_ctl"), "-D", str(place / "data"), "-w", "-t", "30", "-s", *words]
    try:
        _run(command, place, env, 40)
    except ServerProblem:
        if check:
            raise
        return False
    return True


def _programs() -> tuple[Path, dict[str, str]]:
    """Give the folder of `initdb` and the environment that it runs in."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    if found:
        return found[-1].parent, {}
    elsewhere = shutil.which("initdb")
    if elsewhere is not None:
        return Path(elsewhere).resolve().parent, {}
    root = BASE / "root"
    with _locked(".programs"):  # several servers may be started at once
        if not (root / ".complete").exists():
            _unpack(root)
    unpacked = sorted((root / "usr/lib/postgresql").glob("*/bin/initdb"))
    if not unpacked:
        raise ServerProblem(f"no `initdb` below {root}; remove {BASE} and try again")
    libraries = ":".join(str(path) for path in sorted((root / "usr/lib").glob("*-linux-gnu*")))
    return unpacked[-1].parent, {"LD_LIBRARY_PATH": libraries}


def _unpack(root: Path) -> None:
    """Download what the package needs and this system has not, and unpack it."""
    if os.geteuid() != 0 or shutil.which("apt-get") is None or shutil.which("dpkg-deb") is None:
        raise ServerProblem(f"no Postgres here; install `{PACKAGE}`, or run the tests as root on Debian")
    archives = BASE / "packages"
    for folder in (archives, root):
        shutil.rmtree(folder, ignore_errors=True)
    (archives / "partial").mkdir(parents=True)
    root.mkdir(parents=True)
    command = ["apt-get", "-qq", "-y", "-o", "APT::Sandbox::User=root", "-o", f"Dir::Cache::archives={archives}"]
    command += ["-o", "DPkg::Lock::Timeout=60", "--no-install-recommends", "--download-only", "install", PACKAGE]
    if subprocess.run(command, check=False, timeout=200, stdin=subprocess.DEVNULL, stdout=sys.stderr).returncode != 0:
        update = ["apt-get", "-qq", "update"]
        subprocess.run(update, check=False, timeout=120, stdin=subprocess.DEVNULL, stdout=sys.stderr)
        subprocess.run(command, check=True, timeout=200, stdin=subprocess.DEVNULL, stdout=sys.stderr)
    for package in sorted(archives.glob("*.deb")):
        subprocess.run(["dpkg-deb", "-x", str(package), str(root)], check=True, timeout=120, stdin=subprocess.DEVNULL)
    shutil.rmtree(archives)
    (root / ".complete").touch()


def _run(command: list[str], folder: Path, env: dict[str, str], seconds: float) -> str:
    """Run a program as the server's user; its words are the error's."""
    whole = {"PATH": "/usr/local/bin:/usr/bin:/bin", "LC_ALL": "C.UTF-8", "HOME": str(folder), **env}
    other = {"user": _NOBODY, "group": _NOBODY, "extra_groups": []} if os.geteuid() == 0 else {}
    with tempfile.TemporaryFile("w+") as said:  # a pipe would stay open in the server
        code = subprocess.run(  # type: ignore[call-overload]
            command, cwd=folder, env=whole, check=False, timeout=seconds, stdin=subprocess.DEVNULL, stdout=said,
            stderr=said, **other,
        ).returncode  # fmt: skip
        said.seek(0)
        text = said.read().strip()
    if code != 0:
        log = folder / "log"
        tail = log.read_text(errors="replace")[-1500:] if log.exists() else ""
        raise ServerProblem(f"{Path(command[0]).name} failed: {text[-1500:]} {tail}")
    return str(text)


def _stop_when_gone(owner: int, name: str) -> None:
    watcher = [sys.executable, "-I", str(Path(__file__).resolve()), "watch", name, "--while", str(owner)]
    quiet = subprocess.DEVNULL
    subprocess.Popen(watcher, stdin=quiet, stdout=quiet, stderr=quiet, start_new_session=True)


def _watch(owner: int, name: str) -> None:
    while (_place(name) / "data").exists():
        try:
            os.kill(owner, 0)
        except ProcessLookupError:
            stop(name)
            return
        time.sleep(1)


@contextlib.contextmanager
def _locked(name: str) -> Iterator[None]:
    BASE.mkdir(exist_ok=True)
    with (BASE / f"{name}.lock").open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
        if not _place(name).exists():
            (BASE / f"{name}.lock").unlink(missing_ok=True)


def main() -> int:
    """Do what the command line says; return the exit code."""
    parser = argparse.ArgumentParser(description="A Postgres server for tests.")
    parser.add_argument("action", choices=("start", "stop", "restart", "kill", "watch"))
    parser.add_argument("name", nargs="?", default="default")
    parser.add_argument("--while", dest="owner", type=int, metavar="PID", help="stop it when this process is gone")
    asked = parser.parse_args()
    try:
        if asked.action == "start":
            print(start(asked.name, asked.owner))
        elif asked.action == "watch":
            _watch(asked.owner, asked.name)
        elif asked.action == "stop":
            stop(asked.name)
        else:
            print(restart(asked.name, crash=asked.action == "kill"))
    except (ServerProblem, subprocess.SubprocessError) as problem:
        print(f"postgres_server: {problem}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
