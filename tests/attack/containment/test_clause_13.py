"""Clause 13: later plans cut out of the root's unspent rest, and a planner's words are the request's."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from midwatch.containment.kept import from_json, to_json
from midwatch.containment.mandates import Balance, Cover, Line, Mandate, Refused, Use, cover, cut, issue, left, spend
from midwatch.containment.planning import Planner, schema
from midwatch.containment.reading import Knob, Reader
from midwatch.containment.slots import FromField, Mentioned, OfWords, OneOf, Pattern, Template, UpTo, one_of
from midwatch.records.decision import Allowed, Ask
from midwatch.recovery import compile_schema
from midwatch.tools.contract import ArgContract, OutContract
from tests.attack.containment.acting import ASKED, TAINTED, contract, judged

PAY = contract(
    "bank.pay",
    args={"to": ArgContract("to", "target"), "amount": ArgContract("amount", "quantity")},
    formats={"to": "iban"},
)
BILL = contract(
    "files.bill",
    "read",
    args={"path": ArgContract("path", "selector")},
    formats={"path": "path"},
    outs={"iban": (OutContract("iban", "third_party"), "iban"), "number": (OutContract("number", "service"), None)},
)
OURS, THEIRS = "DE89370400440532013000", "GB33BUKB20201555555555"
REQUEST = f"Pay 70 to {OURS}, not more than twice. The bill is in bill.txt. {THEIRS} is closed."
SLOTS = st.one_of(
    st.builds(lambda texts: one_of(*texts), st.lists(st.text(min_size=1, max_size=9), max_size=3)),
    st.builds(Pattern, st.sampled_from(["url", "path"]), st.text(max_size=9)),
    st.builds(UpTo, st.decimals(0, 1_000, places=2)),
    st.builds(Mentioned, st.frozensets(st.tuples(st.text(max_size=4)), max_size=4), st.booleans()),
    st.builds(OfWords, st.frozensets(st.text(max_size=4), max_size=4)),
    st.builds(Template, st.tuples(st.tuples(st.text(max_size=4)), st.just(()))),
    st.builds(
        lambda name, inside: FromField("a.b", name, (("x", (one_of("y"),)),), inside),
        st.text(max_size=5),
        st.booleans(),
    ),
)


def told(**slot: Any) -> dict[str, Any]:
    """Make an answer of one line of one slot."""
    full = {"argument": "to", "values": [], "at_most": None, "from": [], **slot}
    return {"lines": [{"tool": "bank.pay", "calls": 2, "slots": [full]}]}


def root(**more: Any) -> Balance:
    """Issue a root of one line: three payments, 100 together."""
    line = Line("r", "bank.pay", {"amount": (UpTo(Decimal(60)),)}, 3, {"amount": Decimal(100)})
    made = issue(Balance(), Mandate("request", ASKED, (line,), expires_us=1_000, **more))
    assert isinstance(made, Balance)
    return made


@pytest.mark.req("CLAUSE-13", "MANDATE-3")
def test_attack_plan_after_plan_spends_one_rest() -> None:
    """However often it is planned again, all of it together is three payments and 100; each cut has the root's issuer and end."""
    balance, paid = root(), []
    for turn in range(6):
        made = cut(balance, "request", f"request/{turn}/a", {"bank.pay"})
        assert made is not None
        assert (ASKED, 1_000, "request") == (made.issuer, made.expires_us, made.parent)
        grown = issue(balance, made)
        assert isinstance(grown, Balance), grown
        found = cover(grown, (made.id,), Use("bank.pay", (("amount", 40, None, ()),)), at_us=0)
        if isinstance(found, Cover):
            spent = spend(grown, found, at_us=0)
            assert isinstance(spent, Balance)
            grown = spent
            paid.append(40)
        balance = grown
    assert [40, 40] == paid
    assert (1, {"amount": Decimal(20)}) == left(balance, "request/5/a", "r")


@pytest.mark.req("CLAUSE-13")
def test_attack_nothing_is_cut_of_what_the_receiver_may_not_do() -> None:
    """A receiver without the tool gets no line of it, and of an unknown mandate nothing is cut."""
    assert cut(root(), "request", "request/1/a", {"mail.send"}) is None
    assert cut(root(), "other", "other/1/a", {"bank.pay"}) is None


@pytest.mark.req("MANDATE-8", "CLAUSE-14")
@settings(max_examples=150, deadline=None)
@given(st.lists(SLOTS, max_size=4), st.none() | st.integers(0, 99), st.none() | st.integers(0, 10**15))
def test_a_mandate_that_was_kept_is_the_same(slots: list[Any], most: int | None, ends: int | None) -> None:
    """Through the ledger's bytes and back nothing is wider, narrower or lost."""
    line = Line("l", "a.b", {"x": tuple(slots)}, most, {"x": Decimal("1.50")}, None, frozenset({"x"}))
    made = Mandate("request", ASKED, (line,), "reader", ends)
    assert made == from_json(json.loads(json.dumps(to_json(made))))


@pytest.mark.req("MANDATE-8", "CLAUSE-14")
def test_attack_what_cannot_be_read_back_is_no_mandate() -> None:
    """A slot of a form that nobody knows, or with a part too many or of another type, is not guessed at."""
    whole = to_json(Mandate("request", ASKED, (Line("l", "a.b", {"x": (one_of("y"),)}),)))
    for slot in (
        {},
        {"any": True},
        {"one_of": [["text", "y"]], "exact": True},
        {"up_to": "NaN"},
        {"up_to": 7},
        {"mentioned": -1, "exact": True},
        {"mentioned": 0, "exact": 1},
        {"from": "a.b", "path": "", "where": [], "inside": "yes"},
    ):
        broken = json.loads(json.dumps(whole))
        broken["lines"][0]["slots"]["x"] = [slot]
        with pytest.raises(ValueError, match="mandate"):
            from_json(broken)
    for key in whole:
        with pytest.raises(ValueError, match="mandate"):
            from_json({name: value for name, value in whole.items() if name != key})


@pytest.mark.req("MANDATE-8")
def test_a_reader_of_a_long_request_keeps_its_words_once() -> None:
    """The phrases of a request stand in many slots, and once in the ledger."""
    made = Reader((PAY, BILL)).read(REQUEST * 20, ASKED, name="request")
    assert made == from_json(json.loads(json.dumps(to_json(made))))


@pytest.mark.req("MANDATE-2", "CLAUSE-12")
def test_a_planner_binds_words_of_the_request_to_their_slots() -> None:
    """The account and the sum that the request says; a choice is checked against the schema that decoding is held to."""
    answer = told(values=[OURS])
    answer["lines"][0]["slots"].append({"argument": "amount", "values": [], "at_most": 70, "from": []})
    assert compile_schema(schema((PAY, BILL))).fits(answer)
    lines = Planner((PAY, BILL), {}).read(REQUEST, answer)
    assert not isinstance(lines, Refused)
    assert {"to": (one_of(OURS, kind="iban"),), "amount": (UpTo(Decimal(70)),)} == dict(lines[0].slots)
    assert ("bank.pay", 2) == (lines[0].tool, lines[0].most)


@pytest.mark.req("MANDATE-2", "CLAUSE-12")
@pytest.mark.parametrize(
    "answer",
    [
        told(values=["FR7630006000011234567890189"]),
        told(argument="amount", at_most=71),
        told(argument="amount", at_most=7),
        told(argument="amount", values=[70]),
        told(argument="to", at_most=70),
        told(argument="amount", at_most=-1),
        told(
            **{
                "from": [
                    {"tool": "files.bill", "field": "iban", "where": [{"argument": "path", "values": ["bill.txt"]}]}
                ]
            }
        ),
        told(**{"from": [{"tool": "files.bill", "field": "number", "where": []}]}),
        told(
            **{
                "from": [
                    {"tool": "files.bill", "field": "number", "where": [{"argument": "path", "values": ["x.txt"]}]}
                ]
            }
        ),
        told(**{"from": [{"tool": "files.bill", "field": "secret", "where": []}]}),
        {"lines": [{"tool": "bank.pay", "calls": 0, "slots": []}]},
        {"lines": None},
        [],
        None,
    ],
)
def test_attack_a_planner_that_says_what_the_request_does_not(answer: Any) -> None:
    """Accounts, sums, sources and calls that were not said: no line at all."""
    assert isinstance(Planner((PAY, BILL), {}).read(REQUEST, answer), Refused)


@pytest.mark.req("MANDATE-2", "CLAUSE-11")
def test_a_source_chooses_a_value_only_where_the_operator_lets_it() -> None:
    """The twin of the refused bill: with `delegate` that field of that file is a slot; the operator's sum bounds the planner's."""
    knobs = {"bank.pay": {"to": Knob(delegate=("files.bill:iban",)), "amount": Knob(most=Decimal(50))}}
    answer = told(
        **{"from": [{"tool": "files.bill", "field": "iban", "where": [{"argument": "path", "values": ["bill.txt"]}]}]}
    )
    answer["lines"][0]["slots"].append({"argument": "amount", "values": [], "at_most": 70, "from": []})
    lines = Planner((PAY, BILL), knobs).read(REQUEST, answer)
    assert not isinstance(lines, Refused), lines
    slot = lines[0].slots["to"][0]
    assert isinstance(slot, FromField)
    assert ("files.bill", "iban", False) == (slot.tool, slot.path, slot.inside)
    assert isinstance(slot.where[0][1][0], OneOf)
    assert ((UpTo(Decimal(50)),), {"amount": Decimal(50)}) == (lines[0].slots["amount"], dict(lines[0].totals))


@pytest.mark.req("CLAUSE-13")
def test_attack_several_amounts_in_one_call_of_a_planners_mandate() -> None:
    """What a planner's `at_most` bounds is each amount, and all of them together as often as it allows the call."""
    to = "GB29NWBK60161331926819"
    pay = contract(
        "bank.pay",
        args={"to": ArgContract("to", "target"), "amounts": ArgContract("amounts", "quantity")},
        formats={"to": "iban"},
    )
    slots = [
        {"argument": "to", "values": [to], "at_most": None, "from": []},
        {"argument": "amounts", "values": [], "at_most": 50, "from": []},
    ]
    lines = Planner([pay], {}).read(
        f"Pay {to} at most 50", {"lines": [{"tool": "bank.pay", "calls": 1, "slots": slots}]}
    )
    assert isinstance(lines, tuple)
    assert isinstance(judged(pay, {"to": to, "amounts": [50, 50]}, TAINTED, lines=lines).verdict, Ask)
    assert isinstance(judged(pay, {"to": to, "amounts": [20, 30]}, TAINTED, lines=lines).verdict, Allowed)
