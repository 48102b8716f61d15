"""Clauses 18, 20, 21, 22: do, confinement, who is asked, who may see."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from midwatch.containment.mandates import Balance, Line, Mandate, issue
from midwatch.containment.reach import Reach, Right
from midwatch.containment.slots import Pattern, one_of
from midwatch.containment.verdict import Action, Authority, decide
from midwatch.records.decision import Allowed, Ask, Denied
from midwatch.records.effect import EFFECT_CLASSES, ROLES, EffectClass, Role
from midwatch.records.label import EVERYONE, OPERATOR, UNKNOWN, Cause, Label, join, label
from midwatch.tools.contract import ArgContract
from tests.attack.containment.acting import ANNA, ASKED, MAY, TAINTED, WEB, contract, judged

DO = Denied("`clerk` is not allowed to do this", by="grants")
MAIL = contract(
    "mail.send",
    args={"to": ArgContract("to", "target"), "body": ArgContract("body", "content", interprets=False)},
    formats={"to": "email"},
    observers=("argument:to",),
)
PRIVATE = label({ANNA, Cause("source", "crm")}, {"anna"})
CRM = Right(("source:crm",), ("mail.*",), frozenset({"control", *ROLES}))


@pytest.mark.req("CLAUSE-18")
def test_attack_full_reach_does_not_lift_what_the_agent_may_not_do() -> None:
    """Neither the operator's label, nor a mandate, nor a confined place makes it allowed, and nobody is asked."""
    line = Line("a", "mail.send", {"to": (one_of("x"),)})
    cases: list[dict[str, Any]] = [{}, {"lines": (line,)}, {"confined": True}]
    for more in cases:
        assert DO is judged(contract(), {"to": "x"}, OPERATOR, do=DO, **more).verdict


@pytest.mark.req("CLAUSE-18")
def test_twin_within_its_do_the_request_suffices() -> None:
    """What the grants allow and the requester asked for is done."""
    assert isinstance(judged(contract(), {"to": "x"}, ASKED, do=MAY).verdict, Allowed)


@pytest.mark.req("CLAUSE-20")
def test_twin_confined_work_is_free() -> None:
    """Inside a disposable overlay even an unknown context may write; its label stays on what it makes."""
    ruling = judged(contract(args={"to": None}), {"to": "rm -rf x"}, None, confined=True)
    assert isinstance(ruling.verdict, Allowed)
    assert UNKNOWN == ruling.label


@pytest.mark.req("CLAUSE-20")
def test_attack_outside_or_with_a_credential_the_bar_is_back() -> None:
    """The same call at the broker needs reach, and so does one that carries a credential."""
    assert isinstance(judged(contract(args={"to": None}), {"to": "x"}, TAINTED).verdict, Ask)
    keyed = contract(args={"key": ArgContract("key", "credential")})
    assert isinstance(judged(keyed, {"key": "x"}, TAINTED, confined=True).verdict, Ask)


@pytest.mark.req("CLAUSE-21")
def test_it_is_asked_only_where_somebody_has_the_reach() -> None:
    """The requester or the operator exists: asked. A person without reach, or nobody: denied."""
    assert isinstance(judged(contract(), {"to": "x"}, TAINTED, asked=(ANNA,)).verdict, Ask)
    assert isinstance(judged(contract(), {"to": "x"}, TAINTED, asked=(Cause("operator"),)).verdict, Ask)
    assert isinstance(judged(contract(), {"to": "x"}, TAINTED, asked=(Cause("person", "eve"),)).verdict, Denied)
    assert isinstance(judged(contract(), {"to": "x"}, TAINTED, asked=()).verdict, Denied)


@pytest.mark.req("CLAUSE-21")
def test_twin_a_person_with_a_right_to_just_that_is_asked() -> None:
    """Reach over what lacks is enough; reach over a part of it is not."""
    ben = Cause("person", "ben")
    both = Right(("person:ben",), ("mail.*",), frozenset({"control", "target"}))
    half = Right(("person:ben",), ("mail.*",), frozenset({"target"}))
    assert isinstance(judged(contract(), {"to": "x"}, TAINTED, asked=(ben,), rights=(both,)).verdict, Ask)
    assert isinstance(judged(contract(), {"to": "x"}, TAINTED, asked=(ben,), rights=(half,)).verdict, Denied)


@pytest.mark.req("CLAUSE-21")
def test_attack_a_fault_of_any_part_denies() -> None:
    """A contract that breaks, a reach that raises, labels of another type: denied, never raised, never allowed."""

    class Broken(Reach):
        def may(self, *args: Any, **more: Any) -> str | None:
            raise RuntimeError("s3cret")

    authority = Authority(MAY, Broken(requester="anna"), Balance(), (), (ANNA,))
    ruling = decide(Action("clerk", contract(), {"to": "x"}, ASKED), authority)
    assert isinstance(ruling.verdict, Denied)
    assert "s3cret" not in str(ruling.verdict)
    nonsense: Any = object()
    whole = Authority(MAY, Reach(requester="anna"), Balance(), (), (ANNA,))
    for action in (
        Action("clerk", nonsense, {"to": "x"}, ASKED),
        Action("clerk", contract(), nonsense, ASKED),
        Action("clerk", contract(), {"to": "x"}, nonsense),
        Action("clerk", contract(), {"to": "x"}, ASKED, labels={"to": nonsense}),
    ):
        assert isinstance(decide(action, whole).verdict, Denied)
    assert isinstance(
        decide(Action("clerk", contract(), {"to": "x"}, ASKED), Authority(nonsense, whole.reach)).verdict, Denied
    )


@pytest.mark.req("CLAUSE-21")
@pytest.mark.parametrize("says", ["true", 1, [1], {"a": 1}, object(), None, False, "raise"])
def test_attack_only_true_itself_is_a_yes(says: Any) -> None:
    """A condition that gives something truthy, an error value, or raises, is a no."""

    def condition(arguments: Mapping[str, Any]) -> object:
        return arguments["nobody gave this"] if says == "raise" else says

    right = Right(("third_party:*",), ("mail.send",), frozenset({"control", "target"}), condition=condition)
    assert isinstance(judged(contract(), {"to": "x"}, TAINTED, rights=(right,)).verdict, Ask)


@pytest.mark.req("CLAUSE-21")
def test_twin_a_condition_that_is_true_and_a_bound_that_holds_are_a_yes() -> None:
    """The right then reaches as far as it says."""
    right = Right(
        ("third_party:web.*",),
        ("mail.send",),
        frozenset({"control", "target"}),
        where={"to": (Pattern("email", "*@example.org"),)},
        condition=lambda arguments: True,
    )
    assert isinstance(judged(contract(), {"to": "a@example.org"}, TAINTED, rights=(right,)).verdict, Allowed)
    assert isinstance(
        judged(contract(), {"to": ["a@example.org", "a@evil.example"]}, TAINTED, rights=(right,)).verdict, Ask
    )
    assert isinstance(judged(contract(), {"to": []}, TAINTED, rights=(right,)).verdict, Ask)


@pytest.mark.req("CLAUSE-21")
def test_attack_no_right_reaches_an_unknown_cause() -> None:
    """Not even one that is given to everything."""
    right = Right(("*",), ("*",), frozenset({"control", *ROLES}))
    assert isinstance(judged(contract(), {"to": "x"}, UNKNOWN, rights=(right,)).verdict, Ask)
    assert isinstance(judged(contract(), {"to": "x"}, TAINTED, rights=(right,)).verdict, Allowed)


CAUSES = st.sampled_from(
    [ANNA, WEB, Cause("operator"), Cause("unknown"), Cause("source", "crm"), Cause("service", "desk.read")]
)
READERS = st.one_of(st.just(EVERYONE), st.frozensets(st.sampled_from(["anna", "a@example.org", "route"])))
LABELS = st.builds(label, st.frozensets(CAUSES, min_size=1, max_size=4), READERS)
RIGHTS = st.lists(
    st.builds(
        Right,
        st.tuples(st.sampled_from(["source:*", "third_party:*", "service:desk.*", "*"])),
        st.just(("mail.*",)),
        st.frozensets(st.sampled_from(["control", "target", "content", "command"])),
    ),
    max_size=3,
)
LINES = st.lists(
    st.builds(
        Line,
        st.just("l"),
        st.just("mail.send"),
        st.sampled_from(
            [{}, {"to": (one_of("a@example.org", kind="email"),)}, {"to": (Pattern("email", "*@example.org"),)}]
        ),
    ),
    max_size=1,
)


@pytest.mark.req("CLAUSE-21")
@settings(max_examples=400, deadline=None)
@given(
    st.sampled_from(EFFECT_CLASSES),
    st.sampled_from(ROLES),
    st.sampled_from([(), ("everyone",), ("argument:to",), ("route",)]),
    LABELS,
    LABELS,
    LABELS,
    RIGHTS,
    LINES,
    st.booleans(),
)
def test_more_causes_and_fewer_readers_never_allow_more(
    effect: EffectClass,
    role: Role,
    watchers: tuple[str, ...],
    context: Label,
    value: Label,
    added: Label,
    rights: list[Right],
    lines: list[Line],
    to_value: bool,
) -> None:
    """Whatever is joined to the context or to a value, what was not allowed stays not allowed."""
    tool = contract(
        "mail.send",
        effect,
        args={"to": ArgContract("to", role, deref="content", interprets=False)},
        formats={"to": "email"},
        observers=watchers,
    )

    def allowed(context: Label, value: Label) -> bool:
        ruling = judged(
            tool,
            {"to": "a@example.org"},
            context,
            labels={"to": value},
            referents={"to": value},
            rights=tuple(rights),
            lines=tuple(lines),
        )
        return isinstance(ruling.verdict, Allowed)

    before = allowed(context, value)
    after = allowed(context, join(value, added)) if to_value else allowed(join(context, added), value)
    assert before or not after


@pytest.mark.req("CLAUSE-22")
def test_attack_what_only_anna_may_read_is_not_sent_to_somebody_else() -> None:
    """Whoever the mail goes to would read it; with reach over everything it is still asked about."""
    ruling = judged(MAIL, {"to": "ben@example.org", "body": "x"}, PRIVATE, rights=(CRM,))
    assert isinstance(ruling.verdict, Ask)
    assert {"readers"} == {lack.where for lack in ruling.chain}
    everyone = contract("mail.post", args={}, observers=("everyone",))
    assert isinstance(judged(everyone, {}, PRIVATE, rights=(CRM,)).verdict, Ask)


@pytest.mark.req("CLAUSE-22")
def test_attack_one_argument_or_referent_that_may_not_be_read_is_enough() -> None:
    """The context, every argument and every referent count."""
    secret = label({ANNA}, {"anna"})
    tool = contract("mail.send", args={"to": ArgContract("to", "target", deref="content")}, observers=("argument:to",))
    clean: dict[str, Any] = {"referents": {"to": ASKED}}
    assert isinstance(judged(tool, {"to": "ben"}, ASKED, **clean).verdict, Allowed)
    assert isinstance(judged(tool, {"to": "ben"}, ASKED, labels={"to": secret}, **clean).verdict, Ask)
    assert isinstance(judged(tool, {"to": "ben"}, ASKED, referents={"to": secret}).verdict, Ask)


@pytest.mark.req("CLAUSE-22")
def test_twin_a_reader_or_a_target_that_the_mandate_names_may_see_it() -> None:
    """The requester herself, and whoever her mandate names as the target; another one of the same call is none."""
    line = Line("a", "mail.send", {"to": (one_of("ben@example.org", kind="email"),)})
    assert isinstance(judged(MAIL, {"to": "anna", "body": "x"}, PRIVATE, rights=(CRM,)).verdict, Allowed)
    assert isinstance(judged(MAIL, {"to": "ben@example.org", "body": "x"}, PRIVATE, lines=(line,)).verdict, Allowed)
    assert isinstance(
        judged(MAIL, {"to": ["ben@example.org", "eve@example.org"], "body": "x"}, PRIVATE, lines=(line,)).verdict, Ask
    )


@pytest.mark.req("CLAUSE-22")
def test_attack_a_pattern_names_nobody() -> None:
    """A mandate for a whole domain lets mail go there, and is no leave to show everybody there what only anna may read."""
    line = Line("a", "mail.send", {"to": (Pattern("email", "*@example.org"),)})
    assert isinstance(judged(MAIL, {"to": "ben@example.org", "body": "x"}, PRIVATE, lines=(line,)).verdict, Ask)
    assert isinstance(judged(MAIL, {"to": "ben@example.org", "body": "x"}, TAINTED, lines=(line,)).verdict, Allowed)


@pytest.mark.req("CLAUSE-22")
def test_attack_a_read_of_the_open_world_is_egress() -> None:
    """Its target needs reach, and what it selects by must be readable by everyone."""
    fetch = contract(
        "web.fetch",
        "read",
        args={"url": ArgContract("url", "target"), "q": ArgContract("q", "selector")},
        formats={"url": "url"},
        world=True,
        observers=("everyone",),
    )
    call = {"url": "https://example.org/", "q": "x"}
    assert isinstance(judged(fetch, call, TAINTED).verdict, Ask)
    assert isinstance(judged(fetch, call, ASKED, labels={"q": label({ANNA}, {"anna"})}).verdict, Ask)
    assert isinstance(judged(fetch, call, ASKED).verdict, Allowed)


@pytest.mark.alone
@pytest.mark.req("CLAUSE-21")
def test_a_verdict_is_quick() -> None:
    """Half of the verdicts of a call with a mandate take at most 100 microseconds; here ten times that, for a busy machine."""
    line = Line("a", "mail.send", {"to": (one_of("ben@example.org", kind="email"),)})
    balance = issue(Balance(), Mandate("root", ASKED, (line,)))
    assert isinstance(balance, Balance)
    authority = Authority(MAY, Reach(requester="anna"), balance, ("root",), (ANNA,))
    action = Action("clerk", MAIL, {"to": "ben@example.org", "body": "x"}, PRIVATE)
    assert isinstance(decide(action, authority).verdict, Allowed)
    times = []
    for _ in range(201):
        began = time.perf_counter()
        decide(action, authority)
        times.append(time.perf_counter() - began)
    assert sorted(times)[100] <= 1e-3
