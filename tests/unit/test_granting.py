"""What a commit gives: contents come from layers and from the workspace, through no link, and what is lost counts."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path

import pytest

from midwatch.engine import granting
from midwatch.engine.staged import Staged
from midwatch.sandbox import layers, release
from midwatch.sandbox.effects import Change, Request
from midwatch.sandbox.layers import Layer

OLD, MORE, NOTED = b"all:\n\techo\n", b"all:\n\techo\n\tcurl\n", b"# a note\nall:\n\techo\n"


def sha(data: bytes) -> str:
    """Give a content's digest."""
    return hashlib.sha256(data).hexdigest()


def layer(
    folder: Path, name: str, changes: Sequence[Change], *contents: bytes, requests: Sequence[Request] = ()
) -> Layer:
    """Freeze what one call did."""
    folder.mkdir(exist_ok=True)
    spool = layers.Spool(folder)
    for content in contents:
        spool.add(content)
    return layers.write(folder / name, changes, requests, spool)


def makefile(new: bytes, old: bytes = OLD) -> Change:
    """Make the change of a makefile."""
    return Change(
        "modified", "Makefile", "file", 0o644, len(new), sha(new), sha(old), sha(old), was="file", was_mode=0o644
    )


def found(tmp_path: Path, *given: Layer) -> granting.Gives:
    """Judge the commit of these layers into the workspace."""
    workspace = tmp_path / "work"
    planned = release.plan(given, workspace)
    kept = [
        (Staged(1, "e", "a", "t", item), place)
        for item in given
        for place, request in enumerate(item.requests)
        if request.outcome == "staged"
    ]
    return granting.gives(planned.items, kept, given, workspace)


@pytest.fixture(autouse=True)
def _workspace(tmp_path: Path) -> None:
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / "Makefile").write_bytes(OLD)


@pytest.mark.req("AUTHORITY-6")
def test_what_counts_is_what_the_commit_adds_to_the_workspace(tmp_path: Path) -> None:
    """A line more grants, a comment more is inert; what a later call took back does not count, nor what is there already."""
    assert ["packages"] == [
        item.how for item in found(tmp_path, layer(tmp_path / "l", "1", [makefile(MORE)], MORE)).grants
    ]
    noted = found(tmp_path, layer(tmp_path / "l", "2", [makefile(NOTED)], NOTED))
    assert ((), ["packages"]) == (noted.grants, [item.how for item in noted.inert])
    first, second = (
        layer(tmp_path / "l", "3", [makefile(MORE)], MORE),
        layer(tmp_path / "l", "4", [makefile(NOTED, MORE)], NOTED),
    )
    assert () == found(tmp_path, first, second).grants
    (tmp_path / "work" / "Makefile").write_bytes(MORE)
    assert () == found(tmp_path, first).grants


@pytest.mark.req("AUTHORITY-6", "AUTHORITY-2")
@pytest.mark.parametrize("trap", ["moved", "link", "fifo", "gone"])
def test_what_was_there_before_is_read_through_no_link_and_counts_when_it_is_lost(tmp_path: Path, trap: str) -> None:
    """Nothing waits for it, and a comment that cannot be compared is no comment."""
    place = tmp_path / "work" / "Makefile"
    place.unlink()
    if trap == "moved":
        place.write_bytes(b"all:\n\tother\n")
    if trap == "link":
        (tmp_path / "elsewhere").write_bytes(OLD)
        place.symlink_to(tmp_path / "elsewhere")
    if trap == "fifo":
        os.mkfifo(place)
    (grant,) = found(tmp_path, layer(tmp_path / "l", "1", [makefile(NOTED)], NOTED)).grants
    assert ("unknown", False) == (grant.to_whom, grant.proven)


@pytest.mark.req("AUTHORITY-6", "AUTHORITY-2")
def test_a_request_whose_body_is_lost_counts(tmp_path: Path) -> None:
    """A comment is harmless only if its body says so."""
    body = b'{"body": "x"}'
    asked = Request(1, "POST", "api.github.com", 443, "/repos/a/b/issues/1/comments", "staged", body=sha(body))
    assert () == found(tmp_path, layer(tmp_path / "l", "1", [], body, requests=[asked])).grants
    assert found(tmp_path, layer(tmp_path / "l", "2", [], requests=[asked])).grants


@pytest.mark.req("AUTHORITY-6")
def test_many_ordinary_files_cost_little(tmp_path: Path) -> None:
    """Twenty thousand files that no detector cares about are not even opened."""
    changes = [Change("created", f"src/m{number}.py", "file", 0o644, 1, sha(b"x")) for number in range(20_000)]
    given = granting.of_layer(Layer(tuple(changes), (), "00", tmp_path / "missing"), {}, None)
    assert ((), ()) == (given.grants, given.inert)
