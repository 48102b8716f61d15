"""Gates and people: who may answer, who may not, how many, and what a broken glass leaves behind."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from midwatch import wiring
from midwatch.engine import answering, control
from midwatch.engine.identity import identify
from midwatch.engine.journaling import Journal
from midwatch.engine.passage import Passage
from midwatch.errors import Denied, GateNotUsable, NotFound, UsageProblem
from midwatch.gates.review import Speaker
from midwatch.records.principal import new_token
from tests.scenario.office import Office

SHOP = ("ops.place", {"service": "shop", "version": "v2"})


@pytest.fixture
def office(tmp_path: Path) -> Office:
    """An office whose one call is asked of an operator."""
    return Office(tmp_path, [[SHOP]])


@pytest.mark.req("PEOPLE-1")
def test_a_name_is_no_proof_where_people_have_tokens(office: Office) -> None:
    """A bare name, a missing, an unknown and a disabled token are refused; nothing was said."""
    office.person("boss", "admin")
    gone = office.person("gone", "operator")
    waiting = office.run(speaks="boss")
    with wiring.open_store(office.home) as store:
        store.write(lambda tx: tx.principals.update("gone", disabled_us=1))
        with pytest.raises(Denied):
            control.answer(store, waiting.gates[0], approve=True, by="ops", reason="", at_us=wiring.clock())
        for token in (None, "", new_token(), office.tokens["gone"]):
            with pytest.raises(Denied):
                identify(store, token=token, user="ann", channel="cli")
    with pytest.raises(Denied):
        office.run()
    disabled = replace(gone, principal=None if gone.principal is None else replace(gone.principal, disabled_us=1))
    with pytest.raises(Denied, match="taken back"):
        office.say(waiting.gates[0], disabled)
    assert ("open", []) == (office.gate(waiting.gates[0])[0].status, office.events(waiting.run, "gate.said"))


@pytest.mark.req("PEOPLE-1")
def test_a_home_that_knows_nobody_takes_the_word_of_whoever_is_there(office: Office) -> None:
    """One person, one machine: the default works without any set-up; a token that means nothing is refused."""
    waiting = office.run()
    office.say(waiting.gates[0])
    with wiring.open_store(office.home) as store, pytest.raises(Denied):
        identify(store, token=new_token(), user="ann", channel="cli")
    assert "done" == office.run(waiting.run).status


@pytest.mark.req("PEOPLE-2")
def test_who_asked_does_not_answer(office: Office) -> None:
    """The one who started the run may say no and not yes; somebody else may say yes."""
    boss, ops = office.person("boss", "admin"), office.person("ops", "operator")
    waiting = office.run(speaks="boss")
    with pytest.raises(Denied, match="does not answer"):
        office.say(waiting.gates[0], boss)
    assert "approved" == office.say(waiting.gates[0], ops).status
    assert ("done", 1) == (office.run(waiting.run, speaks="boss").status, len(office.calls()))


@pytest.mark.req("PEOPLE-2")
def test_who_asked_may_take_it_back(office: Office) -> None:
    """A no of the one who started the run counts."""
    boss = office.person("boss", "admin")
    waiting = office.run(speaks="boss")
    assert "denied" == office.say(waiting.gates[0], boss, approve=False).status


@pytest.mark.req("PEOPLE-3")
def test_role_and_reach_are_both_needed(office: Office) -> None:
    """A viewer has no role, an operator of another reach no reach; an approver contains the operator."""
    office.person("boss", "admin")
    viewer, other = office.person("eve", "viewer"), office.person("cy", "operator", may="billing.*")
    approver = office.person("dan", "approver")
    waiting = office.run(speaks="boss")
    for speaker, word in ((viewer, "roles"), (other, "reach")):
        with pytest.raises(Denied, match=word):
            office.say(waiting.gates[0], speaker)
    with pytest.raises(Denied, match="roles"):
        office.say(waiting.gates[0], viewer, approve=False)
    assert "approved" == office.say(waiting.gates[0], approver).status


@pytest.mark.req("PEOPLE-3")
def test_a_viewer_starts_and_resumes_nothing(office: Office) -> None:
    """It takes an operator to start a run, and to go on with one."""
    office.person("boss", "admin")
    office.person("eve", "viewer")
    waiting = office.run(speaks="boss")
    for run in (None, waiting.run):
        with pytest.raises(Denied, match="operator"):
            office.run(run, speaks="eve")


@pytest.mark.req("PEOPLE-4")
def test_a_quorum_counts_different_people(tmp_path: Path) -> None:
    """Two yes of one person are one; a no of anybody who may answer ends it at once."""
    office = Office(tmp_path, [[SHOP]], gates="- {when: {effect: destructive}, ask: operator, quorum: 2}")
    office.person("boss", "admin")
    one, two = office.person("one", "operator"), office.person("two", "operator")
    waiting = office.run(speaks="boss")
    assert "open" == office.say(waiting.gates[0], one).status
    with pytest.raises(GateNotUsable):
        office.say(waiting.gates[0], one)
    assert "waiting" == office.run(waiting.run, speaks="boss").status
    closed = office.say(waiting.gates[0], two)
    assert ("approved", "one, two") == (closed.status, closed.answered_by)
    assert "done" == office.run(waiting.run, speaks="boss").status
    other = office.run(speaks="boss")
    office.say(other.gates[0], one)
    assert "denied" == office.say(other.gates[0], two, approve=False).status
    assert 1 == len(office.calls("place"))


@pytest.mark.req("PEOPLE-4")
def test_words_to_an_earlier_asking_do_not_count(tmp_path: Path) -> None:
    """One of two said yes, then the target changed: both must speak again."""
    office = Office(tmp_path, [[SHOP]], gates="- {when: {effect: destructive}, ask: operator, quorum: 2}")
    office.person("boss", "admin")
    one, two = office.person("one", "operator"), office.person("two", "operator")
    waiting = office.run(speaks="boss")
    office.say(waiting.gates[0], one)
    office.say(waiting.gates[0], two)
    (office.work / "shop.version").write_text("v9")
    assert "waiting" == office.run(waiting.run, speaks="boss").status
    assert "open" == office.say(waiting.gates[0], two).status
    assert "approved" == office.say(waiting.gates[0], one).status


@pytest.mark.req("PEOPLE-5")
def test_an_escalation_lets_another_role_answer_from_its_time_on(tmp_path: Path) -> None:
    """Before, the second role is refused; after, it may; the first role may all along."""
    rule = "- {when: {effect: destructive}, ask: dba, timeout: 15m, escalate: {after: 5m, to: operator}}"
    office = Office(tmp_path, [[SHOP]], gates=rule)
    office.person("boss", "admin")
    office.person("deb", "dba")
    ops = office.person("ops", "operator")
    waiting = office.run(speaks="boss")
    row, _ = office.gate(waiting.gates[0])
    with pytest.raises(Denied, match="roles"):
        office.say(row.id, ops, at_us=row.opened_us + 299_000_000)
    assert "approved" == office.say(row.id, ops, at_us=row.opened_us + 301_000_000).status


@pytest.mark.req("PEOPLE-6")
def test_a_broken_glass_counts_and_waits_for_somebody_elses_review(tmp_path: Path) -> None:
    """It needs a reason and at least an operator; it stays on the list until an approver who is somebody else reviews it."""
    office = Office(tmp_path, [[SHOP]], gates="- {when: {effect: destructive}, ask: dba, quorum: 2}")
    boss, viewer = office.person("boss", "admin"), office.person("eve", "viewer")
    office.person("deb", "dba")
    ops = office.person("ops", "operator")
    waiting = office.run(speaks="boss")
    gate = waiting.gates[0]
    for speaker, reason, error in ((ops, " ", UsageProblem), (viewer, "fire", Denied)):
        with pytest.raises(error):
            office.say(gate, speaker, reason=reason, break_glass=True)
    assert "approved" == office.say(gate, ops, reason="the shop is down", break_glass=True).status
    assert "done" == office.run(waiting.run, speaks="ops").status
    with wiring.open_store(office.home) as store:
        assert ["ops"] == [item.by for item in store.read(lambda tx: tx.gates.unreviewed())]
        with pytest.raises(Denied):
            answering.review(store, gate, "ops", speaker=ops, text="fine", at_us=wiring.clock())
        answering.review(store, gate, "ops", speaker=boss, text="it was", at_us=wiring.clock())
        assert [] == store.read(lambda tx: tx.gates.unreviewed())
        with pytest.raises(NotFound):
            answering.review(store, gate, "ops", speaker=boss, text="again", at_us=wiring.clock())
    assert [True] == [event.data["break_glass"] for event in office.events(waiting.run, "gate.said")]


@pytest.mark.req("PEOPLE-7")
def test_an_edit_is_another_action_that_asks_again(office: Office) -> None:
    """What was approved before does not count; who edited does not approve; the edited arguments run, and the agent hears of it."""
    office.person("boss", "admin")
    ops, deb = office.person("ops", "operator"), office.person("deb", "operator")
    waiting = office.run(speaks="boss")
    gate = waiting.gates[0]
    office.say(gate, deb)
    before, _ = office.gate(gate)
    with office.opened(token=office.tokens["ops"]) as kernel:
        kernel.edit(gate, {"service": "shop", "version": "v3"}, reason="v2 is broken")
    after, card = office.gate(gate)
    assert ("open", True, "ops") == (after.status, before.digest != after.digest, after.edited_by)
    assert ({"service": "shop", "version": "v3"}, {"service": "shop", "version": "v2"}, "shop: none -> v3") == (
        card["arguments"],
        card["proposed"],
        card["preview"],
    )
    assert ("waiting", []) == (office.run(waiting.run, speaks="boss").status, office.calls())
    with pytest.raises(Denied, match="wrote these arguments"):
        office.say(gate, ops)
    office.say(gate, deb)
    assert ("done", ["place shop v3"]) == (office.run(waiting.run, speaks="boss").status, office.calls())
    with wiring.open_store(office.home) as store:
        done = [item for item in store.read(lambda tx: tx.effects.list(waiting.run)) if item.tool == "ops.place"]
        body = store.read(lambda tx: tx.blobs.get(done[0].result or ""))
    assert b"a person changed the arguments" in (body or b"")


@pytest.mark.req("PEOPLE-7")
@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"service": "shop"}, UsageProblem),
        ({"service": 7, "version": "v3"}, UsageProblem),
        ({"service": "shop", "version": "v2"}, UsageProblem),
        ({"service": "shop", "version": "v3", "more": 1}, UsageProblem),
        ({"service": "vault", "version": "v3"}, Denied),
    ],
)
def test_an_edit_passes_every_guard_again(tmp_path: Path, arguments: dict[str, object], error: type[Exception]) -> None:
    """What does not fit the contract, changes nothing, or no grant covers, is refused and leaves the gate as it was."""
    office = Office(tmp_path, [[SHOP]])
    fleet = office.fleet / "fleet.yaml"
    fleet.write_text(fleet.read_text().replace('"gates.*"]}', '"gates.*"], where: {service: "sh*"}}'))
    waiting = office.run()
    before, _ = office.gate(waiting.gates[0])
    with office.opened() as kernel, pytest.raises(error):
        kernel.edit(waiting.gates[0], arguments)
    assert before == office.gate(waiting.gates[0])[0]


@pytest.mark.req("PEOPLE-7")
def test_an_edit_does_not_talk_a_gate_away(tmp_path: Path) -> None:
    """The rule is about `shop`; edited to `cart` no rule applies, and still somebody must say yes to the new action."""
    office = Office(tmp_path, [[SHOP]], gates="- {when: {role: {target: shop}}, ask: operator}")
    waiting = office.run()
    with office.opened() as kernel:
        kernel.edit(waiting.gates[0], {"service": "cart", "version": "v2"})
    assert ("waiting", []) == (office.run(waiting.run).status, office.calls())
    office.say(waiting.gates[0], Speaker("local:bob"))
    assert ("done", ["place cart v2"]) == (office.run(waiting.run).status, office.calls())


@pytest.mark.req("PEOPLE-8")
@pytest.mark.parametrize(
    ("value", "answer", "choice"),
    [
        ({"answer": "green"}, "green", "green"),
        ({"choice": "blue"}, "blue", "blue"),
        ({"answer": "ask Bo"}, "ask Bo", None),
    ],
)
def test_an_agent_asks_a_person(tmp_path: Path, value: dict[str, str], answer: str, choice: str | None) -> None:
    """The run waits as a row; the answer reaches the agent as the tool's result, with who gave it."""
    ask = ("gates.request_human", {"question": "Which colour?", "choices": ["green", "blue"], "urgency": "high"})
    office = Office(tmp_path, [[ask]])
    waiting = office.run()
    row, card = office.gate(waiting.gates[0])
    assert ("waiting", "question", 900_000_000) == (waiting.status, row.kind, row.expires_us - row.opened_us)
    assert ("Which colour?", ["green", "blue"]) == (card["reason"], card["arguments"]["choices"])
    for wrong in (None, {"answer": ""}, {"choice": "red"}):
        with pytest.raises(UsageProblem):
            office.say(row.id, value=wrong)
    office.say(row.id, value=value)
    result = office.run(waiting.run)
    with wiring.open_store(office.home) as store:
        done = [item for item in store.read(lambda tx: tx.effects.list(result.run)) if item.kind == "tool"]
        body = store.read(lambda tx: tx.blobs.get(done[0].result or ""))
    assert "done" == result.status
    assert {"answer": answer, "choice": choice, "by": "local:ann"} == json.loads(body or b"{}")["data"]


@pytest.mark.req("PEOPLE-8")
def test_a_question_that_nobody_answers_is_told_as_such(tmp_path: Path) -> None:
    """A no, or no answer in time, is `denied` for the agent; yes-or-no gates take no words."""
    office = Office(tmp_path, [[("gates.request_human", {"question": "Which colour?"})], [SHOP]])
    waiting = office.run()
    office.say(waiting.gates[0], approve=False)
    second = office.run(waiting.run)
    assert ("waiting", ["denied"]) == (second.status, office.answers(waiting.run))
    with pytest.raises(UsageProblem):
        office.say(second.gates[0], value={"answer": "yes please"})


@pytest.mark.req("PEOPLE-9")
def test_a_canary_looks_like_any_gate_and_a_yes_to_it_does_nothing_but_tell(tmp_path: Path) -> None:
    """It opens beside the real question, holds nobody up, runs nothing, and who waved it through is on record."""
    office = Office(tmp_path, [[SHOP]], extra="review: {canary: 1}")
    waiting = office.run()
    with wiring.open_store(office.home) as store:
        rows = store.read(lambda tx: tx.gates.list(statuses=("open",)))
    real, canary = sorted(rows, key=lambda row: row.kind)
    assert (("action", "canary"), waiting.gates) == ((real.kind, canary.kind), (real.id,))
    assert {"service": "*", "version": "v2"} == office.gate(canary.id)[1]["arguments"]
    office.say(canary.id)
    office.say(real.id)
    assert ("done", ["place shop v2"]) == (office.run(waiting.run).status, office.calls())
    assert [True] == [event.data["missed"] for event in office.events(waiting.run, "canary.answered")]


@pytest.mark.req("PEOPLE-4")
@pytest.mark.parametrize("lost", [{"disabled_us": 1}, {"roles": "viewer"}])
def test_a_yes_of_somebody_who_lost_the_right_is_not_counted_with_later_ones(
    tmp_path: Path, lost: dict[str, object]
) -> None:
    """One of two said yes and was then disabled, or lost the role: the other's yes is only the first."""
    office = Office(tmp_path, [[SHOP]], gates="- {when: {effect: destructive}, ask: operator, quorum: 2}")
    office.person("boss", "admin")
    one, two, three = (office.person(name, "operator") for name in ("one", "two", "three"))
    gate = office.run(speaks="boss").gates[0]
    office.say(gate, one)
    with wiring.open_store(office.home) as store:
        store.write(lambda tx: tx.principals.update("one", **lost))
    assert ["open", "approved"] == [office.say(gate, speaker).status for speaker in (two, three)]


@pytest.mark.req("PEOPLE-7")
def test_an_edit_at_the_very_moment_of_use_is_asked_about(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The yes was read, and before the intent is written somebody changes the action: nothing runs, the new action waits."""
    office = Office(tmp_path, [[SHOP]])
    waiting = office.run()
    office.say(waiting.gates[0])
    begin = Journal.begin

    async def late(self: Journal, p: Passage) -> object:
        gate = self._seg.store.read(lambda tx: tx.gates.get(p.effect))
        assert gate is not None
        self._seg.store.write(lambda tx: tx.gates.amend(replace(gate, nonce="n" * 32, digest="d", status="open")))
        return await begin(self, p)

    with monkeypatch.context() as patched:
        patched.setattr(Journal, "begin", late)
        again = office.run(waiting.run)
    assert ("waiting", waiting.gates, []) == (again.status, again.gates, office.calls())


@pytest.mark.req("PEOPLE-8")
def test_a_credential_in_a_persons_words_is_kept_by_nobody(tmp_path: Path) -> None:
    """Pasted into an answer or a reason, it reaches neither agent nor ledger nor file."""
    office = Office(tmp_path, [[("gates.request_human", {"question": "Which key?"})], [SHOP]])
    secret = "sk-" + "abcdefghijklmnopqrstuvwxyz012345"
    first = office.run()
    office.say(first.gates[0], value={"answer": f"use {secret}"}, reason=secret)
    second = office.run(first.run)
    office.say(second.gates[0], approve=False, reason=f"not with {secret}")
    assert "done" == office.run(first.run).status
    assert not any(secret.encode() in path.read_bytes() for path in office.home.iterdir() if path.is_file())
