"""Finishing: what must not stop half-way, whoever cancels meanwhile.

In:   a coroutine. Out: its result; the cancellation afterwards.
May import: the standard library only. Must not know: what is finished.
Why not a shielded scope: that holds off cancellations of its own library, and LangGraph's tasks are cancelled by the loop's own.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

__all__ = ["to_the_end"]

T = TypeVar("T")


async def to_the_end(work: Coroutine[Any, Any, T]) -> T:
    """Await all of it, such as giving back a sandbox; a cancellation that comes meanwhile is raised after it."""
    task, cancelled = asyncio.ensure_future(work), False
    while not task.done():
        try:
            await asyncio.wait({task})
        except asyncio.CancelledError:
            cancelled = True
    if cancelled and (task.cancelled() or task.exception() is None):
        raise asyncio.CancelledError
    return task.result()
