"""Passage: what one tool call gathers on its way past the guards, and the two ways it can end.

In:   made by the pipeline for one call. Out: read and filled by its stages; `Answered` and `Waiting` go on to the node.
May import: records, tools, containment's ruling, errors. Must not know: what a stage decides.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from midwatch.containment.handles import Hidden, Named
from midwatch.containment.verdict import Ruling
from midwatch.errors import Divergence
from midwatch.records.call import Actor
from midwatch.records.decision import Ask, StageMark
from midwatch.records.effect import EffectRow, effect_id
from midwatch.records.envelope import Envelope
from midwatch.records.event import EventDraft
from midwatch.records.gate import GateRow
from midwatch.records.label import UNKNOWN, Label
from midwatch.tools import arguments
from midwatch.tools.decorate import Tool

__all__ = ["Answered", "Basis", "Passage", "Waiting", "draft", "known", "program_name"]


@dataclass(frozen=True, slots=True)
class Answered:
    """The call is settled; `seq` is the ledger event that says how."""

    envelope: Envelope
    seq: int


@dataclass(frozen=True, slots=True)
class Waiting:
    """A person must speak first: an open gate, or an effect in doubt."""

    gate: str | None = None
    in_doubt: str | None = None


@dataclass(frozen=True, slots=True)
class Basis:
    """What a ruling rests on besides the call itself.

    Attributes:
        epoch: of the authority by which it was judged. versions: per place that refers to something, which paths, and the events that wrote
            them last.
    """

    epoch: str
    versions: Mapping[str, tuple[tuple[str, ...] | None, tuple[int, ...]]] = field(default_factory=dict)


@dataclass(slots=True)
class Passage:
    """What one call gathers on its way; lives for one call and is seen by the stages alone.

    Attributes:
        guessed: rule by which the call itself was recovered from prose; its signal is on record already.
        enforced: what containment says counts, and is not only recorded.
        ruling: what containment says of the call, and the label of it.
        label, recalled: of what the call made, once it was made; of the files that it may have read, where there are any of ours.
        basis: what the ruling rests on and what may change before the call begins.
        named: the handles among its arguments. hidden: what of its result comes behind handles; `plain`: its label without what they hold.
        leases: shared resources that the call writes to, and nobody else meanwhile.
        edited: `checked` holds what a person put in the place of the agent's arguments.
    """

    actor: Actor
    id: str
    name: str
    raw: str
    causes: tuple[int, ...]
    marks: list[StageMark] = field(default_factory=list)
    tool: Tool[..., Any] | None = None
    checked: arguments.Checked | None = None
    ruling: Ruling | None = None
    basis: Basis | None = None
    row: EffectRow | None = None
    gate: GateRow | None = None
    guessed: str | None = None
    edited: bool = False
    enforced: bool = False
    label: Label = UNKNOWN
    recalled: Label | None = None
    named: Named | None = None
    plain: Label = UNKNOWN
    hidden: Hidden | None = None
    leases: tuple[str, ...] = ()
    attempt: int = 1
    seq: int = 0
    started_us: int = 0

    def mark(self, stage: str, outcome: Any, **detail: Any) -> None:
        """Note what a stage decided."""
        self.marks.append(StageMark(stage, outcome, detail))

    def again(self) -> None:
        """Go back behind stage 1: what was decided since does not hold any more."""
        del self.marks[1:]
        self.ruling = self.basis = self.gate = None
        self.enforced = False

    @property
    def contained(self) -> Ask | None:
        """Give what containment asks of a person, where its fleet enforces it."""
        verdict = None if self.ruling is None else self.ruling.verdict
        return verdict if isinstance(verdict, Ask) and self.enforced else None

    @property
    def effect(self) -> str:
        """Id of the effect: the call's place in the run."""
        return effect_id(self.actor.run, self.actor.task, self.id, self.name)

    @property
    def reservation(self) -> str:
        """Id of what this attempt holds of the budgets."""
        return f"t:{self.effect}:{self.attempt}"


def draft(kind: Any, actor: Actor, at_us: int, data: Mapping[str, Any], causes: tuple[int, ...] = ()) -> EventDraft:
    """Make an event of this actor."""
    return EventDraft(
        kind,
        actor.run,
        at_us,
        data,
        node=actor.node,
        agent=actor.agent,
        step=actor.step,
        task=actor.task,
        causes=causes,
    )


def program_name(agent: str) -> str:
    """Give the name under which the run of an agent's program is on record and can be cited; no tool has such a name."""
    return f"command:{agent}"


def known(p: Passage) -> tuple[Tool[..., Any], arguments.Checked]:
    """Stages after the first may rely on both."""
    if p.tool is None or p.checked is None:
        msg = "stage 1 did not finish"
        raise Divergence(msg)
    return p.tool, p.checked
