"""Git: commits and churn of a repository; read-only, and nothing that the repository itself names is run.

In:   a folder below the working directory, and how far to look back. Out: small typed results.
May import: the decorator, the markers, errors; the standard library. Must not know: who asks.
Why so many switches: a repository's own configuration can name programs (fsmonitor, hooks, text converters, signature
checkers, partial-clone fetches), and reading its log would run them as the operator. Source: git-config(1), git(1).
"""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Final

from pydantic import Field

from midwatch.errors import ToolFailure
from midwatch.tools.binding import ToolContext
from midwatch.tools.contract import Arg, Out
from midwatch.tools.decorate import tool

__all__ = ["churn", "log"]

_SWITCHES: Final = (
    "--no-pager",
    "--no-optional-locks",
    "--no-replace-objects",
    "--literal-pathspecs",
    *("-c", "core.fsmonitor="),
    *("-c", "core.hooksPath=/dev/null"),
    *("-c", "core.attributesFile=/dev/null"),
    *("-c", "core.pager="),
    *("-c", "core.sshCommand=/bin/false"),
    *("-c", "core.alternateRefsCommand="),
    *("-c", "diff.external="),
    *("-c", "gpg.program=/bin/false"),
    *("-c", "log.showSignature=false"),
    *("-c", "log.mailmap=false"),
    *("-c", "protocol.allow=never"),
)
_NO_PROGRAMS: Final = ("--no-ext-diff", "--no-textconv", "--no-show-signature", "--ignore-submodules=all")
MAX_OUTPUT: Final = 8 << 20
MAX_COMMITS: Final = 1_000
_SHOWN_COMMITS: Final = 100
_SHOWN_FILES: Final = 50

_git_tool = partial(
    tool,
    effect="read",
    idempotent=True,
    reversible=False,
    open_world=False,
    observers=(),
    runs="sandbox",
    timeout="30s",
)

Text = Annotated[str, Field(max_length=300)]
Count = Annotated[int, Field(ge=0)]
Missing = Annotated[list[Text], Field(max_length=5)]
Repo = Annotated[str, Field(min_length=1, max_length=1000), Arg(role="target", deref="content", interprets=False)]
Hours = Annotated[int, Field(ge=1, le=87_600), Arg(role="quantity")]


@dataclass(frozen=True, slots=True)
class Commit:
    """One commit; `at` is its commit time, ISO 8601 with zone."""

    id: Text
    at: Text
    author: Annotated[Text, Out(author="third_party")]
    subject: Annotated[Text, Out(author="third_party")]


@dataclass(frozen=True, slots=True)
class Log:
    """The latest 100 of `count` commits (counted up to 1,000), newest first; `missing` says why there are none."""

    branch: Text
    count: Count
    commits: Annotated[list[Commit], Field(max_length=_SHOWN_COMMITS)]
    missing: Missing


@dataclass(frozen=True, slots=True)
class Churned:
    """Lines that one file gained and lost."""

    path: Annotated[Text, Out(author="third_party")]
    added: Count
    deleted: Count


@dataclass(frozen=True, slots=True)
class Churn:
    """The 50 most changed of `files` files, and lines over all of them; `missing` says why there are none."""

    files: Count
    added: Count
    deleted: Count
    top: Annotated[list[Churned], Field(max_length=_SHOWN_FILES)]
    missing: Missing


@_git_tool(name="git.log")
def log(context: ToolContext, repo: Repo = ".", since_hours: Hours = 24) -> Annotated[Log, Out(author="third_party")]:
    """List the commits of the last hours on the checked-out branch of a repository, newest first.

    Args:
        repo: folder of the repository, relative to the working directory.
        since_hours: how many hours to look back.
    """
    folder, missing = _repository(context, repo)
    if folder is None:
        return Log("", 0, [], [missing])
    branch = _git(folder, "rev-parse", "--abbrev-ref", "HEAD").strip()
    text = _git(
        folder, "log", *_since(context, since_hours), *_NO_PROGRAMS, "--no-patch", "--format=%H%x1f%cI%x1f%an%x1f%s"
    )
    rows = [parts for line in text.split("\n") if len(parts := line.split("\x1f", 3)) == 4]
    commits = [Commit(row[0][:64], row[1][:40], row[2][:200], row[3][:300]) for row in rows[:_SHOWN_COMMITS]]
    return Log(branch[:300], len(rows), commits, _bounded(len(rows)))


@_git_tool(name="git.churn")
def churn(
    context: ToolContext, repo: Repo = ".", since_hours: Hours = 24
) -> Annotated[Churn, Out(author="third_party")]:
    """Tell which files of a repository gained and lost most lines in the commits of the last hours.

    Args:
        repo: folder of the repository, relative to the working directory.
        since_hours: how many hours to look back.
    """
    folder, missing = _repository(context, repo)
    if folder is None:
        return Churn(0, 0, 0, [], [missing])
    # Unquoted, zero-ended: a file's name may hold tabs and line ends. Without renames each row has one name.
    since = _since(context, since_hours)
    text = _git(folder, "log", *since, *_NO_PROGRAMS, "--numstat", "--no-renames", "-z", "--format=%x1e")
    files: dict[str, tuple[int, int]] = {}
    for row in text.replace("\x1e", "\x00").split("\x00"):
        parts = row.lstrip("\n").split("\t", 2)
        if len(parts) == 3 and parts[0].isdigit() and parts[1].isdigit():
            before = files.get(parts[2], (0, 0))
            files[parts[2]] = (before[0] + int(parts[0]), before[1] + int(parts[1]))
    ordered = sorted(files.items(), key=lambda item: (-sum(item[1]), item[0]))
    top = [Churned(path[:300], added, deleted) for path, (added, deleted) in ordered[:_SHOWN_FILES]]
    commits = text.count("\x1e")
    return Churn(
        len(files), sum(x for x, _ in files.values()), sum(x for _, x in files.values()), top, _bounded(commits)
    )


def _since(context: ToolContext, hours: int) -> tuple[str, str]:
    start = context.clock() // 1_000_000 - hours * 3600
    return f"--since=@{max(0, start)}", f"--max-count={MAX_COMMITS}"


def _bounded(commits: int) -> list[str]:
    return [f"commits before the latest {MAX_COMMITS:,} were not read"] if commits >= MAX_COMMITS else []


def _repository(context: ToolContext, repo: str) -> tuple[Path | None, str]:
    """Find the repository inside the working directory; None and a sentence where there is none."""
    root = context.workdir.resolve()
    try:
        folder = (root / repo).resolve()
    except (OSError, RuntimeError, ValueError):
        raise ToolFailure("invalid_arguments", "the repository's path cannot be used") from None
    if not folder.is_relative_to(root):
        message = "the repository lies outside the working directory"
        raise ToolFailure("denied", message, hint="name a folder below it, relative to it")
    if not folder.is_dir():
        return None, "that folder does not exist"
    if shutil.which("git") is None:
        return None, "git is not installed on this machine"
    try:
        done = _run(folder, "rev-parse", "--verify", "--quiet", "HEAD")
    except subprocess.TimeoutExpired:
        return None, "git did not answer"
    if done.returncode != 0:
        return None, "that folder is no git repository, or it has no commit yet"
    # A `.git` file, which an agent may have written, can point to any repository of this machine.
    kept = _git(folder, "rev-parse", "--path-format=absolute", "--git-dir", "--git-common-dir")
    if not all(Path(place).resolve().is_relative_to(root) for place in kept.splitlines()):
        raise ToolFailure("denied", "the repository's data lies outside the working directory")
    return folder, ""


def _git(folder: Path, *words: str) -> str:
    try:
        done = _run(folder, *words)
    except subprocess.TimeoutExpired:
        raise ToolFailure("timeout", "git did not end in time", retryable=True) from None
    if done.returncode != 0:
        raise ToolFailure("upstream", "git could not read the repository")
    return done.stdout[:MAX_OUTPUT].decode("utf-8", "replace")


def _run(folder: Path, *words: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        ["git", *_SWITCHES, "-C", str(folder), *words],
        env=_environment(folder),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=False,
        timeout=20,
        cwd="/",
    )


def _environment(folder: Path) -> dict[str, str]:
    return {
        "PATH": os.environ.get("PATH", "/usr/local/bin:/usr/bin:/bin"),
        "LC_ALL": "C.UTF-8",
        "HOME": "/nonexistent",
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_CONFIG_GLOBAL": "/dev/null",
        "GIT_ATTR_NOSYSTEM": "1",
        "GIT_OPTIONAL_LOCKS": "0",
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_NO_LAZY_FETCH": "1",
        "GIT_ALLOW_PROTOCOL": "",
        # Another user's repository may be read, since nothing of it is run.
        "GIT_CONFIG_COUNT": "1",
        "GIT_CONFIG_KEY_0": "safe.directory",
        "GIT_CONFIG_VALUE_0": str(folder),
        "GIT_CEILING_DIRECTORIES": str(folder.parent),
    }
