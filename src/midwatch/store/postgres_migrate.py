"""Postgres, migrate: takes an older store to this version's tables, whole or not at all.

In:   a way to connect, the write lock. Out: the same store at the newest revision.
May import: SQLAlchemy, Alembic, store.postgres_wire, store.tables, errors. Must not know: the nouns, who opens the store.

As in `store.migrate`, DDL is transactional: a kill at any moment leaves the old store or the new one, and whoever opens it meanwhile
waits for the lock. There is no copy: `pg_dump` before an update is the operator's.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Final

import sqlalchemy as sa
from alembic.migration import MigrationContext
from alembic.operations import Operations
from alembic.script import ScriptDirectory

from midwatch.errors import StoreError
from midwatch.store.postgres_wire import PostgresConnection
from midwatch.store.tables import PostgresTypes

__all__ = ["migrate"]

_SCRIPTS: Final = Path(__file__).parent / "migrations"


def migrate(connect: Callable[[], PostgresConnection], lock: tuple[int, int], *, known: int, target: int) -> None:
    """Take the store from revision `known` to `target`; does nothing when somebody else has done it meanwhile.

    Raises:
        StoreError: it stays as it was; its message says what to do.
    """
    sql = connect()
    try:
        _upgrade(sql, lock, known=known, target=target)
    except StoreError:
        raise
    except Exception as error:
        raise StoreError(
            f"the store `{sql.name}` could not be taken to this version and is as it was: {type(error).__name__}; "
            "look into the server's log, or go back to the version before"
        ) from error
    finally:
        sql.close()


def _upgrade(sql: PostgresConnection, lock: tuple[int, int], *, known: int, target: int) -> None:
    revisions = {int(item.revision): item for item in ScriptDirectory(str(_SCRIPTS)).walk_revisions()}
    engine = sa.create_engine(
        "postgresql+psycopg://", creator=lambda: sql.raw, poolclass=sa.pool.StaticPool, isolation_level="AUTOCOMMIT"
    )
    engine.dialect.type_compiler_instance = PostgresTypes(engine.dialect)
    with engine.connect() as connection:
        sql.begin_write(lock, durable=True)
        try:
            if sql.execute("SELECT revision FROM midwatch_store").fetchone()[0] == known:
                with Operations.context(MigrationContext.configure(connection)):
                    for number in range(known + 1, target + 1):
                        revisions[number].module.upgrade()
                sql.execute("UPDATE midwatch_store SET revision = ?", (target,))
            sql.commit()
        except BaseException:
            sql.rollback()
            raise
