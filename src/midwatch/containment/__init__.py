"""Containment: who may bring what about; today explicit grants, and credentials kept out of what is recorded.

May import: config, records, errors. Must not know: gates, governor, the graph.
"""
