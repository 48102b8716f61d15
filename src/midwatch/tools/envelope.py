"""Envelope: whatever came of a call, as the one answer that every reader knows.

In:   a tool, its checked arguments, what was performed; a place to put whole bodies.
Out:  `Envelope`, always one that fits `ENVELOPE_SCHEMA`; at most `max_bytes` of data, with a way to the rest.
May import: `arguments`, `decorate`, `outcome`, `perform`, `shape`, `sizing`, recovery, records. Must not know: stores.
Why the whole body is kept apart: a reader's room is bounded, the truth is not. A cursor reads on in what was returned
once, so that reading on executes nothing and shows no second truth.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from midwatch.records.envelope import Envelope, ErrorBody
from midwatch.recovery.strict import NotStrict, loads_strict
from midwatch.tools.arguments import Checked
from midwatch.tools.decorate import Tool
from midwatch.tools.outcome import Outcome
from midwatch.tools.perform import Performed
from midwatch.tools.shape import nest, pick, project
from midwatch.tools.sizing import Fitted, encode, fit

__all__ = ["CURSOR_PATTERN", "keeps_contract", "page", "seal"]

CURSOR_PATTERN: Final = r"([0-9a-f]{64}):([A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]+)*|):([0-9]{1,12})"
"""Digest of the body, dotted path of the list or text in it, offset in items or characters."""


def seal(
    tool: Tool[..., Any],
    checked: Checked,
    performed: Performed,
    *,
    effect_id: str,
    put_blob: Callable[[bytes], str],
    ms: int,
    hide: Callable[[Any], Any] | None = None,
) -> Envelope:
    """Answer a call.

    Args:
        hide: gives what the agent is shown in the place of a result that fits; also what it can read on in.
        effect_id: 16 hex digits; it becomes the reference `e:...`.
        put_blob: keeps bytes and gives their SHA-256 hex; called when less than the whole is shown.
        ms: how long it took, milliseconds.
    """
    refs = (f"e:{effect_id}",)
    meta: dict[str, Any] = {"tool": tool.contract.name, "effect": tool.contract.effect, "ms": ms}
    if performed.error is not None:
        return Envelope(ok=False, error=performed.error, refs=refs, meta=meta)
    body = _body(tool, performed.value)
    if body is None:
        return Envelope(ok=False, error=Outcome.failed("contract").error, refs=refs, meta=meta)
    value = performed.value if hide is None else hide(performed.value)
    body = body if hide is None else encode(value)
    asked = project(value, checked.fields) if checked.fields else value
    fitted = fit(asked, tool.contract.max_bytes)
    if fitted.path is None and not fitted.cut and not checked.fields:
        return Envelope(ok=True, data=value, refs=refs, meta=meta)
    return _partial(fitted, put_blob(body), 0, (*refs,), meta | {"bytes": len(body)})


def keeps_contract(tool: Tool[..., Any], performed: Performed) -> bool:
    """Say whether what came of a call is something that the tool may answer: a result of its own shape, or a failure in its words."""
    if performed.error is None:
        return _body(tool, performed.value) is not None
    return performed.error.code != "contract"


def _body(tool: Tool[..., Any], value: Any) -> bytes | None:
    """Write the whole result; None when it breaks the contract: no JSON, too large, another shape than promised."""
    try:
        body = encode(value)
    except (ValueError, TypeError, RecursionError):
        return None
    return body if len(body) <= tool.contract.body_limit and tool.returns.fits(value) else None


def _partial(fitted: Fitted, digest: str, start: int, refs: tuple[str, ...], meta: Mapping[str, Any]) -> Envelope:
    cursor, told = None, dict(meta)
    if fitted.path is not None:
        end = start + fitted.shown
        told["shown"] = {"path": fitted.path, "from": start, "to": end, "of": start + fitted.total}
        if fitted.shown < fitted.total:
            cursor = f"{digest}:{fitted.path}:{end}"
    if cursor is not None:
        told["hint"] = "call again with `cursor` set to `next_cursor` for the rest, or with `fields` for less of each"
    elif fitted.cut:
        told["hint"] = "texts or lists were shortened; ask with `fields` for the part that matters"
    return Envelope(
        ok=True,
        data=fitted.data,
        refs=(*refs, f"b:{digest}"),
        truncated=cursor is not None or fitted.cut,
        next_cursor=cursor,
        meta=told,
    )


def page(
    tool: Tool[..., Any],
    cursor: str,
    *,
    get_blob: Callable[[str], bytes | None],
    may_read: Callable[[str], bool],
    effect_id: str,
    ms: int,
    fields: Sequence[str] = (),
    hidden: bool = False,
) -> Envelope:
    """Read on in an earlier result; nothing is executed.

    Args:
        cursor: as an envelope gave it; a model may have changed it.
        may_read: says whether this agent's own calls of this run produced the body. It is asked before the body is
            read, and a body that may not be read answers like one that does not exist.
        hidden: the body holds handles, so it need not fit the tool's schema; then `may_read` is for this very tool.
    """
    refs = (f"e:{effect_id}",)
    meta: dict[str, Any] = {"tool": tool.contract.name, "effect": tool.contract.effect, "ms": ms}

    def refused(error: ErrorBody) -> Envelope:
        return Envelope(ok=False, error=error, refs=refs, meta=meta)

    found = re.fullmatch(CURSOR_PATTERN, cursor)
    if found is None:
        return refused(ErrorBody("invalid_arguments", "the cursor is malformed", hint="copy `next_cursor` unchanged"))
    digest, path, start = found.group(1), found.group(2), int(found.group(3))
    body = get_blob(digest) if may_read(digest) else None
    whole = None if body is None else _part(tool, body, path, hidden=hidden)
    if body is None or whole is None or start > len(whole):
        return refused(
            ErrorBody("not_found", "no result of yours goes on there", hint="call the tool again without `cursor`")
        )
    rest: Any = nest(path, whole[start:])
    fitted = fit(project(rest, fields) if fields else rest, tool.contract.max_bytes)
    if fitted.path is None:
        fitted = Fitted(fitted.data, path, len(whole) - start, len(whole) - start, cut=fitted.cut)
    return _partial(fitted, digest, start, refs, meta | {"bytes": len(body)})


def _part(tool: Tool[..., Any], body: bytes, path: str, *, hidden: bool) -> list[Any] | str | None:
    """Find the list or text in a body, if the body is a result that this very tool can give."""
    try:
        value = loads_strict(body.decode())
        part = pick(value, path)
    except (UnicodeDecodeError, NotStrict, KeyError):
        return None
    return part if isinstance(part, list | str) and (hidden or tool.returns.fits(value)) else None
