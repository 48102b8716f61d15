"""Stopping: whether what a person stopped holds a call, whichever process makes it: the run's own mark, or a flag around it.

In:   a transaction, whose call it is, of what. Out: nothing; or `Stopped`, which says how far it goes.
May import: store (port), records, errors. Must not know: the graph, how the word came in.
Why read again in the transaction of every intent: what was checked a moment ago may have been stopped since, by another process.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from midwatch.errors import RunHalted
from midwatch.records.decision import Halt
from midwatch.store.flags import Flag
from midwatch.store.port import Tx

if TYPE_CHECKING:
    from midwatch.config.fleet import Fleet

__all__ = ["Stopped", "at_work", "hold", "new_run"]


class Stopped(RunHalted):
    """A person, a breaker or the governor stopped this; `halt` says who, why and how far it goes."""

    def __init__(self, halt: Halt, what: str) -> None:
        self.halt = halt
        super().__init__(f"{what} was stopped by `{halt.by}`: {halt.reason}")


def hold(tx: Tx, fleet: Fleet, run: str, *, agent: str, tool: str | None = None) -> None:
    """Let a call begin only where nothing holds it.

    Raises:
        Stopped: by the mark on its run, or by a flag on all, its fleet, its vertical, its agent or its tool; by a kill before a pause.
    """
    mark = tx.runs.halt(run)
    found = [] if mark is None else [(mark, "this run")]
    found += [(_halt(flag), _named(flag)) for flag in tx.flags.list() if _meets(flag, fleet, agent, tool)]
    for halt, what in sorted(found, key=lambda item: item[0].kind == "pause"):
        raise Stopped(halt, what)


def at_work(tx: Tx, fleet: Fleet, run: str) -> None:
    """Look whether anything that a run has under way was stopped meanwhile; its watcher asks a few times a second.

    Raises:
        Stopped: as `hold`.
    """
    mark = tx.runs.halt(run)
    if mark is not None:
        raise Stopped(mark, "this run")
    flags = tx.flags.list()
    if not flags:
        return
    for flag in sorted(flags, key=lambda item: item.kind == "pause"):
        if flag.fleet in ("", fleet.name) and flag.scope == "all":
            raise Stopped(_halt(flag), _named(flag))
        for row in tx.effects.list(run, statuses=("started",)):
            if _meets(flag, fleet, row.agent, row.tool if row.kind == "tool" else None):
                raise Stopped(_halt(flag), _named(flag))


def new_run(tx: Tx, fleet: Fleet) -> None:
    """Let a run begin, or go on, only where not everything is stopped.

    Raises:
        RunHalted: all, or the whole fleet, stands still.
    """
    for flag in tx.flags.list():
        if flag.scope == "all" and flag.fleet in ("", fleet.name):
            more = f" --fleet {flag.fleet}" if flag.fleet else ""
            raise RunHalted(
                f"{_named(flag)} was stopped by `{flag.by}`: {flag.reason}; `midwatch resume --all{more}` lets runs go on"
            )


def _meets(flag: Flag, fleet: Fleet, agent: str, tool: str | None) -> bool:
    if flag.fleet not in ("", fleet.name):
        return False
    kind, _, name = flag.scope.partition(":")
    if kind == "vertical":
        return agent in fleet.agents and fleet.vertical_of(agent) == name
    return kind == "all" or (kind == "agent" and name == agent) or (kind == "tool" and name == tool)


def _halt(flag: Flag) -> Halt:
    return Halt(flag.kind, flag.reason, flag.by, flag.at_us)


def _named(flag: Flag) -> str:
    kind, _, name = flag.scope.partition(":")
    where = f" of fleet `{flag.fleet}`" if flag.fleet else ""
    return f"{kind} `{name}`{where}" if name else f"everything{where}"
