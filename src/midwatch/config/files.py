"""Files that a fleet names: prompts, scenarios, tools. All of them lie below the fleet file's folder.

In:   the folder and a path as written. Out: `Located` or `Text`, with the reason when it cannot be used.
May import: the standard library only. Must not know: what a file is for.
Why below the folder: a fleet is reviewed, copied and hashed as one folder; a link or `../` would bring in a text that
nobody saw in the review. Links are followed first, so that a link out of the folder is found.
"""

from __future__ import annotations

import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Final

__all__ = ["MAX_TEXT", "Located", "Text", "locate", "read_text"]

MAX_TEXT: Final = 256 * 1024
"""Largest prompt, in bytes."""


@dataclass(frozen=True, slots=True)
class Located:
    """Where a named file is. `reason` None when it is a file that may be used; else a phrase and its code."""

    path: Path
    reason: str | None = None
    code: str = ""


@dataclass(frozen=True, slots=True)
class Text:
    """What a named file says; empty when `reason` tells why it could not be read."""

    path: Path
    text: str
    reason: str | None = None
    code: str = ""


def locate(base: Path, name: str) -> Located:
    """Find a file below `base`, links followed."""
    path = base / name
    try:
        real, root = path.resolve(), base.resolve()
        if not real.is_relative_to(root):
            return Located(real, "lies outside the fleet file's folder; move it below", "outside-folder")
        if not stat.S_ISREG(real.stat().st_mode):
            return Located(real, "is not a file; name a file", "not-a-file")
    except FileNotFoundError:
        return Located(path, "does not exist; write it, or correct its name", "missing-file")
    except (OSError, ValueError, RuntimeError) as failure:  # RuntimeError: links in a circle
        reason = getattr(failure, "strerror", None) or "its name cannot be used"
        return Located(path, f"cannot be opened: {reason.lower()}", "unreadable")
    return Located(real)


def read_text(base: Path, name: str) -> Text:
    """Read a UTF-8 text of at most `MAX_TEXT` bytes below `base`."""
    found = locate(base, name)
    if found.reason is not None:
        return Text(found.path, "", found.reason, found.code)
    try:
        with found.path.open("rb") as stream:
            data = stream.read(MAX_TEXT + 1)
    except OSError as failure:
        return Text(found.path, "", f"cannot be read: {(failure.strerror or 'unknown reason').lower()}", "unreadable")
    if len(data) > MAX_TEXT:
        return Text(found.path, "", f"is larger than {MAX_TEXT:,} bytes; shorten it", "too-large")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        return Text(found.path, "", "is not UTF-8; save it as UTF-8", "not-utf8")
    if not text.strip():
        return Text(found.path, "", "is empty; write something in it", "empty-file")
    return Text(found.path, text)
