"""Kill -9 of whole runs: at each stage of a tool call, each step of a model call, inside and between transactions; then resume."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest

from midwatch.engine import control
from midwatch.errors import GateNotUsable
from midwatch.records.effect import EffectRow
from tests.crash.harness import Case, Harness
from tests.crash.zygote import PLACES

STAGES = [name for name in PLACES if name.startswith("tool.")]
TOOL_POINTS = [
    "before tool.contract",
    "before tool.call",
    "before tool.envelope",
    *(f"after {name}" for name in STAGES),
]
"""After one stage is before the next one."""
IN_DOUBT = {
    *("after tool.journal", "before tool.call", "after tool.call"),
    *("after tool.perform", "before tool.envelope", "after tool.envelope"),
}
"""Between a durable intent and its result nobody can say what a call without a key has done."""

CALLS = [name for name in PLACES if name.startswith("model.")]
MODEL_POINTS = ["before model.ask", "before model.stream", "before model.settle", *(f"after {name}" for name in CALLS)]
LOST = {"after model.dispatch", "before model.stream", "after model.stream", "before model.settle"}
"""The provider has worked, and its answer is gone with the process."""

BETWEEN = [
    *(("before row.begin", 2), ("after row.begin", 5), ("before row.finish", 3), ("after row.finish", 5)),
    *(("after row.settle", 4), ("before row.event", 20), ("after row.event", 33)),
    *(("before store.commit", 9), ("after store.commit", 17), ("before store.commit", 30), ("after store.commit", 38)),
    *(
        ("before saver.put", 1),
        ("after saver.put", 2),
        ("before saver.put", 5),
        ("after saver.put", 6),
        ("after saver.put", 9),
    ),
    *(("before saver.writes", 2), ("after saver.writes", 3), ("before saver.writes", 6), ("after saver.writes", 7)),
    *(("before node.think", 2), ("after node.think", 3), ("before node.act", 1), ("after node.act", 2)),
    *(("before run.create", 1), ("after run.create", 1), ("after run.take", 1), ("after run.begin", 1)),
    *(("before run.end", 1), ("after run.end", 1)),
]


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Harness]:
    """A worker that pays by key, then posts without one."""
    with Harness(tmp_path_factory.mktemp("plain") / "h", [[("pay", "a")], [("post", "b")]]) as harness:
        yield harness


@pytest.fixture(scope="module")
def gated(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Harness]:
    """A worker that pays and drops side by side, then posts and drops."""
    plan = [[("pay", "a"), ("drop", "c")], [("post", "b"), ("drop", "d"), ("look", "e")]]
    with Harness(tmp_path_factory.mktemp("gated") / "h", plan) as harness:
        yield harness


@pytest.fixture(scope="module")
def parallel(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Harness]:
    """Three workers side by side, each with a keyed and a plain call at once, then another."""
    plan = [[("pay", "a"), ("post", "b")], [("pay", "c")]]
    with Harness(tmp_path_factory.mktemp("parallel") / "h", plan, tasks=("one", "two", "three")) as harness:
        yield harness


class Doubts:
    """Answers doubts as a person does who looks at the outside world, and counts them."""

    def __init__(self) -> None:
        self.seen: list[str] = []

    def __call__(self, case: Case, row: EffectRow) -> control.Word:
        """Look, and say."""
        self.seen.append(row.tool)
        return case.looked(row)


@pytest.mark.req("CRASH-1", "CRASH-2")
@pytest.mark.parametrize("number", [1, 2], ids=["keyed", "plain"])
@pytest.mark.parametrize("point", TOOL_POINTS)
def test_a_kill_at_any_stage_of_a_tool_call(plain: Harness, point: str, number: int) -> None:
    """The call happens once: by its key, or, where there is none, by a person's word and only if the kill left it unknown."""
    case, doubts = plain.case(f"{point} {number}".replace(" ", "-")), Doubts()
    assert "killed" == case.segment(point, number=number).status
    before = len(case.calls("plain"))
    stopped = case.segment()
    expected = ["outside.post"] if number == 2 and point in IN_DOUBT else []
    if expected:
        assert ("waiting", before) == (stopped.status, len(case.calls("plain")))
    case.until_done(on_doubt=doubts)
    assert ([], expected) == (case.audit(), doubts.seen)
    assert ["a", "b"] == sorted(call["body"] for call in case.calls() if call["first"])
    charged, counted = case.charged()
    assert charged == counted, "no model call was lost, so the run's cost is the bill"


@pytest.mark.req("CRASH-3")
@pytest.mark.parametrize("point", MODEL_POINTS)
def test_a_kill_at_any_step_of_a_model_call(plain: Harness, point: str) -> None:
    """Only the call whose answer was lost is billed twice; what was begun is charged, so the bill never passes the cost."""
    case = plain.case(f"{point}".replace(" ", "-"))
    assert "killed" == case.segment(point, number=2).status
    case.until_done()
    again = len(case.bill()) - len(case.effects("model"))
    assert ([], 1 if point in LOST else 0) == (case.audit(), again)
    charged, counted = case.charged()
    assert charged <= counted


@pytest.mark.req("CRASH-1", "CRASH-4")
@pytest.mark.parametrize(("point", "number"), BETWEEN)
def test_a_kill_inside_or_between_transactions(plain: Harness, point: str, number: int) -> None:
    """Wherever it falls, finished nodes stay finished, acknowledged events stay, the chain verifies, and the books close."""
    case = plain.case(f"{point} {number}".replace(" ", "-"))
    assert "killed" == case.segment(point, number=number).status
    case.until_done()
    assert [] == case.audit()
    assert ["a", "b"] == sorted(call["body"] for call in case.calls() if call["first"])


@pytest.mark.req("CRASH-5")
@pytest.mark.parametrize("seed", range(10))
def test_kills_at_random_with_contrary_answers(gated: Harness, seed: int) -> None:
    """Two kills anywhere, two calls side by side, each gate answered twice, the second time to the contrary: the first word holds."""
    choose = random.Random(seed)
    case = gated.case(f"random-{seed}")
    wrong: list[str] = []
    said: dict[str, bool] = {}

    def word(case: Case, gate: str) -> None:
        yes = said.setdefault(gate, choose.random() < 0.7)
        case.answer(gate, approve=yes)
        try:
            case.answer(gate, approve=not yes, by="bob")
            wrong.append(f"gate {gate} took a second answer")
        except GateNotUsable:
            pass

    for _ in range(2):
        name = choose.choice(sorted(PLACES))
        outcome = case.segment(f"{choose.choice(('before', 'after'))} {name}", number=choose.randint(1, 12))
        if outcome.status == "waiting" and outcome.result is not None:
            for gate in outcome.result["gates"]:
                word(case, gate)
    case.until_done(on_gate=word)
    dropped = {call["key"] for call in case.calls("plain") if call["body"] in "cd"}
    assert ([], []) == (case.audit(), wrong)
    assert {gate for gate, yes in said.items() if yes} == dropped
    assert {"a", "b"} <= {call["body"] for call in case.calls()}


@pytest.mark.req("CRASH-1", "CRASH-2", "CRASH-3")
@pytest.mark.parametrize("seed", range(8))
def test_kills_while_three_agents_work_side_by_side(parallel: Harness, seed: int) -> None:
    """Three kills anywhere in a run of parallel branches: each branch finishes once, and each of its calls happens once."""
    choose = random.Random(1000 + seed)
    case = parallel.case(f"parallel-{seed}")
    for _ in range(3):
        name = choose.choice(sorted(PLACES))
        case.segment(f"{choose.choice(('before', 'after'))} {name}", number=choose.randint(1, 12))
    case.until_done()
    expected = sorted(f"{item}-{task}" for item in "abc" for task in parallel.tasks)
    assert ([], expected) == (case.audit(), sorted(call["body"] for call in case.calls() if call["first"]))


@pytest.mark.req("CRASH-2")
def test_the_audit_sees_what_is_broken(plain: Harness) -> None:
    """A call made twice without a key, a node entered again, and a lost event are each told: the other tests would fail on them."""
    case = plain.case("broken")
    case.until_done()
    assert [] == case.audit()
    line = next(call for call in case.calls("plain"))
    with plain.target_log.open("a") as file:
        file.write(f'{{"case": "broken", "place": "plain", "key": "{line["key"]}", "body": "b", "first": true}}\n')
    with case.log.open("a") as file:
        task = next(word[0] for word in case._noted("written"))
        file.write(f'["entered", "{task}"]\n["seen", 99999, "{"0" * 64}"]\n')
    told = "; ".join(case.audit())
    assert (True, True, True) == ("was made 2 times" in told, "began again" in told, "event 99999 is lost" in told)
