"""Clause 23: what is left of a mandate is looked at in the transaction of the effect, whoever else spends it meanwhile."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from midwatch import wiring
from midwatch.containment.mandates import Cover, Line, Mandate, Use, cover
from midwatch.containment.slots import UpTo
from midwatch.engine import quarantine
from midwatch.engine.mandating import ROOT, Mandating, Stale, authority_epoch, issued
from midwatch.records.event import EventDraft
from midwatch.store.port import Store, Tx
from tests.attack.containment.acting import ASKED

RUN = "a" * 32
LINE = Line("r", "bank.pay", {"amount": (UpTo(Decimal(60)),)}, 2, {"amount": Decimal(100)})


def _mandating(store: Store) -> Mandating:
    fleet = SimpleNamespace(agents={}, grants=(), graph=None)
    return Mandating(SimpleNamespace(store=store, run=RUN, fleet=fleet, registry=SimpleNamespace(names=tuple)))  # type: ignore[arg-type]


def _issue(tx: Tx) -> int:
    data = issued(tx, Mandate(ROOT, ASKED, (LINE,), expires_us=1_000), to=None)
    return tx.ledger.append(EventDraft("mandate.issued", RUN, 1, data))


def _spend(store: Store, mine: Mandating, effect: str, found: Cover) -> None:
    """Do what stage 6 does: look again and write the intent, in one transaction."""

    def work(tx: Tx) -> None:
        spent, causes = mine.spend(tx, effect, found, 5)
        tx.ledger.append(EventDraft("intent", RUN, 5, {"effect": effect, "spent": spent}, causes=causes))

    store.write(work, durable=True)


def _use(mine: Mandating, effect: str, amount: int = 40) -> Any:
    balance, names = mine.at_hand("a", effect)
    return cover(balance, names, Use("bank.pay", (("amount", amount, None, ()),)), at_us=5)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """Give a home in which a run has issued one mandate: two payments, 100 together."""
    with wiring.open_store(tmp_path / "home", create=True) as opened:
        opened.write(_issue)
        yield opened


@pytest.mark.req("CLAUSE-23", "MANDATE-3")
def test_attack_what_two_processes_judged_on_the_last_use_is_spent_once(tmp_path: Path, store: Store) -> None:
    """Both saw one use left; the one that begins second is told, and sees none when it is judged again."""
    with wiring.open_store(tmp_path / "home") as theirs:
        mine, other = _mandating(store), _mandating(theirs)
        _spend(store, mine, "first", _use(mine, "first"))
        left, right = _use(mine, "second"), _use(other, "third")
        assert isinstance(left, Cover)
        assert isinstance(right, Cover)
        _spend(theirs, other, "third", right)
        with pytest.raises(Stale, match="used up"):
            _spend(store, mine, "second", left)
        assert not isinstance(_use(mine, "second"), Cover)


@pytest.mark.req("CLAUSE-23", "MANDATE-3")
def test_attack_threads_that_race_for_the_rest(store: Store) -> None:
    """Sixteen calls judged on the same rest begin at once: two of them do."""
    mine = _mandating(store)
    found = _use(mine, "x")
    results: list[bool] = []
    gate = threading.Barrier(16, timeout=30)

    def race(name: str) -> None:
        gate.wait()
        try:
            _spend(store, mine, name, found)
        except Stale:
            results.append(False)
        else:
            results.append(True)

    threads = [threading.Thread(target=race, args=(f"e{index}",)) for index in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert (16, 2) == (len(results), sum(results))


@pytest.mark.req("CLAUSE-23", "MANDATE-4")
def test_an_effect_that_begins_again_has_its_own_use(store: Store) -> None:
    """The twin: it is covered and begun again though nothing is left for others; another process sees the same."""
    mine = _mandating(store)
    for name in ("one", "two"):
        _spend(store, mine, name, _use(mine, name))
    for each in (mine, _mandating(store)):
        assert isinstance(_use(each, "two"), Cover)
        assert not isinstance(_use(each, "three"), Cover)
    _spend(store, mine, "two", _use(mine, "two"))
    assert 2 == mine.at_hand("a", "x")[0].of(ROOT, "r").calls


@pytest.mark.req("CLAUSE-23", "MANDATE-4")
def test_attack_a_transaction_that_was_not_committed_leaves_no_trace(store: Store) -> None:
    """What was read in it is forgotten, and what takes its place in the ledger is counted."""
    mine = _mandating(store)
    found = _use(mine, "lost")

    def breaks(tx: Tx) -> None:
        spent, _ = mine.spend(tx, "lost", found, 5)
        tx.ledger.append(EventDraft("intent", RUN, 5, {"effect": "lost", "spent": spent}))
        mine.spend(tx, "after", found, 5)  # it has read the intent that will never be
        raise OSError("the disk is gone")

    with pytest.raises(Exception, match="disk is gone"):
        store.write(breaks)
    for name in ("one", "two"):
        _spend(store, _mandating(store), name, found)
    with pytest.raises(Stale):
        _spend(store, mine, "three", found)
    assert 2 == mine.at_hand("a", "x")[0].of(ROOT, "r").calls


@pytest.mark.req("CLAUSE-23", "MANDATE-4")
def test_attack_a_ledger_that_says_what_cannot_be_allows_nothing(store: Store) -> None:
    """More spent than there was, or a use that cannot be read: no call is covered any more."""
    mine = _mandating(store)
    found = _use(mine, "x")
    too_much = replace(found, amounts={"amount": Decimal(101)}).to_json()
    for spent in (too_much, {"mandate": ROOT}):
        data = {"effect": "forged", "spent": spent}

        def forged(tx: Tx, data: Any = data) -> None:
            tx.ledger.append(EventDraft("intent", RUN, 5, data))
            with pytest.raises(Stale):
                mine.spend(tx, "x", found, 5)
            raise OSError("not kept")

        with pytest.raises(Exception, match="not kept"):
            store.write(forged)
    _spend(store, mine, "x", found)


@pytest.mark.req("CLAUSE-23")
def test_the_epoch_moves_with_quarantine_and_answers_and_with_nothing_else(store: Store) -> None:
    """Events of runs leave it; what people decide about authority does not."""
    first = store.read(lambda tx: authority_epoch(tx, RUN))
    store.write(lambda tx: tx.ledger.append(EventDraft("signal", RUN, 2, {})))
    assert first == store.read(lambda tx: authority_epoch(tx, RUN))
    store.write(lambda tx: tx.watch.put(quarantine.HEAD, b"7"))
    second = store.read(lambda tx: authority_epoch(tx, RUN))
    store.write(lambda tx: tx.authority.raise_epoch())
    third = store.read(lambda tx: authority_epoch(tx, RUN))
    assert 3 == len({first, second, third})
