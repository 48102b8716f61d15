"""What is spent and what may be: whole numbers only, so that sums are exact.

Units: `cost` in micro-dollars, `tokens`, `tool_calls`, `steps`, `wall` and `working` in microseconds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal, get_args

__all__ = ["UNITS", "Account", "Amounts", "Line", "Unit"]

Unit = Literal["cost", "tokens", "tool_calls", "steps", "wall", "working"]
UNITS: Final[tuple[Unit, ...]] = get_args(Unit)

Amounts = Mapping[Unit, int]
"""How much of each unit; absent means none; each >= 0."""


@dataclass(frozen=True, slots=True)
class Line:
    """A claim on one scope: `amount` of `unit`."""

    scope: str
    unit: Unit
    amount: int


@dataclass(frozen=True, slots=True)
class Account:
    """Where one scope stands in one unit.

    Attributes:
        scope: `fleet:NAME@WINDOW`, `vertical:NAME@WINDOW`, `run:ID`, `agent:RUN/NAME`; see `governor.scopes`.
        cap: the bound, or None when the scope only counts.
        spent: settled. held: reserved and not yet settled. `spent + held <= cap` always.
    """

    scope: str
    unit: Unit
    cap: int | None
    spent: int
    held: int
