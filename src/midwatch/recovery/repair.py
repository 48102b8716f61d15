"""Repair: a broken region becomes the value that its writer most likely meant.

In:   the text of one region, already bounded in size and depth by the scan.
Out:  a strict JSON value and the list of what was repaired, or `NotStrict`.
May import: recovery.strict, json-repair. Must not know: schemas; the gate behind it decides whether the value is used.
Why a subclass of the library's parser: it lets the last of two equal keys win, as every reader does. Its keys are
replaced by ones that are equal only to themselves, so that both stay and are found (`test_recovery_repair.py` fails if
a new version of the library no longer asks for keys this way). Its depth and its steps are bounded in the same place.
"""

from __future__ import annotations

import json
from typing import Any, Final

from json_repair.json_parser import JSONParser
from json_repair.utils.json_context import ContextValues

from midwatch.recovery.strict import MAX_DEPTH, NotStrict, loads_strict

__all__ = ["MAX_REPAIRS", "repair"]

MAX_REPAIRS: Final = 16
_MAX_STEPS: Final = 20_000
# What a hand-written parser over arbitrary text may raise; none of it may reach the run.
_FAILURES: Final = (ValueError, IndexError, KeyError, TypeError, AttributeError, AssertionError, RecursionError)


class _Stop(Exception):
    """The parser went too deep or too long."""


class _Key(str):
    """A key as it stood at one place of the text: equal to plain strings by letters, to other keys by place."""

    __slots__ = ()
    __hash__ = str.__hash__

    def __eq__(self, other: object) -> bool:
        return self is other if isinstance(other, _Key) else str.__eq__(self, other)

    def __ne__(self, other: object) -> bool:
        return not self == other


class _Parser(JSONParser):
    def __init__(self, text: str) -> None:
        super().__init__(text, None, logging=True)
        self._depth = self._steps = 0

    def parse_string(self) -> Any:
        is_key = self.context.current is ContextValues.OBJECT_KEY
        found = super().parse_string()
        return _Key(found) if is_key and isinstance(found, str) else found

    def parse_json(self, *args: Any, **options: Any) -> Any:
        self._depth += 1
        self._steps += 1
        if self._depth > 2 * MAX_DEPTH or self._steps > _MAX_STEPS:
            raise _Stop
        try:
            return super().parse_json(*args, **options)
        finally:
            self._depth -= 1


def repair(text: str) -> tuple[Any, tuple[str, ...]]:
    """Repair one value.

    Returns:
        The value, as strict as `loads_strict` gives it, and at most `MAX_REPAIRS` sentences that say what was repaired
        and hold nothing of the text.

    Raises:
        NotStrict: equal keys, too deep, or not repairable. Never anything else.
    """
    parser = _Parser(text)
    try:
        value = _plain(parser.parse(), 0)
        strict = loads_strict(json.dumps(value, allow_nan=False))
    except NotStrict:
        raise
    except _Stop:
        raise NotStrict("too_deep") from None
    except _FAILURES:
        raise NotStrict("syntax") from None
    done: dict[str, None] = {}
    for entry in parser.logger:
        # The library's sentences about comments repeat the comment after a colon.
        done.setdefault(entry.get("text", "").partition(":")[0].strip()[:120])
    return strict, tuple(done)[:MAX_REPAIRS]


def _plain(value: Any, depth: int) -> Any:
    """Turn keys into plain strings; refuse an object that names one key twice."""
    if depth > MAX_DEPTH:
        raise NotStrict("too_deep")
    if isinstance(value, dict):
        plain = {str(key): _plain(item, depth + 1) for key, item in value.items()}
        if len(plain) != len(value):
            raise NotStrict("duplicate_keys")
        return plain
    if isinstance(value, list):
        return [_plain(item, depth + 1) for item in value]
    return str(value) if isinstance(value, str) else value
