"""The simulated month at a smaller size: the bars of the bench hold for seeds on which nothing was chosen."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench import governor
from bench.governor_pass import cost
from bench.governor_traffic import ANOMALIES, KINDS, anomaly, month


@pytest.mark.req("WATCH-12")
def test_normal_traffic_is_not_paused_and_anomalies_are_found() -> None:
    """Two kinds of agent, one month each: a false pause at most, every anomaly that applies is found."""
    score = governor.measure([governor.HELD_OUT + 500], [KINDS[1], KINDS[4]])
    assert sum(score.pauses.values()) <= score.months
    assert {name: score.tried[name] for name in ANOMALIES} == {name: score.found[name] for name in ANOMALIES}


@pytest.mark.req("WATCH-12")
def test_the_traffic_is_the_same_for_a_seed_and_in_order() -> None:
    """A month can be made again, and an anomaly lies after the day that it was to begin on."""
    facts = month(KINDS[4], 3, days=20)
    assert facts == month(KINDS[4], 3, days=20)
    assert facts != month(KINDS[4], 4, days=20)
    assert [fact.at_us for fact in facts] == sorted(fact.at_us for fact in facts)
    changed, began = anomaly("loop", KINDS[4], facts, 3, begins=10)
    assert began >= facts[0].at_us
    assert changed != facts


@pytest.mark.req("WATCH-12")
def test_what_a_pass_costs_is_bounded(tmp_path: Path) -> None:
    """A thousand events of a ledger take well below a second of one pass."""
    assert cost(tmp_path, 1200) < 400
