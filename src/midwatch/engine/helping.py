"""Helping: calls of the tools that a contract names as its helpers: preview, precondition, reconciler.

In:   a tool, its checked arguments, where it runs. Out: what the helper said; failures are values.
May import: tools, sandbox and store (ports), the rules' labels. Must not know: the journal; what follows from an answer.
Why no passage of their own: a helper only reads, what it reads the call itself was just granted, and its code is the operator's.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

import orjson
import rfc8785

from midwatch.config.fleet import Fleet
from midwatch.engine.context import Scrub
from midwatch.engine.passage import program_name
from midwatch.gates.rules import labels_of
from midwatch.records.effect import Label
from midwatch.records.envelope import Envelope
from midwatch.sandbox.port import Tools
from midwatch.store.port import Store, Tx
from midwatch.tools import arguments, helpers, perform
from midwatch.tools.decorate import Tool
from midwatch.tools.registry import Registry

__all__ = ["HelperFailed", "Place", "labels_in", "preview_of", "reconcile", "state_of"]

_SHOWN: Final = 20_000
"""Characters of a preview that a card keeps."""


class HelperFailed(Exception):
    """The helper gave no usable answer. Whoever asked lets nothing happen on it."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where helpers of one run are called."""

    registry: Registry
    sandbox: Tools
    scrub: Scrub
    context: perform.PerformContext


def labels_in(store: Store, fleet: Fleet, run: str, registry: Registry) -> frozenset[Label]:
    """Give the labels of a run: whose words its tools have brought in so far; not looked up where no rule asks for any.

    A program brings words in as long as it runs, and nobody sees which: it counts from its start.
    """
    if not any(rule.when.label for rule in fleet.gates):
        return labels_of(())

    def work(tx: Tx) -> set[str]:
        rows = [row for row in tx.effects.list(run) if row.kind == "tool"]
        return {row.tool for row in rows if row.status == "done" or row.tool == program_name(row.agent)}

    done, known = store.read(work), registry.tools
    return labels_of(known[name].contract if name in known else None for name in sorted(done))


async def state_of(place: Place, tool: Tool[..., Any], values: Mapping[str, Any]) -> str:
    """Give the digest of the target's state, empty where the tool has no precondition.

    Raises:
        HelperFailed: it cannot be read, so nobody may rely on it.
    """
    name = tool.contract.precondition
    if name is None:
        return ""
    value = await _ask(place, name, values)
    try:
        return hashlib.sha256(rfc8785.dumps(value)).hexdigest()
    except (rfc8785.CanonicalizationError, RecursionError) as error:
        raise HelperFailed(f"`{name}` gave a state that has no canonical form") from error


async def preview_of(place: Place, tool: Tool[..., Any], values: Mapping[str, Any]) -> str | None:
    """Show what the call would do, scrubbed of credentials; None where the tool has no preview. A failure is told in words."""
    name = tool.contract.preview
    if name is None:
        return None
    try:
        value = await _ask(place, name, values)
    except HelperFailed as failed:
        return f"no preview: {failed}"
    clean, _ = place.scrub.value(value)
    texts = [text for text in clean.values() if isinstance(text, str)] if isinstance(clean, dict) else []
    shown = max(texts, key=len) if texts else orjson.dumps(clean).decode()
    return shown if len(shown) <= _SHOWN else f"{shown[:_SHOWN]}\n… {len(shown) - _SHOWN:,} more characters"


async def reconcile(
    place: Place, tool: Tool[..., Any], values: Mapping[str, Any]
) -> tuple[Literal["done", "not_done", "unknown"], Any]:
    """Ask what became of a call; `place.context` carries the call's own key. Anything unclear is `unknown`."""
    name = tool.contract.reconcile
    if name is None:
        return "unknown", None
    try:
        word, result = helpers.outcome_of(await _ask(place, name, values))
    except HelperFailed:
        return "unknown", None
    if word == "done" and tool.returns.errors(result):
        return "unknown", None
    return word, result


async def _ask(place: Place, name: str, values: Mapping[str, Any]) -> Any:
    helper = place.registry.get(name)
    checked = arguments.check(helper, helpers.arguments_for(helper.contract, values))
    if isinstance(checked, Envelope):
        raise HelperFailed(f"`{name}` does not take these arguments")
    performed = await perform.perform(helper, checked, context=place.context, sandbox=place.sandbox)
    if performed.error is not None:
        raise HelperFailed(f"`{name}` answered `{performed.error.code}`")
    return performed.value
