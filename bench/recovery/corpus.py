"""Corpus: texts with the value that each was meant to carry, or the word that nobody can say.

In:   the JSONL files beside this module. Out: `Case`s; the schemas, compiled.
May import: recovery. Must not know: which parser is asked.
How a case is marked: `value` is what the text means; `refuse` says that no value may be given; `or_refuse` beside a value says that a
refusal is right, too, since the text stands outside of what JSON and its usual slips allow.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from midwatch.recovery import Validator, compile_schema

__all__ = ["SCHEMAS", "Case", "cases", "verdict"]

_FOLDER: Final = Path(__file__).parent / "corpus"


def _closed(**properties: Any) -> dict[str, Any]:
    required = [key for key, value in properties.items() if "default" not in value]
    return {"type": "object", "properties": properties, "required": required, "additionalProperties": False}


_TEXT: Final = {"type": "string"}
_TEXTS: Final = {"type": "array", "items": _TEXT}
_CALLS: Final[Mapping[str, dict[str, Any]]] = {
    "services.restart": _closed(service=_TEXT, force={"type": "boolean"}),
    "files.write": _closed(path=_TEXT, content=_TEXT),
    "tickets.create": _closed(title=_TEXT, priority={"enum": ["low", "normal", "high"]}, labels=_TEXTS),
    "metrics.query": _closed(name=_TEXT, minutes={"type": "integer"}),
    "mail.send": _closed(to=_TEXT, subject=_TEXT, body=_TEXT),
}
SCHEMAS: Final[Mapping[str, Validator]] = {
    "call": compile_schema(
        {"anyOf": [_closed(tool={"const": name}, arguments=schema) for name, schema in _CALLS.items()]}
    ),
    "finding": compile_schema(
        _closed(summary=_TEXT, severity={"enum": ["low", "medium", "high"]}, hosts=_TEXTS, count={"type": "integer"})
    ),
    "handoff": compile_schema(
        _closed(changed={"type": "array", "items": _closed(what=_TEXT, where=_TEXT)}, needed=_TEXTS, risks=_TEXTS)
    ),
    "config": compile_schema(
        _closed(
            name=_TEXT,
            port={"type": "integer"},
            command=_TEXT,
            env={"type": "object", "additionalProperties": _TEXT},
            enabled={"type": "boolean"},
            note={"type": ["string", "null"]},
        )
    ),
}


@dataclass(frozen=True, slots=True)
class Case:
    """One text.

    Attributes:
        origin: `written` by us, or the model whose own words it is. kind: what is wrong with it, or the manner it was asked in.
        cut: the writer stopped at its limit. expect: `{value}`, `{value, or_refuse}` or `{refuse}`.
    """

    id: str
    origin: str
    kind: str
    schema: str
    cut: bool
    text: str
    expect: Mapping[str, Any]


def cases() -> list[Case]:
    """Read every case, in order of file and place."""
    rows = [
        json.loads(line) for file in sorted(_FOLDER.glob("*.jsonl")) for line in file.read_text("utf-8").splitlines()
    ]
    return [
        Case(
            row["id"], row["origin"], row["kind"], row["schema"], row["finish"] == "length", row["text"], row["expect"]
        )
        for row in rows
    ]


def verdict(case: Case, outcome: tuple[bool, Any]) -> str:
    """Judge `(given, value)`: `right`, `missed` (refused what has a value) or `wrong` (gave what was not meant)."""
    given, value = outcome
    if not given:
        return "right" if case.expect.get("refuse") or case.expect.get("or_refuse") else "missed"
    return "right" if "value" in case.expect and _same(value, case.expect["value"]) else "wrong"


def _same(left: Any, right: Any) -> bool:
    """Compare as JSON Schema does: 8080.0 is the whole number 8080, and true is no number."""
    if isinstance(left, dict) and isinstance(right, dict):
        return left.keys() == right.keys() and all(_same(left[key], right[key]) for key in left)
    if isinstance(left, list) and isinstance(right, list):
        return len(left) == len(right) and all(map(_same, left, right))
    return isinstance(left, bool) == isinstance(right, bool) and bool(left == right)
