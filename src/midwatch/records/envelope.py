"""The envelope: the one JSON shape that every execution answers with, errors and time-outs included.

Out: `Envelope`, immutable; `to_json()` gives the object that agents see and that the ledger stores.
Why one shape: an agent, a person and a program read the same answer, and one schema can hold all tools to it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal, get_args

from midwatch.records.fields import FieldError

__all__ = ["CODES", "ENVELOPE_SCHEMA", "Code", "Envelope", "ErrorBody"]

Code = Literal[
    "invalid_arguments",
    "unknown_tool",
    "not_found",
    "conflict",
    "denied",
    "needs_approval",
    "bound_reached",
    "halted",
    "timeout",
    "rate_limited",
    "upstream",
    "unavailable",
    "contract",
    "in_doubt",
    "crashed",
    "internal",
]
"""Why an execution failed; closed. `contract`: the tool broke its own output schema. `internal`: the text is in the trace only."""

CODES: Final[tuple[Code, ...]] = get_args(Code)


@dataclass(frozen=True, slots=True)
class ErrorBody:
    """What went wrong, in words for the agent; never a stack trace, a secret or an absolute path of the host.

    Attributes:
        retry_after: seconds, whole, or None.
        field_errors: which argument broke which rule; never quotes the value.
        hint: what to do instead.
    """

    code: Code
    message: str
    retryable: bool = False
    retry_after: int | None = None
    field_errors: tuple[FieldError, ...] = ()
    hint: str | None = None

    def to_json(self) -> dict[str, Any]:
        """Give the JSON object; every key is always present."""
        return {
            "code": self.code,
            "message": self.message,
            "retryable": self.retryable,
            "retry_after": self.retry_after,
            "field_errors": [error.to_json() for error in self.field_errors],
            "hint": self.hint,
        }


@dataclass(frozen=True, slots=True)
class Envelope:
    """The answer of one execution. Exactly one of `data` and `error` is set.

    Attributes:
        data: JSON value that fits the tool's output schema, after projection and sizing.
        refs: references the reader may cite or open: `e:<effect id>` of this execution, `b:<blob digest>` of the full body.
        truncated: `data` is less than the tool gave; `next_cursor` or `refs` lead to the rest.
        meta: `tool`, `effect` (class), `ms`, and what the tool layer adds; plain JSON.
    """

    ok: bool
    data: Any = None
    error: ErrorBody | None = None
    refs: tuple[str, ...] = ()
    truncated: bool = False
    next_cursor: str | None = None
    meta: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Give the JSON object; `data` and `error` never both."""
        body: dict[str, Any] = {"ok": self.ok}
        if self.error is None:
            body["data"] = self.data
        else:
            body["error"] = self.error.to_json()
        return body | {
            "refs": list(self.refs),
            "truncated": self.truncated,
            "next_cursor": self.next_cursor,
            "meta": dict(self.meta),
        }

    @staticmethod
    def from_json(body: Mapping[str, Any]) -> Envelope:
        """Read back what `to_json` gave, as the journal does on resume."""
        error = body.get("error")
        return Envelope(
            ok=body["ok"],
            data=body.get("data"),
            error=None
            if error is None
            else ErrorBody(
                code=error["code"],
                message=error["message"],
                retryable=error["retryable"],
                retry_after=error["retry_after"],
                field_errors=tuple(FieldError(**item) for item in error["field_errors"]),
                hint=error["hint"],
            ),
            refs=tuple(body["refs"]),
            truncated=body["truncated"],
            next_cursor=body["next_cursor"],
            meta=dict(body["meta"]),
        )


_ERROR_SCHEMA: Final[dict[str, Any]] = {
    "type": "object",
    "additionalProperties": False,
    "required": ["code", "message", "retryable", "retry_after", "field_errors", "hint"],
    "properties": {
        "code": {"enum": list(CODES)},
        "message": {"type": "string", "maxLength": 2000},
        "retryable": {"type": "boolean"},
        "retry_after": {"type": ["integer", "null"], "minimum": 0},
        "field_errors": {
            "type": "array",
            "maxItems": 50,
            "items": {
                "type": "object",
                "additionalProperties": False,
                "required": ["path", "rule", "message"],
                "properties": {key: {"type": "string"} for key in ("path", "rule", "message")},
            },
        },
        "hint": {"type": ["string", "null"], "maxLength": 1000},
    },
}

ENVELOPE_SCHEMA: Final[dict[str, Any]] = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "title": "Midwatch envelope",
    "type": "object",
    "additionalProperties": False,
    "required": ["ok", "refs", "truncated", "next_cursor", "meta"],
    "properties": {
        "ok": {"type": "boolean"},
        "data": True,
        "error": _ERROR_SCHEMA,
        "refs": {"type": "array", "items": {"type": "string", "pattern": "^[eb]:[0-9a-f]{16,64}$"}},
        "truncated": {"type": "boolean"},
        "next_cursor": {"type": ["string", "null"]},
        "meta": {"type": "object"},
    },
    "oneOf": [
        {"required": ["data"], "properties": {"ok": {"const": True}}},
        {"required": ["error"], "properties": {"ok": {"const": False}}},
    ],
}
"""Every envelope validates against this; the contract suite holds all tools to it."""
