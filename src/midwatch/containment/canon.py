"""Canon: the one value that is meant, for comparing; by kind, parsed, never as text.

In:   a JSON value, the kind that an argument or a field declares (`email`, `url`, …) or None.
Out:  `Canonical`, comparable and hashable, or None where the value is nothing of that kind.
May import: the standard library, idna. Must not know: labels, mandates, tools.
Why parsed: a pattern that is matched against text is matched against another value than the one that is sent (`reports/../x`,
`HTTPS://Host:443`, `xn--`). Why booleans and numbers are kinds of their own: 1, 1.0, true and "1" are four things.
Source: CONTAINMENT.md, clauses 12 and 15; RFC 3986 section 6, RFC 5891, RFC 5321 section 2.4.
"""

from __future__ import annotations

import ipaddress
import math
import posixpath
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from functools import lru_cache
from typing import Any, Final
from urllib.parse import unquote, urlsplit

import idna

__all__ = ["KINDS", "Canonical", "amount", "canonical", "host", "kind_of", "plain_name", "stem", "url_parts", "words"]

KINDS: Final = ("email", "url", "path", "iban", "date", "host", "name", "title", "id", "number", "text")
"""What an argument or a field may declare that it holds, as the `format` of its schema. `name` is a text that names somebody or something,
`title` one that names what is made; `id` one that a service gave, better with what it names: `id:file` is never an `id:mail`."""

LARGEST: Final = 2**53
"""Beyond it a JSON number is no longer exact; such an amount is no amount."""

_EMAIL: Final = re.compile(r"([A-Za-z0-9.!#$%&'*+/=?^_`{|}~-]{1,64})@([^@\s/]{1,253})")
_IBAN: Final = re.compile(r"[A-Z]{2}[0-9]{2}[A-Z0-9]{8,30}")
_DATE: Final = re.compile(r"\d{4}-\d{2}-\d{2}(?:[T ]\d{2}:\d{2}(?::\d{2}(?:\.\d+)?)?(?:Z|[+-]\d{2}:?\d{2})?)?")
_PORTS: Final = {"http": 80, "https": 443, "ftp": 21, "ws": 80, "wss": 443}
_ENDINGS: Final = ("ations", "ation", "ings", "ing", "ies", "ions", "ion", "ers", "er", "ed", "es", "s", "e", "y")
_NAME: Final = re.compile(r"[^\W_]+(?:(?:[ '’.&_-]|, |\. )[^\W_]+)*\.?")
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f]")
_BAD_ESCAPE: Final = re.compile(r"%(?![0-9A-Fa-f]{2})|%(?:2[fF]|5[cC])")
"""A broken escape, or a slash in disguise: servers disagree on what either means."""

_DISPUTED: Final = re.compile(r"//|/\.{1,2};")
"""What lies before `..`, or follows it, that some servers count as a part of the path and others do not."""


@dataclass(frozen=True, slots=True)
class Canonical:
    """One value of one kind; equal when, and only when, the same thing is meant."""

    kind: str
    value: str


def canonical(value: Any, kind: str | None = None) -> Canonical | None:
    """Give the canonical value; None when it is not of `kind` (or, without a kind, no plain value at all)."""
    if isinstance(value, bool):
        return Canonical("bool", str(value)) if kind is None else None
    family = (kind or "text").partition(":")[0]
    if isinstance(value, int | float):
        number = amount(value)
        if number is None or not (kind is None or family in {"number", "id"}):
            return None
        return Canonical(kind if kind is not None and family == "id" else "number", format(number, "f"))
    if not isinstance(value, str) or not value or family not in _MAKERS:
        return None
    made = _MAKERS[family](value)
    return None if made is None else Canonical(kind or "text", made)


def kind_of(text: str) -> str:
    """Guess what kind of value a text is, for values that declare none."""
    for kind in ("email", "url", "iban", "date"):
        if canonical(text, kind) is not None:
            return kind
    return "text"


def amount(value: Any) -> Decimal | None:
    """Give an exact amount: a finite number, 0 or more, below 2**53; None for anything else, truth values and texts included."""
    if isinstance(value, bool) or not isinstance(value, int | float | Decimal):
        return None
    if isinstance(value, int) and not 0 <= value < LARGEST:
        return None  # before anything makes a float of it
    finite = value.is_finite() if isinstance(value, Decimal) else math.isfinite(value)
    if not finite or not 0 <= value < LARGEST:
        return None
    return Decimal(str(value)).normalize() + 0


@lru_cache(maxsize=8192)
def host(text: str) -> str | None:
    """Give a host in its registered form: lower case, IDNA 2008, addresses in full; None for what is no host."""
    plain = text.removesuffix(".")
    try:
        return str(ipaddress.ip_address(plain.strip("[]")))
    except ValueError:
        pass
    if re.fullmatch(r"(?:0[xX][0-9a-fA-F]+|\d+)(?:\.(?:0[xX][0-9a-fA-F]+|\d+))*", plain):
        return None  # an address in disguise, which resolvers read in several ways
    try:
        return idna.encode(plain, uts46=True, std3_rules=True).decode("ascii")
    except (idna.IDNAError, UnicodeError):
        return None


def url_parts(text: str) -> tuple[str, str, int, str, str] | None:
    """Parse an address into scheme, host, port, resolved path and query; None where readers could disagree about it.

    A bare `www.example.com/x` is read as `http`. Users, fragments, backslashes, control characters and broken escapes are refused.
    """
    if _CONTROL.search(text) or "\\" in text or " " in text or _BAD_ESCAPE.search(text):
        return None
    full = text if "://" in text else f"http://{text}"
    try:
        parts = urlsplit(full)
        port = parts.port
    except ValueError:
        return None
    scheme, name = parts.scheme.lower(), host(parts.hostname or "")
    if scheme not in _PORTS or name is None or "@" in parts.netloc or "#" in full:
        return None
    if "." not in name and "://" not in text and ":" not in name:
        return None
    plain = unquote(parts.path) or "/"
    if _DISPUTED.search(plain) and "/.." in plain:
        return None
    path = _path(plain)
    return None if path is None else (scheme, name, port or _PORTS[scheme], path, parts.query)


def words(text: str, *, fold: bool = True) -> tuple[str, ...]:
    """Split into words of letters and digits, without case unless told otherwise."""
    return tuple(re.findall(r"[^\W_]+", text.casefold() if fold else text))


def plain_name(text: str) -> bool:
    """Say whether a name is words and what stands between words, so that it is no path, option, variable or markup to anybody."""
    return _NAME.fullmatch(text) is not None


def stem(word: str) -> str:
    """Take off an ending, so that `reserve` and `reservation` are one word; rough on purpose, and the same for both sides."""
    plain = word.casefold()
    for _ in range(2):
        for ending in _ENDINGS:
            if plain.endswith(ending) and len(plain) - len(ending) >= 3:
                plain = plain.removesuffix(ending)
                break
    return plain


def _url(text: str) -> str | None:
    parts = url_parts(text)
    if parts is None:
        return None
    scheme, name, port, path, query = parts
    shown = f"[{name}]" if ":" in name else name
    path = (
        path.replace("%", "%25").replace("?", "%3F").replace("#", "%23")
    )  # a query that is none must not look like one
    return f"{scheme}://{shown}:{port}{path}" + (f"?{query}" if query else "")


def _email(text: str) -> str | None:
    found = _EMAIL.fullmatch(text)
    domain = None if found is None else host(found[2])
    return None if found is None or domain is None else f"{found[1]}@{domain}"


def _path(text: str) -> str | None:
    if _CONTROL.search(text):
        return None
    plain = posixpath.normpath(text)
    plain = "/" + plain.lstrip("/") if plain.startswith("/") else plain
    return None if plain == ".." or plain.startswith("../") else plain


def _iban(text: str) -> str | None:
    plain = text.replace(" ", "").upper()
    return plain if text.isascii() and _IBAN.fullmatch(plain) else None


def _date(text: str) -> str | None:
    return text.replace("T", " ") if _DATE.fullmatch(text) else None


def _name(text: str) -> str | None:
    return None if _CONTROL.search(text) or not text.strip() else " ".join(text.split())


_MAKERS: Final[Mapping[str, Callable[[str], str | None]]] = {
    "email": _email,
    "url": _url,
    "path": _path,
    "iban": _iban,
    "date": _date,
    "host": host,
    "name": _name,
    "title": _name,
    "id": str,
    "text": str,
}
