"""Simulate: a recorded verdict beside the one that another fleet gives to the same call; nothing is run.

In:   what was recorded of a call, and how it is ruled under what it was recorded with and under what is changed. Out: `Compared`.
May import: `verdict`, `trial` (words), records. Must not know: the ledger, how a call's labels are found again.

A verdict that cannot be found again under the very fleet that it was recorded with is not compared: what then differs may be the replay.
It is counted and named instead, never taken for a call that stays as it was.
Source: CONTAINMENT.md, clauses 18-22; issue of policies that are changed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from midwatch.containment.explain import Lack
from midwatch.containment.trial import word_of
from midwatch.containment.verdict import Ruling

__all__ = ["Call", "Compared", "Simulation", "compare", "of", "unclear"]

Word = Literal["allowed", "ask", "denied"]


@dataclass(frozen=True, slots=True)
class Call:
    """A call of the ledger.

    Attributes:
        decided: event that records the verdict. word: what containment and grants said then, whether or not the fleet enforced it.
    """

    run: str
    decided: int
    agent: str
    tool: str
    word: str


@dataclass(frozen=True, slots=True)
class Compared:
    """One call under both fleets.

    Attributes:
        now: the verdict under the changed fleet; None: it cannot be told. why: then the reason, else that of the verdict.
        chain: what lacks reach under the changed fleet.
    """

    call: Call
    now: str | None
    why: str = ""
    by: str = ""
    chain: tuple[Lack, ...] = ()

    @property
    def differs(self) -> bool:
        """Say whether the changed fleet says something else."""
        return self.now is not None and self.now != self.call.word

    def to_json(self) -> dict[str, Any]:
        """Give the JSON object that is shown."""
        call = self.call
        return {
            "run": call.run,
            "event": call.decided,
            "agent": call.agent,
            "tool": call.tool,
            "was": call.word,
            "now": self.now,
            "by": self.by or None,
            "reason": self.why or None,
            "chain": [lack.to_json() for lack in self.chain],
        }


@dataclass(frozen=True, slots=True)
class Simulation:
    """What came of it: how many calls were judged, those that differ, and those that nobody can judge again."""

    runs: int
    judged: int
    differing: tuple[Compared, ...]
    unclear: tuple[Compared, ...]


def compare(call: Call, before: Ruling, after: Ruling) -> Compared:
    """Compare a recorded verdict with that of a changed fleet."""
    again = word_of(before)
    if again != call.word:
        return unclear(
            call, f"under its own fleet it was {call.word} then and is {again} now, so what it rested on is not here"
        )
    verdict = after.verdict
    return Compared(call, word_of(after), getattr(verdict, "reason", ""), verdict.by, after.chain)


def unclear(call: Call, why: str) -> Compared:
    """Say that a call cannot be judged again."""
    return Compared(call, None, why)


def of(runs: int, compared: Sequence[Compared]) -> Simulation:
    """Put together what was compared."""
    known = [each for each in compared if each.now is not None]
    return Simulation(
        runs,
        len(known),
        tuple(each for each in known if each.differs),
        tuple(each for each in compared if each.now is None),
    )
