"""Outcome: what a tool's code came to, as a value; nothing a tool raises goes further than here.

In:   a JSON value, or whatever a tool raised.
Out:  `Outcome`: a value, or an error in words for the agent, with a private detail for the trace.
May import: records, errors. Must not know: where the tool ran, envelopes.
Why two texts: an exception may quote a password. The agent reads a constant sentence, the trace keeps the rest.
"""

from __future__ import annotations

import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from midwatch.errors import ToolFailure
from midwatch.records.envelope import Code, ErrorBody
from midwatch.records.fields import FieldError

__all__ = ["AUTHOR_CODES", "MAX_DETAIL", "BadOutput", "Outcome", "clipped", "from_exception", "from_wire"]

AUTHOR_CODES: Final[frozenset[str]] = frozenset(
    {
        "invalid_arguments", "not_found", "conflict", "denied", "timeout", "rate_limited", "upstream", "unavailable",
        "internal",
    }
)  # fmt: skip
"""What a tool's author may answer with. The other codes are the kernel's word about the run; no tool speaks for it."""

MAX_DETAIL: Final = 16_384
_MAX_MESSAGE: Final = 2_000
_MAX_HINT: Final = 1_000
_CONSTANT: Final[Mapping[Code, tuple[str, str | None]]] = {
    "internal": ("the tool failed; what happened is in the trace", None),
    "timeout": ("the tool did not end in time", "ask for less at once, or try again later"),
    "contract": ("the tool's result broke its own contract; it is in the trace", None),
    "crashed": ("the tool's process ended without an answer; what happened is in the trace", None),
}


class BadOutput(Exception):
    """The result does not fit the declared type. `perform` turns it into `contract`; the text is for the trace only."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of it.

    Attributes:
        value: plain JSON data; counts only when `error` is None.
        error: in words for the agent.
        detail: for the trace only; may quote anything.
    """

    value: Any = None
    error: ErrorBody | None = None
    detail: str | None = None

    @staticmethod
    def failed(code: Code, detail: str | None = None) -> Outcome:
        """Make the constant answer of a code that an agent gets no details of."""
        message, hint = _CONSTANT[code]
        return Outcome(error=ErrorBody(code, message, retryable=code == "timeout", hint=hint), detail=clipped(detail))

    def to_wire(self) -> dict[str, Any]:
        """Give the JSON object that a worker answers with."""
        error = None if self.error is None else self.error.to_json()
        return {"value": self.value, "error": error, "detail": self.detail}


def clipped(detail: str | None) -> str | None:
    """Keep the end of a long text, where a traceback says what went wrong; only what UTF-8 can carry."""
    return None if detail is None else _utf8(detail[-MAX_DETAIL:])


def from_exception(raised: BaseException) -> Outcome:
    """Translate what a tool raised. `ToolFailure` keeps its author's words, everything else becomes constant text."""
    detail = "".join(traceback.format_exception(raised))
    if isinstance(raised, ToolFailure):
        return _told(raised, detail)
    if isinstance(raised, TimeoutError):
        return Outcome.failed("timeout", detail)
    if isinstance(raised, BadOutput):
        return Outcome.failed("contract", detail)
    if isinstance(raised, MemoryError):
        return Outcome.failed("crashed", detail)
    return Outcome.failed("internal", detail)


def _told(failure: ToolFailure, detail: str) -> Outcome:
    if failure.code not in AUTHOR_CODES or not isinstance(failure.message, str):
        return Outcome.failed("internal", detail)
    after = failure.retry_after_us
    error = ErrorBody(
        code=failure.code,  # type: ignore[arg-type]  # just checked against the closed list
        message=_utf8(failure.message[:_MAX_MESSAGE]),
        retryable=failure.retryable is True,
        retry_after=-(-after // 1_000_000) if isinstance(after, int) and after >= 0 else None,
        hint=_utf8(failure.hint[:_MAX_HINT]) if isinstance(failure.hint, str) else None,
    )
    return Outcome(error=error, detail=clipped(detail))


def from_wire(body: Any) -> Outcome:
    """Read what a worker answered; the worker is not believed, so every part is checked.

    Raises:
        BadOutput: it is no such answer.
    """
    if not isinstance(body, dict) or set(body) != {"value", "error", "detail"}:
        raise BadOutput("the worker's answer is no outcome")
    error, detail = body["error"], body["detail"]
    if detail is not None and not isinstance(detail, str):
        raise BadOutput("the worker's detail is no text")
    if error is None:
        return Outcome(value=body["value"], detail=clipped(detail))
    if not isinstance(error, dict) or not isinstance(error.get("code"), str):
        raise BadOutput("the worker's error has no code")
    if error["code"] in {"contract", "crashed"}:
        return Outcome.failed(error["code"], detail)
    after = error.get("retry_after")
    if error["code"] == "invalid_arguments" and error.get("field_errors"):
        told = _field_errors(error["field_errors"])
        return Outcome(
            error=ErrorBody("invalid_arguments", "the arguments do not fit", field_errors=told), detail=detail
        )
    failure = ToolFailure(
        error["code"],
        error.get("message", ""),
        retryable=error.get("retryable") is True,
        retry_after_us=after * 1_000_000 if isinstance(after, int) and not isinstance(after, bool) else None,
        hint=error.get("hint"),
    )
    return _told(failure, detail or "")


def _field_errors(items: Any) -> tuple[FieldError, ...]:
    try:
        found = [FieldError(item["path"], item["rule"], item["message"]) for item in items[:20]]
    except (TypeError, KeyError) as wrong:
        raise BadOutput("the worker's field errors are none") from wrong
    if not all(isinstance(text, str) for error in found for text in (error.path, error.rule, error.message)):
        raise BadOutput("the worker's field errors are no texts")
    return tuple(found)


def _utf8(text: str) -> str:
    return text.encode("utf-8", "replace").decode()
