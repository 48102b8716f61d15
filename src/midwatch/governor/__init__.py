"""Governor: what may be spent, and the watch outside the runs.

May import: config, records, errors, store. Must not know: containment, gates, tools, the graph.
"""
