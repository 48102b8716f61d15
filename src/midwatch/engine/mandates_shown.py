"""Mandates shown: what a run was allowed in advance, by whom, what of it is spent, and what is left.

In:   a run of a home. Out: `Shown`, from the ledger alone: no fleet file, no tools.
May import: containment, records, tracing; store (port). Must not know: how it is printed.
Source: CONTAINMENT.md, clauses 11-14.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from midwatch.containment import mandates
from midwatch.containment.kept import slots_to_json
from midwatch.engine.mandating import Kept, fold
from midwatch.store.port import Store, Tx
from midwatch.tracing.paging import events_of

__all__ = ["Shown", "ShownLine", "ShownMandate", "of_run"]


@dataclass(frozen=True, slots=True)
class ShownLine:
    """One tool of a mandate.

    Attributes:
        slots: per argument, what it takes, as JSON. most: calls, None: no cap of its own.
        spent: calls, by itself and by whatever was cut from it. left: None: no cap up to the root.
        sums_spent, sums_left: per argument of role quantity, exact, as texts.
    """

    id: str
    tool: str
    slots: Mapping[str, Any]
    most: int | None
    spent: int
    left: int | None
    sums_spent: Mapping[str, str]
    sums_left: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class ShownMandate:
    """One mandate. `to`: the agent that may use it, None: any. `event`: that issued it. `parent`: the mandate whose rest it shares."""

    id: str
    by: str
    issuer: tuple[str, ...]
    to: str | None
    parent: str | None
    event: int
    issued_us: int
    expires_us: int | None
    lines: tuple[ShownLine, ...]


@dataclass(frozen=True, slots=True)
class Shown:
    """All of one run. `refused`: why the request allowed nothing, if so. `grants`: calls that a grant of the fleet covered."""

    run: str
    mandates: tuple[ShownMandate, ...]
    refused: str | None
    grants: Mapping[str, int]


def of_run(store: Store, run: str) -> Shown:
    """Give what a run's ledger says of its mandates, in the order in which they were issued.

    Raises:
        ValueError: the ledger says what cannot be; `midwatch verify` tells whether it was changed.
    """
    return store.read(lambda tx: _shown(tx, run))


def _shown(tx: Tx, run: str) -> Shown:
    kept = fold(tx, run, Kept())
    refused = tx.ledger.read(run=run, kinds=("mandate.refused",), limit=1)
    covers = (event.data["spent"] for event in events_of(tx, run, ("intent",)) if event.data.get("spent") is not None)
    granted = Counter(cover["mandate"] for cover in covers if cover["mandate"] not in kept.balance.mandates)
    made = []
    for event in kept.events:
        mandate = kept.balance.mandates[event.data["mandate"]]
        lines = tuple(_line(kept.balance, mandate.id, line) for line in mandate.lines)
        made.append(
            ShownMandate(
                id=mandate.id,
                by=mandate.by,
                issuer=tuple(sorted(str(cause) for cause in mandate.issuer.causes)),
                to=event.data["to"],
                parent=mandate.parent,
                event=event.seq,
                issued_us=event.at_us,
                expires_us=mandate.expires_us,
                lines=lines,
            )
        )
    return Shown(run, tuple(made), str(refused[0].data["reason"]) if refused else None, dict(sorted(granted.items())))


def _line(balance: mandates.Balance, mandate: str, line: mandates.Line) -> ShownLine:
    used, (calls, sums) = balance.of(mandate, line.id), mandates.left(balance, mandate, line.id)
    return ShownLine(
        id=line.id,
        tool=line.tool,
        slots=slots_to_json(line),
        most=line.most,
        spent=used.calls,
        left=calls,
        sums_spent={name: format(value, "f") for name, value in sorted(used.amounts.items())},
        sums_left={name: format(value, "f") for name, value in sorted(sums.items())},
    )
