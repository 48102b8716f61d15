"""Planning: what a planner model is asked about a request, and what of its answer is a mandate.

In:   a request's text, the tools' contracts, what the operator bounds; later the model's answer.
Out:  a prompt and the schema of the answer; `Mandate`, or `Refused` in words.
May import: `canon`, `mandates`, `reading`, `roles`, `slots`; records, tools' contract. Must not know: models, routes, results.
The planner chooses which words of the request belong to which slot. It adds none: each value must stand in the request, be one of the
choices that a schema enumerates, or be a field that a service writes or that the operator let a source choose. One untrue word and the
whole answer is no mandate: a plan that is wrong in one place is not believed in the others.
Source: CONTAINMENT.md, clauses 11 and 12.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from fnmatch import fnmatchcase
from typing import Any, Final

from midwatch.containment.canon import Canonical, amount, canonical, kind_of
from midwatch.containment.mandates import Line, Refused
from midwatch.containment.reading import CALLS, Knob, typed_in
from midwatch.containment.roles import Declared, kinds, needs_reach, places_of
from midwatch.containment.slots import FromField, Slot, UpTo, one_of
from midwatch.tools.contract import ToolContract

__all__ = ["MANUAL", "Planner", "schema"]

MANUAL: Final = (
    "You read one request and write down what it allows, before anything else is known. You see no results and call no tools. "
    "Answer with `lines`: one for each tool that the request asks to be used. `calls` is how often. `slots` bind arguments: `values` are "
    "words, addresses or choices exactly as they stand in the request, or as the tool enumerates them; `at_most` is a number of the "
    "request that an amount may not exceed; `from` names the field of another tool's result that the request says to take the value "
    "from, with the arguments of that call in `where`. Bind nothing that the request does not say. Leave out a tool that it does not "
    "ask for."
)
_TYPED: Final = frozenset({"email", "url", "iban", "path"})
_NUMBER: Final = re.compile(r"(?<![\w.,])[0-9]{1,15}(?:[ ,'][0-9]{3})*(?:\.[0-9]{1,6})?(?![\w]|[.,][0-9])")
_SHORT: Final = ("integer", "number", "boolean")
"""Types of arguments by which no source is recognised."""
_MOST_LINES: Final = 64
_MOST: Final = 200
_TEXT: Final = {"type": "string", "maxLength": 2_000}


class _Untrue(Exception):  # it is caught where it is raised
    """The answer says what the request does not."""


@dataclass(frozen=True, slots=True)
class Planner:
    """Reads answers for one fleet. As `reading.Reader`: contracts of every tool that agents may use, knobs by tool and argument."""

    contracts: Sequence[ToolContract]
    knobs: Mapping[str, Mapping[str, Knob]]

    def told(self) -> list[dict[str, Any]]:
        """Give the tools' signatures, as the planner is shown them."""
        return [
            {
                "tool": contract.name,
                "does": contract.description,
                "effect": contract.effect,
                "arguments": dict(contract.input_schema.get("properties") or {}),
                "fields": sorted(_fields(contract)),
            }
            for contract in self.contracts
        ]

    def read(self, request: str, answer: Any) -> tuple[Line, ...] | Refused:
        """Give the lines of an answer that fits `schema`; all of them, or none."""
        try:
            return tuple(self._lines(request, answer["lines"]))
        except _Untrue as untrue:
            return Refused(str(untrue))
        except (KeyError, TypeError, AttributeError):
            return Refused("the planner's answer has another form")

    def _lines(self, request: str, told: Any) -> Iterator[Line]:
        tools = {contract.name: contract for contract in self.contracts}
        for index, line in enumerate(told):
            contract = tools.get(line["tool"])
            if contract is None:
                raise _Untrue("the planner names a tool that there is not")
            if contract.effect == "pure" or (contract.effect == "read" and not contract.open_world):
                continue
            calls = line["calls"]
            if type(calls) is not int or not 1 <= calls <= CALLS:
                raise _Untrue(f"the planner allows `{contract.name}` a number of calls that nobody may")
            slots, totals = self._slots(request, contract, line["slots"])
            for name, made in slots.items():  # a call may hold several amounts
                for cap in (slot.most * calls for slot in made if isinstance(slot, UpTo)):
                    totals[name] = min(totals.get(name, cap), cap)
            yield Line(f"{contract.name}#{index}", contract.name, slots, calls, totals, needs=frozenset(slots))

    def _slots(
        self, request: str, contract: ToolContract, told: Any
    ) -> tuple[dict[str, tuple[Slot, ...]], dict[str, Decimal]]:
        declared = {place.name: place for place in places_of(contract)}
        slots: dict[str, tuple[Slot, ...]] = {}
        for item in told:
            place = declared.get(item["argument"])
            if place is None or place.name in slots:
                raise _Untrue(f"the planner binds an argument of `{contract.name}` twice, or one that it has not")
            if needs_reach(contract.effect, place.role):
                made = tuple(self._of(request, contract, place, item))
                slots |= {place.name: made} if made else {}
        knobs = self.knobs.get(contract.name, {})
        totals = {name: knob.most for name, knob in knobs.items() if knob.most is not None and name in slots}
        return slots, totals

    def _of(self, request: str, contract: ToolContract, place: Declared, item: Any) -> Iterator[Slot]:
        knob = self.knobs.get(contract.name, {}).get(place.name, Knob())
        wrong = f"the planner binds `{place.name}` of `{contract.name}` to what the request does not say"
        for value in item["values"]:
            if not _stands(request, contract, place, value):
                raise _Untrue(wrong)
            if knob.values and value not in knob.values:
                raise _Untrue(f"the operator does not leave `{place.name}` of `{contract.name}` to requests")
        if item["values"]:
            yield one_of(*item["values"], kind=place.kind)
        if item["at_most"] is not None:
            most = _number(item["at_most"])
            if most is None or most not in _numbers(request) or place.role != "quantity":
                raise _Untrue(wrong)
            yield UpTo(most if knob.most is None else min(most, knob.most))
        for source in item["from"]:
            yield self._source(request, place, knob, source)

    def _source(self, request: str, place: Declared, knob: Knob, told: Any) -> Slot:
        contract = next((each for each in self.contracts if each.name == told["tool"]), None)
        path = told["field"]
        if contract is None or contract.effect not in {"pure", "read"} or path not in _fields(contract):
            raise _Untrue("the planner names a field that no reading tool has")
        found = {each.name: each for each in places_of(contract)}
        where: list[tuple[str, tuple[Slot, ...]]] = []
        for bound in told["where"]:
            of = found.get(bound["argument"])
            if of is None or not bound["values"]:
                raise _Untrue(f"the planner binds an argument that `{contract.name}` has not, or to nothing")
            if not all(_stands(request, contract, of, value) for value in bound["values"]):
                raise _Untrue(f"the planner reads `{contract.name}` with what the request does not say")
            where.append((of.name, (one_of(*bound["values"], kind=of.kind),)))
        properties = contract.input_schema.get("properties") or {}
        required = (name for name in contract.input_schema.get("required") or () if name in properties)
        if {name for name in required if properties[name].get("type") not in _SHORT} - {name for name, _ in where}:
            raise _Untrue(f"the planner does not say which result of `{contract.name}` is meant")
        author = contract.out(path)
        if author.author == "service" or author.creates:
            return FromField(contract.name, path, tuple(where))
        for source in knob.delegate:
            tool, colon, field = source.partition(":")
            if fnmatchcase(contract.name, tool) and (not colon or path == field or path.startswith(f"{field}.")):
                return FromField(contract.name, path, tuple(where), inside=not colon and place.kind in _TYPED)
        raise _Untrue(f"the operator does not let `{contract.name}` choose `{place.name}`")


def schema(contracts: Sequence[ToolContract]) -> dict[str, Any]:
    """Give the schema of an answer: closed, everything required, so that constrained decoding can keep to it."""
    tools = {"type": "string", "enum": sorted(contract.name for contract in contracts)}
    values = {"type": "array", "items": {"type": ["string", "number", "boolean"]}, "maxItems": _MOST}
    bound = _closed({"argument": _TEXT, "values": values})
    source = _closed({"tool": tools, "field": _TEXT, "where": _list(bound)})
    slot = _closed(
        {"argument": _TEXT, "values": values, "at_most": {"type": ["number", "null"]}, "from": _list(source)}
    )
    line = _closed({"tool": tools, "calls": {"type": "integer"}, "slots": _list(slot)})
    return _closed({"lines": {"type": "array", "items": line, "maxItems": _MOST_LINES}})


def _list(items: Mapping[str, Any]) -> dict[str, Any]:
    return {"type": "array", "items": items, "maxItems": _MOST}


def _closed(properties: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


def _fields(contract: ToolContract) -> frozenset[str]:
    return frozenset(path for path in {*kinds(contract.output_schema), *_paths(contract.output_schema)} if path)


def _paths(value: Any, path: str = "", depth: int = 0) -> Iterator[str]:
    """Give the dotted paths that a schema declares, as far as it spells them out."""
    if not isinstance(value, Mapping) or depth > 8:
        return
    yield path
    yield from _paths(value.get("items"), path, depth + 1)
    for name, part in (value.get("properties") or {}).items():
        yield from _paths(part, f"{path}.{name}" if path else str(name), depth + 1)


def _stands(request: str, contract: ToolContract, place: Declared, value: Any) -> bool:
    """Say whether the request says this value, or the tool itself enumerates it."""
    enumerated = ((contract.input_schema.get("properties") or {}).get(place.name) or {}).get("enum")
    if isinstance(enumerated, list):
        return any(type(value) is type(each) and value == each for each in enumerated)
    if isinstance(value, bool):
        return True  # one of two, and bound to this very slot
    if not isinstance(value, str):
        number = _number(value)
        return number is not None and place.role != "quantity" and number in _numbers(request)
    family = (place.kind or "").partition(":")[0] or kind_of(value)
    if family in _TYPED:
        found: Canonical | None = canonical(value, family)
        return found is not None and found in typed_in(request, family)
    words = re.escape(value.strip())
    return bool(words) and re.search(rf"(?<![^\W_]){words}(?![^\W_])", request, re.IGNORECASE) is not None


def _numbers(request: str) -> frozenset[Decimal]:
    found = (_number(re.sub(r"[ ,']", "", match[0])) for match in _NUMBER.finditer(request))
    return frozenset(number for number in found if number is not None)


def _number(value: Any) -> Decimal | None:
    try:
        return amount(Decimal(value) if isinstance(value, str) else value)
    except InvalidOperation:
        return None
