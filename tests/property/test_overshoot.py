"""Caps against random schedules, with the provider's own bill as the truth. `bench.overshoot` does more of them."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import pytest

from bench.overshoot import USABLE, carry_out, tally
from bench.overshoot_killed import killed
from bench.overshoot_schedules import Schedule, schedule
from bench.overshoot_world import World
from midwatch.engine import model_call
from midwatch.models.tokens import believable
from midwatch.records.chat import ChatAnswer, ChatRequest, Message, Usage

LIARS = [
    Schedule(seed, 1, 1, 20, 64, 2000, {"run": {"cost": 40_000}}, faulty=1000, kind="lying_usage")
    for seed in (100, 101)
]
"""Every report is a lie; under these numbers most of them are far too low."""


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """Give a store with nothing in it."""
    made = World(tmp_path)
    yield made
    made.store.close()


@pytest.mark.req("BUDGET-18")
@pytest.mark.parametrize("first", [0, 20_000])
def test_no_bill_goes_past_a_cap(first: int) -> None:
    """Faults, lies, locked ledgers, dying workers, top-ups, windows: nothing is billed past a cap or past what was charged."""
    lines = carry_out(range(first, first + 60))
    assert [] == [said for line in lines for said in line.over]
    rows = tally(lines)
    assert all(
        rows[name].calls for name in ("faults of the provider", "workers that die", "locked ledger", "several runs")
    )
    assert min(rows["all"].shares) >= USABLE


@pytest.mark.req("BUDGET-18")
def test_no_bill_goes_past_a_cap_where_processes_are_killed() -> None:
    """Up to four processes, killed with SIGKILL while a provider over loopback answers them: what it bills anyway is within the cap."""
    done = [killed(seed) for seed in (101, 102)]
    assert [] == [said for one in done for said in one.over]
    assert sum(one.kills for one in done) > 0 < sum(one.billed for one in done)


@pytest.mark.req("BUDGET-18", "BUDGET-19")
def test_the_probe_bites(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """With every report believed a like schedule bills more than the cap and than was charged, so the probe would see it."""
    kept = world.carry_out(LIARS[0])
    assert (True, []) == (kept.known, kept.over)
    monkeypatch.setattr(model_call, "believable", lambda *_: True)
    broken = world.carry_out(LIARS[1])
    assert (False, True) == (broken.known, bool(broken.over))


@pytest.mark.req("BUDGET-18")
def test_a_schedule_is_the_same_each_time() -> None:
    """A number that was found names its schedule for good."""
    assert schedule(17) == schedule(17)
    assert schedule(17) != schedule(18)


@pytest.mark.req("BUDGET-19")
@pytest.mark.parametrize(
    ("share", "believed"), [(Fraction(1), True), (Fraction(2), True), (Fraction(1, 10), False), (Fraction(0), False)]
)
def test_a_report_that_is_far_too_low_is_not_believed(share: Fraction, *, believed: bool) -> None:
    """A quarter of the bytes is what a tokenizer makes of text; a tenth of that cannot be, for what was sent as for what came."""
    text = "the quick brown fox jumps over the lazy dog; " * 40
    request = ChatRequest("a", "local", (Message("user", text),), 800)
    whole = len(text) // 4
    for usage in (Usage(int(whole * share), whole), Usage(whole, int(whole * share))):
        answer = ChatAnswer(text, (), usage, "stop", "tiny", "1")
        assert believed == believable(request, answer)


@pytest.mark.req("BUDGET-19")
@pytest.mark.parametrize("text", ["", "yes", "你好，世界。" * 100, "नमस्ते दुनिया " * 100, " " * 4000, "{\n    \n}" * 300])
def test_honest_reports_of_odd_texts_are_believed(text: str) -> None:
    """Other scripts, blanks and short words have many signs a token, and still are not taken for lies."""
    request = ChatRequest("a", "local", (Message("user", text),), 800)
    least = max(1, len("".join(text.split())) // 5)
    assert believable(request, ChatAnswer(text, (), Usage(least, least), "stop", "tiny", "1"))
