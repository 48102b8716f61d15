"""Places: which family of authority a path belongs to, by the watch-list's own names.

In:   a path as effects show it. Out: its family, its last name in the one spelling that names are compared in.
May import: the watch-list. Must not know: contents.
Why by example: the watch-list gives every path a reason, and all paths with one reason are one family; a name that is added there is
judged here with the rest of its kind.
"""

from __future__ import annotations

import unicodedata
from functools import lru_cache
from typing import Final

from midwatch.sandbox import watched
from midwatch.sandbox.effects import raw

__all__ = [
    "AGENTS",
    "CI",
    "CONTAINERS",
    "ENTERING",
    "EVERY_PYTHON",
    "FLEET",
    "TESTS",
    "family",
    "last",
    "like",
    "parts",
    "within",
]


def like(example: str) -> str:
    """Give the family of a path that is known to be on the watch-list."""
    found = watched.why(example)
    if found is None:
        raise ValueError(f"`{example}` is not on the watch-list")
    return found


CI: Final = like("Jenkinsfile")
AGENTS: Final = like("AGENTS.md")
CONTAINERS: Final = like("Dockerfile")
ENTERING: Final = like(".envrc")
EVERY_PYTHON: Final = like("sitecustomize.py")
TESTS: Final = like("conftest.py")
FLEET: Final = like("fleet.yaml")


def family(path: str) -> str | None:
    """Give the watch-list's reason for a path, or None."""
    return watched.why(path)


@lru_cache(maxsize=4096)
def parts(path: str) -> tuple[str, ...]:
    """Give the names of a path as a disk without case, composition or trailing blanks would compare them."""
    return tuple(_plain(name) for name in path.split("/"))


def last(path: str) -> str:
    """Give the last name of a path, as `parts`."""
    return parts(path)[-1]


def within(path: str, *folders: str) -> bool:
    """Say whether one of the folders above a path has one of these names."""
    return not set(folders).isdisjoint(parts(path)[:-1])


def _plain(name: str) -> str:
    text = unicodedata.normalize("NFKC", raw(name).decode("utf-8", "replace"))
    text = unicodedata.normalize("NFKC", text.casefold())
    return (
        "".join(char for char in text if char.isprintable() and unicodedata.category(char) != "Cf")
        .strip(" ")
        .rstrip(". ")
    )
