"""`midwatch tools signals`: how often what models wrote for a tool was wrong, by version and model."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from midwatch import wiring
from midwatch.records.event import EventDraft
from midwatch.store.memory import MemoryStore
from midwatch.store.port import Store, Tx
from midwatch.surfaces.cli import main
from midwatch.tracing.signals import ToolRow, signals

RUN = "ab" * 16
OLD, NEW = "1" * 64, "2" * 64


@pytest.fixture(name="store")
def _store() -> Iterator[MemoryStore]:
    store = MemoryStore()
    yield store
    store.close()


def _write(store: Store, kind: Any, data: dict[str, Any], *causes: int) -> int:
    return store.write(lambda tx: tx.ledger.append(EventDraft(kind, RUN, 1, data, causes=causes)))


def _proposed(store: Store, tool: str, model: str) -> int:
    asked = _write(store, "finished", {"model": model, "route": "fast", "ok": True, "usage": {}})
    proposed = _write(store, "proposed", {"tool": tool, "call": "1"}, asked)
    return _write(store, "decided", {"tool": tool, "call": "1", "stages": []}, proposed)


def _signal(store: Store, tool: str, digest: str, cause: int) -> None:
    _write(store, "signal", {"tool": tool, "tool_digest": digest, "rule": "fence", "where": "arguments"}, cause)


def _done(store: Store, digest: str, *, model: str = "m", recovered: bool = False, attempt: int = 1) -> None:
    told = {"tool": "t.one", "tool_digest": digest, "effect": "e", "attempt": attempt}
    intent = _write(store, "intent", told, _proposed(store, "t.one", model))
    ended = _write(store, "finished", {"tool": "t.one", "effect": "e", "ok": True}, intent)
    if recovered:
        _signal(store, "t.one", digest, ended)


def _refused(store: Store, *, digest: str | None = None, code: str = "invalid_arguments") -> None:
    errors = [{"path": "/mount", "rule": "required", "message": "is missing"}]
    body = json.dumps({"error": {"code": code, "field_errors": errors}}).encode()

    def work(tx: Tx) -> str:
        return tx.blobs.put(body)

    data = {"tool": "t.one", "ok": False, "code": code, "result_blob": store.write(work)}
    ended = _write(store, "finished", data, _proposed(store, "t.one", "m"))
    if digest is not None:
        _signal(store, "t.one", digest, ended)


def _rows(store: Store, *, over: int = 100, least: int = 1) -> dict[tuple[str, str], ToolRow]:
    return {(row.digest, row.model): row for row in signals(store, run=None, over_permille=over, least=least).tools}


@pytest.mark.req("SIGNALS-1")
def test_each_version_and_model_has_a_rate_of_its_own(store: MemoryStore) -> None:
    """A new schema starts at nothing, and a model that writes well does not hide one that does not."""
    _done(store, OLD, recovered=True)
    _done(store, OLD)
    _done(store, NEW)
    _done(store, NEW, model="other", recovered=True)
    rows = _rows(store)
    assert {(OLD, "m"): 500, (NEW, "m"): 0, (NEW, "other"): 1000} == {key: row.permille for key, row in rows.items()}
    assert (("fence", 1),) == rows[OLD, "m"].rules


@pytest.mark.req("SIGNALS-1")
def test_what_could_not_be_recovered_counts_and_names_the_argument(store: MemoryStore) -> None:
    """A refusal is a faulty call of the version that was known; one that was recovered first is one fault, not two."""
    _done(store, OLD)
    _refused(store)
    _refused(store, digest=OLD)
    _refused(store, code="denied")
    row = _rows(store)[OLD, "m"]
    assert (3, 1, 2, 2) == (row.calls, row.recovered, row.refused, row.faults)
    assert (("/mount: required", 2),) == row.arguments


@pytest.mark.req("SIGNALS-1")
def test_a_second_attempt_is_no_second_call(store: MemoryStore) -> None:
    """An effect that is begun again after a crash makes no rate look better than it is."""
    _done(store, OLD, recovered=True)
    _done(store, OLD, attempt=2)
    assert 1 == _rows(store)[OLD, "m"].calls


@pytest.mark.req("SIGNALS-1")
def test_an_alarm_takes_more_than_the_share_and_enough_calls(store: MemoryStore) -> None:
    """Exactly the share is none, and one bad call of one is none where five are asked for."""
    _done(store, OLD, recovered=True)
    _done(store, OLD)
    assert not _rows(store, over=500)[OLD, "m"].alarm
    assert _rows(store, over=499)[OLD, "m"].alarm
    assert not _rows(store, over=499, least=5)[OLD, "m"].alarm


@pytest.mark.req("SIGNALS-1")
def test_the_command_ends_in_one_on_an_alarm_and_in_nothing_without(tmp_path: Path) -> None:
    """A timer can watch it; where to look is said, and `--json` is one object."""
    home = tmp_path / "home"
    home.mkdir(mode=0o700)
    with wiring.open_store(home, create=True) as store:
        _done(store, OLD, recovered=True)
        _done(store, OLD)
    command = ["--home", str(home), "tools", "signals", "--least", "2"]
    told = CliRunner().invoke(main, command)
    assert 1 == told.exit_code, told.output
    assert "midwatch tools show t.one" in told.stderr
    assert "50.0 %" in told.stdout
    quiet = CliRunner().invoke(main, [*command, "--over", "50", "--json"])
    assert (0, True) == (quiet.exit_code, json.loads(quiet.stdout)["ok"])
