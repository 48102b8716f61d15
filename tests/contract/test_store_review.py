"""The conformance suite of the store's nouns that ask people; every adapter of `test_store_conformance` passes it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from midwatch.errors import GateNotUsable, NotFound, UsageProblem
from midwatch.records.gate import GateAnswer, GateRow, Link, Need, Notice, Terms
from midwatch.records.principal import Principal, hash_token
from midwatch.records.run import RunRow
from midwatch.store.port import Store, Tx
from tests.contract.test_store_conformance import ADAPTERS

GATE = GateRow(
    id="9" * 16,
    run="ab" * 16,
    agent="worker",
    tool="ops.place",
    digest="d1",
    nonce="n1",
    policy_digest="p",
    who="operator",
    reason="because",
    card="c",
    status="open",
    opened_us=100,
    expires_us=1000,
    action="act",
    arguments="args",
    terms=Terms((Need("gates[0]", "operator", 2),), ("ops",)).to_text(),
)
WORD = GateAnswer(GATE.id, "n1", "ann", "approve", "operator", "fine", 200, "cli")
ANN = Principal("ann", "operator", "*", hash_token("t1"), 1, "boss")
NOTICE = Notice(f"{GATE.id}:n1:ops:opened", GATE.id, "n1", "ops", "opened", 100, 100)


@pytest.fixture(params=sorted(ADAPTERS))
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    """Give each adapter in turn, with one open gate."""
    made = ADAPTERS[request.param](tmp_path)
    made.write(lambda tx: tx.gates.open(GATE))
    yield made
    made.close()


@pytest.mark.req("STORE-9")
def test_a_gate_comes_back_as_it_was_opened(store: Store) -> None:
    """Every column, the terms included; a gate without terms is one yes of its role."""
    found = store.read(lambda tx: tx.gates.get(GATE.id))
    assert found == GATE
    assert Terms((Need("gates[0]", "operator", 2),), ("ops",)) == GATE.asks
    assert Terms((Need("gates", "operator"),)) == replace(GATE, terms="").asks


@pytest.mark.req("STORE-9")
def test_each_person_has_one_word_an_asking(store: Store) -> None:
    """A second word of the same person is refused; another person and a new asking have their own."""
    store.write(lambda tx: tx.gates.say(WORD))
    with pytest.raises(GateNotUsable):
        store.write(lambda tx: tx.gates.say(replace(WORD, word="deny")))
    store.write(lambda tx: tx.gates.say(replace(WORD, by="bob", at_us=201)))
    store.write(lambda tx: tx.gates.say(replace(WORD, nonce="n2", at_us=202)))
    said = store.read(lambda tx: (tx.gates.said(GATE.id, "n1"), tx.gates.said(GATE.id)))
    assert (["ann", "bob"], ["n1", "n1", "n2"]) == ([word.by for word in said[0]], [word.nonce for word in said[1]])
    history = store.read(lambda tx: tx.gates.history(since_us=201))
    assert [(GATE.id, "ann"), (GATE.id, "bob")] == [(gate.id, word.by) for gate, word in history]


@pytest.mark.req("STORE-9")
def test_words_at_one_time_close_a_gate_once(store: Store) -> None:
    """Of eight threads that close it, one does; the others are told."""
    outcomes: list[str] = []
    start = threading.Barrier(8)

    def close(place: int) -> None:
        start.wait(10)
        try:
            store.write(
                lambda tx: tx.gates.answer(
                    GATE.id, approve=place % 2 == 0, by=str(place), reason="", at_us=200, answer=f"b{place}"
                )
            )
            outcomes.append(str(place))
        except GateNotUsable:
            outcomes.append("refused")

    threads = [threading.Thread(target=close, args=(place,)) for place in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    winners = [item for item in outcomes if item != "refused"]
    row = store.read(lambda tx: tx.gates.get(GATE.id))
    assert row is not None
    assert (8, winners, f"b{winners[0]}") == (len(outcomes), [row.answered_by], row.answer)


@pytest.mark.req("STORE-9")
def test_a_broken_glass_is_reviewed_once(store: Store) -> None:
    """It stays on the list until somebody reviews it; an ordinary word is never on it."""
    store.write(lambda tx: tx.gates.say(WORD))
    store.write(lambda tx: tx.gates.say(replace(WORD, by="bob", break_glass=True)))
    assert ["bob"] == [word.by for word in store.read(lambda tx: tx.gates.unreviewed())]

    def review(by: str) -> None:
        store.write(lambda tx: tx.gates.review(GATE.id, "n1", by, reviewer="eve", text="ok", at_us=300))

    review("bob")
    assert [] == store.read(lambda tx: tx.gates.unreviewed())
    for by in ("bob", "ann"):
        with pytest.raises(GateNotUsable):
            review(by)
    reviewed = store.read(lambda tx: tx.gates.said(GATE.id, "n1"))[-1]
    assert ("eve", 300, "ok", True) == (
        reviewed.reviewed_by,
        reviewed.reviewed_us,
        reviewed.review,
        reviewed.break_glass,
    )


@pytest.mark.req("STORE-9")
def test_amending_asks_anew_and_only_what_waits(store: Store) -> None:
    """An open or approved gate takes another action under a new nonce; a denied one does not."""
    new = replace(GATE, nonce="n2", digest="d2", edited_by="ann")
    assert new == store.write(lambda tx: tx.gates.amend(new))
    with pytest.raises(ValueError, match="nonce"):
        store.write(lambda tx: tx.gates.amend(new))
    store.write(lambda tx: tx.gates.answer(GATE.id, approve=True, by="bob", reason="", at_us=300))
    newer = replace(new, nonce="n3")
    assert newer == store.write(lambda tx: tx.gates.amend(newer))
    store.write(lambda tx: tx.gates.answer(GATE.id, approve=False, by="bob", reason="", at_us=300))
    with pytest.raises(GateNotUsable, match="denied"):
        store.write(lambda tx: tx.gates.amend(replace(new, nonce="n4")))


@pytest.mark.req("STORE-9")
def test_an_escalation_is_announced_once(store: Store) -> None:
    """The second announcement finds the first; a closed gate has none."""
    assert [True, False] == [store.write(lambda tx: tx.gates.escalate(GATE.id, at_us=5)) for _ in range(2)]
    other = replace(GATE, id="8" * 16)
    store.write(lambda tx: tx.gates.open(other))
    store.write(lambda tx: tx.gates.answer(other.id, approve=False, by="a", reason="", at_us=5))
    assert not store.write(lambda tx: tx.gates.escalate(other.id, at_us=5))


@pytest.mark.req("STORE-9")
def test_a_run_is_ready_when_a_gate_closed_after_it_stopped(store: Store) -> None:
    """Answered or expired since it stopped: ready; answered before, or the run not waiting: not."""
    other = replace(GATE, id="8" * 16, run="cd" * 16, expires_us=400)
    rows = [
        RunRow(run, "f", None, "d", "b", "g", "p", None, "waiting", 1, "i", ended_us=150)
        for run in (GATE.run, other.run)
    ]
    for row in rows:
        store.write(lambda tx, row=row: tx.runs.create(row))  # type: ignore[misc]
    store.write(lambda tx: tx.gates.open(other))
    assert [] == store.read(lambda tx: tx.gates.ready(0))
    store.write(lambda tx: tx.gates.answer(GATE.id, approve=True, by="ann", reason="", at_us=200))
    assert ([GATE.run], [GATE.run], []) == store.read(
        lambda tx: (list(tx.gates.ready(0)), list(tx.gates.ready(200)), list(tx.gates.ready(201)))
    )
    store.write(lambda tx: tx.runs.update(GATE.run, ended_us=300))
    assert [] == store.read(lambda tx: tx.gates.ready(0))
    assert (False, True) == store.read(lambda tx: (tx.gates.overdue(400), tx.gates.overdue(401)))
    store.write(lambda tx: tx.gates.expire(500))
    assert not store.read(lambda tx: tx.gates.overdue(500))
    assert [other.run] == store.read(lambda tx: list(tx.gates.ready(0)))
    store.write(lambda tx: tx.runs.update(other.run, status="running"))
    assert [] == store.read(lambda tx: tx.gates.ready(0))


@pytest.mark.req("STORE-9")
def test_principals_are_found_by_name_and_by_token(store: Store) -> None:
    """Names and tokens are unique; only known columns change; a token is kept as its hash."""
    store.write(lambda tx: tx.principals.add(ANN))
    for double in (replace(ANN, token_hash="other"), replace(ANN, name="anna")):
        with pytest.raises(UsageProblem):
            store.write(lambda tx, row=double: tx.principals.add(row))  # type: ignore[misc]
    store.write(lambda tx: tx.principals.update("ann", roles="approver", disabled_us=7))
    changed = replace(ANN, roles="approver", disabled_us=7)
    assert (changed, changed, None, [changed]) == store.read(
        lambda tx: (
            tx.principals.get("ann"),
            tx.principals.by_token(hash_token("t1")),
            tx.principals.by_token(hash_token("t2")),
            list(tx.principals.list()),
        )
    )
    with pytest.raises(NotFound):
        store.write(lambda tx: tx.principals.update("bob", roles="admin"))
    with pytest.raises(TypeError):
        store.write(lambda tx: tx.principals.update("ann", created_by="bob"))


@pytest.mark.req("STORE-9")
def test_notices_wait_until_they_are_taken_or_their_gate_is_closed(store: Store) -> None:
    """Due in time, once each, again after a failure; not of a gate that was answered, amended or is late."""
    assert [True, False] == [store.write(lambda tx: tx.notices.add(NOTICE)) for _ in range(2)]

    def due(at_us: int) -> list[str]:
        return [notice.id for notice in store.read(lambda tx: tx.notices.due(at_us))]

    assert ([], [NOTICE.id], []) == (due(99), due(100), due(1001))
    store.write(lambda tx: tx.notices.failed(NOTICE.id, next_us=300, error="500"))
    assert ([], [NOTICE.id]) == (due(299), due(300))
    store.write(lambda tx: tx.gates.amend(replace(GATE, nonce="n2")))
    assert [] == due(300)
    other = replace(NOTICE, id=f"{GATE.id}:n2:ops:opened", nonce="n2")
    store.write(lambda tx: tx.notices.add(other))
    store.write(lambda tx: tx.notices.sent(other.id, at_us=301))
    assert [] == due(400)
    listed = store.read(lambda tx: tx.notices.list(GATE.id))
    assert [(1, None, "500"), (1, 301, None)] == [(item.attempts, item.sent_us, item.error) for item in listed]


@pytest.mark.req("STORE-9")
def test_a_notice_is_claimed_by_one_sender_and_owed_until_it_is_taken(store: Store) -> None:
    """Two senders: one has it; it is due again when that one's time is over, and owed meanwhile, as long as its gate asks."""
    store.write(lambda tx: tx.notices.add(NOTICE))

    def claim(at_us: int) -> bool:
        return store.write(lambda tx: tx.notices.claim(NOTICE.id, at_us=at_us, until_us=at_us + 50))

    def owed(at_us: int) -> bool:
        return store.read(lambda tx: tx.notices.owed(at_us))

    assert [False, True, False, False, True] == [claim(99), claim(100), claim(100), claim(149), claim(150)]
    assert (True, True, False) == (owed(0), owed(1000), owed(1001))
    store.write(lambda tx: tx.notices.sent(NOTICE.id, at_us=160))
    assert (False, False) == (owed(160), claim(500))


@pytest.mark.req("STORE-9")
def test_a_link_is_used_once_whoever_comes_at_the_same_time(store: Store) -> None:
    """Of eight threads one uses it; a late and an unknown one are refused."""
    link = Link("f" * 32, GATE.id, "n1", "ann", expires_us=500)
    store.write(lambda tx: tx.notices.link(link))
    with pytest.raises(GateNotUsable):
        store.write(lambda tx: tx.notices.use_link(link.id, at_us=501))
    with pytest.raises(GateNotUsable):
        store.write(lambda tx: tx.notices.use_link("0" * 32, at_us=1))
    used: list[bool] = []
    start = threading.Barrier(8)

    def use() -> None:
        start.wait(10)
        try:
            store.write(lambda tx: tx.notices.use_link(link.id, at_us=400))
            used.append(True)
        except GateNotUsable:
            used.append(False)

    threads = [threading.Thread(target=use) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert (8, 1) == (len(used), sum(used))
    found = store.read(lambda tx: tx.notices.find_link(link.id))
    assert replace(link, used_us=400) == found


@pytest.mark.req("STORE-9")
def test_a_link_whose_answer_fails_is_not_used_up(store: Store) -> None:
    """The use belongs to the answer's transaction: if that is undone, so is the use."""
    link = Link("e" * 32, GATE.id, "n1", "ann", expires_us=500)
    store.write(lambda tx: tx.notices.link(link))

    def work(tx: Tx) -> None:
        tx.notices.use_link(link.id, at_us=400)
        raise GateNotUsable("the answer was refused")

    with pytest.raises(GateNotUsable, match="refused"):
        store.write(work)
    assert link == store.read(lambda tx: tx.notices.find_link(link.id))
