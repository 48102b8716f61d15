"""Engine: one proposal past every guard, the effect journal, runs and their segments.

May import: everything but wiring and surfaces. The guards do not know each other; only this room asks them in turn.
"""
