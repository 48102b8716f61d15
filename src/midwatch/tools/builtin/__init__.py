"""Builtin tools, by group: `builtin.files`, `builtin.git`, `builtin.host`, `builtin.shell`.

In:   small typed arguments. Out: what was asked, never a dump; what this machine does not have, under `missing`.
May import: the decorator, the markers, errors; the standard library and pydantic. Must not know: who asks.
"""
