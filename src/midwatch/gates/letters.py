r"""Letters: one plain form for every way of drawing the same word.

In:   any text. Out: the same text without invisible characters, look-alikes, accents and case; and the readings of letter games
(leetspeak, letters set apart, words broken by punctuation or written backwards).
May import: the standard library. Must not know: which words matter, what a shell or an encoding is.
Why a table of our own: only look-alikes of the Latin letters are of use here, and what is folded too far costs a false alarm at
worst, since every reading is also read unfolded.

    clean(text)     NFKC, invisible characters gone, quotes, dashes and slashes plain; case stays, for encodings need it;
                    so does `\x01`, which `gates.shellwords` writes for a blank inside a word
    fold(cleaned)   look-alikes Latin, accents gone, lower case
    games(folded)   (word, layer) of letter games
"""

from __future__ import annotations

import itertools
import re
import unicodedata
from collections.abc import Iterable, Iterator

__all__ = ["GAMES", "clean", "fold", "games", "humps", "tall"]

GAMES = frozenset({"leet", "reversed", "rot13", "spaced", "split"})

_INVISIBLE = re.compile(r"[\x00\x02-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u115f\u1160\u3164\uffa0]")
_ANSI = re.compile(r"\x1b\[[0-9;?]{0,16}[A-Za-z]")
_HUMP = re.compile(r"(?<=[a-z])(?<!0x)(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")
_HUMPED = re.compile(r"[a-z][A-Z]|[A-Z][A-Z][a-z]")
_TALL = re.compile(r"(?<=[a-z])I(?=[a-z])")
_LONG = re.compile(r"[A-Za-z0-9+/=_-]{24,}")

_PLAIN = {
    **dict.fromkeys(map(ord, "\u2010\u2011\u2012\u2013\u2014\u2015\u2212\ufe58\ufe63\uff0d"), "-"),
    **dict.fromkeys(map(ord, "\u2018\u2019\u201a\u201b\u2032\u02b9\u02bc\uff07"), "'"),
    **dict.fromkeys(map(ord, "\u201c\u201d\u201e\u201f\u2033\uff02"), '"'),
    **dict.fromkeys(map(ord, "\u2044\u2215\u29f8"), "/"),
    **dict.fromkeys(map(ord, "\u2028\u2029\u0085"), "\n"),
    0x2800: " ",
}
_TAGS = {0xE0000 + code: chr(code) for code in range(0x20, 0x7F)}
_BOXED = {start + n: chr(97 + n) for start in (0x1F150, 0x1F170, 0x1F1E6) for n in range(26)}

# Each string pairs a look-alike with the letter it stands for. Capitals first: a capital may look like another letter than its
# small form does (Greek nu, upsilon and eta).
_PAIRS = (
    "АA ВB СC ЕE НH ІI ЈJ КK МM ОO РP ЅS ТT УY ХX ԀD ԌG ҮY ӀI ЄE ИN ЯR ДA ЬB ПN ГR "
    "ΑA ΒB ΕE ΖZ ΗH ΙI ΚK ΜM ΝN ΟO ΡP ΤT ΥY ΧX ΔD ΛA ΣE ΠN "
    "аa вb сc ԁd еe ѐe һh іi їi јj кk ӏl мm нh оo рp ԛq гr ѕs тt ѵv ԝw хx уy үy пn ьb єe эe иn яr дa цu ԍg ҽe "
    "αa βb γy δd εe ηn ιi κk λl μm νv οo πn ρp σo ςs τt υu χx ωw ϲc ϳj ϵe ϱp "
    "օo սu հh ոn ցg եt զq յj "
    "ıi ȷj ɑa ɐa ɡg ɢg ɩi ɪi ʟl ʀr ɴn ʜh ʏy ꜱs ᴀa ʙb ᴄc ᴅd ᴇe ᴊj ᴋk ᴍm ᴏo ᴘp ᴛt ᴜu ᴠv ᴡw ᴢz ꜰf "
    "øo đd łl ħh ŧt ƀb ɓb ɗd ƌd ɖd ƥp ɛe ǝe əe ℮e ∂d ɾr ɼr ʇt ŀl ɫl ɭl ƚl ƞn ŋn ɳn ƈc ɕc ʋu ɏy ƴy ɨi ɵo "
    "ÐD ĐD ŁL ØO ŦT ƁB ƊD ƤP ƬT Ꭰd Ꭼe Ꮮl Ꭲt Ꮲp Ꭱr Ꭺa Ᏼb Ꮯc Ꮪs Ꭵi Ꮃw Ꮇm Ꮋh Ꮐg Ꭻj Ꮶk Ꮓz Ꮩv "
    "∃E ∀A ∪U ∩N ∈E ∑E ∧A ∨V ⊥T "
    "ꓐB ꓑP ꓒd ꓓD ꓔT ꓖG ꓗK ꓙJ ꓚC ꓜZ ꓝF ꓟM ꓠN ꓡL ꓢS ꓣR ꓦV ꓧH ꓪW ꓫX ꓬY ꓮA ꓰE ꓲI ꓳO ꓴU"
)
_ALIKE = {ord(pair[0]): pair[1].lower() for pair in _PAIRS.split()}

_LEET = str.maketrans("0345789@$€£+", "oeastbgaseet")
_EITHER = {"1": "li", "!": "il", "|": "li", "6": "gb"}
_COLOUR = re.compile(r"(?<=[:\s])#(?:[0-9a-f]{3}){1,2}(?![0-9a-z])")
_LEET_RUN = re.compile(r"[\w@$!|+€£]+(?:[-.*~^/]{1,2}[\w@$!|+€£]+){0,12}")
_LEETISH = re.compile(r"[0-9@$!|+€£]")
_SPACED = re.compile(r"(?<![a-z0-9@$])[a-z0-9@$]([^a-z0-9@$]{1,3})[a-z0-9@$](?:\1[a-z0-9@$]){2,40}(?![a-z0-9@$])")
_LOOSE = re.compile(r"(?<![a-z0-9@$])[a-z0-9@$](?:[^a-z0-9@$]{1,3}[a-z0-9@$]){3,80}(?![a-z0-9@$])")
_TOKEN_MARK = re.compile(r"[-.*~^/]+")
_MARK = re.compile(r"[-_.*~^/]+")
_LONG_WORDS = ("delete", "deploy", "database", "production", "billing")
# What nobody writes forwards: the five words and their commonest forms, from their ends.
_BACKWARDS = ("eteled", "noiteled", "gniteled", "yolped", "esabatad", "noitcudorp", "gnillib")
# Nor in the alphabet's other half.
_ROTATED = ("qryrg", "qrcybl", "qngnonfr", "cebqhpgvba", "ovyyvat")
_ROT13 = str.maketrans("abcdefghijklmnopqrstuvwxyz", "nopqrstuvwxyzabcdefghijklm")
_RUN = re.compile(r"[a-z]+")
_SPACED_GAP = re.compile(r"[^a-z0-9@$]+")
_SPLIT = re.compile(r"(?<![a-z])[a-z]+(?:([^\w\s\x01/]{1,3}|_{1,2})[a-z]+)(?:\1[a-z]+){0,12}(?![a-z])")
_AT_END = re.compile(r"[-=\\]\n")
_BREAK = re.compile(r"(?<![a-z])([a-z]{1,20})[-=\\]\n[ \t]{0,40}([a-z]{1,20})")


def clean(text: str) -> str:
    """Take away what nobody sees and write look-alike punctuation plainly. Case, letters and line breaks stay."""
    if "\x1b" in text:
        text = _ANSI.sub("", text)
    if "\x08" in text:
        text = _typed(text)
    if text.isascii():
        return text if text.isprintable() else _INVISIBLE.sub("", text)
    text = unicodedata.normalize("NFKC", text.translate(_TAGS)).translate(_PLAIN)
    return "".join(c for c in _INVISIBLE.sub("", text) if c.isascii() or unicodedata.category(c) not in {"Cf", "Me"})


def fold(text: str) -> str:
    """Write a clean text in plain lower-case Latin letters as far as it can be read so."""
    if text.isascii():
        return text.lower()
    plain = unicodedata.normalize("NFD", text.translate(_BOXED))
    plain = "".join(c for c in plain if c.isascii() or unicodedata.category(c) != "Mn")
    return unicodedata.normalize("NFC", plain.translate(_ALIKE).casefold().translate(_ALIKE))


def humps(text: str) -> str:
    """Set the words of `camelCase` apart: `dropUserDb` is `drop_User_Db`. Encoded data has no words."""
    return _HUMP.sub("_", _LONG.sub(_unless_data, text)) if _HUMPED.search(text) else text


def _unless_data(match: re.Match[str]) -> str:
    run = match[0]
    data = len(_HUMP.findall(run)) > len(run) / 6 and sum(map(str.isdigit, run)) > 1
    return run.lower() if data else run


def tall(text: str) -> str:
    """Read a capital i between small letters as the l that it looks like; empty where there is none."""
    return _TALL.sub("l", text) if _TALL.search(text) else ""


def games(folded: str) -> Iterator[tuple[str, str]]:
    """Undo letter games in a folded text.

    Yields:
        (word, layer), layer one of `GAMES`; only the words concerned, since the rest is read elsewhere. `leet` also
        reads what was set apart: `d 3 l 3 t 3`.
    """
    loose = [match[0] for match in _LOOSE.finditer(folded)]
    spaced = dict.fromkeys(_SPACED_GAP.sub("", match[0]) for match in _SPACED.finditer(folded)) if loose else {}
    yield from ((word, "spaced") for word in spaced)
    for word in dict.fromkeys(_SPACED_GAP.sub("", run) for run in loose):
        if word not in spaced:
            spaced[word] = None
            yield word, "spaced"
            yield from ((long, "spaced") for long in _LONG_WORDS if long in word)
    parted = {match[0]: match for match in _SPLIT.finditer(folded)}
    yield from ((word, "split") for match in parted.values() for word in _joined(match))
    yield from ((match[1] + match[2], "split") for match in _BREAK.finditer(folded if _AT_END.search(folded) else ""))
    if _LEETISH.search(folded):
        yield from _leet(_COLOUR.sub(" ", folded) if "#" in folded else folded, spaced)
    for said in (folded, *spaced):
        if len(said) > 5:
            yield from _turned(said)


def _turned(said: str) -> Iterator[tuple[str, str]]:
    if any(word in said for word in _BACKWARDS):
        yield from ((run[::-1], "reversed") for run in _RUN.findall(said))
    if any(word in said for word in _ROTATED):
        yield from ((run.translate(_ROT13), "rot13") for run in _RUN.findall(said))


def _leet(folded: str, spaced: Iterable[str]) -> Iterator[tuple[str, str]]:
    tokens: dict[str, None] = {}
    for run in dict.fromkeys(_LEET_RUN.findall(folded)):
        if _LEETISH.search(run):
            tokens.update(dict.fromkeys(_TOKEN_MARK.split(run)))
            parts = _MARK.split(run) if len(run) < 64 else ()
            # Pieces of a word: `d3-l3-t3`, `de.l3.te`; longer ones are words of their own.
            if 1 < len(parts) < 11 and max(map(len, parts)) < 7:
                tokens["".join(parts)] = None
    tokens.update(dict.fromkeys(spaced))
    for token in tokens:
        if 4 <= len(token) <= 24 and _LEETISH.search(token):
            yield from ((word, "leet") for word in _unleet(token))


def _typed(text: str) -> str:
    # A backspace takes the character before it away, as a terminal shows it.
    shown: list[str] = []
    for char in text:
        if char != "\x08":
            shown.append(char)
        elif shown:
            shown.pop()
    return "".join(shown)


def _joined(match: re.Match[str]) -> Iterator[str]:
    # Two to four parts that stand together, and all of them.
    gap = match[1]
    parts = [part for part in match[0].split(gap) if part]
    for size in range(2, min(len(parts), 4) + 1):
        for start in range(len(parts) - size + 1):
            # `data.base` is a module; only a hyphen or the like makes them one word.
            if gap.isascii() and gap not in "-_*~^`" and parts[start : start + 2] == ["data", "base"]:
                continue
            yield "".join(parts[start : start + size])
    if len(parts) > 4:
        yield "".join(parts)


def _unleet(token: str) -> Iterator[str]:
    if sum(char.isalpha() for char in token) < 2:
        return
    places = [n for n, char in enumerate(token) if char in _EITHER]
    if len(places) > 4:
        for pick in (0, 1):
            yield "".join(_EITHER[c][pick] if c in _EITHER else c for c in token).translate(_LEET)
        return
    letters = list(token.translate(_LEET))
    for choice in itertools.product(*(_EITHER[token[n]] for n in places)):
        for place, letter in zip(places, choice, strict=True):
            letters[place] = letter
        yield "".join(letters)
