"""Leasing: two calls never write to one shared resource at the same time without the later one being told.

In:   a passage with checked arguments, in the transaction of its intent. Out: its leases, or `Taken`; whether it still holds them.
May import: containment's roles and canon, passage, records, errors; store (port). Must not know: how a call is performed.

    needs     a call of a tool that acts in the broker and writes, or whose contract says so: one resource for each of its targets
    take      stage 6: all of them or none; who is in the way is named
    lost      before the call begins and once it has ended: another one took a resource since, so whose write stands nobody knows
    release   a person's word; a call that still acts is fenced by it

A lease ends with its call: whatever records the end takes it away. Of a call that was cut it stays until it runs out, since that call may
still act.
Files of a workspace need none: a commit finds what another one changed meanwhile.
Why in the intent's transaction: two processes that want the same are told apart by the store's write lock.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from midwatch.containment.canon import canonical, kind_of
from midwatch.containment.roles import TooMany, places
from midwatch.engine.answering import clean
from midwatch.engine.identity import present, require
from midwatch.engine.passage import known
from midwatch.errors import MidwatchError, NotFound, UsageProblem
from midwatch.records.effect import is_worse
from midwatch.records.event import EventDraft
from midwatch.store.leases import LeaseRow

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from midwatch.engine.passage import Passage
    from midwatch.gates.review import Speaker
    from midwatch.store.port import Store, Tx
    from midwatch.tools.contract import ToolContract

__all__ = ["SLACK_US", "Taken", "lost", "needs", "release", "take"]

SLACK_US: Final = 30_000_000
"""How much longer than its own time-out a call keeps its leases."""
_LONGEST: Final = 300


class Taken(MidwatchError):
    """Another call holds a resource that this one would write to; the message says who and until when."""


def needs(contract: ToolContract, arguments: Mapping[str, Any]) -> tuple[str, ...]:
    """Name the shared resources that a call writes to; sorted, so that two calls take them in one order."""
    usual = contract.runs == "broker" and is_worse(contract.effect, "read")
    if not (usual if contract.lease is None else contract.lease):
        return ()
    try:
        found = places(contract, arguments)
    except (TooMany, TypeError):
        return (
            f"{contract.name.partition('.')[0]}:*",
        )  # stage 3 has refused it; whoever gets here all the same has it alone
    space = contract.name.partition(".")[0]
    return tuple(sorted({f"{space}:{_named(each.value, each.kind)}" for each in found if each.role == "target"}))


def take(tx: Tx, p: Passage, now: int) -> tuple[str, ...]:
    """Take what a call needs, within the transaction of its intent.

    Raises:
        Taken: another run, or another agent of this one, writes there now.
    """
    tool, checked = known(p)
    wanted = needs(tool.contract, checked.arguments)
    until = now + tool.contract.timeout_us + SLACK_US
    for resource in wanted:
        actor = p.actor
        row = LeaseRow(resource, p.effect, actor.run, actor.agent, tool.contract.name, actor.epoch, now, until)
        held = tx.leases.take(row)
        if held is not None:
            raise Taken(
                f"agent `{held.agent}` of run `{held.run[:7]}` is writing there by `{held.tool}`, "
                f"until {_when(held.until_us)} at the latest; nothing was done"
            )
    return wanted


def lost(store: Store, p: Passage) -> bool:
    """Say whether another call has taken, or a person released, what this call wrote to or was to write to."""
    return bool(p.leases) and not set(p.leases) <= set(store.read(lambda tx: tx.leases.mine(p.effect)))


def release(store: Store, resource: str, *, speaker: Speaker, reason: str, at_us: int) -> tuple[LeaseRow, ...]:
    """Take the leases on a resource away by a person's word.

    Raises:
        Denied: it takes an operator. NotFound: nobody holds it. UsageProblem: no reason was given.
    """
    if not reason.strip():
        raise UsageProblem("say why it is released, with `--reason`")

    def work(tx: Tx) -> tuple[LeaseRow, ...]:
        require(present(tx, speaker), "operator", "release a lease")
        rows = tuple(row for row in tx.leases.list() if row.resource == resource)
        if not rows:
            raise NotFound(f"nobody holds a lease on `{resource[:100]}`; `midwatch leases ls` shows who holds what")
        for row in rows:
            tx.leases.release(row.resource, row.effect)
            data = {"resource": row.resource, "effect": row.effect, "agent": row.agent, "tool": row.tool}
            told = {**data, "by": speaker.name, "reason": clean(tx, reason)}
            tx.ledger.append(EventDraft("lease.released", row.run, at_us, told))
        return rows

    return store.write(work, durable=True)


def _named(value: Any, kind: str | None) -> str:
    found = canonical(value, kind or (kind_of(value) if isinstance(value, str) else None))
    return (str(value) if found is None else found.value)[:_LONGEST]


def _when(at_us: int) -> str:
    return datetime.fromtimestamp(at_us / 1_000_000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
