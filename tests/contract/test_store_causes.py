"""The conformance suite of `store.history.Causes`: every adapter of the store passes all of it."""

from __future__ import annotations

import gzip
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from midwatch.records.edge import Edge
from midwatch.records.event import EventDraft
from midwatch.store.memory import MemoryStore
from midwatch.store.migrate import backup_path
from midwatch.store.port import Store, Tx
from midwatch.store.postgres import PostgresStore
from midwatch.store.sqlite import REVISION, SqliteStore
from tests.postgres_server import shared

ADAPTERS: dict[str, Callable[[Path], Store]] = {
    "sqlite": lambda folder: SqliteStore(folder / "midwatch.db"),
    "memory": lambda _: MemoryStore(),
    "postgres": lambda _: PostgresStore(shared().schema()),
}
ONE, TWO = "1" * 32, "2" * 32
SHA, OTHER = "ab" * 32, "cd" * 32


@pytest.fixture(params=sorted(ADAPTERS))
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    """Give each adapter in turn."""
    made = ADAPTERS[request.param](tmp_path)
    yield made
    made.close()


def add(store: Store, kind: Any, run: str, data: dict[str, Any] | None = None, *causes: int) -> int:
    """Append one event in a transaction of its own."""
    return store.write(lambda tx: tx.ledger.append(EventDraft(kind, run, 1, data or {}, causes=causes)))


def call(store: Store, run: str, *changes: dict[str, Any]) -> int:
    """Append a call's beginning and its end, with what it was seen to do; gives the end."""

    def work(tx: Tx) -> int:
        began = tx.ledger.append(EventDraft("intent", run, 1, {"tool": "t"}))
        blob = tx.blobs.put(orjson.dumps({"changes": changes, "requests": []}))
        seen = {"layer": "", "blob": blob, "file": None, "changes": 1, "requests": 0}
        data = {"tool": "t", "ok": True, "observed": seen}
        return tx.ledger.append(EventDraft("finished", run, 1, data, causes=(began,)))

    return store.write(work)


def wrote(path: str, sha256: str = SHA, **more: Any) -> dict[str, Any]:
    """Make a change that leaves a content."""
    return {"op": "created", "path": path, "kind": "file", "sha256": sha256, **more}


def read(path: str, op: str = "read", *, sha256: str | None = None, flags: tuple[str, ...] = ()) -> dict[str, Any]:
    """Make a look at a file; `sha256`: with the content that it had."""
    look = {"op": op, "path": path, "kind": "file", "flags": list(flags)}
    return look if sha256 is None else look | {"sha256": sha256}


def begin(store: Store, run: str, workdir: str = "/w") -> int:
    """Append a run's request."""
    return add(store, "run.created", run, {"workdir": workdir})


def commit(store: Store, run: str, workspace: str = "/w") -> int:
    """Append a whole commit."""
    add(store, "effects.releasing", run, {"workspace": workspace, "gate": None})
    return add(store, "effects.committed", run, {"paths": None})


def files(store: Store, seq: int) -> list[tuple[int, str, str | None]]:
    """Give the file edges that lead to an event."""
    edges = store.read(lambda tx: tx.causes.before(seq))
    return [(edge.cause, edge.kind, edge.note) for edge in edges if edge.note is not None]


@pytest.mark.req("CAUSES-1")
def test_an_event_is_found_from_both_ends(store: Store) -> None:
    """Its causes, what it caused, and for what names no cause the request of its run."""
    first = begin(store, ONE)
    second, third = add(store, "signal", ONE), add(store, "signal", ONE, {}, first)
    last = add(store, "signal", ONE, {}, second, third, third)
    edges = [Edge(second, last, "cause"), Edge(third, last, "cause")]
    assert edges == store.read(lambda tx: tx.causes.before(last))
    assert [Edge(first, second, "request"), Edge(first, third, "cause")] == store.read(
        lambda tx: tx.causes.after(first)
    )
    assert [edges[0]] == store.read(lambda tx: tx.causes.after(second))
    assert ([], []) == store.read(lambda tx: (tx.causes.before(first), tx.causes.before(99)))


@pytest.mark.req("CAUSES-1")
def test_edges_are_seen_in_the_transaction_that_makes_them(store: Store) -> None:
    """Whoever appends may ask at once."""
    first = begin(store, ONE)

    def work(tx: Tx) -> tuple[list[int], list[int]]:
        seq = tx.ledger.append(EventDraft("signal", ONE, 1, {}, causes=(first,)))
        return [edge.effect for edge in tx.causes.after(first)], [item.seq for item in tx.causes.reach(seq, limit=9)]

    assert ([2], [2]) == store.write(work)


@pytest.mark.req("CAUSES-2")
def test_a_staged_file_leads_to_who_reads_it_in_the_same_run(store: Store) -> None:
    """The last version before the call began; what came in meanwhile only may have been read; what is deleted was not."""
    begin(store, ONE)
    call(store, ONE, wrote("a"))
    second = call(store, ONE, wrote("a", OTHER))
    assert [(second, "read", "a")] == files(store, call(store, ONE, read("a")))
    assert [(second, "executed", "a")] == files(store, call(store, ONE, read("a", "executed")))
    began = add(store, "intent", ONE)
    third = call(store, ONE, wrote("a"))
    late = store.write(lambda tx: _ended(tx, ONE, began, read("a")))
    assert [(second, "may-read", "a"), (third, "may-read", "a")] == files(store, late)
    call(store, ONE, {"op": "deleted", "path": "a", "kind": "file", "before": SHA})
    assert [] == files(store, call(store, ONE, read("a")))


def _ended(tx: Tx, run: str, began: int, *changes: dict[str, Any]) -> int:
    blob = tx.blobs.put(orjson.dumps({"changes": changes, "requests": []}))
    seen = {"layer": "", "blob": blob, "file": None, "changes": 1, "requests": 0}
    return tx.ledger.append(EventDraft("finished", run, 1, {"tool": "t", "observed": seen}, causes=(began,)))


@pytest.mark.req("CAUSES-2")
def test_a_file_leads_to_another_run_only_once_it_is_committed_and_only_in_its_workspace(store: Store) -> None:
    """Staged or discarded it is nobody else's; another workspace's file of that name is another file."""
    begin(store, ONE)
    begin(store, TWO)
    one = call(store, ONE, wrote("a"))
    assert [] == files(store, call(store, TWO, read("a")))
    add(store, "effects.discarded", ONE, {"paths": None})
    commit(store, ONE)
    assert [] == files(store, call(store, TWO, read("a")))
    one = call(store, ONE, wrote("a"))
    commit(store, ONE)
    assert [(one, "may-read", "a")] == files(store, call(store, TWO, read("a")))
    begin(store, "3" * 32, "/elsewhere")
    assert [] == files(store, call(store, "3" * 32, read("a")))
    versions = store.read(lambda tx: tx.causes.committed([one]))
    assert [("a", "/w", SHA, True)] == [
        (item.path, item.workspace, item.sha256, item.committed is not None) for item in versions
    ]


@pytest.mark.req("CAUSES-2")
def test_a_read_is_certain_where_its_content_is_that_of_a_committed_file(store: Store) -> None:
    """Across runs equal hashes are proof; another hash, or a file that moved meanwhile, leaves the edge that only may be."""
    begin(store, ONE)
    begin(store, TWO)
    one = call(store, ONE, wrote("a"))
    commit(store, ONE)
    assert [(one, "read", "a")] == files(store, call(store, TWO, read("a", sha256=SHA)))
    assert [(one, "executed", "a")] == files(store, call(store, TWO, read("a", "executed", sha256=SHA)))
    assert [(one, "may-read", "a")] == files(store, call(store, TWO, read("a", sha256=OTHER)))
    assert [(one, "may-read", "a")] == files(store, call(store, TWO, read("a", sha256=SHA, flags=("moved",))))
    again = call(store, ONE, wrote("a", OTHER))
    commit(store, ONE)
    assert [(again, "read", "a")] == files(store, call(store, TWO, read("a", sha256=OTHER)))
    assert [(one, "read", "a")] == files(store, call(store, TWO, read("a", sha256=SHA))), "it was put back by hand"


@pytest.mark.req("CAUSES-2")
def test_of_two_versions_in_a_run_the_content_says_which_was_read(store: Store) -> None:
    """What another agent wrote meanwhile is ruled out by its hash; what a call itself made is nobody else's."""
    begin(store, ONE)
    first = call(store, ONE, wrote("a"))
    began = add(store, "intent", ONE)
    later = call(store, ONE, wrote("a", OTHER))
    assert [(first, "read", "a")] == files(store, store.write(lambda tx: _ended(tx, ONE, began, read("a", sha256=SHA))))
    assert [(first, "may-read", "a"), (later, "may-read", "a")] == files(
        store, store.write(lambda tx: _ended(tx, ONE, began, read("a", sha256="77" * 32)))
    )
    call(store, ONE, {"op": "deleted", "path": "a", "kind": "file", "before": OTHER})
    own = call(store, ONE, wrote("a"), read("a", "executed", sha256=SHA))
    assert [] == files(store, own), "a call that makes a file anew and runs it met nobody's"


@pytest.mark.req("CAUSES-2")
def test_what_was_changed_leads_back_by_its_content_alone(store: Store) -> None:
    """The content that the call found is somebody's, or nobody's that is known: then there is no edge."""
    begin(store, ONE)
    begin(store, TWO)
    one = call(store, ONE, wrote("a"))
    commit(store, ONE)
    known = call(store, TWO, {"op": "modified", "path": "a", "kind": "file", "sha256": OTHER, "before": SHA})
    foreign = call(store, TWO, {"op": "modified", "path": "a", "kind": "file", "sha256": SHA, "before": "ef" * 32})
    assert ([(one, "changed", "a")], []) == (files(store, known), files(store, foreign))


@pytest.mark.req("CAUSES-5")
def test_reach_is_whole_nearest_first_and_bounded(store: Store) -> None:
    """A run's request reaches all of the run, and what reads its files elsewhere."""
    first = begin(store, ONE)
    one = call(store, ONE, wrote("a"))
    commit(store, ONE)
    begin(store, TWO)
    other = call(store, TWO, read("a"))
    found = store.read(lambda tx: tx.causes.reach(first, limit=100))
    assert ([1, 2, 3, 4, 5, other], {ONE, TWO}) == ([item.seq for item in found], {item.run for item in found})
    assert [one, 4, other, 5] == [item.seq for item in store.read(lambda tx: tx.causes.reach(one, limit=100))]
    assert 2 == len(store.read(lambda tx: tx.causes.reach(one, limit=2)))


@pytest.mark.req("CAUSES-7")
def test_marks_cover_what_followed_and_what_follows(store: Store) -> None:
    """Once made, they go on to later events in any run; two quarantines stand apart; lifting one leaves the other."""
    begin(store, ONE)
    one = call(store, ONE, wrote("a"))
    commit(store, ONE)
    aside = add(store, "signal", ONE)
    by = add(store, "event.quarantined", ONE, {}, one)
    assert 3 == store.write(lambda tx: tx.causes.quarantine(one, by=by))
    begin(store, TWO)
    other = call(store, TWO, read("a"))
    later = add(store, "signal", TWO, {}, other)
    clean = add(store, "signal", TWO)
    assert {one: by, other: by, later: by} == store.read(
        lambda tx: tx.causes.quarantined([one, aside, other, later, clean])
    )
    again = add(store, "event.quarantined", TWO, {}, later)
    store.write(lambda tx: tx.causes.quarantine(later, by=again))
    assert [by, again] == store.read(lambda tx: tx.causes.marks(later))
    assert 6 == store.write(lambda tx: tx.causes.lift(by))
    assert {later: again} == store.read(lambda tx: tx.causes.quarantined(range(1, 30)))


@pytest.mark.req("CAUSES-7")
def test_a_quarantined_request_marks_all_that_its_run_does_later(store: Store) -> None:
    """Also what names no cause."""
    first = begin(store, ONE)
    by = add(store, "event.quarantined", ONE, {}, first)
    store.write(lambda tx: tx.causes.quarantine(first, by=by))
    later = add(store, "intent", ONE)
    assert {later: by} == store.read(lambda tx: tx.causes.quarantined([later]))


@pytest.mark.req("CAUSES-3")
def test_a_home_of_revision_2_gets_the_tables_of_a_fresh_one(tmp_path: Path) -> None:
    """A copy of what it was stays beside it; opening it again changes nothing."""
    home = Path(__file__).parents[1] / "fixtures" / "home_r2" / "home.sql.gz"
    raw = sqlite3.connect(tmp_path / "midwatch.db")
    raw.executescript(gzip.decompress(home.read_bytes()).decode())
    raw.close()
    SqliteStore(tmp_path / "midwatch.db").close()
    SqliteStore(tmp_path / "fresh.db").close()
    shapes = []
    for name in ("midwatch.db", "fresh.db"):
        raw = sqlite3.connect(tmp_path / name)
        tables = ("event", "cause", "file_version", "quarantine")
        shapes.append(
            [
                raw.execute(f"PRAGMA {what}({table})").fetchall()
                for table in tables
                for what in ("table_info", "table_list")
            ]
        )
        shapes[-1].append(
            sorted(raw.execute("SELECT name, tbl_name FROM sqlite_master WHERE type = 'index'").fetchall())
        )
        assert (REVISION,) == raw.execute("PRAGMA user_version").fetchone()
        raw.close()
    assert shapes[1] == shapes[0]
    assert backup_path(str(tmp_path / "midwatch.db"), 2).is_file()
