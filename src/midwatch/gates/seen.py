"""Seen: which people must say yes to what a run did in its sandboxes, before it leaves them.

In:   a fleet's rules; for each call of a run what it was seen to do. Out: `Ask` with the terms of every rule that applies, or None.
May import: config, records, the sandbox's facts, `rules`' manners. Must not know: where gates are kept, how files are committed.
Why at the commit and not at the call: what is confined needs nobody (CONTAINMENT.md 20); the bar falls where it leaves.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Final

from midwatch.config.fleet import Fleet
from midwatch.config.specs import GateWhen, ObservedWhen
from midwatch.gates.rules import need_of
from midwatch.records.decision import Ask
from midwatch.records.effect import EffectClass
from midwatch.records.gate import Need, Terms
from midwatch.sandbox.effects import CHANGING, Change, Request

__all__ = ["Seen", "decide"]

_HIDDEN: Final = re.compile(r"\\x[0-9a-f]{2}")
"""As `effects.shown` writes what does not show."""


@dataclass(frozen=True, slots=True)
class Seen:
    """What one call was seen to do.

    Attributes:
        effect: its tool's class, None where the tool is not loaded any more: then any class fits. declared: the class at the time of
            the call, where that is known; a rule that means either means this call.
    """

    agent: str
    tool: str
    effect: EffectClass | None
    changes: tuple[Change, ...]
    requests: tuple[Request, ...]
    declared: EffectClass | None = None


def decide(fleet: Fleet, seen: Sequence[Seen], *, flags: Sequence[str], automatic: bool, at_us: int) -> Ask | None:
    """Say whether people must decide before a run's changes are committed.

    Args:
        flags: paths that need a person. automatic: nobody ordered the commit; then a flag asks whom `review.ask` names.

    Returns:
        `expires_us` is a duration, as in `rules.decide`; times in the terms are absolute.
    """
    found = [
        (place, rule)
        for place, rule in enumerate(fleet.gates)
        if rule.when.observed is not None and any(_fits(fleet, rule.when, rule.when.observed, item) for item in seen)
    ]
    if found:
        needs = tuple(need_of(place, rule, at_us) for place, rule in found)
        channels = tuple(dict.fromkeys(name for _, rule in found for name in rule.channels))
        asked = ", ".join(f"`{need.who}`" for need in needs)
        reason = f"what the run was seen to do needs a yes of {asked}"
        timeout = min(rule.timeout_us for _, rule in found)
        return Ask(reason, by=needs[0].by, who=needs[0].who, expires_us=timeout, terms=Terms(needs, channels))
    if flags and automatic:
        review = fleet.review
        told = ", ".join(f"`{path}`" for path in flags[:3])
        reason = f"the run changed {told}, which is never committed without a person"
        return Ask(
            reason,
            by="watched",
            who=review.ask,
            expires_us=review.timeout_us,
            terms=Terms((Need("watched", review.ask),)),
        )
    return None


def _fits(fleet: Fleet, when: GateWhen, observed: ObservedWhen, seen: Seen) -> bool:
    """Say whether a call was of those that a rule means, and did what it means."""
    if when.agent and not _any(seen.agent, when.agent):
        return False
    if when.tool and not _any(seen.tool, when.tool):
        return False
    if when.effect and seen.effect is not None and not {seen.effect, seen.declared} & set(when.effect):
        return False
    if when.environment and not (fleet.environment and _any(fleet.environment, when.environment)):
        return False
    if observed.hosts:
        hosts = tuple(_host(glob) for glob in observed.hosts)
        return any(_any(_host(request.host), hosts) for request in seen.requests)
    return any(_changed(observed, change) for change in seen.changes)


def _changed(observed: ObservedWhen, change: Change) -> bool:
    if observed.ops and change.op not in observed.ops:
        return False
    if not observed.ops and change.op not in CHANGING:
        return False
    if observed.watched and not any(flag.startswith("watched:") for flag in change.flags):
        return False
    return not observed.paths or any(_at(change, glob) for glob in observed.paths)


def _at(change: Change, glob: str) -> bool:
    """Say whether a path fits, in any spelling that a disk could take for it; a link fits where what is seen through it could."""
    path, glob = _plain(change.path), _plain(glob)
    if fnmatchcase(path, glob):
        return True
    if change.kind != "link" or change.op == "deleted":
        return False
    parts, heads = path.split("/"), glob.split("/")
    return fnmatchcase(f"{path}/", glob) or (
        len(heads) > len(parts) and fnmatchcase(path, "/".join(heads[: len(parts)]))
    )


def _plain(path: str) -> str:
    """Give one spelling of a path: without case, composition, width, and characters that do not show."""
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", _HIDDEN.sub("", path)).casefold())


def _host(name: str) -> str:
    """Give one spelling of a host or of a glob of hosts."""
    plain = unicodedata.normalize("NFKC", name).casefold().rstrip(".")
    if plain.isascii():
        return plain
    try:
        return plain.encode("idna").decode("ascii")
    except UnicodeError:
        return plain


def _any(name: str, globs: tuple[str, ...]) -> bool:
    return any(fnmatchcase(name, glob) for glob in globs)
