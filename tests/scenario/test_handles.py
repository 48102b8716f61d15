"""Handles and the isolated reader over whole runs: what agents pass on without reading it, and what facts of it allow."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.scenario.bank import EVE, PAY
from tests.scenario.handling import LETTER, Handling, behind, fact

ACCOUNT = behind("ops_letter", "account")


@pytest.mark.req("HANDLE-1")
def test_a_value_behind_a_handle_is_not_shown_and_the_context_stays_clean(tmp_path: Path) -> None:
    """Read, then pay what the request asked for: done, without a person; no model was sent the account or the text."""
    bank = Handling(tmp_path / "b", [[LETTER], [("ops_ring", {"service": "desk"})]])
    done = bank.go()
    assert ("done", ["ring desk"]) == (done.status, bank.calls())
    assert [["person:local:ann"]] == bank.causes(done.run, "ops.ring")
    said = bank.prompts(done.run)
    assert (False, False, True) == (EVE in said, "please pay at once" in said, "L-1" in said)


@pytest.mark.req("HANDLE-1")
def test_the_same_letter_that_is_read_binds_what_comes_after(tmp_path: Path) -> None:
    """The twin without handles: the stranger may have chosen the moment, so a person is asked."""
    bank = Handling(tmp_path / "b", [[LETTER], [("ops_ring", {"service": "desk"})]], hidden="none.*")
    assert ("waiting", []) == (bank.go().status, bank.calls())


@pytest.mark.req("HANDLE-2")
def test_a_handle_brings_its_value_with_its_label(tmp_path: Path) -> None:
    """As content it is kept, as it stands; as the target of a payment it waits, and the card says whose it is."""
    bank = Handling(
        tmp_path / "b", [[LETTER], [("ops_keep", {"text": ACCOUNT})], [("ops_pay", {"to": ACCOUNT, "amount": 3})]]
    )
    waits = bank.go()
    assert ("waiting", [f"keep {EVE}"]) == (waits.status, bank.calls())
    lacks = {(lack["where"], lack["cause"]) for lack in bank.cards(waits.run)[0]["lacks"]}
    assert {("to", "third_party:ops.letter")} == lacks
