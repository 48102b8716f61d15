"""Scope: where in a run a call made by somebody else's node stands, so that the same call has the same name after a crash.

In:   LangGraph's own context of the running node; one `Scope` for each execution of a watched node.
Out:  `Place`, and the ids of calls: the model's own id of a tool call, else the call's content and its number among its equals.
May import: errors; LangGraph. Must not know: what a call does, engine.
Why an ordinal among equals and not among all: calls that run side by side begin in any order. Equal calls may change places with
each other, since they are equal; others have names that do not depend on order.
"""

from __future__ import annotations

import hashlib
import threading
from collections import Counter
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, Final

from langchain_core.runnables import RunnableConfig
from langgraph.config import get_config

from midwatch.errors import Divergence, UsageProblem

__all__ = ["CURRENT", "Place", "Scope", "Wait", "here", "node_of"]

_LONGEST: Final = 128
"""Characters of a call id that are kept as they are."""


@dataclass(frozen=True, slots=True)
class Wait:
    """A person must speak before a call can be answered."""

    gates: tuple[str, ...] = ()
    in_doubt: tuple[str, ...] = ()

    def to_json(self) -> dict[str, list[str]]:
        """Give the value of the interrupt; its answer is a wake-up and carries nothing."""
        return {"gates": list(self.gates), "in_doubt": list(self.in_doubt)}


@dataclass(slots=True)
class Scope:
    """One execution of one node, from entry to exit. Shared by the threads and tasks that the node starts.

    Attributes:
        task: LangGraph's checkpoint namespace of the node's task.
        started: ledger number of its `node.started`. before: numbers that this one names as causes.
        causes: what was settled in the node and is not yet the cause of something else.
        waits: calls that a person must answer for, by call.
        again: the node ran before and did not finish. earlier: effects of then that were not called again yet, by task and attempt.
    """

    node: str
    task: str
    step: int
    started: int
    before: frozenset[int] = frozenset()
    parent: Scope | None = None
    causes: set[int] = field(default_factory=set)
    waits: dict[str, Wait] = field(default_factory=dict)
    again: bool = False
    earlier: dict[tuple[str, int], set[str]] = field(default_factory=dict)
    _equals: Counter[tuple[str, int, str]] = field(default_factory=Counter)
    _calls: dict[tuple[str, int, str], tuple[str, str]] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def settled(self, used: tuple[int, ...], seq: int) -> None:
        """Put an event in the place of its causes."""
        with self._lock:
            self.causes.difference_update(used)
            self.causes.add(seq)

    def ordinal(self, place: Place, text: str) -> str:
        """Name a call by what it says: `digest:number among its equals`."""
        digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:32]
        key = (place.task, place.attempt, digest)
        with self._lock:
            number = self._equals[key]
            self._equals[key] += 1
        return f"{digest}:{number}"

    def call(self, place: Place, id_: str, name: str, raw: str) -> str:
        """Name a tool call by the model's own id.

        Raises:
            UsageProblem: the id is empty. Divergence: it stands for another call of this task already.
        """
        if not id_:
            raise UsageProblem(
                f"a call of `{name}` in node `{place.node}` has an empty id; give each call an id of its own"
            )
        with self._lock:
            known = self._calls.setdefault((place.task, place.attempt, id_), (name, raw))
        if known != (name, raw):
            raise Divergence(
                f"node `{place.node}` gave the id `{id_[:_LONGEST]}` to two different calls, so an answer could reach the wrong one"
            )
        return id_ if len(id_) <= _LONGEST else hashlib.sha256(id_.encode("utf-8", "surrogatepass")).hexdigest()


@dataclass(frozen=True, slots=True)
class Place:
    """Where a call stands.

    Attributes:
        node: names of the nodes around it, outermost first, joined by dots.
        task: LangGraph's checkpoint namespace; the same again after a crash. attempt: of a retried node, from 1.
        step: LangGraph's superstep.
        checkpoint: what the task began from. The task's name follows from it, so if it is kept nowhere, or by another saver, the
            task has another name after a crash.
    """

    node: str
    task: str
    attempt: int
    step: int
    checkpoint: str
    scope: Scope


CURRENT: ContextVar[Scope | None] = ContextVar("midwatch_scope", default=None)
"""The innermost watched node that runs here."""


def here() -> Place:
    """Say where the caller stands.

    Raises:
        UsageProblem: outside of a node of the graph, such as in a thread that a node started by itself.
    """
    scope = CURRENT.get()
    try:
        config = get_config()
    except RuntimeError:
        config = None
    if scope is None or config is None or "checkpoint_ns" not in config.get("configurable", {}):
        raise UsageProblem(
            "a model or tool of the kit was called outside of a node of its graph; call it in the node itself, "
            "or carry the node's context along with `contextvars.copy_context().run`"
        )
    conf = config["configurable"]
    info = getattr(conf.get("__pregel_runtime"), "execution_info", None)
    return Place(
        node=node_of(conf["checkpoint_ns"]),
        task=conf["checkpoint_ns"],
        attempt=1 if info is None else info.node_attempt,
        step=step_of(config),
        checkpoint=str(conf.get("checkpoint_map", {}).get(conf["checkpoint_ns"].rpartition("|")[0], "")),
        scope=scope,
    )


def node_of(task: str) -> str:
    """Give the names of the nodes in a checkpoint namespace, joined by dots."""
    names = [part.partition(":")[0] for part in task.split("|")]
    return ".".join(name for name in names if name and not name.isdigit())


def step_of(config: RunnableConfig) -> int:
    """Give LangGraph's superstep."""
    step: Any = config.get("metadata", {}).get("langgraph_step", 0)
    return step if isinstance(step, int) else 0
