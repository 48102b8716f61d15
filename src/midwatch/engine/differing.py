"""Differing: where two recorded runs part: what was asked of models, what they said, which calls, which results, what was handed over.

In:   two recordings. Out: `Differs`, in the order of the first one.
May import: recorded, tracing's recording. Must not know: who shows it.
Why names are put in the place of ids: ids of effects, items and calls are made from the run's id, so they always differ. How long a call
took is left out, too.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import orjson

from midwatch.engine.recorded import COMPARED, Record
from midwatch.records.event import Event
from midwatch.tracing.recording import Recording

__all__ = ["Differs", "differing"]

_TOKEN: Final = re.compile(r"[A-Za-z0-9_-]{8,64}")
_TOOK: Final = re.compile(r'(\\*"ms\\*":)[0-9]+')
_AROUND: Final = 80
_Label = tuple[str, str, str]


@dataclass(frozen=True, slots=True)
class Differs:
    """One part in which two runs differ. `left`, `right`: events (0: not there). The texts are what lies around the first other byte."""

    where: str
    what: str
    left: int
    right: int
    left_text: str
    right_text: str

    def to_json(self) -> dict[str, Any]:
        """Give the JSON object that `--json` prints."""
        return {
            "where": self.where,
            "what": self.what,
            "left": {"event": self.left, "text": self.left_text},
            "right": {"event": self.right, "text": self.right_text},
        }


def differing(left: Recording, right: Recording) -> list[Differs]:
    """Compare two runs part by part; empty: nothing that an agent, a model or a tool said differs."""
    one, two = _stream(left), _stream(right)
    found = []
    for label in dict.fromkeys((*one, *two)):
        (seq, a), (other, b) = one.get(label, (0, "")), two.get(label, (0, ""))
        if (a, bool(seq)) != (b, bool(other)):
            start = max(
                0,
                next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b))) - _AROUND,
            )
            end = start + 3 * _AROUND
            found.append(Differs(" ".join(filter(None, label[:2])), label[2], seq, other, a[start:end], b[start:end]))
    return found


def _stream(recording: Recording) -> dict[_Label, tuple[int, str]]:
    record = Record(recording)
    ids: dict[str, str] = {}
    parts: dict[_Label, tuple[int, str]] = {
        ("run", "", "input"): (1, (record.blob(recording.row.get("input")) or b"").decode())
    }
    for event in recording.events:
        if event.kind in ("run.started", "run.resumed"):
            parts["run", "", "agents"] = (event.seq, (record.blob(event.data.get("program_blob")) or b"").decode())
    order = {place: f"{agent}#{at + 1}" for agent, places in record.places.items() for at, place in enumerate(places)}
    for place, node, step in record.tasks:
        where = (order[place], f"{node}[{step}]")
        for task in record.tasks[place, node, step]:
            for what, event, text in _told(record, record.by_task[task], " ".join(where), ids):
                parts[(*where, what)] = (event.seq, text)
    last = record.ended()
    if last is not None:
        output = (record.blob(last.data.get("output_blob")) or b"").decode()
        parts["run", "", "end"] = (last.seq, f"{last.data.get('status')} {last.data.get('code') or ''}".strip())
        parts["run", "", "output"] = (last.seq, output)
    return {
        label: (seq, _TOKEN.sub(lambda found: ids.get(found[0], found[0]), text))
        for label, (seq, text) in parts.items()
    }


def _told(record: Record, events: list[Event], where: str, ids: dict[str, str]) -> Iterator[tuple[str, Event, str]]:
    """Give what was asked, answered, called and written in one passage; fills in the names of its ids."""
    for event in events:
        data = event.data
        if "effect" in data:
            ids.setdefault(str(data["effect"]), f"<effect {where} {data.get('tool', 'model')} {_count(ids, where)}>")
        if event.kind == "intent" and "request_blob" in data:
            yield "request", event, _TOOK.sub(r"\1-", (record.blob(data["request_blob"]) or b"").decode())
        elif event.kind == "finished" and "usage" in data:
            yield "answer", event, _answer(record.json(data["result_blob"]), where, ids)
        elif event.kind == "finished" and "result_blob" in data:
            yield f"result {data.get('call') or ids.get(str(data.get('effect')))}", event, _result(record, data)
        elif event.kind == "proposed":
            raw = (record.blob(data.get("arguments_blob")) or b"").decode()
            yield f"call {data.get('call')}", event, f"{data.get('tool')} {raw}"
        elif event.kind in COMPARED and event.kind != "node.finished":
            for item in record.json(data["items_blob"]) if "items_blob" in data else ():
                name = str(item.get("id", "")).partition(":")[2]
                ids.setdefault(name, f"<item {where} {item.get('field')} {item.get('index')}>")
            yield event.kind, event, _written(record, event)


def _count(ids: Mapping[str, str], where: str) -> int:
    return sum(name.startswith(f"<effect {where} ") for name in ids.values()) + 1


def _answer(body: Mapping[str, Any], where: str, ids: dict[str, str]) -> str:
    for at, call in enumerate(body.get("tool_calls", ())):
        ids.setdefault(str(call.get("id")), f"<call {where} {at}>")
    told = {key: body.get(key) for key in ("content", "tool_calls", "finish")}
    return orjson.dumps(told, option=orjson.OPT_SORT_KEYS).decode()


def _result(record: Record, data: Mapping[str, Any]) -> str:
    body = dict(record.json(data["result_blob"]))
    meta = body.get("meta")
    body["meta"] = {key: value for key, value in meta.items() if key != "ms"} if isinstance(meta, Mapping) else meta
    return orjson.dumps(body, option=orjson.OPT_SORT_KEYS).decode()


def _written(record: Record, event: Event) -> str:
    told = {key: event.data.get(key) for key in COMPARED[event.kind]}
    bodies = [(record.blob(value) or b"").decode() for key, value in told.items() if key.endswith("_blob")]
    plain = {key: value for key, value in told.items() if not key.endswith("_blob")}
    return "\n".join([orjson.dumps(plain, option=orjson.OPT_SORT_KEYS).decode(), *bodies])
