"""Facts: the shapes that questions about a run are answered in.

In:   nothing. Out: plain values; `as_json` makes JSON of any of them.
May import: records and the standard library. Must not know: where the answers come from, how they are shown.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from midwatch.records.spend import Account

__all__ = [
    "ModelItem",
    "NodePart",
    "NoteItem",
    "Place",
    "Share",
    "Spend",
    "ToolItem",
    "Trace",
    "Which",
    "as_json",
]


@dataclass(slots=True)
class ToolItem:
    """One proposed tool call and what became of it.

    Attributes:
        seq: of its first event. verdicts: `{stage, outcome, …}` of the newest decision, in order.
        effect: id in the journal, or None when nothing was begun. attempt: of the newest intent, 0 without one.
        ok: None while it is open or waits. arguments, result: blob digests. detail: what was said besides the result: a crash's text,
            a program's error output.
        notes: signals and gates that belong to it, as `(seq, kind, data)`.
    """

    seq: int
    call: str
    tool: str
    verdicts: tuple[Mapping[str, Any], ...] = ()
    effect: str | None = None
    attempt: int = 0
    ok: bool | None = None
    code: str | None = None
    ms: int | None = None
    arguments: str | None = None
    result: str | None = None
    detail: str = ""
    truncated: bool = False
    notes: list[NoteItem] = field(default_factory=list)
    item: Literal["tool"] = "tool"

    @property
    def denied_by(self) -> Mapping[str, Any] | None:
        """Give the verdict that ended the call before anything began, or None."""
        return next((mark for mark in self.verdicts if mark.get("outcome") in ("deny", "stop")), None)


@dataclass(slots=True)
class ModelItem:
    """One attempt of a model call. Tokens whole; `cost` in micro-dollars; `request`, `result` blob digests; `detail` as a tool's."""

    seq: int
    effect: str
    model: str
    route: str
    attempt: int
    request: str | None
    ok: bool | None = None
    code: str | None = None
    finish: str | None = None
    input: int = 0
    cached: int = 0
    output: int = 0
    cost: int = 0
    ms: int | None = None
    result: str | None = None
    detail: str = ""
    notes: list[NoteItem] = field(default_factory=list)
    item: Literal["model"] = "model"


@dataclass(frozen=True, slots=True)
class NoteItem:
    """An event that is told as it is: a signal, a gate, a plan, a handoff, a person's word."""

    seq: int
    kind: str
    data: Mapping[str, Any]
    item: Literal["note"] = "note"


@dataclass(slots=True)
class NodePart:
    """One task of one node, from its first start; `status` as the newest of its events says."""

    node: str
    agent: str | None
    task: str | None
    step: int | None
    seq: int
    status: str
    started_us: int
    ended_us: int | None = None
    items: list[ToolItem | ModelItem | NoteItem] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Trace:
    """A run as a tree: what concerns the whole run, then its node tasks in the order they began."""

    run: str
    fleet: str
    status: str
    notes: tuple[NoteItem, ...]
    nodes: tuple[NodePart, ...]


@dataclass(frozen=True, slots=True)
class Place:
    """Where a text stands: `what` is `answer`, `tool call` or `tool result`; `name` the model or the tool."""

    what: Literal["answer", "tool call", "tool result"]
    seq: int
    node: str | None
    agent: str | None
    step: int | None
    name: str
    effect: str | None


@dataclass(frozen=True, slots=True)
class Which:
    """Where a fragment of output comes from.

    Attributes:
        place: the newest answer that holds it; else the newest tool call; else the newest tool result.
        model, route, effect, finish, usage, cost: of the model call that answered, or that asked for that tool call.
        request: what that model was sent (`ChatRequest.to_json()`); `request_blob` its digest.
        answer: that model's text.
        seen: every place that holds the text, oldest first; the first one is where it came from.
    """

    run: str
    text: str
    place: Place
    model: str | None
    route: str | None
    effect: str | None
    seq: int | None
    finish: str | None
    usage: Mapping[str, int] | None
    cost: int | None
    request_blob: str | None
    request: Mapping[str, Any] | None
    answer: str | None
    seen: tuple[Place, ...]


@dataclass(frozen=True, slots=True)
class Share:
    """What one agent, or one model, used: micro-dollars and whole numbers."""

    name: str
    cost: int
    tokens: int
    model_calls: int
    tool_calls: int


@dataclass(frozen=True, slots=True)
class Spend:
    """What a run has used so far, who used it, and how far its accounts are from their caps."""

    run: str
    cost: int
    tokens: int
    tool_calls: int
    steps: int
    working_us: int
    agents: tuple[Share, ...]
    models: tuple[Share, ...]
    accounts: tuple[Account, ...]


def as_json(value: object) -> Any:
    """Make plain JSON values of any value of this module."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {item.name: as_json(getattr(value, item.name)) for item in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): as_json(child) for key, child in value.items()}
    if isinstance(value, list | tuple):
        return [as_json(child) for child in value]
    return value
