"""Roles: each value of a call with what it is for, and whether whoever chose it must have the reach.

In:   a tool's contract and the arguments as the tool would be given them.
Out:  `Place`, one for each value; `needs_reach`, table 19; `observers`, who would see that it happened.
May import: tools' contract, records. Must not know: labels, mandates, agents.
Why leaves: one list may hold a recipient that the request named and one that a web page named. Keys that the caller chose are values, too.
Where table 19 is silent about a read (a target, a command or a credential of a closed world), it needs reach: only what a read selects by
and what it says may be anybody's.
Source: CONTAINMENT.md, clauses 6-10, 19, 22.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from midwatch.records.effect import EFFECT_CLASSES, ROLES, EffectClass, Role
from midwatch.tools.contract import EVERYONE, ArgContract, ToolContract

__all__ = [
    "ARGUMENT",
    "DEPTH",
    "Declared",
    "Place",
    "TooMany",
    "kinds",
    "needs_reach",
    "observers",
    "places",
    "places_of",
]

ARGUMENT: Final = "argument:"
"""As an observer: whoever this argument names, such as `argument:recipients`."""

DEPTH: Final = 32
LEAVES: Final = 10_000
"""Values of one call; more are not looked through one by one, and such a call is refused."""

_ALWAYS: Final = frozenset({"target", "command", "credential"})
_WRITE: Final = _ALWAYS | {"selector", "quantity", "control"}
_NEEDED: Final[Mapping[EffectClass, frozenset[str]]] = {
    "pure": frozenset(),
    "read": _ALWAYS,
    "write": _WRITE,
    "destructive": _WRITE | {"content"},
    "grants_authority": frozenset(ROLES),
}


@dataclass(frozen=True, slots=True)
class Place:
    """One value of a call.

    Attributes:
        key: where it stands, such as `to[1]` or `order.lines[0].amount`; unique within the call.
        name: dotted name of the argument, without places in lists and keys of maps; what contracts, slots and explanations name.
        role: as declared; content that somebody acts on is a `command`.
        deref: role in which what it refers to is used, or None.
        kind: what it declares to hold (`email`, `url`, …), or None.
    """

    key: str
    name: str
    value: Any
    role: Role
    deref: Role | None = None
    kind: str | None = None


@dataclass(frozen=True, slots=True)
class Declared:
    """One argument as the contract declares it, before any call. `text`: it holds a text, or a list of texts."""

    name: str
    role: Role
    kind: str | None
    text: bool


class TooMany(ValueError):
    """A call holds more values, or nests deeper, than is looked through."""


def places(contract: ToolContract, arguments: Mapping[str, Any]) -> tuple[Place, ...]:
    """Give every value of the call.

    Raises:
        TooMany: nobody could have looked at it all. TypeError: these are no arguments. The verdict refuses both.
    """
    if not isinstance(arguments, Mapping):
        raise TypeError("arguments are no object")  # a call without values would need no reach
    typed, known = _described(contract.input_schema)
    found: list[Place] = []
    for key, name, value in _leaves(arguments, known, "", "", 0):
        if len(found) >= LEAVES:
            raise TooMany(f"a call holds more than {LEAVES:,} values")
        arg = contract.arg(name)
        found.append(Place(key, name, value, _role(arg), _deref(arg), typed.get(name)))
    return tuple(found)


def places_of(contract: ToolContract) -> tuple[Declared, ...]:
    """Give every argument that the input schema has at its top, and those within that the contract describes."""
    properties = contract.input_schema.get("properties") or {}
    typed = kinds(contract.input_schema)
    names = dict.fromkeys([*properties, *(arg.name for arg in contract.args)])
    return tuple(
        Declared(
            name, _role(contract.arg(name)), typed.get(name), _is_text(properties.get(name), contract.input_schema)
        )
        for name in names
    )


def needs_reach(effect: EffectClass, role: Role) -> bool:
    """Say whether every cause of a value in this role must have reach (table 19); for an effect or role nobody knows, yes."""
    if effect not in EFFECT_CLASSES or role not in ROLES:
        return True
    return role in _NEEDED[effect]


def observers(contract: ToolContract, found: tuple[Place, ...]) -> frozenset[str] | None:
    """Give who would see that the action happened, and what; None for everyone, empty for nobody.

    A read of what the operator does not control is seen by whoever runs it. An argument that is named as an observer and holds no text
    is seen by nobody; one that the contract does not have makes it everyone, because the declaration is wrong.
    """
    if contract.effect == "pure":
        return frozenset()
    seen: set[str] = set()
    for name in contract.observers:
        if name == EVERYONE:
            return None
        if not name.startswith(ARGUMENT):
            seen.add(name)
            continue
        argument = name.removeprefix(ARGUMENT)
        if argument.split(".")[0] not in contract.input_schema.get("properties", {}):
            return None
        seen |= {place.value for place in found if place.name == argument and isinstance(place.value, str)}
    return frozenset(seen)


def kinds(schema: Mapping[str, Any]) -> Mapping[str, str]:
    """Give the declared kind (`format`) of each dotted path of a schema, lists and maps adding nothing; cached by the schema itself."""
    return _described(schema)[0]


_Described = tuple[Mapping[str, str], frozenset[str]]
_DESCRIBED: Final[dict[int, tuple[Mapping[str, Any], _Described]]] = {}
_DESCRIBED_MOST: Final = 4096
_RENAMED: Final = {"uri": "url", "idn-email": "email", "date-time": "date", "hostname": "host", "idn-hostname": "host"}


def _described(schema: Mapping[str, Any]) -> _Described:
    """Give the kinds of a schema's paths, and all its paths; every other key of a value is the caller's own choice."""
    cached = _DESCRIBED.get(id(schema))
    if cached is not None and cached[0] is schema:
        return cached[1]
    found = list(_kinds(schema, schema, "", 0))
    made = {path: kind for path, kind in found if kind}, frozenset(path for path, _ in found if path)
    if len(_DESCRIBED) < _DESCRIBED_MOST:
        _DESCRIBED[id(schema)] = (schema, made)  # the schema is kept, so that its id stays its own
    return made


def _kinds(schema: Any, root: Mapping[str, Any], path: str, depth: int) -> Iterator[tuple[str, str]]:
    if not isinstance(schema, Mapping) or depth > DEPTH:
        return
    ref = schema.get("$ref")
    if isinstance(ref, str) and ref.startswith("#/"):
        target: Any = root
        for part in ref[2:].split("/"):
            target = target.get(part) if isinstance(target, Mapping) else None
        yield from _kinds(target, root, path, depth + 1)
    kind = schema.get("format")
    yield path, _RENAMED.get(kind, kind) if isinstance(kind, str) else ""
    for branch in ("anyOf", "oneOf", "allOf"):
        for part in schema.get(branch) or ():
            yield from _kinds(part, root, path, depth + 1)
    yield from _kinds(schema.get("items"), root, path, depth + 1)
    yield from _kinds(schema.get("additionalProperties"), root, path, depth + 1)
    for name, part in (schema.get("properties") or {}).items():
        yield from _kinds(part, root, f"{path}.{name}" if path else str(name), depth + 1)


def _is_text(schema: Any, root: Mapping[str, Any], depth: int = 0) -> bool:
    if not isinstance(schema, Mapping) or depth > DEPTH:
        return False
    if schema.get("type") == "string" or isinstance(schema.get("enum"), list):
        return True
    inner = [schema.get("items"), *(part for key in ("anyOf", "oneOf", "allOf") for part in schema.get(key) or ())]
    ref = schema.get("$ref")
    if isinstance(ref, str) and ref.startswith("#/$defs/"):
        inner.append((root.get("$defs") or {}).get(ref.removeprefix("#/$defs/")))
    return any(_is_text(part, root, depth + 1) for part in inner)


def _role(arg: ArgContract) -> Role:
    if arg.role not in ROLES or arg.executed_by is not None or (arg.role == "content" and arg.interprets):
        return "command"
    return arg.role


def _deref(arg: ArgContract) -> Role | None:
    return "command" if arg.deref is not None and arg.deref not in ROLES else arg.deref


def _leaves(value: Any, known: frozenset[str], key: str, name: str, depth: int) -> Iterator[tuple[str, str, Any]]:
    if depth > DEPTH:
        raise TooMany(f"a call nests more than {DEPTH} deep")
    if isinstance(value, Mapping):
        for part, item in value.items():
            inner = f"{name}.{part}" if name else str(part)
            if name and inner not in known:
                yield f"{key}.{part}#", name, str(part)  # a key of the caller's own choice: a value, and never a name
                inner = name
            yield from _leaves(item, known, f"{key}.{part}" if key else str(part), inner, depth + 1)
    elif isinstance(value, list | tuple):
        for at, item in enumerate(value):
            yield from _leaves(item, known, f"{key}[{at}]", name, depth + 1)
    elif value is not None:
        yield key, name, value
