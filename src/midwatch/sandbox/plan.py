"""Plan: a profile, written out as what bubblewrap and the launcher are told. Pure, so that it can be read and compared.

In:   a profile, facts of this machine. Out: `Plan`.
May import: profile, launcher's descriptor numbers, config's specs. Must not know: whether it works here.
Why each line stands there: `docs/decisions/` and the attacks in `sandbox/escape.py`, which open where one is taken away.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from midwatch.errors import SandboxError
from midwatch.sandbox.launcher import ARGUMENTS_FD, CONTROL_FD, ETC, SECCOMP_FD
from midwatch.sandbox.profile import INSIDE, SandboxProfile, interpreter

__all__ = [
    "BRIDGE_PORT",
    "SOCKETS",
    "UID",
    "Machine",
    "Plan",
    "cell_command",
    "code_of",
    "environment",
    "etc",
    "imported_from",
    "plan",
]

UID: Final = 1000
"""Who the agent is, inside. Outside it is a user of its own."""
SOCKETS: Final = "/run/midwatch"
"""Where the folder with the broker's socket is seen inside."""
BRIDGE_PORT: Final = 8631
"""Of the loopback address inside, from where the broker is reached by whoever speaks HTTP."""
_BIN: Final = "/opt/midwatch/bin"
_PATH: Final = f"{_BIN}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_SHARED_MEMORY: Final = 16 << 20
_SCRATCH: Final = "/tmp"  # noqa: S108 - inside, a file system of its own
_ITS_OWN: Final = (INSIDE, _SCRATCH, "/dev", "/proc", "/run")
"""Where an agent makes files, or could."""
_GUARD: Final = 1 << 16
_ETC: Final = (
    "alternatives",
    "ld.so.cache",
    "localtime",
    "ssl/certs",
    "ca-certificates",
    "mime.types",
    "ld.so.conf",
    "ld.so.conf.d",
)
"""What programs need of this machine's `/etc`; none of it says who works here. Copied once: each mount costs every start."""


@dataclass(frozen=True, slots=True)
class Machine:
    """Facts a plan depends on.

    Attributes:
        bwrap: absolute path. python: the interpreter itself, no link of a virtual environment.
        roots: what stands at `/bin`, `/sbin`, `/lib`, `/lib64`: a link's target, or None for a folder.
        etc: names below `/etc` that exist, of those that programs need.
        own_user: whether the agent gets a user id of its own; a plain user cannot give one.
    """

    bwrap: str
    python: str
    roots: Mapping[str, str | None]
    etc: tuple[str, ...]
    own_user: bool

    @classmethod
    def here(cls, bwrap: str) -> Machine:
        """Look at this machine."""
        roots: dict[str, str | None] = {}
        for name in ("bin", "sbin", "lib", "lib32", "lib64", "libx32"):
            place = Path("/") / name
            if place.is_symlink():
                roots[name] = os.readlink(place)  # noqa: PTH115 - as text
            elif place.is_dir():
                roots[name] = None
        found = tuple(name for name in _ETC if (Path("/etc") / name).exists())
        python = interpreter()
        return cls(bwrap, python, roots, found, os.geteuid() == 0)


@dataclass(frozen=True, slots=True)
class Plan:
    """What is done, in this order: `prepare` (the view), `start` (the program in it).

    Attributes:
        prepare, start: messages of the launcher, without the sandbox's own name, owner and control groups.
        hello: what the cell is told first.
    """

    prepare: dict[str, Any]
    start: dict[str, Any]
    hello: dict[str, Any]


def plan(profile: SandboxProfile, machine: Machine, *, root: str, sockets: str | None, sys_path: Sequence[str]) -> Plan:
    """Write a profile out.

    Args:
        root: the sandbox's folder, where the launcher mounts the view.
        sockets: folder of this machine with the broker's socket; None where nothing may be asked of the network.
        sys_path: where workers import from; inside `profile.code` or the interpreter.
    """
    limits = profile.limits
    code = code_of(profile, machine)
    return Plan(
        prepare={
            "workspace": str(profile.workspace),
            "size": limits.disk,
            "inodes": limits.inodes,
            "binds": [*((str(path), True) for path in code), *((str(mount.source), False) for mount in profile.mounts)],
            "etc": {},
            "shared": {"texts": etc(), "copies": machine.etc},
        },
        start={
            # By a descriptor: the command line of the first process is there to be read by every other one.
            "argv": [machine.bwrap, "--args", str(ARGUMENTS_FD), "--", *cell_command(machine.python, str(CONTROL_FD))],
            "arguments": _arguments(profile, machine, root, sockets, code),
            "rlimits": {
                "core": 0,
                "open_files": limits.open_files,
                "file_size": limits.file_size,
                "address_space": None,
                "processes": None,
            },
        },
        hello={
            "sys_path": imported_from(sys_path, code),
            "env": environment(profile, bridged=sockets is not None),
            "cwd": INSIDE,
            "bridge": None if sockets is None else {"port": BRIDGE_PORT, "socket": f"{SOCKETS}/broker.sock"},
        },
    )


def cell_command(python: str, place: str) -> list[str]:
    """Give the command that runs a cell. As a module, not a script: a script is compiled anew each time.

    Args:
        place: as `cell.main`.
    """
    root = str(Path(__file__).resolve().parents[2])
    code = f"import sys; sys.path.insert(0, {root!r}); from midwatch.sandbox.cell import main; main({place!r})"
    return [python, "-I", "-S", "-c", code]


def _arguments(
    profile: SandboxProfile, machine: Machine, root: str, sockets: str | None, code: Sequence[Path]
) -> list[str]:
    targets = [*map(str, code), *(mount.target for mount in profile.mounts)]
    shown = [(f"{root}/code/{number}", target) for number, target in enumerate(targets)]
    guards = _guards(targets)
    return [
        *("--unshare-user", "--unshare-ipc", "--unshare-pid", "--unshare-net", "--unshare-uts", "--unshare-cgroup-try"),
        *("--uid", str(UID), "--gid", str(UID), "--hostname", "agent", "--disable-userns"),
        *("--die-with-parent", "--as-pid-1", "--new-session", "--cap-drop", "ALL", "--clearenv"),
        *("--ro-bind", "/usr", "/usr"),
        *_roots(machine),
        *("--ro-bind", str(Path(root).parent / ETC), "/etc"),
        *("--proc", "/proc", "--dev", "/dev", "--size", str(_SHARED_MEMORY), "--tmpfs", "/dev/shm"),  # noqa: S108 - inside
        *("--size", str(profile.limits.disk), "--tmpfs", "/tmp"),  # noqa: S108 - inside
        *(word for guard in guards for word in ("--size", str(_GUARD), "--tmpfs", guard)),
        *(word for source, target in shown if not _is_inside(target) for word in ("--ro-bind", source, target)),
        *(word for guard in guards for word in ("--remount-ro", guard)),
        *("--symlink", machine.python, f"{_BIN}/python", "--symlink", machine.python, f"{_BIN}/python3"),
        *(() if sockets is None else ("--ro-bind", sockets, SOCKETS)),
        *("--bind", f"{root}/merged", INSIDE, "--chdir", INSIDE),
        *(word for source, target in shown if _is_inside(target) for word in ("--ro-bind", source, target)),
        *("--remount-ro", "/dev", "--remount-ro", "/"),
        *("--seccomp", str(SECCOMP_FD)),
    ]


def _guards(targets: Sequence[str]) -> list[str]:
    """Give the folders of `/tmp` that hold what is shown below them.

    Each is mounted and read-only: the agent owns `/tmp`, and would move a plain folder away, shown files and all, and put its own there.
    """
    below = [target.split("/") for target in targets if target.startswith(f"{_SCRATCH}/")]
    return sorted({"/".join(parts[:3]) for parts in below if len(parts) > 3} - set(targets))


def _is_inside(target: str) -> bool:
    return Path(target).is_relative_to(INSIDE)


def imported_from(sys_path: Sequence[str], code: Sequence[Path]) -> list[str]:
    """Give where workers import from: never what an agent writes to, or a call would choose what the next one runs."""
    kept = []
    for entry in sys_path:
        place = Path(os.path.normpath(entry))
        its_own = any(place.is_relative_to(folder) for folder in _ITS_OWN)
        if Path(entry).is_absolute() and (not its_own or any(place.is_relative_to(path) for path in code)):
            kept.append(entry)
    return kept


def _roots(machine: Machine) -> list[str]:
    words: list[str] = []
    for name, target in machine.roots.items():
        words += ["--ro-bind", f"/{name}", f"/{name}"] if target is None else ["--symlink", target, f"/{name}"]
    return words


def code_of(profile: SandboxProfile, machine: Machine) -> tuple[Path, ...]:
    """Give what must be shown so that workers run: the interpreter, Midwatch, what the tools import; nothing that is below `/usr`."""
    wanted = [Path(machine.python).parents[1], Path(__file__).resolve().parents[1], *profile.code]
    chosen: list[Path] = []
    for path in sorted({path for path in wanted if path.exists()}):
        if str(path) == INSIDE:  # the workspace's own place: files below it are shown over it, but not the whole
            continue
        if _is_inside(str(path)) and not (profile.workspace / path.relative_to(INSIDE)).exists():
            raise SandboxError(
                f"`{path}` lies where every sandbox sees its workspace; move it, or begin the run in `{INSIDE}`"
            )
        if path.is_relative_to("/usr") or any(path.is_relative_to(other) for other in chosen):
            continue
        chosen.append(path)
    return tuple(chosen)


def etc() -> dict[str, str]:
    """Give the few files of `/etc` that programs look into, with nothing of this machine in them."""
    return {
        "passwd": f"root:x:0:0::/:/usr/sbin/nologin\nagent:x:{UID}:{UID}::/tmp:/bin/sh\nnobody:x:65534:65534::/:/usr/sbin/nologin\n",
        "group": f"root:x:0:\nagent:x:{UID}:\nnogroup:x:65534:\n",
        "hosts": "127.0.0.1 localhost agent\n::1 localhost\n",
        "nsswitch.conf": "passwd: files\ngroup: files\nhosts: files\n",
    }


def environment(profile: SandboxProfile, *, bridged: bool) -> dict[str, str]:
    """Give every variable that is set inside."""
    proxies: dict[str, str] = {}
    if bridged:
        from midwatch.sandbox.bridge import proxy_environment  # noqa: PLC0415 - only where something may be asked

        proxies = proxy_environment(BRIDGE_PORT)
    return {
        "PATH": _PATH,
        "HOME": "/tmp",  # noqa: S108 - inside, a file system of its own
        "LANG": "C.UTF-8",
        "USER": "agent",
        "MIDWATCH_SANDBOX": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
        **proxies,
        **profile.env,
    }
