"""Facts of authority: an effect that is about to leave its sandbox, and what it was found to grant, or to be.

In:   nothing. Out: `File`, `Http`, `Sql`, `Command` (effects), `Granted`, `Inert` (findings), `Judged`, `Detector`, `Unreadable`.
May import: the sandbox's facts, credentials. Must not know: formats, who decides, what becomes of a finding.
Why a finding quotes names and never values: it is shown to people, kept in the ledger and told to agents; a name (an account, a host, a
setting) says who gains what, a value may be the secret. `granted` is the one way to make a finding, and cleans what it is given.
Source: CONTAINMENT.md, clauses 24-26.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Final

from midwatch.containment.credentials import Scrubber
from midwatch.sandbox.effects import Change, Request

__all__ = [
    "ANYBODY",
    "MOST",
    "UNKNOWN",
    "Command",
    "Detector",
    "Effect",
    "File",
    "Finding",
    "Granted",
    "Http",
    "Inert",
    "Judged",
    "Power",
    "Sql",
    "Unreadable",
    "granted",
    "listed",
    "named",
    "resource_of",
]

MOST: Final = 1 << 20
"""Longest content that detectors read, bytes; what is longer is given as unread."""
ANYBODY: Final = "anybody"
UNKNOWN: Final = "unknown"
"""To whom, where nobody can say: counts as everybody."""

_SCRUBBER: Final = Scrubber(b"names only, no markers")
_NAME: Final = re.compile(r"[\w.@/:*+%,=~$ -]+", re.UNICODE)
_LONGEST: Final = 80


class Unreadable(Exception):
    """What an effect says cannot be known, or has two readings: it counts as granting. The message says why, without quoting it."""


@dataclass(frozen=True, slots=True)
class File:
    """A file that a commit would change.

    Attributes:
        before, after: contents; None where there is no file. Not shown by `repr`.
        unread: why the contents could not be given (too large, lost); empty where they are.
        had, has: extended attributes before and after, where the sandbox knows them.
    """

    change: Change
    before: bytes | None = field(default=None, repr=False)
    after: bytes | None = field(default=None, repr=False)
    unread: str = ""
    had: Mapping[str, bytes] = field(default_factory=dict, repr=False)
    has: Mapping[str, bytes] = field(default_factory=dict, repr=False)


@dataclass(frozen=True, slots=True)
class Http:
    """A request that would be sent. `body` and `unread` as in `File`."""

    request: Request
    body: bytes | None = field(default=None, repr=False)
    unread: str = ""


@dataclass(frozen=True, slots=True)
class Sql:
    """Statements that a database would run. `place` names it."""

    text: str = field(repr=False)
    place: str = "database"


@dataclass(frozen=True, slots=True)
class Command:
    """A program that would run outside of a sandbox, as a list of words; no shell reads it."""

    argv: tuple[str, ...] = field(repr=False)


Effect = File | Http | Sql | Command


@dataclass(frozen=True, slots=True)
class Granted:
    """What an effect makes possible, and for whom.

    Attributes:
        what: the power, in words. to_whom: who gains it; `unknown` counts as everybody.
        resource: path, `host/path`, table or program. how: the detector's name. why: what of the effect says so.
        proven: False where nobody can say, so that it counts as granting.
    """

    what: str
    to_whom: str
    resource: str
    how: str
    why: str
    proven: bool = True

    def to_json(self) -> dict[str, Any]:
        """Give JSON data."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Inert:
    """A proof that an effect on a resource that could grant power grants none. Fields as in `Granted`."""

    resource: str
    how: str
    why: str

    def to_json(self) -> dict[str, Any]:
        """Give JSON data."""
        return asdict(self)


Finding = Granted | Inert
Power = tuple[str, str, str]
"""What, to whom, why; as detectors say it among themselves."""


@dataclass(frozen=True, slots=True)
class Judged:
    """All that the detectors say of one effect. It grants nothing only if `grants` is empty."""

    grants: tuple[Granted, ...] = ()
    inert: tuple[Inert, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Give JSON data."""
        return {"grants": [item.to_json() for item in self.grants], "inert": [item.to_json() for item in self.inert]}


@dataclass(frozen=True, slots=True)
class Detector:
    """One family of authority.

    Attributes:
        name: in findings. concerns: whether it is responsible for an effect; cheap.
        judge: what the effect grants, or that it is inert. Nothing means that it cannot say. It may raise: then it counts as granting.
    """

    name: str
    concerns: Callable[[Effect], bool]
    judge: Callable[[Effect], Iterable[Finding]]


def granted(what: str, to_whom: str, resource: str, how: str, why: str, *, proven: bool = True) -> Granted:
    """Make a finding; every word of it is fit to be shown."""
    return Granted(_clean(what), named(to_whom), _clean(resource), how, _clean(why), proven)


def listed(text: str) -> frozenset[str]:
    """Give the words of a text as a set, for tables."""
    return frozenset(text.split())


def named(text: str) -> str:
    """Give a name that an effect wrote, fit to be shown: bounded, printable, and no credential."""
    plain = " ".join(text.split())[:_LONGEST]
    if not plain:
        return UNKNOWN
    if _NAME.fullmatch(plain) is None or not plain.isprintable():
        plain = "".join(char if char.isprintable() and _NAME.fullmatch(char) else "?" for char in plain)
    return "(hidden)" if _SCRUBBER.holds(plain) or any(_random(word) for word in plain.split()) else plain


def resource_of(effect: Effect) -> str:
    """Name what an effect is about."""
    if isinstance(effect, File):
        return effect.change.path
    if isinstance(effect, Http):
        return f"{effect.request.method} {effect.request.host}{effect.request.path}"
    if isinstance(effect, Sql):
        return effect.place
    return named(effect.argv[0]) if effect.argv else UNKNOWN


def all_of(findings: Iterable[Finding]) -> Judged:
    """Sort findings."""
    found = tuple(dict.fromkeys(findings))
    return Judged(
        tuple(item for item in found if isinstance(item, Granted)),
        tuple(item for item in found if isinstance(item, Inert)),
    )


def _clean(text: str) -> str:
    plain = "".join(char if char.isprintable() else "?" for char in " ".join(text.split()))[:300]
    return _SCRUBBER.text(plain)[0]


def _random(word: str) -> bool:
    """Say whether a word is as random as a key: long, of several kinds of letters, hardly any twice."""
    if len(word) < 24 or word.startswith("SHA256:"):
        return False
    return any(_entropy(part) > 3.9 for part in _parts(word))


def _parts(word: str) -> Iterator[str]:
    for part in re.split(r"[/.:@,=-]", word):
        if len(part) >= 20 and any(char.isdigit() for char in part) and any(char.isalpha() for char in part):
            yield part


def _entropy(text: str) -> float:
    counts = Counter(text)
    return -sum(n / len(text) * math.log2(n / len(text)) for n in counts.values())
