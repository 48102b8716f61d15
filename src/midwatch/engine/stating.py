"""Stating: what the state of a run was, at any of its checkpoints.

In:   a store, a run, the number of a checkpoint. Out: per place in the graph, the values it had then.
May import: the saver of `graph`, store (port), records, errors. Must not know: who shows it.
Why numbered over the whole run: each agent has a line of checkpoints of its own; their ids rise with time, so one number names one moment.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson
from langchain_core.runnables import RunnableConfig

from midwatch.errors import NotFound
from midwatch.graph.saver import Saver
from midwatch.store.port import Store

__all__ = ["Held", "Moment", "moments", "state_at"]


@dataclass(frozen=True, slots=True)
class Moment:
    """One checkpoint. `number`: over the run, from 0. `place`: empty for the team's own graph. `step`: LangGraph's superstep."""

    number: int
    place: str
    step: int
    source: str
    id: str

    def to_json(self) -> dict[str, Any]:
        """Give the JSON object that `--json` prints."""
        return {"number": self.number, "place": self.place, "step": self.step, "source": self.source}


@dataclass(frozen=True, slots=True)
class Held:
    """The values of one place, as JSON."""

    moment: Moment
    values: Mapping[str, Any]

    def to_json(self) -> dict[str, Any]:
        """Give the JSON object that `--json` prints."""
        return {**self.moment.to_json(), "values": dict(self.values)}


def moments(store: Store, run: str) -> list[Moment]:
    """Give every checkpoint of a run, oldest first; no state is read."""
    rows = sorted(store.read(lambda tx: tx.checkpoints.list(run, None)), key=lambda row: row.id)
    told = [orjson.loads(row.metadata) for row in rows]
    return [
        Moment(number, row.ns, int(meta.get("step", -1)), str(meta.get("source", "")), row.id)
        for number, (row, meta) in enumerate(zip(rows, told, strict=True))
    ]


def state_at(store: Store, run: str, at: int | None = None) -> list[Held]:
    """Give what each place held at a checkpoint: its newest state up to then.

    Raises:
        NotFound: the run has no checkpoint of this number.
    """
    known = moments(store, run)
    if not known:
        raise NotFound(f"run `{run[:7]}` has no state yet, or it was pruned")
    last = known[-1].number if at is None else at
    if not 0 <= last < len(known):
        raise NotFound(f"run `{run[:7]}` has checkpoints 0 to {known[-1].number}; there is no {last}")
    newest: dict[str, Moment] = {}
    for moment in known[: last + 1]:
        newest[moment.place] = moment
    saver = Saver(store)
    return [Held(moment, _values(saver, run, moment)) for moment in newest.values()]


def _values(saver: Saver, run: str, moment: Moment) -> dict[str, Any]:
    where = {"thread_id": run, "checkpoint_ns": moment.place, "checkpoint_id": moment.id}
    config: RunnableConfig = {"configurable": where}
    found = saver.get_tuple(config)
    values = {} if found is None else found.checkpoint["channel_values"]
    plain = {name: value for name, value in values.items() if not name.startswith(("__", "branch:"))}
    body = orjson.dumps(plain, default=_plain, option=orjson.OPT_NON_STR_KEYS | orjson.OPT_SORT_KEYS)
    read: dict[str, Any] = orjson.loads(body)
    return read


def _plain(value: Any) -> Any:
    dump = getattr(value, "model_dump", None)
    return dump() if callable(dump) else repr(value)
