"""The shape of `breakers:` in a fleet file, and what it means.

In:   plain values from `yaml_source`. Out: validated blocks; a `BreakersSpec`.
May import: pydantic; `file_types`, `specs_breakers`. Must not know: events, how anything is counted.
"""

from __future__ import annotations

from dataclasses import replace
from types import MappingProxyType
from typing import Annotated, Any, Final

from pydantic import BeforeValidator, Field

from midwatch.config.file_types import Block, Count, Name, Span, or_empty
from midwatch.config.specs_breakers import BreakerSpec, BreakersSpec

__all__ = ["BreakerFile", "BreakersFile", "breakers_spec"]

_Times = Annotated[Count, Field(ge=0, le=10_000)]
_TIMES: Final[dict[str, str]] = {"slow_call": "slow_call_us", "cooldown": "cooldown_us"}


class BreakerFile(Block):
    """When calls are stopped by themselves. What is left out is as around it; 0 turns a rule off."""

    consecutive_errors: _Times | None = Field(None, description="Calls in a row that failed; `3`.")
    slow_call: Span | None = Field(None, description="A call that takes longer is slow; no call is, unless given.")
    slow_calls: _Times | None = Field(None, description="Slow calls in a row; `3`.")
    cooldown: Span | None = Field(
        None, description="Until one call tries again; twice as long each time that it fails. `1m`."
    )
    refusals: _Times | None = Field(None, description="Refused calls of a tool after which their run pauses; `5`.")
    cycle: _Times | None = Field(None, description="How often the same few calls repeat with the same results; `5`.")
    no_progress: _Times | None = Field(None, description="Calls in a row whose results are all known already; `20`.")
    ping_pong: _Times | None = Field(None, description="How often two agents hand over to each other and back; `8`.")


_Own = Annotated[dict[Name, BreakerFile], BeforeValidator(or_empty)]


class BreakersFile(BreakerFile):
    """What opens by itself after failures, loops and the like. On unless turned off."""

    enabled: bool = Field(True, description="`false` turns every breaker off.")
    tools: Annotated[dict[str, BreakerFile], BeforeValidator(or_empty)] = Field(
        {}, description="For single tools, by name."
    )
    routes: _Own = Field({}, description="For single routes, by alias.")
    agents: _Own = Field({}, description="For single agents, by name.")


def breakers_spec(file: BreakersFile | None) -> BreakersSpec:
    """Give what the block means, with what it leaves out."""
    if file is None:
        return BreakersSpec()
    usual = _spec(file, BreakerSpec())
    named = (("tool", file.tools), ("route", file.routes), ("agent", file.agents))
    own = {f"{kind}:{name}": _spec(block, usual) for kind, blocks in named for name, block in blocks.items()}
    return BreakersSpec(file.enabled, usual, MappingProxyType(own))


def _spec(file: BreakerFile, usual: BreakerSpec) -> BreakerSpec:
    said: dict[str, Any] = {}
    for name in BreakerFile.model_fields:
        value = getattr(file, name)
        if value is not None:
            said[_TIMES.get(name, name)] = value
    return replace(usual, **said)
