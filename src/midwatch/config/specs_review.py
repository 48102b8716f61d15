"""Specs of review: what gates, channels and the floor of a fleet file mean. Imported by way of `specs`.

In:   nothing. Out: frozen facts. May import: records. Must not know: YAML, people, how anybody is asked.
Units: money in micro-dollars, time in microseconds; all whole numbers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from midwatch.records.effect import EffectClass, Label

__all__ = [
    "ChannelFormat",
    "ChannelSpec",
    "Escalation",
    "Exempt",
    "GateRule",
    "GateWhen",
    "ObservedOp",
    "ObservedWhen",
    "ReviewSpec",
]

ChannelFormat = Literal["json", "slack", "mail"]
ObservedOp = Literal["created", "modified", "deleted", "permission", "executed", "read"]
"""What a sandbox can be seen to do to a file; the same words as `sandbox.effects.Op`."""


@dataclass(frozen=True, slots=True)
class ObservedWhen:
    """What a sandbox was seen to do: one change of a file that fits, or one request that fits, is enough.

    A rule has `hosts`, or the other three.

    Attributes:
        ops: kinds of change; empty: any. paths: globs of paths below the workspace; empty: any.
        watched: only files that grant later power: those with a `watched:…` flag.
        hosts: globs of hosts that a request was for, whether or not it was let out.
    """

    ops: tuple[ObservedOp, ...] = ()
    paths: tuple[str, ...] = ()
    hosts: tuple[str, ...] = ()
    watched: bool = False


@dataclass(frozen=True, slots=True)
class GateWhen:
    """When a gate rule applies: every field that is not empty must match; within a field one word is enough.

    Attributes:
        effect: effect classes of the tool. tool, agent: name globs.
        keywords: words in the tool's name or in its arguments, whatever their disguise (`gates.floor`).
        role: per argument role, globs one of which an argument of that role must match.
        cost: micro-dollars that a call may cost at least. reversible: whether the tool names what undoes it.
        environment: globs of the fleet's environment.
        label: whose words the run has taken in before the action: `request`, and the authors of its tools' results.
        observed: what a call's sandbox was seen to do; such a rule is asked about before the run's changes are committed, and holds
            only `effect`, `tool`, `agent` and `environment` besides.
    """

    effect: tuple[EffectClass, ...] = ()
    tool: tuple[str, ...] = ()
    agent: tuple[str, ...] = ()
    keywords: tuple[str, ...] = ()
    label: tuple[Label, ...] = ()
    role: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    cost: int | None = None
    reversible: bool | None = None
    environment: tuple[str, ...] = field(default=(), metadata={"later": True})
    observed: ObservedWhen | None = field(default=None, metadata={"later": True})


@dataclass(frozen=True, slots=True)
class Escalation:
    """Whom to ask besides when nobody has answered."""

    after_us: int
    to: str


@dataclass(frozen=True, slots=True)
class GateRule:
    """An action that `when` describes waits for a person in the role `ask`; after `timeout_us` the answer is no.

    Attributes:
        quorum: how many must say yes. four_eyes: whoever started the run may not be one of them.
        channels: names of `Fleet.channels` that are told.
    """

    when: GateWhen
    ask: str
    timeout_us: int = 900_000_000
    quorum: int = 1
    four_eyes: bool = False
    channels: tuple[str, ...] = ()
    escalate: Escalation | None = None


@dataclass(frozen=True, slots=True)
class ChannelSpec:
    """A webhook that is told of questions. Exactly one of `url` and `url_env`.

    Attributes:
        principal: whose rights its links carry; None: no links.
        secret_env: variable with the key that signs the body; None: unsigned.
    """

    name: str
    url: str | None
    url_env: str | None
    format: ChannelFormat = "json"
    principal: str | None = None
    secret_env: str | None = None


@dataclass(frozen=True, slots=True)
class Exempt:
    """Calls whose words ask nobody: tools that match, arguments that lie within `where` as in a grant."""

    tool: tuple[str, ...]
    where: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ReviewSpec:
    """How people are asked, whatever the rules say.

    Attributes:
        keywords: the fleet's own words for the floor. exempt: calls that it lets pass. ask, timeout_us: of the floor.
        links: address that links begin with; None: `http://127.0.0.1:8787`.
        canary: one in so many questions is followed by a made-up one; 0: none.
    """

    keywords: tuple[str, ...] = ()
    ask: str = "operator"
    timeout_us: int = 900_000_000
    links: str | None = None
    canary: int = 0
    exempt: tuple[Exempt, ...] = ()
