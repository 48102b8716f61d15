"""Baseline, state: everything that the governor keeps of one agent, in parts that are written when they change.

In:   parts as bytes; what policies count. Out: the same parts.
May import: governor's baseline and novelty. Must not know: policies, the store.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import orjson

from midwatch.governor.baseline import Days, Finding, Season, Spread
from midwatch.governor.novelty import Seen

__all__ = ["DAY_US", "METRICS", "WINDOW_US", "State", "Window"]

METRICS: Final = ("calls", "sent", "tokens", "cost")
WINDOW_US: Final = 600_000_000
DAY_US: Final = 86_400_000_000
_HOUR_US: Final = 3_600_000_000
_RUNS: Final = 64
_TOOLS: Final = 128
_SAID: Final = 256
_RUNS_IN_WINDOW: Final = 200


@dataclass(slots=True)
class Window:
    """The ten minutes that are open.

    Attributes:
        amounts: by metric. runs: who did how much of it, by metric. tools: calls by tool.
        odd: what a verdict was given on, and so is not learned. bits, fresh: surprise of orders of tools so far.
    """

    until_us: int = 0
    amounts: dict[str, int] = field(default_factory=dict)
    runs: dict[str, dict[str, int]] = field(default_factory=dict)
    tools: dict[str, int] = field(default_factory=dict)
    ended: int = 0
    failed: int = 0
    odd: set[str] = field(default_factory=set)
    bits: float = 0.0
    fresh: list[str] = field(default_factory=list)

    def add(self, metric: str, value: int, run: str) -> None:
        """Count."""
        if value:
            self.amounts[metric] = self.amounts.get(metric, 0) + value
            shares = self.runs.setdefault(metric, {})
            if run in shares or len(shares) < _RUNS_IN_WINDOW:
                shares[run] = shares.get(run, 0) + value

    def to_json(self) -> list[Any]:
        """Give the state."""
        bits = round(self.bits * 1000)
        return [
            self.until_us, self.amounts, self.runs, self.tools, self.ended, self.failed, sorted(self.odd), bits, self.fresh,
        ]  # fmt: skip

    @classmethod
    def from_json(cls, state: list[Any]) -> Window:
        """Read what `to_json` gave."""
        until, amounts, runs, tools, ended, failed, odd, bits, fresh = state
        return cls(until, amounts, runs, tools, ended, failed, set(odd), bits / 1000, fresh)


class State:
    """One agent of one fleet.

    Attributes:
        first_us: time of its first event, -1 before it. calls: of tools, ever. longest: streak of few calls that was nothing.
        last: by run, the tool called last. refused: by run, the sandbox's counter. said: by finding, when and how much.
    """

    def __init__(self) -> None:
        self.first_us, self.calls, self.longest, self.ended, self.failed = -1, 0, 0, 0, 0
        self.window = Window()
        self.amounts = {metric: Season() for metric in METRICS}
        self.tools: dict[str, Spread] = {}
        self.processes = Spread()
        self.days = {metric: Days() for metric in METRICS}
        self.places, self.pairs = Seen(), Seen()
        self.last: dict[str, str] = {}
        self.recent: dict[str, tuple[list[str], int]] = {}
        self.refused: dict[str, int] = {}
        self.said: dict[str, tuple[int, int]] = {}
        self._limits: dict[tuple[str, float], tuple[Finding, Finding]] = {}

    # ------------------------------------------------------------------------------------------------------ the window

    def close(self, at_us: int) -> None:
        """Learn from the open window and begin the next one."""
        window = self.window
        hour = self.hour
        for metric, value in window.amounts.items():
            if metric not in window.odd:
                self.amounts[metric].add(value, hour)
        for tool, count in window.tools.items():
            if f"tool:{tool}" not in window.odd and (tool in self.tools or len(self.tools) < _TOOLS):
                self.tools.setdefault(tool, Spread()).add(count)
        if "errors" not in window.odd:
            self.ended, self.failed = self.ended + window.ended, self.failed + window.failed
            if self.ended > 20_000:
                self.ended, self.failed = self.ended // 2, self.failed // 2
        self.window = Window((at_us // WINDOW_US + 1) * WINDOW_US)
        self._limits.clear()

    @property
    def hour(self) -> int:
        """The hour of day of the open window, UTC."""
        return max(0, self.window.until_us - WINDOW_US) // _HOUR_US % 24

    def limits(self, metric: str, factor: float, least: int) -> tuple[Finding, Finding]:
        """Give the limits of the open window: of its hour, of any; computed once a window."""
        key = (metric, factor)
        if key not in self._limits:
            self._limits[key] = self.amounts[metric].limits(self.hour, factor, least)
        return self._limits[key]

    # -------------------------------------------------------------------------------------------------------- the runs

    def repeat(self, run: str, call: str, *, few: int, size: int, allowed: int) -> tuple[int, int]:
        """Note a call; gives how many calls long the run has been at `few` different ones, and how many those are.

        A streak that ends before it was too long is learned from. Within it only the last `size` calls are kept.
        """
        recent, streak = self.recent.pop(run, ([], 0))
        recent = [*recent, call][-size:]
        last: set[str] = set()
        length = 0
        for known in reversed(recent):
            last.add(known)
            if len(last) > few:
                last.discard(known)
                break
            length += 1
        if length == len(recent) == size:
            length = max(streak + 1, size)
        if length < streak < allowed:
            self.longest = max(self.longest, streak)
        self.recent[run] = (recent, length)
        if len(self.recent) > _RUNS:
            del self.recent[next(iter(self.recent))]
        return length, len(last)

    def follow(self, run: str, tool: str) -> None:
        """Note which tool a run called last."""
        self.last.pop(run, None)
        self.last[run] = tool
        if len(self.last) > _RUNS:
            del self.last[next(iter(self.last))]

    def note_refused(self, run: str, count: int) -> None:
        """Note a run's counter of refused forks."""
        self.refused.pop(run, None)
        self.refused[run] = count
        if len(self.refused) > _RUNS:
            del self.refused[next(iter(self.refused))]

    def may_say(self, finding: str, at_us: int, value: int, cool_down_us: int, grown: int) -> bool:
        """Say whether a finding is to be told: it was not within its cool-down, or has grown so many times since. Notes it then."""
        before = self.said.get(finding)
        if before is not None and 0 <= at_us - before[0] < cool_down_us and value < grown * before[1]:
            return False
        self.said.pop(finding, None)
        self.said[finding] = (at_us, max(1, value))
        if len(self.said) > _SAID:
            del self.said[next(iter(self.said))]
        return True

    # ------------------------------------------------------------------------------------------------------- the bytes

    def parts(self) -> Mapping[str, bytes]:
        """Give the state: `now` changes with each event, the others seldom."""
        now = [
            self.first_us, self.calls, self.longest, self.ended, self.failed, self.window.to_json(), self.last, self.recent,
            self.refused, self.said, {metric: item.to_json() for metric, item in self.days.items()},
        ]  # fmt: skip
        usual = [
            {metric: item.to_json() for metric, item in self.amounts.items()},
            {tool: item.to_json() for tool, item in self.tools.items()},
            self.processes.to_json(),
        ]
        seen = [self.places.to_json(), self.pairs.to_json()]
        return {"now": orjson.dumps(now), "usual": orjson.dumps(usual), "seen": orjson.dumps(seen)}

    @classmethod
    def of(cls, parts: Mapping[str, bytes]) -> State:
        """Read what `parts` gave; no parts, no past."""
        state = cls()
        if "now" in parts:
            (
                state.first_us, state.calls, state.longest, state.ended, state.failed, window, state.last, recent,
                state.refused, said, days,
            ) = orjson.loads(parts["now"])  # fmt: skip
            state.window = Window.from_json(window)
            state.recent = {run: (calls, streak) for run, (calls, streak) in recent.items()}
            state.said = {key: (at, value) for key, (at, value) in said.items()}
            state.days = {metric: Days.from_json(item) for metric, item in days.items()}
        if "usual" in parts:
            amounts, tools, processes = orjson.loads(parts["usual"])
            state.amounts = {metric: Season.from_json(item) for metric, item in amounts.items()}
            state.tools = {tool: Spread.from_json(item) for tool, item in tools.items()}
            state.processes = Spread.from_json(processes)
        if "seen" in parts:
            places, pairs = orjson.loads(parts["seen"])
            state.places, state.pairs = Seen.from_json(places), Seen.from_json(pairs)
        return state
