r"""SQL words: a text of statements as words, in every reading that a database could have of it.

In:   a text. Out: for each reading its statements, as words.
May import: facts. Must not know: what any statement does.
Why no parser of one dialect: what is a comment, a text or a name differs between databases (`--x`, `#`, `/*! */`, `$$`, `"`, the
backslash), and which one will run it is not always known. All readings are judged; one that grants is enough, and one in which a text
does not end is unreadable.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from midwatch.containment.authority.facts import Unreadable

__all__ = ["Statement", "Word", "readings"]

_MOST: Final = 200_000
_WORDS: Final = 40_000


@dataclass(frozen=True, slots=True)
class Word:
    """One token. `kind`: `word` (upper case), `name` (as written within quotes), `text`, `mark`, `body` (between dollars)."""

    kind: str
    text: str


Statement = tuple[Word, ...]


@dataclass(frozen=True, slots=True)
class _Reading:
    escapes: bool
    hashes: bool
    dashes: bool  # `--` begins a comment whatever follows
    nested: bool
    dollars: bool
    brackets: bool
    runs: bool  # `/*! … */` is run


_READINGS: Final = (
    _Reading(escapes=False, hashes=False, dashes=True, nested=True, dollars=True, brackets=False, runs=False),
    _Reading(escapes=True, hashes=True, dashes=False, nested=False, dollars=False, brackets=False, runs=True),
    _Reading(escapes=False, hashes=False, dashes=True, nested=False, dollars=False, brackets=True, runs=False),
)
_WORD: Final = re.compile(r"[^\W\d]\w*", re.UNICODE)
_LINE: Final = re.compile(r"[\r\n]")
_NUMBER: Final = re.compile(r"\d[\w.]*")
_DOLLAR: Final = re.compile(r"\$(?:[^\W\d]\w*)?\$")


def readings(text: str) -> Iterator[tuple[Statement, ...]]:
    """Give the statements in each reading that differs from the ones before.

    Raises:
        Unreadable: it is too long, or does not end in the reading of any database.
    """
    if len(text) > _MOST or "\0" in text:
        raise Unreadable("it is too long, or no text, to be read as statements")
    seen: list[tuple[Statement, ...]] = []
    broken = 0
    for reading in _READINGS:
        try:
            found = tuple(_statements(_words(text, reading)))
        except Unreadable:
            broken += 1
            continue
        if found not in seen:
            seen.append(found)
            yield found
    if broken:
        raise Unreadable("for some database it has a text or a comment that does not end")


def _statements(words: Iterator[Word]) -> Iterator[Statement]:
    found: list[Word] = []
    for count, word in enumerate(words):
        if count > _WORDS:
            raise Unreadable("it has too many words to be looked through")
        if word == Word("mark", ";"):
            if found:
                yield tuple(found)
            found = []
        else:
            found.append(word)
    if found:
        yield tuple(found)


def _words(text: str, reading: _Reading) -> Iterator[Word]:
    at = 0
    while at < len(text):
        char, two = text[at], text[at : at + 2]
        if char.isspace():
            at += 1
        elif _comment_line(text, at, reading):
            line = _LINE.search(text, at)
            at = len(text) if line is None else line.end()
        elif two == "/*":
            inner, at = _comment(text, at, reading)
            if inner is not None:
                yield from _words(inner, reading)
        elif char in "'\"`" or (char == "[" and reading.brackets):
            body, at = _quoted(text, at, reading)
            yield Word("text" if char == "'" else "name", body)
        elif reading.dollars and (mark := _DOLLAR.match(text, at)):
            end = text.find(mark[0], mark.end())
            if end < 0:
                raise Unreadable("a text does not end")
            yield Word("body", text[mark.end() : end])
            at = end + len(mark[0])
        elif reading.dollars and two in ("E'", "e'"):
            body, at = _quoted(text, at + 1, _READINGS[1])
            yield Word("text", body)
        elif word := _WORD.match(text, at) or _NUMBER.match(text, at):
            yield Word("word" if not char.isdigit() else "text", word[0].upper())
            at = word.end()
        else:
            yield Word("mark", char)
            at += 1


def _comment_line(text: str, at: int, reading: _Reading) -> bool:
    if text[at] == "#":
        return reading.hashes
    if text[at : at + 2] != "--":
        return False
    return reading.dashes or not text[at + 2 : at + 3].strip()


def _comment(text: str, at: int, reading: _Reading) -> tuple[str | None, int]:
    runs = reading.runs and re.match(r"/\*M?!\d*", text[at : at + 12])
    depth, place = 1, at + 2
    while depth:
        close, deeper = text.find("*/", place), text.find("/*", place)
        if close < 0:
            raise Unreadable("a comment does not end")
        if reading.nested and 0 <= deeper < close:
            depth, place = depth + 1, deeper + 2
        else:
            depth, place = depth - 1, close + 2
    return (text[at + len(runs[0]) : place - 2] if runs else None), place


def _quoted(text: str, at: int, reading: _Reading) -> tuple[str, int]:
    close = "]" if text[at] == "[" else text[at]
    place, parts = at + 1, []
    while place < len(text):
        char = text[place]
        if char == "\\" and reading.escapes and close != "`":
            parts.append(text[place + 1 : place + 2])
            place += 2
        elif char == close:
            if text[place + 1 : place + 2] != close:
                return "".join(parts), place + 1
            parts.append(close)
            place += 2
        else:
            parts.append(char)
            place += 1
    raise Unreadable("a text does not end")
