"""Tables: the schema of a home, once, in SQLAlchemy Core; each dialect's DDL is compiled from it.

In:   nothing. Out: `METADATA`, `REVISION`, `ddl()`, `PostgresTypes`.
May import: store.checkpoints. Must not know: connections.
"""

from __future__ import annotations

from typing import Final

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.dialects.postgresql.base import PGTypeCompiler
from sqlalchemy.schema import CreateIndex, CreateTable

from midwatch.store.checkpoints import checkpoint_tables

__all__ = ["METADATA", "ddl"]

METADATA: Final = sa.MetaData()
_OTHER: Final = sa.text("kind <> 'cause'")


def _table(name: str, *columns: sa.Column[object] | sa.Index, rowid: bool = True) -> None:
    sa.Table(name, METADATA, *columns, sqlite_with_rowid=rowid)


def _text(name: str, *, key: bool = False, null: bool = False, default: str | None = None) -> sa.Column[object]:
    fixed = None if default is None else sa.text(default)
    return sa.Column(name, sa.Text, primary_key=key, nullable=null, server_default=fixed)


def _whole(name: str, *, key: bool = False, null: bool = False, default: str | None = None) -> sa.Column[object]:
    fixed = None if default is None else sa.text(default)
    return sa.Column(name, sa.Integer, primary_key=key, nullable=null, autoincrement=False, server_default=fixed)


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
    _whole("follows", default="0"),
    sa.Index("event_run", "run", "seq"),
)
_table(
    "cause",
    _whole("from_seq", key=True),
    _whole("to_seq", key=True),
    _text("kind", key=True),
    _text("note", null=True),
    sa.Index("cause_to", "to_seq", sqlite_where=_OTHER, postgresql_where=_OTHER),
    rowid=False,
)
_table(
    "file_version",
    _text("run"),
    _text("path"),
    _whole("seq"),
    _text("workspace"),
    _blob("sha256", null=True),
    _whole("committed", null=True),
    sa.Index("file_version_run", "run", "path", "seq", unique=True),
    sa.Index("file_version_place", "workspace", "path", "committed"),
    sa.Index("file_version_seq", "seq"),
)
_table(
    "quarantine", _whole("seq", key=True), _whole("by_seq", key=True), sa.Index("quarantine_by", "by_seq"), rowid=False
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
    _text("asked_by", default="''"),
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
    _text("kind", default="'action'"),
    _text("action", default="''"),
    _text("arguments", default="''"),
    _text("asked_by", default="''"),
    _text("precondition", default="''"),
    _text("terms", default="''"),
    _text("edited_by", null=True),
    _text("answer", null=True),
    _whole("escalated_us", null=True),
    sa.Index("gate_status", "status", "opened_us"),
    sa.Index("gate_run", "run"),
    sa.Index("gate_expiry", "status", "expires_us"),
    sa.Index("gate_answered", "answered_us"),
)
_table(
    "gate_answer",
    _text("gate", key=True),
    _text("nonce", key=True),
    _text("by", key=True),
    _text("word"),
    _text("roles"),
    _text("reason"),
    _whole("at_us"),
    _text("channel"),
    _whole("break_glass"),
    _text("reviewed_by", null=True),
    _whole("reviewed_us", null=True),
    _text("review", null=True),
    sa.Index("gate_answer_at", "at_us"),
)
_table(
    "principal",
    _text("name", key=True),
    _text("roles"),
    _text("may"),
    _text("token_hash"),
    _whole("created_us"),
    _text("created_by"),
    _whole("disabled_us", null=True),
    sa.Index("principal_token", "token_hash", unique=True),
)
_table(
    "notice",
    _text("id", key=True),
    _text("gate"),
    _text("nonce"),
    _text("channel"),
    _text("why"),
    _whole("created_us"),
    _whole("next_us"),
    _whole("attempts"),
    _whole("sent_us", null=True),
    _text("error", null=True),
    sa.Index("notice_due", "sent_us", "next_us"),
    sa.Index("notice_gate", "gate"),
)
_table(
    "link",
    _text("id", key=True),
    _text("gate"),
    _text("nonce"),
    _text("principal"),
    _whole("expires_us"),
    _whole("used_us", null=True),
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
    "budget_order",
    _text("scope", key=True),
    _text("unit", key=True),
    _whole("file", null=True),
    _whole("cap", null=True),
    _whole("added"),
)
_table("budget_begun", _text("scope", key=True), _whole("at_us"))
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
_table("baseline", _text("subject", key=True), _text("part", key=True), _blob("body"), _whole("at_us"))
_table(
    "throttle",
    _text("subject", key=True),
    _whole("gap_us"),
    _whole("until_us"),
    _whole("next_us"),
    _text("reason"),
)
_table(
    "breaker",
    _text("subject", key=True),
    _text("state"),
    _whole("errors"),
    _whole("slow"),
    _whole("trips"),
    _whole("changed_us"),
    _whole("until_us"),
    _text("probe"),
    _text("probe_run"),
    _text("reason"),
)
_table("breaker_trail", _text("run", key=True), _text("part", key=True), _blob("body"))
_table(
    "flag",
    _text("scope", key=True),
    _text("fleet", key=True),
    _text("kind"),
    _text("reason"),
    _text("by"),
    _whole("at_us"),
)
_table(
    "lease",
    _text("resource", key=True),
    _text("effect", key=True),
    _text("run"),
    _text("agent"),
    _text("tool"),
    _whole("epoch"),
    _whole("taken_us"),
    _whole("until_us"),
    sa.Index("lease_effect", "effect"),
)
_table("setting", _text("key", key=True), _blob("value"))
_table(
    "authority",
    _text("id", key=True),
    _text("place"),
    _text("fleet"),
    _text("kind"),
    _text("name"),
    _whole("number"),
    _text("digest"),
    _text("predecessor", null=True),
    _text("state"),
    _text("body", null=True),
    _text("source", null=True),
    _text("label"),
    _text("why"),
    _text("asked_by"),
    _text("by"),
    _whole("at_us"),
    _whole("seq"),
    _whole("seen_seq"),
    _text("answered_by", null=True),
    _whole("answered_us", null=True),
    _whole("answered_seq", null=True),
    sa.Index("authority_version", "place", "kind", "name", "number", unique=True),
    sa.Index("authority_state", "state", "at_us"),
)
checkpoint_tables(METADATA)


class PostgresTypes(PGTypeCompiler):
    """SQLite's types in Postgres: numbers of 64 bits, text in the order of its bytes whatever the database's own order is."""

    def visit_INTEGER(self, type_: object, **_: object) -> str:  # noqa: N802 - SQLAlchemy's name
        """Amounts and microseconds are past 32 bits."""
        return "BIGINT"

    def visit_TEXT(self, type_: object, **_: object) -> str:  # noqa: N802 - as above
        """Ids are found by prefix, which is a range only in the order of bytes."""
        return 'TEXT COLLATE "C"'


def ddl(name: str = "sqlite") -> list[str]:
    """Give the statements that make an empty home, in order, for `sqlite` or `postgresql`."""
    dialect: sa.Dialect = sqlite.dialect() if name == "sqlite" else postgresql.dialect()  # type: ignore[no-untyped-call]
    if name == "postgresql":
        dialect.type_compiler_instance = PostgresTypes(dialect)
    statements: list[str] = []
    for table in METADATA.sorted_tables:
        statements.append(str(CreateTable(table).compile(dialect=dialect)))
        statements += [str(CreateIndex(index).compile(dialect=dialect)) for index in sorted(table.indexes, key=str)]
    return statements
