"""Bounds of one segment: windows, clocks, time, orders, ladders, shares of processes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from midwatch.config.fleet import Fleet
from midwatch.engine import budgeting, degrading
from midwatch.engine.bounding import SKEW_US, Bounds
from midwatch.engine.identity import local
from midwatch.engine.timing import Meter, Times
from midwatch.errors import Ambiguous, BoundReached, Denied, NotFound, RunHalted, StoreBusy, UsageProblem
from midwatch.gates.review import Speaker
from midwatch.governor import budgets, ladders, scopes
from midwatch.governor.ladders import Cheaper
from midwatch.records.call import Actor
from midwatch.records.event import EventDraft
from midwatch.records.handoff import Dispatch, Plan
from midwatch.records.run import RunRow
from midwatch.records.spend import Account, Line
from midwatch.store.memory import MemoryStore
from midwatch.store.port import Tx

RUN = "cd" * 16
HOUR = 3_600_000_000
NOON = 1_764_072_000_000_000 - 1_764_072_000_000_000 % HOUR
ANN = local("ann", "cli")
TEXT = """
midwatch: 1
fleet: watch
routes: {local: {provider: scripted, model: tiny, scenario: scenario.yaml}}
agents:
  boss: {role: ceo, route: local, prompt_text: "Plan."}
  hand: {role: specialist, route: local, prompt_text: "Work.", LIMITS}
  pen: {role: synthesis, route: local, prompt_text: "Write."}
graph: {team: {ceo: boss, specialists: [hand], synthesis: pen}}
verticals: {crew: [hand]}
budgets: BUDGETS
sandbox: {backend: process, because: "a trial"}
"""


class Ground:
    """A store, a fleet and a clock, without a graph."""

    def __init__(self, tmp_path: Path, budgets: str, limits: str = "") -> None:
        (tmp_path / "scenario.yaml").write_text("rules: []\n")
        self.folder, self.store, self.now = tmp_path, MemoryStore(), NOON
        self.fleet = self.load(budgets, limits)
        self.waits = 0
        self.stopped: list[Exception] = []
        self.seg: Any = SimpleNamespace(
            store=self.store, fleet=self.fleet, run=RUN, epoch=1, around=(), times=Times(), deadline_us=None,
            clock=lambda: self.now, check=lambda: None, pause=self.pause, stop=self.stop, write=self.store.write,
        )  # fmt: skip
        self.bounds = Bounds(self.seg)  # type: ignore[arg-type]
        self.actor = Actor(RUN, "watch", "hand", "specialist", "crew", "hand.act", "t", 1, 1)

    def load(self, budgets: str, limits: str = "") -> Fleet:
        """Read the fleet with these budgets."""
        text = TEXT.replace("BUDGETS", budgets).replace(", LIMITS", f", limits: {limits}" if limits else "")
        return Fleet.from_text(text, base=self.folder)

    async def pause(self, _: int) -> None:
        """Count a wait."""
        self.waits += 1

    def stop(self, error: Exception) -> Exception:
        """Note what stops the run, and give it to be raised."""
        self.stopped.append(error)
        return error

    def claim(self, name: str, **amounts: int) -> None:
        """Claim, as a call would."""
        asyncio.run(self.bounds.claim(self.actor, name, lambda _: amounts))  # type: ignore[arg-type, return-value]

    def settle(self, name: str, **amounts: int) -> None:
        """Settle."""
        self.store.write(lambda tx: tx.budgets.settle(name, amounts, at_us=self.now))  # type: ignore[arg-type]

    def account(self, scope: str, unit: str) -> Account | None:
        """Read one account."""
        rows = self.store.read(lambda tx: tx.budgets.accounts([scope]))
        return next((row for row in rows if row.unit == unit), None)


Grounds = Callable[..., Ground]


@pytest.fixture
def grounds(tmp_path: Path) -> Iterator[Grounds]:
    """Give what makes a ground; its store is closed at the end."""
    made: list[Ground] = []

    def make(budgets: str, limits: str = "") -> Ground:
        made.append(Ground(tmp_path, budgets, limits))
        return made[-1]

    yield make
    for ground in made:
        ground.store.close()


@pytest.mark.req("BUDGET-5")
def test_a_window_that_begins_during_a_hold_has_its_cap_at_once(grounds: Grounds) -> None:
    """The old window is charged for what was held in it; the new one is bounded from its first claim on."""
    ground = grounds("{fleet: {tool_calls: 1, per: hour}}")
    ground.claim("a", tool_calls=1)
    ground.now += HOUR
    ground.claim("b", tool_calls=1)
    ground.settle("b", tool_calls=1)
    with pytest.raises(BoundReached):
        ground.claim("c", tool_calls=1)
    ground.settle("a", tool_calls=1)
    old, new = (ground.account(f"fleet:watch@{scopes.window('hour', at)}", "tool_calls") for at in (NOON, NOON + HOUR))
    assert [(1, 1, 0), (1, 1, 0)] == [(row.cap, row.spent, row.held) for row in (old, new) if row is not None]


@pytest.mark.req("BUDGET-5")
def test_a_clock_that_went_back_opens_no_old_window(grounds: Grounds) -> None:
    """Within the clocks' skew it goes on; further back nothing begins, and nothing is held."""
    ground = grounds("{fleet: {tool_calls: 9, per: hour}}")
    ground.store.write(lambda tx: tx.ledger.append(EventDraft("signal", None, NOON, {})))
    ground.now = NOON - SKEW_US
    ground.claim("a", tool_calls=1)
    ground.now = NOON - HOUR
    with pytest.raises(RunHalted, match="clock"):
        ground.claim("b", tool_calls=1)
    assert 1 == len(ground.store.read(lambda tx: tx.budgets.open_reservations(RUN)))


@pytest.mark.req("BUDGET-5")
def test_a_store_that_cannot_be_reached_stops_the_run(grounds: Grounds, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nothing can be counted nothing begins: the claim fails, and the run is stopped for good reason."""
    ground = grounds("{run: {tool_calls: 9}}")

    def gone(*_: object, **__: object) -> None:
        raise StoreBusy("the store stayed locked")

    monkeypatch.setattr(ground.seg, "store", SimpleNamespace(write=gone, read=gone))
    with pytest.raises(StoreBusy):
        ground.claim("a", tool_calls=1)
    assert ["StoreBusy"] == [type(error).__name__ for error in ground.stopped]


@pytest.mark.req("BUDGET-1")
@pytest.mark.parametrize("scope", ["fleet", "crew", "hand"])
def test_wall_time_counts_from_the_first_claim_on(grounds: Grounds, scope: str) -> None:
    """On a fleet, a vertical and an agent alike; not a microsecond more."""
    ground = grounds(f"{{{scope}: {{wall: 10s}}}}")
    ground.claim("a", tool_calls=1)
    ground.now += 9_999_999
    ground.claim("b", tool_calls=1)
    ground.now += 1
    with pytest.raises(BoundReached) as caught:
        ground.claim("c", tool_calls=1)
    assert ("wall", 10_000_000, 10_000_000) == (caught.value.unit, caught.value.cap, caught.value.used)


@pytest.mark.req("BUDGET-1", "BUDGET-3")
def test_working_time_leaves_waiting_out_and_is_paid_ahead(grounds: Grounds) -> None:
    """Only what its calls take counts, calls side by side once; a second is held ahead, and given back at the end."""
    ground = grounds("{crew: {working: 5s}}")
    row = RunRow(
        id=RUN, fleet="watch", fleet_path=None, fleet_digest="", fleet_blob="", graph_digest="", policy_digest="", preset=None,
        status="running", created_us=1, input="",
    )  # fmt: skip
    meter, keys, name = (
        Meter(ground.seg, row, NOON),
        ("hand", "vertical:crew", "node:hand.act"),
        "vertical:watch/crew@all",
    )
    ground.store.write(lambda tx: scopes.set_caps(tx.budgets, ground.fleet, run=RUN, at_us=NOON))
    ground.now += 60_000_000  # nobody works
    meter.tick(ground.now)
    assert (0, 0) == ((account := ground.account(name, "working")) and account.spent, account and account.held)
    for _ in range(2):
        ground.seg.times.begin(keys, ground.now)
    meter.tick(ground.now)
    ground.now += 1_000_000
    meter.tick(ground.now)
    account = ground.account(name, "working")
    assert account is not None
    assert (1_000_000, 1_000_000) == (account.spent, account.held)
    ground.now += 4_000_000
    meter.tick(ground.now)
    assert ["working"] == [getattr(error, "unit", "") for error in ground.stopped]
    for _ in range(2):
        ground.seg.times.end(keys, ground.now)
    meter.tick(ground.now, last=True)
    account = ground.account(name, "working")
    assert account is not None
    assert (5_000_000, 0) == (account.spent, account.held)
    with pytest.raises(BoundReached):
        ground.claim("a", tool_calls=1)


@pytest.mark.req("BUDGET-13")
def test_a_claim_waits_for_what_others_hold_and_not_for_what_is_spent(grounds: Grounds) -> None:
    """It is made as soon as the other is settled; where nothing can come back it is refused at once."""
    ground = grounds("{run: {tokens: 10}}")
    ground.claim("a", tokens=8)

    async def settled(_: int) -> None:
        ground.waits += 1
        ground.settle("a", tokens=4)

    ground.seg.pause = settled
    ground.claim("b", tokens=5)
    assert 1 == ground.waits
    ground.settle("b", tokens=5)
    with pytest.raises(BoundReached):
        ground.claim("c", tokens=2)
    assert 1 == ground.waits


@pytest.mark.req("BUDGET-3", "BUDGET-13")
def test_what_a_dead_worker_holds_is_freed_for_those_who_wait(grounds: Grounds) -> None:
    """A killed run's call no longer counts among those at once; what it had begun is charged in full."""
    ground = grounds("{fleet: {concurrency: 1}}")
    dead = "ee" * 16
    row = RunRow(
        id=dead, fleet="watch", fleet_path=None, fleet_digest="", fleet_blob="", graph_digest="", policy_digest="", preset=None,
        status="running", created_us=1, input="",
    )  # fmt: skip
    lines = [Line("fleet:watch@all", "concurrency", 1), Line("fleet:watch@all", "cost", 5)]

    def begun(tx: Tx) -> None:
        tx.runs.create(row)
        tx.fences.take(dead, owner="x", at_us=NOON - 10, ttl_us=5)
        tx.budgets.reserve("gone", run=dead, lines=lines, at_us=1)
        tx.budgets.confirm("gone")

    ground.store.write(begun)
    ground.claim("a", tool_calls=1)
    account = ground.account("fleet:watch@all", "cost")
    assert account is not None
    assert (1, 5, 0) == (ground.waits, account.spent, account.held)


@pytest.mark.req("BUDGET-9")
def test_a_set_cap_holds_until_the_file_changes_and_top_ups_stay(grounds: Grounds) -> None:
    """The next run's caps from the file keep both; a file that says something else overrules the set one for good."""
    ground = grounds("{fleet: {tool_calls: 3, per: day}}")

    def run(fleet: Fleet) -> None:
        ground.store.write(lambda tx: scopes.set_caps(tx.budgets, fleet, run=RUN, at_us=ground.now))
        look()

    def order(what: Any, amount: Any) -> None:
        what(ground.store, "watch", "tool_calls", amount, speaker=ANN, at_us=ground.now)
        look()

    def look() -> None:
        account = ground.account(f"fleet:watch@{scopes.window('day', ground.now)}", "tool_calls")
        seen.append(None if account is None else account.cap)

    seen: list[int | None] = []
    run(ground.fleet)
    order(budgeting.topup, 2)
    order(budgeting.set_cap, 10)
    run(ground.fleet)
    ground.now += 24 * HOUR
    run(ground.fleet)  # the top-up was of yesterday
    run(ground.load("{fleet: {tool_calls: 4, per: day}}"))
    run(ground.fleet)
    order(budgeting.set_cap, "7")
    order(budgeting.set_cap, "file")
    assert [3, 5, 12, 12, 10, 4, 3, 7, 3] == seen


@pytest.mark.req("BUDGET-8", "BUDGET-7")
def test_orders_that_are_refused(grounds: Grounds) -> None:
    """Wrong roles, units, amounts and scopes change nothing; what nothing bounds cannot be topped up."""
    ground = grounds("{fleet: {tool_calls: 3}, crew: {cost: '$1'}}")
    ground.store.write(lambda tx: scopes.set_caps(tx.budgets, ground.fleet, run=RUN, at_us=NOON))
    agent = Speaker("agent:hand", None, "cli")
    people = ground.store
    tries: list[tuple[type[Exception], str, str, Any, Speaker]] = [
        (UsageProblem, "watch", "calls", "1", ANN),
        (UsageProblem, "watch", "tool_calls", "-1", ANN),
        (UsageProblem, "watch", "tool_calls", "0", ANN),
        (UsageProblem, "watch", "tool_calls", 1.5, ANN),
        (UsageProblem, "watch", "cost", "$1", ANN),
        (NotFound, "elsewhere", "tool_calls", "1", ANN),
    ]
    for kind, scope, unit, value, who in tries:
        with pytest.raises(kind):
            budgeting.topup(people, scope, unit, value, speaker=who, at_us=NOON)
    from midwatch.engine import people as known  # noqa: PLC0415 - only here

    known.add(people, "ann", roles=("admin",), may=("*",), speaker=ANN, at_us=NOON)
    for who in (ANN, agent):
        with pytest.raises(Denied):
            budgeting.topup(people, "watch", "tool_calls", "1", speaker=who, at_us=NOON)
    assert [] == list(budgeting.history(people))


@pytest.mark.req("BUDGET-8")
def test_a_scope_that_could_be_several_is_asked_for(grounds: Grounds) -> None:
    """A short name that fits two is no name."""
    ground = grounds("{fleet: {tool_calls: 3}}")
    for name in ("fleet:x@all", "vertical:x@all"):
        ground.store.write(lambda tx, name=name: tx.budgets.set_cap(name, "cost", 1))  # type: ignore[misc]
    with pytest.raises(Ambiguous):
        ground.store.read(lambda tx: budgeting.resolve_scope(tx, "x"))
    assert "vertical:x@all" == ground.store.read(lambda tx: budgeting.resolve_scope(tx, "vertical:x"))


@pytest.mark.req("BUDGET-1")
def test_processes_are_shared_out_and_held_while_the_run_is_up(grounds: Grounds) -> None:
    """Each sandbox gets its share; a second run that would pass the fleet's bound does not begin."""
    ground = grounds("{fleet: {processes: 30}, run: {processes: 20}}")
    assert [10, 10] == [ground.fleet.sandbox_of(name).limits.processes for name in ("hand", "pen")]
    row: Any = SimpleNamespace(started_us=NOON, working_us=0)
    ground.store.write(lambda tx: scopes.set_caps(tx.budgets, ground.fleet, run=RUN, at_us=NOON))
    Meter(ground.seg, row, NOON).open()
    account = ground.account("fleet:watch@all", "processes")
    assert account is not None
    assert (30, 20, 0) == (account.cap, account.held, account.spent)
    ground.seg.run = "ef" * 16
    ground.store.write(lambda tx: scopes.set_caps(tx.budgets, ground.fleet, run="ef" * 16, at_us=NOON))
    with pytest.raises(BoundReached):
        Meter(ground.seg, row, NOON).open()


@pytest.mark.req("BUDGET-10")
@given(st.lists(st.tuples(st.integers(0, 50), st.booleans()), max_size=20), st.integers(0, 1000))
def test_a_shorter_conversation_keeps_its_head_its_newest_turn_and_whole_turns(
    parts: list[tuple[int, bool]], share: int
) -> None:
    """Whatever the sizes: the prompt stays, the last turn stays, no turn is cut in two, and the rest fits."""
    groups, group = [0], 0
    for _, begins in parts:
        group += begins or group == 0
        groups.append(group)
    sizes = [5, *(size for size, _ in parts)]
    kept = ladders.narrowed(sizes, groups, share)
    there = {groups[place] for place in kept}
    assert sorted(kept) == kept
    assert {0, max(groups)} <= there
    assert kept == [place for place, group in enumerate(groups) if group in there]
    older = sum(sizes[place] for place in kept if groups[place] not in (0, max(groups)))
    newest = sum(size for size, group in zip(sizes, groups, strict=True) if group == max(groups))
    assert not older or older + newest <= sum(sizes[1:]) * share // 1000


@pytest.mark.req("BUDGET-10")
def test_fewer_specialists_go_out_and_never_none() -> None:
    """The first ones of a plan stay."""
    plan = Plan("it", tuple(Dispatch.from_json({"agent": name, "task": "t", "criteria": []}) for name in "abc"))
    assert [3, 2, 1, 1] == [
        len(degrading.planned(plan, Cheaper(specialists=most)).dispatches) for most in (None, 2, 1, 0)
    ]


@pytest.mark.req("BUDGET-12")
def test_python_scopes_nest_and_the_shared_one_is_the_same_everywhere() -> None:
    """A child never uses what its parent has not; a hold that is not settled costs all of it; a block that ended takes nothing."""
    store = MemoryStore()

    def clock() -> int:
        return 5

    with budgets.opened(store, "out", {"tool_calls": 5, "cost": "$1"}, clock=clock) as out:
        with budgets.opened(store, "in", {"tool_calls": 50}, clock=clock) as inner:
            inner.spend(tool_calls=4)
            assert (4, 1) == (out.usage["tool_calls"], inner.remaining["tool_calls"])
            with pytest.raises(BoundReached) as caught:
                inner.spend(tool_calls=2)
            assert (out.account, 4) == (caught.value.scope, inner.usage["tool_calls"])
            with inner.hold(cost="$0.5"):
                pass
            with inner.hold(cost="$0.5") as held:
                held.settle(cost="$0.2")
        assert (700_000, 300_000) == (out.usage["cost"], out.remaining["cost"])
        with pytest.raises(UsageProblem):
            inner.spend(tool_calls=1)
    for _ in range(2):
        with budgets.opened(store, "both", {"steps": 3}, clock=clock, shared=True) as both:
            both.spend(steps=1)
    assert 2 == both.usage["steps"]
    with pytest.raises(UsageProblem), budgets.opened(store, "both", {"steps": 9}, clock=clock, shared=True):
        pass
    for wrong in ({"steps": -1}, {"hours": 1}, {"cost": 0.5}):
        with pytest.raises(UsageProblem), budgets.opened(store, "x", wrong, clock=clock):  # type: ignore[arg-type]
            pass
    store.close()
