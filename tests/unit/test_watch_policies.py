"""What the governor takes for unusual: by an agent's own past, explained, once, and not to be taught otherwise by patience."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import orjson
import pytest

from midwatch.config.specs_watch import WatchPolicy, WatchSpec, default_policies
from midwatch.governor.baseline import Days, Season, Spread
from midwatch.governor.baseline_state import State
from midwatch.governor.novelty import Seen
from midwatch.governor.patterns import Fact, fact_of
from midwatch.governor.policies import Verdict, judge
from midwatch.records.event import GENESIS, Event

DAY = 86_400_000_000
MINUTE = 60_000_000
BEGIN = 20_000 * DAY
WARM = 3 * DAY
TOOLS = ("inbox.read", "wiki.find", "mail.send")


def ordinary(days: int, *, growth: float = 0.0, seed: int = 7) -> Iterator[Fact]:
    """Give an agent's days: a run every half hour of the working day, three or four calls each, sizes that vary twofold."""
    rng, seq = random.Random(seed), 0
    for day in range(days):
        factor = (1 + growth) ** day
        for slot in range(20):
            at = BEGIN + day * DAY + 8 * 60 * MINUTE + slot * 30 * MINUTE
            run = f"r{day}-{slot}"
            for step, tool in enumerate(TOOLS):
                seq += 2
                size = int(1000 * factor * rng.uniform(0.7, 1.4))
                place = (f"host:{step}.example",)
                yield Fact(seq, at + step * MINUTE, run, "hand", "call", tool, f"{seq}", sent=size, places=place)
                yield Fact(
                    seq + 1, at + step * MINUTE + 5, run, "hand", "done", tool, processes=rng.randrange(3, 6), refused=0
                )
            yield Fact(
                seq + 1,
                at + 4 * MINUTE,
                run,
                "hand",
                "model",
                "smart",
                tokens=int(3000 * factor),
                cost=int(6000 * factor),
            )


def rules(**changed: WatchSpec) -> Mapping[WatchPolicy, WatchSpec]:
    """Give the default policies, some changed."""
    return {**default_policies(), **changed}  # type: ignore[dict-item]


def learned(days: int = 10) -> State:
    """Give the state after ordinary days, on which nothing was found."""
    state = State()
    assert [] == [item for fact in ordinary(days) for item in judge(state, fact, rules(), warm_up_us=WARM)]
    return state


def after(days: int = 10) -> Fact:
    """Give a call of the next morning."""
    at = BEGIN + days * DAY + 9 * 60 * MINUTE
    return Fact(900_000, at, "bad", "hand", "call", TOOLS[0], "d", sent=1000, places=("host:0.example",))


def told(state: State, *facts: Fact, **changed: WatchSpec) -> list[Verdict]:
    """Give what is found in these facts."""
    return [item for fact in facts for item in judge(state, fact, rules(**changed), warm_up_us=WARM)]


@pytest.mark.req("WATCH-2")
def test_a_burst_is_found_with_its_numbers_and_names_the_run() -> None:
    """The verdict holds the value, the median, the most ever, the limit, how many windows they rest on, and the run."""
    found = told(learned(), replace(after(), sent=50_000_000))
    (verdict,) = [item for item in found if item.metric == "sent"]
    assert ("volume", "pause", ("bad",), 900_000) == (verdict.policy, verdict.action, verdict.runs, verdict.seq)
    assert 50_000_000 == verdict.numbers["value"]
    numbers = {name: verdict.numbers[name] for name in ("median", "largest", "limit", "samples")}
    assert all(isinstance(value, int) and value > 0 for value in numbers.values())
    assert all(f"{numbers[name]:,}" in verdict.reason for name in ("median", "largest", "limit"))
    assert all(not isinstance(value, float) for value in verdict.numbers.values())


@pytest.mark.req("WATCH-2")
def test_an_amount_that_is_usual_at_noon_is_told_at_night() -> None:
    """An hour with a past of its own is held to it; what is unusual then only, is told and stops nothing."""
    season = Season()
    for index in range(200):
        season.add(1000 + index, 3)
        season.add(900_000 + index, 12)
    here, ever = season.limits(3, 5.0, 0)
    assert here.over < 100_000 < ever.over
    assert (3, None) == (here.hour, ever.hour)
    state = State()
    at = BEGIN
    for day in range(20):
        for hour, size in ((3, 200), (12, 900_000)):
            for part in range(6):
                at = BEGIN + day * DAY + hour * 60 * MINUTE + part * 10 * MINUTE
                calls = [Fact(1, at, f"{day}", "hand", "call", "t", f"{at}", sent=size) for _ in range(3)]
                assert [] == told(state, *calls)
    night = Fact(2, BEGIN + 20 * DAY + 3 * 60 * MINUTE, "n", "hand", "call", "t", "x", sent=500_000)
    assert [("volume", "warn")] == [(item.policy, item.action) for item in told(state, night)]


@pytest.mark.req("WATCH-3")
def test_a_fresh_agent_is_only_learned_from_but_held_to_hard_limits() -> None:
    """Before the warm-up neither bursts nor new places are found; an endless loop and refused forks are."""
    state, first = State(), replace(after(), at_us=BEGIN)
    burst = [replace(first, seq=n, sent=10**9, digest=f"{n}", places=(f"host:{n}",)) for n in range(150)]
    assert [] == told(state, *burst)
    loop = [replace(first, run="l", seq=n, at_us=BEGIN + n) for n in range(199)]
    assert [] == told(State(), *loop)
    assert ["loop"] == [item.policy for item in told(State(), *loop, replace(first, run="l"))]
    refused = Fact(1, BEGIN, "f", "hand", "done", "t", processes=60, refused=16)
    assert [("processes", "refused")] == [(item.policy, item.metric) for item in told(State(), refused)]


@pytest.mark.req("WATCH-2")
def test_a_new_place_is_found_where_that_is_rare_and_not_where_it_is_daily() -> None:
    """What is surprising is decided by the agent's own record of meeting new places."""
    fresh = replace(after(), places=("host:drop.attacker.example",))
    found = told(learned(), fresh)
    assert [("destinations", "warn", "host:drop.attacker.example")] == [(v.policy, v.action, v.metric) for v in found]
    seen = Seen()
    for index in range(4000):
        seen.add(f"host:{index}" if index % 10 == 0 else "host:known")
    assert seen.bits("host:next") < 4.0
    assert learned().places.bits("host:next") > 8.0


@pytest.mark.req("WATCH-2")
def test_many_new_places_do_not_make_the_next_one_dull() -> None:
    """What was told counts as known: somebody who floods the record with new places is told of each time."""
    state = learned(12)
    flood = [replace(after(12), seq=n, digest=f"{n}", places=(f"host:{n}.evil",)) for n in range(15)]
    assert 15 == len([item for item in told(state, *flood) if item.policy == "destinations"])


@pytest.mark.req("WATCH-2")
def test_orders_of_tools_that_were_never_used_add_up() -> None:
    """One new order is nothing, several within ten minutes are told, with their names."""
    state = learned()
    chain = ["shell.run", "inbox.read", "shell.run", "mail.send", "shell.run", "wiki.find", "mail.send"]
    facts = [replace(after(), seq=n, tool=tool, digest=f"{n}", at_us=after().at_us + n) for n, tool in enumerate(chain)]
    found = [item for item in told(state, *facts) if item.policy == "transitions"]
    assert 1 == len(found)
    assert "`inbox.read>shell.run`" in found[0].reason
    assert [] == [item for item in told(learned(), facts[0]) if item.policy == "transitions"]


@pytest.mark.req("WATCH-2")
def test_a_loop_is_found_and_a_poller_that_always_waits_is_not() -> None:
    """48 calls of three kinds are a loop; an agent whose runs always waited so long may do so again, but not for ever."""
    loop = [replace(after(), seq=n, digest=f"{n % 3}", at_us=after().at_us + n * MINUTE) for n in range(48)]
    assert [("loop", "pause", ("bad",))] == [(v.policy, v.action, v.runs) for v in told(learned(), *loop)]
    state = State()
    for day in range(6):
        for run in range(30):
            at = BEGIN + day * DAY + run * 30 * MINUTE
            polls = [
                Fact(1, at + n * MINUTE // 2, f"{day}/{run}", "hand", "call", "ci.status", "same") for n in range(60)
            ]
            done = [
                Fact(1, at + 29 * MINUTE + 59 * 1_000_000 + n, f"{day}/{run}", "hand", "call", "ci.read", f"{n}")
                for n in range(5)
            ]
            assert [] == told(state, *polls, *done)
    at = BEGIN + 7 * DAY
    endless = [Fact(1, at + n * MINUTE // 2, "e", "hand", "call", "ci.status", "same") for n in range(200)]
    assert ["loop"] == [item.policy for item in told(state, *endless)]


@pytest.mark.req("WATCH-2")
def test_a_swarm_of_processes_is_found_and_missing_counters_say_nothing() -> None:
    """Far more processes than ever are found; where nothing counts, nothing is claimed."""
    state = learned()
    done = replace(after(), kind="done", sent=0, places=(), processes=240, refused=0)
    assert [("processes", "pause")] == [(item.policy, item.action) for item in told(state, done)]
    assert [] == told(learned(), replace(done, processes=None, refused=None))
    assert [] == told(State(), replace(done, processes=None, refused=None))


@pytest.mark.req("WATCH-2")
def test_failing_calls_are_told_against_their_usual_share() -> None:
    """Most calls of ten minutes fail, which are one in hundreds otherwise."""
    fails = [Fact(n, after().at_us + n, "bad", "hand", "done", "t", failed=True) for n in range(12)]
    found = told(learned(), *fails)
    assert [("errors", "warn")] == [(item.policy, item.action) for item in found]
    assert "12 of 12" in found[0].reason or "8 of 8" in found[0].reason


@pytest.mark.req("WATCH-4")
@pytest.mark.parametrize("growth", [0.06, 0.1, 0.15])
def test_an_agent_that_ramps_slowly_cannot_teach_its_own_median(growth: float) -> None:
    """Each step is within what was usual the day before; the sum of the excess, or the distance from the start, is found."""
    state, days, found = State(), Days(), []
    for fact in ordinary(45, growth=growth):
        found += told(state, fact)
    for day in range(45):
        days.add(int(1000 * (1 + growth) ** day), day, 2.5)
    burn = [item for item in found if item.policy == "burn"]
    assert burn
    first = (burn[0].at_us - BEGIN) // DAY
    assert (1 + growth) ** first < 12, f"it had grown {(1 + growth) ** first:.1f}-fold"
    assert "days" in burn[0].reason


@pytest.mark.req("WATCH-4")
def test_one_hard_day_is_no_slow_burn_and_a_week_of_them_is() -> None:
    """A day counts at most one octave, whatever it held."""
    quiet = [1000, 1100, 950, 1050, 1000, 980, 1020, 1000, 1010, 990]
    days = Days()
    said = [days.add(value, index, 2.5) for index, value in enumerate([*quiet, 900_000, *quiet])]
    assert [None] * len(said) == said
    said = [days.add(4000, 30 + index, 2.5) for index in range(8)]
    assert 1 <= len([item for item in said if item is not None])


@pytest.mark.req("WATCH-5")
def test_a_finding_is_acted_on_once_in_its_cool_down_unless_it_has_grown() -> None:
    """No flapping: the same run, the same metric; but four times as much is another finding, and so is another run."""
    state, burst = learned(), replace(after(), sent=20_000_000)
    off = {name: WatchSpec("off") for name in ("loop", "transitions", "destinations")}
    assert ["sent"] == [item.metric for item in told(state, burst, **off)]
    again = [
        replace(burst, seq=n, digest=f"{n}", sent=1_000_000, at_us=burst.at_us + n * MINUTE // 2) for n in range(1, 10)
    ]
    assert [] == told(state, *again, **off)
    grown = replace(burst, sent=90_000_000, digest="g", at_us=burst.at_us + 5 * MINUTE)
    assert [("sent", ("bad",))] == [(item.metric, item.runs) for item in told(state, grown, **off)]
    other = replace(grown, run="other", digest="o", sent=200_000_000, at_us=burst.at_us + 6 * MINUTE)
    assert [("sent", True)] == [(item.metric, "other" in item.runs) for item in told(state, other, **off)]


@pytest.mark.req("WATCH-5")
def test_what_was_found_is_not_learned() -> None:
    """A burst that was acted on leaves the baseline as it was, so that the next one is found, too."""
    state = learned()
    told(state, replace(after(), sent=0))
    before = state.amounts["sent"].to_json()
    told(state, replace(after(), sent=50_000_000))
    state.close(after().at_us + 20 * MINUTE)
    assert before == state.amounts["sent"].to_json()
    next_day = replace(after(), run="next", sent=50_000_000, at_us=after().at_us + 5 * 60 * MINUTE)
    assert "sent" in [item.metric for item in told(state, next_day)]


@pytest.mark.req("WATCH-5")
def test_a_policy_that_is_off_finds_nothing_and_kill_is_only_what_was_declared() -> None:
    """The defaults warn or pause; an action is the one of the file."""
    burst = replace(after(), sent=50_000_000)
    assert [] == [item for item in told(learned(), burst, volume=WatchSpec("off")) if item.policy == "volume"]
    assert "kill" in [item.action for item in told(learned(), burst, volume=WatchSpec("kill"))]
    assert {"warn", "pause"} == {item.action for item in default_policies().values()}


@pytest.mark.req("WATCH-6")
def test_a_state_is_the_same_after_it_was_written_down() -> None:
    """After a restart the same facts give the same verdicts, from a state of bounded size."""
    state = learned()
    copy = State.of(state.parts())
    assert state.parts() == copy.parts()
    burst = replace(after(), sent=50_000_000)
    assert told(state, burst) == told(copy, burst)
    assert 64_000 > sum(len(part) for part in state.parts().values())


@pytest.mark.req("WATCH-6")
def test_median_and_deviation_are_those_of_the_amounts_to_a_bin() -> None:
    """A tenth of wild amounts moves neither."""
    spread, rng = Spread(), random.Random(3)
    for _ in range(270):
        spread.add(int(rng.lognormvariate(math.log(5000), 0.5)))
    for _ in range(30):
        spread.add(10**9)
    centre, width = spread.middle()
    assert abs(centre - math.log2(5000)) < 0.4
    assert abs(width - 0.5 / math.log(2)) < 0.4


def _event(kind: Any, **data: Any) -> Event:
    return Event(5, kind, "r", 1, data, "n", "hand", 1, "t", (), GENESIS, GENESIS)


@pytest.mark.req("WATCH-7")
def test_a_fact_holds_sizes_and_places_and_nothing_of_a_value() -> None:
    """Hosts of addresses, tables, the first folders of paths; bytes that leave; the machine's counters."""
    bodies = {
        "args": orjson.dumps(
            {"url": "https://u:pw@Host.example:8443/x?k=secret", "table": "users", "path": "/srv/app/17/key"}
        ),
        "seen": orjson.dumps({"requests": [{"host": "API.example", "sent": 70}, {"host": "api.example", "sent": 5}]}),
    }
    call = fact_of(_event("intent", tool="web.get", arguments_blob="args", runs="broker"), bodies.get)
    assert call is not None
    assert ("host:host.example:8443", "table:users", "path:/srv/app") == call.places
    assert (len(bodies["args"]), False) == (call.sent, "secret" in repr(call) or "pw" in repr(call))
    usage = {"processes_peak": 9, "processes_refused": 2}
    done = fact_of(
        _event("finished", tool="x", ok=True, observed={"blob": "seen", "requests": 2}, usage=usage), bodies.get
    )
    assert done is not None
    assert (("host:api.example",), 75, 9, 2, False) == (
        done.places,
        done.sent,
        done.processes,
        done.refused,
        done.failed,
    )
    spent = {"input": 10, "output": 5}
    model = fact_of(_event("finished", route="smart", ok=True, usage=spent, cost=30), bodies.get)
    assert model is not None
    assert ("model", 15, 30) == (model.kind, model.tokens, model.cost)


@pytest.mark.req("WATCH-7")
@pytest.mark.parametrize("body", [None, b"", b"[1, 2]", b"{", b'{"path": 7, "table": ["x"]}', b"\xff" * 300_000])
def test_what_lies_in_a_body_stops_no_pass(body: bytes | None) -> None:
    """Arguments and manifests of any shape give a fact: sizes are measured, counters that are none are missing."""
    call = fact_of(_event("intent", tool="t", arguments_blob="a", runs="broker"), lambda _: body)
    seen = {"blob": "b", "requests": "many"}
    done = fact_of(_event("finished", tool="t", ok="yes", observed=seen, usage={"processes_peak": "9"}), lambda _: body)
    assert call is not None
    assert done is not None
    assert (len(body or b""), None, True) == (call.sent, done.processes, done.failed)
