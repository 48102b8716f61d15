"""What the saver promises."""

from __future__ import annotations

__all__ = ["REQUIREMENTS"]

REQUIREMENTS: dict[str, str] = {
    "SAVER-1": "LangGraph's public conformance suite passes in full, with every optional capability.",
    "SAVER-2": "A growing list is stored in linear space: each item once, and each version by what it added.",
    "SAVER-3": "A list is read back as it was at every checkpoint, however it was changed: in place, shrunk, replaced, emptied.",
    "SAVER-4": "Reading a list follows at most 63 links.",
    "SAVER-5": "Whatever is pruned or deleted, survivors read as before, and nothing that no survivor needs is left.",
    "SAVER-6": "A delta channel never silently becomes empty: what it builds on is kept, or its deletion is refused.",
    "SAVER-7": "Only listed types are made from stored bytes: nothing is imported or called, and a mismatch is an error.",
    "SAVER-8": "A value that could not be read back is refused when it is written, with the name of its channel.",
    "SAVER-9": "No secret of `configurable` is stored, and a secret in state is refused.",
    "SAVER-10": "A saver of an old epoch can write nothing, and its write leaves nothing.",
    "SAVER-11": "Threads and processes may share one store, and each reads what it wrote.",
    "SAVER-12": "A checkpoint is never stored before writes of its thread that began earlier.",
    "SAVER-13": "What `on_put` writes commits with the checkpoint, or neither does.",
    "SAVER-14": "After a kill at any point between the saver's writes no finished node runs twice, and the end is the same.",
    "SAVER-15": "Damaged or missing rows of state are an error, never a shorter state.",
}
"""Id -> the promise, in one sentence."""
