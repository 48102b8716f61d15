"""Signals: how often what models wrote for a tool had to be recovered or refused, by the tool's version and by model.

In:   a store, at most one run, bounds. Out: `Signals`, from the ledger alone: no fleet file, no tools.
May import: records, store (port). Must not know: how it is shown, what recovery does.
Why by digest: a tool's schema is what models stumble over, and each version of it has a rate of its own. Why refusals count too: text
that could not be recovered is the same fault, only worse; a rate of recoveries alone would fall as it grows.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import orjson

from midwatch.records.event import Event
from midwatch.store.port import Store, Tx

__all__ = ["ModelRow", "Signals", "ToolRow", "signals"]

_PAGE: Final = 1000
_KINDS: Final = ("proposed", "decided", "intent", "finished", "signal")
_UNKNOWN: Final = "unknown"


@dataclass(frozen=True, slots=True)
class ToolRow:
    """One version of a tool, as one model called it.

    Attributes:
        digest: of the contract; `unknown` where no call of the tool got as far as to say.
        calls: what was carried out, and what was refused because of its arguments. recovered: of these, read out of prose or mended.
        refused: of these, refused because of their arguments; one that was recovered first counts in both.
        faults: calls that were either. permille: faults of a thousand calls.
        rules: which recovery, how often. arguments: what broke the schema (`ARGUMENT: RULE`, or `(all): RULE`), how often; most first.
        alarm: more than the share that was asked for, of enough calls.
    """

    tool: str
    digest: str
    model: str
    calls: int
    recovered: int
    refused: int
    faults: int
    permille: int
    rules: tuple[tuple[str, int], ...]
    arguments: tuple[tuple[str, int], ...]
    alarm: bool


@dataclass(frozen=True, slots=True)
class ModelRow:
    """One model over one route: its answers, and the signals about answers as a whole (`WHERE: RULE`, how often); most first."""

    model: str
    route: str
    answers: int
    signals: int
    rules: tuple[tuple[str, int], ...]


@dataclass(frozen=True, slots=True)
class Signals:
    """All rows, worst first, and how many of the tools' are over the threshold."""

    tools: tuple[ToolRow, ...]
    models: tuple[ModelRow, ...]
    alarms: int


@dataclass(slots=True)
class _Count:
    calls: int = 0
    recovered: int = 0
    refused: int = 0
    faults: int = 0
    rules: Counter[str] = field(default_factory=Counter)
    arguments: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True, slots=True)
class _Refusal:
    tool: str
    model: str
    digest: str
    arguments: tuple[str, ...]


def signals(store: Store, *, run: str | None, over_permille: int, least: int) -> Signals:
    """Count over the whole ledger, or over one run.

    Args:
        over_permille: faults of a thousand calls that are still no alarm. least: calls below which nothing is an alarm.
    """
    tally = _Tally(run)
    more = True
    while more:
        more = store.read(tally.page)
    return tally.told(over_permille, least)


class _Tally:
    """What was counted so far."""

    def __init__(self, run: str | None) -> None:
        self._run = run
        self._after = 0
        self._tools: dict[tuple[str, str, str], _Count] = {}
        self._models: dict[tuple[str, str], _Count] = {}
        self._asked: dict[int, str] = {}
        self._refused: dict[int, _Refusal] = {}
        self._newest: dict[str, str] = {}

    def page(self, tx: Tx) -> bool:
        """Count the next page of the ledger; says whether there was one."""
        events = tx.ledger.read(run=self._run, after=self._after, limit=_PAGE, kinds=_KINDS)
        for event in events:
            self._count(tx, event)
            self._after = event.seq
        return bool(events)

    def _count(self, tx: Tx, event: Event) -> None:
        data = event.data
        self._asked[event.seq] = next((self._asked[seq] for seq in event.causes if seq in self._asked), _UNKNOWN)
        if event.kind == "intent" and "tool_digest" in data:
            self._newest[data["tool"]] = data["tool_digest"]
            if data.get("attempt", 1) == 1:
                self._row(data["tool"], data["tool_digest"], self._asked[event.seq]).calls += 1
        elif event.kind == "finished" and "usage" in data:
            self._asked[event.seq] = str(data["model"])
            self._models.setdefault((str(data["model"]), str(data.get("route", ""))), _Count()).calls += 1
        elif event.kind == "finished" and data.get("code") == "invalid_arguments" and "effect" not in data:
            name = str(data.get("tool", ""))
            known = self._newest.get(name, _UNKNOWN)
            self._refused[event.seq] = _Refusal(name, self._asked[event.seq], known, tuple(_at_fault(tx, data)))
        elif event.kind == "signal":
            self._signal(event, data)

    def _signal(self, event: Event, data: Mapping[str, Any]) -> None:
        rule = str(data.get("rule", _UNKNOWN))
        if "tool_digest" not in data:
            row = self._models.setdefault((str(data.get("model", _UNKNOWN)), str(data.get("route", ""))), _Count())
            row.recovered += 1
            row.rules[f"{data.get('where', 'answer')}: {rule}"] += 1
            return
        tool, digest = str(data["tool"]), str(data["tool_digest"])
        self._newest[tool] = digest
        row = self._row(tool, digest, self._asked[event.seq])
        row.recovered += 1
        row.faults += 1
        row.rules[rule] += 1
        refusal = next((self._refused.pop(seq) for seq in event.causes if seq in self._refused), None)
        if refusal is not None:
            row.calls += 1
            row.refused += 1
            row.arguments.update(refusal.arguments)

    def _row(self, tool: str, digest: str, model: str) -> _Count:
        return self._tools.setdefault((tool, digest, model), _Count())

    def told(self, over_permille: int, least: int) -> Signals:
        """Give what was counted. A refusal without a signal counts for the version of the tool that was known at its time."""
        for refusal in self._refused.values():
            row = self._row(refusal.tool, refusal.digest, refusal.model)
            row.calls += 1
            row.refused += 1
            row.faults += 1
            row.arguments.update(refusal.arguments)
        self._refused.clear()
        tools = [_tool(key, row, over_permille, least) for key, row in self._tools.items()]
        tools.sort(key=lambda row: (not row.alarm, -row.permille, row.tool, row.digest, row.model))
        models = [
            ModelRow(model, route, row.calls, row.recovered, _most(row.rules))
            for (model, route), row in sorted(self._models.items())
        ]
        return Signals(tuple(tools), tuple(models), sum(row.alarm for row in tools))


def _tool(key: tuple[str, str, str], row: _Count, over_permille: int, least: int) -> ToolRow:
    # A call that began before the part of the ledger that is read has its signal here and its intent not.
    calls = max(row.calls, row.faults)
    permille = row.faults * 1000 // calls if calls else 0
    alarm = calls >= least and row.faults * 1000 > over_permille * calls
    return ToolRow(
        *key, calls, row.recovered, row.refused, row.faults, permille, _most(row.rules), _most(row.arguments), alarm
    )


def _most(counted: Counter[str]) -> tuple[tuple[str, int], ...]:
    return tuple(sorted(counted.items(), key=lambda item: (-item[1], item[0])))


def _at_fault(tx: Tx, data: Mapping[str, Any]) -> Iterator[str]:
    body = tx.blobs.get(str(data.get("result_blob", "")))
    error = orjson.loads(body).get("error") if body is not None else None
    for each in (error or {}).get("field_errors", ()):
        yield f"{each.get('path') or '(all)'}: {each.get('rule', _UNKNOWN)}"
