"""Encodings: what a text says once the targets that decode have decoded it, one layer of each kind at a time.

In:   a text. Out: the text with every encoded run replaced by what it encodes, and the names of the layers that did it.
May import: the standard library. Must not know: which words matter, what a shell is.
Why in place and again on a line of its own: `de$(echo bGV0ZQ== | base64 -d)` is one word only where it stands, and the command
inside `exec(b64decode("..."))` begins a line only by itself. What does not decode to text is left as it was: a hash stays a hash.

Layers, in the order they are tried: `html`, `url`, `quoted-printable`, `escapes`, `numbers` (CHAR(), chr(), fromCharCode, sums
in them, `%c`, decimal lists), `concat`, `base64`, `base85`, `base32`, `hex`, `binary`. An encoding inside an encoding takes another call.
"""

from __future__ import annotations

import binascii
import html
import re
import unicodedata
import zlib
from base64 import a85decode, b32decode, b85decode
from collections.abc import Callable
from urllib.parse import unquote

__all__ = ["LAYERS", "decode", "unescape"]

UNPACKED = 65_536  # bytes taken out of one compressed run, at most

_UNICODE_URL = re.compile(r"%u([0-9a-fA-F]{4})")
_PUNYCODE = re.compile(r"xn--([a-z0-9-]{2,60})")
_QUOTED = re.compile(r"(?:=[0-9A-F]{2}){2,}")
_ESCAPE = re.compile(
    r"\\(?:u\{([0-9a-fA-F]{1,6})\}|u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8})|x\{?([0-9a-fA-F]{2})\}?|0?([0-3][0-7]{2})|N\{([A-Za-z -]{3,60})\})"
)
_POINT = re.compile(r"U\+([0-9A-Fa-f]{4,6})")
_POINTS = re.compile(r"U\+[0-9A-Fa-f]{4,6}(?:[\s,;-]{0,2}U\+[0-9A-Fa-f]{4,6})*")
_NUMBER = r"(?:0x[0-9a-f]{2}|\d{1,3}\s?[-+*^]\s?\d{1,3}|\d{2,3})"
_CHR = re.compile(
    r"\bN?(?:chr|char|chr\$|chrw|unichr|fromcharcode|fromcodepoint|bytes|bytearray|uint8array\.from|pack)\s{0,2}\(\s{0,2}\[?"
    rf"\s{{0,2}}({_NUMBER}(?:\s{{0,2}},\s{{0,2}}{_NUMBER}){{0,400}})\s{{0,2}}\]?\s{{0,2}}\)",
    re.IGNORECASE,
)
_SUM = re.compile(r"(\d{1,3})\s?([-+*^])\s?(\d{1,3})")
_ORD = re.compile(r"\bord\(\s?([\"'])([!-~])\1\s?\)")
_CAST = re.compile(r"\[char\]\s?\(?(0x[0-9a-f]{2}|\d{2,3})\)?", re.IGNORECASE)
_CASTS = re.compile(rf"\[char\[\]\]\s?@?\(?\s?({_NUMBER}(?:\s?,\s?{_NUMBER}){{0,400}})\s?\)?", re.IGNORECASE)
_PRINTED = re.compile(
    r"([\"'])([^\"'%\n]{0,20}(?:%c[^\"'%\n]{0,20}){1,40})\1\s?[,%]\s?\(?\s?(\d{2,3}(?:\s?,\s?\d{2,3}){0,40})\s?\)?"
)
_TWO = re.compile(r"\d\d[,\s]\s?\d\d")
_DECIMALS = re.compile(r"(?<![\d.,-])(?:\d{2,3}(?:,\s?|\s)){3,2000}\d{2,3}(?![\d.])")
_CONCAT = re.compile(
    r"([\"'`])(?=[\s+|.~&<])(?:\s{0,8}(?:\+|\|\||\.|~|&|<>|\.concat\()\s{0,8}[\"'`]|(?<![\\ =:,([{][\"'])[ \t\n]{1,8}\1(?=\w))"
)
_LISTED = re.compile(r"[\"'`]\s{0,8},\s{0,8}[\"'`]")
_LISTING = re.compile(r"concat|join|implode|reduce|\bsum\(", re.IGNORECASE)
_INSERT = re.compile(r"\$?\{\s{0,4}(['\"`])([\w /.:-]{0,80})\1\s{0,4}\}")
_SHIFT = re.compile(r"([\"'])([^\"'\n]{2,400})\1\.replace(?:All)?\(([\"'])(.{1,8}?)\3,\s?([\"'])(.{0,8}?)\5\)")
_BASE64 = re.compile(
    r"(?<![A-Za-z0-9+/_-])(?=[a-z/_-]{0,80}[A-Z0-9+])(?:[A-Za-z0-9+/_-]{6,}|[A-Za-z0-9+/_-]{4,5}(?=\r?\n[A-Za-z0-9+/_-]{4}))(?:\r?\n[A-Za-z0-9+/_-]{4,})*(?:={1,2})?"
)
_BASE64_SHORT = re.compile(r"(?<![A-Za-z0-9+/_-])(?:[A-Za-z0-9+/]{4}|[A-Za-z0-9+/]{2,3}={1,2})(?![A-Za-z0-9+/_=-])")
_BASE64_PART = re.compile(r"[A-Za-z0-9+/]{8,}={0,2}")
_BASE85 = re.compile(r"([\"'])((?:(?!\1)[!-~]){8,4096})\1|<~([!-u]{8,4096})~>")
_BASE32 = re.compile(r"(?<![A-Za-z0-9])[A-Z2-7]{8,}={0,6}(?![A-Za-z0-9])")
_HEX = re.compile(r"(?<![0-9A-Za-z])(?:(?:0x|\\x|%)?[0-9a-fA-F]{2}[ :,;_-]{0,2}){3,}(?![0-9A-Za-z])")
_HEX_PAIR = re.compile(r"(?:0x|\\x|%)?([0-9a-fA-F]{2})")
_HEX_SQL = re.compile(r"\b[xX]'((?:[0-9a-fA-F]{2}){3,})'")
_BINARY = re.compile(r"(?<![01])(?:[01]{7,8}[ ,]{0,2}){3,}(?![01])")
_TEXT = bytes([9, 10, 13, *range(32, 127)])


def decode(text: str) -> tuple[str, tuple[str, ...]]:
    """Undo one layer of every encoding found.

    Returns:
        the text as it came and `()` where nothing is encoded.
    """
    names: list[str] = []
    for name, undo in LAYERS.items():
        decoded = undo(text)
        if decoded != text:
            names.append(name)
            text = decoded
    return text, tuple(names)


def unescape(text: str) -> str:
    r"""Read `\u0064`, `\u{64}`, `\x64`, `\144`, `\U00000064`, `\N{LATIN SMALL LETTER D}` and `U+0064 U+0065`."""
    if "U+" in text:
        text = _POINTS.sub(lambda match: "".join(map(_point, _POINT.findall(match[0]))), text)
    return _ESCAPE.sub(_escaped, text) if "\\" in text else text


def _html(text: str) -> str:
    return html.unescape(text) if "&" in text else text


def _url(text: str) -> str:
    if "xn--" in text:
        text = _PUNYCODE.sub(_international, text)
    if "%" not in text:
        return text
    return unquote(_UNICODE_URL.sub(lambda match: chr(int(match[1], 16)), text), errors="replace")


def _international(match: re.Match[str]) -> str:
    try:
        return match[1].encode("ascii").decode("punycode")
    except (UnicodeError, ValueError, OverflowError):
        return match[0]


def _quoted_printable(text: str) -> str:
    if "=" not in text:
        return text
    return _QUOTED.sub(lambda match: _said(bytes.fromhex(match[0].replace("=", ""))) or match[0], text)


def _point(digits: str) -> str:
    code = int(digits, 16)
    return chr(code) if code < 0x110000 and not 0xD800 <= code < 0xE000 else ""


def _escaped(match: re.Match[str]) -> str:
    braced, short, long, byte, octal, name = match.groups()
    if name:
        try:
            return unicodedata.lookup(name)
        except KeyError:
            return match[0]
    code = int(octal, 8) if octal else int(braced or short or long or byte, 16)
    return chr(code) if code < 0x110000 and not 0xD800 <= code < 0xE000 else match[0]


def _numbers(text: str) -> str:
    if "ord(" in text:
        text = _ORD.sub(lambda match: str(ord(match[2])), text)
    if "(" in text:
        text = _CHR.sub(lambda match: f"'{_from_numbers(match[1])}'", text)
    if "[char" in text.lower():
        text = _CASTS.sub(_from_casts, _CAST.sub(_from_casts, text))
    if "%c" in text:
        text = _PRINTED.sub(_from_format, text)
    if not _TWO.search(text):
        return text
    return _DECIMALS.sub(lambda match: _from_numbers(match[0], long=True) or match[0], text)


def _from_casts(match: re.Match[str]) -> str:
    return f"'{_from_numbers(match[1])}'"


def _from_format(match: re.Match[str]) -> str:
    letters = iter(_from_numbers(match[3]))
    said = re.sub("%c", lambda _: next(letters, ""), match[2])
    return f"{match[1]}{said}{match[1]}"


def _summed(match: re.Match[str]) -> str:
    left, right = int(match[1]), int(match[3])
    return str(abs({"+": left + right, "-": left - right, "*": left * right, "^": left ^ right}[match[2]]))


def _from_numbers(listed: str, *, long: bool = False) -> str:
    listed = listed if long else _SUM.sub(_summed, listed)
    numbers = [int(number, 0) if number[:2] in {"0x", "0X"} else int(number) for number in re.findall(r"\w+", listed)]
    if long and not all(9 <= number < 127 for number in numbers):
        return ""
    said = "".join(chr(number) for number in numbers if 9 <= number < 0xD800)
    return f"{said}" if not long else _apart(said)


def _concat(text: str) -> str:
    if "'" not in text and '"' not in text and "`" not in text:
        return text
    joined = _CONCAT.sub("", text)
    if ".replace" in joined:
        joined = _SHIFT.sub(lambda match: f"{match[1]}{match[2].replace(match[4], match[6])}{match[1]}", joined)
    if "{" in joined:
        joined = _INSERT.sub(r"\2", joined)
    if _LISTED.search(joined) and _LISTING.search(joined):
        joined = _LISTED.sub("", joined)
    return joined


def _base64(text: str) -> str:
    lower = text.lower()
    if "64" in lower or "atob" in lower:
        text = _BASE64_SHORT.sub(_from_base64, text)  # somebody says that there is some: less will do
    return _BASE64.sub(_from_base64, text)


def _from_base64(match: re.Match[str]) -> str:
    run = match[0]
    said = _base64_said(run.replace("\r", "").replace("\n", "").replace("-", "+").replace("_", "/"))
    if said:
        return _apart(said)
    if "-" in run or "_" in run or "/" in run or "\n" in run:
        # A path or a name may hold the run: each part by itself.
        return _BASE64_PART.sub(lambda part: _apart(_base64_said(part[0])) or part[0], run)
    return run


def _base64_said(run: str) -> str:
    bare = run.rstrip("=")
    if len(bare) < 3 or len(bare) % 4 == 1 or (bare.isupper() and bare.isalpha()):
        return ""
    raw = binascii.a2b_base64(bare + "=" * (-len(bare) % 4))
    # Bits left over at the end are zero in what an encoder wrote; in a word that only looks so they seldom are.
    if len(bare) % 4 and binascii.b2a_base64(raw, newline=False).rstrip(b"=") != bare.encode():
        return ""
    said = _said(raw)
    return "" if len(bare) < 12 and not said.strip().isprintable() else said


def _base85(text: str) -> str:
    if "85" not in text and "<~" not in text:
        return text
    return _BASE85.sub(_from_base85, text)


def _from_base85(match: re.Match[str]) -> str:
    run = match[2] or match[3]
    for undo in (b85decode, a85decode):
        try:
            said = _said(undo(run.encode("ascii")))
        except ValueError:
            continue
        if said:
            return _apart(said)
    return match[0]


def _base32(text: str) -> str:
    return _BASE32.sub(_from_base32, text)


def _from_base32(match: re.Match[str]) -> str:
    bare = match[0].rstrip("=")
    try:
        return _apart(_said(b32decode(bare + "=" * (-len(bare) % 8)))) or match[0]
    except (binascii.Error, ValueError):
        return match[0]


def _hex(text: str) -> str:
    if "'" in text:
        text = _HEX_SQL.sub(lambda match: f"'{_said(bytes.fromhex(match[1]))}'", text)
    return _HEX.sub(_from_hex, text)


def _from_hex(match: re.Match[str]) -> str:
    return _apart(_said(bytes.fromhex("".join(_HEX_PAIR.findall(match[0]))))) or match[0]


def _binary(text: str) -> str:
    return _BINARY.sub(_from_binary, text) if "01" in text else text


def _from_binary(match: re.Match[str]) -> str:
    return _apart(_said(bytes(int(eight, 2) for eight in re.findall(r"[01]{7,8}", match[0])))) or match[0]


def _said(raw: bytes) -> str:
    """Read bytes as text: ASCII, UTF-8, UTF-16 or compressed; empty where they are none of these."""
    if raw[:2] == b"\x1f\x8b" or raw[:2] in {b"x\x01", b"x\x9c", b"x\xda", b"x^"}:
        try:
            raw = zlib.decompressobj(zlib.MAX_WBITS | 32).decompress(raw, UNPACKED)
        except zlib.error:
            return ""
    if not raw.translate(None, _TEXT):
        return raw.decode("ascii")
    if len(raw) >= 6 and len(raw) % 2 == 0 and (not any(raw[1::2]) or not any(raw[::2])):
        return raw.replace(b"\0", b"").decode("latin-1")
    try:
        said = raw.decode("utf-8")
    except UnicodeDecodeError:
        return ""
    return (
        said if sum(char.isalnum() or char.isspace() or char in "-_./'\";:" for char in said) >= len(said) * 0.8 else ""
    )


def _apart(said: str) -> str:
    # In place for words that it completes; a line of its own where it is long enough to be more than a word's part.
    return f"{said}\n{said}\n" if said and (" " in said or "\n" in said) else said


LAYERS: dict[str, Callable[[str], str]] = {
    "html": _html,
    "url": _url,
    "quoted-printable": _quoted_printable,
    "escapes": unescape,
    "numbers": _numbers,
    "concat": _concat,
    "base64": _base64,
    "base85": _base85,
    "base32": _base32,
    "hex": _hex,
    "binary": _binary,
}
