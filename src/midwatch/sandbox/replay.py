"""Replay: a run's layers, laid again over a fresh workspace, before anything runs in it.

In:   a descriptor of the merged view, layers. Out: nothing; the view is as the run left it.
May import: beneath, layers, effects, errors. Must not know: who mounted the view, how.

The names are those that an agent chose, so every folder is opened beneath the view and through no link. Modes are restored as they
were, setuid and all: it is the agent's own place, and mounted `nosuid`. Devices, FIFOs and sockets are not made again: whatever used
them is dead.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterable, Sequence

from midwatch.errors import LayerLost, SandboxError
from midwatch.sandbox.beneath import FOLDER, Folders, parts_of
from midwatch.sandbox.effects import Change, raw, shown
from midwatch.sandbox.layers import Layer, contents_of, fold, in_order, open_content

__all__ = ["apply", "copy_content"]

_MAKE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


def apply(merged: int, layers: Sequence[Layer], *, owner: tuple[int, int] | None = None) -> None:
    """Lay what `layers` left, oldest first, over the view.

    Args:
        merged: descriptor of the view; nothing runs in it.
        owner: uid and gid that everything made gets; None: this process's own.

    Raises:
        SandboxError: a layer is damaged, or the view does not hold what the layers were made on. The view is then of no use.
    """
    changes = fold(layers)
    if not changes:
        return
    player = _Player(merged, contents_of(layers), owner)
    try:
        player.play(list(changes.values()))
    except OSError as error:
        raise LayerLost(
            f"the run's earlier changes cannot be laid over the workspace ({error.strerror}); "
            "start the run again, or give its workspace back the state that the run began with"
        ) from error
    finally:
        player.close()


def copy_content(layer: Layer, sha256: str, file: int) -> None:
    """Write one content of a layer into an open file; it is checked on the way.

    Raises:
        SandboxError: it is not what was kept; what was written is of no use.
    """
    with open_content(layer, sha256) as content:
        while data := content.read(1 << 20):
            view = memoryview(data)
            while view:
                view = view[os.write(file, view) :]


class _Player:
    """Plays changes in the order of their paths, so that each folder is opened once."""

    def __init__(self, root: int, contents: dict[str, Layer], owner: tuple[int, int] | None) -> None:
        self._contents, self._owner = contents, owner
        self._folders = Folders(root, same_mount=False)

    def play(self, changes: list[Change]) -> None:
        changes.sort(key=lambda change: in_order(change.path))
        for change in reversed(changes):
            if change.op == "deleted" or (change.op == "modified" and not _stays(change)):
                self._remove(change)
        folders: list[tuple[str, int]] = []
        for change in changes:
            if change.op == "deleted" or change.kind == "other":
                continue
            if change.kind == "folder":
                self._make_folder(change)
                folders.append((change.path, change.mode or 0))
            elif change.kind == "link":
                self._make_link(change)
            elif change.op == "permission":
                self._set_mode(change.path, change.mode or 0)
            else:
                self._make_file(change)
        for path, mode in reversed(folders):
            self._set_mode(path, mode)

    def close(self) -> None:
        self._folders.close()

    def _place(self, path: str) -> tuple[int, bytes]:
        head, _, name = path.rpartition("/")
        return self._folders.open(head), parts_of(name)[0]

    def _remove(self, change: Change) -> None:
        folder, name = self._place(change.path)
        try:
            if stat.S_ISDIR(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode):
                _empty(folder, name)
                os.rmdir(name, dir_fd=folder)
            else:
                os.unlink(name, dir_fd=folder)
        except FileNotFoundError:
            return  # somebody took it away from the workspace meanwhile: commit will tell

    def _make_folder(self, change: Change) -> None:
        folder, name = self._place(change.path)
        if change.op == "created" or not _stays(change):
            os.mkdir(name, 0o700, dir_fd=folder)
            self._own(name, folder)
        else:
            self._set_mode(change.path, (change.mode or 0) | 0o700)

    def _make_link(self, change: Change) -> None:
        folder, name = self._place(change.path)
        os.symlink(raw(change.target or ""), name, dir_fd=folder)
        self._own(name, folder)

    def _make_file(self, change: Change) -> None:
        folder, name = self._place(change.path)
        sha256 = change.sha256 or ""
        layer = self._contents.get(sha256)
        if layer is None:
            raise LayerLost(f"no layer of the run holds the content of `{change.path}`; it cannot be replayed")
        file = os.open(name, _MAKE, 0o600, dir_fd=folder)
        try:
            copy_content(layer, sha256, file)
            if self._owner is not None:
                os.fchown(file, *self._owner)
            os.fchmod(file, change.mode or 0)
        finally:
            os.close(file)

    def _own(self, name: bytes, folder: int) -> None:
        if self._owner is not None:
            os.chown(name, *self._owner, dir_fd=folder, follow_symlinks=False)

    def _set_mode(self, path: str, mode: int) -> None:
        folder, name = self._place(path)
        file = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
        try:
            if stat.S_ISLNK(os.fstat(file).st_mode):
                raise SandboxError(f"`{path}` is a link now; the layers were made on another workspace")
            os.chmod(f"/proc/self/fd/{file}", mode)  # noqa: PTH101 (a handle, not a path)
        finally:
            os.close(file)


def _stays(change: Change) -> bool:
    # Whether what stands there is kept, and only its mode set. A modified file is made anew: nothing of the old one is copied up.
    return change.kind == "folder" and change.was in ("folder", None) and change.op != "created"


def _empty(parent: int, name: bytes) -> None:
    # What is left in a folder that goes: only what the workspace gained since the layers were made. It goes from the view alone.
    folder = os.open(name, FOLDER, dir_fd=parent)
    try:
        for entry in _names(folder):
            try:
                os.unlink(entry, dir_fd=folder)
            except OSError as error:
                if error.errno not in (errno.EISDIR, errno.EPERM):
                    raise
                raise SandboxError(
                    f"the workspace gained the folder `{shown(name)}/{shown(entry)}`, where the run had deleted the folder above it; "
                    "start the run again"
                ) from error
    finally:
        os.close(folder)


def _names(folder: int) -> Iterable[bytes]:
    return [os.fsencode(name) for name in os.listdir(folder)]
