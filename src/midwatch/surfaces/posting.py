"""Posting: one bounded HTTP POST to a channel.

In:   an address, a body, headers. Out: the status; `OSError` when nothing answered in time.
May import: httpx. Must not know: what is posted.
Why no redirects: the fleet names where a question goes; an answer from there may not send it elsewhere.
Why a time-out over all of it, and no look at the answer's body: a channel that drips bytes, or never ends, holds nobody up.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Final

__all__ = ["post"]

_SECONDS: Final = 10.0


def post(url: str, body: bytes, headers: Mapping[str, str], *, within_s: float = _SECONDS) -> int:
    """Post and give the status."""
    import httpx  # noqa: PLC0415 - only where something is sent

    async def send() -> int:
        async with (
            asyncio.timeout(within_s),
            httpx.AsyncClient(timeout=within_s, follow_redirects=False, trust_env=False) as client,
            client.stream("POST", url, content=body, headers=dict(headers)) as response,
        ):
            return response.status_code

    try:
        return asyncio.run(send())
    except (httpx.HTTPError, httpx.InvalidURL, ValueError, ArithmeticError, ExceptionGroup) as error:
        raise OSError(type(error).__name__) from error
