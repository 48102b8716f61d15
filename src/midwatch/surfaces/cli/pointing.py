"""Pointing: which event of the ledger a command is about.

In:   `123`, `e:EFFECT`, `RUN+N`, or a run with a fragment of its output, as `which` takes it. Out: an event's number.
May import: errors; tracing when it runs. Must not know: what is asked of the event.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from midwatch.surfaces.cli.common import find_run

if TYPE_CHECKING:
    from midwatch.store.port import Store

__all__ = ["NAMES", "event_of"]

NAMES = (
    "EVENT is an event's number, e:EFFECT, RUN+N (a run's N-th event), or a RUN, alone or with TEXT from its output."
)


def event_of(store: Store, name: str, text: str | None, *, first: bool) -> int:
    """Find the event that is meant.

    Args:
        first: of a run without TEXT its request is meant; else its newest event.

    Raises:
        NotFound, Ambiguous: nothing is named so, or several are. UsageProblem: TEXT is blank.
    """
    from midwatch.tracing import causes, queries

    if text is not None:
        return queries.which(store, find_run(store, name), text).place.seq
    found = causes.locate(store, name)
    return causes.of_run(store, find_run(store, name), first=first) if found is None else found
