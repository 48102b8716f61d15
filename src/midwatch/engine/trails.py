"""Trails: what each agent of one run has seen so far, and so whose words stand behind what it does next.

In:   results as they are settled, with the labels of their calls; the store, for what came before this segment.
Out:  an agent's trail and context as they were when it chose; labels of what calls left in files.
May import: containment, config, records, tools; store (port). Must not know: verdicts, gates, how a call is performed.

    result → pending → (the agent's next answer) → trail → context, index of values
    a call left a file → its label stands in its event → whoever may have read that file has it, too, in any later run

Why pending: calls of one answer run side by side, and none of them was chosen by what another one of them gave. So a label is the same
after a wait, after a kill and in another process: it follows from the ledger's order alone.
A synthesis has what all others had, since their handoffs reach it, and everybody has what the CEO began with. In a graph of a user's own
what flows from node to node is not known, so all its agents share one trail.
Source: CONTAINMENT.md, clauses 1-5, 7, 18.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from operator import itemgetter
from typing import TYPE_CHECKING, Any, Final

import orjson

from midwatch.config.specs import TeamSpec
from midwatch.containment import policies
from midwatch.containment.provenance import Held, Seen, Trail, field_label
from midwatch.containment.reach import Reach
from midwatch.containment.slots import Origin
from midwatch.engine.mandating import asked_for
from midwatch.records.label import UNKNOWN, Cause, Label, join, label
from midwatch.tools.contract import ToolContract
from midwatch.tools.shape import KERNEL_ARGUMENTS

if TYPE_CHECKING:
    from midwatch.engine.context import Segment
    from midwatch.records.effect import EffectRow
    from midwatch.store.port import Tx

__all__ = ["NOW", "Trails", "label_of"]

_EVERYBODY: Final = ""
"""Whose trail the agents of a user's own graph share."""
_WRITERS: Final = 2_000
"""Calls whose files are looked through one by one; of more nobody can say whose words they are."""
NOW: Final = 1 << 62
"""As the place in the ledger at which an agent chose: whenever that was, it may have seen everything."""

_PAYLOAD: Final = ToolContract(
    "run.payload", "", "of whatever triggered the run", {"type": "object", "additionalProperties": False}, {}, "read"
)
_GONE: Final = ToolContract("gone.gone", "", "", {"type": "object", "additionalProperties": False}, {}, "read")


@dataclass(slots=True)
class _Mind:
    """One agent: its trail, and results that it was not given before its last answer, in the ledger's order."""

    trail: Trail
    pending: list[tuple[int, Seen]] = field(default_factory=list)

    def at(self, seq: int) -> Trail:
        """Give the trail as the agent knew it when event `seq` was written. It never shrinks."""
        while self.pending and self.pending[0][0] < seq:
            self.trail.add(self.pending[0][1])
            del self.pending[0]  # only now: what could not be taken in fails again
        return self.trail


class Trails:
    """Of one segment; made on its first call, from the ledger."""

    def __init__(self, segment: Segment) -> None:
        self._seg = segment
        self._minds: dict[str, _Mind] = {}
        self._known: set[int] = set()
        self._made: dict[int, Label] = {}
        self._blind = False
        self.asked_by, request, done = segment.store.read(self._past)
        self._request, self._payload = asked_for(request)
        self.reach = Reach(policies.rights(segment.fleet, segment.registry), requester=self.asked_by)
        root = segment.mandating.root()
        self._closed = policies.closed(segment.fleet, segment.registry, requester=self.asked_by, root=root)
        self._sources = policies.sources(segment.fleet, segment.registry, requester=self.asked_by, closed=self._closed)
        for row, parts in done:
            self._take(row, *parts)

    def trail(self, agent: str, at: int) -> Trail:
        """Give what an agent had seen by itself."""
        return self._mind(agent).at(at)

    def context(self, agent: str, at: int) -> Label:
        """Give the label of all that led an agent to its choice: what it saw, and what was handed to it."""
        if self._blind:
            return UNKNOWN
        own, graph = self._mind(agent).at(at).context, self._seg.fleet.graph
        if not isinstance(graph, TeamSpec):
            return own
        if agent == graph.synthesis:
            others = sorted({graph.ceo, *graph.specialists, *self._minds})
            return join(own, *(self._mind(name).at(at).context for name in others))
        return own if agent == graph.ceo else join(own, self._mind(graph.ceo).at(at).context)

    def handles(self, agent: str, at: int) -> Mapping[str, tuple[Held, tuple[Origin, ...]]]:
        """Give the handles that an agent had been given when it chose, or that were handed to it with the work of all others."""
        own, graph = self._mind(agent).at(at).handles, self._seg.fleet.graph
        if not isinstance(graph, TeamSpec) or agent != graph.synthesis:
            return own
        others = (self._mind(name).at(at).handles for name in sorted({*graph.specialists, *self._minds}))
        return {key: held for each in (*others, own) for key, held in each.items()}

    def field(self, seen: Seen, path: str) -> Label:
        """Give the label of one field of a result."""
        return field_label(seen, path, self._sources, self._closed)

    def source(self, tool: str) -> str | None:
        """Name the declared source that a tool reads from."""
        return next((each.name for each in self._sources if fnmatchcase(f"tool:{tool}", each.pattern)), None)

    def chosen(self, agent: str, causes: Sequence[int]) -> int:
        """Give the place in the ledger up to which an agent had seen results when it made a proposal.

        A program, and a graph of a user's own, may have used whatever there was.
        """
        spec = self._seg.fleet.agents.get(agent)
        if self._seg.foreign is not None or spec is None or spec.command or not causes:
            return NOW
        return max(causes)

    def learn(self, agent: str, seq: int, seen: Seen) -> None:
        """Let an agent have what a call gave, from its next answer on."""
        if seq not in self._known:
            self._known.add(seq)
            insort(self._mind(agent).pending, (seq, self._heard(seen)), key=itemgetter(0))

    def again(self, tx: Tx, effect: str) -> None:
        """Let an agent have a result of the journal that this segment has not seen settled."""
        row = tx.effects.get(effect)
        if row is not None and row.status == "done":
            self._take(row, *_parts(tx, row))

    def lose(self) -> None:
        """Note that a result was not taken in: from now on nobody can say what anybody has seen."""
        self._blind = True

    def written(self, tx: Tx, paths: Sequence[str] | None) -> Label | None:
        """Join the labels of the calls, of any run, that left what lies at or below these paths (None: anywhere); None: there are none."""
        seqs = self.writers(tx, paths)
        if len(seqs) > _WRITERS:
            return UNKNOWN
        for seq in seqs:
            if seq not in self._made:
                self._made[seq] = label_of(tx, seq)
        return join(*(self._made[seq] for seq in seqs)) if seqs else None

    def writers(self, tx: Tx, paths: Sequence[str] | None) -> tuple[int, ...]:
        """Give the calls that left what lies there: its version, as far as the ledger knows."""
        return tuple(tx.causes.writers(self._seg.run, paths, limit=_WRITERS + 1))

    def _past(self, tx: Tx) -> tuple[str | None, Any, list[tuple[EffectRow, _Parts]]]:
        run = tx.runs.get(self._seg.run)
        rows = [row for row in tx.effects.list(self._seg.run, statuses=("done",)) if row.kind == "tool"]
        done = [(row, _parts(tx, row)) for row in rows]
        return (None, None, done) if run is None else (run.asked_by or None, _json(tx, run.input), done)

    def _take(
        self, row: EffectRow, arguments: Any, envelope: Any, made: Label, recalled: Label | None, hidden: _Behind
    ) -> None:
        """Take in an earlier result. Where its tool is another one by now, nobody knows whose fields those are: no value has an origin."""
        registry = self._seg.registry
        contract = registry.get(row.tool).contract if row.tool in registry.names() else None
        seq = row.finished_seq or row.intent_seq
        if contract is None or contract.digest != row.tool_digest or not isinstance(arguments, Mapping):
            words = join(made, label({Cause("third_party", row.tool)}))
            self.learn(row.agent, seq, Seen(contract or _GONE, {}, None, words, error=True))
            return
        ok = isinstance(envelope, Mapping) and envelope.get("ok") is True
        own = {name: value for name, value in arguments.items() if name not in KERNEL_ARGUMENTS}
        kept = {} if recalled is None else {"": recalled}
        value, (plain, held) = envelope["data"] if ok else None, hidden
        self.learn(row.agent, seq, Seen(contract, own, value, made, kept, error=not ok, plain=plain, handles=held))

    def _heard(self, seen: Seen) -> Seen:
        """What a tool says when it fails is its author's, too."""
        if not seen.error or seen.plain is not None:
            return seen
        return replace(seen, label=join(seen.label, field_label(seen, "", self._sources, None)))

    def _mind(self, agent: str) -> _Mind:
        name = _EVERYBODY if self._seg.foreign is not None else agent
        if name not in self._minds:
            asker = Cause("person", self.asked_by) if self.asked_by else Cause("unknown")
            spec = self._seg.fleet.agents.get(agent)
            began = {asker}
            if spec is not None and spec.command:  # a program acts by words of its own author
                began.add(Cause("third_party", f"command:{agent}"))
            words = self._seg.words.get(agent)  # an endorsed specification keeps the words of whoever wrote it
            own = label(began) if words is None else join(label(began), words)
            trail = Trail(self._request, own, sources=self._sources, closed=self._closed)
            if self._payload is not None:  # whoever sent it is a stranger, whatever it says of itself
                trail.add(Seen(_PAYLOAD, {}, self._payload, label(began)))
            self._minds[name] = _Mind(trail)
        return self._minds[name]


def label_of(tx: Tx, seq: int) -> Label:
    """Give the label of what a call made: as its last event says; of a call that has none there, as it was judged; else it is unknown."""
    event = tx.ledger.get(seq)
    if event is None or "label" not in event.data:
        return UNKNOWN
    return Label.from_json(event.data["label"])


_Behind = tuple[Label | None, tuple[Held, ...]]
_Parts = tuple[Any, Any, Label, Label | None, _Behind]


def _parts(tx: Tx, row: EffectRow) -> _Parts:
    """Read arguments, envelope, the call's label, that of the files that it may have read, and what came behind handles."""
    event = tx.ledger.get(row.finished_seq or row.intent_seq)
    data = {} if event is None else event.data
    made = Label.from_json(data["label"]) if "label" in data else _judged(tx, row)
    recalled = Label.from_json(data["recalled"]) if "recalled" in data else None
    plain = Label.from_json(data["plain"]) if "plain" in data else None
    held = tuple(Held.from_json(each) for each in _json(tx, data.get("handles_blob")) or ())
    return _json(tx, row.arguments), _json(tx, row.result), made, recalled, (plain, held)


def _judged(tx: Tx, row: EffectRow) -> Label:
    """Read the label by which a call was judged: its intent follows from that decision."""
    intent = tx.ledger.get(row.intent_seq)
    decided = None if intent is None or not intent.causes else tx.ledger.get(intent.causes[0])
    stages = [] if decided is None or decided.kind != "decided" else decided.data.get("stages", [])
    return next((Label.from_json(mark["label"]) for mark in stages if "label" in mark), UNKNOWN)


def _json(tx: Tx, digest: str | None) -> Any:
    body = None if digest is None else tx.blobs.get(digest)
    return None if body is None else orjson.loads(body)
