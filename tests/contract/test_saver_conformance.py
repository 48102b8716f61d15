"""LangGraph's public conformance suite on our saver, over each store."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from pathlib import Path

import pytest
from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.checkpoint.conformance import checkpointer_test, validate
from langgraph.checkpoint.conformance.capabilities import Capability
from langgraph.checkpoint.conformance.initializer import RegisteredCheckpointer

from midwatch.graph.saver import Saver
from midwatch.store.memory import MemoryStore
from midwatch.store.port import Store
from midwatch.store.postgres import PostgresStore
from midwatch.store.sqlite import SqliteStore
from tests.postgres_server import shared

TESTS_OF_THE_SUITE = 81


def _memory(_: Path) -> Store:
    return MemoryStore()


def _file(folder: Path) -> Store:
    return SqliteStore(folder / "midwatch.db")


def _server(_: Path) -> Store:
    return PostgresStore(shared().schema())


def _registered(make: Callable[[], Store], *, fenced: bool) -> RegisteredCheckpointer:
    async def factory() -> AsyncGenerator[BaseCheckpointSaver[int], None]:
        store = make()
        if fenced:
            epoch = store.write(lambda tx: tx.fences.take("run", owner="test", at_us=1, ttl_us=1))
            yield Saver(store, run="run", epoch=epoch)
        else:
            yield Saver(store)
        store.close()

    registered: RegisteredCheckpointer = checkpointer_test(name="midwatch")(factory)
    return registered


@pytest.mark.req("SAVER-1")
@pytest.mark.parametrize("fenced", [False, True], ids=["free", "fenced"])
@pytest.mark.parametrize("make", [_memory, _file, _server], ids=["memory", "sqlite", "postgres"])
def test_the_public_suite_passes_in_full(make: Callable[[Path], Store], fenced: bool, tmp_path: Path) -> None:
    """Every capability, optional ones too, is found and passes all its tests."""
    count = iter(range(1000))
    report = asyncio.run(validate(_registered(lambda: make(tmp_path / str(next(count))), fenced=fenced)))

    failures = [failure for result in report.results.values() for failure in result.failures]
    assert [] == failures
    assert {capability.value for capability in Capability} == {
        name for name, result in report.results.items() if result.passed
    }
    assert sum(result.tests_passed for result in report.results.values()) >= TESTS_OF_THE_SUITE
