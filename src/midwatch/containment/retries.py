"""Retries: denied, then something changed, then the same again: power that somebody gave itself.

In:   a run tree's refusals, its later effects on authority resources, a new proposal. Out: an `Escalation`, or None.
May import: canon, roles, records, the sandbox's facts. Must not know: the ledger, who decides, what a denial said.
*Same*: a resource in common, by any of the readings that a tool could have of it, and the same effect class; by any tool or agent.
*Changed*: an effect between the two on an authority resource that the outcome depended on; where nobody knows on what it depended, on any.
What a person did, or overruled, is no escalation. Look-ups cost the same however long the tree has run.
Source: CONTAINMENT.md, clause 30; denials as facts of the graph: arXiv 2604.04035.
"""

from __future__ import annotations

import re
import unicodedata
from bisect import bisect_right, insort
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final, Literal

from midwatch.containment.canon import Canonical, canonical, url_parts
from midwatch.containment.roles import Place
from midwatch.records.effect import EffectClass
from midwatch.sandbox.effects import Request

__all__ = ["Attempt", "Escalation", "Refusal", "Retries", "attempted", "refused", "refused_request"]

Outcome = Literal["containment", "gate", "permission"]
"""`permission`: what was tried said so itself: 401, 403, EACCES, EPERM."""

_KINDS: Final = ("path", "url", "email", "host", "iban")
_ROLES: Final = frozenset({"target", "command", "credential", "selector"})
_REFUSED: Final = frozenset({401, 403, 407})
_READS: Final = frozenset({"GET", "HEAD", "OPTIONS"})


@dataclass(frozen=True, slots=True)
class Attempt:
    """Something that is, or was, proposed.

    Attributes:
        effect: its class. resources: every reading of what it is about; never empty.
    """

    effect: EffectClass
    resources: frozenset[Canonical]


@dataclass(frozen=True, slots=True)
class Refusal:
    """An attempt that came to nothing.

    Attributes:
        seq: its event. how: who said no.
        depended: authority resources that decided it, as the ledger names them; None: nobody knows.
    """

    seq: int
    attempt: Attempt
    how: Outcome
    depended: frozenset[str] | None = None


@dataclass(frozen=True, slots=True)
class Escalation:
    """The finding. The chain is `refused`, `changed`, and whatever is proposed now.

    Attributes:
        refused: event of the refusal. changed: the first event after it that changed what it depended on, and which resource that was.
        how: who had said no. known: whether the dependency was known, or any change counted.
    """

    refused: int
    changed: int
    resource: str
    how: Outcome
    known: bool

    def to_json(self) -> dict[str, Any]:
        """Give JSON data."""
        return {
            "refused": self.refused,
            "changed": self.changed,
            "resource": self.resource,
            "how": self.how,
            "known": self.known,
        }

    def reason(self) -> str:
        """Say it in one sentence, without values of the proposal."""
        said = {"containment": "was denied", "gate": "was refused by a person", "permission": "had no permission"}
        on = "which decided that" if self.known else "which may have decided that"
        return f"the same {said[self.how]} (event {self.refused}), then the run changed `{self.resource}` (event {self.changed}), {on}"


class Retries:
    """What a run tree was refused and what it changed, in the order of its events. Rebuilt from the ledger; kept by one thread."""

    __slots__ = ("_all", "_by_resource", "_changes", "_overruled")

    def __init__(self) -> None:
        self._by_resource: dict[tuple[EffectClass, Canonical], list[Refusal]] = {}
        self._all: list[tuple[int, str]] = []
        self._changes: dict[str, list[int]] = {}
        self._overruled: set[int] = set()

    def refused(self, refusal: Refusal) -> None:
        """Keep a refusal. Of one resource and effect the first without a known dependency, and the first of each other, decide."""
        for resource in refusal.attempt.resources:
            kept = self._by_resource.setdefault((refusal.attempt.effect, resource), [])
            if not any(old.depended == refusal.depended and old.seq not in self._overruled for old in kept):
                kept.append(refusal)

    def changed(self, seq: int, resource: str, *, by_person: bool = False) -> None:
        """Keep an effect on an authority resource; what a person did, or endorsed, gives nobody power of their own."""
        if not by_person:
            insort(self._changes.setdefault(resource, []), seq)  # what a call did may be read long after it was done
            insort(self._all, (seq, resource))

    def overruled(self, seq: int) -> None:
        """Forget a refusal that a person with the reach has since said yes to."""
        self._overruled.add(seq)

    def __bool__(self) -> bool:
        """Say whether anything was refused."""
        return bool(self._by_resource)

    def matching(self, attempt: Attempt) -> tuple[Refusal, ...]:
        """Give the refusals of the same thing that nobody has overruled."""
        found = {
            refusal.seq: refusal
            for resource in attempt.resources
            for refusal in self._by_resource.get((attempt.effect, resource), ())
            if refusal.seq not in self._overruled
        }
        return tuple(found[seq] for seq in sorted(found))

    def escalation(self, attempt: Attempt) -> Escalation | None:
        """Say whether a proposal is the third step of an escalation; the earliest refusal counts."""
        found: list[Escalation] = []
        for resource in attempt.resources:
            for refusal in self._by_resource.get((attempt.effect, resource), ()):
                if refusal.seq not in self._overruled and (change := self._after(refusal)):
                    known = refusal.depended is not None
                    found.append(Escalation(refusal.seq, change[0], change[1], refusal.how, known))
        return min(found, key=lambda item: (item.refused, item.changed, item.resource), default=None)

    def _after(self, refusal: Refusal) -> tuple[int, str] | None:
        if refusal.depended is None:
            at = bisect_right(self._all, (refusal.seq, "\U0010ffff"))
            return self._all[at] if at < len(self._all) else None
        found = []
        for resource in refusal.depended:
            seqs = self._changes.get(resource, [])
            at = bisect_right(seqs, refusal.seq)
            if at < len(seqs):
                found.append((seqs[at], resource))
        return min(found, default=None)


def attempted(tool: str, effect: EffectClass, places: Iterable[Place], *, root: str = "") -> Attempt:
    """Give what a call attempts: all readings of what it names. A call that names nothing is about its tool.

    Args:
        root: the folder from which relative paths are meant.
    """
    found: set[Canonical] = set()
    for place in places:
        if place.role in _ROLES or place.deref is not None:
            found |= _readings(place.value, place.kind, root)
    return Attempt(effect, frozenset(found) or frozenset({Canonical("tool", tool)}))


def refused(seq: int, attempt: Attempt, how: Outcome, depended: Iterable[str] | None = None) -> Refusal:
    """Make a refusal."""
    return Refusal(seq, attempt, how, None if depended is None else frozenset(depended))


def refused_request(seq: int, request: Request) -> Refusal | None:
    """Make a refusal of a request that a service refused; None where it did not."""
    if request.status not in _REFUSED:
        return None
    scheme = "https" if request.port == 443 else "http"
    readings = _readings(request.url or f"{scheme}://{request.host}:{request.port}{request.path or '/'}", "url")
    effect: EffectClass = "read" if request.method in _READS else "write"
    return Refusal(seq, Attempt(effect, readings or frozenset({Canonical("host", request.host)})), "permission")


def _readings(value: Any, kind: str | None, root: str = "") -> frozenset[Canonical]:
    """Give every value that a tool could take this for: one tool's path is another's text."""
    found = {canonical(value, kind), canonical(value)}
    if isinstance(value, int | float) and not isinstance(value, bool):
        value = str(value)
    if isinstance(value, str):
        found |= {canonical(value, other) for other in _KINDS}
        found.add(Canonical("text", value.strip()))
        found |= set(_roughly(value, root))
    return frozenset(item for item in found if item is not None)


def _roughly(text: str, root: str) -> Iterator[Canonical]:
    """Give readings in which spellings fall together that many services take for one: case, composed letters, schemes, users, queries."""
    plain = _plain(text)
    for scheme in ("mailto:", "file://"):
        plain = plain.removeprefix(scheme)
    yield Canonical("rough", plain)
    if "://" in plain:
        host, _, rest = re.split(r"[?#]", plain.partition("://")[2])[0].partition("/")
        parts = url_parts(f"http://{host.rpartition('@')[2]}/{rest}")
        if parts is not None:
            yield Canonical("rough", f"//{parts[1]}{parts[3]}")
    elif (path := canonical(plain, "path")) is not None:
        yield Canonical("rough", path.value.removeprefix(f"{_plain(root).rstrip('/')}/") if root else path.value)


def _plain(text: str) -> str:
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())
