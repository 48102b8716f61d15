"""Builtin tools, by group: `builtin.host`, `builtin.git`, `builtin.files`. Each returns what was asked, never a dump."""
