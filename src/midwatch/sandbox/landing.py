"""Landing: a set of changes brought into a folder so that it holds all of them or none, whenever this process dies.

In:   operations, made by `release`; their contents, as a function that writes one into a file; a journal file outside of the folder.
Out:  the folder as wanted, or as it was.
May import: beneath, effects, layers (the order of paths), live, errors. Must not know: runs, who said yes.

    staging   every new file, link and folder is made beside its place, under a name of the journal's own
    writing   each is put (onto nothing), swapped (with what it replaces) or dropped (moved aside); what came out of its place is then
              hashed: when it is not what was to be replaced, everything done goes back. So there is no moment between look and touch.
    done      what was moved aside is removed
    undone    what was staged is removed

The journal is durable before the first step of each phase. A crash in `staging` is undone; in `writing` it is finished, or undone when
somebody edited meanwhile; which steps were taken is read from the folder: by inode for what was staged, by name for what was dropped.
"""

from __future__ import annotations

import errno
import os
import secrets
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

import orjson

from midwatch.errors import Conflict, SandboxError
from midwatch.sandbox.beneath import sync_all
from midwatch.sandbox.effects import Kind, raw
from midwatch.sandbox.layers import in_order
from midwatch.sandbox.live import Live, Step, Unreachable

__all__ = ["Journal", "Landing", "New", "Operation", "Phase", "What"]

Phase = Literal["staging", "writing", "done", "undone"]
What = tuple[Kind, str | None]
_MAKE: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_MANY: Final = 64
"""So many new files and more are made durable together, by one call for the whole file system."""
_MOVED: Final = frozenset(
    {errno.EEXIST, errno.ENOTEMPTY, errno.ENOENT, errno.ELOOP, errno.ENOTDIR, errno.EXDEV, errno.EISDIR}
)


@dataclass(frozen=True, slots=True)
class New:
    """Something to make: a file (`sha256` of its content), a link (to `target`, as `shown`), or an empty folder."""

    kind: Kind
    mode: int
    owner: tuple[int, int]
    sha256: str | None = None
    target: str | None = None

    @property
    def what(self) -> What:
        """What is found where it stands."""
        return (self.kind, self.sha256)


@dataclass(slots=True)
class Operation:
    """One change of one place.

    Attributes:
        do: `put` onto nothing, `swap` with what stands there, `drop` what stands there, or set its `mode`.
        beside: path of what is staged or moved aside.
        new: by path from here, empty for the place itself: what is made. old: the same of what goes; of `mode`, what stays.
        modes: of `mode`: before and after. ino: of what is staged, as soon as it is.
    """

    do: Literal["put", "swap", "drop", "mode"]
    path: str
    beside: str = ""
    new: dict[str, New] = field(default_factory=dict)
    old: dict[str, What] = field(default_factory=dict)
    modes: tuple[int, int] = (0, 0)
    ino: int = 0

    def to_json(self) -> dict[str, Any]:
        """Give JSON data."""
        new = {name: [it.kind, it.mode, it.owner, it.sha256, it.target] for name, it in self.new.items()}
        return {
            "do": self.do, "path": self.path, "beside": self.beside, "new": new, "old": self.old, "modes": self.modes, "ino": self.ino,
        }  # fmt: skip

    def made(self) -> tuple[What, dict[str, What]]:
        """Give what stands at the place afterwards, and below it."""
        return self.new[""].what, {name: new.what for name, new in self.new.items() if name}

    def gone(self) -> tuple[What, dict[str, What]]:
        """Give what stood at the place before, and below it."""
        return self.old[""], {name: what for name, what in self.old.items() if name}


class Journal:
    """The file that says how far a landing is. Outside of the folder, where no agent writes."""

    def __init__(self, path: Path, step: Step) -> None:
        self.path, self._step = path, step
        self.phase: Phase = "undone"
        self.digest = ""
        self.operations: list[Operation] = []

    @property
    def is_over(self) -> bool:
        """Whether nothing is left to finish or undo."""
        return self.phase in ("done", "undone")

    @classmethod
    def read(cls, path: Path, step: Step) -> Journal | None:
        """Read it; None where there is none.

        Raises:
            SandboxError: it is damaged. What it was about must be looked at by a person.
        """
        try:
            text = path.read_bytes()
        except FileNotFoundError:
            return None
        journal = cls(path, step)
        try:
            data = orjson.loads(text)
            journal.phase, journal.digest = data["phase"], data["digest"]
            journal.operations = [_operation(item) for item in data["operations"]]
        except (ValueError, TypeError, KeyError) as error:
            raise SandboxError(
                f"the journal `{path}` cannot be read ({error}); look for files named `.midwatch-…` in the workspace, then remove it"
            ) from error
        return journal

    def save(self, phase: Phase) -> None:
        """Make a phase durable."""
        self.phase = phase
        data = {"phase": phase, "digest": self.digest, "operations": [item.to_json() for item in self.operations]}
        beside = self.path.with_name(f".{self.path.name}.new")
        file = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            view = memoryview(orjson.dumps(data))
            while view:
                view = view[os.write(file, view) :]
            self._step("fsync")
            os.fsync(file)
        finally:
            os.close(file)
        self._step("rename")
        beside.rename(self.path)
        folder = os.open(self.path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            self._step("fsync")
            os.fsync(folder)
        finally:
            os.close(folder)


class Landing:
    """One landing, begun or found."""

    def __init__(self, live: Live, journal: Journal, step: Step) -> None:
        self._live, self._journal, self._step = live, journal, step
        self._together = False

    def begin(self, digest: str, operations: list[Operation], content: Callable[[str, int], None]) -> None:
        """Land `operations`, which name nothing twice and are in the order of their paths.

        Args:
            content: writes the content of a digest into an open file.

        Raises:
            Conflict: somebody changed a place meanwhile; all is as it was.
            SandboxError: the folder cannot take it (no space, no right); all is as it was.
        """
        token = secrets.token_hex(8)
        for number, operation in enumerate(operations):
            head, slash, _ = operation.path.rpartition("/")
            operation.beside = f"{head}{slash}.midwatch-{token}-{number}"
        order = {"put": 0, "swap": 1, "mode": 2, "drop": 3}
        journal = self._journal
        journal.digest = digest
        journal.operations = sorted(operations, key=lambda item: order[item.do])
        self._together = sum(len(item.new) for item in operations) >= _MANY
        journal.save("staging")
        try:
            for operation in journal.operations:
                self._stage(operation, content)
            self._durable(staged=True)
            journal.save("writing")
        except Unreachable as error:
            self._undone()
            raise Conflict(f"nothing was committed: {error}") from error
        except OSError as error:
            self._undone()
            raise SandboxError(f"nothing was committed: the workspace does not take it ({error.strerror})") from error
        except SandboxError:
            self._undone()
            raise
        self._write()

    def resume(self) -> Literal["done", "undone"]:
        """Finish what was begun, or undo it.

        Raises:
            SandboxError: neither can be done without losing what somebody wrote meanwhile; the message names it.
        """
        match self._journal.phase:
            case "staging" | "undone":
                self._undone()
                return "undone"
            case "writing":
                try:
                    self._write()
                except (Conflict, SandboxError):
                    if self._journal.is_over:
                        return "undone"
                    raise
            case "done":
                self._tidy()
        return "done"

    # -------------------------------------------------------------------------------------------- staging

    def _stage(self, operation: Operation, content: Callable[[str, int], None]) -> None:
        if not operation.new:
            return
        names = sorted(operation.new, key=in_order)
        for name in names:
            self._make(f"{operation.beside}/{name}" if name else operation.beside, operation.new[name], content)
        for name in reversed(names):
            if operation.new[name].kind == "folder":
                path = f"{operation.beside}/{name}" if name else operation.beside
                self._live.chmod(path, operation.new[name].mode)
        found = self._live.standing(operation.beside, hashed=False)
        operation.ino = found.ino if found else 0

    def _make(self, path: str, new: New, content: Callable[[str, int], None]) -> None:
        folder, name = self._live.place(path)
        self._step("make")
        if new.kind == "folder":
            os.mkdir(name, 0o700, dir_fd=folder)
        elif new.kind == "link":
            os.symlink(raw(new.target or ""), name, dir_fd=folder)
        else:
            file = os.open(name, _MAKE, 0o600, dir_fd=folder)
            try:
                content(new.sha256 or "", file)
                with suppress(PermissionError):
                    os.fchown(file, *new.owner)
                os.fchmod(file, new.mode)
                if not self._together:
                    self._step("fsync")
                    os.fsync(file)
            finally:
                os.close(file)
            return
        with suppress(PermissionError):  # a plain user gives nothing away: it is then the user's own
            os.chown(name, *new.owner, dir_fd=folder, follow_symlinks=False)

    # -------------------------------------------------------------------------------------------- writing

    def _write(self) -> None:
        live, done = self._live, list[Operation]()
        try:
            for operation in self._journal.operations:
                done.append(operation)
                if not self._is_done(operation):
                    self._do(operation)
                wrong = self._displaced(operation)
                if wrong:
                    raise _Changed(operation.path, wrong)
            self._durable(staged=False)
        except (_Changed, Unreachable, OSError) as error:
            live.forget()
            self._back(done)
            self._undone()
            path = done[-1].path
            if isinstance(error, OSError) and error.errno not in _MOVED:
                raise SandboxError(
                    f"nothing was committed: the workspace does not take `{path}` ({error.strerror})"
                ) from error
            why = error.strerror if isinstance(error, OSError) else str(error)
            raise Conflict(
                f"nothing was committed, `{path}` changed while it was written: {why}; look at it, then commit again or discard"
            ) from error
        self._journal.save("done")
        self._tidy()

    def _do(self, operation: Operation) -> None:
        if operation.do == "mode":
            wrong = self._stays(operation)
            if wrong:
                raise _Changed(operation.path, wrong)
            self._live.chmod(operation.path, operation.modes[1])
        elif operation.do == "drop":
            self._live.rename(operation.path, operation.beside)
        else:
            self._live.rename(operation.beside, operation.path, swap=operation.do == "swap")

    def _is_done(self, operation: Operation) -> bool:
        # Judged by what lies beside, whose name nobody else uses; at the place itself somebody may have written since.
        if operation.do == "mode":
            found = self._live.standing(operation.path, hashed=False)
            return found is not None and found.mode == operation.modes[1]
        beside = self._live.standing(operation.beside, hashed=False)
        if operation.do == "drop":
            return beside is not None
        return beside is None or beside.ino != operation.ino

    def _displaced(self, operation: Operation) -> str | None:
        # What came out of its place, checked where nobody looks for it any more; of a mode, what got it.
        if operation.do in ("swap", "drop"):
            return self._live.holds(operation.beside, *operation.gone())
        return self._stays(operation) if operation.do == "mode" else None

    def _stays(self, operation: Operation) -> str | None:
        what = operation.old[""]
        found = self._live.standing(operation.path, hashed=what[0] == "file")
        if found is None or (found.kind, found.sha256) != what:
            return "it is gone" if found is None else "it has changed"
        return None

    def _back(self, done: Sequence[Operation]) -> None:
        # Every step back is taken only where what stands there is what this landing put there.
        lost = []
        for operation in reversed(done):
            try:
                if not self._is_done(operation):
                    continue
                if operation.do in ("put", "swap") and self._live.holds(operation.path, *operation.made()):
                    lost.append(operation.path)
                elif operation.do == "mode":
                    self._live.chmod(operation.path, operation.modes[0])
                elif operation.do == "put":
                    self._live.rename(operation.path, operation.beside)
                elif operation.do == "drop":
                    self._live.rename(operation.beside, operation.path)
                else:
                    self._live.rename(operation.beside, operation.path, swap=True)
            except (Unreachable, OSError):
                lost.append(operation.path)
        if lost:
            raise SandboxError(
                "the commit can be neither finished nor undone without losing what somebody wrote meanwhile to "
                + ", ".join(f"`{path}`" for path in sorted(lost))
                + "; what it replaced lies beside under names that begin with `.midwatch-`. "
                f"Put them right, then remove the journal `{self._journal.path}`"
            )

    # --------------------------------------------------------------------------------------------- ending

    def _undone(self) -> None:
        self._live.forget()
        for operation in self._journal.operations:
            try:
                beside = self._live.standing(operation.beside, hashed=False) if operation.new else None
            except Unreachable:
                continue  # its folder was taken away, and what was staged went with it
            if beside is not None and operation.ino in (0, beside.ino):
                self._live.remove(operation.beside, operation.made()[1])
        if self._journal.phase != "undone":
            self._journal.save("undone")

    def _tidy(self) -> None:
        for operation in self._journal.operations:
            if operation.do in ("swap", "drop"):
                self._live.remove(operation.beside, operation.gone()[1])

    def _durable(self, *, staged: bool) -> None:
        if staged and self._together:
            self._step("fsync")
            sync_all(self._live.root)
            return
        heads = {operation.path.rpartition("/")[0] for operation in self._journal.operations}
        if staged:
            for operation in self._journal.operations:
                folders = (name for name, new in operation.new.items() if new.kind == "folder")
                heads |= {f"{operation.beside}/{name}" if name else operation.beside for name in folders}
        for head in sorted(heads):
            self._live.sync(head)


class _Changed(Exception):
    def __init__(self, path: str, why: str) -> None:
        self.path = path
        super().__init__(why)


def _operation(item: dict[str, Any]) -> Operation:
    new = {
        name: New(kind, mode, (owner[0], owner[1]), sha256, target)
        for name, (kind, mode, owner, sha256, target) in item["new"].items()
    }
    old: dict[str, What] = {name: (what[0], what[1]) for name, what in item["old"].items()}
    return Operation(**{**item, "new": new, "old": old, "modes": (item["modes"][0], item["modes"][1])})
