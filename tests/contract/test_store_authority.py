"""The conformance suite of `store.authority.Authorities`: every adapter of the store passes all of it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import orjson
import pytest

from midwatch.errors import Ambiguous, GateNotUsable, NotFound, StoreError
from midwatch.records.authority import AuthorityRow
from midwatch.records.event import EventDraft
from midwatch.store.memory import MemoryStore
from midwatch.store.port import Store, Tx
from midwatch.store.postgres import PostgresStore
from midwatch.store.sqlite import SqliteStore
from tests.postgres_server import shared

ADAPTERS: dict[str, Callable[[Path], Store]] = {
    "sqlite": lambda folder: SqliteStore(folder / "midwatch.db"),
    "memory": lambda _: MemoryStore(),
    "postgres": lambda _: PostgresStore(shared().schema()),
}
ROW = AuthorityRow(
    id="a" * 16,
    place="/w/fleet.yaml",
    fleet="office",
    kind="grants",
    name="grants",
    number=1,
    digest="d" * 64,
    predecessor=None,
    state="endorsed",
    body="b" * 64,
    source=None,
    label="{}",
    why="first",
    asked_by="",
    by="anna",
    at_us=1,
    seq=1,
    seen_seq=1,
)


@pytest.fixture(params=sorted(ADAPTERS))
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    """Give each adapter in turn."""
    made = ADAPTERS[request.param](tmp_path)
    yield made
    made.close()


def add(store: Store, *rows: AuthorityRow) -> None:
    """Insert versions."""

    def work(tx: Tx) -> None:
        for row in rows:
            tx.authority.add(row)

    store.write(work)


def later(number: int, **more: object) -> AuthorityRow:
    """Make a later version that waits."""
    return replace(ROW, id=f"{number:016x}", number=number, state="pending", predecessor=ROW.digest, **more)  # type: ignore[arg-type]


@pytest.mark.req("OWN-5")
def test_versions_come_back_as_they_went_in(store: Store) -> None:
    """By id, by a prefix, by state and place; each number of a resource once."""
    two = later(2, answered_by=None, source="s" * 64)
    add(store, ROW, two)
    assert (ROW, two) == store.read(lambda tx: (tx.authority.get(ROW.id), tx.authority.find(two.id)))
    assert [two] == store.read(lambda tx: tx.authority.list(states=("pending",)))
    assert [ROW, two] == store.read(lambda tx: tx.authority.list(place=ROW.place))
    assert ([], 3, 1) == store.read(
        lambda tx: (
            tx.authority.list(place="/other"),
            tx.authority.numbered(ROW.place, "grants", "grants"),
            tx.authority.numbered(ROW.place, "gates", "gates"),
        )
    )
    with pytest.raises(NotFound):
        store.read(lambda tx: tx.authority.find("ffff"))
    add(store, replace(ROW, id="a" * 15 + "b", number=9))
    with pytest.raises(Ambiguous):
        store.read(lambda tx: tx.authority.find("aaaa"))
    with pytest.raises(StoreError):
        add(store, replace(ROW, id="c" * 16))


@pytest.mark.req("OWN-5")
def test_the_newest_is_the_last_endorsed_and_what_came_after(store: Store) -> None:
    """Of each resource of one place; a resource that nobody endorsed has all its versions."""
    old, new = replace(ROW, id="1" * 16), replace(ROW, id="2" * 16, number=2)
    waits, other = later(3), later(1, kind="gates", name="gates")
    add(store, old, new, waits, other, replace(ROW, id="9" * 16, place="/other"))
    assert [other, new, waits] == store.read(lambda tx: tx.authority.newest(ROW.place))


@pytest.mark.req("OWN-5")
def test_a_version_is_answered_once(store: Store) -> None:
    """Of those who answer at the same time one is heard; what the file was seen to hold stays as it was."""
    add(store, later(2, seen_seq=7))
    outcomes: list[str] = []
    start = threading.Barrier(4)

    def answer(place: int) -> None:
        start.wait(10)
        state = "endorsed" if place % 2 else "rejected"
        try:
            store.write(
                lambda tx: tx.authority.answer(later(2).id, state=state, by=f"p{place}", at_us=5, seq=9)  # type: ignore[arg-type]
            )
            outcomes.append("heard")
        except GateNotUsable:
            outcomes.append("refused")

    threads = [threading.Thread(target=answer, args=(place,)) for place in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    row = store.read(lambda tx: tx.authority.get(later(2).id))
    assert ["heard", "refused", "refused", "refused"] == sorted(outcomes)
    assert row is not None
    assert (5, 9, 7) == (row.answered_us, row.answered_seq, row.seen_seq)


@pytest.mark.req("OWN-5")
def test_the_epoch_only_rises_and_with_what_raised_it(store: Store) -> None:
    """It begins at nothing; a transaction that fails does not raise it; those at one time each raise it once."""
    assert 0 == store.read(lambda tx: tx.authority.epoch())
    assert 1 == store.write(lambda tx: tx.authority.raise_epoch())

    def fails(tx: Tx) -> None:
        tx.authority.raise_epoch()
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        store.write(fails)
    threads = [threading.Thread(target=lambda: store.write(lambda tx: tx.authority.raise_epoch())) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert 9 == store.read(lambda tx: tx.authority.epoch())


@pytest.mark.req("OWN-5")
def test_marks_of_what_was_seen_only_move_forward(store: Store) -> None:
    """An older look does not take back a newer one."""
    add(store, ROW)
    store.write(lambda tx: tx.authority.seen([ROW.id], 8))
    store.write(lambda tx: tx.authority.seen([ROW.id, "unknown"], 5))
    row = store.read(lambda tx: tx.authority.get(ROW.id))
    assert row is not None
    assert 8 == row.seen_seq


@pytest.mark.req("OWN-5")
def test_the_last_commit_of_a_file_is_found_or_one_that_has_begun(store: Store) -> None:
    """After an event, at any of the names; what is staged counts from the moment that its commit begins."""
    run = "1" * 32

    def call(tx: Tx) -> int:
        tx.ledger.append(EventDraft("run.created", run, 1, {"workdir": "/w"}))
        blob = tx.blobs.put(
            orjson.dumps(
                {"changes": [{"op": "created", "path": "f", "kind": "file", "sha256": "ab" * 32}], "requests": []}
            )
        )
        seen = {"layer": "", "blob": blob, "file": None, "changes": 1, "requests": 0}
        return tx.ledger.append(EventDraft("finished", run, 1, {"tool": "t", "ok": True, "observed": seen}))

    seq = store.write(call)
    assert ["/w"] == store.read(lambda tx: tx.authority.workspaces())
    assert store.read(lambda tx: tx.authority.written("/w", {"f"}, after=0)) is None
    begun = store.write(
        lambda tx: tx.ledger.append(EventDraft("effects.releasing", run, 1, {"workspace": "/w", "gate": None}))
    )
    assert (run, seq, begun) == store.read(lambda tx: tx.authority.written("/w", {"f", "g"}, after=0))
    ended = store.write(lambda tx: tx.ledger.append(EventDraft("effects.committed", run, 1, {"paths": None})))
    assert (run, seq, ended) == store.read(lambda tx: tx.authority.written("/w", {"f"}, after=begun))
    assert (None, None) == store.read(
        lambda tx: (tx.authority.written("/w", {"f"}, after=ended), tx.authority.written("/v", {"f"}, after=0))
    )
