"""Export: one run as one file that another machine can read: events, bodies, the run's row; and that file read back, trusting nothing.

In:   a recording, or a file. Out: a file; a recording.
May import: recording, records, errors. Must not know: stores, who replays it.

    manifest.json    format, run, row, counts            events.jsonl    one event a line, with the hash before it and its own
    blobs/DIGEST     one body each, named by its SHA-256

The archive is a zip whose names are fixed before it is opened: nothing is ever unpacked onto a disk, every entry is read into memory under
a bound, and any other name is refused. The same run gives the same bytes.
"""

from __future__ import annotations

import hashlib
import io
import os
import re
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import orjson

from midwatch.errors import NotFound, UsageProblem
from midwatch.records.event import EVENT_KINDS, Event
from midwatch.tracing.recording import Recording, body_of, damage

__all__ = ["FORMAT", "MOST_BYTES", "MOST_ENTRIES", "pack", "read_archive", "unpack", "write_archive"]

FORMAT: Final = "midwatch.run/1"
MOST_BYTES: Final = 1 << 30
"""Of everything in an archive together, unpacked."""
MOST_ENTRIES: Final = 500_000
_NAME: Final = re.compile(r"manifest\.json|events\.jsonl|blobs/[0-9a-f]{64}")
_HEX: Final = re.compile(r"[0-9a-f]{64}")
_RUN: Final = re.compile(r"[0-9a-f]{32}")
_PIECE: Final = 1 << 16


def write_archive(recording: Recording, place: Path) -> str:
    """Write a run to a new file that only its owner may read; gives the SHA-256 of the file.

    Raises:
        UsageProblem: the file exists, or the run as it is recorded does not fit its own hashes; nothing was written.
    """
    wrong = damage(recording)
    if wrong:
        raise UsageProblem(
            f"run `{recording.run[:7]}` is damaged and was not exported: event {wrong[0].event}: {wrong[0].message}"
        )
    body = pack(recording)
    try:
        handle = os.open(place, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError as error:
        raise UsageProblem(f"`{place}` is there already; name another file") from error
    except OSError as error:
        raise UsageProblem(f"`{place}` cannot be written: {error.strerror}") from error
    with os.fdopen(handle, "wb") as file:
        file.write(body)
    return hashlib.sha256(body).hexdigest()


def read_archive(place: Path) -> Recording:
    """Read a run back out of a file.

    Raises:
        NotFound: there is no such file. UsageProblem: it is no archive of a run, or too large; it says what is wrong.
    """
    try:
        if place.stat().st_size > MOST_BYTES:
            raise UsageProblem(f"`{place}` is larger than {MOST_BYTES >> 20:,} MiB")
        return unpack(place.read_bytes())
    except FileNotFoundError as error:
        raise NotFound(f"there is no file `{place}`") from error
    except OSError as error:
        raise UsageProblem(f"`{place}` cannot be read: {error.strerror}") from error


def pack(recording: Recording) -> bytes:
    """Give the bytes of an archive; the same recording gives the same ones."""
    manifest = {"format": FORMAT, "run": recording.run, "row": dict(recording.row), "events": len(recording.events)}
    lines = [_line(event) for event in recording.events]
    entries = {"manifest.json": orjson.dumps(manifest, option=orjson.OPT_SORT_KEYS), "events.jsonl": b"".join(lines)}
    entries |= {f"blobs/{digest}": recording.blobs[digest] for digest in sorted(recording.blobs)}
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED, compresslevel=6) as file:
        for name, body in entries.items():
            info = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
            info.external_attr = 0o600 << 16
            info.compress_type = zipfile.ZIP_DEFLATED
            file.writestr(info, body)
    return out.getvalue()


def unpack(body: bytes) -> Recording:
    """Read an archive. Nothing in it is believed yet: hold the recording against its hashes with `recording.damage`.

    Raises:
        UsageProblem: it is no archive of a run, is of another format, or would be too large.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(body)) as file:
            entries = _entries(file)
        return _recording(entries)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        raise UsageProblem(f"this is no archive of a run, or a part of it is missing ({error})") from error
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UsageProblem(
            f"the archive does not hold what one of format `{FORMAT}` does ({type(error).__name__}: {error})"
        ) from error


def _line(event: Event) -> bytes:
    return orjson.dumps({"event": orjson.Fragment(body_of(event)), "hash": event.hash, "prev": event.prev}) + b"\n"


def _entries(file: zipfile.ZipFile) -> dict[str, bytes]:
    listed = file.infolist()
    if len(listed) > MOST_ENTRIES:
        raise UsageProblem(f"the archive has more than {MOST_ENTRIES:,} entries")
    found: dict[str, bytes] = {}
    room = MOST_BYTES
    for info in listed:
        if not _NAME.fullmatch(info.filename) or info.filename in found:
            raise UsageProblem(f"the archive has an entry that no archive of a run has: {info.filename[:100]!r}")
        found[info.filename] = _bounded(file, info, room)
        room -= len(found[info.filename])
    return found


def _bounded(file: zipfile.ZipFile, info: zipfile.ZipInfo, room: int) -> bytes:
    """Read one entry; what it claims to be long counts for nothing."""
    pieces, size = [], 0
    with file.open(info) as stream:
        while piece := stream.read(_PIECE):
            size += len(piece)
            if size > room:
                raise UsageProblem(f"unpacked, the archive is larger than {MOST_BYTES >> 20:,} MiB")
            pieces.append(piece)
    return b"".join(pieces)


def _recording(entries: Mapping[str, bytes]) -> Recording:
    manifest = orjson.loads(entries["manifest.json"])
    if manifest["format"] != FORMAT:
        raise UsageProblem(f"the archive has format `{str(manifest['format'])[:40]}`; this version reads `{FORMAT}`")
    run = manifest["run"]
    if not isinstance(run, str) or not _RUN.fullmatch(run) or not isinstance(manifest["row"], dict):
        raise ValueError("its manifest names no run")
    events = tuple(_event(orjson.loads(line)) for line in entries["events.jsonl"].splitlines())
    if manifest["events"] != len(events):
        raise UsageProblem(f"the archive holds {len(events):,} events where its manifest says {manifest['events']!r}")
    blobs = {name.removeprefix("blobs/"): body for name, body in entries.items() if name.startswith("blobs/")}
    return Recording(run, manifest["row"], events, blobs)


def _event(line: Mapping[str, Any]) -> Event:
    read = line["event"]
    if read["kind"] not in EVENT_KINDS or not isinstance(read["data"], dict) or type(read["seq"]) is not int:
        raise ValueError(f"a line that is no event of a run: {str(read)[:80]}")
    if not all(_HEX.fullmatch(line[key]) for key in ("hash", "prev")):
        raise ValueError(f"event {read['seq']} has no hash")
    return Event(
        seq=read["seq"],
        kind=read["kind"],
        run=read["run"],
        at_us=read["at_us"],
        data=read["data"],
        node=read["node"],
        agent=read["agent"],
        step=read["step"],
        task=read["task"],
        causes=tuple(read["causes"]),
        prev=line["prev"],
        hash=line["hash"],
    )
