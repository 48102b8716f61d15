"""Matching: does an argument's value lie within the globs that the fleet file gives for it?

In:   a value as the tool would be given it, globs. Out: yes or no.
May import: the standard library. Must not know: what a match allows.
"""

from __future__ import annotations

import posixpath
from collections.abc import Sequence
from fnmatch import fnmatchcase

__all__ = ["fits"]


def fits(value: object, globs: Sequence[str]) -> bool:
    """Match the value that will be used, not the way it is written: `reports/../x` is `x`.

    Only text, or a list of texts each of which matches; a list without texts matches nothing.
    """
    if isinstance(value, list):
        return bool(value) and all(fits(item, globs) for item in value)
    if not isinstance(value, str) or not value or "\x00" in value:
        return False
    plain = posixpath.normpath(value) if "/" in value or ".." in value else value
    if plain.startswith("../") or plain == "..":
        return False
    return any(fnmatchcase(plain, glob) for glob in globs)
