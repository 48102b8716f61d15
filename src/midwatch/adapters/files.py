"""Files: read and write one file of a sandbox by path, with the errors that Python gives for its own files.

In:   a sandbox, an absolute path inside of it, bytes. Out: bytes, or an `OSError` with its number.
May import: the sandbox's public names. Must not know: any framework.
Why programs of the sandbox do the work: a path means what it means inside, links and rights included; nobody outside follows one.
"""

from __future__ import annotations

import errno
import os
import posixpath
from pathlib import Path
from typing import Final

from midwatch.sandbox import INSIDE, RunResult, Sandbox, SandboxLimits

__all__ = ["TIMEOUT_US", "absolute", "read_file", "write_file"]

TIMEOUT_US: Final = 120_000_000
"""Longest time of one reading or writing."""

_ENV: Final = {"LC_ALL": "C"}
_WRITE: Final = 'mkdir -p -- "${1%/*}/" && exec tee -- "$1" >/dev/null'
_WORDS: Final = {os.strerror(number): number for number in errno.errorcode}


def absolute(path: str) -> str:
    """Give a path as seen inside: what is not absolute is below the workspace."""
    return posixpath.join(INSIDE, path)


async def read_file(box: Sandbox, path: str, limit: int) -> bytes:
    """Read a file.

    Args:
        limit: bytes; one more than that is `EFBIG`.

    Raises:
        FileNotFoundError, IsADirectoryError, PermissionError, OSError: as reading it inside gave.
        TimeoutError: it took longer than `TIMEOUT_US`.
    """
    done = await _run(box, path, ["head", "-c", str(limit + 1), "--", absolute(path)], limit + 1)
    if len(done.stdout) > limit:
        raise OSError(errno.EFBIG, os.strerror(errno.EFBIG), path)
    return done.stdout


async def write_file(box: Sandbox, path: str, content: bytes) -> None:
    """Write a file and make the folders above it.

    Raises:
        IsADirectoryError, PermissionError, OSError: as writing it inside gave.
        TimeoutError: it took longer than `TIMEOUT_US`.
    """
    await _run(box, path, ["/bin/sh", "-c", _WRITE, "sh", absolute(path)], 4096, content)


async def _run(box: Sandbox, path: str, argv: list[str], max_bytes: int, stdin: bytes = b"") -> RunResult:
    done = await box.run(
        argv,
        limits=SandboxLimits(),
        workdir=Path(INSIDE),
        timeout_us=TIMEOUT_US,
        max_bytes=max_bytes,
        stdin=stdin,
        env=_ENV,
    )
    if done.status == "timeout":
        raise TimeoutError(f"`{path}` took longer than {TIMEOUT_US // 1_000_000} s")
    if done.status == "crashed" or done.exit_code != 0:
        said = done.stderr.decode("utf-8", "replace").strip() or done.detail or f"ended with {done.exit_code}"
        # Every program ends its complaint with the system's own words for what went wrong.
        words = said.rpartition(": ")[2]
        raise OSError(_WORDS.get(words, errno.EIO), words if words in _WORDS else said, path)
    return done
