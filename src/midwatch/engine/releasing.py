"""Releasing: what a run did in its sandboxes leaves them, or is dropped; each time as one action past the gates.

In:   a run that no sandbox of lives, who orders it (a person, or the fleet's own `commit: done`). Out: `Released`.
May import: staging, gates, the sandbox's release, records, store (port). Must not know: the graph, how anything is shown.

    plan → conflicts? → gate? → `effects.releasing` (durable, the gate used up) → files → staged requests → `effects.committed`

Why the plan's digest is the action: it holds every path, content, mode and the workspace's own state. A yes to it fits nothing else,
and a workspace that changed since makes another plan, which asks again.
A kill between the two events leaves a journal beside the layers; the next commit or discard of the run finishes or undoes it first.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Final, Literal

import orjson

from midwatch.config.fleet import Fleet
from midwatch.engine.answering import clean, standing
from midwatch.engine.identity import present, require
from midwatch.engine.staging import Staged, staged_of
from midwatch.errors import Conflict, Denied, UsageProblem
from midwatch.gates import seen as seeing
from midwatch.gates.binding import action_digest, bind, new_nonce
from midwatch.gates.review import Speaker, met
from midwatch.records.decision import Ask
from midwatch.records.effect import effect_id
from midwatch.records.event import EventDraft
from midwatch.records.gate import GateRow, Notice, Terms
from midwatch.sandbox import release
from midwatch.sandbox.effects import Request
from midwatch.sandbox.layers import Layer, open_content
from midwatch.sandbox.release import Item, Release
from midwatch.sandbox.showing import diff_of
from midwatch.store.port import Store, Tx
from midwatch.tools.registry import Registry

__all__ = ["COMMIT", "Order", "Released", "commit", "discard", "staged"]

COMMIT: Final = "effects.commit"
"""Names the action in gates, as a tool's name does for others."""
_TASK: Final = "release"
Send = Callable[[str, Request, bytes], Awaitable[Request]]
"""Sends one staged request of an agent, by its rules of today."""


@dataclass(frozen=True, slots=True)
class Released:
    """What became of a commit.

    Attributes:
        status: `waiting`: people must say yes first, to `gate`. `nothing`: there was nothing to commit.
        paths: what was changed in the workspace.
        requests: what was sent of the requests that had been kept, and how each ended. `in doubt`: an earlier commit was cut while it
            was sent; it is not sent again.
    """

    status: Literal["committed", "waiting", "nothing"]
    paths: tuple[str, ...] = ()
    gate: str | None = None
    requests: tuple[tuple[Request, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Order:
    """One commit.

    Attributes:
        folder: of the run's layers. epoch: fence of the run, held by the caller.
        speaker: who orders it; None: the fleet does, at the run's end.
        only: globs of paths; empty: all.
    """

    run: str
    workspace: Path
    folder: Path
    epoch: int
    speaker: Speaker | None
    at_us: int
    only: tuple[str, ...] = ()
    reason: str = ""

    @property
    def journal(self) -> Path:
        """Where a commit that was killed left what it needs to end."""
        return self.folder / "commit.journal"

    @property
    def by(self) -> str:
        """Who orders it, in a word."""
        return "fleet" if self.speaker is None else self.speaker.name


def staged(store: Store, run: str, folder: Path) -> list[Staged]:
    """Give what a run did and nobody has committed or discarded yet."""
    return store.read(lambda tx: staged_of(tx, run, folder))


async def commit(store: Store, fleet: Fleet, registry: Registry, order: Order, send: Send) -> Released:
    """Bring what a run did into its workspace, once people have said what the rules ask of them.

    Raises:
        Conflict: the workspace is not as the run found it. Nothing was written.
        Denied: whoever orders it may not, or people said no. Nothing was written.
        SandboxError, StoreError: it cannot be read or recorded. Nothing was written, or a journal was left.
        UsageProblem: no path fits `only`.
    """
    if order.speaker is not None:
        speaker = order.speaker
        require(store.read(lambda tx: present(tx, speaker)), "operator", "commit what a run did")
    held = staged(store, order.run, order.folder)
    layers = [item.layer for item in held]
    planned = release.plan(layers, order.workspace)
    chosen = _chosen(planned, order.only)
    kept = [] if order.only else _kept(held)
    if not chosen and not kept:
        return Released("nothing")
    if any(item.conflict for item in chosen):
        raise _conflict(chosen)
    flags = [item.path for item in chosen if item.person]
    verdict = seeing.decide(
        fleet, _seen(held, registry), flags=flags, automatic=order.speaker is None, at_us=order.at_us
    )
    gate = None
    if verdict is not None:
        gate = store.read(lambda tx: tx.gates.get(_gate_id(order)))
        if gate is None or not _usable(store, order, gate, planned, fleet):
            _refused(gate, order)
            return _asked(store, fleet, order, verdict, planned, layers, gate)
    _begin(store, order, planned, chosen, gate)
    yes = planned.digest if order.speaker is not None or gate is not None else None
    only = [item.path for item in chosen] if order.only else None
    paths = release.commit(planned, layers, order.workspace, order.journal, only=only, approved=yes) if chosen else ()
    requests = [await _sent(store, order, item, index, send) for item, index in kept]
    _end(store, order, planned, chosen, paths)
    return Released("committed", paths, requests=tuple(requests))


def _kept(held: Sequence[Staged]) -> list[tuple[Staged, int]]:
    """Give the requests that a commit sends, in the order in which they were made."""
    return [
        (item, index)
        for item in held
        for index, request in enumerate(item.layer.requests)
        if request.outcome == "staged"
    ]


async def _sent(store: Store, order: Order, item: Staged, index: int, send: Send) -> tuple[Request, str]:
    """Send one staged request, at most once: intent before, outcome after."""
    request, key = item.layer.requests[index], f"{item.seq}:{index}"
    earlier = store.read(lambda tx: _told(tx, order.run, key))
    if earlier is not None:
        return request, earlier

    def begin(tx: Tx) -> int:
        tx.fences.check(order.run, order.epoch)
        data = {"request": key, "method": request.method, "host": request.host, "path": request.path, "by": order.by}
        causes = (item.seq,)
        event = EventDraft("effects.sending", order.run, order.at_us, data, agent=item.agent, task=_TASK, causes=causes)
        return tx.ledger.append(event)

    seq = store.write(begin, durable=True)
    with open_content(item.layer, request.body or "") as stream:
        body = stream.read()
    ended = await send(item.agent, request, body)

    def end(tx: Tx) -> None:
        data = {"request": key, "outcome": ended.outcome, "status": ended.status, "reason": clean(tx, ended.reason)}
        event = EventDraft("effects.sent", order.run, order.at_us, data, agent=item.agent, task=_TASK, causes=(seq,))
        tx.ledger.append(event)

    store.write(end, durable=True)
    return ended, ended.outcome


def _told(tx: Tx, run: str, key: str) -> str | None:
    """Say how a staged request ended that an earlier commit began to send; None where none did."""
    found = None
    for event in tx.ledger.read(run=run, kinds=("effects.sending", "effects.sent"), limit=100_000):
        if event.data["request"] == key:
            found = "in doubt" if event.kind == "effects.sending" else event.data["outcome"]
    return found


def discard(store: Store, order: Order) -> int:
    """Drop what a run did and nobody has committed; gives how many changes that were. The record of them stays.

    Raises:
        Denied: it takes an operator. SandboxError: a commit that was cut can be neither finished nor undone.
    """
    speaker = order.speaker
    if speaker is not None:
        require(store.read(lambda tx: present(tx, speaker)), "operator", "discard what a run did")
    release.resume_commit(order.journal, order.workspace)
    held = staged(store, order.run, order.folder)
    count = len(release.plan([item.layer for item in held], order.workspace).items)

    def work(tx: Tx) -> None:
        tx.fences.check(order.run, order.epoch)
        data = {"by": order.by, "reason": clean(tx, order.reason), "layers": len(held), "changes": count}
        causes = tuple(item.seq for item in held)
        tx.ledger.append(EventDraft("effects.discarded", order.run, order.at_us, data, task=_TASK, causes=causes))

    if held:
        store.write(work, durable=True)
    return count


def _chosen(planned: Release, only: Sequence[str]) -> list[Item]:
    if not only:
        return list(planned.items)
    chosen = [item for item in planned.items if any(fnmatchcase(item.path, glob) for glob in only)]
    if planned.items and not chosen:
        raise UsageProblem(
            f"no staged path fits {', '.join(f'`{glob}`' for glob in only)}; `midwatch effects RUN` lists them"
        )
    return chosen


def _conflict(items: Sequence[Item]) -> Conflict:
    told = "; ".join(f"`{item.path}`: {item.conflict}" for item in items if item.conflict)
    return Conflict(
        f"the workspace is not as the run found it, so nothing was committed: {told}. Put it back, commit the rest with `--only`, "
        "or discard"
    )


def _seen(held: Sequence[Staged], registry: Registry) -> list[seeing.Seen]:
    known = registry.tools
    return [
        seeing.Seen(
            item.agent,
            item.tool,
            known[item.tool].contract.effect if item.tool in known else None,
            item.layer.changes,
            item.layer.requests,
        )
        for item in held
    ]


def _gate_id(order: Order) -> str:
    return effect_id(order.run, _TASK, ",".join(order.only), COMMIT)


def _action(planned: Release, fleet: Fleet, only: Sequence[str]) -> str:
    return action_digest(
        tool=COMMIT,
        tool_digest="",
        code="",
        args_digest=planned.digest,
        agent=",".join(only),
        policy_digest=fleet.policy_digest,
    )


def _binding(gate: GateRow, planned: Release, fleet: Fleet, order: Order) -> str:
    return bind(
        action=_action(planned, fleet, order.only),
        run=order.run,
        precondition=gate.precondition,
        expires_us=gate.expires_us,
        nonce=gate.nonce,
    )


def _usable(store: Store, order: Order, gate: GateRow, planned: Release, fleet: Fleet) -> bool:
    """Say whether the yes that was given is for this very commit, in time, by people who still may."""
    if gate.status != "approved" or order.at_us > gate.expires_us:
        return False
    stands = store.read(lambda tx: met(gate, standing(tx, gate)))
    return stands and gate.digest == _binding(gate, planned, fleet, order)


def _refused(gate: GateRow | None, order: Order) -> None:
    if gate is None:
        return
    if gate.status == "denied":
        said = f": {gate.answer_reason}" if gate.answer_reason else ""
        raise Denied(f"a person said no to this commit{said}; its changes stay staged until they are discarded")
    if gate.status == "expired" and order.speaker is None:
        raise Denied("nobody said yes to this commit in time; order it with `midwatch effects commit`, or discard")


def _asked(
    store: Store,
    fleet: Fleet,
    order: Order,
    verdict: Ask,
    planned: Release,
    layers: Sequence[Layer],
    old: GateRow | None,
) -> Released:
    """Open the gate, or leave it open where it asks for the same already."""
    if old is not None and old.status == "open" and old.digest == _binding(old, planned, fleet, order):
        return Released("waiting", gate=old.id)
    chosen = [item.path for item in _chosen(planned, order.only)]
    preview = diff_of(planned, layers, order.workspace, only=chosen)

    def work(tx: Tx) -> GateRow:
        tx.fences.check(order.run, order.epoch)
        run = tx.runs.get(order.run)
        row = GateRow(
            id=_gate_id(order),
            run=order.run,
            agent="",
            tool=COMMIT,
            digest="",
            nonce=new_nonce(),
            policy_digest=fleet.policy_digest,
            who=verdict.who,
            reason=clean(tx, verdict.reason),
            card=tx.blobs.put(orjson.dumps(_card(fleet, order, verdict, planned, preview))),
            status="open",
            opened_us=order.at_us,
            expires_us=order.at_us + verdict.expires_us,
            kind="release",
            action=_action(planned, fleet, order.only),
            arguments=tx.blobs.put(orjson.dumps(_arguments(planned, order))),
            asked_by="" if run is None else run.asked_by,
            terms=(verdict.terms or Terms(())).to_text(),
        )
        row = replace(row, digest=_binding(row, planned, fleet, order))
        if old is None:
            opened = tx.gates.open(row)
        elif old.status in ("open", "approved"):
            opened = tx.gates.amend(row)
        else:
            opened = tx.gates.reopen(row)
        data = {"gate": opened.id, "digest": opened.digest, "who": opened.who, "card_blob": opened.card}
        tx.ledger.append(EventDraft("gate.opened", order.run, order.at_us, data, task=_TASK))
        for channel in opened.asks.channels:
            name = f"{opened.id}:{opened.nonce}:{channel}:opened"
            tx.notices.add(
                Notice(name, opened.id, opened.nonce, channel, "opened", created_us=order.at_us, next_us=order.at_us)
            )
        return opened

    return Released("waiting", gate=store.write(work, durable=True).id)


def _arguments(planned: Release, order: Order) -> dict[str, Any]:
    return {"release": planned.digest, "paths": [item.path for item in _chosen(planned, order.only)]}


def _card(fleet: Fleet, order: Order, verdict: Ask, planned: Release, preview: str) -> dict[str, Any]:
    """Make what people are shown: the shape of every other card."""
    chosen = _chosen(planned, order.only)
    changes = [
        {
            "path": item.path,
            "op": item.change.op,
            "kind": item.change.kind,
            "size": item.change.size,
            "sha256": item.change.sha256,
            "person": list(item.person),
        }
        for item in chosen
    ]
    return {
        "action": COMMIT,
        "does": f"writes {len(chosen)} changed paths of the run into {order.workspace}",
        "effect": "write",
        "arguments": {"release": planned.digest, "workspace": str(order.workspace), "changes": changes},
        "agent": "",
        "node": "",
        "reversible": None,
        "cost": None,
        "environment": fleet.environment,
        "reason": verdict.reason,
        "preview": preview,
        "origins": [],
        "causes": [],
    }


def _begin(store: Store, order: Order, planned: Release, chosen: Sequence[Item], gate: GateRow | None) -> None:
    """Write down what is about to leave, and use the yes up, in one durable transaction."""

    def work(tx: Tx) -> None:
        tx.fences.check(order.run, order.epoch)
        if order.speaker is not None:
            require(present(tx, order.speaker), "operator", "commit what a run did")
        if gate is not None:
            tx.gates.consume(gate.id, digest=gate.digest, at_us=order.at_us)
            used = {"gate": gate.id, "digest": gate.digest}
            tx.ledger.append(EventDraft("gate.used", order.run, order.at_us, used, task=_TASK))
        data = {
            "release": planned.digest,
            "by": order.by,
            "reason": clean(tx, order.reason),
            "gate": None if gate is None else gate.id,
            "workspace": planned.workspace,
            "paths_blob": tx.blobs.put(orjson.dumps([item.path for item in chosen])),
        }
        tx.ledger.append(EventDraft("effects.releasing", order.run, order.at_us, data, task=_TASK))

    store.write(work, durable=True)


def _end(store: Store, order: Order, planned: Release, chosen: Sequence[Item], paths: Sequence[str]) -> None:
    def work(tx: Tx) -> None:
        tx.fences.check(order.run, order.epoch)
        data = {
            "release": planned.digest,
            "by": order.by,
            "changed": len(paths),
            "paths": [item.path for item in chosen] if order.only else None,
        }
        tx.ledger.append(EventDraft("effects.committed", order.run, order.at_us, data, task=_TASK))

    store.write(work, durable=True)
