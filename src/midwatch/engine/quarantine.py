"""Quarantine: what follows from an event is stopped, from now on, until somebody else lifts that.

In:   an event, who speaks. Out: marks on the event and on everything that it led to; a refusal for whatever is about to follow from it.
May import: identity, answering's manners, records, errors; store (port). Must not know: agents, sandboxes, the graph.

Marks are made once, over the whole forward closure, and every later event takes them over from its causes in its own transaction. So a
guard reads one mark. It is read where an effect begins, in that same transaction: whoever quarantines first wins.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, Final

from midwatch.engine.answering import clean, in_words
from midwatch.engine.identity import present, require
from midwatch.errors import Denied, NotFound, RunHalted, UsageProblem
from midwatch.gates.review import Speaker
from midwatch.records.event import Event, EventDraft
from midwatch.store.port import Store, Tx

__all__ = ["HEAD", "Quarantined", "begins", "held", "lift", "quarantine", "releases"]

HEAD: Final = "quarantine.head"
"""Setting of the home: the newest event by which something was quarantined, or let go on."""
_OWN: Final = ("event.quarantined", "event.lifted")


@dataclass(frozen=True, slots=True)
class Quarantined:
    """What became of an order.

    Attributes:
        event: that it is about. by: event that records the order. marked: events that were marked, or are no more.
        already: it stood before; nothing was written.
    """

    event: int
    by: int
    marked: int
    already: bool = False


def quarantine(store: Store, event: int, *, speaker: Speaker, reason: str, at_us: int) -> Quarantined:
    """Stop what follows from an event, in every run.

    Raises:
        Denied: it takes an operator. NotFound: no such event.
        UsageProblem: no reason, or one too long; or the event is itself about a quarantine.
    """
    if not reason.strip():
        raise UsageProblem("say why, with `--reason`: whoever lifts it will read that")
    reason = in_words(reason)

    def work(tx: Tx) -> Quarantined:
        require(present(tx, speaker), "operator", "quarantine an event")
        found = _event(tx, event)
        if found.kind in _OWN:
            raise UsageProblem(f"event {event} is about a quarantine; name what was quarantined")
        own = _standing(tx, event)
        if own:
            return Quarantined(event, own[0].seq, 0, already=True)
        data = {"event": event, "by": speaker.name, "channel": speaker.channel, "reason": clean(tx, reason)}
        by = tx.ledger.append(EventDraft("event.quarantined", found.run, at_us, data, causes=(event,)))
        tx.watch.put(HEAD, str(by).encode())
        return Quarantined(event, by, tx.causes.quarantine(event, by=by))

    return store.write(work, durable=True)


def lift(store: Store, event: int, *, speaker: Speaker, reason: str, at_us: int) -> Quarantined:
    """Take a quarantine back.

    Raises:
        Denied: it takes an operator, and not the one who quarantined. NotFound: no such event, or it is not quarantined itself.
    """
    reason = in_words(reason)

    def work(tx: Tx) -> Quarantined:
        require(present(tx, speaker), "operator", "lift a quarantine")
        found, own = _event(tx, event), _standing(tx, event)
        if not own:
            above = [_event(tx, by).data["event"] for by in tx.causes.marks(event)]
            told = f"it follows from event {above[0]}, which is" if above else "nor does it follow from one that is"
            raise NotFound(f"event {event} is not quarantined itself; {told}")
        if any(order.data["by"] == speaker.name for order in own):
            raise Denied(
                f"`{speaker.name}` quarantined event {event}, so somebody else must lift it; `midwatch principals` says who may"
            )
        marked, by = 0, 0
        for order in own:
            data = {"event": event, "quarantine": order.seq, "by": speaker.name, "channel": speaker.channel}
            data["reason"] = clean(tx, reason)
            by = tx.ledger.append(EventDraft("event.lifted", found.run, at_us, data, causes=(order.seq,)))
            marked += tx.causes.lift(order.seq)
            tx.watch.put(HEAD, str(by).encode())
        return Quarantined(event, by, marked)

    return store.write(work, durable=True)


def held(tx: Tx, causes: Collection[int]) -> str | None:
    """Say, for a person, why nothing may follow from these events; None: nothing is quarantined."""
    marks = tx.causes.quarantined(causes)
    if not marks:
        return None
    order: dict[str, Any] = dict(_event(tx, min(marks.values())).data)
    return (
        f"event {order['event']}, from which this follows, was quarantined by `{order['by']}`: {order['reason']}; "
        f"`midwatch quarantine {order['event']} --lift`, by somebody else, lets it go on"
    )


def begins(tx: Tx, seq: int) -> None:
    """Let an effect begin whose intent was just written, unless it follows from what is quarantined.

    Raises:
        RunHalted: it does. The caller's transaction must not be committed.
    """
    reason = held(tx, (seq,))
    if reason is not None:
        raise RunHalted(reason)


def releases(tx: Tx, seqs: Collection[int]) -> None:
    """Let what calls did leave their sandboxes, unless it follows from what is quarantined.

    Raises:
        Denied: it does. The caller's transaction must not be committed.
    """
    reason = held(tx, seqs)
    if reason is not None:
        raise Denied(reason)


def _standing(tx: Tx, event: int) -> list[Event]:
    """Give the orders that are about this very event and not lifted."""
    orders = [_event(tx, by) for by in tx.causes.marks(event)]
    return [order for order in orders if order.data["event"] == event]


def _event(tx: Tx, seq: int) -> Event:
    event = tx.ledger.get(seq)
    if event is None:
        raise NotFound(f"no event {seq} in this home; `midwatch trace RUN --json` lists a run's events")
    return event
