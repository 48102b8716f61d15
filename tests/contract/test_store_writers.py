"""Who left what a call may find: every adapter of the store says the same."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from midwatch.store.port import Store
from tests.contract.test_store_causes import ONE, OTHER, TWO, begin, call, commit, store, wrote

__all__ = ["store"]


def writers(store: Store, run: str, *paths: str, limit: int = 100) -> Sequence[int]:
    """Ask for these paths, or for any."""
    return list(store.read(lambda tx: tx.causes.writers(run, paths or None, limit=limit)))


@pytest.mark.req("CONTAIN-9")
def test_staged_of_ones_own_and_committed_by_anybody_in_the_workspace(store: Store) -> None:
    """A path, a folder, anywhere: all that one has staged, of what was committed the last; nothing of other workspaces."""
    begin(store, ONE)
    old = call(store, ONE, wrote("docs/a.txt"), wrote("docs-b.txt"))
    commit(store, ONE)
    begin(store, TWO)
    new = call(store, TWO, wrote("docs/a.txt", OTHER))
    assert [old] == writers(store, ONE, "docs/a.txt") == writers(store, ONE, "docs")
    assert [old, new] == writers(store, TWO, "docs/a.txt") == writers(store, TWO, "docs")
    commit(store, TWO)
    assert [new] == writers(store, ONE, "docs/a.txt") == writers(store, ONE, "docs")
    assert [old, new] == writers(store, ONE)
    assert [old] == writers(store, ONE, "docs-b.txt")
    assert [] == writers(store, ONE, "doc", "nowhere")
    assert 1 == len(writers(store, ONE, limit=1))
    begin(store, "3" * 32, "/elsewhere")
    assert [] == writers(store, "3" * 32)
