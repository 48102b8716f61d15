"""Patterns: what an event says of an agent's use of tools, models, network and processes.

In:   events of the ledger, and the bodies that they name. Out: facts: small, and nothing of a value but its size and its places.
May import: records. Must not know: what is usual.
Nothing here trusts a payload: sizes are measured, counters are the machine's, names of places are cut and bounded.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import orjson

from midwatch.records.event import Event

__all__ = ["KINDS", "Fact", "fact_of"]

KINDS: Final = ("intent", "finished")
_URL: Final = re.compile(rb"https?://([A-Za-z0-9._~%@:\[\]-]{1,255})", re.IGNORECASE)
_PLACES: Final = frozenset({"table", "database", "bucket", "host", "queue", "topic", "repo", "path", "file", "folder"})
"""Names of arguments that say where an action goes."""
_MOST: Final = 32
_LONG: Final = 120
_READ: Final = 262_144
"""Bytes of a body that are looked through for places; its size is counted in full."""
_DIGITS: Final = re.compile(r"\d+")

Body = Callable[[str], bytes | None]


@dataclass(frozen=True, slots=True)
class Fact:
    """What one event says.

    Attributes:
        kind: `call` (a tool begins), `done` (it ended), `model` (a model answered).
        digest: of the arguments. sent: bytes that left. tokens, cost: of a model's answer, whole numbers.
        places: hosts, paths, tables. processes, refused: the sandbox's counters; None where nothing counts.
    """

    seq: int
    at_us: int
    run: str
    agent: str
    kind: str
    tool: str
    digest: str = ""
    sent: int = 0
    tokens: int = 0
    cost: int = 0
    failed: bool = False
    places: tuple[str, ...] = ()
    processes: int | None = None
    refused: int | None = None


def fact_of(event: Event, body: Body) -> Fact | None:
    """Give the fact of an event; None where it says nothing of an agent."""
    if event.run is None or event.agent is None:
        return None
    data = event.data
    if event.kind == "intent" and "tool" in data:
        return _call(event, data, body)
    if event.kind == "finished" and "tool" in data:
        return _done(event, data, body)
    if event.kind == "finished" and "route" in data:
        usage = data.get("usage")
        tokens = _whole(usage, "input") + _whole(usage, "output")
        return Fact(
            event.seq,
            event.at_us,
            event.run,
            event.agent,
            "model",
            str(data["route"]),
            tokens=tokens,
            cost=_whole(data, "cost"),
            failed=data.get("ok") is not True,
        )
    return None


def _call(event: Event, data: Mapping[str, Any], body: Body) -> Fact:
    digest = str(data.get("arguments_blob", ""))
    told = (body(digest) if digest else None) or b""
    outside = data.get("runs") == "broker"
    places = tuple(dict.fromkeys(_named(told)))[:_MOST] if outside else ()
    sent = len(told) if outside else 0
    run, agent = event.run or "", event.agent or ""
    return Fact(event.seq, event.at_us, run, agent, "call", str(data["tool"]), digest, sent=sent, places=places)


def _done(event: Event, data: Mapping[str, Any], body: Body) -> Fact:
    usage, seen = data.get("usage"), data.get("observed")
    sent, places = 0, []  # type: tuple[int, list[str]]
    if isinstance(seen, Mapping) and seen.get("requests"):
        for request in _requests(body(str(seen.get("blob", "")))):
            sent += _whole(request, "sent")
            places.append(f"host:{str(request.get('host', ''))[:_LONG].lower()}")
    return Fact(
        event.seq,
        event.at_us,
        event.run or "",
        event.agent or "",
        "done",
        str(data["tool"]),
        sent=sent,
        failed=data.get("ok") is not True,
        places=tuple(dict.fromkeys(places))[:_MOST],
        processes=_count(usage, "processes_peak"),
        refused=_count(usage, "processes_refused"),
    )


def _requests(told: bytes | None) -> list[Mapping[str, Any]]:
    try:
        found = orjson.loads(told or b"{}").get("requests", ())
    except (orjson.JSONDecodeError, AttributeError):
        return []
    return [item for item in found if isinstance(item, dict)]


def _named(told: bytes) -> Iterator[str]:
    """Give the places that arguments name: hosts of addresses, and what stands under a telling name."""
    for match in _URL.finditer(told[:_READ]):
        host = match.group(1).decode().rpartition("@")[2].lower()
        yield f"host:{host[:_LONG]}"
    if len(told) > _READ:
        return
    try:
        arguments = orjson.loads(told)
    except orjson.JSONDecodeError:
        return
    for name, value in arguments.items() if isinstance(arguments, dict) else ():
        if name in _PLACES and isinstance(value, str) and "://" not in value:
            kind = "path" if name in ("path", "file", "folder") else name
            yield f"{kind}:{_short(value) if kind == 'path' else value[:_LONG]}"


def _short(path: str) -> str:
    """Keep where a path leads, without what changes from call to call."""
    parts = [part for part in path.split("/") if part not in ("", ".")][:2]
    return ("/" if path.startswith("/") else "") + _DIGITS.sub("#", "/".join(parts))[:_LONG]


def _whole(data: Any, name: str) -> int:
    return _count(data, name) or 0


def _count(data: Any, name: str) -> int | None:
    value = data.get(name) if isinstance(data, Mapping) else None
    return max(0, value) if isinstance(value, int) and not isinstance(value, bool) else None
