"""Novelty: how surprising something is that an agent never did before, by its own record of doing new things.

In:   things by name. Out: bits of surprise.
May import: the standard library. Must not know: whether the things are hosts, paths or pairs of tools.

The chance that the next thing is new is the share of things that were seen exactly once: an agent that meets a new host every day is
not surprising with another one, one that has called three hosts ten thousand times is. The state is bounded; what was seen least goes.
Source: Good 1953 (the frequencies of species; the estimate is Turing's).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

__all__ = ["Seen"]

_MOST: Final = 1024
_DULL: Final = 1 << 20


@dataclass(slots=True)
class Seen:
    """What was seen, and how often.

    Attributes:
        total: observations. once: how many things were seen exactly once, also those that were dropped since.
    """

    counts: dict[str, int] = field(default_factory=dict)
    total: int = 0
    once: int = 0

    def bits(self, thing: str) -> float:
        """Give the surprise of meeting this next: 0 for what is known."""
        if thing in self.counts:
            return 0.0
        return max(0.0, math.log2((self.total + 1) / (self.once + 1)))

    def add(self, thing: str, *, said: bool = False) -> None:
        """Learn. What was `said` to somebody counts as known, so that many surprises do not make the next one dull."""
        before = self.counts.get(thing, 0)
        self.counts[thing] = min(before + (2 if said and not before else 1), _DULL)
        self.total += 1
        if before == 0 and not said:
            self.once += 1
        elif before == 1:
            self.once -= 1
        if len(self.counts) > _MOST:
            kept = sorted(self.counts.items(), key=lambda item: -item[1])[: _MOST * 3 // 4]
            self.counts = dict(kept)

    def calm(self, thing: str) -> None:
        """Take a thing for known that somebody was told of after it was learned."""
        if self.counts.get(thing) == 1:
            self.counts[thing] = 2
            self.once -= 1

    def to_json(self) -> list[Any]:
        """Give the state."""
        return [self.total, self.once, self.counts]

    @classmethod
    def from_json(cls, state: Sequence[Any]) -> Seen:
        """Read what `to_json` gave."""
        return cls({str(key): int(count) for key, count in state[2].items()}, int(state[0]), int(state[1]))
