"""Handles: names that stand for values which an agent may pass on and not read.

In:   a result with the label of each of its fields; later, the arguments of a call that names handles.
Out:  the result with handles in the place of values; the arguments with the values, and the label of each.
May import: `provenance`, `roles`, `slots`, records, tools' contract. Must not know: where handles are kept, who was given which.

    h:1f0c…   32 hex digits of a digest over run, agent, call and place: the same after a restart, another one in every other run

Why the label of what a handle holds is never made better: whoever wrote the value chose it, even where the request holds the same one.
Why only a whole text is a handle: what merely contains one is text that somebody wrote around it. Keys are never handles.
Source: CONTAINMENT.md, clauses 4, 9, 16, 22; CaMeL (arXiv 2503.18813) and FIDES (2505.23643), values that a planner does not see.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any, Final

import orjson

from midwatch.containment.provenance import Held, Traced
from midwatch.containment.roles import DEPTH, TooMany, places
from midwatch.containment.slots import Origin
from midwatch.records.label import Label, join
from midwatch.tools.contract import ToolContract

__all__ = [
    "HANDLE",
    "Given",
    "Hidden",
    "Named",
    "handle_id",
    "hide",
    "is_handle",
    "named",
    "plain_label",
    "relabel",
    "swap",
    "wanted",
]

HANDLE: Final = re.compile(r"h:[0-9a-f]{32}")
ITEMS: Final = 50
"""Items of a list that get handles of their own; of a longer one the whole list gets one."""
HANDLES: Final = 200
"""Of one result; where there would be more, the whole result gets one."""

Given = tuple[Held, tuple[Origin, ...]]
"""What a handle holds, and where that had stood."""


@dataclass(frozen=True, slots=True)
class Named:
    """The handles that a call names.

    Attributes:
        places: what each holds, by the place where it is named. blank: the arguments without them; None: a person has changed them.
    """

    places: Mapping[str, Given]
    blank: Mapping[str, Any] | None

    @property
    def label(self) -> Label:
        """Give the label of all that they hold."""
        return join(*(held.label for held, _ in self.places.values()))


@dataclass(slots=True)
class Hidden:
    """What was put behind handles. `plain`: the label of what is left to be read."""

    plain: Label
    handles: dict[str, Held] = field(default_factory=dict)


def is_handle(value: Any) -> bool:
    """Say whether a value has the form of a handle, whole."""
    return isinstance(value, str) and HANDLE.fullmatch(value) is not None


def handle_id(*parts: str) -> str:
    """Name a handle by what it belongs to."""
    return f"h:{hashlib.sha256(orjson.dumps(parts)).hexdigest()[:32]}"


def wanted(globs: Iterable[str], *, tool: str, agent: str, source: str | None) -> bool:
    """Say whether a fleet asks for handles: globs over `TOOL`, `source:NAME`, `agent:NAME`."""
    names = {tool, f"agent:{agent}"} | (set() if source is None else {f"source:{source}"})
    return any(fnmatchcase(name, glob) for glob in globs for name in names)


def hide(
    value: Any,
    contract: ToolContract,
    *,
    name: Callable[[str], str],
    label_of: Callable[[str], Label],
    keep: Callable[[str], bool],
) -> tuple[Any, dict[str, Held]]:
    """Put values behind handles; what the contract's schema declares of their shape stays.

    Args:
        value: fits the contract's output schema. name: gives the id for a place.
        label_of: of a field, by its dotted path. keep: whether that field is to be read.
    """
    work = _Hiding(contract.output_schema, name, label_of, keep)
    shown = work.hide(value, contract.output_schema, "", "", 0)
    if len(work.found) <= HANDLES:
        return shown, work.found
    work = _Hiding(contract.output_schema, name, lambda _: join(*map(label_of, _paths(contract))), keep)
    return work.handle(value, contract.output_schema, "", ""), work.found


class _Hiding:
    def __init__(
        self,
        root: Mapping[str, Any],
        name: Callable[[str], str],
        label_of: Callable[[str], Label],
        keep: Callable[[str], bool],
    ) -> None:
        self._root, self._name, self._label_of, self._keep = root, name, label_of, keep
        self.found: dict[str, Held] = {}

    def hide(self, value: Any, schema: Any, path: str, key: str, depth: int) -> Any:
        kept, schemas = self._keep(path), _branches(schema, self._root)
        if depth > DEPTH:
            return self.handle(value, schema, path, key)
        if isinstance(value, Mapping):
            declared: dict[str, Any] = {}
            for each in schemas:
                declared |= each.get("properties") or {}
            if not kept and not set(value) <= set(declared):
                return self.handle(value, schema, path, key)  # the keys are somebody's words
            return {
                part: self.hide(item, declared.get(part), _below(path, part), _below(key, part), depth + 1)
                for part, item in value.items()
            }
        if isinstance(value, list | tuple):
            if not kept and len(value) > ITEMS:
                return self.handle(value, schema, path, key)
            inner = next((each["items"] for each in schemas if "items" in each), None)
            return [self.hide(item, inner, path, f"{key}[{at}]", depth + 1) for at, item in enumerate(value)]
        return value if kept else self.handle(value, schema, path, key)

    def handle(self, value: Any, schema: Any, path: str, key: str) -> str:
        made = self._name(key)
        kinds = {str(each["type"]) for each in _branches(schema, self._root) if isinstance(each.get("type"), str)}
        size = 1 << max(0, len(orjson.dumps(value)) - 1).bit_length()
        kind = kinds.pop() if len(kinds) == 1 else "any"
        self.found[made] = Held(made, path, value, self._label_of(path), kind, size)
        return made


def named(value: Any, key: str = "", depth: int = 0) -> Iterator[tuple[str, str]]:
    """Give place and id of each handle in the arguments of a call; places are written as `roles.Place.key` is.

    Raises:
        TooMany: it nests deeper than anybody looks.
    """
    if depth > DEPTH:
        raise TooMany(f"a call nests more than {DEPTH} deep")
    if isinstance(value, Mapping):
        for part, item in value.items():
            yield from named(item, _below(key, str(part)), depth + 1)
    elif isinstance(value, list):
        for at, item in enumerate(value):
            yield from named(item, f"{key}[{at}]", depth + 1)
    elif is_handle(value):
        yield key, value


def swap(value: Any, known: Mapping[str, Any]) -> Any:
    """Give the arguments with other values in the place of handles."""
    if isinstance(value, Mapping):
        return {part: swap(item, known) for part, item in value.items()}
    if isinstance(value, list):
        return [swap(item, known) for item in value]
    return known[value] if isinstance(value, str) and value in known else value


def relabel(
    found: Traced, given: Named, contract: ToolContract, arguments: Mapping[str, Any], context: Label
) -> Traced:
    """Let each value that came out of a handle carry what the handle carries, and nothing better.

    Raises:
        TooMany: the call holds more values than are looked through.
    """
    labels, origins = dict(found.labels), dict(found.origins)
    # Two places are written alike where a key holds a dot or a bracket: what may have stood there plainly carries both labels.
    plain = None if given.blank is None else {place.key for place in places(contract, given.blank)}
    for place in places(contract, arguments):
        behind = [each for key, each in given.places.items() if _within(place.key, key)]
        if not behind:
            continue
        held = join(*(each.label for each, _ in behind))
        sure = plain is not None and place.key not in plain
        labels[place.key] = held if sure else join(held, labels.get(place.key, context))
        origins[place.key] = behind[0][1] if sure and len(behind) == 1 and place.key in given.places else ()
    return Traced(labels, origins)


def plain_label(found: Traced, given: Named | None, context: Label) -> Label:
    """Give the label of a call without what its handles hold."""
    behind = () if given is None else tuple(given.places)
    return join(context, *(each for key, each in found.labels.items() if not any(_within(key, at) for at in behind)))


def _within(key: str, handle: str) -> bool:
    return key.rstrip("#") == handle or key.startswith((f"{handle}.", f"{handle}["))


def _below(path: str, part: str) -> str:
    return f"{path}.{part}" if path else str(part)


def _paths(contract: ToolContract) -> tuple[str, ...]:
    return ("", *(out.path for out in contract.outs))


def _branches(schema: Any, root: Mapping[str, Any], depth: int = 0) -> list[Mapping[str, Any]]:
    """Give the forms that a value may have by its schema, null left out: whether it is null is a value, too."""
    if not isinstance(schema, Mapping) or depth > DEPTH:
        return []
    ref = schema.get("$ref")
    if isinstance(ref, str) and ref.startswith("#/"):
        target: Any = root
        for part in ref[2:].split("/"):
            target = target.get(part) if isinstance(target, Mapping) else None
        return _branches(target, root, depth + 1)
    found = [] if schema.get("type") == "null" else [schema]
    for branch in ("anyOf", "oneOf", "allOf"):
        for part in schema.get(branch) or ():
            found += _branches(part, root, depth + 1)
    return found
