"""Granting: what a commit would give to whom, by the authority detectors, before any of it leaves.

In:   a planned commit, or one call's layer with the contents behind it. Out: judgements by resource; those that need a person.
May import: containment's detectors, the sandbox's facts and rules, config. Must not know: gates, people, how files are written.
Why contents are read twice, from the layers and from the workspace: what counts is the difference, and only what was there before has been
allowed. What cannot be read counts as granting where a detector cares about the path (CONTAINMENT.md 25).
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Final

from midwatch.config.fleet import Fleet
from midwatch.containment.authority import Detector, File, Granted, Http, Inert, Judged, installed, judge
from midwatch.containment.authority.facts import MOST
from midwatch.containment.authority.registry import reads
from midwatch.engine.staged import Staged
from midwatch.errors import SandboxError
from midwatch.sandbox import egress_rules
from midwatch.sandbox.beneath import open_at, open_root
from midwatch.sandbox.effects import CHANGING, Change, Request, raw
from midwatch.sandbox.egress_secrets import Refused
from midwatch.sandbox.egress_upstream import asked_at
from midwatch.sandbox.layers import Layer, contents_of, open_content
from midwatch.sandbox.release import Item

__all__ = ["Gives", "gives", "line", "of_layer", "unsure"]

_READ: Final = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY
_EMPTY: Final = hashlib.sha256(b"").hexdigest()
_ANY: Final = frozenset({"*", "**", "/*", "/**"})


@dataclass(frozen=True, slots=True)
class Gives:
    """What a commit gives.

    Attributes:
        paths: by path, of the files. requests: by place among the requests that would be sent.
    """

    paths: Mapping[str, Judged]
    requests: Sequence[Judged]

    @property
    def grants(self) -> tuple[Granted, ...]:
        """All that is given, files first."""
        found = [*self.paths.values(), *self.requests]
        return tuple(dict.fromkeys(item for judged in found for item in judged.grants))

    @property
    def inert(self) -> tuple[Inert, ...]:
        """What could have given something, and why it does not."""
        found = [*self.paths.values(), *self.requests]
        return tuple(dict.fromkeys(item for judged in found for item in judged.inert))


def gives(items: Sequence[Item], kept: Sequence[tuple[Staged, int]], layers: Sequence[Layer], workspace: Path) -> Gives:
    """Say what the commit of these paths and requests would give, as the workspace is now.

    Raises:
        SandboxError: no layer can be read at all. A single content that is lost counts as granting.
    """
    held = contents_of(layers)
    changes = [item.change for item in items if item.action not in ("none", "never")]
    requests = [(item.layer, item.layer.requests[index]) for item, index in kept]
    return _gives(changes, requests, held, workspace)


def of_layer(layer: Layer, held: Mapping[str, Layer], workspace: Path | None) -> Gives:
    """Say what one call's changes and requests give by themselves, compared with what the call found.

    Args:
        held: which layer holds each content. workspace: where contents from before the run are; None: nowhere any more.
    """
    changes = [change for change in layer.changes if change.op in CHANGING]
    requests = [(layer, request) for request in layer.requests if request.outcome == "staged"]
    return _gives(changes, requests, held, workspace)


def unsure(judged: Judged, request: Request, agent: str, fleet: Fleet) -> bool:
    """Say whether a request needs a person for what it gives.

    What nobody can say of a request counts as granting, unless the operator described it: a rule that names its method and its path has
    been read by whoever wrote it, one that lets anything to the host has not.
    """
    if any(item.proven for item in judged.grants):
        return True
    return bool(judged.grants) and not _described(request, agent, fleet)


def _described(request: Request, agent: str, fleet: Fleet) -> bool:
    if agent not in fleet.agents:
        return False
    try:
        asked = asked_at(request.url or "")
    except Refused:
        return False
    rules = fleet.sandbox_of(agent).egress
    found = egress_rules.decide(rules, request.method, asked.host, asked.port, asked.path, tls=asked.tls)
    rule = found.rule if isinstance(found, egress_rules.Allow) else None
    return rule is not None and bool(rule.methods) and bool(rule.paths) and _ANY.isdisjoint(rule.paths)


def _gives(
    changes: Sequence[Change],
    requests: Sequence[tuple[Layer, Request]],
    held: Mapping[str, Layer],
    workspace: Path | None,
) -> Gives:
    more = _brought()
    paths = {}
    for change in changes:
        judged = judge(_file(change, held, workspace, more), more)
        if judged.grants or judged.inert:
            paths[change.path] = judged
    return Gives(paths, [judge(_http(layer, request), more) for layer, request in requests])


@lru_cache(maxsize=1)
def _brought() -> tuple[Detector, ...]:
    return installed()


def _file(change: Change, held: Mapping[str, Layer], workspace: Path | None, more: Sequence[Detector]) -> File:
    if change.op == "permission" or not reads(change, more):
        return File(change)
    try:
        before = _before(change, held, workspace)
        after = None if change.op == "deleted" or change.kind != "file" else _kept(change.sha256, held)
    except (OSError, SandboxError) as lost:
        why = str(lost) if isinstance(lost, SandboxError) else "a content that it had, or has, cannot be read"
        return File(change, unread=why)
    return File(change, before, after)


def _before(change: Change, held: Mapping[str, Layer], workspace: Path | None) -> bytes | None:
    if change.op == "created" or change.before is None or (change.was or change.kind) != "file":
        return None
    if change.before in held or change.before == _EMPTY:
        return _kept(change.before, held)
    if workspace is None:
        raise SandboxError("what it held before is not at hand")
    data = _beneath(workspace, raw(change.path))
    if len(data) <= MOST and hashlib.sha256(data).hexdigest() != change.before:
        raise SandboxError("what it held before is not at hand")
    return data


def _kept(sha256: str | None, held: Mapping[str, Layer]) -> bytes:
    if sha256 == _EMPTY:
        return b""
    if sha256 is None or sha256 not in held:
        raise SandboxError("no layer holds its content")
    with open_content(held[sha256], sha256) as stream:
        return stream.read(MOST + 1)


def _beneath(workspace: Path, name: bytes) -> bytes:
    """Read a plain file below the workspace, through no link: the name is one that an agent chose."""
    root = open_root(workspace)
    try:
        with os.fdopen(open_at(root, name, _READ), "rb") as stream:
            if not stat.S_ISREG(os.fstat(stream.fileno()).st_mode):
                raise SandboxError("what it held before is no plain file")
            return stream.read(MOST + 1)
    finally:
        os.close(root)


def _http(layer: Layer, request: Request) -> Http:
    if request.body is None or request.body == _EMPTY:
        return Http(request, b"")
    try:
        with open_content(layer, request.body) as stream:
            return Http(request, stream.read(MOST + 1))
    except (OSError, SandboxError):
        return Http(request, unread="its body cannot be read")


def line(grant: Granted) -> str:
    """Say one grant in one line: where, to whom, what, and why that is said."""
    return f"{grant.resource}: to {grant.to_whom}: {grant.what} ({grant.why})"
