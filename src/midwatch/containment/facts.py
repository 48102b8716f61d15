"""Facts: the closed types in which an isolated reader may answer, as the schema of its answer, and what of an answer counts.

In:   the facts that are wanted. Out: a JSON Schema; the values of an answer, or what is wrong with the question, in words.
May import: recovery. Must not know: models, handles' values, who asked.
Why no free text, and lists are short: whoever wrote the text chooses the answer; this bounds what it can choose among.
Source: CONTAINMENT.md, clause 13.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal
from typing import Any, Final

from midwatch.recovery.recover import Clean, recover
from midwatch.recovery.schema import compile_schema

__all__ = ["fault", "read", "schema"]

_DECIMALS: Final = 4
"""More of them would carry text."""


def fault(wanted: Sequence[Mapping[str, Any]]) -> str | None:
    """Say what is wrong with the facts that are wanted; None: nothing."""
    return next(_faults(wanted), None)


def _faults(wanted: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    names = [each["name"] for each in wanted]
    if len(set(names)) != len(names):
        yield "two facts have one name; name each once"
    for each in wanted:
        kind, options, least, most = each["type"], each.get("options"), each.get("least"), each.get("most")
        if (kind == "enum") != bool(options):
            yield f"`{each['name']}`: `options` go with the type `enum`, and it needs some"
        if (kind == "number") != (least is not None) or (kind == "number") != (most is not None):
            yield f"`{each['name']}`: `least` and `most` go with the type `number`, and it needs both"
        if least is not None and most is not None and least > most:
            yield f"`{each['name']}`: `least` is more than `most`"


def schema(wanted: Sequence[Mapping[str, Any]], handles: Sequence[str]) -> dict[str, Any]:
    """Give the schema that an answer must fit: every fact, and nothing else."""
    parts = {each["name"]: _part(each, handles) for each in wanted}
    return {"type": "object", "properties": parts, "required": list(parts), "additionalProperties": False}


def read(text: str, wanted: Sequence[Mapping[str, Any]], handles: Sequence[str]) -> dict[str, Any] | None:
    """Give the values of an answer by their names; None where it is anything but exactly what was asked for."""
    found = recover(text, compile_schema(schema(wanted, handles)))
    if not isinstance(found, Clean):
        return None
    fits = all(_fits(each, found.value[each["name"]]) for each in wanted)
    return {each["name"]: found.value[each["name"]] for each in wanted} if fits else None


def _part(each: Mapping[str, Any], handles: Sequence[str]) -> dict[str, Any]:
    kind = each["type"]
    one: dict[str, Any]
    if kind == "bool":
        one = {"type": "boolean"}
    elif kind == "enum":
        one = {"enum": list(dict.fromkeys(each["options"]))}
    elif kind == "number":
        one = {"type": "number", "minimum": each["least"], "maximum": each["most"]}
    elif kind == "date":
        one = {"type": "string", "pattern": "^[0-9]{4}-[0-9]{2}-[0-9]{2}$"}
    else:
        one = {"enum": list(dict.fromkeys(handles))}
    many = each.get("many", 0)
    return {"type": "array", "items": one, "maxItems": many} if many else one


def _fits(each: Mapping[str, Any], value: Any) -> bool:
    values = value if isinstance(value, list) else [value]
    if each["type"] == "date":
        return all(_is_date(item) for item in values)
    if each["type"] == "number":
        return all(_is_short(item) for item in values)
    return True


def _is_date(text: str) -> bool:
    try:
        return dt.date.fromisoformat(text).isoformat() == text
    except ValueError:
        return False


def _is_short(number: float) -> bool:
    exponent = Decimal(str(number)).normalize().as_tuple().exponent
    return isinstance(exponent, int) and exponent >= -_DECIMALS
