"""Files: read, list and write below the working directory, and nowhere else.

In:   relative paths. Out: small typed results; `ToolFailure` in words for the agent.
May import: decorate, contract, the standard library. Must not know: who asks.
Why every path is opened step by step without following links: a check before a use can be raced.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Final

from pydantic import Field

from midwatch.errors import ToolFailure
from midwatch.tools.binding import ToolContext
from midwatch.tools.contract import Arg, Out
from midwatch.tools.decorate import tool

__all__ = ["list_files", "read", "write"]

_READ_LIMIT: Final = 1_000_000
_NO_FOLLOW: Final = os.O_NOFOLLOW | os.O_CLOEXEC
_Path = Annotated[str, Field(min_length=1, max_length=1000), Arg(role="target", deref="content", interprets=False)]


@dataclass(frozen=True, slots=True)
class Body:
    """A text file."""

    path: Annotated[str, Field(max_length=1000)]
    size: int
    text: Annotated[str, Field(max_length=_READ_LIMIT)]


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry of a folder; size in bytes."""

    name: Annotated[str, Field(max_length=300)]
    kind: Annotated[str, Field(max_length=10)]
    size: int


@dataclass(frozen=True, slots=True)
class Listing:
    """A folder, by name."""

    entries: Annotated[list[Entry], Field(max_length=1000)]


@dataclass(frozen=True, slots=True)
class Written:
    """A file that was written; size in bytes."""

    path: Annotated[str, Field(max_length=1000)]
    size: int
    replaced: bool


@tool(name="files.read", effect="read", idempotent=True, open_world=False, runs="broker", reversible=False, timeout="10s")
def read(context: ToolContext, path: _Path) -> Annotated[Body, Out(author="third_party")]:
    """Read a UTF-8 text file of at most 1 MB.

    Args:
        path: relative to the working directory.
    """
    with _parent(context, path, make=False) as (folder, name):
        handle = os.open(name, os.O_RDONLY | os.O_NONBLOCK | _NO_FOLLOW, dir_fd=folder)
        with os.fdopen(handle, "rb") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise ToolFailure("conflict", "that is not a regular file")
            body = file.read(_READ_LIMIT + 1)
    if len(body) > _READ_LIMIT:
        raise ToolFailure("conflict", "the file is larger than 1 MB")
    try:
        return Body(path, len(body), body.decode())
    except UnicodeDecodeError:
        raise ToolFailure("conflict", "the file is not UTF-8 text") from None


@tool(name="files.list", effect="read", idempotent=True, open_world=False, runs="broker", reversible=False, timeout="10s")
def list_files(context: ToolContext, path: _Path = ".") -> Annotated[Listing, Out(author="third_party")]:
    """List a folder.

    Args:
        path: relative to the working directory.
    """
    entries = []
    with _parent(context, f"{path}/x", make=False) as (folder, _):
        for name in sorted(os.listdir(folder))[:1000]:
            facts = os.stat(name, dir_fd=folder, follow_symlinks=False)
            kind = "folder" if stat.S_ISDIR(facts.st_mode) else "file" if stat.S_ISREG(facts.st_mode) else "other"
            entries.append(Entry(name[:300].encode("utf-8", "replace").decode(), kind, facts.st_size))
    return Listing(entries)


@tool(name="files.write", effect="write", idempotent=True, open_world=False, runs="broker", reversible=False, timeout="10s")
def write(
    context: ToolContext,
    path: _Path,
    content: Annotated[str, Field(max_length=_READ_LIMIT), Arg(role="content", interprets=False)],
) -> Annotated[Written, Out(author="service")]:
    """Write a text file whole, replacing one of that name; missing folders are made.

    Args:
        path: relative to the working directory.
        content: the whole text.
    """
    body = content.encode()
    with _parent(context, path, make=True) as (folder, name):
        try:
            old = os.stat(name, dir_fd=folder, follow_symlinks=False)
        except FileNotFoundError:
            old = None
        if old is not None and not stat.S_ISREG(old.st_mode):
            raise ToolFailure("conflict", "something that is not a regular file has that name")
        draft = f".midwatch-{context.idempotency_key}"
        with contextlib.suppress(FileNotFoundError):
            os.unlink(draft, dir_fd=folder)
        handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _NO_FOLLOW, 0o644, dir_fd=folder)
        with os.fdopen(handle, "wb") as file:
            file.write(body)
            file.flush()
            os.fsync(file.fileno())
        os.rename(draft, name, src_dir_fd=folder, dst_dir_fd=folder)
        os.fsync(folder)
    return Written(path, len(body), old is not None)


@contextlib.contextmanager
def _parent(context: ToolContext, path: str, *, make: bool) -> Iterator[tuple[int, str]]:
    """Open the folder of `path` one component at a time, never through a link; gives its handle and the last name."""
    parts = [part for part in path.split("/") if part not in ("", ".")]
    if path.startswith("/") or ".." in parts or "\x00" in path or not parts:
        raise ToolFailure("denied", "the path leads out of the working directory", hint="use a relative path without `..`")
    here = os.open(context.workdir, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for part in parts[:-1]:
            if make:
                with contextlib.suppress(FileExistsError):
                    os.mkdir(part, 0o755, dir_fd=here)
            step = os.open(part, os.O_RDONLY | os.O_DIRECTORY | _NO_FOLLOW, dir_fd=here)
            os.close(here)
            here = step
        yield here, parts[-1]
    except FileNotFoundError:
        raise ToolFailure("not_found", "no such file or folder") from None
    except NotADirectoryError:
        raise ToolFailure("denied", "the path leads through something that is not a folder") from None
    except OSError as error:
        code = "denied" if error.errno in (40, 1, 13) else "unavailable"  # ELOOP, EPERM, EACCES
        raise ToolFailure(code, "the file system refuses that") from error
    finally:
        os.close(here)
