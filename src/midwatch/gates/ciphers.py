r"""Ciphers: codes that no program decodes but any reader can: Morse, spelling alphabets, braille, numbers for letters, shifts, turns.

In:   a clean text. Out: what it says with one of these undone, nothing where none is in it.
May import: the standard library. Must not know: layers, tools, arguments.
Why: the reader that acts on a text may be a model, and a model reads all of these. Each is looked for only where a cheap sign of it
stands in the text; letters are shifted only where somebody says so, and they, like numbers, count only where they give one of the words.

Bounds: of a long text the first `HEAD` characters.
"""

from __future__ import annotations

import re
import string
from collections.abc import Iterator

__all__ = ["deciphered"]

HEAD = 8192

_CODES = ".- -... -.-. -.. . ..-. --. .... .. .--- -.- .-.. -- -. --- .--. --.- .-. ... - ..- ...- .-- -..- -.-- --.."
_MORSE = dict(zip(_CODES.split(" "), string.ascii_lowercase, strict=True))
_MORSE_RUN = re.compile(r"(?<![^\s\"'(:])[.-]{1,5}(?:[ \t]{1,4}(?:[/|][ \t]{0,3})?[.-]{1,5}){3,400}(?![^\s\"'),;!?])")
_NAMES = (
    "alpha bravo charlie delta echo foxtrot golf hotel india juliet kilo lima mike november oscar papa quebec romeo sierra tango "
    "uniform victor whiskey xray yankee zulu alfa juliett whisky x-ray"
)
_SPELLED = _NAMES.split(" ")
_SPELLED_RUN = re.compile(
    rf"\b(?:{'|'.join(_SPELLED)})(?:[^a-z]{{1,4}}(?:{'|'.join(_SPELLED)})){{3,60}}\b", re.IGNORECASE
)
_SPELLED_WORD = re.compile("|".join(sorted(_SPELLED, key=len, reverse=True)), re.IGNORECASE)
_FIRST, _LATER = ("delta", "papa", "bravo", "romeo"), ("echo", "oscar", "india", "mike", "alpha", "alfa")
_AS_IN = re.compile(r"\b([a-z])[\s,:]{1,3}(?:is for|as in|for|like|wie|comme|como|come)\s([a-z])", re.IGNORECASE)
_AS_IN_SIGNS = (" as in ", " for ", " like ", " wie ", " comme ", " como ", " come ")
_PLACES = re.compile(r"[1-9]\d?(?:[-, ./_|]{1,3}[1-9]\d?){5,400}(?!\d)")
_BRAILLE_RUN = re.compile("[\u2801-\u283f]{3,}")
_BRAILLE = dict(
    zip(
        (0x2800 + dots for dots in bytes.fromhex("01030919110b1b130a1a05070d1d150f1f170e1e25273a2d3d35")),
        string.ascii_lowercase,
        strict=True,
    )
)
_TURNED = "ǝʇɐɔɟɥɯɹʌʍʎʞᴉ"
_TURN = str.maketrans("ɐqɔpǝɟƃɓɥᴉɾʞןɯuodbɹsʇnʌʍxʎz", "abcdefgghijklmnopqrstuvwxyz")
_SHIFTED = re.compile(r"caesar|c[iy]pher|\bshift|\bletters?\b|\brot\W?\d{1,2}\b|atbash")
_SIGNS = ("caesar", "cipher", "cypher", "shift", "letter", "rot", "atbash")
_WORDS = re.compile(
    r"delet|deploy|database|production|billing|\brm -\w|\bdrop (?:table|database)|kubectl|truncate table"
)
_ALPHABET = string.ascii_lowercase
_SHIFTS = tuple(
    str.maketrans(_ALPHABET, other)
    for other in (*(_ALPHABET[n:] + _ALPHABET[:n] for n in range(1, 26)), _ALPHABET[::-1])
)


def deciphered(text: str) -> Iterator[str]:
    """Say what the text says to a reader who knows such codes, each code by itself."""
    text = text[:HEAD]
    lower = text.lower()
    if "- " in text and ". " in text:
        yield from (_morse(match[0]) for match in _MORSE_RUN.finditer(text))
    if any(name in lower for name in _FIRST) and any(name in lower for name in _LATER):
        yield from (_spelled(match[0]) for match in _SPELLED_RUN.finditer(text))
    if any(sign in lower and lower.count(sign) > 3 for sign in _AS_IN_SIGNS):
        yield "".join(letter for letter, first in _AS_IN.findall(lower) if letter == first)
    for found in _PLACES.finditer(text):
        said = "".join(_ALPHABET[place - 1] for place in map(int, re.findall(r"\d+", found[0])) if place <= 26)
        if _WORDS.search(said):
            yield said
    if any(sign in lower for sign in _SIGNS) and _SHIFTED.search(lower):
        yield from (said for said in map(lower.translate, _SHIFTS) if _WORDS.search(said))
    if text.isascii():
        return
    if _BRAILLE_RUN.search(text):
        yield text.translate(_BRAILLE)
    if any(letter in text for letter in _TURNED):
        yield text.translate(_TURN)[::-1]


def _morse(run: str) -> str:
    return "".join(" " if code in "/|" else _MORSE.get(code, "?") for code in run.replace("/", " / ").split())


def _spelled(run: str) -> str:
    return "".join(word[0].lower() for word in _SPELLED_WORD.findall(run))
