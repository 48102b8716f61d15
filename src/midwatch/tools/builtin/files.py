"""Files: read, list, write and delete below the working directory, and nowhere else.

In:   relative paths. Out: small typed results; `ToolFailure` in words for the agent.
May import: the decorator, the markers, errors; the standard library. Must not know: who asks.
Why every folder on the way is opened by itself, never through a link: a path that is first checked and then used can
be exchanged in between. Here the folder that was checked is the folder that is used.
"""

from __future__ import annotations

import contextlib
import difflib
import errno
import hashlib
import io
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Final, Literal

from pydantic import Field

from midwatch.errors import ToolFailure
from midwatch.tools.binding import ToolContext
from midwatch.tools.contract import Arg, Out
from midwatch.tools.decorate import tool

__all__ = ["PathText", "Written", "compare", "delete", "list_folder", "put", "read", "state", "write"]

MAX_FILE: Final = 1 << 20
"""Bytes of a file that may be read, and characters that may be written."""

MAX_ENTRIES: Final = 2_000
_NO_FOLLOW: Final = os.O_NOFOLLOW | os.O_CLOEXEC
_FOLDER: Final = os.O_RDONLY | os.O_DIRECTORY | _NO_FOLLOW

_files = partial(tool, open_world=False, observers=(), runs="sandbox", timeout="20s")

PathText = Annotated[str, Field(max_length=1000)]
Target = Annotated[str, Field(min_length=1, max_length=1000), Arg(role="target", deref="content", interprets=False)]
Bytes = Annotated[int, Field(ge=0)]


@dataclass(frozen=True, slots=True)
class Body:
    """A text file; `size` in bytes."""

    path: PathText
    size: Bytes
    text: Annotated[str, Field(max_length=MAX_FILE)]


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry of a folder; `size` in bytes."""

    name: Annotated[str, Field(max_length=300)]
    kind: Literal["file", "folder", "link", "other"]
    size: Bytes


@dataclass(frozen=True, slots=True)
class Listing:
    """A folder, by name: the first 2,000 of `count` entries."""

    count: Bytes
    entries: Annotated[list[Entry], Field(max_length=MAX_ENTRIES)]


@dataclass(frozen=True, slots=True)
class Written:
    """A file that was written; `size` in bytes."""

    path: Annotated[PathText, Out(author="caller", creates=True)]
    size: Bytes
    replaced: bool


@dataclass(frozen=True, slots=True)
class State:
    """What stands under a path: `size` in bytes and the SHA-256 of the content of an ordinary file."""

    kind: Literal["file", "missing", "other"]
    size: Bytes
    sha256: Annotated[str, Field(max_length=64)]


@dataclass(frozen=True, slots=True)
class Difference:
    """A unified diff, cut after 200 lines; `lines` is how long it is in full."""

    lines: Bytes
    diff: Annotated[str, Field(max_length=MAX_FILE)]


@dataclass(frozen=True, slots=True)
class Deleted:
    """What was deleted; `size` in bytes."""

    path: PathText
    size: Bytes


@_files(name="files.read", effect="read", idempotent=True, reversible=False)
def read(context: ToolContext, path: Target) -> Annotated[Body, Out(author="third_party")]:
    """Read a UTF-8 text file of at most 1 MiB below the working directory.

    Args:
        path: relative to the working directory, without `..`.
    """
    data = _content(context, path)
    if len(data) > MAX_FILE:
        raise ToolFailure("conflict", f"the file is larger than {MAX_FILE:,} bytes")
    try:
        return Body(path, len(data), data.decode())
    except UnicodeDecodeError:
        raise ToolFailure("conflict", "the file is not UTF-8 text") from None


@_files(name="files.list", effect="read", idempotent=True, reversible=False)
def list_folder(context: ToolContext, path: Target = ".") -> Annotated[Listing, Out(author="third_party")]:
    """List what a folder below the working directory holds, by name.

    Args:
        path: relative to the working directory; `.` for the working directory itself.
    """
    with _folder(context, _parts(path, "a folder")) as folder:
        names = sorted(os.listdir(folder))  # noqa: PTH208  a handle, not a path
        entries = [entry for name in names[:MAX_ENTRIES] if (entry := _entry(folder, name)) is not None]
    return Listing(len(names), entries)


@_files(name="files.state", effect="read", idempotent=True, reversible=False)
def state(context: ToolContext, path: Target) -> Annotated[State, Out(author="service")]:
    """Say what stands under a path below the working directory, and the hash of its content.

    Args:
        path: relative to the working directory, without `..`.
    """
    try:
        with _opened(context, path) as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            return State("file", file.tell(), digest)
    except ToolFailure as failure:
        if failure.code in {"not_found", "conflict"}:
            return State("missing" if failure.code == "not_found" else "other", 0, "")
        raise


@_files(name="files.compare", effect="read", idempotent=True, reversible=False)
def compare(
    context: ToolContext,
    path: Target,
    content: Annotated[str, Field(max_length=MAX_FILE), Arg(role="content", interprets=False)] = "",
) -> Annotated[Difference, Out(author="third_party")]:
    """Show how a text file below the working directory differs from a text.

    Args:
        path: relative to the working directory, without `..`; a missing file counts as empty.
        content: the text to compare with.
    """
    try:
        data = _content(context, path)
    except ToolFailure as failure:
        if failure.code != "not_found":
            raise
        data = b""
    old = data[:MAX_FILE].decode("utf-8", "replace").splitlines(keepends=True)
    new = content.splitlines(keepends=True)
    lines = list(difflib.unified_diff(old, new, f"{path} (now)", f"{path} (then)", n=2))
    shown = "".join(line if line.endswith("\n") else f"{line}\n" for line in lines[:200])
    return Difference(len(lines), shown[:MAX_FILE])


@_files(
    name="files.write",
    effect="write",
    idempotent=True,
    reversible=False,
    preview="files.compare",
    precondition="files.state",
)
def write(
    context: ToolContext,
    path: Target,
    content: Annotated[str, Field(max_length=MAX_FILE), Arg(role="content")],
) -> Annotated[Written, Out(author="service")]:
    """Write a whole text file below the working directory, at once, in place of one of that name; makes its folders.

    Args:
        path: relative to the working directory, without `..`.
        content: the whole text; it is stored as UTF-8.
    """
    return put(context, path, content.encode())


@_files(
    name="files.delete",
    effect="destructive",
    idempotent=True,
    reversible=False,
    preview="files.compare",
    precondition="files.state",
)
def delete(context: ToolContext, path: Target) -> Annotated[Deleted, Out(author="service")]:
    """Delete one ordinary file below the working directory; folders and links stay.

    Args:
        path: relative to the working directory, without `..`.
    """
    with _parent(context, path) as (folder, name):
        found = _ordinary(folder, name, missing_is_fine=False)
        os.unlink(name, dir_fd=folder)
        os.fsync(folder)
    return Deleted(path, found.st_size if found is not None else 0)


def put(context: ToolContext, path: str, data: bytes) -> Written:
    """Put a whole file in its place at once.

    Raises:
        ToolFailure: in words for the agent; nothing has changed.
    """
    with _parent(context, path, make=True) as (folder, name):
        replaced = _ordinary(folder, name, missing_is_fine=True) is not None
        # The key names the draft, so that what a killed attempt left behind is overwritten by its repetition.
        draft = f".midwatch-{context.idempotency_key[:64]}"
        with contextlib.suppress(FileNotFoundError):
            os.unlink(draft, dir_fd=folder)
        handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _NO_FOLLOW, 0o644, dir_fd=folder)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(handle)
            os.rename(draft, name, src_dir_fd=folder, dst_dir_fd=folder)
        except OSError:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(draft, dir_fd=folder)
            raise
        os.fsync(folder)
    return Written(path, len(data), replaced)


@contextlib.contextmanager
def _opened(context: ToolContext, path: str) -> Iterator[io.BufferedReader]:
    """Open an ordinary file for reading."""
    with _parent(context, path) as (folder, name):
        # Without waiting: opening a pipe would wait for a writer.
        handle = os.open(name, os.O_RDONLY | os.O_NONBLOCK | _NO_FOLLOW, dir_fd=folder)
        with os.fdopen(handle, "rb") as file:
            if not stat.S_ISREG(os.fstat(handle).st_mode):
                raise ToolFailure("conflict", "that is no ordinary file", hint="list the folder to see what there is")
            yield file


def _content(context: ToolContext, path: str) -> bytes:
    """Read one byte more than may be shown, so that a longer file is known as one."""
    with _opened(context, path) as file:
        return file.read(MAX_FILE + 1)


def _parts(path: str, what: str = "a file") -> list[str]:
    """Split a path; refuse what could lead out before anything is opened."""
    parts = [part for part in path.split("/") if part not in {"", "."}]
    if path.startswith("/") or ".." in parts or "\x00" in path:
        message = "the path leads out of the working directory"
        raise ToolFailure("denied", message, hint="write a relative path without `..`")
    if any(len(part.encode("utf-8", "replace")) > 255 for part in parts):
        raise ToolFailure("invalid_arguments", "a part of the path is longer than 255 bytes")
    if not parts and what == "a file":
        raise ToolFailure("invalid_arguments", "the path names no file")
    return parts


@contextlib.contextmanager
def _parent(context: ToolContext, path: str, *, make: bool = False) -> Iterator[tuple[int, str]]:
    """Open the folder that holds the last part of `path`; gives its handle and that last part."""
    parts = _parts(path)
    with _folder(context, parts[:-1], make=make) as folder:
        yield folder, parts[-1]


@contextlib.contextmanager
def _folder(context: ToolContext, parts: list[str], *, make: bool = False) -> Iterator[int]:
    """Open a folder one part at a time, never through a link; what the system refuses becomes words for the agent."""
    try:
        here = os.open(context.workdir, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            for part in parts:
                if make:
                    with contextlib.suppress(FileExistsError):
                        os.mkdir(part, 0o755, dir_fd=here)
                step = os.open(part, _FOLDER, dir_fd=here)
                os.close(here)
                here = step
            yield here
        finally:
            os.close(here)
    except OSError as failure:
        raise _told(failure) from failure


def _told(failure: OSError) -> ToolFailure:
    if failure.errno == errno.ENOENT:
        return ToolFailure("not_found", "there is no such file or folder")
    if failure.errno in {errno.ELOOP, errno.ENOTDIR, errno.EMLINK}:
        return ToolFailure("denied", "the path leads through a link, or through something that is no folder")
    if failure.errno in {errno.EACCES, errno.EPERM, errno.EROFS}:
        return ToolFailure("denied", "the file system refuses that")
    if failure.errno in {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}:
        return ToolFailure("unavailable", "there is no room for the file", retryable=True)
    return ToolFailure("unavailable", "the file system failed")


def _entry(folder: int, name: str) -> Entry | None:
    try:
        facts = os.stat(name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return None  # it was deleted meanwhile
    kind: Literal["file", "folder", "link", "other"] = "other"
    if stat.S_ISREG(facts.st_mode):
        kind = "file"
    elif stat.S_ISDIR(facts.st_mode):
        kind = "folder"
    elif stat.S_ISLNK(facts.st_mode):
        kind = "link"
    return Entry(name.encode("utf-8", "replace").decode()[:300], kind, facts.st_size)


def _ordinary(folder: int, name: str, *, missing_is_fine: bool) -> os.stat_result | None:
    """Give the facts of an ordinary file; links, folders and devices are refused."""
    try:
        facts = os.stat(name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        if missing_is_fine:
            return None
        raise
    if not stat.S_ISREG(facts.st_mode):
        raise ToolFailure("conflict", "something that is no ordinary file has that name")
    return facts
