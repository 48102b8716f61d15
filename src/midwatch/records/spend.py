"""What is spent and what may be: whole numbers only, so that sums are exact.

Units: `cost` in micro-dollars, `tokens`, `tool_calls`, `steps`, `wall` and `working` in microseconds; `processes` and `concurrency` are
only held while something lasts, and never spent.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal, get_args

__all__ = ["HELD_UNITS", "UNITS", "Account", "Amounts", "Line", "Order", "Unit"]

Unit = Literal["cost", "tokens", "tool_calls", "steps", "wall", "working", "processes", "concurrency"]
UNITS: Final[tuple[Unit, ...]] = get_args(Unit)
HELD_UNITS: Final[frozenset[Unit]] = frozenset(("processes", "concurrency"))

Amounts = Mapping[Unit, int]
"""How much of each unit; absent means none; each >= 0."""


@dataclass(frozen=True, slots=True)
class Line:
    """A claim on one scope: `amount` of `unit`. Where `shadow`, the scope's cap is only looked at and stops nothing."""

    scope: str
    unit: Unit
    amount: int
    shadow: bool = False


@dataclass(frozen=True, slots=True)
class Account:
    """Where one scope stands in one unit.

    Attributes:
        scope: `fleet:NAME@WINDOW`, `vertical:NAME@WINDOW`, `run:ID`, `agent:RUN/NAME`; see `governor.scopes`.
        cap: the bound, or None when the scope only counts.
        spent: settled. held: reserved and not yet settled. `spent + held <= cap` always, but where the scope is in shadow, or the cap
            was lowered, or more was used than was held.
    """

    scope: str
    unit: Unit
    cap: int | None
    spent: int
    held: int


@dataclass(frozen=True, slots=True)
class Order:
    """What a person said about the cap of one scope in one unit.

    Attributes:
        file: the cap of the fleet file when `cap` was set; a file that says something else since has the last word.
        cap: what a person set instead, or None. added: what people added on top.
    """

    scope: str
    unit: Unit
    file: int | None = None
    cap: int | None = None
    added: int = 0
