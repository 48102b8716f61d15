"""Memory: the same store in a private temporary file, gone when it is closed; for tests and dry runs.

Why not a second implementation, nor SQLite's own memory: a twin would drift, and a database in memory knows no snapshots beside a
writer (`docs/decisions/0002-memory-is-a-file.md`). This one is the SQLite store, so every promise but survival holds.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from midwatch.store.sqlite import SqliteStore

__all__ = ["MemoryStore"]


class MemoryStore(SqliteStore):
    """A store that leaves nothing behind, and so flushes nothing."""

    _flush = ("OFF", "OFF")

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="midwatch-")
        super().__init__(Path(self._folder.name) / "midwatch.db")

    def close(self) -> None:
        """Release everything and remove the file."""
        super().close()
        self._folder.cleanup()
