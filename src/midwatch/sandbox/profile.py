"""Profile: everything that one sandbox is, as one frozen value; `plan` and the backends read nothing else.

In:   a fleet's `SandboxSpec`, the workspace, what workers import. Out: `SandboxProfile`.
May import: config's specs. Must not know: any backend, whether this machine can hold it.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Final

from midwatch.config.specs import EgressRule, MountSpec, SandboxLimits

__all__ = ["DEFAULT_LIMITS", "INSIDE", "SandboxProfile", "interpreter", "merged"]

INSIDE: Final = "/workspace"
"""Where every sandbox sees its workspace: the name says nothing of this machine."""

DEFAULT_LIMITS: Final = SandboxLimits(
    memory=1 << 30,
    cpu_us=60_000_000,
    processes=64,
    open_files=256,
    file_size=256 << 20,
    disk=256 << 20,
    inodes=65_536,
    cpu_milli=1000,
    wall_us=600_000_000,
)
"""Where a fleet sets none. Outside a control group `processes` does not bind root, whom the system exempts."""


@dataclass(frozen=True, slots=True)
class SandboxProfile:
    """What a sandbox may see and use.

    Attributes:
        workspace: absolute folder of this machine; read, never written, seen at `INSIDE` below what the sandbox changes.
        limits: every field set.
        code: absolute folders and files that workers import from, seen at the same place, read-only.
        mounts: what else is seen, read-only.
        egress: what may be asked of the network. Empty: nothing.
        secrets: by name, for the broker alone; never in a plan, a trace, a `repr`.
        env: set inside. image, runtime: for `docker`.
        observe: whether reads and executions are recorded, where the machine can do that.
    """

    workspace: Path
    limits: SandboxLimits = DEFAULT_LIMITS
    code: tuple[Path, ...] = ()
    mounts: tuple[MountSpec, ...] = ()
    egress: tuple[EgressRule, ...] = ()
    secrets: Mapping[str, str] = field(default_factory=dict, repr=False)
    env: Mapping[str, str] = field(default_factory=dict)
    image: str | None = None
    runtime: str | None = None
    observe: bool = True


def interpreter() -> str:
    """Give the absolute path of this process's Python itself, and not the link that a virtual environment has."""
    return os.path.realpath(getattr(sys, "_base_executable", None) or sys.executable)


def merged(own: SandboxLimits, default: SandboxLimits = DEFAULT_LIMITS) -> SandboxLimits:
    """Give `own`, with what it leaves open taken from `default`."""
    chosen = {item.name: getattr(own, item.name) for item in fields(own) if getattr(own, item.name) is not None}
    return replace(default, **chosen)
