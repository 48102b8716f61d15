"""Memory: the same store in a private temporary file, gone when it is closed; for tests and dry runs.

Why not a second implementation: a twin of its own would drift; this one is the SQLite store, so every promise but survival holds.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from midwatch.store.sqlite import SqliteStore

__all__ = ["MemoryStore"]


class MemoryStore(SqliteStore):
    """A store that leaves nothing behind."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="midwatch-")
        super().__init__(Path(self._folder.name) / "midwatch.db")

    def close(self) -> None:
        """Release everything and remove the file."""
        super().close()
        self._folder.cleanup()
