"""Archives of runs that were made to do harm: names that lead elsewhere, bombs, missing and swapped parts."""

from __future__ import annotations

import contextlib
import io
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import orjson
import pytest

from midwatch.engine.replaying import replay
from midwatch.errors import MidwatchError, NotFound, UsageProblem
from midwatch.store.memory import MemoryStore
from midwatch.tracing import export
from midwatch.tracing.recording import Recording, damage, read_run
from tests.recorded_run import RUN, record


@pytest.fixture
def recording() -> Recording:
    """Give a run as a store has it."""
    with contextlib.closing(MemoryStore()) as store:
        record(store)
        return read_run(store, RUN)


def _entries(body: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(body)) as file:
        return {info.filename: file.read(info) for info in file.infolist()}


def _zip(entries: list[tuple[str, bytes]]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as file:
        for name, body in entries:
            file.writestr(name, body)
    return out.getvalue()


@pytest.mark.req("EXPORT-1")
def test_there_and_back(recording: Recording) -> None:
    """What is packed is read back as it was, and the same run gives the same bytes."""
    body = export.pack(recording)
    assert recording.events == export.unpack(body).events
    assert recording.blobs == export.unpack(body).blobs
    assert body == export.pack(export.unpack(body))


@pytest.mark.req("EXPORT-1")
@pytest.mark.parametrize(
    "name",
    [
        "../../etc/cron.d/x",
        "/etc/passwd",
        "blobs/../manifest.json",
        "blobs/" + "A" * 64,
        "blobs\\x",
        "manifest.json\n",
        "more",
        "blobs/",
    ],
)
def test_names_that_lead_elsewhere(recording: Recording, tmp_path: Path, name: str) -> None:
    """An entry of any other name is refused, and nothing of the archive reaches a disk."""
    place = tmp_path / "in" / "run"
    place.parent.mkdir()
    place.write_bytes(_zip([*_entries(export.pack(recording)).items(), (name, b"x")]))
    with pytest.raises(UsageProblem, match="an entry that no archive"):
        export.read_archive(place)
    assert [place.parent] == list(tmp_path.iterdir())


@pytest.mark.req("EXPORT-1")
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_an_entry_that_is_there_twice(recording: Recording) -> None:
    """Two entries of one name are refused: readers differ in which of them they take."""
    entries = [*_entries(export.pack(recording)).items()]
    with pytest.raises(UsageProblem, match="an entry that no archive"):
        export.unpack(_zip([*entries, ("manifest.json", b"{}")]))


@pytest.mark.req("EXPORT-1")
def test_a_bomb(recording: Recording, monkeypatch: pytest.MonkeyPatch) -> None:
    """What unpacks to more than the bound is refused while it is read, whatever its header claims."""
    monkeypatch.setattr(export, "MOST_BYTES", 1 << 20)
    bomb = _zip([*_entries(export.pack(recording)).items(), ("blobs/" + "0" * 64, bytes(1 << 24))])
    assert len(bomb) < 1 << 18
    with pytest.raises(UsageProblem, match="larger than"):
        export.unpack(bomb)
    monkeypatch.setattr(export, "MOST_ENTRIES", 3)
    with pytest.raises(UsageProblem, match="more than 3 entries"):
        export.unpack(export.pack(recording))


@pytest.mark.req("EXPORT-1")
def test_a_missing_and_a_swapped_body(recording: Recording) -> None:
    """A body that is missing, or is another one under its name, is found at the event that names it."""
    chosen = next(event for event in recording.events if "result_blob" in event.data)
    digest = chosen.data["result_blob"]
    entries = _entries(export.pack(recording))
    gone = export.unpack(_zip([item for item in entries.items() if item[0] != f"blobs/{digest}"]))
    assert (chosen.seq, True) == (damage(gone)[0].event, "is missing" in damage(gone)[0].message)
    other = export.unpack(_zip([*{**entries, f"blobs/{digest}": b"{}"}.items()]))
    assert (chosen.seq, True) == (damage(other)[0].event, "was changed" in damage(other)[0].message)
    found = replay(other)
    assert (False, chosen.seq) == (found.identical, found.difference.event if found.difference else None)


@pytest.mark.req("EXPORT-1")
@pytest.mark.parametrize("kind", ["dropped", "swapped", "another run", "cause"])
def test_events_that_were_moved(recording: Recording, kind: str) -> None:
    """A dropped, reordered, foreign or edited event is found."""
    events = list(recording.events)
    if kind == "dropped":
        del events[0]
    elif kind == "swapped":
        events[3], events[4] = events[4], events[3]
    elif kind == "another run":
        events[3] = replace(events[3], run="0" * 32)
    else:
        events[-1] = replace(events[-1], causes=(1,))
    assert damage(replace(recording, events=tuple(events)))


@pytest.mark.req("EXPORT-1")
@pytest.mark.parametrize(
    "harm",
    [
        lambda body: b"",
        lambda body: b"PK not really",
        lambda body: body[: len(body) // 2],
        lambda body: body[:-40],
        lambda body: _zip([("manifest.json", b"[]"), ("events.jsonl", b"")]),
        lambda body: _zip([("manifest.json", b"not json")]),
        lambda body: _zip([("manifest.json", orjson.dumps({"format": "midwatch.run/9"}))]),
        lambda body: _zip([*{**_entries(body), "events.jsonl": b'{"event": 1}\n'}.items()]),
        lambda body: _zip([*{**_entries(body), "events.jsonl": b"[" * 100_000}.items()]),
        lambda body: _zip([*{**_entries(body), "events.jsonl": b""}.items()]),
    ],
)
def test_what_is_no_archive(recording: Recording, harm: Callable[[bytes], bytes]) -> None:
    """Whatever is no archive of a run ends in a sentence, never in a traceback."""
    with pytest.raises(MidwatchError):
        export.unpack(harm(export.pack(recording)))


@pytest.mark.req("EXPORT-1")
def test_any_flipped_byte(recording: Recording) -> None:
    """An archive with any one byte changed is refused, found damaged, or holds the very same record."""
    body = export.pack(recording)
    for place in range(0, len(body), 97):
        changed = body[:place] + bytes([body[place] ^ 0x20]) + body[place + 1 :]
        try:
            found = export.unpack(changed)
        except UsageProblem:
            continue
        assert damage(found) or (found.events, found.blobs) == (recording.events, recording.blobs)


@pytest.mark.req("EXPORT-1")
def test_where_it_is_written(recording: Recording, tmp_path: Path) -> None:
    """A file is new, its owner's alone, and a damaged run is not exported; a folder or nothing is no archive."""
    place = tmp_path / "run"
    whole = replace(recording, row={**recording.row, "input": None})
    broken = replace(whole, blobs={})
    with pytest.raises(UsageProblem, match="damaged"):
        export.write_archive(broken, place)
    assert not place.exists()
    with pytest.raises(NotFound):
        export.read_archive(place)
    with pytest.raises(UsageProblem):
        export.read_archive(tmp_path)
