"""Arguments: what a model wrote becomes checked arguments, or an envelope that says what is wrong with them.

In:   a tool, and the raw text of a call, or a mapping where the kernel itself calls.
Out:  `Checked`, or an `Envelope` with code `invalid_arguments`. Nothing is executed.
May import: `decorate`, recovery, records. Must not know: who calls, grants, how the tool is performed.
Why canonical bytes: an approval, the journal and the tool itself must mean the same arguments, to the byte. So the tool
is given what is digested, not what was written. Source: RFC 8785 (canonical JSON).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import rfc8785

from midwatch.records.envelope import Envelope, ErrorBody
from midwatch.records.fields import FieldError
from midwatch.recovery.recover import LIMIT_BYTES, Clean, Recovered, recover
from midwatch.recovery.strict import NotStrict, loads_strict
from midwatch.tools.decorate import Tool
from midwatch.tools.shape import KERNEL_ARGUMENTS

__all__ = ["MAX_ARGUMENT_BYTES", "Checked", "check"]

MAX_ARGUMENT_BYTES: Final = 1 << 20
"""Of one call's arguments as written. Prose is recovered from `LIMIT_BYTES` at most."""

_REASONS: Final[Mapping[str, str]] = {
    "duplicate_keys": "an object names one key twice, so that it could be read in two ways",
    "not_finite": "NaN and infinities are no JSON numbers",
    "surrogate": "a text holds half of a character",
    "too_deep": "the value nests too deep",
    "too_big": "a number has too many digits",
    "too_long": "the text is too long",
    "too_complex": "the text holds too many broken values",
    "truncated": "the text was cut off before its end",
    "ambiguous": "the text holds more than one value that would fit",
    "empty": "there is nothing",
    "no_candidate": "there is no JSON object",
}


@dataclass(frozen=True, slots=True)
class Checked:
    """Arguments that fit.

    Attributes:
        arguments: the tool's own, without the kernel's; empty when `cursor` is set.
        canonical: RFC 8785 bytes of `arguments`, or of the cursor call.
        args_digest: SHA-256 hex of `canonical`.
        fields: dotted paths of the result to show; empty for all.
        cursor: where to read on in an earlier result, or None.
        signal: recovery rule that found the arguments in prose, or None when they were plain JSON.
    """

    arguments: Mapping[str, Any]
    canonical: bytes
    args_digest: str
    fields: tuple[str, ...] = ()
    cursor: str | None = None
    signal: str | None = None


def check(tool: Tool[..., Any], raw: str | Mapping[str, Any], *, truncated: bool = False) -> Checked | Envelope:
    """Check one call's arguments.

    Args:
        raw: JSON text as a model wrote it (empty means no arguments), or a mapping.
        truncated: the model was cut at its length limit; nothing is then recovered.

    Returns:
        An envelope that quotes no value when they do not fit.
    """
    found = _value(tool, raw, truncated=truncated)
    if isinstance(found, Envelope):
        return found
    value, signal = found
    own = {key: item for key, item in value.items() if key not in KERNEL_ARGUMENTS}
    cursor = value.get("cursor")
    digested = own if cursor is None else {"cursor": cursor}
    try:
        canonical = rfc8785.dumps(digested)
    except (rfc8785.CanonicalizationError, RecursionError):
        error = FieldError("", "number", "has a number beyond 2**53, which JSON readers do not agree on")
        return _refused(tool, "the arguments do not fit", (error,))
    return Checked(
        arguments=own if cursor is None else {},
        canonical=canonical,
        args_digest=hashlib.sha256(canonical).hexdigest(),
        fields=tuple(value.get("fields", ())),
        cursor=cursor,
        signal=signal,
    )


def _value(
    tool: Tool[..., Any], raw: str | Mapping[str, Any], *, truncated: bool
) -> tuple[dict[str, Any], str | None] | Envelope:
    """Give the decoded arguments and the recovery rule that found them."""
    text = raw if isinstance(raw, str) else _text(raw)
    if text is None:
        return _refused(tool, "the arguments are no JSON object")
    if len(text) > MAX_ARGUMENT_BYTES or len(text.encode("utf-8", "surrogatepass")) > MAX_ARGUMENT_BYTES:
        return _refused(tool, f"the arguments are longer than {MAX_ARGUMENT_BYTES:,} bytes")
    if not text.strip() and not truncated:
        text = "{}"
    try:
        value = loads_strict(text)
    except NotStrict as wrong:
        return _recovered(tool, text, wrong.code, truncated=truncated)
    if isinstance(value, str) and value.strip():
        return _recovered(tool, text, "syntax", truncated=truncated)
    return _fitting(tool, value, None)


def _text(raw: Mapping[str, Any]) -> str | None:
    # A mapping goes through the same strict reader as a text, so that both kinds of caller meet the same rules.
    try:
        return json.dumps(dict(raw), ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError, RecursionError):
        return None


def _fitting(tool: Tool[..., Any], value: Any, signal: str | None) -> tuple[dict[str, Any], str | None] | Envelope:
    pages = isinstance(value, dict) and "cursor" in value
    errors = (tool.continues if pages else tool.accepts).errors(value)
    if errors:
        return _refused(tool, "the arguments do not fit", errors)
    return dict(value), signal


def _recovered(
    tool: Tool[..., Any], text: str, code: str, *, truncated: bool
) -> tuple[dict[str, Any], str | None] | Envelope:
    """Look for the arguments in prose; text that is strict but for one rule keeps that rule as its reason."""
    found = recover(text, tool.accepts, truncated=truncated, limit=LIMIT_BYTES)
    if isinstance(found, Clean):
        return _fitting(tool, found.value, None)
    if isinstance(found, Recovered):
        return _fitting(tool, found.value, found.rule)
    if found.code == "schema":
        return _refused(tool, "the arguments do not fit", found.field_errors)
    reason = _REASONS.get(found.code, _REASONS.get(code, "they are no JSON object"))
    return _refused(tool, f"the arguments cannot be used: {reason}", (FieldError("", found.code, reason),))


def _refused(tool: Tool[..., Any], message: str, errors: tuple[FieldError, ...] = ()) -> Envelope:
    error = ErrorBody(
        "invalid_arguments", message, field_errors=errors, hint="write one JSON object that fits the tool's schema"
    )
    return Envelope(ok=False, error=error, meta={"tool": tool.contract.name, "effect": tool.contract.effect, "ms": 0})
