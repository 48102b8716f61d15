"""Random kills of runs with gates: a worker dies wherever chance says, people answer twice and contrarily, and all is audited.

In:   how many kills, a seed. Out: a report in numbers, and every promise that was broken, in words.
Used by `test_engine_campaign` with a few kills, and by `python -m bench.kills` with five hundred.
"""

from __future__ import annotations

import json
import random
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from midwatch.engine.control import Word
from midwatch.errors import GateNotUsable
from midwatch.records.effect import EffectRow
from tests.crash.harness import Case, Harness, Plan
from tests.crash.zygote import PLACES

__all__ = ["PLAN", "Report", "campaign"]

PLAN: Final[Plan] = [
    [("pay", "a"), ("drop", "x"), ("drop", "y")],
    [("post", "b")],
    [("drop", "z"), ("pay", "c"), ("drop", "w")],
]
"""Keyed and plain calls beside gated ones, in one answer and one after the other."""

_OFTEN: Final = {
    "row.event": 60,
    "store.commit": 60,
    "store.write": 60,
    "row.begin": 12,
    "row.finish": 10,
    "row.settle": 12,
}
"""Places that a segment passes many times; everywhere else a small number is drawn."""
_KILLS_A_CASE: Final = 6


@dataclass(slots=True)
class Report:
    """What a campaign found.

    Attributes:
        kills: workers that died by SIGKILL. refused: second, contrary answers that were refused, as all must be.
        taken: those that were not. lost: yeses whose action did not happen. wrong: actions that nobody approved.
        repeated: items that happened more often than a person allowed. broken: everything else that an audit found.
        told: one line for each of these, with the case's journal. places: kills by place.
    """

    cases: int = 0
    kills: int = 0
    answers: int = 0
    refused: int = 0
    taken: int = 0
    lost: int = 0
    wrong: int = 0
    repeated: int = 0
    in_doubt: int = 0
    broken: list[str] = field(default_factory=list)
    told: list[str] = field(default_factory=list)
    places: Counter[str] = field(default_factory=Counter)

    @property
    def clean(self) -> bool:
        """Say whether every promise held."""
        return not (self.taken or self.lost or self.wrong or self.repeated or self.broken)


def campaign(folder: Path, *, kills: int, seed: int) -> Report:
    """Run cases until so many workers died."""
    chance, report = random.Random(seed), Report()
    with Harness(folder, PLAN) as harness:
        while report.kills < kills:
            _case(harness.case(f"case-{report.cases}"), chance, report)
            report.cases += 1
    return report


def _case(case: Case, chance: random.Random, report: Report) -> None:
    decided: dict[str, bool] = {}

    def answer(case: Case, gate: str) -> None:
        item = _item(case, gate)
        yes = decided.setdefault(item, chance.random() < 0.6)
        case.answer(gate, approve=yes)
        report.answers += 1
        try:
            case.answer(gate, approve=not yes, by="bob")
            report.taken += 1
        except GateNotUsable:
            report.refused += 1

    for _ in range(_KILLS_A_CASE):
        name = chance.choice(sorted(PLACES))
        point = f"{chance.choice(('before', 'after'))} {name}"
        before = case.kills
        outcome = case.segment(point, number=chance.randint(1, _OFTEN.get(name, 4)))
        if case.kills > before:
            report.kills += 1
            report.places[name] += 1
        if outcome.status == "done":
            break
        if outcome.result is not None and outcome.status == "waiting":
            waiting = list(outcome.result["gates"])
            chance.shuffle(waiting)
            for gate in waiting[: chance.randint(0, len(waiting))]:
                answer(case, gate)
            for effect in outcome.result["in_doubt"]:
                _resolve(case, effect, report)
    if case.last is None or case.last.status != "done":
        case.until_done(on_gate=answer, on_doubt=lambda case, row: _look(case, row, report))
    _judge(case, decided, report)


def _item(case: Case, gate: str) -> str:
    with case.store() as store:
        row = store.read(lambda tx: tx.gates.get(gate))
        body = store.read(lambda tx: tx.blobs.get(row.arguments))
    return str(json.loads(body)["item"])


def _resolve(case: Case, effect: str, report: Report) -> None:
    with case.store() as store:
        row = store.read(lambda tx: tx.effects.get(effect))
    case.resolve(effect, _look(case, row, report))


def _look(case: Case, row: EffectRow, report: Report) -> Word:
    report.in_doubt += 1
    return case.looked(row)


def _judge(case: Case, decided: dict[str, bool], report: Report) -> None:
    """Compare what happened outside with what people said."""
    before = (report.lost, report.wrong, report.repeated)
    report.broken += [f"{case.name}: {line}" for line in case.audit()]
    happened = Counter(call["body"] for call in case.calls("keyed", "plain") if call["first"])
    allowed = Counter({row.id: 1 + case.retried[row.id] for row in case.effects()})
    by_item = {item: allowed[key] for key, item in _items(case).items()}
    for item, yes in decided.items():
        report.lost += yes and not happened[item]
        report.wrong += (not yes) and happened[item] > 0
    report.repeated += sum(times > by_item.get(item, 1) for item, times in happened.items())
    report.lost += sum(not happened[item] for item in ("a", "b", "c"))
    if (report.lost, report.wrong, report.repeated) != before:
        report.told.append(f"{case.name}: decided {decided}, happened {dict(happened)}; {_course(case)}")


def _course(case: Case) -> str:
    """Tell what the journal and the ledger say, for whoever looks into it."""
    rows = [f"{row.tool} {row.status} attempt {row.attempt} {row.id}" for row in case.effects()]
    kinds = (
        "decided",
        "gate.opened",
        "gate.answered",
        "gate.used",
        "effect.resolved",
        "handoff",
        "handoff.refused",
        "finished",
    )
    events = [
        f"{event.seq} {event.kind} {event.data.get('gate') or event.data.get('effect') or event.data.get('call', '')} "
        f"{event.data.get('code') or event.data.get('status') or event.data.get('approved', '')}"
        for event in case.events(*kinds)
    ]
    return "; ".join([*rows, *events])


def _items(case: Case) -> dict[str, str]:
    """Effect id -> the item that it was about."""
    found = {}
    with case.store() as store:
        for row in case.effects():
            body = store.read(lambda tx, row=row: tx.blobs.get(row.arguments))
            found[row.id] = str(json.loads(body)["item"])
    return found
