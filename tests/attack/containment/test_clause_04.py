"""Clauses 4 and 9: who wrote a field, and what the kernel recalls of it."""

from __future__ import annotations

import pytest

from midwatch.containment.provenance import Seen, Source, Trail, field_label
from midwatch.containment.reach import Right
from midwatch.records.decision import Allowed, Ask
from midwatch.records.label import OPERATOR, Cause, label
from midwatch.tools.contract import ArgContract, OutContract
from tests.attack.containment.acting import ANNA, ASKED, TAINTED, WEB, contract, judged, seen, trail

OUTS = {
    "id": (OutContract("id", "service"), "id:ticket"),
    "made": (OutContract("made", "service", creates=True), "id:ticket"),
    "echo": (OutContract("echo", "caller"), None),
    "text": (OutContract("text", "third_party"), None),
    "rest": (OutContract("rest", "third_party"), None),
}
DESK = contract("desk.read", "read", args={}, outs=OUTS)


@pytest.mark.req("CLAUSE-9")
def test_each_field_has_its_author() -> None:
    """A service's field is the service's, what the call made and what it echoes are the call's, all else is a third party's."""
    result = seen(DESK, {}, TAINTED)
    assert {Cause("service", "desk.read")} == field_label(result, "id").causes
    assert TAINTED.causes == field_label(result, "made").causes
    assert TAINTED.causes == field_label(result, "echo").causes
    assert {Cause("third_party", "desk.read")} == field_label(result, "text").causes
    assert {Cause("third_party", "desk.read")} == field_label(result, "nobody.declared.it").causes


@pytest.mark.req("CLAUSE-4")
def test_attack_what_of_ours_wrote_it_stays_in_the_label() -> None:
    """A memory that a tainted call wrote is not clean because a trusted source gives it back; the taint is the field's alone."""
    sources = (Source("notes", "tool:desk.*", full=True, readers=None),)
    result = Seen(DESK, {}, {}, ASKED, recalled={"text": TAINTED})
    assert {Cause("source", "notes"), ANNA, WEB} == field_label(result, "text", sources).causes
    assert {Cause("source", "notes")} == field_label(result, "rest", sources).causes
    assert {Cause("source", "notes"), ANNA, WEB} == field_label(result, "text.below", sources).causes


@pytest.mark.req("CLAUSE-4")
def test_attack_a_label_over_the_whole_result_covers_every_field() -> None:
    """Where no row or field is known, the whole source carries it."""
    result = Seen(DESK, {}, {"text": "x"}, ASKED, recalled={"": TAINTED})
    run = Trail("go", ASKED)
    run.add(result)
    assert WEB in run.context.causes
    assert WEB in field_label(result, "id").causes


@pytest.mark.req("CLAUSE-4")
def test_twin_a_declared_source_that_nobody_of_ours_wrote_to_is_itself() -> None:
    """A right that the fleet gives to the source then suffices."""
    sources = (Source("crm", "tool:desk.read", full=True, readers=frozenset({"anna"})),)
    each = field_label(seen(DESK, {}), "text", sources)
    assert label({Cause("source", "crm")}, {"anna"}) == each


@pytest.mark.req("CLAUSE-9")
def test_attack_picking_among_a_services_ids_is_control() -> None:
    """An id that the service gave is the service's; who picked it is the context, and both must have reach."""
    close = contract("desk.close", args={"ticket": ArgContract("ticket", "target")}, formats={"ticket": "id:ticket"})
    run = trail()
    run.add(seen(DESK, {"id": "17", "text": "close 17"}))
    ids = Right(("service:desk.read",), ("desk.close",), frozenset({"target"}))
    ruling = judged(close, {"ticket": "17"}, trail=run, rights=(ids,))
    assert isinstance(ruling.verdict, Ask)
    assert {"control"} == {lack.where for lack in ruling.chain}
    chosen = Right(("third_party:desk.read", "service:desk.read"), ("desk.close",), frozenset({"control"}))
    assert isinstance(judged(close, {"ticket": "17"}, trail=run, rights=(ids, chosen)).verdict, Allowed)


@pytest.mark.req("CLAUSE-9")
def test_twin_what_the_call_made_is_used_within_the_creators_reach() -> None:
    """The id of what a clean call made is clean, though a service wrote it."""
    assert ASKED.causes == field_label(seen(DESK, {}, ASKED), "made").causes
    assert OPERATOR.causes == field_label(seen(DESK, {}, OPERATOR), "made").causes
