"""YAML with lines: a fleet file becomes plain values, and a map from each value's place to its line.

In:   a path, a text, or a Python mapping. Out: `Source`, or `InvalidFleet` with each problem and its line.
May import: `quantities`, errors; PyYAML. Must not know: what the keys mean.
Why not `safe_load`: it forgets lines, lets the last of two equal keys win, reads `no` as false and `12:30` as a number,
and follows aliases without bound. Values are built from parser events, so that nesting cannot exhaust the stack.

Source: YAML 1.2.2, section 10.3.2 (core schema), less what is ambiguous: `yes`, `on`, `0x10`, `010`, dates are strings.
"""

from __future__ import annotations

import json
import math
import re
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import yaml

from midwatch.config.quantities import LARGEST
from midwatch.errors import InvalidFleet, Problem

__all__ = ["MAX_BYTES", "Place", "Source", "from_python", "read_file", "read_yaml"]

Place = tuple[str | int, ...]
"""Where something stands: `("gates", 2, "ask")`."""

MAX_BYTES: Final = 1 << 20
_MAX_DEPTH: Final = 40
_MAX_NODES: Final = 50_000
_MAX_ALIASES: Final = 100
_MAX_PROBLEMS: Final = 100
_TOO_LARGE: Final = object()
_INT = re.compile(r"-?(?:0|[1-9][0-9]*)")
_FLOAT = re.compile(r"-?(?:[0-9]{1,30}\.[0-9]{1,30}(?:[eE][-+]?[0-9]{1,3})?|[0-9]{1,30}[eE][-+]?[0-9]{1,3})")
_WORDS: Final[Mapping[str, bool | None]] = {"true": True, "false": False, "null": None, "~": None, "": None}
# Control characters and lone surrogates cannot be stored, shown or used in a path.
_UNUSABLE = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff]")
# libyaml's parser is ten times faster; both give the same events. Typed as Any: the stubs know only one of them.
_LOADER: Final[Any] = yaml.CSafeLoader if yaml.__with_libyaml__ else yaml.SafeLoader


@dataclass(frozen=True, slots=True)
class Source:
    """Plain values and where they stand.

    Attributes:
        name: what problems are reported under: the file as the user named it.
        value: mappings, lists, strings, whole numbers, floats, booleans, None.
        lines: line, from 1, of each place; empty for a mapping made in Python.
    """

    name: str
    value: object
    lines: Mapping[Place, int]
    text: str

    def where(self, place: Place) -> str:
        """Give `file.yaml:12` for the nearest enclosing thing whose line is known; `a.b.c` when there are no lines."""
        if not self.lines:
            return ".".join(str(part) for part in place) or self.name
        while place and place not in self.lines:
            place = place[:-1]
        return f"{self.name}:{self.lines.get(place, 1)}"

    def line(self, place: Place) -> int:
        """Give the line of the nearest enclosing thing, for sorting; 0 when there are no lines."""
        while place and place not in self.lines:
            place = place[:-1]
        return self.lines.get(place, 0)


def read_file(path: Path) -> str:
    """Read a text file of at most `MAX_BYTES`.

    Raises:
        InvalidFleet: missing, a folder or device, unreadable, too large, or not UTF-8. Shown to the user.
    """
    name = str(path)
    try:
        # The kind is looked at first: opening a pipe would wait for its other end.
        if not stat.S_ISREG(path.stat().st_mode):
            raise _refused(name, "this is not a file; name the fleet file itself", "not-a-file")
        with path.open("rb") as stream:
            data = stream.read(MAX_BYTES + 1)
    except FileNotFoundError as failure:
        raise _refused(name, "there is no such file; correct its name", "missing-file") from failure
    except (OSError, ValueError) as failure:
        reason = getattr(failure, "strerror", None) or "its name cannot be used"
        raise _refused(name, f"cannot be read: {reason.lower()}", "unreadable") from failure
    if len(data) > MAX_BYTES:
        raise _refused(name, f"is larger than {MAX_BYTES:,} bytes; split what it holds", "too-large")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as failure:
        line = data.count(b"\n", 0, failure.start) + 1
        raise _refused(f"{name}:{line}", "is not UTF-8; save it as UTF-8", "not-utf8") from failure


def read_yaml(text: str, name: str) -> Source:
    """Parse one YAML document.

    Raises:
        InvalidFleet: not YAML, empty, more than one document, a key twice, a tag, or more than the bounds above.
    """
    if len(text) > MAX_BYTES:
        raise _refused(name, f"is larger than {MAX_BYTES:,} bytes; split what it holds", "too-large")
    builder = _Builder(name)
    try:
        for event in yaml.parse(text, Loader=_LOADER):
            builder.take(event)
            if builder.stopped:
                break
    except yaml.YAMLError as failure:
        builder.problems.append(_not_yaml(failure, text, name))
    except UnicodeEncodeError as failure:  # libyaml takes UTF-8, which has no lone surrogates
        line = text.count("\n", 0, failure.start) + 1
        builder.problems.append(Problem(f"{name}:{line}", "is not UTF-8; save it as UTF-8", "not-utf8"))
    if builder.problems:
        raise InvalidFleet(tuple(builder.problems))
    if builder.value is None:
        raise _refused(name, "is empty; begin with `midwatch: 1`", "empty-file")
    return Source(name, builder.value, builder.lines, text)


def from_python(value: object, name: str) -> Source:
    """Take a mapping made in Python: copied, so that a later change to it changes nothing here.

    Raises:
        InvalidFleet: a value that YAML could not have given, or more than the bounds above.
    """
    problems: list[Problem] = []
    count = 0

    def copy(value: object, place: Place) -> object:
        nonlocal count
        count += 1
        where = ".".join(str(part) for part in place) or name
        if len(place) > _MAX_DEPTH or count > _MAX_NODES:
            if not any(problem.code == "too-deep" for problem in problems):
                problems.append(Problem(where, "is nested too deeply or too large", "too-deep"))
            return None
        if isinstance(value, Mapping):
            problems.extend(
                Problem(where, f"the key `{key!r}` is not plain text; use words as keys", "bad-key")
                for key in value
                if not isinstance(key, str) or _UNUSABLE.search(key)
            )
            return {key: copy(child, (*place, key)) for key, child in value.items() if isinstance(key, str)}
        if isinstance(value, list | tuple):
            return [copy(child, (*place, index)) for index, child in enumerate(value)]
        if isinstance(value, Path):
            value = str(value)
        if isinstance(value, str) and not _UNUSABLE.search(value):
            return str(value)
        if value is None or isinstance(value, bool) or (isinstance(value, int) and abs(value) <= LARGEST):
            return value
        if isinstance(value, float) and math.isfinite(value):
            return value
        problems.append(
            Problem(where, f"a `{type(value).__name__}` like this cannot be used; write plain data", "bad-value")
        )
        return None

    copied = copy(value, ())
    if problems:
        raise InvalidFleet(tuple(problems[:_MAX_PROBLEMS]))
    # JSON is YAML: the text can be read again.
    return Source(name, copied, {}, json.dumps(copied, ensure_ascii=False, indent=2, sort_keys=True))


@dataclass(slots=True)
class _Open:
    """A mapping or list that has begun and not ended."""

    value: dict[str, object] | list[object]
    place: Place
    anchor: str | None
    first: int
    key: str | None = None

    def child(self) -> Place:
        return (*self.place, len(self.value)) if isinstance(self.value, list) else (*self.place, self.key or "")


@dataclass(slots=True)
class _Builder:
    """Turns parser events into values, noting lines and collecting what is wrong."""

    name: str
    value: object = None
    lines: dict[Place, int] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    stopped: bool = False
    _open: list[_Open] = field(default_factory=list)
    _anchors: dict[str, tuple[object, int]] = field(default_factory=dict)
    _nodes: int = 0
    _aliases: int = 0
    _documents: int = 0

    def take(self, event: yaml.Event) -> None:
        """Take the next event; sets `stopped` when going on would lead nowhere."""
        if isinstance(event, yaml.DocumentStartEvent):
            self._documents += 1
            if self._documents > 1:
                self._stop(event, "a second document begins here; keep one fleet in one file", "many-documents")
        elif isinstance(event, yaml.MappingStartEvent | yaml.SequenceStartEvent):
            self._begin(event)
        elif isinstance(event, yaml.MappingEndEvent | yaml.SequenceEndEvent):
            self._end()
        elif isinstance(event, yaml.ScalarEvent):
            self._scalar(event)
        elif isinstance(event, yaml.AliasEvent):
            self._alias(event)

    def _begin(self, event: yaml.MappingStartEvent | yaml.SequenceStartEvent) -> None:
        self._count(event)
        if event.tag is not None:
            self._problem(event, f"the tag `{event.tag}` is not used here; write a plain value", "tag")
        if self._wants_key():
            self._stop(event, "a key must be one plain word", "bad-key")
            return
        if len(self._open) >= _MAX_DEPTH:
            self._stop(event, f"is nested deeper than {_MAX_DEPTH} levels", "too-deep")
            return
        place = self._open[-1].child() if self._open else ()
        self.lines.setdefault(place, _line(event))
        value: dict[str, object] | list[object] = {} if isinstance(event, yaml.MappingStartEvent) else []
        self._open.append(_Open(value, place, event.anchor, self._nodes))

    def _end(self) -> None:
        done = self._open.pop()
        if done.anchor is not None:
            # The weight is what an alias to it repeats; the anchor exists only now, so that nothing contains itself.
            self._anchors[done.anchor] = (done.value, self._nodes - done.first + 1)
        self._put(done.value)

    def _scalar(self, event: yaml.ScalarEvent) -> None:
        self._count(event)
        text = event.value
        if _UNUSABLE.search(text):
            self._problem(event, "holds a control character; write plain text", "control-character")
            text = _UNUSABLE.sub("", text)
        if event.tag is not None:
            self._problem(event, f"the tag `{event.tag}` is not used here; write a plain value", "tag")
        if self._wants_key():
            self._key(event, text)
            return
        value = _plain(text) if event.style in (None, "") and event.implicit[0] else text
        if value is _TOO_LARGE:
            self._problem(event, f"`{text[:20]}` is too large a number; quote it if it is a name", "too-large-number")
            value = text
        self.lines.setdefault(self._open[-1].child() if self._open else (), _line(event))
        if event.anchor is not None:
            self._anchors[event.anchor] = (value, 1)
        self._put(value)

    def _key(self, event: yaml.ScalarEvent, key: str) -> None:
        top = self._open[-1]
        if key == "<<":
            self._problem(event, "merge keys (`<<`) are not used here; write the keys out", "merge-key")
        if event.anchor is not None:
            self._anchors[event.anchor] = (key, 1)
        top.key = key
        if isinstance(top.value, dict) and key in top.value:
            first = self.lines.get((*top.place, key), 1)
            self._problem(
                event, f"`{key}` stands here twice (first in line {first}); remove one of them", "duplicate-key"
            )
        else:
            self.lines[(*top.place, key)] = _line(event)

    def _alias(self, event: yaml.AliasEvent) -> None:
        self._aliases += 1
        value, weight = self._anchors.get(event.anchor or "", (None, 0))
        self._nodes += weight
        self._count(event)
        if self._aliases > _MAX_ALIASES:
            self._stop(event, f"more than {_MAX_ALIASES} aliases; write the values out", "too-many-aliases")
        elif weight == 0:
            self._stop(event, f"the alias `*{event.anchor}` refers to nothing that is complete here", "bad-alias")
        elif self._wants_key():
            self._stop(event, "a key must be one plain word", "bad-key")
        else:
            self._put(value)

    def _wants_key(self) -> bool:
        return bool(self._open) and isinstance(self._open[-1].value, dict) and self._open[-1].key is None

    def _put(self, value: object) -> None:
        if not self._open:
            self.value = value
            return
        top = self._open[-1]
        if isinstance(top.value, list):
            top.value.append(value)
        elif top.key is not None:
            top.value[top.key] = value
            top.key = None

    def _count(self, event: yaml.Event) -> None:
        self._nodes += 1
        if self._nodes > _MAX_NODES:
            self._stop(event, f"holds more than {_MAX_NODES:,} values, aliases counted in full", "too-many-values")

    def _stop(self, event: yaml.Event, message: str, code: str) -> None:
        self._problem(event, message, code)
        self.stopped = True

    def _problem(self, event: yaml.Event, message: str, code: str) -> None:
        self.problems.append(Problem(f"{self.name}:{_line(event)}", message, code))
        self.stopped = self.stopped or len(self.problems) >= _MAX_PROBLEMS


def _line(event: yaml.Event) -> int:
    return event.start_mark.line + 1 if event.start_mark is not None else 1


def _plain(text: str) -> object:
    if text in _WORDS:
        return _WORDS[text]
    if _INT.fullmatch(text):
        # Python refuses to convert thousands of digits, and JSON readers lose the last ones of 17.
        return int(text) if len(text) <= 17 and abs(int(text)) <= LARGEST else _TOO_LARGE
    if _FLOAT.fullmatch(text) and math.isfinite(float(text)):
        return float(text)
    return text


def _not_yaml(failure: yaml.YAMLError, text: str, name: str) -> Problem:
    mark = getattr(failure, "problem_mark", None)
    if mark is not None:
        line = mark.line + 1
    else:
        position = getattr(failure, "position", 0)
        line = text.count("\n", 0, position) + 1 if isinstance(position, int) else 1
    reason = getattr(failure, "problem", None) or getattr(failure, "reason", None) or "it cannot be read"
    return Problem(f"{name}:{line}", f"is not YAML: {reason}", "not-yaml")


def _refused(where: str, message: str, code: str) -> InvalidFleet:
    return InvalidFleet((Problem(where, message, code),))
