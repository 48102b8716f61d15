"""Gates over whole runs: what was approved is what is executed, on the target as it was, once."""

from __future__ import annotations

from pathlib import Path

import pytest

from midwatch import wiring
from midwatch.engine import answering
from midwatch.errors import Divergence, GateNotUsable, NotGuaranteed, UsageProblem
from midwatch.gates.review import Speaker
from tests.scenario.office import GATES, Office

SHOP = ("ops.place", {"service": "shop", "version": "v2"})
CART = ("ops.place", {"service": "cart", "version": "v2"})


@pytest.mark.req("GATES-3")
@pytest.mark.parametrize("first", [0, 1])
def test_contrary_answers_to_parallel_calls_each_reach_their_own(tmp_path: Path, first: int) -> None:
    """Two calls of one answer wait; whichever is answered first, the yes runs and the no does not."""
    office = Office(tmp_path, [[SHOP, CART]])
    waiting = office.run()
    assert ("waiting", 2, []) == (waiting.status, len(waiting.gates), office.calls())
    named = {office.gate(gate)[1]["arguments"]["service"]: gate for gate in waiting.gates}
    words = [(named["shop"], True), (named["cart"], False)]
    for gate, approve in (words[first], words[1 - first]):
        office.say(gate, approve=approve)
    result = office.run(waiting.run)
    assert ("done", ["place shop v2"]) == (result.status, office.calls())
    assert {None, "denied"} == set(office.answers(waiting.run))


@pytest.mark.req("GATES-3")
def test_one_answered_gate_moves_alone(tmp_path: Path) -> None:
    """The answered call runs once although its neighbour still waits, and not again when that is answered."""
    office = Office(tmp_path, [[SHOP, CART]])
    waiting = office.run()
    named = {office.gate(gate)[1]["arguments"]["service"]: gate for gate in waiting.gates}
    office.say(named["shop"])
    still = office.run(waiting.run)
    assert ("waiting", (named["cart"],), ["place shop v2"]) == (still.status, still.gates, office.calls())
    office.say(named["cart"])
    assert ("done", ["place shop v2", "place cart v2"]) == (office.run(waiting.run).status, office.calls())


@pytest.mark.req("GATES-4")
def test_a_target_that_changed_since_the_yes_is_asked_about_again(tmp_path: Path) -> None:
    """Somebody else put v9 there meanwhile: the yes was for replacing what stood there before."""
    office = Office(tmp_path, [[SHOP]])
    waiting = office.run()
    before, card = office.gate(waiting.gates[0])
    assert "shop: none -> v2" == card["preview"]
    office.say(waiting.gates[0])
    (office.work / "shop.version").write_text("v9")
    again = office.run(waiting.run)
    after, card = office.gate(waiting.gates[0])
    assert ("waiting", [], "open", "shop: v9 -> v2") == (again.status, office.calls(), after.status, card["preview"])
    assert (True, True) == (before.nonce != after.nonce, before.digest != after.digest)
    office.say(waiting.gates[0])
    assert ("done", ["place shop v2"]) == (office.run(waiting.run).status, office.calls())


@pytest.mark.req("GATES-4")
def test_a_target_as_it_was_is_not_asked_about_again(tmp_path: Path) -> None:
    """The benign twin: something else changed, so the one yes is enough."""
    office = Office(tmp_path, [[SHOP]])
    waiting = office.run()
    office.say(waiting.gates[0])
    (office.work / "cart.version").write_text("v9")
    assert ("done", ["place shop v2"]) == (office.run(waiting.run).status, office.calls())


@pytest.mark.req("GATES-4")
def test_a_target_whose_state_cannot_be_read_is_not_touched(tmp_path: Path) -> None:
    """Before the question nobody is asked; after the yes nothing runs; the agent is told."""
    office = Office(tmp_path, [[SHOP], [CART]])
    (office.work / "broken").write_text("")
    result = office.run()
    assert ("done", [], ["unavailable", "unavailable"]) == (result.status, office.calls(), office.answers(result.run))


@pytest.mark.req("GATES-4")
def test_a_yes_does_not_survive_a_state_that_became_unreadable(tmp_path: Path) -> None:
    """The precondition cannot be checked any more, so the yes is not used."""
    office = Office(tmp_path, [[SHOP]])
    waiting = office.run()
    office.say(waiting.gates[0])
    (office.work / "broken").write_text("")
    result = office.run(waiting.run)
    assert ("done", [], ["unavailable"]) == (result.status, office.calls(), office.answers(result.run))


@pytest.mark.req("GATES-3")
def test_another_version_of_the_tool_is_another_action(tmp_path: Path) -> None:
    """The tool's own code changed its contract after the yes: the same arguments are asked about again."""
    office = Office(tmp_path, [[SHOP]])
    waiting = office.run()
    office.say(waiting.gates[0])
    source = office.fleet / "ops.py"
    source.write_text(source.read_text().replace("Put a version of a service in place", "Replace a service"))
    again = office.run(waiting.run)
    assert ("waiting", [], waiting.gates) == (again.status, office.calls(), again.gates)


@pytest.mark.req("GATES-5")
def test_another_policy_needs_a_persons_word_and_new_yeses(tmp_path: Path) -> None:
    """A resume under changed rules is refused; with a reason it goes on, and what was approved is asked again."""
    office = Office(tmp_path, [[SHOP]])
    waiting = office.run()
    office.say(waiting.gates[0])
    office.rules(f"{GATES}\n- {{when: {{tool: ops.note}}, ask: operator}}")
    with pytest.raises(Divergence, match="--under-new"):
        office.run(waiting.run)
    with pytest.raises(UsageProblem, match="why"):
        office.run(waiting.run, accept=True)
    again = office.run(waiting.run, accept=True, reason="the note is asked about too")
    assert ("waiting", [], waiting.gates) == (again.status, office.calls(), again.gates)
    rebound = office.events(waiting.run, "run.rebound")
    assert ["the note is asked about too"] == [event.data["reason"] for event in rebound]
    office.say(again.gates[0])
    assert ("done", ["place shop v2"]) == (office.run(waiting.run).status, office.calls())


@pytest.mark.req("GATES-5")
def test_every_checkpoint_carries_what_it_was_made_under(tmp_path: Path) -> None:
    """Graph, policy and fleet digests stand in the metadata; a row that was tampered with does not get past them."""
    office = Office(tmp_path, [[SHOP]])
    waiting = office.run()
    with wiring.open_store(office.home) as store:
        rows = store.read(lambda tx: tx.checkpoints.list(waiting.run, None))
        assert all(b'"policy"' in row.metadata and b'"graph"' in row.metadata for row in rows)
        assert len(rows) > 2
    office.rules(f"{GATES}\n- {{when: {{tool: ops.note}}, ask: operator}}")
    with office.opened() as kernel:
        fleet = kernel.fleet
        digests = {"fleet_digest": fleet.digest, "policy_digest": fleet.policy_digest}
        kernel.store.write(lambda tx: tx.runs.update(waiting.run, **digests))
    result = office.run(waiting.run)
    assert ("failed", "Divergence", []) == (result.status, result.error_code, office.calls())


@pytest.mark.req("GATES-6")
def test_every_rule_that_applies_adds_its_need(tmp_path: Path) -> None:
    """The effect class asks one role and the cost another; the shorter time holds; one who has both counts for both."""
    rules = "- {when: {effect: destructive}, ask: operator, timeout: 15m}\n- {when: {cost: $1.50}, ask: finance, timeout: 5m}"
    office = Office(tmp_path, [[SHOP]], gates=rules)
    boss, ops, fin = office.person("boss", "admin"), office.person("ops", "operator"), office.person("fin", "finance")
    waiting = office.run(speaks="boss")
    row, _ = office.gate(waiting.gates[0])
    assert ["operator", "finance"] == [need.who for need in row.asks.needs]
    assert 300_000_000 == row.expires_us - row.opened_us
    assert "open" == office.say(row.id, ops).status
    assert "approved" == office.say(row.id, fin).status
    assert ("done", ["place shop v2"]) == (office.run(waiting.run, speaks="ops").status, office.calls())
    assert boss.has("finance")


@pytest.mark.req("GATES-6")
@pytest.mark.parametrize(
    ("when", "gated"),
    [
        ("{role: {target: 'sh*'}}", True),
        ("{role: {target: 'SHOP'}}", True),
        ("{role: {target: 'cart*'}}", False),
        ("{role: {quantity: '*'}}", False),
        ("{reversible: true, tool: ops.place}", True),
        ("{reversible: false, tool: ops.place}", False),
        ("{cost: $2.00, tool: ops.place}", True),
        ("{cost: $2.01, tool: ops.place}", False),
        ("{environment: prod*}", True),
        ("{environment: staging}", False),
        ("{keywords: shop}", True),
        ("{keywords: shops}", False),
        ("{agent: worker, effect: [destructive, write]}", True),
        ("{agent: worker, effect: [read]}", False),
    ],
)
def test_each_key_of_a_rule_decides(tmp_path: Path, when: str, gated: bool) -> None:
    """Every key that says something must match; nothing else of this call would ask anybody."""
    office = Office(tmp_path, [[SHOP]], gates=f"- {{when: {when}, ask: operator}}", extra="environment: prod-eu")
    assert ("waiting" if gated else "done") == office.run().status


@pytest.mark.req("GATES-6")
@pytest.mark.parametrize(
    ("calls", "label", "gated"),
    [
        ([[SHOP]], "third_party", False),
        ([[SHOP]], "[request, caller]", True),
        ([[("ops.version", {"service": "shop"})], [SHOP]], "third_party", True),
        ([[("ops.version", {"service": "shop"})], [SHOP]], "service", False),
    ],
)
def test_whose_words_a_run_has_read_can_ask(
    tmp_path: Path, calls: list[list[tuple[str, dict[str, str]]]], label: str, gated: bool
) -> None:
    """A tool that declares no author brings in a third party's words; before any result there is only the request."""
    rule = f"- {{when: {{label: {label}, tool: ops.place}}, ask: operator}}"
    assert ("waiting" if gated else "done") == Office(tmp_path, calls, gates=rule).run().status


@pytest.mark.req("GATES-7")
def test_time_out_is_a_no_and_late_words_change_nothing(tmp_path: Path) -> None:
    """After the expiry a yes is refused, the gate is expired, and the agent hears `denied`."""
    office = Office(tmp_path, [[SHOP]])
    waiting = office.run()
    row, _ = office.gate(waiting.gates[0])
    with pytest.raises(GateNotUsable, match="expired"):
        office.say(row.id, at_us=row.expires_us + 1)
    assert "expired" == office.gate(row.id)[0].status
    result = office.run(waiting.run)
    assert ("done", [], ["denied"]) == (result.status, office.calls(), office.answers(result.run))


@pytest.mark.req("GATES-7")
def test_a_gate_that_was_used_or_denied_takes_no_other_word(tmp_path: Path) -> None:
    """The first answer stands, before and after the action ran."""
    office = Office(tmp_path, [[SHOP]])
    waiting = office.run()
    office.say(waiting.gates[0])
    for _ in range(2):
        with pytest.raises(GateNotUsable):
            office.say(waiting.gates[0], Speaker("local:bob"), approve=False)
        office.run(waiting.run)
    assert ["place shop v2"] == office.calls()


@pytest.mark.req("GATES-8")
def test_a_batch_answers_the_very_same_action_and_no_other(tmp_path: Path) -> None:
    """Two runs ask the same, one of them also something else: one word answers both alike, the other still waits."""
    calls = [("ops.note", {"text": "one"}), ("ops.note", {"text": "two"})]
    office = Office(tmp_path, [calls], gates="- {when: {tool: ops.note}, ask: operator}")
    first, second = office.run(), office.run()
    named = {office.gate(gate)[1]["arguments"]["text"]: gate for gate in first.gates}
    with wiring.open_store(office.home) as store:
        rows = answering.answer_batch(
            store, named["one"], approve=True, speaker=Speaker("local:ann"), reason="", at_us=wiring.clock()
        )
    assert {first.run, second.run} == {row.run for row in rows}
    for run in (first.run, second.run):
        assert "waiting" == office.run(run).status
    assert ["note one", "note one"] == office.calls()


@pytest.mark.req("GATES-9")
def test_rules_that_nobody_can_meet_refuse_the_run(tmp_path: Path) -> None:
    """Four eyes with one pair of them, a quorum larger than the house: nothing starts, and the line is named."""
    office = Office(tmp_path, [[SHOP]], gates="- {when: {effect: destructive}, ask: operator, four_eyes: true}")
    with pytest.raises(NotGuaranteed, match="principals"):
        office.run()
    office.rules("- {when: {effect: destructive}, ask: dba, quorum: 2}")
    office.person("boss", "admin")
    with pytest.raises(NotGuaranteed, match="fewer than 2"):
        office.run(speaks="boss")


@pytest.mark.req("GATES-3")
def test_another_body_of_the_tool_is_another_action(tmp_path: Path) -> None:
    """The contract is the same and the code is not: what was approved is asked about again."""
    office = Office(tmp_path, [[SHOP]])
    waiting = office.run()
    office.say(waiting.gates[0])
    source = office.fleet / "ops.py"
    source.write_text(source.read_text().replace('f"place {service}', 'f"swapped {service}'))
    again = office.run(waiting.run)
    assert ("waiting", waiting.gates, []) == (again.status, again.gates, office.calls())


@pytest.mark.req("GATES-7")
def test_a_no_is_told_once_and_in_the_persons_words(tmp_path: Path) -> None:
    """However often its node runs again, the denial stands once in the ledger, with the reason that the agent is given."""
    office = Office(tmp_path, [[SHOP, CART]])
    waiting = office.run()
    named = {office.gate(gate)[1]["arguments"]["service"]: gate for gate in waiting.gates}
    office.say(named["shop"], approve=False, reason="not on a friday")
    for _ in range(2):
        assert "waiting" == office.run(waiting.run).status
    office.say(named["cart"])
    assert "done" == office.run(waiting.run).status
    told = [event for event in office.events(waiting.run, "finished") if event.data.get("code") == "denied"]
    with wiring.open_store(office.home) as store:
        body = store.read(lambda tx: tx.blobs.get(told[0].data["result_blob"]))
    assert (1, True) == (len(told), b"not on a friday" in (body or b""))
