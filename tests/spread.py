"""Spread: which tests go to which of several processes side by side: those that share something come one after the other in one.

In:   the ids of tests. Out: a schedule of pytest-xdist. May import: pytest-xdist. Must not know: what any test tries.
Why by file: ids are all that the process that hands tests out has. What a file shares is read from its text.
"""

from __future__ import annotations

import functools
import re
from pathlib import Path
from typing import Any, Final

from xdist.scheduler import LoadScopeScheduling  # type: ignore[import-untyped]

__all__ = ["Spread", "group_of"]

_ROOT: Final = Path(__file__).resolve().parent.parent
_SHARES: Final = re.compile(r"scope=\"(?:module|class|package)\"")


class Spread(LoadScopeScheduling):  # type: ignore[misc]
    """Hands out single tests, and as a whole the files whose tests share something."""

    def _split_scope(self, nodeid: str) -> Any:
        return group_of(nodeid.partition("::")[0]) or nodeid


@functools.cache
def group_of(file: str) -> str:
    """Give what all tests of a file are kept together with: the one engine of containers, the file's own fixture; empty: nothing."""
    text = (_ROOT / file).read_text("utf-8")
    if "docker" in Path(file).name or "docker_host" in text or "docker_ground" in text:
        return "docker"
    return file if _SHARES.search(text) else ""
