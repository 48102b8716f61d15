"""Acquiring: a credential that nobody issued to the run is no argument of a call.

In:   a passage with checked arguments. Out: `Denied`, or the finding on record.
May import: containment, records; store (port). Must not know: brokers, how a call is performed.
Why content passes: a text about a password is a text; its value is behind a marker already. What is used is what a call is sent to, runs,
selects a change by, or identifies itself with. Nothing is ever issued to a run in plain: the broker adds what it holds by itself.
Why confined calls pass: nothing that they do is anywhere before it leaves, and the broker refuses what it was not given.
Source: CONTAINMENT.md, clause 29.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from midwatch.containment.acquired import Acquired, Issued, in_arguments
from midwatch.containment.credentials import SCRUB_KEY
from midwatch.containment.roles import TooMany, places
from midwatch.containment.verdict import BY
from midwatch.engine.passage import known
from midwatch.records.decision import Denied

if TYPE_CHECKING:
    from midwatch.engine.context import Segment
    from midwatch.engine.passage import Passage

__all__ = ["rule"]

_HINT: Final = "leave it out: the broker adds what the fleet's rules hold; ask a person for what they do not"
_USED: Final = frozenset({"target", "command", "credential", "control"})


def rule(segment: Segment, p: Passage) -> Denied | None:
    """Judge one call, where containment lets it pass."""
    enforced = segment.fleet.containment.mode == "enforce"
    try:
        found = [item for item in _found(segment, p) if item.dead]
    except Exception as fault:  # noqa: BLE001  # a guard that fails must not let pass, nor harm a run that only records
        p.mark("acquired", "deny" if enforced else "pass", unjudged=type(fault).__name__)
        return Denied(f"the call could not be judged ({type(fault).__name__})", BY) if enforced else None
    if not found:
        return None
    told: dict[str, Any] = {"found": [item.to_json() for item in found]}
    places_ = ", ".join(sorted({f"`{item.where.removeprefix('argument ')}`" for item in found}))
    reason = f"{places_} holds a credential that was not issued to this run"
    if not enforced:
        p.mark("acquired", "pass", would="deny", reason=reason, **told)
        return None
    p.mark("acquired", "deny", by=BY, reason=reason, **told)
    return Denied(reason, BY, _HINT)


def _found(segment: Segment, p: Passage) -> tuple[Acquired, ...]:
    tool, checked = known(p)
    contract, isolation = tool.contract, segment.staging.isolation
    inside = isolation.backend(p.actor.agent) is not None and not isolation.spec(p.actor.agent).egress
    if contract.effect == "pure" or (contract.runs == "sandbox" and inside) or p.edited:
        return ()  # what a person wrote is theirs
    roles = _USED | ({"selector"} if contract.open_world or contract.effect != "read" else frozenset())
    try:
        used = {
            place.key.split(".")[0].split("[")[0]
            for place in places(contract, checked.arguments)
            if place.role in roles
        }
    except TooMany:  # containment refuses it
        return ()
    meant = {name: value for name, value in checked.arguments.items() if name in used}
    if not meant:
        return ()
    key = segment.store.read(lambda tx: tx.watch.setting(SCRUB_KEY)) or bytes(16)
    return in_arguments(meant, Issued(key))
