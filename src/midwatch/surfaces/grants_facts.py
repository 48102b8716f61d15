"""Facts of grants, for whoever shows effects: what is still staged would give to whom.

In:   steps of a run, or a planned commit; the workspace. Out: judgements, lines of text, JSON.
May import: engine's granting, surfaces' effects facts, the sandbox's release. Must not know: how it is shown, who may commit.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from midwatch.containment.authority import Granted
from midwatch.engine import granting
from midwatch.engine.granting import Gives
from midwatch.surfaces.effects_facts import Step, held

__all__ = ["as_json", "lines", "of_steps"]


def of_steps(found: Sequence[Step], workspace: Path | None) -> dict[int, Gives]:
    """Say by step what of it that is neither committed nor discarded would give, compared with what the call found."""
    holders = held([item.layer for item in found])
    told: dict[int, Gives] = {}
    for step in found:
        changes = tuple(change for change in step.layer.changes if step.states.get(change.path) == "staged")
        requests = tuple(item for place, item in enumerate(step.layer.requests) if step.sent.get(place) == "staged")
        if changes or requests:
            layer = replace(step.layer, changes=changes, requests=requests)
            told[step.seq] = granting.of_layer(layer, holders, workspace)
    return told


def as_json(grants: Iterable[Granted]) -> list[dict[str, Any]]:
    """Give grants as JSON."""
    return [item.to_json() for item in grants]


def lines(grants: Iterable[Granted]) -> list[str]:
    """Say each grant in one line."""
    return [granting.line(item) for item in grants]
