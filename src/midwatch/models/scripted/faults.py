"""Faults: the ways in which a provider goes wrong, each played on purpose.

In:   a fault from a rule or from the control endpoint; for some, the healthy answer that is to be spoilt.
Out:  a `Fault`; spoilt answers (`spoil`); and, for `server`, what it has to do on the wire.
May import: sibling `functions`. Must not know: rules, HTTP, the bill.
Why one closed list: a test names what it plays, the bill names what was played, and the table in
`docs/reference/scenario.md` says what each does to the answer, the usage and the bill.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Final

__all__ = ["KINDS", "SILENT", "Call", "Fault", "Faults", "Reply", "parse_fault", "spoil"]

KINDS: Final[dict[str, frozenset[str]]] = {
    "status": frozenset({"status", "retry_after"}),
    "timeout": frozenset({"seconds"}),
    "cut_stream": frozenset({"after_chunks"}),
    "no_finish": frozenset(),
    "no_usage": frozenset(),
    "bad_json": frozenset(),
    "wrong_tool": frozenset({"name"}),
    "wrong_schema": frozenset(),
    "duplicate_keys": frozenset(),
    "empty": frozenset(),
    "prose": frozenset({"bytes"}),
    "malformed_arguments": frozenset(),
    "wrapped": frozenset(),
    "lying_usage": frozenset({"multiplier"}),
    "slow": frozenset({"delay_ms"}),
}
"""Kind -> the settings it takes besides `kind` and `times`."""

SILENT: Final = frozenset({"status", "timeout"})
"""Kinds that need no answer from the rule."""

_LONGEST_WAIT_S: Final = 600
_MOST_PROSE: Final = 64 * 2**20
_SENTENCE: Final = "This is prose where structure was due, and it goes on without ever coming to the point. "


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault.

    Attributes:
        kind: one of `KINDS`.
        times: the first so many matches fail, later ones do not; None = every one.
        status: HTTP status of `status`, 400 to 599.
        retry_after: seconds in the `Retry-After` header of `status`; None = no header.
        seconds: how long `timeout` holds the connection at most.
        after_chunks: events that `cut_stream` sends before it closes the socket.
        name: the tool that `wrong_tool` calls.
        bytes: length of `prose`.
        multiplier: what `lying_usage` reports, as a multiple of the truth. The bill keeps the truth.
        delay_ms: pause of `slow` before each event.
    """

    kind: str
    times: int | None = None
    status: int = 500
    retry_after: int | None = None
    seconds: int = 60
    after_chunks: int = 2
    name: str = "no_such_tool"
    bytes: int = 1_000_000
    multiplier: Fraction = Fraction(1, 10)
    delay_ms: int = 50


@dataclass(frozen=True, slots=True)
class Call:
    """A tool call as it goes over the wire: `arguments` is text, since it may be malformed."""

    id: str
    name: str
    arguments: str


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer before it is put on the wire. `finish` None = the provider forgets to say why it stopped."""

    text: str
    calls: tuple[Call, ...]
    finish: str | None

    @property
    def size(self) -> int:
        """UTF-8 bytes that the model generated: text, tool names and arguments."""
        return len(self.text.encode()) + sum(len((call.name + call.arguments).encode()) for call in self.calls)


def parse_fault(value: object, report: Callable[[str, str], None]) -> Fault | None:
    """Read `fault: KIND` or `fault: {kind: KIND, ...}`.

    Args:
        value: as it stands in the scenario, or in the body sent to the control endpoint.
        report: called with the key at fault (`""` for the whole) and a sentence, once for each problem.

    Returns:
        The fault, or None when something was reported.
    """
    written = {"kind": value} if isinstance(value, str) else value
    settings: Mapping[str, object] = written if isinstance(written, dict) else {}
    kind = settings.get("kind")
    if not isinstance(kind, str) or kind not in KINDS:
        report("kind" if settings else "", f"a fault needs a kind, one of {', '.join(KINDS)}")
        return None
    problems: list[str] = []
    for key in sorted(settings.keys() - KINDS[kind] - {"kind", "times"}):
        problems.append(key)
        report(key, f"the fault `{kind}` takes no `{key}`; {_takes(kind)}")
    read: dict[str, object] = {}
    for key in settings.keys() & (KINDS[kind] | {"times"}):
        wish = _wish(key, settings[key])
        if isinstance(wish, str):
            problems.append(key)
            report(key, wish)
        else:
            read[key] = wish[0]
    return None if problems else _build(kind, read)


def _takes(kind: str) -> str:
    return "it takes " + ", ".join(f"`{key}`" for key in sorted(KINDS[kind] | {"times"}))


_BOUNDS: Final[dict[str, tuple[int, int]]] = {
    "times": (1, 1_000_000),
    "status": (400, 599),
    "retry_after": (0, 3600),
    "seconds": (0, _LONGEST_WAIT_S),
    "after_chunks": (0, 1_000_000),
    "bytes": (0, _MOST_PROSE),
    "delay_ms": (0, 60_000),
}


def _wish(key: str, value: object) -> tuple[object] | str:
    """The value of one setting in a tuple, or the sentence that says what is wrong with it."""
    if key == "name":
        return (value,) if isinstance(value, str) and value else "`name` must be the name of a tool"
    if key == "multiplier":
        try:
            multiplier = Fraction(str(value)) if not isinstance(value, bool) else Fraction(-1)
        except (ValueError, ZeroDivisionError):
            multiplier = Fraction(-1)
        return (multiplier,) if multiplier >= 0 else "`multiplier` must be a number >= 0, such as 0.1 or 3"
    low, high = _BOUNDS[key]
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        return f"`{key}` must be a whole number from {low} to {high}"
    return (value,)


def _build(kind: str, read: Mapping[str, object]) -> Fault:
    return replace(Fault(kind), **read)  # type: ignore[arg-type]  # `_wish` has checked each value's type


class Faults:
    """Counts how often each fault was played, and holds those that a test has injected. Safe to use from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._played: dict[int, int] = {}
        self._injected: list[tuple[str | None, Fault, int]] = []

    def inject(self, fault: Fault, agent: str | None) -> None:
        """Play `fault` on the next `fault.times` (default 1) requests of `agent` (None: of anybody)."""
        with self._lock:
            self._injected.append((agent, fault, fault.times or 1))

    def clear(self) -> None:
        """Forget every injected fault."""
        with self._lock:
            self._injected.clear()

    def due(self, agent: str, rule: int, declared: Fault | None) -> Fault | None:
        """The fault to play on a request that rule number `rule` answers: an injected one, else the rule's own."""
        with self._lock:
            for index, (wanted, fault, left) in enumerate(self._injected):
                if wanted in (None, agent):
                    self._injected[index : index + 1] = [(wanted, fault, left - 1)] if left > 1 else []
                    return fault
            if declared is None:
                return None
            played = self._played.get(rule, 0)
            if declared.times is not None and played >= declared.times:
                return None
            self._played[rule] = played + 1
            return declared


def spoil(reply: Reply, fault: Fault, new_id: Callable[[int], str]) -> Reply:
    """`reply` as the fault leaves it; the same reply when the fault acts elsewhere (status, stream, usage).

    Args:
        new_id: makes the id of the tool call with that index, for faults that call a tool where the rule did not.
    """
    if fault.kind == "no_finish":
        return replace(reply, finish=None)
    if fault.kind == "empty":
        return Reply("", (), "stop")
    if fault.kind == "prose":
        return Reply((_SENTENCE * (fault.bytes // len(_SENTENCE) + 1))[: fault.bytes], (), "stop")
    if fault.kind == "bad_json":
        return Reply(_broken(reply.text), (), "stop")
    if fault.kind == "wrong_tool":
        calls = reply.calls or (Call(new_id(0), fault.name, "{}"),)
        return Reply(reply.text, tuple(replace(call, name=fault.name) for call in calls), "tool_calls")
    change = _CHANGES.get(fault.kind)
    if change is None:
        return reply
    if reply.calls:
        return replace(reply, calls=tuple(replace(call, arguments=change(call.arguments)) for call in reply.calls))
    return replace(reply, text=change(reply.text))


def _broken(source: str) -> str:
    """JSON that breaks off: the last brace is gone and a comma hangs there instead."""
    return source.rstrip()[:-1] + "," if source.rstrip().endswith(("}", "]")) else '{"answer": '


def _wrapped(source: str) -> str:
    """What was asked for, with talk around it."""
    return f"Here is what you asked for:\n\n```json\n{source}\n```\n\nShall I go on?"


def _other_shape(_: str) -> str:
    return '{"unexpected": true}'


def _doubled(source: str) -> str:
    """The same object with its first key once more at the end, with another value."""
    try:
        value = json.loads(source)
    except ValueError:
        value = None
    if not isinstance(value, dict) or not value:
        return '{"a": 1, "a": 2}'
    first = next(iter(value))
    return f"{json.dumps(value, ensure_ascii=False)[:-1]}, {json.dumps(first, ensure_ascii=False)}: null}}"


_CHANGES: Final[Mapping[str, Callable[[str], str]]] = {
    "wrong_schema": _other_shape,
    "duplicate_keys": _doubled,
    "malformed_arguments": _broken,
    "wrapped": _wrapped,
}
