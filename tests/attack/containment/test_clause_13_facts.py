"""Clause 13: a fact fills a slot that is bound to its source only where the source says so, not where whoever asked did."""

from __future__ import annotations

import pytest

from midwatch.containment.mandates import Line
from midwatch.containment.provenance import Held, Seen, Traced
from midwatch.containment.slots import FromField, one_of
from midwatch.records.decision import Allowed, Ask
from midwatch.tools.contract import ArgContract, OutContract
from tests.attack.containment.acting import TAINTED, contract, judged, trail

EVE, BEN = "FR7630006000011234567890189", "DE89370400440532013000"
PAY = contract("bank.pay", args={"to": ArgContract("to", "target")}, formats={"to": "iban"})
FILE = contract(
    "files.read",
    "read",
    args={"path": ArgContract("path", "selector")},
    outs={"text": (OutContract("text"), None)},
)
FACTS = contract("reader.facts", "read", args={}, outs={"facts": (OutContract("facts", "caller"), None)})
BILL = Line("bill", "bank.pay", {"to": (FromField("files.read", "", (("path", (one_of("bill.txt"),)),), inside=True),)})


@pytest.mark.req("CLAUSE-13")
@pytest.mark.parametrize(("fact", "verdict"), [(EVE, Ask), (f"NO9386011117947 {BEN}", Ask), (BEN, Allowed)])
def test_an_option_that_does_not_stand_in_the_source_is_not_its_word(fact: str, verdict: type) -> None:
    """Asked with one option alone, a reader has no choice: an account that the bill does not name is nothing that the bill chose."""
    run = trail("pay bill.txt")
    text = Held("h:" + "1" * 32, "text", f"To {BEN}, please.", TAINTED, "string", 32)
    run.add(Seen(FILE, {"path": "bill.txt"}, {"text": text.id}, TAINTED, plain=TAINTED, handles=(text,)))
    taken = Held("h:" + "2" * 32, "facts.to", fact, TAINTED, "any", 32, of=text.id)
    run.add(Seen(FACTS, {}, {"facts": [taken.id]}, TAINTED, plain=TAINTED, handles=(taken,)))
    held, origins = run.handles[taken.id]
    traced = Traced({"to": held.label}, {"to": origins})
    ruling = judged(PAY, {"to": fact}, TAINTED, lines=(BILL,), labels=traced.labels, origins=traced.origins)
    assert isinstance(ruling.verdict, verdict)
