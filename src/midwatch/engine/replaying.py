"""Replaying: the agents of a recorded run go through their graph again; models, tools, programs and the clock answer from the record.

In:   a `Recording`, and a seed by which answers come back in another order. Out: `Replayed`: identical, or the first difference.
May import: nodes, the team's graph, recorded, program; records, errors. Must not know: stores on disk, providers, sandboxes, commands.

What is compared, byte for byte and in the record's order: each model request, each proposed call with its arguments, each plan, handoff and
refusal, what each node wrote to the state, and the final answer. Nothing is performed: the nodes are given a pipeline and models that can
only look things up, by the agent's place, its step, the ordinal, and the digest of the request.
"""

from __future__ import annotations

import asyncio
import hashlib
import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import orjson
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.memory import InMemorySaver
from langsmith import tracing_context

from midwatch.engine.context import Halted
from midwatch.engine.program import Program, read_program
from midwatch.engine.recorded import Record
from midwatch.engine.stand_ins import RECURSION_LIMIT, Stage
from midwatch.errors import MidwatchError, UsageProblem
from midwatch.graph.team import build
from midwatch.tracing.recording import Recording, damage

__all__ = ["Difference", "Replayed", "replay"]

_SHOWN: Final = 240
"""Characters around a difference that are shown of each side."""


@dataclass(frozen=True, slots=True)
class Difference:
    """Where the record and the replay part. `event`: the recorded event; the texts are cut to what lies around the first other byte."""

    event: int
    node: str
    step: int | None
    what: str
    recorded: str
    replayed: str

    def to_json(self) -> dict[str, Any]:
        """Give the JSON object that `--json` prints."""
        return {
            "event": self.event,
            "node": self.node,
            "step": self.step,
            "what": self.what,
            "recorded": self.recorded,
            "replayed": self.replayed,
        }


@dataclass(frozen=True, slots=True)
class Replayed:
    """What came of a replay.

    Attributes:
        steps: passages through nodes. compared: parts of the stream. stream: SHA-256 of what the replay made, in the record's order.
        parts: per compared part, the recorded event, what it is, and the SHA-256 of what the replay made.
        notes: what was taken from the record whole, and where the record ends.
    """

    run: str
    identical: bool
    steps: int
    compared: int
    stream: str
    difference: Difference | None = None
    notes: tuple[str, ...] = ()
    parts: tuple[tuple[int, str, str], ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Give the JSON object that `--json` prints."""
        return {
            "run": self.run,
            "identical": self.identical,
            "steps": self.steps,
            "compared": self.compared,
            "stream": self.stream,
            "difference": None if self.difference is None else self.difference.to_json(),
            "notes": list(self.notes),
        }


def replay(recording: Recording, *, seed: int = 0) -> Replayed:
    """Replay a run. Not for use inside a running event loop.

    Args:
        seed: of the order in which answers that were waited for side by side come back.

    Raises:
        UsageProblem: this record cannot be replayed; it says why.
    """
    wrong = damage(recording)
    if wrong:
        first = Difference(wrong[0].event, "", None, "record", wrong[0].message, "")
        more = (f"{len(wrong)} places of the record do not fit their hashes; nothing was replayed",)
        return Replayed(recording.run, identical=False, steps=0, compared=0, stream="", difference=first, notes=more)
    return again(recording, seed=seed)


def again(recording: Recording, *, seed: int = 0) -> Replayed:
    """Replay a record whose hashes were looked at, or are not to be; see `replay`."""
    program = _program(recording)
    record = Record(recording)
    stage = Stage(record, program, random.Random(seed))  # noqa: S311 - an order, no secret
    with tracing_context(enabled=False):
        end = asyncio.run(_drive(stage, _request(recording)))
    return _compared(stage, end)


@dataclass(frozen=True, slots=True)
class _End:
    result: Any = None
    error: MidwatchError | None = None


@dataclass(frozen=True, slots=True)
class _Part:
    """One recorded part of the stream."""

    seq: int
    key: tuple[str, str, int, str, int]
    body: bytes
    whole: bool = field(default=True)


async def _drive(stage: Stage, request: Any) -> _End:
    graph = build(stage.program.graph, stage.nodes(), InMemorySaver())
    config: RunnableConfig = {"configurable": {"thread_id": stage.run}, "recursion_limit": RECURSION_LIMIT}
    try:
        async for _ in graph.astream({"request": request}, config, stream_mode="updates"):
            pass
    except Halted as halted:
        return _End(error=halted.error)
    state = await graph.aget_state(config)
    return _End(result=state.values.get("result"))


def _program(recording: Recording) -> Program:
    if any(event.kind == "run.rebound" for event in recording.events):
        raise UsageProblem(
            "this run went on under another version of its fleet, so its agents were not the same from end to end; "
            "`midwatch verify` checks what was recorded"
        )
    begun = [event for event in recording.events if event.kind in ("run.started", "run.resumed")]
    digests = {event.data.get("program_blob") for event in begun}
    if not begun:
        raise UsageProblem("this run never began, so there is nothing to replay")
    if None in digests:
        raise UsageProblem(
            "this run was recorded before runs kept what their agents are; `midwatch verify` checks what it has"
        )
    if len(digests) > 1:
        raise UsageProblem(
            "what its agents may use changed while this run was stopped, so no single program replays it"
        )
    body = recording.blobs.get(str(digests.pop()))
    try:
        program = None if body is None else read_program(body)
    except (KeyError, TypeError, ValueError) as error:
        raise UsageProblem(f"what its agents are cannot be read from the record: {error}") from error
    if program is None:
        raise UsageProblem(
            "the graph of this run is code of its own: the ledger has its calls and their results, but not what its nodes compute, "
            "so it cannot be replayed; `midwatch trace` and `verify` read what was recorded"
        )
    return program


def _request(recording: Recording) -> Any:
    body = recording.blobs.get(str(recording.row.get("input")))
    if body is None:
        raise UsageProblem("the run's input is missing from the record")
    return orjson.loads(body)


# ---------------------------------------------------------------------------------------------------- the comparison


def _compared(stage: Stage, end: _End) -> Replayed:
    made = {(stage.mapped.get(key[0], key[0]), *key[1:]): body for key, body in stage.made.items()}
    parts = sorted(_parts(stage), key=lambda part: part.seq)
    total, seen, first = hashlib.sha256(), [], None
    over = stage.over or stage.status != "done"
    for part in parts:
        body = made.pop(part.key, None)
        if body is None and (over or first is not None):
            continue
        live = b"" if body is None else body
        recorded = part.body if part.whole else live if _digest(live) == part.body.decode() else part.body
        if live != recorded and first is None:
            first = _difference(part, recorded, None if body is None else live)
        digest = _digest(live)
        total.update(f"{part.seq} {part.key[3]} {digest}\n".encode())
        seen.append((part.seq, f"{part.key[1]} {part.key[3]}", digest))
    if first is None and made and not over:
        key = next(iter(made))
        first = Difference(0, key[1], key[2], key[3], "", _text(next(iter(made.values()))))
    ending = _ending(stage, end)
    if ending is not None:
        total.update(f"final {_digest(ending[1])}\n".encode())
        seen.append((ending[0].seq, "final", _digest(ending[1])))
        if first is None and ending[0].body != ending[1]:
            first = _difference(ending[0], ending[0].body, ending[1])
    return Replayed(
        run=stage.run,
        identical=first is None,
        steps=stage.steps,
        compared=len(seen),
        stream=total.hexdigest(),
        difference=first,
        notes=tuple(stage.notes()),
        parts=tuple(seen),
    )


def _ending(stage: Stage, end: _End) -> tuple[_Part, bytes] | None:
    """Give what the record and the replay end with; None where the end was not the agents' doing."""
    last = stage.record.ended()
    if last is None or (stage.status != "done" and end.error is None):
        return None
    if stage.status == "done":
        live = b"" if end.result is None else orjson.dumps(end.result)
        said = live if end.error is None else str(end.error).encode()
        return _Part(last.seq, ("", "", 0, "final", 0), stage.record.blob(last.data.get("output_blob")) or b""), said
    if last.data.get("code") != type(end.error).__name__:
        return None
    return _Part(last.seq, ("", "", 0, "final", 0), str(last.data.get("message")).encode()), str(end.error).encode()


def _parts(stage: Stage) -> list[_Part]:
    """Give every recorded part that a replay must make again."""
    record, found = stage.record, []
    for place, node, step in record.tasks:
        agent = node.partition(".")[0]
        spec = stage.program.agents.get(agent)
        if spec is not None and not spec.command:
            found += _asked(stage, place, node, step)
        counts: dict[str, int] = {}
        for event in record.written(place, node, step):
            place_in = counts[event.kind] = counts.get(event.kind, -1) + 1
            body = stage.body_of(event.kind, event.data, event.data, record.blob)
            found.append(_Part(event.seq, (place, node, step, event.kind, place_in), body))
    return found


def _asked(stage: Stage, place: str, node: str, step: int) -> list[_Part]:
    record, found = stage.record, []
    for route in stage.program.routes:
        heard = record.heard(place, node, step, route)
        if heard is not None:
            request = heard.request or b""
            whole = heard.asked in (None, _digest(request))
            body = request if whole else str(heard.asked).encode()
            found.append(_Part(heard.intent.seq, (place, node, step, "request", 0), body, whole))
    for task in record.tasks[(place, node, step)]:
        for event in record.by_task[task]:
            call = str(event.data.get("call"))
            if event.kind == "proposed" and call.startswith("tool:"):
                key = (place, node, step, f"call {call}", 0)
                found = [part for part in found if part.key != key]
                found.append(
                    _Part(event.seq, key, stage.proposal(str(event.data.get("tool")), _raw(record, event.data)))
                )
    return found


def _raw(record: Record, data: Mapping[str, Any]) -> str:
    return (record.blob(data.get("arguments_blob")) or b"").decode()


def _difference(part: _Part, recorded: bytes, live: bytes | None) -> Difference:
    _, node, step, what, _ = part.key
    if live is None:
        return Difference(part.seq, node, step, what, _text(recorded), "")
    at = next(
        (i for i, (a, b) in enumerate(zip(recorded, live, strict=False)) if a != b), min(len(recorded), len(live))
    )
    start = max(0, at - _SHOWN // 2)
    return Difference(
        part.seq, node, step, what, _text(recorded[start : at + _SHOWN]), _text(live[start : at + _SHOWN])
    )


def _text(body: bytes) -> str:
    return body[: 2 * _SHOWN].decode(errors="replace")


def _digest(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()
