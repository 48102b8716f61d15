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
