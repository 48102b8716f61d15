r"""Canonical: every reading of a text that a target could see once disguises are undone.

In:   one text, as it stands in a tool call. Out: `Readings`: plain lower-case texts, each with the layers that were undone for it.
May import: gates.ciphers, gates.encodings, gates.shellwords. Must not know: which words matter, tools, roles, rules.
Why all readings instead of one: a disguise for one target is plain text for another (`%64` is a letter to a web server, two
digits to a shell), so nothing is ever replaced: the plain reading is always the first.

How: the cleaned text is read by a shell (`shell`), without comments and tags (`comments`), reversed or shifted where the text says
that somebody does so (`transform`), spelled out of codes that a reader knows (`cipher`), and decoded (`gates.encodings`). What these
give is read again, `DEPTH` levels deep, so that layers may lie in any order. Of every text the letter games (`leet`, `spaced`,
`split`, `reversed`, `alike`) are undone last.

Caps, so that the time is linear in the text and bounded in all:
    WINDOW   a text longer than twice this is read at its two ends only, this much of each: `windowed`
    LIMIT    a reading is no longer than this, the rest is left out: `truncated`
    COUNT    of texts that are read again; WORK, characters of them together: what is left over is not read: `truncated`
    DEPTH    what a further level would still change is not read: `truncated`
A text that is `truncated` or `windowed` has not been read whole; what follows from that is the caller's to say (`gates.floor`).
"""

from __future__ import annotations

import itertools
import re
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from urllib.parse import unquote

from midwatch.gates.ciphers import deciphered
from midwatch.gates.encodings import LAYERS, decode
from midwatch.gates.letters import clean, fold, games, humps, tall
from midwatch.gates.shellwords import shell

__all__ = ["COUNT", "DEPTH", "LIMIT", "WINDOW", "WORK", "Reading", "Readings", "readings"]

WINDOW = 65_536
LIMIT = 3 * WINDOW
COUNT = 48
WORK = 8 * WINDOW
DEPTH = 4

# Taking quotes, comments and pluses away ends somewhere; an encoding that is left over at the last level hides something.
_HARMLESS = frozenset({"shell", "concat", "comments", "transform", "cipher"})
_TAG = re.compile(r"<[^<>\n]{0,160}>")
_SET_IN = re.compile(r"\\[A-Za-z]{1,16}\*?\{([^{}\n]{0,80})\}")
_BOARD = re.compile(r"\[/?(?:b|i|u|s|color|size|font|url|code|quote|center)(?:=[^\]\n]{0,40})?\]", re.IGNORECASE)
_LINK = re.compile(r"\[([^\[\]\n]{1,40})\]\([^()\n]{0,120}\)")
_LINE_COMMENT = re.compile(r"(?:(?<=\w)--|--(?=\s))[^\n]{0,200}(?:\n|$)")
_WORD = re.compile(r"[\w+/=%&#\\-]+")
_CARET = re.compile(r"(?<=\w)[\^`](?=\w)")
_TURNED = re.compile(r"\brev\b|reverse|\[::-1\]")
_TURN_ME = re.compile(
    r"backwards?\b|in reverse|right[- ]to[- ]left|mirrored|from the (?:end|back)|"
    r"revers\w{0,2} (?:it|this|the |each|every|all)|(?:letters|order|text|word|string)s? reversed"
)
_SOFT = re.compile(r"=\r?\n")
_HEXED = re.compile(r"=[2-7][0-9A-Fa-f]")
_EQUALS = re.compile(r"(?<=[\w ])=(?=[2-7][0-9A-Fa-f])|(?<==[2-7][0-9A-Fa-f])=(?=[2-7][0-9A-Fa-f])")
_SHIFTED = re.compile(r"rot[-_ ]?13|n-z\S{0,4}a-m")
_TR_D = re.compile(r"\btr\s+-d\s+['\"]?([^'\"|;)]{1,20})")
_SED = re.compile(r"\bsed\s+(?:-\w{1,2}\s+)?['\"]?s([/|,#:])([^/|,#:\n]{1,20})\1([^/|,#:\n]{0,20})\1g?")
_FILLED = re.compile(r"\.format\(|%\s?\(|['\"]\s-f\s|format!|sprintf|formatted\(")
_SET = re.compile(r"\bset\s+\"?(\w{1,20})=([^&\n\"]{1,80}?)\s?(?=[&\n\"]|$)", re.IGNORECASE)
_LITERAL = re.compile(r"(?<!\w)(?:\$|let |var |const |my )?\b(\w{1,20})\s?=\s?([\"'])([^\"'\n]{1,80})\2")
_QUOTED = re.compile(r"=\s?[\"']")
_JOINS = re.compile(r"\w\s{0,2}(?:\+|\.|~|\|\|)\s{0,2}[$\w]|\$\{|f['\"]|join|concat")
_HOLE = re.compile(r"\{(\d?)\}|%s")
_SAID = re.compile(r"((?:(?:echo|printf|print)\s|<<<)\s{0,8})([^|;)\n]{1,400})")
_STRINGS = re.compile(r"[\"']([^\"'\n]{1,60})[\"']")
_ROT13 = str.maketrans(
    "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ", "nopqrstuvwxyzabcdefghijklmNOPQRSTUVWXYZABCDEFGHIJKLM"
)


@dataclass(frozen=True, slots=True)
class Reading:
    r"""One way to read the text.

    Attributes:
        text: folded: plain lower-case letters, blanks inside one shell word as `\x01`.
        layers: what was undone, outermost first; empty for the plain reading.
    """

    text: str
    layers: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The layers in words, `plain` where there is none."""
        return "+".join(self.layers) or "plain"


@dataclass(frozen=True, slots=True)
class Readings:
    """All readings of one text.

    Attributes:
        all: the plain one first, no two with the same text.
        truncated: some reading was left out or cut short.
        windowed: the middle of a very long text was not read.
    """

    all: tuple[Reading, ...]
    truncated: bool
    windowed: bool

    @property
    def texts(self) -> tuple[str, ...]:
        """The readings' texts."""
        return tuple(reading.text for reading in self.all)


@dataclass(slots=True)
class _Work:
    """What has been read so far, and what it has cost."""

    found: dict[str, Reading]
    queue: deque[tuple[str, tuple[str, ...], int]]
    seen: set[str]
    words: set[str]
    spent: int = 0
    truncated: bool = False

    def add(self, text: str, layers: tuple[str, ...]) -> None:
        if text and text not in self.found:
            self.found[text] = Reading(text, layers)

    def play(self, folded: str, layers: tuple[str, ...]) -> None:
        """Add what letter games say in a folded text and have not said before, one reading for each game."""
        said: dict[str, list[str]] = {}
        for word, game in games(folded):
            if word not in self.words:
                self.words.add(word)
                said.setdefault(game, []).append(word)
        for game, words in said.items():
            self.add("\n".join(words), (*layers, game))

    def again(self, text: str, layers: tuple[str, ...], level: int) -> None:
        """Have `text` read once more, within the caps."""
        if len(text) > LIMIT:
            text, self.truncated = text[:LIMIT], True
        if not text or text in self.seen:
            return
        if len(self.seen) >= COUNT or self.spent + len(text) > WORK:
            self.truncated = True
            return
        self.seen.add(text)
        self.spent += len(text)
        self.queue.append((text, layers, level))


def readings(text: str) -> Readings:
    """Read `text` in every way; never raises, whatever the text.

    Args:
        text: any string, lone surrogates included.
    """
    windowed = len(text) > 2 * WINDOW
    if windowed:
        text = f"{text[:WINDOW]}\n{text[-WINDOW:]}"
    work = _Work({}, deque(), set(), set())
    plain = clean(text.replace("\x01", ""))
    work.add(fold(plain), ())
    work.again(plain, (), 0)
    if "\u202e" in text:
        work.again(plain[::-1], ("bidi",), 0)
    while work.queue:
        one, layers, level = work.queue.popleft()
        folded = fold(one)
        work.add(folded, layers)
        if layers[-1:] == ("shell",):
            one = _fresh(one, plain)
            if not one:
                continue
            folded = fold(one)
        work.add(fold(humps(one)), layers)
        work.add(fold(tall(one)), (*layers, "alike"))
        work.play(folded, layers)
        for reading, names, complete in _undone(one, layers):
            work.truncated = work.truncated or not complete
            if level < DEPTH:
                work.again(reading, (*layers, *names), level + 1)
            elif reading not in work.seen:
                work.truncated = work.truncated or not _HARMLESS.issuperset(names)
                work.add(fold(reading), (*layers, *names))
    return Readings(tuple(work.found.values()) or (Reading(""),), work.truncated, windowed)


def _fresh(said: str, plain: str) -> str:
    """The lines of a shell's reading that may hold what was not read yet: a word that the text has not, or quotes within quotes."""
    words = set(_WORD.findall(plain))
    lines = dict.fromkeys(said.split("\n"))
    return "\n".join(line for line in lines if "'" in line or '"' in line or not words.issuperset(_WORD.findall(line)))


def _undone(text: str, layers: tuple[str, ...]) -> Iterator[tuple[str, tuple[str, ...], bool]]:
    # A shell's reading has read its own nested shells, and so on: once is enough until a decoding has uncovered something.
    since = set(layers[_decoded(layers) :])
    if "shell" not in since:
        said, complete = shell(text)
        if said or not complete:
            yield said, ("shell",), complete
    if "comments" not in since:
        bare = _without_comments(text)
        if bare != text:
            yield bare, ("comments",), True
    if "transform" not in since:
        for other in _transformed(text):
            yield other, ("transform",), True
    if not since:  # a shell or a browser spells nothing out
        for other in deciphered(text):
            yield other, ("cipher",), True
    decoded, names = decode(text)
    if names:
        yield clean(decoded), names, True


def _decoded(layers: tuple[str, ...]) -> int:
    return max((place + 1 for place, name in enumerate(layers) if name in LAYERS and name != "concat"), default=0)


def _without_comments(text: str) -> str:
    """Comments and tags taken out, once with nothing and once with a blank in their place."""
    bare = text
    if "/*" in text:
        bare = _blocks(bare)
    if "<" in bare and ">" in bare:
        bare = _TAG.sub("", bare)
    if "--" in bare and "\n" in bare:
        bare = _LINE_COMMENT.sub(" ", bare)
    if "\\" in bare and "{" in bare:
        bare = _SET_IN.sub(r"\1", _SET_IN.sub(r"\1", bare))
    if "[" in bare:
        bare = _BOARD.sub("", _LINK.sub(r"\1", bare))
    if "^" in bare or "`" in bare:
        bare = _CARET.sub("", bare)
    if bare == text:
        return text
    return f"{bare}\n{_blocks(text, ' ')}" if "/*" in text else bare


def _blocks(text: str, blank: str = "") -> str:
    # Found by `find`, not by a pattern: many openings without an end would cost the square of their number.
    said: list[str] = []
    at = 0
    while True:
        start = text.find("/*", at)
        end = text.find("*/", start + 2) if start >= 0 else -1
        if end < 0:
            said.append(text[at:])
            return "".join(said)
        said.append(text[at:start])
        inside = text[start + 2 : end]
        said.append(re.sub(r"^!\d{0,6}", "", inside) if inside.startswith("!") else blank)
        at = end + 2


def _transformed(text: str) -> Iterator[str]:
    lower = text.lower()
    if ("rev" in lower or "-1]" in lower) and _TURNED.search(lower):
        yield _SAID.sub(lambda match: match[1] + match[2][::-1], text)
        yield "\n".join(string[::-1] for string in _STRINGS.findall(text))
    if (
        "from the" in lower or "back" in lower or "rever" in lower or "mirr" in lower or "left" in lower
    ) and _TURN_ME.search(lower):
        yield text[::-1]
    if ("rot" in lower or "n-z" in lower) and _SHIFTED.search(lower):
        yield text.translate(_ROT13)
    taken = _TR_D.search(text) if "tr " in text else None
    if taken:
        table = dict.fromkeys(map(ord, taken[1]))
        yield _SAID.sub(lambda match: match[1] + match[2].translate(table), text)
    if "=" in text:
        yield from _assigned(text)
        mail = _SOFT.sub("", text)
        mail = unquote(_EQUALS.sub("%", mail), errors="replace") if _HEXED.search(mail) else mail
        if mail != text:
            yield mail
    if ("%" in text or "-f" in text or "format" in text) and _FILLED.search(text):
        yield _filled(_STRINGS.findall(text[:4096]))
    for found in _SED.finditer(text[:4096]) if "sed " in text else ():
        yield _SAID.sub(partial(_replaced, found[2], found[3]), text)


def _replaced(old: str, new: str, match: re.Match[str]) -> str:
    return match[1] + match[2].replace(old, new)


def _assigned(text: str) -> Iterator[str]:
    """`a='r'; b='m'; a+b` of programs, and `set a=r& %a%m` of the other system, with the values in the names' places."""
    head = text[:8192]
    if "%" in head:
        batch = dict(_SET.findall(head)[:32])
        if batch:
            yield re.sub(r"%(\w{1,20})%", lambda match: batch.get(match[1], match[0]), head)
    values = {name: value for name, _, value in _LITERAL.findall(head)[:32]} if _QUOTED.search(head) else {}
    if values and _JOINS.search(head):
        names = "|".join(sorted(map(re.escape, values), key=len, reverse=True))
        yield re.sub(rf"(?<![\w'\"])\$?\b({names})\b(?!\s*=|['\"\w])", lambda match: f"'{values[match[1]]}'", head)


def _filled(strings: list[str]) -> str:
    """`"{1}{0}" -f 'b','a'`, `"%s%s" % ("a", "b")`: each pattern with the strings after it, and all of them in a row."""
    said = ["".join(word for word in strings if not _HOLE.search(word))]
    for place, pattern in enumerate(strings[:64]):
        if _HOLE.search(pattern):
            said.append(_HOLE.sub(partial(_value, strings[place + 1 : place + 33], itertools.count()), pattern))
    return "\n".join(said)


def _value(values: list[str], counter: Iterator[int], hole: re.Match[str]) -> str:
    place = int(hole[1]) if hole[1] else next(counter)
    return values[place] if place < len(values) else ""
