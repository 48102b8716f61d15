"""What attacks on an office share: the proposals, and the home behind everybody's back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from midwatch import wiring
from midwatch.records.gate import GateRow
from midwatch.store.port import Tx
from tests.scenario.office import Office

__all__ = ["CART", "NOBODY", "SHOP", "opened", "update", "within"]

SHOP = ("ops.place", {"service": "shop", "version": "v2"})
CART = ("ops.place", {"service": "cart", "version": "v2"})
_T = TypeVar("_T")
NOBODY = "- {when: {tool: ops.never}, ask: operator}"


def within(office: Office, work: Callable[[Tx], _T]) -> _T:
    """Do one transaction in the office's home."""
    with wiring.open_store(office.home, create=True) as store:
        return store.write(work)


def update(office: Office, name: str, **changes: Any) -> None:
    """Change somebody behind everybody's back, as an admin in another process does."""
    within(office, lambda tx: tx.principals.update(name, **changes))


def opened(office: Office) -> list[GateRow]:
    """Give every gate of the home."""
    return list(within(office, lambda tx: tx.gates.list()))
