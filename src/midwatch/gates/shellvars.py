"""Shellvars: the values that a shell text gives its own variables, and brace expansion.

In:   names, assignments, expressions between `${` and `}`. Out: the text that the shell would put there; empty when unknown.
May import: the standard library. Must not know: how a shell text is cut into words.
Bounds: 256 variables, values of 4,096 characters, 64 words from one brace expansion.
"""

from __future__ import annotations

import re
from fnmatch import translate

__all__ = ["Variables", "braces"]

VARIABLES, LENGTH = 256, 4096
WORDS, ROUNDS = 64, 8

_NAMED = re.compile(r"(!?)([A-Za-z_]\w*|[0-9@*])(?:\[([^\]]{1,20})\])?(.*)", re.DOTALL)
_PART = re.compile(r":\s?(-?\d{1,4})(?::(-?\d{1,4}))?")
_GROUP = re.compile(r"\{([^{}]{0,2000})\}")
_RANGE = re.compile(r"([a-zA-Z])\.\.([a-zA-Z])")
_KNOWN = {
    "IFS": " ",
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME": "/root",
    "PWD": "/root",
    "SHELL": "/bin/bash",
    "BASH": "/bin/bash",
    "USER": "root",
    "LANG": "C.UTF-8",
}


class Variables:
    """What each name stands for at this point of the reading."""

    def __init__(self) -> None:
        self._values: dict[str, str] = dict(_KNOWN)
        self._arrays: dict[str, list[str]] = {}

    def assign(self, name: str, value: str, *, more: bool = False) -> None:
        """Set `name`, or add to it as `+=` does."""
        if len(self._values) < VARIABLES or name in self._values:
            self._values[name] = ((self._values.get(name, "") if more else "") + value)[:LENGTH]

    def array(self, name: str, words: list[str]) -> None:
        """Set an array, or with the name `@` the positional words."""
        if len(self._arrays) < VARIABLES or name in self._arrays:
            self._arrays[name] = words[:VARIABLES]

    def value(self, expression: str) -> str:
        """Evaluate what stands after `$`: `x`, `x:-rm`, `x:1:2`, `x//a/b`, `x[0]`, `!x`, `@`."""
        found = _NAMED.fullmatch(expression)
        if found is None:
            return ""
        indirect, name, index, operation = found.groups()
        value = self._plain(name, index)
        if indirect:
            value = self._plain(value, None)
        return _operated(value, operation)[:LENGTH] if operation else value

    def _plain(self, name: str, index: str | None) -> str:
        if name.isdigit() or name in {"@", "*"}:
            words = self._arrays.get("@", [])
            place = int(name) - 1 if name.isdigit() else None
            if place is None:
                return " ".join(words)
            return words[place] if 0 <= place < len(words) else ""
        if name in self._arrays:
            words = self._arrays[name]
            if index in {"@", "*"}:
                return " ".join(words)[:LENGTH]
            place = int(index) if index and re.fullmatch(r"-?\d{1,3}", index) else 0
            return words[place] if -len(words) <= place < len(words) else ""
        return self._values.get(name, "")


def _operated(value: str, operation: str) -> str:
    if operation[:2] in {":-", ":="} or operation[:1] in {"-", "="}:
        return value or operation.lstrip(":-=")
    if operation[:2] == ":+" or operation[:1] == "+":
        return operation.lstrip(":+") if value else ""
    part = _PART.fullmatch(operation)
    if part:
        start = int(part[1])
        value = value[start:] if start >= -len(value) else ""
        return value if part[2] is None else value[: int(part[2])]
    if operation[0] == "/":
        every = operation.startswith("//")
        old, _, new = operation.lstrip("/").partition("/")
        return value.replace(old, new, -1 if every else 1) if old else value
    if operation[0] in "#%":
        return _trimmed(value, operation)
    if operation[0] in "^,":
        changed = value.upper() if operation[0] == "^" else value.lower()
        return changed if len(operation) > 1 else changed[:1] + value[1:]
    return value


def _trimmed(value: str, operation: str) -> str:
    # `*` and `?` only; the shortest fit is enough, since a disguise trims what it put there itself.
    pattern = operation.lstrip("#%")
    if len(pattern) > 40 or pattern.count("*") > 2:
        return value
    fits = re.compile(translate(pattern))
    lengths = range(min(len(value), 200) + 1)
    if operation[0] == "#":
        cuts = [n for n in lengths if fits.match(value[:n])]
        return value[(max(cuts) if operation.startswith("##") else min(cuts)) :] if cuts else value
    cuts = [n for n in lengths if fits.match(value[len(value) - n :])]
    return value[: len(value) - (max(cuts) if operation.startswith("%%") else min(cuts))] if cuts else value


def braces(word: str) -> list[str]:
    """Expand `{a,b}` and `{a..c}`, innermost first, to at most `WORDS` words.

    Where there would be more, each group is expanded with the first choice of every other: what stands between braces is seen,
    though not beside everything it could stand beside.
    """
    if "{" not in word or ("," not in word and ".." not in word) or "}" not in word:
        return [word]
    words = [word]
    for _ in range(ROUNDS):
        spread = [choice for one in words for choice in _choices(one)]
        if len(spread) == len(words):
            return words
        if len(spread) > WORDS or sum(map(len, spread)) > LENGTH:
            return [*words[:WORDS], *_each(word)]
        words = spread
    return words


def _choices(word: str) -> list[str]:
    for found in _GROUP.finditer(word):
        options = _options(found[1])
        if options:
            return [word[: found.start()] + option + word[found.end() :] for option in options]
    return [word]


def _options(inside: str) -> list[str]:
    ends = _RANGE.fullmatch(inside)
    if ends:
        low, high = sorted((ord(ends[1]), ord(ends[2])))
        return [chr(code) for code in range(low, high + 1)]
    return inside.split(",") if "," in inside else []


def _each(word: str) -> list[str]:
    return [option for found in _GROUP.finditer(word[:LENGTH]) for option in _options(found[1])[:WORDS]][:WORDS]
