"""Kept: a mandate as the ledger keeps it, so that another process holds the same one.

In:   a mandate; later the JSON that was made of it. Out: JSON; the mandate, or `ValueError`.
May import: `canon`, `mandates`, `slots`, records. Must not know: where it is stored.
Why sets of words stand once: a deterministic reader binds the same phrases of a long request in many slots.
Why strict: a slot that is read back wider than it was written allows what nobody allowed. Whatever is not understood is no mandate.
Source: CONTAINMENT.md, clauses 11 and 14.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from decimal import Decimal
from types import MappingProxyType
from typing import Any, Final

from midwatch.containment.canon import Canonical, amount
from midwatch.containment.mandates import Line, Mandate
from midwatch.containment.slots import FromField, Mentioned, OfWords, OneOf, Pattern, Slot, Template, UpTo
from midwatch.records.label import Label

__all__ = ["from_json", "slots_to_json", "to_json"]

_Names = frozenset[tuple[str, ...]]


def to_json(mandate: Mandate) -> dict[str, Any]:
    """Give the JSON object of a mandate; the same mandate gives the same bytes."""
    pool: dict[_Names, int] = {}
    lines = [_line(line, pool) for line in mandate.lines]
    return {
        "id": mandate.id,
        "issuer": mandate.issuer.to_json(),
        "by": mandate.by,
        "expires_us": mandate.expires_us,
        "parent": mandate.parent,
        "lines": lines,
        "names": [sorted(map(list, names)) for names in pool],
    }


def slots_to_json(line: Line) -> dict[str, list[dict[str, Any]]]:
    """Give the slots of one line as people are shown them, sets of words in full."""
    pool: dict[_Names, int] = {}
    made = {name: [_slot(slot, pool) for slot in slots] for name, slots in sorted(line.slots.items())}
    spelt = [sorted(" ".join(words) for words in names) for names in pool]

    def spell(body: Any) -> Any:
        if isinstance(body, dict):
            return {key: spelt[item] if key == "mentioned" else spell(item) for key, item in body.items()}
        return [spell(item) for item in body] if isinstance(body, list) else body

    return {name: spell(slots) for name, slots in made.items()}


def from_json(body: Any) -> Mandate:
    """Read `to_json` back.

    Raises:
        ValueError: it is none.
    """
    try:
        names = [frozenset(tuple(_text(word) for word in words) for words in each) for each in body["names"]]
        issuer = Label.from_json(body["issuer"])
        lines = tuple(_read_line(line, names) for line in body["lines"])
        expires, parent = body["expires_us"], body["parent"]
        if not (expires is None or type(expires) is int) or not (parent is None or isinstance(parent, str)):
            raise ValueError("a mandate's end or parent cannot be read")
        return Mandate(_text(body["id"]), issuer, lines, _text(body["by"]), expires, parent)
    except (KeyError, TypeError, AttributeError, IndexError, ArithmeticError) as broken:
        raise ValueError("a mandate cannot be read") from broken


def _line(line: Line, pool: dict[_Names, int]) -> dict[str, Any]:
    return {
        "id": line.id,
        "tool": line.tool,
        "slots": {name: [_slot(slot, pool) for slot in slots] for name, slots in sorted(line.slots.items())},
        "most": line.most,
        "totals": {name: format(value, "f") for name, value in sorted(line.totals.items())},
        "parent": line.parent,
        "needs": sorted(line.needs),
    }


def _slot(slot: Slot, pool: dict[_Names, int]) -> dict[str, Any]:
    match slot:
        case OneOf(values=values):
            return {"one_of": sorted([item.kind, item.value] for item in values)}
        case Pattern(kind=kind, text=text):
            return {"pattern": [kind, text]}
        case UpTo(most=most):
            return {"up_to": format(most, "f")}
        case Mentioned(names=names, exact=exact):
            return {"mentioned": pool.setdefault(names, len(pool)), "exact": exact}
        case OfWords(stems=stems):
            return {"of_words": sorted(stems)}
        case Template(parts=parts):
            return {"template": [list(part) for part in parts]}
        case FromField(tool=tool, path=path, where=where, inside=inside):
            bound = [[name, [_slot(each, pool) for each in slots]] for name, slots in where]
            return {"from": tool, "path": path, "where": bound, "inside": inside}


def _read_line(body: Any, names: list[_Names]) -> Line:
    most = body["most"]
    if not (most is None or type(most) is int):
        raise ValueError("a mandate's calls cannot be read")
    slots = {_text(name): tuple(_read_slot(each, names) for each in every) for name, every in body["slots"].items()}
    totals = {_text(name): _amount(value) for name, value in body["totals"].items()}
    parent = None if body["parent"] is None else _text(body["parent"])
    needs = frozenset(_text(name) for name in body["needs"])
    made = MappingProxyType(slots), most, MappingProxyType(totals)
    return Line(_text(body["id"]), _text(body["tool"]), *made, parent, needs)


def _read_slot(body: Any, names: list[_Names]) -> Slot:
    for key, (reader, keys) in _READERS.items():
        if key in body and set(body) == keys:
            return reader(body, names)
    raise ValueError("a slot of a mandate cannot be read")


def _from(body: Mapping[str, Any], names: list[_Names]) -> Slot:
    where = tuple((_text(name), tuple(_read_slot(each, names) for each in slots)) for name, slots in body["where"])
    return FromField(_text(body["from"]), _text(body["path"]), where, _truth(body["inside"]))


_READERS: Final[Mapping[str, tuple[Callable[[Any, list[_Names]], Slot], set[str]]]] = {
    "one_of": (
        lambda body, _: OneOf(frozenset(Canonical(_text(kind), _text(value)) for kind, value in body["one_of"])),
        {"one_of"},
    ),
    "pattern": (lambda body, _: Pattern(*(_text(part) for part in body["pattern"])), {"pattern"}),
    "up_to": (lambda body, _: UpTo(_amount(body["up_to"])), {"up_to"}),
    "mentioned": (
        lambda body, names: Mentioned(names[_place(body["mentioned"])], _truth(body["exact"])),
        {"mentioned", "exact"},
    ),
    "of_words": (lambda body, _: OfWords(frozenset(_text(each) for each in body["of_words"])), {"of_words"}),
    "template": (
        lambda body, _: Template(tuple(tuple(_text(word) for word in part) for part in body["template"])),
        {"template"},
    ),
    "from": (_from, {"from", "path", "where", "inside"}),
}


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError("a mandate holds something else where a text belongs")
    return value


def _truth(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError("a mandate holds something else where a truth value belongs")
    return value


def _place(value: Any) -> int:
    if type(value) is not int or value < 0:
        raise ValueError("a mandate holds something else where a place belongs")
    return value


def _amount(value: Any) -> Decimal:
    number = amount(Decimal(_text(value)))
    if number is None:
        raise ValueError("a mandate holds something else where an amount belongs")
    return number
