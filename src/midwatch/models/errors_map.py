"""Errors map: whatever a client library raises, as one `ModelFailure`: its code, what to do, what it may have cost.

In:   the exception, and what may be said about the route. Out: a `ModelFailure`; it never quotes a key.
May import: errors. Must not know: which library it was; classes are known by name, so that none is imported for this.
Why `dispatched` is decided here: only a connection that was never made, and a status that says *refused before any
work*, prove that nothing can have been charged. All else counts as charged. HTTP 400 and 408 do: a filter or a limit
may have met after the model had worked.
Source: Microsoft Learn, "Plan and manage costs for Azure OpenAI" (calls that fail with 400 or 408 can be charged).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import Any, Final

from midwatch.errors import ModelFailure

__all__ = ["Told", "failure_of", "retry_after_us"]

_NOT_SENT: Final = frozenset({"ConnectError", "ConnectTimeout", "PoolTimeout", "UnsupportedProtocol", "InvalidURL"})
_FREE_STATUS: Final = frozenset({401, 402, 403, 404, 405, 411, 413, 415, 429})
_SECOND: Final = 1_000_000
_LONGEST_WAIT_US: Final = 86_400 * _SECOND
_LONGEST_TEXT: Final = 300


@dataclass(frozen=True, slots=True)
class Told:
    """What a failure may say about its route.

    Attributes:
        route: alias. model: as the route names it. key_env: name of the key's variable, or None.
        secrets: texts that must not appear in any message.
    """

    route: str
    model: str
    key_env: str | None
    secrets: tuple[str, ...] = ()

    def __repr__(self) -> str:
        """Leave the secrets out."""
        return f"Told(route={self.route!r}, model={self.model!r}, key_env={self.key_env!r})"


def failure_of(error: BaseException, told: Told, *, now_us: int) -> ModelFailure:
    """Turn what a client raised while it was asked into what the engine can act on.

    Args:
        now_us: microseconds UTC, for a `Retry-After` that is a date.
    """
    chain = [type(one).__name__ for one in _causes(error)]
    names = {cls.__name__ for one in _causes(error) for cls in type(one).__mro__}
    status = getattr(error, "status_code", None)
    if isinstance(status, int):
        return _of_status(error, status, told, now_us)
    sent = not _NOT_SENT & names
    about = f"the provider of route `{told.route}`"
    if names & {"APITimeoutError", "TimeoutException", "TimeoutError"}:
        return ModelFailure("timeout", f"{about} did not answer in time", retryable=True, dispatched=sent)
    if names & {"APIConnectionError", "TransportError", "OSError"}:
        if not sent:
            message = f"{about} cannot be reached; check that the server runs and its `base_url`"
            return ModelFailure("upstream", message, retryable=True, dispatched=False)
        return ModelFailure("cut", f"{about} broke the connection ({chain[-1]})", retryable=True, dispatched=True)
    if "APIError" in names:
        return ModelFailure("upstream", f"{about} failed: {_said(error, told)}", retryable=True, dispatched=True)
    return ModelFailure("malformed", f"{about} sent what is no answer ({chain[0]})", retryable=True, dispatched=True)


def _of_status(error: BaseException, status: int, told: Told, now_us: int) -> ModelFailure:
    said, about = _said(error, told), f"the provider of route `{told.route}`"
    free = status in _FREE_STATUS or status < 400
    wait = retry_after_us(_headers(error), now_us=now_us)
    if status in (401, 402, 403):
        # What the provider says here may quote a part of the key.
        key = f"the key in `{told.key_env}`" if told.key_env else "a call without a key; name one in `api_key_env`"
        return ModelFailure("auth", f"{about} refused {key} ({status})", retryable=False, dispatched=False)
    if status == 429:
        spent = "insufficient_quota" in said or getattr(error, "code", None) == "insufficient_quota"
        message = f"{about} limits the rate of calls (429): {said}"
        return ModelFailure("rate_limited", message, retryable=not spent, dispatched=False, retry_after_us=wait)
    if status == 404:
        message = f"{about} does not know model `{told.model}` (404): {said}"
        return ModelFailure("bad_request", message, retryable=False, dispatched=False)
    if status == 408:
        message = f"{about} gave up (408)"
        return ModelFailure("timeout", message, retryable=True, dispatched=True, retry_after_us=wait)
    if status >= 500 or status == 409:
        message = f"{about} failed ({status}): {said}"
        return ModelFailure("upstream", message, retryable=True, dispatched=True, retry_after_us=wait)
    message = f"{about} refused the request ({status}): {said}"
    return ModelFailure("bad_request", message, retryable=False, dispatched=not free)


def retry_after_us(headers: Mapping[str, str], *, now_us: int) -> int | None:
    """Read the provider's wish: `retry-after-ms`, or `retry-after` in seconds or as a date; None when there is none.

    Source: RFC 9110, section 10.2.3.
    """
    exact, plain = headers.get("retry-after-ms", ""), headers.get("retry-after", "").strip()
    if re.fullmatch(r"\d{1,9}", exact):
        return min(int(exact) * 1000, _LONGEST_WAIT_US)
    if re.fullmatch(r"\d{1,9}(\.\d{1,6})?", plain):
        whole, _, part = plain.partition(".")
        return min(int(whole) * _SECOND + int(part.ljust(6, "0")), _LONGEST_WAIT_US)
    try:
        date = parsedate_to_datetime(plain)
    except (ValueError, TypeError):
        return None
    at_us = int(date.replace(tzinfo=date.tzinfo or UTC).timestamp()) * _SECOND
    return min(max(0, at_us - now_us), _LONGEST_WAIT_US)


def _causes(error: BaseException) -> Iterator[BaseException]:
    seen: BaseException | None = error
    for _ in range(16):
        if seen is None:
            return
        yield seen
        seen = seen.__cause__ or seen.__context__


def _headers(error: BaseException) -> Mapping[str, str]:
    headers = getattr(getattr(error, "response", None), "headers", None)
    return {str(key).lower(): str(value) for key, value in headers.items()} if headers is not None else {}


def _said(error: BaseException, told: Told) -> str:
    """Give the provider's own words: one line, clipped, without a key."""
    body: Any = getattr(error, "body", None)
    inner = body.get("error", body) if isinstance(body, Mapping) else body
    text = inner.get("message") if isinstance(inner, Mapping) else inner
    said = text if isinstance(text, str) and text else getattr(error, "message", None) or type(error).__name__
    for secret in told.secrets:
        said = str(said).replace(secret, "***")
    line = " ".join("".join(sign if sign.isprintable() else " " for sign in str(said)).split())
    return line if len(line) <= _LONGEST_TEXT else line[:_LONGEST_TEXT] + "…"
