"""Origins: where the values of an action that matter were seen before, for the person who is asked.

In:   a run, a contract, arguments. Out: per argument, the request or the executions in which its value stands; or nowhere.
May import: records, store (port), tools' contract. Must not know: labels. This is a search in texts, shown as a help: a value
that stands somewhere may still come from elsewhere, and no guard reads it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

import orjson

from midwatch.store.port import Tx
from midwatch.tools.contract import ToolContract

__all__ = ["of"]

_ROLES: Final = ("target", "command", "selector", "credential", "control")
_SHORTEST: Final = 3
_EFFECTS: Final = 200
"""Newest executions that are searched."""
_NAMED: Final = 5
_LOOKED_FOR: Final = 200
"""Texts of one action that are looked for; it is done while the home is locked for writing, and a card of more is not read."""


def of(tx: Tx, run: str, contract: ToolContract, arguments: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Give `{argument, seen_in}` for each text of a role that matters; `seen_in` holds `request`, `e:ID tool`, or nothing."""
    wanted = [(name, text) for name, text in _texts(arguments) if contract.arg(name).role in _ROLES]
    if not wanted:
        return []
    row = tx.runs.get(run)
    sources = [("request", _body(tx, None if row is None else row.input))]
    done = [effect for effect in tx.effects.list(run, statuses=("done",)) if effect.kind == "tool"]
    sources += [(f"e:{effect.id} {effect.tool}", _body(tx, effect.result)) for effect in done[-_EFFECTS:]]
    found = [{"argument": name, "seen_in": _seen(text, sources)[:_NAMED]} for name, text in wanted[:_LOOKED_FOR]]
    more = len(wanted) - len(found)
    return [*found, {"argument": f"{more:,} more texts", "seen_in": ["not looked for"]}] if more else found


def _seen(text: str, sources: list[tuple[str, str]]) -> list[str]:
    if len(text) < _SHORTEST:
        return []
    written = orjson.dumps(text).decode()[1:-1]
    return [name for name, body in sources if written in body]


def _body(tx: Tx, digest: str | None) -> str:
    body = None if digest is None else tx.blobs.get(digest)
    return "" if body is None else body.decode("utf-8", "replace")


def _texts(value: Any, name: str = "") -> Iterator[tuple[str, str]]:
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from _texts(item, f"{name}.{key}" if name else str(key))
    elif isinstance(value, list):
        for item in value:
            yield from _texts(item, name)
    elif isinstance(value, str):
        yield name, value
