"""Functions: the pure functions that scenario expressions may call besides what CEL brings along.

In:   plain JSON values (null, bool, int, float, str, list, dict) as CEL hands them over.
Out:  plain JSON values; `ValueError` with a sentence when an argument does not fit, which CEL turns into an error
value.
May import: the standard library and `cel_expr_python`. Must not know: scenarios, requests, HTTP.
Why: CEL has no sorting, sums, percentages or text search, and an answer computed from tool results needs them. Each
function is deterministic: no clock, no random numbers, no file. The table in `docs/reference/scenario.md` lists
them all,
and a test holds both to each other.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from typing import Final

from cel_expr_python import cel  # type: ignore[import-untyped]  # it ships stubs without a py.typed

__all__ = ["FUNCTIONS", "Json", "extension", "text"]

_TYPE_NAMES: Final = {bool: "bool", int: "int", float: "double", str: "string", list: "list", dict: "map"}

Json = object
"""A JSON value; `object`, because each function checks what it is given."""


def text(value: Json) -> str:
    """The value as a person writes it: strings as they are, null as nothing, doubles without `.0`, the rest as JSON."""
    if isinstance(value, str):
        return value
    if value is None:
        return ""
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        return str(int(value))
    # Keys are sorted because CEL hands maps over in an order that differs from run to run.
    return json.dumps(value, ensure_ascii=False, sort_keys=True, separators=(", ", ": "))


def _list(value: Json, function: str) -> list[Json]:
    if not isinstance(value, list):
        raise ValueError(f"`{function}` wants a list, not {_TYPE_NAMES.get(type(value), 'null')}")
    return value


def _number(value: Json, function: str) -> int | float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"`{function}` wants a number, not {_TYPE_NAMES.get(type(value), 'null')}")
    return value


def _string(value: Json, function: str) -> str:
    if not isinstance(value, str):
        raise ValueError(f"`{function}` wants a string, not {_TYPE_NAMES.get(type(value), 'null')}")
    return value


def _whole(value: Json, function: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValueError(f"`{function}` wants a whole number, not {_TYPE_NAMES.get(type(value), 'null')}")
    return value


def get(value: Json, path: Json, default: Json) -> Json:
    """The value at a dotted path (`data.rows.0.name`), or `default` where the path ends early or holds null."""
    for part in _string(path, "get").split(".") if path else []:
        if isinstance(value, dict) and part in value:
            value = value[part]
        elif isinstance(value, list) and part.isdigit() and int(part) < len(value):
            value = value[int(part)]
        else:
            return default
    return default if value is None else value


def join(items: Json, separator: Json) -> Json:
    """The items as text, with `separator` between them."""
    return _string(separator, "join").join(text(item) for item in _list(items, "join"))


def _order(value: Json) -> tuple[int, float, str]:
    """A total order over mixed values: null, then bools and numbers, then the rest by its text."""
    if value is None:
        return (0, 0.0, "")
    if isinstance(value, bool | int | float):
        return (1, float(value), "")
    return (2, 0.0, text(value))


def sort_by(items: Json, path: Json) -> Json:
    """The items in ascending order of the value at `path`; `""` is the item itself. Equal ones keep their order."""
    return sorted(_list(items, "sort_by"), key=lambda item: _order(get(item, path, None)))


def top(items: Json, count: Json, path: Json) -> Json:
    """The `count` items with the greatest value at `path`, greatest first; equal ones keep their order."""
    ranked = sorted(_list(items, "top"), key=lambda item: _order(get(item, path, None)), reverse=True)
    return ranked[: max(0, _whole(count, "top"))]


def take(items: Json, count: Json) -> Json:
    """The first `count` items, or all when there are fewer."""
    return _list(items, "take")[: max(0, _whole(count, "take"))]


def total(items: Json) -> Json:
    """The sum of a list of numbers; 0 when it is empty."""
    return sum(_number(item, "sum") for item in _list(items, "sum"))


def percent(part: Json, whole: Json) -> Json:
    """`part` of `whole` in percent, rounded to one decimal; 0 when `whole` is 0."""
    divisor = _number(whole, "percent")
    return 0.0 if divisor == 0 else round(_number(part, "percent") * 100 / divisor, 1)


def rounded(value: Json, digits: Json) -> Json:
    """`value` rounded to `digits` decimals; a whole number when `digits` is 0."""
    places = _whole(digits, "round")
    return round(_number(value, "round")) if places == 0 else round(float(_number(value, "round")), places)


def size_text(value: Json) -> Json:
    """A number of bytes as text: `512 B`, `1.5 KiB`, `12.0 GiB`."""
    amount = float(_number(value, "bytes_text"))
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if abs(amount) < 1024 or unit == "TiB":
            break
        amount /= 1024
    return f"{amount:.0f} B" if unit == "B" else f"{amount:.1f} {unit}"


def unique(items: Json) -> Json:
    """The items without repetition, first occurrence first."""
    seen: dict[str, Json] = {}
    for item in _list(items, "unique"):
        seen.setdefault(json.dumps(item, sort_keys=True), item)
    return list(seen.values())


def count_by(items: Json, path: Json) -> Json:
    """How often each value at `path` occurs: `[{key, count}]`, most frequent first, then by key."""
    counts: dict[str, int] = {}
    for item in _list(items, "count_by"):
        key = text(get(item, path, ""))
        counts[key] = counts.get(key, 0) + 1
    return [{"key": key, "count": count} for key, count in sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))]


def keys(value: Json) -> Json:
    """The keys of a map, sorted."""
    if not isinstance(value, dict):
        raise ValueError("`keys` wants a map")
    return sorted(str(key) for key in value)


def flatten(items: Json) -> Json:
    """A list of lists as one list."""
    return [inner for item in _list(items, "flatten") for inner in _list(item, "flatten")]


def find(haystack: Json, pattern: Json) -> Json:
    """The first match of a regular expression: its first group if it has one, else all of it; else `""`."""
    found = re.search(_string(pattern, "find"), _string(haystack, "find"))
    return "" if found is None else (found.group(1) or "" if found.re.groups else found.group(0))


def find_all(haystack: Json, pattern: Json) -> Json:
    """Every match of a regular expression, each as `find` gives it."""
    matches = re.finditer(_string(pattern, "find_all"), _string(haystack, "find_all"))
    return [(one.group(1) or "") if one.re.groups else one.group(0) for one in matches]


def parse(value: Json) -> Json:
    """The JSON value that a string holds."""
    return json.loads(_string(value, "json"), parse_constant=_no_constant)


def _no_constant(name: str) -> Json:
    raise ValueError(f"`{name}` is not JSON")


def json_values(haystack: Json) -> Json:
    """Every JSON object and array that stands in a text, in order; those inside another one are not listed again."""
    source, decoder, position, found = _string(haystack, "json_values"), json.JSONDecoder(), 0, []
    while (start := _next_opening(source, position)) >= 0:
        try:
            value, position = decoder.raw_decode(source, start)
        except ValueError:
            position = start + 1
        else:
            found.append(value)
    return found


def _next_opening(source: str, position: int) -> int:
    opening = re.compile(r"[\[{]").search(source, position)
    return -1 if opening is None else opening.start()


def named(results: Json, name: Json) -> Json:
    """The contents of all results of the tool `name`, oldest first."""
    return [one.get("content") for one in _list(results, "named") if isinstance(one, dict) and one.get("name") == name]


def latest(results: Json, name: Json) -> Json:
    """The content of the last result of the tool `name`, or null when it was not called."""
    contents = named(results, name)
    return contents[-1] if isinstance(contents, list) and contents else None


FUNCTIONS: Final[dict[str, tuple[Callable[..., Json], int]]] = {
    "bytes_text": (size_text, 1),
    "count_by": (count_by, 2),
    "find": (find, 2),
    "find_all": (find_all, 2),
    "flatten": (flatten, 1),
    "get": (get, 3),
    "join": (join, 2),
    "json": (parse, 1),
    "json_values": (json_values, 1),
    "keys": (keys, 1),
    "latest": (latest, 2),
    "named": (named, 2),
    "percent": (percent, 2),
    "round": (rounded, 2),
    "sort_by": (sort_by, 2),
    "sum": (total, 1),
    "take": (take, 2),
    "text": (text, 1),
    "top": (top, 3),
    "unique": (unique, 1),
}
"""Name in expressions -> (function, number of arguments)."""


def extension(wrap: Callable[[Callable[..., Json]], Callable[..., Json]]) -> cel.CelExtension:
    """All functions as one CEL extension.

    Declared through `CelExtension`, because functions given to `NewEnv(functions=...)` with `dyn` parameters are
    accepted
    there but never found at run time (cel-expr-python 0.1.3).

    Args:
        wrap: applied to each function; makes whatever it raises or returns fit for CEL.
    """
    declarations = [
        cel.FunctionDecl(name, [_overload(name, arguments, wrap(function))])
        for name, (function, arguments) in FUNCTIONS.items()
    ]
    return cel.CelExtension("midwatch.scenario", declarations)


def _overload(name: str, arguments: int, function: Callable[..., Json]) -> cel.Overload:
    parameters: Sequence[cel.Type] = [cel.Type.DYN] * arguments
    return cel.Overload(
        id=f"scenario_{name}", return_type=cel.Type.DYN, parameters=parameters, is_member=False, impl=function
    )
