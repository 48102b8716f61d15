"""Provenance: where a value of a call stood whole before, and so which label it carries.

In:   the request and each result of the run with its label; later, the values of a call.
Out:  `Traced`: per value a label and its origins; and the label of the context that all of it makes.
May import: `canon`, `roles`, `slots`, records, tools' contract. Must not know: what a label may bring about.
Why whole fields only: a value that merely occurs within a text was not *given* by that text. What stands whole nowhere carries the label
of the context, because whoever chose it had seen all of that.
Why short ones never: `true`, `7` and a date stand everywhere, so that they stand somewhere says nothing (CONTAINMENT.md, clause 12).
Why a known origin may carry less than the context: who picks a value is control, and control is judged by itself.
The trail is an index by value, so a verdict costs the same after ten results and after ten thousand.
Source: CONTAINMENT.md, clauses 2-5, 7, 9, 12; PACT (arXiv 2605.11039), provenance for each argument.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from itertools import islice
from typing import Any, Final

from midwatch.containment.canon import Canonical, canonical, kind_of
from midwatch.containment.roles import DEPTH, Place, TooMany, kinds, places
from midwatch.containment.slots import REQUEST, Origin
from midwatch.records.label import Cause, Label, join, label
from midwatch.tools.contract import ToolContract

__all__ = ["Held", "Seen", "Source", "Traced", "Trail", "field_label"]

FIELDS: Final = 50_000
"""Fields of one result that are indexed; values beyond them have no origin, so they carry the label of the context."""

ORIGINS: Final = 16
"""Kept for one value; more say nothing more."""

_SHORTEST: Final = 3
_TYPED: Final = (
    ("email", re.compile(r"[A-Za-z0-9.!#$%&'*+/=?^_`{|}~-]{1,64}@[A-Za-z0-9-]{1,63}(?:\.[A-Za-z0-9-]{1,63}){1,8}")),
    ("url", re.compile(r"(?:https?://|www\.)[^\s<>\"'`\\|{}]{1,2000}")),
    ("iban", re.compile(r"\b[A-Z]{2}[0-9]{2}[A-Z0-9]{8,30}\b")),
)
_SCANNED: Final = 200_000
_TRUSTED: Final = {
    "operator": 0,
    "person": 1,
    "caller": 2,
    "service": 3,
    "source": 4,
    "agent": 5,
    "third_party": 6,
    "unknown": 7,
}


@dataclass(frozen=True, slots=True)
class Source:
    """A source that the fleet declares: results of tools that match `pattern`.

    Attributes:
        pattern: glob over `tool:NAME`, as in `sources:`. full: its author is the source itself, and not a third party.
        readers: who may read what comes from it; None: everyone.
    """

    name: str
    pattern: str
    full: bool
    readers: frozenset[str] | None


@dataclass(frozen=True, slots=True)
class Held:
    """What one handle holds.

    Attributes:
        path: dotted path of the field. kind: JSON type by the tool's schema, `any` where that leaves it open.
        size: bytes of its JSON, rounded up to a power of two.
        of: the handle out of which an isolated reader took this fact; None: it is a field as it stood.
    """

    id: str
    path: str
    value: Any
    label: Label
    kind: str
    size: int
    of: str | None = None

    def to_json(self) -> dict[str, Any]:
        """Give the JSON object that is kept with the call's result."""
        return {
            "id": self.id,
            "path": self.path,
            "value": self.value,
            "label": self.label.to_json(),
            "kind": self.kind,
            "size": self.size,
            "of": self.of,
        }

    @staticmethod
    def from_json(body: Mapping[str, Any]) -> Held:
        """Read back what `to_json` gave."""
        return Held(
            body["id"],
            body["path"],
            body["value"],
            Label.from_json(body["label"]),
            body["kind"],
            body["size"],
            body.get("of"),
        )


@dataclass(frozen=True, slots=True)
class Seen:
    """One result that entered the run.

    Attributes:
        label: of the call that gave it: the context and arguments by which it was made.
        recalled: per dotted path of the result, the label that the kernel itself keeps for what was read (a file, a memory, a row that an
            effect of ours wrote); it is joined to the author's.
        error: a denial or an error: its text carries the label of the proposal, and no field of it is anybody's word.
        plain: of what the agent could read of it, where the rest came behind handles; None: all of it could be read.
        handles: what it holds behind handles.
    """

    contract: ToolContract
    arguments: Mapping[str, Any]
    value: Any
    label: Label
    recalled: Mapping[str, Label] = field(default_factory=dict)
    error: bool = False
    plain: Label | None = None
    handles: tuple[Held, ...] = ()


@dataclass(frozen=True, slots=True)
class Traced:
    """What is known of the values of one call, by `Place.key`."""

    labels: Mapping[str, Label]
    origins: Mapping[str, tuple[Origin, ...]]


class Trail:
    """What one agent has seen in one run, in order; grows, never forgets. One for each context: it is never shared between runs."""

    def __init__(
        self,
        request: Any,
        request_label: Label,
        *,
        sources: Iterable[Source] = (),
        closed: frozenset[str] | None = frozenset(),
    ) -> None:
        """Begin with the request.

        Args:
            request: text, or the JSON of a run's input.
            closed: readers of what comes from a source that is not open to the world: the requester, the fleet's model routes, targets
                that the root mandate names.
        """
        self._sources = tuple(sources)
        self._closed = closed
        self._index: dict[Canonical, tuple[Origin, ...]] = {}
        self.handles: dict[str, tuple[Held, tuple[Origin, ...]]] = {}
        self.context = request_label
        for path, value in _fields(request, "", 0):
            self._put(value, None, Origin(REQUEST, path, request_label))

    def add(self, seen: Seen) -> None:
        """Take in one result, its error or its denial."""
        if seen.plain is not None:
            self._add_plain(seen, seen.plain)
            return
        if seen.error:
            self.context = join(self.context, seen.label)
            return
        given = self._given(seen)
        declared = _declared(seen.contract)
        typed = kinds(seen.contract.output_schema)
        labels = {field_label(seen, out.path, self._sources, self._closed) for out in seen.contract.outs}
        labels.add(field_label(seen, "", self._sources, self._closed))
        for path, value in islice(_fields(seen.value, "", 0, declared), FIELDS):
            each = field_label(seen, path, self._sources, self._closed)
            labels.add(each)
            self._put(value, typed.get(path), Origin(seen.contract.name, path, each, given))
        self.context = join(self.context, seen.label, *labels)

    def _add_plain(self, seen: Seen, plain: Label) -> None:
        """Take in a result whose values came behind handles: what could not be read did not lead to anything."""
        given = self._given(seen)
        for held in seen.handles:
            behind, source = (None, ()) if held.of is None else self.handles.get(held.of, (None, ()))
            if behind is None or not _stood(held.value, behind.value):
                source = ()  # whoever asked named what the fact could be
            own = Origin(seen.contract.name, held.path, held.label, given)
            taken = tuple(replace(origin, label=join(origin.label, held.label), inside=True) for origin in source)
            self.handles[held.id] = (held, (own,) if held.of is None else taken)
        self.context = join(self.context, plain)
        if seen.error:
            return
        read = replace(seen, label=plain)
        for path, value in islice(_fields(seen.value, "", 0, _declared(seen.contract)), FIELDS):
            if isinstance(value, str) and value in self.handles:
                continue
            each = field_label(read, path, self._sources, self._closed)
            self._put(value, None, Origin(seen.contract.name, path, each, given))
            self.context = join(self.context, each)

    def trace(self, contract: ToolContract, arguments: Mapping[str, Any]) -> Traced:
        """Say where each value of this call stood whole; what stood nowhere has no entry, so it carries the context's label.

        A call of more values than can be looked through has no entries at all; the verdict denies it.
        """
        labels: dict[str, Label] = {}
        origins: dict[str, tuple[Origin, ...]] = {}
        for place in _places(contract, arguments):
            found = self._find(place)
            if found:
                origins[place.key] = found
            whole = [origin.label for origin in found if not origin.inside]
            if whole:
                labels[place.key] = min(whole, key=_rank)
        return Traced(labels, origins)

    def _given(self, seen: Seen) -> Mapping[str, tuple[Any, tuple[Origin, ...]]]:
        """Give the plain arguments of a call, and where each had stood before it; what stood behind those is left out."""
        given = {}
        for place in _places(seen.contract, seen.arguments):
            if place.key == place.name:
                flat = tuple(replace(origin, arguments={}) for origin in self._find(place))
                given[place.name] = (place.value, flat)
        return given

    def _find(self, place: Place) -> tuple[Origin, ...]:
        value = _telling(place.value, place.kind)
        if value is None:
            return ()
        found = self._index.get(value, ())
        if place.kind is None and isinstance(place.value, str):
            typed = canonical(place.value, kind_of(place.value))
            found += () if typed is None or typed == value else self._index.get(typed, ())
        return found

    def _put(self, value: Any, kind: str | None, origin: Origin) -> None:
        keys = {_telling(value, kind)}
        if isinstance(value, str) and kind is None:
            keys |= {_telling(value, each) for each in ("email", "url", "iban", "name", "path")}
        elif isinstance(value, str):
            keys.add(_telling(value, None))
        for key in keys - {None}:
            self._note(key, origin)
        if isinstance(value, str):
            inner = Origin(origin.tool, origin.path, origin.label, origin.arguments, inside=True)
            for key in _typed_words(value) - keys:
                self._note(key, inner)

    def _note(self, key: Canonical | None, origin: Origin) -> None:
        if key is None:
            return
        known = self._index.get(key, ())
        if origin not in known and (len(known) < ORIGINS or not origin.inside):
            self._index[key] = (*known, origin)[: 4 * ORIGINS]


def field_label(
    seen: Seen, path: str, sources: Iterable[Source] = (), closed: frozenset[str] | None = frozenset()
) -> Label:
    """Give the label of one field of a result: its author's, of a declared source the source's, with all that the kernel recalls of it.

    A field that names what the call made carries the label of the call. Readers: of an open world everyone, of a closed one `closed`,
    of a declared source its own.
    """
    contract = seen.contract
    out = contract.out(path)
    declared = next((each for each in sources if fnmatchcase(f"tool:{contract.name}", each.pattern)), None)
    readers = declared.readers if declared is not None else (None if contract.open_world else closed)
    if out.author == "caller" or out.creates:
        own = label(seen.label.causes, readers if seen.label.readers is None else seen.label.readers)
    elif out.author == "service":
        own = label({Cause("service", contract.name)}, readers)
    elif declared is not None and declared.full:
        own = label({Cause("source", declared.name)}, readers)
    else:
        own = label({Cause("third_party", contract.name)}, readers)
    kept = [each for where, each in seen.recalled.items() if where in {"", path} or path.startswith(f"{where}.")]
    return join(own, *kept)


def _stood(fact: Any, source: Any) -> bool:
    """Say whether a text that was taken out of a value stands in it as a word of its own; what is no text is nobody's address."""
    if not isinstance(fact, str):
        return True
    texts = [text for _, text in islice(_fields(source, "", 0), FIELDS) if isinstance(text, str)]
    meant = {canonical(fact, kind) for kind, _ in _TYPED} - {None}
    return fact in texts or any(meant & _typed_words(text) for text in texts)


def _places(contract: ToolContract, arguments: Mapping[str, Any]) -> tuple[Place, ...]:
    try:
        return places(contract, arguments)
    except (TooMany, TypeError):
        return ()


def _rank(each: Label) -> tuple[int, int]:
    """Order labels of equal values: the value is the same, so the best known author of it may stand for it."""
    return max(_TRUSTED[cause.kind] for cause in each.causes), len(each.causes)


def _telling(value: Any, kind: str | None) -> Canonical | None:
    """Give the canonical value if it says something that it stands somewhere; None for short ones, numbers, truth values, dates."""
    family = (kind or "").partition(":")[0]
    if isinstance(value, bool) or family in {"number", "date"}:
        return None
    if family == "id":
        # An id is short by nature; it is only ever compared with ids of the same kind, which a contract declares.
        return canonical(value, kind) if ":" in (kind or "") else None
    if not isinstance(value, str) or len(value.strip()) < _SHORTEST:
        return None
    if value.strip().replace(".", "").replace(",", "").isdigit() or canonical(value, "date") is not None:
        return None
    return canonical(value, kind)


def _typed_words(text: str) -> set[Canonical | None]:
    found: set[Canonical | None] = set()
    for kind, pattern in _TYPED:
        for match in pattern.finditer(text[:_SCANNED]):
            found.add(canonical(match[0].rstrip(".,;:!?)"), kind))
    return found


def _declared(contract: ToolContract) -> frozenset[str]:
    """Give the names of fields that the output schema declares: those are the contract's words, other keys are values."""
    names: set[str] = set()
    todo: list[Any] = [contract.output_schema]
    while todo:
        part = todo.pop()
        if isinstance(part, Mapping):
            names |= set(part.get("properties") or ())
            todo += part.values()
        elif isinstance(part, list):
            todo += part
    return frozenset(names)


def _fields(value: Any, path: str, depth: int, declared: frozenset[str] = frozenset()) -> Iterator[tuple[str, Any]]:
    """Give every plain value with its dotted path; keys that no schema declares are values, too, at the path of what holds them."""
    if depth > DEPTH:
        return
    if isinstance(value, Mapping):
        for key, item in value.items():
            if key not in declared:
                yield path, str(key)
            yield from _fields(item, f"{path}.{key}" if path else str(key), depth + 1, declared)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _fields(item, path, depth + 1, declared)
    elif value is not None:
        yield path, value
