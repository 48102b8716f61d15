"""Mounts: what of this machine a sandbox may be shown, and where it may stand.

In:   a mount as written, the fleet file's folder, the environment. Out: where it is, and what is wrong with it.
May import: `draft`, `sandbox_model`, `specs`, `yaml_source`; errors. Must not know: how anything is mounted.
Why read-only is not enough: a socket takes orders through a read-only mount, a folder of keys gives itself away by being read, and
Midwatch's own home holds the answers that people give.
"""

from __future__ import annotations

import posixpath
import stat
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Final

from midwatch.config.draft import Draft
from midwatch.config.sandbox_model import MountFile
from midwatch.config.yaml_source import Place
from midwatch.errors import Problem

__all__ = ["Source", "check_mounts", "find", "holds_home", "reach", "target_of"]

_KERNEL: Final = ("/proc", "/sys", "/dev", "/run", "/var/run")
_ENGINES: Final = (
    "/run/docker.sock",
    "/var/run/docker.sock",
    "/run/containerd/containerd.sock",
    "/run/podman/podman.sock",
    "/run/crio/crio.sock",
)
_KEYS: Final = (
    ".ssh",
    ".aws",
    ".azure",
    ".gnupg",
    ".docker",
    ".kube",
    ".netrc",
    ".git-credentials",
    ".config/gcloud",
    ".config/gh",
)
"""Below a person's own folder: what is nothing but credentials."""
_TAKEN: Final = (
    "/workspace",
    "/proc",
    "/dev",
    "/sys",
    "/run",
    "/usr",
    "/bin",
    "/sbin",
    "/lib",
    "/lib32",
    "/lib64",
    "/libx32",
    "/opt/midwatch",
    "/etc",
)
"""What every sandbox has there already."""
_DATABASE: Final = "midwatch.db"


@dataclass(frozen=True, slots=True)
class Source:
    """Where a mount comes from, links followed. `reason` None when it may be used; else a phrase with its remedy, and its code."""

    path: Path
    reason: str | None = None
    code: str = ""


def find(base: Path, written: str) -> Source:
    """Find what a mount names: absolute, or below the fleet file's folder. Never raises."""
    path = base / written
    try:
        real = path.resolve(strict=True)
        mode = real.stat().st_mode
    except FileNotFoundError:
        return Source(path, "does not exist; correct it, or take the mount away", "missing-file")
    except (OSError, ValueError, RuntimeError) as failure:  # RuntimeError: links in a circle
        reason = getattr(failure, "strerror", None) or "its name cannot be used"
        return Source(path, f"cannot be opened: {reason.lower()}", "unreadable")
    if not Path(written).is_absolute() and not real.is_relative_to(base.resolve()):
        return Source(real, "lies outside the fleet file's folder; write its absolute path", "outside-folder")
    if stat.S_ISSOCK(mode):
        return Source(
            real, "is a socket, which takes orders even read-only; use `egress`, or a tool in the broker", "mount-reach"
        )
    if not (stat.S_ISDIR(mode) or stat.S_ISREG(mode)):
        return Source(real, "is neither a file nor a folder; name one", "mount-reach")
    return Source(real)


def target_of(mount: MountFile) -> str:
    """Give where the sandbox sees it, as written."""
    return mount.from_ if mount.at is None else mount.at


def check_mounts(
    draft: Draft, place: Place, mounts: Sequence[MountFile], *, base: Path, environ: Mapping[str, str]
) -> Iterator[Problem]:
    """Check each mount, and all of them together."""
    seen: dict[str, int] = {}
    for index, mount in enumerate(mounts):
        at: Place = (*place, index)
        source = find(base, mount.from_)
        reason, code = (source.reason, source.code) if source.reason else (reach(source.path, environ), "mount-reach")
        if reason is not None:
            yield draft.problem((*at, "from"), f"the mount `{mount.from_}` {reason}", code)
        target = target_of(mount)
        wrong = _target(target)
        if wrong is not None:
            yield draft.problem((*at, "at" if mount.at is not None else "from"), f"`{target}` {wrong}", "mount-target")
            continue
        for other in seen:
            if _within(target, other) or _within(other, target):
                message = f"`{target}` and `{other}` lie in each other; show one of them only, or somewhere else"
                yield draft.problem(at, message, "duplicate-mount")
        seen.setdefault(target, index)


def holds_home(path: Path, home: Path) -> bool:
    """Say whether a mount of `path` would show `home`, or lies in it."""
    real = home.resolve()
    return path.is_relative_to(real) or real.is_relative_to(path)


def reach(path: Path, environ: Mapping[str, str]) -> str | None:
    """Say why an existing file or folder may not be shown; None when it may."""
    if path == Path("/"):
        return "is the whole machine; name the folder that is needed"
    if any(path.is_relative_to(folder) for folder in _KERNEL):
        return "belongs to the running system; a sandbox has its own, or none of it"
    if any(_real(socket).is_relative_to(path) for socket in (*_ENGINES, *_engine(environ))):
        return "holds the socket of a container engine, which is the whole machine; name a folder below"
    if any(holds_home(path, home) for home in _homes(environ)) or _is_home(path):
        return "would show Midwatch's own home, with its runs and answers; name a folder beside it"
    own = environ.get("HOME")
    if own and any(_touches(path, _real(f"{own}/{name}")) for name in _KEYS):
        return "would show a person's credentials; name the folder that is needed, and credentials as `secrets`"
    return None


def _is_home(path: Path) -> bool:
    return any((folder / _DATABASE).exists() for folder in (path, *path.parents))


def _homes(environ: Mapping[str, str]) -> list[Path]:
    own, state = environ.get("HOME"), environ.get("XDG_STATE_HOME")
    found = [environ.get("MIDWATCH_HOME"), f"{state}/midwatch" if state else None]
    return [Path(name) for name in (*found, f"{own}/.local/state/midwatch" if own else None) if name]


def _engine(environ: Mapping[str, str]) -> tuple[str, ...]:
    host = environ.get("DOCKER_HOST", "")
    return (host.removeprefix("unix://"),) if host.startswith("unix:///") else ()


def _touches(path: Path, kept: Path) -> bool:
    return path.is_relative_to(kept) or (kept.is_relative_to(path) and kept.exists())


def _real(name: str) -> Path:
    try:
        return Path(name).resolve()
    except (OSError, ValueError, RuntimeError):
        return Path(name)


def _target(target: str) -> str | None:
    """Say why nothing may stand there; None when it may."""
    if not target.startswith("/"):
        return "is not absolute; say `at:` where the sandbox sees it, such as `/data/NAME`"
    if target.startswith("//") or posixpath.normpath(target) != target:
        return f"is not written plainly; write `{posixpath.normpath('/' + target.lstrip('/'))}`"
    if not target.isprintable():
        return "holds characters that cannot be seen; choose another name"
    taken = next((kept for kept in _TAKEN if _within(target, kept) or _within(kept, target)), None)
    if taken is not None:
        return f"would cover what every sandbox has at `{taken}`; choose another place, such as `/data/NAME`"
    if target == "/tmp":  # noqa: S108 - a name inside a sandbox
        return "would cover the sandbox's own scratch space; choose another place, such as `/data/NAME`"
    return None


def _within(path: str, folder: str) -> bool:
    return PurePosixPath(path).is_relative_to(folder)
