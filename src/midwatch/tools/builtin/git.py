"""Git: commits and churn of a repository, read-only; nothing that the repository itself configures is run.

In:   a folder below the working directory. Out: small typed results.
May import: decorate, contract, the standard library. Must not know: who asks.
Why so many switches: a hostile repository can name programs in its configuration (fsmonitor, hooks, textconv, pagers).
"""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final

from pydantic import Field

from midwatch.errors import ToolFailure
from midwatch.tools.binding import ToolContext
from midwatch.tools.contract import Arg, Out
from midwatch.tools.decorate import tool

__all__ = ["churn", "log"]

_SAFE: Final = (
    "--no-pager", "--no-optional-locks", "-c", "core.fsmonitor=", "-c", "core.hooksPath=/dev/null", "-c", "core.attributesFile=/dev/null",
    "-c", "diff.external=", "-c", "log.showSignature=false", "-c", "safe.directory=*", "-c", "protocol.allow=never",
)  # fmt: skip
_OUTPUT_LIMIT: Final = 2_000_000
_Text = Annotated[str, Field(max_length=300)]
_Repo = Annotated[str, Field(min_length=1, max_length=1000), Arg(role="target", deref="selector", interprets=False)]
_Hours = Annotated[int, Field(ge=1, le=8760), Arg(role="quantity")]


@dataclass(frozen=True, slots=True)
class Commit:
    """One commit; time in ISO 8601."""

    id: _Text
    at: _Text
    author: _Text
    subject: _Text


@dataclass(frozen=True, slots=True)
class Log:
    """Commits, newest first; `missing` says why there are none to be had."""

    branch: _Text
    count: int
    commits: Annotated[list[Commit], Field(max_length=100)]
    missing: list[_Text]


@dataclass(frozen=True, slots=True)
class Churned:
    """Lines that one file gained and lost."""

    path: _Text
    added: int
    deleted: int


@dataclass(frozen=True, slots=True)
class Churn:
    """Files by lines changed, most first; `missing` says why there is nothing to be had."""

    files: int
    added: int
    deleted: int
    top: Annotated[list[Churned], Field(max_length=50)]
    missing: list[_Text]


@tool(name="git.log", effect="read", idempotent=True, open_world=False, runs="broker", reversible=False, timeout="30s")
def log(context: ToolContext, repo: _Repo = ".", since_hours: _Hours = 24) -> Annotated[Log, Out(author="third_party")]:
    """List the commits of the last hours on the checked-out branch.

    Args:
        repo: folder of the repository, relative to the working directory.
        since_hours: how far to look back.
    """
    folder = _repository(context, repo)
    if isinstance(folder, str):
        return Log("", 0, [], [folder])
    branch = _git(folder, "rev-parse", "--abbrev-ref", "HEAD").strip()
    text = _git(folder, "log", f"--since={since_hours} hours ago", "--max-count=1000", "--format=%H%x1f%cI%x1f%an%x1f%s")
    rows = [line.split("\x1f") for line in text.splitlines() if line.count("\x1f") == 3]  # noqa: PLR2004 - as formatted
    commits = [Commit(row[0], row[1], row[2][:300], row[3][:300]) for row in rows]
    return Log(branch[:300], len(commits), commits[:100], [])


@tool(name="git.churn", effect="read", idempotent=True, open_world=False, runs="broker", reversible=False, timeout="30s")
def churn(context: ToolContext, repo: _Repo = ".", since_hours: _Hours = 24) -> Annotated[Churn, Out(author="third_party")]:
    """Tell which files changed most in the commits of the last hours.

    Args:
        repo: folder of the repository, relative to the working directory.
        since_hours: how far to look back.
    """
    folder = _repository(context, repo)
    if isinstance(folder, str):
        return Churn(0, 0, 0, [], [folder])
    text = _git(
        folder, "log", f"--since={since_hours} hours ago", "--max-count=1000", "--numstat", "--no-textconv", "--no-ext-diff", "--format="
    )
    files: dict[str, tuple[int, int]] = {}
    for line in text.splitlines():
        added, deleted, path = (line.split("\t", 2) + ["", "", ""])[:3]
        if added.isdigit() and deleted.isdigit():
            before = files.get(path, (0, 0))
            files[path] = (before[0] + int(added), before[1] + int(deleted))
    top = sorted(files.items(), key=lambda item: (-sum(item[1]), item[0]))[:50]
    total = [sum(change[side] for change in files.values()) for side in (0, 1)]
    return Churn(len(files), total[0], total[1], [Churned(path[:300], *change) for path, change in top], [])


def _repository(context: ToolContext, repo: str) -> Path | str:
    """Find the repository inside the working directory; a sentence where there is none."""
    root = context.workdir.resolve()
    folder = (root / repo).resolve()
    if not folder.is_relative_to(root):
        raise ToolFailure("denied", "the repository lies outside the working directory", hint="name a folder inside it")
    if not folder.is_dir():
        return "that folder does not exist"
    if shutil.which("git") is None:
        return "git is not installed on this machine"
    if subprocess.run(_argv(folder, "rev-parse", "HEAD"), env=_environ(), capture_output=True, check=False, timeout=20).returncode:  # noqa: S603
        return "that folder is no git repository, or it has no commit yet"
    return folder


def _git(folder: Path, *words: str) -> str:
    done = subprocess.run(_argv(folder, *words), env=_environ(), capture_output=True, check=False, timeout=25)  # noqa: S603 - fixed words
    if done.returncode:
        raise ToolFailure("upstream", "git could not read the repository")
    return done.stdout[:_OUTPUT_LIMIT].decode(errors="replace")


def _argv(folder: Path, *words: str) -> list[str]:
    return ["git", *_SAFE, "-C", str(folder), *words]


def _environ() -> dict[str, str]:
    fixed = {"GIT_OPTIONAL_LOCKS": "0", "GIT_TERMINAL_PROMPT": "0", "GIT_CONFIG_NOSYSTEM": "1", "GIT_CONFIG_GLOBAL": "/dev/null"}
    return {"PATH": os.environ.get("PATH", "/usr/bin:/bin"), "LC_ALL": "C.UTF-8", **fixed}
