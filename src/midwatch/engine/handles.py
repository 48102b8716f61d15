"""Handles of one segment: who was given which, what a call names, what a result keeps back.

In:   the arguments of a call as they were written; its result with the labels that stage 2 gave it.
Out:  arguments with what their handles hold, or an error in words; a result with handles, and what the ledger keeps of them.
May import: trails, containment, tools, records; store (port). Must not know: verdicts, how a call is performed.
A handle opens for the agent to which a result of its own gave it before it chose this call, and for a synthesis, to which all others hand
over. Whatever is told of one that does not open is the same, whether it exists or not.
Why all values are hidden that would add a cause or take away a reader, whoever wrote them: so the context is the same afterwards.
Why what comes of a call that was given a handle is behind handles as well: the tool may say what it was given.
Source: CONTAINMENT.md, clauses 4, 5, 9, 16, 22.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

import orjson

from midwatch.containment import handles
from midwatch.containment.handles import Hidden, Named
from midwatch.containment.provenance import Held, Seen
from midwatch.containment.roles import TooMany
from midwatch.engine.passage import known
from midwatch.records.envelope import Envelope, ErrorBody
from midwatch.records.label import UNKNOWN, Label, join
from midwatch.recovery.strict import NotStrict, loads_strict
from midwatch.tools.builtin.reader import READER

if TYPE_CHECKING:
    from midwatch.engine.passage import Passage
    from midwatch.engine.trails import Trails
    from midwatch.store.port import Tx
    from midwatch.tools.perform import Performed

__all__ = ["Handles", "kept"]

_LISTED: Final = 20
"""Handles of one call that its event names; all of them stand in its blob."""
_UNKNOWN: Final = ErrorBody(
    "invalid_arguments",
    "you were given no such handle",
    hint="write a handle alone and unchanged, as a result of your own shows it",
)
_PROSE: Final = ErrorBody(
    "invalid_arguments",
    "the arguments name handles and are not plain JSON",
    hint="send the same call again with its arguments as one plain JSON object",
)
_UNFIT: Final = ErrorBody(
    "invalid_arguments",
    "what a handle holds does not fit the argument",
    hint="the tool takes another type, length or form there; use another value",
)
_FAILED: Final = "the tool failed; its words are behind a handle"


class Handles:
    """See the module's head."""

    def __init__(self, trails: Callable[[], Trails], globs: tuple[str, ...], run: str) -> None:
        self._trails, self._globs, self._run = trails, globs, run

    def given(self, p: Passage, text: str, *, edited: bool) -> str | Mapping[str, Any] | ErrorBody:
        """Give the arguments with what their handles hold; the text itself where it names none.

        Args:
            edited: a person put others in their place; what the agent's own held still labels what stands there.
        """
        if "h:" not in text and "\\" not in text:
            return text
        try:
            value = loads_strict(text)
        except NotStrict:
            return text  # what is found in prose is looked at again, see `bare`
        try:
            return self._opened(p, text, value, edited=edited)
        except TooMany:
            return text  # the verdict refuses it
        except Exception as fault:  # noqa: BLE001  # who was given what cannot be said: nothing is opened
            return ErrorBody("denied", f"handles cannot be opened now ({type(fault).__name__})")

    def _opened(self, p: Passage, text: str, value: Any, *, edited: bool) -> str | Mapping[str, Any] | ErrorBody:
        reads = p.name == READER
        if not isinstance(value, dict):
            return text
        named = list(handles.named(value.get("handles"), "handles") if reads else handles.named(value))
        if not named:
            return text
        mine = self._trails().handles(p.actor.agent, self._trails().chosen(p.actor.agent, p.causes))
        if len(dict(named)) != len(named) or any(each not in mine for _, each in named):
            return _UNKNOWN
        blank = handles.swap(value, {each: None for _, each in named})
        p.named = Named({key: mine[each] for key, each in named}, None if edited else blank)
        return text if reads else handles.swap(value, {each: mine[each][0].value for _, each in named})

    def bare(self, p: Passage) -> ErrorBody | None:
        """Refuse arguments that were found in prose and name handles: what is around them is a guess."""
        _, checked = known(p)
        if checked.signal is None or p.name == READER:
            return None
        try:
            return _PROSE if any(True for _ in handles.named(checked.arguments)) else None
        except TooMany:
            return None

    @staticmethod
    def unfit(p: Passage, error: ErrorBody | None) -> ErrorBody | None:
        """Say that arguments do not fit; of those that came out of a handle not even which part, since its keys are somebody's words."""
        return error if p.named is None or p.name == READER else _UNFIT

    # ------------------------------------------------------------------------------------------------------- afterwards

    def begin(self, p: Passage, *, page: bool) -> None:
        """Say whether the call's result comes behind handles. `page`: it reads on in one that did."""
        tool, checked = known(p)
        if tool.contract.name == READER and checked.cursor is None:
            return
        if checked.cursor is not None:
            p.hidden = Hidden(p.plain) if page else None
            return
        p.hidden = Hidden(p.plain)
        try:
            source = self._trails().source(tool.contract.name)
        except Exception:  # noqa: BLE001  # nobody can say what it reads from; where no handles are asked for, nothing changes
            source = None
        asked = handles.wanted(self._globs, tool=tool.contract.name, agent=p.actor.agent, source=source)
        p.hidden = p.hidden if asked or p.named is not None else None

    def hide(self, p: Passage, performed: Performed) -> tuple[Performed, Callable[[Any], Any] | None]:
        """Give what came of a call without its words, where it failed; and what hides its values, where it did not."""
        work = p.hidden
        if work is None or p.name == READER or known(p)[1].cursor is not None:
            return performed, None
        if performed.error is not None:
            return self._failed(p, work, performed), None

        def hide(value: Any) -> Any:
            contract = known(p)[0].contract
            shown, work.handles = handles.hide(
                value,
                contract,
                name=lambda key: self.name(p, key),
                label_of=lambda path: self._label(p, path),
                keep=lambda path: self._kept(p, work.plain, path),
            )
            return shown

        return performed, hide

    def name(self, p: Passage, key: str) -> str:
        """Name the handle for a place of this call's result."""
        return handles.handle_id(self._run, p.actor.agent, p.effect, key)

    def _label(self, p: Passage, path: str) -> Label:
        contract, checked = known(p)[0].contract, known(p)[1]
        recalled = {} if p.recalled is None else {"": p.recalled}
        seen = Seen(contract, checked.arguments, None, p.label, recalled)
        try:
            own = self._trails().field(seen, path)
        except Exception:  # noqa: BLE001  # nobody can say whose words these are
            return UNKNOWN
        return own if p.named is None else join(own, p.label)

    def _kept(self, p: Passage, plain: Label, path: str) -> bool:
        """Say whether a field may be read: whoever made the call could have said it, too, so that reading it changes nothing."""
        return known(p)[0].contract.out(path).role != "credential" and join(plain, self._label(p, path)) == plain

    def _failed(self, p: Passage, work: Hidden, performed: Performed) -> Performed:
        error, made = performed.error, self.name(p, "error")
        if error is None:
            return performed
        body = error.to_json()
        label = join(p.label, self._label(p, ""))
        work.handles = {made: Held(made, "error", body, label, "object", _size(body))}
        told = ErrorBody(error.code, _FAILED, retryable=error.retryable, hint=f"`reader.facts` can look at {made}")
        return replace(performed, error=told)


def kept(tx: Tx, p: Passage, sealed: Envelope) -> tuple[Envelope, dict[str, Any]]:
    """Give the answer with the facts of its handles, and what the call's last event says of them."""
    work = p.hidden
    if work is None:
        return sealed, {}
    told: dict[str, Any] = {"plain": work.plain.to_json()}
    if work.handles:
        held = list(work.handles.values())
        told["handles"] = [_listed(each) for each in held[:_LISTED]]
        told["handles_blob"] = tx.blobs.put(orjson.dumps([each.to_json() for each in held]))
        facts = {each.id: {"type": each.kind, "bytes": each.size} for each in held}
        sealed = replace(sealed, meta={**sealed.meta, "handles": facts})
    return sealed, told


def _listed(held: Held) -> dict[str, Any]:
    return {"id": held.id, "path": held.path, "type": held.kind, "causes": held.label.to_json()["causes"]}


def _size(body: Any) -> int:
    return 1 << max(0, len(orjson.dumps(body)) - 1).bit_length()
