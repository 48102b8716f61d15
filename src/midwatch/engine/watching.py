"""Watching: nodes of an imported graph as transitions and events, and which events each of them follows from.

In:   entry and exit of every watched node. Out: `Scope` for the calls in it; rows and events; `Halted`.
May import: everything right of engine. Must not know: what is called in a node.
Why the whole node is a cause: what a node's code does between two calls is not seen. So everything that was settled before in the
node, and in the nodes before it, counts as a cause of what comes after: too much, never too little.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import Any, Final

from langchain_core.runnables import RunnableConfig

from midwatch.engine.context import Segment
from midwatch.graph.scope import Scope, node_of, step_of
from midwatch.graph.serde import StateRefused, StrictSerializer
from midwatch.records.event import EventDraft, EventKind
from midwatch.records.run import Transition
from midwatch.store.port import Tx
from midwatch.tracing.paging import events_of

__all__ = ["Watching"]

_SIZES: Final = StrictSerializer()


class Watching:
    """`graph.foreign.Watch` of one segment."""

    def __init__(self, segment: Segment) -> None:
        self._seg = segment
        self._past: dict[str, set[int]] | None = None
        self._begun: set[str] = set()

    def check(self) -> None:
        """See `Watch`."""
        self._seg.check()

    def enter(self, config: RunnableConfig, parent: Scope | None) -> Scope:
        """Write down that a node begins, before its code runs."""
        seg, now = self._seg, self._seg.clock()
        seg.check()
        task, step = config.get("configurable", {}).get("checkpoint_ns", ""), step_of(config)
        before = frozenset(self._fronts() if parent is None else {parent.started, *parent.causes})
        node = node_of(task)

        def work(tx: Tx) -> int:
            tx.fences.check(seg.run, seg.epoch)
            seq = tx.ledger.append(self._event("node.started", node, task, step, now, causes=tuple(sorted(before))))
            tx.transitions.start(Transition(seg.run, seq, task.rpartition("|")[0], node, task, step, "started", now))
            return seq

        causes = self._again(task)
        again = task in self._begun or (parent is not None and parent.again)
        self._begun.add(task)
        return Scope(node, task, step, seg.write(work), before, parent, causes=causes, again=again)

    def leave(self, scope: Scope, status: str, output: Any) -> None:
        """Write down how a node ended."""
        seg, now = self._seg, self._seg.clock()
        size = self._size(output) if status == "finished" else None
        failed = output if isinstance(output, Exception) and status == "failed" else None
        causes = tuple(sorted({scope.started, *scope.causes}))

        def work(tx: Tx) -> int:
            tx.fences.check(seg.run, seg.epoch)
            tx.transitions.finish(seg.run, scope.task, status=status, ended_us=now, bytes_out=size)
            if status == "waiting":
                return 0
            data: dict[str, Any] = {"bytes": size}
            kind: EventKind = "node.finished"
            if failed is not None:
                kind = "node.failed"
                text = seg.scrub.text(f"{type(failed).__name__}: {failed}")[0]
                data = {"error": type(failed).__name__, "detail_blob": tx.blobs.put(text.encode())}
            return tx.ledger.append(self._event(kind, scope.node, scope.task, scope.step, now, data, causes))

        seq = seg.write(work)
        if seq and scope.parent is None:
            fronts = self._fronts()
            fronts.difference_update(scope.before)
            fronts.add(seq)
        elif seq and scope.parent is not None:
            scope.parent.settled((*scope.before,), seq)

    def _event(
        self,
        kind: EventKind,
        node: str,
        task: str,
        step: int,
        now: int,
        data: Mapping[str, Any] | None = None,
        causes: tuple[int, ...] = (),
    ) -> EventDraft:
        return EventDraft(kind, self._seg.run, now, data or {}, node=node, step=step, task=task, causes=causes)

    def _size(self, output: Any) -> int | None:
        try:
            return len(_SIZES.dumps_typed(output)[1])
        except StateRefused:
            return None  # the saver judges, by the state's own classes

    def _fronts(self) -> set[int]:
        """Give the ends of nodes of the root graph that no later node has built on yet."""
        return self._told_before().setdefault("", set())

    def _again(self, task: str) -> set[int]:
        """Give what an earlier segment settled in a node that begins again; once."""
        past = self._told_before()
        own = [key for key in past if key == task or key.startswith(f"{task}|")]
        return {seq for key in own for seq in past.pop(key)}

    def _told_before(self) -> dict[str, set[int]]:
        if self._past is None:
            self._past, self._begun = self._seg.store.read(lambda tx: _unused(tx, self._seg.run))
        return self._past


def _unused(tx: Tx, run: str) -> tuple[dict[str, set[int]], set[str]]:
    """Give, by task (the root's is empty), what is settled in it and no finished node has built on; and the tasks that began."""
    fronts: dict[str, set[int]] = defaultdict(set)
    begun: dict[str, set[int]] = defaultdict(set)
    for event in events_of(tx, run, ("node.started", "node.finished", "finished")):
        task = event.task or ""
        if event.kind == "node.started":
            begun[task].update(event.causes)
        elif event.kind == "finished":
            fronts[task].add(event.seq)
        else:
            fronts.pop(task, None)
            above = fronts[task.rpartition("|")[0]]
            above.difference_update(begun.pop(task, ()))
            above.add(event.seq)
    return dict(fronts), set(begun)
