"""Gates: when a person must say yes, and what exactly that yes is bound to.

May import: config, records, errors, tools. Must not know: containment, governor, the graph, how a run waits.
"""
