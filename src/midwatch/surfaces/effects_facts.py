"""Facts of effects for whoever shows them: what each call of a run was seen to do, and what became of it.

In:   a store, a run, the folder with the run's layers. Out: steps in the order of the ledger; diffs of texts; what a commit would do.
May import: engine's staging, sandbox's effects, layers, release and beneath, records, store (port). Must not know: how it is shown,
who may commit.
Why from the events and not from the layer files: the ledger is chained, a file can be lost; only contents are read from files.
"""

from __future__ import annotations

import difflib
import hashlib
import os
import stat
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Final, Literal

from midwatch.engine import granting
from midwatch.engine.granting import Gives
from midwatch.engine.staged import layer_of, staged_of
from midwatch.errors import SandboxError
from midwatch.records.event import Event
from midwatch.sandbox.beneath import open_at, open_root
from midwatch.sandbox.effects import CHANGING, Change, Request, raw
from midwatch.sandbox.layers import Layer, contents_of, fold, open_content
from midwatch.sandbox.release import Item, plan
from midwatch.store.port import Store, Tx
from midwatch.tracing.paging import events_of

__all__ = ["Diff", "Planned", "State", "Step", "as_json", "diffs", "held", "planned", "steps", "still_staged"]

State = Literal["staged", "committed", "discarded"]

MOST: Final = 256 << 10
"""Longest text that is compared, bytes."""
_KINDS: Final = (
    "finished",
    "effect.undone",
    "effects.sending",
    "effects.sent",
    "effects.committed",
    "effects.discarded",
)
_ENDS: Final[Mapping[str, State]] = {"effects.committed": "committed", "effects.discarded": "discarded"}


@dataclass(slots=True)
class Step:
    """What one call was seen to do. `states` and `sent` change while later events are read.

    Attributes:
        seq: of the `finished` event, or of `effect.undone`. effect: journal id. undoes: whether it took an effect back.
        usage: the machine's counters of the sandbox, as of then.
        states: by path, of what changed. sent: what became of requests that were staged, by their place among the requests:
            `staged`, `discarded`, `sending` (or cut while it was), else how it ended.
    """

    seq: int
    at_us: int
    node: str | None
    step: int | None
    agent: str
    tool: str
    effect: str
    ok: bool
    undoes: bool
    layer: Layer
    usage: Mapping[str, int]
    states: dict[str, State] = field(default_factory=dict)
    sent: dict[int, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Diff:
    """What changed within one text. `lines` empty where `why` says that there is nothing to compare."""

    path: str
    lines: tuple[str, ...] = ()
    why: str = ""


def steps(store: Store, run: str, folder: Path) -> list[Step]:
    """Give every call of a run that was seen to do something, oldest first."""
    return store.read(lambda tx: _steps(tx, run, folder))


def _steps(tx: Tx, run: str, folder: Path) -> list[Step]:
    found: list[Step] = []
    for event in events_of(tx, run, _KINDS):
        state = _ENDS.get(event.kind)
        if state is not None:
            _settle(found, state, event.data.get("paths"))
        elif event.kind in ("effects.sending", "effects.sent"):
            _sent(found, event)
        elif event.data.get("observed"):
            found.append(_step(tx, event, folder))
    return found


def _settle(found: Sequence[Step], state: State, paths: Sequence[str] | None) -> None:
    """Mark what was still staged; `paths` None: all of it."""
    wanted = None if paths is None else set(paths)
    for step in found:
        for path, before in step.states.items():
            if before == "staged" and (wanted is None or path in wanted):
                step.states[path] = state
        if wanted is None:
            step.sent |= {index: state for index, before in step.sent.items() if before == "staged"}


def _sent(found: Sequence[Step], event: Event) -> None:
    seq, _, index = str(event.data["request"]).partition(":")
    status = event.data.get("status")
    word = event.data.get("outcome", "sending")
    for step in found:
        if step.seq == int(seq):
            step.sent[int(index)] = word if status is None else f"{word} {status}"


def _step(tx: Tx, event: Event, folder: Path) -> Step:
    layer = layer_of(tx, event, folder)
    return Step(
        seq=event.seq,
        at_us=event.at_us,
        node=event.node,
        step=event.step,
        agent=event.agent or "",
        tool=event.data.get("tool", ""),
        effect=event.data.get("effect", ""),
        ok=bool(event.data.get("ok")),
        undoes=event.kind == "effect.undone",
        layer=layer,
        usage=event.data.get("usage", {}),
        states={change.path: "staged" for change in layer.changes if change.op in CHANGING},
        sent={index: "staged" for index, request in enumerate(layer.requests) if request.outcome == "staged"},
    )


def still_staged(store: Store, run: str) -> int:
    """Count what a run changed, and asked to be sent, that nobody has committed or discarded yet."""
    held = store.read(lambda tx: staged_of(tx, run, Path()))
    requests = sum(request.outcome == "staged" for item in held for request in item.layer.requests)
    return len(fold([item.layer for item in held])) + requests


def as_json(step: Step) -> dict[str, Any]:
    """Give a step as JSON."""
    return {
        "event": step.seq,
        "at_us": step.at_us,
        "node": step.node,
        "step": step.step,
        "agent": step.agent,
        "tool": step.tool,
        "effect": step.effect,
        "ok": step.ok,
        "undoes": step.undoes,
        "layer": step.layer.digest,
        "usage": dict(step.usage),
        "changes": [
            change.to_json() | ({"state": step.states[change.path]} if change.op in CHANGING else {})
            for change in step.layer.changes
        ],
        "requests": [
            request.to_json() | ({"state": step.sent[index]} if index in step.sent else {})
            for index, request in enumerate(step.layer.requests)
        ],
    }


def diffs(found: Sequence[Step], step: Step, workspace: Path | None) -> Iterator[Diff]:
    """Compare what a step changed with what it found, text by text.

    Args:
        workspace: where contents from before the run are, as long as nobody has changed them since.
    """
    there = held([item.layer for item in found])
    for change in step.layer.changes:
        if change.op in ("created", "modified", "deleted") and change.kind == "file":
            yield _diff(change, there, workspace)


def held(layers: Sequence[Layer]) -> dict[str, Layer]:
    """Say which layer holds a content; a file that is lost holds none."""
    there: dict[str, Layer] = {}
    for layer in layers:
        try:
            there |= contents_of([layer])
        except (OSError, SandboxError):
            continue
    return there


def _diff(change: Change, held: Mapping[str, Layer], workspace: Path | None) -> Diff:
    old = "" if change.op == "created" else _text(change, change.before, held, workspace)
    new = "" if change.op == "deleted" else _text(change, change.sha256, held, workspace)
    if old is None or new is None:
        return Diff(change.path, why="its content is no text, too long, or not kept any more")
    before = "/dev/null" if change.op == "created" else f"a/{change.path}"
    after = "/dev/null" if change.op == "deleted" else f"b/{change.path}"
    lines = difflib.unified_diff(old.splitlines(), new.splitlines(), before, after, lineterm="")
    return Diff(change.path, tuple(lines))


def _text(change: Change, sha256: str | None, held: Mapping[str, Layer], workspace: Path | None) -> str | None:
    data = None if sha256 is None else _content(change, sha256, held, workspace)
    if data is None or len(data) > MOST or b"\x00" in data:
        return None
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return None


def _content(change: Change, sha256: str, held: Mapping[str, Layer], workspace: Path | None) -> bytes | None:
    """Find a content by its digest: in a layer, else in the workspace as it is now; at most a little more than is compared."""
    if sha256 == hashlib.sha256(b"").hexdigest():
        return b""
    if sha256 in held:
        try:
            with open_content(held[sha256], sha256) as stream:
                return stream.read(MOST + 1)
        except (OSError, SandboxError):
            return None
    if workspace is None:
        return None
    data = _beneath(workspace, raw(change.path))
    return data if data is not None and hashlib.sha256(data).hexdigest() == sha256 else None


def _beneath(workspace: Path, name: bytes) -> bytes | None:
    """Read a plain file below the workspace, through no link: the name is one that an agent chose."""
    try:
        root = open_root(workspace)
    except (OSError, SandboxError):
        return None
    try:
        with os.fdopen(open_at(root, name, os.O_RDONLY | os.O_NONBLOCK), "rb") as stream:
            plain = stat.S_ISREG(os.fstat(stream.fileno()).st_mode)
            return stream.read(MOST + 1) if plain else None
    except (OSError, SandboxError):
        return None
    finally:
        os.close(root)


@dataclass(frozen=True, slots=True)
class Planned:
    """What a commit would do: paths, and requests that would be sent.

    Attributes:
        others: how many paths are staged and not meant. gives: what it would give to whom.
    """

    items: tuple[Item, ...]
    requests: tuple[Request, ...]
    others: int
    gives: Gives


def planned(store: Store, run: str, folder: Path, workspace: Path, only: Sequence[str] = ()) -> Planned:
    """Say what a commit of what is still staged would do, as the workspace is now. Nothing is changed.

    Args:
        only: globs of paths; requests are not meant then. Empty: everything.

    Raises:
        SandboxError: a layer or the workspace cannot be read.
    """
    staged = store.read(lambda tx: staged_of(tx, run, folder))
    layers = [item.layer for item in staged]
    whole = plan(layers, workspace)
    meant = tuple(item for item in whole.items if not only or any(fnmatchcase(item.path, glob) for glob in only))
    kept = [
        (item, place)
        for item in ([] if only else staged)
        for place, request in enumerate(item.layer.requests)
        if request.outcome == "staged"
    ]
    found = granting.gives(meant, kept, layers, workspace)
    requests = tuple(item.layer.requests[place] for item, place in kept)
    return Planned(meant, requests, len(whole.items) - len(meant), found)
