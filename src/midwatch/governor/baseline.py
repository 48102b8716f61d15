"""Baseline: what is usual for one agent: spreads of amounts, by hour of day, and the course of its days.

In:   amounts as they come. Out: limits past which an amount is unusual, with the numbers behind them.
May import: the standard library. Must not know: events, policies, actions.

Amounts are many-sided and heavy-tailed, so they are kept as counts in bins of a quarter octave: median and MAD are read off them
exactly to a bin, no amount weighs more than one, and a state has a bounded size. Counts are halved when they are many, so that
what was long ago fades.

Why days have a memory of their own: an agent that grows slowly takes its own median with it. A day is compared with days of its kind
(weekday, weekend), excess is summed (CUSUM, each day bounded, so that one hard day cannot sound the alarm), and days under
suspicion are not learned from.
Source: Page 1954 (cumulative sums); Hampel 1974 (median absolute deviation).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

__all__ = ["Days", "Finding", "Season", "Spread", "amount", "place"]

_PER_OCTAVE: Final = 4
_MOST: Final = 600
"""Observations after which counts are halved."""
_MAD: Final = 1.4826
"""From the median absolute deviation to a standard deviation."""
_LEAST_SPREAD: Final = 0.5
"""Octaves. An agent that always does the same would else be held to the byte."""
_MANY: Final = 100
_SEASON_FROM: Final = 24
"""Observations of an hour before it is judged by its own."""


def place(value: int) -> int:
    """Give the bin of an amount."""
    return round(_PER_OCTAVE * math.log2(1 + value))


def amount(octaves: float) -> int:
    """Give the amount at so many octaves."""
    return max(0, round(math.exp2(min(octaves, 62.0))) - 1)


@dataclass(slots=True)
class Spread:
    """Amounts in bins.

    Attributes:
        seen: all observations ever, also those that faded.
        best: the largest bin ever seen; it fades with the counts.
    """

    bins: dict[int, int] = field(default_factory=dict)
    seen: int = 0

    def add(self, value: int) -> None:
        """Learn from one amount."""
        where = place(value)
        self.bins[where] = self.bins.get(where, 0) + 1
        self.seen += 1
        if sum(self.bins.values()) > _MOST:
            self.bins = {key: count // 2 for key, count in self.bins.items() if count > 1}

    @property
    def top(self) -> int:
        """The largest amount that is remembered."""
        return amount(max(self.bins) / _PER_OCTAVE) if self.bins else 0

    def middle(self) -> tuple[float, float]:
        """Give median and robust deviation, in octaves."""
        if not self.bins:
            return 0.0, _LEAST_SPREAD
        centre = _median(list(self.bins.items()))
        apart = _median([(abs(key - centre), count) for key, count in self.bins.items()])
        return centre / _PER_OCTAVE, max(_LEAST_SPREAD, _MAD * apart / _PER_OCTAVE)

    def to_json(self) -> list[Any]:
        """Give the state."""
        return [self.seen, [list(item) for item in sorted(self.bins.items())]]

    @classmethod
    def from_json(cls, state: Sequence[Any]) -> Spread:
        """Read what `to_json` gave."""
        return cls({int(key): int(count) for key, count in state[1]}, int(state[0]))


@dataclass(frozen=True, slots=True)
class Finding:
    """A limit and where it comes from.

    Attributes:
        over: amounts above it are unusual. median, top: amounts. spread, factor: octaves, and how many spreads are allowed.
        samples: what it rests on. hour: of the day, where it is of that hour only.
    """

    over: int
    median: int
    top: int
    spread: float
    factor: float
    samples: int
    hour: int | None = None

    def told(self) -> dict[str, int | None]:
        """Give whole numbers for the ledger."""
        spread = round(self.spread * 1000)
        return {
            "limit": self.over,
            "median": self.median,
            "largest": self.top,
            "spread_milli_octaves": spread,
            "allowed_milli_spreads": round(self.factor * 1000),
            "samples": self.samples,
            "hour": self.hour,
        }


@dataclass(slots=True)
class Season:
    """One amount per window: of all hours, and of each hour of the day (UTC)."""

    whole: Spread = field(default_factory=Spread)
    hours: dict[int, Spread] = field(default_factory=dict)

    def add(self, value: int, hour: int) -> None:
        """Learn from one window."""
        self.whole.add(value)
        self.hours.setdefault(hour, Spread()).add(value)

    def limits(self, hour: int, factor: float, least: int) -> tuple[Finding, Finding]:
        """Give the limit of this hour, and the one of any hour; an amount past both is unusual at any time."""
        whole = _limit(self.whole, factor, least, None)
        own = self.hours.get(hour)
        if own is None or sum(own.bins.values()) < _SEASON_FROM:
            return whole, whole
        return _limit(own, factor, least, hour), whole

    def to_json(self) -> list[Any]:
        """Give the state."""
        return [self.whole.to_json(), [[hour, item.to_json()] for hour, item in sorted(self.hours.items())]]

    @classmethod
    def from_json(cls, state: Sequence[Any]) -> Season:
        """Read what `to_json` gave."""
        return cls(Spread.from_json(state[0]), {int(hour): Spread.from_json(item) for hour, item in state[1]})


def limit(spread: Spread, factor: float, least: int) -> Finding:
    """Give the limit of a spread without hours."""
    return _limit(spread, factor, least, None)


def _limit(spread: Spread, factor: float, least: int, hour: int | None) -> Finding:
    centre, width = spread.middle()
    samples, beyond = sum(spread.bins.values()), amount(math.log2(1 + spread.top) + factor / 4)
    usual = amount(centre + factor * width)
    # Of few, the largest says little; of many, the spread of the middle says less of the tail than the tail itself.
    over = max(beyond, usual) if samples < _MANY else beyond
    return Finding(max(over, least), amount(centre), spread.top, width, factor, samples, hour)


_KEPT_DAYS: Final = 35
_FROM_DAYS: Final = 7
_STEP: Final = 1.0
"""Octaves that one day can add or take."""
_SUSPECT: Final = 1.0
_ANCHOR: Final = 1.3
"""Octaves by which the usual may move away from what it first was."""


@dataclass(slots=True)
class Days:
    """The course of one amount over days.

    Attributes:
        day: number of the open day, -1 before the first. total: of that day so far.
        past: `(weekend, sixteenths of octaves)` of closed days that were learned.
        held: the same, of days under suspicion.
        excess: the cumulative sum, octaves. anchor: the first median, octaves; None before there was one.
    """

    day: int = -1
    total: int = 0
    past: list[tuple[int, int]] = field(default_factory=list)
    held: list[tuple[int, int]] = field(default_factory=list)
    excess: float = 0.0
    anchor: float | None = None

    def add(self, value: int, day: int, height: float) -> tuple[str, dict[str, int]] | None:
        """Count; where a new day begins, judge the one that ended: words and numbers when it was one too many."""
        found = None
        if day > self.day:
            if self.day >= 0 and self.total:
                found = self._close(height)
            self.day, self.total = day, 0
        self.total += value
        return found

    def _close(self, height: float) -> tuple[str, dict[str, int]] | None:
        weekend = int((self.day + 3) % 7 >= 5)  # day 0 of the epoch was a Thursday
        level = math.log2(1 + self.total)
        same = [value for kind, value in self.past if kind == weekend]
        usual = same if len(same) >= 3 else [value for _, value in self.past]
        kept = (weekend, round(level * 16))
        if len(self.past) < _FROM_DAYS:
            self.past.append(kept)
            return None
        centre, width = _line(usual)
        if self.anchor is None:
            self.anchor = centre
        step = level - centre - 0.4 * width - 0.1
        self.excess = max(0.0, self.excess + max(-_STEP, min(_STEP, step)))
        (self.held if self.excess > _SUSPECT else self.past).append(kept)
        numbers = {
            "value": self.total,
            "median": amount(centre),
            "spread_milli_octaves": round(width * 1000),
            "excess_milli_octaves": round(self.excess * 1000),
            "allowed_milli_octaves": round(height * 1000),
            "samples": len(self.past),
        }
        if self.excess >= height:
            self._settle()
            return "more than usual for days", numbers
        if self.excess == 0.0:
            self._settle()
        away = _line([value for _, value in self.past[-14:]])[0] - self.anchor
        if away > _ANCHOR:
            self.anchor += away
            return "far from what it first was", {**numbers, "away_milli_octaves": round(away * 1000)}
        return None

    def _settle(self) -> None:
        """Learn from the days that were held back: what they were suspected of was said, or came to nothing."""
        self.past = [*self.past, *self.held][-_KEPT_DAYS:]
        self.held, self.excess = [], 0.0

    def to_json(self) -> list[Any]:
        """Give the state."""
        anchor = None if self.anchor is None else round(self.anchor * 1000)
        return [self.day, self.total, self.past, self.held, round(self.excess * 1000), anchor]

    @classmethod
    def from_json(cls, state: Sequence[Any]) -> Days:
        """Read what `to_json` gave."""
        day, total, past, held, excess, anchor = state
        first = None if anchor is None else anchor / 1000
        return cls(day, total, [(a, b) for a, b in past], [(a, b) for a, b in held], excess / 1000, first)


def _line(values: Sequence[int]) -> tuple[float, float]:
    centre = _median([(value, 1) for value in values])
    apart = _median([(abs(value - centre), 1) for value in values])
    return centre / 16, max(0.2, _MAD * apart / 16)


def _median(weighed: Sequence[tuple[float, int]]) -> float:
    left = sum(count for _, count in weighed) / 2
    last = 0.0
    for value, count in sorted(weighed):
        last = value
        left -= count
        if left <= 0:
            break
    return last
