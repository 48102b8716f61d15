"""Attacks on review gates, on edits and on undo: whole runs, with what an attacker would try."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from midwatch import wiring
from midwatch.engine import answering, gating, origins
from midwatch.errors import Denied, GateNotUsable, MidwatchError, UsageProblem
from midwatch.gates import rules
from midwatch.gates.review import Speaker
from midwatch.records.decision import Ask
from midwatch.records.gate import GateRow
from midwatch.surfaces.cli.speaking import read_token
from midwatch.tools.registry import Registry
from tests.attack.attacked import CART, NOBODY, SHOP, opened, update, within
from tests.scenario.office import Office
from tests.scenario.test_gates_undo import killed


def edited(office: Office, who: str, gate: str, arguments: dict[str, Any]) -> GateRow:
    """Edit a gate as this person."""
    with office.opened(token=office.tokens[who]) as kernel:
        changed: GateRow = kernel.edit(gate, arguments)
        return changed


@pytest.mark.req("ATTACK-3")
def test_an_edit_and_a_changed_target_together_do_not_shed_a_need(tmp_path: Path) -> None:
    """Edited past the strict rule, approved by all, then the target is touched: who is asked again is who was asked before."""
    rules = "- {when: {role: {target: [shop]}}, ask: admin}\n- {when: {effect: [destructive]}, ask: operator}"
    office = Office(tmp_path, [[SHOP]], gates=rules)
    root, bob = office.person("root", "admin"), office.person("bob", "operator")
    office.person("cat", "operator")
    gate = office.run(speaks="bob").gates[0]
    needs = {need.who for need in edited(office, "cat", gate, dict(CART[1])).asks.needs}
    assert ({"admin", "operator"}, "approved") == (needs, office.say(gate, root).status)
    (office.work / "cart.version").write_text("v9")
    office.run(office.gate(gate)[0].run, speaks="root")
    row, _ = office.gate(gate)
    assert ("open", needs, "cat") == (row.status, {need.who for need in row.asks.needs}, row.edited_by)
    with pytest.raises(Denied):
        office.say(gate, bob)
    assert "approved" == office.say(gate, root).status
    assert ["place cart v2"] == (office.run(row.run, speaks="root") and office.calls())


@pytest.mark.req("ATTACK-3")
def test_an_edited_action_that_was_cut_and_then_denied_ends_in_a_no(tmp_path: Path) -> None:
    """The journal holds the edited arguments: a no to the repetition is told to the agent, and is no divergence of the run."""
    office = Office(tmp_path, [[SHOP]])
    waiting = office.run()
    gate = waiting.gates[0]
    with office.opened() as kernel:
        kernel.edit(gate, dict(CART[1]))
    office.say(gate)
    killed(office, waiting.run)
    (office.work / "register").write_text("not_done")
    (office.work / "calls").unlink()
    assert ("waiting", "open") == (office.run(waiting.run).status, office.gate(gate)[0].status)
    office.say(gate, approve=False)
    assert ("done", [], ["denied"]) == (office.run(waiting.run).status, office.calls(), office.answers(waiting.run))


@pytest.mark.req("ATTACK-4")
def test_a_no_is_not_undone_by_dropping_the_rule(tmp_path: Path) -> None:
    """An operator lets the run go on under a fleet without the gate, after somebody said no: the action stays refused."""
    office = Office(tmp_path, [[SHOP]])
    waiting = office.run()
    office.say(waiting.gates[0], approve=False)
    office.rules(NOBODY)
    result = office.run(waiting.run, accept=True, reason="a new policy")
    assert ("done", [], ["denied"]) == (result.status, office.calls(), office.answers(waiting.run))


@pytest.mark.req("ATTACK-4")
def test_an_agent_does_not_wear_a_person_down_by_asking_again(tmp_path: Path) -> None:
    """Four turns propose the very same action: one question, one no, and the later ones are refused without a person."""
    same = ("ops.place", {"version": "v2", "service": "shop"})  # the other way round
    office = Office(tmp_path, [[SHOP], [SHOP], [same], [SHOP]])
    waiting = office.run()
    office.say(waiting.gates[0], approve=False)
    result = office.run(waiting.run)
    assert ("done", 1, ["denied"] * 4) == (result.status, len(opened(office)), office.answers(waiting.run))


@pytest.mark.req("ATTACK-4")
@pytest.mark.parametrize("changed", ["arguments", "target"])
def test_another_action_is_asked_about_after_a_no(tmp_path: Path, changed: str) -> None:
    """The benign twin: other arguments, or the target is another one than at the no, make another question."""
    office = Office(tmp_path, [[SHOP], [CART if changed == "arguments" else SHOP]])
    waiting = office.run()
    office.say(waiting.gates[0], approve=False)
    if changed == "target":
        (office.work / "shop.version").write_text("v1")
    again = office.run(waiting.run)
    assert ("waiting", 2) == (again.status, len(opened(office)))
    office.say(again.gates[0])
    assert ("done", 1) == (office.run(waiting.run).status, len(office.calls("place")))


def batch(office: Office, gate: str, speaker: Speaker) -> dict[str, str]:
    """Say yes to a gate and its like; gives the status by run."""
    with wiring.open_store(office.home) as store:
        rows = answering.answer_batch(store, gate, approve=True, speaker=speaker, reason="", at_us=wiring.clock())
    return {row.run: row.status for row in rows}


@pytest.mark.req("ATTACK-5")
def test_a_gate_left_behind_by_an_ended_run_does_not_block_a_batch(tmp_path: Path) -> None:
    """Somebody cancels one of two runs with the same action, or it was answered before: the others still hear the yes."""
    office = Office(tmp_path, [[SHOP]], gates="- {when: {effect: [destructive]}, ask: operator, quorum: 2}")
    office.person("root", "admin")
    bob, cat = office.person("bob", "operator"), office.person("cat", "operator")
    gone, spoken, fresh = (office.run(speaks="root") for _ in range(3))
    within(office, lambda tx: tx.runs.update(gone.run, status="cancelled"))
    office.say(spoken.gates[0], bob)
    assert {fresh.run: "open"} == batch(office, fresh.gates[0], bob)
    assert {spoken.run: "approved", fresh.run: "approved"} == batch(office, gone.gates[0], cat)
    with pytest.raises(GateNotUsable):
        batch(office, fresh.gates[0], bob)


@pytest.mark.req("ATTACK-6")
def test_undo_does_nothing_beyond_the_reach_of_who_orders_it(tmp_path: Path) -> None:
    """An operator for the log book alone would roll the shop back, and so may not; whoever lost the role may not either."""
    office = Office(tmp_path, [[SHOP], [CART]], gates=NOBODY)
    office.person("root", "admin")
    office.person("bob", "operator", may="ops.note")
    office.person("cat", "operator", may="ops.re*")
    run = office.run(speaks="root").run
    with pytest.raises(Denied, match="reach"), office.opened(token=office.tokens["bob"]) as kernel:
        kernel.undo(run)
    with office.opened(token=office.tokens["cat"]) as kernel:
        update(office, "cat", disabled_us=1)
        with pytest.raises(Denied):
            kernel.undo(run)
    assert [] == office.calls("restore")
    update(office, "cat", disabled_us=None)
    with office.opened(token=office.tokens["cat"]) as kernel:
        assert ["undone", "undone"] == [item.outcome for item in kernel.undo(run)]


@pytest.mark.req("ATTACK-6")
def test_undo_at_the_same_time_undoes_once(tmp_path: Path) -> None:
    """Three at once: one takes it back, the others are held off or find it done."""
    office = Office(tmp_path, [[SHOP]], gates=NOBODY)
    run = office.run().run

    def once(_: int) -> str:
        try:
            with office.opened() as kernel:
                return str(kernel.undo(run)[0].outcome)
        except MidwatchError as error:
            return type(error).__name__

    with ThreadPoolExecutor(3) as pool:
        found = list(pool.map(once, range(3)))
    assert (["restore shop none"], 1) == (office.calls("restore"), found.count("undone"))
    assert {"undone", "already", "RunHeld"} >= set(found)


PUT = '''
from typing import Annotated
from midwatch import Arg, tool

Where = Annotated[dict[str, int], Arg(role="target", interprets=False)]
Many = Annotated[list[str], Arg(role="target", interprets=False)]
Flag = Annotated[bool, Arg(role="selector", interprets=False)]

@tool(effect="write", runs="broker", open_world=False)
def put(where: Where, many: Many, flag: Flag, size: Annotated[float, Arg(role="quantity")]) -> dict[str, str]:
    """Put something somewhere."""
    return {"put": "done"}
'''
PLAIN: dict[str, Any] = {"where": {"a": 1}, "many": ["b"], "flag": False, "size": 1}


@pytest.mark.req("ATTACK-7")
@pytest.mark.parametrize(
    ("changed", "asked"),
    [
        ({"where": {"zeta-eu": 1}}, True),
        ({"where": {"a": 1, "ＺＥＴＡ-eu": 0}}, True),
        ({"many": ["b", "zeta-eu"]}, True),
        ({"flag": True}, True),
        ({"size": 1e6}, True),
        ({"where": {"azeta": 1}, "size": 10}, False),
    ],
)
def test_a_role_rule_reads_every_value_of_the_role(tmp_path: Path, changed: dict[str, Any], asked: bool) -> None:
    """The target hides in a key, a later item, a truth value, a number; the last row is the benign twin."""
    (tmp_path / "put.py").write_text(PUT)
    registry = Registry.load(["python:put.py"], tmp_path)
    office = Office(
        tmp_path,
        [],
        gates="- {when: {role: {target: ['zeta*']}}, ask: operator}\n"
        "- {when: {role: {selector: ['true']}}, ask: operator}\n"
        "- {when: {role: {quantity: ['1000000*']}}, ask: operator}",
    )
    verdict = rules.decide(
        wiring.load_fleet(office.fleet)[0],
        contract=registry.get("put.put").contract,
        agent="worker",
        arguments={**PLAIN, **changed},
        at_us=1,
    )
    assert asked == isinstance(verdict, Ask)


@pytest.mark.req("ATTACK-8")
def test_an_answer_of_another_shape_reaches_no_agent(tmp_path: Path) -> None:
    """A question takes words or one of its choices: objects, lists, truth values and floods are refused, and it still waits."""
    office = Office(tmp_path, [[("gates.request_human", {"question": "Which?", "choices": ["a", "b"]})]])
    gate = office.run().gates[0]
    shapes: list[dict[str, Any]] = [
        {"answer": {"x": 1}},
        {"answer": ["a"]},
        {"choice": True},
        {"answer": "x" * 10_001},
        {},
    ]
    for value in shapes:
        with pytest.raises(UsageProblem):
            office.say(gate, value=value)
    assert "open" == office.gate(gate)[0].status


@pytest.mark.req("ATTACK-8")
def test_a_token_file_without_end_is_not_read_to_its_end() -> None:
    """The name leads to a device that never ends: what is no token is refused at once."""
    assert 4096 >= len(read_token("/dev/zero") or "")


@pytest.mark.req("ATTACK-9")
def test_an_edit_does_not_tell_a_made_up_question_from_a_real_one(tmp_path: Path) -> None:
    """Edited with what it has, with what does not fit, with something sane: both answer alike, and so does the ledger."""
    office = Office(tmp_path, [[SHOP]], extra="review: {canary: 1}")
    run = office.run().run
    told: dict[str, list[str]] = {}
    with office.opened() as kernel:
        for row in opened(office):
            same = office.gate(row.id)[1]["arguments"]
            for arguments in (same, {"service": 1}, {"cursor": "c:1"}, dict(CART[1])):
                try:
                    word = str(kernel.edit(row.id, arguments).status)
                except UsageProblem as error:
                    word = str(error)
                told.setdefault(row.kind, []).append(word)
    assert (told["action"], "open") == (told["canary"], told["action"][-1])
    causes = [event.causes for event in office.events(run, "gate.opened")]
    assert (2, 1) == (len(causes), len(set(causes)))
    canary = next(row.id for row in opened(office) if row.kind == "canary")
    office.say(canary)
    assert [False] == [event.data["missed"] for event in office.events(run, "canary.answered")]


@pytest.mark.req("ATTACK-9")
def test_no_question_is_made_up_that_could_be_the_real_one(tmp_path: Path) -> None:
    """A tool whose arguments are content only leaves nothing to make up: whoever says yes would be blamed for the real action."""
    office = Office(
        tmp_path,
        [[("ops.note", {"text": "x"})]],
        gates="- {when: {tool: ops.note}, ask: operator}",
        extra="review: {canary: 1}",
    )
    office.run()
    assert ["action"] == [row.kind for row in opened(office)]


@pytest.mark.req("ATTACK-8")
def test_a_reason_that_cannot_be_kept_is_refused_in_words(tmp_path: Path) -> None:
    """Bytes of no encoding, as a shell passes them, and floods: nothing is said, and the next plain word counts."""
    office = Office(tmp_path, [[SHOP]])
    gate = office.run().gates[0]
    with office.opened() as kernel:
        for attempt in (
            lambda: office.say(gate, reason="\udcff"),
            lambda: office.say(gate, approve=False, reason="x" * 10_001),
            lambda: kernel.edit(gate, dict(CART[1]), reason="\udcff"),
        ):
            with pytest.raises(UsageProblem, match="reason"):
                attempt()
    assert "approved" == office.say(gate, reason='{"gate": "x"}\x00\n\u202e').status


@pytest.mark.req("ATTACK-11")
def test_an_action_with_very_many_texts_is_told_in_bounded_work(tmp_path: Path) -> None:
    """A hundred thousand targets in one call: the card says where the first were seen, and how many were not looked for."""
    (tmp_path / "put.py").write_text(PUT)
    contract = Registry.load(["python:put.py"], tmp_path).get("put.put").contract
    office = Office(tmp_path, [[("ops.note", {"text": "target-7"})]], gates=NOBODY)
    run = office.run().run
    many = {"many": [f"target-{number}" for number in range(100_000)]}
    found = within(office, lambda tx: origins.of(tx, run, contract, many))
    assert (201, {"argument": "99,800 more texts", "seen_in": ["not looked for"]}) == (len(found), found[-1])
    few = within(office, lambda tx: origins.of(tx, run, contract, {"many": ["target-7", "target-8"]}))
    assert ([True, False], ["many", "many"]) == (
        [bool(item["seen_in"]) for item in few],
        [item["argument"] for item in few],
    )


@pytest.mark.req("ATTACK-13")
@pytest.mark.parametrize("allowed", [2, 3])
def test_after_so_many_nos_nobody_is_asked_any_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, allowed: int
) -> None:
    """Each turn asks for a little something else; with one no more to go (the benign twin) the third is asked, else it is refused."""
    monkeypatch.setattr(gating, "MOST_NOS", allowed)
    office = Office(tmp_path, [[("ops.place", {"service": "shop", "version": f"v{turn}"})] for turn in range(3)])
    result = office.run()
    for _ in range(2):
        office.say(result.gates[0], approve=False)
        result = office.run(result.run)
    expected = ("done", 2) if allowed == 2 else ("waiting", 3)
    assert expected == (result.status, len(opened(office)))
