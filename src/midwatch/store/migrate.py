"""Migrate: takes an older home to this version's tables, whole or not at all.

In:   a database of an older revision. Out: the same database at the newest revision, and a copy of what it was beside it.
May import: SQLAlchemy, Alembic, errors. Must not know: the nouns, who opens the home.

    BEGIN IMMEDIATE → is it still revision N? → copy to `midwatch.db.rN.bak` → every later revision → user_version → COMMIT

Why no version table of Alembic's: `user_version` lies in the file's header, is read without a table, and commits with the
change. Why one transaction: DDL is transactional in SQLite, so a kill at any moment leaves the old home or the new one. Whoever
opens the home meanwhile waits for the write lock and then finds the work done. Why the copy is made under the lock: it is then
exactly what the migration began with, and nobody who comes late can put a copy of the new home in its place.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from pathlib import Path
from typing import Final

import sqlalchemy as sa
from alembic.migration import MigrationContext
from alembic.operations import Operations
from alembic.script import ScriptDirectory

from midwatch.errors import StoreError
from midwatch.store.connection import translate

__all__ = ["backup_path", "migrate"]

_SCRIPTS: Final = Path(__file__).parent / "migrations"


def backup_path(database: str, revision: int) -> Path:
    """Name the copy that is kept of a home before it leaves `revision`."""
    return Path(f"{database}.r{revision}.bak")


def migrate(database: str, *, known: int, target: int, timeout_ms: int) -> None:
    """Take the database from revision `known` to `target`; does nothing when somebody else has done it meanwhile.

    Raises:
        StoreError: it stays as it was; its message says what to do.
    """
    try:
        raw = sqlite3.connect(database, timeout=timeout_ms / 1000, isolation_level=None, check_same_thread=False)
    except sqlite3.Error as error:
        raise translate(error, database) from error
    with contextlib.closing(raw):
        try:
            _upgrade(raw, database, known=known, target=target)
        except sa.exc.DBAPIError as error:
            raise _failed(error.orig or error, database) from error
        except Exception as error:
            raise _failed(error, database) from error


def _failed(error: BaseException, database: str) -> StoreError:
    """Say what went wrong; busy, full, damaged and unwritable databases have their own words."""
    if isinstance(error, StoreError):
        return error
    if isinstance(error, sqlite3.Error):
        ours = translate(error, database)
        if type(ours) is not StoreError:
            return ours
    if isinstance(error, OSError):
        why = (error.strerror or "unknown error").lower()
        return StoreError(f"the store `{database}` cannot be copied before it is migrated: {why}; free space beside it")
    return StoreError(
        f"the store `{database}` could not be taken to this version and is as it was: {error}; "
        "restore it from a backup, or choose another `--home`"
    )


def _upgrade(raw: sqlite3.Connection, database: str, *, known: int, target: int) -> None:
    revisions = {int(item.revision): item for item in ScriptDirectory(str(_SCRIPTS)).walk_revisions()}
    engine = sa.create_engine(
        "sqlite://", creator=lambda: raw, poolclass=sa.pool.StaticPool, isolation_level="AUTOCOMMIT"
    )
    with engine.connect() as connection:
        raw.execute("BEGIN IMMEDIATE")
        try:
            if raw.execute("PRAGMA user_version").fetchone()[0] == known:
                _keep(database, backup_path(database, known))
                with Operations.context(MigrationContext.configure(connection)):
                    for number in range(known + 1, target + 1):
                        revisions[number].module.upgrade()
                raw.execute(f"PRAGMA user_version={target}")
            raw.execute("COMMIT")
        except BaseException:
            if raw.in_transaction:
                raw.execute("ROLLBACK")
            raise


def _keep(database: str, place: Path) -> None:
    """Copy what is committed. An earlier copy of this revision gives way: the home has gone on since it was made."""
    draft = Path(f"{place}.tmp")
    for left in (draft, Path(f"{draft}-journal")):  # of a copy that was killed
        left.unlink(missing_ok=True)
    os.close(os.open(draft, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    try:
        with (
            contextlib.closing(sqlite3.connect(database)) as source,
            contextlib.closing(sqlite3.connect(draft)) as copy,
        ):
            source.backup(copy)
            copy.execute("PRAGMA journal_mode=DELETE")
        draft.replace(place)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise
    folder = os.open(place.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
