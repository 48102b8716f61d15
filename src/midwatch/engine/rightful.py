"""Rightful: the fleet that a run may begin under: as it was loaded, with what is pending left out and what was endorsed in its place.

In:   a loaded fleet, or the path of one that cannot be loaded; the store; who runs it. Out: `Rightful`, or a refusal.
May import: `authority`, config, errors, store (port). Must not know: tools' code (it is loaded after this), the graph, runs.

What stands in the fleet file, and prompts, is put back for this run; the file itself stays as it is. A file of code cannot be put back,
so as long as its version is pending the fleet is refused, before any of it is loaded. A fleet file that is broken, and that a run of ours
wrote, is replaced whole by what was last endorsed; one that a person broke is reported as ever.
Source: CONTAINMENT.md, clauses 24, 32.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import orjson

from midwatch.config import resources
from midwatch.config.fleet import FILE_NAME, Fleet
from midwatch.config.resources import CODE, Found, Resource
from midwatch.config.yaml_source import read_file
from midwatch.engine import authority
from midwatch.engine.authority import Place, Standing, Version
from midwatch.errors import Conflict, Denied, InvalidFleet
from midwatch.gates.review import Speaker
from midwatch.records.authority import ABSENT, AuthorityRow
from midwatch.records.label import OPERATOR, Label, join
from midwatch.store.port import Store, Tx
from midwatch.tools.registry import Registry

__all__ = ["FILE", "Rightful", "place_of", "restored", "rightful", "untouched", "withheld"]

FILE: Final[Resource] = ("fleet", "file")
"""A whole file that cannot be read as a fleet: it is shown, and never endorsed."""


@dataclass(frozen=True, slots=True)
class Rightful:
    """A fleet that may run.

    Attributes:
        standing: how its resources stand, for the transaction in which a run begins.
        words: per agent, whose words its specification and prompt are, where that is not the operator alone.
        told: in plain words, what was left out.
    """

    fleet: Fleet
    standing: Standing
    words: Mapping[str, Label]
    told: str = ""


def place_of(fleet: Fleet) -> Place:
    """Say which fleet this is: its file as it is named, whatever that says of itself."""
    return Place(f"{fleet.name}@{fleet.base}" if fleet.path is None else str(fleet.path), fleet.name, _whole)


def rightful(store: Store, fleet: Fleet, *, speaker: Speaker, environ: Mapping[str, str], at_us: int) -> Rightful:
    """Judge a fleet and leave out what does not count; what is pending is written down.

    Raises:
        Denied: something is pending that nothing can stand in for; the message names it.
    """
    head = store.read(lambda tx: tx.ledger.head())[0]
    found = resources.found_in(fleet)
    place = place_of(fleet)
    steady = _steady(fleet)
    pinned = store.read(lambda tx: _pinned(tx, place.key))
    made = authority.standing(
        store,
        place,
        found,
        speaker=speaker,
        pinned=pinned,
        head=head,
        steady=steady,
        source=resources.text_of(resources.values_of(fleet)).encode(),
    )
    made = authority.note(store, made, at_us=at_us)
    if not made.inert:
        return Rightful(fleet, made, _words(made))
    for version in made.inert:
        if not made.pins or version.resource[1].startswith(CODE):
            raise authority.refuse(version)
    instead = store.read(lambda tx: {version.resource: _standing_in(tx, version) for version in made.inert})
    values, texts = resources.spliced(resources.values_of(fleet), instead)
    prompts = {name: agent.prompt for name, agent in fleet.agents.items() if _kept(values, name)} | texts
    try:
        other = fleet.with_values(values, resources.text_of(values), prompts=prompts, environ=environ)
    except InvalidFleet as broken:
        raise Denied(
            f"{authority.refuse(made.inert[0])}; without it the fleet is not whole: {broken.problems[0]}"
        ) from broken
    _certain(other, made)
    return Rightful(other, made, _words(made), _told(made))


def untouched(store: Store, fleet: Fleet) -> None:
    """Make sure that no run of ours wrote code which is about to be loaded only to look at it; nothing is written.

    Raises:
        Denied: one did, and nobody has endorsed that.
    """
    head = store.read(lambda tx: tx.ledger.head())[0]
    code = {key: each for key, each in resources.found_in(fleet).items() if key[1].startswith(CODE)}
    place = replace(place_of(fleet), whole=lambda _: False)
    made = authority.standing(store, place, code, speaker=Speaker("nobody"), pinned=False, head=head)
    if made.inert:
        raise authority.refuse(made.inert[0])


def withheld(
    store: Store, of: Rightful, registry: Registry, *, speaker: Speaker, at_us: int
) -> tuple[Standing, frozenset[str]]:
    """Judge the tools that were loaded, and that their code is what was judged before it was; gives the names of those that are pending.

    Raises:
        Conflict: code beside the fleet file was changed while it was loaded.
    """
    code = {key: each for key, each in resources.found_in(of.fleet).items() if key[1].startswith("code:")}
    if any(of.standing.found.get(key) != each for key, each in code.items()):
        raise Conflict("a file of tools was changed while it was loaded; start again")
    found = authority.contracts({name: registry.get(name).contract for name in registry.names()})
    place = replace(of.standing.place, whole=lambda _: False)
    made = authority.standing(
        store,
        place,
        found,
        speaker=speaker,
        pinned=of.standing.pinned and bool(of.standing.pins),
        head=of.standing.head,
    )
    first = not any(kind == "tools" and resources.is_tool(name) for kind, name in made.pins)
    if first:  # a fleet that the home knows from before tools were kept, or sees now
        made = authority.standing(store, place, found, speaker=speaker, pinned=False, head=of.standing.head)
    made = authority.note(store, made, at_us=at_us)
    return made, frozenset(version.resource[1] for version in made.inert)


def restored(
    store: Store, path: Path, broken: InvalidFleet, *, preset: str | None, environ: Mapping[str, str], at_us: int
) -> Fleet:
    """Give the fleet as it was last endorsed, where a run of ours wrote a file of it that cannot be loaded now.

    Raises:
        InvalidFleet: `broken`, where nothing was endorsed, or where nobody but a person can have broken it.
    """
    file = (path / FILE_NAME if path.is_dir() and (path / FILE_NAME).exists() else path).absolute()
    kept = store.read(lambda tx: _last(tx, str(file)))
    if kept is None:
        raise broken
    values, texts = kept
    named = [block.get("prompt") for block in (values.get("agents") or {}).values() if isinstance(block, dict)]
    files = (file, *(file.parent / name for name in named if isinstance(name, str)))
    try:
        body: bytes | None = file.read_bytes()
    except OSError:
        body = None
    here = Place(str(file), str(values.get("fleet", "")))
    found = {FILE: Found(resources.digest_of(body or b""), body, files)}
    head = store.read(lambda tx: tx.ledger.head())[0]
    made = authority.standing(store, here, found, speaker=Speaker("nobody"), pinned=False, head=head)
    made = authority.note(store, made, at_us=at_us)
    if not made.inert:
        raise broken
    return Fleet.last(file, values, resources.text_of(values), preset=preset, environ=environ, prompts=texts)


def _last(tx: Tx, place: str) -> tuple[dict[str, Any], dict[str, str]] | None:
    """Give the values and prompts of a fleet as it was last endorsed, block by block."""
    pins = [row for row in tx.authority.newest(place) if row.state == "endorsed" and _whole(row.resource)]
    blocks = [row for row in pins if row.source is not None and row.digest != ABSENT]
    if not blocks:
        return None
    base = max(blocks, key=lambda row: (row.seq, row.number))
    return resources.spliced(_values(tx, base), {row.resource: _endorsed(tx, row) for row in pins})


def _whole(resource: Resource) -> bool:
    """Say whether a resource stands in the fleet file, or is a prompt, so that it is gone when it is not found."""
    return not resource[1].startswith(CODE) and not (
        resource[0] in ("tools", "schemas") and resources.is_tool(resource[1])
    )


def _pinned(tx: Tx, place: str) -> bool:
    """Say whether a fleet is pinned, as it was endorsed: what pins or unpins it is a change like every other one."""
    for row in tx.authority.newest(place):
        if row.state == "endorsed" and row.resource == ("fleet", "authority") and row.body is not None:
            body = tx.blobs.get(row.body)
            return body is not None and orjson.loads(body) == "pinned"
    return False


def _steady(fleet: Fleet) -> bool:
    """Say whether the files still say what was loaded from them."""
    try:
        if fleet.path is not None and read_file(fleet.path) != fleet.text:
            return False
        return all(
            agent.prompt_path is None or agent.prompt_path.read_text("utf-8-sig") == agent.prompt
            for agent in fleet.agents.values()
        )
    except (OSError, ValueError, InvalidFleet):
        return False


def _standing_in(tx: Tx, version: Version) -> Mapping[str, Any] | None:
    return None if version.before is None else _endorsed(tx, version.before)


def _endorsed(tx: Tx, row: AuthorityRow) -> Mapping[str, Any] | None:
    """Give what stands in for a resource: a prompt's text, or the values of the file in which it was endorsed."""
    if row.digest == ABSENT:
        return None
    if row.kind == "prompts":
        body = None if row.body is None else tx.blobs.get(row.body)
        if body is None:
            raise Denied(f"the endorsed version of `prompts/{row.name}` is missing from this home")
        read: dict[str, Any] = orjson.loads(body)
        return read
    return _values(tx, row)


def _values(tx: Tx, row: AuthorityRow) -> dict[str, Any]:
    text = None if row.source is None else tx.blobs.get(row.source)
    value = None if text is None else orjson.loads(text)
    if not isinstance(value, dict):
        raise Denied(f"the endorsed version of `{row.kind}/{row.name}` is missing from this home")
    return value


def _kept(values: Mapping[str, Any], agent: str) -> bool:
    return agent in (values.get("agents") or {})


def _certain(fleet: Fleet, made: Standing) -> None:
    """Make sure that nothing is in a fleet but what was endorsed, or counts now."""
    counts = {version.resource: version.digest for version in made.versions if version.state == "endorsed"}
    for key, each in resources.found_in(fleet).items():
        pin = made.pins.get(key)
        if each.digest not in (counts.get(key), None if pin is None else pin.digest):
            raise Denied(f"`{key[0]}/{key[1]}` could not be put back as it was endorsed, so nothing runs")


def _words(made: Standing) -> dict[str, Label]:
    words: dict[str, Label] = {}
    for (kind, name), row in made.pins.items():
        own = Label.from_json(orjson.loads(row.label))
        if kind in ("agents", "prompts") and row.answered_by is not None and own != OPERATOR:
            said = authority.words_of(row)
            words[name] = join(words[name], said) if name in words else said
    return words


def _told(made: Standing) -> str:
    names = ", ".join(f"{kind}/{name}" for kind, name in (version.resource for version in made.inert[:3]))
    more = f" and {len(made.inert) - 3} more" if len(made.inert) > 3 else ""
    return f"runs as it was last endorsed, without {names}{more}: `midwatch grants pending` lists what waits"
