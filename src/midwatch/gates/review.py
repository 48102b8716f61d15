"""Review: may this person answer this gate, and has enough been said?

In:   a gate, what was said to it, who speaks, the time. Out: the roles an answer counts for, or why it does not; yes, no or wait.
May import: config, records, errors. Must not know: where gates and people are kept, how an answer came in.

    who asked does not answer      the one who started the run, and the one who changed the arguments, where the home knows
                                   people by token; where it knows none (one person, one machine) only `four_eyes` forbids it
    a yes counts                   for each need whose role the person has, once each; reach must cover the tool
    a no of one who may answer     is the answer
    breaking the glass             counts for every need, is marked, and waits for somebody else's review
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from midwatch.config.fleet import Fleet, GateRule
from midwatch.errors import Problem
from midwatch.records.gate import GateAnswer, GateRow, Need
from midwatch.records.principal import Principal

__all__ = ["LOCAL", "Refused", "Speaker", "met", "roles_for", "unmanned"]

LOCAL = "local:"
"""Begins the name of whoever works on the machine in a home that knows no principals."""


@dataclass(frozen=True, slots=True)
class Speaker:
    """Who speaks.

    Attributes:
        principal: None for whoever works on the machine in a home without principals; that person may do everything.
        channel: `cli`, `terminal`, `link`, `api`, `python`.
    """

    name: str
    principal: Principal | None = None
    channel: str = "python"

    def has(self, role: str) -> bool:
        """Say whether they may speak in this role."""
        return self.principal is None or self.principal.has(role)

    def reaches(self, tool: str) -> bool:
        """Say whether their reach covers an action of this tool."""
        return self.principal is None or self.principal.reaches(tool)


@dataclass(frozen=True, slots=True)
class Refused:
    """The person may not answer; `reason` says why, lowercase, with what to do."""

    reason: str


def roles_for(gate: GateRow, speaker: Speaker, *, approve: bool, at_us: int) -> tuple[str, ...] | Refused:
    """Say for which of the gate's roles a word of this person counts.

    Returns:
        At least one role, or `Refused`. A no needs one of the roles too, but neither reach nor distance.
    """
    needs = gate.asks.needs
    mine = tuple(dict.fromkeys(need.who for need in needs if _in_role(need, speaker, at_us)))
    if not mine:
        asked = ", ".join(f"`{need.who}`" for need in needs)
        return Refused(f"`{speaker.name}` has none of the roles that gate `{gate.id}` asks: {asked}")
    if not approve:
        return mine
    if not speaker.reaches(gate.tool):
        return Refused(
            f"the reach of `{speaker.name}` does not cover `{gate.tool}`; somebody whose `may` does must answer"
        )
    own = _own(gate, speaker)
    if own is not None and (speaker.principal is not None or any(need.four_eyes for need in needs)):
        return Refused(f"`{speaker.name}` {own}, and who asks does not answer; somebody else must")
    return mine


def met(gate: GateRow, answers: Sequence[GateAnswer]) -> bool:
    """Say whether every need has enough different persons' yes."""
    yes = [answer for answer in answers if answer.word == "approve" and answer.nonce == gate.nonce]
    if any(answer.break_glass for answer in yes):
        return True
    return all(len({a.by for a in yes if need.who in a.roles.split(",")}) >= need.quorum for need in gate.asks.needs)


def unmanned(fleet: Fleet, people: Sequence[Principal]) -> tuple[Problem, ...]:
    """Find the rules that nobody could ever meet with the people of this home; a run is refused rather than left waiting.

    Args:
        people: every principal of the home; none means that whoever works on the machine is the only person.
    """
    able = [person for person in people if person.disabled_us is None]
    problems = []
    for place, rule in enumerate(fleet.gates):
        where = fleet.where("gates", place)
        wanted = rule.quorum + (1 if rule.four_eyes else 0)
        if not people and wanted > 1:
            message = f"the rule needs {wanted} people and this home knows nobody by token; `midwatch principals add` makes them"
            problems.append(Problem(where, message, "unmanned"))
        elif people and sum(_could(rule, person) for person in able) < rule.quorum:
            message = (
                f"fewer than {rule.quorum} people have the role `{rule.ask}`; give it with `midwatch principals set`"
            )
            problems.append(Problem(where, message, "unmanned"))
    known = {person.name for person in able}
    for name, channel in fleet.channels.items():
        if channel.principal is not None and channel.principal not in known:
            message = f"channel `{name}` speaks for `{channel.principal}`, whom this home does not know"
            problems.append(Problem(fleet.where("channels", name, "principal"), message, "unmanned"))
    return tuple(problems)


def _could(rule: GateRule, person: Principal) -> bool:
    return person.has(rule.ask) or (rule.escalate is not None and person.has(rule.escalate.to))


def _in_role(need: Need, speaker: Speaker, at_us: int) -> bool:
    if speaker.has(need.who):
        return True
    return need.escalate is not None and at_us >= need.escalate.at_us and speaker.has(need.escalate.to)


def _own(gate: GateRow, speaker: Speaker) -> str | None:
    if gate.edited_by == speaker.name:
        return "wrote these arguments"
    same = (
        speaker.name,
        f"{LOCAL}{speaker.name}",
    )  # also before the home knew its people by token, under the login name
    return "started this run" if gate.asked_by in same else None
