"""Review: gates with terms, what people said to them, principals, messages and links; who started a run.

Revision ID: 2
"""

import sqlalchemy as sa
from alembic import op

revision = "2"
down_revision = "1"


def _text(name: str, *, null: bool = False, default: str | None = None) -> sa.Column[object]:
    return sa.Column(name, sa.Text, nullable=null, server_default=None if default is None else sa.text(default))


def _whole(name: str, *, null: bool = False) -> sa.Column[object]:
    return sa.Column(name, sa.Integer, nullable=null)


def upgrade() -> None:
    """Add columns that older rows have a default for, and the new tables."""
    op.add_column("run", _text("asked_by", default="''"))
    for column in (
        _text("kind", default="'action'"),
        _text("action", default="''"),
        _text("arguments", default="''"),
        _text("asked_by", default="''"),
        _text("precondition", default="''"),
        _text("terms", default="''"),
        _text("edited_by", null=True),
        _text("answer", null=True),
        _whole("escalated_us", null=True),
    ):
        op.add_column("gate", column)
    op.create_index("gate_expiry", "gate", ["status", "expires_us"])
    op.create_index("gate_answered", "gate", ["answered_us"])
    _answers()
    _people()


def _answers() -> None:
    op.create_table(
        "gate_answer",
        _text("gate"),
        _text("nonce"),
        _text("by"),
        _text("word"),
        _text("roles"),
        _text("reason"),
        _whole("at_us"),
        _text("channel"),
        _whole("break_glass"),
        _text("reviewed_by", null=True),
        _whole("reviewed_us", null=True),
        _text("review", null=True),
        sa.PrimaryKeyConstraint("gate", "nonce", "by"),
    )
    op.create_index("gate_answer_at", "gate_answer", ["at_us"])


def _people() -> None:
    op.create_table(
        "principal",
        _text("name"),
        _text("roles"),
        _text("may"),
        _text("token_hash"),
        _whole("created_us"),
        _text("created_by"),
        _whole("disabled_us", null=True),
        sa.PrimaryKeyConstraint("name"),
    )
    op.create_index("principal_token", "principal", ["token_hash"], unique=True)
    op.create_table(
        "notice",
        _text("id"),
        _text("gate"),
        _text("nonce"),
        _text("channel"),
        _text("why"),
        _whole("created_us"),
        _whole("next_us"),
        _whole("attempts"),
        _whole("sent_us", null=True),
        _text("error", null=True),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("notice_due", "notice", ["sent_us", "next_us"])
    op.create_index("notice_gate", "notice", ["gate"])
    op.create_table(
        "link",
        _text("id"),
        _text("gate"),
        _text("nonce"),
        _text("principal"),
        _whole("expires_us"),
        _whole("used_us", null=True),
        sa.PrimaryKeyConstraint("id"),
    )
