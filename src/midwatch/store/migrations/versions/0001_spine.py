"""The first tables. A home begins at this revision or later, so there is nothing to do.

Revision ID: 1
"""

revision = "1"
down_revision = None


def upgrade() -> None:
    """Nothing: no home is older."""
