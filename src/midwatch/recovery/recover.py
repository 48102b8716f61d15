"""Recover: the one call of this room, from text to a value that fits, or to a refusal.

In:   text, a `Validator`, and whether the model was cut at its length limit.
Out:  `Clean` (nothing was done), `Recovered` (the caller records the signal) or `Refused` (the caller asks again).
May import: the other modules of this room, records. Must not know: models, tools, the ledger.
Why in this order: what decodes strictly is the writer's own word, so it is tried before any repair, and the last value
that fits is taken, since a correction follows its draft. Repair guesses; its value is used only if no strict value
says something else. Every value passes the schema, whatever rule produced it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from midwatch.records.fields import FieldError
from midwatch.recovery.repair import repair
from midwatch.recovery.scan import Region, TooComplex, scan
from midwatch.recovery.schema import Validator
from midwatch.recovery.strict import NotStrict, loads_strict
from midwatch.recovery.tags import Tagged, readings

__all__ = ["LIMIT_BYTES", "REFUSALS", "RULES", "Clean", "Recovered", "Refused", "recover"]

LIMIT_BYTES: Final = 65_536
MAX_TRIED: Final = 8
"""How many broken regions are repaired, counted from the end."""

RULES: Final = ("unwrapped", "scan", "fenced", "tagged", "repair_fenced", "repair")
REFUSALS: Final = (
    "empty",
    "too_long",
    "too_complex",
    "too_deep",
    "too_big",
    "no_candidate",
    "duplicate_keys",
    "not_finite",
    "surrogate",
    "schema",
    "truncated",
    "ambiguous",
)
_AROUND: Final = " \t\r\n\ufeff"


@dataclass(frozen=True, slots=True)
class Clean:
    """The whole text was one strict JSON value that fits the schema."""

    value: Any


@dataclass(frozen=True, slots=True)
class Recovered:
    """A value was found in the text.

    Attributes:
        value: fits the schema.
        rule: one of `RULES`: a string that held JSON, a strict value in prose or in a fenced block, a call written as elements, a
            repaired value.
        repairs: what was repaired, in sentences that repeat nothing of the text, as far as the library names it (it is
            silent about a trailing comma); always empty for the rules that do not repair.
        dropped_bytes: UTF-8 bytes of the text that are not part of the value.
        candidates: how many places of the text were values or meant to be.
    """

    value: Any
    rule: str
    repairs: tuple[str, ...]
    dropped_bytes: int
    candidates: int


@dataclass(frozen=True, slots=True)
class Refused:
    """No value can be trusted.

    Attributes:
        code: one of `REFUSALS`.
        field_errors: with `schema`, what is wrong with the last candidate.
    """

    code: str
    field_errors: tuple[FieldError, ...] = ()


@dataclass(frozen=True, slots=True)
class _Found:
    region: Region
    value: Any
    repairs: tuple[str, ...]


def recover(
    text: str, validator: Validator, *, truncated: bool = False, limit: int = LIMIT_BYTES
) -> Recovered | Clean | Refused:
    """Find the value that `text` was meant to carry.

    Args:
        text: what a model or a tool wrote.
        validator: the gate that every value must pass; for tool calls an `anyOf` of the allowed calls.
        truncated: the writer was cut (`finish_reason` is `length`). Nothing is then recovered: only a whole, strict
            object, array or string counts, since `12` may have been `123` and a later correction may be missing.
        limit: in UTF-8 bytes; longer text is refused unread.

    Returns:
        Never raises for any text.
    """
    if len(text) > limit or _bytes(text) > limit:
        return Refused("too_long")
    body = text.strip(_AROUND)
    if not body:
        return Refused("empty")
    try:
        value = loads_strict(body)
    except NotStrict:
        return Refused("truncated") if truncated else _search(text, body, validator)
    if truncated and not isinstance(value, dict | list | str):
        return Refused("truncated")
    if validator.fits(value):
        return Clean(value)
    if isinstance(value, str) and not truncated and value.strip(_AROUND):
        return _search(text, value.strip(_AROUND), validator, unwrapped=True)
    return Refused("schema", validator.errors(value))


def _search(text: str, body: str, validator: Validator, *, unwrapped: bool = False) -> Recovered | Refused:
    try:
        regions = scan(body)
    except TooComplex:
        return Refused("too_complex")
    found = _choose(body, regions, validator)
    if isinstance(found, Refused):
        return found
    region = found.region
    plain, fenced = ("scan", "fenced") if region.strict else ("repair", "repair_fenced")
    rule = "tagged" if region.call is not None else fenced if region.fenced else plain
    if unwrapped and region.strict and (region.start, region.end) == (0, len(body)):
        rule = "unwrapped"
    kept = _bytes(text) if rule == "unwrapped" else _bytes(body[region.start : region.end])
    return Recovered(found.value, rule, found.repairs, max(0, _bytes(text) - kept), len(regions))


def _choose(body: str, regions: list[Region], validator: Validator) -> _Found | Refused:
    """Take the last region that fits; refuse when a doubtful one stands behind it or contradicts it."""
    chosen: _Found | None = None
    refusal = Refused("no_candidate")
    tried = 0
    for region in reversed(regions):
        if chosen is not None and not region.strict and (chosen.region.fenced or not region.fenced):
            continue  # an earlier broken draft of the same standing says nothing about its correction
        if not region.strict and not region.code:
            tried += 1
            if tried > MAX_TRIED:
                return Refused("too_complex")
        outcome = _read(body, region, validator)
        if isinstance(outcome, Refused):
            if chosen is None and outcome.code not in {"schema", "no_candidate"}:
                return outcome
            refusal = refusal if refusal.code == "schema" else outcome
        elif chosen is None:
            chosen = outcome
            if region.strict:
                return chosen
        else:
            return chosen if outcome.value == chosen.value else Refused("ambiguous")
    return chosen or refusal


def _read(body: str, region: Region, validator: Validator) -> _Found | Refused:
    """Read one region: strictly, or repaired; the schema is the gate of both."""
    if region.code:
        return Refused(region.code)
    if region.call is not None:
        return _typed(region, region.call, validator)
    value: Any = region.value
    repairs: tuple[str, ...] = ()
    if not region.strict:
        try:
            value, repairs = repair(body[region.start : region.end])
        except NotStrict as problem:
            return Refused("no_candidate" if problem.code == "syntax" else problem.code)
    if validator.fits(value):
        return _Found(region, value, repairs)
    return Refused("schema", validator.errors(value))


def _typed(region: Region, call: Tagged, validator: Validator) -> _Found | Refused:
    """Read a call written as elements: one typing of its values must fit, and no other."""
    try:
        fitting = [value for value in readings(call) if validator.fits(value)]
    except NotStrict as problem:
        return Refused("no_candidate" if problem.code == "syntax" else problem.code)
    if len(fitting) == 1:
        return _Found(region, fitting[0], ())
    return Refused("ambiguous") if fitting else Refused("schema", validator.errors({"tool": call.name}))


def _bytes(text: str) -> int:
    return len(text.encode("utf-8", "surrogatepass"))
