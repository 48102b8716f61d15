"""Slots: what a mandate's issuer bound to one argument; and where a value was seen, which some slots ask for.

In:   a value as the tool would be given it, its kind, its origins. Out: whether the slot takes it.
May import: `canon`. Must not know: who issued it, what was spent, what else the line binds.
A slot is a set of values, a parsed pattern, an upper bound of an amount, names that the request mentions, or a named field of a named
source. Each takes the canonical value, never its text, and refuses what it does not understand.
Source: CONTAINMENT.md, clauses 11, 12, 15.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from fnmatch import fnmatchcase
from typing import Any, Final

from midwatch.containment.canon import Canonical, amount, canonical, host, plain_name, stem, url_parts, words
from midwatch.records.label import Label

__all__ = [
    "REQUEST",
    "FromField",
    "Mentioned",
    "OfWords",
    "OneOf",
    "Origin",
    "Pattern",
    "Slot",
    "Template",
    "UpTo",
    "accepts",
    "narrower",
    "one_of",
]

REQUEST: Final = "request"
_NAMES: Final = frozenset({"name", "title"})
_SEPARATOR: Final = re.compile(r"[/\\]")


@dataclass(frozen=True, slots=True)
class Origin:
    """One place where exactly this value stood whole.

    Attributes:
        tool: whose result it was; `request` for the request itself.
        arguments: of that call, by name: the value, and where that value itself had stood; what a named source is recognised by.
        path: dotted path of the field. inside: it stood as one typed word (an address, an account) within the field's text.
        label: of the field.
    """

    tool: str
    path: str
    label: Label
    arguments: Mapping[str, tuple[Any, tuple[Origin, ...]]] = field(default_factory=dict, hash=False)
    inside: bool = False


@dataclass(frozen=True, slots=True)
class OneOf:
    """A value, or an enumerated set of them."""

    values: frozenset[Canonical]


@dataclass(frozen=True, slots=True)
class Pattern:
    """A parsed pattern: `https://*.example.org/docs/**`, `reports/**`, `*@example.org`, `*.example.org`.

    Attributes:
        kind: `url`, `path`, `email` or `host`; a pattern of any other kind takes nothing.
    """

    kind: str
    text: str


@dataclass(frozen=True, slots=True)
class UpTo:
    """An amount from 0 to `most`."""

    most: Decimal


@dataclass(frozen=True, slots=True)
class Mentioned:
    """A name that the issuer's text mentions, as whole words in this order.

    Attributes:
        names: each as its words. exact: upper and lower case count, as they do to many services; else `names` are in lower case.
    """

    names: frozenset[tuple[str, ...]]
    exact: bool = True


@dataclass(frozen=True, slots=True)
class OfWords:
    """A title that is made of the issuer's own words, in any order and with any ending, and of nothing else."""

    stems: frozenset[str]


@dataclass(frozen=True, slots=True)
class Template:
    """A title with gaps that the issuer's text spells out, such as `Dinner at {restaurant}`: the words around the gaps, in order.

    A gap holds 1 to `GAP` words. Whoever fills it chooses them; a title is seen and not acted upon, so that is the residual.
    """

    parts: tuple[tuple[str, ...], ...]


@dataclass(frozen=True, slots=True)
class FromField:
    """A named source field: `recipient from files.read(path="bill.txt") account`.

    Attributes:
        tool: whose result. path: of the field; it covers what lies below it.
        where: per argument of that call, slots one of which it must satisfy; no key, no bound.
        inside: also one typed word within the field's text. Whoever writes that field chooses the value: that is the residual.
    """

    tool: str
    path: str
    where: tuple[tuple[str, tuple[Slot, ...]], ...] = ()
    inside: bool = False


Slot = OneOf | Pattern | UpTo | Mentioned | OfWords | Template | FromField
GAP: Final = 8


def one_of(*values: Any, kind: str | None = None) -> OneOf:
    """Enumerate values; what is nothing of that kind is left out, and a slot without values takes nothing."""
    made = (canonical(value, kind) for value in values)
    return OneOf(frozenset(item for item in made if item is not None))


def accepts(slot: Slot, value: Any, kind: str | None = None, origins: Iterable[Origin] = ()) -> bool:
    """Say whether the slot takes this value."""
    if isinstance(slot, UpTo):
        number = amount(value)
        return number is not None and number <= slot.most
    if isinstance(slot, Mentioned):
        # Only what is declared to be a name is one: a mentioned word is no address, account, amount or command.
        named = (kind or "").partition(":")[0] in _NAMES and isinstance(value, str)
        if not named or (not plain_name(value) if slot.exact else _SEPARATOR.search(value)):
            return False
        return words(value, fold=not slot.exact) in slot.names
    if isinstance(slot, OfWords):
        return (
            kind == "title"
            and isinstance(value, str)
            and bool(words(value))
            and set(map(stem, words(value))) <= slot.stems
        )
    if isinstance(slot, Template):
        return kind == "title" and isinstance(value, str) and _filled(slot.parts, words(value))
    if isinstance(slot, FromField):
        return any(_stands(slot, origin) for origin in origins)
    if isinstance(slot, Pattern):
        matches = None if _leads_back(value, slot.kind) else _MATCHERS.get(slot.kind)
        return matches is not None and isinstance(value, str) and matches(slot.text, value)
    return not _leads_back(value, kind) and canonical(value, kind) in slot.values


def narrower(child: Slot, parent: Slot) -> bool:
    """Say whether everything that `child` takes, `parent` takes: proven, not guessed, so `False` when in doubt."""
    if child == parent:
        return True
    if isinstance(child, OneOf) and isinstance(parent, OneOf):
        return child.values <= parent.values
    if isinstance(child, OneOf) and isinstance(parent, Pattern):
        return bool(child.values) and all(
            value.kind == parent.kind and accepts(parent, value.value, value.kind) for value in child.values
        )
    if isinstance(child, UpTo) and isinstance(parent, UpTo):
        return child.most <= parent.most
    if isinstance(child, Mentioned) and isinstance(parent, Mentioned):
        return child.exact == parent.exact and child.names <= parent.names
    return False


def _leads_back(value: Any, kind: str | None) -> bool:
    """Say whether a path goes up again on its way: where that leads depends on links."""
    return isinstance(value, str) and (kind or "").partition(":")[0] == "path" and ".." in value.split("/")


def _filled(parts: tuple[tuple[str, ...], ...], found: tuple[str, ...]) -> bool:
    """Say whether the words are the parts in order, the first at the start and the last at the end, with a short gap between two."""
    first, *rest = parts
    reached = {len(first)} if found[: len(first)] == first else set()
    for part in rest:
        reached = {
            at + gap + len(part)
            for at in reached
            for gap in range(1, GAP + 1)
            if at + gap <= len(found) and found[at + gap : at + gap + len(part)] == part
        }
    return len(found) in reached


def _stands(slot: FromField, origin: Origin) -> bool:
    below = slot.path in {"", origin.path} or origin.path.startswith(f"{slot.path}.")
    if origin.tool != slot.tool or not below or (origin.inside and not slot.inside):
        return False
    return all(name in origin.arguments and _given(options, origin.arguments[name]) for name, options in slot.where)


def _given(options: tuple[Slot, ...], given: tuple[Any, tuple[Origin, ...]]) -> bool:
    value, origins = given
    for slot in options:
        kinds: set[str | None] = {item.kind for item in slot.values} if isinstance(slot, OneOf) else {"name"}
        if any(accepts(slot, value, kind, origins) for kind in kinds):
            return True
    return False


def _url(pattern: str, text: str) -> bool:
    """Match part by part; a pattern without a query allows none, because a query carries data out."""
    scheme, _, rest = pattern.partition("://")
    name, slash, path = rest.partition("/")
    wanted, _, port = name.partition(":")
    parts = url_parts(text)
    if parts is None or not rest or (port and not port.isdigit()):
        return False
    usual = {"http": 80, "https": 443}.get(scheme, -1)
    return (
        parts[0] == scheme.lower()
        and _host_fits(wanted, parts[1])
        and parts[2] == (int(port) if port else usual)
        and _path_fits(f"/{path}" if slash else "/**", parts[3])
        and parts[4] == ""
    )


def _host(pattern: str, text: str) -> bool:
    name = host(text)
    return name is not None and _host_fits(pattern, name)


def _host_fits(pattern: str, name: str) -> bool:
    if pattern.startswith("*."):
        base = host(pattern[2:])
        return base is not None and name.endswith(f".{base}")
    return host(pattern) == name


def _file(pattern: str, text: str) -> bool:
    found = canonical(text, "path")
    return found is not None and _path_fits(pattern, found.value)


def _path_fits(pattern: str, path: str) -> bool:
    """Match segment by segment: `*` stays within one, `**` spans any number of them."""
    return _segments(tuple(pattern.split("/")), tuple(path.split("/")))


def _segments(pattern: tuple[str, ...], path: tuple[str, ...]) -> bool:
    # One row of a table instead of recursion: many `**` must not take time without bound.
    reached = {0}
    for part in pattern:
        if part == "**":
            reached = set(range(min(reached), len(path) + 1)) if reached else set()
        else:
            reached = {at + 1 for at in reached if at < len(path) and fnmatchcase(path[at], part)}
    return len(path) in reached


def _address(pattern: str, text: str) -> bool:
    local, _, domain = pattern.rpartition("@")
    found = canonical(text, "email")
    if found is None or not local:
        return False
    mine, _, theirs = found.value.rpartition("@")
    return fnmatchcase(mine, local) and _host_fits(domain, theirs)


_MATCHERS: Final = {"url": _url, "host": _host, "path": _file, "email": _address}
