"""Fatigue: how people answer gates: how fast, how often yes, and whether they notice what must be denied.

In:   a store, since when. Out: facts per person and per run.
May import: store (port), records. Must not know: how it is shown, what follows from it.
Why at all: an approver who says yes to everything in two seconds is no gate. It shows only in numbers.
"""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from midwatch.records.gate import GateAnswer, GateRow
from midwatch.store.port import Store, Tx

__all__ = ["Fatigue", "PersonFacts", "fatigue"]

_MANY: Final = 20
_FAST_US: Final = 5_000_000
_MOST: Final = 100_000


@dataclass(frozen=True, slots=True)
class PersonFacts:
    """How one person answers.

    Attributes:
        answers: words given; yes: how many of them were yes. median_us, p90_us: from asking to word, microseconds.
        canaries, missed: made-up questions answered, and how many of these with yes as they were; who put other arguments in
            their place has read them.
        tired: looks like waving through: many answers, nearly all yes, half of them within five seconds; or a canary missed.
    """

    name: str
    answers: int
    yes: int
    median_us: int
    p90_us: int
    canaries: int
    missed: int
    broken_glasses: int
    tired: bool


@dataclass(frozen=True, slots=True)
class Fatigue:
    """Everybody's facts, how many answers each run took, most first (run id, answers), and how many questions wait now."""

    people: tuple[PersonFacts, ...]
    runs: tuple[tuple[str, int], ...]
    waiting: int


def fatigue(store: Store, *, since_us: int) -> Fatigue:
    """Measure every answer from `since_us` on."""

    def work(tx: Tx) -> tuple[Sequence[tuple[GateRow, GateAnswer]], int]:
        waiting = len(tx.gates.list(statuses=("open",), limit=_MOST))
        return tx.gates.history(since_us=since_us, limit=_MOST), waiting

    history, waiting = store.read(work)
    people: dict[str, list[tuple[GateRow, GateAnswer]]] = defaultdict(list)
    runs: dict[str, int] = defaultdict(int)
    for gate, word in history:
        people[word.by].append((gate, word))
        if gate.kind != "canary":
            runs[gate.run] += 1
    ordered = sorted(runs.items(), key=lambda item: (-item[1], item[0]))
    facts = tuple(_person(name, words) for name, words in sorted(people.items()))
    return Fatigue(facts, tuple(ordered), waiting)


def _person(name: str, words: list[tuple[GateRow, GateAnswer]]) -> PersonFacts:
    # A word to an earlier asking was given before the row's own opening; it has no time to measure any more.
    times = sorted(word.at_us - gate.opened_us for gate, word in words if word.nonce == gate.nonce)
    real = [word for gate, word in words if gate.kind != "canary"]
    canaries = [(gate, word) for gate, word in words if gate.kind == "canary"]
    yes = sum(word.word == "approve" for word in real)
    passed = [(gate, word) for gate, word in canaries if word.word == "approve"]
    missed = sum(gate.edited_by is None or word.nonce != gate.nonce for gate, word in passed)
    median = int(statistics.median(times or [0]))
    waved = min(len(real), len(times)) >= _MANY and yes >= 0.95 * len(real) and median < _FAST_US
    return PersonFacts(
        name=name,
        answers=len(words),
        yes=yes + len(passed),
        median_us=median,
        p90_us=times[min(len(times) - 1, int(len(times) * 0.9))] if times else 0,
        canaries=len(canaries),
        missed=missed,
        broken_glasses=sum(word.break_glass for word in real),
        tired=waved or missed > 0,
    )
