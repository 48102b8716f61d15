"""Policies: what of an agent's doings is out of the ordinary, with the numbers that say so.

In:   facts, in the ledger's order, and an agent's state. Out: verdicts; the state is changed.
May import: config, governor's baseline, novelty and patterns. Must not know: the store, runs' rows, how anything is stopped.

    fact → window (10 minutes) → past a limit of the baseline? → verdict
                 └ closed → learned: unless a verdict was given on it

In its first days an agent is only learned from; but loops and refused forks are judged by hard limits from the first call on.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from midwatch.config.specs_watch import Sensitivity, WatchAction, WatchPolicy, WatchSpec
from midwatch.governor.baseline import Finding, limit
from midwatch.governor.baseline_state import DAY_US, METRICS, State, Window
from midwatch.governor.patterns import Fact

__all__ = ["Verdict", "judge"]

_LEAST: Final[Mapping[str, int]] = {"calls": 40, "sent": 131_072, "tokens": 50_000, "cost": 200_000}
"""Amounts in one window that are never unusual: calls, bytes, tokens, micro-dollars."""
_DAILY: Final = ("calls", "sent", "tokens", "cost")
_FACTOR: Final[Mapping[Sensitivity, float]] = {"low": 6.5, "normal": 5.0, "high": 4.0}
_BITS: Final[Mapping[Sensitivity, float]] = {"low": 10.0, "normal": 8.0, "high": 6.0}
_CHAIN: Final[Mapping[Sensitivity, float]] = {"low": 32.0, "normal": 24.0, "high": 18.0}
_HEIGHT: Final[Mapping[Sensitivity, float]] = {"low": 3.5, "normal": 2.5, "high": 1.8}
_FEW: Final = 3
"""Different calls among the last ones of a run, at most, that make a loop."""
_LOOP: Final = 48
_LOOP_HARD: Final = 200
_PROCESSES: Final = 24
_REFUSED: Final = 16
_TOOL_FROM: Final = 24
_GROWN: Final = 4
_SHARE: Final = 10
"""One run in so many: whoever did less of the window than this part is not stopped for it."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """One finding.

    Attributes:
        action: what the policy asks for, at most. runs: who did it, the one that did most first.
        seq: of the event that completed it. reason: one sentence, with the numbers. numbers: whole, for the ledger.
    """

    policy: WatchPolicy
    action: WatchAction
    metric: str
    agent: str
    runs: tuple[str, ...]
    seq: int
    at_us: int
    reason: str
    numbers: Mapping[str, int | str | None]


def judge(state: State, fact: Fact, policies: Mapping[WatchPolicy, WatchSpec], *, warm_up_us: int) -> list[Verdict]:
    """Take one fact in; gives what is out of the ordinary, each finding once in its cool-down.

    Args:
        warm_up_us: how long an agent is only learned from, microseconds.
    """
    if state.first_us < 0:
        state.first_us = fact.at_us
    if fact.at_us >= state.window.until_us:
        state.close(fact.at_us)
    warm = fact.at_us - state.first_us >= warm_up_us and state.calls >= 100
    case = _Case(state, fact, policies, warm)
    case.count()
    case.burn()
    case.loop()
    case.processes()
    if warm:
        case.volume()
        case.tool()
        case.errors()
    case.novelty()
    return case.found


class _Case:
    """One fact before every policy."""

    def __init__(self, state: State, fact: Fact, policies: Mapping[WatchPolicy, WatchSpec], warm: bool) -> None:  # noqa: FBT001 - private
        self.state, self.fact, self.policies, self.warm = state, fact, policies, warm
        self.window: Window = state.window
        self.found: list[Verdict] = []

    def count(self) -> None:
        """Add the fact to the open window."""
        fact, window = self.fact, self.window
        window.add("sent", fact.sent, fact.run)
        window.add("tokens", fact.tokens, fact.run)
        window.add("cost", fact.cost, fact.run)
        if fact.kind == "call":
            self.state.calls += 1
            window.add("calls", 1, fact.run)
            window.tools[fact.tool] = window.tools.get(fact.tool, 0) + 1
        if fact.kind == "done":
            window.ended += 1
            window.failed += fact.failed

    def volume(self) -> None:
        """More calls, bytes, tokens or money in ten minutes than this agent ever needs at this hour, or at any."""
        spec = self.policies["volume"]
        for metric in METRICS:
            value = self.window.amounts.get(metric, 0)
            if not value or value <= _LEAST[metric]:
                continue
            here, ever = self.state.limits(metric, _FACTOR[spec.sensitivity], _LEAST[metric])
            always = value > ever.over
            if not always and value <= here.over:
                continue
            words = "at any hour" if always else f"at {here.hour:02d}:00 UTC"
            reason = (
                f"{value:,} {_UNITS[metric]} within ten minutes; {words} its median is {here.median:,}, "
                f"the most ever {(ever if always else here).top:,}, the limit {(ever if always else here).over:,}"
            )
            self.window.odd.add(metric)
            self._say("volume", metric, reason, value, (ever if always else here), hard=always)

    def tool(self) -> None:
        """One tool far more often than this agent ever calls it."""
        fact, spec = self.fact, self.policies["volume"]
        spread = self.state.tools.get(fact.tool)
        value = self.window.tools.get(fact.tool, 0)
        if fact.kind != "call" or spread is None or spread.seen < _TOOL_FROM or value <= _LEAST["calls"]:
            return
        usual = limit(spread, _FACTOR[spec.sensitivity], _LEAST["calls"])
        if value > usual.over:
            self.window.odd.add(f"tool:{fact.tool}")
            reason = (
                f"{value:,} calls of `{fact.tool}` within ten minutes; its median is {usual.median:,}, the most ever "
                f"{usual.top:,}, the limit {usual.over:,}"
            )
            self._say("volume", f"tool:{fact.tool}", reason, value, usual)

    def errors(self) -> None:
        """Calls fail far more often than they do."""
        window, state = self.window, self.state
        if self.fact.kind != "done" or not self.fact.failed or window.failed < 8 or "errors" in window.odd:
            return
        usual = max(0.02, state.failed / max(1, state.ended))
        expected = window.ended * usual
        deviation = (window.failed - expected) / (expected * (1 - min(usual, 0.9))) ** 0.5
        if deviation >= 8.0 and window.failed * 2 >= window.ended:
            window.odd.add("errors")
            reason = (
                f"{window.failed} of {window.ended} calls failed within ten minutes; it is usually {usual * 100:.1f} % "
                f"({state.failed:,} of {state.ended:,})"
            )
            numbers = {"value": window.failed, "calls": window.ended, "usual_per_mille": round(usual * 1000)}
            self._say("errors", "failed", reason, window.failed, numbers)

    def loop(self) -> None:
        """The same few calls over and over in one run."""
        fact, state = self.fact, self.state
        if fact.kind != "call":
            return
        allowed = min(_LOOP_HARD, max(_LOOP, state.longest * 3 // 2 + 8)) if self.warm else _LOOP_HARD
        call = f"{fact.tool}\x1f{fact.digest[:16]}"
        streak, few = state.repeat(fact.run, call, few=_FEW, size=_LOOP, allowed=allowed)
        if streak < allowed:
            return
        numbers = {"value": streak, "limit": allowed, "different": few, "largest": state.longest}
        reason = (
            f"its last {streak:,} calls in this run are {few} different ones over and over, last `{fact.tool}`; "
            f"the longest such streak before was {state.longest:,}, the limit is {allowed:,}"
        )
        self._say("loop", "streak", reason, streak, numbers, run=fact.run)

    def processes(self) -> None:
        """More processes in its sandbox than it ever had, or forks refused at the bound."""
        fact, state = self.fact, self.state
        if fact.refused is not None:
            grown = fact.refused - state.refused.get(fact.run, 0)
            state.note_refused(fact.run, fact.refused)
            if grown >= _REFUSED:
                reason = f"{grown:,} more forks were refused at the sandbox's bound; the limit is {_REFUSED}"
                numbers = {"value": grown, "limit": _REFUSED}
                self._say("processes", "refused", reason, grown, numbers, run=fact.run)
        if fact.processes is None:
            return
        usual = limit(state.processes, _FACTOR[self.policies["processes"].sensitivity], _PROCESSES)
        if self.warm and state.processes.seen >= _TOOL_FROM and fact.processes > usual.over:
            reason = (
                f"{fact.processes:,} processes at once in its sandbox; its median is {usual.median:,}, the most ever "
                f"{usual.top:,}, the limit {usual.over:,}"
            )
            self._say("processes", "processes", reason, fact.processes, usual, run=fact.run)
        else:
            state.processes.add(fact.processes)

    def burn(self) -> None:
        """Day after day more than usual: what grows too slowly for any window to show."""
        height = _HEIGHT[self.policies["burn"].sensitivity]
        day = self.fact.at_us // DAY_US
        values = {"calls": int(self.fact.kind == "call"), "sent": self.fact.sent}
        values |= {"tokens": self.fact.tokens, "cost": self.fact.cost}
        for metric in _DAILY:
            said = self.state.days[metric].add(values[metric], day, height)
            if said is not None:
                words, numbers = said
                reason = (
                    f"{_UNITS[metric]} are {words}: {numbers['value']:,} on the last day, median {numbers['median']:,} of "
                    f"{numbers['samples']} days; the excess is {numbers['excess_milli_octaves'] / 1000:.2f} octaves"
                )
                self._say("burn", metric, reason, numbers["value"], numbers)

    def novelty(self) -> None:
        """Places and orders of tools that this agent never used, as far as that is rare for it."""
        fact, state, window = self.fact, self.state, self.window
        for name in fact.places:
            bits = state.places.bits(name) if self.warm else 0.0
            said = bits >= _BITS[self.policies["destinations"].sensitivity]
            known = state.places.total
            state.places.add(name, said=said)
            if said:
                reason = (
                    f"`{name}` was never a destination before, in {known:,} uses of places; by its own record the "
                    f"next one is new once in {2**bits:,.0f}"
                )
                numbers = {"value": 1, "samples": known, "surprise_milli_bits": round(bits * 1000), "place": name}
                self._say("destinations", name, reason, 1, numbers)
        if fact.kind != "call":
            return
        pair = f"{state.last.get(fact.run, '^')}>{fact.tool}"
        state.follow(fact.run, fact.tool)
        bits = state.pairs.bits(pair) if self.warm else 0.0
        state.pairs.add(pair)
        window.bits += bits
        if bits:
            window.fresh.append(pair)
        if window.bits >= _CHAIN[self.policies["transitions"].sensitivity] and "pairs" not in window.odd:
            window.odd.add("pairs")
            for told in window.fresh:
                state.pairs.calm(told)
            reason = (
                f"{len(window.fresh)} orders of tools that it never used before, within ten minutes: "
                f"{', '.join(f'`{item}`' for item in window.fresh[:5])}; together {window.bits:.0f} bits of surprise"
            )
            numbers = {"value": len(window.fresh), "surprise_milli_bits": round(window.bits * 1000)}
            self._say("transitions", "pairs", reason, len(window.fresh), numbers)

    def _say(
        self,
        policy: WatchPolicy,
        metric: str,
        reason: str,
        value: int,
        numbers: Finding | Mapping[str, Any],
        *,
        run: str | None = None,
        hard: bool = True,
    ) -> None:
        """Make a verdict, unless the policy is off or the finding was acted on already and has not grown."""
        spec, fact = self.policies[policy], self.fact
        if spec.action == "off":
            return
        runs = (run,) if run is not None else self._doers(metric)
        action: WatchAction = spec.action if hard else "warn"
        fresh = [
            name
            for name in runs
            if self.state.may_say(f"{policy}/{metric}/{name}/{action}", fact.at_us, value, spec.cool_down_us, _GROWN)
        ]
        if policy in ("destinations", "burn", "errors", "transitions") and len(fresh) < len(runs):
            fresh = []
        if not fresh:
            return
        told = numbers.told() if isinstance(numbers, Finding) else dict(numbers)
        self.found.append(
            Verdict(
                policy, action, metric, fact.agent, tuple(fresh), fact.seq, fact.at_us, reason, {"value": value, **told}
            )
        )

    def _doers(self, metric: str) -> tuple[str, ...]:
        """Give the runs that did what the window holds, the one with most first; whoever did the fact is always among them."""
        shares = self.window.runs.get("calls" if metric.startswith("tool:") else metric, {})
        total = sum(shares.values())
        chosen = [name for name, part in sorted(shares.items(), key=lambda item: -item[1]) if part * _SHARE >= total]
        return tuple(dict.fromkeys([*chosen, self.fact.run]))


_UNITS: Final[Mapping[str, str]] = {
    "calls": "tool calls",
    "sent": "bytes out",
    "tokens": "tokens",
    "cost": "micro-dollars",
}
