"""Clause 1: labels, their algebra, their JSON."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from midwatch.records.label import EVERYONE, OPERATOR, UNKNOWN, Cause, Label, join, label
from tests.attack.containment.acting import ANNA, ASKED, TAINTED, WEB, contract, judged

CAUSES = st.one_of(
    st.just(Cause("operator")),
    st.just(Cause("unknown")),
    st.builds(
        Cause,
        st.sampled_from(["person", "source", "service", "caller", "third_party", "agent"]),
        st.sampled_from("abc"),
    ),
)
LABELS = st.builds(
    label,
    st.frozensets(CAUSES, min_size=1, max_size=4),
    st.one_of(st.just(EVERYONE), st.frozensets(st.sampled_from(["anna", "ben", "route"]))),
)


@pytest.mark.req("CLAUSE-1")
@given(LABELS, LABELS, LABELS)
def test_a_join_is_a_join(left: Label, right: Label, third: Label) -> None:
    """Order, grouping and repetition change nothing; what is joined has every cause of both and only their common readers."""
    both = join(left, right)
    assert both == join(right, left)
    assert join(join(left, right), third) == join(left, join(right, third))
    assert join(left, left) is left
    assert left.causes | right.causes == both.causes
    for each in (left, right):
        assert each.readers is None or (both.readers is not None and both.readers <= each.readers)


@pytest.mark.req("CLAUSE-1")
@given(LABELS)
def test_a_label_is_one_object_and_survives_the_ledger(each: Label) -> None:
    """Equal labels are one object, and JSON gives the same one back."""
    assert Label.from_json(each.to_json()) is each
    assert label(each.causes, each.readers) is each


@pytest.mark.req("CLAUSE-1")
@pytest.mark.parametrize(
    "body",
    [
        None,
        {},
        [],
        "operator",
        {"causes": [], "readers": "everyone"},
        {"causes": ["operator"], "readers": "nobody"},
        {"causes": ["root"], "readers": "everyone"},
        {"causes": ["operator:x"], "readers": []},
        {"causes": ["person:"], "readers": []},
        {"causes": "operator", "readers": "everyone"},
        {"causes": ["operator"], "readers": "everyone", "trusted": True},
        {"causes": ["operator", 1], "readers": "everyone"},
    ],
)
def test_attack_a_broken_label_is_unknown_never_clean(body: object) -> None:
    """What is no label reads as the unknown one."""
    assert Label.from_json(body) is UNKNOWN


@pytest.mark.req("CLAUSE-1")
def test_attack_nothing_joins_to_something_trusted() -> None:
    """A value made from nothing, or from something without a label, is unknown."""
    assert join() is UNKNOWN
    assert not join(OPERATOR, None).known
    assert frozenset() == join(OPERATOR, None).readers
    assert label(()) is UNKNOWN


@pytest.mark.req("CLAUSE-1")
def test_attack_one_tainted_cause_among_many_is_not_outvoted() -> None:
    """The cause that lacks reach is named, however many have it."""
    ruling = judged(contract(), {"to": "x"}, join(ASKED, OPERATOR, TAINTED))
    assert {WEB} == {lack.cause for lack in ruling.chain}


@pytest.mark.req("CLAUSE-1")
def test_twin_what_only_people_with_reach_caused_is_allowed() -> None:
    """The operator's and the requester's causes together need nobody."""
    assert "allowed" == type(judged(contract(), {"to": "x"}, join(ASKED, OPERATOR)).verdict).__name__.lower()
    assert {ANNA, Cause("operator")} == judged(contract(), {"to": "x"}, join(ASKED, OPERATOR)).label.causes
