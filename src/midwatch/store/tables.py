"""Tables: the schema of a home, once, in SQLAlchemy Core; each dialect's DDL is compiled from it.

In:   nothing. Out: `METADATA`, `ddl()`.
May import: store.checkpoints. Must not know: connections.
"""

from __future__ import annotations

from typing import Final

import sqlalchemy as sa
from sqlalchemy.dialects import sqlite
from sqlalchemy.schema import CreateIndex, CreateTable

from midwatch.store.checkpoints import checkpoint_tables

__all__ = ["METADATA", "ddl"]

METADATA: Final = sa.MetaData()


def _table(name: str, *columns: sa.Column[object] | sa.Index) -> None:
    sa.Table(name, METADATA, *columns)


def _text(name: str, *, key: bool = False, null: bool = False) -> sa.Column[object]:
    return sa.Column(name, sa.Text, primary_key=key, nullable=null)


def _whole(name: str, *, key: bool = False, null: bool = False) -> sa.Column[object]:
    return sa.Column(name, sa.Integer, primary_key=key, nullable=null, autoincrement=False)


def _blob(name: str, *, null: bool = False) -> sa.Column[object]:
    return sa.Column(name, sa.LargeBinary, nullable=null)


_table(
    "event",
    _whole("seq", key=True),
    _text("kind"),
    _text("run", null=True),
    _whole("at_us"),
    _blob("body"),
    _blob("hash"),
    sa.Index("event_run", "run", "seq"),
)
_table("blob", _text("digest", key=True), _whole("codec"), _blob("body"))
_table(
    "run",
    _text("id", key=True),
    _text("fleet"),
    _text("fleet_path", null=True),
    _text("fleet_digest"),
    _text("fleet_blob"),
    _text("graph_digest"),
    _text("policy_digest"),
    _text("preset", null=True),
    _text("status"),
    _whole("created_us"),
    _text("input"),
    _whole("segment"),
    _whole("started_us", null=True),
    _whole("ended_us", null=True),
    _text("output", null=True),
    _text("error_code", null=True),
    _text("error_message", null=True),
    _whole("cost"),
    _whole("tokens"),
    _whole("tool_calls"),
    _whole("steps"),
    _whole("working_us"),
    _text("head", null=True),
    sa.Index("run_created", "created_us"),
    sa.Index("run_status", "status", "created_us"),
)
_table("halt", _text("run", key=True), _text("kind"), _text("reason"), _text("by"), _whole("at_us"))
_table(
    "transition",
    _text("run", key=True),
    _text("task", key=True),
    _whole("seq"),
    _text("ns"),
    _text("node"),
    _whole("step"),
    _text("status"),
    _whole("started_us"),
    _whole("ended_us", null=True),
    _whole("bytes_out", null=True),
    sa.Index("transition_seq", "run", "seq"),
)
_table(
    "effect",
    _text("id", key=True),
    _text("run"),
    _text("task"),
    _text("call_id"),
    _text("kind"),
    _text("tool"),
    _text("tool_digest"),
    _text("effect"),
    _text("agent"),
    _text("args_digest"),
    _text("arguments"),
    _whole("epoch"),
    _whole("attempt"),
    _text("status"),
    _whole("started_us"),
    _whole("intent_seq"),
    _text("result", null=True),
    _whole("finished_us", null=True),
    _whole("finished_seq", null=True),
    _text("resolved_by", null=True),
    sa.Index("effect_run", "run", "intent_seq"),
)
_table(
    "gate",
    _text("id", key=True),
    _text("run"),
    _text("agent"),
    _text("tool"),
    _text("digest"),
    _text("nonce"),
    _text("policy_digest"),
    _text("who"),
    _text("reason"),
    _text("card"),
    _text("status"),
    _whole("opened_us"),
    _whole("expires_us"),
    _whole("answered_us", null=True),
    _text("answered_by", null=True),
    _text("answer_reason", null=True),
    sa.Index("gate_status", "status", "opened_us"),
    sa.Index("gate_run", "run"),
)
_table(
    "budget",
    _text("scope", key=True),
    _text("unit", key=True),
    _whole("cap", null=True),
    _whole("spent"),
    _whole("held"),
)
_table(
    "reservation",
    _text("id", key=True),
    _text("run"),
    _text("state"),
    _blob("lines"),
    _whole("at_us"),
    sa.Index("reservation_run", "run", "state"),
)
_table("fence", _text("run", key=True), _whole("epoch"), _text("owner", null=True), _whole("until_us"))
_table("beat", _text("name", key=True), _whole("pid"), _whole("at_us"))
_table("setting", _text("key", key=True), _blob("value"))
checkpoint_tables(METADATA)


def ddl() -> list[str]:
    """Give the statements that make an empty home, in order (SQLite)."""
    dialect = sqlite.dialect()
    statements: list[str] = []
    for table in METADATA.sorted_tables:
        statements.append(str(CreateTable(table).compile(dialect=dialect)))
        statements += [str(CreateIndex(index).compile(dialect=dialect)) for index in sorted(table.indexes, key=str)]
    return statements
