"""Tree: YAML, JSON and TOML read strictly, and what is new in them by the place it stands in.

In:   two texts of one format. Out: leaves that came or went, each with its place (`jobs.build.steps[].run`), and a judgement by rules.
May import: facts, text, yaml. Must not know: any one program.
Why strictly: of two equal keys one program takes the first, another the last; an unknown tag, a key that is no text, a document of
a million nodes: such a text is unreadable, and counts as granting. Anchors and merges are written out, so that nothing hides behind one.
Why scalars stay text: whether `on`, `yes` or `0o17` is a truth value depends on who reads it; only what was quoted and would be
something else without is told apart.
"""

from __future__ import annotations

import json
import re
import tomllib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import yaml

from midwatch.containment.authority.facts import File, Finding, Inert, Power, Unreadable, granted
from midwatch.containment.authority.text import texts

__all__ = ["Rules", "Tree", "differ", "json_tree", "judge_tree", "toml_tree", "yaml_tree", "yes"]

Tree = Any
Leaf = tuple[str, str]
"""Place and value."""

_NODES: Final = 50_000
_LONGEST: Final = 256 << 10
_DEPTH: Final = 60
_LIVE: Final = re.compile(r"\$\{\{|\$\(|\$\[|`|\{\{|<%")
"""A value that somebody puts something in place of is never told to people alone."""
_ABSENT: Final = object()
"""Nothing at all, which is not the same as null."""


@dataclass(frozen=True, slots=True)
class Rules:
    """How the leaves of a format are judged. Places are matched whole, without regard to case; the first rule counts.

    Attributes:
        gains: (place, power) of what is new or changed. inert: places where nothing gives power.
        default: power of what no rule names; None: it gives none. losses: places whose going gives a power.
        value: says of a new value at its place whether it gives none; asked before `gains`.
    """

    gains: tuple[tuple[str, Power], ...] = ()
    inert: tuple[str, ...] = ()
    default: Power | None = None
    losses: tuple[tuple[str, Power], ...] = ()
    value: Callable[[str, str], bool] = lambda _place, _value: False


def judge_tree(effect: File, how: str, load: Callable[[str], Tree], rules: Rules) -> Iterator[Finding]:
    """Say what the leaves that are new, changed or gone grant."""
    before, after = texts(effect)
    new = load(after) if after.strip() else _ABSENT
    try:
        old = load(before) if before.strip() else _ABSENT
    except Unreadable:
        old = _ABSENT
    come, gone = differ(old, new)
    powers = [power for leaf in come if (power := _gain(rules, leaf))]
    places = {place for place, _ in come}
    lost = (place for place, _ in gone if place not in places or place.endswith("[]"))
    powers += [power for place in lost if (power := _first(rules.losses, place))]
    for what, to_whom, why in dict.fromkeys(powers):
        yield granted(what, to_whom, effect.change.path, how, why)
    if not powers:
        yield Inert(effect.change.path, how, _told(effect, come, gone))


def differ(old: Tree, new: Tree) -> tuple[list[Leaf], list[Leaf]]:
    """Give the leaves that came and those that went. An entry of a list is compared with the entry that is most like it."""
    come: list[Leaf] = []
    gone: list[Leaf] = []
    _differ(old, new, "", come, gone)
    return come, gone


def yes(value: str) -> bool:
    """Say whether any program takes this for true."""
    return value.strip('"').strip().casefold() not in {"false", "no", "off", "n", "0", "null", "~", "none", ""}


def yaml_tree(text: str) -> Tree:
    """Read YAML; several documents become a list.

    Raises:
        Unreadable: see the module's head.
    """
    if len(text) > _LONGEST:
        raise Unreadable("it is too large to be looked through")
    try:
        nodes = list(yaml.compose_all(text, Loader=yaml.SafeLoader))
        left = [_NODES]
        found = [_node(node, left, 0) for node in nodes if node is not None]
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise Unreadable("it is no YAML that every program reads alike") from error
    return found[0] if len(found) == 1 else found


def json_tree(text: str) -> Tree:
    """Read JSON, also with comments and with commas at ends.

    Raises:
        Unreadable: see the module's head.
    """
    try:
        return _json(text)
    except (ValueError, RecursionError):
        try:
            return _json(_uncommented(text))
        except (ValueError, RecursionError) as error:
            raise Unreadable("it is no JSON that every program reads alike") from error


def toml_tree(text: str) -> Tree:
    """Read TOML.

    Raises:
        Unreadable: see the module's head.
    """
    try:
        return _plain(tomllib.loads(text))
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise Unreadable("it is no TOML that every program reads alike") from error


# ------------------------------------------------------------------------------------------------------- differences


def _gain(rules: Rules, leaf: Leaf) -> Power | None:
    place, value = leaf
    if rules.value(place, value):
        return None
    if (found := _first(rules.gains, place)) is not None:
        return found
    if rules.default is None or (not _LIVE.search(value) and any(_fits(pattern, place) for pattern in rules.inert)):
        return None
    what, to_whom, why = rules.default
    return what, to_whom, why.replace("PLACE", place or "the whole")


def _first(table: Sequence[tuple[str, Power]], place: str) -> Power | None:
    for pattern, (what, to_whom, why) in table:
        if _fits(pattern, place):
            return what, to_whom, why.replace("PLACE", place)
    return None


def _fits(pattern: str, place: str) -> bool:
    return re.fullmatch(pattern, place, re.IGNORECASE) is not None


def _differ(old: Tree, new: Tree, place: str, come: list[Leaf], gone: list[Leaf]) -> None:
    if old == new:
        return
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        for key in {**old, **new}:
            _differ(old.get(key, _ABSENT), new.get(key, _ABSENT), _below(place, key), come, gone)
    elif isinstance(old, list) and isinstance(new, list):
        _lists(old, new, f"{place}[]", come, gone)
    else:
        come += _leaves(new, place)
        gone += _leaves(old, place)


def _lists(old: list[Tree], new: list[Tree], place: str, come: list[Leaf], gone: list[Leaf]) -> None:
    left = list(old)
    fresh: list[Tree] = []
    for item in new:
        if item in left:
            left.remove(item)
        else:
            fresh.append(item)
    for item in fresh:
        like = max(left, key=lambda other: _alike(other, item), default=None)
        if like is None or not _alike(like, item):
            come += _leaves(item, place)
        else:
            left.remove(like)
            _differ(like, item, place, come, gone)
    for item in left:
        gone += _leaves(item, place)


def _alike(one: Tree, other: Tree) -> int:
    if not (isinstance(one, Mapping) and isinstance(other, Mapping)):
        return 0
    left, right = Counter(_leaves(one, "")), Counter(_leaves(other, ""))
    return (left & right).total()


def _leaves(value: Tree, place: str) -> list[Leaf]:
    if value is _ABSENT:
        return []
    if isinstance(value, Mapping) and value:
        return [leaf for key, item in value.items() for leaf in _leaves(item, _below(place, key))]
    if isinstance(value, list) and value:
        return [leaf for item in value for leaf in _leaves(item, f"{place}[]")]
    return [(place, "" if isinstance(value, Mapping | list) else "null" if value is None else str(value))]


def _below(place: str, key: str) -> str:
    """Give the place of a key. A key that holds what separates places does not look like several."""
    name = key.replace(".", "\u2027").replace("[]", "\u25a1")
    return f"{place}.{name}" if place else name


def _told(effect: File, come: Sequence[Leaf], gone: Sequence[Leaf]) -> str:
    if effect.change.op == "deleted":
        return "it is taken away, and nobody gains by that"
    if not come and not gone:
        return "only comments, order or layout differ"
    if not come:
        return "it only takes away"
    return f"what is new ({', '.join(sorted({place for place, _ in come})[:3])}) gives nobody a power"


# ------------------------------------------------------------------------------------------------------------ readers


def _node(node: yaml.Node, left: list[int], depth: int) -> Tree:
    left[0] -= 1
    if left[0] < 0 or depth > _DEPTH:
        raise Unreadable("it holds too much, or nests too deep, to be looked through")
    if isinstance(node, yaml.ScalarNode):
        return _scalar(node)
    if isinstance(node, yaml.SequenceNode):
        return [_node(item, left, depth + 1) for item in node.value]
    found: dict[str, Tree] = {}
    merged: list[Mapping[str, Tree]] = []
    for key, value in node.value:
        if not isinstance(key, yaml.ScalarNode):
            raise Unreadable("one of its keys is no text")
        name, item = str(key.value), _node(value, left, depth + 1)
        if key.tag == "tag:yaml.org,2002:merge":
            merged += item if isinstance(item, list) else [item]
        elif name in found:
            raise Unreadable("it has the same key twice")
        else:
            found[name] = item
    for base in merged:
        if not isinstance(base, Mapping):
            raise Unreadable("it merges what is no mapping")
        found = {**base, **found}
    return found


def _scalar(node: yaml.ScalarNode) -> str | None:
    text = str(node.value)
    if not node.tag.startswith("tag:yaml.org,2002:") or node.tag.startswith("tag:yaml.org,2002:python"):
        return f"{node.tag} {text}"
    if node.style is None:
        return None if node.tag.endswith(":null") else text
    plain = yaml.SafeLoader("").resolve(yaml.ScalarNode, text, (True, False))  # type: ignore[no-untyped-call]
    return text if plain == "tag:yaml.org,2002:str" or node.style in "|>" else f'"{text}"'


def _json(text: str) -> Tree:
    return _plain(json.loads(text, object_pairs_hook=_unique, parse_int=str, parse_float=str, parse_constant=str))


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("the same key twice")
    return found


def _plain(value: Any, depth: int = 0) -> Tree:
    if depth > _DEPTH:
        raise Unreadable("it nests too deep to be looked through")
    if isinstance(value, Mapping):
        return {str(key): _plain(item, depth + 1) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item, depth + 1) for item in value]
    if isinstance(value, bool):
        return str(value).lower()
    return value if value is None else str(value)


_STRING: Final = r'"(?:[^"\\\n]|\\.)*"'
_COMMENT: Final = re.compile(rf"({_STRING})|//[^\n]*|/\*.*?\*/", re.DOTALL)
_COMMA: Final = re.compile(rf"({_STRING})|,(?=\s*[}}\]])")


def _uncommented(text: str) -> str:
    cleaned = _COMMENT.sub(lambda found: found[1] or " ", text)
    return _COMMA.sub(lambda found: found[1] or "", cleaned)
