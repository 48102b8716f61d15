"""Migrate: takes an older home to this version's tables, whole or not at all.

In:   a database of an older revision. Out: the same database at the newest revision, and a copy of what it was beside it.
May import: SQLAlchemy, Alembic, errors. Must not know: the nouns, who opens the home.

    copy to `midwatch.db.rN.bak` → BEGIN IMMEDIATE → is it still revision N? → every later revision → user_version → COMMIT

Why no version table of Alembic's: `user_version` lies in the file's header, is read without a table, and commits with the
change. Why one transaction: DDL is transactional in SQLite, so a kill at any moment leaves the old home or the new one. Whoever
opens the home meanwhile waits for the write lock and then finds the work done.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from pathlib import Path
from typing import Final

from midwatch.errors import StoreError
from midwatch.store.connection import translate

__all__ = ["backup_path", "migrate"]

_SCRIPTS: Final = Path(__file__).parent / "migrations"


def backup_path(database: str, revision: int) -> Path:
    """Name the copy that is kept of a home before it leaves `revision`."""
    return Path(f"{database}.r{revision}.bak")


def migrate(database: str, *, known: int, target: int, timeout_ms: int) -> None:
    """Take the database from revision `known` to `target`.

    Raises:
        StoreError: it stays as it was; its message says what to do.
    """
    try:
        raw = sqlite3.connect(database, timeout=timeout_ms / 1000, isolation_level=None, check_same_thread=False)
    except sqlite3.Error as error:
        raise translate(error, database) from error
    with contextlib.closing(raw):
        try:
            _keep(raw, backup_path(database, known))
            _upgrade(raw, known=known, target=target)
        except sqlite3.Error as error:
            raise translate(error, database) from error
        except OSError as error:
            why = (error.strerror or "unknown error").lower()
            raise StoreError(
                f"the store `{database}` cannot be copied before it is migrated: {why}; free space beside it"
            ) from error


def _keep(raw: sqlite3.Connection, place: Path) -> None:
    """Copy the database; a copy of the same revision that is there already is left alone: it is the older state."""
    if place.exists():
        return
    draft = place.with_suffix(f".{os.getpid()}.tmp")
    os.close(os.open(draft, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o600))
    try:
        with contextlib.closing(sqlite3.connect(draft)) as copy:
            raw.backup(copy)
            copy.execute("PRAGMA journal_mode=DELETE")
        draft.rename(place)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise


def _upgrade(raw: sqlite3.Connection, *, known: int, target: int) -> None:
    import sqlalchemy as sa  # noqa: PLC0415 - loaded only where a home is migrated
    from alembic.migration import MigrationContext  # noqa: PLC0415 - as above
    from alembic.operations import Operations  # noqa: PLC0415 - as above
    from alembic.script import ScriptDirectory  # noqa: PLC0415 - as above

    revisions = {int(item.revision): item for item in ScriptDirectory(str(_SCRIPTS)).walk_revisions()}
    engine = sa.create_engine(
        "sqlite://", creator=lambda: raw, poolclass=sa.pool.StaticPool, isolation_level="AUTOCOMMIT"
    )
    with engine.connect() as connection:
        connection.exec_driver_sql("BEGIN IMMEDIATE")
        try:
            if connection.exec_driver_sql("PRAGMA user_version").scalar_one() == known:
                with Operations.context(MigrationContext.configure(connection)):
                    for number in range(known + 1, target + 1):
                        revisions[number].module.upgrade()
                connection.exec_driver_sql(f"PRAGMA user_version={target}")
            connection.exec_driver_sql("COMMIT")
        except BaseException:
            if raw.in_transaction:
                raw.execute("ROLLBACK")
            raise
