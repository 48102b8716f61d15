"""What an action can do to the world, in the closed words of the tool contract.

Source: DESIGN.md, promise 1; CONTAINMENT.md, clauses 6, 9, 19.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Final, Literal, get_args

__all__ = [
    "EFFECT_CLASSES",
    "ROLES",
    "WORST_EFFECT",
    "Author",
    "EffectClass",
    "EffectRow",
    "EffectStatus",
    "Label",
    "Role",
    "RunsIn",
    "effect_id",
    "is_worse",
]

EffectClass = Literal["pure", "read", "write", "destructive", "grants_authority"]
"""From harmless to worst: computes; looks; adds or changes; loses; enables later power."""

Role = Literal["target", "command", "credential", "selector", "quantity", "content", "control"]
"""What an argument is for. Undeclared counts as `command`, the strictest."""

Author = Literal["service", "caller", "third_party"]
"""Who wrote a field of a result. Undeclared counts as `third_party`, the least trusted."""

Label = Literal["request", "service", "caller", "third_party"]
"""Whose words may have reached whoever acts: the run's own input, or an author of what its tools gave back."""

RunsIn = Literal["sandbox", "broker"]
"""Where a tool acts: in the agent's sandbox, or outside it where alone credentials are held."""

EffectStatus = Literal["started", "done", "not_done", "retry"]
"""Journal states. `started` without a live worker is UNKNOWN. `not_done` and `retry` are a person's word."""

EFFECT_CLASSES: Final[tuple[EffectClass, ...]] = get_args(EffectClass)
ROLES: Final[tuple[Role, ...]] = get_args(Role)
WORST_EFFECT: Final[EffectClass] = "grants_authority"


def is_worse(left: EffectClass, right: EffectClass) -> bool:
    """Say whether `left` can do more harm than `right`."""
    return EFFECT_CLASSES.index(left) > EFFECT_CLASSES.index(right)


def effect_id(run: str, task: str, call_id: str, tool: str) -> str:
    """Name an effect by its place in the run: the same place gets the same name after a crash.

    Returns:
        The first 16 hex digits of SHA-256 of the journal key. It is also the idempotency key given to the target.
    """
    key = f"{run}\x1f{task}\x1f{call_id}\x1f{tool}"
    return hashlib.sha256(key.encode()).hexdigest()[:16]


@dataclass(frozen=True, slots=True)
class EffectRow:
    """One line of the effect journal: intent before, result after.

    Attributes:
        id: `effect_id(...)` of run, task, call_id, tool.
        kind: `tool` or `model`.
        args_digest: SHA-256 hex of the canonical arguments; another digest under the same id is a divergence.
        arguments: blob digest of the canonical arguments.
        epoch: fence epoch of the worker that wrote the intent.
        attempt: 1 for the first intent; a retry of an in-doubt effect counts on.
        result: blob digest of the encoded result, when `status` is `done`.
        intent_seq, finished_seq: ledger sequence numbers.
    """

    id: str
    run: str
    task: str
    call_id: str
    kind: Literal["tool", "model"]
    tool: str
    tool_digest: str
    effect: EffectClass
    agent: str
    args_digest: str
    arguments: str
    epoch: int
    attempt: int
    status: EffectStatus
    started_us: int
    intent_seq: int
    result: str | None = None
    finished_us: int | None = None
    finished_seq: int | None = None
    resolved_by: str | None = None
