r"""Siblings: what a call says in several arguments together and in none of them alone.

In:   the texts of a call in their order, with the place and the role of each. Out: texts that a receiver could put together.
May import: the standard library. Must not know: which words matter, disguises, what a role means.
Why: a receiver may paste its arguments together (`left: dep, right: loy`), fill one with another (`env.X: rm, run: $X -rf`), or
take a list of numbers for letters. Each is a text that no argument holds.

Bounds: of a long text only its two ends can meet a neighbour, `EDGE` characters of each; `VALUES` names, values of `LENGTH`;
`FILLED` characters of filled texts in all.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence

__all__ = ["columns", "filled", "joined", "numbered"]

EDGE = 48
JOINED = 4096
VALUES, LENGTH = 128, 512
FILLED = 65_536
LETTERS = 4096
ROWS = 256

_HOLES = re.compile(r"[$%{]|__|<[A-Za-z]")
_USED = re.compile(
    r"\$\(?\{*!?([A-Za-z_]\w*)|\$env:(\w+)|%\(?([A-Za-z_]\w*)\)?[%s]|[{<]{1,3}[\s\x01]?[.$]?(?:\w+\.){0,3}([A-Za-z_]\w*)[^{}<>]{0,20}?[}>]{1,3}"
    r"|__([A-Za-z]\w*?)__|!([A-Za-z_]\w*)!"
)
_NAMED = re.compile(r"(?:export[ ]|set[ ]|\$env:|-e[ ]|--env[ =])?([A-Za-z_]\w{0,40})=(.{1,512})")
_BEGINS = re.compile(r"[A-Z][a-z]")  # a word of its own: Del, Eteweg 4
_NAME = re.compile(r"[A-Za-z_][\w-]{0,40}")


def joined(texts: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Join texts of one object or list: without anything between them, and apart by blanks.

    Args:
        texts: in their order; one alone is read by itself.

    Yields:
        (how, text), how `joined` or `beside`.
    """
    if len(texts) < 2:
        return
    ends = [text if len(text) <= 2 * EDGE else f"{text[:EDGE]}\n{text[-EDGE:]}" for text in texts]
    yield "joined", "".join(end if _BEGINS.match(end) is None else f"\n.\n{end}" for end in ends)[:JOINED]
    yield "beside", " ".join(ends)[:JOINED]


def columns(rows: Sequence[object]) -> Iterator[tuple[str, list[str]]]:
    """Give the texts that stand under one key in several objects of a list, unless it is always the same: (key, texts)."""
    table: dict[str, list[str]] = {}
    for row in rows[:ROWS]:
        for key, value in itertools.islice(row.items(), 16) if isinstance(row, Mapping) else ():
            if isinstance(value, str) and (key in table or len(table) < 16):
                table.setdefault(key, []).append(value)
    yield from ((str(key), texts) for key, texts in table.items() if len(set(texts)) > 1)


def numbered(values: Sequence[object]) -> str:
    """Read a list of numbers as the letters that they count, or write it in a row; empty where they are no text."""
    if all(type(value) is int and 1 <= value <= 26 for value in values[:LETTERS]):
        return "-".join(map(str, values[:LETTERS]))  # places in the alphabet, for who reads ciphers
    numbers = [value for value in values[:LETTERS] if type(value) is int and 9 <= value < 0x2FFF]
    return "".join(map(chr, numbers)) if len(numbers) == len(values[:LETTERS]) > 3 else ""


def filled(texts: Sequence[tuple[str, str]]) -> Iterator[tuple[int, str]]:
    """Fill the names that a text uses with what other arguments of the call give them.

    Args:
        texts: (last name, text) of each, in their order.

    Yields:
        (place, filled): once with the values in the names' places, and once behind assignments, for a shell to work out.
    """
    if sum(1 for name, _ in texts if name) < 2 or not any(_HOLES.search(text) for _, text in texts):
        return
    values = dict(_values(texts))
    spent = 0
    for place, (_, text) in enumerate(texts):
        used = {name for found in _USED.finditer(text) for name in found.groups() if name and name in values}
        spent += 2 * len(text) if used else 0
        if used and spent <= FILLED:
            said = _USED.sub(lambda found: _value(found, values), text)
            yield place, said
            if "$" in text:
                yield place, "\n".join([*(f"{name}={_quoted(values[name])}" for name in sorted(used)), text])


def _values(texts: Iterable[tuple[str, str]]) -> Iterator[tuple[str, str]]:
    count = 0
    for name, text in texts:
        found = _NAMED.fullmatch(text)
        pairs = [(found[1], found[2])] if found else []
        if "\n" in text and "=" in text:
            pairs.extend((line[1], line[2]) for line in _NAMED.finditer(text[:4096]))
        if _NAME.fullmatch(name) and len(text) <= LENGTH:
            pairs.append((name.replace("-", "_"), text))
        for pair in pairs:
            count += 1
            if count > VALUES:
                return
            yield pair


def _value(found: re.Match[str], values: dict[str, str]) -> str:
    name = next(filter(None, found.groups()))
    return values.get(name, found[0])


def _quoted(value: str) -> str:
    return "'" + value.replace("'", "'\\''") + "'"
