"""Steering: an operator stops a sandbox where it stands, lets it go on, or kills it, whatever its run's own process does.

In:   a living sandbox, who orders it, why. Out: an event; the sandbox held, let go or gone.
May import: identity, the sandboxes' register, records, store (port). Must not know: what runs in the sandbox.
Why recorded before it is done: what an operator did to an agent is part of what happened to it, even where this process dies halfway.
A killed sandbox's call ends as `crashed`, and nothing of it is kept; the run goes on from the last call that ended, or stops, as its
own process decides. To stop the run itself: `cancel`.
"""

from __future__ import annotations

from typing import Final, Literal

from midwatch.engine.answering import clean
from midwatch.engine.identity import present, require
from midwatch.gates.review import Speaker
from midwatch.records.event import EventDraft
from midwatch.sandbox.living import Living, Register
from midwatch.store.port import Store, Tx

__all__ = ["Act", "steer"]

Act = Literal["pause", "resume", "kill"]
_WORDS: Final = {"pause": "pause a sandbox", "resume": "let a sandbox go on", "kill": "kill a sandbox"}


def steer(
    store: Store, register: Register, living: Living, act: Act, *, speaker: Speaker, reason: str, at_us: int
) -> None:
    """Do one of the three to one sandbox.

    Raises:
        Denied: it takes an operator. SandboxError: the sandbox has no control group, or its kernel did not obey.
    """

    def work(tx: Tx) -> None:
        require(present(tx, speaker), "operator", _WORDS[act])
        run = living.run if tx.runs.get(living.run) is not None else None
        data = {"sandbox": living.name, "act": act, "by": speaker.name, "reason": clean(tx, reason)}
        tx.ledger.append(EventDraft("sandbox.steered", run, at_us, data, agent=living.agent or None))

    living.group()
    store.write(work, durable=True)
    if act == "pause":
        register.hold(living)
    elif act == "resume":
        register.let(living)
    else:
        living.group().kill()
