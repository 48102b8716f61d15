"""Alembic's entry for its own command line; homes are migrated by `midwatch.store.migrate`, when they are opened."""

raise SystemExit("a home migrates itself when it is opened; run any `midwatch` command on it")
