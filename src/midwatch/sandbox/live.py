"""Live: the workspace as it is now, looked at and changed one name at a time, beneath one descriptor.

In:   paths as `effects.shown` writes them. Out: what stands there; nothing is followed, nothing outside is met.
May import: beneath, effects, layers (the order of paths). Must not know: journals, who decides.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
import unicodedata
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from midwatch.sandbox.beneath import EXCHANGE, NOREPLACE, Folders, parts_of, rename_at
from midwatch.sandbox.effects import Kind, raw, shown
from midwatch.sandbox.layers import in_order

__all__ = ["Live", "Standing", "Step", "Unreachable", "same_name"]

Step = Callable[[str], None]
"""Told the word for every step that a crash could cut off from the next, right before it is taken."""

_READ: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC


class Unreachable(Exception):
    """The folder of a path is gone, or is no folder any more; the text says so."""


@dataclass(frozen=True, slots=True)
class Standing:
    """What stands at a path.

    Attributes:
        mode: permission bits, with setuid, setgid and sticky. sha256: of a file's content, of a link's target.
        stamp: device, inode, size and time of the last writing: differs where somebody wrote.
    """

    kind: Kind
    mode: int
    sha256: str | None
    uid: int
    gid: int
    ino: int
    stamp: tuple[int, int, int, int]

    def __str__(self) -> str:
        return {"file": "a file", "folder": "a folder", "link": "a link", "other": "a device, FIFO or socket"}[
            self.kind
        ]


class Live:
    """A folder that others may be changing meanwhile."""

    def __init__(self, root: int, step: Step | None = None) -> None:
        self.root = root
        self._step: Step = step or (lambda _: None)
        self._folders = Folders(root)

    def close(self) -> None:
        """Give back the folders that were kept open."""
        self._folders.close()

    def folder(self, path: str) -> int:
        """Give a descriptor of the folder `path` (empty: the root itself), valid until the next call.

        Raises:
            Unreachable: it is gone, or a component is no folder, a link, or another mount.
        """
        try:
            return self._folders.open(path)
        except OSError as error:
            words = {
                errno.ENOENT: "the folder above it is gone",
                errno.ENOTDIR: "what is above it is no folder any more",
                errno.ELOOP: "a folder above it is a link now",
                errno.EXDEV: "a folder above it is another mount",
            }
            if error.errno not in words:
                raise
            raise Unreachable(words[error.errno]) from error

    def forget(self) -> None:
        """Open every folder again from the root: names above may have changed."""
        self.close()

    def place(self, path: str) -> tuple[int, bytes]:
        """Give the folder of a path, valid until the next call, and the last name."""
        head, _, name = path.rpartition("/")
        return self.folder(head), parts_of(name)[0]

    def standing(self, path: str, *, hashed: bool = True) -> Standing | None:
        """Look at a path; None where nothing stands. A file is read only where `hashed`.

        Raises:
            Unreachable: as of `folder`.
        """
        folder, name = self.place(path)
        try:
            state = os.stat(name, dir_fd=folder, follow_symlinks=False)
        except FileNotFoundError:
            return None
        kind: Kind = "other"
        digest: str | None = None
        if stat.S_ISDIR(state.st_mode):
            kind = "folder"
        elif stat.S_ISLNK(state.st_mode):
            kind, digest = "link", hashlib.sha256(os.readlink(name, dir_fd=folder)).hexdigest()
        elif stat.S_ISREG(state.st_mode):
            kind = "file"
            if hashed:
                state, digest = _hashed(name, folder)
        stamp = (state.st_dev, state.st_ino, state.st_size, state.st_mtime_ns)
        return Standing(kind, stat.S_IMODE(state.st_mode), digest, state.st_uid, state.st_gid, state.st_ino, stamp)

    def names(self, path: str) -> list[str]:
        """Give the names in a folder, as `shown`."""
        with os.scandir(self.folder(path)) as entries:
            return [shown(os.fsencode(entry.name)) for entry in entries]

    def holds(
        self, path: str, what: tuple[Kind, str | None], below: Mapping[str, tuple[Kind, str | None]]
    ) -> str | None:
        """Check that exactly this stands at a path; give None, or in words what is otherwise.

        Args:
            below: of a folder: all that it may and must hold, by the path from there.
        """
        found = self.standing(path)
        if found is None:
            return "it is gone"
        if found.kind != what[0]:
            return f"it is {found} now"
        if found.sha256 != what[1]:
            return "it has changed"
        if found.kind != "folder":
            return None
        known = {"": set[str]()}
        for name, (kind, _) in below.items():
            head, _, last = name.rpartition("/")
            known.setdefault(head, set()).add(last)
            if kind == "folder":
                known.setdefault(name, set())
        for folder, names in known.items():
            extra = set(self.names(f"{path}/{folder}" if folder else path)) - names
            if extra:
                return f"it holds `{min(extra)}`, which was not there"
        for name, expected in below.items():
            inside = self.standing(f"{path}/{name}")
            if inside is None or (inside.kind, inside.sha256) != tuple(expected):
                return f"`{name}` below it has changed"
        return None

    # ---------------------------------------------------------------------------------------------- changes

    def rename(self, old: str, new: str, *, swap: bool = False) -> None:
        """Rename within one folder: onto nothing, or swap the two."""
        folder, name = self.place(old)
        self._step("rename")
        rename_at(folder, name, folder, parts_of(new.rpartition("/")[2])[0], EXCHANGE if swap else NOREPLACE)
        self.forget()

    def chmod(self, path: str, mode: int) -> None:
        """Set the mode of a file or folder, never of what a link leads to."""
        folder, name = self.place(path)
        file = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
        try:
            if stat.S_ISLNK(os.fstat(file).st_mode):
                raise OSError(errno.ELOOP, "it is a link")
            self._step("chmod")
            os.chmod(f"/proc/self/fd/{file}", mode)  # noqa: PTH101 (a handle, not a path)
        finally:
            os.close(file)

    def remove(self, path: str, below: Mapping[str, tuple[Kind, str | None]]) -> None:
        """Remove what stands at a path, and of a folder what `below` names; what else it holds stays, and so does the folder."""
        try:
            for name in sorted(below, key=in_order, reverse=True):
                self._remove_one(f"{path}/{name}")
            self._remove_one(path)
        except Unreachable:
            return

    def sync(self, path: str) -> None:
        """Make the names in a folder durable."""
        folder = self.folder(path)
        self._step("fsync")
        os.fsync(folder)

    def _remove_one(self, path: str) -> None:
        try:
            folder, name = self.place(path)
            state = os.stat(name, dir_fd=folder, follow_symlinks=False)
        except (FileNotFoundError, Unreachable):
            return
        self._step("unlink")
        try:
            if stat.S_ISDIR(state.st_mode):
                os.rmdir(name, dir_fd=folder)
                self.forget()
            else:
                os.unlink(name, dir_fd=folder)
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOENT):
                raise


def same_name(name: str) -> str:
    """Give a text that two names share where a disk without case, or one that composes letters otherwise, sees one file."""
    text = unicodedata.normalize("NFD", raw(name).decode("utf-8", "surrogateescape")).casefold()
    return unicodedata.normalize("NFC", "".join(char for char in text if unicodedata.category(char) != "Cf"))


def _hashed(name: bytes, folder: int) -> tuple[os.stat_result, str]:
    file = os.open(name, _READ, dir_fd=folder)
    try:
        state = os.fstat(file)
        if not stat.S_ISREG(state.st_mode):
            raise FileNotFoundError(errno.ENOENT, "it became something else while it was looked at")
        digest = hashlib.sha256()
        while data := os.read(file, 1 << 20):
            digest.update(data)
        return state, digest.hexdigest()
    finally:
        os.close(file)
