"""Reading: a mandate out of a request, by a deterministic reader where there is no model; it sees the request and the tools, nothing else.

In:   the request's text and label, the fleet's tool contracts, the operator's knobs. What is pasted or attached to a request is not the
requester's word and must not be in that text (clause 5): this reader cannot tell it apart. Out: a root `Mandate`, `by` naming this reader.
May import: `canon`, `slots`, `mandates`, `roles`, tools' contract. Must not know: results, benchmarks, what a tool's words mean.

    called for   the request holds enough of the words by which a tool is named or described; rare words count more than common ones
    addresses    an email, URL, account or file name takes those that the request spells out
    names        a `name` takes names that the request mentions: quoted, capitalised, or beside the word by which the argument is called;
                 a `title`, which names what is made, the request's own words, or a quoted title with its gaps filled
    ids          an `id:x` takes what a service gave as `id:x`, in a result for which the request named what to look for
    look-ups     an address takes what a service's directory gave for something that the request named, unless it spells addresses out
    knobs        the operator may bound amounts, enumerate choices, and let a named source choose a value (`delegate`)

Why no list of verbs: the only vocabulary is the one that the tools' authors wrote. A request in other words is not understood, and then a
person is asked: that is the price, and it is counted (`bench/agentdojo`).
Source: CONTAINMENT.md, clauses 11, 12, 17.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal
from fnmatch import fnmatchcase
from typing import Any, Final

from midwatch.containment.canon import Canonical, canonical, stem, words
from midwatch.containment.mandates import Line, Mandate
from midwatch.containment.roles import kinds, needs_reach, places_of
from midwatch.containment.slots import FromField, Mentioned, OfWords, OneOf, Slot, Template, UpTo, one_of
from midwatch.records.label import Label
from midwatch.tools.contract import ToolContract

__all__ = ["BY", "CALLS", "Knob", "Reader", "called_for", "typed_in"]

BY: Final = "deterministic reader of the request"
NEEDED: Final = 0.25
"""Share of a tool's own name that the request must hold, by weight of its words."""

LONGEST: Final = 8
"""Words of a name or of what is looked for."""

CALLS: Final = 10
_MOST_WORDS: Final = 2_000
_ADDRESSES: Final = frozenset({"email", "url", "iban", "path"})
_QUOTED: Final = re.compile(r"'([^'\n]{1,200})'(?![A-Za-z])|\"([^\"\n]{1,200})\"|“([^”\n]{1,200})”|`([^`\n]{1,200})`")
_CAPITAL: Final = re.compile(r"\b[A-Z][\w&'’.-]*(?:[ ][A-Z0-9][\w&'’.-]*){0,4}")
_FILE: Final = re.compile(r"[\w./-]{1,200}\.[A-Za-z0-9]{1,5}\b")
_TYPED: Final = {
    "email": re.compile(r"[A-Za-z0-9.!#$%&*+/=?^_`{|}~-]{1,64}@[A-Za-z0-9-]{1,63}(?:\.[A-Za-z0-9-]{1,63}){1,8}"),
    "url": re.compile(r"(?:https?://|www\.)[^\s<>\"'`\\|{}()]{1,2000}"),
    "iban": re.compile(r"\b[A-Z]{2}[0-9]{2}[A-Z0-9]{8,30}\b"),
    "path": _FILE,
}
_GAP: Final = re.compile(r"\{[^{}]{1,60}\}")
_SENTENCE: Final = re.compile(r"\.(?=[A-Z])")
_EMPTY: Final = frozenset(
    (
        "a",
        "an",
        "the",
        "of",
        "to",
        "for",
        "in",
        "on",
        "by",
        "with",
        "from",
        "and",
        "or",
        "all",
        "get",
        "my",
        "me",
        "is",
        "it",
        "this",
        "that",
    )
)


@dataclass(frozen=True, slots=True)
class Knob:
    """What the operator says about one argument, in the fleet's policies.

    Attributes:
        delegate: reading tools, as globs: a source of theirs that the request names may choose the value, whoever wrote it. `TOOL:FIELD` is
            one whole field of it; without a field, one address within a text will do. The residual: whoever controls that source, or
            that field of it, chooses the value, and with it who sees the call.
        addressed: an address that the request spells out is leave to call the tool with it, though the request does not call the tool
            by its words. The residual: whatever else the request says of that address, such as not to.
        most: of one call and of all calls together. values: the only ones that are taken without a person.
    """

    delegate: tuple[str, ...] = ()
    addressed: bool = False
    most: Decimal | None = None
    values: tuple[Any, ...] = ()


@dataclass(frozen=True, slots=True)
class _Spoken:
    """A request, taken apart once."""

    text: str
    words: tuple[str, ...]
    stems: frozenset[str]
    phrases: frozenset[tuple[str, ...]]
    names: frozenset[tuple[str, ...]]
    typed: Mapping[str, frozenset[Canonical]]
    quoted: tuple[str, ...]
    templates: tuple[Template, ...]


@dataclass(frozen=True, slots=True)
class Reader:
    """Reads requests for one fleet.

    Attributes:
        contracts: every tool that the run's agents may use. knobs: by tool and argument.
        calls: of one line, at most.
    """

    contracts: Sequence[ToolContract]
    knobs: Mapping[str, Mapping[str, Knob]] = field(default_factory=dict)
    calls: int = CALLS

    def read(self, request: str, issuer: Label, *, name: str = "root", expires_us: int | None = None) -> Mandate:
        """Give the root mandate: a line for each tool that the request calls for and for whose arguments it binds something."""
        spoken = _take_apart(request)
        weights = _weights(self.contracts)
        lines = []
        for contract in self.contracts:
            if contract.effect == "pure" or (contract.effect == "read" and not contract.open_world):
                continue
            called = contract.effect == "read" or called_for(spoken.stems, contract, weights)
            line = self._line(contract, spoken)
            if called:
                lines.append(line)
            else:
                lines.extend(self._addressed(contract, line, spoken))
        return Mandate(name, issuer, tuple(lines), BY, expires_us)

    def _addressed(self, contract: ToolContract, line: Line, spoken: _Spoken) -> Iterator[Line]:
        """Give a line for each argument that an address in the request may fill; it takes nothing else then, and must be there."""
        for place in places_of(contract):
            family = (place.kind or "").partition(":")[0]
            spelt = spoken.typed.get(family)
            if spelt and self.knobs.get(contract.name, {}).get(place.name, Knob()).addressed:
                slots = {**line.slots, place.name: (OneOf(spelt),)}
                yield replace(line, id=f"{line.id}/{place.name}", slots=slots, needs=frozenset({place.name}))

    def _line(self, contract: ToolContract, spoken: _Spoken) -> Line:
        slots: dict[str, tuple[Slot, ...]] = {}
        totals: dict[str, Decimal] = {}
        for place in places_of(contract):
            if not needs_reach(contract.effect, place.role):
                continue
            knob = self.knobs.get(contract.name, {}).get(place.name, Knob())
            made = tuple(self._slots(place.name, place.role, place.kind, knob, spoken))
            if made:
                slots[place.name] = made
            if knob.most is not None:
                totals[place.name] = knob.most
        return Line(contract.name, contract.name, slots, self.calls, totals)

    def _slots(self, name: str, role: str, kind: str | None, knob: Knob, spoken: _Spoken) -> Iterator[Slot]:
        if knob.most is not None:
            yield UpTo(knob.most)
            return
        if knob.values:
            yield one_of(*knob.values, kind=kind)
            return
        family = (kind or "").partition(":")[0]
        if family in _ADDRESSES:
            yield OneOf(spoken.typed.get(family, frozenset()))
        elif family == "name":
            yield Mentioned(spoken.names | _beside(spoken, name))
        elif kind == "title":
            yield OfWords(spoken.stems)
            yield from spoken.templates
        elif role in {"command", "credential"}:
            yield one_of(*spoken.quoted, kind=kind)
        # An address that the request spells out is the one: then no directory offers others.
        if family in {"id", "name"} or (family in _ADDRESSES and not spoken.typed.get(family)):
            yield from self._looked_up(kind or "", spoken)
        if knob.delegate:
            yield from self._delegated(kind or "", spoken, knob.delegate)

    def _looked_up(self, kind: str, spoken: _Spoken) -> Iterator[FromField]:
        """Fields of this kind that a service wrote, of reads whose selectors the request names."""
        for contract, path, author in self._readable(kind):
            if contract.out(path).creates:
                yield FromField(contract.name, path)  # what the run itself made is within the reach of whoever let it
            elif author == "service" and contract.effect in {"pure", "read"}:
                yield FromField(contract.name, path, self._where(contract, spoken, chained=True))

    def _delegated(self, kind: str, spoken: _Spoken, sources: tuple[str, ...]) -> Iterator[FromField]:
        """A source that the request names; it must be named, so it must have a selector. A field of it, or a typed word anywhere in it."""
        for contract in self.contracts:
            where = self._where(contract, spoken)
            if contract.effect != "read" or not where:
                continue
            for source in sources:
                tool, colon, field_ = source.partition(":")
                if fnmatchcase(contract.name, tool):
                    yield FromField(contract.name, field_, where, inside=not colon and kind in {"email", "url", "iban"})

    def _where(
        self, contract: ToolContract, spoken: _Spoken, *, chained: bool = False
    ) -> tuple[tuple[str, tuple[Slot, ...]], ...]:
        """Bind the texts by which a read selects to what the request says, or, `chained`, to what a service listed for it.

        Dates and numbers are short and bind nothing.
        """
        bound: list[tuple[str, tuple[Slot, ...]]] = []
        required = set(contract.input_schema.get("required") or ())
        for place in places_of(contract):
            if place.name not in required or not place.text or place.kind in {"date", "number"}:
                continue
            listed: list[Slot] = []
            if chained and place.kind is not None:
                listed = [
                    FromField(other.name, path)
                    for other, path, author in self._readable(place.kind)
                    if author == "service"
                ]
            family = (place.kind or "").partition(":")[0]
            said: Slot = Mentioned(spoken.phrases, exact=False)
            if family in _ADDRESSES:  # words name no file: `bill/txt` is not `bill.txt`
                said = OneOf(spoken.typed.get(family, frozenset()))
            bound.append((place.name, (said, *listed)))
        return tuple(bound)

    def _readable(self, kind: str) -> Iterator[tuple[ToolContract, str, str]]:
        for contract in self.contracts:
            for path, found in kinds(contract.output_schema).items():
                if found == kind:
                    yield contract, path, contract.out(path).author


@dataclass(frozen=True, slots=True)
class _Weights:
    """How telling a word is among a fleet's tools: in their names, and in what describes them."""

    names: Mapping[str, float]
    descriptions: Mapping[str, float]


def called_for(stems: frozenset[str], contract: ToolContract, weights: _Weights) -> bool:
    """Say whether a request with these stems holds enough of the words by which the tool names itself, or is described.

    What destroys, or gives power, must be called by its first word, which says what is done; a thing's name alone is not enough.
    """
    own = _own(contract)
    shares = _share(stems, own, weights.names), _share(stems, _described(contract), weights.descriptions)
    if max(shares) < NEEDED:
        return False
    return contract.effect == "write" or own[0] in stems


def _share(stems: frozenset[str], told: tuple[str, ...], weights: Mapping[str, float]) -> float:
    total = sum(weights.get(word, 1.0) for word in told)
    return sum(weights.get(word, 1.0) for word in told if word in stems) / total if total else 0.0


def _described(contract: ToolContract) -> tuple[str, ...]:
    """Give the stems of the first sentence that describes the tool."""
    first = re.split(r"[.\n]", contract.description.strip(), maxsplit=1)[0]
    return tuple(dict.fromkeys(stem(word) for word in words(first) if word not in _EMPTY))


def _own(contract: ToolContract) -> tuple[str, ...]:
    """Give the stems of a tool's own name, without its namespace."""
    parts = contract.name.split(".", 1)[-1].replace(".", "_").split("_")
    return tuple(dict.fromkeys(stem(part) for part in parts if part and part not in _EMPTY))


def _weights(contracts: Sequence[ToolContract]) -> _Weights:
    return _Weights(*(_telling([told(each) for each in contracts]) for told in (_own, _described)))


def _telling(told: Sequence[tuple[str, ...]]) -> Mapping[str, float]:
    seen = Counter(word for each in told for word in each)
    return {word: math.log(1 + len(told) / count) for word, count in seen.items()}


def typed_in(text: str, kind: str) -> frozenset[Canonical]:
    """Give the addresses, accounts or file names that a request spells out."""
    found = {match[0].rstrip(".,;:!?") for match in _TYPED[kind].finditer(text)}
    # `see www.example.org.Then go on`: a stop before a capital may be the end of the sentence; both readings are the request's.
    found |= {_SENTENCE.split(each)[0] for each in found}
    made = {canonical(each, kind) for each in found}
    return frozenset(item for item in made if item is not None)


def _take_apart(text: str) -> _Spoken:
    spoken = words(text)[:_MOST_WORDS]
    phrases = frozenset(
        phrase
        for size in range(1, LONGEST + 1)
        for phrase in (spoken[at : at + size] for at in range(len(spoken) - size + 1))
        if not set(phrase) <= _EMPTY
    )
    quoted = tuple(next(part for part in found if part) for found in _QUOTED.findall(text) if any(found))
    capital = {words(found[0], fold=False) for found in _CAPITAL.finditer(text)}
    parts = {each[at:end] for each in capital for at in range(len(each)) for end in range(at + 1, len(each) + 1)}
    names = frozenset(
        name
        for name in {*parts, *(words(each, fold=False) for each in quoted)}
        if name and not set(words(" ".join(name))) <= _EMPTY
    )
    typed = {kind: typed_in(text, kind) for kind in _TYPED}
    gaps = ([words(part) for part in _GAP.split(each)] for each in quoted if _GAP.search(each))
    templates = tuple(Template(tuple(parts)) for parts in gaps if any(parts))
    return _Spoken(text, spoken, frozenset(map(stem, spoken)), phrases, names, typed, quoted, templates)


def _beside(spoken: _Spoken, name: str) -> frozenset[tuple[str, ...]]:
    """Give the words that stand right before or after the word by which the argument is called: `the general channel`."""
    own = {stem(part) for part in re.split(r"[._]", name) if part not in _EMPTY}
    said = words(spoken.text, fold=False)[:_MOST_WORDS]
    near = {at + side for at, word in enumerate(said) if stem(word) in own for side in (-1, 1)}
    return frozenset((said[at],) for at in near if 0 <= at < len(said) and said[at].casefold() not in _EMPTY)
