"""Planned: one commit of what a run did, as an order and as everything that it would do; digested, so that a yes is for exactly that.

In:   an order, what the run has staged, the workspace as it is. Out: `Planned`.
May import: staged, the sandbox's release, gates, config, errors. Must not know: people, the ledger's events.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import orjson

from midwatch.config.fleet import Fleet
from midwatch.engine import granting
from midwatch.engine.granting import Gives
from midwatch.engine.staged import Staged
from midwatch.errors import Conflict, UsageProblem
from midwatch.gates.binding import action_digest
from midwatch.gates.review import Speaker
from midwatch.records.effect import effect_id
from midwatch.sandbox import release
from midwatch.sandbox.layers import Layer
from midwatch.sandbox.release import Item, Release

__all__ = ["COMMIT", "TASK", "Order", "Planned", "planned"]

COMMIT: Final = "effects.commit"
"""Names the action in gates, as a tool's name does for others."""
TASK: Final = "release"


@dataclass(frozen=True, slots=True)
class Order:
    """One commit or discard.

    Attributes:
        folder: of the run's layers. epoch: fence of the run, held by the caller.
        speaker: who orders it; None: the fleet does, at the run's end.
        only: globs of paths; empty: all, and the requests that were kept.
    """

    run: str
    workspace: Path
    folder: Path
    epoch: int
    speaker: Speaker | None
    at_us: int
    only: tuple[str, ...] = ()
    reason: str = ""

    @property
    def journal(self) -> Path:
        """Where a commit that was killed left what it needs to end."""
        return self.folder / "commit.journal"

    @property
    def by(self) -> str:
        """Who orders it, in a word."""
        return "fleet" if self.speaker is None else self.speaker.name

    @property
    def gate(self) -> str:
        """The id of the gate at which people are asked for it."""
        return effect_id(self.run, TASK, ",".join(self.only), COMMIT)


@dataclass(frozen=True)
class Planned:
    """What an order would do, as the workspace is now.

    Attributes:
        held: what is staged, oldest first. release: of all of it. chosen: the paths that the order means.
        kept: the requests that it sends, by layer and place there, in the order in which they were made.
    """

    order: Order
    held: Sequence[Staged]
    release: Release
    chosen: Sequence[Item]
    kept: Sequence[tuple[Staged, int]]

    @property
    def layers(self) -> list[Layer]:
        """The layers behind it."""
        return [item.layer for item in self.held]

    @property
    def paths(self) -> list[str]:
        """The paths that the order means."""
        return [item.path for item in self.chosen]

    @cached_property
    def arguments(self) -> bytes:
        """What a yes is for, as JSON: the plan of every path, which of them are meant, and each request with its body's digest."""
        sent = [
            {"agent": item.agent, "layer": item.seq, "request": item.layer.requests[index].to_json()}
            for item, index in self.kept
        ]
        body: dict[str, Any] = {"release": self.release.digest, "paths": self.paths, "requests": sent}
        return orjson.dumps(body, option=orjson.OPT_SORT_KEYS)

    @cached_property
    def gives(self) -> Gives:
        """What it would give, and to whom."""
        return granting.gives(self.chosen, self.kept, self.layers, self.order.workspace)

    def action(self, fleet: Fleet) -> str:
        """Digest it, under the rules of this fleet."""
        return action_digest(
            tool=COMMIT,
            tool_digest="",
            code="",
            args_digest=hashlib.sha256(self.arguments).hexdigest(),
            agent=",".join(self.order.only),
            policy_digest=fleet.policy_digest,
        )

    def conflicts(self) -> None:
        """Refuse what would overwrite what somebody wrote meanwhile.

        Raises:
            Conflict: one of the paths is not as the run found it.
        """
        told = "; ".join(f"`{item.path}`: {item.conflict}" for item in self.chosen if item.conflict)
        if told:
            raise Conflict(
                f"the workspace is not as the run found it, so nothing was committed: {told}. Put it back, commit the rest "
                "with `--only`, or discard"
            )


def planned(order: Order, held: Sequence[Staged]) -> Planned:
    """Say what an order would do.

    Raises:
        UsageProblem: no staged path fits `only`. SandboxError: a layer or the workspace cannot be read.
    """
    whole = release.plan([item.layer for item in held], order.workspace)
    chosen = [item for item in whole.items if not order.only or any(fnmatchcase(item.path, g) for g in order.only)]
    if order.only and not chosen:
        told = ", ".join(f"`{glob}`" for glob in order.only)
        raise UsageProblem(f"no staged path fits {told}; `midwatch effects RUN` lists them")
    kept = [
        (item, index)
        for item in held
        for index, request in enumerate(item.layer.requests)
        if request.outcome == "staged" and not order.only
    ]
    return Planned(order, held, whole, chosen, kept)
