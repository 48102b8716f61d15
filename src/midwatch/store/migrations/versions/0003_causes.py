"""Causes: what led to what, as an index over the ledger; versions of files; marks of quarantine.

Revision ID: 3
"""

from typing import Any

import sqlalchemy as sa
from alembic import op

from midwatch.store.causes import rebuild
from midwatch.store.connection import Connection
from midwatch.store.ledger import SqlBlobs

revision = "3"
down_revision = "2"


def _text(name: str, *, null: bool = False) -> sa.Column[object]:
    return sa.Column(name, sa.Text, nullable=null)


def _whole(name: str, *, null: bool = False) -> sa.Column[object]:
    return sa.Column(name, sa.Integer, nullable=null)


def upgrade() -> None:
    """Add the tables, and fill them from the events that are there."""
    op.add_column("event", sa.Column("follows", sa.Integer, nullable=False, server_default=sa.text("0")))
    op.create_table(
        "cause",
        _whole("from_seq"),
        _whole("to_seq"),
        _text("kind"),
        _text("note", null=True),
        sa.PrimaryKeyConstraint("from_seq", "to_seq", "kind"),
        sqlite_with_rowid=False,
    )
    other = sa.text("kind <> 'cause'")
    op.create_index("cause_to", "cause", ["to_seq"], sqlite_where=other, postgresql_where=other)
    op.create_table(
        "file_version",
        _text("run"),
        _text("path"),
        _whole("seq"),
        _text("workspace"),
        sa.Column("sha256", sa.LargeBinary, nullable=True),
        _whole("committed", null=True),
    )
    op.create_index("file_version_run", "file_version", ["run", "path", "seq"], unique=True)
    op.create_index("file_version_place", "file_version", ["workspace", "path", "committed"])
    op.create_index("file_version_seq", "file_version", ["seq"])
    op.create_table(
        "quarantine",
        _whole("seq"),
        _whole("by_seq"),
        sa.PrimaryKeyConstraint("seq", "by_seq"),
        sqlite_with_rowid=False,
    )
    op.create_index("quarantine_by", "quarantine", ["by_seq"])
    bind = op.get_bind()
    raw: Any = bind.connection.dbapi_connection
    connection = Connection(raw, "")
    if bind.dialect.name == "postgresql":
        from midwatch.store.postgres_wire import PostgresConnection  # noqa: PLC0415 - psycopg is an extra

        connection = PostgresConnection(raw, "")
    rebuild(connection, SqlBlobs(connection))
