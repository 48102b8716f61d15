"""Ancestry: what a checkpoint still needs of those before it, because LangGraph's `DeltaChannel` keeps only changes.

In:   one transaction; a decoder of checkpoint bodies.
Out:  a channel's writes since its last full value; which ancestors may not be deleted.
May import: store.port, errors. Must not know: the saver, serialisers.
Why here: a delta channel has no value in most checkpoints. Deleting the ancestors that hold its writes would make it
silently empty (the base class says so), so whatever deletes asks this module first, and a gap that is met while
reading is an error.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import orjson

from midwatch.errors import StoreCorrupt
from midwatch.store.port import CheckpointRow, PendingWrite, Tx

__all__ = ["COUNTERS", "History", "history", "needed"]

COUNTERS: Final = "counters_since_delta_snapshot"
_MARK: Final = COUNTERS.encode()

_Body = Callable[[CheckpointRow], Mapping[str, Any]]


@dataclass(slots=True)
class History:
    """What one channel's value is made of.

    Attributes:
        writes: oldest first.
        plain: a one-item tuple with the value where it stood in the ancestor itself.
        stored: kind and encoded items of the value where it is a channel version.
    """

    writes: list[PendingWrite] = field(default_factory=list)
    plain: tuple[Any, ...] = ()
    stored: tuple[str, Sequence[tuple[str, bytes]]] | None = None


def history(tx: Tx, target: CheckpointRow, channels: Iterable[str], body: _Body) -> dict[str, History]:
    """Walk up from `target`'s parent until each channel's nearest full value, or to the root.

    Raises:
        StoreCorrupt: an ancestor is missing before a channel that `target` has a version of was complete.
    """
    found = {name: History() for name in channels}
    open_ = set(found)
    parent = target.parent
    while parent and open_:
        row = tx.checkpoints.get(target.thread, target.ns, parent)
        if row is None:
            lost = sorted(open_.intersection(body(target)["channel_versions"]))
            if lost:
                raise StoreCorrupt(
                    f"checkpoint `{parent}`, which channel `{lost[0]}` builds on, is gone; resume from an older one"
                )
            break
        for write in reversed(tx.checkpoints.writes(row.thread, row.ns, row.id)):
            if write.channel in open_:
                found[write.channel].writes.append(write)
        small, versions = body(row)["small"], dict(row.channels)
        for name in tuple(open_):
            if name in small:
                found[name].plain = (small[name],)
            elif name in versions:
                found[name].stored = tx.checkpoints.channel(row.thread, row.ns, name, versions[name])
            else:
                continue
            open_.discard(name)
        parent = row.parent
    for one in found.values():
        one.writes.reverse()
    return found


def needed(rows: Mapping[str, CheckpointRow], kept: CheckpointRow, body: _Body) -> set[str]:
    """Give the ids of the ancestors that `kept` cannot be read without; `rows` are all of its line, by id."""
    if _MARK not in kept.metadata:
        return set()
    own = body(kept)
    counted = orjson.loads(kept.metadata).get(COUNTERS, {})
    open_ = set(counted).intersection(own["channel_versions"]) - _held(kept, own)
    ids: set[str] = set()
    parent = kept.parent
    while parent and open_ and (row := rows.get(parent)) is not None:
        ids.add(row.id)
        open_ -= _held(row, body(row))
        parent = row.parent
    return ids


def _held(row: CheckpointRow, body: Mapping[str, Any]) -> set[str]:
    return {*body["small"], *(name for name, _ in row.channels)}
