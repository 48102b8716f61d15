"""Queries: a run's events as a tree, a fragment of output back to its model call, what was spent where; causes from `causes`.

In:   a store, a full run id. Out: values of `tracing.facts`.
May import: store (port), records, errors. Must not know: the engine, how an answer is shown.
Why by causes: which verdict, intent and result belong to one proposal is told by `causes`, never by
order; branches interleave.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import orjson

from midwatch.errors import NotFound, UsageProblem
from midwatch.records.event import Event
from midwatch.records.gate import GateRow
from midwatch.records.run import RunRow
from midwatch.store.port import Store, Tx
from midwatch.tracing.causes import blast, why
from midwatch.tracing.facts import ModelItem, NodePart, NoteItem, Place, Share, Spend, ToolItem, Trace, Which
from midwatch.tracing.paging import events_of

__all__ = ["blast", "events", "gates", "spend", "trace", "which", "why"]


def events(store: Store, run: str) -> tuple[Event, ...]:
    """Read all events of a run in order, on one snapshot. NotFound: no such run."""
    return store.read(lambda tx: (_row(tx, run), tuple(events_of(tx, run)))[1])


def trace(store: Store, run: str) -> Trace:
    """Read a run as a tree of node tasks with their proposals. NotFound: no such run."""

    def work(tx: Tx) -> Trace:
        row = _row(tx, run)
        grower = _Grower(lambda digest: (tx.blobs.get(digest) or b"").decode("utf-8", "replace"))
        for event in events_of(tx, run):
            grower.add(event)
        return Trace(run, row.fleet, row.status, tuple(grower.notes), tuple(grower.nodes.values()))

    return store.read(work)


def which(store: Store, run: str, text: str) -> Which:
    """Go from a fragment of output back to the model call that wrote it, and to the tool results it came from.

    Args:
        text: a fragment as shown; runs of blanks and line breaks count as one blank.

    Raises:
        UsageProblem: `text` is blank. NotFound: no such run, or nothing in it holds the text.
    """
    needle = _Needle(text)

    def work(tx: Tx) -> Which:
        _row(tx, run)
        found = list(events_of(tx, run))
        by_seq = {event.seq: event for event in found}
        seen = tuple(place for event in found for place in _places(tx, event, needle))
        if not seen:
            raise NotFound(f"nothing in run `{run[:7]}` holds that text; give a shorter fragment, as it was written")
        place = next(
            item for what in ("answer", "tool call", "tool result") for item in reversed(seen) if item.what == what
        )
        call = by_seq[place.seq] if place.what != "tool result" else _asked_by(by_seq[place.seq], by_seq)
        return _told(tx, run, text, place, call, by_seq, seen)

    return store.read(work)


def spend(store: Store, run: str) -> Spend:
    """Read what a run has used, by agent and by model, and its accounts with their caps. NotFound: no such run."""

    def work(tx: Tx) -> Spend:
        row = _row(tx, run)
        found = list(events_of(tx, run, kinds=("intent", "finished")))
        models = {event.seq: str(event.data["model"]) for event in found if _is_model_intent(event)}
        done = [event for event in found if event.kind == "finished"]
        accounts = (*tx.budgets.accounts((f"run:{run}",)), *tx.budgets.accounts(prefix=f"agent:{run}/"))
        return Spend(
            run=run,
            cost=row.cost,
            tokens=row.tokens,
            tool_calls=row.tool_calls,
            steps=row.steps,
            working_us=row.working_us,
            agents=_shares(done, lambda event: event.agent),
            models=_shares(done, lambda event: models.get(event.causes[0]) if event.causes else None),
            accounts=accounts,
        )

    return store.read(work)


class _Grower:
    """Grows the tree, one event at a time; `_owner` says which item each event number belongs to."""

    def __init__(self, read: Callable[[str], str]) -> None:
        self._read = read
        self.notes: list[NoteItem] = []
        self.nodes: dict[str, NodePart] = {}
        self._owner: dict[int, ToolItem | ModelItem] = {}
        self._open: dict[tuple[str | None, str], ToolItem] = {}

    def add(self, event: Event) -> None:
        """Put one event in its place; an event of a kind unknown here is kept as a note."""
        if event.kind.startswith("node."):
            self._node(event).status = event.kind.removeprefix("node.")
            if event.kind != "node.started":
                self._node(event).ended_us = event.at_us
        elif event.kind == "proposed":
            self._owner[event.seq] = self._proposed(event)
        elif event.kind == "intent" and _is_model_intent(event):
            self._owner[event.seq] = self._asked(event)
        else:
            self._follow(event)

    def _node(self, event: Event) -> NodePart:
        key = event.task or event.node or ""
        part = self.nodes.get(key)
        if part is None:
            name = event.node or event.agent or "run"
            part = NodePart(name, event.agent, event.task, event.step, event.seq, "started", event.at_us)
            self.nodes[key] = part
        return part

    def _proposed(self, event: Event) -> ToolItem:
        """A call that waited for a person is proposed again on resume: the same place, so the same item."""
        key = (event.task, str(event.data["call"]))
        item = self._open.get(key)
        if item is None or item.ok is not None:
            item = ToolItem(event.seq, key[1], str(event.data["tool"]), arguments=event.data.get("arguments_blob"))
            self._open[key] = item
            self._node(event).items.append(item)
        return item

    def _asked(self, event: Event) -> ModelItem:
        data = event.data
        item = ModelItem(
            event.seq,
            str(data["effect"]),
            str(data["model"]),
            str(data.get("route", "")),
            int(data.get("attempt", 1)),
            data.get("request_blob"),
        )
        self._node(event).items.append(item)
        return item

    def _follow(self, event: Event) -> None:
        item = next((self._owner[cause] for cause in event.causes if cause in self._owner), None)
        own = event.kind in ("decided", "intent", "finished", "effect.resolved") and "undoes" not in event.data
        if item is not None and own:
            self._owner[event.seq] = item
            _note_tool(item, event) if isinstance(item, ToolItem) else _note_model(item, event)
            if event.kind == "finished":
                digest = event.data.get("detail_blob")
                item.detail = self._read(digest) if digest else ""
            if event.kind != "effect.resolved":
                return
        note = NoteItem(event.seq, event.kind, event.data)
        if item is not None and event.kind not in ("plan", "handoff", "handoff.refused"):
            self._owner[event.seq] = item
            item.notes.append(note)
        elif event.node is not None or event.task is not None:
            self._node(event).items.append(note)
        else:
            self.notes.append(note)


def _note_tool(item: ToolItem, event: Event) -> None:
    data = event.data
    if event.kind == "decided":
        item.verdicts = tuple(data["stages"])
    elif event.kind == "intent":
        item.effect, item.attempt = data.get("effect"), int(data.get("attempt", 1))
        item.arguments = data.get("arguments_blob", item.arguments)
    elif event.kind == "finished":
        item.ok, item.code, item.ms = data["ok"], data.get("code"), data.get("ms")
        item.result, item.truncated = data.get("result_blob"), bool(data.get("truncated"))


def _note_model(item: ModelItem, event: Event) -> None:
    if event.kind != "finished":
        return
    data, usage = event.data, event.data.get("usage") or {}
    item.ok, item.code, item.finish, item.ms = data["ok"], data.get("code"), data.get("finish"), data.get("ms")
    item.input, item.cached, item.output = (int(usage.get(key, 0)) for key in ("input", "cached", "output"))
    item.cost, item.result = int(data.get("cost", 0)), data.get("result_blob")


class _Needle:
    """A text to look for, as shown and as JSON writes it; blanks are folded on both sides."""

    def __init__(self, text: str) -> None:
        plain = _folded(text)
        if not plain:
            raise UsageProblem("the text to look for is blank; give a fragment of the output")
        written = (json.dumps(form, ensure_ascii=flag)[1:-1] for form in (text, plain) for flag in (True, False))
        self._forms = {plain, *(_folded(form) for form in written)}

    def in_text(self, text: str) -> bool:
        """Say whether `text` holds it, also where `text` is JSON and a string inside it does."""
        if any(form in _folded(text) for form in self._forms):
            return True
        try:
            return self.in_value(orjson.loads(text)) if text.lstrip()[:1] in ("{", "[", '"') else False
        except orjson.JSONDecodeError:
            return False

    def in_value(self, value: Any) -> bool:
        """Say whether any string inside a JSON value holds it."""
        if isinstance(value, str):
            return any(form in _folded(value) for form in self._forms)
        if isinstance(value, dict):
            return any(self.in_value(child) for child in (*value, *value.values()))
        if isinstance(value, list):
            return any(self.in_value(child) for child in value)
        return value is not None and str(value) in self._forms


def _folded(text: str) -> str:
    return " ".join(text.split())


def _places(tx: Tx, event: Event, needle: _Needle) -> Iterator[Place]:
    body = _json_blob(tx, event.data.get("result_blob")) if event.kind == "finished" else None
    if body is None:
        return
    name = str(event.data.get("tool") or event.data.get("model") or "")
    effect = event.data.get("effect")
    if "tool" not in event.data:
        answered, calls = needle.in_text(str(body.get("content", ""))), body.get("tool_calls") or ()
        asked = next((call for call in calls if needle.in_text(call["arguments"])), None)
        if answered:
            yield Place("answer", event.seq, event.node, event.agent, event.step, name, effect)
        if asked is not None:
            yield Place("tool call", event.seq, event.node, event.agent, event.step, asked["name"], effect)
    elif needle.in_value(body.get("data")) or needle.in_value(body.get("error")):
        yield Place("tool result", event.seq, event.node, event.agent, event.step, name, effect)


def _asked_by(event: Event, by_seq: Mapping[int, Event]) -> Event | None:
    """Walk the causes of a tool result back to the model answer that asked for it."""
    queue, done = [*event.causes], set[int]()
    while queue:
        seq = queue.pop(0)
        cause = by_seq.get(seq)
        if cause is None or seq in done:
            continue
        done.add(seq)
        if cause.kind == "finished" and "tool" not in cause.data:
            return cause
        queue.extend(cause.causes)
    return None


def _told(
    tx: Tx, run: str, text: str, place: Place, call: Event | None, by_seq: Mapping[int, Event], seen: tuple[Place, ...]
) -> Which:
    data: Mapping[str, Any] = {} if call is None else call.data
    intents = () if call is None else (by_seq[cause] for cause in call.causes if cause in by_seq)
    blob = next((event.data["request_blob"] for event in intents if _is_model_intent(event)), None)
    answer = _json_blob(tx, data.get("result_blob"))
    return Which(
        run=run,
        text=text,
        place=place,
        model=data.get("model"),
        route=data.get("route"),
        effect=data.get("effect"),
        seq=None if call is None else call.seq,
        finish=data.get("finish"),
        usage=data.get("usage"),
        cost=data.get("cost"),
        request_blob=blob,
        request=_json_blob(tx, blob),
        answer=None if answer is None else str(answer.get("content", "")),
        seen=seen,
    )


def _shares(done: Sequence[Event], named: Callable[[Event], str | None]) -> tuple[Share, ...]:
    """Sum finished calls by a name; most expensive first. What was refused before it began does not count."""
    sums: dict[str, list[int]] = {}
    for event in done:
        name = named(event)
        if name is None or "effect" not in event.data:
            continue
        usage = event.data.get("usage") or {}
        tool = "tool" in event.data
        tokens = int(usage.get("input", 0)) + int(usage.get("output", 0))
        amounts = (int(event.data.get("cost", 0)), tokens, int(not tool), int(tool))
        sums[name] = [left + right for left, right in zip(sums.get(name, [0, 0, 0, 0]), amounts, strict=True)]
    shares = (Share(name, *amounts) for name, amounts in sums.items())
    return tuple(sorted(shares, key=lambda share: (-share.cost, -share.tokens, share.name)))


def _is_model_intent(event: Event) -> bool:
    return event.kind == "intent" and "request_blob" in event.data


def _json_blob(tx: Tx, digest: str | None) -> dict[str, Any] | None:
    body = None if digest is None else tx.blobs.get(digest)
    if body is None:
        return None
    value = orjson.loads(body)
    return value if isinstance(value, dict) else {"data": value}


def _row(tx: Tx, run: str) -> RunRow:
    row = tx.runs.get(run)
    if row is None:
        raise NotFound(f"no run `{run}` in this home; `midwatch runs ls` lists them")
    return row


def gates(store: Store, run: str) -> tuple[tuple[GateRow, Mapping[str, Any]], ...]:
    """Read the gates of a run with what a person is shown, oldest first."""

    def work(tx: Tx) -> tuple[tuple[GateRow, Mapping[str, Any]], ...]:
        return tuple((row, _json_blob(tx, row.card) or {}) for row in tx.gates.list(run=run))

    return store.read(work)
