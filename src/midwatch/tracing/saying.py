"""Saying: one event of the ledger in a few words.

In:   an event. Out: a line without values: names of tools, models, agents and people, never arguments, results, prompts or reasons.
May import: records. Must not know: where the event came from, how the line is shown.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from midwatch.records.event import Event

__all__ = ["id_of", "in_words"]

_LONGEST: Final = 80
_SHORT: Final = 7


def in_words(event: Event) -> str:
    """Say what an event is."""
    say = _WORDS.get(event.kind)
    return event.kind if say is None else " ".join(say(event.data).split())


def id_of(event: Event) -> str:
    """Give an id that the command line takes: the effect's where a call ended, else the event's."""
    effect = event.data.get("effect")
    return f"e:{effect[:_SHORT]}" if event.kind == "finished" and isinstance(effect, str) else str(event.seq)


def _name(data: Mapping[str, Any], key: str, other: str = "-") -> str:
    value = data.get(key)
    text = other if value is None else str(value)
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"


def _intent(data: Mapping[str, Any]) -> str:
    if "tool" in data:
        undoes = " to undo an effect" if "undoes" in data else ""
        return f"began {_name(data, 'tool')} ({_name(data, 'class')}){undoes}"
    return f"asked {_name(data, 'model')} over route {_name(data, 'route')}"


def _finished(data: Mapping[str, Any]) -> str:
    outcome = "ok" if data.get("ok") else _name(data, "code", "failed")
    if "tool" in data:
        return f"{_name(data, 'tool')}: {outcome}"
    return f"{_name(data, 'model', 'the model')} answered: {_name(data, 'finish', outcome)}"


def _decided(data: Mapping[str, Any]) -> str:
    marks = [mark for mark in data.get("stages") or () if mark.get("outcome") != "pass"]
    told = ", ".join(f"{_name(mark, 'stage')} said {_name(mark, 'outcome')}" for mark in marks)
    return f"decided about {_name(data, 'tool')}: {told or 'let pass'}"


def _answered(data: Mapping[str, Any]) -> str:
    return f"{_name(data, 'by')} said {'yes' if data.get('approved') else 'no'} to gate {_name(data, 'gate')}"


def _resolved(data: Mapping[str, Any]) -> str:
    return f"{_name(data, 'by')} said of {_name(data, 'tool')}: {_name(data, 'word')}"


def _endorsed(data: Mapping[str, Any]) -> str:
    versions = data.get("versions") or ()
    names = ", ".join(f"{_name(item, 'kind')}/{_name(item, 'name')}" for item in versions[:3])
    return f"{_name(data, 'by')} endorsed {names}{f' and {len(versions) - 3} more' if len(versions) > 3 else ''}"


_WORDS: Final[Mapping[str, Callable[[Mapping[str, Any]], str]]] = {
    "run.created": lambda data: f"the request to fleet {_name(data, 'fleet')}",
    "run.started": lambda _: "the run began",
    "run.resumed": lambda data: f"the run went on, segment {_name(data, 'segment')}",
    "run.finished": lambda _: "the run ended with its answer",
    "run.failed": lambda data: f"the run failed: {_name(data, 'code')}",
    "run.halted": lambda _: "the run was halted",
    "run.waiting": lambda _: "the run waits for people",
    "node.started": lambda _: "the node began",
    "node.finished": lambda _: "the node ended",
    "node.failed": lambda _: "the node failed",
    "proposed": lambda data: f"proposed {_name(data, 'tool')}",
    "decided": _decided,
    "intent": _intent,
    "finished": _finished,
    "signal": lambda data: f"structure was recovered by rule {_name(data, 'rule')}",
    "plan": lambda data: f"planned, tasks: {_name(data, 'dispatches')}",
    "handoff": lambda data: f"handed over: {_name(data, 'status')}",
    "handoff.refused": lambda data: f"its handoff was refused: {_name(data, 'code')}",
    "gate.opened": lambda data: f"{_name(data, 'who')} was asked, gate {_name(data, 'gate')}",
    "gate.said": _answered,
    "gate.answered": _answered,
    "gate.used": lambda data: f"the yes to gate {_name(data, 'gate')} was used",
    "gate.edited": lambda data: f"{_name(data, 'by')} changed the arguments of gate {_name(data, 'gate')}",
    "effect.in_doubt": lambda data: f"{_name(data, 'tool')}: nobody saw how it ended",
    "effect.resolved": _resolved,
    "effect.undone": lambda data: f"undone by {_name(data, 'tool')}",
    "effects.releasing": lambda data: f"{_name(data, 'by')} ordered the commit",
    "effects.committed": lambda data: f"{_name(data, 'changed')} paths were written into the workspace",
    "effects.discarded": lambda data: f"{_name(data, 'by')} discarded {_name(data, 'changes')} changes",
    "effects.sending": lambda data: f"began to send {_name(data, 'method')} to {_name(data, 'host')}",
    "effects.sent": lambda data: f"the request was {_name(data, 'outcome')}",
    "authority.pending": lambda data: (
        f"{_name(data, 'kind')}/{_name(data, 'name')} was changed and waits: {_name(data, 'why')}"
    ),
    "authority.endorsed": _endorsed,
    "authority.rejected": lambda data: f"{_name(data, 'by')} rejected {_name(data, 'kind')}/{_name(data, 'name')}",
    "event.quarantined": lambda data: f"{_name(data, 'by')} quarantined event {_name(data, 'event')}",
    "event.lifted": lambda data: f"{_name(data, 'by')} lifted the quarantine of event {_name(data, 'event')}",
}
