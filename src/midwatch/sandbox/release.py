"""Release: what a run's layers would change in the live workspace, and the commit of it: all or nothing, nothing unseen.

In:   layers, the workspace, what a person approved. Out: `Release`, digested so that a yes is for exactly this; the changed workspace.
May import: layers, live, landing, watched, aliases, effects, errors. Must not know: runs, gates, who asks.

Every name, link, mode and content comes from a hostile place. So: folders are opened beneath the workspace, through no link and no
mount; devices, FIFOs and sockets are never made; setuid, setgid, sticky and every attribute are left behind; what the workspace holds
by now is compared by hash, before and again when it has come out of its place (`landing`).

Decided here:
- Owner and mode of a file that only got another content stay. What is new belongs to the owner of the folder it comes into.
- A commit never lets group or others write where they could not before, and folders are always their owner's to use.
- Empty folders are committed. Links are committed as links; one that leads out needs a person.
- A git work tree is a folder like any other: objects and refs of `.git` pass, what makes git run something needs a person (`watched`).
- Somebody who keeps an old file open and writes into it after the commit writes into a file that has no name any more.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, Literal

import orjson

from midwatch.errors import Conflict, Denied, SandboxError
from midwatch.sandbox.aliases import aliases, named
from midwatch.sandbox.beneath import open_root
from midwatch.sandbox.effects import Change
from midwatch.sandbox.landing import Journal, Landing, New, Operation, What
from midwatch.sandbox.layers import Layer, below, contents_of, fold, in_order
from midwatch.sandbox.live import Live, Standing, Step, Unreachable, same_name
from midwatch.sandbox.replay import copy_content
from midwatch.sandbox.watched import hook_folder

__all__ = ["Action", "Item", "Release", "commit", "plan", "resume_commit"]

Action = Literal["create", "replace", "delete", "mode", "none", "never"]
"""`none`: the workspace is like that already. `never`: a device, FIFO or socket, which no commit makes."""

_WORDS: Final = {
    "setuid": "it would run with its owner's rights; that bit is left behind",
    "special": "it is a device, FIFO or socket; it is left behind",
    "leaves": "it is a link that leads out of the workspace",
    "name": "its name hides something",
    "hardlink": "the same file has several names; each becomes a file of its own",
    "moved": "the workspace's own file changed while the run worked",
}


@dataclass(frozen=True, slots=True)
class Item:
    """One path of a release.

    Attributes:
        change: from what the workspace held before the run to what the run left.
        person: why a person must say yes, in words; empty: nobody must.
        conflict: why the workspace is not as the run found it, in words; None where it is.
    """

    action: Action
    change: Change
    person: tuple[str, ...] = ()
    conflict: str | None = None

    @property
    def path(self) -> str:
        """The path, as `effects.shown`."""
        return self.change.path

    def to_json(self) -> dict[str, Any]:
        """Give JSON data."""
        return {
            "action": self.action,
            "change": self.change.to_json(),
            "person": list(self.person),
            "conflict": self.conflict,
        }


@dataclass(frozen=True, slots=True)
class Release:
    """Everything that a run's layers would change, as the workspace is now.

    Attributes:
        items: in the order of their paths. workspace: as given. layers: their digests.
        digest: SHA-256 hex of all that: a yes is bound to it, and does not fit another release.
    """

    items: tuple[Item, ...]
    workspace: str
    layers: tuple[str, ...]
    digest: str

    @property
    def conflicts(self) -> tuple[Item, ...]:
        """What cannot be committed."""
        return tuple(item for item in self.items if item.conflict)

    @property
    def person(self) -> tuple[Item, ...]:
        """What needs a person."""
        return tuple(item for item in self.items if item.person)

    def to_json(self) -> dict[str, Any]:
        """Give JSON data."""
        told = [item.to_json() for item in self.items]
        return {"items": told, "workspace": self.workspace, "layers": list(self.layers), "digest": self.digest}


def plan(layers: Sequence[Layer], workspace: Path) -> Release:
    """Say what a commit would do. Reads the workspace, changes nothing.

    Raises:
        SandboxError: a layer or the workspace cannot be read.
    """
    root = _opened(workspace)
    live = Live(root)
    try:
        changes = fold(layers)
        hooks, known = _hooks(live), aliases(workspace) if changes else {}
        items = tuple(
            _aliased(item, named(item.path, known))
            for item in sorted(_items(live, changes, hooks), key=lambda item: item.path)
        )
    except OSError as error:
        raise SandboxError(f"the workspace `{workspace}` cannot be read ({error.strerror})") from error
    finally:
        live.close()
        os.close(root)
    digests = tuple(layer.digest for layer in layers if layer.digest)
    return Release(items, str(workspace), digests, _digest(items, str(workspace), digests))


def commit(
    release: Release,
    layers: Sequence[Layer],
    workspace: Path,
    journal: Path,
    *,
    only: Collection[str] | None = None,
    approved: str | None = None,
    step: Step | None = None,
) -> tuple[str, ...]:
    """Bring a release into the workspace; give the paths that were changed, none when all was there already.

    What an earlier, killed commit with this journal left is finished or undone first.

    Args:
        journal: a file of this run, in an existing folder outside of the workspace; no two commits at once have the same.
        only: these paths; folders that they need come with them. None: all.
        approved: the digest that a person said yes to; needed as soon as one of the paths needs a person.
        step: for tests: told each step that a crash could cut off, before it is taken.

    Raises:
        Conflict: the workspace is not as the run found it, or another commit is under way. Nothing was written.
        Denied: a person must say yes to this release first. Nothing was written.
        SandboxError: the release is not of these layers, or the workspace does not take it. Nothing was written.
    """
    _is_of(release, layers, workspace)
    chosen = _chosen(release, only)
    asked = [item.path for item in chosen if item.person]
    if asked and approved != release.digest:
        raise Denied(
            f"{_listed(asked)} must be approved by a person, for this release (`{release.digest[:12]}`), before the commit"
        )
    step = step or (lambda _: None)
    root = _locked(workspace)
    live = Live(root, step)
    try:
        book = Journal.read(journal, step) or Journal(journal, step)
        Landing(live, book, step).resume()
        live.forget()
        operations = _operations(live, chosen)
        if not operations:
            return ()
        holders = contents_of(layers)

        def content(sha256: str, file: int) -> None:
            if sha256 not in holders:
                raise SandboxError(f"no layer holds the content `{sha256[:12]}`; nothing was committed")
            copy_content(holders[sha256], sha256, file)

        Landing(live, book, step).begin(release.digest, operations, content)
        return tuple(sorted(operation.path for operation in operations))
    except OSError as error:
        raise SandboxError(f"the commit stopped ({error}); its journal `{journal}` finishes or undoes it") from error
    finally:
        live.close()
        os.close(root)


def resume_commit(journal: Path, workspace: Path, *, step: Step | None = None) -> Literal["done", "undone"] | None:
    """Finish or undo what a killed commit left; None where there is no journal. Safe to repeat.

    Raises:
        Conflict: another commit of this workspace is under way.
        SandboxError: neither can be done without losing what somebody wrote meanwhile; the message names it.
    """
    step = step or (lambda _: None)
    root = _locked(workspace)
    live = Live(root, step)
    try:
        book = Journal.read(journal, step)
        return Landing(live, book, step).resume() if book else None
    except OSError as error:
        raise SandboxError(f"the commit can be neither finished nor undone yet ({error})") from error
    finally:
        live.close()
        os.close(root)


# ------------------------------------------------------------------------------------------------------------ plan


class _Neighbours:
    """Names that a disk without case would take for one."""

    def __init__(self, live: Live, changes: Mapping[str, Change]) -> None:
        self._live = live
        self._gone = {path for path, change in changes.items() if change.op == "deleted"}
        self._made: dict[str, list[str]] = {}
        for path, change in changes.items():
            if change.op == "created":
                self._made.setdefault(path.rpartition("/")[0], []).append(path.rpartition("/")[2])
        self._seen: dict[str, dict[str, list[str]]] = {}

    def stranger(self, path: str) -> str | None:
        """Say what a folder that goes holds beyond what goes with it."""
        extra = [name for name in self._live.names(path) if f"{path}/{name}" not in self._gone]
        return f"it holds `{min(extra)}`, which the run did not delete" if extra else None

    def other(self, path: str, *, fresh: bool) -> str | None:
        """Give a name beside `path`, live or made with it, that is another spelling of its own."""
        head, slash, name = path.rpartition("/")
        if head not in self._seen:
            try:
                listed = [] if fresh else self._live.names(head)
                there = [other for other in listed if f"{head}{slash}{other}" not in self._gone]
            except Unreachable:
                there = []
            spelled = self._seen.setdefault(head, {})
            for other in {*there, *self._made.get(head, ())}:
                spelled.setdefault(same_name(other), []).append(other)
        return next((other for other in self._seen[head].get(same_name(name), ()) if other != name), None)


def _items(live: Live, changes: Mapping[str, Change], hooks: str | None) -> Iterator[Item]:
    # In the order of the folders. What is below a folder that the run made, and the workspace has not, is not looked for there.
    near = _Neighbours(live, changes)
    absent = ""
    for path in sorted(changes, key=in_order):
        fresh = bool(absent) and path.startswith(f"{absent}/")
        item = _item(live, changes[path], changes, near, hooks, fresh=fresh)
        if not fresh and (item.action, item.change.kind, item.conflict) == ("create", "folder", None):
            absent = path
        yield item


def _item(
    live: Live, change: Change, changes: Mapping[str, Change], near: _Neighbours, hooks: str | None, *, fresh: bool
) -> Item:
    person = [
        flag.removeprefix("watched:") if flag.startswith("watched:") else _WORDS.get(flag, flag)
        for flag in change.flags
    ]
    if hooks is not None and f"{change.path}/".casefold().startswith(f"{hooks}/".casefold()):
        person.append("a hook that git runs by itself")
    if fresh:
        reached, conflict = False, None if change.op == "created" else "the folder above it is new"
    else:
        reached, conflict = _compared(live, change, changes)
    if conflict is None and not reached and change.was == "folder" != _kind_after(change):
        conflict = near.stranger(change.path)
    if conflict is None and not reached and change.op == "created":
        other = near.other(change.path, fresh=fresh)
        conflict = f"a disk that ignores case or spelling takes it for `{other}`" if other else None
    if conflict is None and not reached and "moved" in change.flags:
        conflict = _WORDS["moved"]
    names: dict[str, Action] = {"created": "create", "modified": "replace", "deleted": "delete", "permission": "mode"}
    action: Action = "none" if reached else "never" if change.kind == "other" else names[change.op]
    if action == "never" or (change.was == "other" and not reached):
        action, conflict = "never", None
    return Item(action, change, tuple(dict.fromkeys(person)), conflict)


def _compared(live: Live, change: Change, changes: Mapping[str, Change]) -> tuple[bool, str | None]:
    # Whether the workspace is there already; else why it cannot come there.
    try:
        found = live.standing(change.path)
    except Unreachable as error:
        above = changes.get(change.path.rpartition("/")[0])
        brought = above is not None and above.kind == "folder" and above.op in ("created", "modified")
        reached = change.op == "deleted"
        return reached, None if reached or (brought and change.op == "created") else str(error)
    reached = _reached(change, found)
    return reached, None if reached else _conflict(change, found)


def _aliased(item: Item, why: str | None) -> Item:
    return item if why is None else replace(item, person=(*item.person, why))


def _conflict(change: Change, found: Standing | None) -> str | None:
    if change.op == "created":
        return None if found is None else f"there is {found} of that name by now"
    if found is None:
        return "it is gone"
    if found.kind != (change.was or change.kind):
        return f"it is {found} now"
    if found.sha256 != change.base:
        return "it has changed since the run found it"
    turned = change.op != "deleted" and change.kind != "link" and change.was_mode not in (None, change.mode)
    return "its mode has changed since the run found it" if turned and found.mode != change.was_mode else None


def _reached(change: Change, found: Standing | None) -> bool:
    if change.op == "deleted" or found is None:
        return change.op == "deleted" and found is None
    return (found.kind, found.sha256) == (change.kind, change.sha256) and found.mode == _mode(change, found)


def _mode(change: Change, found: Standing | None) -> int:
    if change.kind == "link":
        return 0o777
    own = found.mode if found is not None and found.kind == change.kind else None
    if own is None:
        mode = (change.mode or 0) & 0o755
    elif change.mode == change.was_mode:
        mode = own & 0o777
    else:
        mode = (change.mode or 0) & (0o755 | own & 0o022)
    return mode | 0o700 | (own or 0) & 0o3000 if change.kind == "folder" else mode


def _hooks(live: Live) -> str | None:
    try:
        found = live.standing(".git/config")
        if found is None or found.kind != "file" or found.stamp[2] > 1 << 20:
            return None
        folder, name = live.place(".git/config")
        file = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
        with os.fdopen(file, "rb") as reading:
            named = hook_folder(reading.read(1 << 20).decode("utf-8", "replace"))
    except Unreachable:
        return None
    return os.path.normpath(named) if named and not named.startswith("/") else None


def _digest(items: Sequence[Item], workspace: str, layers: Sequence[str]) -> str:
    told = [item.to_json() for item in items]
    return hashlib.sha256(
        orjson.dumps({"items": told, "workspace": workspace, "layers": layers}, option=orjson.OPT_SORT_KEYS)
    ).hexdigest()


# ---------------------------------------------------------------------------------------------------------- commit


def _is_of(release: Release, layers: Sequence[Layer], workspace: Path) -> None:
    changes = fold(layers)
    same = {item.path: item.change for item in release.items} == changes and len(release.items) == len(changes)
    digests = tuple(layer.digest for layer in layers if layer.digest)
    whole = release.digest == _digest(release.items, release.workspace, release.layers)
    if not (same and whole and digests == release.layers and str(workspace) == release.workspace):
        raise SandboxError("the release is not of these layers and this workspace; plan it again")


def _chosen(release: Release, only: Collection[str] | None) -> list[Item]:
    by_path = {item.path: item for item in release.items}
    if only is None:
        return list(release.items)
    unknown = sorted(set(only) - by_path.keys())
    if unknown:
        raise SandboxError(f"the run did not change {_listed(unknown)}; nothing was committed")
    wanted = set(only)
    for path in only:
        head = path.rpartition("/")[0]
        while head:
            above = by_path.get(head)
            if (
                by_path[path].change.op != "deleted"
                and above is not None
                and above.change.op in ("created", "modified")
            ):
                wanted.add(head)
            head = head.rpartition("/")[0]
    cleared = {path for path in only if by_path[path].change.was == "folder" != _kind_after(by_path[path].change)}
    wanted.update(below(by_path, cleared))
    return [item for item in release.items if item.path in wanted]


def _kind_after(change: Change) -> str | None:
    return None if change.op == "deleted" else change.kind


def _operations(live: Live, chosen: Sequence[Item]) -> list[Operation]:
    # All is checked before anything is made. A folder that comes or goes is one operation with all that is below it.
    changes = {item.path: item.change for item in chosen}
    checked = list(_items(live, changes, None))
    bad = {item.path: item.conflict for item in checked if item.conflict}
    made: dict[str, Operation] = {}
    top, passed = "", ""
    for item in checked:
        path = item.path
        if item.action in ("none", "never") or (passed and path.startswith(f"{passed}/")):
            continue
        if path in bad:
            passed = path
        elif not (top and path.startswith(f"{top}/")):
            made[path] = _operation(live, item)
            top = path if made[path].do != "mode" else ""
        elif item.action == "delete":
            made[top].old[path[len(top) + 1 :]] = _was(item.change)
        else:
            first = made[top].new.get("")
            made[top].new[path[len(top) + 1 :]] = _new(item.change, None, first.owner if first else (0, 0))
    for path, operation in made.items():
        if operation.do in ("swap", "drop"):
            wrong = live.holds(path, *operation.gone())
            if wrong:
                bad[path] = wrong
    if bad:
        why = "; ".join(f"`{path}`: {bad[path]}" for path in sorted(bad)[:20])
        more = f" and {len(bad) - 20:,} more" if len(bad) > 20 else ""
        raise Conflict(f"nothing was committed, the workspace is not as the run found it: {why}{more}")
    return list(made.values())


def _operation(live: Live, item: Item) -> Operation:
    change, found = item.change, live.standing(item.path, hashed=False)
    if item.action == "delete":
        return Operation("drop", item.path, old={"": _was(change)})
    if found is not None and found.kind == change.kind and (item.action == "mode" or change.kind == "folder"):
        return Operation(
            "mode", item.path, old={"": (change.kind, change.sha256)}, modes=(found.mode, _mode(change, found))
        )
    if found is None:
        above = os.fstat(live.folder(item.path.rpartition("/")[0]))
        return Operation("put", item.path, new={"": _new(change, None, (above.st_uid, above.st_gid))})
    return Operation(
        "swap", item.path, new={"": _new(change, found, (found.uid, found.gid))}, old={"": _was(change)}
    )  # fmt: skip


def _was(change: Change) -> What:
    return (change.was or change.kind, change.base)


def _new(change: Change, found: Standing | None, owner: tuple[int, int]) -> New:
    return New(change.kind, _mode(change, found), owner, change.sha256, change.target)


def _opened(workspace: Path) -> int:
    try:
        return open_root(workspace)
    except OSError as error:
        raise SandboxError(f"the workspace `{workspace}` cannot be opened ({error.strerror})") from error


def _locked(workspace: Path) -> int:
    root = _opened(workspace)
    try:
        fcntl.flock(root, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(root)
        raise Conflict(f"another commit of `{workspace}` is under way; wait for it, then commit again") from error
    return root


def _listed(paths: Sequence[str]) -> str:
    more = f" and {len(paths) - 20:,} more" if len(paths) > 20 else ""
    return ", ".join(f"`{path}`" for path in sorted(paths)[:20]) + more
