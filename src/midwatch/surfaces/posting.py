"""Posting: one bounded HTTP POST to a channel.

In:   an address, a body, headers. Out: the status; `OSError` when nothing answered in time.
May import: httpx. Must not know: what is posted.
Why no redirects: the fleet names where a question goes; an answer from there may not send it elsewhere.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

__all__ = ["post"]

_SECONDS: Final = 10.0


def post(url: str, body: bytes, headers: Mapping[str, str]) -> int:
    """Post and give the status."""
    import httpx  # noqa: PLC0415 - only where something is sent

    try:
        with httpx.Client(timeout=_SECONDS, follow_redirects=False, trust_env=False) as client:
            return client.post(url, content=body, headers=dict(headers)).status_code
    except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:
        raise OSError(type(error).__name__) from error
