"""Governor: `midwatch governor run | once | status | log | forget`: the watch outside the runs, as a service, from cron, and what it did.

In:   a home. Out: tables on stdout, JSON with `--json`, JSON lines with `--follow`.
May import: errors; the governor, store and wiring when a command runs. Must not know: how anything is judged.
Exit codes of `once`: 0 nothing was out of the ordinary, 5 it acted or warned, 1 the store cannot be used, 6 there is no home.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final

import click

from midwatch.surfaces.cli.common import Settings, block, command_options, emit, moment, plain, say, store_of
from midwatch.surfaces.cli.speaking import speaker, token_option

if TYPE_CHECKING:
    from midwatch.records.event import Event
    from midwatch.store.port import Store

__all__ = ["governor"]

_ACTED: Final = 5
_PASSES: Final = 200
"""The most passes that `once` makes while it is behind."""
_PART: Final = 500
_LOOK_S: Final = 0.5


@click.group(short_help="The watch outside the runs: run it, ask it.")
def governor() -> None:
    """The watch outside the runs: as a service, from cron, and what it did."""


@governor.command("run", short_help="Watch until stopped, as a service.")
@click.option(
    "--period", type=click.FloatRange(0.05, 3600), default=1.0, show_default=True, help="Seconds between two passes."
)
@command_options
@click.pass_obj
def run(settings: Settings, period: float) -> None:
    """Watch this home until SIGTERM or Ctrl-C. For fleets with `governor: {mode: daemon}`; with `--json` a line per finding."""
    from midwatch import wiring
    from midwatch.surfaces.governor import watch

    over = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: over.set())
    with wiring.open_store(settings.place, create=True):
        say(f"the governor watches `{settings.place}`, every {period:g} s")
    watch(settings.place, period_s=period, over=over, tell=lambda passed: _told(settings, passed.acted, follow=True))
    say("the governor has stopped; without another one no effect begins")


@governor.command("once", short_help="One pass, for cron; the exit code tells.")
@command_options
@click.pass_context
def once(ctx: click.Context) -> None:
    """Do one pass over what is new. Exit code 0: nothing; 5: it acted or warned; 1: the store cannot be used; 6: there is no home."""
    import socket

    from midwatch import wiring
    from midwatch.governor.watch import beat_name, watch_once
    from midwatch.surfaces.governor import samples

    settings: Settings = ctx.obj
    acted: list[Mapping[str, Any]] = []
    read = 0
    with store_of(settings) as store:
        name = beat_name(socket.gethostname(), 0)  # one name a machine: the process is gone before anybody reads it
        for _ in range(_PASSES):
            passed = watch_once(store, pid=os.getpid(), now=wiring.clock(), name=name, samples=samples(settings.place))
            acted += passed.acted
            read += passed.read
            if not passed.behind:
                break
    if settings.json:
        emit(
            {
                "ok": True,
                "live": passed.live,
                "events": read,
                "behind": passed.behind,
                "acted": [dict(item) for item in acted],
            }
        )
    else:
        _told(settings, acted)
    ctx.exit(_ACTED if acted else 0)


@governor.command("status", short_help="Who watches, how far, whom it slows.")
@command_options
@click.pass_obj
def status(settings: Settings) -> None:
    """Show every governor's last sign of life, what fleets ask for, how far the ledger was judged, and rates that hold."""
    from midwatch import wiring

    now = wiring.clock()
    with store_of(settings) as store:
        facts = _status(store, now)
    if settings.json:
        emit({"ok": True, **facts})
        return
    from midwatch.surfaces.cli.render import table

    if not facts["governors"]:
        say("no governor ever watched this home")
    else:
        rows = [
            (
                item["name"],
                item["pid"],
                moment(item["at_us"]),
                f"{item['age_us'] / 1e6:.1f}s",
                "stale" if item["stale"] else "lives",
            )
            for item in facts["governors"]
        ]
        table(("governor", "process", "last sign of life", "age", "state"), rows)
    if facts["fleets"]:
        fleets = [
            (item["fleet"], item["mode"], f"{item['stale_after_us'] / 1e6:g}s", item["covered"])
            for item in facts["fleets"]
        ]
        table(("fleet", "mode", "stale after", "covered"), [(*row[:3], "yes" if row[3] else "no") for row in fleets])
    click.echo(
        f"judged to event {facts['cursor']:,} of {facts['head']:,}; {len(facts['agents'])} agents have a baseline"
    )
    for item in facts["throttles"]:
        click.echo(plain(f"{item['subject']} is slowed to one call in {item['gap_us'] / 1e6:g} s: {item['reason']}"))


@governor.command("log", short_help="What it did and found, with reasons.")
@click.option("--limit", type=click.IntRange(1, 100_000), default=50, show_default=True, help="Newest that are shown.")
@click.option("--follow", is_flag=True, help="Go on as more comes; JSON lines with --json.")
@command_options
@click.pass_obj
def log(settings: Settings, limit: int, *, follow: bool) -> None:
    """Show what the governor found and did, oldest first: the numbers, the baseline, the policy."""
    with store_of(settings) as store:
        events = list(_events(store, 0))[-limit:]
        if settings.json and not follow:
            emit({"ok": True, "log": [_line(event) for event in events]})
            return
        _shown(settings, events)
        after = events[-1].seq if events else store.read(lambda tx: tx.ledger.head())[0]
        rest = threading.Event()
        while follow:
            rest.wait(_LOOK_S)
            fresh = list(_events(store, after))
            _shown(settings, fresh)
            after = fresh[-1].seq if fresh else after


@governor.command("forget", short_help="Let it learn an agent anew.")
@click.argument("subject", metavar="FLEET/AGENT")
@click.option("--reason", default="", help="Why; it is recorded.")
@token_option
@command_options
@click.pass_obj
def forget(settings: Settings, subject: str, reason: str, token_file: str | None) -> None:
    """Drop the baseline of FLEET/AGENT: what it does from now on is what is usual, after a new warm-up."""
    from midwatch import wiring
    from midwatch.engine.forgetting import forget_baseline

    with store_of(settings) as store:
        forget_baseline(store, subject, speaker=speaker(store, token_file), reason=reason, at_us=wiring.clock())
    if settings.json:
        emit({"ok": True, "subject": subject})
    else:
        say(f"{subject}: its baseline is dropped; it is learned anew")


def _status(store: Store, now: int) -> dict[str, Any]:
    import json

    from midwatch.governor.policies_pass import SPEC_PREFIX
    from midwatch.governor.watch import HEARTBEAT, living

    def read(tx: Any) -> tuple[Any, ...]:
        fleets = {row.fleet for row in tx.runs.list(limit=1000)}
        specs = {fleet: tx.watch.setting(SPEC_PREFIX + fleet) for fleet in sorted(fleets)}
        states = tx.baselines
        return (
            tx.watch.beats(HEARTBEAT),
            specs,
            states.cursor(),
            tx.ledger.head()[0],
            states.subjects(),
            states.throttles(now),
        )

    beats, specs, cursor, head, agents, throttles = store.read(read)
    told = {fleet: json.loads(body) for fleet, body in specs.items() if body is not None}
    limit = max((int(item["stale_after"]) for item in told.values()), default=30_000_000)
    alive = set(living(beats, now=now, stale_after_us=limit))
    return {
        "alive": bool(alive),
        "governors": [
            {
                "name": beat.name,
                "pid": beat.pid,
                "at_us": beat.at_us,
                "age_us": now - beat.at_us,
                "stale": beat not in alive,
            }
            for beat in beats
        ],
        "fleets": [
            {
                "fleet": fleet,
                "mode": item["mode"],
                "period_us": item["period"],
                "stale_after_us": item["stale_after"],
                "policies": {name: policy[0] for name, policy in item["policies"].items()},
                "covered": bool(living(beats, now=now, stale_after_us=item["stale_after"])),
            }
            for fleet, item in told.items()
        ],
        "cursor": cursor,
        "head": head,
        "behind": head - cursor,
        "agents": [{"subject": subject, "changed_us": at_us} for subject, at_us in agents.items()],
        "throttles": [
            {"subject": item.subject, "gap_us": item.gap_us, "until_us": item.until_us, "reason": item.reason}
            for item in throttles
        ],
    }


def _events(store: Store, after: int) -> Iterator[Event]:
    while True:
        part = store.read(lambda tx: tx.ledger.read(after=after, limit=_PART, kinds=("governor.acted",)))  # noqa: B023 - called at once
        yield from part
        if len(part) < _PART:
            return
        after = part[-1].seq


def _line(event: Event) -> dict[str, Any]:
    return {"seq": event.seq, "at_us": event.at_us, "run": event.run, "agent": event.agent, **event.data}


def _shown(settings: Settings, events: list[Event]) -> None:
    for event in events:
        if settings.json:
            emit(_line(event))
            continue
        where = " ".join(part for part in ((event.run or "")[:7], event.agent or "") if part)
        click.echo(block([f"{moment(event.at_us)}  {_said(event.data, where)}"]))


def _told(
    settings: Settings, acted: tuple[Mapping[str, Any], ...] | list[Mapping[str, Any]], *, follow: bool = False
) -> None:
    """Write down findings as they come."""
    for data in acted:
        if settings.json and follow:
            emit(dict(data))
        else:
            click.echo(block([_said(data, f"{str(data.get('run') or '')[:7]} {data.get('agent') or ''}".strip())]))


def _said(data: Mapping[str, Any], where: str) -> str:
    policy = f" by {data['policy']}" if "policy" in data else ""
    return f"{data.get('action')}{policy}  {where}: {data.get('reason', '')}"
