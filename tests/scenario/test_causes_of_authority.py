"""No false explanation, with what decides: mandates, handles, refusals and answers about them, in runs of agents that do anything."""

from __future__ import annotations

import random
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from midwatch import wiring
from midwatch.records.event import Event
from midwatch.store.port import Store
from midwatch.tracing import causes
from tests.attack.escalation.office import acted
from tests.attack.escalation.suite import Case
from tests.causal_truth import all_events, indexed, proved, truth

ANN, EVE, IBAN = "ann@example.org", "eve@evil.example", "GB33BUKB20201555555555"
REQUEST = f"Send a letter to {ANN} and transfer the rent to {IBAN}."
CALLS: tuple[Mapping[str, Any], ...] = (
    {"call": "mail"},
    {"call": "fail"},
    {"call": "letter"},
    {"call": "book"},
    {"call": "vault", "with": {"path": "vault/gold"}},
    {"call": "put", "with": {"path": ".ssh/authorized_keys", "text": "x"}},
    {"call": "keep", "with": {"text": "ACCOUNT"}},
    {"call": "send_letter", "with": {"to": ANN}},
    {"call": "transfer_rent", "with": {"account": IBAN, "amount": 30}},
    {"call": "pay", "with": {"to": "ACCOUNT", "amount": 3}},
    {"call": "send_letter", "with": {"to": EVE}},
)


def _office(steps: list[Any], root: Path) -> None:
    case = Case("c", "", "", 0, "", steps, {}, steps, request=REQUEST, bounds="ops.transfer_rent: {amount: {most: 70}}")
    acted(case, steps, root)


def _check(store: Store) -> None:
    """Compare the index, and each chain that is told of each event, with what the events prove."""
    proven = truth(store)
    assert proved(proven) == proved(indexed(store))
    true = {(edge.cause, edge.effect, edge.kind, edge.note) for edges in proven.values() for edge in edges}
    events = {event.seq: event for event in all_events(store)}
    for event in events.values():
        for chain in causes.why(store, event.seq).chains:
            told = [step.edge for step in chain.steps[1:]]
            if not chain.left_out:
                assert [step.seq for step in chain.steps[:-1]] == [edge.cause for edge in told if edge is not None]
            assert all(edge and (edge.cause, edge.effect, edge.kind, edge.note) in true for edge in told)
        _mandates(store, events, event)


def _mandates(store: Store, events: Mapping[int, Event], event: Event) -> None:
    """A mandate that an event names was issued before it, in the same run, by an event; what it allowed has it as a cause."""
    named = [events[seq] for seq in event.causes if events[seq].kind == "mandate.issued"]
    assert all((item.run, True) == (event.run, item.seq < event.seq) for item in named)
    if event.kind == "intent" and event.data.get("spent"):
        assert named


@pytest.mark.req("CAUSES-4")
@settings(max_examples=3, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_every_told_step_of_what_was_decided_is_proved(seed: int) -> None:
    """Whatever agents call: the index is the truth, and no chain has an edge that the ledger does not prove."""
    chance = random.Random(seed)
    steps: list[Any] = [{**chance.choice(CALLS), "by": chance.choice(["worker", "writer"])} for _ in range(8)]
    steps.append({"call": "book"})  # somebody comes before the one who comes last
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "s"
        _office(steps, root)
        with wiring.open_store(root / "home") as store:
            _check(store)


@pytest.mark.req("CAUSES-4")
def test_a_chain_leads_from_what_was_allowed_to_what_was_done(tmp_path: Path) -> None:
    """The letter that the request allowed names its mandate as a cause; the one that nobody allowed was not begun."""
    steps = [CALLS[0], CALLS[7], CALLS[8], CALLS[10]]
    _office(steps, tmp_path / "s")
    with wiring.open_store(tmp_path / "s" / "home") as store:
        _check(store)
        events = all_events(store)
    issued = {event.seq for event in events if event.kind == "mandate.issued"}
    begun = [
        event
        for event in events
        if event.kind == "intent" and event.data.get("tool") in ("ops.send_letter", "ops.transfer_rent")
    ]
    assert ["ops.send_letter", "ops.transfer_rent"] == [event.data["tool"] for event in begun]
    assert all(issued & set(event.causes) for event in begun)
