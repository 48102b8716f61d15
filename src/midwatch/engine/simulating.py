"""Simulating: recorded calls, judged again under a changed fleet by the very code that judges them in a run.

In:   a changed fleet with its tools; runs of a store. Out: `containment.simulate.Simulation`. Nothing is run and nothing is written.
May import: `containing`, `trails`, `mandating` (through `containing`), containment, config, tools, records, store (port).
Must not know: commands, how it is shown.

What an agent had seen when it chose a call follows from the ledger's order alone, so it is found again; the ledger is read only up to that
call. What files a call could refer to is known only as they are now. So each call is judged twice: under the fleet that its run recorded,
which must give the recorded verdict, or the call is not compared; and under the changed one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final, TypeVar, cast

from midwatch.config.fleet import Fleet
from midwatch.config.specs import ImportSpec
from midwatch.config.yaml_source import read_yaml
from midwatch.containment import simulate
from midwatch.containment.simulate import Call, Compared, Simulation
from midwatch.containment.verdict import Ruling
from midwatch.engine.containing import Containing
from midwatch.engine.context import Segment
from midwatch.engine.mandating import Mandating
from midwatch.engine.passage import Passage
from midwatch.errors import MidwatchError
from midwatch.records.call import Actor
from midwatch.records.envelope import Envelope
from midwatch.records.event import Event
from midwatch.records.run import RunRow
from midwatch.store.port import Store, Tx
from midwatch.tools import arguments
from midwatch.tools.registry import Registry

__all__ = ["simulate_runs"]

T = TypeVar("T")
_PAGE: Final = 1000
_WORDS: Final = {"ask": "ask", "deny": "denied"}


@dataclass(slots=True)
class _Until:
    """A store as it was before an event of the ledger, as far as the ledger goes."""

    store: Store
    seq: int = 0

    def read(self, work: Callable[[Tx], T]) -> T:
        """Read with the ledger cut off."""
        return self.store.read(lambda tx: work(cast("Tx", _Cut(tx, self.seq))))


@dataclass(slots=True)
class _Cut:
    """A transaction whose ledger ends before an event."""

    tx: Tx
    seq: int

    def __getattr__(self, name: str) -> Any:
        return getattr(self.tx, name)

    @property
    def ledger(self) -> Any:
        """The ledger up to there."""
        return _CutLedger(self.tx, self.seq)


@dataclass(slots=True)
class _CutLedger:
    tx: Tx
    seq: int

    def __getattr__(self, name: str) -> Any:
        return getattr(self.tx.ledger, name)

    def read(self, **given: Any) -> Sequence[Event]:
        """Read events before it."""
        return [event for event in self.tx.ledger.read(**given) if event.seq < self.seq]


@dataclass(slots=True)
class _Judge:
    """Judges the calls of one run under one fleet."""

    fleet: Fleet
    registry: Registry
    past: _Until
    containing: Containing = field(init=False)
    run: str = ""

    def __post_init__(self) -> None:
        def backend(agent: str) -> object | None:
            return None if self.fleet.sandbox_of(agent).backend == "process" else self.fleet

        isolation = SimpleNamespace(backend=backend, spec=self.fleet.sandbox_of)
        ghost = SimpleNamespace(
            store=self.past,
            fleet=self.fleet,
            registry=self.registry,
            run=self.run,
            foreign=object() if isinstance(self.fleet.graph, ImportSpec) else None,
            trails=None,
            words={},
            withheld=frozenset(),
            staging=SimpleNamespace(isolation=isolation),
            clock=lambda: 0,
        )
        segment = cast("Segment", ghost)
        ghost.mandating = Mandating(segment)
        self.containing = Containing(segment)
        self._ghost = ghost

    _ghost: Any = None

    def ruling(self, call: _Recorded) -> Ruling | str:
        """Judge a call; a text says why that cannot be done."""
        if call.agent not in self.fleet.agents:
            return f"the fleet has no agent `{call.agent}`"
        if call.name not in self.registry.names():
            return f"the fleet has no tool `{call.name}`"
        tool = self.registry.get(call.name)
        if call.tool_digest is not None and tool.contract.digest != call.tool_digest:
            return f"`{call.name}` is another tool by now"
        checked = arguments.check(tool, call.raw)
        if isinstance(checked, Envelope):
            return f"its arguments do not fit `{call.name}`"
        spec = self.fleet.agents[call.agent]
        actor = Actor(
            self.run,
            self.fleet.name,
            call.agent,
            spec.role,
            self.fleet.vertical_of(call.agent),
            call.node,
            call.task,
            call.step,
            0,
        )
        passage = Passage(actor, call.call, call.name, call.raw, call.causes, tool=tool, checked=checked)
        self.past.seq, self._ghost.clock = call.decided, lambda: call.at_us
        return self.containing.ruling(passage)


@dataclass(frozen=True, slots=True)
class _Recorded:
    """What the ledger keeps of a call that was judged."""

    decided: int
    at_us: int
    agent: str
    node: str
    task: str
    step: int
    call: str
    name: str
    raw: str
    causes: tuple[int, ...]
    word: str
    edited: bool
    unjudged: bool
    tool_digest: str | None


def simulate_runs(
    store: Store, fleet: Fleet, registry: Registry, runs: Iterable[RunRow], *, environ: Mapping[str, str]
) -> Simulation:
    """Judge every recorded call of these runs again.

    Raises:
        StoreError: the home cannot be read.
    """
    compared: list[Compared] = []
    count = 0
    for row in runs:
        count += 1
        compared += _of_run(store, fleet, registry, row, environ)
    return simulate.of(count, compared)


def _of_run(
    store: Store, fleet: Fleet, registry: Registry, row: RunRow, environ: Mapping[str, str]
) -> Iterator[Compared]:
    recorded = sorted(_recorded(store, row.id), key=lambda call: (max(call.causes, default=0), call.decided))
    if not recorded:
        return
    try:
        own = _own(store, row, environ)
        known = registry if _sources(own) == _sources(fleet) else Registry.of_fleet(own)
        before = _Judge(own, known, _Until(store, recorded[-1].decided + 1), run=row.id)
        after = _Judge(fleet, registry, _Until(store, recorded[-1].decided + 1), run=row.id)
    except MidwatchError as fault:
        for item in recorded:
            yield simulate.unclear(
                _call(row, item), f"the fleet of its run cannot be loaded: {str(fault).splitlines()[0]}"
            )
        return
    for item in recorded:
        yield _one(_call(row, item), item, before, after)


def _one(call: Call, item: _Recorded, before: _Judge, after: _Judge) -> Compared:
    if item.edited:
        return simulate.unclear(call, "a person changed its arguments")
    if item.unjudged:
        return simulate.unclear(call, "it could not be judged when it was made")
    try:
        then, now = before.ruling(item), after.ruling(item)
    except MidwatchError as fault:
        return simulate.unclear(call, f"it could not be judged ({type(fault).__name__})")
    if isinstance(then, str):
        return simulate.unclear(call, then)
    if isinstance(now, str):
        return simulate.unclear(call, now)
    return simulate.compare(call, then, now)


def _call(row: RunRow, item: _Recorded) -> Call:
    return Call(row.id, item.decided, item.agent, item.name, item.word)


def _sources(fleet: Fleet) -> tuple[object, ...]:
    """Give what a fleet's tools depend on."""
    return fleet.tools, fleet.mcp, fleet.openapi, fleet.langchain, fleet.base


def _own(store: Store, row: RunRow, environ: Mapping[str, str]) -> Fleet:
    """Load the fleet that a run recorded; its prompts decide nothing here, so that their files need not be there."""
    body = store.read(lambda tx: tx.blobs.get(row.fleet_blob))
    if row.fleet_path is None or not body:
        raise MidwatchError("it was made in Python, and has no file")
    text = body.decode()
    value = read_yaml(text, row.fleet_path).value
    values = value if isinstance(value, dict) else {}
    agents = values.get("agents")
    prompts = dict.fromkeys(agents if isinstance(agents, dict) else (), "-")
    return Fleet.last(Path(row.fleet_path), values, text, preset=row.preset, environ=environ, prompts=prompts)


def _recorded(store: Store, run: str) -> list[_Recorded]:
    def work(tx: Tx) -> list[_Recorded]:
        digests = {(row.task, row.call_id): row.tool_digest for row in tx.effects.list(run)}
        found, after = [], 0
        while page := tx.ledger.read(run=run, kinds=("decided",), after=after, limit=_PAGE):
            after = page[-1].seq
            found += [call for event in page if (call := _of_event(tx, event, digests)) is not None]
        return found

    return store.read(work)


def _of_event(tx: Tx, event: Event, digests: Mapping[tuple[str, str], str]) -> _Recorded | None:
    """Read a call off its two events; None where no verdict was given: a model's call, or one refused before that."""
    marks = {mark["stage"]: mark for mark in event.data.get("stages", ())}
    contained = marks.get("containment")
    proposed = tx.ledger.get(event.causes[0]) if event.causes else None
    if contained is None or proposed is None or "provenance" not in marks or event.agent is None:
        return None
    body = tx.blobs.get(proposed.data.get("arguments_blob") or "")
    call, task = str(event.data.get("call")), event.task or ""
    return _Recorded(
        decided=event.seq,
        at_us=event.at_us,
        agent=event.agent,
        node=event.node or "",
        task=task,
        step=event.step or 0,
        call=call,
        name=str(event.data.get("tool")),
        raw="" if body is None else body.decode("utf-8", "replace"),
        causes=proposed.causes,
        word=_WORDS.get(str(contained.get("would") or contained.get("outcome")), "allowed"),
        edited=marks.get("contract", {}).get("edited") is True,
        unjudged="unjudged" in marks["provenance"],
        tool_digest=digests.get((task, call)),
    )
