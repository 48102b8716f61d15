"""Governor: false pauses in a month of normal traffic, anomalies found, time to find them, and what a pass costs.

Bar: at most 1 false pause per agent-month; at least 95 % of each kind of anomaly found. `python -m bench.governor [MONTHS]`.
Thresholds were chosen on seeds 1 to 6; what is printed is of seeds from 1001 on.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bench.governor_traffic import ANOMALIES, KINDS, Kind, anomaly, month
from midwatch.config.specs_watch import default_policies
from midwatch.governor.baseline_state import State
from midwatch.governor.patterns import Fact
from midwatch.governor.policies import Verdict, judge

__all__ = ["Score", "judged", "main", "measure"]

HELD_OUT = 1001
WARM_UP_US = 3 * 86_400_000_000
_PROVES = {
    "exfiltration": {"volume"},
    "destination": {"destinations"},
    "loop": {"loop"},
    "forks": {"processes"},
    "slow burn": {"burn"},
}


@dataclass(slots=True)
class Score:
    """What came out.

    Attributes:
        months: agent-months of normal traffic. pauses, warnings: by policy. found: by anomaly, of `tried`. delays: seconds.
    """

    months: int = 0
    facts: int = 0
    spent_s: float = 0.0
    pauses: Counter[str] = field(default_factory=Counter)
    warnings: Counter[str] = field(default_factory=Counter)
    by_kind: Counter[str] = field(default_factory=Counter)
    tried: Counter[str] = field(default_factory=Counter)
    found: Counter[str] = field(default_factory=Counter)
    delays: dict[str, list[float]] = field(default_factory=dict)


def judged(facts: Sequence[Fact]) -> list[Verdict]:
    """Give every verdict on one agent's facts."""
    state, policies = State(), default_policies()
    return [found for fact in facts for found in judge(state, fact, policies, warm_up_us=WARM_UP_US)]


def measure(seeds: Sequence[int], kinds: Sequence[Kind] = KINDS) -> Score:
    """Judge normal months and months with one anomaly each."""
    score = Score()
    for seed in seeds:
        for kind in kinds:
            facts = month(kind, seed)
            begun = time.process_time()
            normal = judged(facts)
            score.spent_s += time.process_time() - begun
            score.facts += len(facts)
            score.months += 1
            for verdict in normal:
                paused = verdict.action in ("pause", "kill")
                (score.pauses if paused else score.warnings)[verdict.policy] += 1
                score.by_kind[f"{kind.name}/{verdict.policy}/{verdict.action}"] += 1
            said: set[tuple[str, str, int]] = {(item.policy, item.metric, item.seq) for item in normal}
            for name in ANOMALIES:
                if (name == "destination" and kind.churn) or (name == "forks" and kind.forks is None):
                    continue  # who meets new hosts all day is not surprising with one more; what is not counted cannot be judged
                _try(score, name, kind, facts, seed, said)
    return score


def _try(
    score: Score, name: str, kind: Kind, facts: list[Fact], seed: int, said: Collection[tuple[str, str, int]]
) -> None:
    changed, began = anomaly(name, kind, facts, seed, begins=14)
    hits = [
        item
        for item in judged(changed)
        if item.at_us >= began and item.policy in _PROVES[name] and (item.policy, item.metric, item.seq) not in said
    ]
    score.tried[name] += 1
    if hits:
        score.found[name] += 1
        score.delays.setdefault(name, []).append((hits[0].at_us - began) / 1e6)


def passes(events: int = 5000) -> float:
    """Give the milliseconds of processor time that a pass takes for 1,000 events of a real ledger, on SQLite."""
    from bench.governor_pass import cost  # noqa: PLC0415 - the store loads only here

    with tempfile.TemporaryDirectory() as folder:
        return cost(Path(folder), events)


def main(months: int = 10) -> None:
    """Print the table; raises when a bar is missed."""
    score = measure(range(HELD_OUT, HELD_OUT + months))
    pauses = sum(score.pauses.values()) / score.months
    warnings = sum(score.warnings.values()) / score.months
    print(
        f"normal: {score.months} agent-months, {score.facts:,} facts, {score.spent_s / score.facts * 1e6:.1f} µs a fact"
    )
    print(f"  false pauses   {pauses:6.3f} per agent-month  {dict(score.pauses)}")
    print(f"  false warnings {warnings:6.3f} per agent-month  {dict(score.warnings)}")
    print(f"  by agent: {dict(score.by_kind)}")
    print(f"{'anomaly':14} {'found':>12} {'median time':>14} {'worst':>12}")
    for name in ANOMALIES:
        delays = score.delays.get(name, [0.0])
        share = f"{score.found[name]}/{score.tried[name]}"
        print(f"{name:14} {share:>12} {_span(statistics.median(delays)):>14} {_span(max(delays)):>12}")
    print(f"a pass costs {passes():.1f} ms of processor time for 1,000 events of a ledger")
    assert pauses <= 1, f"{pauses:.2f} false pauses per agent-month"
    for kind in KINDS:
        own = sum(
            count for name, count in score.by_kind.items() if name.startswith(kind.name) and name.endswith("/pause")
        )
        assert own * len(KINDS) <= score.months, (
            f"{own} false pauses of {kind.name} in {score.months // len(KINDS)} months"
        )
    for name in ANOMALIES:
        assert score.found[name] >= 0.95 * score.tried[name], (
            f"{name}: {score.found[name]} of {score.tried[name]} found"
        )


def _span(seconds: float) -> str:
    if seconds < 600:
        return f"{seconds:.0f} s"
    return f"{seconds / 3600:.1f} h" if seconds < 86_400 else f"{seconds / 86_400:.1f} d"


if __name__ == "__main__":
    main(*(int(value) for value in sys.argv[1:]))
