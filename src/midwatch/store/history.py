"""History's port: what led to what, as an index over the ledger; one noun of `store.port.Tx`.

Above: tracing (why, blast), the engine (quarantine). Below: the SQL store. The index is written by the ledger itself, in the transaction
of the event, and holds nothing that the events do not say: `verify` of the ledger compares both, and a migration can make it anew.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from midwatch.records.edge import Edge

__all__ = ["Causes", "FileVersion", "Reached"]


class Reached(NamedTuple):
    """One event of a forward closure; there may be many thousands."""

    seq: int
    kind: str
    run: str | None


@dataclass(frozen=True, slots=True)
class FileVersion:
    """A content that a call left at a path.

    Attributes:
        seq: the call's event. sha256: hex; None when the path was deleted.
        committed: event by which it came into the workspace; None while it is staged.
    """

    workspace: str
    path: str
    run: str
    seq: int
    sha256: str | None
    committed: int | None


class Causes(Protocol):
    """Edges between events, versions of files, and marks of quarantine."""

    def before(self, seq: int) -> Sequence[Edge]:
        """Give the edges that lead to an event, by cause; that of its run's beginning where it has no other."""

    def after(self, seq: int, *, limit: int = 1000) -> Sequence[Edge]:
        """Give the edges that lead away from an event, by effect; of a run's beginning also those to events without a cause."""

    def reach(self, seq: int, *, limit: int) -> Sequence[Reached]:
        """Give an event and everything that it led to, nearest first, at most `limit`."""

    def writers(self, run: str, paths: Collection[str] | None, *, limit: int) -> Sequence[int]:
        """Give the calls that left what a call of this run may find at or below these paths (None: anywhere), at most `limit`.

        What the run has staged, and what was last committed to its workspace; overwritten versions of the run count, too.
        """

    def committed(self, seqs: Collection[int]) -> Sequence[FileVersion]:
        """Give the versions that these calls left and that were committed, in order."""

    def quarantine(self, seq: int, *, by: int) -> int:
        """Mark an event and everything that it led to on account of event `by`, and what it leads to from now on; gives how many."""

    def lift(self, by: int) -> int:
        """Take the marks away that were made on account of event `by`; gives how many."""

    def marks(self, seq: int) -> Sequence[int]:
        """Give every event on account of which this one is marked."""

    def quarantined(self, seqs: Collection[int]) -> Mapping[int, int]:
        """Give, of these events, those that are marked, each with the event on account of which."""
