"""Layers: what one call did, frozen and digested, out of reach of whoever did it.

In:   changes and requests, the contents behind them. Out: `Layer`; a run's layers as one state (`fold`), two calls that met (`conflicts`).
May import: effects, errors. Must not know: who calls, what is allowed.

One file a layer: magic, length and SHA-256 of the manifest, the manifest as canonical JSON, then the contents one after the other;
the manifest says where each lies. It is written beside its place and renamed, so that it is whole or absent.
"""

from __future__ import annotations

import hashlib
import io
import os
import struct
import tempfile
from bisect import bisect_left
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Final

import orjson

from midwatch.errors import LayerLost, SandboxError
from midwatch.sandbox.effects import CHANGING, Change, Request

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

__all__ = ["Layer", "Spool", "below", "conflicts", "contents_of", "fold", "in_order", "open_content", "read", "write"]

_HEAD: Final = struct.Struct(">8sQ32s")
_MAGIC: Final = b"MWLAYER1"
_SMALL: Final = 1 << 20
_MANIFEST: Final = 1 << 30
"""No manifest is longer, bytes: a damaged length must not take the memory."""


@dataclass(frozen=True, slots=True)
class Layer:
    """What one call did.

    Attributes:
        changes: in the order of their paths. requests: in the order they were tried.
        digest: SHA-256 hex of the manifest: all of the above, so every content by its digest. Empty layer: empty text.
        file: where manifest and contents lie; None when nothing needs contents.
    """

    changes: tuple[Change, ...] = ()
    requests: tuple[Request, ...] = ()
    digest: str = ""
    file: Path | None = None


class Spool:
    """Contents on their way into a layer: each once, in a file without a name that goes with its last descriptor."""

    def __init__(self, folder: Path | None = None, *, max_bytes: int = 256 << 20) -> None:
        self._file = -1
        self.max_bytes = max_bytes
        self.index: dict[str, tuple[int, int]] = {}
        with tempfile.TemporaryFile(dir=folder, buffering=0) as file:
            self._file = os.dup(file.fileno())
        self._end = 0
        self._waiting = bytearray()

    def add(self, data: bytes, *, unless: str | None = None) -> str:
        """Keep `data` under its digest, which is given; nothing is kept when the digest is `unless`."""
        digest = hashlib.sha256(data).hexdigest()
        if digest != unless and digest not in self.index:
            self._room(len(data))
            self.index[digest] = (self._end, len(data))
            self._append(data)
        return digest

    def add_file(self, file: int, size: int, *, unless: str | None = None) -> str:
        """Keep what an open file holds from its start; as `add`, without holding it in memory.

        Raises:
            SandboxError: it does not hold `size` bytes, or there is no room.
        """
        if size <= _SMALL:
            data = _read_all(file, size)
            return self.add(data, unless=unless)
        self._room(size)
        self._flush()
        start, digest, got = self._end, hashlib.sha256(), 0
        while got < size and (data := os.pread(file, _SMALL, got)):
            digest.update(data)
            self._append(data)
            got += len(data)
        if got != size:
            raise SandboxError("a file changed while its effects were read; the call is refused")
        name = digest.hexdigest()
        if name == unless or name in self.index:
            self._flush()
            self._end = start
            os.ftruncate(self._file, start)
            os.lseek(self._file, start, os.SEEK_SET)
        else:
            self.index[name] = (start, size)
        return name

    def into(self, target: int) -> None:
        """Append everything kept to `target`, at its position."""
        self._flush()
        at = 0
        while at < self._end:
            sent = os.sendfile(target, self._file, at, min(self._end - at, 1 << 30))
            if sent == 0:
                raise SandboxError("the contents of a call were cut while they were kept")
            at += sent

    def close(self) -> None:
        """Give the file back."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def __del__(self) -> None:
        self.close()

    def _room(self, size: int) -> None:
        if self._end + size > self.max_bytes:
            raise SandboxError(
                f"what the call wrote is larger than {self.max_bytes:,} bytes, so it is not kept; "
                "raise `limits.disk` of the sandbox, or let the call write less"
            )

    def _append(self, data: bytes) -> None:
        self._waiting += data
        self._end += len(data)
        if len(self._waiting) >= _SMALL:
            self._flush()

    def _flush(self) -> None:
        _write_all(self._file, self._waiting)
        self._waiting = bytearray()


def write(
    path: Path,
    changes: Iterable[Change],
    requests: Iterable[Request] = (),
    contents: Spool | None = None,
    bodies: Mapping[str, bytes] | None = None,
) -> Layer:
    """Freeze what one call did into the file `path`, durable when this returns. A call that did nothing gets no file.

    Args:
        path: in an existing folder. contents: of every change that has a new content. bodies: of staged requests, by digest.
    """
    ordered = tuple(sorted(changes, key=lambda change: change.path))
    tried = tuple(requests)
    if not ordered and not tried:
        return Layer()
    if contents is None:
        contents = Spool(path.parent)
    for body in (bodies or {}).values():
        contents.add(body)
    manifest = orjson.dumps(
        {
            "changes": [change.to_json() for change in ordered],
            "requests": [request.to_json() for request in tried],
            "contents": contents.index,
        },
        option=orjson.OPT_SORT_KEYS,
    )
    digest = hashlib.sha256(manifest)
    _place(path, _HEAD.pack(_MAGIC, len(manifest), digest.digest()) + manifest, contents)
    return Layer(ordered, tried, digest.hexdigest(), path)


def read(path: Path) -> Layer:
    """Read a layer's manifest; its contents are checked when they are read.

    Raises:
        SandboxError: it is missing, damaged, or no layer. Restore it, or start the run again.
    """
    manifest, digest, _ = _manifest(path)
    try:
        data = orjson.loads(manifest)
        changes = tuple(Change.from_json(item) for item in data["changes"])
        requests = tuple(Request.from_json(item) for item in data["requests"])
    except (ValueError, TypeError, KeyError) as error:
        raise _damaged(path, f"its manifest cannot be read ({error})") from error
    return Layer(changes, requests, digest, path)


def open_content(layer: Layer, sha256: str) -> BinaryIO:
    """Open one content of a layer; reading to its end checks it against `sha256`. The caller closes it.

    Raises:
        SandboxError: the layer does not hold it; while reading: what it holds is not what was kept.
    """
    start, index = _index(layer.file, layer.digest) if layer.file else (0, {})
    place = index.get(sha256)
    if place is None or layer.file is None:
        raise SandboxError(f"the layer `{layer.digest[:12]}` holds no content `{sha256[:12]}`; it cannot be replayed")
    return io.BufferedReader(_Content(layer.file, start + place[0], place[1], sha256), 1 << 16)


def contents_of(layers: Sequence[Layer]) -> dict[str, Layer]:
    """Say which of the layers holds each content."""
    return {name: layer for layer in layers if layer.file for name in _index(layer.file, layer.digest)[1]}


def fold(layers: Sequence[Layer], *, base: Mapping[str, Change] | None = None) -> dict[str, Change]:
    """Give the state that all layers together leave, one change a path, relative to what the first of them found.

    That is what the workspace held before the run, or, where `layers` begins later, what the layers before had made of it.
    `base` is what an earlier `fold` gave of the layers before these.

    A folder that went takes with it what earlier layers did below. What was made and went again, or came back to what it was, is
    not listed. `base`, `was` and `was_mode` are what the first touch found; `op` is what it takes to get from there to the end.
    """
    state: dict[str, Change] = dict(base or {})
    for layer in layers:
        gone: set[str] = set()
        touched: set[str] = set()
        for change in layer.changes:
            if change.op not in CHANGING:
                continue
            first = state.get(change.path)
            touched.add(change.path)
            if (change.op == "deleted" or change.kind != "folder") and "folder" in (
                change.kind, first.kind if first else None, change.was
            ):  # fmt: skip
                gone.add(change.path)
            _settle(state, change.path, _relative(first, change))
        for path in below(state, gone):
            if path not in touched:
                _settle(state, path, _relative(state[path], replace(state[path], op="deleted")))
    return dict(sorted(state.items()))


def conflicts(new: Layer, since: Sequence[Layer]) -> list[str]:
    """Give the paths where `new`, which did not see `since`, meets it: the same path, or something below what is no folder any more.

    Two calls that make the same folder, with the same mode, do not meet there.
    """
    mine = {change.path: change for change in new.changes if change.op in CHANGING}
    theirs: dict[str, Change] = {}
    for layer in since:
        theirs.update((change.path, change) for change in layer.changes if change.op in CHANGING)
    met = {path for path in mine.keys() & theirs.keys() if not _same_folder(mine[path], theirs[path])}
    for here, there in ((mine, theirs), (theirs, mine)):
        gone = {path for path, change in here.items() if change.op == "deleted" or change.kind != "folder"}
        met |= {path for path in below(there, gone) if there[path].op != "deleted"}
    return sorted(met)


def below(paths: Iterable[str], heads: Collection[str]) -> list[str]:
    """Give those of `paths` that lie below one of `heads`. In one pass, however deep an agent has made them."""
    if not heads:
        return []
    ordered = sorted(paths)
    found: list[str] = []
    last = None
    for head in sorted(heads, key=in_order):
        if last is not None and head.startswith(last):
            continue
        last = f"{head}/"
        found += ordered[bisect_left(ordered, last) : bisect_left(ordered, f"{head}0")]  # `0` is what comes after `/`
    return found


def in_order(path: str) -> str:
    """Give a key by which a folder comes right before all that is below it."""
    return path.replace("/", "\0")


class _Content(io.RawIOBase):
    """One content inside of a layer's file."""

    def __init__(self, path: Path, start: int, size: int, sha256: str) -> None:
        super().__init__()
        self._path, self._at, self._left, self._sha256 = path, start, size, sha256
        self._digest = hashlib.sha256()
        self._file = -1
        try:
            self._file = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError as error:
            raise _damaged(path, error.strerror or str(error)) from error

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer) -> int:
        view = memoryview(buffer).cast("B")
        data = os.pread(self._file, min(len(view), self._left), self._at)
        if not data and (self._left or self._digest.hexdigest() != self._sha256):
            raise _damaged(self._path, f"the content `{self._sha256[:12]}` is not what was kept")
        self._digest.update(data)
        view[: len(data)] = data
        self._at += len(data)
        self._left -= len(data)
        return len(data)

    def close(self) -> None:
        if not self.closed and self._file >= 0:
            os.close(self._file)
        super().close()


def _relative(first: Change | None, change: Change) -> Change | None:
    # `change` as seen from before the first of the layers; None where nothing is left to tell.
    existed = (first or change).op != "created"
    if first is not None:
        base, was, was_mode = first.base, first.was, first.was_mode
    else:
        # What the call found: the same as before the run, but where the layers before these were committed meanwhile.
        base, was, was_mode = change.before, (change.was or change.kind) if existed else None, change.was_mode
    flags = change.flags
    if first is not None and "moved" in first.flags and "moved" not in flags:
        flags = (*flags, "moved")
    end = replace(change, base=base, before=base, was=was, was_mode=was_mode, flags=flags)
    if change.op == "deleted":
        return (
            replace(end, kind=was or change.kind, mode=None, size=None, sha256=None, target=None) if existed else None
        )
    if not existed:
        return replace(end, op="created")
    if end.kind == was and end.sha256 == base:
        return None if end.mode == was_mode else replace(end, op="permission")
    return replace(end, op="modified")


def _settle(state: dict[str, Change], path: str, change: Change | None) -> None:
    if change is None:
        state.pop(path, None)
    else:
        state[path] = change


def _same_folder(one: Change, other: Change) -> bool:
    return "folder" == one.kind == other.kind and one.op == other.op != "deleted" and one.mode == other.mode


def _place(path: Path, head: bytes, contents: Spool) -> None:
    beside = path.with_name(f".{path.name}.new")  # a name that a killed process may have left is taken over
    file = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        try:
            _write_all(file, head)
            contents.into(file)
            os.fsync(file)
        finally:
            os.close(file)
        beside.rename(path)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _manifest(path: Path) -> tuple[bytes, str, int]:
    # The manifest, its digest, and where the contents begin.
    try:
        with path.open("rb") as file:
            head = file.read(_HEAD.size)
            if len(head) != _HEAD.size:
                raise _damaged(path, "it is cut")
            magic, length, digest = _HEAD.unpack(head)
            if magic != _MAGIC or length > _MANIFEST:
                raise _damaged(path, "it is no layer of this version")
            manifest = file.read(length)
    except OSError as error:
        raise _damaged(path, error.strerror or str(error)) from error
    if len(manifest) != length or hashlib.sha256(manifest).digest() != digest:
        raise _damaged(path, "its manifest is not what was kept")
    return manifest, digest.hex(), _HEAD.size + length


@lru_cache(maxsize=64)
def _index(path: Path, digest: str) -> tuple[int, dict[str, tuple[int, int]]]:
    manifest, found, start = _manifest(path)
    if found != digest:
        raise _damaged(path, "it is another layer than the one that was recorded")
    try:
        return start, {
            str(name): (int(at), int(size)) for name, (at, size) in orjson.loads(manifest)["contents"].items()
        }
    except (ValueError, TypeError, KeyError) as error:
        raise _damaged(path, f"its manifest cannot be read ({error})") from error


def _damaged(path: Path, why: str) -> LayerLost:
    return LayerLost(f"the layer `{path}` cannot be used: {why}; restore it from a copy, or start the run again")


def _read_all(file: int, size: int) -> bytes:
    data = os.pread(file, size + 1, 0)
    while len(data) < size and (more := os.pread(file, size + 1 - len(data), len(data))):
        data += more
    if len(data) != size:
        raise SandboxError("a file changed while its effects were read; the call is refused")
    return data


def _write_all(file: int, data: bytes | bytearray) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(file, view) :]
