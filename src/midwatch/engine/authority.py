"""Authority: whether our own configuration may count as it is now: what changed since it was last endorsed, and by whom.

In:   resources as they are found (of a fleet, of imported tools), who runs them; the store. Out: `Standing`; endorsed and pending versions.
May import: config, containment's records, identity, trails (labels), ways, store (port), errors.
Must not know: how a fleet is put together (`rightful`), how a person answers (`endorsing`).

    as it was endorsed                                                   → counts
    a run's commit wrote its file, or some effect that nobody observes may have   → pending
    a fleet that this home has not seen; a file edited outside any run   → endorsed by whoever runs it, if their reach covers it
    the same, and the fleet is pinned                                    → pending
    rejected once                                                        → stays so, until somebody else is found there

Pending and rejected versions are inert. Everything is judged twice: when a fleet is opened, before any code of it is loaded, and again in
the transaction in which a run begins. A hash says that something changed, never that it is good: what a run has written since the file was
last seen in order is not made better by an edit on top of it.
Source: CONTAINMENT.md, clauses 24, 27, 28, 31, 32.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Final, Literal

import orjson

from midwatch.config.resources import CODE, Found, Resource, is_tool
from midwatch.engine.identity import present
from midwatch.engine.trails import label_of
from midwatch.engine.ways import changing, names_in
from midwatch.errors import Conflict, Denied
from midwatch.gates.review import Speaker
from midwatch.records.authority import ABSENT, AuthorityRow
from midwatch.records.event import EventDraft
from midwatch.records.label import OPERATOR, UNKNOWN, Cause, Label, join, label
from midwatch.store.port import Store, Tx
from midwatch.tools.contract import ToolContract

__all__ = [
    "Place",
    "Standing",
    "Version",
    "contracts",
    "note",
    "record",
    "stand",
    "standing",
    "withheld_of",
    "words_of",
]

SLACK_US: Final = 2_000_000
_ACTING: Final = 50
_UNSEEN: Final = frozenset({"process"})
"""Where calls act without that their files are observed."""


@dataclass(frozen=True, slots=True)
class Place:
    """Whose resources these are.

    Attributes:
        key: path of the fleet file as it is named, absolute; or name and folder.
        whole: says of a resource that is not found any more whether it is gone by that.
    """

    key: str
    fleet: str
    whole: Callable[[Resource], bool] = lambda _: False


@dataclass(frozen=True, slots=True)
class Version:
    """A resource that is not as it was last endorsed.

    Attributes:
        found: None: it is gone. before: the endorsed version; None: there is none.
        known: the version that says so already, pending or rejected.
        state: what becomes of it: `endorsed` when a run begins. causes: events that led to it.
    """

    resource: Resource
    found: Found | None
    before: AuthorityRow | None
    state: Literal["endorsed", "pending", "rejected"]
    why: str = ""
    label: Label = OPERATOR
    causes: tuple[int, ...] = ()
    asked_by: str = ""
    by: str = ""
    known: AuthorityRow | None = None

    @property
    def digest(self) -> str:
        """Give the digest of what is found."""
        return ABSENT if self.found is None else self.found.digest


@dataclass(frozen=True, slots=True)
class Standing:
    """How resources stand.

    Attributes:
        pins: per resource the version that is endorsed.
        head: event in which the ledger ended before the files were read. steady: they were what is judged here when they were read then.
        source: text of the file that the resources stand in.
    """

    place: Place
    found: Mapping[Resource, Found]
    pins: Mapping[Resource, AuthorityRow]
    versions: tuple[Version, ...]
    head: int
    pinned: bool
    steady: bool
    speaker: Speaker
    source: bytes | None = None
    tools: tuple[str, ...] = field(default=())

    @property
    def inert(self) -> tuple[Version, ...]:
        """Give what does not count."""
        return tuple(version for version in self.versions if version.state != "endorsed")


def contracts(tools: Mapping[str, ToolContract]) -> dict[Resource, Found]:
    """Give tools as resources: name, schemas, description and all else that a contract says. Imported ones, too."""
    return {
        ("tools", name): Found(contract.digest, orjson.dumps(contract.to_json(), option=orjson.OPT_SORT_KEYS), ())
        for name, contract in tools.items()
    }


def standing(
    store: Store,
    place: Place,
    found: Mapping[Resource, Found],
    *,
    speaker: Speaker,
    pinned: bool,
    head: int,
    steady: bool = True,
    source: bytes | None = None,
) -> Standing:
    """Judge resources as they are found; nothing is written."""

    def work(tx: Tx) -> Standing:
        return stand(tx, place, found, speaker=speaker, pinned=pinned, head=head, steady=steady, source=source)

    return store.read(work)


def stand(
    tx: Tx,
    place: Place,
    found: Mapping[Resource, Found],
    *,
    speaker: Speaker,
    pinned: bool,
    head: int,
    steady: bool = True,
    source: bytes | None = None,
) -> Standing:
    """Do as `standing` within a transaction."""
    pins, later = _rows(tx, place.key)
    gone = {key for key, row in pins.items() if row.digest != ABSENT and key not in found and place.whole(key)}
    tools = tuple(sorted({name for kind, name in {*pins, *found} if kind == "tools" and is_tool(name)}))
    made = Standing(place, found, pins, (), head, pinned, steady, speaker, source, tools)
    seen = max((row.seen_seq for row in pins.values()), default=0)
    versions = []
    for key in sorted({*found, *gone}):
        now, before = found.get(key), pins.get(key)
        digest = ABSENT if now is None else now.digest
        if digest == (ABSENT if before is None else before.digest):
            continue
        known = next((row for row in reversed(later.get(key, ())) if row.digest == digest), None)
        if known is not None and known.state in ("pending", "rejected"):
            state: Literal["pending", "rejected"] = "pending" if known.state == "pending" else "rejected"
            versions.append(
                Version(key, now, before, state, known.why, Label.from_json(orjson.loads(known.label)), known=known)
            )
            continue
        versions.append(_changed(tx, made, key, now, before, seen if before is None else before.seen_seq))
    return Standing(place, found, pins, tuple(versions), head, pinned, steady, speaker, source, tools)


def _changed(
    tx: Tx, made: Standing, key: Resource, now: Found | None, before: AuthorityRow | None, after: int
) -> Version:
    """Judge one change that nobody has answered."""
    files = now.files if now is not None else _beside(made)
    written = _writer(tx, files, after)
    if written is not None:
        run, seq, committed = written
        row = tx.runs.get(run)
        asked = "" if row is None else row.asked_by
        why = f"a call of run `{run[:7]}` wrote the file (event {seq})"
        return Version(key, now, before, "pending", why, label_of(tx, seq), (seq, committed), asked, f"run {run[:7]}")
    acting = _acting(tx, files) if made.pins else None  # of what nobody has seen before, nobody knows when it changed
    if acting is not None:
        run, seq = acting
        row = tx.runs.get(run)
        asked = "" if row is None else row.asked_by
        why = f"the file was changed while run `{run[:7]}` acted where nothing is observed (event {seq})"
        return Version(key, now, before, "pending", why, UNKNOWN, (seq,), asked, f"run {run[:7]}")
    first = not made.pins
    if made.pinned and not first:
        return Version(key, now, before, "pending", "the fleet is pinned, and this was changed", by=made.speaker.name)
    who = made.speaker.name
    lacking = lacks(tx, made.speaker, key, before, None if now is None else now.body, made.tools)
    if lacking:
        why = f"`{who}` runs it, and the reach of `{who}` does not cover {lacking}"
        return Version(key, now, before, "pending", why, by=who)
    why = "this home had not seen the fleet" if first else "it was edited outside of any run"
    return Version(key, now, before, "endorsed", why, _person(who), by=who)


def lacks(
    tx: Tx, speaker: Speaker, key: Resource, before: AuthorityRow | None, body: bytes | None, tools: Sequence[str]
) -> str:
    """Say, for a person, what of a version's tools a speaker's reach does not cover; empty: nothing."""
    if speaker.principal is None:
        return ""
    old = None if before is None or before.body is None else tx.blobs.get(before.body)
    wanted = _tools_of(key, old, body, tools)
    missing = [name for name in wanted if not speaker.reaches(name)]
    return "" if not missing else f"`{missing[0]}`" if missing[0] != "*" else "every tool"


def note(store: Store, made: Standing, *, at_us: int) -> Standing:
    """Write down what is pending, once; gives how things stand then. Nothing is endorsed."""
    if not any(version.state == "pending" and version.known is None for version in made.versions):
        return made

    def work(tx: Tx) -> Standing:
        now = _again(tx, made)
        for version in now.versions:
            if version.state == "pending" and version.known is None:
                _pend(tx, now, version, at_us)
        return _again(tx, made)

    return store.write(work, durable=True)


def record(tx: Tx, made: Standing, *, at_us: int) -> tuple[int, ...]:
    """Let a run begin under what was judged, in its own transaction; gives the answers of people by which it counts.

    Raises:
        Conflict: it is judged otherwise by now. Denied: who runs it may not speak any more.
    """
    present(tx, made.speaker)
    now = _again(tx, made)
    moved = any(
        row.digest != made.found[key].digest and (key not in made.pins or made.pins[key].digest != row.digest)
        for key, row in now.pins.items()
        if key in made.found
    )
    if moved or _inert(now) != _inert(made):
        raise Conflict("what the fleet may do was changed or answered while it was loaded; start again")
    counted = [version for version in now.versions if version.state == "endorsed"]
    caused = {row.answered_seq or row.seq for row in now.pins.values() if row.answered_seq is not None}
    if (
        counted
    ):  # whoever runs it lets it count by running it: that is the request's own word, and no other cause of the run
        _count(tx, now, counted, at_us)
        tx.authority.raise_epoch()
    if made.steady:
        equal = [row.id for key, row in now.pins.items() if key in now.found and now.found[key].digest == row.digest]
        tx.authority.seen(equal, made.head)
    return tuple(sorted(caused))


def withheld_of(standings: Sequence[Standing]) -> frozenset[str]:
    """Give the tools that are not what was endorsed of them."""
    inert = (version.resource for made in standings for version in made.inert)
    return frozenset(name for kind, name in inert if kind in ("tools", "schemas") and is_tool(name))


def words_of(row: AuthorityRow) -> Label:
    """Give the label of an endorsed version: whose words it is, and who let it count. An endorsement takes no cause away."""
    own = Label.from_json(orjson.loads(row.label))
    return own if row.answered_by is None else join(own, _person(row.answered_by))


def row_json(row: AuthorityRow) -> dict[str, Any]:
    """Give what the ledger says of a version."""
    return {
        "version": row.id,
        "place": row.place,
        "fleet": row.fleet,
        "kind": row.kind,
        "name": row.name,
        "number": row.number,
        "digest": row.digest,
        "predecessor": row.predecessor,
    }


# ---------------------------------------------------------------------------------------------------------------- writing


def _again(tx: Tx, made: Standing) -> Standing:
    return stand(
        tx,
        made.place,
        made.found,
        speaker=made.speaker,
        pinned=made.pinned,
        head=made.head,
        steady=made.steady,
        source=made.source,
    )


def _inert(made: Standing) -> set[tuple[Resource, str]]:
    return {(version.resource, version.digest) for version in made.inert}


def _pend(tx: Tx, made: Standing, version: Version, at_us: int) -> None:
    for old in tx.authority.list(place=made.place.key, states=("pending",), limit=10_000):
        if old.resource == version.resource:
            tx.authority.answer(old.id, state="superseded", by=None, at_us=at_us, seq=old.seq)
    row = _row(tx, made, version, at_us)
    data = {**row_json(row), "why": version.why, "files": [str(path) for path in _shown_files(version)]}
    seq = tx.ledger.append(EventDraft("authority.pending", None, at_us, data, causes=tuple(sorted(version.causes))))
    tx.authority.add(replace(row, seq=seq))


def _count(tx: Tx, made: Standing, counted: Sequence[Version], at_us: int) -> None:
    rows = [_row(tx, made, version, at_us) for version in counted]
    told = [{**row_json(row), "why": row.why} for row in rows]
    data = {"by": made.speaker.name, "channel": made.speaker.channel, "place": made.place.key, "versions": told}
    seq = tx.ledger.append(EventDraft("authority.endorsed", None, at_us, data))
    for version in counted:
        for old in tx.authority.list(place=made.place.key, states=("pending",), limit=10_000):
            if old.resource == version.resource:
                tx.authority.answer(old.id, state="superseded", by=None, at_us=at_us, seq=seq)
    for row in rows:
        tx.authority.add(replace(row, seq=seq))


def _row(tx: Tx, made: Standing, version: Version, at_us: int) -> AuthorityRow:
    kind, name = version.resource
    number = tx.authority.numbered(made.place.key, kind, name)
    body = None if version.found is None or version.found.body is None else tx.blobs.put(version.found.body)
    seen = made.head if made.steady else 0 if version.before is None else version.before.seen_seq
    return AuthorityRow(
        id=hashlib.sha256(orjson.dumps([made.place.key, kind, name, number])).hexdigest()[:16],
        place=made.place.key,
        fleet=made.place.fleet,
        kind=kind,
        name=name,
        number=number,
        digest=version.digest,
        predecessor=None if version.before is None else version.before.digest,
        state=version.state,
        body=body,
        source=None if made.source is None else tx.blobs.put(made.source),
        label=orjson.dumps(version.label.to_json()).decode(),
        why=version.why,
        asked_by=version.asked_by,
        by=version.by,
        at_us=at_us,
        seq=0,
        seen_seq=seen,
    )


def _shown_files(version: Version) -> tuple[Path, ...]:
    return () if version.found is None else version.found.files


# ---------------------------------------------------------------------------------------------------------------- judging


def _rows(tx: Tx, place: str) -> tuple[dict[Resource, AuthorityRow], dict[Resource, list[AuthorityRow]]]:
    """Give the endorsed version of each resource, and what came after it."""
    pins: dict[Resource, AuthorityRow] = {}
    later: dict[Resource, list[AuthorityRow]] = {}
    for row in tx.authority.newest(place):
        if row.state == "endorsed":
            pins[row.resource] = row
        else:
            later.setdefault(row.resource, []).append(row)
    return pins, later


def _beside(made: Standing) -> tuple[Path, ...]:
    """Give where a resource stood that is gone: in the file of the other blocks."""
    return tuple(
        {path: None for other, each in made.found.items() if not other[1].startswith(CODE) for path in each.files}
    )


def _writer(tx: Tx, files: Sequence[Path], after: int) -> tuple[str, int, int] | None:
    """Give run, call and commit that last wrote one of these files, or anything on the way to it, after an event."""
    for workspace in tx.authority.workspaces() if files else ():
        names = {name for file in files for name in names_in(Path(workspace), file)}
        found = tx.authority.written(workspace, names, after=after) if names else None
        if found is not None:
            return found.run, found.seq, found.committed
    return None


def _acting(tx: Tx, files: Sequence[Path]) -> tuple[str, int] | None:
    """Give an effect that was under way when one of these files, or a link to it, last changed, and whose files nobody observes.

    The time of a file's last change is the kernel's own: no program without the machine's highest rights sets it.
    """
    for file in files:
        for path in changing(file):
            try:
                changed_us = os.lstat(path).st_ctime_ns // 1000
            except OSError:
                continue
            for run, seq in tx.authority.acting(changed_us, slack_us=SLACK_US, limit=_ACTING):
                event = tx.ledger.get(seq)
                data: Mapping[str, Any] = {} if event is None else event.data
                if data.get("runs") != "sandbox" or data.get("isolation") in _UNSEEN:
                    return run, seq
    return None


def _tools_of(key: Resource, old: bytes | None, new: bytes | None, tools: Sequence[str]) -> tuple[str, ...]:
    """Give the tools that a version is about; `*` where that is all of them, known or not."""
    kind, name = key
    if kind in ("tools", "schemas") and is_tool(name):
        return (name,)
    everything = tuple(tools) or ("*",)
    if kind == "agents" and not name.startswith(CODE):
        block, before = _json(new) or {}, _json(old) or {}
        if any(block.get(part) != before.get(part) for part in ("sandbox", "command", "limits")):
            return everything
        return _matching(_texts(block.get("tools") or []), tools)
    if kind in ("grants", "policies") and name in ("grants", "policies"):
        return _matching(_added(_json(old), _json(new)), tools)
    return everything


def _added(old: Any, new: Any) -> list[str]:
    """Give the tools that rules name which were not there; taking a rule away, or a tool out of one, gives nobody anything."""
    before = [rule for rule in old if isinstance(rule, dict)] if isinstance(old, list) else []
    globs: list[str] = []
    for rule in new if isinstance(new, list) else []:
        if not isinstance(rule, dict):
            return ["*"]
        same = [other for other in before if {**other, "may": None} == {**rule, "may": None}]
        had = {glob for other in same for glob in _texts(other.get("may"))}
        globs += [glob for glob in _texts(rule.get("may")) if glob not in had]
    return globs


def _matching(globs: Any, tools: Sequence[str]) -> tuple[str, ...]:
    names: dict[str, None] = {}
    for glob in globs if isinstance(globs, list) else []:
        fitting = [name for name in tools if fnmatchcase(name, str(glob))]
        names.update(dict.fromkeys(fitting or [str(glob)]))
    return tuple(names)


def _texts(value: Any) -> list[str]:
    return [value] if isinstance(value, str) else [str(item) for item in value] if isinstance(value, list) else ["*"]


def _json(body: bytes | None) -> Any:
    return None if body is None else orjson.loads(body)


def _person(name: str) -> Label:
    return label({Cause("person", name)})


def refuse(version: Version) -> Denied:
    """Give what is raised when nothing can stand in for what is pending."""
    kind, name = version.resource
    known = "ID" if version.known is None else version.known.id[:8]
    if version.state == "rejected":
        return Denied(
            f"`{kind}/{name}` was rejected ({version.why}) and is still there; put the endorsed version back: "
            f"`midwatch grants diff {known}` shows it"
        )
    return Denied(
        f"`{kind}/{name}` is pending: {version.why}; `midwatch grants diff {known}` shows it, "
        f"`midwatch grants endorse {known} --digest {version.digest[:12]}` lets it count"
    )
