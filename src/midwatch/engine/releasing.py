"""Releasing: what a run did in its sandboxes leaves them, or is dropped; each time as one action past the gates.

In:   a run that no sandbox of lives, who orders it (a person, or the fleet's own `commit: done`). Out: `Released`.
May import: staging, gates, the sandbox's release, records, store (port). Must not know: the graph, how anything is shown.

    plan → conflicts? → gate? → `effects.releasing` (durable, the gate used up) → files → staged requests → `effects.committed`

Why the plan's digest is the action: it holds every path, content, mode and the workspace's own state. A yes to it fits nothing else,
and a workspace that changed since makes another plan, which asks again.
A kill between the two events leaves a journal beside the layers; the next commit or discard of the run finishes or undoes it first.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import orjson

from midwatch.config.fleet import Fleet
from midwatch.engine import leaving, quarantine, release_gate
from midwatch.engine.answering import clean
from midwatch.engine.granting import unsure
from midwatch.engine.identity import present, require
from midwatch.engine.planned import COMMIT, TASK, Order, Planned, planned
from midwatch.engine.staged import Staged, staged_of
from midwatch.errors import Conflict, UsageProblem
from midwatch.gates import seen as seeing
from midwatch.records.decision import Ask
from midwatch.records.event import EventDraft
from midwatch.records.gate import GateRow
from midwatch.sandbox import release
from midwatch.sandbox.effects import Request
from midwatch.sandbox.layers import below, open_content
from midwatch.store.port import Store, Tx
from midwatch.tools.registry import Registry
from midwatch.tracing.paging import events_of

__all__ = ["COMMIT", "Order", "Released", "commit", "discard", "staged"]

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
class _Cut:
    """A commit that was begun, and of whose end there is no record.

    Attributes:
        layers: the `finished` events of what it was about. action: what its yes, if it took one, was for.
    """

    seq: int
    gate: str | None
    action: str
    workspace: str
    only: tuple[str, ...]
    layers: tuple[int, ...]
    paths: tuple[str, ...]


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
    _may(store, order, "commit")
    cut = _cut(store, order)
    landed = None if cut is None else _landed(store, order, cut)
    if cut is not None and landed is not None:
        ended = await _complete(store, landed, cut.paths, send)
        if not cut.only or cut.only == order.only:
            return ended
        cut = None
    found = planned(order, staged(store, order.run, order.folder))
    if not found.chosen and not found.kept:
        return Released("nothing")
    found.conflicts()
    if not order.only:
        store.read(lambda tx: quarantine.releases(tx, [item.seq for item in found.held]))
    again = cut is not None and cut.gate is not None and cut.action == found.action(fleet)
    verdict = None if again else leaving.asked(store, fleet, registry, found, _verdict(fleet, found, registry))
    gate = None if verdict is None else release_gate.approved(store, fleet, found)
    if verdict is not None and gate is None:
        return Released("waiting", gate=release_gate.ask(store, fleet, found, verdict))
    _readable(found)
    _begin(store, fleet, found, gate, cut if again else None)
    yes = found.release.digest if order.speaker is not None or gate is not None or again else None
    only = found.paths if order.only else None
    paths: tuple[str, ...] = ()
    if found.chosen:
        paths = release.commit(found.release, found.layers, order.workspace, order.journal, only=only, approved=yes)
    return await _complete(store, found, paths, send)


def discard(store: Store, order: Order) -> int:
    """Drop what a run did and nobody has committed; gives how many changes that were. The record of them stays.

    What an earlier commit, that was cut, has brought into the workspace already is committed, and not dropped.

    Raises:
        Denied: it takes an operator. SandboxError: a commit that was cut can be neither finished nor undone.
        UsageProblem: no path fits `only`, or what stays would lie in a folder that goes.
    """
    _may(store, order, "discard")
    cut = _cut(store, order)
    landed = None if cut is None else _landed(store, order, cut)
    if landed is not None:
        _end(store, landed, (), part=True)
    held = staged(store, order.run, order.folder)
    found = planned(order, held)
    if order.only:
        _closed(found)
    if held:
        store.write(lambda tx: _dropped(tx, found), durable=True)
    return len(found.chosen)


def _may(store: Store, order: Order, verb: str) -> None:
    speaker = order.speaker
    if speaker is not None:
        require(store.read(lambda tx: present(tx, speaker)), "operator", f"{verb} what a run did")


def _dropped(tx: Tx, found: Planned) -> None:
    order = found.order
    tx.fences.check(order.run, order.epoch)
    data = {
        "by": order.by,
        "reason": clean(tx, order.reason),
        "layers": len(found.held),
        "changes": len(found.chosen),
        "paths": found.paths if order.only else None,
    }
    causes = tuple(item.seq for item in found.held)
    tx.ledger.append(EventDraft("effects.discarded", order.run, order.at_us, data, task=TASK, causes=causes))


def _closed(found: Planned) -> None:
    """Refuse to drop a folder of which something stays."""
    chosen = set(found.paths)
    made = {item.path for item in found.chosen if item.change.kind == "folder" and item.change.op != "deleted"}
    items = {item.path: item for item in found.release.items}
    left = [path for path in below(items, made) if path not in chosen and items[path].change.op != "deleted"]
    if left:
        raise UsageProblem(f"`{left[0]}` lies in a folder that would be dropped; name it with `--only`, too")


# ------------------------------------------------------------------------------------------ a commit that was cut


def _cut(store: Store, order: Order) -> _Cut | None:
    """Find it, and bring the files to one side: all of it there, or nothing.

    Raises:
        Conflict: it was about another workspace, or another commit is under way.
        SandboxError: its files can be neither finished nor undone.
    """
    cut = store.read(lambda tx: _begun(tx, order.run))
    if cut is not None and cut.workspace != str(order.workspace):
        raise Conflict(
            f"a commit of this run into `{cut.workspace}` was cut; commit or discard there first, which ends it"
        )
    release.resume_commit(order.journal, order.workspace)
    return cut


def _begun(tx: Tx, run: str) -> _Cut | None:
    events = list(events_of(tx, run, ("effects.releasing", "effects.committed", "effects.discarded")))
    if not events or events[-1].kind != "effects.releasing" or "layers" not in events[-1].data:
        return None
    data = events[-1].data
    paths = orjson.loads(tx.blobs.get(data["paths_blob"]) or b"[]")
    return _Cut(
        events[-1].seq,
        data["gate"],
        data["action"],
        data["workspace"],
        tuple(data["only"]),
        tuple(data["layers"]),
        tuple(paths),
    )


def _landed(store: Store, order: Order, cut: _Cut) -> Planned | None:
    """Give what it was about if the workspace has all of it; None where it has nothing, or the run has gone on since."""
    held = staged(store, order.run, order.folder)
    if tuple(item.seq for item in held) != cut.layers:
        return None
    found = planned(replace(order, only=()), held)
    chosen = [item for item in found.chosen if item.path in set(cut.paths)]
    if any(item.action not in ("none", "never") for item in chosen):
        return None
    return replace(found, order=replace(order, only=cut.only), chosen=chosen, kept=[] if cut.only else found.kept)


# ------------------------------------------------------------------------------------------------- what people say


def _verdict(fleet: Fleet, found: Planned, registry: Registry) -> Ask | None:
    order = found.order
    watched = [item.path for item in found.chosen if item.person]
    flags = list(dict.fromkeys([*watched, *_giving(found, fleet)]))
    return seeing.decide(fleet, _seen(found, registry), flags=flags, automatic=order.speaker is None, at_us=order.at_us)


def _giving(found: Planned, fleet: Fleet) -> Iterator[str]:
    """Name what gives somebody power, whatever the fleet says of commits: a person decides about that."""
    yield from (path for path, judged in found.gives.paths.items() if judged.grants)
    for (item, index), judged in zip(found.kept, found.gives.requests, strict=True):
        request = item.layer.requests[index]
        if unsure(judged, request, item.agent, fleet):
            yield f"{request.method} {request.host}{request.path}"


def _seen(found: Planned, registry: Registry) -> list[seeing.Seen]:
    known = registry.tools
    # A hook in a folder that only the workspace's own git names is known to the plan alone.
    hooks = {item.path for item in found.release.items if len(item.person) > len(set(item.change.flags))}
    return [
        seeing.Seen(
            item.agent,
            item.tool,
            known[item.tool].contract.effect if item.tool in known else None,
            tuple(
                replace(change, flags=(*change.flags, "watched:hook")) if change.path in hooks else change
                for change in item.layer.changes
            ),
            item.layer.requests,
            item.declared,
        )
        for item in found.held
    ]


# ------------------------------------------------------------------------------------------------- begin, send, end


def _readable(found: Planned) -> None:
    """Read the body of every request before anything leaves.

    Raises:
        SandboxError: one is lost.
    """
    for item, index in found.kept:
        _body(item, index)


def _body(item: Staged, index: int) -> bytes:
    with open_content(item.layer, item.layer.requests[index].body or "") as stream:
        return stream.read()


def _begin(store: Store, fleet: Fleet, found: Planned, gate: GateRow | None, cut: _Cut | None) -> None:
    """Write down what is about to leave, and use the yes up, in one durable transaction."""
    order, label = found.order, leaving.carried(store, found)

    def work(tx: Tx) -> None:
        tx.fences.check(order.run, order.epoch)
        if order.speaker is not None:
            require(present(tx, order.speaker), "operator", "commit what a run did")
        if gate is not None:
            tx.gates.consume(gate.id, digest=gate.digest, at_us=order.at_us)
            used = {"gate": gate.id, "digest": gate.digest}
            tx.ledger.append(EventDraft("gate.used", order.run, order.at_us, used, task=TASK))
        data = {
            "release": found.release.digest,
            "action": found.action(fleet),
            "by": order.by,
            "reason": clean(tx, order.reason),
            "gate": gate.id if gate is not None else None if cut is None else cut.gate,
            "workspace": found.release.workspace,
            "only": list(order.only),
            "layers": [item.seq for item in found.held],
            "paths_blob": tx.blobs.put(orjson.dumps(found.paths)),
            "label": label.to_json(),
        }
        causes = () if cut is None else (cut.seq,)
        event = EventDraft("effects.releasing", order.run, order.at_us, data, task=TASK, causes=causes)
        quarantine.releases(tx, (tx.ledger.append(event),))

    store.write(work, durable=True)


async def _complete(store: Store, found: Planned, paths: Sequence[str], send: Send) -> Released:
    """Send what was kept, and write down that all of it is done."""
    requests = [await _sent(store, found.order, item, index, send) for item, index in found.kept]
    _end(store, found, paths, part=bool(found.order.only))
    return Released("committed", tuple(paths), requests=tuple(requests))


def _end(store: Store, found: Planned, paths: Sequence[str], *, part: bool) -> None:
    order = found.order

    def work(tx: Tx) -> None:
        tx.fences.check(order.run, order.epoch)
        data = {
            "release": found.release.digest,
            "by": order.by,
            "changed": len(paths),
            "paths": found.paths if part else None,
        }
        tx.ledger.append(EventDraft("effects.committed", order.run, order.at_us, data, task=TASK))

    store.write(work, durable=True)


async def _sent(store: Store, order: Order, item: Staged, index: int, send: Send) -> tuple[Request, str]:
    """Send one staged request, at most once: intent before, outcome after."""
    request, key = item.layer.requests[index], f"{item.seq}:{index}"
    body = _body(item, index)

    def begin(tx: Tx) -> int | str:
        tx.fences.check(order.run, order.epoch)
        earlier = _told(tx, order.run, key)
        if earlier is not None:
            return earlier
        data = {"request": key, "method": request.method, "host": request.host, "path": request.path, "by": order.by}
        causes = (item.seq,)
        event = EventDraft("effects.sending", order.run, order.at_us, data, agent=item.agent, task=TASK, causes=causes)
        sending = tx.ledger.append(event)
        quarantine.releases(tx, (sending,))
        return sending

    seq = store.write(begin, durable=True)
    if isinstance(seq, str):
        return request, seq
    ended = await send(item.agent, request, body)

    def end(tx: Tx) -> None:
        data = {"request": key, "outcome": ended.outcome, "status": ended.status, "reason": clean(tx, ended.reason)}
        event = EventDraft("effects.sent", order.run, order.at_us, data, agent=item.agent, task=TASK, causes=(seq,))
        tx.ledger.append(event)

    store.write(end, durable=True)
    return ended, ended.outcome


def _told(tx: Tx, run: str, key: str) -> str | None:
    """Say how a staged request ended that an earlier commit began to send; None where none did."""
    found = None
    for event in events_of(tx, run, ("effects.sending", "effects.sent")):
        if event.data["request"] == key:
            found = "in doubt" if event.kind == "effects.sending" else event.data["outcome"]
    return found
