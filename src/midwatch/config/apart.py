"""Apart: what a sandbox sees and where Midwatch keeps its own state must not lie in each other.

In:   a fleet, the home and the workspace as a command names them. Out: problems, each with its line where the file is to blame.
May import: `fleet`, `sandbox_mounts`; errors. Must not know: what is kept in a home.
Why not a check of the file alone: `--home` and `--workdir` are known only when a run begins.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from midwatch.config.fleet import Fleet
from midwatch.config.sandbox_mounts import holds_home, reach
from midwatch.errors import Problem

__all__ = ["not_apart"]


def not_apart(
    fleet: Fleet, *, home: Path, workspace: Path, environ: Mapping[str, str] | None = None
) -> tuple[Problem, ...]:
    """Give every way in which an isolated agent of the fleet would see the home, or what no mount may show; empty when there is none.

    Args:
        environ: says where a person's own folder is, whose keys an agent would read as that person does.
    """
    return tuple(dict.fromkeys((*_workspace(fleet, home, workspace, environ or {}), *_mounts(fleet, home))))


def _workspace(fleet: Fleet, home: Path, workspace: Path, environ: Mapping[str, str]) -> Iterator[Problem]:
    isolated = any(fleet.sandbox_of(name).backend != "process" for name in fleet.agents)
    if isolated and holds_home(workspace.resolve(), home):
        message = (
            f"the workspace `{workspace}` and Midwatch's home `{home}` lie in each other, so agents would see runs and answers; "
            "name another folder with `--workdir`, or another home with `--home`"
        )
        yield Problem("", message, "home-in-workspace")
    elif isolated and (wrong := reach(workspace.resolve(), environ)) is not None:
        yield Problem(
            "", f"the workspace `{workspace}` {wrong}; `--workdir DIR` says which is the workspace", "workspace-reach"
        )


def _mounts(fleet: Fleet, home: Path) -> Iterator[Problem]:
    for name, agent in fleet.agents.items():
        place: tuple[str | int, ...] = ("sandbox",) if agent.sandbox is None else ("agents", name, "sandbox")
        for index, mount in enumerate(fleet.sandbox_of(name).mounts):
            if holds_home(mount.source, home):
                message = f"the mount `{mount.source}` would show Midwatch's home `{home}`; name a folder beside it"
                yield Problem(fleet.where(*place, "mounts", index), message, "mount-reach")
