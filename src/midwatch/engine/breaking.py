"""Breaking: asks the breakers before a call begins, tells them how it ended, and pauses the run where one of its agents is stopped.

In:   whose call, under which reservation; its end. Out: nothing; an event for each transition; `Broken`, or a halt of the run.
May import: context, passage; governor, store (port), records, errors. Must not know: how breakers count, what a tool does.
Why in the transaction of the hold and of the settling: what counts a call and what lets the next one begin are one truth for every process.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import orjson

from midwatch.engine.answering import clean
from midwatch.engine.identity import present, require
from midwatch.errors import MidwatchError, NotFound
from midwatch.governor import breakers, cycles
from midwatch.records.call import Actor
from midwatch.records.decision import Halt
from midwatch.records.envelope import Envelope
from midwatch.records.event import EventDraft
from midwatch.store.breakers import BreakerRow
from midwatch.store.port import Store, Tx

if TYPE_CHECKING:
    from midwatch.engine.context import Segment
    from midwatch.gates.review import Speaker

__all__ = ["Breaking", "Broken", "reset"]

_BY: Final = "breaker"


class Broken(MidwatchError):
    """A breaker lets this call not begin; `wait_us` until it is worth another try."""

    def __init__(self, row: BreakerRow, wait_us: int) -> None:
        self.row, self.wait_us = row, wait_us
        again = f"try again in {max(1, wait_us // 1_000_000)} s, or `midwatch breakers reset {row.subject}`"
        super().__init__(f"breaker `{row.subject}` is open: {row.reason}; {again}")


class Breaking:
    """The breakers of one segment."""

    def __init__(self, segment: Segment) -> None:
        self._seg = segment
        self._refused: dict[str, int] = {}

    def admit(self, actor: Actor, kind: str, name: str, reservation: str) -> None:
        """Let a call of a tool or a route begin whose hold was taken.

        Raises:
            Broken: its breaker is open, or half open with another call as its probe.
            Halted: the breaker of its agent is open, so the run pauses; or the store cannot be used.
        """
        seg = self._seg
        if not seg.fleet.breakers.on:
            return
        own = self._agent(actor)
        wanted = [f"{kind}:{seg.fleet.name}/{name}", own]
        if all(row.state == "closed" for row in seg.store.read(lambda tx: [tx.breakers.get(item) for item in wanted])):
            return
        now = seg.clock()
        try:
            seg.store.write(lambda tx: self._admit(tx, wanted, reservation, now))
        except Broken as broken:
            self._count(broken, own, kind, name)
            raise
        except MidwatchError as error:
            raise seg.stop(error) from error

    def _admit(self, tx: Tx, wanted: list[str], reservation: str, now: int) -> None:
        for subject in wanted:
            row = tx.breakers.get(subject)
            held = bool(row.probe) and tx.fences.live(row.probe_run, now)
            held = held and any(item == row.probe for item, _ in tx.budgets.open_reservations(row.probe_run))
            found = breakers.admit(row, probe=reservation, run=self._seg.run, held=held, now=now)
            if not found.allowed:
                raise Broken(row, found.wait_us)
            _keep(tx, row, found.row, self._seg.run, now)

    def _count(self, broken: Broken, own: str, kind: str, name: str) -> None:
        """Pause the run for its agent's breaker at once, for a tool's after some refusals. Halted: it pauses."""
        seg = self._seg
        subject = broken.row.subject
        self._refused[subject] = self._refused.get(subject, 0) + 1
        most = seg.fleet.breakers.of(kind, name).refusals
        if subject == own or kind == "route" or (most and self._refused[subject] >= most):
            pause(seg, str(broken))

    def tool_ended(
        self, tx: Tx, actor: Actor, name: str, reservation: str, *, error: str | None, took_us: int, now: int
    ) -> None:
        """Count a tool call, in the transaction that settles it."""
        self._ended(tx, "tool", name, reservation, error=error, took_us=took_us, now=now)
        self._probed(tx, actor, reservation, error=error, now=now)

    def settled(
        self, tx: Tx, actor: Actor, name: str, reservation: str, arguments: bytes, sealed: Envelope, ms: int, now: int
    ) -> None:
        """Count a tool call whose result is there, and look where its agent goes."""
        error = None if sealed.error is None else sealed.error.code
        told = orjson.dumps([sealed.ok, sealed.data, error], default=str)
        self.tool_ended(tx, actor, name, reservation, error=error, took_us=ms * 1000, now=now)
        self.went(tx, actor, name, arguments, told, error=error, now=now)

    def model_ended(
        self, tx: Tx, actor: Actor, route: str, reservation: str, *, error: str | None, took_us: int, now: int
    ) -> None:
        """Count a model call, in the transaction that settles it."""
        self._ended(tx, "route", route, reservation, error=error, took_us=took_us, now=now)
        self._probed(tx, actor, reservation, error=error, now=now)
        if self._seg.fleet.breakers.on and self._seg.foreign is not None and error is None:
            self._handed(tx, actor, now)

    def _ended(
        self, tx: Tx, kind: str, name: str, reservation: str, *, error: str | None, took_us: int, now: int
    ) -> None:
        fleet = self._seg.fleet
        if not fleet.breakers.on:
            return
        row = tx.breakers.get(f"{kind}:{fleet.name}/{name}")
        spec = fleet.breakers.of(kind, name)
        more = {"ok": error is None, "took_us": took_us, "why": error or "", "now": now}
        _keep(tx, row, breakers.ended(row, spec, call=reservation, **more), self._seg.run, now)  # type: ignore[arg-type]

    def _probed(self, tx: Tx, actor: Actor, reservation: str, *, error: str | None, now: int) -> None:
        """End the probe of an agent's breaker."""
        row = tx.breakers.get(self._agent(actor)) if self._seg.fleet.breakers.on else None
        if row is not None and row.state == "half_open" and row.probe == reservation:
            spec = self._seg.fleet.breakers.of("agent", actor.agent)
            after = breakers.ended(row, spec, call=reservation, ok=error is None, took_us=0, why=error or "", now=now)
            _keep(tx, row, after, self._seg.run, now)

    def went(
        self, tx: Tx, actor: Actor, tool: str, arguments: bytes, result: bytes, *, error: str | None, now: int
    ) -> None:
        """Look whether an agent goes round in circles, in the transaction that settles its call."""
        fleet, run = self._seg.fleet, self._seg.run
        if not fleet.breakers.on:
            return
        spec, part = fleet.breakers.of("agent", actor.agent), f"calls:{actor.agent}"
        call, told = cycles.likeness(tool, arguments), cycles.likeness(result)
        trail = cycles.read(tx.breakers.trail(run, part))
        trail, shown = cycles.called(trail, spec, call=call, result=told, ok=error is None, why=error or "")
        if shown is None:
            tx.breakers.keep_trail(run, part, trail.to_bytes())
        else:
            self._open(tx, self._agent(actor), "agent", actor.agent, shown, now)
            tx.breakers.drop_trails(run, part)  # what comes after the pause is judged by itself

    def _handed(self, tx: Tx, actor: Actor, now: int) -> None:
        fleet, run = self._seg.fleet, self._seg.run
        spec = fleet.breakers.usual
        trail, pair = cycles.handed(
            cycles.read(tx.breakers.trail(run, "turns")), spec, agent=actor.agent, step=actor.step
        )
        tx.breakers.keep_trail(run, "turns", trail.to_bytes())
        if pair is None:
            return
        tx.breakers.drop_trails(run, "turns")
        shown = (
            f"`{pair[0]}` and `{pair[1]}` handed over to each other {spec.ping_pong} times, and nobody else had a turn"
        )
        self._open(tx, f"pair:{fleet.name}/{pair[0]}+{pair[1]}/{run}", "agent", actor.agent, shown, now)
        self._open(tx, self._agent(actor), "agent", actor.agent, shown, now)

    def _open(self, tx: Tx, subject: str, kind: str, name: str, shown: str, now: int) -> None:
        row = tx.breakers.get(subject)
        if row.state != "open":
            _keep(
                tx, row, breakers.opened(row, self._seg.fleet.breakers.of(kind, name), shown, now), self._seg.run, now
            )

    def _agent(self, actor: Actor) -> str:
        return f"agent:{self._seg.fleet.name}/{actor.agent}/{self._seg.run}"


def pause(seg: Segment, reason: str) -> None:
    """Pause the run, with the mark that every process reads. Halted: always."""
    from midwatch.engine.stopping import Stopped  # noqa: PLC0415 - only where something is stopped

    halt = Halt("pause", reason, _BY, seg.clock())
    seg.write(lambda tx: tx.runs.set_halt(seg.run, halt))
    raise seg.stop(Stopped(halt, "this run"))


def reset(store: Store, name: str, *, speaker: Speaker, reason: str, at_us: int) -> BreakerRow:
    """Close a breaker by a person's word; gives it as it was.

    Raises:
        NotFound: there is none of that name. Denied: it takes an operator.
    """

    def work(tx: Tx) -> BreakerRow:
        require(present(tx, speaker), "operator", "reset a breaker")
        found = [row for row in tx.breakers.all() if row.subject == name]
        if not found:
            raise NotFound(f"no breaker `{name}`; `midwatch breakers ls --every` lists them")
        tx.breakers.put(BreakerRow(name, changed_us=at_us))
        data = {
            "breaker": name,
            "from": found[0].state,
            "to": "closed",
            "by": speaker.name,
            "reason": clean(tx, reason),
        }
        tx.ledger.append(EventDraft("breaker.changed", None, at_us, data))
        return found[0]

    return store.write(work, durable=True)


def _keep(tx: Tx, before: BreakerRow, after: BreakerRow, run: str, now: int) -> None:
    """Keep a breaker that changed; a transition is an event, with what led to it."""
    if before == after:
        return
    tx.breakers.put(after)
    if before.state != after.state or before.probe != after.probe:
        data = {
            "breaker": after.subject,
            "from": before.state,
            "to": after.state,
            "errors": after.errors,
            "slow": after.slow,
            "trips": after.trips,
            "until_us": after.until_us,
            "probe": after.probe,
            "reason": after.reason if after.state == "open" else "",
        }
        tx.ledger.append(EventDraft("breaker.changed", run, now, data))
