"""Copying: everything that a home's file holds, onto an empty store on a server; whole and verified, or not at all.

In:   the store to copy from, the empty one to copy to. Out: what a walk over the copied chain found.
May import: store.grouping, store.tables, errors. Must not know: which databases they are in.

Read from one snapshot, written in one transaction, and the copy's chain is walked before that is committed: it must be sound and
must end in the very hash that the original ends in. Nobody may work on the original meanwhile, since what came later would be missing.
"""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, cast

from midwatch.errors import RunHeld, StoreCorrupt, UsageProblem
from midwatch.store.connection import Connection
from midwatch.store.port import VerifyReport

if TYPE_CHECKING:
    from midwatch.store.grouping import GroupStore, SqlTx
    from midwatch.store.port import Tx

__all__ = ["copy"]

_ROWS = 500


def copy(source: GroupStore, target: GroupStore, *, at_us: int) -> VerifyReport:
    """Copy every row.

    Raises:
        RunHeld: a run is going on. UsageProblem: the target is not empty. StoreCorrupt: the original is damaged.
        StoreError: either cannot be used. Nothing was copied then.
    """

    def reading(old: Tx) -> VerifyReport:
        held = [run for run in _column(_sql(old), "fence", "run") if old.fences.live(run, at_us)]
        if held:
            raise RunHeld(
                f"run `{held[0][:7]}` is going on; wait for it, or `midwatch cancel {held[0][:7]}`, then copy"
            )
        before = old.ledger.verify()
        if not before.ok:
            raise StoreCorrupt(f"the original is damaged, so it is not copied: {before.problems[0]}")
        return target.write(lambda new: _write(_sql(old), new, before), durable=True)

    return source.read(reading)


def _write(old: Connection, tx: Tx, before: VerifyReport) -> VerifyReport:
    from midwatch.store.tables import METADATA  # noqa: PLC0415 - SQLAlchemy loads only where tables are made or copied

    new = _sql(tx)
    for table in METADATA.sorted_tables:
        if new.execute(f"SELECT 1 FROM {table.name} LIMIT 1").fetchone() is not None:  # noqa: S608 - our own words
            raise UsageProblem("the store to copy to holds records already; name an empty database or schema")
        names = ", ".join(f'"{column.name}"' for column in table.columns)
        marks = ", ".join("?" * len(table.columns))
        rows = old.stream(f"SELECT {names} FROM {table.name}")  # noqa: S608 - as above
        while part := list(islice(rows, _ROWS)):
            new.executemany(f"INSERT INTO {table.name} ({names}) VALUES ({marks})", part)  # noqa: S608 - as above
    new.number_on("checkpoint_item", "id")
    after = tx.ledger.verify(expected_head=before.head)
    if not after.ok or (after.events, after.head) != (before.events, before.head):
        raise StoreCorrupt("the copy is not what was copied, so nothing of it is kept; try again")
    return after


def _column(sql: Connection, table: str, name: str) -> list[str]:
    return [row[0] for row in sql.execute(f"SELECT {name} FROM {table}").fetchall()]  # noqa: S608 - our own words


def _sql(tx: Tx) -> Connection:
    return cast("SqlTx", tx).sql
