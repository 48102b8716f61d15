"""Recovery: structure out of prose, or a plain refusal.

In:   text that a model or a tool gave where one JSON value was due, and the schema that the value must fit.
Out:  `Clean`, `Recovered` (with the rule that fired, for the *signal* event) or `Refused` (with its reason's code).
May import: errors, records, and orjson, json-repair, jsonschema-rs.
Must not know: which model or tool spoke, what the value will be used for, the ledger.
Why a refusal is a good answer: a value that was guessed may become an effect. Asking again costs tokens; a wrong
guess costs whatever the effect costs. So every doubt (two values with one key, two readings, a cut text) is a refusal.
"""

from __future__ import annotations

from midwatch.recovery.recover import LIMIT_BYTES, REFUSALS, RULES, Clean, Recovered, Refused, recover
from midwatch.recovery.schema import SchemaRefused, Validator, compile_schema
from midwatch.recovery.strict import NotStrict, loads_strict

__all__ = [
    "LIMIT_BYTES",
    "REFUSALS",
    "RULES",
    "Clean",
    "NotStrict",
    "Recovered",
    "Refused",
    "SchemaRefused",
    "Validator",
    "compile_schema",
    "loads_strict",
    "recover",
]
