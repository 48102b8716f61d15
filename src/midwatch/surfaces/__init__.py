"""Surfaces: where a person meets the kernel. They ask, show and decide nothing.

May import: everything. Nothing imports this room.
"""
