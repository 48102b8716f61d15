"""Stops: a person pauses, kills or lets go on: a run, an agent, a tool, a vertical, or all.

In:   a store, what is meant, who says it, why, the time. Out: a mark or a flag in the store, one event, and what was found in flight.
May import: books, control's rows, store (port), records, errors. Must not know: the graph, how the word came in.
Why marks only: whoever does the work may be another process on another machine; it reads them at every stage, and a few times a second.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from midwatch.engine import books
from midwatch.errors import NotFound, UsageProblem
from midwatch.records.decision import Halt
from midwatch.records.event import EventDraft
from midwatch.records.run import RunRow
from midwatch.store.flags import Flag, FlagKind
from midwatch.store.port import Store, Tx

__all__ = ["SCOPES", "InFlight", "Stop", "lift", "stop", "stop_run"]

SCOPES: Final = ("agent", "tool", "vertical", "all")
_OVER: Final = ("done", "cancelled")
_LIVING: Final = ("created", "running", "waiting", "paused", "interrupted")
_MOST: Final = 100_000


@dataclass(frozen=True, slots=True)
class InFlight:
    """An effect that had begun and whose outcome is UNKNOWN until its worker, or a person, says more."""

    effect: str
    run: str
    agent: str
    tool: str


@dataclass(frozen=True, slots=True)
class Stop:
    """What a stop did.

    Attributes:
        already: one that goes as far stood before; nothing new was written.
        held: runs that a live worker holds; each stops by itself within a second, where it is meant.
        dropped: runs that nobody worked on and that are over now.
    """

    scope: str
    fleet: str
    kind: FlagKind
    already: bool
    held: tuple[str, ...]
    dropped: tuple[str, ...]
    in_flight: tuple[InFlight, ...]


def scope_of(kind: str, name: str = "") -> str:
    """Name a scope. UsageProblem: there is none of that kind, or it wants a name."""
    if kind not in SCOPES or (kind == "all") == bool(name) or not name.isprintable():
        raise UsageProblem("name what is meant: an agent, a tool, a vertical, or all")
    return kind if kind == "all" else f"{kind}:{name}"


def stop(store: Store, scope: str, *, kind: FlagKind, fleet: str = "", by: str, reason: str, at_us: int) -> Stop:
    """Stop whatever a scope means, in one fleet or in all, until the same is lifted. A kill goes further than a pause.

    Args:
        scope: `all`, `agent:NAME`, `tool:NAME`, `vertical:NAME`.
    """
    _said(reason)
    scope_of(*scope.split(":", 1))

    def work(tx: Tx) -> Stop:
        new = tx.flags.raise_(Flag(scope, fleet, kind, reason, by, at_us))
        rows = [row for row in tx.runs.list(limit=_MOST, statuses=_LIVING) if fleet in ("", row.fleet)]
        held = tuple(row.id for row in rows if tx.fences.live(row.id, at_us))
        flying = tuple(item for row in rows for item in _flying(tx, row.id) if _meant(scope, item))
        dropped: tuple[str, ...] = ()
        if kind == "kill" and scope == "all":
            dropped = tuple(row.id for row in rows if row.id not in held)
            for run in dropped:
                _over(tx, run, by, reason, at_us)
        if new:
            data = {"scope": scope, "fleet": fleet, "kind": kind, "reason": reason, "by": by}
            told = {"in_flight": [item.effect for item in flying], "dropped": list(dropped)}
            tx.ledger.append(EventDraft("flag.raised", None, at_us, data | told))
        return Stop(scope, fleet, kind, not new, held, dropped, flying)

    return store.write(work, durable=True)


def stop_run(store: Store, run: str, *, kind: FlagKind, by: str, reason: str, at_us: int) -> Stop:
    """Pause one run, or kill it; a run that nobody works on is over, or paused, at once.

    Raises:
        NotFound: no such run. UsageProblem: it has ended already.
    """
    _said(reason)

    def work(tx: Tx) -> Stop:
        row = _run(tx, run)
        if row.status in _OVER:
            raise UsageProblem(f"run `{run[:7]}` is already {row.status}; there is nothing to stop")
        mark, held = tx.runs.halt(run), tx.fences.live(run, at_us)
        already = mark is not None and (mark.kind != "pause" or kind == "pause")
        if not already or (
            mark is not None and mark.kind == "pause"
        ):  # anew, or a resume that is under way would lift it
            tx.runs.clear_halt(run)
            tx.runs.set_halt(run, Halt(kind, reason, by, at_us))
        flying = tuple(_flying(tx, run))
        if not already:
            data = {
                "kind": kind,
                "reason": reason,
                "by": by,
                "held": held,
                "in_flight": [item.effect for item in flying],
            }
            tx.ledger.append(EventDraft("run.halted", run, at_us, data))
        dropped: tuple[str, ...] = ()
        if not held and kind == "kill":
            _over(tx, run, by, reason, at_us)
            dropped = (run,)
        elif not held and row.status != "waiting":
            tx.runs.update(run, status="paused", error_code="halted", error_message=f"paused by `{by}`: {reason}")
        return Stop("run", row.fleet, kind, already, (run,) if held else (), dropped, flying)

    return store.write(work, durable=True)


def lift(store: Store, scope: str, *, fleet: str = "", by: str, reason: str, at_us: int) -> tuple[Flag, ...]:
    """Take back a stop of exactly this scope and fleet; gives what still stands. Paused runs go on when each is resumed.

    Raises:
        NotFound: no such stop stands.
    """
    scope_of(*scope.split(":", 1))

    def work(tx: Tx) -> tuple[Flag, ...]:
        old = tx.flags.lower(scope, fleet)
        if old is None:
            standing = ", ".join(
                f"`{item.scope}`{f' of `{item.fleet}`' if item.fleet else ''}" for item in tx.flags.list()
            )
            raise NotFound(
                f"`{scope}` was not stopped{f' in fleet `{fleet}`' if fleet else ''}; stopped are: {standing or 'none'}"
            )
        data = {"scope": scope, "fleet": fleet, "kind": old.kind, "reason": reason, "by": by}
        tx.ledger.append(EventDraft("flag.lowered", None, at_us, data))
        return tuple(tx.flags.list())

    return store.write(work, durable=True)


def _said(reason: str) -> None:
    if not reason.strip():
        raise UsageProblem("say why with `--reason`; it is kept in the ledger")


def _run(tx: Tx, run: str) -> RunRow:
    row = tx.runs.get(run)
    if row is None:
        raise NotFound(f"no run `{run}` in this home; `midwatch runs ls` lists them")
    return row


def _flying(tx: Tx, run: str) -> list[InFlight]:
    return [InFlight(row.id, run, row.agent, row.tool) for row in tx.effects.list(run, statuses=("started",))]


def _meant(scope: str, item: InFlight) -> bool:
    kind, _, name = scope.partition(":")
    return kind in ("all", "vertical") or name == (item.agent if kind == "agent" else item.tool)


def _over(tx: Tx, run: str, by: str, reason: str, at_us: int) -> None:
    """End a run that nobody works on."""
    books.close(tx, run, at_us=at_us)
    tx.breakers.drop_trails(run)
    message, head = f"killed by `{by}`: {reason}", tx.ledger.head()[1]
    tx.runs.update(run, status="cancelled", ended_us=at_us, error_code="halted", error_message=message, head=head)
