"""Clauses 6, 7, 8, 10, 19: roles, referents, content that is acted on, and the table."""

from __future__ import annotations

from typing import Any

import pytest

from midwatch.containment.roles import needs_reach, observers, places
from midwatch.records.decision import Allowed, Ask, Denied
from midwatch.records.effect import EFFECT_CLASSES, ROLES, EffectClass, Role
from midwatch.records.label import UNKNOWN_CAUSE
from midwatch.tools.contract import ArgContract
from tests.attack.containment.acting import ASKED, TAINTED, WEB, contract, judged, trail

INERT = ArgContract("body", "content", interprets=False)
TABLE: dict[EffectClass, set[Role]] = {
    "pure": set(),
    "read": {"target", "command", "credential"},
    "write": {"target", "command", "credential", "selector", "quantity", "control"},
    "destructive": {"target", "command", "credential", "selector", "quantity", "control", "content"},
    "grants_authority": set(ROLES),
}


@pytest.mark.req("CLAUSE-6")
def test_attack_an_undeclared_argument_is_a_command_at_any_depth() -> None:
    """Values in lists, in maps, and keys of the caller's choice are commands where the author said nothing."""
    tool = contract(args={"to": ArgContract("to", "target"), "more": None})
    found = places(tool, {"to": ["a", "b"], "more": {"x": [1, {"y": True}], "z": None}})
    assert ["target", "target"] == [place.role for place in found if place.name == "to"]
    assert {"command"} == {place.role for place in found if place.name.startswith("more")}
    assert {"x", "z", "y", 1} == {place.value for place in found if place.name.startswith("more")}
    assert len({place.key for place in found}) == len(found)


@pytest.mark.req("CLAUSE-6")
def test_attack_more_than_can_be_looked_through_is_denied() -> None:
    """A call of too many values, or nested too deep, is not waved through."""
    tool = contract(args={"to": None})
    deep: Any = "x"
    for _ in range(100):
        deep = [deep]
    assert isinstance(judged(tool, {"to": ["x"] * 10_001}, ASKED).verdict, Denied)
    assert isinstance(judged(tool, {"to": deep}, ASKED).verdict, Denied)
    assert isinstance(judged(tool, {"to": deep}, trail=trail()).verdict, Denied)


@pytest.mark.req("CLAUSE-6")
def test_twin_declared_roles_are_what_the_author_said() -> None:
    """A field inside an argument may have a role of its own."""
    tool = contract(args={"order": ArgContract("order", "content", interprets=False)})
    assert ["content"] == [place.role for place in places(tool, {"order": {"note": "x"}}) if place.key == "order.note"]


@pytest.mark.req("CLAUSE-7")
def test_attack_a_trusted_name_of_a_tainted_thing() -> None:
    """A path that the request named, to a file that a tainted call wrote, is used as what it holds."""
    copy = contract("files.run", args={"path": ArgContract("path", "target", deref="command")})
    ruling = judged(copy, {"path": "x.sh"}, ASKED, referents={"path": TAINTED})
    assert isinstance(ruling.verdict, Ask)
    assert {("what path refers to", WEB)} == {(lack.where, lack.cause) for lack in ruling.chain}


@pytest.mark.req("CLAUSE-7")
def test_attack_an_unresolvable_referent_is_unknown() -> None:
    """Nothing is known of it, so it asks, and without anybody to ask it is denied."""
    copy = contract("files.run", args={"path": ArgContract("path", "target", deref="command")})
    assert {UNKNOWN_CAUSE} == {lack.cause for lack in judged(copy, {"path": "x"}, ASKED).chain}
    assert isinstance(judged(copy, {"path": "x"}, ASKED, asked=()).verdict, Denied)


@pytest.mark.req("CLAUSE-7")
def test_twin_a_referent_that_is_used_as_content_may_be_anybodys() -> None:
    """What is written somewhere as inert content needs no reach; its label is in the action's."""
    copy = contract("files.copy", args={"path": ArgContract("path", "target", deref="content")})
    ruling = judged(copy, {"path": "x"}, ASKED, referents={"path": TAINTED})
    assert isinstance(ruling.verdict, Allowed)
    assert WEB in ruling.label.causes


@pytest.mark.req("CLAUSE-7")
def test_twin_a_read_of_something_unknown_leaves_its_label_to_what_it_gives() -> None:
    """What a closed read refers to comes back as fields with labels of their own; a write to something unknown stays unknown."""
    cases: tuple[tuple[EffectClass, bool], ...] = (("read", False), ("write", True))
    for effect, unknown in cases:
        tool = contract("files.open", effect, args={"path": ArgContract("path", "target", deref="content")})
        assert unknown == (not judged(tool, {"path": "x"}, ASKED).label.known)


@pytest.mark.req("CLAUSE-8")
@pytest.mark.parametrize(
    "arg",
    [
        ArgContract("body", "content"),
        ArgContract("body", "content", interprets=True),
        ArgContract("body", "content", interprets=False, executed_by="cron"),
        ArgContract("body", "selector", executed_by="cron"),
    ],
)
def test_attack_content_that_somebody_acts_on_is_a_command(arg: ArgContract) -> None:
    """A bot that reads `/merge`, a file that cron runs: content with an effect is a command."""
    tool = contract(args={"body": arg})
    assert ["command"] == [place.role for place in places(tool, {"body": "/merge"})]


@pytest.mark.req("CLAUSE-8")
def test_twin_inert_content_may_be_anybodys() -> None:
    """A text that nobody acts on, in a write that the request chose, may hold what was read."""
    tool = contract(args={"to": ArgContract("to", "target"), "body": INERT})
    assert isinstance(judged(tool, {"to": "x", "body": "y"}, ASKED, labels={"body": TAINTED}).verdict, Allowed)
    assert isinstance(judged(tool, {"to": "x", "body": "y"}, ASKED, labels={"to": TAINTED}).verdict, Ask)


@pytest.mark.req("CLAUSE-10")
def test_attack_a_read_that_changes_something_is_judged_as_that() -> None:
    """Marking a mail as read, declared as a write, needs control; a mere read of the closed world does not."""
    marks = contract("mail.unread", "write", args={})
    assert isinstance(judged(marks, {}, TAINTED).verdict, Ask)
    assert isinstance(judged(contract("mail.list", "read", args={}), {}, TAINTED).verdict, Allowed)


@pytest.mark.req("CLAUSE-10")
def test_observers_are_who_the_contract_says_and_everyone_when_it_is_wrong() -> None:
    """Fixed names, the values of an argument, everyone; an argument that does not exist is everyone."""
    tool = contract(observers=("host", "argument:to"))
    assert frozenset({"host", "a", "b"}) == observers(tool, places(tool, {"to": ["a", "b"]}))
    assert observers(contract(observers=("argument:nobody",)), ()) is None
    assert observers(contract(observers=("everyone",)), ()) is None
    assert frozenset() == observers(contract(effect="pure", observers=("everyone",)), ())


@pytest.mark.req("CLAUSE-19")
def test_the_table_is_the_table() -> None:
    """Which roles need reach, for each effect class."""
    assert TABLE == {effect: {role for role in ROLES if needs_reach(effect, role)} for effect in EFFECT_CLASSES}
    assert needs_reach("anything", "content")  # type: ignore[arg-type]  # what a foreign contract might say
    assert needs_reach("write", "anything")  # type: ignore[arg-type]  # as above


@pytest.mark.req("CLAUSE-19")
@pytest.mark.parametrize("effect", EFFECT_CLASSES)
@pytest.mark.parametrize("role", ROLES)
def test_attack_and_twin_of_every_cell(effect: EffectClass, role: Role) -> None:
    """One tainted value in that role: asked about where the table says so, else allowed; a clean one is allowed."""
    tool = contract("x.y", effect, args={"it": ArgContract("it", role, interprets=False)})
    tainted = judged(tool, {"it": "v"}, ASKED, labels={"it": TAINTED}, endorsed=True)
    assert (role in TABLE[effect]) == isinstance(tainted.verdict, Ask)
    assert isinstance(judged(tool, {"it": "v"}, ASKED, endorsed=True).verdict, Allowed)


@pytest.mark.req("CLAUSE-19")
def test_attack_authority_is_not_granted_without_an_endorsement() -> None:
    """Full reach of every cause is not enough, nor is a mandate."""
    tool = contract("iam.grant", "grants_authority", args={})
    assert isinstance(judged(tool, {}, ASKED).verdict, Ask)
    assert isinstance(judged(tool, {}, ASKED, endorsed=True).verdict, Allowed)
