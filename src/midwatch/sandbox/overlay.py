"""Overlay: what a call changed, read from the upper folder of an overlay whose every name a hostile program may have chosen.

In:   a descriptor of the upper folder, frozen while it is read; the workspace below it; what earlier calls of the run left.
Out:  `diff`: changes in the order of their paths, their contents in a spool. `apply`, its other direction, is `replay`'s.
May import: beneath, layers, effects, replay, watched, errors. Must not know: who mounted it, what is allowed.

Descriptors only: no path is given to the system that somebody could lead elsewhere. Bounded in everything: bytes, bytes of names,
entries; what is larger is `SandboxError`, and the call is refused as a whole. Owners and times are no effects.
Source: Linux, Documentation/filesystems/overlayfs.rst, "whiteouts and opaque directories".
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final, NamedTuple

from midwatch.errors import SandboxError
from midwatch.sandbox.beneath import FOLDER, open_at, open_below, open_root, parts_of
from midwatch.sandbox.effects import Change, Kind, shown
from midwatch.sandbox.layers import Spool
from midwatch.sandbox.replay import apply
from midwatch.sandbox.watched import PROGRAM, Above

__all__ = ["apply", "diff", "leads_out"]

_READ: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_OPEN_FOLDERS: Final = 32
"""Folders kept open on the way down; those above are opened again when they have more to give."""

_PROGRAM: Final = f"watched:{PROGRAM}"
_SIZE: Final = 256 << 20
_NAMES: Final = 32 << 20
_ENTRIES: Final = 1 << 20
"""How much one reading may meet before it is refused: bytes of files where no limit is given, bytes of paths, and entries."""

# Letters that show nothing, or a blank, and still count as printable.
_HIDING: Final = frozenset("\u034f\u115f\u1160\u17b4\u17b5\u2800\u3164\uffa0") | {chr(n) for n in range(0xFE00, 0xFE10)}


class _State(NamedTuple):
    """What stands at a path."""

    kind: Kind
    mode: int
    sha256: str | None = None
    size: int | None = None
    target: str | None = None
    links: int = 1
    ctime_ns: int = 0


class _Folder:
    """One folder under way: `upper` and `lower` are descriptors, -1 where there is none or it was closed for a while."""

    __slots__ = ("above", "cut", "lower", "lower_here", "prefix", "todo", "upper", "upper_here")

    def __init__(self, prefix: str, upper: int, lower: int, above: Above, *, cut: bool) -> None:
        self.prefix, self.upper, self.lower, self.above, self.cut = prefix, upper, lower, above, cut
        self.upper_here, self.lower_here = upper >= 0, lower >= 0
        self.todo: list[tuple[bytes, bool, bool]] = []

    def close(self) -> None:
        """Close both, to be opened again when needed."""
        for file in (self.upper, self.lower):
            if file >= 0:
                os.close(file)
        self.upper = self.lower = -1


def diff(
    upper: int,
    lower: Path,
    *,
    earlier: Mapping[str, Change],
    spool: Spool | None = None,
    limit: int = 0,
    userxattr: bool | None = None,
    began_ns: int | None = None,
) -> tuple[list[Change], Spool]:
    """Read what has changed since `earlier`; give the changes, and the spool with every new content, which the caller closes.

    Args:
        upper: descriptor of the overlay's upper folder; nothing that can write to it runs meanwhile.
        lower: the workspace as this process sees it; a change of it by somebody else is met at commit, by the hash.
        earlier: `fold` of the run's layers so far: their changes are in `upper`, too, and are not told again.
        spool: best in the file system that the layer goes to; None: one in the machine's own folder for such files.
        limit: bytes of all changed files, as their sizes say, holes included; 0: 256 MiB.
        userxattr: how it is mounted; None: as who is no root must. The marks of the other kind are data of the agent, and mean nothing.
        began_ns: when the run first saw `lower`, nanoseconds of the clock that files are stamped by. What changed in it later is
            flagged `moved`: its hash is not that of what the agent saw.

    Raises:
        SandboxError: it is over a bound, was mounted in a way that is not understood, or changed while it was read.
    """
    if userxattr is None:
        userxattr = os.geteuid() != 0
    kept = spool if spool is not None else Spool(max_bytes=limit or _SIZE)
    root = open_root(lower)
    try:
        return _Walk(upper, root, earlier, kept, userxattr, began_ns, limit or _SIZE).run(), kept
    except OSError as error:
        raise SandboxError(
            f"the effects of the call could not be read ({error.strerror}: {shown(_name_of(error))}); the call is refused"
        ) from error
    finally:
        os.close(root)


def leads_out(path: str, target: bytes) -> bool:
    """Whether a link at `path` may lead out of the workspace.

    `..` is followed only at the beginning: behind another name it depends on what that name is by then.
    """
    if target.startswith(b"/"):
        return True
    room, leading = path.count("/"), True
    for part in target.split(b"/"):
        if part == b"..":
            room -= 1
            if not leading or room < 0:
                return True
        elif part not in (b"", b"."):
            leading = False
    return False


class _Walk:
    """One reading. Every folder is listed once; a stack stands for the way down, so that depth costs no stack of Python's."""

    def __init__(
        self,
        upper: int,
        lower: int,
        earlier: Mapping[str, Change],
        spool: Spool,
        userxattr: bool,  # noqa: FBT001 (named at the only call)
        began_ns: int | None,
        limit: int,
    ) -> None:
        self._roots = (upper, lower)
        self._earlier, self._spool, self._began_ns, self._limit = earlier, spool, began_ns, limit
        self._marks = "user.overlay." if userxattr else "trusted.overlay."
        self._seen: set[str] = set()
        self._linked: dict[tuple[int, int], str] = {}
        self._size = self._names = self._entries = 0
        self._changes: list[Change] = []

    def run(self) -> list[Change]:
        stack = [_Folder("", os.dup(self._roots[0]), os.dup(self._roots[1]), Above(), cut=False)]
        try:
            self._list(stack[0])
            while stack:
                folder = stack[-1]
                if not folder.todo:
                    stack.pop().close()
                    continue
                self._open_again(folder)
                child = self._descend(folder, *folder.todo.pop())
                stack.append(child)
                if len(stack) > _OPEN_FOLDERS:
                    stack[-_OPEN_FOLDERS].close()
                self._list(child)
        finally:
            for folder in stack:
                folder.close()
        self._vanished()
        self._changes.sort(key=lambda change: change.path)
        return self._changes

    # ------------------------------------------------------------------------------------------------- folders

    def _descend(self, folder: _Folder, name: bytes, in_upper: bool, in_lower: bool) -> _Folder:  # noqa: FBT001 (as stored)
        plain = shown(name)
        upper = _open_readable(name, FOLDER, folder.upper) if in_upper else -1
        child = _Folder(f"{folder.prefix}{plain}/", upper, -1, folder.above.into(plain), cut=folder.cut or not in_upper)
        try:
            if upper >= 0 and not child.cut:
                child.cut = self._opaque(upper)
            if in_lower:
                child.lower = self._lower_folder(folder.lower, name)
                child.lower_here = child.lower >= 0
        except BaseException:
            child.close()
            raise
        return child

    def _open_again(self, folder: _Folder) -> None:
        if folder.upper_here and folder.upper < 0:
            folder.upper = open_below(self._roots[0], parts_of(folder.prefix[:-1]), same_mount=False)
        if folder.lower_here and folder.lower < 0:
            folder.lower = open_below(self._roots[1], parts_of(folder.prefix[:-1]))

    def _lower_folder(self, folder: int, name: bytes) -> int:
        # An overlay does not see what is mounted inside of its lower folder: neither does this.
        try:
            return open_at(folder, name, FOLDER)
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.EXDEV):
                return -1
            raise

    def _opaque(self, upper: int) -> bool:
        names = os.listxattr(upper)
        if f"{self._marks}redirect" in names:
            raise SandboxError("the overlay is mounted with `redirect_dir`, which is not understood; mount it without")
        return f"{self._marks}opaque" in names and os.getxattr(upper, f"{self._marks}opaque") == b"y"

    def _list(self, folder: _Folder) -> None:
        found: set[str] = set()
        if folder.upper >= 0:
            with os.scandir(folder.upper) as entries:
                listed = sorted(entries, key=lambda entry: entry.name)
            found = {entry.name for entry in listed}
            for entry in listed:
                self._entry(folder, entry)
        if folder.cut and folder.lower >= 0:
            with os.scandir(folder.lower) as entries:
                missing = sorted(entry.name for entry in entries if entry.name not in found)
            for name in missing:
                self._gone(folder, name)
        folder.todo.reverse()

    # ------------------------------------------------------------------------------------------------- entries

    def _entry(self, folder: _Folder, entry: os.DirEntry[str]) -> None:
        name = entry.name
        path = self._path(folder, name)
        known = self._earlier.get(path)
        if entry.is_dir(follow_symlinks=False):
            state = os.stat(name, dir_fd=folder.upper, follow_symlinks=False)
            base = self._base(folder, name, known)
            folder.todo.append((os.fsencode(name), True, self._lower_is_folder(folder, name, base, known)))
            self._note(path, _State("folder", stat.S_IMODE(state.st_mode)), base, known, folder.above)
            return
        if entry.is_file(follow_symlinks=False):
            base = self._base(folder, name, known)
            before = (known.sha256 if known.op != "deleted" else None) if known else base.sha256 if base else None
            now: _State | None = self._file(folder.upper, name, before)
        elif entry.is_symlink():
            base = self._base(folder, name, known)
            target = os.readlink(os.fsencode(name), dir_fd=folder.upper)
            now = _State("link", 0o777, hashlib.sha256(target).hexdigest(), None, shown(target))
        else:
            state = os.stat(name, dir_fd=folder.upper, follow_symlinks=False)
            if stat.S_ISCHR(state.st_mode) and state.st_rdev == 0:
                self._gone(folder, name)
                return
            base = self._base(folder, name, known)
            now = _State("other", stat.S_IMODE(state.st_mode))
        self._note(path, now, base, known, folder.above)
        if self._lower_is_folder(folder, name, base, known):
            folder.todo.append((os.fsencode(name), False, True))

    def _gone(self, folder: _Folder, name: str) -> None:
        path = self._path(folder, name)
        known = self._earlier.get(path)
        base = self._base(folder, name, known)
        self._note(path, None, base, known, folder.above)
        if self._lower_is_folder(folder, name, base, known):
            folder.todo.append((os.fsencode(name), False, True))

    def _lower_is_folder(self, folder: _Folder, name: str, base: _State | None, known: Change | None) -> bool:
        if known is None:
            return base is not None and base.kind == "folder"
        with suppress(FileNotFoundError):
            return folder.lower >= 0 and stat.S_ISDIR(os.stat(name, dir_fd=folder.lower, follow_symlinks=False).st_mode)
        return False

    def _path(self, folder: _Folder, name: str) -> str:
        path = folder.prefix + (name if name.isprintable() and "\\" not in name else shown(os.fsencode(name)))
        self._names += len(path)
        self._entries += 1
        if self._names > _NAMES or self._entries > _ENTRIES:
            raise SandboxError(
                "the call left more names than one reading holds "
                f"({_ENTRIES:,} entries, {_NAMES:,} bytes of paths); the call is refused"
            )
        return path

    # -------------------------------------------------------------------------------------------------- states

    def _file(self, folder: int, name: str, before: str | None) -> _State:
        file = _open_readable(os.fsencode(name), _READ, folder)
        try:
            state = os.fstat(file)
            if not stat.S_ISREG(state.st_mode):
                raise SandboxError("a file changed while its effects were read; the call is refused")
            size = state.st_size
            self._size += size
            if self._size > self._limit:
                raise SandboxError(
                    f"the files that the call wrote say to be larger than {self._limit:,} bytes together, so they are not kept; "
                    "raise `limits.disk` of the sandbox, or let the call write less"
                )
            if size and not state.st_blocks and any(mark.startswith(self._marks) for mark in os.listxattr(file)):
                self._refuse_metacopy(file)
            inode = (state.st_dev, state.st_ino)
            digest = self._linked.get(inode)
            if digest is None or (digest != before and digest not in self._spool.index):
                digest = self._spool.add_file(file, size, unless=before)
                if state.st_nlink > 1:
                    self._linked[inode] = digest
            return _State("file", stat.S_IMODE(state.st_mode), digest, size, None, state.st_nlink)
        finally:
            os.close(file)

    def _refuse_metacopy(self, file: int) -> None:
        if f"{self._marks}metacopy" in os.listxattr(file):
            raise SandboxError("the overlay is mounted with `metacopy`, which is not understood; mount it without")

    def _base(self, folder: _Folder, name: str, known: Change | None) -> _State | None:
        if known is not None or folder.lower < 0:
            return None
        try:
            return _lower_state(folder.lower, name)
        except FileNotFoundError:
            return None

    def _note(self, path: str, now: _State | None, base: _State | None, known: Change | None, above: Above) -> None:
        # Tell one change, if it is one. `known` is what earlier calls left, and then holds the base, too.
        if known is not None:
            self._seen.add(path)
            before = None if known.op == "deleted" else _State(known.kind, known.mode or 0, known.sha256)
            sha_base = known.base
        else:
            before = base
            sha_base = base.sha256 if base else None
        if now is None and before is None:
            return
        if now is not None and before is not None and now[:2] == before[:2] and now.sha256 == before.sha256:
            return
        flags = self._flags(path, now, before, self._reasons(path, known, above))
        if self._began_ns is not None and base is not None and base.ctime_ns > self._began_ns:
            flags = (*flags, "moved")
        found = (before.sha256, before.kind, before.mode) if before else (None, None, None)
        if now is None:
            change = Change(
                "deleted", path, found[1] or "other", None, None, None, sha_base, found[0], None, flags, found[1], found[2]
            )  # fmt: skip
        else:
            same = before is not None and now.kind == before.kind and now.sha256 == before.sha256
            change = Change(
                "created" if before is None else "permission" if same else "modified",
                path, now.kind, now.mode, now.size, now.sha256, sha_base, found[0], now.target, flags, found[1], found[2],
            )  # fmt: skip
        self._changes.append(change)

    def _reasons(self, path: str, known: Change | None, above: Above) -> list[str]:
        # They hang on the path alone, so what an earlier call was told of it still holds.
        if known is not None:
            return [flag for flag in known.flags if flag.startswith("watched:") and flag != _PROGRAM]
        reason = above.why(path[path.rfind("/") + 1 :])
        return [f"watched:{reason}"] if reason else []

    def _flags(self, path: str, now: _State | None, before: _State | None, reasons: list[str]) -> tuple[str, ...]:
        flags = []
        name = path[path.rfind("/") + 1 :]
        if "\\" in name or name != name.strip() or (not name.isascii() and not _HIDING.isdisjoint(name)):
            flags.append("name")
        if now is not None:
            if now.kind == "other":
                flags.append("special")
            if now.mode & 0o6000:
                flags.append("setuid")
            if now.links > 1:
                flags.append("hardlink")
            if now.target is not None and leads_out(path, os.fsencode(now.target)):
                flags.append("leaves")
            if (
                now.kind == "file"
                and now.mode & 0o111
                and not (before and before.kind == "file" and before.mode & 0o111)
            ):
                flags.append(_PROGRAM)
        return (*flags, *reasons)

    def _vanished(self) -> None:
        # What earlier calls made and this one took away leaves no trace in the upper folder.
        for path in sorted(self._earlier.keys() - self._seen):
            known = self._earlier[path]
            if known.op == "deleted":
                continue
            if known.was is not None and self._lower_has(path):
                raise SandboxError(
                    f"the overlay no longer holds `{path}`, which an earlier call of the run left; start the sandbox again with its layers"
                )
            self._note(path, None, None, known, Above())

    def _lower_has(self, path: str) -> bool:
        *above, name = parts_of(path)
        try:
            folder = open_below(self._roots[1], above)
        except OSError:
            return False
        try:
            os.stat(name, dir_fd=folder, follow_symlinks=False)
        except FileNotFoundError:
            return False
        finally:
            os.close(folder)
        return True


def _lower_state(folder: int, name: str) -> _State:
    state = os.stat(name, dir_fd=folder, follow_symlinks=False)
    mode = stat.S_IMODE(state.st_mode)
    if stat.S_ISDIR(state.st_mode):
        return _State("folder", mode)
    if stat.S_ISLNK(state.st_mode):
        target = os.readlink(os.fsencode(name), dir_fd=folder)
        return _State("link", 0o777, hashlib.sha256(target).hexdigest(), ctime_ns=state.st_ctime_ns)
    if not stat.S_ISREG(state.st_mode):
        return _State("other", mode)
    file = os.open(name, _READ, dir_fd=folder)
    try:
        return _State("file", mode, _digest(file), state.st_size, ctime_ns=state.st_ctime_ns)
    finally:
        os.close(file)


def _digest(file: int) -> str:
    data = os.read(file, 1 << 16)
    digest = hashlib.sha256(data)
    if len(data) == 1 << 16:
        while data := os.read(file, 1 << 20):
            digest.update(data)
    return digest.hexdigest()


def _open_readable(name: bytes, flags: int, folder: int) -> int:
    # The agent may have taken its own right to read; whoever owns the file can give it back for the moment of opening.
    try:
        return os.open(name, flags, dir_fd=folder)
    except PermissionError:
        place = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
    try:
        mode = stat.S_IMODE(os.fstat(place).st_mode)
        handle = f"/proc/self/fd/{place}"
        os.chmod(handle, mode | 0o500)  # noqa: PTH101 (a handle, not a path)
        try:
            return os.open(name, flags, dir_fd=folder)
        finally:
            os.chmod(handle, mode)  # noqa: PTH101 (a handle, not a path)
    finally:
        os.close(place)


def _name_of(error: OSError) -> bytes:
    return os.fsencode(error.filename) if isinstance(error.filename, str | bytes) else b""
