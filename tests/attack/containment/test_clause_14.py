"""Clause 14: what is spent is spent along the tree, and none of it twice."""

from __future__ import annotations

import json
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from midwatch.containment.mandates import Balance, Cover, Line, Mandate, Refused, Use, cover, issue, left, spend
from midwatch.containment.slots import UpTo
from midwatch.records.decision import Allowed, Ask
from midwatch.tools.contract import ArgContract
from tests.attack.containment.acting import ASKED, TAINTED, contract, judged

MOST, SUM = 4, Decimal(100)


def _line(name: str, parent: str | None, most: int | None = None, total: Decimal | None = None) -> Line:
    totals = {} if total is None else {"amount": total}
    return Line(name, "bank.pay", {"amount": (UpTo(SUM),)}, most, totals, parent)


def _root() -> Balance:
    made = issue(Balance(), Mandate("root", ASKED, (_line("r", None, MOST, SUM),), expires_us=1_000))
    assert isinstance(made, Balance)
    return made


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("cut"), st.integers(0, 5), st.one_of(st.none(), st.integers(0, 6)), st.integers(0, 120)),
        st.tuples(st.just("use"), st.integers(0, 5), st.integers(0, 60), st.integers(0, 1_100)),
    ),
    max_size=25,
)


@pytest.mark.req("CLAUSE-14")
@settings(max_examples=200, deadline=None)
@given(STEPS)
def test_a_tree_never_spends_more_than_its_root(steps: list[tuple[str, int, int | None, int]]) -> None:
    """However mandates are cut and used, the root's calls and sum hold, and a parent's spending is that of all below it."""
    balance, names = _root(), ["root"]
    uses: dict[str, list[Decimal]] = {"root": []}
    for word, at, number, other in steps:
        name = names[at % len(names)]
        line = balance.mandates[name].lines[0].id
        if word == "cut":
            fresh = f"m{len(names)}"
            made = issue(
                balance, Mandate(fresh, ASKED, (_line("c", line, number, Decimal(other)),), expires_us=900, parent=name)
            )
            if isinstance(made, Balance):
                balance, uses[fresh] = made, []
                names.append(fresh)
            continue
        found = cover(balance, (name,), Use("bank.pay", (("amount", number or 0, None, ()),)), at_us=other)
        if not isinstance(found, Cover):
            continue
        spent = spend(balance, found, at_us=other)
        assert isinstance(spent, Balance)
        balance = spent
        uses[name].append(Decimal(number or 0))
    everything = [amount for each in uses.values() for amount in each]
    assert len(everything) == balance.of("root", "r").calls <= MOST
    assert sum(everything, Decimal(0)) == balance.of("root", "r").amounts.get("amount", Decimal(0)) <= SUM
    for name in names[1:]:
        below = [other for other in names if other == name or _above(balance, other, name)]
        assert sum(len(uses[each]) for each in below) == balance.of(name, balance.mandates[name].lines[0].id).calls


def _above(balance: Balance, name: str, wanted: str) -> bool:
    parent = balance.mandates[name].parent
    while parent is not None:
        if parent == wanted:
            return True
        parent = balance.mandates[parent].parent
    return False


@pytest.mark.req("CLAUSE-14")
def test_attack_two_children_do_not_each_have_the_parents_rest() -> None:
    """Each may be cut for all of it, and together they spend it once."""
    balance = _root()
    for name in ("a", "b"):
        made = issue(balance, Mandate(name, ASKED, (_line("c", "r", MOST, SUM),), expires_us=900, parent="root"))
        assert isinstance(made, Balance)
        balance = made
    for name, amount, fits in (("a", 60, True), ("b", 60, False), ("b", 40, True), ("a", 1, False)):
        found = cover(balance, (name,), Use("bank.pay", (("amount", amount, None, ()),)), at_us=0)
        assert fits == isinstance(found, Cover), (name, amount)
        if isinstance(found, Cover):
            spent = spend(balance, found, at_us=0)
            assert isinstance(spent, Balance)
            balance = spent
    assert (2, {"amount": Decimal(0)}) == left(balance, "b", "c")


@pytest.mark.req("CLAUSE-14")
def test_attack_a_cover_is_not_spent_twice_or_too_late() -> None:
    """The transaction checks again: a rest that is gone by then, or an expired mandate, refuses, and charges nothing."""
    balance = _root()
    found = cover(balance, ("root",), Use("bank.pay", (("amount", 60, None, ()),)), at_us=0)
    assert isinstance(found, Cover)
    once = spend(balance, found, at_us=0)
    assert isinstance(once, Balance)
    assert isinstance(spend(once, found, at_us=0), Refused)
    assert isinstance(spend(balance, found, at_us=1_000), Refused)
    assert 0 == balance.of("root", "r").calls
    assert isinstance(spend(Balance(), found, at_us=0), Refused)


@pytest.mark.req("CLAUSE-14")
def test_what_was_spent_is_folded_out_of_the_ledger() -> None:
    """Spending again what the intents kept gives the same balance, to the last digit; what cannot be read stops it."""
    balance, kept = _root(), []
    for amount in (0.1, 33, 2.25):
        found = cover(balance, ("root",), Use("bank.pay", (("amount", amount, None, ()),)), at_us=0)
        assert isinstance(found, Cover)
        kept.append(json.loads(json.dumps(found.to_json())))
        spent = spend(balance, found, at_us=0)
        assert isinstance(spent, Balance)
        balance = spent
    again = _root()
    for body in kept:
        folded = spend(again, Cover.from_json(body), at_us=0)
        assert isinstance(folded, Balance)
        again = folded
    assert balance.of("root", "r") == again.of("root", "r")
    for broken in (
        None,
        {},
        {**kept[0], "amounts": {"amount": "-1"}},
        {**kept[0], "amounts": {"amount": "NaN"}},
        {**kept[0], "amounts": [1]},
    ):
        with pytest.raises(ValueError, match="spent of a mandate"):
            Cover.from_json(broken)


@pytest.mark.req("CLAUSE-14")
def test_attack_a_list_of_amounts_is_summed() -> None:
    """Many small amounts in one call are one sum."""
    pay = contract("bank.pay", args={"amount": ArgContract("amount", "quantity")})
    line = Line("a", "bank.pay", {"amount": (UpTo(Decimal(10)),)}, totals={"amount": Decimal(10)})
    assert isinstance(judged(pay, {"amount": [6, 6]}, TAINTED, lines=(line,)).verdict, Ask)
    assert isinstance(judged(pay, {"amount": [4, 6]}, TAINTED, lines=(line,)).verdict, Allowed)


@pytest.mark.req("CLAUSE-14")
def test_attack_floats_do_not_lose_a_cent() -> None:
    """Ten times 0.1 is 1, and the eleventh is too much."""
    made = issue(
        Balance(),
        Mandate("root", ASKED, (Line("r", "bank.pay", {"amount": (UpTo(SUM),)}, totals={"amount": Decimal(1)}),)),
    )
    assert isinstance(made, Balance)
    for count in range(11):
        found = cover(made, ("root",), Use("bank.pay", (("amount", 0.1, None, ()),)), at_us=0)
        assert (count < 10) == isinstance(found, Cover)
        if isinstance(found, Cover):
            spent = spend(made, found, at_us=0)
            assert isinstance(spent, Balance)
            made = spent


@pytest.mark.req("CLAUSE-14")
def test_twin_expiry_is_the_first_moment_that_is_too_late() -> None:
    """Until then the mandate holds."""
    pay = contract("bank.pay", args={"amount": ArgContract("amount", "quantity")})
    line = Line("a", "bank.pay", {"amount": (UpTo(Decimal(10)),)}, most=1)
    assert isinstance(judged(pay, {"amount": 1}, TAINTED, lines=(line,), at_us=9, expires_us=10).verdict, Allowed)
    assert isinstance(judged(pay, {"amount": 1}, TAINTED, lines=(line,), at_us=10, expires_us=10).verdict, Ask)
