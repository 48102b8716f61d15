"""Containing: stages 2 and 3 of the pipeline: whose words lead to a call, and may all of them bring it about?

In:   a passage with checked arguments; the run's results so far. Out: the label of the call, recorded; `Ruling`.
May import: containment, config, records, tools, store (port). Must not know: gates, budgets, how a call is performed.

One trail an agent: the request, and every result that it was given, in the ledger's order. A synthesis has what all others had, since
their handoffs reach it. In a graph of a user's own, what flows from node to node is not known, so all its agents share one trail.
A trail is rebuilt from effects and ledger when a run goes on: the same results in the same order give the same labels.
Source: CONTAINMENT.md, clauses 1-5, 11, 18-22.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

import orjson

from midwatch.containment import grants, mandates, policies
from midwatch.containment.provenance import Seen, Trail
from midwatch.containment.reach import Reach
from midwatch.containment.verdict import Action, Authority, Ruling, decide
from midwatch.engine.passage import known
from midwatch.records.decision import Allowed, Ask, Denied
from midwatch.records.label import Cause, Label, join, label

if TYPE_CHECKING:
    from midwatch.engine.context import Segment
    from midwatch.engine.passage import Passage
    from midwatch.records.effect import EffectRow
    from midwatch.records.envelope import Envelope
    from midwatch.store.port import Tx

__all__ = ["Containing"]

_EVERYBODY: Final = ""
"""Whose trail the agents of a user's own graph share."""


class Containing:
    """Labels and verdicts of one segment."""

    def __init__(self, segment: Segment) -> None:
        self._seg = segment
        self._trails: dict[str, Trail] | None = None
        self._asked_by: str | None = None
        self._request: Any = None
        self._reach: Reach | None = None
        self._balances: dict[str, tuple[mandates.Balance, tuple[str, ...]]] = {}

    def judge(self, p: Passage) -> None:
        """Carry out stage 2: label the call by what its agent has seen; and judge it, for stage 3."""
        p.ruling = self._ruling(p)
        p.mark("provenance", "pass", causes=list(p.causes), label=p.ruling.label.to_json())

    def rule(self, p: Passage) -> Denied | None:
        """Carry out stage 3. What an agent's grants deny is denied; the rest counts where the fleet enforces it, else it is recorded."""
        tool, checked = known(p)
        fleet = self._seg.fleet
        granted = grants.decide(fleet.grants, agent=p.actor.agent, tool=tool.contract.name, arguments=checked.arguments)
        if isinstance(granted, Denied):
            p.mark("containment", "deny", by=granted.by, reason=granted.reason)
            return granted
        verdict = Denied("the call was not judged", "containment") if p.ruling is None else p.ruling.verdict
        if isinstance(verdict, Allowed):
            p.mark("containment", "pass", by=granted.by, contained=verdict.by)
            return None
        word = "ask" if isinstance(verdict, Ask) else "deny"
        chain = [] if p.ruling is None else [lack.to_json() for lack in p.ruling.chain]
        if fleet.containment.mode != "enforce":
            p.mark("containment", "pass", by=granted.by, would=word, reason=verdict.reason, chain=chain)
            return None
        p.enforced = True
        p.mark("containment", word, by=verdict.by, reason=verdict.reason, chain=chain)
        return verdict if isinstance(verdict, Denied) else None

    def _ruling(self, p: Passage) -> Ruling:
        seg, (tool, checked) = self._seg, known(p)
        contract, agent = tool.contract, p.actor.agent
        trails, reach = self._open()
        trail = self._trail(trails, agent)
        traced = trail.trace(contract, checked.arguments)
        balance, issued = self._mandates(agent)
        action = Action(
            agent=agent,
            contract=contract,
            arguments=checked.arguments,
            context=self._context(trails, agent, trail),
            labels=traced.labels,
            origins=traced.origins,
            confined=contract.runs == "sandbox" and seg.staging.isolation.confined(agent),
        )
        spec = seg.fleet.containment
        authority = Authority(
            do=grants.decide(seg.fleet.grants, agent=agent, tool=contract.name, arguments=checked.arguments),
            reach=reach,
            balance=balance,
            mandates=issued,
            principals=self._people(spec.ask),
            at_us=seg.clock(),
            who=spec.ask,
            expires_us=spec.timeout_us,
        )
        return decide(action, authority)

    def learn(self, p: Passage, envelope: Envelope) -> None:
        """Let the agent's trail have what a call gave."""
        if self._trails is None or p.ruling is None:
            return
        tool, checked = known(p)
        trail = self._trail(self._trails, p.actor.agent)
        value = envelope.data if envelope.ok else None
        trail.add(Seen(tool.contract, checked.arguments, value, p.ruling.label, error=not envelope.ok))

    def _open(self) -> tuple[dict[str, Trail], Reach]:
        """Read the request and every result of the run so far, once a segment."""
        if self._trails is None or self._reach is None:
            self._asked_by, self._request, done = self._seg.store.read(self._past)
            self._reach = Reach(policies.rights(self._seg.fleet, self._seg.registry), requester=self._asked_by)
            self._trails = {}
            for row, arguments, envelope in done:
                self._replay(self._trails, row, arguments, envelope)
        return self._trails, self._reach

    def _past(self, tx: Tx) -> tuple[str | None, Any, list[tuple[EffectRow, Any, Any]]]:
        run = tx.runs.get(self._seg.run)
        rows = [row for row in tx.effects.list(self._seg.run, statuses=("done",)) if row.kind == "tool"]
        rows.sort(key=lambda row: row.finished_seq or row.intent_seq)
        done = [(row, _json(tx, row.arguments), _json(tx, row.result)) for row in rows]
        return (None, None, done) if run is None else (run.asked_by or None, _json(tx, run.input), done)

    def _replay(self, trails: dict[str, Trail], row: EffectRow, arguments: Any, envelope: Any) -> None:
        """Take in an earlier result with the label that its call had. A tool that is gone, or another one by now, gave nobody's words."""
        trail = self._trail(trails, row.agent)
        registry = self._seg.registry
        contract = registry.get(row.tool).contract if row.tool in registry.names() else None
        if contract is None or not isinstance(arguments, Mapping) or not isinstance(envelope, Mapping):
            trail.context = join(trail.context, label({Cause("third_party", row.tool)}))
            return
        traced = trail.trace(contract, arguments)
        own = join(self._context(trails, row.agent, trail), *traced.labels.values())
        ok = envelope.get("ok") is True
        trail.add(Seen(contract, arguments, envelope.get("data") if ok else None, own, error=not ok))

    def _trail(self, trails: dict[str, Trail], agent: str) -> Trail:
        name = _EVERYBODY if self._seg.foreign is not None else agent
        if name not in trails:
            asker = Cause("person", self._asked_by) if self._asked_by else Cause("unknown")
            spec = self._seg.fleet.agents.get(agent)
            began = {asker}
            if spec is not None and spec.command:  # a program acts by words of its own author
                began.add(Cause("third_party", f"command:{agent}"))
            sources = policies.sources(self._seg.fleet, self._seg.registry, requester=self._asked_by, closed=None)
            trails[name] = Trail(self._request, label(began), sources=sources, closed=None)
        return trails[name]

    def _context(self, trails: Mapping[str, Trail], agent: str, trail: Trail) -> Label:
        """Give what an agent has seen: its own results; a synthesis has the others' by their handoffs."""
        spec = self._seg.fleet.agents.get(agent)
        if spec is None or spec.role == "synthesis":
            return join(trail.context, *(other.context for other in trails.values()))
        return trail.context

    def _mandates(self, agent: str) -> tuple[mandates.Balance, tuple[str, ...]]:
        """Give what the fleet file itself has issued to an agent."""
        if agent not in self._balances:
            balance, names = mandates.Balance(), []
            for mandate in policies.mandates(self._seg.fleet, self._seg.registry, agent):
                made = mandates.issue(balance, mandate)
                if isinstance(made, mandates.Balance):
                    balance = made
                    names.append(mandate.id)
            self._balances[agent] = (balance, tuple(names))
        return self._balances[agent]

    def _people(self, role: str) -> tuple[Cause, ...]:
        """Give who could be asked: the people of the home who have the role; where it knows nobody, whoever works on the machine."""
        rows = self._seg.store.read(lambda tx: tx.principals.list())
        able = [row.name for row in rows if row.disabled_us is None and role in row.roles.split(",")]
        if rows:
            return tuple(Cause("person", name) for name in able)
        return (Cause("operator"),)


def _json(tx: Tx, digest: str | None) -> Any:
    body = None if digest is None else tx.blobs.get(digest)
    return None if body is None else orjson.loads(body)
