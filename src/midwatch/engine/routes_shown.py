"""Routes shown: where each alias of a fleet leads and what it costs, dearest first, and what is not as it was said or as it was.

In:   a fleet, the environment, a home's store if there is one. Out: `RouteRow`.
May import: config, models; store (port), tracing. Must not know: how it is printed; no model is asked.
Why the ledger too: a preset, a variable or an edit can send an alias elsewhere without anybody looking; the last run's own record says
where it led then.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from midwatch.config.fleet import Fleet
from midwatch.config.route_policy import offences
from midwatch.errors import MidwatchError
from midwatch.models.routes import Resolved, dearest, resolve
from midwatch.records.run import RunRow
from midwatch.store.port import Store, Tx
from midwatch.tracing.paging import events_of

__all__ = ["Drift", "Led", "RouteRow", "audit"]

_RUNS: Final = 200
"""Runs that are looked at, newest first, for where an alias led."""


@dataclass(frozen=True, slots=True)
class Drift:
    """What is not as it should be: `policy`, `unpriced`, or `moved` since the last run."""

    code: str
    message: str


@dataclass(frozen=True, slots=True)
class Led:
    """Where an alias led in the newest run that used it: the model that was asked for, and the one that said it answered, if any did."""

    run: str
    model: str
    answered: str | None


@dataclass(frozen=True, slots=True)
class RouteRow:
    """One alias.

    Attributes:
        used: something in the fleet calls it. input, output: dearest rates that may apply, micro-dollars per million tokens; None: unknown.
        key: the variable that holds the key; key_present: it is set, or none is needed.
        last: of the newest run of this fleet under this preset that used the alias.
    """

    alias: str
    target: str
    provider: str
    model: str
    base_url: str | None
    used: bool
    input: int | None
    output: int | None
    price: Mapping[str, Any] | None
    key: str | None
    key_present: bool
    last: Led | None
    drift: tuple[Drift, ...]


def audit(fleet: Fleet, store: Store | None, environ: Mapping[str, str], *, at_us: int) -> tuple[RouteRow, ...]:
    """Resolve and price every alias; what has no price stands first, since nobody can say what it costs."""
    aliases = frozenset(fleet.routes)
    led = {} if store is None else _led(store, fleet, aliases)
    rows = [_row(fleet, alias, led.get(alias), environ, at_us) for alias in aliases]
    return tuple(
        sorted(rows, key=lambda row: (row.output is not None, -(row.output or 0), -(row.input or 0), row.alias))
    )


def _row(fleet: Fleet, alias: str, last: Led | None, environ: Mapping[str, str], at_us: int) -> RouteRow:
    spec, drift = fleet.routes[alias], []
    resolved: Resolved | None = None
    try:
        resolved = resolve(fleet.routes, alias, environ, at_us=at_us)
    except MidwatchError as error:
        drift.append(Drift("unpriced", str(error)))
    rates = None if resolved is None else dearest(resolved.price)
    drift += [Drift("policy", text) for text in offences(fleet.route_policy, spec, rates)]
    if last is not None and last.model != spec.model:
        drift.append(Drift("moved", f"leads to `{spec.model}` now; run {last.run[:7]} asked `{last.model}` over it"))
    return RouteRow(
        alias=alias,
        target=spec.target,
        provider=spec.provider,
        model=spec.model,
        base_url=spec.base_url,
        used=alias in fleet.used_routes,
        input=None if rates is None else rates[0],
        output=None if rates is None else rates[1],
        price=None if resolved is None else resolved.price.to_json(),
        key=spec.api_key_env,
        key_present=spec.api_key_env is None or bool(environ.get(spec.api_key_env, "").strip()),
        last=last,
        drift=tuple(drift),
    )


def _led(store: Store, fleet: Fleet, aliases: frozenset[str]) -> dict[str, Led]:
    """Find where aliases led: in the newest run that used each."""
    found: dict[str, Led] = {}
    rows: Sequence[RunRow] = store.read(lambda tx: tx.runs.list(limit=_RUNS))
    for row in rows:
        if row.fleet == fleet.name and row.preset == fleet.preset and aliases - found.keys():
            found = {**_of_run(store, row), **found}
    return found


def _of_run(store: Store, row: RunRow) -> dict[str, Led]:
    def work(tx: Tx) -> dict[str, Led]:
        led: dict[str, Led] = {}
        for event in events_of(tx, row.id, ("intent", "finished")):
            alias, model = event.data.get("route"), event.data.get("model")
            if not isinstance(alias, str) or not isinstance(model, str):
                continue
            if event.kind == "intent":
                before = led.get(alias)
                led[alias] = Led(row.id, model, None if before is None else before.answered)
            elif alias in led:
                led[alias] = Led(row.id, led[alias].model, model)
        return led

    return store.read(work)
