"""Specs of the watch: which policies the governor judges by, and what it does then. Imported by way of `specs_bounds`.

In:   nothing. Out: frozen facts, the defaults. May import: nothing. Must not know: YAML, events, how anything is measured.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, Literal, get_args

__all__ = ["POLICIES", "WATCH_ACTIONS", "Sensitivity", "WatchAction", "WatchPolicy", "WatchSpec", "default_policies"]

WatchPolicy = Literal["volume", "destinations", "transitions", "errors", "loop", "processes", "burn"]
WatchAction = Literal["off", "warn", "throttle", "pause", "kill"]
Sensitivity = Literal["low", "normal", "high"]
POLICIES: Final[tuple[WatchPolicy, ...]] = get_args(WatchPolicy)
WATCH_ACTIONS: Final[tuple[WatchAction, ...]] = get_args(WatchAction)
"""From the mildest to the hardest."""

_HOUR: Final = 3_600_000_000


@dataclass(frozen=True, slots=True)
class WatchSpec:
    """One policy as it holds for a fleet.

    Attributes:
        action: what is done at most; `off` judges nothing.
        cool_down_us: the same finding about the same run is not acted on again for so long, unless it has grown fourfold.
        rate: calls a minute that `throttle` leaves, for as long as the cool-down.
    """

    action: WatchAction
    sensitivity: Sensitivity = "normal"
    cool_down_us: int = _HOUR
    rate: int = 6


_DEFAULTS: Final[Mapping[WatchPolicy, WatchSpec]] = MappingProxyType(
    {
        "volume": WatchSpec("pause"),
        "destinations": WatchSpec("warn"),
        "transitions": WatchSpec("warn"),
        "errors": WatchSpec("warn"),
        "loop": WatchSpec("pause"),
        "processes": WatchSpec("pause"),
        "burn": WatchSpec("warn", cool_down_us=24 * _HOUR),
    }
)


def default_policies() -> Mapping[WatchPolicy, WatchSpec]:
    """Give what holds where the file says nothing: warn, or pause where a wait costs less than what goes on; never kill."""
    return _DEFAULTS
