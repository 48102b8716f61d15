"""Bounds and authority: what breakers, the governor, mandates and pending authority keep.

Revision ID: 4
"""

revision = "4"
down_revision = "3"


def upgrade() -> None:
    """Add the tables; they begin empty."""
