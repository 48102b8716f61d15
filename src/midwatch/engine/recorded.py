"""Recorded: what a run's record answers: the result of a model call, of a tool call, of a program, by its place in the run.

In:   a `Recording`. Out: `Heard`, `Told`, `Given` by (agent's place in the graph, node, step, ordinal); None where the record ends.
May import: tracing's recording, records, errors. Must not know: the graph, who asks.
Why by place and not by task: LangGraph names a task by a checkpoint, whose id has the time in it, so no replay has the same names.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import orjson

from midwatch.errors import Divergence
from midwatch.records.effect import EffectRow, effect_id
from midwatch.records.event import Event
from midwatch.tracing.recording import Recording

__all__ = ["COMPARED", "Call", "Heard", "Record", "place_of"]

COMPARED: Final[Mapping[str, tuple[str, ...]]] = {
    "node.finished": ("bytes", "digest"),
    "plan": ("plan_blob", "dispatches"),
    "handoff": ("status", "handoff_blob"),
    "handoff.refused": ("code", "reason"),
    "signal": ("rule", "where"),
}
"""What of an event that a node writes follows from its inputs alone; the rest (times, labels, counts of others) does not."""


def place_of(task: str | None) -> str:
    """Give an agent's place in the graph, the same for each of its turns."""
    return (task or "").rpartition("|")[0]


@dataclass(frozen=True, slots=True)
class Heard:
    """A model call as it was recorded. `answer`: the body, or None when it failed for `reason`."""

    intent: Event
    asked: str | None
    request: bytes | None
    answer: Mapping[str, Any] | None
    seq: int
    code: str = ""
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Call:
    """A tool call as it was recorded. `result`: the envelope, or None where nothing came of it; `gate`: what it waits for."""

    proposed: Event
    tool: str
    raw: bytes | None
    result: Mapping[str, Any] | None
    seq: int
    gate: str | None
    effect: EffectRow | None


@dataclass(slots=True)
class Record:
    """An index over one recording; made once."""

    recording: Recording
    by_task: dict[str, list[Event]] = field(default_factory=dict)
    places: dict[str, list[str]] = field(default_factory=dict)
    tasks: dict[tuple[str, str, int], list[str]] = field(default_factory=dict)
    by_effect: dict[str, list[Event]] = field(default_factory=dict)
    by_seq: dict[int, Event] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for event in self.recording.events:
            self.by_seq[event.seq] = event
            effect = event.data.get("effect")
            if isinstance(effect, str):
                self.by_effect.setdefault(effect, []).append(event)
            if event.task is None or event.node is None:
                continue
            self.by_task.setdefault(event.task, []).append(event)
            if event.kind == "node.started":
                self._started(event)

    def _started(self, event: Event) -> None:
        place, agent = place_of(event.task), event.agent or ""
        if place not in self.places.setdefault(agent, []):
            self.places[agent].append(place)
        tasks = self.tasks.setdefault((place, event.node or "", event.step or 0), [])
        if event.task not in tasks:
            tasks.append(event.task or "")

    # ------------------------------------------------------------------------------------------------ what was answered

    def heard(self, place: str, node: str, step: int, route: str) -> Heard | None:
        """Find the model call of a step; None: there is none on record."""
        for task in self.tasks.get((place, node, step), ()):
            found = self.by_effect.get(effect_id(self.recording.run, task, f"model:{step}", route), [])
            intents = [event for event in found if event.kind == "intent"]
            if intents:
                return self._heard(intents[-1], [event for event in found if event.kind == "finished"])
        return None

    def _heard(self, intent: Event, ended: Sequence[Event]) -> Heard | None:
        asked, request = intent.data.get("asked"), self.blob(intent.data.get("request_blob"))
        good = [event for event in ended if event.data.get("ok") is True]
        if good:
            last = good[-1]
            return Heard(intent, asked, request, self.json(last.data.get("result_blob")), last.seq)
        if not ended or ended[-1].seq < intent.seq:
            return None if not ended else Heard(intent, asked, request, None, intent.seq)
        reason = (self.blob(ended[-1].data.get("detail_blob")) or b"").decode()
        return Heard(intent, asked, request, None, ended[-1].seq, str(ended[-1].data.get("code")), reason)

    def call(self, place: str, node: str, step: int, call: str, name: str) -> Call | None:
        """Find a tool call of a step by its ordinal; None: nothing was proposed there."""
        for task in self.tasks.get((place, node, step), ()):
            events = self.by_task[task]
            proposed = [event for event in events if event.kind == "proposed" and event.data.get("call") == call]
            if proposed:
                return self._call(task, proposed[-1], call, name)
        return None

    def _call(self, task: str, proposed: Event, call: str, name: str) -> Call:
        effect = effect_id(self.recording.run, task, call, name)
        ends = [event for event in self.by_effect.get(effect, ()) if self._ends(event)]
        refused = [event for event in self.by_task[task] if event.kind == "finished" and event.data.get("call") == call]
        ended = max((*ends, *refused), key=lambda event: event.seq, default=None)
        gates = [event.data.get("gate") for event in self.by_task[task] if event.kind == "gate.opened"]
        return Call(
            proposed=proposed,
            tool=str(proposed.data.get("tool")),
            raw=self.blob(proposed.data.get("arguments_blob")),
            result=None if ended is None else self.json(ended.data.get("result_blob")),
            seq=0 if ended is None else ended.seq,
            gate=effect if effect in gates or ended is None else None,
            effect=None if ended is None or ended in refused else self.effect(effect),
        )

    @staticmethod
    def _ends(event: Event) -> bool:
        return event.kind == "finished" or (event.kind == "effect.resolved" and event.data.get("word") == "done")

    def effect(self, effect: str) -> EffectRow | None:
        """Give the row of the journal that an effect had at its end; None: it has none."""
        events = self.by_effect.get(effect, ())
        intents = [event for event in events if event.kind == "intent"]
        ended = [event for event in events if self._ends(event)]
        if not intents or not ended:
            return None
        first, last = intents[-1], ended[-1]
        return EffectRow(
            id=effect,
            run=self.recording.run,
            task=first.task or "",
            call_id="",
            kind="model" if "model" in first.data else "tool",
            tool=str(first.data.get("tool", first.data.get("route"))),
            tool_digest=str(first.data.get("tool_digest", "")),
            effect=first.data.get("class", "read"),
            agent=first.agent or "",
            args_digest="",
            arguments=str(first.data.get("arguments_blob", "")),
            epoch=0,
            attempt=int(first.data.get("attempt", 1)),
            status="done",
            started_us=first.at_us,
            intent_seq=first.seq,
            result=last.data.get("result_blob"),
            finished_us=last.at_us,
            finished_seq=last.seq,
        )

    # ------------------------------------------------------------------------------------------------ what nodes wrote

    def written(self, place: str, node: str, step: int) -> list[Event]:
        """Give what the last finished passage through a node wrote that a replay must write, too."""
        found: list[Event] = []
        for task in self.tasks.get((place, node, step), ()):
            found += _last(self.by_task[task])
        return found

    def given(self, place: str, node: str, step: int, kind: str) -> Event | None:
        """Give the last event of a kind that a node wrote."""
        return next((event for event in reversed(self.written(place, node, step)) if event.kind == kind), None)

    def ended(self) -> Event | None:
        """Give the event with which the run stopped last."""
        kinds = ("run.finished", "run.failed", "run.halted", "run.paused", "run.waiting")
        return next((event for event in reversed(self.recording.events) if event.kind in kinds), None)

    def blob(self, digest: Any) -> bytes | None:
        """Give a body by its digest."""
        return self.recording.blobs.get(digest) if isinstance(digest, str) else None

    def json(self, digest: Any) -> Any:
        """Give a body as JSON.

        Raises:
            Divergence: it is missing.
        """
        body = self.blob(digest)
        if body is None:
            raise Divergence(f"body `{str(digest)[:12]}` is missing from the record")
        return orjson.loads(body)


def _last(events: Sequence[Event]) -> Iterator[Event]:
    """Give what a node wrote after it was started for the last time: a cut passage is made again, and says the same again."""
    begun = max((place for place, event in enumerate(events) if event.kind == "node.started"), default=0)
    refused = [event for event in events if event.kind == "handoff.refused"]
    yield from refused[-1:]  # written once for an answer, however often its node is made again
    for event in events[begun:]:
        if event.kind in COMPARED and event.kind != "handoff.refused" and not _of_a_call(event):
            yield event


def _of_a_call(event: Event) -> bool:
    """Say whether a signal is of a call's arguments or of an adapter, which a replay takes from the record."""
    where = str(event.data.get("where", ""))
    return event.kind == "signal" and (where in ("arguments", "constrained answer") or "tool_digest" in event.data)
