"""The part of the store's port that asks people: gates and what was said to them, who may speak, messages and links.

Out:  three nouns of `store.port.Tx`; what that module says of transactions, durability and errors holds here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from midwatch.records.gate import GateAnswer, GateRow, Link, Notice
from midwatch.records.principal import Principal

__all__ = ["Gates", "Notices", "Principals"]


class Gates(Protocol):
    """Actions that wait for a person."""

    def open(self, row: GateRow) -> GateRow:
        """Insert the row; if one of the same id exists already, that one is returned unchanged."""

    def get(self, gate: str) -> GateRow | None:
        """Read by full id."""

    def find(self, prefix: str) -> GateRow:
        """Read by unique prefix of at least 4 digits; raises `NotFound` or `Ambiguous`."""

    def list(self, *, run: str | None = None, statuses: Sequence[str] = (), limit: int = 1000) -> Sequence[GateRow]:
        """Oldest first."""

    def answer(
        self, gate: str, *, approve: bool, by: str, reason: str, at_us: int, answer: str | None = None
    ) -> GateRow:
        """Close the gate with a yes or a no; `answer` is the blob digest of a question's answer.

        Raises `GateNotUsable` when it is answered, used or past its expiry (then set `expired`).
        """

    def say(self, answer: GateAnswer) -> None:
        """Add what one person said; raises `GateNotUsable` when the same person spoke to the same asking before."""

    def said(self, gate: str, nonce: str | None = None) -> Sequence[GateAnswer]:
        """What was said to a gate, to one asking or to all of them; oldest first."""

    def unreviewed(self) -> Sequence[GateAnswer]:
        """Answers given by breaking the glass that nobody has reviewed; oldest first."""

    def review(self, gate: str, nonce: str, by: str, *, reviewer: str, text: str, at_us: int) -> None:
        """Record the review of one such answer; raises `GateNotUsable` when there is none to review."""

    def history(self, *, since_us: int = 0, limit: int = 10_000) -> Sequence[tuple[GateRow, GateAnswer]]:
        """Answers with their gates, newest first, from `since_us` on."""

    def consume(self, gate: str, *, digest: str, at_us: int) -> GateRow:
        """Use an approval once, in the transaction that writes the intent.

        Raises `GateNotUsable` unless it is `approved`, not past its expiry and of exactly this digest.
        """

    def expire(self, at_us: int) -> Sequence[str]:
        """Set every open gate past its expiry to `expired`, closed at `at_us`; returns their ids."""

    def overdue(self, at_us: int) -> bool:
        """Say whether some open gate is past its expiry; one indexed read."""

    def ready(self, since_us: int) -> Sequence[str]:
        """Runs that wait and one of whose gates was closed after they stopped, at `since_us` or later; each once."""

    def reopen(self, row: GateRow) -> GateRow:
        """Replace a denied, expired or used gate of the same id by a new open one with a new nonce."""

    def amend(self, row: GateRow) -> GateRow:
        """Replace an open or approved gate by one that asks for another action, with a new nonce.

        Raises `GateNotUsable` for a gate that is closed otherwise: what was denied or used is not amended.
        """

    def escalating(self) -> Sequence[GateRow]:
        """Open gates whose terms escalate and whose escalation was not announced."""

    def escalate(self, gate: str, *, at_us: int) -> bool:
        """Note that the escalation was announced; False when it was before."""


class Principals(Protocol):
    """Who may speak in this home."""

    def add(self, row: Principal) -> None:
        """Insert the row; raises `UsageProblem` when the name or the token is taken."""

    def get(self, name: str) -> Principal | None:
        """Read by name."""

    def by_token(self, token_hash: str) -> Principal | None:
        """Read by hash of the token; disabled ones too."""

    def list(self) -> Sequence[Principal]:
        """In order of name."""

    def update(self, name: str, **changes: Any) -> None:
        """Set `roles`, `may`, `token_hash`, `disabled_us`; `NotFound` for an unknown name, `TypeError` for another column."""


class Notices(Protocol):
    """Messages to channels and the links in them; an outbox that survives whoever should send."""

    def add(self, notice: Notice) -> bool:
        """Insert; False when a notice of that id is there already."""

    def due(self, at_us: int, *, limit: int = 100) -> Sequence[Notice]:
        """Unsent notices whose time has come, oldest first, of gates that are still open in the same asking."""

    def owed(self, at_us: int) -> bool:
        """Say whether some notice is unsent, now due or later, of a gate that is still open in the same asking."""

    def claim(self, notice: str, *, at_us: int, until_us: int) -> bool:
        """Put a due notice off, for whoever is about to send it; False when somebody else was first, or it is not due.

        Whoever dies meanwhile leaves it due again at `until_us`.
        """

    def sent(self, notice: str, *, at_us: int) -> None:
        """Note that the channel took it."""

    def failed(self, notice: str, *, next_us: int, error: str) -> None:
        """Count a failed attempt; it is due again at `next_us`."""

    def list(self, gate: str) -> Sequence[Notice]:
        """All notices of a gate, oldest first."""

    def link(self, row: Link) -> None:
        """Keep a link that is about to be sent."""

    def find_link(self, link: str) -> Link | None:
        """Read a link by full id."""

    def use_link(self, link: str, *, at_us: int) -> Link:
        """Use it once, in the transaction of the answer; raises `GateNotUsable` when it was used, is late or unknown."""
