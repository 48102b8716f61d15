"""Every part that deciding depends on is broken in turn: no effect happens, whatever becomes of the run."""

from __future__ import annotations

import contextlib
import importlib
from pathlib import Path
from typing import Any

import pytest

from midwatch import wiring
from midwatch.containment.authority import Detector, File, judge
from midwatch.containment.conditions import Condition
from midwatch.containment.reach import Reach, Right
from midwatch.containment.verdict import Action, Authority, decide
from midwatch.engine import answering
from midwatch.errors import MidwatchError
from midwatch.gates.review import Speaker
from midwatch.records.decision import Allowed, Denied
from midwatch.records.label import Cause, label
from midwatch.sandbox.effects import Change
from midwatch.tools.contract import ArgContract, ToolContract
from tests.scenario.bank import PAY, Bank, Call

MAIL: Call = ("ops_mail", {})
PARTS = [
    ("midwatch.containment.grants", "decide"),
    ("midwatch.engine.containing", "decide"),
    ("midwatch.containment.verdict", "places"),
    ("midwatch.containment.reach", "Reach.may"),
    ("midwatch.containment.policies", "mandates"),
    ("midwatch.gates.rules", "decide"),
    ("midwatch.engine.quarantine", "held"),
    ("midwatch.engine.acquiring", "in_arguments"),
    ("midwatch.engine.outcomes", "Outcomes._fold"),
    ("midwatch.store.accounts", "SqlBudgets.reserve"),
    ("midwatch.store.journal", "SqlFences.check"),
    ("midwatch.store.ledger", "SqlLedger.append"),
    ("midwatch.store.ledger", "SqlBlobs.put"),
]
"""What a call of a tool passes on its way, by module and name."""


def _broken(*_: object, **__: object) -> Any:
    raise OSError("the disk is gone")


@pytest.mark.req("FAULT-1")
@pytest.mark.parametrize(("module", "name"), PARTS, ids=[name for _, name in PARTS])
def test_a_part_of_deciding_that_fails_lets_no_effect_happen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module: str, name: str
) -> None:
    """Guards, rules, ledger, blobs, budgets, fences: denied, waiting or failed, the payment is not made; and is made once all is whole."""
    bank = Bank(tmp_path / "b", [[PAY]])
    found = importlib.import_module(module)
    owner = getattr(found, name.split(".", maxsplit=1)[0]) if "." in name else found
    with monkeypatch.context() as patched, contextlib.suppress(OSError, MidwatchError):
        patched.setattr(owner, name.rsplit(".", maxsplit=1)[-1], _broken)
        bank.go()
    assert [] == bank.calls("pay")
    whole = Bank(tmp_path / "whole", [[PAY]])
    assert ("done", 1) == (whole.go().status, len(whole.calls("pay")))


TOOL = ToolContract(
    "pay.out",
    "",
    "",
    {"type": "object", "properties": {"to": {"type": "string"}}, "additionalProperties": False},
    {},
    "write",
    args=(ArgContract("to", "target"),),
)


@pytest.mark.req("FAULT-2")
@pytest.mark.parametrize("found", [None, "ERROR", "UNKNOWN", 1, "true", b"1", [True], object()])
def test_only_true_itself_is_a_yes_of_a_condition(found: object) -> None:
    """An error, an unknown and all that is merely truthy are a no, in a condition and in the right that has it."""
    right = Right(("source:crm",), ("*",), frozenset({"target", "control"}), condition=lambda _: found)
    assert Reach((right,)).may(Cause("source", "crm"), "pay.out", "target", arguments={}) is None

    class Answer:
        def type(self) -> Any:
            return type("T", (), {"name": staticmethod(lambda: "ERROR" if found == "ERROR" else "BOOL")})()

        def plain_value(self) -> object:
            return found

    compiled = type("C", (), {"eval": lambda _self, data: Answer()})()
    assert Condition("args.x", compiled)({}) is False


@pytest.mark.req("FAULT-2")
def test_a_label_that_is_missing_is_a_strangers_and_a_stranger_has_no_reach() -> None:
    """No context label, no label of what an argument refers to: denied. With the operator's own, the same call passes."""
    mine = label({Cause("operator")})
    authority = Authority(do=Allowed("grants[0]"), reach=Reach())
    assert isinstance(decide(Action("a", TOOL, {"to": "x"}, None), authority).verdict, Denied)
    assert isinstance(decide(Action("a", TOOL, {"to": "x"}, mine), authority).verdict, Allowed)


@pytest.mark.req("FAULT-2")
def test_a_detector_that_raises_or_answers_nonsense_makes_it_a_grant() -> None:
    """What it should have judged counts as granting; another one that knows the file harmless does not take that away."""
    plain = File(Change("created", "notes.txt", "file", 0o644, 1), None, b"x")
    assert () == judge(plain).grants
    broken: Any
    for broken in (_broken, lambda _: ["fine"], lambda _: None):
        assert judge(plain, (Detector("mine", lambda _: True, broken),)).grants
    assert judge(plain, (Detector("mine", _broken, lambda _: ()),)).grants


@pytest.mark.req("FAULT-2")
def test_a_clock_that_goes_backwards_brings_nothing_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What has expired stays expired: an hour later nobody answered; then the clock is set back, and no yes counts any more."""
    bank = Bank(tmp_path / "b", [[MAIL], [PAY]])
    run, now = bank.go().run, wiring.clock()
    with wiring.open_store(bank.home) as store:
        gate = store.read(lambda tx: tx.gates.list(run=run, limit=10))[0]
        store.write(lambda tx: answering.expire(tx, now + 3_600_000_000))
        with pytest.raises(MidwatchError):
            answering.answer(store, gate.id, approve=True, speaker=Speaker("local:ann"), reason="late", at_us=now)
    monkeypatch.setattr(wiring, "clock", lambda: now - 3_600_000_000)
    bank.go(run)
    assert [] == bank.calls("pay")
