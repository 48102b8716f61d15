"""The store's port: everything durable, reached through one transaction at a time.

Above: tracing, governor, gates, engine, the saver in `graph`. Below: SQLite in a file, SQLite in memory (tests, dry runs),
later Postgres. All adapters pass `tests/contract/test_store_conformance.py`.

Why a callable per transaction: the thread that holds the write lock can commit the work of those who wait (group commit),
so many small durable writes cost one fsync. `work` may therefore run on another thread, must touch nothing but its `Tx`,
and must not block. If it raises, only its own changes are undone, and the error comes back to its caller.

Durability: `durable=True` means that the change survives a power cut once `write` returns (SQLite: `synchronous=FULL` for
that batch); otherwise it survives a crash of the process but perhaps not of the machine. Either way it is atomic.

Errors of every method: `StoreBusy`, `StoreFull`, `StoreCorrupt`, `StoreUnreadable` (see `errors`). Callers do not retry:
the effect does not happen, and the run stops resumable.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from midwatch.errors import BoundReached
from midwatch.records.decision import Halt
from midwatch.records.effect import EffectRow
from midwatch.records.event import Event, EventDraft
from midwatch.records.run import RunRow, Transition
from midwatch.records.spend import Account, Amounts, Line, Order, Unit
from midwatch.store.asking import Gates, Notices, Principals
from midwatch.store.authority import Authorities
from midwatch.store.baselines import Baselines
from midwatch.store.breakers import Breakers
from midwatch.store.flags import Flags
from midwatch.store.history import Causes
from midwatch.store.leases import Leases

__all__ = [
    "Authorities",
    "Baselines",
    "Beat",
    "Blobs",
    "Breakers",
    "Budgets",
    "Causes",
    "ChannelWrite",
    "CheckpointRow",
    "Checkpoints",
    "Effects",
    "Fences",
    "Flags",
    "Gates",
    "Ledger",
    "Notices",
    "PendingWrite",
    "Principals",
    "Runs",
    "Store",
    "Transitions",
    "Tx",
    "VerifyReport",
    "Watch",
]

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class VerifyReport:
    """What a walk over the ledger found.

    Attributes:
        ok: every event's bytes and columns fit its hash, sequence numbers have no hole, every blob named exists and fits its
            digest, and `expected_head`, where given, was met.
        events: how many were checked. head: hash of the last one.
        problems: one sentence each, with the sequence number; at most 100.
    """

    ok: bool
    events: int
    head: str
    problems: tuple[str, ...]


class Ledger(Protocol):
    """The append-only chain of events."""

    def append(self, draft: EventDraft) -> int:
        """Give the event the next place in the chain; returns its sequence number. The head is read once a transaction."""

    def get(self, seq: int) -> Event | None:
        """Read one event."""

    def read(
        self,
        *,
        run: str | None = None,
        after: int = 0,
        limit: int = 1000,
        kinds: Sequence[str] = (),
    ) -> Sequence[Event]:
        """Read events in order, `seq > after`, at most `limit`; filtered by run and kinds where given."""

    def head(self) -> tuple[int, str]:
        """Give sequence number and hash of the last event; `(0, GENESIS)` when there is none."""

    def verify(self, *, expected_head: str | None = None) -> VerifyReport:
        """Walk the whole chain. With `expected_head`, that hash must occur in the chain (an anchor taken earlier)."""


class Blobs(Protocol):
    """Bodies by content: the same bytes are stored once, compressed."""

    def put(self, body: bytes) -> str:
        """Store `body`; returns the hex SHA-256 of the uncompressed bytes."""

    def get(self, digest: str) -> bytes | None:
        """Read a body; raises `StoreCorrupt` if it no longer fits its digest."""


class Runs(Protocol):
    """One materialised row a run."""

    def create(self, row: RunRow) -> None:
        """Insert the row; the id must be new."""

    def get(self, run: str) -> RunRow | None:
        """Read by full id."""

    def find(self, prefix: str) -> RunRow:
        """Read by unique prefix of at least 4 digits; raises `NotFound` or `Ambiguous`."""

    def list(self, *, limit: int = 50, statuses: Sequence[str] = (), before_us: int | None = None) -> Sequence[RunRow]:
        """Newest first."""

    def update(self, run: str, **changes: Any) -> None:
        """Set the named columns; raises `NotFound` for an unknown run, `TypeError` for an unknown column."""

    def add_spend(self, run: str, spent: Amounts) -> None:
        """Add settled amounts to the row's counters (`cost, tokens, tool_calls, steps, working`)."""

    def set_halt(self, run: str, halt: Halt) -> bool:
        """Leave the sticky mark; returns False when one was there already (the first one stays)."""

    def halt(self, run: str) -> Halt | None:
        """Read the sticky mark."""

    def clear_halt(self, run: str) -> None:
        """Take the mark away; only a person's resume does."""


class Transitions(Protocol):
    """The index of node tasks, so that a run's course is listed without loading a state."""

    def start(self, row: Transition) -> None:
        """Insert, or set an earlier row of the same run and task back to `started`."""

    def finish(self, run: str, task: str, *, status: str, ended_us: int, bytes_out: int | None) -> None:
        """Close the row of that task."""

    def list(self, run: str, *, after_seq: int = 0, limit: int = 5000) -> Sequence[Transition]:
        """In order of `seq`."""


class Effects(Protocol):
    """The effect journal."""

    def begin(self, row: EffectRow) -> None:
        """Write an intent.

        An existing row of the same id must be in status `retry` or `not_done`, or be a repeatable one that the
        engine has decided to run again (higher `attempt`); else `Divergence`.
        """

    def get(self, effect: str) -> EffectRow | None:
        """Read by full id."""

    def find(self, prefix: str) -> EffectRow:
        """Read by unique prefix of at least 4 digits; raises `NotFound` or `Ambiguous`."""

    def finish(self, effect: str, *, epoch: int, result: str, at_us: int, seq: int) -> None:
        """Record the outcome of the intent written under the same epoch; raises `FenceLost` otherwise."""

    def list(self, run: str, *, statuses: Sequence[str] = ()) -> Sequence[EffectRow]:
        """In order of `intent_seq`."""

    def resolve(self, effect: str, *, status: str, result: str | None, by: str, at_us: int, seq: int) -> None:
        """Record a person's word on an effect in doubt: `done` (with a result), `not_done` or `retry`.

        Raises `GateNotUsable` when the effect is not `started`.
        """


class Budgets(Protocol):
    """Accounts of scopes and reservations on them. No claim takes an account past its cap, where the scope is not in shadow."""

    def set_cap(self, scope: str, unit: Unit, cap: int | None) -> None:
        """Create the account or change its cap; a cap below what is spent and held only stops new claims."""

    def accounts(self, scopes: Sequence[str] = (), *, prefix: str | None = None) -> Sequence[Account]:
        """Read accounts by exact scope names or by prefix."""

    def reserve(self, reservation: str, *, run: str, lines: Sequence[Line], at_us: int) -> Sequence[BoundReached]:
        """Hold every line or none.

        Missing accounts are created without a cap. Raises `BoundReached` for the first line (in the order given:
        outermost scope first) that does not fit and is not in shadow; returns what those in shadow would have raised. The same
        reservation id twice raises `Divergence`.
        """

    def confirm(self, reservation: str) -> None:
        """Make a hold durable: the effect is about to begin; from now on only `settle` frees it."""

    def release(self, reservation: str) -> None:
        """Give back a hold that was never confirmed; a confirmed one raises `Divergence`."""

    def settle(self, reservation: str, actual: Mapping[Unit, int] | None, *, at_us: int) -> Mapping[Unit, int]:
        """Turn a hold into spend: `actual` per unit, or everything held when None or when a unit is missing.

        More than was held is recorded as it is (what is gone is gone). Settling twice changes nothing. Returns what
        was charged per unit. `processes` and `concurrency` are given back whole: they are never spent.
        """

    def amend(self, reservation: str, truth: Mapping[Unit, int]) -> Mapping[Unit, int]:
        """Put the true amounts in the place of what a settled reservation was charged; returns the differences per unit.

        Every scope on which it was held moves by the same, never below zero. Again with the same truth changes nothing.
        """

    def charged(self, run: str) -> Mapping[str, Mapping[Unit, int]]:
        """Give what each settled reservation of a run was charged."""

    def orders(self, scopes: Sequence[str]) -> Mapping[tuple[str, Unit], Order]:
        """Read what people said about the caps of these scopes."""

    def order(self, order: Order) -> None:
        """Keep what a person said about a cap, in the place of what was said before."""

    def begun(self, scopes: Sequence[str], at_us: int | None) -> Mapping[str, int]:
        """Say when these scopes were first claimed on; with `at_us`, those that never were begin then."""

    def open_reservations(self, run: str) -> Sequence[tuple[str, bool]]:
        """Give (reservation, confirmed) of all that are neither settled nor released."""


class Fences(Protocol):
    """Who may write for a run: a lease with an epoch that rises each time the run is taken."""

    def take(self, run: str, *, owner: str, at_us: int, ttl_us: int) -> int:
        """Take the run; returns the new epoch, from 1. Raises `RunHeld` while another owner's lease is live."""

    def renew(self, run: str, *, epoch: int, at_us: int, ttl_us: int) -> None:
        """Prolong the lease; raises `FenceLost` if the epoch is not the newest."""

    def check(self, run: str, epoch: int) -> None:
        """Raise `FenceLost` if the epoch is not the newest. Called in the transaction of every checkpoint and effect."""

    def release(self, run: str, *, epoch: int) -> None:
        """End the lease now; a lost epoch changes nothing."""

    def expired(self, at_us: int) -> Sequence[str]:
        """Runs whose lease has run out without release."""

    def live(self, run: str, at_us: int) -> bool:
        """Say whether somebody holds the run."""


@dataclass(frozen=True, slots=True)
class Beat:
    """A sign of life of the governor."""

    name: str
    pid: int
    at_us: int


class Watch(Protocol):
    """Heartbeats and small settings of the home."""

    def beat(self, name: str, *, pid: int, at_us: int) -> None:
        """Record a sign of life."""

    def last(self, name: str) -> Beat | None:
        """Read the last one."""

    def beats(self, prefix: str) -> Sequence[Beat]:
        """Read the last one of this name and of every name below it (`NAME/…`), newest first."""

    def silence(self, prefix: str, *, before_us: int) -> None:
        """Drop those of this name and of names below it which are older than that: of governors that are gone."""

    def setting(self, key: str, default: bytes | None = None) -> bytes | None:
        """Read a setting; with `default`, store and return it when absent (first writer wins)."""

    def put(self, key: str, value: bytes) -> None:
        """Set or replace a setting."""


@dataclass(frozen=True, slots=True)
class ChannelWrite:
    """One channel version of a checkpoint.

    Attributes:
        kind: `whole` (one item), or `list` or `snapshot` (items in order; `keep` of them are the parent version's first ones).
        parent: version whose first `keep` items are shared, or None.
        items: encoded new items: `(serializer type, bytes)`; each is stored once by content.
    """

    channel: str
    version: str
    kind: str
    items: tuple[tuple[str, bytes], ...]
    parent: str | None = None
    keep: int = 0


@dataclass(frozen=True, slots=True)
class PendingWrite:
    """One write of a task that belongs to a checkpoint not yet made."""

    task: str
    index: int
    channel: str
    type: str
    body: bytes
    task_path: str


@dataclass(frozen=True, slots=True)
class CheckpointRow:
    """A checkpoint without its channel values.

    Attributes:
        type, body: the encoded checkpoint with channel versions, and no values but small plain ones.
        metadata: JSON bytes of LangGraph's metadata, without secrets.
        channels: (channel, version) of each value that is kept as a channel version; `delete` keeps what a survivor names here.
    """

    thread: str
    ns: str
    id: str
    parent: str | None
    type: str
    body: bytes
    metadata: bytes
    run: str | None = None
    channels: tuple[tuple[str, str], ...] = ()


class Checkpoints(Protocol):
    """State of graphs, linear in a growing list. Above it stands the saver in `graph.saver`, which alone knows LangGraph."""

    def put(self, row: CheckpointRow, channels: Sequence[ChannelWrite]) -> None:
        """Insert or replace a checkpoint with the channel versions that are new in it.

        Raises `NotFound` when a list builds on a version that was deleted meanwhile; the caller then sends the list
        whole.
        """

    def put_writes(
        self, thread: str, ns: str, checkpoint: str, writes: Sequence[PendingWrite], *, replace: bool
    ) -> None:
        """Store pending writes; existing ones of the same task and index stay unless `replace`."""

    def get(self, thread: str, ns: str, checkpoint: str | None) -> CheckpointRow | None:
        """Read one by id, or the newest."""

    def list(
        self,
        thread: str | None,
        ns: str | None,
        *,
        before: str | None = None,
        limit: int | None = None,
        run: str | None = None,
    ) -> Sequence[CheckpointRow]:
        """Newest first; filtered by what is given."""

    def channel(
        self, thread: str, ns: str, channel: str, version: str
    ) -> tuple[str, Sequence[tuple[str, bytes]]] | None:
        """Read a channel version: its kind and its items in order."""

    def writes(self, thread: str, ns: str, checkpoint: str) -> Sequence[PendingWrite]:
        """Read pending writes in order of task path, task, index."""

    def delete_thread(self, thread: str) -> None:
        """Remove everything of a thread."""

    def delete(self, thread: str, ns: str, ids: Iterable[str]) -> None:
        """Remove single checkpoints; manifests that survivors build on are rewritten first."""

    def copy_thread(self, source: str, target: str) -> None:
        """Copy all checkpoints and writes of a thread to a new one."""


class Tx(Protocol):
    """One transaction: the nouns, each with its verbs."""

    @property
    def ledger(self) -> Ledger:
        """The chain of events."""

    @property
    def causes(self) -> Causes:
        """What led to what: the ledger's index."""

    @property
    def blobs(self) -> Blobs:
        """Bodies by content."""

    @property
    def runs(self) -> Runs:
        """Rows of runs."""

    @property
    def transitions(self) -> Transitions:
        """The index of node tasks."""

    @property
    def effects(self) -> Effects:
        """The effect journal."""

    @property
    def gates(self) -> Gates:
        """Actions that wait."""

    @property
    def principals(self) -> Principals:
        """Who may speak."""

    @property
    def notices(self) -> Notices:
        """Messages to channels."""

    @property
    def budgets(self) -> Budgets:
        """Accounts and reservations."""

    @property
    def authority(self) -> Authorities:
        """Versions of our own configuration."""

    @property
    def fences(self) -> Fences:
        """Leases of runs."""

    @property
    def watch(self) -> Watch:
        """Heartbeats and settings."""

    @property
    def baselines(self) -> Baselines:
        """What the governor learned, and the rates that it set."""

    @property
    def breakers(self) -> Breakers:
        """Breakers, and what runs did of late."""

    @property
    def flags(self) -> Flags:
        """What people stopped for more than one run."""

    @property
    def leases(self) -> Leases:
        """Which call writes to which shared resource."""

    @property
    def checkpoints(self) -> Checkpoints:
        """State of graphs."""


class Store(Protocol):
    """Durable state of one home."""

    def write(self, work: Callable[[Tx], T], *, durable: bool = False) -> T:
        """Run `work` in one transaction and commit it, perhaps together with others' work."""

    def read(self, work: Callable[[Tx], T]) -> T:
        """Run `work` on one consistent snapshot; a write inside it is an error."""

    def on_commit(self, listener: Callable[[Sequence[int]], None]) -> Callable[[], None]:
        """Call `listener` with the sequence numbers of each committed batch, after the commit, on the writing thread.

        Returns the function that ends it. A listener that raises does not undo the commit.
        """

    def close(self) -> None:
        """Release everything; later calls raise `StoreUnreadable`."""
