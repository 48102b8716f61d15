"""Forgetting: an operator lets the governor learn an agent anew: what it does from now on is what is usual.

In:   whose baseline, who orders it, why. Out: an event; the baseline is gone.
May import: identity, records, store (port). Must not know: what a baseline holds.
"""

from __future__ import annotations

from midwatch.engine.answering import clean
from midwatch.engine.identity import present, require
from midwatch.errors import NotFound
from midwatch.gates.review import Speaker
from midwatch.records.event import EventDraft
from midwatch.store.port import Store, Tx

__all__ = ["forget_baseline"]


def forget_baseline(store: Store, subject: str, *, speaker: Speaker, reason: str, at_us: int) -> None:
    """Drop the baseline of `FLEET/AGENT`, in one transaction with the event that says so.

    Raises:
        Denied: it takes an operator. NotFound: there is no such baseline.
    """

    def work(tx: Tx) -> None:
        require(present(tx, speaker), "operator", "let an agent be learned anew")
        if not tx.baselines.forget(subject):
            raise NotFound(f"no baseline of `{subject}`; `midwatch governor status --json` lists them")
        data = {"action": "forget", "subject": subject, "by": speaker.name, "reason": clean(tx, reason)}
        tx.ledger.append(EventDraft("governor.acted", None, at_us, data))

    store.write(work, durable=True)
