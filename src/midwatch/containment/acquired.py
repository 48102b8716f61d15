"""Acquired credentials: values that look like credentials and that the broker did not issue to this run.

In:   arguments, headers, contents of files; fingerprints of what the broker issued. Out: `Acquired`, without any value.
May import: credentials. Must not know: tools, brokers, what becomes of a finding.
A known form in use is dead: it came from somewhere that no grant names. Entropy alone only marks: digests and ids are as random as keys,
so what is merely random goes behind a handle and is never denied for it.
Source: CONTAINMENT.md, clause 29.
"""

from __future__ import annotations

import hashlib
import hmac
import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final

from midwatch.containment.credentials import Finding, Scrubber, marked

__all__ = ["HEADERS", "Acquired", "Issued", "in_arguments", "in_file", "in_headers"]

HEADERS: Final = re.compile(
    r"(?i)(?:proxy-)?authorization|cookie|(?:x-)?(?:[a-z]+-)*(?:api-?key|auth|auth-key|access-key|token|secret|session|password)(?:-id)?"
)
"""Headers whose whole value is a credential, whatever its form."""

_LINE: Final = re.compile(
    r"(?m)(?:^|[\"'\s])(?P<name>[A-Za-z][A-Za-z-]{2,40}):[ \t]{0,4}(?P<value>[^\s\"'][^\r\n\"']{0,4000})"
)
"""A header as a command or a list of lines writes it."""
_WORD: Final = re.compile(r"[A-Za-z0-9+/_=-]{20,200}")
_MOST: Final = 1 << 20
_RANDOM: Final = 4.0
_HEX: Final = re.compile(r"[0-9a-fA-F-]+")


@dataclass(frozen=True, slots=True)
class Acquired:
    """One credential that nobody issued to this run.

    Attributes:
        kind: its form (`github`, `pem`, `assigned`, …), `header`, or `entropy`.
        where: `argument NAME`, `header NAME` or `file PATH`. marker: the same for the same value within one store; never the value.
        dead: whether it may not be used. `entropy` never is.
        planted: it lies somewhere and is not in use yet.
    """

    kind: str
    where: str
    marker: str
    dead: bool
    planted: bool = False

    def to_json(self) -> dict[str, Any]:
        """Give JSON data."""
        return asdict(self)


class Issued:
    """Fingerprints of what the broker issued to one run; holds no value.

    Args:
        key: the store's key for markers. values: as the broker sends them.
    """

    __slots__ = ("_key", "_known")

    def __init__(self, key: bytes, values: Iterable[str] = ()) -> None:
        self._key = key
        self._known = frozenset(self.fingerprint(value) for value in values)

    def fingerprint(self, value: str) -> str:
        """Give a digest that cannot be looked up without the key."""
        return hmac.new(self._key, value.encode("utf-8", "surrogatepass"), hashlib.sha256).hexdigest()[:16]

    def has(self, value: str) -> bool:
        """Say whether it was issued."""
        return self.fingerprint(value) in self._known

    def clean(self, name: str) -> str:
        """Give a name without a credential that stands in it."""
        return Scrubber(self._key).text(name)[0]

    def secrets(self, text: str) -> list[tuple[str, str]]:
        """Give (kind, value) of each credential of a known form in a text. Only for this module: no value leaves it."""
        collector = _Collector(self._key)
        collector.text(text)
        return collector.values


class _Collector(Scrubber):
    """Keeps what a scrubber replaces, for as long as one text is looked through."""

    __slots__ = ("values",)

    def __init__(self, key: bytes) -> None:
        super().__init__(key)
        self.values: list[tuple[str, str]] = []

    def _mark(self, kind: str, secret: str, found: list[Finding]) -> str:
        self.values.append((kind, secret))
        return super()._mark(kind, secret, found)


def in_arguments(arguments: Mapping[str, Any], issued: Issued) -> tuple[Acquired, ...]:
    """Find credentials in a call's arguments, also those that a marker stands for by now, headers and cookies: they would be used."""
    found: list[Acquired] = []
    for name, text in _texts(arguments, ""):
        where = f"argument {issued.clean(name)}"
        found += [Acquired(item.kind, where, item.marker, dead=True) for item in marked(text)]
        found += _in(text, where, issued)
        found += [
            Acquired("header", where, item.marker, dead=True)
            for item in in_headers(_headers(text), issued)
            if item.dead
        ]
    return tuple(dict.fromkeys(found))


def in_headers(headers: Iterable[tuple[str, str]], issued: Issued) -> tuple[Acquired, ...]:
    """Find credentials in a request's headers, as a sandbox sent them: they would be used."""
    found: list[Acquired] = []
    for name, value in headers:
        where = f"header {name.casefold()}"
        if HEADERS.fullmatch(name.strip()) and value.strip():
            bare = re.sub(r"(?i)\A(?:bearer|basic|token|digest|negotiate)\s+", "", value.strip())
            if not issued.has(bare) and not issued.has(value.strip()):
                found.append(Acquired("header", where, issued.fingerprint(bare), dead=True))
        else:
            found += _in(value, where, issued)
    return tuple(dict.fromkeys(found))


def in_file(path: str, content: bytes, issued: Issued) -> tuple[Acquired, ...]:
    """Find credentials that lie in a file of a sandbox: planted there, and dead if they are used."""
    text = content[:_MOST].decode("utf-8", "replace")
    return tuple(dict.fromkeys(_in(text, f"file {issued.clean(path)}", issued, planted=True)))


def _headers(text: str) -> Iterator[tuple[str, str]]:
    yield from ((found["name"], found["value"]) for found in _LINE.finditer(text) if HEADERS.fullmatch(found["name"]))


def _in(text: str, where: str, issued: Issued, *, planted: bool = False) -> Iterator[Acquired]:
    known = issued.secrets(text)
    for kind, value in known:
        if not issued.has(value):
            yield Acquired(kind, where, issued.fingerprint(value), dead=True, planted=planted)
    for word in _WORD.findall(text):
        if _random(word) and not issued.has(word) and not any(word in value or value in word for _, value in known):
            yield Acquired("entropy", where, issued.fingerprint(word), dead=False, planted=planted)


def _random(word: str) -> bool:
    """Say whether a word could be a key: digests and ids, which are hexadecimal, are not counted."""
    if _HEX.fullmatch(word) or not (
        any(map(str.isdigit, word)) and any(map(str.isupper, word)) and any(map(str.islower, word))
    ):
        return False
    counts = Counter(word)
    return -sum(n / len(word) * math.log2(n / len(word)) for n in counts.values()) >= _RANDOM


def _texts(value: Any, name: str) -> Iterator[tuple[str, str]]:
    """Give each text with its place; of a key that names a credential, as an assignment, so that any value counts."""
    if isinstance(value, str):
        yield name, value
    elif isinstance(value, Mapping):
        for key, item in value.items():
            inner = f"{name}.{key}" if name else str(key)
            if isinstance(item, str) and HEADERS.fullmatch(str(key)):
                yield inner, f"{key}: {item}"
            elif isinstance(item, str) and re.search(r"(?i)pass|secret|token|key|auth|credential", str(key)):
                yield inner, f'{key}="{item}"'
            else:
                yield from _texts(item, inner)
            yield inner, str(key)
    elif isinstance(value, list | tuple):
        for at, item in enumerate(value):
            yield from _texts(item, f"{name}[{at}]")
