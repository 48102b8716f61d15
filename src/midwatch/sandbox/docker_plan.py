"""Docker plan: a profile, written out as what a Docker engine and the launcher are told. Pure, so that it can be read and compared.

In:   a profile, the image, where the view is mounted, who the agent is. Out: JSON for the launcher, the engine and the cell.
May import: plan (what both backends set inside), profile, docker_image's `Image`, seccomp. Must not know: whether it works here.
Why the cell is the container's first process: nothing inside can kill or trace that, it outlives every call, and all it leaves
behind when it ends ends with it. It reaps what loses its parent, so an init of Docker's would be one process more for nothing.
Why the engine's own profile of system calls is not kept: a container has one list, and ours is the one that is proved on both.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from midwatch.sandbox import seccomp
from midwatch.sandbox.docker_image import Image
from midwatch.sandbox.plan import BRIDGE_PORT, SOCKETS, UID, cell_command, environment, etc, imported_from
from midwatch.sandbox.profile import INSIDE, SandboxProfile

__all__ = ["CONTROL", "LABEL", "OWNER_LABEL", "Place", "code_of", "container", "hello", "is_gvisor", "view"]

CONTROL: Final = "/run/midwatch-control"
"""Where the folder with the cell's own socket is seen inside; the socket is gone before foreign code runs."""
LABEL: Final = "midwatch.sandbox"
OWNER_LABEL: Final = "midwatch.folder"
"""Of which supervisor a container is: its folder, which it holds a lock in as long as it lives."""
_SHARED_MEMORY: Final = 16 << 20
_GVISOR_EACH, _GVISOR_ITSELF = 4, 256
_LOG: Final = {"Type": "json-file", "Config": {"max-size": "64k", "max-file": "1"}}
_ETC: Final = ("passwd", "group", "hosts", "nsswitch.conf", "resolv.conf")


@dataclass(frozen=True, slots=True)
class Place:
    """Where one sandbox lies on this machine.

    Attributes:
        root: its folder, where the launcher mounts the view. control: folder of the cell's socket.
        sockets: folder of the broker's socket; None where nothing may be asked of the network.
        owner: user and group of the agent, the same inside and outside.
        folder: of the supervisor.
    """

    name: str
    root: str
    control: str
    sockets: str | None
    owner: tuple[int, int]
    folder: str


def code_of(profile: SandboxProfile) -> tuple[Path, ...]:
    """Give what must be shown so that workers run: Midwatch, and what the tools import. The interpreter is in the image."""
    wanted = sorted({path for path in (Path(__file__).resolve().parents[1], *profile.code) if path.exists()})
    chosen: list[Path] = []
    for path in wanted:
        if str(path) != INSIDE and not any(path.is_relative_to(other) for other in chosen):
            chosen.append(path)
    return tuple(chosen)


def view(profile: SandboxProfile, owner: tuple[int, int]) -> dict[str, Any]:
    """Write out what the launcher prepares: the workspace, its bounds, what is shown read-only."""
    texts = {name: text.replace(str(UID), str(owner[0])) for name, text in etc().items()}
    return {
        "workspace": str(profile.workspace),
        "size": profile.limits.disk,
        "inodes": profile.limits.inodes,
        "binds": [
            *((str(path), True) for path in code_of(profile)),
            *((str(mount.source), False) for mount in profile.mounts),
        ],
        "etc": {**texts, "resolv.conf": ""},
    }


def hello(profile: SandboxProfile, image: Image, sys_path: Sequence[str], *, bridged: bool) -> dict[str, Any]:
    """Write out what the cell is told first.

    Args:
        sys_path: where workers import from on this machine. An image with a Python of its own has its own library first, what is
            shown of this machine next, and what is installed in it last.
    """
    shown = code_of(profile)
    entries = imported_from(sys_path, shown)
    if image.path:
        ours = [entry for entry in entries if any(Path(entry).is_relative_to(path) for path in shown)]
        installed = [entry for entry in image.path if entry.endswith(("site-packages", "dist-packages"))]
        entries = [*(entry for entry in image.path if entry not in installed), *ours, *installed]
    return {
        "sys_path": entries,
        "env": environment(profile, bridged=bridged),
        "cwd": INSIDE,
        "bridge": {"port": BRIDGE_PORT, "socket": f"{SOCKETS}/broker.sock"} if bridged else None,
    }


def container(profile: SandboxProfile, place: Place, image: Image) -> dict[str, Any]:
    """Write out the body of `POST /containers/create`."""
    return {
        "Image": image.name,
        "Entrypoint": cell_command(image.python, f"{CONTROL}/cell.sock"),
        "Cmd": [],
        "Env": [],
        "User": f"{place.owner[0]}:{place.owner[1]}",
        "WorkingDir": "/",
        "Hostname": "agent",
        "Domainname": "",
        "NetworkDisabled": True,
        "AttachStdin": False,
        "OpenStdin": False,
        "Tty": False,
        "Healthcheck": {"Test": ["NONE"]},
        "Labels": {LABEL: place.name, OWNER_LABEL: place.folder},
        "HostConfig": _host(profile, place),
    }


def _host(profile: SandboxProfile, place: Place) -> dict[str, Any]:
    limits = profile.limits
    return {
        "NetworkMode": "none",
        "IpcMode": "none",
        "CgroupnsMode": "private",
        "PidMode": "",
        "UTSMode": "",
        "Privileged": False,
        "ReadonlyRootfs": True,
        "CapDrop": ["ALL"],
        "CapAdd": [],
        "SecurityOpt": ["no-new-privileges", f"seccomp={json.dumps(seccomp.docker_profile())}"],
        "Init": False,
        "AutoRemove": False,
        "RestartPolicy": {"Name": "no"},
        "LogConfig": _LOG,
        "Runtime": profile.runtime or "",
        "Memory": limits.memory,
        "MemorySwap": limits.memory,
        "PidsLimit": _processes(profile),
        "NanoCpus": (limits.cpu_milli or 0) * 1_000_000,
        "OomKillDisable": False,
        "OomScoreAdj": 500,
        "Ulimits": [
            {"Name": "core", "Soft": 0, "Hard": 0},
            {"Name": "nofile", "Soft": limits.open_files, "Hard": limits.open_files},
            {"Name": "fsize", "Soft": limits.file_size, "Hard": limits.file_size},
        ],
        "Devices": [],
        "Tmpfs": {
            "/tmp": f"rw,exec,nosuid,nodev,mode=1777,size={limits.disk},nr_inodes={limits.inodes}",  # noqa: S108 - inside
            "/dev/shm": f"rw,noexec,nosuid,nodev,mode=1777,size={_SHARED_MEMORY}",  # noqa: S108 - inside
        },
        "Mounts": _mounts(profile, place),
    }


def is_gvisor(runtime: str | None) -> bool:
    """Whether a runtime's name is one of gVisor's; a guess, on which no promise rests."""
    return (runtime or "").startswith(("runsc", "gvisor"))


def _processes(profile: SandboxProfile) -> int:
    """Give the bound of the control group. gVisor's own threads count there, some for each process inside and many for itself."""
    processes = profile.limits.processes or 0
    return processes * _GVISOR_EACH + _GVISOR_ITSELF if is_gvisor(profile.runtime) else processes


def _mounts(profile: SandboxProfile, place: Place) -> list[dict[str, Any]]:
    code = code_of(profile)
    targets = [*(str(path) for path in code), *(mount.target for mount in profile.mounts)]
    shown = [
        _bind(place.control, CONTROL),
        *(() if place.sockets is None else (_bind(place.sockets, SOCKETS),)),
        *(_bind(f"{place.root}/etc/{name}", f"/etc/{name}") for name in _ETC),
        *(_bind(f"{place.root}/code/{number}", target) for number, target in enumerate(targets)),
    ]
    return [_bind(f"{place.root}/merged", INSIDE, read_only=False), *shown]


def _bind(source: str, target: str, *, read_only: bool = True) -> dict[str, Any]:
    return {
        "Type": "bind",
        "Source": source,
        "Target": target,
        "ReadOnly": read_only,
        "BindOptions": {"Propagation": "rprivate"},
    }
