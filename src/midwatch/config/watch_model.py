"""The shape of `governor:` in a fleet file, and what it means.

In:   plain values from `yaml_source`. Out: validated blocks; a `GovernorSpec`.
May import: pydantic; `file_types`, `specs_bounds`, `specs_watch`. Must not know: events, how anything is measured.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import Annotated, Any, Final, Literal

from pydantic import BeforeValidator, Field

from midwatch.config.file_types import Block, Count, OrWord, Span, or_empty
from midwatch.config.specs_bounds import GovernorSpec
from midwatch.config.specs_watch import (
    WATCH_ACTIONS,
    Sensitivity,
    WatchAction,
    WatchPolicy,
    WatchSpec,
    default_policies,
)

__all__ = ["GovernorFile", "WatchPoliciesFile", "WatchPolicyFile", "governor_spec"]


class WatchPolicyFile(Block):
    """What follows when a policy finds something. A word alone names the action: `volume: warn`."""

    action: WatchAction | None = Field(
        None, description="At most this: `off`, `warn`, `throttle`, `pause` or `kill`; the policy's own unless given."
    )
    sensitivity: Sensitivity = Field(
        "normal", description="How far from usual is too far; `high` finds more, and errs more."
    )
    cool_down: Span | None = Field(
        None,
        description="How long the same finding on the same run is not acted on again, unless it has grown fourfold; `1h`, `burn` a day.",
    )
    rate: Annotated[Count, Field(gt=0, le=6000)] = Field(
        6, description="Calls a minute that `throttle` leaves, for the cool-down."
    )


def _word(value: object) -> object:
    return {"action": value} if isinstance(value, str) else or_empty(value)


_ACTIONS: Final[dict[str, Any]] = {"type": "string", "enum": list(WATCH_ACTIONS)}
_Policy = Annotated[WatchPolicyFile, BeforeValidator(_word), OrWord(_ACTIONS)]


class WatchPoliciesFile(Block):
    """What the governor judges each agent by, against that agent's own past."""

    volume: _Policy | None = Field(
        None, description="Calls, bytes out, tokens or money in ten minutes; `pause` unless given."
    )
    destinations: _Policy | None = Field(
        None, description="Hosts, paths and tables never used before; `warn` unless given."
    )
    transitions: _Policy | None = Field(None, description="Orders of tools never used before; `warn` unless given.")
    errors: _Policy | None = Field(None, description="Share of calls that fail; `warn` unless given.")
    loop: _Policy | None = Field(None, description="The same few calls over and over in a run; `pause` unless given.")
    processes: _Policy | None = Field(
        None, description="Processes in its sandbox, forks refused at the bound; `pause` unless given."
    )
    burn: _Policy | None = Field(None, description="More each day than usual, for days; `warn` unless given.")


class GovernorFile(Block):
    """The watch outside the runs."""

    mode: Literal["child", "daemon", "cron"] = Field(
        "child",
        description="Who starts it: `run` itself (`child`), a service (`midwatch governor run`), or cron (`midwatch governor once`).",
    )
    period: Span | None = Field(None, description="Time between two passes; `1s`, with `cron` a minute.")
    stale_after: Span | None = Field(
        None,
        description="Without a heartbeat for this long no effect begins. More than `period`: `30s`, or three periods if that is longer.",
    )
    warm_up: Span = Field(
        259_200_000_000,
        description="How long an agent is only learned from; hard limits hold from its first call.",
        json_schema_extra={"default": "3d"},
    )
    policies: WatchPoliciesFile | None = Field(None, description="What is judged, and what follows.")


def governor_spec(file: GovernorFile | None) -> GovernorSpec:
    """Give what the block means, with what it leaves out."""
    if file is None:
        return GovernorSpec()
    period = file.period if file.period is not None else 60_000_000 if file.mode == "cron" else 1_000_000
    stale = file.stale_after if file.stale_after is not None else max(30_000_000, 3 * period)
    said: dict[WatchPolicy, WatchSpec] = {}
    for name, usual in default_policies().items():
        block = None if file.policies is None else getattr(file.policies, name)
        if block is not None:
            cool = usual.cool_down_us if block.cool_down is None else block.cool_down
            spec = WatchSpec(block.action or usual.action, block.sensitivity, cool, block.rate)
            if spec != usual:
                said[name] = spec
    return GovernorSpec(file.mode, stale, period, file.warm_up, MappingProxyType(said))
