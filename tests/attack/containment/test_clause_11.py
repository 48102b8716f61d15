"""Clauses 11, 12, 13, 15: what a mandate binds, slot by slot."""

from __future__ import annotations

import math
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from midwatch.containment.canon import KINDS, canonical
from midwatch.containment.mandates import Balance, Line, Mandate, Refused, issue
from midwatch.containment.slots import (
    FromField,
    Mentioned,
    OfWords,
    OneOf,
    Pattern,
    Slot,
    Template,
    UpTo,
    accepts,
    narrower,
    one_of,
)
from midwatch.records.decision import Allowed, Ask
from midwatch.records.label import OPERATOR, Cause, label
from midwatch.tools.contract import ArgContract, OutContract
from tests.attack.containment.acting import ASKED, TAINTED, contract, judged, seen, trail

PAY = contract(
    "bank.pay",
    args={"to": ArgContract("to", "target"), "amount": ArgContract("amount", "quantity")},
    formats={"to": "iban"},
)
ANNA, BEN, EVE = "GB29NWBK60161331926819", "DE89370400440532013000", "FR7630006000011234567890189"
FILE = contract(
    "files.read",
    "read",
    args={"path": ArgContract("path", "selector")},
    outs={"iban": (OutContract("iban", "third_party"), "iban"), "text": (OutContract("text"), None)},
)
BILL = Line(
    "bill",
    "bank.pay",
    {"to": (FromField("files.read", "iban", (("path", (one_of("bill.txt"),)),)),), "amount": (UpTo(Decimal(100)),)},
)


def pay(to: Any, amount: Any, *lines: Line, **more: Any) -> Any:
    """Judge a payment by a tainted context."""
    return judged(PAY, {"to": to, "amount": amount}, TAINTED, lines=lines, **more).verdict


@pytest.mark.req("CLAUSE-11")
def test_attack_values_of_two_lines_do_not_combine() -> None:
    """A recipient from one line and an amount from another is no line."""
    lines = (
        Line("a", "bank.pay", {"to": (one_of(ANNA, kind="iban"),), "amount": (UpTo(Decimal(10)),)}),
        Line("b", "bank.pay", {"to": (one_of(BEN, kind="iban"),), "amount": (UpTo(Decimal(1000)),)}),
    )
    assert isinstance(pay(ANNA, 1000, *lines), Ask)
    assert isinstance(pay(ANNA, 10, *lines), Allowed)
    assert isinstance(pay(BEN, 1000, *lines), Allowed)


@pytest.mark.req("CLAUSE-11")
def test_attack_a_slot_that_the_line_does_not_have_takes_nothing() -> None:
    """Every value that needs reach must be bound, not only the ones that the line names."""
    line = Line("a", "bank.pay", {"to": (one_of(ANNA, kind="iban"),)})
    assert isinstance(pay(ANNA, 1, line), Ask)
    assert isinstance(pay([ANNA, EVE], 1, Line("b", "bank.pay", {**line.slots, "amount": (UpTo(Decimal(1)),)})), Ask)


@pytest.mark.req("CLAUSE-11")
def test_attack_a_source_field_is_that_field_of_that_call() -> None:
    """The same account from another file, from another field, or within a text, is not what the slot names."""
    for value, path in (({"iban": EVE}, "other.txt"), ({"text": EVE}, "bill.txt"), ({"iban": f"to {EVE}"}, "bill.txt")):
        run = trail("pay bill.txt")
        run.add(seen(FILE, value, path=path))
        assert isinstance(judged(PAY, {"to": EVE, "amount": 5}, trail=run, lines=(BILL,)).verdict, Ask)


@pytest.mark.req("CLAUSE-11")
def test_twin_the_named_source_field_chooses() -> None:
    """What the named file gives in the named field is what the slot takes, written with spaces or not."""
    run = trail("pay bill.txt")
    run.add(seen(FILE, {"iban": "DE89 3704 0044 0532 0130 00"}, path="bill.txt"))
    ruling = judged(PAY, {"to": BEN, "amount": 5}, trail=run, lines=(BILL,))
    assert isinstance(ruling.verdict, Allowed)
    assert ruling.cover is not None
    assert {"amount": Decimal(5)} == dict(ruling.cover.amounts)


@pytest.mark.req("CLAUSE-11")
def test_attack_what_a_line_is_for_cannot_be_left_out() -> None:
    """A line for one account covers no call without it, and a child cannot take that need away."""
    pay = contract(
        "bank.pay",
        args={"to": ArgContract("to", "target"), "amount": ArgContract("amount", "quantity")},
        formats={"to": "iban"},
    )
    line = Line(
        "a", "bank.pay", {"to": (one_of(ANNA, kind="iban"),), "amount": (UpTo(Decimal(5)),)}, needs=frozenset({"to"})
    )
    assert isinstance(judged(pay, {"amount": 5}, TAINTED, lines=(line,)).verdict, Ask)
    assert isinstance(judged(pay, {"amount": 5, "to": []}, TAINTED, lines=(line,)).verdict, Ask)
    assert isinstance(judged(pay, {"amount": 5, "to": ANNA}, TAINTED, lines=(line,)).verdict, Allowed)
    root = issue(Balance(), Mandate("root", ASKED, (line,)))
    assert isinstance(root, Balance)
    child = Line("c", "bank.pay", {"amount": (UpTo(Decimal(5)),)}, parent="a")
    assert isinstance(issue(root, Mandate("child", ASKED, (child,), parent="root")), Refused)


@pytest.mark.req("CLAUSE-12")
def test_a_title_of_the_issuers_own_words() -> None:
    """Any of its words in any order and with any ending, and not one other; for a title only, which nobody acts on."""
    slot = OfWords(frozenset({"hik", "trip", "mark"}))
    assert accepts(slot, "Hiking trips", "title")
    assert accepts(slot, "Trip: Mark", "title")
    assert not accepts(slot, "Hiking trip, pay first", "title")
    assert not accepts(slot, "—", "title")
    assert not accepts(slot, "Mark", "name")
    assert not accepts(slot, "mark", None)


@pytest.mark.req("CLAUSE-12")
@pytest.mark.parametrize(
    ("title", "fits"),
    [
        ("Dinner at Chez Marie", True),
        ("dinner at x", True),
        ("Dinner at", False),
        ("Lunch at Chez Marie", False),
        ("Dinner at Chez Marie and transfer", True),
        ("Dinner at one two three four five six seven eight nine", False),
        ("Urgent: Dinner at Chez Marie", False),
    ],
)
def test_a_title_with_gaps_keeps_the_words_around_them(title: str, fits: bool) -> None:
    """The issuer's words stand where they stood, a gap is short, and nothing but a title is filled in."""
    slot = Template((("dinner", "at"), ()))
    assert fits == accepts(slot, title, "title")
    assert not accepts(slot, title, "name")
    assert not accepts(slot, title, None)


@pytest.mark.req("CLAUSE-12")
def test_attack_a_value_that_stands_in_the_request_binds_nothing() -> None:
    """Mentioned in a trusted text is not bound to this slot: without a line it is the context's choice."""
    run = trail(f"never pay {EVE}")
    run.add(seen(contract("web.read", "read", args={}), {"x": "pay"}))
    assert isinstance(judged(PAY, {"to": EVE, "amount": 5}, trail=run).verdict, Ask)


@pytest.mark.req("CLAUSE-12")
@pytest.mark.parametrize(
    "value", [True, False, 7, 7.0, "7", "12", "2026-11-25", "2026-11-25T10:00:00Z", "ab", "1,200", ""]
)
def test_attack_short_values_never_match_by_occurrence(value: Any) -> None:
    """A truth value, a number, a date, a short text stand everywhere, so they have no origin."""
    run = trail({"a": value, "b": [value]})
    assert {} == run.trace(contract(args={"to": None}), {"to": value}).labels


@pytest.mark.req("CLAUSE-12")
def test_twin_a_whole_field_of_the_request_is_the_requests() -> None:
    """A value that is one whole field of the input carries the requester's label, whatever was read since."""
    run = trail({"to": "ben@example.org"})
    run.add(seen(contract("web.read", "read", args={}), {"x": "y"}))
    assert {"to": ASKED} == dict(run.trace(contract(), {"to": "ben@example.org"}).labels)


@pytest.mark.req("CLAUSE-12")
@pytest.mark.parametrize(
    "value", [math.nan, math.inf, -math.inf, -1, 2**64, 2**53, True, "5", None, [5, 1e300], Decimal("NaN")]
)
def test_attack_no_amount_that_is_none(value: Any) -> None:
    """NaN, infinities, negative and inexact numbers, truth values and texts are no amounts."""
    line = Line("a", "bank.pay", {"to": (one_of(ANNA, kind="iban"),), "amount": (UpTo(Decimal(10) ** 15),)})
    assert not isinstance(pay(ANNA, value, line), Allowed) or value is None
    assert not accepts(UpTo(Decimal(10) ** 15), value)


@pytest.mark.req("CLAUSE-12")
def test_one_and_true_and_the_text_one_are_three_things() -> None:
    """An enumerated set takes the value of the kind that it enumerates."""
    assert not accepts(one_of(1), True)
    assert not accepts(one_of(1), "1")
    assert not accepts(one_of("1"), 1)
    assert accepts(one_of(1), 1.0)
    assert accepts(one_of(False), False)
    assert not accepts(one_of("17", kind="id:mail"), "17", "id:file")
    assert not accepts(one_of(), "x")


@pytest.mark.req("CLAUSE-12")
def test_attack_a_mentioned_name_is_no_address() -> None:
    """Names are taken for names only: a mentioned word is no account, no command."""
    slot = Mentioned(frozenset({("Eve",), ("Eve", "Adams")}))
    assert accepts(slot, "Eve", "name")
    assert accepts(slot, "Eve", "name:user")
    assert accepts(slot, "Eve Adams", "name")
    assert not accepts(slot, "Eve", "path")
    assert not accepts(slot, "Eve", None)
    for other in (
        "eve",
        "Eve's",
        "../Eve",
        "-Eve",
        "$Eve",
        "@Eve",
        "Eve/",
        "Eve\n",
        "Eve;",
        "<Eve>",
        "Eve  Adams",
        "Adams Eve",
        "Ëve",
        "Еve",
    ):
        assert not accepts(slot, other, "name"), other
    assert accepts(Mentioned(frozenset({("eve",)}), exact=False), "Eve", "name")


@pytest.mark.req("CLAUSE-13")
@pytest.mark.parametrize(
    "line",
    [
        Line("c", "bank.refund", {"to": (one_of(ANNA, kind="iban"),)}, parent="p"),
        Line("c", "bank.pay", {"to": (one_of(EVE, kind="iban"),)}, parent="p"),
        Line("c", "bank.pay", {"to": (Mentioned(frozenset()),)}, parent="p"),
        Line("c", "bank.pay", {"amount": (UpTo(Decimal(101)),)}, parent="p"),
        Line("c", "bank.pay", {"note": (one_of("x"),)}, parent="p"),
        Line("c", "bank.pay", {}, most=3, parent="p"),
        Line("c", "bank.pay", {}, totals={"amount": Decimal(201)}, parent="p"),
        Line("c", "bank.pay", {}, parent="other"),
        Line("c", "bank.pay", {}),
        Line("c", "bank.pay", {}, most=-1, parent="p"),
        Line("c", "bank.pay", {}, most=True, parent="p"),
        Line("c", "bank.pay", {"amount": (UpTo(Decimal("NaN")),)}, parent="p"),
    ],
)
def test_attack_a_child_never_holds_more_than_its_parent(line: Line) -> None:
    """Another tool, another value, a wider bound, a larger cap, an unknown line: refused."""
    assert isinstance(issue(_parent(), Mandate("child", ASKED, (line,), expires_us=5, parent="root")), Refused)


@pytest.mark.req("CLAUSE-13")
def test_attack_a_child_does_not_outlive_or_outgrow_its_parent() -> None:
    """Expiry, the issuer's causes, an unknown parent, the same name again, and too deep a chain are refused."""
    balance = _parent()
    line = Line("c", "bank.pay", {"to": (one_of(ANNA, kind="iban"),)}, parent="p")
    for child in (
        Mandate("child", ASKED, (line,), expires_us=11, parent="root"),
        Mandate("child", ASKED, (line,), parent="root"),
        Mandate("child", OPERATOR, (line,), expires_us=5, parent="root"),
        Mandate("child", ASKED, (line,), expires_us=5, parent="nobody"),
        Mandate("root", ASKED, (), expires_us=5),
        Mandate("child", ASKED, (line, line), expires_us=5, parent="root"),
    ):
        assert isinstance(issue(balance, child), Refused), child
    above, line_above = "root", "p"
    for depth in range(20):
        made = issue(
            balance,
            Mandate(f"m{depth}", ASKED, (Line("p", "bank.pay", {}, parent=line_above),), expires_us=5, parent=above),
        )
        if isinstance(made, Refused):
            assert depth == 15
            return
        balance, above, line_above = made, f"m{depth}", "p"
    raise AssertionError("mandates were cut without an end")


@pytest.mark.req("CLAUSE-13")
def test_twin_a_narrower_child_is_issued_and_used() -> None:
    """Fewer values, a smaller bound, its own cap within the parent's rest."""
    line = Line(
        "c", "bank.pay", {"to": (one_of(ANNA, kind="iban"),), "amount": (UpTo(Decimal(5)),)}, most=1, parent="p"
    )
    made = issue(
        _parent(),
        Mandate("child", label({*ASKED.causes, Cause("agent", "ceo")}), (line,), expires_us=10, parent="root"),
    )
    assert isinstance(made, Balance)
    assert {"root", "child"} == set(made.mandates)


def _parent() -> Balance:
    line = Line(
        "p",
        "bank.pay",
        {"to": (one_of(ANNA, BEN, kind="iban"),), "amount": (UpTo(Decimal(100)),)},
        most=2,
        totals={"amount": Decimal(200)},
    )
    made = issue(Balance(), Mandate("root", ASKED, (line,), expires_us=10))
    assert isinstance(made, Balance)
    return made


URL = Pattern("url", "https://*.example.org/docs/**")
PATH = Pattern("path", "reports/**")
MAIL = Pattern("email", "*@example.org")
HOST = Pattern("host", "*.example.org")


@pytest.mark.req("CLAUSE-15")
@pytest.mark.parametrize(
    ("slot", "value"),
    [
        (URL, "http://a.example.org/docs/x"),
        (URL, "https://a.example.org:8443/docs/x"),
        (URL, "https://a.example.org.evil.example/docs/x"),
        (URL, "https://example.org/docs/x"),
        (URL, "https://evil.example/?https://a.example.org/docs/x"),
        (URL, "https://a.example.org@evil.example/docs/x"),
        (URL, "https://a.example.org/docs/../admin"),
        (URL, "https://a.example.org/docs/%2e%2e/admin"),
        (URL, "https://a.example.org/docs%2f..%2fadmin"),
        (URL, "https://a.example.org/docs/x?data=secret"),
        (URL, "https://a.example.org\\@evil.example/docs/x"),
        (URL, "https://a.example.org/docs/x#y"),
        (URL, "https://a.example.org/docs/x\n"),
        (URL, "//a.example.org/docs/x"),
        (PATH, "reports/../etc/passwd"),
        (PATH, "reports/../../reports/x"),
        (PATH, "/reports/x"),
        (PATH, "reports\x00/x"),
        (PATH, "Reports/x"),
        (MAIL, "eve@example.org.evil.example"),
        (MAIL, "eve@evil.example"),
        (MAIL, "eve@example.org, x@evil.example"),
        (MAIL, '"a@example.org"@evil.example'),
        (HOST, "example.org"),
        (HOST, "aexample.org"),
        (HOST, "a.ехample.org"),
        (Pattern("host", "127.0.0.1"), "0x7f.1"),
        (Pattern("host", "127.0.0.1"), "2130706433"),
        (Pattern("regex", ".*"), "anything"),
        (Pattern("url", "**"), "https://a.example.org/"),
        (PATH, 7),
        (PATH, None),
    ],
)
def test_attack_patterns_are_not_fooled_by_how_a_value_is_written(slot: Slot, value: Any) -> None:
    """Another scheme, port, host, user, path, query; escapes, dots, look-alikes: none of them is what the pattern means."""
    assert not accepts(slot, value, getattr(slot, "kind", None))


@pytest.mark.req("CLAUSE-15")
@pytest.mark.parametrize(
    ("slot", "value"),
    [
        (URL, "https://a.example.org/docs/x/y"),
        (URL, "HTTPS://A.Example.ORG:443/docs/./x"),
        (URL, "https://bücher.example.org/docs/x"),
        (PATH, "reports/./x//y.md"),
        (PATH, "./reports/y.md"),
        (MAIL, "ben@EXAMPLE.org"),
        (HOST, "A.example.org."),
        (Pattern("host", "xn--bcher-kva.example"), "bücher.example"),
        (Pattern("host", "::1"), "0:0:0:0:0:0:0:1"),
    ],
)
def test_twin_the_same_thing_written_otherwise_is_taken(slot: Slot, value: str) -> None:
    """Case, default ports, dots in paths, international names: parsed, they are what the pattern means."""
    assert accepts(slot, value, getattr(slot, "kind", None))


@pytest.mark.req("CLAUSE-15")
def test_equal_addresses_are_equal_however_written() -> None:
    """One address has one canonical value."""
    assert canonical("www.Example.org", "url") == canonical("http://www.example.org:80/", "url")
    assert canonical("a@EXAMPLE.org", "email") == canonical("a@example.org", "email")
    assert canonical("A@example.org", "email") != canonical("a@example.org", "email")
    assert canonical("gb29 nwbk 6016 1331 9268 19", "iban") == canonical(ANNA, "iban")


@pytest.mark.req("CLAUSE-15")
@settings(max_examples=300, deadline=None)
@given(
    st.one_of(st.text(max_size=60), st.integers(), st.floats(), st.booleans(), st.none()),
    st.sampled_from([*KINDS, "id:x", "name:x", None, "?"]),
)
def test_a_canonical_value_is_its_own(value: Any, kind: str | None) -> None:
    """Nothing makes it raise, and the canonical form of a canonical text is itself."""
    made = canonical(value, kind)
    if made is not None and isinstance(value, str):
        assert made == canonical(made.value, kind)


@pytest.mark.req("CLAUSE-13")
def test_narrower_is_proven_never_guessed() -> None:
    """A set lies within a set or a pattern of its kind; a pattern only within itself; nothing lies within what is not understood."""
    assert narrower(one_of("reports/x", kind="path"), PATH)
    assert not narrower(one_of("reports/x", "etc/x", kind="path"), PATH)
    assert not narrower(one_of(), PATH)
    assert not narrower(Pattern("path", "reports/x/**"), PATH)
    assert narrower(PATH, PATH)
    assert not narrower(one_of("x"), Mentioned(frozenset({("x",)})))
    assert not narrower(OneOf(frozenset()), UpTo(Decimal(1)))


@pytest.mark.req("CLAUSE-15")
def test_attack_a_link_on_the_way_back_leads_elsewhere() -> None:
    """`reports/x/..` is `reports` only where `reports/x` is no link, and nobody knows that from the text."""
    assert not accepts(Pattern("path", "reports/**"), "reports/x/../y.md", "path")
    assert not accepts(one_of("reports/y.md", kind="path"), "reports/x/../y.md", "path")


@pytest.mark.req("CLAUSE-15")
@pytest.mark.parametrize("path", ["/admin//../docs/x", "/docs/..;/admin", "/docs/x/.;/../../admin"])
def test_attack_a_path_that_servers_resolve_otherwise(path: str) -> None:
    """Where readers of an address disagree about where `..` leads, it is no address."""
    assert not accepts(Pattern("url", "https://api.example/docs/**"), f"https://api.example{path}", "url")
    assert accepts(Pattern("url", "https://api.example/docs/**"), "https://api.example/docs/x/../y", "url")


@pytest.mark.req("CLAUSE-12")
def test_attack_a_question_mark_in_a_path_is_no_query() -> None:
    """An address whose path holds an encoded mark is another one than that with the query."""
    slot = one_of("https://api.example/list?all=1", kind="url")
    assert accepts(slot, "https://api.example/list?all=1", "url")
    assert not accepts(slot, "https://api.example/list%3Fall=1", "url")
    assert canonical("https://api.example/a%2523", "url") != canonical("https://api.example/a%23", "url")
