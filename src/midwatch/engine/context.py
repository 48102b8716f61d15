"""Context: what one segment of one run works with, handed in whole; no globals.

In:   made by `engine.kernel` from what `wiring` chose. Out: read by the pipeline, the nodes and the runner.
May import: everything right of engine. Must not know: the command line.
"""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, TypeVar

import anyio
import anyio.to_thread
from langgraph.errors import GraphBubbleUp
from langgraph.runtime import RunControl

from midwatch.config.fleet import Fleet
from midwatch.engine.mandating import Mandating
from midwatch.engine.staging import Staging
from midwatch.engine.timing import Meter, Times
from midwatch.engine.trails import Trails
from midwatch.errors import MidwatchError
from midwatch.graph.foreign import Foreign
from midwatch.models.port import ChatModel
from midwatch.models.prices import Price
from midwatch.records.call import Actor
from midwatch.records.label import Label
from midwatch.store.port import Store, Tx
from midwatch.tools.registry import Registry

__all__ = ["Halted", "RouteRuntime", "Scrub", "Segment"]

T = TypeVar("T")


class Halted(GraphBubbleUp):
    """The run must not go on.

    It passes LangGraph's tool nodes, retries and error handlers; what user code might still swallow is stopped by
    `Segment.halt`, which every stage checks.
    """

    def __init__(self, error: MidwatchError) -> None:
        self.error = error
        super().__init__(str(error))


class Scrub(Protocol):
    """Replaces credentials by markers; see `containment.credentials`."""

    def text(self, text: str) -> tuple[str, Any]:
        """Scrub one text; second: what was found."""
        ...

    def value(self, value: Any) -> tuple[Any, Any]:
        """Scrub a JSON value deeply; second: what was found."""
        ...


@dataclass(frozen=True, slots=True)
class RouteRuntime:
    """An alias, ready to be called: the client and the price that bounds it."""

    model: ChatModel
    price: Price
    max_output: int
    retries: int
    timeout_us: int
    protocol: str


@dataclass(slots=True)
class Segment:
    """One taking-up of a run by this process. Mutable in three places only: `halt`, which is sticky, `trails`, which only grow, `ledgered`.

    Attributes:
        epoch: under which every write of this segment is fenced.
        deadline_us: when the run's wall or working bound ends, or None.
        stamp: digests of graph and policy, kept with every checkpoint.
        foreign: the imported graph, where the fleet has one.
        control: asks LangGraph to begin no further superstep.
        staging: the sandboxes of the run's agents, open as long as the segment.
        trails: what its agents have seen, from the first call on.
        withheld: tools that differ from what was endorsed of them. words: per agent, whose words its specification is.
        around: scopes opened in Python around the run. times: who is at work. meter: charges that time, once the run is up.
        ledgered: the run's mandates as its ledger has them; see `mandating`.
        pause: awaits a number of microseconds; passed in, so that tests need no clock.
    """

    store: Store
    fleet: Fleet
    registry: Registry
    routes: Mapping[str, RouteRuntime]
    scrub: Scrub
    staging: Staging
    clock: Callable[[], int]
    pause: Callable[[int], Awaitable[None]]
    run: str
    epoch: int
    workdir: Path
    governed: bool
    deadline_us: int | None = None
    stamp: Mapping[str, str] = field(default_factory=dict)
    foreign: Foreign | None = None
    control: RunControl = field(default_factory=RunControl)
    halt: MidwatchError | None = None
    trails: Trails | None = None
    withheld: frozenset[str] = frozenset()
    words: Mapping[str, Label] = field(default_factory=dict)
    ledgered: Mandating | None = None
    around: tuple[str, ...] = ()
    times: Times = field(default_factory=Times)
    meter: Meter | None = None
    limiter: anyio.CapacityLimiter = field(default_factory=lambda: anyio.CapacityLimiter(16))
    writers: anyio.CapacityLimiter = field(default_factory=lambda: anyio.CapacityLimiter(16))

    @property
    def mandating(self) -> Mandating:
        """Give the run's mandates; made when they are first asked for."""
        if self.ledgered is None:
            self.ledgered = Mandating(self)
        return self.ledgered

    @contextlib.contextmanager
    def at_work(self, actor: Actor) -> Iterator[None]:
        """Count the time of a call for its agent, vertical and node."""
        keys = (actor.agent, f"vertical:{actor.vertical}", f"node:{actor.node}")
        self.times.begin(keys, self.clock())
        try:
            yield
        finally:
            self.times.end(keys, self.clock())

    def stop(self, error: MidwatchError) -> Halted:
        """Mark the segment as stopped; the first reason stays. Returns what to raise."""
        if self.halt is None:
            self.halt = error
            self.control.request_drain(type(error).__name__)
        return Halted(self.halt)

    def check(self) -> None:
        """Raise `Halted` if the segment was stopped, whoever swallowed the first one."""
        if self.halt is not None:
            raise Halted(self.halt)

    def write(self, work: Callable[[Tx], T]) -> T:
        """Commit on this thread without waiting for the disk; any store error stops the run."""
        try:
            return self.store.write(work)
        except MidwatchError as error:
            raise self.stop(error) from error

    async def durable(self, work: Callable[[Tx], T]) -> T:
        """Commit durably on a worker thread, so that parallel branches share one flush of the disk.

        Raises whatever `work` raises; the caller decides which of these stop the run.
        """
        return await anyio.to_thread.run_sync(lambda: self.store.write(work, durable=True), limiter=self.writers)
