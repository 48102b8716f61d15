"""Tracing: questions about what happened, answered from the ledger alone.

May import: store (port), records, errors. Must not know: who asks, how it is shown, anything that acts.
"""
