"""Bounds and authority: what breakers, the governor, mandates and pending authority keep.

Revision ID: 4
"""

import sqlalchemy as sa
from alembic import op

revision = "4"
down_revision = "3"


def upgrade() -> None:
    """Add the tables; they begin empty."""
    op.create_table(
        "baseline",
        sa.Column("subject", sa.Text, nullable=False),
        sa.Column("part", sa.Text, nullable=False),
        sa.Column("body", sa.LargeBinary, nullable=False),
        sa.Column("at_us", sa.Integer, nullable=False),
        sa.PrimaryKeyConstraint("subject", "part"),
    )
    op.create_table(
        "throttle",
        sa.Column("subject", sa.Text, nullable=False),
        sa.Column("gap_us", sa.Integer, nullable=False),
        sa.Column("until_us", sa.Integer, nullable=False),
        sa.Column("next_us", sa.Integer, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("subject"),
    )
    op.create_table(
        "budget_order",
        sa.Column("scope", sa.Text, nullable=False),
        sa.Column("unit", sa.Text, nullable=False),
        sa.Column("file", sa.Integer, nullable=True),
        sa.Column("cap", sa.Integer, nullable=True),
        sa.Column("added", sa.Integer, nullable=False),
        sa.PrimaryKeyConstraint("scope", "unit"),
    )
    op.create_table(
        "budget_begun",
        sa.Column("scope", sa.Text, nullable=False),
        sa.Column("at_us", sa.Integer, nullable=False),
        sa.PrimaryKeyConstraint("scope"),
    )
    _authority()
    op.create_table(
        "breaker",
        sa.Column("subject", sa.Text, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        *(
            sa.Column(name, sa.Integer, nullable=False)
            for name in ("errors", "slow", "trips", "changed_us", "until_us")
        ),
        *(sa.Column(name, sa.Text, nullable=False) for name in ("probe", "probe_run", "reason")),
        sa.PrimaryKeyConstraint("subject"),
    )
    op.create_table(
        "breaker_trail",
        *(sa.Column(name, sa.Text, nullable=False) for name in ("run", "part")),
        sa.Column("body", sa.LargeBinary, nullable=False),
        sa.PrimaryKeyConstraint("run", "part"),
    )
    op.create_table(
        "flag",
        *(sa.Column(name, sa.Text, nullable=False) for name in ("scope", "fleet", "kind", "reason", "by")),
        sa.Column("at_us", sa.Integer, nullable=False),
        sa.PrimaryKeyConstraint("scope", "fleet"),
    )
    _lease()


def _lease() -> None:
    op.create_table(
        "lease",
        *(sa.Column(name, sa.Text, nullable=False) for name in ("resource", "effect", "run", "agent", "tool")),
        *(sa.Column(name, sa.Integer, nullable=False) for name in ("epoch", "taken_us", "until_us")),
        sa.PrimaryKeyConstraint("resource", "effect"),
    )
    op.create_index("lease_effect", "lease", ["effect"])


def _authority() -> None:
    op.create_table(
        "authority",
        sa.Column("id", sa.Text, primary_key=True, nullable=False),
        *(sa.Column(name, sa.Text, nullable=False) for name in ("place", "fleet", "kind", "name")),
        sa.Column("number", sa.Integer, nullable=False),
        sa.Column("digest", sa.Text, nullable=False),
        sa.Column("predecessor", sa.Text, nullable=True),
        sa.Column("state", sa.Text, nullable=False),
        *(sa.Column(name, sa.Text, nullable=True) for name in ("body", "source")),
        *(sa.Column(name, sa.Text, nullable=False) for name in ("label", "why", "asked_by", "by")),
        *(sa.Column(name, sa.Integer, nullable=False) for name in ("at_us", "seq", "seen_seq")),
        sa.Column("answered_by", sa.Text, nullable=True),
        *(sa.Column(name, sa.Integer, nullable=True) for name in ("answered_us", "answered_seq")),
    )
    op.create_index("authority_version", "authority", ["place", "kind", "name", "number"], unique=True)
    op.create_index("authority_state", "authority", ["state", "at_us"])
