"""Outcomes: what a run was refused, what of authority it changed since, and so whether the next call is the third step of an escalation.

In:   the ledger of the run; a passage past containment, a request at the broker. Out: the finding, recorded; `Denied`, or a question.
May import: containment, granting, staged, records, tools; store (port). Must not know: gates, budgets, how a call is performed.

    refused    by containment or at a gate; 401, 403, EACCES, EPERM of a tool; an answer, or the broker's own no, to a sandbox's request
    changed    a call that grants authority, a file or a request that a detector says does, an argument that leads to such a place;
               a version of our own authority that waited, and was answered
    the same   resource and effect class, by any tool or agent of the run: asked of a person where the fleet enforces, else written down

Why from the ledger alone: it is read on from where it was last read, so after a wait, a kill and in another process the answer is the same.
Why a call that only begins counts as a change: what it does may be there before its end is on record.
Source: CONTAINMENT.md, clause 30.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

import orjson

from midwatch.containment.authority import Command, Http, judge
from midwatch.containment.retries import (
    Attempt,
    Escalation,
    Outcome,
    Refusal,
    Retries,
    attempted,
    refused,
    refused_request,
)
from midwatch.containment.roles import Place, TooMany, places
from midwatch.containment.verdict import BY, Ruling
from midwatch.engine import granting
from midwatch.engine.mandating import Stale
from midwatch.engine.passage import known
from midwatch.engine.staged import layer_of
from midwatch.errors import MidwatchError, RunHalted
from midwatch.records.decision import Allowed, Ask, Denied
from midwatch.records.effect import EFFECT_CLASSES
from midwatch.records.envelope import Envelope
from midwatch.records.label import UNKNOWN
from midwatch.sandbox import watched
from midwatch.sandbox.effects import CHANGING, Request, shown
from midwatch.sandbox.layers import contents_of
from midwatch.tools import arguments

if TYPE_CHECKING:
    from midwatch.engine.context import Segment
    from midwatch.engine.passage import Passage
    from midwatch.records.event import Event
    from midwatch.store.port import Tx
    from midwatch.tools.contract import ToolContract

__all__ = ["HINT", "MOST_DENIALS", "Outcomes"]

HINT: Final = "what you changed does not make it allowed; say what you need, and a person decides"
MOST_DENIALS: Final = 30
"""How often a run is denied, by containment or at gates, before it stands still: whoever tries until something passes stops there."""

_KINDS: Final = ("intent", "finished", "gate.used", "run.resumed")
_PAGE: Final = 1000
_READS: Final = ("GET", "HEAD", "OPTIONS")
_TAIL: Final = 4_000
_MOST_VERSIONS: Final = 1_000_000
_SAID: Final = re.compile(
    r"PermissionError|\bE(?:ACCES|PERM)\b|\[Errno (?:1|13)\]|(?i:permission denied|operation not permitted)"
    r"|\b40[13]\b.{0,3}(?i:unauthori[sz]ed|forbidden)|(?i:unauthori[sz]ed|forbidden).{0,20}\b40[13]\b"
)
"""How systems and libraries say it, in what a tool raised or wrote to its error stream."""
_CODES: Final[Mapping[str, frozenset[int]]] = {
    **dict.fromkeys(("status", "status_code", "http_status", "code"), frozenset({401, 403, 407})),
    **dict.fromkeys(("exit_code", "returncode", "exit"), frozenset({126})),
    "errno": frozenset({1, 13}),
}
_ERRORS: Final = frozenset({"stderr", "error", "errors"})


class Outcomes:
    """Of one segment. Its state follows from the ledger; several may be kept of one run."""

    def __init__(self, segment: Segment) -> None:
        self._seg = segment
        self._retries = Retries()
        self._unread: list[Event] = []
        self._changing: dict[str, list[str]] = {}
        self._read = self._denials = self._epoch = 0
        self._versions: set[str] = set()
        self._told: set[str] = set()
        self._lock = threading.RLock()
        segment.staging.bars = self.barred

    # -------------------------------------------------------------------------------------------------- at stage 3

    def probed(self, p: Passage) -> Denied | None:
        """Stop a run that was denied as often as it may be; a person who resumes it lets it try anew.

        Raises:
            Halted: as said, or the store does not answer.
        """
        try:
            self._seg.store.read(self._fold)
        except MidwatchError as error:
            raise self._seg.stop(error) from error
        except Exception as fault:  # noqa: BLE001  # a guard that fails must not let pass, nor harm a run that only records
            return self._unjudged(p, fault)
        if self._denials >= MOST_DENIALS:
            p.mark("outcomes", "stop", denials=self._denials)
            reason = f"this run was denied {self._denials} times; look at what it tries (`midwatch trace`), then resume or cancel it"
            raise self._seg.stop(RunHalted(reason))
        return None

    def rule(self, p: Passage) -> Denied | None:
        """Judge a call that containment lets pass. What is found waits for a person, or is denied where there is none."""
        try:
            found = self._found(p)
        except Exception as fault:  # noqa: BLE001  # as in `probed`
            return self._unjudged(p, fault)
        if found is None:
            return None
        if self._seg.fleet.containment.mode != "enforce":
            p.mark("outcomes", "pass", would="ask", reason=found.reason(), escalation=found.to_json())
            return None
        return self._held(p, found)

    def _unjudged(self, p: Passage, fault: Exception) -> Denied | None:
        enforced = self._seg.fleet.containment.mode == "enforce"
        p.mark("outcomes", "deny" if enforced else "pass", unjudged=type(fault).__name__)
        return Denied(f"the call could not be judged ({type(fault).__name__})", BY) if enforced else None

    def recheck(self, tx: Tx, p: Passage) -> None:
        """Judge once more in the transaction of the intent: another call may have changed something since.

        Raises:
            Stale: it would wait for a person now, and nobody was asked.
        """
        if p.contained is not None or self._seg.fleet.containment.mode != "enforce" or self._needless(p):
            return
        self._fold(tx)
        found = self._escalation(tx, self._attempt(p)) if self._retries else None
        if found is not None:
            raise Stale(found.reason())

    def _held(self, p: Passage, found: Escalation) -> Denied | None:
        """Ask; whoever was asked anyway is told the same card. Nobody there who may say yes: denied."""
        spec, asked_by = self._seg.fleet.containment, self._asked_by()
        told = {"by": BY, "reason": found.reason(), "escalation": found.to_json()}
        if not able(self._seg.store.read, spec.ask, tool=known(p)[0].contract.name, asked_by=asked_by):
            p.mark("outcomes", "deny", **told)
            return Denied(found.reason(), BY, HINT)
        p.mark("outcomes", "ask", **told)
        ruling = p.ruling or Ruling(Allowed(BY), UNKNOWN)
        if not isinstance(ruling.verdict, Ask) or not p.enforced:
            p.ruling = replace(ruling, verdict=Ask(found.reason(), BY, spec.ask, spec.timeout_us))
        else:
            p.ruling = replace(
                ruling, verdict=replace(ruling.verdict, reason=f"{ruling.verdict.reason}; {found.reason()}")
            )
        p.enforced = True
        return None

    def _found(self, p: Passage) -> Escalation | None:
        if self._needless(p):
            return None

        def work(tx: Tx) -> Escalation | None:
            self._fold(tx)
            return self._escalation(tx, self._attempt(p)) if self._retries else None

        return self._seg.store.read(work)

    def _needless(self, p: Passage) -> bool:
        """Say whether a call needs no reach: what is confined is judged when it leaves."""
        contract, isolation = known(p)[0].contract, self._seg.staging.isolation
        inside = isolation.backend(p.actor.agent) is not None and not isolation.spec(p.actor.agent).egress
        return contract.effect == "pure" or (contract.runs == "sandbox" and inside)

    def _attempt(self, p: Passage) -> Attempt:
        tool, checked = known(p)
        return _attempt(tool.contract, checked.arguments, str(self._seg.workdir))

    def _asked_by(self) -> str | None:
        row = self._seg.store.read(lambda tx: tx.runs.get(self._seg.run))
        return None if row is None else row.asked_by or None

    # -------------------------------------------------------------------------------------------------- at the broker

    def barred(self, request: Request) -> str | None:
        """Say why a request of a sandbox may not leave now; nobody can be asked while it waits. It fails closed, as its caller does."""
        if self._seg.fleet.containment.mode != "enforce":
            return None
        tried = refused_request(0, replace(request, status=403))

        def work(tx: Tx) -> Escalation | None:
            self._fold(tx)
            return None if tried is None else self._escalation(tx, tried.attempt)

        found = self._seg.store.read(work)
        return None if found is None else f"{found.reason()}; a person must send it, or say yes to a call that does"

    # -------------------------------------------------------------------------------------------------- the ledger

    def _escalation(self, tx: Tx, attempt: Attempt) -> Escalation | None:
        with self._lock:
            if not self._retries.matching(attempt):
                return None
            for event in self._unread:  # contents are looked at only now, when it matters
                for resource in self._granted(tx, event):
                    self._retries.changed(event.seq, resource, by_person=event.data["effect"] in self._told)
            self._unread.clear()
            return self._retries.escalation(attempt)

    def _fold(self, tx: Tx) -> None:
        """Read on from where the ledger was last read."""
        with self._lock:
            while page := tx.ledger.read(run=self._seg.run, after=self._read, limit=_PAGE, kinds=_KINDS):
                for event in page:
                    self._take(tx, event)
                    self._read = event.seq
            epoch = tx.authority.epoch()
            if epoch != self._epoch:  # what people answered of our own authority stands in no run's part of the ledger
                self._answered(tx)
                self._epoch = epoch

    def _answered(self, tx: Tx) -> None:
        """Count what waited of our own authority and was answered: a person's word adds a person, and takes away no cause."""
        for row in tx.authority.list(states=("endorsed", "rejected"), limit=_MOST_VERSIONS):
            if row.answered_seq is not None and row.id not in self._versions:
                self._versions.add(row.id)
                self._retries.changed(row.answered_seq, f"{row.kind}/{row.name}")

    def _take(self, tx: Tx, event: Event) -> None:
        data = event.data
        if event.kind == "run.resumed":
            self._denials = 0
        elif event.kind == "gate.used":
            self._overrule(tx, event)
        elif event.kind == "intent" and "tool" in data:
            self._changing[data["effect"]] = list(self._begun(tx, data))
            self._change(event.seq, data["effect"])
        elif event.kind == "finished" and "tool" in data:
            if "effect" in data:  # it may have happened at its very end, after what was refused meanwhile
                self._change(event.seq, data["effect"])
            if data.get("observed"):
                self._unread.append(event)
            for refusal in self._refusals(tx, event):
                self._retries.refused(refusal)

    def _change(self, seq: int, effect: str) -> None:
        for resource in self._changing.get(effect, ()):
            self._retries.changed(seq, resource, by_person=effect in self._told)

    def _overrule(self, tx: Tx, event: Event) -> None:
        """A person said yes to this call: what it changes is theirs, and what was refused of the same before is overruled."""
        gate = tx.gates.get(event.data["gate"])
        if gate is None or gate.kind != "action":
            return
        self._told.add(gate.id)
        for attempt in self._attempts(gate.tool, _json(tx, gate.arguments)):
            for refusal in self._retries.matching(attempt):
                self._retries.overruled(refusal.seq)

    def _refusals(self, tx: Tx, event: Event) -> Iterator[Refusal]:
        data = event.data
        if "effect" not in data:
            how = _how(tx, event) if data.get("code") == "denied" else None
            if how is not None:
                self._denials += 1
                for attempt in self._attempts(data["tool"], _proposed(tx, event)):
                    yield refused(event.seq, attempt, how)
            return
        if self._had_no_permission(tx, data):
            row = tx.effects.get(data["effect"])
            for attempt in () if row is None else self._attempts(row.tool, _json(tx, row.arguments)):
                yield refused(event.seq, attempt, "permission")
        for request in () if not data.get("observed") else _requests(tx, event):
            if request.outcome == "refused":
                made = refused_request(event.seq, replace(request, status=403))
            else:
                made = refused_request(event.seq, request)
            if made is not None:
                yield made

    def _had_no_permission(self, tx: Tx, data: Mapping[str, Any]) -> bool:
        """Say whether what was tried said so itself: by the tool's code, by what it raised, or in what it gave."""
        if data.get("code") == "denied":
            return True
        detail = tx.blobs.get(data["detail_blob"]) if data.get("detail_blob") else None
        if (
            detail is not None
            and data.get("ok") is not True
            and _SAID.search(detail[-_TAIL:].decode("utf-8", "replace"))
        ):
            return True
        sealed = _json(tx, data.get("result_blob"))
        if not isinstance(sealed, Mapping):
            return False
        error = sealed.get("error")
        if isinstance(error, Mapping) and _SAID.search(str(error.get("message", ""))[:_TAIL]):
            return True
        return _says(sealed.get("data"))

    def _begun(self, tx: Tx, data: Mapping[str, Any]) -> Iterator[str]:
        """Name what a call changes of authority by what it is and by what its arguments name; no value is quoted."""
        tool, effect = data["tool"], data["class"]
        isolated = data.get("runs") == "sandbox" and data.get("isolation") != self._seg.staging.isolation.plain.level
        if effect == "grants_authority":
            yield tool
        elif effect in ("write", "destructive") and not isolated:  # what an isolated call did is observed
            for contract, values in self._known(tool, _json(tx, data["arguments_blob"])):
                yield from (f"{tool}: {why}" for why in _leads(contract, values))

    def _granted(self, tx: Tx, event: Event) -> list[str]:
        """Name what a call was seen to change of authority, by the detectors; what cannot be read counts."""
        seg = self._seg
        layer = layer_of(tx, event, seg.staging.folder)
        changes = tuple(change for change in layer.changes if change.op in CHANGING)
        try:
            held = contents_of([layer]) if changes else {}
        except Exception:  # noqa: BLE001  # the layer is gone: what nobody can read counts as granting where a detector cares
            held = {}
        gives = granting.of_layer(replace(layer, changes=changes), held, seg.workdir)
        found = [item.resource for judged in gives.paths.values() for item in judged.grants]
        for request in layer.requests:
            sent = request.outcome in ("sent", "failed") and request.method not in (*_READS, "CONNECT")
            if sent and granting.unsure(
                judge(Http(request, unread="it was not kept")), request, event.agent or "", seg.fleet
            ):
                found.append(f"{request.method} {request.host}")
        return list(dict.fromkeys(found))

    def _attempts(self, tool: str, values: Any) -> Iterator[Attempt]:
        """Give what a call attempted. Of a tool that is there no more: whatever it named, by any effect."""
        contracts = list(self._known(tool, values))
        for contract, kept in contracts:
            yield _attempt(contract, kept, str(self._seg.workdir))
        if not contracts:
            named = [Place("", "", value, "target") for value in _leaves(values, 0)]
            for effect in EFFECT_CLASSES:
                yield attempted(tool, effect, named, root=str(self._seg.workdir))

    def _known(self, tool: str, values: Any) -> Iterator[tuple[ToolContract, Mapping[str, Any]]]:
        registry = self._seg.registry
        if tool in registry.names():
            found = registry.get(tool)
            checked = arguments.check(found, values if isinstance(values, str | Mapping) else {})
            if not isinstance(checked, Envelope):
                yield found.contract, checked.arguments


def able(read: Callable[[Callable[[Tx], Any]], Any], role: str, *, tool: str, asked_by: str | None) -> bool:
    """Say whether somebody could say yes: a person in the role, with reach for the tool, who did not ask for the run."""
    rows = read(lambda tx: tx.principals.list())
    mine = (row for row in rows if row.disabled_us is None and row.name != asked_by)
    return not rows or any(row.has(role) and row.reaches(tool) for row in mine)


def _attempt(contract: ToolContract, values: Mapping[str, Any], root: str) -> Attempt:
    try:
        return attempted(contract.name, contract.effect, places(contract, values), root=root)
    except TooMany:  # containment refuses it; to be the same as such a call, it takes the same tool
        return attempted(contract.name, contract.effect, ())


def _leads(contract: ToolContract, values: Mapping[str, Any]) -> Iterator[str]:
    """Say where the arguments of a call outside of any sandbox lead that grants power, in the watch-list's and the detectors' words."""
    try:
        found = places(contract, values)
    except TooMany:
        yield "more than can be looked through"
        return
    for place in found:
        if not isinstance(place.value, str):
            continue
        if place.role == "target" or place.deref is not None:
            why = watched.why(shown(place.value.encode("utf-8", "surrogatepass")).lstrip("/"))
            if why is not None:
                yield why
        elif place.role == "command" and contract.arg(place.name.split(".")[0]).role == "command":
            judged = judge(Command(tuple(place.value.split())))
            yield from (item.what for item in judged.grants)


def _how(tx: Tx, event: Event) -> Outcome | None:
    """Say who refused a call that was not made; None: not one of those that clause 30 is about."""
    decided = tx.ledger.get(event.causes[0]) if event.causes else None
    stages = [] if decided is None else decided.data.get("stages", [])
    denied = {mark.get("stage") for mark in stages if mark.get("outcome") == "deny"}
    if denied & {"containment", "outcomes"}:
        return "containment"
    return "gate" if "gates" in denied else None


def _proposed(tx: Tx, event: Event) -> Any:
    decided = tx.ledger.get(event.causes[0]) if event.causes else None
    proposed = None if decided is None or not decided.causes else tx.ledger.get(decided.causes[0])
    body = None if proposed is None else tx.blobs.get(proposed.data.get("arguments_blob", ""))
    return None if body is None else body.decode("utf-8", "replace")


def _requests(tx: Tx, event: Event) -> tuple[Request, ...]:
    body = _json(tx, event.data["observed"]["blob"])
    return tuple(Request.from_json(item) for item in (body or {}).get("requests", ()))


def _says(value: Any, depth: int = 0) -> bool:
    """Say whether a result says that it had no permission: a status, an exit code, an error stream."""
    if isinstance(value, Mapping) and depth < 4:
        for key, item in value.items():
            name = str(key).casefold()
            if isinstance(item, int) and not isinstance(item, bool) and item in _CODES.get(name, ()):
                return True
            if name in _CODES and isinstance(item, str) and item.isdigit() and int(item[:4]) in _CODES[name]:
                return True
            if name in _ERRORS and isinstance(item, str) and _SAID.search(item[-_TAIL:]):
                return True
            if _says(item, depth + 1):
                return True
    return isinstance(value, list) and depth < 4 and any(_says(item, depth + 1) for item in value[:100])


def _leaves(value: Any, depth: int) -> Iterator[str]:
    if isinstance(value, str):
        yield value
        if depth == 0:
            try:
                yield from _leaves(orjson.loads(value), 1)
            except orjson.JSONDecodeError:
                return
    elif depth < 8 and isinstance(value, Mapping):
        for item in value.values():
            yield from _leaves(item, depth + 1)
    elif depth < 8 and isinstance(value, list):
        for item in value[:1000]:
            yield from _leaves(item, depth + 1)


def _json(tx: Tx, digest: str | None) -> Any:
    body = None if not digest else tx.blobs.get(digest)
    return None if body is None else orjson.loads(body)
