"""Containing: stages 2 and 3 of the pipeline: whose words lead to a call, and may all of them bring it about?

In:   a passage with checked arguments; the trails of the run. Out: the label of the call, recorded; `Ruling`.
May import: trails; containment, config, records, tools, store (port). Must not know: gates, budgets, how a call is performed.

    judge    before the call: label and verdict, from what its agent had seen when it chose
    rule     stage 3: what grants deny is denied; the verdict counts where the fleet enforces it, else it is written down
    recheck  stage 6: authority, mandates and referents are still what they were judged by
    made     after the call: its label with that of every file that it may have read; the ledger keeps it
    learn    the agent has the result, from its next answer on

Why nothing that fails in here is raised: where the fleet enforces, what could not be judged is denied; where it records, the run goes on as
if nobody had asked, and its record says so.
Source: CONTAINMENT.md, clauses 1-5, 7, 11, 18-23, 32.
"""

from __future__ import annotations

import posixpath
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from midwatch.containment import grants
from midwatch.containment.handles import plain_label, relabel
from midwatch.containment.provenance import Seen, Traced
from midwatch.containment.roles import TooMany, places
from midwatch.containment.verdict import BY, Action, Authority, Ruling, decide
from midwatch.engine.handles import Handles
from midwatch.engine.mandating import Stale, authority_epoch
from midwatch.engine.passage import Basis, known
from midwatch.engine.trails import Trails
from midwatch.records.decision import Allowed, Ask, Denied
from midwatch.records.label import OPERATOR, UNKNOWN, Cause, Label, join, label
from midwatch.sandbox.effects import shown
from midwatch.sandbox.profile import INSIDE

if TYPE_CHECKING:
    from midwatch.engine.context import Segment
    from midwatch.engine.passage import Passage
    from midwatch.engine.staging import Observed
    from midwatch.records.envelope import Envelope
    from midwatch.store.port import Store, Tx
    from midwatch.tools.contract import ToolContract

__all__ = ["Containing"]

_ANY_LABEL: Final = frozenset({"pure", "confined"})
"""Verdicts that hold whatever the label of a referent is."""


class Containing:
    """Labels and verdicts of one segment. The trails are the segment's own: programs inside it are judged by the same ones."""

    def __init__(self, segment: Segment) -> None:
        self._seg = segment
        self.handles = Handles(self._trails, segment.fleet.containment.handles, segment.run)

    # -------------------------------------------------------------------------------------------------- before the call

    def judge(self, p: Passage) -> None:
        """Carry out stage 2: label the call by what its agent has seen; and judge it, for stage 3."""
        try:
            p.basis = self._basis(p)  # first: what changes while it is judged must be noticed
            p.ruling = self.ruling(p)
            more: dict[str, Any] = {"label": p.ruling.label.to_json()}
        except Exception as fault:  # noqa: BLE001  # a guard that fails must not let pass, nor harm a run that only records
            p.ruling, p.basis = (
                Ruling(Denied(f"the call could not be judged ({type(fault).__name__})", BY), UNKNOWN),
                None,
            )
            more = {"label": UNKNOWN.to_json(), "unjudged": type(fault).__name__}
        p.mark("provenance", "pass", causes=list(p.causes), **more)

    def labelled(self, p: Passage) -> None:
        """Label a call that was made before, and whose end is only now known."""
        p.label = p.plain = UNKNOWN
        self._kept(lambda: setattr(p, "label", self.ruling(p).label))

    def rule(self, p: Passage) -> Denied | None:
        """Carry out stage 3."""
        tool, checked = known(p)
        spec = self._seg.fleet.containment
        granted = grants.decide(
            self._seg.fleet.grants, agent=p.actor.agent, tool=tool.contract.name, arguments=checked.arguments
        )
        if isinstance(granted, Denied):
            p.mark("containment", "deny", by=granted.by, reason=granted.reason)
            return granted
        ruling = p.ruling or Ruling(Denied("the call was not judged", BY), UNKNOWN)
        verdict = ruling.verdict
        if isinstance(verdict, Allowed):
            p.mark("containment", "pass", by=granted.by, contained=verdict.by)
            return None
        word = "ask" if isinstance(verdict, Ask) else "deny"
        told = {"reason": verdict.reason, "chain": [lack.to_json() for lack in ruling.chain]}
        if spec.mode != "enforce":
            p.mark("containment", "pass", by=granted.by, would=word, **told)
            return None
        p.enforced = True
        p.mark("containment", "ask" if word == "ask" else "deny", by=verdict.by, **told)
        return verdict if isinstance(verdict, Denied) else None

    def ruling(self, p: Passage) -> Ruling:
        """Label and judge a call."""
        seg, (tool, checked) = self._seg, known(p)
        contract, agent, trails = tool.contract, p.actor.agent, self._trails()
        at = trails.chosen(agent, p.causes)
        found, context = self._traced(contract, checked.arguments, agent, at), self._context(agent, at)
        if p.named is not None:
            found = relabel(found, p.named, contract, checked.arguments, context)
        referents = self._referents(contract, checked.arguments)
        p.plain = plain_label(found, p.named, context)
        if contract.effect not in {"pure", "read"}:
            p.plain = join(p.plain, *referents.values())
        action = Action(
            agent=agent,
            contract=contract,
            arguments=checked.arguments,
            context=context,
            labels=found.labels,
            origins=found.origins,
            referents=referents,
            confined=contract.runs == "sandbox" and self._confined(agent),
        )
        spec = seg.fleet.containment
        balance, mandates = seg.mandating.at_hand(agent, p.effect)
        authority = Authority(
            do=grants.decide(seg.fleet.grants, agent=agent, tool=contract.name, arguments=checked.arguments),
            reach=trails.reach,
            balance=balance,
            mandates=mandates,
            at_us=seg.clock(),
        )
        ruling = decide(action, authority)
        if not isinstance(ruling.verdict, Denied) or not ruling.chain:
            return ruling
        # Only now does it matter who could be asked; whoever can speaks for the operator, who has all the reach there is.
        if not _able(seg.store, spec.ask, tool=contract.name, asked_by=trails.asked_by):
            return ruling
        return replace(ruling, verdict=Ask(ruling.verdict.reason, BY, spec.ask, spec.timeout_us))

    def _traced(self, contract: ToolContract, arguments: Mapping[str, Any], agent: str, at: int) -> Traced:
        try:
            return self._trails().trail(agent, at).trace(contract, arguments)
        except TooMany:  # nobody looked at the values; the verdict says so, in words
            return Traced({}, {})

    def _context(self, agent: str, at: int) -> Label:
        """Give what led an agent to its choice. A program reads what it likes, whenever it likes: all that it could have read counts."""
        trails, spec = self._trails(), self._seg.fleet.agents.get(agent)
        own = trails.context(agent, at)
        if spec is None or not spec.command:
            return own
        written = self._seg.store.read(lambda tx: trails.written(tx, None))
        return own if written is None else join(own, written)

    def _referents(self, contract: ToolContract, arguments: Mapping[str, Any]) -> dict[str, Label]:
        """Give the label of what arguments refer to: files by their path, as whoever wrote them last left them.

        A file of the workspace that no call of ours wrote is the operator's, who gave the workspace; where it is more than content, a
        stranger may have written it. What a broker's argument refers to is known only where a call of ours wrote that file.
        """
        trails, labels = self._trails(), {}
        for place in _refers(contract, arguments):
            paths = _paths(place.value)
            written = self._seg.store.read(lambda tx, paths=paths: trails.written(tx, paths))  # type: ignore[misc]
            if written is not None:
                labels[place.key] = written
            elif contract.runs == "sandbox" and contract.effect != "read":
                stranger = label({Cause("third_party", contract.name)})
                labels[place.key] = OPERATOR if place.deref == "content" else stranger
        return labels

    def _basis(self, p: Passage) -> Basis:
        """Note the authority and the versions of referents by which the call is about to be judged."""
        tool, checked = known(p)
        paths = {place.key: _paths(place.value) for place in _refers(tool.contract, checked.arguments)}

        def work(tx: Tx) -> Basis:
            versions = {key: (each, self._trails().writers(tx, each)) for key, each in paths.items()}
            return Basis(authority_epoch(tx, self._seg.run), versions)

        return self._seg.store.read(work)

    def recheck(self, tx: Tx, p: Passage, at_us: int) -> tuple[dict[str, Any], tuple[int, ...]]:
        """Carry out stage 6's part (clause 23): what was judged still holds; gives what the intent spends, and what issued that.

        Raises:
            Stale: it does not, and the fleet enforces what follows from that.
        """
        ruling, enforced = p.ruling, self._seg.fleet.containment.mode == "enforce"
        try:
            if enforced and p.basis is not None:
                self._same(tx, p, p.basis)
            if ruling is None or ruling.cover is None:
                return {}, ()
            spent, issued = self._seg.mandating.spend(tx, p.effect, ruling.cover, at_us)
            return {"spent": spent}, issued
        except Stale:
            if enforced:
                raise
            return {}, ()

    def moved(self, p: Passage) -> bool:
        """Say whether what the call refers to was changed while it waited for its sandbox."""
        basis = p.basis
        if basis is None or self._seg.fleet.containment.mode != "enforce":
            return False
        try:
            self._seg.store.read(lambda tx: self._same(tx, p, basis))
        except Stale:
            return True
        return False

    def _same(self, tx: Tx, p: Passage, basis: Basis) -> None:
        if authority_epoch(tx, self._seg.run) != basis.epoch:
            raise Stale("what may be done was changed meanwhile")
        if p.ruling is not None and isinstance(p.ruling.verdict, Allowed) and p.ruling.verdict.by in _ANY_LABEL:
            return
        if any(self._trails().writers(tx, paths) != seqs for paths, seqs in basis.versions.values()):
            raise Stale("what the call refers to was changed meanwhile")

    def _confined(self, agent: str) -> bool:
        """Say whether nothing can leave an agent's sandbox before a commit. A request that only reads leaves it, too."""
        isolation = self._seg.staging.isolation
        return isolation.backend(agent) is not None and not isolation.spec(agent).egress

    def _trails(self) -> Trails:
        if self._seg.trails is None:
            self._seg.trails = Trails(self._seg)
        return self._seg.trails

    # --------------------------------------------------------------------------------------------------- after the call

    def made(self, tx: Tx, p: Passage, seen: Observed | None, *, observes: bool) -> dict[str, Any]:
        """Give, for the call's last event, the label of what it made and gave: also of the files that it may have read."""

        def work() -> None:
            ruling = p.ruling or Ruling(Denied("the call was not judged", BY), UNKNOWN)
            contract, checked = known(p)[0].contract, known(p)[1]
            if checked.cursor is not None:  # it reads on in what this agent was given before
                p.recalled = ruling.label
            elif contract.runs == "sandbox":
                paths = _read(contract, checked.arguments, seen) if observes else None
                p.recalled = self._trails().written(tx, paths) if paths is None or paths else None
            p.label = ruling.label if p.recalled is None else join(ruling.label, p.recalled)

        if not self._kept(work):
            p.label = p.recalled = UNKNOWN
        told = {} if p.recalled is None else {"recalled": p.recalled.to_json()}
        return {"label": p.label.to_json(), **told}

    def learn(self, p: Passage, envelope: Envelope, seq: int) -> None:
        """Let the agent have what a call gave."""
        contract, checked = known(p)[0].contract, known(p)[1]
        recalled = {} if p.recalled is None else {"": p.recalled}
        value = envelope.data if envelope.ok else None
        plain, held = (None, ()) if p.hidden is None else (p.hidden.plain, tuple(p.hidden.handles.values()))
        seen = Seen(contract, checked.arguments, value, p.label, recalled, not envelope.ok, plain, held)
        self._kept(lambda: self._trails().learn(p.actor.agent, seq, seen))

    def again(self, p: Passage) -> None:
        """Let the agent have what it is given from the journal."""
        self._kept(lambda: self._seg.store.read(lambda tx: self._trails().again(tx, p.effect)))

    def program(self, tx: Tx, agent: str) -> dict[str, Any]:
        """Give, for the last event of an agent's program, the label of what it made: all that it had, and could read."""
        found = [UNKNOWN]

        def work() -> None:
            trails = self._trails()
            written = trails.written(tx, None)
            own = trails.context(agent, trails.chosen(agent, ()))
            found[0] = own if written is None else join(own, written)

        self._kept(work)
        return {"label": found[0].to_json()}

    def _kept(self, work: Callable[[], object]) -> bool:
        """Do what must not be left out; where it fails, nobody can say any more what was seen."""
        try:
            work()
        except Exception:  # noqa: BLE001  # the call was made already; what follows from it is judged as unknown
            if self._seg.trails is not None:
                self._seg.trails.lose()
            return False
        return True


def _able(store: Store, role: str, *, tool: str, asked_by: str | None) -> bool:
    """Say whether somebody could say yes: a person in the role, with reach for the tool, who did not ask for the run.

    Where the home knows nobody, whoever works on the machine can.
    """
    rows = store.read(lambda tx: tx.principals.list())
    mine = (row for row in rows if row.disabled_us is None and row.name != asked_by)
    return not rows or any(row.has(role) and row.reaches(tool) for row in mine)


def _refers(contract: ToolContract, arguments: Mapping[str, Any]) -> Iterator[Any]:
    """Give the values that refer to something; of a call too large to look through, none."""
    if any(arg.deref is not None for arg in contract.args):
        try:
            yield from (place for place in places(contract, arguments) if place.deref is not None)
        except TooMany:
            return


def _path(value: Any) -> str | None:
    """Give a path of the workspace as the ledger writes it; None: it may be anywhere."""
    if not isinstance(value, str):
        return None
    plain = posixpath.normpath(value.removeprefix(INSIDE).lstrip("/") if value.startswith(INSIDE) else value)
    if plain in {".", ""} or plain.startswith(("/", "..")):
        return None
    return shown(plain.encode("utf-8", "surrogatepass"))


def _paths(value: Any) -> tuple[str, ...] | None:
    path = _path(value)
    return None if path is None else (path,)


def _read(contract: ToolContract, arguments: Mapping[str, Any], seen: Observed | None) -> tuple[str, ...] | None:
    """Give the paths that a call may have read: those that it was seen to, and what its arguments name. None: any.

    A command can tell the names of files without opening one, which nothing observes, so it may have read anything.
    """
    names = contract.input_schema.get("properties") or {}
    if any(contract.arg(name).role == "command" for name in names):
        return None
    named = [_path(place.value) for place in _refers(contract, arguments)]
    changes = () if seen is None else seen.layer.changes
    met = {item.path for item in changes if item.op in ("read", "executed") or item.before is not None}
    return None if None in named else tuple(sorted(met | {path for path in named if path is not None}))
