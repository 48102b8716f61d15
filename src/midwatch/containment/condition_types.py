"""Condition types: what a condition says, held against the schema of a tool that it is for; at load, never at run time.

In:   a condition's text, a tool's input schema. Out: `Findings`: why it cannot hold, what of it nobody can check, literals that are
in no enumeration.
May import: `conditions`. Must not know: policies, grants, lines.
Arguments become variables of the types that the schema gives them (`args.count`: int), so the compiler itself finds `args.count == "x"`.
Where the schema leaves the type open (a number, something or null, no type at all) the variable is `dyn`, and only the last is told.
What can never be true is found in plain conjunctions of comparisons with literals; anything else is taken to be possible.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

import orjson
from cel_expr_python import cel  # type: ignore[import-untyped]  # it ships stubs without a py.typed

from midwatch.containment.conditions import ARGS, ConditionFault, compile_with, literal

__all__ = ["Findings", "examine", "schema_at"]

_DEPTH: Final = 16
_TOKEN: Final = re.compile(
    r"""(?P<text>[rR]?(?:"(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])*'))|(?P<number>\d+(?:\.\d+)?(?:[eE][+-]?\d+)?u?)"""
    r"|(?P<path>[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*)|(?P<sign>&&|\|\||==|!=|<=|>=|\S)"
)
_TURNED: Final = {"<": ">", ">": "<", "<=": ">=", ">=": "<=", "==": "==", "!=": "!="}
_CLOSED: Final = frozenset({"string", "integer", "number", "boolean", "array"})
_PLAIN: Final = {"string": cel.Type.STRING, "integer": cel.Type.INT, "boolean": cel.Type.BOOL}


@dataclass(frozen=True, slots=True)
class Findings:
    """What is known of one condition for one tool.

    Attributes:
        fault: why it can never be evaluated there, or None. never: it can be evaluated, and is never true.
        open: arguments of no declared type that it mentions. strange: literals that the schema does not have, with their argument.
    """

    fault: str | None = None
    never: bool = False
    open: tuple[str, ...] = ()
    strange: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class _Token:
    kind: str
    text: str
    start: int


def examine(source: str, schema: Mapping[str, Any]) -> Findings:
    """Hold a condition against an input schema; the same pair is looked at once in the life of a process."""
    return _examine(source, orjson.dumps(schema, option=orjson.OPT_SORT_KEYS))


def schema_at(root: Mapping[str, Any], path: str) -> Mapping[str, Any] | None:
    """Give the schema of an argument by its dotted name, an empty one where nothing is declared; None where it cannot be."""
    here: Mapping[str, Any] = root
    for part in path.split("."):
        ways = _branches(_resolved(here, root), root)
        found = [way["properties"][part] for way in ways if part in (way.get("properties") or {})]
        if found:
            here = _resolved(found[0], root)
            continue
        if all(way.get("type") in _CLOSED or way.get("additionalProperties") is False for way in ways):
            return None
        return {}
    return here


@lru_cache(maxsize=4096)
def _examine(source: str, written: bytes) -> Findings:
    schema: dict[str, Any] = orjson.loads(written)
    tokens = [_Token(str(found.lastgroup), found[0], found.start()) for found in _TOKEN.finditer(source)]
    paths = list(dict.fromkeys(_paths(tokens)))
    unknown = next((path for path in paths if schema_at(schema, path) is None), None)
    if unknown is not None:
        return Findings(fault=f"there is no argument `{unknown}`")
    types = {name: kind for name, (kind, _) in _types(schema, schema, "", 0)}
    try:
        compile_with(_without_has(source, tokens), types)
    except ConditionFault as fault:
        return Findings(fault=str(fault))
    broken = next((each.text for each in _patterns(tokens) if _broken(each.text)), None)
    if broken is not None:
        return Findings(fault=f"`{broken}` is no regular expression")
    loose = {name for name, (_, known) in _types(schema, schema, "", 0) if not known}
    open_ = tuple(path for path in paths if any(path == name or path.startswith(f"{name}.") for name in loose))
    strange = tuple(_strange(tokens, schema))
    return Findings(never=_never(tokens, schema), open=open_, strange=strange)


def _paths(tokens: Sequence[_Token]) -> Iterator[str]:
    """Give every dotted name below `args` that is mentioned; a method at its end is no part of it."""
    for at, token in enumerate(tokens):
        if token.kind != "path" or (at and tokens[at - 1].text == "."):
            continue
        root, _, rest = token.text.partition(".")
        if root != ARGS:
            continue
        if rest and _text(tokens, at + 1) == "(":
            rest = rest.rpartition(".")[0]
        if rest:
            yield rest
        elif _text(tokens, at + 1) == "[" and at + 2 < len(tokens) and tokens[at + 2].kind == "text":
            name = literal(tokens[at + 2].text)
            if isinstance(name, str):
                yield name


def _text(tokens: Sequence[_Token], at: int) -> str:
    return tokens[at].text if at < len(tokens) else ""


def _without_has(source: str, tokens: Sequence[_Token]) -> str:
    """Write `true` for `has(args.x)`: the macro wants a map, and the names are variables of their own here."""
    made = source
    for at in range(len(tokens) - 3):
        name, opened, path, closed = tokens[at : at + 4]
        if (name.text, opened.text, closed.text) == ("has", "(", ")") and path.text.startswith(f"{ARGS}."):
            end = closed.start + 1
            made = made[: name.start] + "true".ljust(end - name.start) + made[end:]
    return made


def _patterns(tokens: Sequence[_Token]) -> Iterator[_Token]:
    for at in range(len(tokens) - 2):
        called = tokens[at].kind == "path" and tokens[at].text.rpartition(".")[2] == "matches"
        if called and tokens[at + 1].text == "(" and tokens[at + 2].kind == "text":
            yield tokens[at + 2]


def _broken(pattern: str) -> bool:
    return literal(f"''.matches({pattern})") is None


def _resolved(schema: Any, root: Mapping[str, Any]) -> Mapping[str, Any]:
    for _ in range(_DEPTH):
        ref = schema.get("$ref") if isinstance(schema, Mapping) else None
        if not isinstance(ref, str) or not ref.startswith("#/"):
            break
        schema = root
        for part in ref[2:].split("/"):
            schema = schema.get(part) if isinstance(schema, Mapping) else None
    return schema if isinstance(schema, Mapping) else {}


def _branches(schema: Mapping[str, Any], root: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Give the ways in which a value may be something, without null."""
    given = schema.get("anyOf") or schema.get("oneOf")
    parts = [_resolved(part, root) for part in given] if isinstance(given, list) else [schema]
    return [part for part in parts if part.get("type") != "null"]


def _types(
    schema: Mapping[str, Any], root: Mapping[str, Any], path: str, depth: int
) -> Iterator[tuple[str, tuple[Any, bool]]]:
    """Give the type of every declared name, and whether the schema says anything about it."""
    if depth > _DEPTH:
        return
    for name, part in (schema.get("properties") or {}).items():
        if not str(name).isidentifier():
            continue
        inner, full = _resolved(part, root), f"{path}.{name}" if path else str(name)
        yield full, _type(inner, root, 0)
        for branch in _branches(inner, root):
            yield from _types(branch, root, full, depth + 1)


def _type(schema: Mapping[str, Any], root: Mapping[str, Any], depth: int) -> tuple[Any, bool]:
    kind = schema.get("type")
    if depth > _DEPTH:
        return cel.Type.DYN, False
    if isinstance(kind, str) and kind in _PLAIN:
        return _PLAIN[kind], True
    if kind == "number" or isinstance(kind, list) or isinstance(schema.get("enum"), list) or "const" in schema:
        return cel.Type.DYN, True
    if kind == "array":
        item, known = _type(_resolved(schema.get("items"), root), root, depth + 1)
        return cel.Type.List(item), known
    if kind == "object":
        values = schema.get("additionalProperties")
        known = bool(schema.get("properties")) or (isinstance(values, Mapping) and bool(values))
        return cel.Type.Map(cel.Type.STRING, cel.Type.DYN), known
    if schema.get("anyOf") or schema.get("oneOf"):
        return cel.Type.DYN, all(_type(part, root, depth + 1)[1] for part in _branches(schema, root))
    return cel.Type.DYN, False


def _choices(schema: Mapping[str, Any] | None, root: Mapping[str, Any]) -> list[Any] | None:
    """Give the values that an argument may have, where the schema enumerates them."""
    found: list[Any] = []
    for branch in _branches(schema or {}, root):
        if not isinstance(branch.get("enum"), list):
            if "const" not in branch:
                return None
            found.append(branch["const"])
        found += branch.get("enum") or []
    return found or None


def _strange(tokens: Sequence[_Token], root: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for path, sign, values in _comparisons(tokens):
        choices = _choices(schema_at(root, path), root)
        if choices is not None and sign in {"==", "!=", "in"}:
            yield from ((path, str(value)) for value in values if value not in choices)


def _comparisons(tokens: Sequence[_Token]) -> Iterator[tuple[str, str, list[Any]]]:
    """Give every comparison of an argument with a literal, wherever it stands."""
    for at in range(len(tokens)):
        found = _comparison(tokens[at:])
        if found is not None and (at == 0 or tokens[at - 1].text not in {".", "+", "-", "*", "/", "%"}):
            yield found[:3]


def _comparison(tokens: Sequence[_Token]) -> tuple[str, str, list[Any], int] | None:
    """Read `args.x == 1`, `1 == args.x` or `args.x in [1, 2]` at the beginning: name, sign, values, tokens used."""
    path = _argument(tokens, 0)
    if path is not None and _text(tokens, 1) == "in" and _text(tokens, 2) == "[":
        values: list[Any] = []
        at = 3
        while at < len(tokens) and tokens[at].text != "]":
            value, used = _value(tokens, at)
            if not used:
                return None
            values.append(value)
            at += used + (1 if _text(tokens, at + used) == "," else 0)
        return path, "in", values, at + 1
    if path is not None and _text(tokens, 1) in _TURNED:
        value, used = _value(tokens, 2)
        return (path, tokens[1].text, [value], 2 + used) if used else None
    value, used = _value(tokens, 0)
    path = _argument(tokens, used + 1) if used and _text(tokens, used) in _TURNED else None
    return None if path is None else (path, _TURNED[tokens[used].text], [value], used + 2)


def _argument(tokens: Sequence[_Token], at: int) -> str | None:
    token = tokens[at] if at < len(tokens) else None
    if token is None or token.kind != "path" or not token.text.startswith(f"{ARGS}."):
        return None
    return None if _text(tokens, at + 1) in {"(", "[", "."} else token.text.removeprefix(f"{ARGS}.")


def _value(tokens: Sequence[_Token], at: int) -> tuple[Any, int]:
    """Read a literal; 0 tokens when there is none."""
    minus = _text(tokens, at) == "-"
    token = tokens[at + minus] if at + minus < len(tokens) else None
    plain = token is not None and (token.kind in {"text", "number"} or token.text in {"true", "false"})
    if token is None or not plain:
        return None, 0
    value = literal(("-" if minus else "") + token.text)
    return (None, 0) if value is None else (value, 1 + minus)


def _never(tokens: Sequence[_Token], root: Mapping[str, Any]) -> bool:
    """Say whether a conjunction of plain comparisons contradicts itself or the schema."""
    rooms: dict[str, list[tuple[str, list[Any]]]] = {}
    at = 0
    while at < len(tokens):
        if tokens[at].text == "false" and _text(tokens, at + 1) in {"", "&&"}:
            return True
        found = _comparison(tokens[at:])
        if found is None or _text(tokens, at + found[3]) not in {"", "&&"}:
            return False
        rooms.setdefault(found[0], []).append((found[1], found[2]))
        at += found[3] + 1
    return any(_empty(said, schema_at(root, path) or {}, root) for path, said in rooms.items())


def _empty(said: Sequence[tuple[str, list[Any]]], schema: Mapping[str, Any], root: Mapping[str, Any]) -> bool:
    sets = [values for sign, values in said if sign in {"==", "in"}]
    choices = _choices(schema, root)
    candidates = sets[0] if sets else choices
    if candidates is not None:
        others = [*sets[1:], *([choices] if choices is not None and sets else [])]
        return not any(
            all(value in each for each in others) and all(_true(value, *one) for one in said if one[0] != "in")
            for value in candidates
        )
    numbers = [(sign, values[0]) for sign, values in said if _is_number(values[0]) and sign != "!="]
    numbers += [(">=", schema["minimum"])] if _is_number(schema.get("minimum")) else []
    numbers += [("<=", schema["maximum"])] if _is_number(schema.get("maximum")) else []
    low = max(((value, sign == ">") for sign, value in numbers if sign in {">", ">="}), default=None)
    high = min(((value, sign != "<") for sign, value in numbers if sign in {"<", "<="}), default=None)
    if low is None or high is None:
        return False
    if schema.get("type") == "integer":  # nothing whole lies between 4 and 5
        return bool(low[0] + low[1] > high[0] - (not high[1]))
    return bool(low[0] > high[0] or (low[0] == high[0] and (low[1] or not high[1])))


def _true(value: Any, sign: str, values: list[Any]) -> bool:
    other = values[0]
    if sign in {"==", "!="}:
        return bool(value == other) is (sign == "==")
    if isinstance(value, str) is not isinstance(other, str):
        return True  # nothing is known of it; the compiler has its own say
    return bool({"<": value < other, "<=": value <= other, ">": value > other, ">=": value >= other}[sign])


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
