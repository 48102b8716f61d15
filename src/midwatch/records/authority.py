"""A version of one authority resource: a part of a fleet's own configuration that says what may happen.

In:   nothing. Out: `AuthorityRow`, the kinds and states that there are.
May import: the standard library only. Must not know: fleet files, who may endorse, where versions are kept.
Source: CONTAINMENT.md, clauses 24 and 27.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal, get_args

__all__ = ["ABSENT", "AUTHORITY_KINDS", "AuthorityKind", "AuthorityRow", "AuthorityState"]

AuthorityKind = Literal[
    "fleet",
    "grants",
    "policies",
    "budgets",
    "gates",
    "tools",
    "schemas",
    "routes",
    "schedules",
    "prompts",
    "agents",
    "principals",
]
AuthorityState = Literal["pending", "endorsed", "rejected", "superseded"]
"""`superseded`: it was pending when the resource changed once more; nobody answered it."""
AUTHORITY_KINDS: Final[tuple[AuthorityKind, ...]] = get_args(AuthorityKind)
ABSENT: Final = "0" * 64
"""Digest of a version in which the resource is gone."""


@dataclass(frozen=True, slots=True)
class AuthorityRow:
    """One version.

    Attributes:
        id: 16 hex digits.
        place: which fleet it is of: its file's path, or its name and folder where it was made in Python.
        name: of the resource among those of its kind, such as an agent's; number: which version of it, from 1.
        digest: of what it says. predecessor: that of the version that it was to replace; None: there was none.
        body: blob of what it says, JSON; None where it is gone or only its digest is kept.
        source: blob of the fleet file that it was read from; None where it stands in a file of its own.
        label: whose words it is, as the ledger writes labels. why: how it came about, in words.
        asked_by: who asked for the run that wrote it; empty when no run did.
        by: who brought it in: whoever ran the fleet first, or a run.
        seq: event that records it. seen_seq: event up to which its file was seen to hold it.
        answered_seq: event of the endorsement or rejection.
    """

    id: str
    place: str
    fleet: str
    kind: AuthorityKind
    name: str
    number: int
    digest: str
    predecessor: str | None
    state: AuthorityState
    body: str | None
    source: str | None
    label: str
    why: str
    asked_by: str
    by: str
    at_us: int
    seq: int
    seen_seq: int
    answered_by: str | None = None
    answered_us: int | None = None
    answered_seq: int | None = None

    @property
    def resource(self) -> tuple[AuthorityKind, str]:
        """Name the resource within its fleet."""
        return self.kind, self.name
