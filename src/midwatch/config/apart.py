"""Apart: what a sandbox sees and where Midwatch keeps its own state must not lie in each other.

In:   a fleet, the home and the workspace as a command names them. Out: problems, each with its line where the file is to blame.
May import: `fleet`, `sandbox_mounts`; errors. Must not know: what is kept in a home.
Why not a check of the file alone: `--home` and `--workdir` are known only when a run begins.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from midwatch.config.fleet import Fleet
from midwatch.config.sandbox_mounts import holds_home
from midwatch.errors import Problem

__all__ = ["not_apart"]


def not_apart(fleet: Fleet, *, home: Path, workspace: Path) -> tuple[Problem, ...]:
    """Give every way in which an isolated agent of the fleet would see the home; empty when there is none."""
    return tuple(dict.fromkeys((*_workspace(fleet, home, workspace), *_mounts(fleet, home))))


def _workspace(fleet: Fleet, home: Path, workspace: Path) -> Iterator[Problem]:
    isolated = any(fleet.sandbox_of(name).backend != "process" for name in fleet.agents)
    if isolated and holds_home(workspace.resolve(), home):
        message = (
            f"the workspace `{workspace}` and Midwatch's home `{home}` lie in each other, so agents would see runs and answers; "
            "name another folder with `--workdir`, or another home with `--home`"
        )
        yield Problem("", message, "home-in-workspace")


def _mounts(fleet: Fleet, home: Path) -> Iterator[Problem]:
    for name, agent in fleet.agents.items():
        place: tuple[str | int, ...] = ("sandbox",) if agent.sandbox is None else ("agents", name, "sandbox")
        for index, mount in enumerate(fleet.sandbox_of(name).mounts):
            if holds_home(mount.source, home):
                message = f"the mount `{mount.source}` would show Midwatch's home `{home}`; name a folder beside it"
                yield Problem(fleet.where(*place, "mounts", index), message, "mount-reach")
