"""Attacks on who may speak: rights taken back, names taken over, channels led elsewhere; whole runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from midwatch import wiring
from midwatch.engine import answering, people
from midwatch.engine.identity import local
from midwatch.errors import Denied, UsageProblem
from midwatch.gates.review import Speaker
from midwatch.records.principal import hash_token, new_token
from midwatch.store.port import Store
from midwatch.surfaces.cli.speaking import speaker
from tests.attack.attacked import SHOP, update, within
from tests.scenario.office import Office


@pytest.mark.req("ATTACK-1")
def test_rights_taken_back_after_the_token_was_read_are_gone(tmp_path: Path) -> None:
    """A process that proved who it is keeps running while its person is disabled or the leaked token replaced: no word counts."""
    office = Office(tmp_path, [[SHOP]])
    office.person("root", "admin")
    bob, cat = office.person("bob", "operator"), office.person("cat", "operator")
    gate = office.run(speaks="root").gates[0]
    update(office, "bob", disabled_us=1)
    update(office, "cat", token_hash=hash_token(new_token()))
    for person, approve in ((bob, True), (bob, False), (cat, True), (cat, False)):
        with pytest.raises(Denied, match="taken back"):
            office.say(gate, person, approve=approve)
    assert ("open", []) == (office.gate(gate)[0].status, within(office, lambda tx: list(tx.gates.said(gate))))


@pytest.mark.req("ATTACK-1")
def test_a_glass_is_not_broken_and_not_reviewed_by_who_was_disabled(tmp_path: Path) -> None:
    """Neither the emergency yes nor its review is open to somebody whose rights were taken meanwhile."""
    office = Office(tmp_path, [[SHOP]], gates="- {when: {effect: [destructive]}, ask: admin}")
    office.person("root", "admin")
    office.person("ida", "admin")
    bob, cat, dan = office.person("bob", "operator"), office.person("cat", "approver"), office.person("dan", "operator")
    gate = office.run(speaks="root").gates[0]
    update(office, "bob", disabled_us=1)
    with pytest.raises(Denied, match="taken back"):
        office.say(gate, bob, break_glass=True, reason="fire")
    assert "approved" == office.say(gate, dan, break_glass=True, reason="fire").status
    update(office, "cat", disabled_us=1)
    with pytest.raises(Denied, match="taken back"), wiring.open_store(office.home) as store:
        answering.review(store, gate, "dan", speaker=cat, text="fine", at_us=wiring.clock())


@pytest.mark.req("ATTACK-1")
def test_whoever_works_on_the_machine_falls_silent_with_the_first_token(tmp_path: Path) -> None:
    """A prompt that was opened before the home knew anybody is answered after: the name of one's own choice counts no more."""
    office = Office(tmp_path, [[SHOP]])
    gate = office.run().gates[0]
    office.person("root", "admin")
    with pytest.raises(Denied, match="by token by now"):
        office.say(gate, Speaker("local:eve"))
    assert "open" == office.gate(gate)[0].status


@pytest.mark.req("ATTACK-1")
def test_two_processes_do_not_both_make_the_first_admin(tmp_path: Path) -> None:
    """Both found the home empty; the second one is too late, and may not rotate, enable or change anybody either."""
    office = Office(tmp_path, [[SHOP]])
    eve = local("eve", "cli")

    def add(store: Store, name: str, speaker: Speaker) -> None:
        people.add(store, name, roles=["admin"], may=["*"], speaker=speaker, at_us=1)

    with wiring.open_store(office.home, create=True) as store:
        add(store, "root", local("ann", "cli"))
        for attempt in (
            lambda: add(store, "eve", eve),
            lambda: people.rotate(store, "root", speaker=eve, at_us=2),
            lambda: people.change(store, "root", roles=["viewer"], may=[], speaker=eve, at_us=2),
        ):
            with pytest.raises(Denied, match="by token"):
                attempt()
        assert ["root"] == [row.name for row in store.read(lambda tx: tx.principals.list())]


@pytest.mark.req("ATTACK-1")
def test_who_was_given_more_meanwhile_may_do_more(tmp_path: Path) -> None:
    """The benign twin: a viewer who became an operator need not prove again who they are."""
    office = Office(tmp_path, [[SHOP]])
    office.person("root", "admin")
    bob, _ = office.person("bob", "viewer"), office.person("cat", "operator")
    gate = office.run(speaks="root").gates[0]
    update(office, "bob", roles="operator")
    assert "approved" == office.say(gate, bob).status


@pytest.mark.req("ATTACK-2")
@pytest.mark.parametrize("lost", [{"disabled_us": 1}, {"roles": "viewer"}, {"may": "billing.*"}])
def test_a_yes_does_not_outlive_the_right_to_say_it(tmp_path: Path, lost: dict[str, Any]) -> None:
    """The approver turns out to be bought and is disabled before the run goes on: nothing runs, somebody else is asked."""
    office = Office(tmp_path, [[SHOP]])
    office.person("root", "admin")
    bob, cat = office.person("bob", "operator"), office.person("cat", "operator")
    waiting = office.run(speaks="root")
    office.say(waiting.gates[0], bob)
    update(office, "bob", **lost)
    again = office.run(waiting.run, speaks="root")
    assert ("waiting", "open", []) == (again.status, office.gate(waiting.gates[0])[0].status, office.calls())
    office.say(waiting.gates[0], cat)
    assert ("done", ["place shop v2"]) == (office.run(waiting.run, speaks="root").status, office.calls())


@pytest.mark.req("ATTACK-2")
def test_a_yes_counts_only_for_the_roles_that_are_left(tmp_path: Path) -> None:
    """One word for two needs, then one of the roles is lost: that need is open again, the other stays met."""
    rules = "- {when: {effect: [destructive]}, ask: operator, quorum: 2}\n- {when: {tool: ops.place}, ask: finance}"
    office = Office(tmp_path, [[SHOP]], gates=rules)
    office.person("root", "admin")
    bob, cat = office.person("bob", "operator", "finance"), office.person("cat", "operator")
    fay = office.person("fay", "finance")
    gate = office.run(speaks="root").gates[0]
    office.say(gate, bob)
    update(office, "bob", roles="operator")
    assert ["open", "approved"] == [office.say(gate, speaker).status for speaker in (cat, fay)]


@pytest.mark.req("ATTACK-2")
def test_a_yes_stands_when_its_giver_has_more_rights_than_before(tmp_path: Path) -> None:
    """The benign twin: promoted, with a new token, and somebody else disabled: the one yes is enough."""
    office = Office(tmp_path, [[SHOP]])
    office.person("root", "admin")
    bob = office.person("bob", "operator")
    office.person("cat", "operator")
    waiting = office.run(speaks="root")
    office.say(waiting.gates[0], bob)
    update(office, "bob", roles="approver", token_hash=hash_token(new_token()))
    update(office, "cat", disabled_us=1)
    assert ("done", ["place shop v2"]) == (office.run(waiting.run, speaks="root").status, office.calls())


@pytest.mark.req("ATTACK-10")
def test_who_asked_under_the_login_name_does_not_answer_with_a_token(tmp_path: Path) -> None:
    """The run was started before the home knew anybody; then the same person gets a token. Somebody else still may."""
    office = Office(tmp_path, [[SHOP]])
    gate = office.run().gates[0]
    ann, bob = office.person("ann", "admin"), office.person("bob", "operator")
    with pytest.raises(Denied, match="who asks does not answer"):
        office.say(gate, ann)
    assert "approved" == office.say(gate, bob).status


TELLS = "- {when: {effect: [destructive]}, ask: approver, channels: [ops]}"


def told(url: str, principal: str) -> str:
    """The channel of a fleet file, as who writes it wants it."""
    return f"channels: {{ops: {{url: 'http://127.0.0.1:{url}', principal: {principal}}}}}"


@pytest.mark.req("ATTACK-12")
def test_an_operator_does_not_lead_an_approvers_links_to_themselves(tmp_path: Path) -> None:
    """A fleet file of the same name whose channel speaks for the approver, or for oneself instead, starts nothing and changes nothing."""
    office = Office(tmp_path, [[SHOP]], gates=TELLS, extra=told("1/good", "app"))
    office.person("root", "admin")
    office.person("app", "approver")
    office.person("eve", "operator")
    with pytest.raises(Denied, match="speaks for `app`"):
        office.run(speaks="eve")
    assert "waiting" == office.run(speaks="app").status
    kept = within(office, lambda tx: tx.watch.setting("channel:office:ops"))
    for extra in (
        told("1/evil", "app"),
        told("1/evil", "eve"),
        told("1/good", "app") + "\nreview: {links: 'http://127.0.0.1:2'}",
    ):
        office.rules(TELLS, extra)
        with pytest.raises(Denied, match="speaks for"):
            office.run(speaks="eve")
    assert kept == within(office, lambda tx: tx.watch.setting("channel:office:ops"))
    assert 1 == len(within(office, lambda tx: list(tx.runs.list())))


@pytest.mark.req("ATTACK-12")
def test_everybody_starts_runs_with_a_channel_that_is_known(tmp_path: Path) -> None:
    """The benign twin: vouched for once by an admin, the fleet is anybody's to run; one's own channel needs nobody."""
    office = Office(tmp_path, [[SHOP]], gates=TELLS, extra=told("1/good", "app"))
    office.person("root", "admin")
    office.person("app", "approver")
    office.person("eve", "operator")
    assert ["waiting", "waiting"] == [office.run(speaks=name).status for name in ("root", "eve")]
    office.rules(TELLS.replace("[ops]", "[mine]"), told("1/good", "eve").replace("ops:", "mine:"))
    assert "waiting" == office.run(speaks="eve").status


@pytest.mark.req("ATTACK-14")
def test_a_chosen_name_is_one_plain_name(tmp_path: Path) -> None:
    """Two names with a comma, a line of its own, what turns the text round, nothing or a flood; a plain name is taken."""
    with wiring.open_store(tmp_path / "home", create=True) as store:
        for name in ("bob, root", "bob\napprove by root", "bob\u202e", "\x1b[2J", "", "b" * 65):
            with pytest.raises(UsageProblem, match="one name"):
                speaker(store, None, name)
        assert "Bo Ö." == speaker(store, None, "Bo Ö.").name
