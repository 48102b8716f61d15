"""States: the form of a team's state, its version, and how what an older Midwatch wrote becomes what this one reads.

In:   checkpoints as the saver reads them. Out: the same in today's form; `StoreTooNew` for a form that this version does not know.
May import: graph.saver, store (port), errors. Must not know: engine, concrete stores.

    1   what carries no version: handoffs may lack `unmet` and `answer`
    2   every handoff has all its keys; items of `changed` may say what shows them

A step changes values of one channel, and leaves what has the new form already as it is: a run may have gone on under a newer version in
the middle of a super-step, so that one checkpoint has writes of both. Nothing is rewritten where it lies; the next checkpoint is in
today's form. The state of a graph of the user's own is the user's, and passes unchanged.
Why a refusal before the run is taken up: a newer state that is read as an older one loses what it does not know, and the next checkpoint
would make that loss last.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, cast

import orjson
from langgraph.checkpoint.base import CheckpointMetadata, CheckpointTuple

from midwatch.errors import StoreTooNew
from midwatch.graph.saver import Saver
from midwatch.store.port import CheckpointRow, Tx

__all__ = ["STATE", "STEPS", "Step", "TeamSaver", "current", "refuse_newer", "version"]

STATE: Final = 2
"""Rises with every change of what `graph.team` keeps in state; kept with each checkpoint."""
_KEY: Final = "midwatch_state"

Step = Callable[[Any], Any]


def _handoff(value: Any) -> Any:
    return {"unmet": [], "answer": None, **value} if isinstance(value, dict) else value


def _handoffs(value: Any) -> Any:
    return [_handoff(item) for item in value] if isinstance(value, list) else value


STEPS: Final[Mapping[int, Mapping[str, Step]]] = {1: {"handoffs": _handoffs, "result": _handoff}}
"""By the version that a step begins with: what it does to which channel."""


def version(metadata: Mapping[str, Any]) -> int:
    """Give the version of a checkpoint's state."""
    found = metadata.get(_KEY, 1)
    return found if type(found) is int else STATE + 1  # what cannot be read is not ours to guess


def current(channel: str, value: Any, found: int) -> Any:
    """Give a channel's value in today's form."""
    for step in range(found, STATE):
        change = STEPS.get(step, {}).get(channel)
        value = value if change is None else change(value)
    return value


def refuse_newer(tx: Tx, run: str) -> None:
    """Refuse a run whose state this version does not know, before anything of it is touched.

    Raises:
        StoreTooNew: it went on under a newer version.
    """
    for row in tx.checkpoints.list(run, None, limit=1):
        _known(version(orjson.loads(row.metadata)), run)


def _known(found: int, run: str) -> None:
    if found > STATE:
        raise StoreTooNew(
            f"the state of run `{run[:7]}` has the form {found}, and this version of Midwatch knows {STATE}; "
            "go on with the version that wrote it, nothing was changed"
        )


class TeamSaver(Saver):
    """The saver of a team: each checkpoint carries the version of its state, and older ones are read in today's form."""

    def _row(
        self,
        line: tuple[str, str],
        conf: Mapping[str, Any],
        id_: str,
        packed: tuple[str, bytes],
        metadata: CheckpointMetadata,
        channels: tuple[tuple[str, str], ...],
    ) -> CheckpointRow:
        told = cast("CheckpointMetadata", {**metadata, _KEY: STATE})
        return super()._row(line, conf, id_, packed, told, channels)

    def _tuple(self, raw: tuple[CheckpointRow, Any, Sequence[Any]], *, remember: bool = False) -> CheckpointTuple:
        read = super()._tuple(raw, remember=remember)
        found = version(cast("Mapping[str, Any]", read.metadata))
        _known(found, raw[0].thread)
        if found == STATE:
            return read
        values = {name: current(name, value, found) for name, value in read.checkpoint["channel_values"].items()}
        writes = [(task, name, current(name, value, found)) for task, name, value in read.pending_writes or ()]
        return read._replace(checkpoint={**read.checkpoint, "channel_values": values}, pending_writes=writes)
