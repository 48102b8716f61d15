"""Layers on disk, what several of them come to, and where two calls met."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from midwatch.errors import SandboxError
from midwatch.sandbox.effects import Change, Kind, Request
from midwatch.sandbox.layers import Layer, Spool, conflicts, contents_of, fold, open_content, read, write


def sha(text: str) -> str:
    """SHA-256 of text."""
    return hashlib.sha256(text.encode()).hexdigest()


def made(path: str, text: str = "x", mode: int = 0o644) -> Change:
    """A created file."""
    return Change("created", path, "file", mode, len(text), sha(text))


def turned(path: str, old: str, new: str) -> Change:
    """A modified file that the workspace had."""
    return Change("modified", path, "file", 0o644, len(new), sha(new), sha(old), sha(old), was="file", was_mode=0o644)


def gone(path: str, old: str | None = "x", *, ours: bool = False) -> Change:
    """A deleted file (or folder, where `old` is None), of the workspace or of the run itself."""
    kind: Kind = "file" if old is not None else "folder"
    digest = None if old is None else sha(old)
    if ours:
        return Change("deleted", path, kind, before=digest, was=kind, was_mode=0o644)
    return Change("deleted", path, kind, base=digest, before=digest, was=kind, was_mode=0o644)


def folder(path: str, mode: int = 0o755) -> Change:
    """A created folder."""
    return Change("created", path, "folder", mode)


# -------------------------------------------------------------------------------------------------------- files


@pytest.mark.req("FILES-1")
def test_a_layer_comes_back_as_it_was_put_in(tmp_path: Path) -> None:
    """Changes in the order of their paths, requests in theirs, contents by digest; only its owner may read it."""
    spool = Spool(tmp_path)
    spool.add(b"b")
    request = Request(1, "POST", "example.org", 443, outcome="staged", body=sha("body"))
    kept = write(tmp_path / "1", [made("b", "b"), gone("a")], [request], spool, {sha("body"): b"body"})
    assert ("a", "b") == tuple(change.path for change in kept.changes)
    assert kept == read(tmp_path / "1")
    assert [b"b", b"body"] == [_content(kept, sha(text)) for text in ("b", "body")]
    assert 0o600 == (tmp_path / "1").stat().st_mode & 0o777
    assert ["1"] == [path.name for path in tmp_path.iterdir()]


@pytest.mark.req("FILES-1")
def test_a_call_that_did_nothing_has_no_file(tmp_path: Path) -> None:
    """Nothing is written, the digest is empty."""
    assert Layer() == write(tmp_path / "1", [], [])
    assert [] == [path.name for path in tmp_path.iterdir()]


@pytest.mark.req("FILES-1")
def test_the_same_call_has_the_same_digest(tmp_path: Path) -> None:
    """The order in which changes are given does not matter; a single bit of one does."""
    one = write(tmp_path / "1", [made("a"), gone("b")])
    assert one.digest == write(tmp_path / "2", [gone("b"), made("a")]).digest
    assert one.digest != write(tmp_path / "3", [made("a", mode=0o600), gone("b")]).digest


@pytest.mark.req("FILES-1")
@pytest.mark.parametrize("at", [0, 20, 60, -1])
def test_every_changed_byte_is_found(tmp_path: Path, at: int) -> None:
    """In head and manifest when the layer is read, in a content when that is."""
    spool = Spool(tmp_path)
    spool.add(b"hello")
    kept = write(tmp_path / "1", [made("a", "hello")], (), spool)
    data = bytearray((tmp_path / "1").read_bytes())
    data[at] ^= 1
    (tmp_path / "2").write_bytes(data)
    with pytest.raises(SandboxError, match="restore it from a copy"):
        _content(read(tmp_path / "2"), kept.changes[0].sha256 or "")


@pytest.mark.req("FILES-1")
@pytest.mark.parametrize("size", [0, 5, 50, -1])
def test_a_cut_layer_is_no_layer(tmp_path: Path, size: int) -> None:
    """Wherever it ends."""
    spool = Spool(tmp_path)
    spool.add(b"hello")
    write(tmp_path / "1", [made("a", "hello")], (), spool)
    data = (tmp_path / "1").read_bytes()
    (tmp_path / "1").write_bytes(data[:size])
    with pytest.raises(SandboxError):
        _content(read(tmp_path / "1"), sha("hello"))


@pytest.mark.req("FILES-1")
def test_another_layer_in_its_place_is_told(tmp_path: Path) -> None:
    """A content is taken only from the layer that was recorded."""
    kept = write(tmp_path / "1", [made("a", "hello")])
    spool = Spool(tmp_path)
    spool.add(b"hello")
    write(tmp_path / "1", [made("b", "hello")], (), spool)
    with pytest.raises(SandboxError, match="another layer"):
        _content(kept, sha("hello"))


@pytest.mark.req("FILES-1")
def test_a_missing_layer_is_told(tmp_path: Path) -> None:
    """With what to do."""
    with pytest.raises(SandboxError, match="start the run again"):
        read(tmp_path / "none")


@pytest.mark.req("FILES-5")
def test_a_spool_has_a_bound_and_keeps_each_content_once(tmp_path: Path) -> None:
    """What is there already, and what the caller knows, takes no room."""
    spool = Spool(tmp_path, max_bytes=10)
    for _ in range(5):
        spool.add(b"12345")
    spool.add(b"known" * 3, unless=hashlib.sha256(b"known" * 3).hexdigest())
    with pytest.raises(SandboxError, match=r"limits\.disk"):
        spool.add(b"678901")
    assert {sha("12345"): (0, 5)} == spool.index


# --------------------------------------------------------------------------------------------------------- fold


@pytest.mark.req("FILES-2")
@pytest.mark.parametrize(
    ("calls", "expected"),
    [
        pytest.param([[made("a", "1")], [gone("a", "1", ours=True)]], {}, id="made, then gone"),
        pytest.param([[turned("a", "0", "1")], [gone("a", "0")]], {"a": ("deleted", None, "0")}, id="turned, then gone"),
        pytest.param([[gone("a", "0")], [made("a", "1")]], {"a": ("modified", "1", "0")}, id="gone, then made anew"),
        pytest.param([[gone("a", "0")], [made("a", "0")]], {}, id="gone, then back"),
        pytest.param([[turned("a", "0", "1")], [turned("a", "1", "0")]], {}, id="there and back"),
        pytest.param([[turned("a", "0", "1")], [turned("a", "1", "2")]], {"a": ("modified", "2", "0")}, id="turned twice"),
        pytest.param([[made("a", "1")], [turned("a", "1", "2")]], {"a": ("created", "2", None)}, id="made, then turned"),
        pytest.param(
            [[made("a", "1")], [Change("permission", "a", "file", 0o700, 1, sha("1"), before=sha("1"))]],
            {"a": ("created", "1", None)},
            id="made, then its mode",
        ),
        pytest.param(
            [[folder("d"), made("d/a"), made("e")], [gone("d", None, ours=True)]],
            {"e": ("created", "x", None)},
            id="a folder takes what is below",
        ),
        pytest.param(
            [[turned("d/a", "0", "1"), made("d/b")], [gone("d", None)]],
            {"d": ("deleted", None, None), "d/a": ("deleted", None, "0")},
            id="a folder of the workspace, too",
        ),
        pytest.param(
            [[made("d/a"), turned("dd", "0", "1")], [Change("modified", "d", "file", 0o644, 1, sha("f"), was="folder")]],
            {"d": ("modified", "f", None), "dd": ("modified", "1", "0")},
            id="a file in the place of a folder",
        ),
        pytest.param(
            [[made("a"), Change("read", "b", "file"), Change("executed", "a", "file")]], {"a": ("created", "x", None)}, id="reads"
        ),
    ],
)  # fmt: skip
def test_layers_fold(calls: list[list[Change]], expected: dict[str, tuple[str, str | None, str | None]]) -> None:
    """By path: what it takes to get from the workspace to the end, the content at the end, the content before the run."""
    digest = {None: None} | {sha(text): text for text in "0123xf"}
    found = fold([Layer(tuple(changes)) for changes in calls])
    assert expected == {path: (item.op, digest[item.sha256], digest[item.base]) for path, item in found.items()}
    half = fold([Layer(tuple(changes)) for changes in calls[:1]])
    assert found == fold([Layer(tuple(changes)) for changes in calls[1:]], base=half)


@pytest.mark.req("FILES-2")
def test_layers_after_a_commit_start_from_what_was_committed() -> None:
    """Without the layers that were committed, the first touch is from what it found, not from before the run."""
    later = Change("modified", "a", "file", 0o644, 1, sha("2"), sha("0"), sha("1"), was="file", was_mode=0o600)
    found = fold([Layer((later, Change("deleted", "b", "file", before=sha("x"), was="file", was_mode=0o644)))])
    assert ("modified", sha("1"), 0o600) == (found["a"].op, found["a"].base, found["a"].was_mode)
    assert ("deleted", sha("x")) == (found["b"].op, found["b"].base)


@pytest.mark.req("FILES-2")
def test_a_change_of_the_workspace_itself_is_never_forgotten() -> None:
    """That the first touch met a moved file is kept through every later one."""
    first = Change(
        "modified", "a", "file", 0o644, 1, sha("1"), sha("0"), sha("0"), flags=("moved",), was="file", was_mode=0o644
    )
    assert ("moved",) == fold([Layer((first,)), Layer((turned("a", "1", "2"),))])["a"].flags


@pytest.mark.req("FILES-2")
def test_contents_are_found_in_any_layer(tmp_path: Path) -> None:
    """A file whose mode changed later lies in the layer that made it."""
    spool = Spool(tmp_path)
    spool.add(b"x")
    first = write(tmp_path / "1", [made("a")], (), spool)
    second = write(tmp_path / "2", [Change("permission", "a", "file", 0o700, 1, sha("x"))])
    assert {sha("x"): first} == contents_of([first, second, Layer()])


# ---------------------------------------------------------------------------------------------------- conflicts


@pytest.mark.req("FILES-3")
@pytest.mark.parametrize(
    ("new", "since", "expected"),
    [
        ([made("a")], [made("b")], []),
        ([made("a")], [made("a")], ["a"]),
        ([turned("a", "0", "1")], [gone("a", "0")], ["a"]),
        ([folder("d"), made("d/a")], [folder("d"), made("d/b")], []),
        ([folder("d", 0o700)], [folder("d")], ["d"]),
        ([made("d/a")], [gone("d", None)], ["d/a"]),
        ([gone("d", None)], [made("d/a")], ["d/a"]),
        ([made("d/a")], [Change("modified", "d", "link", 0o777, was="folder")], ["d/a"]),
        ([made("d/a")], [Change("permission", "d", "folder", 0o700)], []),
        ([made("da")], [gone("d", None)], []),
        ([made("a")], [Change("read", "a", "file")], []),
    ],
)
def test_where_two_calls_met(new: list[Change], since: list[Change], expected: list[str]) -> None:
    """The same path, or below what is no folder any more; the same folder made twice, and reading, are no meeting."""
    assert expected == conflicts(Layer(tuple(new)), [Layer(), Layer(tuple(since))])


def _content(layer: Layer, digest: str) -> bytes:
    with open_content(layer, digest) as content:
        return content.read()
